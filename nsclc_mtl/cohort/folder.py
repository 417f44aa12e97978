"""The folder of a cohort's tables: each file is read once, by patient id, and remembered with its digest."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables import read


class Absent(DataFault):
    """The files of a modality are not there: what an `optional` one may say without stopping the run."""


class Folder:
    """Reads each file once; `inputs` says what was read, `notes` what a reader of the cohort should know of it.

    Raises UsageFault where no folder is given and DataFault where it does not exist.
    """

    def __init__(self, name: str, root: Any, id_column: str) -> None:
        if not root:
            raise UsageFault(f"cohort={name} needs the folder of its tables: set cohort.root=PATH")
        self.name, self.root, self.id = name, Path(str(root)), id_column
        if not self.root.is_dir():
            raise DataFault(
                f"cohort={name}: no folder '{self.root}'; set cohort.root, or make the phantom with `mtl demo`"
            )
        self.read: dict[tuple[str, str, str], pd.DataFrame] = {}
        self.inputs: dict[str, dict[str, str]] = {}
        self.notes: list[str] = []

    def table(self, file: str, column: str | None = None, duplicates: str = "refuse") -> pd.DataFrame:
        """A table of text by patient id, read once. `duplicates=first` keeps the first row of a repeated id."""
        if duplicates not in ("refuse", "first"):
            raise UsageFault(f"duplicates={duplicates!r} is none of refuse, first")
        key = (file, column or self.id, duplicates)
        if key not in self.read:
            path = self.root / file
            if not path.is_file():
                raise Absent(f"no table '{file}' under cohort.root; correct the cohort's `file`, or cohort.root")
            table = read.read_indexed(path, key[1], unique=duplicates == "refuse")
            again = table.index.duplicated()
            if again.any():
                self.notes.append(f"'{file}': {again.sum()} further rows of a patient left out (duplicates: first)")
            self.read[key] = table[~again]
            self.inputs[file] = {"path": file, "sha256": read.sha256(path)}
        return self.read[key]

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

    def matched(self, ids: pd.Index, known: pd.Index, file: str) -> None:
        """Raises where most of a table's ids are no patients of the cohort: two ways of writing the same id."""
        strange = ids.difference(known)
        if (
            len(ids)
            and len(strange) / len(ids) > 0.5
            and len(known.intersection(ids)) < 0.9 * min(len(known), len(ids))
        ):
            raise DataFault(
                f"'{file}': {len(strange)} of {len(ids)} ids are no patients of the cohort "
                f"({', '.join(map(str, strange[:3]))}); "
                f"ids are compared as text ('{known[0]}')"
            )
        if len(strange):
            self.notes.append(f"'{file}': {len(strange)} rows belong to no patient of the cohort")
