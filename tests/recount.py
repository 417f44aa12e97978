"""A second reading of a run: every row of metrics.json from the files beside it, by `plain_metrics.py` alone.

What is read (`recount_files.py`): predictions.csv, splits.csv, trust.csv, cohort.json and config.yaml of the training,
floors.csv and config.yaml of the evaluation (of another cohort its predictions.csv and trust.csv too), the tables of
the cohort as its configuration declares them, and of a phantom truth/oracle.json (the ceilings). Resamples are drawn
as docs/metrics.md says.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plain_metrics as plain
from recount_files import NAN, Judged, Key, Row, once, repeated, standing
from recount_groups import Groups
from recount_probabilities import Probabilities
from scipy.stats import chi2
from scipy.stats import t as student

NOT_RECOUNTED: dict[str, str] = {
    "deletion_gap:": "needs the model: what it says of patients without some of their tiles (`explained=`)",
    "drift_": "of inputs, not outcomes: how their columns lie against those of the training (another cohort)",
    "outside:": "the same of each patient, by what the folds keep of their training inputs",
}
"""Kinds of rows that these files do not tell, or that these runs do not have. A new kind has to be recounted or stand
here with its reason."""


class Recount(Probabilities, Groups):
    """All rows of an evaluation."""

    def __init__(self, trained: Path, evaluated: Path) -> None:
        super().__init__(trained, evaluated)
        self.judged = {task: self.judge(task) for task in self.tasks}
        for task in self.tasks:
            self._metrics(task)
            self._calibration(task)
            self._decision(task)
            if not self.away:
                self._optimism(task)
            self._subgroups(task)
            if self.tasks[task]["kind"] == "survival":
                self._risk_groups(task)
                self._bounds(task)
                if self.away:
                    self._own_censoring(task)
            else:
                self._sets(task)
        self._comparison()

    def _comparison(self) -> None:
        asked = {}
        for task, judged in self.judged.items():
            metric, whole = self.primary(task), self.counted(task, self.parts[task])
            each = judged[metric]
            for model, made in each.items():
                if not model.startswith("floor:") or math.isnan(made.value) or math.isnan(each["learner"].value):
                    continue
                gap = self.difference(each["learner"], made)
                n = self.counted(task, standing(self.parts[task], gap.folds))
                p, test = plain.rarer_side(gap.spread), "bootstrap"
                if self.tasks[task]["kind"] != "survival":
                    found = self._delong(task, model, gap)
                    p, test = (p, test) if math.isnan(found) else (found, "delong")
                self.put(task, f"p_{test}:{metric}", [p], n, model)
                smallest = (1.959963984540054 + 0.8416212335729143) * plain.spread(gap.spread)
                self.put(task, f"smallest_difference:{metric}", [smallest], n, model)
                if model == self.primary_floor:
                    asked[task] = p, n
                if repeated(self.parts[task]):
                    over = self._over_splits(task, model, gap)
                    if model == self.primary_floor:  # a verdict needs both
                        asked[task] = max(p, over), n
                if model == "floor:stage":
                    ratio = self._beside_stage(task)
                    self.put(task, "likelihood_ratio:stage", [ratio], whole)
                    self.put(task, "p_likelihood_ratio:stage", [float(chi2.sf(ratio, 1))], whole)
        for (task, (_, n)), p in zip(asked.items(), plain.holm([p for p, _ in asked.values()]), strict=True):
            self.put(task, f"p_holm:{self.primary(task)}", [p], n, self.primary_floor)

    def _delong(self, task: str, model: str, gap: Judged) -> float:
        used = [f for f, v in zip(self.parts[task], gap.folds, strict=True) if not math.isnan(v)]
        total, terms = sum(len(f.patients) for f in used), dict[str, float]()
        for f in used:
            a, b = (plain.delong_terms(f.label, self.score(task, f, m)) for m in ("learner", model))
            for patient, term in zip(f.patients, len(f.patients) / total * (a - b), strict=True):
                terms[patient] = terms.get(patient, 0.0) + term
        variance = sum(t * t for t in terms.values())
        if variance < 1e-24:
            return 1.0 if abs(gap.value) < 1e-12 else NAN
        return plain.two_sided(gap.value / math.sqrt(variance))

    def _over_splits(self, task: str, model: str, gap: Judged) -> float:
        """Nadeau and Bengio's t-test over the folds of all repeats; its P, 1 where it points the other way."""
        known, n, metric = (
            [v for v in gap.folds if not math.isnan(v)],
            self.counted(task, standing(self.parts[task], gap.folds)),
            self.primary(task),
        )
        share = [self.splits.loc[self.splits["fold"] == k, "part"].value_counts() for k in set(self.splits["fold"])]
        ratio = float(np.mean([c["test"] / c["train"] for c in share]))
        mean, error = float(np.mean(known)), math.sqrt((1 / len(known) + ratio) * float(np.var(known, ddof=1)))
        half = float(student.ppf(0.975, len(known) - 1)) * error
        self.put(task, f"nadeau_bengio:{metric}", (mean, mean - half, mean + half), n, model)
        p = float(2 * student.sf(abs(mean) / error, len(known) - 1))
        self.put(task, f"p_nadeau_bengio:{metric}", [p], n, model)
        return 1.0 if mean * gap.value < 0 else p

    def _beside_stage(self, task: str) -> float:
        """Twice the gain in log likelihood when the learner's score joins the stage floor's, folds apart."""
        columns: dict[str, list[np.ndarray]] = {w: [] for w in ("ours", "stage", "label", "event", "fold")}
        for k, f in enumerate(once(self.parts[task])):
            ours, stage = self.score(task, f, "learner"), self.score(task, f, "floor:stage")
            if not np.isnan(stage).all():
                for word, v in (("ours", ours), ("stage", stage)):
                    columns[word].append((v - v.mean()) / v.std() if v.std() > 0 else v * 0)
                for word, v in (("label", f.label), ("event", f.event), ("fold", np.full(len(ours), k * 1.0))):
                    columns[word].append(v)
        c = {word: np.concatenate(v) for word, v in columns.items()}
        if self.tasks[task]["kind"] == "survival":
            both = np.c_[c["stage"], c["ours"]]
            small, large = (
                float(plain.cox(x, c["label"], c["event"], c["fold"])["value"]) for x in (both[:, :1], both)
            )
        else:
            factor = (c["fold"][:, None] == sorted(set(c["fold"]))[1:]) * 1.0
            base = np.c_[c["stage"], factor]
            small, large = (plain.proportional_odds(x, c["label"]) for x in (base, np.c_[base, c["ours"]]))
        return max(0.0, 2 * (large - small))


@dataclass
class Told:
    """What an evaluation wrote, and what the recount makes of the same files."""

    rows: dict[Key, dict[str, Any]]
    again: dict[Key, Row]


def recounted(trained: Path, evaluated: Path, values: Collection[tuple[str, str]] = ()) -> Told:
    """Both, after every row was found to be the same in both; AssertionError where one is not.

    values: (task, metric) of which the value alone is compared, and no interval.
    """
    rows = json.loads((evaluated / "metrics.json").read_text())
    told = {(r["task"], r["metric"], r["part"], r["fold"], r["model"]): r for r in rows}
    assert len(told) == len(rows), "a row stands twice"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # infinite weights: NaN in the end
        again = Recount(trained, evaluated).rows
    wanted = {key for key in told if not key[1].startswith(tuple(NOT_RECOUNTED))}
    assert set(again) == wanted, sorted(set(again) ^ wanted)
    wrong = []
    for key, mine in again.items():
        row = told[key]
        theirs = [NAN if row[end] is None else row[end] for end in ("value", "lo", "hi")]
        many = 1 if key[:2] in values else 3
        same = np.allclose(mine[:many], theirs[:many], rtol=1e-6, atol=1e-6, equal_nan=True)
        if not same or mine[3:] != (row["n"], row["n_events"]) or (math.isnan(mine[0]) and not row["reason"]):
            wrong.append((key, mine, theirs, row["n"], row["n_events"], row["reason"]))
    assert not wrong, "\n".join(map(str, wrong[:20]))
    return Told(told, again)
