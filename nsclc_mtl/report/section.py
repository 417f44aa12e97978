"""What a report is made of: evidence goes in, sections come out, each with its figures and the numbers behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.records import Manifest
    from nsclc_mtl.report.evaluation import TaskResult


@dataclass(frozen=True)
class Evidence:
    """All that is known when a report is written; sections take what they need of it.

    results: task -> metrics of the learner, floors and ceilings on the test patients.
    predictions: the learner's rows of predictions.csv, all parts (`read_table` types). manifest, splits: of the cohort
    that was evaluated; None where unknown, splits None for external patients. settings: of `mtl evaluate`, plain.
    trained: settings that the run was trained with. folder: run folder of the training.
    """

    results: Mapping[str, TaskResult]
    predictions: pd.DataFrame
    manifest: Manifest | None = None
    splits: pd.DataFrame | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    training: Manifest | None = None  # the cohort of training, where another one is evaluated and it is at hand
    cutoffs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # of training risks, for fold -1 (task ->
    # median, lower_tertile, upper_tertile), where predictions of the training patients are not at hand (a bundle)
    mean_of: tuple[int, ...] = ()  # folds that predict external patients (fold -1) together; () where unknown
    audit: Sequence[Mapping[str, Any]] | None = None  # rows as of audit.json, of the folds in `predictions` alone
    trust: pd.DataFrame | None = None  # rows of trust.csv: how far to rely on each prediction
    drift: pd.DataFrame | None = None  # rows of drift.csv; external patients only
    outside: pd.DataFrame | None = None  # rows of outside.csv; external patients only
    told: Sequence[str] = ()  # who is judged, who is left out and why; of locked predictions who has which outcome
    locked: str = ""  # UTC time when the predictions were locked, before the outcomes
    late: Mapping[str, str] = field(default_factory=dict)  # survival task whose time counts from the follow-up known
    # when locked -> the sentence that says so


@dataclass(frozen=True)
class Figure:
    """A picture and the numbers that it shows: `figures/<name>.svg` and `figures/<name>.csv`."""

    name: str  # stem of both files, one of its kind in a report
    svg: str  # an SVG element with title and description, its texts escaped
    data: pd.DataFrame  # one row a point, line or bar
    caption: str = ""  # plain text

    @property
    def drawn(self) -> Markup:
        """The element as it stands on the page."""
        return Markup(self.svg)  # made by `curves.svg`, which escapes its texts


@dataclass
class Section:
    """A part of the page: of one task, or of the whole run where `task` is empty."""

    name: str  # its anchor, unique in a report; a-z, 0-9 and -
    title: str
    html: Markup  # below the title; values escaped
    task: str = ""
    figures: list[Figure] = field(default_factory=list)  # drawn below the text in this order
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  # stem -> what `tables/<stem>.csv` holds
    rows: list[dict[str, Any]] = field(default_factory=list)  # for metrics.json, columns as of `evaluation.metric_rows`
    first: bool = False  # stands before the chapters of the tasks


Maker = Callable[[Evidence], list[Section]]
"""A kind of section; an empty list where the evidence says nothing of it."""


def save(sections: list[Section], figures: list[Figure], folder: Path) -> None:
    """Writes `figures/NAME.svg` with `NAME.csv` beside it, and `tables/NAME.csv`.

    Raises ValueError for a name that was given twice.
    """
    every = [*figures, *(figure for section in sections for figure in section.figures)]
    tables = [item for section in sections for item in section.tables.items()]
    for kind, names in (("figure", [f.name for f in every]), ("table", [name for name, _ in tables])):
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two things of a report have one name: {kind} {sorted(twice)[0]}")
    for figure in every:
        (folder / "figures").mkdir(exist_ok=True)
        head = '<?xml version="1.0" encoding="utf-8"?>\n'
        (folder / "figures" / f"{figure.name}.svg").write_text(head + figure.svg + "\n", encoding="utf-8")
        figure.data.to_csv(
            folder / "figures" / f"{figure.name}.csv", index=False, lineterminator="\n", float_format="%.7g"
        )
    for name, table in tables:
        (folder / "tables").mkdir(exist_ok=True)
        table.to_csv(folder / "tables" / f"{name}.csv", index=False, lineterminator="\n", float_format="%.7g")
