"""Metrics of the federated, the pooled and the local models on the same test patients, by site and over all sites.

Scores of different folds share no scale, nor do those of models of single sites. A metric is therefore taken among the
patients of one fold and one site (`within`) and averaged with patients as weights; `whole` is taken among all sites'
patients of a fold, of the models that speak of all of them. Resamples are drawn within fold and site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.metrics.comparison import Bootstrapped, Interval, bootstrap, difference_draws, interval_of, resamples_of
from nsclc_mtl.metrics.measure import Measure
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.evaluation import folds_of, row, used
from nsclc_mtl.report.measures import LEARNER, PRIMARY, Fold, MeasureOf, metrics_of, tried
from nsclc_mtl.report.side_by_side import training_outcomes

ALL = "all"  # sites together
FEDERATED, CENTRALISED, LOCAL = WAYS = ("federated", "centralised", "local")
DIFFERENCE = "difference:"  # before a metric: the federated model minus the way that the row names
LEFT_OUT = "left out"  # in the reason of a value that does not stand on all groups
FURTHER = ("balanced_accuracy", "quadratic_kappa", "average_precision", "brier", "ibs", "brier_1y", "brier_3y",
           "brier_5y", "mae", "rmse")  # fmt: skip


@dataclass(frozen=True)
class Group:
    """The test patients of one fold, of one site or of all; `drawn` [draw, patient] is how often each is drawn."""

    site: str
    fold: Fold
    drawn: np.ndarray


def rows(
    predictions: Mapping[str, pd.DataFrame],
    tasks: Mapping[str, TaskSpec],
    site_of: Mapping[str, str],
    refused: Mapping[tuple[str, str], str],
    least: int = 1,
    draws: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows {task, metric, site, measure, way, value, lo, hi, n, n_events, reason}; `site` is `all` for all together.

    A metric named `difference:METRIC` is the federated model minus the way of the row, on the same patients and draws,
    over the folds and sites where both have a value. `n` counts the patients that a value stands on.

    predictions: way -> rows of predictions.csv, all parts (`read_table` types). site_of: patient -> site. refused:
    (fold, site) -> why there is no local model. least: fewer patients of a fold and site have no metric.
    """
    made: list[dict[str, Any]] = []
    for name, task in tasks.items():
        tested = {way: _tested(frame, name) for way, frame in predictions.items()}
        if tested[FEDERATED].empty:
            continue
        said = pd.concat(frame.assign(model=LEARNER if way == FEDERATED else way) for way, frame in tested.items())
        training = training_outcomes(predictions[FEDERATED], name) if task.kind == "survival" else {}
        groups = _groups(said, task, site_of, training, draws, np.random.default_rng([seed, *name.encode()]))
        whole = _whole(said, task, groups, training)
        kinds = metrics_of(task, [group.fold for group in whole])
        for metric in (PRIMARY[task.kind], *(word for word in FURTHER if word in kinds)):
            measured = {way: _measured(kinds[metric], way, groups, refused, least) for way in predictions}
            over = {way: _measured(kinds[metric], way, whole, {}, least) for way in predictions if way != LOCAL}
            sites = list(dict.fromkeys(group.site for group in groups))
            for site in (*sites, ALL):
                mine = [k for k, group in enumerate(groups) if site in (group.site, ALL)]
                made += _rows(task, metric, site, "within", _some(measured, mine), [groups[k] for k in mine])
            made += _rows(task, metric, ALL, "whole", over, whole)
    return made


def _tested(frame: pd.DataFrame, task: str) -> pd.DataFrame:
    return frame[(frame["task"] == task) & (frame["part"] == "test")]


def _groups(
    said: pd.DataFrame,
    task: TaskSpec,
    site_of: Mapping[str, str],
    training: Mapping[str, pd.DataFrame],
    draws: int,
    rng: np.random.Generator,
) -> list[Group]:
    """Fold by fold within each site. Who is tested in several folds is drawn once for all of them."""
    made = []
    whose = said["patient_id"].map(site_of)
    for site in sorted(set(site_of.values())):
        folds = folds_of(said[whose == site], task, training)
        drawn = resamples_of([fold.patients for fold in folds], draws, rng)
        made += [Group(site, fold, own) for fold, own in zip(folds, drawn, strict=True)]
    return made


def _whole(
    said: pd.DataFrame, task: TaskSpec, groups: Sequence[Group], training: Mapping[str, pd.DataFrame]
) -> list[Group]:
    """The folds over all sites, with the draws of their sites."""
    made = []
    for fold in folds_of(said, task, training):
        parts = [group for group in groups if group.fold.fold == fold.fold]
        place = {patient: k for k, patient in enumerate(p for group in parts for p in group.fold.patients)}
        drawn = np.hstack([group.drawn for group in parts])
        made.append(Group(ALL, fold, drawn[:, [place[p] for p in fold.patients]]))
    return made


def _measured(
    of: MeasureOf, way: str, groups: Sequence[Group], refused: Mapping[tuple[str, str], str], least: int
) -> list[tuple[Measure | Score, np.ndarray]]:
    """The metric of each group, or why it has none, and its draws."""
    model = LEARNER if way == FEDERATED else way
    made = []
    for group in groups:
        fold = group.fold
        measure: Measure | Score
        if way == LOCAL and (fold.fold, group.site) in refused:
            measure = Score.missing("the site could not be trained alone")
        elif 0 < len(fold.patients) < least:
            measure = Score.missing(f"fewer than {least} patients")
        else:
            measure = tried(of, fold, fold.said.get(model, pd.DataFrame(index=fold.patients)))
        made.append((measure, group.drawn))
    return made


def _some(measured: Mapping[str, Sequence[Any]], which: Sequence[int]) -> dict[str, list[Any]]:
    return {way: [each[k] for k in which] for way, each in measured.items()}


def _rows(
    task: TaskSpec, metric: str, site: str, measure: str, measured: Mapping[str, Sequence[Any]], groups: Sequence[Group]
) -> list[dict[str, Any]]:
    """A row a way, and one for each difference to the federated model.

    Of many small groups some lack a class in nearly every draw: a draw is averaged over those that have a value, the
    same ones in both models of a difference.
    """
    folds = [group.fold for group in groups]
    each = {way: bootstrap([m for m, _ in of], [w for _, w in of], repeats=True) for way, of in measured.items()}
    out = []
    for way, values in each.items():
        known = [score.known for score in values.folds]
        score = _with_reason(values.value, known, groups, _why(values))
        out.append(_row(task, metric, site, measure, way, interval_of(score, values.draws), used(folds, values)))
    for way, values in each.items():
        if way != FEDERATED:
            known = _both(each[FEDERATED], values)
            value, draws = difference_draws(each[FEDERATED], values)
            score = _with_reason(value, known, groups, _why(each[FEDERATED], values))
            at = interval_of(score, draws)
            both = used(folds, each[FEDERATED], values)
            out.append(_row(task, DIFFERENCE + metric, site, measure, way, at, both))
    return out


def _with_reason(value: Score, known: Sequence[bool], groups: Sequence[Group], why: str) -> Score:
    """The value with what it does not stand on."""
    missing = len(known) - sum(known)
    if not missing:
        return value
    if missing == len(known):
        return Score.missing(why or value.reason)
    what = "fold" if len({group.site for group in groups}) == 1 else "group"
    return Score(float(value), f"{missing} of {len(known)} {what}s {LEFT_OUT}: {why}")


def _why(*values: Bootstrapped) -> str:
    """Every reason for which a group has no value, once."""
    return "; ".join(sorted({score.reason for one in values for score in one.folds if not score.known}))


def _both(ours: Bootstrapped, theirs: Bootstrapped) -> list[bool]:
    return [one.known and other.known for one, other in zip(ours.folds, theirs.folds, strict=True)]


def _row(
    task: TaskSpec, metric: str, site: str, measure: str, way: str, at: Interval, folds: Sequence[Fold]
) -> dict[str, Any]:
    told = row(task, metric, ALL, way, at, folds)
    head = {"task": task.name, "metric": metric, "site": site, "measure": measure, "way": way}
    return head | {word: told[word] for word in ("value", "lo", "hi", "n", "n_events", "reason")}
