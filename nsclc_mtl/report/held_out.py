"""How the models of a run do on the patients whom their folds held out: the primary metric of each task, in words too.

A page about one patient needs it beside every probability: a model that knows nothing can be very sure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.metrics.comparison import Interval, bootstrap, repeated, resamples_of
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.evaluation import TaskResult, folds_of
from nsclc_mtl.report.measures import CHANCE, LEARNER, PRIMARY, metrics_of, tried
from nsclc_mtl.report.words import metric_word

FEWEST = 10  # patients for an interval: resamples of fewer give back little more than the least and the greatest value
UNCALIBRATED = "Probabilities are not calibrated on patients whom the model had not seen: they may be far too sure."
UNKNOWN = "How the model does on patients whom it had not seen is not known: neither run nor bundle has it on record."


@dataclass(frozen=True)
class HeldOut:
    """The primary metric of a task over the test patients of all folds, with its 95 % interval."""

    metric: str
    value: float  # NaN where there is none
    lo: float
    hi: float
    n: int
    events: int | None  # events (survival), positives (binary)
    reason: str = ""  # why a number is missing
    agree: bool = False  # all resamples have this very value, as `Interval.agree`

    @property
    def verdict(self) -> str:
        """The metric against chance, by its interval."""
        at = Interval(self.value, self.lo, self.hi, agree=self.agree)
        if at.above(CHANCE):
            return "better than chance"
        return "worse than chance" if at.below(CHANCE) else "not told apart from chance"

    @property
    def sentence(self) -> str:
        """All of it for a reader who looks at one patient."""
        events = {"c_index": "events"}.get(self.metric, "positive")
        who = f"{self.n} held-out patients of the training cohort" + (
            f" ({self.events} {events})" if self.events is not None else ""
        )
        word = metric_word(self.metric)
        if not math.isfinite(self.value):
            return f"On {who} the model has no {word}{f': {self.reason}' if self.reason else ''}."
        if not math.isfinite(self.lo):
            return f"On {who}: {word} {self.value:.3f}, {self.verdict} ({self.reason or 'no interval'})."
        return (
            f"On {who}: {word} {self.value:.3f} (95 % interval {self.lo:.3f} to {self.hi:.3f}), {self.verdict}, "
            f"which is {CHANCE}."
        )

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON: a number that is not there is None."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> HeldOut:
        """What `state()` came from."""
        value, lo, hi = (math.nan if state.get(word) is None else float(state[word]) for word in ("value", "lo", "hi"))
        events, agree = state.get("events"), bool(state.get("agree"))
        return cls(state["metric"], value, lo, hi, state["n"], events, state["reason"], agree)


def held_out(
    predictions: pd.DataFrame, tasks: Mapping[str, TaskSpec], draws: int = 1000, seed: int = 0
) -> dict[str, HeldOut]:
    """Task -> how the folds do on their test patients, as `evaluation.judge` has it with the same draws and seed.

    predictions: rows of predictions.csv of a training (`read_table` types). Tasks without a test row are left out.
    """
    rows = predictions[predictions["part"] == "test"].assign(model=LEARNER)
    made = {}
    for name, task in tasks.items():
        own = rows[rows["task"] == name]
        if own.empty:
            continue
        result = TaskResult(task, folds_of(own, task, {}))
        people = [fold.patients for fold in result.folds]
        weights = resamples_of(people, draws, np.random.default_rng([seed, *name.encode()]))
        of = metrics_of(task, result.folds)[PRIMARY[task.kind]]
        measures = (tried(of, fold, fold.said[LEARNER]) for fold in result.folds)
        at = enough(bootstrap(measures, weights, repeated(people)).interval(), result.n)
        made[name] = HeldOut(PRIMARY[task.kind], at.value, at.lo, at.hi, result.n, result.events, at.reason, at.agree)
    return made


def of_model(calibrated: str | None, found: HeldOut | None) -> list[str]:
    """What holds of a task for every patient, a sentence each: calibration, and the held-out patients.

    calibrated: by what its probabilities are, "" where they are not; None where it has none, and nothing is said.

    >>> of_model("a temperature", None)[0]
    'Probabilities are calibrated: a temperature.'
    """
    told = []
    if calibrated is not None:
        told.append(f"Probabilities are calibrated: {calibrated}." if calibrated else UNCALIBRATED)
    return [*told, found.sentence if found else UNKNOWN]


def enough(at: Interval, patients: int) -> Interval:
    """The interval; of fewer than `FEWEST` patients its value alone, with the reason."""
    if patients >= FEWEST or not math.isfinite(at.value):
        return at
    few = f"no interval: {patients} patient{'s' * (patients != 1)}, at least {FEWEST} are needed"
    return replace(at, lo=math.nan, hi=math.nan, reason=few, agree=False)
