"""Where the data of each modality lie: the cohort's own files, and those that earlier verbs derived from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nsclc_mtl.cohort import feature_tables, owners, scan_files, sections, times, visits
from nsclc_mtl.cohort.folder import Absent, Folder
from nsclc_mtl.features import store
from nsclc_mtl.records import DataFault, Manifest, ModalitySpec, UsageFault
from nsclc_mtl.tables import read

KINDS = ("bag", "clinical", "deep", "omics", "pathways", "radiomics", "series", "spots", "vector", "volume")
_NAMED = 3  # slides that a note names


@dataclass
class Sources:
    """What a cohort declares, the folder of its tables, and where derived files lie."""

    cohort: Mapping[str, Any]
    folder: Folder
    out: Path  # derived files lie below it
    keys: Mapping[str, str] = field(default_factory=dict)  # names of the derived files
    icc_lower: float = 0.75  # radiomics are judged by it
    forbidden: frozenset[str] = frozenset()  # outcome columns: never inputs
    index: times.IndexDate = field(default_factory=times.IndexDate)

    @property
    def name(self) -> str:
        """Name of the cohort."""
        return self.folder.name


def fill(sources: Sources, manifest: Manifest, spec: ModalitySpec) -> int:
    """The number of patients who have the modality, after it has been filled into the manifest.

    Raises UsageFault on a kind that does not exist, `Absent` where its files are not there and DataFault where they
    are invalid.
    """
    if spec.kind not in KINDS:
        raise UsageFault(f"cohort.modalities.{spec.name}.kind={spec.kind!r} is none of {', '.join(KINDS)}")
    if spec.kind == "bag":
        manifest.bags[spec.name] = found = bags(sources, manifest, spec)
        return len(found)
    if spec.kind == "volume":
        manifest.volumes[spec.name] = crops = volumes(sources, manifest, spec)
        return len(crops)
    if spec.kind == "spots":
        manifest.bags[spec.name] = found = sections.spots(sources, manifest, spec)
        return len(found)
    if spec.kind == "series":
        manifest.series[spec.name] = visits.series(sources, manifest, spec)
        return len(manifest.who(spec.name))
    table = feature_tables.table(sources, manifest, spec)
    if len(table):
        manifest.tables[spec.name] = table
    return len(table)


def made_by(spec: ModalitySpec) -> str:
    """The verb that makes the files of a modality, for the sentence that misses them."""
    extracted = spec.kind == "vector" and not spec.options.get("file")
    if extracted or spec.kind in ("bag", "volume", "radiomics", "deep"):
        return "`mtl extract`"
    return "nothing: its table is empty; correct it"


def bags(sources: Sources, manifest: Manifest, spec: ModalitySpec) -> dict[str, list[str]]:
    """Feature files of every patient who has a slide with tiles; fills `manifest.slides`. `Absent` without one."""
    file = spec.options.get("table", "slides.csv")
    slides = owners.rows(sources, manifest, spec, sources.folder.table(file, "slide_id", ids="text"), file)
    if "path" not in slides:
        raise DataFault(f"'{file}' has no column 'path'")
    manifest.slides = slides
    derived = sources.out / "features" / sources.keys.get("features", "")
    found: dict[str, list[str]] = {}
    empty, waiting, away = list[str](), list[str](), list[str]()
    for slide_id, row in slides.iterrows():
        if row["patient_id"] not in manifest.patients.index:
            continue
        given = sources.folder.root / row["path"]
        ours = derived / f"{slide_id}.h5"
        path = given if given.suffix in {".h5", ".hdf5", ".npz", ".pt", ".pth"} else ours
        if path is given and _no_tile(path):
            empty.append(str(slide_id))
        elif path.is_file():
            found.setdefault(row["patient_id"], []).append(str(path))
        elif path is given:
            away.append(str(slide_id))
        else:
            waiting.append(str(slide_id))
    if empty:
        sources.folder.notes.append(f"{spec.name}: {_of(empty, slides)} hold no tile: taken as absent")
    if waiting:
        sources.folder.notes.append(
            f"{spec.name}: {_of(waiting, slides)} have no features (not extracted, or without tissue)"
        )
    if away:
        sources.folder.notes.append(f"{spec.name}: listed with a feature file that is not there: {_of(away, slides)}")
    if not found:
        raise Absent(f"no features of '{spec.name}' under '{derived}'; run `mtl extract` (the phantom: `mtl demo`)")
    return found


def _of(some: Sequence[str], slides: pd.DataFrame) -> str:
    """`2 of 78 slides (S1, S2)`."""
    more = f" and {len(some) - _NAMED} more" if len(some) > _NAMED else ""
    return f"{len(some)} of {len(slides)} slides ({', '.join(some[:_NAMED])}{more})"


def volumes(sources: Sources, manifest: Manifest, spec: ModalitySpec) -> dict[str, str]:
    """The cached crop of every patient who has a scan. Raises `Absent` where there is none."""
    file = spec.options.get("table", scan_files.FILE)
    if sources.cohort.get("scans"):
        scans = scan_files.table(sources.folder.root, sources.cohort, manifest.patients.index).set_index("scan_id")
    else:
        scans = sources.folder.table(file, "scan_id", ids="text")
    scans = owners.rows(sources, manifest, spec, scans, file)
    wanted = spec.options.get("scan_modality")
    derived = sources.out / "scans" / scan_files.made(spec, "volumes", sources.keys)
    found: dict[str, str] = {}
    chosen = derived.with_suffix(".csv")  # which scan is the patient's, where there are several
    first = set(read.read_text(chosen)["scan_id"]) if chosen.is_file() else None
    for scan_id, row in scans.iterrows():
        path = derived / f"{scan_id}.h5"
        right = wanted is None or row.get("modality") == wanted
        right = right and (first is None or scan_id in first)
        if right and path.is_file() and row["patient_id"] in manifest.patients.index:
            found.setdefault(row["patient_id"], str(path))
    if not found:
        raise Absent(f"no volumes of '{spec.name}' under '{derived}'; run `mtl extract` (the phantom: `mtl demo`)")
    return found


_SOME_TILES = 100_000  # bytes: a larger feature file holds a tile, and need not be opened to know it


def _no_tile(path: Path) -> bool:
    """Whether a feature file of another tool is whole and empty; what cannot be read is told by who reads it."""
    try:
        return path.stat().st_size < _SOME_TILES and store.header(path)[0] == 0
    except (OSError, DataFault):
        return False
