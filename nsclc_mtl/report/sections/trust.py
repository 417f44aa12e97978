"""How far predictions may be relied on: coverage of prediction sets and survival bounds, and who is flagged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from nsclc_mtl.metrics.comparison import Measure, average, bootstrap, repeated, resamples_of
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report import curves
from nsclc_mtl.report.evaluation import TaskResult
from nsclc_mtl.report.fold import OWN, once_rows, once_said, own_censoring
from nsclc_mtl.report.measures import LEARNER, Fold
from nsclc_mtl.report.section import Evidence, Figure, Section
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.trust_table import fact, numbers, words
from nsclc_mtl.report.words import FILTERS
from nsclc_mtl.trust.conformal import coverage_band, fewest, promised
from nsclc_mtl.trust.survival_bounds import covered

_FLAGS = {"outside": "unlike the training", "several": "set of several classes", "disagree": "members disagree"}
_MOST_ROWS = 40  # of the figure of coverages


def trust(evidence: Evidence) -> list[Section]:
    """A section on coverage and flags, from `trust.csv`; [] where there is none."""
    rows = evidence.trust
    return [] if rows is None or rows.empty else [_overall(evidence, rows)]


def _overall(evidence: Evidence, rows: pd.DataFrame) -> Section:
    site = _sites(evidence)
    sets = pd.DataFrame([row for result in evidence.results.values() for row in set_coverage(result, rows, site)])
    draws, seed = int(evidence.settings.get("bootstrap") or 0), int(evidence.settings.get("seed") or 0)
    promised = [r for r in evidence.results.values() if r.task.name not in evidence.late]  # from day 0 on
    bounds = [b for r in promised if (b := bound_coverage(r, rows, draws, seed)) is not None]
    flags = flags_by_site(evidence, rows)
    figures = []
    folds = sets[(sets["group"] == "") & (sets["fold"] != "all") & sets["low"].notna()] if len(sets) else sets
    if 0 < len(folds) <= _MOST_ROWS:
        figures.append(_coverage_figure(folds))
    whole = sets[(sets["group"] == "") & (sets["fold"] == "all")].to_dict("records") if len(sets) else []
    groups = sets[(sets["group"] != "") & (sets["fold"] == "all")].to_dict("records") if len(sets) else []
    facts = rows[rows["patient_id"] == ""]
    outside = {w: sorted(set(facts.loc[facts["what"] == f"outside:{w}", "value"])) for w in ("rate", "reference", "n")}
    members = sorted({int(float(v)) for v in facts.loc[facts["what"] == "members", "value"]})
    html = template("sections/trust.html.j2", FILTERS).render(
        sets=whole,
        groups=groups,
        bounds=bounds,
        flags=flags.to_dict("records"),
        again=any(once_said(r.folds) for r in evidence.results.values()),
        columns=[c for c in flags.columns if c not in ("site", "patients")],
        outside=outside,
        members=members,
        calibrated=bool((facts["what"] == "n_calibration").any()),
    )
    tables = {name: t for name, t in (("trust-sets", sets), ("trust-flags", flags)) if len(t)}
    if bounds:
        tables["trust-bounds"] = pd.DataFrame(bounds).drop(columns=["interval", "own_interval"])
    return Section(
        "trust", "How far a prediction may be relied on", Markup(html), "", figures, tables, _metrics(whole, bounds)
    )


def set_coverage(result: TaskResult, rows: pd.DataFrame, site: pd.Series | None = None) -> list[dict[str, Any]]:
    """A row a fold and one over all, for everybody and each group of Mondrian sets: covered, its band, classes a set.

    site: of each patient, for sets that were made by site. A group that was too small for a threshold of its own is
    left out: nothing was promised to it.
    """
    task = result.task
    if task.kind == "survival":
        return []
    found: dict[str, list[tuple[dict[str, Any], pd.DataFrame]]] = {}
    for fold in result.folds:
        n_cal, miss = fact(rows, task.name, "n_calibration", fold.fold), fact(rows, task.name, "miss", fold.fold)
        votes = _votes(rows, task.name, fold)
        told = words(rows, task.name, "set", fold.fold, fold.patients)
        if not n_cal or told.isna().all():
            continue
        hit = pd.DataFrame({"hit": _hits(task, fold, told, rows)}, index=fold.patients)
        hit["size"] = told.str.count(r"\|").to_numpy() + 1.0 if task.classes else np.nan
        hit["class"] = [task.classes[int(k)] for k in fold.label] if task.classes else ""
        hit["site"] = "" if site is None else site.reindex(fold.patients).to_numpy()
        found.setdefault("", []).append(_row(task.name, fold.fold, "", hit, int(n_cal), float(miss), votes))
        own = rows[(rows["task"] == task.name) & (rows["fold"].astype(str) == fold.fold)]
        for what, count in own.loc[own["what"].str.startswith("n_calibration:"), ["what", "value"]].to_numpy():
            _, kind, name = str(what).split(":", 2)
            members = hit[hit[kind] == name]
            if len(members) and int(count) >= fewest(float(miss)):
                group = f"{kind} {name}"
                found.setdefault(group, []).append(
                    _row(task.name, fold.fold, group, members, int(count), float(miss), votes)
                )
    made = []
    for group, each in found.items():
        lines, hits = [row for row, _ in each], pd.concat([hit for _, hit in each])
        few, first = min(r["n_calibration"] for r in lines), lines[0]
        whole, _ = _row(task.name, "all", group, hits, few, first["miss"], first["votes"])
        whole |= {"low": math.nan, "high": math.nan, "n_calibration_most": max(r["n_calibration"] for r in lines)}
        whole["within"] = sum(r["low"] - 1e-9 <= r["covered"] <= r["high"] + 1e-9 for r in lines)
        made += [*lines, whole | {"folds": sum(math.isfinite(r["low"]) for r in lines)}]
    return made


def _votes(rows: pd.DataFrame, task: str, fold: Fold) -> int:
    """How many sets (at most) vote on one of these patients; 1 where one fold speaks."""
    return int(np.nanmax([1.0, *numbers(rows, task, "sets", fold.fold, fold.patients)]))


def _row(
    task: str, fold: str, group: str, hit: pd.DataFrame, n_cal: int, miss: float, votes: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    # several folds that vote on patients whom none of them knows have no band
    low, high = coverage_band(n_cal, len(hit), miss) if votes == 1 else (math.nan, math.nan)
    row = {
        "task": task, "fold": fold, "group": group, "n": hit.index.nunique(), "covered": float(hit["hit"].mean()),
        "promised": promised(miss, votes), "miss": miss, "votes": votes, "low": low, "high": high,
        "n_calibration": n_cal, "size": float(hit["size"].mean()), "single": float((hit["size"] == 1).mean()),
    }  # fmt: skip
    return row, hit


def _hits(task: TaskSpec, fold: Fold, told: pd.Series, rows: pd.DataFrame) -> np.ndarray:
    if task.classes:
        names = [task.classes[int(k)] for k in fold.label]
        return np.array([w in str(s).split("|") for w, s in zip(names, told, strict=True)])
    low, high = (numbers(rows, task.name, f"interval_{end}", fold.fold, fold.patients) for end in ("low", "high"))
    return np.asarray((low <= fold.label) & (fold.label <= high))


def bound_coverage(result: TaskResult, rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Any] | None:
    """Coverage of the lower survival bounds by inverse probability of censoring, with a bootstrap interval; None where
    there are no bounds.

    `covered` is by G of the training patients, as all metrics are; `own_covered`, of patients from elsewhere or where
    there is no such G, by that of the very patients who are judged (NaN else).
    """
    task = result.task
    if task.kind != "survival":
        return None
    measures: dict[str, list[Measure | Score]] = {"": [], "own_": []}
    bounds, n_cal, miss, votes, who = [], [], math.nan, 1, set[str]()
    for fold in result.folds:
        bound = numbers(rows, task.name, "lower_bound_days", fold.fold, fold.patients)
        if np.isnan(bound).all():
            for each in measures.values():
                each.append(Score.missing("no bounds"))
            continue
        bounds.append(bound)
        who |= set(fold.patients)
        n_cal.append(int(fact(rows, task.name, "n_calibration", fold.fold) or 0))
        votes = _votes(rows, task.name, fold)
        miss = float(fact(rows, task.name, "miss", fold.fold) or "nan")
        for word, each in measures.items():
            if task.causes:
                each.append(Score.missing("competing causes: the bound is of any event, the outcome of the first"))
            elif word and fold.fold != "-1" and fold.censoring is not None:
                each.append(Score.missing("the training patients and these are of one cohort"))
            else:
                each.append(_covered(bound, own_censoring(fold) if word else fold))
    if not bounds:
        return None
    people = [f.patients for f in result.folds]
    weights = resamples_of(people, draws, np.random.default_rng([seed, 7919]))
    at, own = (bootstrap(each, weights, repeated(people)).interval() for each in measures.values())
    every = np.concatenate(bounds)
    return {
        "task": task.name, "n": len(who), "covered": at.value, "lo": at.lo, "hi": at.hi, "reason": at.reason,
        "promised": promised(miss, votes), "miss": miss, "votes": votes,
        "n_calibration": min(n_cal), "n_calibration_most": max(n_cal),
        "median_days": float(np.nanmedian(every)), "interval": at,
        "own_covered": own.value, "own_lo": own.lo, "own_hi": own.hi, "own_interval": own,
    }  # fmt: skip


def _covered(bound: np.ndarray, fold: Fold) -> Measure | Score:
    if fold.censoring is None:
        return Score.missing(fold.unweighed)
    terms = covered(bound, fold.label, fold.event, fold.censoring)
    return terms if isinstance(terms, Score) else average(terms)


def _sites(evidence: Evidence) -> pd.Series | None:
    if evidence.manifest is None or "site" not in evidence.manifest.patients:
        return None
    site = evidence.manifest.patients["site"]
    return site.astype(object).where(site.notna(), "").astype(str)


def flags_by_site(evidence: Evidence, rows: pd.DataFrame) -> pd.DataFrame:
    """Share of the patients with each flag: a row over all and one a site, the flags that never fire left out.

    Who is tested in several repeats counts with the first: flagged in one of many says little.
    """
    own = once_rows(rows[(rows["patient_id"] != "") & rows["what"].str.startswith("flag:")])
    raised = own[own["value"] == "1"]
    people = pd.Index(rows.loc[rows["patient_id"] != "", "patient_id"].unique())
    known = _sites(evidence)
    site = pd.Series("", people) if known is None else known.reindex(people).fillna("")
    out = []
    groups = [("all", people), *((s, site.index[site == s]) for s in sorted(set(site) - {""}))]
    for name, members in groups:
        row: dict[str, Any] = {"site": name, "patients": len(members)}
        for what in own["what"].drop_duplicates():
            flagged = raised[(raised["what"] == what) & raised["patient_id"].isin(members)]
            word = what.removeprefix("flag:")
            word = _FLAGS.get(word, word.replace("missing:", "no ") if ":" in word else f"{word} unseen")
            row[word] = flagged["patient_id"].nunique() / max(len(members), 1)
        out.append(row)
    made = pd.DataFrame(out)
    silent = [c for c in made.columns[2:] if not made[c].any() and c != _FLAGS["outside"]]
    return made.drop(columns=silent)


def _coverage_figure(folds: pd.DataFrame) -> Figure:
    rows = folds.to_dict("records")
    height = 0.75 + 0.24 * len(rows)
    with matplotlib.rc_context(curves.RC):
        drawn = Canvas(figsize=(curves.WIDTH, height))
        axes = drawn.add_axes((0.3, 0.5 / height, 0.67, 0.24 * len(rows) / height))
        for k, row in enumerate(rows):
            y = len(rows) - 1 - k
            axes.plot([row["low"], row["high"]], [y, y], color="#c4c8cc", lw=6, solid_capstyle="butt")
            axes.plot([row["covered"]], [y], "o", color=curves.BLUE, ms=5)
        axes.axvline(rows[0]["promised"], color=curves.GREY, lw=0.8, ls=(0, (2, 3)))
        axes.set_yticks(range(len(rows)), [f"{r['task']}, fold {r['fold']}" for r in reversed(rows)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("share of patients whose true value the set holds")
        told = "; ".join(
            f"{r['task']} fold {r['fold']} {r['covered']:.2f} ({r['low']:.2f}-{r['high']:.2f})" for r in rows
        )
        shown = curves.svg(drawn, "Coverage of prediction sets", f"Coverage and 95 % band of each fold: {told}.")
    caption = "Measured coverage of each fold (dot) and where it lies in 95 % of all draws if the promise holds (bar), "
    caption += "beta-binomial with the fold’s calibration patients. Dashed: the promise."
    return Figure("trust-coverage", shown, folds, caption)


def _metrics(sets: Sequence[dict[Any, Any]], bounds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    def row(task: str, metric: str, n: int, value: float, lo: float, hi: float, reason: str = "") -> dict[str, Any]:
        plain = [None if not math.isfinite(v) else float(v) for v in (value, lo, hi)]
        given = dict(zip(("value", "lo", "hi"), plain, strict=True))
        return {
            "task": task, "metric": metric, "part": "test", "fold": "all", "model": LEARNER, **given, "n": n,
            "n_events": None, "reason": reason,
        }  # fmt: skip

    nan = math.nan
    made = [row(s["task"], "set_coverage", s["n"], s["covered"], nan, nan) for s in sets]
    made += [row(s["task"], "set_size", s["n"], s["size"], nan, nan) for s in sets if math.isfinite(s["size"])]
    for b in bounds:
        made.append(row(b["task"], "bound_coverage", b["n"], b["covered"], b["lo"], b["hi"], b["reason"]))
        if math.isfinite(b["own_covered"]):
            own = (b["own_covered"], b["own_lo"], b["own_hi"])
            made.append(row(b["task"], OWN + "bound_coverage", b["n"], *own))
    return made
