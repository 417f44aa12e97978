"""Leaks: copies of outcomes among the inputs, columns that know too much, patients who are there twice."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import norm

from nsclc_mtl.metrics.classification import auc, auc_one_vs_rest, ordinal_auc
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import c_index
from nsclc_mtl.records import Manifest, TaskSpec
from nsclc_mtl.tables.read import MISSING

CHANCE = 1e-6  # a column that agrees with an outcome less likely by chance than this is a copy of it
FEW = 5  # patients of either kind: fewer, and no column can be judged

# Parts of a column's name that speak of what happened later.
SMELLS = re.compile(
    r"^(status|dead|death\w*|deceased|died|alive|vital\w*|recur\w*|relaps\w*|progress\w*|surviv\w*|censor\w*|event\w*|"
    r"outcome\w*|follow\w*|fu|last|os|dfs|pfs|dss|rfs|pfi|dfi|ttp|metastas[ie]s\w*|adjuvant\w*)$"
)
# `status` beside one of these is a finding or a habit, known at diagnosis.
HARMLESS = re.compile(r"^(smok\w*|tobacco|alcohol|hpv|p16|ebv|msi|mmr|egfr|alk|kras|ros1|braf|her2|er|pr|pdl1|ecog|"
                      r"performance|karnofsky|menopaus\w*|receptor|mutation\w*|family)$")  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """Something that a reviewer would ask about."""

    level: Literal["error", "warning"]
    rule: str  # copy, alarm, name, duplicate, constant, missing, site, follow_up, events, split
    where: str  # modality, table or task
    sentence: str


# ---------------------------------------------------------------------------------------------------------------------
# Copies
# ---------------------------------------------------------------------------------------------------------------------


def copies(manifest: Manifest, outcomes: Mapping[str, pd.Series]) -> list[Finding]:
    """Input columns that hold an outcome: the same name, the same values, or the same order of times.

    `outcomes` maps a name (ending in `(time)` for times) to values by patient, NaN where unknown. Values agree when one
    is a one-to-one (for times: strictly monotone) function of the other among the patients who have both; that is a
    copy where chance would bring it about less often than `CHANCE` over all columns compared.
    """
    out = []
    named = {c.casefold().strip(): n for n, spec in manifest.tasks.items() for c in spec.columns}
    columns = sum(table.shape[1] for table in manifest.tables.values())
    limit = math.log(1 / CHANCE) + math.log(max(columns, 1) * max(len(outcomes), 1))
    for modality, table in manifest.tables.items():
        for column in table.columns:
            if str(column).casefold().strip() in named:
                task = named[str(column).casefold().strip()]
                out.append(
                    Finding("error", "copy", modality, f"column '{column}' has the name of a part of the task '{task}'")
                )
        for part, wanted in outcomes.items():
            shared = table.index.intersection(wanted.dropna().index)
            if len(shared) < 2 * FEW:
                continue
            values, frame = wanted.loc[shared].to_numpy(float), table.loc[shared]
            for column in frame.columns:
                match = _agrees(frame[column], values, ordered=part.endswith("(time)"), limit=limit)
                if match:
                    told = f"column '{column}' is a copy of {part}: {match}; take it out of the inputs"
                    out.append(Finding("error", "copy", modality, told))
    return out


def _agrees(column: pd.Series, values: np.ndarray, *, ordered: bool, limit: float) -> str:
    """How the column repeats the values, or '' where it does not. `limit`: natural log of the arrangements needed."""
    own, _ = pd.factorize(column if column.dtype.kind in "fiub" else column.mask(column.isin(MISSING)), sort=True)
    seen = own >= 0
    if seen.sum() < 2 * FEW:
        return ""
    own, levels = own[seen], np.unique(values[seen], return_inverse=True)[1]
    first = np.full(own.max() + 1, -1)
    first[own] = levels
    if (first[own] != levels).any() or len(np.unique(own)) != levels.max() + 1:
        return ""  # not one-to-one
    steps = np.diff(first[np.unique(own)])
    if ordered and not ((steps > 0).all() or (steps < 0).all()):
        return ""
    counts = np.bincount(levels)
    arrangements = math.lgamma(len(levels) + 1) - sum(math.lgamma(c + 1) for c in counts)
    arrangements -= 0 if ordered else math.lgamma(len(counts) + 1)  # any naming of the classes would do
    if arrangements < limit:
        return ""
    return f"the same {'order' if ordered else 'values'} in all {len(levels)} patients who have both"


# ---------------------------------------------------------------------------------------------------------------------
# Columns that know too much
# ---------------------------------------------------------------------------------------------------------------------


def alarms(
    manifest: Manifest, train: Sequence[str], *, level: float, patients: int, alpha: float
) -> tuple[list[Finding], pd.DataFrame]:
    """Columns whose own AUC or C on the patients `train` is at least `level`, and the best columns of every task.

    A column counts whichever way round it points. It must also be beyond chance: its normal approximation under the
    hypothesis of no association, times the columns looked at, below `alpha` (a thousand genes in forty patients reach
    .85 by themselves). The second result has the columns task, modality, column, value, n.
    """
    out, best = [], []
    for task, spec in manifest.tasks.items():
        labels = manifest.labels[task].loc[list(train)].dropna()
        found = []
        for modality, table in manifest.tables.items():
            ids = labels.index.intersection(table.index)
            if len(ids) < patients:
                continue
            for name, column in _numbers(table.loc[ids]):
                keep = np.isfinite(column)
                if keep.sum() >= patients:
                    value, spread = _knows(spec, labels.loc[ids[keep]], column[keep])
                    if value.known:
                        found.append((modality, name, float(value), int(keep.sum()), spread))
        found.sort(key=lambda row: -row[2])
        best += [(task, *row[:4]) for row in found[:3]]
        for modality, name, known, n, spread in found:
            if known >= level and 2 * norm.sf((known - 0.5) / spread) * len(found) < alpha:
                metric = "C" if spec.kind == "survival" else "AUC"
                told = f"column '{name}' alone gives {metric} {known:.2f} for {task} ({n} training patients of fold 0)"
                out.append(Finding("warning", "alarm", modality, told + "; is it known at the index date?"))
    return out, pd.DataFrame(best, columns=["task", "modality", "column", "value", "n"])


def _numbers(table: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Numeric columns as they are; every level of a text column that enough patients have as 0 and 1."""
    for name in table.columns:
        column = table[name]
        if column.dtype.kind in "fiub":
            yield str(name), column.to_numpy(float)
            continue
        text = column.astype(str)
        known = ~text.isin(MISSING).to_numpy()
        for level, count in text[known].value_counts().items():
            if count >= FEW:
                yield f"{name}={level}", np.where(known, (text == level).to_numpy(float), np.nan)


def _knows(spec: TaskSpec, labels: pd.DataFrame, column: np.ndarray) -> tuple[Score, float]:
    """AUC or C of a column, at least .5, and its standard deviation where the column knows nothing (no ties)."""
    n = len(column)
    if spec.kind == "survival":
        events = int(labels["event"].sum())
        few = min(events, n)
        score = c_index(column, labels["time_days"], labels["event"])
    else:
        value = labels["value"].to_numpy()
        counts = np.bincount(value.astype(int), minlength=len(spec.classes))
        few = int(counts[counts > 0].min()) if (counts > 0).sum() > 1 else 0
        if spec.kind == "binary":
            score = auc(value, column)
        elif spec.kind == "ordinal":
            score = ordinal_auc(value, column)
        else:
            each = [s for s in auc_one_vs_rest(value, np.tile(column[:, None], (1, len(spec.classes)))) if s.known]
            score = max(each, key=lambda s: abs(s - 0.5)) if each else Score.missing("one class only")
    if few < FEW or not score.known:
        return Score.missing(f"fewer than {FEW} patients of a kind"), 1.0
    few = min(few, n // 2)
    return Score(max(float(score), 1 - float(score))), math.sqrt((n + 1) / (12 * few * (n - few)))


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
            if len(words) == 1 and manifest.modalities[modality].kind in ("omics", "pathways"):
                continue  # a gene
            if bad or {"days", "to"} <= set(words):
                told = f"the name of column '{column}' speaks of an outcome; is it known at the index date?"
                out.append(Finding("warning", "name", modality, told))
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Patients who are there twice
# ---------------------------------------------------------------------------------------------------------------------


def twins(manifest: Manifest, splits: pd.DataFrame | None) -> list[Finding]:
    """Patients with the same row in a table, where chance (columns independent) would not bring it about."""
    out = []
    for modality, table in manifest.tables.items():
        text = table.astype(object).where(table.notna(), "").astype(str)
        collide = 0.0
        for column in text.columns:
            share = text[column].value_counts(normalize=True).to_numpy()
            collide += math.log(float((share**2).sum()))
        pairs = len(text) * (len(text) - 1) / 2
        if pairs == 0 or collide + math.log(pairs) > math.log(1e-3):
            continue
        for _, group in text[text.duplicated(keep=False)].groupby(list(text.columns), sort=False):
            told = f"patients {_some(group.index)} have the same row in all {text.shape[1]} columns"
            out.append(Finding("warning", "duplicate", modality, told + _apart(list(group.index), splits)))
    return out


def shared_slides(manifest: Manifest, root: Path | None, splits: pd.DataFrame | None) -> list[Finding]:
    """Slide files that several patients own: the same path, or (below `root`; None = not looked at) the same bytes."""
    slides = manifest.slides
    if slides is None or "path" not in slides:
        return []
    slides = slides[slides["patient_id"].isin(manifest.ids)]
    out = [
        Finding("error", "duplicate", "slides", f"the file of {_some(rows.index)} is the same, but "
                f"patients {_some(rows['patient_id'].unique())} own it" + _apart(list(rows["patient_id"]), splits))
        for _, rows in slides[slides["path"] != ""].groupby("path", sort=False)
        if rows["patient_id"].nunique() > 1
    ]  # fmt: skip
    if root is None:
        return out
    sizes: dict[int, dict[str, Path]] = {}
    for slide_id, row in slides.drop_duplicates("path").iterrows():
        path = root / row["path"]
        if path.is_file() and path.stat().st_size:
            sizes.setdefault(path.stat().st_size, {})[str(slide_id)] = path
    for alike in (group for group in sizes.values() if len(group) > 1):  # only files of one size can be equal
        digests: dict[str, list[str]] = {}
        for slide_id, path in alike.items():
            with path.open("rb") as file:
                digests.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), []).append(slide_id)
        for same in (group for group in digests.values() if len(group) > 1):
            owners = list(slides.loc[same, "patient_id"])
            level: Literal["error", "warning"] = "error" if len(set(owners)) > 1 else "warning"
            told = f"slides {_some(same)} hold the same bytes (patients {_some(sorted(set(owners)))})"
            out.append(Finding(level, "duplicate", "slides", told + _apart(owners, splits)))
    return out


def _apart(patients: list[str], splits: pd.DataFrame | None) -> str:
    """What a reader must know of the split: whether the twins stand on both sides of it."""
    if splits is None:
        return ""
    rows = splits[splits["patient_id"].isin(patients)]
    folds = [k for k, part in rows.groupby("fold")["part"] if "test" in set(part) and len(set(part)) > 1]
    return f"; they stand on both sides of the test part in {len(folds)} folds" if folds else ""


def _some(names: Sequence[object] | np.ndarray | pd.Index, most: int = 4) -> str:
    listed = [f"'{name}'" for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
