"""A learner from its configuration and what was fitted."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.sites import keeps_no_outcome
from nsclc_mtl.config import build, permitted
from nsclc_mtl.config.allow import nearest
from nsclc_mtl.records import Manifest, TaskSpec, UsageFault, event_column

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from nsclc_mtl.bags.fitted import Fitted
    from nsclc_mtl.learner import Learner
    from nsclc_mtl.tasks.balance import Balance


def options(cfg: Mapping[str, Any], manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Parts of every modality: those of its kind, changed by what the cohort says of it by name."""
    from nsclc_mtl.tables.recipe import OWN_WORDS

    out, words = {}, ("encoder", "max_tiles", "augment", "harmonize", *OWN_WORDS)
    wide = (cfg.get("skip") or {}).get("columns") == "all"  # runs of before lack the word
    for name, spec in manifest.modalities.items():
        kind = cfg["parts"]["modalities"][spec.kind]
        own = {k: v for k, v in spec.options.items() if k in words}
        out[name] = {**kind, **own, "encoder": {**kind["encoder"], **(own.get("encoder") or {})}}
        if wide and "components" in kind:
            out[name]["wide"] = True
        if "combat" in kind:
            out[name]["combat"] = {**kind["combat"], **(spec.options.get("combat") or {})}
            keeps_no_outcome(cfg["cohort"], out[name]["combat"])
    return out


def fit_tasks(
    cfg: Mapping[str, Any], manifest: Manifest, train: list[str], groups: np.ndarray | None = None
) -> dict[str, dict[str, Any]]:
    """What each task fits on the labels of the training patients (bins, base rates). Raises NoEvents.

    `groups` are those that a balanced sampler draws alike often, [patient]; None where it shuffles.
    """
    import pandas as pd

    from nsclc_mtl.bags.balanced import chances
    from nsclc_mtl.tasks.prior import shares

    chance = None if groups is None else pd.Series(chances(groups), index=train)
    out = {}
    for name, spec in manifest.tasks.items():
        known = manifest.labels[name].loc[train].dropna()
        value = known["time_days" if spec.kind == "survival" else "value"].to_numpy()
        event = known[happened].to_numpy() if (happened := event_column(known)) else value * 0
        out[name] = fit_task(cfg, spec, value, event)
        if spec.classes and chance is not None:
            out[name] |= shares(value, len(spec.classes), chance[known.index].to_numpy())
    return out


def fit_task(cfg: Mapping[str, Any], spec: TaskSpec, value: np.ndarray, event: np.ndarray) -> dict[str, Any]:
    """What a task fits on the labels of some patients: their classes or times, [patient], and events, [patient]."""
    node = cfg["parts"]["tasks"][spec.kind]
    head = permitted(node["_target_"])
    return head.fit(spec, value, head.counted(event), **(node.get("fit") or {}))


def one_cause(cfg: Mapping[str, Any], manifest: Manifest) -> list[str]:
    """A sentence for the user on each task with competing causes whose head knows one cause alone."""
    told = []
    for name, spec in manifest.tasks.items():
        head = permitted(cfg["parts"]["tasks"][spec.kind]["_target_"]) if spec.causes else None
        if head is not None and not head.competing:
            told.append(
                f"{name}: {head.__name__} learns {spec.causes[0]} alone, with {' and '.join(spec.causes[1:])} as "
                "censored; survival=deephit learns all causes"
            )
    return told


def sound(cfg: Mapping[str, Any], specs: Mapping[str, TaskSpec]) -> None:
    """Raises UsageFault where the parts of the tasks, or the sampler, name a task or a class that is not there, and
    where what was chosen could teach a task nothing, or something that is not so."""
    from nsclc_mtl.bags.balanced import balanced_kind
    from nsclc_mtl.commands.ranks import processes
    from nsclc_mtl.tasks.cox import Cox

    dependencies(cfg, specs)
    named_by_some(cfg, specs)
    survival = any(spec.kind == "survival" for spec in specs.values())
    head = permitted(cfg["parts"]["tasks"]["survival"]["_target_"])
    if whole_passes(cfg) and survival and not issubclass(head, Cox):
        raise UsageFault("cox.mode=exact: no survival task is Cox's; set survival=cox, or cox.mode=batch")
    if survival and issubclass(head, Cox) and not whole_passes(cfg) and cfg["optim"]["batch_size"] <= processes(cfg):
        raise UsageFault(
            f"survival=cox compares the patients of a batch, and optim.batch_size={cfg['optim']['batch_size']} leaves "
            "a process one: take more, or cox.mode=exact"
        )
    if (task := balanced_by(cfg)) is not None:
        balanced_kind(specs, task)
        _calibrated_after(cfg, specs)


def _calibrated_after(cfg: Mapping[str, Any], specs: Mapping[str, TaskSpec]) -> None:
    """Refuses balanced epochs for what would stay too high or too low after them (UsageFault)."""
    from nsclc_mtl.tasks.cox import Cox
    from nsclc_mtl.tasks.task import Task

    if whole_passes(cfg):
        raise UsageFault(
            "optim.sampler=balanced: cox.mode=exact looks at every training patient once; take one of the two"
        )
    if numbers := [name for name, spec in specs.items() if spec.kind == "regression"]:
        raise UsageFault(
            f"optim.sampler=balanced: the numbers of '{numbers[0]}' would be those of the patients drawn, and are not "
            "brought back to all patients of the training; leave the task out (tasks=[...]) or the sampler"
        )
    head = permitted(cfg["parts"]["tasks"]["survival"]["_target_"])
    survival = any(spec.kind == "survival" for spec in specs.values())
    if survival and not issubclass(head, Cox) and head.recalibrate is Task.recalibrate:
        raise UsageFault(
            f"optim.sampler=balanced: curves of {head.__name__} cannot be brought back to the events of all patients "
            "of the training; take survival=hazard or survival=cox"
        )


def lines(cfg: Mapping[str, Any], manifest: Manifest) -> None:
    """Raises UsageFault where a linear skip has nothing that it could be fitted on."""
    if cfg.get("skip") and not manifest.tables and not (cfg["skip"]["bags"] and manifest.bags):
        more = ", or take the mean tile with skip.bags=true" if manifest.bags else ""
        raise UsageFault(f"skip=linear is fitted on tables, and this run reads none: leave it out{more}")


def balanced_by(cfg: Mapping[str, Any]) -> str | None:
    """The task whose classes (or events) an epoch shows alike often; None where patients are shuffled.

    Raises UsageFault where `optim.sampler` is balanced and names no task.
    """
    optim = cfg["optim"]
    if optim.get("sampler", "shuffled") == "shuffled":
        return None
    if not optim.get("sampler_task"):
        raise UsageFault("optim.sampler=balanced needs the task to balance by: optim.sampler_task=NAME")
    return str(optim["sampler_task"])


def named_by_some(cfg: Mapping[str, Any], specs: Mapping[str, TaskSpec]) -> None:
    """Refuses weights and prevalences of classes that no declared task of their kind has (UsageFault): a misspelt word
    would do nothing."""
    from nsclc_mtl.cohort.specs import task_spec

    declared = {name: task_spec(name, said) for name, said in cfg["cohort"]["tasks"].items()}
    for kind, node in cfg["parts"]["tasks"].items():
        own = [spec for spec in declared.values() if spec.kind == kind]
        for word in ("weights", "prevalence"):
            said = node.get(word)
            if not isinstance(said, Mapping) or not any(spec.kind == kind for spec in specs.values()):
                continue
            if said and all(isinstance(inner, Mapping) for inner in said.values()):
                strange = [name for name in said if name not in declared]
            else:
                strange = [c for c in said if not any(str(c) in spec.classes for spec in own)]
            if strange:
                raise UsageFault(f"parts.tasks.{kind}.{word}: '{strange[0]}' is no class of a {kind} task, nor a task")


def learner(
    cfg: Mapping[str, Any], specs: Mapping[str, TaskSpec], modalities: Mapping[str, Mapping[str, Any]], fitted: Fitted
) -> Learner:
    """An untrained learner: encoders sized by the data, one fusion, a head a task, the balance and the optimiser."""
    from nsclc_mtl.encoders.tabular import Projected
    from nsclc_mtl.exact import ExactLearner
    from nsclc_mtl.learner import Learner

    dims, dim, encoders = fitted.dims(), cfg["optim"]["dim"], {}
    asked = inspect.signature(permitted(cfg["fusion"]["_target_"])).parameters
    for name, chosen in modalities.items():
        given: dict[str, Any] = {"dim": dim}
        table = fitted.tables[name].narrow if name in fitted.tables else None
        if name not in fitted.volumes:
            given["in_dim"] = dims[name] if table is None else table.dim
        if name in fitted.bags:
            given["scale"] = fitted.bags[name]
        if table is not None and table.groups:
            given["groups"] = table.groups
        if name in fitted.series:
            given["within"] = fitted.series[name].within
        takes = inspect.signature(permitted(chosen["encoder"]["_target_"])).parameters
        if "tokens" in takes and name in fitted.bags and chosen["encoder"].get("tokens") is None:
            given["tokens"] = "tiles" in asked
        if "columns" in takes and table is not None:
            given["columns"] = table.sources
        if (
            "task" in takes
            and (wanted := chosen["encoder"].get("task")) in cfg["cohort"]["tasks"]
            and wanted not in specs
        ):
            given["task"] = None  # of the cohort, and not trained here: the same words for a run of a task alone
        if "classes" in takes:
            given["classes"] = {task: len(spec.classes) for task, spec in specs.items() if spec.classes}
        encoders[name] = build(chosen["encoder"], **given)
        if table is not None and table.loadings is not None and fitted.tables[name].wide:
            encoders[name] = Projected(table.loadings, encoders[name])
    shared: dict[str, Any] = {"modalities": list(modalities), "tasks": list(specs), "dim": dim}
    wide = {name: encoder.token_dim for name, encoder in encoders.items() if getattr(encoder, "token_dim", None)}
    if "tiles" in asked:  # a fusion that reads tokens: how wide they are, packed and a patient
        shared["tiles"] = {name: width for name, width in wide.items() if name in fitted.bags}
        shared["tokens"] = {name: width for name, width in wide.items() if name not in fitted.bags}
    fusion = build(cfg["fusion"], **shared)
    tasks = {}
    for name, after in dependencies(cfg, specs).items():
        node = {k: v for k, v in cfg["parts"]["tasks"][specs[name].kind].items() if k not in ("fit", "after")}
        sizes = {earlier: len(specs[earlier].classes) for earlier in after}
        tasks[name] = build(node, spec=specs[name], view_dim=fusion.view_dim, state=fitted.tasks[name], after=sizes)
    skip = None
    if cfg.get("skip"):
        seen = [*fitted.tables, *(fitted.bags if cfg["skip"]["bags"] else ())]
        inputs = {name: dims[name] for name in modalities if name in seen}
        skip = build(cfg["skip"], inputs=inputs, outputs={name: spec.scores for name, spec in specs.items()})
    kind = ExactLearner if whole_passes(cfg) else Learner
    return kind(
        encoders,
        fusion,
        tasks,
        _balance(cfg, list(specs)),
        build(cfg["optim"]["optimizer"]),
        cfg["optim"]["warmup"],
        skip,
        _auxiliaries(cfg, list(modalities), fitted),
        gradient_curves=bool(cfg["optim"].get("gradient_curves")),
    )


def whole_passes(cfg: Mapping[str, Any]) -> bool:
    """Whether a step is taken over all training patients (`cox.mode=exact`); runs of before lack the word."""
    return (cfg.get("cox") or {}).get("mode") == "exact"


def _auxiliaries(cfg: Mapping[str, Any], modalities: list[str], fitted: Fitted) -> dict[str, nn.Module]:
    """Further losses of the embeddings by name; runs of before lack the word."""
    if not (chosen := cfg.get("adaptation")):
        return {}
    given = {"names": modalities, "dim": cfg["optim"]["dim"], "sites": len(fitted.sites)}
    return {"adaptation": build(chosen, **given)}


def _balance(cfg: Mapping[str, Any], tasks: list[str]) -> Balance:
    """The balance. Weights of tasks that the run does not train say nothing; UsageFault for a name that is none."""
    declared = cfg["cohort"]["tasks"]
    if strange := [task for task in cfg["balance"].get("weights") or {} if task not in declared]:
        raise UsageFault(f"balance.weights: the cohort declares no task '{strange[0]}'{nearest(strange[0], declared)}")
    return build(cfg["balance"], tasks=tasks)


def dependencies(cfg: Mapping[str, Any], specs: Mapping[str, TaskSpec]) -> dict[str, list[str]]:
    """Every task with the class tasks whose probabilities its head reads, in an order in which these come before it.

    `parts.tasks.KIND.after` is a list of tasks, or `classes`: all class tasks. Tasks that the run does not train are
    left out, so that a task alone is the same configuration. Raises UsageFault where tasks wait for each other.
    """
    after: dict[str, list[str]] = {}
    for name, spec in specs.items():
        said = cfg["parts"]["tasks"][spec.kind].get("after") or []
        wanted = [task for task, other in specs.items() if other.classes] if said == "classes" else list(said)
        if strange := [task for task in wanted if task not in cfg["cohort"]["tasks"]]:
            raise UsageFault(f"parts.tasks.{spec.kind}.after: the cohort declares no task '{strange[0]}'")
        if worse := [task for task in wanted if task in specs and not specs[task].classes]:
            raise UsageFault(
                f"parts.tasks.{spec.kind}.after: '{worse[0]}' has no classes whose probabilities one reads"
            )
        after[name] = [task for task in wanted if task in specs and task != name]
    placed: dict[str, list[str]] = {}
    while len(placed) < len(after):
        ready = [name for name in after if name not in placed and set(after[name]) <= set(placed)]
        if not ready:
            waiting = ", ".join(name for name in after if name not in placed)
            raise UsageFault(f"parts.tasks.*.after: the tasks {waiting} wait for each other")
        placed |= {name: after[name] for name in ready}
    return placed
