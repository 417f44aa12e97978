"""Survival of risk groups: cut on training patients, drawn and compared on test patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from nsclc_mtl.metrics import risk_groups as rg
from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import log_rank
from nsclc_mtl.report import curves
from nsclc_mtl.report.evaluation import TaskResult, row
from nsclc_mtl.report.fold import once, once_said
from nsclc_mtl.report.measures import HORIZONS_DAYS, LEARNER
from nsclc_mtl.report.section import Evidence, Section
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, slug

WAYS = {"median": "the median", "tertiles": "the tertiles", "maxstat": "the maximally selected log-rank cut-off"}
NAMES = {2: ("low risk", "high risk"), 3: ("low risk", "medium risk", "high risk")}


@dataclass
class Groups:
    """Test patients of a survival task by risk group; each patient once."""

    names: tuple[str, ...]
    group: np.ndarray  # int [n], 0 = lowest risk
    time: np.ndarray  # days [n]
    event: np.ndarray  # 1 / 0 [n]
    cuts: pd.DataFrame  # a row a fold: fold, the cut-offs, patients and part that they were fixed on
    independent: bool  # one model judges all of them, and trained on none
    fold: np.ndarray = field(default_factory=lambda: np.zeros(0))  # number of the fold that judged them [n]
    why: str = ""  # there are no groups
    members: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # name -> (time, event)


def risk(evidence: Evidence) -> list[Section]:
    """One section for every survival task."""
    return [_section(evidence, r) for r in evidence.results.values() if r.task.kind == "survival"]


def grouped(evidence: Evidence, result: TaskResult) -> Groups:
    """The test patients in the groups that training fixed.

    The cut-offs are those of each patient's own fold, so the groups of all folds may be shown together. External
    patients are judged by the mean risk of the folds that predict them, hence by the mean of their cut-offs.
    """
    way = str(evidence.settings.get("risk_groups", "median"))
    found = _cuts(evidence, result, way)
    used = [f for f in result.folds if f.fold in found and "risk" in f.said[LEARNER]]
    parts: list[np.ndarray] = []
    for where, fold in enumerate(once(used)):
        said = fold.said[LEARNER]["risk"]
        at = rg.groups_of(said, found[fold.fold]["cuts"])
        parts.append(np.stack([at, fold.label, fold.event, np.full(len(at), where)])[:, said.notna().to_numpy()])
    names = NAMES[3 if way == "tertiles" else 2]
    table = pd.DataFrame(
        [{"fold": k, **{f"cut_{i + 1}": c for i, c in enumerate(v["cuts"])}, **v["told"]} for k, v in found.items()]
    )
    alone = sum(len(f.patients) > 0 for f in result.folds) == 1
    if not parts:
        why = "predictions.csv holds no risks of training patients, so there is no cut-off for risk groups"
        if way == "maxstat":
            why += ", or no cut-off leaves a tenth of them on each side"
        nobody = np.zeros(0)
        return Groups(names, nobody, nobody, nobody, table, alone, why=why)
    group, time, event, where = np.concatenate(parts, axis=1)
    made = Groups(names, group.astype(int), time, event, table, alone, where)
    for k, name in enumerate(names):
        if (group == k).any():
            made.members[name] = (time[group == k], event[group == k])
    return made


def _cuts(evidence: Evidence, result: TaskResult, way: str) -> dict[str, dict[str, Any]]:
    """{fold: its cut-offs and what is told of them}, from the risks of its training patients."""
    rows = _risks(evidence.predictions, result.task.name)
    wanted = {f.fold for f in result.folds if f.patients}
    if evidence.folder is not None and not wanted <= set(rows.loc[rows["part"] != "test", "fold"]):
        file = evidence.folder / "predictions.csv"
        if file.is_file():  # patients of another cohort were predicted: their folds were trained elsewhere
            rows = _risks(pd.read_csv(file, dtype=str, keep_default_na=False), result.task.name)
    if evidence.mean_of and wanted == {"-1"}:
        rows = rows[rows["fold"].isin(map(str, evidence.mean_of))]
    every: dict[str, dict[str, Any]] = {}
    people: set[str] = set()
    for fold, inside in rows.groupby("fold"):
        for part in ("train", "validation"):  # older runs keep no training risks
            here = inside[inside["part"] == part]
            if len(here):
                break
        else:
            continue
        made = _cut(here, way)
        if made is not None:
            every[str(fold)] = {"cuts": made[0], "told": {"patients": len(here), "part": part, **made[1]}}
            people |= set(here["patient_id"])
    if frozen := evidence.cutoffs.get(result.task.name, {}):
        levels = {"median": ("median",), "tertiles": ("lower_tertile", "upper_tertile")}.get(way, ())
        if levels and wanted == {"-1"}:
            return {"-1": {"cuts": [frozen[v] for v in levels], "told": {"part": "as training fixed them"}}}
    chosen = {fold: every[fold] for fold in sorted(wanted & set(every), key=lambda f: (len(f), f))}
    if every and (outside := wanted - set(every)) == {"-1"}:
        cuts = np.mean([v["cuts"] for v in every.values()], axis=0)
        part = "mean of the folds" if len(every) != 1 else f"fold {next(iter(every))} alone"
        told = {"patients": len(people), "part": part}
        chosen |= {fold: {"cuts": cuts, "told": told} for fold in outside}
    return chosen


def _risks(rows: pd.DataFrame, task: str) -> pd.DataFrame:
    """The learner's risks of a task in all parts, with the outcomes as numbers."""
    own = rows[(rows["task"] == task) & (rows["output"] == "risk")]
    if "model" in own:
        own = own[own["model"] == LEARNER]
    numbers = {c: pd.to_numeric(own[c], errors="coerce") for c in ("value", "event", "time_days")}
    return own.assign(fold=own["fold"].astype(str), **numbers).dropna(subset="value")


def _cut(rows: pd.DataFrame, way: str) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Cut-offs on these patients, and for the maximally selected one how it was found."""
    if way != "maxstat":
        return rg.quantile_cuts(rows["value"], 3 if way == "tertiles" else 2), {}
    event = (rows["event"] == 1).astype(float).where(rows["event"].notna())  # of competing causes the first
    made = rg.maximally_selected(rows["value"], rows["time_days"], event)
    if isinstance(made, Score):
        return None
    told = {"tried": made.tried, "statistic": made.statistic}
    return np.array([made.cut]), told | {"p_asymptotic": made.p_asymptotic, "p_permuted": made.p_permuted}


def _section(evidence: Evidence, result: TaskResult) -> Section:
    way = str(evidence.settings.get("risk_groups", "median"))
    made = grouped(evidence, result)
    name = slug(result.task.name)
    told: dict[str, Any] = {"task": result.task, "made": made, "way": WAYS[way], "chosen": way == "maxstat"}
    told["first"] = once_said(result.folds)
    section = Section(f"risk-groups-{name}", "Survival by predicted risk", Markup(), result.task.name)
    if not made.why:
        horizon = _horizon(made, evidence.settings.get("risk_horizon_days"))
        rows = _rows(made, horizon)
        ends = list(made.members.values())
        apart = rg.restricted_mean_difference(ends[0], ends[-1], horizon) if len(ends) > 1 else None
        chi, freedom = log_rank(made.time, made.event, made.group)
        p = rg.chi_square_p(chi, freedom) if chi.known and made.independent else math.nan
        within = None if made.independent else log_rank(made.time, made.event, made.group, made.fold)[0]
        told |= {
            "rows": rows,
            "horizon": horizon,
            "apart": apart,
            "chi": chi,
            "freedom": freedom,
            "p": p,
            "within": within,
        }
        told |= {"cuts": made.cuts.to_dict("records"), "averaged": "-1" in set(made.cuts["fold"])}
        told["alone"] = evidence.mean_of[0] if len(evidence.mean_of) == 1 else None
        title = f"{result.task.name}: survival by predicted risk"
        caption = (
            f"Test patients, parted at {WAYS[way]} of the risks of training patients. Bands: 95 %, log-log; "
            "ticks: censored."
        )
        section.figures.append(curves.kaplan_meier_figure(f"{name}-survival", made.members, title, caption=caption))
        plain = [{k: v for k, v in r.items() if not isinstance(v, Interval)} | _spread(r) for r in rows]
        section.tables = {f"risk-groups-{name}": pd.DataFrame(plain), f"risk-cut-offs-{name}": made.cuts}
        section.rows = _metrics(result, rows, apart, (chi, within, p), made)
    filters: dict[str, Any] = {**FILTERS, "months": _months, "ratio": _ratio, "p": p_word}
    section.html = Markup(template("sections/risk.html.j2", filters).render(told))
    return section


def _horizon(made: Groups, asked: Any) -> float:
    """Days up to which mean survival is told: asked for, else the most of 5, 3, 1 years that every group reaches."""
    if asked is not None:
        return float(asked)
    reached = min((float(t.max()) for t, _ in made.members.values()), default=math.nan)
    return next((d for d in sorted(HORIZONS_DAYS.values(), reverse=True) if d <= reached), reached)


def _rows(made: Groups, horizon: float) -> list[dict[str, Any]]:
    """What is told of each group."""
    ratios = iter(rg.hazard_ratios(made.group, made.time, made.event))
    out: list[dict[str, Any]] = []
    for k, (name, (time, event)) in enumerate(made.members.items()):
        ratio = next(ratios) if k else None
        out.append(
            {
                "group": name,
                "patients": len(time),
                "events": int(event.sum()),
                "median_days": rg.median_survival(time, event),
                "horizon_days": horizon,
                "restricted_mean_days": rg.restricted_mean(time, event, horizon),
                "hazard_ratio": ratio,
            }
        )
    return out


def _spread(of: Mapping[str, Any]) -> dict[str, float]:
    out: dict[str, float] = {}
    for key, at in of.items():
        if isinstance(at, Interval):
            out |= {key: at.value, f"{key}_lo": at.lo, f"{key}_hi": at.hi}
    return out


def _metrics(
    result: TaskResult,
    rows: Sequence[Mapping[str, Any]],
    apart: Interval | None,
    tests: tuple[Score, Score | None, float],
    made: Groups,
) -> list[dict[str, Any]]:
    """Rows for metrics.json; days where a unit is needed. tests: log-rank statistic, the same within folds, P."""
    out = []
    chi, within, p = tests
    for r in rows:
        word = str(r["group"]).replace(" ", "_")
        own = {"n": r["patients"], "n_events": r["events"]}
        out.append(
            row(result.task, f"restricted_mean_days:{word}", "all", LEARNER, r["restricted_mean_days"], ()) | own
        )
        if r["hazard_ratio"] is not None:
            both = {"n": len(made.time), "n_events": int(made.event.sum())}
            out.append(row(result.task, f"hazard_ratio:{word}", "all", LEARNER, r["hazard_ratio"], ()) | both)
    both = {"n": len(made.time), "n_events": int(made.event.sum())}
    if apart is not None:
        out.append(row(result.task, "restricted_mean_days:difference", "all", LEARNER, apart, ()) | both)
        at = Interval(float(chi), math.nan, math.nan, chi.reason)
        out.append(row(result.task, "log_rank", "all", LEARNER, at, ()) | both)
        if within is not None:
            at = Interval(float(within), math.nan, math.nan, within.reason)
            out.append(row(result.task, "log_rank_within_folds", "all", LEARNER, at, ()) | both)
    if p == p:
        out.append(row(result.task, "log_rank_p", "all", LEARNER, Interval(p, math.nan, math.nan), ()) | both)
    return out


def _months(at: Interval) -> str:
    """Days of an interval as months; the interval on a line of its own where the page is narrow."""
    if at.value != at.value:
        return "not reached" if "half" in at.reason else "–"

    def word(days: float) -> str:
        return f"{days / curves.DAYS_PER_MONTH:.1f}".replace("-", "−") if days == days else "not reached"

    if at.lo != at.lo and at.reason:
        return Markup('{} <span class="soft">({})</span>').format(word(at.value), at.reason)
    return _banded(word(at.value), word(at.lo), word(at.hi))


def _ratio(at: Interval) -> str:
    return _banded(f"{at.value:.2f}", f"{at.lo:.2f}", f"{at.hi:.2f}") if at.value == at.value else "–"


def _banded(value: str, lo: str, hi: str) -> Markup:
    return Markup('{} <span class="band">({} to {})</span>').format(value, lo, hi)


def p_word(p: float) -> str:
    """A P value as a reader wants it."""
    if p != p:
        return "–"
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"
