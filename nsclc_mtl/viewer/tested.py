"""The test patients of the training run whose outcome of a task is known: what was said of them, and what came."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from nsclc_mtl.metrics.classification import auc, expected_class, macro_auc, ordinal_auc
from nsclc_mtl.metrics.comparison import over_folds
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import c_index
from nsclc_mtl.metrics.survival_calibration import interpolated
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.viewer.evaluation import YEARS, targets_of

FOLLOWED = 10  # so many patients under observation at a horizon, or it is not judged
REACH_DAYS = 7.0  # a curve runs on so far with its last hazard: 5 years are 1826 days, the last one saved is 1825


@dataclass(frozen=True)
class Target:
    """One thing that has a probability: a class, above a grade, an event within some years."""

    name: str
    said: np.ndarray  # probability [n], NaN where the run says none
    happened: np.ndarray  # 1 / 0 [n]; of survival: the event was seen until then
    when: float | None = None  # days, of survival


@dataclass(frozen=True)
class Tested:
    """Test patients of a task in the order of the predictions, a row a patient and fold."""

    spec: TaskSpec
    patients: np.ndarray  # ids [n]
    fold: np.ndarray  # text [n]
    label: np.ndarray  # number of the class, the number, or days [n]
    event: np.ndarray  # 1 / 0 of survival, NaN else [n]
    score: np.ndarray  # what orders them within a fold: risk, P(positive), expected class, number [n]
    proba: np.ndarray  # [n, K]
    targets: tuple[Target, ...]
    unknown: int  # patients whose outcome is not known

    @classmethod
    def of(cls, spec: TaskSpec, rows: pd.DataFrame) -> Tested:
        """From the rows of predictions.csv of the test patients of a task."""
        rows = rows.assign(event=pd.to_numeric(rows["event"]), time_days=pd.to_numeric(rows["time_days"]))
        first = rows.drop_duplicates(["patient_id", "fold"]).set_index(["patient_id", "fold"])
        wide = rows.groupby(["patient_id", "fold", "output"])["value"].first().unstack().reindex(first.index)
        event = np.full(len(first), np.nan)
        if spec.kind == "survival":
            label = first["time_days"].to_numpy(float)
            event = np.where(first["event"].isna(), np.nan, first["event"] == 1)  # of competing causes the first
            keep = ~np.isnan(label) & ~np.isnan(event)
        elif spec.kind == "regression":
            label = pd.to_numeric(first["target"], errors="coerce").to_numpy(float)
            keep = ~np.isnan(label)
        else:
            number = {c: float(k) for k, c in enumerate(spec.classes)}
            label = np.array([number.get(str(t), np.nan) for t in first["target"]], dtype=float)
            keep = ~np.isnan(label)
        wide, label, event = wide[keep], label[keep], event[keep]
        known = first.index[keep]
        p = np.reshape([_column(wide, f"p:{c}") for c in spec.classes], (len(spec.classes), len(wide))).T
        everybody = first.index.get_level_values(0)
        people = known.get_level_values(0)
        return cls(
            spec, np.array(people, dtype=object), np.array([str(f) for f in known.get_level_values(1)], dtype=object),
            label, event, _score(spec, wide, p), p, tuple(_targets(spec, wide, p, label, event)),
            everybody.nunique() - people.nunique(),
        )  # fmt: skip

    def folds(self, inside: np.ndarray) -> list[np.ndarray]:
        """Rows of each fold among those that are asked for (bool [n]): scores of different folds share no scale."""
        return [inside & (self.fold == fold) for fold in sorted(set(self.fold), key=lambda f: (len(f), f))]

    @property
    def once(self) -> np.ndarray:
        """The first row of each patient, bool [n]: repeated cross-validation tests him several times."""
        return ~pd.Series(self.patients).duplicated().to_numpy()

    @property
    def events(self) -> np.ndarray:
        """Who had what the task is about, bool [n]: the event, the positive class; nobody where that has no sense."""
        if self.spec.kind == "survival":
            return np.asarray(self.event == 1)
        return np.asarray(self.label == 1) if self.spec.kind == "binary" else np.zeros(len(self.label), dtype=bool)

    def discrimination(self, inside: np.ndarray) -> Score:
        """AUC, ordinal AUC or C-index within each fold, averaged with the patients as weights."""
        each = [(self._within(rows), int(rows.sum())) for rows in self.folds(inside) if rows.any()]
        known = [(float(value), n) for value, n in each if value.known]
        if not known:
            return Score.missing(each[0][0].reason if each else "no patients")
        return Score(float(over_folds([np.array([v]) for v, _ in known], [n for _, n in known])[0]))

    def _within(self, rows: np.ndarray) -> Score:
        label, score, kind = self.label[rows], self.score[rows], self.spec.kind
        if kind == "binary":
            return auc(label, score)
        if kind == "ordinal":
            return ordinal_auc(label, score)
        if kind == "multiclass":
            return macro_auc(label, self.proba[rows])
        if kind == "survival":
            return c_index(score, label, self.event[rows])
        return c_index(-score, label, np.ones(len(label)))  # of a number: later, and said to be larger


def _targets(spec: TaskSpec, wide: pd.DataFrame, p: np.ndarray, label: np.ndarray, event: np.ndarray) -> list[Target]:
    names = [name for name, _ in targets_of(spec)]
    if spec.kind == "binary":
        return [Target(names[0], p[:, 1], (label == 1) * 1.0)]
    if spec.kind == "ordinal":
        return [Target(name, p[:, k + 1 :].sum(axis=1), (label > k) * 1.0) for k, name in enumerate(names)]
    if spec.kind == "multiclass":
        return [Target(name, p[:, k], (label == k) * 1.0) for k, name in enumerate(names)]
    columns = sorted((float(c.split(":", 1)[1]), c) for c in map(str, wide.columns) if c.startswith("surv:"))
    out: list[Target] = []
    if not columns:
        return out
    curve = wide[[c for _, c in columns]].to_numpy(float)
    for name, (days, _) in zip(names, YEARS.values(), strict=True):
        said = 1 - interpolated([d for d, _ in columns], curve, days, REACH_DAYS)
        if int((label >= days).sum()) >= FOLLOWED and np.isfinite(said).any():
            out.append(Target(name, said, ((label <= days) & (event == 1)) * 1.0, days))
    return out


def _score(spec: TaskSpec, wide: pd.DataFrame, p: np.ndarray) -> np.ndarray:
    if spec.kind == "survival":
        return _column(wide, "risk")
    if spec.kind == "regression":
        return _column(wide, "value")
    return p[:, 1] if spec.kind == "binary" else expected_class(p)


def _column(wide: pd.DataFrame, name: str) -> np.ndarray:
    return wide[name].to_numpy(float) if name in wide else np.full(len(wide), np.nan)
