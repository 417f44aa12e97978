"""Folds that somebody gives: a table of patients, folds and parts, or files with the columns `train` and `val`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nsclc_mtl.cohort import split_record
from nsclc_mtl.cohort.splits import COLUMNS, check, fold_rows, inner, plausible, strata, tidy
from nsclc_mtl.records import PARTS, DataFault


def from_csv(path: Path, ids: Sequence[str], sha256: str | None = None) -> pd.DataFrame:
    """Table `patient_id, fold, part` from a file of that shape. Patients outside the cohort are dropped.

    `sha256` is what the table must hash to (`split_record.digest`); a `.json` of the same name beside the file, as
    `mtl train` writes it, promises one too. Raises IntegrityFault where it does not.
    """
    from nsclc_mtl.tables.read import read_text

    frame = read_text(path)
    absent = [name for name in COLUMNS if name not in frame.columns]
    if absent:
        raise DataFault(f"'{path.name}' has no column {', '.join(map(repr, absent))}; it needs patient_id, fold, part")
    listed = frame["patient_id"].nunique()
    fold = pd.to_numeric(frame["fold"], errors="coerce")
    if not ((fold >= 0) & (fold % 1 == 0)).all():
        raise DataFault(f"'{path.name}': column 'fold' holds values that are no whole numbers from 0 up")
    frame = frame.assign(fold=fold.astype(int))
    unnamed = sorted(set(frame["part"]) - set(PARTS))
    if unnamed:
        raise DataFault(f"'{path.name}': part {unnamed[0]!r} is none of {', '.join(PARTS)}")
    split_record.verify(frame, sha256, path)
    frame = frame[frame["patient_id"].isin(set(ids))]
    if not len(frame):
        raise DataFault(f"'{path.name}': none of its {listed} patients is in the cohort; ids are compared as text")
    return check(tidy(frame[COLUMNS]), path.name)


def listed(path: Path) -> set[str]:
    """The patients whom a table of folds names, in the cohort or not."""
    from nsclc_mtl.tables.read import read_text

    frame = read_text(path)
    return set(frame["patient_id"]) if "patient_id" in frame else set()


def from_columns(
    paths: Sequence[Path],
    ids: Sequence[str],
    labels: Mapping[str, pd.DataFrame],
    *,
    seed: int,
    validation: float = 0.15,
    calibration: float = 0.0,
    test: str = "val",
    unit: np.ndarray | None = None,
) -> pd.DataFrame:
    """Splits from files `splits_<k>.csv` with the columns `train` and `val` (as several published cohorts give them).

    Their `val` (or `test`) column is the test part; validation and calibration are drawn from `train`, patients of one
    `unit` (int [patient]) together.
    """
    from nsclc_mtl.tables.read import read_text

    plausible(validation, calibration, 1)
    rng = np.random.Generator(np.random.PCG64([seed, 102]))
    known, rows = np.array(list(ids), dtype=object), []
    for fold, path in enumerate(paths):
        frame = read_text(path)
        if "train" not in frame or test not in frame:
            raise DataFault(f"'{path.name}' has no columns 'train' and '{test}'")
        to_test, to_train = set(frame[test]) - {""}, set(frame["train"]) - {""}
        both = sorted(to_test & to_train & set(known))
        if both:
            raise DataFault(
                f"'{path.name}': patient {both[0]} is in 'train' and in '{test}' ({len(both)} in all); keep one"
            )
        tested = np.flatnonzero([p in to_test for p in known])
        trained = np.flatnonzero([p in to_train for p in known])
        of = None if unit is None else unit[trained]
        part = inner(strata(labels, list(known[trained])), validation, calibration, rng, of)
        rows += fold_rows(known, tested, trained, part, fold)
    return check(tidy(pd.concat(rows)), paths[0].parent.name)
