"""What there is to show: the records that `mtl serve` hands to the pages. Nothing here is computed, only found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from nsclc_mtl.records import DataFault, TaskSpec


@dataclass(frozen=True)
class SlideFile:
    """One slide of a patient and what was made of it. Its number in the board, never its path, is what a page knows."""

    slide_id: str
    patient_id: str
    path: Path
    mpp: float | None = None  # level-0 um/px where slides.csv gives it; else the file's own
    scores: Path | None = None  # `<slide_id>-tiles.csv`: x, y, size_level0, a column a map and one with its percentile
    contour: Path | None = None  # GeoJSON of the tissue, level-0 pixels
    tiles: Path | None = None  # GeoJSON of the scored tiles for QuPath


@dataclass(frozen=True)
class ScanFile:
    """One scan of a patient with its lesion and the maps over it."""

    scan_id: str
    patient_id: str
    modality: str  # CT, MR, PT
    image: Path
    mask: Path | None = None
    maps: Mapping[tuple[str, str], Path] = field(default_factory=dict)  # (method, task) -> signed NIfTI in scan space


@dataclass(frozen=True)
class Said:
    """What one model says: a run of `mtl predict` (or of `mtl train`), and what stands beside its predictions.

    predictions: rows of predictions.csv of the patients shown, ids as text. patients: patients.csv by patient_id, or
    None. trust: rows of trust.csv, all text. shapley, audit, weights, features: the tables of that name, or None where
    the run has none. reference: rows of the training run's predictions.csv for its test patients.
    of_model: task and fold of a prediction -> what holds of it for every patient, a sentence each: calibration, and how
    the model does on held-out patients.
    """

    name: str  # of the run folder
    predictions: pd.DataFrame
    trust: pd.DataFrame
    patients: pd.DataFrame | None = None
    shapley: pd.DataFrame | None = None
    audit: pd.DataFrame | None = None
    weights: pd.DataFrame | None = None
    features: pd.DataFrame | None = None
    reference: pd.DataFrame | None = None
    cutoffs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # fold -> what training fixed
    of_model: Callable[[str, str], Sequence[str]] = lambda task, fold: ()
    provenance: Sequence[tuple[str, str]] = ()  # label, value: model, hashes, versions


@dataclass
class Board:
    """Everything that the pages show. `models[0]` is the run that was asked for; further ones stand beside it."""

    cohort: str
    tasks: dict[str, TaskSpec]
    modalities: list[str]
    covariates: pd.DataFrame  # by patient_id, in the order of the worklist: site, age, ...
    models: list[Said]
    slides: list[SlideFile] = field(default_factory=list)
    scans: list[ScanFile] = field(default_factory=list)
    folder: Callable[[str], Path] | None = None  # patient -> where the run keeps his pages and pictures
    reviews: Path | None = None  # the append-only JSONL of agreement and notes
    report: Path | None = None  # run folder of an evaluation, with its figures and tables

    @property
    def ids(self) -> list[str]:
        """Patient ids in the order of the worklist."""
        return list(self.covariates.index)

    def slides_of(self, patient: str) -> dict[int, SlideFile]:
        """The slides of a patient by the number under which they are served."""
        return {n: slide for n, slide in enumerate(self.slides) if slide.patient_id == patient}

    def scans_of(self, patient: str) -> dict[int, ScanFile]:
        """The scans of a patient by the number under which they are served."""
        return {n: scan for n, scan in enumerate(self.scans) if scan.patient_id == patient}

    def model(self, name: str = "") -> Said:
        """The run of this name, the first one where none is given. Raises DataFault where there is none such."""
        found = [said for said in self.models if not name or said.name == name]
        if not found:
            raise DataFault(f"no run '{name[:80]}' is served here")
        return found[0]
