"""Splits: who trains, who validates, who is tested. The unit is the patient, or the patients who belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nsclc_mtl.records import PARTS, DataFault, UsageFault, event_column

COLUMNS = ["patient_id", "fold", "part"]


FIFTHS = 5  # into so many parts the patients with a number are sorted
_LEVELS = 20  # most values that count one by one


def levels(frame: pd.DataFrame, ids: Sequence[str]) -> pd.Series:
    """Event or class of the patients, NaN where unknown; of a number of many values its fifth among them, 0 lowest.

    Class numbers are whole and few; whole numbers of up to twenty values (a score from 0 to 10) count like classes.
    """
    column = frame.reindex(list(ids))[event_column(frame) or "value"].astype(float)
    known = column.dropna()
    if (known % 1 == 0).all() and known.nunique() <= _LEVELS:
        return column
    rank = known.rank(method="first")
    return ((rank - 1) * FIFTHS // len(known)).reindex(column.index)


def strata(labels: Mapping[str, pd.DataFrame], ids: Sequence[str]) -> np.ndarray:
    """One text a patient: event, class or fifth of every task ('?' where unknown), what the folds are balanced over."""
    keys = []
    for frame in labels.values():
        column = levels(frame, ids)
        keys.append(column.map(lambda v: "?" if pd.isna(v) else str(int(v))).to_numpy())
    return np.array(["|".join(row) for row in zip(*keys, strict=True)]) if keys else np.full(len(ids), "")


def deal(
    strata_of: np.ndarray, shares: Sequence[float], rng: np.random.Generator, unit: np.ndarray | None = None
) -> np.ndarray:
    """Pile of each patient, int [patient]: piles of the given shares, every stratum spread over all of them.

    Patients are sorted by stratum (shuffled within) and dealt one by one to the pile that is furthest behind its
    share, so that small strata are spread as evenly as large ones. Patients of one `unit` (int [patient], None = each
    a unit of its own) go to one pile; the largest units of a stratum are dealt first, and a unit's stratum is the
    rarest of its patients.
    """
    n = len(strata_of)
    share = np.asarray(shares, float) / np.sum(shares)
    if unit is None or len(np.unique(unit)) == n:
        members = [np.array([i]) for i in range(n)]
        stratum = strata_of
    else:
        members = [np.flatnonzero(unit == u) for u in np.unique(unit)]
        often = dict(zip(*np.unique(strata_of, return_counts=True), strict=True))
        stratum = np.array([min(strata_of[m], key=lambda s: (often[s], s)) for m in members])
    size = np.array([len(m) for m in members], dtype=int)
    order = rng.permutation(len(members))
    order = order[np.argsort(-size[order], kind="stable")]
    order = order[np.argsort(stratum[order], kind="stable")]
    dealt, out = np.zeros(len(share)), np.empty(n, int)
    tie = rng.permutation(len(share)) * 1e-9
    position = 0
    for chosen in order:
        position += size[chosen]
        pile = int(np.argmax(share * position - dealt + tie))
        out[members[chosen]] = pile
        dealt[pile] += size[chosen]
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
    unit: np.ndarray | None = None,
) -> pd.DataFrame:
    """Table `patient_id, fold, part`: every patient is tested in exactly one fold, or once in every repeat.

    `validation` and `calibration` are shares of the patients who are not tested. `repeats` deals the patients anew and
    counts the folds on. Patients of one `unit` (int [patient]) stand in one part. Raises UsageFault where the shares
    leave nobody to train, and DataFault where there are too few patients for the folds.
    """
    plausible(validation, calibration, repeats)
    apart = len(ids) if unit is None else len(np.unique(unit))
    if folds < 2 or apart < 2 * folds:
        together = "" if apart == len(ids) else f" ({apart} units that belong together)"
        raise DataFault(f"{len(ids)} patients{together} cannot be dealt into {folds} folds; set folds.n lower")
    rng = np.random.Generator(np.random.PCG64([seed, 101]))
    stratum, people = strata(labels, ids), np.array(ids, dtype=object)
    rows = []
    for first in range(0, folds * repeats, folds):
        tested = deal(stratum, [1.0] * folds, rng, unit) + first
        for fold in range(first, first + folds):
            rest = np.flatnonzero(tested != fold)
            part = inner(stratum[rest], validation, calibration, rng, None if unit is None else unit[rest])
            rows += fold_rows(people, np.flatnonzero(tested == fold), rest, part, fold)
    return check(tidy(pd.concat(rows)), "folds")


def plausible(validation: float, calibration: float, repeats: int) -> None:
    """Raises UsageFault where the shares leave nobody to train, or the repeats are no whole number from 1 up."""
    if not isinstance(repeats, int) or repeats < 1:
        raise UsageFault(f"folds.repeats={repeats!r} must be a whole number from 1 up")
    if validation < 0 or calibration < 0 or validation + calibration >= 1:
        raise UsageFault(
            f"folds.validation={validation:g} and folds.calibration={calibration:g} are shares of the patients "
            "who are not tested; together they must leave some to train"
        )


def inner(
    stratum: np.ndarray,
    validation: float,
    calibration: float,
    rng: np.random.Generator,
    unit: np.ndarray | None = None,
) -> np.ndarray:
    """Part of each patient who is not tested: train, validation or calibration, by their shares."""
    pile = deal(stratum, [1.0 - validation - calibration, validation, calibration], rng, unit)
    return np.array(["train", "validation", "calibration"], dtype=object)[pile]


def fold_rows(
    people: np.ndarray, tested: np.ndarray, rest: np.ndarray, part: np.ndarray, fold: int
) -> list[pd.DataFrame]:
    """The rows of one fold: places of the tested, and of the others with their parts."""
    return [
        pd.DataFrame({"patient_id": people[tested], "fold": fold, "part": "test"}),
        pd.DataFrame({"patient_id": people[rest], "fold": fold, "part": part}),
    ]


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


def tidy(splits: pd.DataFrame) -> pd.DataFrame:
    """The three columns in the order of folds, parts and ids."""
    number = {part: i for i, part in enumerate(PARTS)}
    order = splits.assign(_p=splits["part"].map(number)).sort_values(["fold", "_p", "patient_id"], kind="stable")
    return order[COLUMNS].reset_index(drop=True)
