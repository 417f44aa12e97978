"""Of a run and its evaluation: the tables and outcomes as they lie there, and the patients of each fold."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plain_metrics as plain
import yaml

NAN = float("nan")
HORIZONS = {"1y": 365.25, "3y": 1095.75, "5y": 1826.25}
LOWER = ("brier", "ibs", "brier_1y", "brier_3y", "brier_5y")
OWN = "own_censoring:"
CEILINGS = ("latent", "attainable", "additive")
Key = tuple[str, str, str, str, str]  # task, metric, part, fold, model
Row = tuple[float, float, float, int, int | None]  # value, lo, hi, n, n_events


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
    until: float = NAN  # day before which curves are judged: of the training's follow-up and of this part's
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


def standing(parts: Sequence[Part], *folds: Sequence[float]) -> list[Part]:
    """The parts in which all of these values are known; where there are none, all."""
    return [f for f, *values in zip(parts, *folds, strict=True) if not any(map(math.isnan, values))] or list(parts)


def repeated(parts: Sequence[Part]) -> bool:
    """Whether somebody stands in several."""
    everyone = [p for f in parts for p in f.patients]
    return len(set(everyone)) < len(everyone)


def once(parts: Sequence[Part]) -> list[Part]:
    """Each patient in the first part that has him."""
    seen: set[str] = set()
    out = []
    for f in parts:
        new = np.array([p not in seen for p in f.patients], dtype=bool)
        seen |= set(f.patients)
        said = {model: {o: v[new] for o, v in each.items()} for model, each in f.said.items()}
        own = [p for p, n in zip(f.patients, new, strict=True) if n]
        if own:
            out.append(replace(f, patients=own, label=f.label[new], event=f.event[new], said=said))
    return out


def draws_of(parts: Sequence[Part], count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """How often each patient of each part is drawn, [draw, n]. Who stands in several is drawn in all of them."""
    if not repeated(parts):
        return [rng.multinomial(n, np.full(n, 1 / n), size=count) for n in (len(f.patients) for f in parts)]
    everyone = sorted({p for f in parts for p in f.patients})
    whole = rng.multinomial(len(everyone), np.full(len(everyone), 1 / len(everyone)), size=count)
    return [whole[:, [everyone.index(p) for p in f.patients]] for f in parts]


def weighed_by_themselves(f: Part) -> Part:
    censored = plain.censoring(f.label, f.event)
    return replace(f, censored=censored, g=plain.before(censored, f.label))


def interval(value: float, draws: np.ndarray) -> tuple[float, float, float]:
    """The value with the 2.5 and 97.5 % of its draws, where at least 20 and half of them have one and not all the same
    as it."""
    good = draws[~np.isnan(draws)]
    if math.isnan(value) or len(good) < 20 or len(good) < len(draws) / 2:
        return value, NAN, NAN
    if np.allclose(good, value, rtol=0, atol=1e-12):
        return value, NAN, NAN
    lo, hi = np.quantile(good, [0.025, 0.975])
    return value, float(lo), float(hi)


def text_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def table_of(cohort: Mapping[str, Any], about: Mapping[str, Any]) -> pd.DataFrame:
    """The file of a modality or task, or the patients table where it names none, by patient."""
    whole = cohort["patients"]
    name = about.get("file") or whole["file"]
    table = text_table(Path(cohort["root"]) / name)
    return table.set_index(about.get("id") or whole.get("id", "patient_id"))


def outcome_columns(about: Mapping[str, Any]) -> set[str]:
    return {about[w] for w in ("column", "time", "event") if about.get(w)} | set(about.get("also") or ())


def outcomes(cohort: Mapping[str, Any], task: str) -> pd.DataFrame:
    """Time in days and event (1, 0) of everybody of whom both are known, by patient, as the cohort declares them."""
    about = cohort["tasks"][task]
    assert about["unit"] == "days"
    assert not about.get("causes")
    table = table_of(cohort, about)
    time = pd.to_numeric(table[about["time"]], errors="coerce")
    if about.get("zero") == "half_day":
        time = time.mask(time == 0, 0.5)
    event = table[about["event"]].map({str(word): float(means) for word, means in about["events"].items()})
    return pd.DataFrame({"time": time.where(time > 0), "event": event}).dropna()


class Files:
    """What was written, read once more; `rows` is what metrics.json has to hold, filled by who comes after."""

    def __init__(self, trained: Path, evaluated: Path) -> None:
        self.settings = yaml.safe_load((evaluated / "config.yaml").read_text())
        # patients of another cohort: the mean of all folds predicts them
        self.away = "modalities" in self.settings["cohort"]
        self.training = yaml.safe_load((trained / "config.yaml").read_text())["cohort"]
        self.cohort = self.settings["cohort"] if self.away else self.training
        known = json.loads((trained / "cohort.json").read_text())
        self.tasks: dict[str, dict[str, Any]] = known["tasks"]
        self.clinical = [m for m, about in known["modalities"].items() if about["kind"] == "clinical"]
        self.splits = pd.read_csv(trained / "splits.csv", dtype=str)
        said = evaluated if self.away else trained
        self.trust = text_table(said / "trust.csv")
        learner = text_table(said / "predictions.csv").assign(model="learner")
        self.before = text_table(trained / "predictions.csv").assign(model="learner")
        floors = text_table(evaluated / "floors.csv")
        truth = Path(self.cohort["root"]) / "truth" / "oracle.json"  # of a phantom
        scores = json.loads(truth.read_text())["scores"] if truth.is_file() else {}
        self.predictions = pd.concat([learner, floors, *self._ceilings(scores, learner)], ignore_index=True)
        for rows in (self.predictions, self.before):
            rows["value"] = pd.to_numeric(rows["value"], errors="coerce")
        self.draws, self.seed = int(self.settings["bootstrap"]), int(self.settings["seed"])
        self.rows: dict[Key, Row] = {}
        self.primary_floor = f"floor:{self.settings['primary_floor']}"
        self.parts = {task: self.parts_of(task, "test") for task in self.tasks}

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
                self._follow(task, one)
            if about["kind"] == "binary":
                one.cut = {m: self._threshold(task, one.fold, m) for m in said}
            out.append(one)
        return sorted(out, key=lambda f: (len(f.fold), f.fold))

    def _follow(self, task: str, one: Part) -> None:
        """Curves of the patients of the fold that are no test patients, from the cohort's table; of patients from
        elsewhere those of everybody who trained."""
        own = self.splits[(self.splits["fold"] == one.fold) & (self.splits["part"] != "test")]
        if self.away:
            own = self.splits[self.splits["part"] != "test"].drop_duplicates("patient_id")
        found = outcomes(self.training, task)
        time, event = (found.reindex(own["patient_id"]).dropna()[w].to_numpy() for w in ("time", "event"))
        if self.away:
            time = np.rint(time)  # a run keeps whole days
        one.survival, one.censored = plain.kaplan_meier(time, event), plain.censoring(time, event)
        one.g = plain.before(one.censored, one.label)
        one.until = min(max(t for t, v in one.censored if v > 0), one.label.max(initial=0.0))

    def _threshold(self, task: str, fold: str, model: str) -> float:
        """By the training patients of the fold; of patients from elsewhere the mean of the folds' thresholds."""
        positive, rows = self.tasks[task]["classes"][1], self.predictions
        if self.away and model == "learner":
            rows = self.before
        own = rows[(rows["task"] == task) & (rows["model"] == model) & (rows["part"] == "train")]
        own = own[(own["output"] == f"p:{positive}") & (own["target"] != "")]
        folds = sorted(set(own["fold"])) if self.away else [fold]
        each = [own[own["fold"] == k] for k in folds]
        made = [plain.threshold((k["target"] == positive).to_numpy(float), k["value"].to_numpy()) for k in each]
        return float(np.mean(made)) if made else NAN

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

    def resamples(self, task: str, count: int) -> list[np.ndarray]:
        """Of each fold how often each patient is drawn, [draw, n]."""
        return draws_of(self.parts[task], count, np.random.default_rng([self.seed, *task.encode()]))
