"""The words of the house: units, shapes, faults and the records that rooms hand to each other. Imports nothing of ours.

Heavy libraries appear here only as types: importing this file costs NumPy and nothing else.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NewType, Self

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

Microns = NewType("Microns", float)
"""A length on the glass, in micrometres."""
MicronsPerPixel = NewType("MicronsPerPixel", float)
"""Sampling of a slide level, um/px."""
Millimetres = NewType("Millimetres", float)
"""A length in the patient, in millimetres."""

Part = Literal["train", "validation", "calibration", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "calibration", "test")
Kind = Literal["binary", "multiclass", "ordinal", "survival", "regression"]


# ---------------------------------------------------------------------------------------------------------------------
# Faults: one sentence with what, which file or row, and what to do. The exit code is part of the contract.
# ---------------------------------------------------------------------------------------------------------------------


class Fault(Exception):
    """An expected fault: one sentence for the user, and the exit code of the process."""

    exit_code = 1


class UsageFault(Fault):
    """Usage, configuration or a missing device (exit 2)."""

    exit_code = 2


class DataFault(Fault):
    """Invalid input data, or nothing could be done (exit 3)."""

    exit_code = 3


@dataclass(frozen=True)
class FaultRow:
    """One fault of a cohort's tables: where it stands, what is wrong and what to do."""

    file: str
    row: int | None  # line of the file; None: the column or the file as a whole
    column: str
    value: str  # of a date only the form
    rule: str
    todo: str


class TableFault(DataFault):
    """Tables of a cohort with faults, of which the sentence tells the first and `rows` all (exit 3)."""

    def __init__(self, sentence: str, rows: Sequence[FaultRow]) -> None:
        super().__init__(sentence)
        self.rows = list(rows)

    def __reduce__(self) -> tuple[type, tuple[str, list[FaultRow]]]:  # so that it travels between processes
        return type(self), (str(self), self.rows)


class IntegrityFault(Fault):
    """A hash, a version or a dimension that does not match what was promised (exit 5)."""

    exit_code = 5


class TryAgain(Fault):
    """A lock or a full disk: the same command may succeed later (exit 75)."""

    exit_code = 75


class NoEvents(DataFault):
    """A survival task without enough events in a part of a fold (exit 3)."""


class OneClass(DataFault):
    """A class task with fewer than two classes in a part of a fold (exit 3)."""


class ItemFault(DataFault):
    """One slide or scan that cannot be used; the others go on (exit 4 when some are done).

    `reason` is the short public word that stands in `run.json` (`unsupported`, `corrupt`, `mpp_missing`, ...).
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # so that it travels between processes
        return type(self), (self.reason, str(self))


class ItemSkip(ItemFault):
    """One slide or scan without anything to do in it (`no_tissue`, `too_small`); counted, and no failure."""


# ---------------------------------------------------------------------------------------------------------------------
# Slides and features
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Tiles:
    """Where a slide is looked at: square tiles that hold enough tissue, in canonical (y, x) order."""

    slide_id: str
    coords: np.ndarray  # int64 [tile, 2]: x, y of the upper left corner, level-0 pixels
    size_level0: int  # edge of a tile in level-0 pixels
    tile_um: float
    mpp: float  # level-0 um/px of the slide
    tissue: np.ndarray  # float32 [tile]: fraction of the tile that is tissue
    attrs: dict[str, Any] = field(default_factory=dict)  # provenance: slide hash, mpp source, tiling config

    def __len__(self) -> int:
        return len(self.coords)


@dataclass
class Features:
    """What a backbone saw in a slide: one row a tile, in the order of the coordinates."""

    features: np.ndarray  # float16 [tile, dim]
    coords: np.ndarray  # int64 [tile, 2], level-0 pixels
    attrs: dict[str, Any] = field(default_factory=dict)
    views: np.ndarray | None = None  # float16 [view, tile, dim]: the same tiles in other stains, for training

    def __len__(self) -> int:
        return len(self.features)


@dataclass
class Volume:
    """A scan on a regular grid with its lesion, and what was done to it on the way."""

    array: np.ndarray  # float32 [z, y, x]; CT in HU, PET in SUV, MR in arbitrary units
    mask: np.ndarray  # uint8 [z, y, x], 1 inside the lesion
    spacing_mm: tuple[float, float, float]  # z, y, x
    affine: np.ndarray  # float64 [4, 4]: voxel (x, y, z) -> patient space in mm, RAS+ as NIfTI has it
    modality: str  # CT, MR, PT
    history: list[str] = field(default_factory=list)
    stored: str = "float32"  # type of the voxels in the file, as NumPy names it


# ---------------------------------------------------------------------------------------------------------------------
# The cohort
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskSpec:
    """One outcome of the cohort: its name, its kind and, for classes, their order."""

    name: str
    kind: Kind
    classes: tuple[str, ...] = ()  # lowest first; for `binary` the second one is the positive class
    columns: tuple[str, ...] = ()  # every column that holds the target or a part of it: never an input
    endpoint: str = ""  # for survival: OS, DSS, PFS, ...
    landmark_days: float = 0.0  # for survival: times count from this day after the index date
    causes: tuple[str, ...] = ()  # for survival with competing causes: their names, the one of interest first
    unit: str = ""  # for regression: that of the number, for the reader

    @property
    def scores(self) -> int:
        """Numbers that say where a patient lies: one, and for classes without an order one a class."""
        return len(self.classes) if self.kind == "multiclass" else 1


def event_column(labels: Container[str]) -> str:
    """Column of a task's labels that holds its event: `cause` where causes compete, else `event`; '' for classes."""
    return next((column for column in ("cause", "event") if column in labels), "")


@dataclass(frozen=True)
class ModalitySpec:
    """One modality of the cohort: its name, its kind (`bag table vector volume`) and where it comes from."""

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Repeated:
    """The features of a table measured again under perturbed masks, for the folds to judge their robustness by."""

    table: pd.DataFrame  # indexed by (patient_id, perturbation)
    lower: float  # features are kept whose ICC has a lower 95 % bound of at least this


@dataclass
class Manifest:
    """Who has what: patients, their labels, and where the data of each modality lies.

    `labels[task]` has one row a patient, indexed by patient_id (text): column `value` (class number or, for
    regression, the number; float, NaN where unknown); for survival the columns `event` (1 = happened, 0 = censored,
    NaN = unknown) and `time_days`. With competing causes `event` is of the first one, the others censored, and a column
    `cause` has the number of the cause (0 = censored, 1 = the first, ...).
    `tables[modality]` is indexed by patient_id and holds only the patients who have the modality.
    `bags[modality]` maps patient_id to feature files; `volumes[modality]` to the cached crop. `series[modality]` has a
    row a visit, indexed by (patient_id, days), in the order of time.
    """

    name: str
    patients: pd.DataFrame  # indexed by patient_id; column `site`, and the covariates
    tasks: dict[str, TaskSpec]
    modalities: dict[str, ModalitySpec]
    labels: dict[str, pd.DataFrame]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    bags: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    repeated: dict[str, Repeated] = field(default_factory=dict)  # modality -> the same features under perturbed masks
    volumes: dict[str, dict[str, str]] = field(default_factory=dict)
    series: dict[str, pd.DataFrame] = field(default_factory=dict)
    sets: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # modality -> gene set -> columns of its table
    inputs: list[dict[str, str]] = field(default_factory=list)  # [{path, sha256}] of the tables that were read
    notes: list[str] = field(default_factory=list)  # what was left out and why, for the log and the report
    slides: pd.DataFrame | None = None  # slide_id (index), patient_id, path, ...
    applicable: dict[str, pd.Series] = field(default_factory=dict)  # task -> bool by patient; False is not "missing"
    unmatched: dict[str, list[str]] = field(default_factory=dict)  # file -> ids that are no patients of the cohort

    @property
    def ids(self) -> list[str]:
        """Patient ids, in the order of the table."""
        return list(self.patients.index)

    def who(self, modality: str) -> list[str]:
        """The patients who have a modality; nobody where the manifest does not have it."""
        for files in (self.bags, self.volumes):
            if modality in files:
                return list(files[modality])
        if modality in self.series:
            return list(self.series[modality].index.unique(level=0))
        return list(self.tables[modality].index) if modality in self.tables else []

    def holders(self) -> dict[str, list[str]]:
        """The patients who have each modality: tables first, then bags, volumes and series."""
        return {name: self.who(name) for name in (*self.tables, *self.bags, *self.volumes, *self.series)}


# ---------------------------------------------------------------------------------------------------------------------
# Batches and what flows through the network
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Bag:
    """All tiles of several patients in one tensor; patient i owns rows offsets[i]:offsets[i+1] (possibly none).

    Features come in half precision, as the files have them, and are never written to: an encoder makes them wide, a
    piece at a time where it can (`encoders/tiles.py`).
    """

    features: Tensor  # float16 (or wider) [tile, dim]
    offsets: Tensor  # int64 [patient + 1], starts with 0
    coords: Tensor | None = None  # int64 [tile, 2], level-0 pixels

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The same bag on another device."""
        coords = None if self.coords is None else self.coords.to(*args, **kwargs)
        return type(self)(self.features.to(*args, **kwargs), self.offsets.to(*args, **kwargs), coords)


@dataclass
class Series:
    """Visits of several patients in one tensor, each patient's in the order of time; patient i owns rows
    offsets[i]:offsets[i+1] (possibly none)."""

    values: Tensor  # float [visit, column], scaled; 0 where not measured
    measured: Tensor  # float [visit, column]: 1 where there is a value, else 0
    time: Tensor  # float [visit], days from the index date, scaled
    offsets: Tensor  # int64 [patient + 1], starts with 0

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The same visits on another device."""
        return type(self)(*(part.to(*args, **kwargs) for part in (self.values, self.measured, self.time, self.offsets)))


@dataclass
class Target:
    """What a task should have said, for the patients of a batch."""

    known: Tensor  # bool [patient]: False where the label is missing
    value: Tensor  # float [patient]: class number; the number; for survival the time in days; anything where unknown
    event: Tensor | None = None  # float [patient]: 0 = censored, 1 = happened, or the number of its cause (survival)


@dataclass
class Batch:
    """Some patients with whatever each of them has. Plain, not frozen: Lightning moves it between devices."""

    patients: list[str]
    inputs: dict[str, Any]  # modality -> Bag | Series | Tensor [patient, ...]; rows of absent patients hold zeros
    present: dict[str, Tensor]  # modality -> bool [patient]
    targets: dict[str, Target]  # task -> Target
    site: Tensor | None = None  # int64 [patient]: number of the site among those of the training, -1 = none of them

    def __len__(self) -> int:
        return len(self.patients)


@dataclass
class Embedding:
    """What an encoder says of a modality: a vector a patient, and, where it has them, tokens, attention and losses."""

    vector: Tensor  # float [patient, dim]
    tokens: Tensor | None = None  # float [patient, token, width], or with `offsets` packed as a bag's, [tile, width]
    attention: Tensor | None = None  # bags: float [tile], sums to one within a patient
    losses: dict[str, Tensor] = field(default_factory=dict)
    offsets: Tensor | None = None  # int64 [patient + 1]: patient i owns the tokens offsets[i]:offsets[i+1]
    linear: dict[str, Tensor] = field(default_factory=dict)  # task -> [patient, output]: what a line says of it

    def rows(self, order: Tensor) -> Embedding:
        """What it says of the patients `order` (int64), in this order; their losses are left behind."""
        tokens, offsets = self.tokens, self.offsets
        attention = None if self.attention is None or len(self.attention) != len(self.vector) else self.attention[order]
        if tokens is not None and offsets is not None:
            sizes = offsets.diff()[order]
            ends = sizes.cumsum(0)
            begins = (offsets[order] - (ends - sizes)).repeat_interleave(sizes)
            tokens = tokens[begins + begins.new_ones(len(begins)).cumsum(0) - 1]
            offsets = offsets.new_zeros(len(order) + 1).index_copy(0, offsets.new_ones(len(order)).cumsum(0), ends)
        elif tokens is not None:
            tokens = tokens[order]
        linear = {task: said[order] for task, said in self.linear.items()}
        return Embedding(self.vector[order], tokens, attention, {}, offsets, linear)
