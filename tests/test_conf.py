"""Every shipped configuration composes, resolves and fits what it names."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from nsclc_mtl.config import check, compose, permitted
from nsclc_mtl.config.wiring import conf_root, group_options

ROOT = conf_root()
VERBS = sorted(file.stem for file in ROOT.glob("*.yaml"))
GROUPS = {group: options for group, options in group_options([ROOT]).items() if not group.startswith("local")}
# Groups that are loaded as a whole, kind by kind, into `parts`: options are reached through the defaults of the verb.
PARTS = ("tasks", "modalities")


def accepts(verb: str) -> set[str]:
    """Groups in the defaults list of a verb."""
    defaults = yaml.safe_load((ROOT / f"{verb}.yaml").read_text()).get("defaults", [])
    keys = [str(key) for entry in defaults if isinstance(entry, dict) for key in entry]
    return {key.removeprefix("optional ").split("@")[0].strip("/ ") for key in keys}


ALONE = ("cohort", "debug", "experiment", "model")  # these change what other groups choose
CHOICES = [
    pytest.param(
        verb,
        group,
        option,
        id=f"{verb}-{group}-{option}",
        marks=() if group in ALONE and verb == "train" else pytest.mark.slow,
    )
    for verb in VERBS
    for group in sorted((accepts(verb) & set(GROUPS)) - set(PARTS))
    for option in GROUPS[group]
]
# The first option of every group together, then the second ones, and so on.
TOGETHER = {
    f"{verb}-{k}": (verb, [f"{group}={GROUPS[group][k]}" for group in groups if k < len(GROUPS[group])])
    for verb in VERBS
    for groups in [sorted((accepts(verb) & set(GROUPS)) - set(PARTS) - set(ALONE))]
    for k in range(max((len(GROUPS[group]) for group in groups), default=0))
}


@pytest.mark.parametrize(("verb", "options"), TOGETHER.values(), ids=TOGETHER)
def test_options_of_all_groups_compose_and_fit_their_targets(verb: str, options: list[str]) -> None:
    faults = check(compose(verb, options))
    assert not [fault for fault in faults if "has no value" not in fault]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_composes(verb: str) -> None:
    cfg = compose(verb, [])
    faults = [fault for fault in check(cfg) if "has no value" not in fault]
    assert not faults
    if verb != "federate_keys":  # which makes keys, and nothing else
        assert cfg.paths.runs == "runs"
    if verb not in ("serve", "federate_keys"):  # which compute nothing and make no run folder
        assert "seed" in cfg
        assert "name" in cfg


@pytest.mark.parametrize(("verb", "group", "option"), CHOICES)
def test_every_option_composes_and_fits_its_target(verb: str, group: str, option: str) -> None:
    faults = check(compose(verb, [f"{group}={option}"]))
    assert not [fault for fault in faults if "has no value" not in fault]


def test_no_group_is_out_of_reach() -> None:
    reached = set().union(*(accepts(verb) for verb in VERBS))
    assert not set(GROUPS) - reached


ENCODERS = [(group, option) for group in sorted(GROUPS) if group.endswith("encoder") for option in GROUPS[group]]
MEASURED = {"in_dim", "dim", "scale", "classes", "columns", "within"}  # what the data and the run say


@pytest.mark.parametrize(("group", "option"), [pick for pick in ENCODERS if pick[0] != "slide_encoder"])
def test_an_encoder_lists_all_of_its_options(group: str, option: str) -> None:
    """So that each can be changed without a `+`."""
    listed = yaml.safe_load((ROOT / group / f"{option}.yaml").read_text())
    assert set(inspect.signature(permitted(listed["_target_"])).parameters) - MEASURED == set(listed) - {"_target_"}


HEADS = ("ordinal", "survival")  # groups of many heads for one kind of task


@pytest.mark.parametrize("group", PARTS)
def test_every_kind_is_loaded_by_train(group: str) -> None:
    own = set(HEADS) if group == "tasks" else set()
    assert own | set(GROUPS[group]) == set(compose("train", []).parts[group])


@pytest.mark.parametrize(("kind", "head"), [(kind, head) for kind in HEADS for head in GROUPS[kind]])
def test_a_head_leaves_nothing_of_another_behind(kind: str, head: str) -> None:
    made = compose("train", [f"{kind}={head}"]).parts.tasks[kind]
    assert OmegaConf.to_container(made) == yaml.safe_load((ROOT / kind / f"{head}.yaml").read_text())
    target = permitted(made["_target_"])
    assert set(made.get("fit") or {}) <= set(inspect.signature(target.fit).parameters)


def test_another_head_takes_over_no_options_of_the_one_before() -> None:
    made = compose("train", ["parts.tasks.survival._target_=nsclc_mtl.tasks.cox.Cox", "cox.mode=exact"])
    assert check(made) == []
    assert not made.parts.tasks.survival.fit
    assert compose("train", []).parts.tasks.survival.fit
    said = ["parts.tasks.survival._target_=nsclc_mtl.tasks.cox.Cox", "parts.tasks.survival.fit.bins=3"]
    assert "has no argument 'bins'" in check(compose("train", said))[0]  # what was said by hand is told, not dropped
    assert "did you mean 'Cox'?" in check(compose("train", [f"{said[0]}x"]))[0]


BY_GROUP = ("bag", "spots", "clinical", "omics", "series", "volume")  # kinds whose encoder is a group of its own


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in PARTS for o in GROUPS[g]])
def test_every_option_of_a_kind_stands_alone(group: str, option: str) -> None:
    """Picked by its place, it leaves nothing of the default behind."""
    cfg = compose("train", [f"{group}@parts.{group}.{option}={option}"])
    assert not [fault for fault in check(cfg) if "has no value" not in fault]
    alone = yaml.safe_load((ROOT / group / f"{option}.yaml").read_text())
    named = {"encoder"} if option in BY_GROUP else set()
    assert set(cfg.parts[group][option]) == set(alone) | named
    assert all(cfg.parts[group][option][key] == value for key, value in alone.items())


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.yaml")), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_file_says_what_it_is(file: Path) -> None:
    """Science stands in YAML with its units and sources beside it."""
    lines = [line for line in file.read_text().splitlines() if line.strip()]
    assert any("#" in line and "@package" not in line for line in lines)
    assert all(len(line) <= 160 for line in lines)
