"""Associations: absence of a modality with an outcome or a site, and outcomes with a site."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import chi2, chi2_contingency, fisher_exact, kruskal

from nsclc_mtl.cohort.lint.counts import having
from nsclc_mtl.cohort.lint.finding import FEW, Finding
from nsclc_mtl.metrics.survival import log_rank
from nsclc_mtl.records import Manifest, TaskSpec


def missing_by_outcome(manifest: Manifest, alpha: float) -> list[Finding]:
    """Modalities whose absence goes with an outcome (chi-square, Fisher, log-rank), Holm-corrected at `alpha`.

    A family of its own: every task against every pattern of absence that at least five patients have.
    """
    tests = [
        (names, task, p)
        for names, has in _patterns(manifest)
        for task, spec in manifest.tasks.items()
        for p in p_values(spec, manifest.labels[task], has)
    ]
    out = []
    for (names, task, _), p in significant(tests, alpha):
        told = (
            f"absence goes with {task} (P = {p:.1g} corrected over {len(tests)} tests, alpha {alpha:g}): "
            "a model may learn from absence alone"
        )
        out.append(Finding("warning", "missing", " + ".join(names), told))
    return _once(out)


def missing_by_site(manifest: Manifest, alpha: float) -> list[Finding]:
    """Modalities that some sites lack more often than others (chi-square, Fisher), Holm-corrected at `alpha`."""
    site = _large_sites(manifest)
    if site.nunique() < 2:
        return []
    tests = [
        (names, p)
        for names, has in _patterns(manifest)
        for p in _crossed(site.to_numpy(), has.loc[site.index].to_numpy())
    ]
    return [
        Finding(
            "warning",
            "missing",
            " + ".join(names),
            f"absence goes with the site (P = {p:.1g} corrected over {len(tests)} tests, alpha {alpha:g}): "
            "a model may learn the site from absence",
        )
        for (names, _), p in significant(tests, alpha)
    ]


def label_by_site(manifest: Manifest, alpha: float) -> list[Finding]:
    """Tasks whose outcome differs between sites (chi-square, Fisher, log-rank), Holm-corrected at `alpha`."""
    site = _large_sites(manifest)
    if site.nunique() < 2:
        return []
    tests = [(task, p) for task, spec in manifest.tasks.items() for p in p_values(spec, manifest.labels[task], site)]
    return _once([
        Finding("warning", "site", task, f"differs between the {site.nunique()} sites (P = {p:.1g} corrected over "
                f"{len(tests)} tests, alpha {alpha:g}): a model may learn to tell the site")
        for (task, _), p in significant(tests, alpha)
    ])  # fmt: skip


def _patterns(manifest: Manifest) -> list[tuple[list[str], pd.Series]]:
    """Patterns of absence that enough patients have: the modalities that share one, and who has them."""
    patterns: dict[bytes, tuple[list[str], pd.Series]] = {}
    for name, has in having(manifest).items():
        if FEW <= has.sum() <= len(has) - FEW:
            patterns.setdefault(has.to_numpy().tobytes(), ([], has))[0].append(name)
    return list(patterns.values())


def _large_sites(manifest: Manifest) -> pd.Series:
    """Sites of the patients of those with at least twice `FEW` patients."""
    site = manifest.patients["site"].astype(str)
    return site[site.isin(site.value_counts()[lambda counts: counts >= 2 * FEW].index)]


def p_values(spec: TaskSpec, labels: pd.DataFrame, group: pd.Series) -> Iterator[float]:
    """P of no association between groups and an outcome: one test for classes; event and log-rank for survival;
    Kruskal and Wallis for a number.

    The event is tested besides because absence can depend on whether the patient died rather than on when.
    """
    known = labels.loc[group.index].dropna()
    number = pd.factorize(group.loc[known.index], sort=True)[0]
    if len(known) == 0 or number.max(initial=0) == 0 or np.bincount(number).min() < FEW:
        return
    if spec.kind == "regression":
        if known["value"].nunique() > 1:
            yield float(kruskal(*(known["value"].to_numpy()[number == k] for k in range(number.max() + 1))).pvalue)
        return
    yield from _crossed(number, known["event" if spec.kind == "survival" else "value"].to_numpy())
    if spec.kind == "survival":
        statistic, freedom = log_rank(known["time_days"], known["event"], number)
        if statistic.known:
            yield float(chi2.sf(statistic, freedom))


def _crossed(group: np.ndarray, value: np.ndarray) -> Iterator[float]:
    """P of no association in the table of both: chi-square, and Fisher's exact test where a 2 x 2 table expects
    fewer than five in a cell. Values that fewer than `FEW` patients have are left out."""
    table = pd.crosstab(group, value)
    table = table.loc[:, table.sum() >= FEW]
    if table.shape[1] < 2 or table.shape[0] < 2:
        return
    made = chi2_contingency(table.to_numpy(), correction=False)
    small = table.shape == (2, 2) and made.expected_freq.min() < 5
    yield float(fisher_exact(table.to_numpy()).pvalue) if small else float(made.pvalue)


def significant(tests: list[tuple], alpha: float) -> Iterator[tuple[tuple, float]]:
    """The tests (P last) that Holm's procedure rejects at `alpha`, with their corrected P."""
    highest = 0.0
    for rank, test in enumerate(sorted(tests, key=lambda test: test[-1])):
        highest = max(highest, min(1.0, test[-1] * (len(tests) - rank)))
        if highest >= alpha:
            return
        yield test, highest


def _once(findings: list[Finding]) -> list[Finding]:
    """The first finding (the smallest P) of each pair of place and task."""
    seen: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        seen.setdefault((finding.where, finding.sentence.split(" (P")[0]), finding)
    return list(seen.values())
