"""Splits: who trains, who validates, who is tested. The unit is the patient, always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nsclc_mtl.records import PARTS, DataFault, UsageFault

COLUMNS = ["patient_id", "fold", "part"]


def strata(labels: Mapping[str, pd.DataFrame], ids: Sequence[str]) -> np.ndarray:
    """One text a patient: event or class of every task ('?' where unknown), what the folds are balanced over."""
    keys = []
    for frame in labels.values():
        column = frame.reindex(list(ids))["event" if "event" in frame else "value"]
        keys.append(column.map(lambda v: "?" if pd.isna(v) else str(int(v))).to_numpy())
    return np.array(["|".join(row) for row in zip(*keys, strict=True)]) if keys else np.full(len(ids), "")


def deal(strata_of: np.ndarray, shares: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Pile of each patient, int [patient]: piles of the given shares, every stratum spread over all of them.

    Patients are sorted by stratum (shuffled within) and dealt one by one to the pile that is furthest behind its
    share, so that small strata are spread as evenly as large ones.
    """
    n = len(strata_of)
    order = rng.permutation(n)
    order = order[np.argsort(strata_of[order], kind="stable")]
    share = np.asarray(shares, float) / np.sum(shares)
    dealt, out = np.zeros(len(share)), np.empty(n, int)
    tie = rng.permutation(len(share)) * 1e-9
    for position, patient in enumerate(order, start=1):
        pile = int(np.argmax(share * position - dealt + tie))
        out[patient], dealt[pile] = pile, dealt[pile] + 1
    return out


def k_fold(
    labels: Mapping[str, pd.DataFrame],
    ids: Sequence[str],
    *,
    folds: int,
    seed: int,
    validation: float = 0.15,
    calibration: float = 0.0,
    repeats: int = 1,
) -> pd.DataFrame:
    """Table `patient_id, fold, part`: every patient is tested in exactly one fold, or once in every repeat.

    `validation` and `calibration` are shares of the patients who are not tested. `repeats` deals the patients anew and
    counts the folds on. Raises UsageFault where they leave nobody to train, and DataFault where there are too few
    patients for the folds.
    """
    if not isinstance(repeats, int) or repeats < 1:
        raise UsageFault(f"folds.repeats={repeats!r} must be a whole number from 1 up")
    if validation < 0 or calibration < 0 or validation + calibration >= 1:
        raise UsageFault(
            f"folds.validation={validation:g} and folds.calibration={calibration:g} are shares of the patients "
            "who are not tested; together they must leave some to train"
        )
    if folds < 2 or len(ids) < 2 * folds:
        raise DataFault(f"{len(ids)} patients cannot be dealt into {folds} folds; set folds.n lower")
    rng = np.random.Generator(np.random.PCG64([seed, 101]))
    stratum, people = strata(labels, ids), np.array(ids, dtype=object)
    rows = []
    for first in range(0, folds * repeats, folds):
        tested = deal(stratum, [1.0] * folds, rng) + first
        for fold in range(first, first + folds):
            rest = np.flatnonzero(tested != fold)
            part = _inner(stratum[rest], validation, calibration, rng)
            rows.append(pd.DataFrame({"patient_id": people[tested == fold], "fold": fold, "part": "test"}))
            rows.append(pd.DataFrame({"patient_id": people[rest], "fold": fold, "part": part}))
    return check(_tidy(pd.concat(rows)), "folds")


def _inner(stratum: np.ndarray, validation: float, calibration: float, rng: np.random.Generator) -> np.ndarray:
    pile = deal(stratum, [1.0 - validation - calibration, validation, calibration], rng)
    return np.array(["train", "validation", "calibration"], dtype=object)[pile]


def from_csv(path: Path, ids: Sequence[str]) -> pd.DataFrame:
    """Table `patient_id, fold, part` from a file of that shape. Patients outside the cohort are dropped."""
    from nsclc_mtl.tables.read import read_text

    frame = read_text(path)
    absent = [name for name in COLUMNS if name not in frame.columns]
    if absent:
        raise DataFault(f"'{path.name}' has no column {', '.join(map(repr, absent))}; it needs patient_id, fold, part")
    listed = frame["patient_id"].nunique()
    frame = frame[frame["patient_id"].isin(set(ids))].copy()
    if not len(frame):
        raise DataFault(f"'{path.name}': none of its {listed} patients is in the cohort; ids are compared as text")
    frame["fold"] = pd.to_numeric(frame["fold"], errors="coerce")
    if not ((frame["fold"] >= 0) & (frame["fold"] % 1 == 0)).all():
        raise DataFault(f"'{path.name}': column 'fold' holds values that are no whole numbers from 0 up")
    frame["fold"] = frame["fold"].astype(int)
    unnamed = sorted(set(frame["part"]) - set(PARTS))
    if unnamed:
        raise DataFault(f"'{path.name}': part {unnamed[0]!r} is none of {', '.join(PARTS)}")
    return check(_tidy(frame[COLUMNS]), path.name)


def from_columns(
    paths: Sequence[Path],
    ids: Sequence[str],
    labels: Mapping[str, pd.DataFrame],
    *,
    seed: int,
    validation: float = 0.15,
    test: str = "val",
) -> pd.DataFrame:
    """Splits from files `splits_<k>.csv` with the columns `train` and `val` (as several published cohorts give them).

    Their `val` (or `test`) column is the test part; validation is drawn from `train`.
    """
    from nsclc_mtl.tables.read import read_text

    rng = np.random.Generator(np.random.PCG64([seed, 102]))
    known, rows = list(ids), []
    for fold, path in enumerate(paths):
        frame = read_text(path)
        if "train" not in frame or test not in frame:
            raise DataFault(f"'{path.name}' has no columns 'train' and '{test}'")
        to_test, to_train = set(frame[test]) - {""}, set(frame["train"]) - {""}
        tested, trained = [p for p in known if p in to_test], [p for p in known if p in to_train]
        both = sorted(set(tested) & set(trained))
        if both:
            raise DataFault(
                f"'{path.name}': patient {both[0]} is in 'train' and in '{test}' ({len(both)} in all); keep one"
            )
        part = _inner(strata(labels, trained), validation, 0.0, rng)
        rows.append(pd.DataFrame({"patient_id": tested, "fold": fold, "part": "test"}))
        rows.append(pd.DataFrame({"patient_id": trained, "fold": fold, "part": part}))
    return check(_tidy(pd.concat(rows)), paths[0].parent.name)


def check(splits: pd.DataFrame, where: str) -> pd.DataFrame:
    """The same table. Raises DataFault where a patient stands in two parts of a fold, or a fold lacks train or test."""
    twice = splits[splits.duplicated(["patient_id", "fold"], keep=False)]
    if len(twice):
        first = twice.iloc[0]
        parts = sorted(twice[(twice.patient_id == first.patient_id) & (twice.fold == first.fold)]["part"])
        raise DataFault(
            f"'{where}': patient {first.patient_id} is in {' and '.join(parts)} of fold {first.fold} "
            f"({twice.patient_id.nunique()} such patients); a patient belongs to one part"
        )
    for fold, rows in splits.groupby("fold"):
        for part in ("train", "test"):
            if not (rows["part"] == part).any():
                raise DataFault(f"'{where}': fold {fold} has no patient in part '{part}'")
    return splits


def _tidy(splits: pd.DataFrame) -> pd.DataFrame:
    number = {part: i for i, part in enumerate(PARTS)}
    order = splits.assign(_p=splits["part"].map(number)).sort_values(["fold", "_p", "patient_id"], kind="stable")
    return order[COLUMNS].reset_index(drop=True)
