"""A second reading of a run: every row of metrics.json from the files beside it, by `plain_metrics.py` alone.

What is read: predictions.csv, splits.csv, trust.csv and cohort.json of the training, floors.csv and config.yaml of the
evaluation, the cohort's patients table, and the phantom's truth/oracle.json (the ceilings). Resamples are drawn as
docs/metrics.md says.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plain_metrics as plain
import yaml
from scipy.stats import chi2

NAN = float("nan")
HORIZONS = {"1y": 365.25, "3y": 1095.75, "5y": 1826.25}
LOWER = ("brier", "ibs", "brier_1y", "brier_3y", "brier_5y")
CEILINGS = ("latent", "attainable", "additive")
Key = tuple[str, str, str, str, str]  # task, metric, part, fold, model
Row = tuple[float, float, float, int, int | None]  # value, lo, hi, n, n_events


NOT_RECOUNTED: dict[str, str] = {
    "deletion_gap:": "needs the model: what it says of patients without some of their tiles (`explained=`)",
    "nadeau_bengio:": "only where patients are dealt into folds anew several times (`folds.repeats`)",
    "p_nadeau_bengio:": "the same",
    "log_rank_p": "only of one fold: risk groups of several are not independent of the outcome",
}
"""Kinds of rows that these files do not tell, or that these runs do not have. A new kind has to be recounted or stand
here with its reason."""


@dataclass
class Part:
    """Patients of one fold with a known outcome, and what each model says of them."""

    fold: str
    patients: list[str]
    label: np.ndarray
    event: np.ndarray
    said: dict[str, dict[str, np.ndarray]]  # model -> output -> [n]
    survival: plain.Steps | None = None  # of the training patients
    censored: plain.Steps | None = None
    g: np.ndarray | None = None  # probability of being uncensored just before each patient's time
    cut: dict[str, float] = field(
        default_factory=dict
    )  # model -> P(positive) from which on somebody is called positive

    def proba(self, model: str, classes: Sequence[str]) -> np.ndarray | None:
        names = [f"p:{c}" for c in classes]
        said = self.said.get(model, {})
        return np.stack([said[n] for n in names], axis=1) if set(names) <= set(said) else None

    def curve(self, model: str, days: Sequence[float]) -> np.ndarray | None:
        names, said = [f"surv:{d:g}" for d in days], self.said.get(model, {})
        return np.stack([said[n] for n in names], axis=1) if set(names) <= set(said) and names else None

    def days(self, model: str = "learner") -> list[float]:
        return sorted(float(o[5:]) for o in self.said.get(model, {}) if o.startswith("surv:"))


@dataclass
class Judged:
    """A metric of one model: of each fold and over them, on the patients as they are and on every resample."""

    folds: list[float]
    draws: list[np.ndarray]
    sizes: list[int]
    repeats: bool = False

    @property
    def value(self) -> float:
        return over([np.array([v]) for v in self.folds], self.folds, self.sizes, False)[0]

    @property
    def spread(self) -> np.ndarray:
        return over(self.draws, self.folds, self.sizes, self.repeats)


def over(values: Sequence[np.ndarray], known: Sequence[float], sizes: Sequence[int], repeats: bool) -> np.ndarray:
    """Patient-weighted mean over the folds that have a value."""
    used = [(v, n) for v, k, n in zip(values, known, sizes, strict=True) if not math.isnan(k)]
    if not used:
        return np.full(len(values[0]), NAN)
    out = []
    for one in zip(*(v for v, _ in used), strict=True):
        pairs = [(v, n) for v, (_, n) in zip(one, used, strict=True) if not (repeats and math.isnan(v))]
        out.append(sum(v * n for v, n in pairs) / sum(n for _, n in pairs) if pairs else NAN)
    return np.array(out)


def interval(value: float, draws: np.ndarray) -> tuple[float, float, float]:
    """The value with the 2.5 and 97.5 % of its draws, where at least 20 and half of them have one."""
    good = draws[~np.isnan(draws)]
    if math.isnan(value) or len(good) < 20 or len(good) < len(draws) / 2:
        return value, NAN, NAN
    lo, hi = np.quantile(good, [0.025, 0.975])
    return value, float(lo), float(hi)


class Recount:
    """Reads a training and its evaluation; `rows` is what metrics.json has to hold."""

    def __init__(self, data: Path, trained: Path, evaluated: Path) -> None:
        self.settings = yaml.safe_load((evaluated / "config.yaml").read_text())
        self.tasks: dict[str, dict[str, Any]] = json.loads((trained / "cohort.json").read_text())["tasks"]
        self.splits = pd.read_csv(trained / "splits.csv", dtype=str)
        self.patients = pd.read_csv(data / "patients.csv", dtype=str, keep_default_na=False).set_index("patient_id")
        self.trust = pd.read_csv(trained / "trust.csv", dtype=str, keep_default_na=False)
        learner = pd.read_csv(trained / "predictions.csv", dtype=str, keep_default_na=False).assign(model="learner")
        floors = pd.read_csv(evaluated / "floors.csv", dtype=str, keep_default_na=False)
        truth = json.loads((data / "truth" / "oracle.json").read_text())["scores"]
        self.predictions = pd.concat([learner, floors, *self._ceilings(truth, learner)], ignore_index=True)
        self.predictions["value"] = pd.to_numeric(self.predictions["value"], errors="coerce")
        self.draws, self.seed = int(self.settings["bootstrap"]), int(self.settings["seed"])
        self.rows: dict[Key, Row] = {}
        self.primary_floor = f"floor:{self.settings['primary_floor']}"
        self.parts = {task: self.parts_of(task, "test") for task in self.tasks}
        self.judged = {task: self.judge(task) for task in self.tasks}
        for task in self.tasks:
            self._metrics(task)
            self._calibration(task)
            self._decision(task)
            self._optimism(task)
            self._subgroups(task)
            if self.tasks[task]["kind"] == "survival":
                self._risk_groups(task)
                self._bounds(task)
            else:
                self._sets(task)
        self._comparison()

    # ------------------------------------------------------------------------------------------------------- reading

    def _ceilings(self, truth: Mapping[str, Any], learner: pd.DataFrame) -> Iterator[pd.DataFrame]:
        own = learner[learner["part"] == "test"].drop_duplicates(["patient_id", "task", "fold"])
        for name in CEILINGS:
            for task in self.tasks:
                if task in truth.get(name, {}):
                    inside = own[own["task"] == task]
                    value = inside["patient_id"].map(truth[name][task])
                    yield inside.assign(model=f"oracle:{name}", output="score", value=value)

    def parts_of(self, task: str, part: str) -> list[Part]:
        about, rows = self.tasks[task], self.predictions
        survival = about["kind"] == "survival"
        rows = rows[(rows["task"] == task) & (rows["part"] == part)]
        out = []
        for fold, inside in rows.groupby("fold"):
            ours = inside[inside["model"] == "learner"].drop_duplicates("patient_id").set_index("patient_id")
            known = (ours["event"] != "") & (ours["time_days"] != "") if survival else ours["target"] != ""
            ours = ours[known].sort_index()
            label = ours["time_days"].astype(float) if survival else ours["target"].map(about["classes"].index)
            event = ours["event"].astype(float) if survival else label * 0
            said: dict[str, dict[str, np.ndarray]] = {}
            for (model, output), values in inside.groupby(["model", "output"]):
                value = values.set_index("patient_id")["value"].reindex(ours.index).to_numpy()
                said.setdefault(str(model), {})[str(output)] = value
            one = Part(str(fold), list(ours.index), label.to_numpy(float), event.to_numpy(float), said)
            if survival:
                self._follow(one)
            if about["kind"] == "binary":
                one.cut = {m: self._threshold(task, one.fold, m) for m in said}
            out.append(one)
        return out

    def _follow(self, one: Part) -> None:
        """Curves of the patients of the fold that are no test patients, from the cohort's table."""
        own = self.splits[(self.splits["fold"] == one.fold) & (self.splits["part"] != "test")]
        table = self.patients.loc[own["patient_id"]]
        table = table[(table["os_days"] != "") & (table["os_status"] != "")]
        time = table["os_days"].astype(float).to_numpy()
        event = (table["os_status"] == "deceased").to_numpy(float)
        one.survival, one.censored = plain.kaplan_meier(time, event), plain.censoring(time, event)
        one.g = plain.before(one.censored, one.label)

    def _threshold(self, task: str, fold: str, model: str) -> float:
        positive, rows = self.tasks[task]["classes"][1], self.predictions
        own = rows[(rows["task"] == task) & (rows["fold"] == fold) & (rows["model"] == model)]
        own = own[(own["output"] == f"p:{positive}") & (own["target"] != "") & (own["part"] == "train")]
        return plain.threshold((own["target"] == positive).to_numpy(float), own["value"].to_numpy())

    def counted(self, task: str, parts: Sequence[Part]) -> tuple[int, int | None]:
        """Patients, and events or positives, each patient once."""
        kind = self.tasks[task]["kind"]
        had = {p: (e if kind == "survival" else x) == 1 for f in parts
               for p, x, e in zip(f.patients, f.label, f.event, strict=True)}  # fmt: skip
        return len(had), sum(had.values()) if kind in ("survival", "binary") else None

    def put(self, task: str, metric: str, found: Sequence[float], n: tuple[int, int | None], model: str = "learner",
            part: str = "test", fold: str = "all") -> None:  # fmt: skip
        key, values = (task, metric, part, fold, model), [*found, NAN, NAN][:3]
        assert key not in self.rows, key
        self.rows[key] = (*(v if math.isfinite(v) else NAN for v in values), *n)  # type: ignore[assignment]

    def resamples(self, task: str, count: int, words: str | None = None) -> list[np.ndarray]:
        """Of each fold how often each patient is drawn, [draw, n]."""
        rng = np.random.default_rng([self.seed, *(words or task).encode()])
        sizes = [len(f.patients) for f in self.parts[task]]
        return [rng.multinomial(n, np.full(n, 1 / n), size=count) for n in sizes]

    # ------------------------------------------------------------------------------------------------------- metrics

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
            return self._of_survival(parts)
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

    def _of_survival(self, parts: Sequence[Part]) -> dict[str, Callable[[Part, str, np.ndarray], float]]:
        ends = []
        for f in parts:
            low = [t for t, v in f.censored or [] if v < 0.1]
            ends.append(low[0] if low else (f.censored or [(0.0, 1.0)])[-1][0])
        tau = min(ends)
        g = {f.fold: f.g for f in parts}

        def risk(f: Part, m: str) -> np.ndarray:
            return self.score("survival", f, m)

        judged = [min(max(t for t, v in f.censored or [] if v > 0), f.label.max()) for f in parts]
        until = min(end for f, end in zip(parts, judged, strict=True) if sum(d < end for d in f.days()) > 1)

        def grid(f: Part) -> np.ndarray:
            return np.array([d for d in f.days() if d < until])

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
        for word, days in HORIZONS.items():
            if days < max(f.label.max() for f in parts):
                out[f"auc_{word}"] = lambda f, m, w, d=days: plain.dynamic_auc(
                    risk(f, m)[w], f.label[w], f.event[w], g[f.fold][w], d
                )
                day = np.array([min(parts[0].days(), key=lambda saved, d=days: abs(saved - d))])
                out[f"brier_{word}"] = lambda f, m, w, d=day, k=word: mean(k, f, m, d, w)
        return out

    def judge(self, task: str) -> dict[str, dict[str, Judged]]:
        """Metric -> model -> values."""
        parts, weights = self.parts[task], self.resamples(task, self.draws)
        rows = self.predictions
        models = list(dict.fromkeys(rows.loc[(rows["task"] == task) & (rows["part"] == "test"), "model"]))
        out: dict[str, dict[str, Judged]] = {}
        for k, (metric, measure) in enumerate(self.measures(task).items()):
            for model in models:
                made = self.bootstrap(parts, weights, lambda f, who, b=measure, m=model: b(f, m, who))
                if k == 0 or any(not math.isnan(v) for v in made.folds):
                    out.setdefault(metric, {})[model] = made
        return out

    def bootstrap(self, parts: Sequence[Part], weights: Sequence[np.ndarray],
                  measure: Callable[[Part, np.ndarray], float], repeats: bool = False) -> Judged:  # fmt: skip
        folds, draws = [], []
        for f, drawn in zip(parts, weights, strict=True):
            everybody = np.arange(len(f.patients))
            value = measure(f, everybody) if len(everybody) and self.speaks(f) else NAN
            folds.append(value)
            blank = math.isnan(value)
            draws.append(np.array([NAN if blank else measure(f, np.repeat(everybody, w)) for w in drawn]))
        return Judged(folds, draws, [len(f.patients) for f in parts], repeats)

    def speaks(self, part: Part) -> bool:
        return bool(part.said)

    def difference(self, ours: Judged, theirs: Judged) -> Judged:
        folds = [a - b for a, b in zip(ours.folds, theirs.folds, strict=True)]
        draws = [a - b for a, b in zip(ours.draws, theirs.draws, strict=True)]
        return Judged(folds, draws, ours.sizes)

    def primary(self, task: str) -> str:
        return next(iter(self.judged[task]))

    def _metrics(self, task: str) -> None:
        parts, judged = self.parts[task], self.judged[task]
        n = self.counted(task, parts)
        for metric, models in judged.items():
            for model, made in models.items():
                for k, f in enumerate(parts):
                    own = interval(made.folds[k], made.draws[k])
                    self.put(task, metric, own, self.counted(task, [f]), model, fold=f.fold)
                self.put(task, metric, interval(made.value, made.spread), n, model)
        for metric in (self.primary(task), *LOWER):
            for model, made in judged.get(metric, {}).items():
                if model.startswith("floor:"):
                    gap = self.difference(judged[metric]["learner"], made)
                    self.put(task, f"difference:{metric}", interval(gap.value, gap.spread), n, model)
        each = judged[self.primary(task)]
        ours, top, added = (each.get(m) for m in ("learner", "oracle:attainable", "oracle:additive"))
        if ours is None or top is None or added is None:
            return
        for metric, base, drawn in (("share", 0.5, np.full(self.draws, 0.5)),
                                    ("fusion_share", added.value, added.spread)):  # fmt: skip
            if top.value - base > 0.02:
                with np.errstate(all="ignore"):
                    draws = (ours.spread - drawn) / (top.spread - drawn)
                good = draws[np.isfinite(draws)]
                ends = np.quantile(good, [0.025, 0.975]) if len(good) >= 20 else (NAN, NAN)
                self.put(task, metric, ((ours.value - base) / (top.value - base), *ends), n)
            else:
                self.put(task, metric, [NAN], n)

    # ------------------------------------------------------------------------------------------ train, validation, test

    def _optimism(self, task: str) -> None:
        rng = np.random.default_rng([self.seed, *f"optimism {task}".encode()])
        metric = self.primary(task)
        measure = self.measures(task)[metric]
        test = self.parts[task]
        for part in ("train", "validation"):
            folds = self.parts_of(task, part)
            both = [*folds, *test]
            everyone = sorted({p for f in both for p in f.patients})
            if len(everyone) < sum(len(f.patients) for f in both):  # who is drawn is drawn in every fold
                drawn = rng.multinomial(len(everyone), np.full(len(everyone), 1 / len(everyone)), size=self.draws)
                weights = [drawn[:, [everyone.index(p) for p in f.patients]] for f in both]
                again = True
            else:
                weights = [
                    rng.multinomial(n, np.full(n, 1 / n), size=self.draws) for n in map(len, (f.patients for f in both))
                ]
                again = False
            here, there = (
                self.bootstrap(some, w, lambda f, who: measure(f, "learner", who), again)
                for some, w in ((folds, weights[: len(folds)]), (test, weights[len(folds) :]))
            )
            n = self.counted(task, folds)
            self.put(task, metric, interval(here.value, here.spread), n, part=part)
            gap = interval(here.value - there.value, here.spread - there.spread)
            self.put(task, f"optimism:{metric}", gap, n, part=part)

    # ----------------------------------------------------------------------------------------------------- subgroups

    def groups(self, task: str) -> Iterator[tuple[str, dict[str, set[str]]]]:
        """Columns and the tested patients of each level: site, sex, age at its median, and the stage."""
        table = self.patients.loc[sorted({p for f in self.parts[task] for p in f.patients})]
        for column in ("site", "sex", "age", "stage"):
            if column == task:
                continue
            own = table.loc[table[column] != "", column]
            if column == "age":
                middle = float(np.median(own.astype(float)))
                low = own.astype(float) <= middle
                yield column, {f"up to {middle:g}": set(own.index[low]), f"above {middle:g}": set(own.index[~low])}
            else:
                yield column, {level: set(own.index[own == level]) for level in sorted(set(own))}

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
                labels = np.concatenate([f.label[i] for f, i in zip(parts, at, strict=True)])
                events = int(sum(f.event[i].sum() for f, i in zip(parts, at, strict=True)))
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
                self.put(task, f"{metric}|{column}={level}", interval(made.value, made.spread), n)
                values.append(made.value)
                errors.append(plain.spread(made.spread))
            self.put(task, f"p_interaction:{metric}|{column}", [plain.cochran(values, errors)], whole)

    # --------------------------------------------------------------------------------------------------- probabilities

    def targets(self, task: str) -> Iterator[tuple[str, np.ndarray, float | None, dict[str, np.ndarray]]]:
        """(suffix, happened, day, model -> probability) of the test patients of all folds."""
        parts, about = self.parts[task], self.tasks[task]
        models = [
            "learner",
            *([self.primary_floor] if self.primary_floor in self.judged[task][self.primary(task)] else []),
        ]
        label, event = (np.concatenate([getattr(f, w) for f in parts]) for w in ("label", "event"))
        if about["kind"] == "survival":
            for word, day in HORIZONS.items():
                said = {m: 1 - self.curves_at(parts, m, np.full(len(label), day), 7.0) for m in models}
                said = {m: p for m, p in said.items() if not np.isnan(p).any()}
                if (label >= day).sum() >= 10 and "learner" in said:
                    yield f"_{word}", (label <= day) & (event == 1), day, said
            return
        above = about["kind"] == "ordinal"
        for k, c in enumerate(about["classes"][:-1] if above else about["classes"][1:]):
            said = {}
            for m in models:
                each = [f.proba(m, about["classes"]) for f in parts]
                if all(p is not None and not np.isnan(p).any() for p in each):
                    p = np.concatenate([p for p in each if p is not None])
                    said[m] = np.clip(p[:, k + 1 :].sum(axis=1) if above else p[:, 1], 0, 1)
            yield (f"_above_{c}" if above else ""), (label > k if above else label == 1), None, said

    def curves_at(self, parts: Sequence[Part], model: str, when: np.ndarray, reach: float) -> np.ndarray:
        out, start = [], 0
        for f in parts:
            own, days = when[start : start + len(f.patients)], f.days(model)
            curves = f.curve(model, days)
            out.append(np.full(len(own), NAN) if curves is None else plain.between(curves, np.array(days), own, reach))
            start += len(own)
        return np.concatenate(out)

    def pooled(self, task: str) -> list[np.ndarray]:
        """Resamples of the patients of all folds: for each draw who is in it."""
        weights = np.hstack(self.resamples(task, min(200, self.draws)))
        return [np.repeat(np.arange(weights.shape[1]), w) for w in weights]

    def _calibration(self, task: str) -> None:
        survival = self.tasks[task]["kind"] == "survival"
        label, event = (np.concatenate([getattr(f, w) for f in self.parts[task]]) for w in ("label", "event"))
        everybody = np.arange(len(label))
        for suffix, happened, day, said in self.targets(task):
            for model, p in said.items():
                if day is None:
                    make = of_classes(p, happened * 1.0)
                else:
                    own = self.curves_at(self.parts[task], model, np.minimum(label, day), 7.0)
                    make = of_risks(p, label, event, day, own)
                value = make(everybody)
                drawn = [make(who) if len(value) else {} for who in self.pooled(task)]
                for name, v in value.items():
                    own = interval(v, np.array([d[name] for d in drawn]))
                    word = f"calibration_{name}" if name in ("slope", "intercept", "in_the_large") else name
                    self.put(task, word + suffix, own, (len(label), int(happened.sum())), model)
        if survival and list(self.targets(task)):
            for model in next(iter(self.targets(task)))[3]:
                self._uniform(task, model, label, event)

    def _uniform(self, task: str, model: str, label: np.ndarray, event: np.ndarray) -> None:
        """D-calibration: S(T) in ten bins, the censored spread over the bins below."""
        last = min(max(f.days(model)) for f in self.parts[task])
        s = self.curves_at(self.parts[task], model, np.minimum(label, last), 0.0)
        count = np.zeros(10)
        for one, dead in zip(s, np.where(label > last, 0, event), strict=True):
            if dead:
                count[min(int(one * 10), 9)] += 1
            else:
                count += [max(0.0, min(one - b / 10, 0.1)) / one for b in range(10)]
        chi = float(((count - len(s) / 10) ** 2 / (len(s) / 10)).sum())
        n = self.counted(task, self.parts[task])
        self.put(task, "d_calibration_chi2", [chi], n, model)
        self.put(task, "d_calibration_p", [float(chi2.sf(chi, 9))], n, model)

    def _decision(self, task: str) -> None:
        label, event = (np.concatenate([getattr(f, w) for f in self.parts[task]]) for w in ("label", "event"))
        everybody = np.arange(len(label))
        for suffix, happened, day, said in self.targets(task):
            n = (len(label), int(happened.sum()))
            share = float(happened.mean()) if day is None else plain.happened_by(label, event, day)
            top = min(0.95, max(0.2, 2 * share))
            at = np.round(np.arange(0.01, top + 1e-9, 0.01), 4)
            for k in sorted({round((len(at) - 1) * q) for q in (0.25, 0.5, 0.75)}):
                limit = float(at[k])

                def benefit(p: np.ndarray, who: np.ndarray, y: np.ndarray = happened, day: float | None = day,
                            limit: float = limit) -> float:  # fmt: skip
                    treated = who[p[who] >= limit]
                    if not len(treated):
                        return 0.0
                    had = y[treated].mean() if day is None else plain.happened_by(label[treated], event[treated], day)
                    return float(len(treated) / len(who) * (had - (1 - had) * limit / (1 - limit)))

                each = {m: (benefit(p, everybody), np.array([benefit(p, who) for who in self.pooled(task)]))
                        for m, p in {**said, "treat all": np.ones(len(label))}.items()}  # fmt: skip
                metric = f"net_benefit{suffix}@{limit:.2f}"
                for model, (value, draws) in each.items():
                    self.put(task, metric, interval(value, draws), n, model)
                    if model != "learner":
                        gap = interval(each["learner"][0] - value, each["learner"][1] - draws)
                        self.put(task, f"difference:{metric}", gap, n, model)

    # ------------------------------------------------------------------------------------------- groups, trust, floors

    def _risk_groups(self, task: str) -> None:
        rows = self.predictions
        own = rows[(rows["task"] == task) & (rows["output"] == "risk") & (rows["model"] == "learner")]
        own = own[own["part"] == "train"]
        parts = self.parts[task]
        high = np.concatenate(
            [f.said["learner"]["risk"] > own.loc[own["fold"] == f.fold, "value"].median() for f in parts]
        )
        time, event = (np.concatenate([getattr(f, w) for f in parts]) for w in ("label", "event"))
        whole = (len(time), int(event.sum()))
        members = {name: who for name, who in (("low_risk", ~high), ("high_risk", high)) if who.any()}
        reached = min(time[who].max() for who in members.values())
        horizon = next((d for d in sorted(HORIZONS.values(), reverse=True) if d <= reached), reached)
        means = {name: plain.restricted_mean(time[who], event[who], horizon) for name, who in members.items()}
        for name, (area, variance) in means.items():
            who, half = members[name], 1.959963984540054 * math.sqrt(variance)
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
        half = 1.959963984540054 * math.sqrt(a + b)
        self.put(task, "restricted_mean_days:difference", (low - worse, low - worse - half, low - worse + half), whole)
        self.put(task, "log_rank", [plain.log_rank(time, event, high)], whole)
        if len(parts) > 1:
            of_fold = np.concatenate([np.full(len(f.patients), k) for k, f in enumerate(parts)])
            self.put(task, "log_rank_within_folds", [plain.log_rank_within(time, event, high, of_fold)], whole)

    def told(self, task: str, what: str, f: Part) -> pd.Series:
        own = self.trust[(self.trust["task"] == task) & (self.trust["what"] == what) & (self.trust["fold"] == f.fold)]
        return own.set_index("patient_id")["value"].reindex(f.patients)

    def _sets(self, task: str) -> None:
        hits, sizes = [], []
        for f in self.parts[task]:
            told = self.told(task, "set", f)
            if told.notna().any():
                names = [self.tasks[task]["classes"][int(k)] for k in f.label]
                hits += [name in words.split("|") for name, words in zip(names, told, strict=True)]
                sizes += [len(words.split("|")) for words in told]
        if hits:
            self.put(task, "set_coverage", [float(np.mean(hits))], (len(hits), None))
            self.put(task, "set_size", [float(np.mean(sizes))], (len(hits), None))

    def _bounds(self, task: str) -> None:
        rng, parts = np.random.default_rng([self.seed, 7919]), self.parts[task]
        weights = [rng.multinomial(n, np.full(n, 1 / n), size=self.draws) for n in (len(f.patients) for f in parts)]
        bound = {f.fold: self.told(task, "lower_bound_days", f).astype(float).to_numpy() for f in parts}
        if all(np.isnan(b).all() for b in bound.values()):
            return

        def covered(f: Part, who: np.ndarray) -> float:
            early = (f.event == 1) & (f.label < bound[f.fold])
            return float(np.mean((1 - np.where(early, plain.inverse(f.g), 0))[who]))

        made = self.bootstrap(parts, weights, covered)
        self.put(task, "bound_coverage", interval(made.value, made.spread), (sum(map(len, bound.values())), None))

    def _comparison(self) -> None:
        asked = {}
        for task, judged in self.judged.items():
            metric, n = self.primary(task), self.counted(task, self.parts[task])
            each = judged[metric]
            for model, made in each.items():
                if not model.startswith("floor:") or math.isnan(made.value) or math.isnan(each["learner"].value):
                    continue
                gap = self.difference(each["learner"], made)
                p, test = plain.rarer_side(gap.spread), "bootstrap"
                if self.tasks[task]["kind"] != "survival":
                    found = self._delong(task, model, gap)
                    p, test = (p, test) if math.isnan(found) else (found, "delong")
                self.put(task, f"p_{test}:{metric}", [p], n, model)
                smallest = (1.959963984540054 + 0.8416212335729143) * plain.spread(gap.spread)
                self.put(task, f"smallest_difference:{metric}", [smallest], n, model)
                if model == self.primary_floor:
                    asked[task] = p
                if model == "floor:stage":
                    ratio = self._beside_stage(task)
                    self.put(task, "likelihood_ratio:stage", [ratio], n)
                    self.put(task, "p_likelihood_ratio:stage", [float(chi2.sf(ratio, 1))], n)
        for task, p in zip(asked, plain.holm(list(asked.values())), strict=True):
            n = self.counted(task, self.parts[task])
            self.put(task, f"p_holm:{self.primary(task)}", [p], n, self.primary_floor)

    def _delong(self, task: str, model: str, gap: Judged) -> float:
        variance, used = 0.0, [f for f, v in zip(self.parts[task], gap.folds, strict=True) if not math.isnan(v)]
        total = sum(len(f.patients) for f in used)
        for f in used:
            a, b = (plain.delong_terms(f.label, self.score(task, f, m)) for m in ("learner", model))
            variance += (len(f.patients) / total) ** 2 * float(((a - b) ** 2).sum())
        if variance < 1e-24:
            return 1.0 if abs(gap.value) < 1e-12 else NAN
        return plain.two_sided(gap.value / math.sqrt(variance))

    def _beside_stage(self, task: str) -> float:
        """Twice the gain in log likelihood when the learner's score joins the stage floor's, folds apart."""
        columns: dict[str, list[np.ndarray]] = {w: [] for w in ("ours", "stage", "label", "event", "fold")}
        for k, f in enumerate(self.parts[task]):
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
            factor = np.stack([c["fold"] == k for k in sorted(set(c["fold"]))[1:]], axis=1) * 1.0
            base = np.c_[c["stage"], factor]
            small, large = (plain.proportional_odds(x, c["label"]) for x in (base, np.c_[base, c["ours"]]))
        return max(0.0, 2 * (large - small))


def of_classes(p: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], dict[str, float]]:
    """Calibration of probabilities among some patients; the knots are those of everybody."""
    inside = np.clip(p, 1e-6, 1 - 1e-6)
    x = np.log(inside / (1 - inside))
    basis = np.c_[np.ones(len(x)), plain.spline(x, plain.knots_of(x))]
    fewest, constant = min(y.sum(), (1 - y).sum()), np.ptp(p) == 0

    def of(who: np.ndarray) -> dict[str, float]:
        out = dict.fromkeys(("slope", "intercept", "in_the_large", "observed_expected", "ici", "e50", "e90"), NAN)
        out["observed_expected"] = float(y[who].sum() / p[who].sum()) if p[who].sum() > 0 else NAN
        if fewest:
            out["in_the_large"] = float(plain.logistic(np.ones((len(who), 1)), y[who], x[who])[0])
        if constant:
            gap = np.full(len(who), y[who].mean()) - p[who]
        elif fewest >= 5:
            out["slope"], out["intercept"] = plain.logistic(np.c_[x, np.ones(len(x))][who], y[who])
            beta = plain.logistic(basis[who], y[who])
            gap = 1 / (1 + np.exp(-(basis @ beta)[who])) - p[who]
        else:
            gap = np.full(len(who), NAN)
        return out | distances(gap)

    return of


def of_risks(
    p: np.ndarray, time: np.ndarray, event: np.ndarray, when: float, own: np.ndarray
) -> Callable[[np.ndarray], dict[str, float]]:
    """Calibration of the risks of an event until a day. own: S at the end of each patient's follow-up or that day."""
    x = np.log(-np.log(1 - np.clip(p, 1e-6, 1 - 1e-12)))
    seen, until = ((event == 1) & (time <= when)) * 1.0, np.minimum(time, when)
    basis = plain.spline(x, plain.knots_of(x))

    def of(who: np.ndarray) -> dict[str, float]:
        out = dict.fromkeys(("slope", "in_the_large", "observed_expected", "ici", "e50", "e90"), NAN)
        out["in_the_large"] = plain.poisson_constant(seen[who], own[who])
        observed = plain.happened_by(time[who], event[who], when)
        out["observed_expected"] = observed / float(p[who].mean())
        if np.ptp(p) == 0:
            return out | distances(observed - p[who])
        if seen.sum() < 5:
            return out
        out["slope"] = float(plain.cox(x[who, None], until[who], seen[who])["beta"][0])
        fit = plain.cox(basis[who], until[who], seen[who])
        return out | distances(1 - np.exp(-fit["hazard"] * np.exp((basis @ fit["beta"])[who])) - p[who])

    return of


def distances(gap: np.ndarray) -> dict[str, float]:
    far = np.abs(gap)
    return {"ici": float(far.mean()), "e50": float(np.quantile(far, 0.5)), "e90": float(np.quantile(far, 0.9))}


@dataclass
class Told:
    """What an evaluation wrote, and what the recount makes of the same files."""

    rows: dict[Key, dict[str, Any]]
    again: dict[Key, Row]


def recounted(data: Path, trained: Path, evaluated: Path) -> Told:
    """Both, after every row was found to be the same in both; AssertionError where one is not."""
    rows = json.loads((evaluated / "metrics.json").read_text())
    told = {(r["task"], r["metric"], r["part"], r["fold"], r["model"]): r for r in rows}
    assert len(told) == len(rows), "a row stands twice"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # infinite weights: NaN in the end
        again = Recount(data, trained, evaluated).rows
    wanted = {key for key in told if not key[1].startswith(tuple(NOT_RECOUNTED))}
    assert set(again) == wanted, sorted(set(again) ^ wanted)
    wrong = []
    for key, mine in again.items():
        row = told[key]
        theirs = [NAN if row[end] is None else row[end] for end in ("value", "lo", "hi")]
        same = np.allclose(mine[:3], theirs, rtol=1e-6, atol=1e-6, equal_nan=True)
        if not same or mine[3:] != (row["n"], row["n_events"]) or (math.isnan(mine[0]) and not row["reason"]):
            wrong.append((key, mine, theirs, row["n"], row["n_events"], row["reason"]))
    assert not wrong, "\n".join(map(str, wrong[:20]))
    return Told(told, again)
