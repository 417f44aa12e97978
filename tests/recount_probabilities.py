"""Calibration and net benefit of the probabilities of all folds together, by plain code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import plain_metrics as plain
from recount_files import HORIZONS, NAN, Part, draws_of, interval, once
from recount_metrics import Metrics
from scipy.stats import chi2


class Probabilities(Metrics):
    """What probabilities claim, held against what happened."""

    def targets(self, task: str) -> Iterator[tuple[str, np.ndarray, float | None, dict[str, np.ndarray]]]:
        """(suffix, happened, day, model -> probability) of the test patients of all folds."""
        parts, about = once(self.parts[task]), self.tasks[task]
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

    def each_once(self, task: str, happened: np.ndarray) -> tuple[int, int]:
        everyone = [p for f in once(self.parts[task]) for p in f.patients]
        return len(set(everyone)), len({p for p, y in zip(everyone, happened, strict=True) if y})

    def pooled(self, task: str) -> list[np.ndarray]:
        """Resamples of the patients of all folds: for each draw who is in it."""
        rng = np.random.default_rng([self.seed, *task.encode()])
        weights = np.hstack(draws_of(once(self.parts[task]), min(200, self.draws), rng))
        return [np.repeat(np.arange(weights.shape[1]), w) for w in weights]

    def _calibration(self, task: str) -> None:
        survival = self.tasks[task]["kind"] == "survival"
        label, event = (np.concatenate([getattr(f, w) for f in once(self.parts[task])]) for w in ("label", "event"))
        everybody = np.arange(len(label))
        for suffix, happened, day, said in self.targets(task):
            for model, p in said.items():
                if day is None:
                    make = of_classes(p, happened * 1.0)
                else:
                    own = self.curves_at(once(self.parts[task]), model, np.minimum(label, day), 7.0)
                    make = of_risks(p, label, event, day, own)
                value = make(everybody)
                drawn = [make(who) if len(value) else {} for who in self.pooled(task)]
                for name, v in value.items():
                    own = interval(v, np.array([d[name] for d in drawn]))
                    word = f"calibration_{name}" if name in ("slope", "intercept", "in_the_large") else name
                    self.put(task, word + suffix, own, self.each_once(task, happened), model)
        if survival and list(self.targets(task)):
            for model in next(iter(self.targets(task)))[3]:
                self._uniform(task, model, label, event)

    def _uniform(self, task: str, model: str, label: np.ndarray, event: np.ndarray) -> None:
        """D-calibration: S(T) in ten bins, the censored spread over the bins below."""
        parts = once(self.parts[task])
        last = min(max(f.days(model)) for f in parts)
        s = self.curves_at(parts, model, np.minimum(label, last), 0.0)
        count = np.zeros(10)
        for one, dead in zip(s, np.where(label > last, 0, event), strict=True):
            if dead:
                count[min(int(one * 10), 9)] += 1
            else:
                count += [max(0.0, min(one - b / 10, 0.1)) / one for b in range(10)]
        chi = float(((count - len(s) / 10) ** 2 / (len(s) / 10)).sum())
        n = self.counted(task, self.parts[task])
        self.put(task, "d_calibration_chi2", [chi], n, model)
        self.put(task, "d_calibration_p", [float(chi2.sf(chi, 9)) if len(s) >= 50 else NAN], n, model)

    def _decision(self, task: str) -> None:
        label, event = (np.concatenate([getattr(f, w) for f in once(self.parts[task])]) for w in ("label", "event"))
        everybody = np.arange(len(label))
        for suffix, happened, day, said in self.targets(task):
            n = self.each_once(task, happened)
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


def of_classes(p: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], dict[str, float]]:
    """Calibration of probabilities among some patients; the knots are those of everybody."""
    inside = np.clip(p, 1e-6, 1 - 1e-6)
    x = np.log(inside / (1 - inside))
    basis = np.c_[np.ones(len(x)), plain.spline(x, plain.knots_of(x))]
    fewest, constant = min(y.sum(), (1 - y).sum()), np.ptp(p) == 0
    held = (p >= 1e-6) & (p <= 1 - 1e-6)  # the others have no logit
    sloped = held.all() or (min(y[held].sum(), (1 - y[held]).sum()) >= 5 and np.ptp(p[held]) > 0)

    def of(who: np.ndarray) -> dict[str, float]:
        out = dict.fromkeys(("slope", "intercept", "in_the_large", "observed_expected", "ici", "e50", "e90"), NAN)
        out["observed_expected"] = float(y[who].sum() / p[who].sum()) if p[who].sum() > 0 else NAN
        rest = y[who].sum() - (p[who] > 1 - 1e-6).sum()  # outcomes of those who have one, were the others right
        if fewest and 0 < rest < held[who].sum():
            out["in_the_large"] = float(plain.logistic(np.ones((len(who), 1)), y[who], x[who])[0])
        if constant:
            gap = np.full(len(who), y[who].mean()) - p[who]
        elif fewest >= 5:
            if sloped:
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
    held = (p >= 1e-6) & (p <= 1 - 1e-12)

    def of(who: np.ndarray) -> dict[str, float]:
        out = dict.fromkeys(("slope", "in_the_large", "observed_expected", "ici", "e50", "e90"), NAN)
        if own.min() > 1e-12 * (1 + 1e-6):
            out["in_the_large"] = plain.poisson_constant(seen[who], own[who])
        observed = plain.happened_by(time[who], event[who], when)
        out["observed_expected"] = observed / float(p[who].mean())
        if np.ptp(p) == 0:
            return out | distances(observed - p[who])
        if seen.sum() < 5:
            return out
        if held.all() or (seen[held].sum() >= 5 and np.ptp(p[held]) > 0):
            out["slope"] = float(plain.cox(x[who, None], until[who], seen[who])["beta"][0])
        fit = plain.cox(basis[who], until[who], seen[who])
        return out | distances(1 - np.exp(-fit["hazard"] * np.exp((basis @ fit["beta"])[who])) - p[who])

    return of


def distances(gap: np.ndarray) -> dict[str, float]:
    far = np.abs(gap)
    return {"ici": float(far.mean()), "e50": float(np.quantile(far, 0.5)), "e90": float(np.quantile(far, 0.9))}
