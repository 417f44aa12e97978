"""The test patients of a fold, what each model said of them, and the words in which it is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from nsclc_mtl.metrics.classification import expected_class
from nsclc_mtl.metrics.comparison import repeated, times_dealt
from nsclc_mtl.metrics.measure import Measure
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import Curve, censoring_curve
from nsclc_mtl.records import TaskSpec

LEARNER = "learner"
MEAN = "-1"  # the fold of patients whom none of the folds knows, predicted by the mean of all
OWN = "own_censoring:"  # before the name of a metric that is weighed by the evaluated patients' own censoring
HORIZONS_DAYS = {"1y": 365.25, "3y": 1095.75, "5y": 1826.25}
FOLLOWED = 10  # patients who must still be followed at a horizon, so that anything is said of it


@dataclass
class Fold:
    """The test patients of one fold of a task whose outcome is known, and what each model said of them."""

    fold: str
    patients: list[str]
    label: np.ndarray  # class number, the number of a regression, or time in days for survival
    event: np.ndarray  # 1 / 0 for survival, zeros else
    # model -> outputs, rows as `patients`; column `threshold`: the P(positive) from which on a patient of a binary task
    # is called positive, fitted on the training patients, where the model's outputs for them are known
    said: dict[str, pd.DataFrame] = field(default_factory=dict)
    censoring: Curve | None = None  # G of the training patients, survival only
    survival: Curve | None = None  # Kaplan-Meier of the training patients
    unweighed: str = "no training outcomes for the censoring weights"  # why, where `censoring` is None
    until: float | None = None  # day before which curves are judged, where not `censoring` says it: see `curves_until`


def too_few_followed(followed: int) -> str:
    """Why nothing is said of a horizon that so many test patients are followed to; "" where they are enough."""
    if followed >= FOLLOWED:
        return ""
    return (
        f"{followed} test patient{'s are' if followed != 1 else ' is'} followed so far, at least {FOLLOWED} are needed"
    )


def among(fold: Fold, rows: np.ndarray) -> Fold:
    """The fold with some of its patients alone: `rows` are their places, int [k], or a mask, bool [patient]."""
    at = np.flatnonzero(rows) if rows.dtype == bool else rows
    said = {model: outputs.iloc[at] for model, outputs in fold.said.items()}
    patients = [fold.patients[i] for i in at]
    return replace(fold, patients=patients, label=fold.label[at], event=fold.event[at], said=said)


def once(folds: Sequence[Fold]) -> list[Fold]:
    """The folds with each patient in the first that tests him, without those in which nobody is left.

    Of repeated cross-validation a patient has a row in every repeat. Whatever takes the patients of all folds together
    (a table of counts, a chi-square, curves of groups) would count each several times, so it is made from these.
    """
    seen: set[str] = set()
    out = []
    for fold in folds:
        new = np.array([p not in seen for p in fold.patients], dtype=bool)
        seen |= set(fold.patients)
        if new.any():
            out.append(fold if new.all() else among(fold, new))
    return out


def once_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows (patient_id, fold, ...) of the first fold of each patient."""
    fold = rows["fold"].astype(str)
    place = {name: k for k, name in enumerate(sorted(fold.unique(), key=lambda name: (len(name), name)))}
    at = fold.map(place)
    return rows[at == at.groupby(rows["patient_id"]).transform("min")]


def once_said(folds: Sequence[Fold]) -> str:
    """A sentence, after a space, where `once` leaves rows of these folds out; else ""."""
    again = repeated([f.patients for f in folds])
    return " Who was tested in several repeats stands here once, with the first." if again else ""


def dealt(patients: Sequence[Sequence[str]]) -> str:
    """Folds and repeats in words. patients: whom each fold tests.

    >>> dealt([["a", "b"], ["c"], ["a"], ["b", "c"]]), dealt([["a"], ["b"], ["a"]]), dealt([["a"]])
    ('2 folds, 2 repeats', '3 folds, each patient is tested in up to 2 of them', '1 fold')
    """
    often = times_dealt(patients)
    each = len(patients) // often
    words = f"{each} fold{'s' * (each != 1)}"
    if often > 1:
        return f"{words}, {often} repeats"
    most = max(Counter(p for ids in patients for p in ids).values(), default=1)
    return words if most == 1 else f"{words}, each patient is tested in up to {most} of them"


def dealt_rows(rows: pd.DataFrame) -> str:
    """`dealt` of the test patients among the rows (patient_id, fold, part) of a split or of predictions."""
    tested = rows.loc[rows["part"] == "test", ["patient_id", "fold"]].drop_duplicates()
    return dealt([list(ids) for _, ids in tested.groupby("fold")["patient_id"]])


def own_censoring(fold: Fold) -> Fold:
    """The fold with G as it is among the very patients who are judged, all else alike.

    For patients from elsewhere, whose censoring may be unlike that of the training: what they are judged by was fixed
    beforehand, and this tells what it rests on.
    """
    until = None if fold.censoring is None else curves_until(fold)
    return replace(fold, censoring=censoring_curve(fold.label, fold.event), until=until)


def curves_until(fold: Fold) -> float:
    """The day before which survival curves can be judged: within the follow-up of the training and the test patients.

    Those of several folds are judged before one day: `survival_measures.curves_end`.
    """
    if fold.until is not None:
        return fold.until
    if fold.censoring is None:
        return np.inf
    followed = fold.censoring.time[fold.censoring.value > 0].max(initial=0.0)
    return float(min(followed, fold.label.max()))


MeasureOf = Callable[[Fold, pd.DataFrame], Measure | Score]


def tried(measure_of: MeasureOf, fold: Fold, said: pd.DataFrame) -> Measure | Score:
    """The measure, or the reason why there is none: patients, classes or outputs that are missing."""
    if not fold.patients:
        return Score.missing("no patient with a known outcome")
    if said.shape[1] == 0 or said.isna().all(axis=None):
        return Score.missing("the model gives no output here")
    return measure_of(fold, said)


def proba_of(task: TaskSpec, said: pd.DataFrame) -> np.ndarray | None:
    """Class probabilities in the order of the classes [patient, K], or None where the model gives only a score."""
    names = [f"p:{c}" for c in task.classes]
    return said[names].to_numpy(dtype=float) if set(names) <= set(said.columns) else None


def score_of(task: TaskSpec, said: pd.DataFrame) -> np.ndarray:
    """One number a patient that orders them: risk, P(positive), expected class, the number itself; or the given
    `score`. [patient]."""
    if task.kind == "regression":
        found = next((said[name] for name in ("value", "score") if name in said), None)
        return np.full(len(said), np.nan) if found is None else np.asarray(found, dtype=float)
    if task.kind == "survival":
        return np.asarray(said["risk"] if "risk" in said else said["score"], dtype=float)
    proba = proba_of(task, said)
    if proba is None:
        return np.asarray(said["score"] if "score" in said else np.full(len(said), np.nan), dtype=float)
    return np.asarray(proba[:, 1] if task.kind == "binary" else expected_class(proba))


def curve_days(said: pd.DataFrame) -> np.ndarray:
    """Days at which a model writes survival probabilities, ascending."""
    days = [float(c.split(":", 1)[1]) for c in said.columns if c.startswith("surv:") and said[c].notna().any()]
    return np.array(sorted(days))
