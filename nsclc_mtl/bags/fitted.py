"""What is fitted on the training patients of a fold and kept with it: scalers, imputers, selections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.bags import spots
from nsclc_mtl.bags.cache import BagCache, read_volume
from nsclc_mtl.bags.series import SeriesScale
from nsclc_mtl.bags.sites import fit_sites, without_sites
from nsclc_mtl.records import DataFault, Manifest
from nsclc_mtl.tables import genes
from nsclc_mtl.tables.encode import TableEncoder
from nsclc_mtl.tables.harmonize import Combat, named_sites
from nsclc_mtl.tables.recipe import Recipe
from nsclc_mtl.tables.robust import robust_features


@dataclass
class Fitted:
    """Everything that was fitted on the training patients of a fold, as plain JSON types can hold it."""

    tables: dict[str, TableEncoder] = field(default_factory=dict)
    combat: dict[str, Combat] = field(default_factory=dict)  # modality -> site effects that are taken out of its table
    robust: dict[str, dict[str, Any]] = field(default_factory=dict)  # modality -> ICC of its features, and those kept
    bags: dict[str, dict[str, Any]] = field(default_factory=dict)  # modality -> {mean, sd} per feature; spots: genes
    volumes: dict[str, list[int]] = field(default_factory=dict)  # modality -> shape [z, y, x]
    series: dict[str, SeriesScale] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)  # filled by the tasks: bins, cut-offs
    patterns: list[list[str]] = field(default_factory=list)  # combinations of modalities that were trained
    trust: dict[str, dict[str, Any]] = field(default_factory=dict)  # task -> temperature and sets, from calibration
    outside: dict[str, Any] = field(default_factory=dict)  # what tells patients who are unlike those of the training
    sites: list[str] = field(default_factory=list)  # of the training patients, in the order of their numbers
    reference: dict[str, dict[str, Any]] = field(default_factory=dict)  # what their inputs were like: see `described`
    # survival task -> life table of the patients who do not test the fold, for the censoring weights of others
    follow_up: dict[str, dict[str, Any]] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        tables = {name: encoder.state() for name, encoder in self.tables.items()}
        plain = {
            name: getattr(self, name)
            for name in (
                "bags", "volumes", "tasks", "patterns", "trust", "outside", "robust", "sites", "reference", "follow_up",
            )
        }  # fmt: skip
        combat = {name: made.state() for name, made in self.combat.items()}
        series = {name: scale.state() for name, scale in self.series.items()}
        return {"tables": tables, "combat": combat, "series": series, **plain}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Fitted:
        """What `state()` came from; folds of before may lack what came later, from `trust` on."""
        tables = {name: TableEncoder.load(s) for name, s in state["tables"].items()}
        kinds = {"bags": dict, "volumes": dict, "tasks": dict, "patterns": list}
        own = ("trust", "outside", "robust", "reference", "follow_up")
        later: dict[str, Any] = {name: dict(state.get(name) or {}) for name in own}
        later["combat"] = {name: Combat.load(s) for name, s in (state.get("combat") or {}).items()}
        later["sites"] = list(state.get("sites") or [])
        later["series"] = {name: SeriesScale.load(s) for name, s in (state.get("series") or {}).items()}
        return cls(tables, **{name: kind(state[name]) for name, kind in kinds.items()}, **later)

    def rows(self, manifest: Manifest, name: str, ids: Sequence[str], columns: bool = False) -> np.ndarray:
        """Float32 [patient, dim]: a table's rows of these patients as the network takes them; with `columns` before
        principal components are made of them.

        A site that moves by its own patients is looked at whole: a row does not depend on who else is asked for.
        """
        encoder = replace(self.tables[name], loadings=None) if columns else self.tables[name]
        return encoder.transform(self.harmonised(manifest, name, ids))

    def harmonised(self, manifest: Manifest, name: str, ids: Sequence[str]) -> pd.DataFrame:
        """A table's rows of these patients with the site effects taken out, where the fold does that."""
        table, combat = manifest.tables[name], self.combat.get(name)
        whole = table if combat is not None and combat.unseen == "own" else table.loc[list(ids)]
        return without_sites(manifest, whole, combat).loc[list(ids)]

    def dims(self) -> dict[str, Any]:
        """Input size of each modality: columns of a table or a visit, features of a tile, shape of a volume."""
        return {
            **{name: encoder.dim for name, encoder in self.tables.items()},
            **{name: len(scale["mean"]) for name, scale in self.bags.items()},
            **{name: tuple(shape) for name, shape in self.volumes.items()},
            **{name: len(scale.columns) for name, scale in self.series.items()},
        }


def fit(manifest: Manifest, train: Sequence[str], cache: BagCache, options: Mapping[str, Mapping[str, Any]]) -> Fitted:
    """Scalers, imputers and selections of every modality, from the training patients `train` alone.

    Raises DataFault where none of them has a modality.
    """
    made = Fitted(sites=sorted(set(named_sites(manifest.patients["site"]).loc[list(train)]) - {""}))
    sources = {name: set(patients) for name, patients in manifest.holders().items()}
    for name, have in sources.items():
        if have.isdisjoint(train):
            raise DataFault(
                f"no training patient of the fold has the modality '{name}'; use fewer folds (folds.n), "
                "or leave it out (modalities=[...])"
            )
    labels = {task: (task_spec, manifest.labels[task].loc[list(train)]) for task, task_spec in manifest.tasks.items()}
    for name, table in manifest.tables.items():
        rows = table.loc[[p for p in train if p in table.index]]
        spec, chosen = manifest.modalities[name], options.get(name, {})
        columns = spec.options.get("columns")
        if name in manifest.repeated:
            judged = robust_features(rows, manifest.repeated[name], train, name)
            made.robust[name], rows = judged.state(), rows[judged.kept]
            columns = columns and {c: kind for c, kind in columns.items() if c in judged.kept}
        if spec.options.get("duplicate_columns") == "max_variance":
            rows = genes.widest_of_each(rows, genes.groups(rows.columns))
        recipe, sets = Recipe.of(chosen, spec.options), manifest.sets.get(name)
        if combat := fit_sites(manifest, name, rows, chosen):
            made.combat[name], rows = combat, without_sites(manifest, rows, combat)
            recipe = replace(recipe, log="none")  # taken before the sites were compared
        made.tables[name] = TableEncoder.fit(rows, columns, recipe, labels=labels, sets=sets)
    for name, paths in manifest.bags.items():
        of = [paths[p] for p in train if p in paths]
        if manifest.modalities[name].kind == "spots":
            made.bags[name] = spots.fit(of, options.get(name, {}).get("top_variance"), name)
        else:
            made.bags[name] = _tile_scale(of, cache)
    for name, visits in manifest.series.items():
        rows = visits[visits.index.get_level_values(0).isin(list(train))]
        made.series[name] = SeriesScale.fit(rows, name, options.get(name, {}).get("clip", 5.0))
    for name, volumes in manifest.volumes.items():
        made.volumes[name] = list(read_volume(next(iter(volumes.values()))).shape)
    seen = {tuple(n for n in sources if p in sources[n]) for p in train}
    made.patterns = [list(pattern) for pattern in sorted(seen, key=lambda s: (-len(s), s))]
    return made


def tile_moments(bags: Sequence[Sequence[str]], cache: BagCache, most: int = 1000) -> list[tuple[np.ndarray, ...]]:
    """Mean and mean square of the tile features of each bag that has tiles; at most `most` bags are read."""
    step = max(1, len(bags) // most)
    return [_moments(features) for paths in bags[::step] if len(features := cache(paths)[0])]


def tile_scale(first: np.ndarray, second: np.ndarray) -> dict[str, list[float]]:
    """Mean and SD of every tile feature from the bags' mean of means and of mean squares, [feature]."""
    sd = np.sqrt(np.maximum(second - first**2, 0))
    return {"mean": first.round(6).tolist(), "sd": np.where(sd > 1e-6, sd, 1.0).round(6).tolist()}


def _tile_scale(bags: Sequence[Sequence[str]], cache: BagCache) -> dict[str, list[float]]:
    """Mean and SD of every tile feature, each bag weighing the same."""
    moments = tile_moments(bags, cache)
    if not moments:
        raise DataFault("no slide of the fold's training patients has a tile; run `mtl tile` and `mtl extract` again")
    return tile_scale(np.mean([m for m, _ in moments], axis=0), np.mean([s for _, s in moments], axis=0))


def _moments(features: np.ndarray, block: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square of every column, float64; only a block of rows is wide at a time."""
    first, second = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for begin in range(0, len(features), block):
        wide = features[begin : begin + block].astype(np.float64)
        first += wide.sum(0)
        second += np.square(wide, out=wide).sum(0)
    return first / len(features), second / len(features)
