"""What a site tells of its training patients so that everything can be fitted together: sums and counts, no patient.

Nothing that leaves here stands on fewer than `least` patients: a table, a category or a combination of modalities that
fewer have counts as absent, values that fewer have count as missing, and grids are told in cells of `least` or more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.bags.cache import BagCache, read_volume
from nsclc_mtl.bags.fitted import tile_moments
from nsclc_mtl.bags.sites import without_sites
from nsclc_mtl.federated import selection, site_effects, sketch
from nsclc_mtl.records import Manifest, event_column
from nsclc_mtl.tables.encode import TableEncoder
from nsclc_mtl.tables.harmonize import Combat
from nsclc_mtl.tables.moments import Moments
from nsclc_mtl.tables.read import MISSING

Arrays = dict[str, np.ndarray]
Words = dict[str, Any]


@dataclass(frozen=True)
class Own:
    """The training patients of a site in a fold, and what may be told of them."""

    manifest: Manifest
    train: Sequence[str]
    cache: BagCache
    least: int

    def rows(self, name: str) -> pd.DataFrame:
        """A table's rows of these patients; none where fewer than `least` have it."""
        table = self.manifest.tables.get(name, pd.DataFrame())
        rows = table.loc[[p for p in self.train if p in table.index]]
        return rows if len(rows) >= self.least else rows[:0]

    def numbers(self, name: str, words: Mapping[str, Any]) -> tuple[TableEncoder, np.ndarray]:
        """The encoder as it is drafted so far, and its numbers [patient, number], NaN where not told."""
        encoder, rows = TableEncoder.load(words["drafts"][name]), self.rows(name)
        if not len(rows):
            return encoder, np.zeros((0, len(encoder.numbers)))
        values = encoder.measured(self.harmonised(rows, name, words))
        return encoder, np.where(np.isfinite(values).sum(0) >= self.least, values, np.nan)

    def harmonised(self, rows: pd.DataFrame, name: str, words: Mapping[str, Any]) -> pd.DataFrame:
        """The rows without the effects of the sites, once these are fitted."""
        made = (words.get("combat") or {}).get(name)
        return without_sites(self.manifest, rows, Combat.load(made) if made else None)


def answer(step: str, own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """What the site says at a step of the fitting; KeyError where there is no such step."""
    return STEPS[step](own, words, arrays)


def survey(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """What there is: modalities with their patients and sizes, categories, combinations of modalities, known labels."""
    manifest, train = own.manifest, set(own.train)
    modalities: Words = {}
    categories: Words = {}
    holders = {name: [p for p in have if p in train] for name, have in manifest.holders().items()}
    holders = {name: have for name, have in holders.items() if len(have) >= own.least}
    for name, have in holders.items():
        said: Words = {"kind": manifest.modalities[name].kind, "patients": len(have)}
        if name in manifest.tables:
            table = manifest.tables[name]
            said["columns"] = [str(c) for c in table.columns]
            declared = manifest.modalities[name].options.get("columns") or {}
            rows = own.rows(name)
            for column in (c for c, kind in declared.items() if kind == "categorical" and c in rows):
                count = Counter(rows[column].astype(str))
                kept = {v: n for v, n in sorted(count.items()) if n >= own.least and v not in MISSING}
                categories.setdefault(name, {})[column] = kept
        elif name in manifest.bags:
            said["dim"] = int(own.cache(manifest.bags[name][have[0]])[0].shape[1])
        elif name in manifest.volumes:
            said["shape"] = list(read_volume(manifest.volumes[name][have[0]]).shape)
        modalities[name] = said
    of = {name: set(have) for name, have in holders.items()}
    seen = Counter(tuple(name for name in of if p in of[name]) for p in own.train)
    patterns = [list(names) for names, n in seen.items() if n >= own.least]
    known = {
        task: int(labels.reindex(list(own.train)).notna().all(axis=1).sum()) for task, labels in manifest.labels.items()
    }
    return {}, {
        "patients": len(own.train),
        "modalities": modalities,
        "categories": categories,
        "patterns": patterns,
        "known": {task: n if n >= own.least else 0 for task, n in known.items()},
    }


def moments(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """Moments of every number as measured."""
    out: Arrays = {}
    for name in words["drafts"]:
        _, values = own.numbers(name, words)
        out |= _told(name, Moments.of(values, own.least))
    return out, {}


def cells(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """Counts of every number in the cells of a grid, [cell, column]."""
    out: Arrays = {}
    for name in words["drafts"]:
        _, values = own.numbers(name, words)
        edges = arrays[f"{name}/edges"]
        each = [sketch.joined(column[np.isfinite(column)], edges[:, i], own.least) for i, column in enumerate(values.T)]
        out[f"{name}/cells"] = np.stack(each, axis=1) if each else np.zeros((sketch.CELLS, 0))
    return out, {}


def filled(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """Moments of every number with the common median where it is missing, and how many are missing."""
    out: Arrays = {}
    for name in words["drafts"]:
        encoder, values = own.numbers(name, words)
        seen = np.isfinite(values)
        missing = (~seen).sum(0).astype(float)
        out |= _told(name, Moments.of(np.where(seen, values, np.array(encoder.median)), 1))
        out[f"{name}/missing"] = np.where((missing >= own.least) & (seen.sum(0) >= own.least), missing, 0.0)
    return out, {}


def scores(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """What the numbers of one table, filled with the common medians, know of each task."""
    (name,) = words["drafts"]
    encoder, values = own.numbers(name, words)
    filled = np.where(np.isfinite(values), values, np.array(encoder.median))
    return selection.told(filled, own, list(own.rows(name).index)), {}


def products(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """Sums [column] and sums of products [column, column] of the scaled numbers of tables that get components."""
    out: Arrays = {}
    for name in words["components"]:
        encoder, values = own.numbers(name, words)
        scaled = encoder.scaled(values)
        out[f"{name}/n"] = np.array(float(len(scaled)))
        out[f"{name}/sum"], out[f"{name}/products"] = scaled.sum(0), scaled.T @ scaled
    return out, {}


def middles(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """Sums of what the finished encoders make of the rows, before components, [column]."""
    out: Arrays = {}
    for name in words["drafts"]:
        encoder, rows = TableEncoder.load(words["drafts"][name]), own.rows(name)
        out[f"{name}/n"] = np.array(float(len(rows)))
        made = encoder.before_components(own.harmonised(rows, name, words)) if len(rows) else None
        out[f"{name}/sum"] = np.zeros(len(encoder.origins)) if made is None else made.sum(0)
    return out, {}


def bags(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """Sums over patients of the mean and of the mean square of their tiles' features, [feature]."""
    out: Arrays = {}
    for name in words["bags"]:
        paths = own.manifest.bags.get(name, {})
        have = [paths[p] for p in own.train if p in paths]
        each = tile_moments(have, own.cache) if len(have) >= own.least else []
        out[f"{name}/n"] = np.array(float(len(each)))
        for word, place in (("mean", 0), ("square", 1)):
            dim = int(words["bags"][name])
            out[f"{name}/{word}"] = np.sum([of[place] for of in each], axis=0) if each else np.zeros(dim)
    return out, {}


def follow_up(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """The longest follow-up of each survival task, in whole years rounded up; 0 where too few have one."""
    years = {}
    for task, labels in _known(own).items():
        if "time_days" in labels:
            enough = len(labels) >= own.least
            years[task] = int(np.ceil(float(labels["time_days"].max()) / 365.25)) if enough else 0
    return {}, {"years": years}


def labels(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """Patients of every class, times a cell of a grid for every event and for the censored, moments of numbers."""
    out: Arrays = {}
    for task, known in _known(own).items():
        spec = own.manifest.tasks[task]
        if spec.kind == "survival":
            edges, happened = sketch.even_grid(words["days"][task]), known[event_column(known)].to_numpy()
            for event in range(1 + max(1, len(spec.causes))):
                times = known["time_days"].to_numpy(float)[happened == event]
                out[f"{task}/{event}"] = sketch.joined(times, edges, own.least)
        elif spec.kind == "regression":
            out |= _told(task, Moments.of(known[["value"]].to_numpy(float), own.least))
        else:
            count = np.bincount(known["value"].to_numpy(int), minlength=len(spec.classes)).astype(float)
            out[f"{task}/classes"] = np.where(count >= own.least, count, 0.0)
    return out, {}


def _known(own: Own) -> dict[str, pd.DataFrame]:
    return {task: frame.reindex(list(own.train)).dropna() for task, frame in own.manifest.labels.items()}


def _told(name: str, of: Moments) -> Arrays:
    return {f"{name}/n": of.n, f"{name}/mean": of.mean, f"{name}/square": of.square}


def levels(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """Patients with each harmonised table, and the levels of the covariates that are kept."""
    return {}, {name: site_effects.levels(own, name, said) for name, said in words["tables"].items()}


def centres(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """Moments of the covariates that are kept."""
    out: Arrays = {}
    for name, said in words["tables"].items():
        out |= _told(name, site_effects.covariates(own, name, said))
    return out, {}


def lines(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """Sums that the least squares of values on site and covariates are made of."""
    out: Arrays = {}
    for name, said in words["tables"].items():
        out |= {f"{name}/{word}": values for word, values in site_effects.sums(own, name, said).items()}
    return out, {}


def shifts(own: Own, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Arrays, Words]:
    """The site's own shift and scale of every column, shrunk over the columns."""
    out: Arrays = {}
    for name, said in words["tables"].items():
        shift, scale = site_effects.own_shift(own, name, said)
        out |= {f"{name}/shift": shift, f"{name}/scale": scale}
    return out, {}


STEPS = {
    f.__name__: f
    for f in (
        survey,
        levels,
        centres,
        lines,
        shifts,
        moments,
        cells,
        filled,
        scores,
        products,
        middles,
        bags,
        follow_up,
        labels,
    )
}
