"""Who was studied: the flow of patients, the table of their characteristics by part, follow-up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from markupsafe import Markup

from nsclc_mtl.cohort.lint import counts
from nsclc_mtl.cohort.lint.attrition import Step, attrition
from nsclc_mtl.metrics.follow_up import follow_up
from nsclc_mtl.records import PARTS, Manifest, TaskSpec, event_column
from nsclc_mtl.report.check_page import followed_figure, months
from nsclc_mtl.report.flow import flow_figure
from nsclc_mtl.report.section import Evidence, Figure, Section
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, slug
from nsclc_mtl.tables.read import MISSING

_MOST_FOLDS = 6  # columns of folds on the page
_MOST_LEVELS = 10  # of a category; the rarest are put together
_MOST_VARIABLES = 12  # among the inputs' columns, before the rest is folded away
_ALWAYS = ("", "what they have", "outcomes")  # blocks that are shown whole


@dataclass(frozen=True)
class Row:
    """A line of the table: `level` is empty for a number, and for the head of a category."""

    block: str
    variable: str
    level: str
    cells: tuple[str, ...]


def cohort(evidence: Evidence) -> list[Section]:
    """The chapter that comes before the tasks."""
    section = Section("study", "Who was studied", Markup(), first=True)
    manifest = evidence.manifest
    if manifest is None:
        people = {p for r in evidence.results.values() for f in r.folds for p in f.patients}
        section.html = Markup(_page(total=len(people), sites=0))
        return [section]
    studied = only(manifest, _studied(evidence))
    columns = _columns(evidence, studied)
    declared = (evidence.trained.get("cohort") or {}).get("modalities")
    rows = list(table(studied, list(evidence.results), columns, evidence.training, declared))
    shown = list(columns)[: _MOST_FOLDS + 1]
    section.html = Markup(
        _page(
            total=len(studied.patients),
            sites=_sites(studied),
            columns=shown,
            hidden=len(columns) - len(shown),
            blocks=_blocks(rows, len(shown)),
            external=bool(evidence.mean_of),
            training=evidence.training is not None,
            parts=_parts(evidence.splits),
            told=evidence.told,
            locked=evidence.locked,
        )
    )
    section.figures = [_flow(evidence, manifest), *_followed(studied, evidence)]
    section.tables = {
        "cohort": pd.DataFrame(
            [(r.block, r.variable, r.level, *r.cells) for r in rows], columns=["block", "variable", "level", *columns]
        )
    }
    return [section]


def only(manifest: Manifest, ids: pd.Index) -> Manifest:
    """The manifest with these patients alone in its table and labels."""
    inside = manifest.patients.index[manifest.patients.index.isin(ids)]
    labels = {name: label.reindex(inside) for name, label in manifest.labels.items()}
    return replace(manifest, patients=manifest.patients.loc[inside], labels=labels)


def _page(**told: Any) -> str:
    blank: dict[str, Any] = {"columns": [], "hidden": 0, "blocks": [], "external": False, "training": False}
    return template("sections/cohort.html.j2", FILTERS).render({**blank, "parts": [], "told": (), "locked": "", **told})


def _studied(evidence: Evidence) -> pd.Index:
    """The patients of the folds, else those who were predicted; others of the cohort's tables do not count."""
    rows = evidence.splits if evidence.splits is not None else evidence.predictions
    return pd.Index(rows["patient_id"].unique())


def _sites(manifest: Manifest) -> int:
    return int(manifest.patients["site"].replace("", None).nunique()) if "site" in manifest.patients else 0


def _columns(evidence: Evidence, studied: Manifest) -> dict[str, pd.Index]:
    """{heading: patients} of the table."""
    everyone = studied.patients.index
    if evidence.splits is None:
        out = {"evaluated": everyone}
        return out if evidence.training is None else {"training cohort": evidence.training.patients.index, **out}
    out = {"all": everyone}
    folds = list(evidence.splits.groupby("fold", sort=True))
    tested = {f"fold {k} test": pd.Index(rows.loc[rows["part"] == "test", "patient_id"]) for k, rows in folds}
    if len(folds) == 1:  # one model: what it was made from, and what it was judged on
        test = next(iter(tested.values()))
        return out | {"training": everyone.difference(test, sort=False), "test": test}
    return out | tested


def table(
    manifest: Manifest,
    tasks: Sequence[str],
    columns: Mapping[str, pd.Index],
    training: Manifest | None = None,
    declared: Mapping[str, Any] | None = None,
) -> Iterator[Row]:
    """The rows: numbers as median (quartiles), categories as n (%) of the known, missing ones counted where there are.

    Patients of a column are looked up in `training` where it is given and the column is its cohort. declared: the
    cohort's modalities as its file declares them, for the units.
    """
    sources = [training if training is not None and name == "training cohort" else manifest for name in columns]
    pairs = list(zip(sources, columns.values(), strict=True))
    yield Row("", "patients", "", tuple(str(len(ids)) for _, ids in pairs))
    if any(_sites(source) > 1 for source in sources):
        yield Row("", "sites", "", tuple(str(_sites(only(source, ids))) for source, ids in pairs))
    for name in _clinical(manifest):
        short = manifest.modalities[name].options.get("columns") or {}
        long = ((declared or {}).get(name) or {}).get("columns") or {}
        for column in manifest.tables[name].columns:
            order, told = (of.get(column) if isinstance(of, Mapping) else None for of in (short, long))
            unit = str(told.get("unit") or "") if isinstance(told, Mapping) else ""
            values = [_column(source, name, column, ids) for source, ids in pairs]
            ordered = [str(v) for v in order] if isinstance(order, list | tuple) else None
            yield from _variable(name, f"{column}, {unit}" if unit else str(column), values, ordered)
    for name in manifest.modalities:
        cells = [len(ids.intersection(pd.Index(source.who(name)))) for source, ids in pairs]
        yield Row(
            "what they have", name, "", tuple(_share(n, len(ids)) for n, (_, ids) in zip(cells, pairs, strict=True))
        )
    for name in tasks:
        labels = [
            source.labels[name].reindex(ids) if name in source.labels else pd.DataFrame(index=ids)
            for source, ids in pairs
        ]
        aside = [
            int(counts.inapplicable(source, name).reindex(ids, fill_value=False).sum())
            if name in source.applicable
            else 0
            for source, ids in pairs
        ]
        yield from _outcome(manifest.tasks[name], labels, aside)


def _clinical(manifest: Manifest) -> list[str]:
    return [n for n, spec in manifest.modalities.items() if spec.kind == "clinical" and n in manifest.tables]


def _column(source: Manifest, modality: str, column: str, ids: pd.Index) -> pd.Series:
    """A covariate of these patients, missing where the cohort has no such column."""
    there = source.tables.get(modality)
    if there is None or column not in there:
        return pd.Series(float("nan"), index=ids, dtype=object)
    return there[column].reindex(ids)


def _variable(block: str, name: str, values: Sequence[pd.Series], order: Sequence[str] | None) -> Iterator[Row]:
    """Lines of one covariate."""
    known = [v[v.notna() & ~v.astype(str).str.strip().isin(MISSING)] for v in values]
    whole = pd.concat(known)
    # a code such as pT "2" is text where it is declared so
    texts = whole.map(lambda v: isinstance(v, str | bool)).any()
    if len(whole) and not texts and set(pd.to_numeric(whole)) <= {0.0, 1.0}:  # a code that somebody has or has not
        cells = [_share(int((pd.to_numeric(v) == 1).sum()), len(v)) for v in known]
        name = f"{name} = 1"
        yield Row(block, name, "", tuple(cells))
    elif len(whole) and not texts:
        yield Row(block, name, "", tuple(_quartiles(pd.to_numeric(v)) for v in known))
    else:
        words = [v.astype(str) for v in known]
        sizes = pd.concat(words).value_counts() if len(whole) else pd.Series(dtype=int)
        levels = [v for v in order if v in sizes] if order else list(sizes.index)
        levels += [v for v in sizes.index if v not in levels]
        codes = pd.to_numeric(pd.Series(levels, dtype=str), errors="coerce")
        if order is None and codes.notna().all():  # stages and scores read better in their order
            levels = [levels[k] for k in codes.sort_values().index]
        yield Row(block, name, "", ("",) * len(values))
        for level in levels[:_MOST_LEVELS]:
            yield Row(block, name, level, tuple(_share(int((v == level).sum()), len(v)) for v in words))
        if rest := levels[_MOST_LEVELS:]:
            others = tuple(_share(int(v.isin(rest).sum()), len(v)) for v in words)
            yield Row(block, name, f"{len(rest)} others", others)
    missing = [len(v) - len(k) for v, k in zip(values, known, strict=True)]
    if any(missing):
        yield Row(block, name, "missing", tuple(map(str, missing)))


def _outcome(task: TaskSpec, labels: Sequence[pd.DataFrame], aside: Sequence[int]) -> Iterator[Row]:
    """Lines of one task. aside: patients of each column whom it does not apply to."""
    known = [label.dropna() if len(label.columns) else label.iloc[:0] for label in labels]
    block = "outcomes"
    if task.kind == "survival":
        followed = [follow_up(k["time_days"], k[event_column(k)]) if len(k) else follow_up([], []) for k in known]
        yield Row(block, task.name, "", ("",) * len(labels))
        events = tuple(_share(f.events, f.patients) for f in followed)
        yield Row(block, task.name, f"events ({task.endpoint or task.name})", events)
        told = tuple(months(f.median) if f.median.known else "–" for f in followed)
        yield Row(block, task.name, "median follow-up, months", told)
    elif task.kind == "regression":
        name = f"{task.name}, {task.unit}" if task.unit else task.name
        yield Row(block, name, "", tuple(_quartiles(k["value"]) if len(k) else "–" for k in known))
    else:
        yield Row(block, task.name, "", ("",) * len(labels))
        for number, word in enumerate(task.classes):
            cells = [_share(int((k["value"] == number).sum()) if len(k) else 0, len(k)) for k in known]
            yield Row(block, task.name, word, tuple(cells))
    if any(aside):
        yield Row(block, task.name, "not applicable", tuple(map(str, aside)))
    missing = [len(label) - len(k) - out for label, k, out in zip(labels, known, aside, strict=True)]
    if any(missing):
        yield Row(block, task.name, "missing", tuple(map(str, missing)))


def _share(n: int, of: int) -> str:
    return f"{n} ({100 * n / of:.0f} %)" if of else "–"


def _quartiles(values: pd.Series) -> str:
    if not len(values):
        return "–"
    low, middle, high = values.astype(float).quantile([0.25, 0.5, 0.75])
    return f"{_figure(middle)} ({_figure(low)} to {_figure(high)})"


def _figure(value: float) -> str:
    """Three figures, all of a large number."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _blocks(rows: Sequence[Row], width: int) -> list[dict[str, Any]]:
    """Rows by block for the page. Of the inputs' columns the first few are shown, those of all blocks counted; the
    others are folded away."""
    out: list[dict[str, Any]] = []
    room = _MOST_VARIABLES
    for block in dict.fromkeys(r.block for r in rows):
        own = [replace(r, cells=r.cells[:width]) for r in rows if r.block == block]
        variables = list(dict.fromkeys(r.variable for r in own))
        early = set(variables if block in _ALWAYS else variables[:room])
        room -= 0 if block in _ALWAYS else len(early)
        out.append(
            {
                "name": block,
                "rows": [r for r in own if r.variable in early],
                "more": [r for r in own if r.variable not in early],
                "left": len(variables) - len(early),
            }
        )
    return out


def _parts(splits: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Patients in each part of each fold."""
    if splits is None:
        return []
    made = splits.groupby("fold", sort=True)["part"].value_counts().unstack(fill_value=0)
    return [{"fold": fold, **{p: int(row.get(p, 0)) for p in PARTS}} for fold, row in made.iterrows()]


def _flow(evidence: Evidence, manifest: Manifest) -> Figure:
    """The trunk of the flow, down to those who were evaluated."""
    if evidence.splits is not None:
        trunk = attrition(manifest, evidence.splits, evidence.trained.get("cohort"))
        caption = "From the rows of the patients’ table to the patients of the folds."
    else:
        words = {"in the folds": "evaluated", "usable, but in no fold": "usable, but not evaluated"}
        told = evidence.predictions[["patient_id"]]
        steps = attrition(manifest, told, evidence.trained.get("cohort"))
        trunk = [replace(step, what=words.get(step.what, step.what)) for step in steps]
        caption = "From the rows of the patients’ table to the patients who were evaluated."
    kept: list[Step] = [step for step in trunk if not step.branch]
    return flow_figure(kept, "study-flow", caption)


def _followed(studied: Manifest, evidence: Evidence) -> list[Figure]:
    """Reverse Kaplan-Meier curves of the survival tasks."""
    out = []
    for name, found in counts.follow_ups(studied).items():
        if name in evidence.results and found.patients and found.median.known:
            told = f"{months(found.median)} months ({months(found.lo)} to {months(found.hi)})"
            caption = (
                f"Median follow-up for {name}: {told}, by reverse Kaplan-Meier: the share still under observation, "
                "where an event ends the observation like a censoring. Bands: 95 %, log-log; ticks: events."
            )
            out.append(followed_figure(studied, name, f"{slug(name)}-follow-up", caption))
    return out
