"""What `mtl tune` may change: keys of overrides with their ranges or choices, and whether they hold for this run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import UsageFault

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

OURS = ("trials", "startup", "inner", "objective", "space")  # words that `mtl tune` has beside those of `mtl train`
# Who is learned from, from what, and who judges: settings that differ in these have no comparable scores.
FIXED = (
    "cohort", "tasks", "modalities", "folds", "fold", "seed", "name", "paths", "device", "engine", "audit", "shapley",
    "trust", "checkpoint_s", "bag_cache_mb", "logger", "slides", "segmenter", "backbone", "stain", "slide_encoder",
    "scans", "scan_presets", "deep", "experiment", "debug", "local", *OURS,
)  # fmt: skip
Value = float | int | str | bool | None


@dataclass(frozen=True)
class Parameter:
    """One key of an override, with the numbers from `low` to `high`, or the `choices`, that it may take."""

    key: str
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False
    choices: tuple[Value, ...] = ()

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values that stand for all of them in a check: every choice, or both ends."""
        return self.choices or (self.low, self.high)

    def distribution(self) -> BaseDistribution:
        """The same in Optuna's words."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)


def parameters(space: Mapping[str, Any]) -> list[Parameter]:
    """The parameters of a space `{key: {low, high, log, step} | {choices}}`. Raises UsageFault with all faults."""
    if not space:
        raise UsageFault(
            "space is empty: name one (space=learning), or write it out: 'space={optim.dim: {low: 4, high: 16}}'"
        )
    made: list[Parameter] = []
    faults: list[str] = []
    for key, said in space.items():
        found = _parameter(str(key), said)
        made += [found] if isinstance(found, Parameter) else []
        faults += [found] if isinstance(found, str) else []
    if faults:
        raise UsageFault("\n".join(faults))
    return made


def _parameter(key: str, said: Any) -> Parameter | str:
    """The parameter, or what is wrong with it."""
    from nsclc_mtl.config.allow import nearest

    root = key.lstrip("+/").split("@")[0].split(".")[0]
    if root in FIXED:
        return f"space: {key} says who is judged on what, and cannot be tuned; give it once, for all trials"
    known = ("low", "high", "log", "step", "choices")
    if not isinstance(said, Mapping) or not said:
        return f"space: {key} needs {{low: .., high: ..}} or {{choices: [..]}}, not {said!r}"
    if strange := [word for word in said if word not in known]:
        return f"space: {key} has no word {strange[0]!r}{nearest(str(strange[0]), known)}"
    if "choices" in said:
        choices = said["choices"]
        if len(said) > 1 or not isinstance(choices, list) or not choices:
            return f"space: {key}: choices are a list of values, and stand alone"
        if any(isinstance(choice, list | dict) for choice in choices):
            return f"space: {key}: each choice is one number, word, true, false or null"
        return Parameter(key, choices=tuple(choices))
    low: Any = said.get("low")
    high: Any = said.get("high")
    step, log = said.get("step"), said.get("log", False)
    numbers = [low, high] + ([] if step is None else [step])
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        return f"space: {key} needs numbers for low and high (and step)"
    if not isinstance(log, bool):
        return f"space: {key}.log is true or false, not {log!r}"
    if low >= high:
        return f"space: {key}: low={low} is not below high={high}"
    if log and (low <= 0 or step is not None):
        return f"space: {key}: a logarithmic range begins above 0 and has no step"
    if step is not None and step <= 0:
        return f"space: {key}: step={step} is not above 0"
    whole = all(isinstance(n, int) for n in numbers)
    return Parameter(key, low, high, step, log, whole)


def words(params: Mapping[str, Value]) -> list[str]:
    """A setting as overrides: `optim.dim=8`."""
    return [f"{key}={_text(value)}" for key, value in params.items()]


def _text(value: Value) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)


def given(overrides: Sequence[str], space: Sequence[Parameter]) -> list[str]:
    """What is left for `mtl train` of the words of `mtl tune`: without its own, and without what the space sets."""
    from nsclc_mtl.config.overrides import parse

    apart = {*OURS, *(parameter.key.lstrip("+/") for parameter in space)}
    return [word for word in overrides if parse("train", [word])[0].key_or_group.lstrip("/") not in apart]


def settings(overrides: Sequence[str], conf_dirs: Sequence[Path]) -> dict[str, Any]:
    """The settings of `mtl train` with these words, plain. Raises UsageFault with every fault of them."""
    from nsclc_mtl.config import check, plain, values
    from nsclc_mtl.config.wiring import compose

    cfg = compose("train", overrides, conf_dirs)
    if faults := [*check(cfg), *values.faults(cfg)]:
        raise UsageFault("\n".join(dict.fromkeys(faults)))
    made: dict[str, Any] = plain(cfg)
    return made


def sound(overrides: Sequence[str], space: Sequence[Parameter], conf_dirs: Sequence[Path]) -> None:
    """Raises UsageFault where a setting at the ends of the space would be refused, before anything is trained.

    Each value that a parameter begins or ends with is composed with the others at their beginning, for every
    combination of the choices that exchange a part (groups such as `fusion`).
    """
    from nsclc_mtl.config.wiring import conf_root, group_options

    groups = group_options([conf_root(), *map(Path, conf_dirs)])
    parts = [p for p in space if p.key.lstrip("/").split("@")[0] in groups]
    rest = [p for p in space if p not in parts]
    faults: list[str] = []
    for setting in _probes(parts, rest):
        try:
            settings([*overrides, *words(setting)], conf_dirs)
        except UsageFault as fault:
            faults += [line if line.startswith("space") else f"space: {line}" for line in str(fault).splitlines()]
    if faults:
        raise UsageFault("\n".join(dict.fromkeys(faults)))


def _probes(parts: Sequence[Parameter], rest: Sequence[Parameter]) -> Iterator[dict[str, Value]]:
    first = {p.key: p.extremes[0] for p in rest}
    for chosen in itertools.product(*(p.extremes for p in parts)):
        exchanged = {p.key: value for p, value in zip(parts, chosen, strict=True)}
        yield {**exchanged, **first}
        yield {**exchanged, **{p.key: p.extremes[-1] for p in rest}}
    exchanged = {p.key: p.extremes[0] for p in parts}
    for parameter in rest:  # what stands between the first and the last choice
        for value in parameter.extremes[1:-1]:
            yield {**exchanged, **first, parameter.key: value}
