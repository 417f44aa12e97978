"""Columns that know too much by themselves, and columns whose names speak of what happened later."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from nsclc_mtl.cohort.lint.finding import FEW, Finding
from nsclc_mtl.metrics.classification import auc, auc_one_vs_rest, ordinal_auc
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import c_index, comparable
from nsclc_mtl.records import Manifest, TaskSpec
from nsclc_mtl.tables.read import MISSING

# Parts of a column's name that speak of what happened later.
_ENDPOINTS = "os|dfs|pfs|dss|css|rfs|efs|mfs|lrfs|pfi|dfi|ttp|ttr"
SMELLS = re.compile(
    r"^(status|dead|death\w*|deceased|died|alive|vital\w*|recur\w*|relaps\w*|progress\w*|surviv\w*|censor\w*|event\w*|"
    rf"outcome\w*|follow\w*|fu|last|(?:{_ENDPOINTS})(?:days|time|months|years|status|event|cens\w*)?|"
    r"metastas[ie]s\w*|adjuvant\w*)$"
)
# `status` beside one of these is a finding or a habit, known at diagnosis.
HARMLESS = re.compile(r"^(smok\w*|tobacco|alcohol|hpv|p16|ebv|msi|mmr|egfr|alk|kras|ros1|braf|her2|er|pr|pdl1|ecog|"
                      r"performance|karnofsky|menopaus\w*|receptor|mutation\w*|family|resection|margin\w*|"
                      r"marital)$")  # fmt: skip
AT_DIAGNOSIS = re.compile(r"^(primar\w*|initial\w*|synchronous|baseline|diagnos\w*)$")  # beside a metastasis
TOLD_APART = 0.875  # share of the comparable pairs a column tells apart that it puts right: a hazard ratio of 7
CROWD = 0.25  # share of the comparable pairs that such a column must tell apart


def alarms(
    manifest: Manifest,
    train: Sequence[Sequence[str]],
    *,
    level: float,
    certain: float,
    patients: int,
    alpha: float,
) -> tuple[list[Finding], pd.DataFrame]:
    """Columns whose own AUC or C on training patients is at least `level` (an error from `certain` on), and the best
    columns of every task.

    `train`: training patients of each fold. All columns are judged on the first, those that raise the alarm on every
    one. A column counts whichever way round it points, and its blanks count as a column. For survival also the AUC for
    the event, whatever its time, and the share of pairs put right among those that a column of few values tells apart
    (`TOLD_APART`): C counts the others as one half, so a word like "with tumour" reaches .73 where it knows nearly all.
    A column must also be beyond chance: its normal approximation under the hypothesis of no association, times the
    columns looked at, below `alpha` (a thousand genes in forty patients reach .85 by themselves). The second result has
    the columns task, modality, column, value, n.
    """
    out, best = [], []
    for task, spec in manifest.tasks.items():
        labels = manifest.labels[task].loc[list(train[0])].dropna()
        found = []
        for modality, table in manifest.tables.items():
            ids = labels.index.intersection(table.index)
            if len(ids) < patients:
                continue
            for column, name, values in _numbers(table.loc[ids]):
                keep = np.isfinite(values)
                if keep.sum() < patients:
                    continue
                for metric, score, spread in _knows(spec, labels.loc[ids[keep]], values[keep]):
                    if score.known:
                        found.append(_Known(modality, column, name, metric, float(score), int(keep.sum()), spread))
        main = sorted(
            (known for known in found if known.metric in ("AUC", "C", "concordance")), key=lambda known: -known.value
        )
        best += [(task, known.modality, known.name, known.value, known.n) for known in main[:3]]
        raised: dict[tuple[str, str], _Known] = {}
        for known in found:
            least = TOLD_APART if known.metric == "pairs" else level
            beyond = 2 * norm.sf((known.value - 0.5) / known.spread) * len(found) < alpha
            if known.value >= least and beyond:
                place = (known.modality, known.column)
                raised[place] = max(raised.get(place, known), known, key=lambda k: (k.metric != "pairs", k.value))
        for known in sorted(raised.values(), key=lambda known: -known.value):
            out.append(_alarm(task, known, _again(manifest, task, known, train[1:]), certain))
    return out, pd.DataFrame(best, columns=["task", "modality", "column", "value", "n"])


class _Known(NamedTuple):
    """What one column, or one level of it, says of a task."""

    modality: str
    column: str
    name: str  # of the column, with the level
    metric: str  # C, AUC, concordance, event or pairs
    value: float
    n: int
    spread: float


def _alarm(task: str, known: _Known, others: list[float], certain: float) -> Finding:
    """The finding, an error where the weakest of the folds still says that the column is the outcome."""
    value = known.value
    words = {
        "C": f"C {value:.2f} for {task}",
        "AUC": f"AUC {value:.2f} for {task}",
        "concordance": f"concordance {value:.2f} for {task}",
        "event": f"AUC {value:.2f} for the event of {task}",
        "pairs": f"the right order of {value:.0%} of the pairs that it tells apart for {task}",
    }[known.metric]
    again = f"; {min(others):.2f} to {max(others):.2f} in the other folds" if others else ""
    told = f"column '{known.name}' alone gives {words} ({known.n} training patients of the first fold{again})"
    sure = known.metric != "pairs" and min([value, *others]) >= certain
    return Finding("error" if sure else "warning", "alarm", known.modality, told, known.column)


def _again(manifest: Manifest, task: str, known: _Known, train: Sequence[Sequence[str]]) -> list[float]:
    """The same number on the training patients of other folds, where it can be had."""
    table, out = manifest.tables[known.modality], []
    column = next(c for c in table.columns if str(c) == known.column)
    for ids in train:
        labels = manifest.labels[task].loc[list(ids)].dropna()
        shared = labels.index.intersection(table.index)
        for _, name, values in _numbers(table.loc[shared, [column]]):
            keep = np.isfinite(values)
            for metric, score, _ in _knows(manifest.tasks[task], labels.loc[shared[keep]], values[keep]):
                if (name, metric) == (known.name, known.metric) and score.known:
                    out.append(float(score))
    return out


def _numbers(table: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """Column, name, values: numeric columns as they are; levels of text, and blanks, that enough patients have."""
    for name in table.columns:
        column = table[name]
        if column.dtype.kind in "fiub":
            values = column.to_numpy(float)
            yield str(name), str(name), values
            blank = np.isnan(values)
        else:
            text = column.astype(str)
            blank = text.isin(MISSING).to_numpy()
            for level, count in text[~blank].value_counts().items():
                if count >= FEW:
                    yield str(name), f"{name}={level}", np.where(blank, np.nan, (text == level).to_numpy(float))
        if FEW <= blank.sum() <= len(blank) - FEW:
            yield str(name), f"{name}=(blank)", blank.astype(float)


def _knows(spec: TaskSpec, labels: pd.DataFrame, column: np.ndarray) -> Iterator[tuple[str, Score, float]]:
    """What a column knows, at least .5 each, with the standard deviation where it knows nothing (no ties)."""
    n = len(column)
    if spec.kind == "survival":
        time, event = labels["time_days"].to_numpy(), labels["event"].to_numpy()
        events = int(event.sum())
        yield "C", *_either_way(c_index(column, time, event), min(events, n), n)
        yield "event", *_either_way(auc(event, column), min(events, n - events), n)
        if len(levels := np.unique(column)) == 2:
            yield "pairs", *_told_apart(column == levels[1], time, event)
        return
    value = labels["value"].to_numpy()
    if spec.kind == "regression":
        yield "concordance", *_in_order(value, column)
        return
    counts = np.bincount(value.astype(int), minlength=len(spec.classes))
    if spec.kind == "multiclass":
        each = auc_one_vs_rest(value, np.tile(column[:, None], (1, len(spec.classes))))
        judged = [_either_way(score, min(int(k), n - int(k)), n) for score, k in zip(each, counts, strict=True)]
        known = [found for found in judged if found[0].known]
        yield "AUC", *(max(known, key=lambda found: found[0]) if known else judged[0])
        return
    score = auc(value, column) if spec.kind == "binary" else ordinal_auc(value, column)
    yield "AUC", *_either_way(score, n - int(counts.max()), n)  # all who are not of the commonest class


def _either_way(score: Score, few: int, n: int) -> tuple[Score, float]:
    if few < FEW or not score.known:
        return Score.missing(f"fewer than {FEW} patients of a kind"), 1.0
    few = min(few, n // 2)
    return Score(max(float(score), 1 - float(score))), math.sqrt((n + 1) / (12 * few * (n - few)))


def _in_order(value: np.ndarray, column: np.ndarray) -> tuple[Score, float]:
    """Share of the pairs of unequal outcomes that the column puts right, whichever way round, and its deviation under
    no association (that of Kendall's tau, Biometrika 1938, halved)."""
    n = len(value)
    score = c_index(column, value, np.ones(n))  # every pair of unequal outcomes is comparable
    if n < 2 * FEW or not score.known:
        return Score.missing(f"fewer than {2 * FEW} patients"), 1.0
    return Score(max(float(score), 1 - float(score))), math.sqrt((2 * n + 5) / (18 * n * (n - 1)))


def _told_apart(positive: np.ndarray, time: np.ndarray, event: np.ndarray) -> tuple[Score, float]:
    """Share of the pairs that a column of two values puts right among those it tells apart.

    That is HR / (1 + HR) under proportional hazards, whatever the frequencies. It counts from `CROWD` of all pairs on:
    of a rare word a few patients would decide.
    """
    few = int(min(positive.sum(), (~positive).sum()))
    if few < FEW:
        return Score.missing(f"fewer than {FEW} patients of a kind"), 1.0
    rows = np.flatnonzero(event == 1)
    able = comparable(time, event, rows)
    right = float((able & positive[rows][:, None] & ~positive).sum())
    wrong = float((able & ~positive[rows][:, None] & positive).sum())
    if right + wrong < CROWD * able.sum() or right + wrong == 0:
        return Score.missing("too few pairs are told apart"), 1.0
    n = len(time)
    return Score(max(right, wrong) / (right + wrong)), math.sqrt((n + 1) / (12 * few * (n - few)))


def smells(manifest: Manifest) -> list[Finding]:
    """Input columns whose names speak of what happened after the index date."""
    out = []
    for modality, table in manifest.tables.items():
        if manifest.modalities[modality].kind in ("deep", "vector"):
            continue
        for column in table.columns:
            words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(column)).casefold())
            bad = [w for w in words if SMELLS.match(w)]
            if bad == ["status"] and any(HARMLESS.match(w) for w in words):
                continue
            if any(map(AT_DIAGNOSIS.match, words)) and all(w.startswith("metastas") for w in bad):
                bad = []
            if len(words) == 1 and manifest.modalities[modality].kind in ("omics", "pathways"):
                continue  # a gene
            if bad or {"days", "to"} <= set(words):
                told = f"the name of column '{column}' speaks of an outcome; is it known at the index date?"
                out.append(Finding("warning", "name", modality, told, str(column)))
    return out
