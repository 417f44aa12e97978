"""The linter of a cohort: what it counts, and what a reviewer would find in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import chi2, chi2_contingency

from nsclc_mtl.cohort import leaks
from nsclc_mtl.cohort.leaks import FEW, Finding
from nsclc_mtl.metrics.survival import log_rank
from nsclc_mtl.records import PARTS, Manifest, TaskSpec

FOLLOW_UP_DAYS = (90.0, 7305.0)  # a median outside three months to twenty years is more likely a wrong unit


def check(
    manifest: Manifest,
    splits: pd.DataFrame | None,
    *,
    level: float = 0.85,
    patients: int = 30,
    alpha: float = 0.01,
    root: Path | None = None,
) -> tuple[list[Finding], pd.DataFrame]:
    """All findings, errors first, and the columns that know most of each task by themselves.

    `level` is the AUC or C of a single column that raises the alarm, `patients` the fewest it is computed on (training
    patients of the first fold), `alpha` the error rate of each family of tests after Holm's correction. `root` is where
    slide files lie whose bytes are compared; None = they are not read.
    """
    train = manifest.ids
    if splits is not None:
        first = splits[splits["fold"] == splits["fold"].min()]
        train = list(first.loc[first["part"] == "train", "patient_id"])
    findings = leaks.copies(manifest, outcome_parts(manifest))
    strong, best = leaks.alarms(manifest, train, level=level, patients=patients, alpha=alpha)
    copied = {(f.where, f.sentence.split("'")[1]) for f in findings}
    findings += [f for f in strong if (f.where, f.sentence.split("'")[1]) not in copied]
    findings += leaks.smells(manifest)
    findings += leaks.twins(manifest, splits)
    findings += leaks.shared_slides(manifest, root, splits)
    findings += constants(manifest)
    findings += missing_by_outcome(manifest, alpha)
    findings += label_by_site(manifest, alpha)
    findings += follow_up(manifest)
    return sorted(findings, key=lambda f: f.level != "error"), best


# ---------------------------------------------------------------------------------------------------------------------
# Counts
# ---------------------------------------------------------------------------------------------------------------------


def per_site(manifest: Manifest) -> pd.DataFrame:
    """Patients, modalities, known labels and events of every site, one column a site and `all`; int."""
    site = manifest.patients["site"].astype(str)
    rows = {"patients": pd.Series(True, index=site.index)}
    rows |= {f"has {name}": has for name, has in having(manifest).items()}
    for name, spec in manifest.tasks.items():
        known = manifest.labels[name].notna().all(axis=1)
        rows[f"{name} known"] = known
        if spec.kind == "survival":
            rows[f"{name} events"] = known & (manifest.labels[name]["event"] == 1)
        else:
            for number, word in enumerate(spec.classes):
                rows[f"{name}={word}"] = manifest.labels[name]["value"] == number
    counted = pd.DataFrame(rows)
    table = counted.groupby(site).sum().T.astype(int)
    table.columns = [name or "(no site)" for name in table.columns]
    return table.assign(all=counted.sum().astype(int)) if table.shape[1] > 1 else table.set_axis(["all"], axis=1)


def per_part(manifest: Manifest, splits: pd.DataFrame) -> pd.DataFrame:
    """Patients, and events or the rarest class of every task, by fold and part. One row a fold and part."""
    out = []
    for fold, rows in splits.groupby("fold"):
        for part in PARTS:
            ids = rows.loc[rows["part"] == part, "patient_id"]
            if len(ids) == 0:
                continue
            row: dict[str, object] = {"fold": int(str(fold)), "part": part, "patients": len(ids)}
            for name, spec in manifest.tasks.items():
                known = manifest.labels[name].loc[list(ids)].dropna()
                if spec.kind == "survival":
                    row[f"{name} events"] = int(known["event"].sum())
                else:
                    counts = np.bincount(known["value"].astype(int), minlength=len(spec.classes))
                    row[f"{name} rarest"] = int(counts.min())
            out.append(row)
    return pd.DataFrame(out)


def having(manifest: Manifest) -> dict[str, pd.Series]:
    """Who has each modality: bool by patient id."""
    index = manifest.patients.index
    out = {}
    for name in manifest.modalities:
        ids = np.array(manifest.who(name), str)
        out[name] = pd.Series(np.isin(index.to_numpy(str), ids).astype(int), index=index) == 1
    return out


def outcome_parts(manifest: Manifest) -> dict[str, pd.Series]:
    """What must not be among the inputs: classes, events and times of every task, by patient."""
    out = {}
    for name, spec in manifest.tasks.items():
        frame = manifest.labels[name]
        if spec.kind != "survival":
            out[f"the task '{name}'"] = frame["value"]
            continue
        out[f"the task '{name}' (event)"] = frame["event"]
        out[f"the task '{name}' (time)"] = frame["time_days"]
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Plausibility
# ---------------------------------------------------------------------------------------------------------------------


def constants(manifest: Manifest) -> list[Finding]:
    """Columns that say nothing: one value, or none."""
    out = []
    for name, table in manifest.tables.items():
        text = table.astype(object).where(~table.isin(leaks.MISSING), np.nan)
        different = text.nunique()
        for word, columns in (("without any value", different == 0), ("with one value only", different == 1)):
            found = [str(c) for c in table.columns[columns.to_numpy()]]
            if found:
                told = f"{len(found)} of {table.shape[1]} columns {word}: {', '.join(found[:5])}"
                out.append(Finding("warning", "constant", name, told + (" ..." if len(found) > 5 else "")))
    return out


def follow_up(manifest: Manifest) -> list[Finding]:
    """Survival tasks whose median follow-up is implausible in the declared unit, or whose event hardly varies."""
    out = []
    for name, spec in manifest.tasks.items():
        if spec.kind != "survival":
            continue
        known = manifest.labels[name].dropna()
        share = known["event"].mean() if len(known) else np.nan
        if len(known) and (share > 0.95 or share < 0.02):
            told = f"the event happened to {share:.0%} of {len(known)} patients; is its map the right way round?"
            out.append(Finding("warning", "events", name, told))
        days = median_follow_up(manifest.labels[name])
        low, high = FOLLOW_UP_DAYS
        if np.isfinite(days) and not low <= days <= high:
            told = f"median follow-up is {days:.0f} days ({days / 365.25:.2g} years); is the unit of its time right?"
            out.append(Finding("warning", "follow_up", name, told))
    return out


def median_follow_up(labels: pd.DataFrame) -> float:
    """Median follow-up in days by reverse Kaplan-Meier (Schemper and Smith, 1996); the median time where it is not met.

    Events censor the follow-up, so at a tied time they leave after those who were censored.
    """
    known = labels.dropna().sort_values("time_days")
    if known.empty:
        return float("nan")
    kept, at_risk = 1.0, len(known)
    for when, rows in known.groupby("time_days"):
        kept *= 1 - float((rows["event"] == 0).sum()) / at_risk
        at_risk -= len(rows)
        if kept <= 0.5:
            return float(str(when))
    return float(known["time_days"].median())


# ---------------------------------------------------------------------------------------------------------------------
# Associations
# ---------------------------------------------------------------------------------------------------------------------


def missing_by_outcome(manifest: Manifest, alpha: float) -> list[Finding]:
    """Modalities whose absence goes with an outcome (chi-square, log-rank), Holm-corrected at `alpha`.

    A family of its own: every task against every pattern of absence that at least five patients have.
    """
    patterns: dict[bytes, tuple[list[str], pd.Series]] = {}
    for name, has in having(manifest).items():
        if FEW <= has.sum() <= len(has) - FEW:
            patterns.setdefault(has.to_numpy().tobytes(), ([], has))[0].append(name)
    tests = [
        (names, task, p)
        for names, has in patterns.values()
        for task, spec in manifest.tasks.items()
        for p in _p_values(spec, manifest.labels[task], has)
    ]
    out = []
    for (names, task, _), p in _significant(tests, alpha):
        told = (
            f"absence goes with {task} (P = {p:.1g} corrected over {len(tests)} tests, alpha {alpha:g}): "
            "a model may learn from absence alone"
        )
        out.append(Finding("warning", "missing", " + ".join(names), told))
    return _once(out)


def label_by_site(manifest: Manifest, alpha: float) -> list[Finding]:
    """Tasks whose outcome differs between sites (chi-square, log-rank), Holm-corrected at `alpha`."""
    site = manifest.patients["site"].astype(str)
    site = site[site.isin(site.value_counts()[lambda counts: counts >= 2 * FEW].index)]
    if site.nunique() < 2:
        return []
    tests = [(task, p) for task, spec in manifest.tasks.items() for p in _p_values(spec, manifest.labels[task], site)]
    return _once([
        Finding("warning", "site", task, f"differs between the {site.nunique()} sites (P = {p:.1g} corrected over "
                f"{len(tests)} tests, alpha {alpha:g}): a model may learn to tell the site")
        for (task, _), p in _significant(tests, alpha)
    ])  # fmt: skip


def _p_values(spec: TaskSpec, labels: pd.DataFrame, group: pd.Series) -> Iterator[float]:
    """P of no association between groups and an outcome: one test for classes; event and log-rank for survival.

    The event is tested besides because absence can depend on whether the patient died rather than on when.
    """
    known = labels.loc[group.index].dropna()
    number = pd.factorize(group.loc[known.index], sort=True)[0]
    if len(known) == 0 or number.max(initial=0) == 0 or np.bincount(number).min() < FEW:
        return
    value = known["event" if spec.kind == "survival" else "value"]
    crossed = pd.crosstab(number, value.to_numpy())
    crossed = crossed.loc[:, crossed.sum() >= FEW]  # chi-square does not hold for a handful
    if crossed.shape[1] > 1:
        yield float(chi2_contingency(crossed.to_numpy(), correction=False).pvalue)
    if spec.kind == "survival":
        statistic, freedom = log_rank(known["time_days"], known["event"], number)
        if statistic.known:
            yield float(chi2.sf(statistic, freedom))


def _significant(tests: list[tuple], alpha: float) -> Iterator[tuple[tuple, float]]:
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


def as_json(
    manifest: Manifest, findings: list[Finding], best: pd.DataFrame, splits: pd.DataFrame | None
) -> Mapping[str, object]:
    """What `check.json` holds: counts, findings and the strongest columns, plain types."""
    return {
        "cohort": manifest.name,
        "errors": sum(f.level == "error" for f in findings),
        "warnings": sum(f.level == "warning" for f in findings),
        "findings": [vars(f) for f in findings],
        "per_site": {str(k): {str(n): int(v) for n, v in row.items()} for k, row in per_site(manifest).T.iterrows()},
        "per_part": [] if splits is None else per_part(manifest, splits).astype(object).to_dict("records"),
        "strongest_columns": best.round(4).to_dict("records"),
        "median_follow_up_days": {
            n: round(median_follow_up(manifest.labels[n]), 1) for n, s in manifest.tasks.items() if s.kind == "survival"
        },
        "notes": manifest.notes,
    }
