"""Everything that is fitted, fitted on the training patients of all sites: what the server makes of their summaries.

Means, spreads, components and tile scales are those that one table of all patients would give, to rounding; medians and
survival bins are read off grids of 128 cells (`sketch`), and rare categories are not told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nsclc_mtl.bags.fitted import Fitted, tile_scale
from nsclc_mtl.federated import selection, site_effects, sketch
from nsclc_mtl.federated.messages import Message
from nsclc_mtl.records import DataFault, ModalitySpec, TaskSpec, UsageFault
from nsclc_mtl.tables.encode import TableEncoder, loadings
from nsclc_mtl.tables.moments import Moments, together
from nsclc_mtl.tables.recipe import Recipe
from nsclc_mtl.tables.transform import Transform

TABLES = ("clinical", "omics", "radiomics", "deep", "vector")
IMAGES = ("bag", "volume")

Ask = Callable[..., dict[str, Message]]
"""Asks all sites a step of the fitting: ask(step, words, arrays) -> answer by site, every site's."""
FitTask = Callable[[TaskSpec, np.ndarray, np.ndarray], dict[str, Any]]
"""What a task fits on labels: its spec, classes or times [patient], events [patient]."""


@dataclass(frozen=True)
class Declared:
    """What is known of the model before any site is asked: tasks, modalities, and the parts of each modality."""

    tasks: Mapping[str, TaskSpec]
    modalities: Mapping[str, ModalitySpec]
    options: Mapping[str, Mapping[str, Any]]

    def sound(self) -> None:
        """Raises UsageFault where something is asked for that is not fitted over sites."""
        for name, spec in self.modalities.items():
            if spec.kind not in (*TABLES, *IMAGES):
                raise UsageFault(
                    f"modality '{name}' is of kind {spec.kind}, which is not fitted over sites; leave it out "
                    "(modalities=[...])"
                )
            if spec.options.get("pathways") or spec.options.get("duplicate_columns") == "max_variance":
                raise UsageFault(
                    f"modality '{name}': pathways and duplicate_columns=max_variance are not fitted over sites; leave "
                    "them out of the cohort's declaration"
                )

    def there(self, seen: Mapping[str, Message]) -> Declared:
        """Without optional modalities that no site has. `seen` are the answers to the survey."""
        have = {name for message in seen.values() for name in message.words["modalities"]}
        kept = {n: s for n, s in self.modalities.items() if n in have or not s.options.get("optional")}
        return Declared(self.tasks, kept, {name: self.options[name] for name in kept})


def fit_together(ask: Ask, declared: Declared, fit_task: FitTask, seen: Mapping[str, Message]) -> Fitted:
    """What `bags.fitted.fit` gives, from summaries of the sites. `seen` are the answers to the survey, by site.

    Raises DataFault where no site has a modality, or where sites have it otherwise.
    """
    made = Fitted(sites=sorted(seen))
    modalities = {site: message.words["modalities"] for site, message in seen.items()}
    for name, spec in declared.modalities.items():
        have = [of[name] for of in modalities.values() if name in of]
        if not have:
            raise DataFault(f"no site has enough training patients with the modality '{name}'; leave it out")
        if spec.kind == "volume":
            made.volumes[name] = [int(size) for size in _one(name, "volumes", [tuple(of["shape"]) for of in have])]
    drafts, recipes = _drafts(declared, seen)
    combat = site_effects.fit(ask, declared, drafts)
    for name, of in combat.items():
        made.combat[name] = of
        drafts[name] = replace(drafts[name], log="none", library=[])  # taken before the sites were compared
        recipes[name] = replace(recipes[name], log="none")
    made.tables = _tables(ask, drafts, recipes, {name: of.state() for name, of in combat.items()}, declared)
    wide = {n: _one(n, "tiles", [of[n]["dim"] for of in modalities.values() if n in of]) for n in _bags(declared)}
    if wide:
        answers = ask("bags", {"bags": wide})
        for name in wide:
            first, second = _mean(answers, name, "mean"), _mean(answers, name, "square")
            made.bags[name] = tile_scale(first, second)
    made.tasks = _tasks(ask, declared, fit_task)
    patterns = {tuple(pattern) for message in seen.values() for pattern in message.words["patterns"]}
    made.patterns = [list(pattern) for pattern in sorted(patterns, key=lambda s: (-len(s), s))]
    return made


def _bags(declared: Declared) -> list[str]:
    return [name for name, spec in declared.modalities.items() if spec.kind == "bag"]


def _one(name: str, what: str, found: Sequence[Any]) -> Any:
    if len(set(found)) > 1:
        raise DataFault(
            f"the {what} of '{name}' differ between sites ({', '.join(map(str, sorted(set(found))))}); extract them "
            "with one configuration everywhere"
        )
    return found[0]


def _mean(answers: Mapping[str, Message], name: str, word: str) -> np.ndarray:
    """Sum over the sites of what they summed, divided by the sum of their numbers."""
    n = sum(float(message.arrays[f"{name}/n"]) for message in answers.values())
    if n == 0:
        raise DataFault(f"no site has enough training patients with the modality '{name}'; leave it out")
    return np.asarray(sum(message.arrays[f"{name}/{word}"] for message in answers.values()) / n)


# ---------------------------------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------------------------------


def _drafts(declared: Declared, seen: Mapping[str, Message]) -> tuple[dict[str, TableEncoder], dict[str, Recipe]]:
    """Encoders that know the columns, in the order of the first site's table: those that every holder of it has."""
    drafts, recipes = {}, {}
    for name, spec in declared.modalities.items():
        if spec.kind not in TABLES:
            continue
        recipe = Recipe.of(declared.options[name], spec.options)
        words = [seen[site].words for site in sorted(seen) if name in seen[site].words["modalities"]]
        tables = [of["modalities"][name]["columns"] for of in words]
        columns = [c for c in tables[0] if all(c in other for other in tables[1:])]
        kinds = spec.options.get("columns") or dict.fromkeys(columns, "numeric")
        numbers = [c for c, kind in kinds.items() if kind == "numeric" or not isinstance(kind, str)]
        change = Transform.of(recipe.values, recipe.log, [c for c in numbers if kinds[c] == "numeric"])
        of_sites = [of["categories"].get(name, {}) for of in words]
        drafts[name] = TableEncoder(
            numbers=numbers,
            categories={
                c: sorted({v for of in of_sites for v in of.get(c, ())}) for c in kinds if kinds[c] == "categorical"
            },
            ordered={c: [str(v) for v in kind] for c, kind in kinds.items() if not isinstance(kind, str)},
            clip=recipe.clip if recipe.scaling != "none" else None,
            wide=recipe.wide,
            log=change.log,
            library=list(change.library),
        )
        recipes[name] = recipe
    return drafts, recipes


def _tables(
    ask: Ask,
    drafts: dict[str, TableEncoder],
    recipes: Mapping[str, Recipe],
    combat: Mapping[str, Any],
    declared: Declared,
) -> dict[str, TableEncoder]:
    """The encoders with medians, scales, selected columns, components and middles."""
    if not drafts:
        return {}

    def asked(step: str, arrays: Mapping[str, np.ndarray] | None = None, **words: Any) -> dict[str, Message]:
        told = {"drafts": {name: draft.state() for name, draft in drafts.items()}, "combat": combat, **words}
        return ask(step, told, arrays or {})

    answers = asked("moments")
    before = {name: _moments(answers, name) for name in drafts}
    grids = {f"{name}/edges": sketch.normal_grid(of.mean, of.sd) for name, of in before.items()}
    answers = asked("cells", grids)
    counts = {name: np.asarray(sum(m.arrays[f"{name}/cells"] for m in answers.values())) for name in drafts}
    for name, draft in drafts.items():
        drafts[name] = replace(draft, median=_quantiles(grids[f"{name}/edges"], counts[name], 0.5, before[name]))
    answers = asked("filled")
    for name, draft in drafts.items():
        of = _moments(answers, name)
        missing = np.asarray(sum(m.arrays[f"{name}/missing"] for m in answers.values()))
        keep = np.flatnonzero(of.sd > 1e-9 * np.maximum(1.0, np.abs(of.mean)))
        rule, most = recipes[name].rule
        if rule == "univariate" and most is not None and len(keep) > most:
            kept = replace(draft, **_at(draft, keep))
            found = selection.univariate(ask, name, kept, combat.get(name), declared.tasks, most)
            keep = keep[found]
        elif rule == "variance" and most is not None and len(keep) > most:
            keep = keep[np.sort(np.argsort(-of.sd[keep], kind="stable")[:most])]
        mean, sd = of.mean[keep], of.sd[keep]
        recipe = recipes[name]
        if recipe.scaling == "robust":
            mean, sd = _robust(grids[f"{name}/edges"][:, keep], counts[name][:, keep], missing[keep], draft, keep, sd)
        elif recipe.scaling == "none":
            mean, sd = np.zeros(len(keep)), np.ones(len(keep))
        indicated = [draft.numbers[i] for i in keep if 0 < missing[i] < of.n[i]] if recipe.missing_indicators else []
        drafts[name] = replace(draft, **_at(draft, keep), mean=mean.tolist(), sd=sd.tolist(), indicated=indicated)
    narrow = [n for n, r in recipes.items() if r.components is not None and len(drafts[n].numbers) > r.components]
    answers = asked("products", components=narrow) if narrow else {}
    for name in narrow:
        drafts[name] = replace(drafts[name], loadings=_components(answers, name, int(recipes[name].components or 0)))
    answers = asked("middles")
    return {
        name: replace(draft, middle=_mean(answers, name, "sum").round(7).tolist()) for name, draft in drafts.items()
    }


def _moments(answers: Mapping[str, Message], name: str) -> Moments:
    return together(
        [Moments(*(m.arrays[f"{name}/{word}"] for word in ("n", "mean", "square"))) for m in answers.values()]
    )


def _quantiles(edges: np.ndarray, counts: np.ndarray, share: float, of: Moments) -> list[float]:
    """The quantile of each column; its mean where no cell was told."""
    found = [sketch.quantile(edges[:, i], counts[:, i], share) for i in range(counts.shape[1])]
    return np.where(np.isfinite(found), found, of.mean).tolist()


def _at(draft: TableEncoder, keep: np.ndarray) -> dict[str, Any]:
    return {"numbers": [draft.numbers[i] for i in keep], "median": [draft.median[i] for i in keep]}


def _robust(
    edges: np.ndarray, counts: np.ndarray, missing: np.ndarray, draft: TableEncoder, keep: np.ndarray, sd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Median and IQR in SD of a normal, of the values filled with the median; SD where the IQR is 0."""
    median = np.array(draft.median)[keep]
    low, high = np.zeros(len(keep)), np.zeros(len(keep))
    for i in range(len(keep)):
        full = counts[:, i].copy()
        full[np.clip(np.searchsorted(edges[:, i], median[i]) - 1, 0, len(full) - 1)] += missing[i]
        low[i], high[i] = (sketch.quantile(edges[:, i], full, share) for share in (0.25, 0.75))
    wide = (high - low) / 1.349
    return median, np.where(wide > 1e-9 * np.maximum(1.0, np.abs(median)), wide, sd)


def _components(answers: Mapping[str, Message], name: str, components: int) -> list[list[float]]:
    """Loadings of the first principal components of all sites' scaled numbers."""
    n = sum(float(m.arrays[f"{name}/n"]) for m in answers.values())
    mean = sum(m.arrays[f"{name}/sum"] for m in answers.values()) / n
    covariance = sum(m.arrays[f"{name}/products"] for m in answers.values()) / n - np.outer(mean, mean)
    variance, axes = np.linalg.eigh(covariance)
    most = slice(-1, -components - 1, -1)
    return loadings(axes.T[most], np.maximum(variance[most], 0.0))


# ---------------------------------------------------------------------------------------------------------------------
# Labels
# ---------------------------------------------------------------------------------------------------------------------


def _tasks(ask: Ask, declared: Declared, fit_task: FitTask) -> dict[str, dict[str, Any]]:
    """What each task fits, on labels spread as the sites' are: as many of every class, times by their cells."""
    days: dict[str, float] = {}
    if any(spec.kind == "survival" for spec in declared.tasks.values()):
        for message in ask("follow_up", {}).values():
            for task, years in message.words["years"].items():
                days[task] = max(days.get(task, 0.0), 365.25 * max(1, int(years)))
    answers = ask("labels", {"days": days})
    out = {}
    for task, spec in declared.tasks.items():
        value, event = _labels(answers, spec, days.get(task, 0.0))
        out[task] = fit_task(spec, value, event)
    return out


def _labels(answers: Mapping[str, Message], spec: TaskSpec, days: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels [patient] and events [patient] that have the sums of the sites' counts."""
    if spec.kind == "survival":
        edges, values, events = sketch.even_grid(days), [], []
        for event in range(1 + max(1, len(spec.causes))):
            counts = sum(m.arrays[f"{spec.name}/{event}"] for m in answers.values())
            times = sketch.sample(edges, np.asarray(counts))
            values.append(times)
            events.append(np.full(len(times), float(event)))
        return np.concatenate(values), np.concatenate(events)
    if spec.kind == "regression":
        of = _moments(answers, spec.name)
        if of.n[0] < 2:
            raise DataFault(f"task {spec.name}: no site has enough training patients with a known number")
        value = np.array([of.mean[0] - of.sd[0], of.mean[0] + of.sd[0]])
        return value, np.zeros(2)
    counts = np.asarray(sum(m.arrays[f"{spec.name}/classes"] for m in answers.values()))
    value = np.repeat(np.arange(len(counts)), counts.round().astype(int)).astype(float)
    return value, np.zeros(len(value))
