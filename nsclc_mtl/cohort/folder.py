"""The folder of a cohort's tables: each file is read once, by patient id, and remembered with its digest."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.cohort import barcodes
from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables import read


class Absent(DataFault):
    """The files of a modality are not there: what an `optional` one may say without stopping the run."""


class Folder:
    """Reads each file once; `inputs` says what was read, `notes` what a reader of the cohort should know of it.

    Raises UsageFault where no folder is given and DataFault where it does not exist.
    """

    def __init__(self, name: str, root: Any, id_column: str, ids: str = "text") -> None:
        if not root:
            raise UsageFault(f"cohort={name} needs the folder of its tables: set cohort.root=PATH")
        self.name, self.root, self.id, self.ids = name, Path(str(root)), id_column, ids
        if not self.root.is_dir():
            raise DataFault(
                f"cohort={name}: no folder '{self.root}'; set cohort.root, or make the phantom with `mtl demo`"
            )
        self.read: dict[tuple[str | bool, ...], pd.DataFrame] = {}
        self.inputs: dict[str, dict[str, str]] = {}
        self.notes: list[str] = []
        self.unmatched: dict[str, list[str]] = {}  # file -> ids that are no patients of the cohort

    def table(
        self,
        file: str,
        column: str | None = None,
        duplicates: str = "refuse",
        ids: str | None = None,
        samples: str = "tumour",
        repeats: bool = False,
    ) -> pd.DataFrame:
        """A table of text by patient id, read once. `duplicates=first` keeps the first row of a repeated id.

        `ids=tcga` (None: as the cohort's patients) cuts barcodes to the patient; rows of normal tissue are left out
        then, with a note, unless `samples=all`. `repeats` lets columns be repeated, see `read.read_text`.
        """
        if duplicates not in ("refuse", "first"):
            raise UsageFault(f"duplicates={duplicates!r} is none of refuse, first")
        if samples not in barcodes.SAMPLES:
            raise UsageFault(f"samples={samples!r} is none of {', '.join(barcodes.SAMPLES)}")
        style = ids or self.ids
        name = column or self.id
        key = (file, name, duplicates, style, samples, repeats)
        if key not in self.read:
            path = self.path(file)
            table = read.read_indexed(path, name, unique=duplicates == "refuse" and style == "text", repeats=repeats)
            table = self._of_patients(table, file, style, samples, duplicates)
            again = table.index.duplicated()
            if again.any():
                self.notes.append(f"'{file}': {again.sum()} further rows of a patient left out (duplicates: first)")
            self.read[key] = table[~again]
            self.inputs[file] = {"path": file, "sha256": read.sha256(path)}
        return self.read[key]

    def path(self, file: str) -> Path:
        """Where a table lies. Raises `Absent` where it does not."""
        path = self.root / file
        if not path.is_file():
            raise Absent(f"no table '{file}' under cohort.root; correct the cohort's `file`, or cohort.root")
        return path

    def _of_patients(self, table: pd.DataFrame, file: str, style: str, samples: str, duplicates: str) -> pd.DataFrame:
        """The same rows under the ids of their patients, without those of normal tissue."""
        if style == "text":
            return table
        cut = barcodes.patients(table.index, style, f"'{file}'")
        normal = ~barcodes.tumours(table.index).to_numpy()
        if samples == "tumour" and normal.any():
            self.notes.append(f"'{file}': {normal.sum()} rows of normal tissue left out (samples: tumour)")
            table, cut = table[~normal], [name for name, out in zip(cut, normal, strict=True) if not out]
        made = table.set_axis(pd.Index(cut, name=table.index.name))
        twice = made.index[made.index.duplicated()].unique()
        if duplicates == "refuse" and len(twice):
            raise DataFault(
                f"'{file}' holds several barcodes of {len(twice)} patients ({', '.join(twice[:3])}); keep one row a "
                "patient, or set duplicates to first"
            )
        return made

    def rows(self, file: str) -> pd.DataFrame:
        """A table of text as it stands, several rows a patient, numbered from 0."""
        path = self.path(file)
        self.inputs[file] = {"path": file, "sha256": read.sha256(path)}
        return read.read_text(path, ids=self.id)

    def vectors(self, file: str) -> pd.DataFrame:
        """A table of numbers by patient id, from a `.npz` of patient id -> vector."""
        path = self.root / file
        if not path.is_file():
            raise Absent(f"no vectors '{file}' under cohort.root; correct cohort.modalities.*.file")
        self.inputs[file] = {"path": file, "sha256": read.sha256(path)}
        try:
            with np.load(path, allow_pickle=False) as archive:
                vectors = {str(name): np.asarray(archive[name], np.float32).reshape(-1) for name in archive.files}
        except (ValueError, OSError, AttributeError, zipfile.BadZipFile) as error:  # AttributeError: a plain .npy
            raise DataFault(
                f"'{file}' holds pickled objects or is no .npz; save one plain vector a patient id"
            ) from error
        if not vectors:
            raise DataFault(f"'{file}' holds no vector; save one plain vector a patient id")
        sizes = {len(vector) for vector in vectors.values()}
        if len(sizes) != 1:
            raise DataFault(f"'{file}' holds vectors of the lengths {sorted(sizes)[:4]}; all patients need the same")
        bad = [name for name, vector in vectors.items() if not np.isfinite(vector).all()]
        if bad:
            raise DataFault(f"'{file}': the vector of {bad[0]} holds NaN or Inf ({len(bad)} such patients)")
        table = pd.DataFrame(np.stack(list(vectors.values())), index=list(vectors), dtype=float)
        table.columns = [f"v{i}" for i in range(table.shape[1])]
        return table

    def matched(self, ids: pd.Index, known: pd.Index, file: str, least: float = 0.9, what: str = "rows") -> None:
        """Lists a table's ids that are no patients of the cohort, in `unmatched` and in a note.

        Raises DataFault where fewer than `least` match of those that could (of the table's patients or of the
        cohort's, whichever are fewer): most likely the same ids are written in two ways. One stray id is no such sign.
        """
        ids = ids.unique()
        strange = ids.difference(known, sort=False)
        if not len(strange):
            return
        self.unmatched[file] = list(map(str, strange))
        first = f"{', '.join(map(str, strange[:3]))}{', ...' * (len(strange) > 3)}"
        if len(strange) > 1 and len(known.intersection(ids)) < least * min(len(known), len(ids)):
            raise DataFault(
                f"'{file}': {len(strange)} of {len(ids)} ids are no patients of the cohort ({first}), fewer than "
                f"{least:.0%} match; ids are compared as text ('{known[0]}'): write them in one way (barcodes: "
                "`ids: tcga`), or lower `matched`"
            )
        note = f"'{file}': {what} of {len(strange)} patients outside the cohort ({first})"
        if note not in self.notes:
            self.notes.append(note)
