"""Whether a key, a group or an option exists, and the nearest one that does."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf

from nsclc_mtl.records import Fault

from .allow import nearest, permitted

# Nodes whose keys are the user's own words: the cohort names its tasks, modalities and columns.
FREE = ("cohort.tasks", "cohort.modalities")


def check_group(verb: str, override: Override, groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Faults of `group=option`: an option that does not exist."""
    group = override.key_or_group.lstrip("/")
    if override.is_sweep_override():
        yield f"{override.input_line!r} names several values: add --sweep"
        return
    if override.is_delete() and override.value() is None:
        return
    value = override.value()
    if isinstance(value, dict):
        yield f"{override.input_line!r}: {group} is a group, pick one of {', '.join(groups[group])}"
        return
    if value is None:
        yield f"{override.input_line!r}: leave the word out, or pick one of {', '.join(groups[group])}"
        return
    for option in value if isinstance(value, list) else [value]:
        if str(option) not in groups[group]:
            near = nearest(str(option), groups[group]) or f"; there are {', '.join(groups[group])}"
            yield f"{group} has no option {str(option)!r}{near}"


def check_key(
    verb: str, override: Override, cfg: DictConfig, groups: Sequence[str], roots: Sequence[Path]
) -> Iterator[str]:
    """Faults of `key=value`, `+key=value` and `~key`: a key that `mtl VERB` does not have.

    `roots` are the folders of the configuration; a file of each group there says where its options stand.
    """
    if override.is_sweep_override():
        yield f"{override.input_line!r} names several values: add --sweep"
        return
    value = None if override.is_delete() else override.value()
    known = _Names(verb, cfg, groups, roots)
    yield from _unknown(known, override.key_or_group, value, override.is_add() or override.is_force_add())


def _unknown(known: _Names, key: str, value: Any, adding: bool) -> Iterator[str]:
    words = key.split(".")
    node: Any = known.cfg
    for depth, word in enumerate(words):
        above = ".".join(words[:depth])
        if isinstance(node, DictConfig) and word in node.keys():  # noqa: SIM118 - `in` overlooks values that are ???
            node = node._get_node(word)
            if isinstance(node, DictConfig | ListConfig) and node._is_interpolation():
                node = OmegaConf.select(known.cfg, ".".join(words[: depth + 1]))
            continue
        if isinstance(node, ListConfig) and word.isdigit() and int(word) < len(node):
            node = node._get_node(int(word))
            continue
        if _is_free(above, node):
            if adding:
                return
            yield f"{key!r} is not there yet: write +{key}=... to add it"
            return
        # a plain typo is told at once; asking the target for its arguments imports torch
        typo = not adding and isinstance(node, DictConfig) and difflib.get_close_matches(word, map(str, node), 1, 0.9)
        if not typo and _takes(node, word):
            if adding and depth == len(words) - 1:
                return
            yield f"{key!r} is not set in the configuration, but {node.get('_target_')} takes it: write +{key}=..."
            return
        yield f"`mtl {known.verb}` has no key {key!r}{known.near(words, depth, node)}"
        return
    if isinstance(value, dict) and isinstance(node, DictConfig):
        for inner, below in value.items():
            yield from _unknown(known, f"{key}.{inner}", below, adding)


def _is_free(key: str, node: Any) -> bool:
    """A mapping of the user's own words: listed, below a listed one, or empty in the configuration."""
    listed = any(key == free or key.startswith(free + ".") for free in FREE)
    return listed or (isinstance(node, DictConfig) and bool(key) and not node._is_none() and len(node) == 0)


def _takes(node: Any, word: str) -> bool:
    """Whether the `_target_` of the node has a parameter of this name; a `**kwargs` takes any."""
    if not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str):
        return False
    try:
        parameters = inspect.signature(permitted(node["_target_"])).parameters
    except (Fault, TypeError, ValueError):
        return False
    return word in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


@dataclass(frozen=True)
class _Names:
    """What a verb has: its composed configuration, the groups and the folders of their files."""

    verb: str
    cfg: DictConfig
    groups: Sequence[str]
    roots: Sequence[Path]

    def near(self, words: Sequence[str], depth: int, node: Any) -> str:
        """The nearest valid name: among the siblings first, then the same leaf elsewhere, then anything.

        `node` lacks the word at this depth.
        """
        above, rest = ".".join(words[:depth]), words[depth + 1 :]
        siblings = [str(k) for k in node] if isinstance(node, DictConfig) else []
        places = {}
        if depth == 0 and rest:  # a group is no key: what its options hold stands where they are put
            places = {g: place for g in self.groups if g not in siblings and (place := self._place(g))}
        if depth == 0:
            siblings = sorted({*siblings, *(places if rest else self.groups)})
        everything = list(_keys(self.cfg))
        same = sorted((key for key in everything if key.rsplit(".", 1)[-1] == words[-1]), key=len)
        for likeness in (0.8, 0.6):
            close = difflib.get_close_matches(words[depth], siblings, n=1, cutoff=likeness)
            if close and close[0] in places:
                return self._below(places[close[0]], rest)
            if close:
                return f"; did you mean {'.'.join(filter(None, (above, close[0], *rest)))!r}?"
            if same:
                return f"; did you mean {same[0]!r}?"
        near = nearest(".".join(words), everything + siblings)
        if near:
            return near
        has = f"{above or f'`mtl {self.verb}`'} has"
        return f"; {has} {', '.join(siblings)}" if siblings else f"; {above} has no keys below it"

    def _below(self, place: str, rest: Sequence[str]) -> str:
        """What was said of a group as a key of the place where its options stand, or what is near it there."""
        node: Any = OmegaConf.select(self.cfg, place)
        keys = list(_keys(node, place))
        if (key := ".".join([place, *rest])) in keys:
            return f"; did you mean {key!r}?"
        if len(rest) == 1 and _takes(node, rest[0]):
            return f"; did you mean {'+' + key!r}?"
        same = [k for k in keys if k.rsplit(".", 1)[-1] == rest[-1]] or difflib.get_close_matches(key, keys, 1, 0.9)
        return f"; did you mean {same[0]!r}?" if same else f"; {place} has {', '.join(map(str, node))}"

    def _place(self, group: str) -> str | None:
        """Where the options of a group stand in the configuration of the verb; None where it has no such place."""
        files = (file for root in self.roots for file in sorted((root / group).glob("*.yaml")))
        heads = (re.match(r"#\s*@package\s+([\w.]+)", file.read_text("utf8")) for file in files)
        place = next((head[1] for head in heads if head), group.replace("/", "."))
        return place if isinstance(OmegaConf.select(self.cfg, place), DictConfig) else None


def _keys(node: DictConfig, above: str = "") -> Iterator[str]:
    for key in node:
        name = f"{above}.{key!s}" if above else str(key)
        yield name
        below = node._get_node(key)
        if isinstance(below, DictConfig) and not below._is_none() and not below._is_interpolation():
            yield from _keys(below, name)
