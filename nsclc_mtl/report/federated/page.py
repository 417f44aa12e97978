"""federation.html and the table for the terminal, of the account that federation.json holds and of nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import HEAVY_HEAD
from rich.table import Table
from rich.text import Text

from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.records import PARTS
from nsclc_mtl.report.federated import figures
from nsclc_mtl.report.federated.ways import ALL, CENTRALISED, DIFFERENCE, FEDERATED, LEFT_OUT, LOCAL, WAYS
from nsclc_mtl.report.measures import LOWER_IS_BETTER, PRIMARY
from nsclc_mtl.report.page import Page
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, metric_word, slug, told

WORDS = {
    FEDERATED: "federated: the sites together, without pooling",
    CENTRALISED: "centralised: all patients in one place",
    LOCAL: "local: a model of each site alone",
}
SENT = {
    "fit": "counts, sums and histograms of its training patients, for scalers, bins and selected columns",
    "begin": "that it has begun",
    "judge": "metrics of its own patients",
    "finish": "metrics of its test patients",
    "refused": "a sentence why it does not answer",
}
_CHANCE = ("auc", "ordinal_auc", "c_index", "concordance")
_SHAPES = {FEDERATED: "circle", CENTRALISED: "square", LOCAL: "triangle"}
_OPEN = 6  # pictures of folds that stand open


def render(account: Mapping[str, Any]) -> Page:
    """The page of an account as `federation.json` has it, and its figures."""
    rows = {(r["task"], r["metric"], r["site"], r["measure"], r["way"]): r for r in account["rows"]}
    sites = [site["site"] for site in account["sites"]]
    tasks = [_task(k, task, rows, sites) for k, task in enumerate(account["tasks"])]
    drawn = [figures.rounds_figure(fold, f"rounds-{fold['number']}") for fold in account["folds"]]
    rounds = [figure for figure in drawn if figure is not None]
    html = template("federated.html.j2", {**FILTERS, **OWN}).render(
        account=account,
        words=WORDS,
        sent={**SENT, "train": _of_training(account["plan"])},
        parts=[p for p in PARTS if any(account["all"]["parts"][p])],
        tasks=tasks,
        sites=sites,
        rounds=rounds,
        opened=_OPEN,
        epsilons=_epsilons(account),
        attacks=_attacks(account["membership"]),
        attacked=[site for site in sites if any(a["site"] == site for a in account["membership"])],
    )
    return Page(html, [*(task["figure"] for task in tasks), *rounds], [])


def at(row: Mapping[str, Any] | None) -> Interval:
    """The value of a row with its interval; NaN where there is none."""
    if row is None:
        return Interval(math.nan, math.nan, math.nan)
    value, lo, hi = (math.nan if row[word] is None else float(row[word]) for word in ("value", "lo", "hi"))
    return Interval(value, lo, hi, row["reason"])


def _task(k: int, task: Mapping[str, Any], rows: Mapping[Any, Mapping[str, Any]], sites: Sequence[str]) -> dict:
    name, metric = task["name"], PRIMARY[task["kind"]]
    columns = [(ALL, "within"), (ALL, "whole"), *((site, "within") for site in sites)]
    ways = [way for way in WAYS if (name, metric, ALL, "within", way) in rows]

    def line(word: str, way: str) -> dict[str, Any]:
        found = [rows.get((name, word, site, measure, way)) for site, measure in columns]
        return {"way": way, "cells": [{"at": at(row), "there": row is not None} for row in found]}

    shown = {
        site if site != ALL else "all sites": {way: at(rows.get((name, metric, site, "within", way))) for way in ways}
        for site in (ALL, *sites)
    }
    over = rows[name, metric, ALL, "within", FEDERATED]
    further = dict.fromkeys(word for t, word, *_ in rows if t == name and not word.startswith(DIFFERENCE))
    gaps = [line(DIFFERENCE + metric, way) for way in ways if way != FEDERATED]
    return {
        **task,
        "metric": metric_word(metric),
        "n": over["n"],
        "events": over["n_events"],
        "ours": at(over),
        "heads": [
            _head(rows.get((name, metric, site, measure, FEDERATED)), site, measure) for site, measure in columns
        ],
        "lines": [line(metric, way) for way in ways],
        "gaps": gaps,
        "verdicts": [{"way": gap["way"], "at": (one := gap["cells"][0]["at"]), "word": verdict(one)} for gap in gaps],
        "ways": ways,
        "further": [
            {
                "name": metric_word(word),
                "low": word in LOWER_IS_BETTER,
                "at": [at(rows.get((name, word, ALL, "within", way))) for way in ways],
                "gaps": [at(rows.get((name, DIFFERENCE + word, ALL, "within", way))) for way in ways[1:]],
            }
            for word in further
            if word != metric
        ],
        "figure": figures.ways_figure(
            f"ways-{k + 1}-{slug(name)}",
            shown,
            f"{name}: by site and way of training",
            metric_word(metric),
            0.5 if metric in _CHANCE else None,
            f"{', '.join(f'{way} ({_SHAPES[way]})' for way in ways).capitalize()} with 95 % intervals; the line is "
            "chance. Overlapping intervals say little of the paired differences.",
        ),
    }


def _head(row: Mapping[str, Any] | None, site: str, measure: str) -> dict[str, Any]:
    told = {"within": "all, within sites", "whole": "all, across sites"}[measure] if site == ALL else site
    return {"name": told, "n": row and row["n"], "events": row and row["n_events"]}


def verdict(gap: Interval) -> str:
    """What the interval of a difference to the federated model says, in words."""
    if not math.isfinite(gap.value):
        return "not compared with"
    return "above" if gap.lo > 0 else "below" if gap.hi < 0 else "not told apart from"


def _of_training(plan: Mapping[str, Any]) -> str:
    """What a site sends after a round's training."""
    if plan["secure"]:
        numbers = "the numbers of the model after its training, masked so that only the sum over the sites can be read"
    else:
        numbers = "the numbers of the model after its training, how many patients it has trained on"
    return f"{numbers}, {'what privacy has cost so far' if plan['privacy'] else 'mean losses'}"


def _epsilons(account: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Site by site: epsilon of every fold."""
    of: dict[str, dict[int, Mapping[str, Any]]] = {}
    for fold in account["folds"]:
        for site, cost in fold["privacy"].items():
            of.setdefault(site, {})[fold["number"]] = cost
    return [
        {"site": site, "of": [each.get(f["number"]) for f in account["folds"]]} for site, each in sorted(of.items())
    ]


def _attacks(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Task by task: the attack on the federated model over all sites, on the centralised one, and at every site."""
    made = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = {(row["way"], row["site"], row["metric"]): row for row in rows if row["task"] == task}
        cells = []
        for way in (FEDERATED, CENTRALISED):
            if (way, ALL, "membership_auc") in own:
                auc, found = own[way, ALL, "membership_auc"], own[way, ALL, "membership_found"]
                cells.append({"way": way, "auc": at(auc), "found": at(found), "row": auc})
        sites = {site: at(row) for (way, site, m), row in own.items() if site != ALL and m == "membership_auc"}
        made.append({"task": task, "cells": cells, "sites": sites})
    return made


def table(account: Mapping[str, Any], boxed: bool) -> Table:
    """The same for the terminal: each way within sites, and the federated model minus it. Bold: the interval of a
    difference leaves out 0; a star: not every group has such a value."""
    out = Table(
        title="Within fold and site, 95 % intervals conditional on the trained models",
        title_justify="left",
        box=HEAVY_HEAD if boxed else None,
    )
    for column in ("task", "n", "events", "metric", "way", "value", "federated minus it"):
        out.add_column(column, justify="right" if column in ("n", "events") else "left")
    for task in account["tasks"]:
        metric = PRIMARY[task["kind"]]
        own = [r for r in account["rows"] if r["task"] == task["name"] and (r["site"], r["measure"]) == (ALL, "within")]
        for row in (r for r in own if r["metric"] == metric):
            gap = at(next((r for r in own if (r["metric"], r["way"]) == (DIFFERENCE + metric, row["way"])), None))
            first = row["way"] == FEDERATED
            events = "" if row["n_events"] is None else str(row["n_events"])
            head = (task["name"], str(row["n"]), events, metric_word(metric)) if first else ("", "", "", "")
            told = "" if first else _told(gap, "+")
            style = "bold" if gap.lo > 0 or gap.hi < 0 else ""
            out.add_row(*map(Text, (*head, row["way"], _told(at(row)), told)), style=style)
        out.add_section()
    if any(LEFT_OUT in row["reason"] for row in account["rows"] if (row["site"], row["measure"]) == (ALL, "within")):
        out.caption = "* not over every fold and site: the page says why"
        out.caption_justify = "left"
    return out


def _told(value: Interval, sign: str = "") -> str:
    """As on every terminal, with a star where a value does not stand on every group."""
    star = " *" if math.isfinite(value.value) and LEFT_OUT in value.reason else ""
    return told(value, sign) + star


def size(count: float) -> str:
    """A number of bytes as it is read.

    >>> size(812), size(40_960), size(3_250_000)
    ('812 B', '41 kB', '3.2 MB')
    """
    for unit, of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= of:
            return f"{count / of:.1f} {unit}" if count < 10 * of else f"{count / of:.0f} {unit}"
    return f"{count:.0f} B"


def digits(value: float | None) -> str:
    """A number with three digits; a dash for none."""
    return "–" if value is None else f"{value:.3g}"


def span(values: Sequence[int]) -> str:
    """The same number in every fold, or from the least to the most.

    >>> span([19, 19]), span([19, 21])
    ('19', '19–21')
    """
    least, most = min(values, default=0), max(values, default=0)
    return str(least) if least == most else f"{least}–{most}"


def _sentence(words: str) -> str:
    """The words with a capital letter, the others as they are."""
    return words[:1].upper() + words[1:]


OWN: dict[str, Callable[..., str]] = {"bytes": size, "digits": digits, "span": span, "capitalize_first": _sentence}
"""Filters of the template beside those of the report."""
