"""Metrics of each model with their intervals, differences to floors, shares of ceilings and optimism, by plain code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plain_metrics as plain
from recount_files import (
    HORIZONS,
    LOWER,
    NAN,
    OWN,
    Files,
    Judged,
    Part,
    draws_of,
    interval,
    repeated,
    standing,
    weighed_by_themselves,
)


class Metrics(Files):
    """Every metric per fold and over all; optimism; and, of another cohort, by its own censoring."""

    judged: dict[str, dict[str, dict[str, Judged]]]  # task -> metric -> model

    def score(self, task: str, part: Part, model: str) -> np.ndarray:
        about, said = self.tasks[task], part.said.get(model, {})
        p = part.proba(model, about["classes"]) if about["classes"] else None
        if p is not None:
            return np.asarray(p[:, 1] if about["kind"] == "binary" else p @ np.arange(p.shape[1]))
        return said.get("risk", said.get("score", np.full(len(part.patients), NAN)))

    def measures(self, task: str) -> dict[str, Callable[[Part, str, np.ndarray], float]]:
        """Metric -> its value for the patients `who` of a part (some of them several times)."""
        about, parts = self.tasks[task], self.parts[task]
        classes = about["classes"]

        def ordered(f: Part, m: str, who: np.ndarray) -> float:
            return plain.in_order(f.label[who], self.score(task, f, m)[who])

        def of_proba(make: Callable[[np.ndarray, np.ndarray, Part], float]) -> Any:
            def value(f: Part, m: str, who: np.ndarray) -> float:
                p = f.proba(m, classes)
                return NAN if p is None or np.isnan(p).any() else make(f.label[who], p[who], f)

            return value

        def above(k: int) -> Any:
            return of_proba(lambda y, p, f: plain.in_order((y > k) * 1.0, p[:, k + 1 :].sum(axis=1)))

        if about["kind"] == "survival":
            return self._of_survival(task, parts, self.end_of_uno(parts))
        several = [f.fold for f in parts if len(set(f.label)) > 1]
        out: dict[str, Any] = {"ordinal_auc" if about["kind"] == "ordinal" else "auc": ordered}
        if about["kind"] == "ordinal":
            out |= {f"auc_above_{c}": above(k) for k, c in enumerate(classes[:-1])}
        out["balanced_accuracy"] = of_proba(
            lambda y, p, f: plain.balanced(y, p, sorted(set(f.label))) if f.fold in several else NAN
        )
        if about["kind"] == "ordinal":
            out["quadratic_kappa"] = of_proba(lambda y, p, f: plain.kappa(y, p) if f.fold in several else NAN)
        else:
            out["average_precision"] = lambda f, m, who: (
                plain.precision(f.label[who], self.score(task, f, m)[who])
                if f.fold in several and not np.isnan(self.score(task, f, m)).any() else NAN
            )  # fmt: skip
        out["brier"] = of_proba(lambda y, p, f: plain.squared(y, p))
        if about["kind"] == "binary":

            def rate(f: Part, m: str, who: np.ndarray, k: int) -> float:
                p, cut = f.proba(m, classes), f.cut.get(m, NAN)
                if p is None or math.isnan(cut):
                    return NAN
                own = f.label[who] == k
                return plain.divided((own & ((p[who, 1] >= cut) == k)).sum(), own.sum())

            out["sensitivity"] = lambda f, m, who: rate(f, m, who, 1)
            out["specificity"] = lambda f, m, who: rate(f, m, who, 0)
            out["balanced_accuracy_at_threshold"] = lambda f, m, who: (rate(f, m, who, 1) + rate(f, m, who, 0)) / 2
        return out

    def end_of_uno(self, parts: Sequence[Part]) -> float:
        """The first day on which G is below 0.1 in some fold, or its last."""
        ends = []
        for f in parts:
            low = [t for t, v in f.censored or [] if v < 0.1]
            ends.append(low[0] if low else (f.censored or [(0.0, 1.0)])[-1][0])
        return min(ends)

    def _of_survival(self, task: str, parts: Sequence[Part],
                     tau: float) -> dict[str, Callable[[Part, str, np.ndarray], float]]:  # fmt: skip
        g = {f.fold: f.g for f in parts}

        def risk(f: Part, m: str) -> np.ndarray:
            return self.score(task, f, m)

        until = min(f.until for f in parts if sum(d < f.until for d in f.days()) > 1)

        def grid(f: Part) -> np.ndarray:
            return np.array([d for d in f.days() if d < until])

        def nearest(f: Part, day: float) -> np.ndarray:
            return np.array(sorted((d for d in f.days() if abs(d - day) <= 0.01 * day), key=lambda d: abs(d - day))[:1])

        def terms(f: Part, curves: np.ndarray | None, days: np.ndarray) -> np.ndarray | None:
            if curves is None or np.isnan(curves).any():
                return None
            if len(days) == 1:
                return plain.graf(curves[:, 0], f.label, f.event, g[f.fold], f.censored or [], days[0])
            return plain.integrated(curves, days, f.label, f.event, g[f.fold], f.censored or [])

        kept: dict[tuple[str, str, str], np.ndarray | None] = {}

        def mean(name: str, f: Part, m: str, days: np.ndarray, who: np.ndarray) -> float:
            if (name, f.fold, m) not in kept:
                kept[name, f.fold, m] = terms(f, f.curve(m, days), days)
            found = kept[name, f.fold, m]
            known = (f.label[who] > days[-1]) | (f.event[who] == 1)
            return NAN if found is None or not known.any() else float(found[who].mean())

        def ipa(f: Part, m: str, who: np.ndarray) -> float:
            days = grid(f)
            if ("reference", f.fold, "") not in kept:
                same = np.tile([plain.at(f.survival or [], d) for d in days], (len(f.label), 1))
                kept["reference", f.fold, ""] = terms(f, same, days)
            reference = kept["reference", f.fold, ""]
            return NAN if reference is None else 1 - mean("ibs", f, m, days, who) / float(reference[who].mean())

        def antolini(f: Part, m: str, who: np.ndarray) -> float:
            curves = f.curve(m, f.days())
            if curves is None or np.isnan(curves).any():
                return NAN
            return plain.antolini(curves[who], np.array(f.days()), f.label[who], f.event[who])

        out: dict[str, Any] = {
            "c_index": lambda f, m, w: plain.concordance(risk(f, m)[w], f.label[w], f.event[w]),
            "uno_c": lambda f, m, w: plain.uno(risk(f, m)[w], f.label[w], f.event[w], g[f.fold][w], tau),
            "antolini_c": antolini,
            "ibs": lambda f, m, w: mean("ibs", f, m, grid(f), w),
            "ipa": ipa,
        }
        for word in self.too_few(parts):
            out |= dict.fromkeys((f"auc_{word}", f"brier_{word}"), lambda *_: NAN)
        for word, days in HORIZONS.items():
            if word not in self.too_few(parts):
                out[f"auc_{word}"] = lambda f, m, w, d=days: plain.dynamic_auc(
                    risk(f, m)[w], f.label[w], f.event[w], g[f.fold][w], d
                )
                out[f"brier_{word}"] = lambda f, m, w, d=days, k=word: mean(k, f, m, nearest(f, d), w)
        return out

    def too_few(self, parts: Sequence[Part]) -> list[str]:
        """Horizons that fewer than ten are followed to."""
        time = {p: t for f in parts for p, t in zip(f.patients, f.label, strict=True)}.values()
        return [w for w, day in HORIZONS.items() if sum(t >= day for t in time) < 10]

    def judge(self, task: str) -> dict[str, dict[str, Judged]]:
        """Metric -> model -> values."""
        parts, weights = self.parts[task], self.resamples(task, self.draws)
        rows = self.predictions
        models = list(dict.fromkeys(rows.loc[(rows["task"] == task) & (rows["part"] == "test"), "model"]))
        out: dict[str, dict[str, Judged]] = {}
        for k, (metric, measure) in enumerate(self.measures(task).items()):
            for model in models:
                made = self.bootstrap(parts, weights, lambda f, who, b=measure, m=model: b(f, m, who), repeated(parts))
                if k == 0 or model == "learner" or any(not math.isnan(v) for v in made.folds):
                    out.setdefault(metric, {})[model] = made
        return out

    def bootstrap(self, parts: Sequence[Part], weights: Sequence[np.ndarray],
                  measure: Callable[[Part, np.ndarray], float], repeats: bool = False) -> Judged:  # fmt: skip
        folds, draws = [], []
        for f, often in zip(parts, weights, strict=True):
            everybody = np.arange(len(f.patients))
            value = measure(f, everybody) if len(everybody) and self.speaks(f) else NAN
            folds.append(value)
            blank = math.isnan(value)
            draws.append(np.array([NAN if blank else measure(f, np.repeat(everybody, w)) for w in often]))
        return Judged(folds, draws, [len(f.patients) for f in parts], repeats)

    def speaks(self, part: Part) -> bool:
        return bool(part.said)

    def difference(self, ours: Judged, theirs: Judged) -> Judged:
        folds = [a - b for a, b in zip(ours.folds, theirs.folds, strict=True)]
        draws = [a - b for a, b in zip(ours.draws, theirs.draws, strict=True)]
        return Judged(folds, draws, ours.sizes, ours.repeats)

    def primary(self, task: str) -> str:
        return next(iter(self.judged[task]))

    def _metrics(self, task: str) -> None:
        parts, judged = self.parts[task], self.judged[task]
        for metric, models in judged.items():
            for model, made in models.items():
                for k, f in enumerate(parts):
                    own = interval(made.folds[k], made.draws[k])
                    self.put(task, metric, own, self.counted(task, [f]), model, fold=f.fold)
                n = self.counted(task, standing(parts, made.folds))
                self.put(task, metric, interval(made.value, made.spread), n, model)
        for metric in (self.primary(task), *LOWER):
            for model, made in judged.get(metric, {}).items():
                if model.startswith("floor:"):
                    gap = self.difference(judged[metric]["learner"], made)
                    n = self.counted(task, standing(parts, gap.folds))
                    self.put(task, f"difference:{metric}", interval(gap.value, gap.spread), n, model)
        each = judged[self.primary(task)]
        ours, top, added = (each.get(m) for m in ("learner", "oracle:attainable", "oracle:additive"))
        if ours is None or top is None or added is None:
            return
        n = self.counted(task, standing(parts, ours.folds))
        for metric, base, lower in (("share", 0.5, np.full(self.draws, 0.5)),
                                    ("fusion_share", added.value, added.spread)):  # fmt: skip
            if top.value - base > 0.02:
                with np.errstate(all="ignore"):
                    draws = (ours.spread - lower) / (top.spread - lower)
                value = (ours.value - base) / (top.value - base)
                self.put(task, metric, interval(value, np.where(np.isfinite(draws), draws, NAN)), n)
            else:
                self.put(task, metric, [NAN], n)

    def _optimism(self, task: str) -> None:
        rng = np.random.default_rng([self.seed, *f"optimism {task}".encode()])
        metric = self.primary(task)
        measure = self.measures(task)[metric]
        test = self.parts[task]
        for part in ("train", "validation"):
            folds = self.parts_of(task, part)
            both = [*folds, *test]
            weights = draws_of(both, self.draws, rng)
            here, there = (
                self.bootstrap(some, w, lambda f, who: measure(f, "learner", who), repeated(both))
                for some, w in ((folds, weights[: len(folds)]), (test, weights[len(folds) :]))
            )
            n = self.counted(task, standing(folds, here.folds))
            self.put(task, metric, interval(here.value, here.spread), n, part=part)
            gap = interval(here.value - there.value, here.spread - there.spread)
            self.put(task, f"optimism:{metric}", gap, n, part=part)

    def _own_censoring(self, task: str) -> None:
        """The metrics with weights once more, by the censoring of the very patients who are judged."""
        parts = self.parts[task]
        mine, weights = [weighed_by_themselves(f) for f in parts], self.resamples(task, self.draws)
        for metric, measure in self._of_survival(task, mine, self.end_of_uno(parts)).items():
            for model in self.judged[task][self.primary(task)] if metric not in ("c_index", "antolini_c") else ():
                made = self.bootstrap(mine, weights, lambda f, who, b=measure, m=model: b(f, m, who))
                before = self.judged[task].get(metric, {}).get(model)
                if not math.isnan(made.value) or (before and not math.isnan(before.value)):
                    n = self.counted(task, parts)
                    self.put(task, OWN + metric, interval(made.value, made.spread), n, model)
