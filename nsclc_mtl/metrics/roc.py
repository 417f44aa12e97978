"""ROC curves within folds, and their mean over folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Roc:
    """One curve: true positive rate over a grid of false positive rates, averaged over folds, and each fold's own."""

    name: str
    mean: np.ndarray  # [grid]
    folds: list[np.ndarray]  # each [grid]


GRID = np.linspace(0, 1, 101)


def roc(name: str, folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> Roc | None:
    """The patient-weighted vertical average of within-fold ROC curves; None where no fold has both classes.

    folds: (label 0/1 [n], score [n]) each. Patients of different folds never meet on one curve.
    """
    curves, sizes = [], []
    for label, score in folds:
        keep = ~np.isnan(score)
        y, s = label[keep], score[keep]
        if len(np.unique(y)) < 2:
            continue
        order = np.argsort(-s, kind="stable")
        last = np.r_[np.diff(s[order]) != 0, True]  # tied scores move along one straight step
        tpr = np.r_[0, np.cumsum(y[order] == 1)[last] / (y == 1).sum()]
        fpr = np.r_[0, np.cumsum(y[order] == 0)[last] / (y == 0).sum()]
        curve = np.interp(GRID, fpr, tpr)
        curve[0] = 0.0
        curves.append(curve)
        sizes.append(len(y))
    return Roc(name, np.average(curves, axis=0, weights=sizes), curves) if curves else None
