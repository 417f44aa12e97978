"""One vector a slide, as a slide encoder made it, and one a patient, which training takes as a modality.

A slide's vector is kept like its tiles: written whole or not at all, with its provenance (store.py). The patients' file
is a plain `.npz` of patient_id -> vector, for every tool that reads NumPy.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nsclc_mtl.features import layouts, store
from nsclc_mtl.records import DataFault, IntegrityFault


def write(path: Path, vector: np.ndarray, attrs: Mapping[str, Any]) -> None:
    """A slide's vector [dim] at `path`, float32; `config_hash` in `attrs` is what `store.is_complete` compares.

    Raises DataFault where a number is NaN or Inf, and TryAgain where the disk is full.
    """
    values = np.asarray(vector, np.float32)
    if values.ndim != 1 or not len(values):
        raise DataFault(f"slide '{path.stem}': {values.shape} is no vector")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataFault(
            f"slide '{path.stem}': number {bad[0]} of its vector is {values[bad[0]]} ({len(bad)} of {len(values)}); "
            "check the slide encoder's output"
        )
    store.publish(path, {"vector": values[None]}, attrs)


def read(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """float32 [dim] and the attributes of one slide. Raises DataFault or IntegrityFault where it cannot be read."""
    with layouts.opened(path) as file:
        if "vector" not in file or not file.attrs.get("complete", 0):
            raise IntegrityFault(
                f"'{path.name}' is no complete vector of a slide; remove it and run `mtl extract` again"
            )
        return file["vector"][0], layouts.attributes(file)


def of_patients(slides: Mapping[str, Sequence[Path]]) -> dict[str, np.ndarray]:
    """float32 [dim] by patient: the mean over the patient's slides, each slide counting alike."""
    return {
        patient: np.stack([read(path)[0] for path in sorted(paths)]).astype(np.float64).mean(axis=0).astype(np.float32)
        for patient, paths in slides.items()
    }


def patients_file(cohort: str, table: str) -> str:
    """Name of the file of patients beside the slides' vectors: one a cohort and table of slides."""
    return f"{cohort}-{Path(table).stem}.npz"


def write_patients(path: Path, vectors: Mapping[str, np.ndarray]) -> None:
    """The `.npz` of patient_id -> vector at `path`, whole or not at all; the same vectors give the same bytes."""
    with store.published(path) as aside:
        with zipfile.ZipFile(aside, "w") as archive:  # `np.savez` takes names as arguments, and a patient may be `file`
            for patient in sorted(vectors):
                content = io.BytesIO()
                np.lib.format.write_array(content, vectors[patient], allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{patient}.npy"), content.getvalue())
        with np.load(aside, allow_pickle=False) as found:
            if sorted(found.files) != sorted(vectors) or any(
                not np.array_equal(found[name], vectors[name]) for name in found.files
            ):
                raise IntegrityFault(f"'{path.name}' did not read back as written; the disk may be failing")
