"""Which columns of a table know most of the tasks, judged over sites of which each tells sums over its patients.

A site's patients are compared with each other alone, so that what differs between sites cannot pass for knowledge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import chi2, f, norm

from nsclc_mtl.federated.messages import Message
from nsclc_mtl.records import TaskSpec, event_column
from nsclc_mtl.tables.encode import TableEncoder
from nsclc_mtl.tables.moments import Moments, together
from nsclc_mtl.tables.select import best, cox_parts, spearman_r

if TYPE_CHECKING:
    from nsclc_mtl.federated.summaries import Own


def univariate(
    ask: Callable[..., dict[str, Message]],
    name: str,
    draft: TableEncoder,
    combat: Any,
    tasks: Mapping[str, TaskSpec],
    keep: int,
) -> np.ndarray:
    """Positions of the `keep` columns of the draft that know most of any task, as `tables.select.univariate` ranks.

    Survival: Cox's score test stratified by site. Ordered classes and numbers: Spearman's correlation within each site,
    averaged on Fisher's scale. Other classes: analysis of variance within the sites.
    """
    answers = ask("scores", {"drafts": {name: draft.state()}, "combat": {name: combat} if combat else {}})
    found = (p_value([m.arrays for m in answers.values()], spec) for spec in tasks.values())
    return best([p for p in found if p is not None], keep)


def told(values: np.ndarray, own: Own, patients: list[str]) -> dict[str, np.ndarray]:
    """What a site tells of filled columns [patient, column] and each task: sums over patients, never a patient."""
    out: dict[str, np.ndarray] = {}
    for task, spec in own.manifest.tasks.items():
        known = own.manifest.labels[task].reindex(patients)
        rows = known.notna().all(axis=1).to_numpy()
        x, known = values[rows], known[rows]
        if spec.kind == "survival":
            event = (known[event_column(known)].to_numpy() == 1).astype(float)
            if event.sum() >= own.least:
                parts = cox_parts(x, known["time_days"].to_numpy(float), event)
                out |= dict(zip((f"{task}/score", f"{task}/information", f"{task}/tiny"), parts, strict=True))
        elif spec.kind in ("ordinal", "regression"):
            label = known["value"].to_numpy(float)
            if len(label) >= max(4, own.least) and np.ptp(label) > 0:
                out |= {f"{task}/r": spearman_r(x, label), f"{task}/n": np.array(float(len(label)))}
        else:
            label = known["value"].to_numpy(int)
            for number in range(len(spec.classes)):
                if (label == number).sum() >= own.least:
                    of = Moments.of(x[label == number])
                    out |= {f"{task}/{number}/{w}": v for w, v in zip(("n", "mean", "square"), _three(of), strict=True)}
    return out


def p_value(sites: list[Mapping[str, np.ndarray]], spec: TaskSpec) -> np.ndarray | None:
    """P of each column from what the sites told of a task; None where they told nothing of it."""
    name = spec.name
    if spec.kind == "survival":
        have = [of for of in sites if f"{name}/score" in of]
        if not have:
            return None
        score, information, tiny = (sum(of[f"{name}/{w}"] for of in have) for w in ("score", "information", "tiny"))
        return np.asarray(chi2.sf(np.where(information > tiny, score**2 / np.maximum(information, 1e-300), 0.0), 1))
    if spec.kind in ("ordinal", "regression"):
        have = [of for of in sites if f"{name}/r" in of]
        if not have:
            return None
        free = [float(of[f"{name}/n"]) - 3 for of in have]
        z = sum(
            w * np.arctanh(np.clip(of[f"{name}/r"], -1 + 1e-12, 1 - 1e-12)) for w, of in zip(free, have, strict=True)
        )
        return np.asarray(2 * norm.sf(np.abs(z) / np.sqrt(sum(free))))
    between, within = np.zeros(1), np.zeros(1)
    groups, strata, n = 0, 0, 0.0
    for of in sites:
        own = [_of(of, f"{name}/{c}") for c in range(len(spec.classes)) if f"{name}/{c}/n" in of]
        if len(own) > 1:
            whole = together(own)
            inside = sum(part.square for part in own)
            between, within = between + (whole.square - inside), within + inside
            groups, strata, n = groups + len(own), strata + 1, n + float(whole.n[0])
    if groups <= strata or n <= groups:
        return None
    ratio = (between / (groups - strata)) / np.maximum(within / (n - groups), 1e-300)
    return np.asarray(np.where(within > 0, f.sf(ratio, groups - strata, n - groups), 1.0))


def _three(of: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return of.n, of.mean, of.square


def _of(arrays: Mapping[str, np.ndarray], name: str) -> Moments:
    return Moments(*(arrays[f"{name}/{word}"] for word in ("n", "mean", "square")))
