"""One censoring distribution, one reference curve and one end of the survival curves for runs that stand side by side.

What weighs the patients is no part of what a run predicts. By G of each run's own training patients two runs that say
the very same would have other Brier scores and another Uno's C, only because one was trained on fewer patients. G is
therefore that of everybody whom any of the runs trained on, each counted once: no run is preferred, which one is the
reference changes nothing, and of runs that share a split it is the G of their own reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from nsclc_mtl.metrics import survival
from nsclc_mtl.report.fold import Fold, curves_until


def share(folds: Mapping[str, Sequence[Fold]], training: Mapping[str, Mapping[str, pd.DataFrame]], same: bool) -> None:
    """Gives the folds of all runs one G and one Kaplan-Meier curve; without training outcomes they stay without.

    same: whether the runs have the same folds. Then these are made fold by fold, so that nobody whom a fold tests is in
    them. Else no fold of a run belongs to one of another: one G of all folds and one end serve everywhere, and it knows
    of a tested patient how long he was followed, never what was predicted.

    folds: run -> its folds. training: run -> fold -> outcomes of its non-test patients, indexed by patient.
    """
    if same:
        for beside in zip(*folds.values(), strict=True):
            own = [training[label].get(fold.fold) for label, fold in zip(folds, beside, strict=True)]
            _weigh(beside, [frame for frame in own if frame is not None])
        return
    every = [fold for each in folds.values() for fold in each]
    _weigh(every, [frame for label in folds for frame in training[label].values()])
    until = max(curves_until(fold) for fold in every)
    for fold in every:
        fold.until = until if fold.censoring is not None else None


def _weigh(folds: Sequence[Fold], outcomes: Sequence[pd.DataFrame]) -> None:
    if not outcomes:
        return
    everybody = pd.concat(outcomes)
    everybody = everybody[~everybody.index.duplicated()].sort_index()
    time, event = everybody["time_days"], everybody["event"]
    censoring, curve = survival.censoring_curve(time, event), survival.kaplan_meier(time, event)
    for fold in folds:
        fold.censoring, fold.survival = censoring, curve
