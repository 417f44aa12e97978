"""The composed configuration of a verb, or one sentence that says which word was wrong and which was meant."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from nsclc_mtl.records import UsageFault

from . import scan_presets
from .allow import nearest, permitted
from .names import check_group, check_key
from .overrides import parse, quoted
from .resolved import first_line, plain, register

# Groups of these names exist, but on the command line the words mean "which of the cohort's": plain values.
PLAIN = ("tasks", "modalities")
# Which folds are trained, where and how many at a time, with how much memory, how long a study goes on, how many
# resamples judge it: nothing about a fold. A word stands for all keys below it, too.
NO_MODEL = ("name", "fold", "folds.workers", "checkpoint_s", "bag_cache_mb", "trials", "engine", "bootstrap")
# Groups whose name means a number to a verb.
NUMBERS = {"plan-cost": ("slides",)}
KEPT = 64  # compositions of groups kept in memory
_COMPOSED: dict[tuple[Any, ...], DictConfig] = {}
PACKAGE = Path(__file__).resolve().parent.parent


def conf_root() -> Path:
    """The folder of the shipped configuration: inside the wheel, or beside the package in a checkout."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


def compose(verb: str, overrides: Sequence[str], conf_dirs: Sequence[Path] = ()) -> DictConfig:
    """The configuration of `verb` in struct mode; UsageFault with one sentence for every word that is not known.

    `tasks=[..]` and `modalities=[..]` are plain values, although groups of these names exist; an option of theirs is
    picked with its place, `tasks@parts.tasks.binary=my_head`. The first word without
    `=` after `mtl tile` is the folder of slides, those after `mtl compare` are the runs. `conf_dirs` are searched
    after the shipped configuration.
    """
    roots = [conf_root(), *(_existing(Path(folder)) for folder in conf_dirs)]
    if not (roots[0] / f"{verb}.yaml").is_file():
        raise UsageFault(f"there is no configuration for `mtl {verb}`: {roots[0] / f'{verb}.yaml'} is missing")
    given = parse(verb, overrides)
    plains = {o.key_or_group: o for o in given if _is_plain(o)}
    rest = [o for o in given if not _is_plain(o)]
    # `space` is a group, and a value where it is written out: a mapping of the user's words, with dots in its keys
    written = [o for o in rest if verb == "tune" and o.key_or_group == "space" and isinstance(o.value(), dict)]
    rest = [o for o in rest if o not in written]
    groups = {name: options for name, options in group_options(roots).items() if name not in NUMBERS.get(verb, ())}
    chosen = [o for o in rest if is_group(o, groups)]
    values = [o for o in rest if not is_group(o, groups)]
    faults = [fault for o in chosen for fault in check_group(verb, o, groups)]
    _raise(faults)
    _model_or_experiment(chosen, roots)
    with _hydra(verb, roots) as composed:
        cfg = composed(_lines(chosen))
        # what is said of the cohort first: it decides which presets of scans there are to say something of
        early = [o for o in values if not o.key_or_group.startswith("scan_presets.")]
        of_cohort = [o for o in early if o.key_or_group.startswith("cohort.")]
        _raise([fault for o in early for fault in check_key(verb, o, cfg, sorted(groups), roots)])
        _apply(of_cohort, cfg)
        presets = scan_presets.named(cfg, groups.get("scans", ()))
        scan_presets.refuse_unused(cfg, chosen, presets)
        base = _lines(chosen) + scan_presets.lines(presets)
        if presets:
            cfg = composed(base)
            _apply(of_cohort, cfg)
        late = [o for o in values if o not in early]
        _raise([fault for o in late for fault in check_key(verb, o, cfg, sorted(groups), roots)])
        if values:
            cfg = composed(base)
            _apply([*map(OverridesParser.create().parse_override, scan_presets.spread(values, presets)), *values], cfg)
            _drop_left_behind(cfg, values)
    for name, override in plains.items():
        OmegaConf.update(cfg, name, _names(verb, override, cfg), force_add=True)
    for override in written:
        OmegaConf.update(cfg, "space", override.value(), merge=False, force_add=True)
    _raise([fault for name in PLAIN for fault in _declared(cfg, name)])
    plain(cfg)  # interpolations that lead nowhere are told now, not in the middle of a run
    return cfg


# ---------------------------------------------------------------------------------------------------------------------


def group_options(roots: Sequence[Path]) -> dict[str, list[str]]:
    """Group -> its options, over all configuration folders."""
    groups: dict[str, set[str]] = {}
    for root in roots:
        for file in root.rglob("*.yaml"):
            group = file.parent.relative_to(root).as_posix()
            if group != ".":
                groups.setdefault(group, set()).add(file.stem)
    return {group: sorted(options) for group, options in groups.items()}


def is_group(override: Override, groups: dict[str, list[str]]) -> bool:
    """Whether the override picks an option of a group (and is no value below it)."""
    return override.key_or_group.lstrip("/") in groups


def _is_plain(override: Override) -> bool:
    """Whether it picks among the cohort's tasks or modalities; `tasks@parts.tasks.binary=...` picks a head."""
    return override.key_or_group in PLAIN and override.package is None


def _lines(overrides: Sequence[Override]) -> list[str]:
    return [str(o.input_line) for o in overrides]


def _names(verb: str, override: Override, cfg: DictConfig) -> list[str] | None:
    """The list behind `tasks=` or `modalities=`; `null` or `all` mean every one that the cohort declares."""
    if override.is_delete() or override.is_add():
        raise UsageFault(f"{override.input_line!r}: write {override.key_or_group}=[name,name]")
    value = override.value()
    if override.is_sweep_override():
        raise UsageFault(
            f"{override.input_line!r} names several values: write {override.key_or_group}=[a,b], or --sweep"
        )
    if value is None or value == "all":
        return None
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _declared(cfg: DictConfig, name: str) -> Iterator[str]:
    """Faults of the picked tasks or modalities that the cohort does not declare."""
    picked, declared = cfg.get(name), OmegaConf.select(cfg, f"cohort.{name}")
    if not isinstance(picked, ListConfig) or not isinstance(declared, DictConfig):
        return
    known = [str(key) for key in declared]
    for item in picked:
        if item not in known:
            near = nearest(item, known) or f"; it declares {', '.join(known)}"
            yield f"{name}: the cohort declares no {item!r}{near}"


def _model_or_experiment(chosen: Sequence[Override], roots: Sequence[Path]) -> None:
    """Refuses `model=` beside an experiment that sets the model itself: one of the two would lose in silence."""
    picked = {o.key_or_group.lstrip("/"): o.value() for o in chosen if not o.is_delete()}
    if "model" not in picked or not picked.get("experiment"):
        return
    names = picked["experiment"] if isinstance(picked["experiment"], list) else [picked["experiment"]]
    for name in names:
        if taken := _model_of(str(name), roots):
            raise UsageFault(
                f"model={picked['model']} and experiment={name} both set the model (the experiment takes {taken}): "
                "give one of the two"
            )


def _model_of(experiment: str, roots: Sequence[Path]) -> str | None:
    """The model that an experiment sets, itself or by the experiment that it begins with."""
    places = [root / "experiment" / f"{experiment}.yaml" for root in roots]
    file = next((place for place in places if place.is_file()), None)
    for entry in (yaml.safe_load(file.read_text()) or {}).get("defaults", []) if file else []:
        if isinstance(entry, str) and entry != "_self_" and (taken := _model_of(entry, roots)):
            return taken
        if isinstance(entry, dict) and any(re.fullmatch(r"(override\s+)?/?model", str(k).strip()) for k in entry):
            return str(next(iter(entry.values())))
    return None


def _drop_left_behind(cfg: DictConfig, values: Sequence[Override]) -> None:
    """Takes away what a file says to a head that the command line exchanges for another, which has no such word."""
    said = {o.key_or_group for o in values}
    for override in values:
        key, _, word = override.key_or_group.rpartition(".")
        if word != "_target_" or not key.startswith("parts.tasks.") or override.is_delete():
            continue
        try:
            target = permitted(str(override.value()))
        except UsageFault:  # told, with the nearest name, by the check of the configuration
            continue
        for above, called in ((key, target), (f"{key}.fit", getattr(target, "fit", None))):
            node = OmegaConf.select(cfg, above)
            known = {"_target_", "fit", "after", *(inspect.signature(called).parameters if called else ())}
            for name in list(node) if isinstance(node, DictConfig) else ():
                if name not in known and f"{above}.{name}" not in said:
                    with open_dict(node):
                        del node[name]


@contextmanager
def _hydra(verb: str, roots: Sequence[Path]) -> Iterator[Any]:
    extra = [f"hydra.searchpath=[{','.join(quoted('file://' + str(root)) for root in roots[1:])}]"] if roots[1:] else []

    # studies and sweeps compose the same groups again and again; files that were edited in between are read anew
    files = tuple(sorted((str(f), f.stat().st_mtime_ns, f.stat().st_size) for r in roots for f in r.rglob("*.yaml")))

    def composed(lines: list[str]) -> DictConfig:
        key = (verb, files, *extra, *lines)
        if key not in _COMPOSED:
            while len(_COMPOSED) >= KEPT:
                _COMPOSED.pop(next(iter(_COMPOSED)))
            with _told():
                _COMPOSED[key] = hydra_compose(config_name=verb, overrides=extra + lines)
            OmegaConf.set_struct(_COMPOSED[key], True)
        return copy.deepcopy(_COMPOSED[key])

    with initialize_config_dir(config_dir=str(roots[0].resolve()), version_base="1.3"):
        register()
        yield composed


@contextmanager
def _told() -> Iterator[None]:
    """What Hydra has to say, in one sentence of ours."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as wrong:
        raise UsageFault(f"configuration: {first_line(wrong)}") from None
    except yaml.YAMLError as wrong:
        raise UsageFault(f"configuration is no valid YAML: {' '.join(str(wrong).split())}") from None


def _apply(values: Sequence[Override], cfg: DictConfig) -> None:
    """Sets single values as Hydra does once it has composed the groups, without composing them again."""
    with _told():
        ConfigLoaderImpl._apply_overrides_to_config(list(values), cfg)


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise UsageFault(f"--conf {folder}: no such folder")
    return folder.resolve()


def _raise(faults: Sequence[str]) -> None:
    if faults:
        raise UsageFault("\n".join(dict.fromkeys(faults)))
