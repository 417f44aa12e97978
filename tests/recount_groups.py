"""Subgroups, groups of risk, prediction sets and lower bounds, by plain code."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
import plain_metrics as plain
from recount_files import (
    HORIZONS,
    NAN,
    OWN,
    Judged,
    Part,
    draws_of,
    interval,
    outcome_columns,
    repeated,
    table_of,
    weighed_by_themselves,
)
from recount_metrics import Metrics
from scipy.stats import chi2


class Groups(Metrics):
    """What is told of some of the patients."""

    def groups(self, task: str) -> Iterator[tuple[str, dict[str, set[str]]]]:
        """Columns and the tested patients of each level: site, sex, age at its median, and the stage. Of the patients
        table, and of the clinical tables that the model reads; outcomes are none but the stage."""
        cohort, wanted = self.cohort, self.settings["subgroups"]
        tested = sorted({p for f in self.parts[task] for p in f.patients})
        columns, outcome = {}, {name: outcome_columns(about) for name, about in cohort["tasks"].items()}
        for about in (cohort["patients"], *(cohort["modalities"][m] for m in self.clinical)):
            table = table_of(cohort, about)
            kept = [c for c in table if c in (about.get("columns") or table.columns)]
            columns |= {c: table[c].reindex(tested, fill_value="") for c in kept if c not in columns}
        for column, cells in columns.items():
            words = set(re.split("[^a-z0-9]+", column.lower()))
            usual = column == "site" or words & {"sex", "gender", "age", "stage"}
            hidden = any(column in names for names in outcome.values()) and "stage" not in words
            if column in outcome[task] or (column not in wanted if wanted is not None else hidden or not usual):
                continue
            own = cells[cells != ""]
            number = pd.to_numeric(own, errors="coerce")
            if "stage" in words and number.isna().all():
                own = own.str.upper().str.removeprefix("STAGE ").str.extract("^(IV|I{1,3})[ABC]?$")[0].dropna()
            elif (number % 1 == 0).all():
                own = own.str.removesuffix(".0")
            if "age" in words:
                middle = float(np.median(number))
                members = {f"up to {middle:g}": set(own.index[number <= middle]),
                           f"above {middle:g}": set(own.index[number > middle])}  # fmt: skip
            else:
                members = {level: set(own.index[own == level]) for level in sorted(set(own))}
            assert len(members) < 10, f"{column}: levels are joined beyond the eighth"
            if len(members) > 1:
                yield column, members

    def _subgroups(self, task: str) -> None:
        metric, kind = self.primary(task), self.tasks[task]["kind"]
        weights, parts = self.resamples(task, self.draws), self.parts[task]
        whole = self.counted(task, parts)
        measure = self.measures(task)[metric]
        if math.isnan(self.judged[task][metric]["learner"].value):
            return
        for column, levels in self.groups(task):
            values, errors = [], []
            for level, members in levels.items():
                at = [np.array([i for i, p in enumerate(f.patients) if p in members], dtype=int) for f in parts]
                each = {f.patients[k]: (f.label[k], f.event[k]) for f, i in zip(parts, at, strict=True) for k in i}
                labels, events = np.array([x for x, _ in each.values()]), int(sum(e for _, e in each.values()))
                counts = [int((labels == k).sum()) for k in set(labels)]
                rare = {"survival": events, "binary": min(int(labels.sum()), len(labels) - int(labels.sum()))}.get(
                    kind, len(labels) - max(counts, default=0)
                )
                n = (len(labels), {"survival": events, "binary": int(labels.sum())}.get(kind))
                made = Judged([NAN], [np.full(self.draws, NAN)], [0])
                if len(labels) >= 10 and rare >= 5:
                    folds, draws = [], []
                    for f, i, w in zip(parts, at, weights, strict=True):
                        value = measure(f, "learner", i) if len(i) else NAN
                        folds.append(value)
                        draws.append(np.array([
                            NAN if math.isnan(value) else measure(f, "learner", np.repeat(i, d[i])) for d in w
                        ]))  # fmt: skip
                    made = Judged(folds, draws, [len(i) for i in at], True)
                    known = [(f, i) for f, i, v in zip(parts, at, folds, strict=True) if not math.isnan(v)]
                    there = {f.patients[k]: (f.label[k], f.event[k]) for f, i in known for k in i}
                    had = sum((e if kind == "survival" else x) == 1 for x, e in there.values())
                    left = [x for x, _ in there.values()]
                    fewest = {"survival": had, "binary": min(had, len(there) - had)}.get(
                        kind, len(there) - max((left.count(k) for k in set(left)), default=0)
                    )
                    if there and (len(there) < 10 or fewest < 5):
                        made = Judged([NAN], [np.full(self.draws, NAN)], [0])
                    elif there:
                        n = (len(there), had if kind in ("survival", "binary") else None)
                self.put(task, f"{metric}|{column}={level}", interval(made.value, made.spread), n)
                values.append(made.value)
                errors.append(plain.spread(made.spread))
            self.put(task, f"p_interaction:{metric}|{column}", [plain.cochran(values, errors)], whole)

    def _risk_groups(self, task: str) -> None:
        own = self.before
        own = own[(own["task"] == task) & (own["output"] == "risk") & (own["part"] == "train")]
        middle = own.groupby("fold")["value"].median()
        parts, seen, columns = self.parts[task], set[str](), []
        for k, f in enumerate(parts):
            risk = f.said["learner"]["risk"] > (middle.mean() if self.away else middle[f.fold])
            new = np.array([p not in seen for p in f.patients])  # of repeated folds the first
            seen |= set(f.patients)
            columns.append(np.stack([risk, f.label, f.event, np.full(len(new), k)])[:, new])
        high, time, event, of_fold = np.concatenate(columns, axis=1)
        high = high == 1
        whole = (len(time), int(event.sum()))
        members = {name: who for name, who in (("low_risk", ~high), ("high_risk", high)) if who.any()}
        reached = min(time[who].max() for who in members.values())
        horizon = next((d for d in sorted(HORIZONS.values(), reverse=True) if d <= reached), reached)
        means = {name: plain.restricted_mean(time[who], event[who], horizon) for name, who in members.items()}
        for name, (area, variance) in means.items():
            who, half = members[name], 1.959963984540054 * math.sqrt(variance) if variance else NAN
            self.put(
                task,
                f"restricted_mean_days:{name}",
                (area, area - half, area + half),
                (int(who.sum()), int(event[who].sum())),
            )
        if len(members) < 2:
            return
        fit = plain.cox(high[:, None] * 1.0, time, event)
        beta, error = float(fit["beta"][0]), 1.959963984540054 * float(fit["error"][0])
        self.put(task, "hazard_ratio:high_risk", tuple(np.exp([beta, beta - error, beta + error])), whole)
        (low, a), (worse, b) = means.values()
        half = 1.959963984540054 * math.sqrt(a + b) if a and b else NAN
        self.put(task, "restricted_mean_days:difference", (low - worse, low - worse - half, low - worse + half), whole)
        self.put(task, "log_rank", [plain.log_rank(time, event, high)], whole)
        if len(parts) == 1:
            self.put(task, "log_rank_p", [float(chi2.sf(plain.log_rank(time, event, high), 1))], whole)
        else:
            self.put(task, "log_rank_within_folds", [plain.log_rank_within(time, event, high, of_fold)], whole)

    def told(self, task: str, what: str, f: Part) -> pd.Series:
        own = self.trust[(self.trust["task"] == task) & (self.trust["what"] == what) & (self.trust["fold"] == f.fold)]
        return own.set_index("patient_id")["value"].reindex(f.patients)

    def _sets(self, task: str) -> None:
        hits, sizes, who = [], [], set[str]()
        for f in self.parts[task]:
            told = self.told(task, "set", f)
            if told.notna().any():
                names = [self.tasks[task]["classes"][int(k)] for k in f.label]
                hits += [name in words.split("|") for name, words in zip(names, told, strict=True)]
                sizes += [len(words.split("|")) for words in told]
                who |= set(f.patients)
        if hits:
            self.put(task, "set_coverage", [float(np.mean(hits))], (len(who), None))
            self.put(task, "set_size", [float(np.mean(sizes))], (len(who), None))

    def _bounds(self, task: str) -> None:
        parts = self.parts[task]
        weights = draws_of(parts, self.draws, np.random.default_rng([self.seed, 7919]))
        bound = {f.fold: self.told(task, "lower_bound_days", f).astype(float).to_numpy() for f in parts}
        if all(np.isnan(b).all() for b in bound.values()):
            return

        def covered(f: Part, who: np.ndarray) -> float:
            early = (f.event == 1) & (f.label < bound[f.fold])
            return float(np.mean((1 - np.where(early, plain.inverse(f.g), 0))[who]))

        n = (len({p for f in parts for p in f.patients}), None)
        own = [weighed_by_themselves(f) for f in parts] if self.away else []
        for words, each in (("bound_coverage", parts), (f"{OWN}bound_coverage", own)):
            if each:
                made = self.bootstrap(each, weights, covered, repeated(parts))
                self.put(task, words, interval(made.value, made.spread), n)
