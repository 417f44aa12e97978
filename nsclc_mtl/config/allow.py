"""Objects made from configuration, but only those that an allow-list in code permits.

A configuration file may come from a stranger. The list is judged on the object that a name leads to (its `__module__`
and `__qualname__`), never on the spelling: `torch.optim.optimizer.torch.load` begins like an optimizer and is none.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nsclc_mtl.records import UsageFault

# Importing a module runs it, so only these packages are imported for a name in a configuration. A user's own package
# joins them through the environment (MTL_PLUGINS=my_models), never through the configuration itself.
PACKAGES = ("nsclc_mtl", "torch", "pytorch_lightning", "torchmetrics", "monai", "timm")

# Our own rooms whose public classes may be named, and those whose functions may be too: other functions write files.
ROOMS = (
    "encoders", "fusion", "tasks", "bags", "features.backbones", "features.deep", "features.slide_encoders", "slides",
    "scans", "training", "learner", "trust", "explain", "baselines",
)  # fmt: skip
FUNCTIONS = ("encoders", "fusion", "tasks", "features.backbones", "features.deep")

# Outside our rooms only subclasses of these.
BASES = {
    "torch": ("torch.nn:Module", "torch.optim:Optimizer", "torch.optim.lr_scheduler:LRScheduler"),
    "pytorch_lightning": (
        "pytorch_lightning.callbacks:Callback",
        "pytorch_lightning.loggers:Logger",
        "pytorch_lightning:Trainer",
    ),
    "torchmetrics": ("torchmetrics:Metric",),
}

# Model makers: functions of other packages that return a Module and touch nothing else.
MAKERS = {"monai.networks.nets.resnet": tuple(f"resnet{n}" for n in (10, 18, 34, 50, 101, 152, 200))}

# Modules below these run code from elsewhere when they are made (downloads, remote workers, compiled graphs).
REFUSED = (
    "torch.distributed", "torch.fx", "torch.jit", "torch.package", "torch.hub", "torch.export", "torch._",
    "monai.losses.perceptual", "monai.bundle", "monai.apps", "monai.networks.nets.transchex",
)  # fmt: skip


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?`, or nothing where no name is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def permitted(target: str) -> Any:
    """The class or function behind a dotted name; UsageFault where the allow-list does not hold it."""
    found = _resolve(target)
    where = f"{getattr(found, '__module__', '?')}.{getattr(found, '__qualname__', '?')}"
    if _genuine(found) and (_ours(found) or _outside(found)):
        return found
    raise UsageFault(f"_target_ {target!r} leads to {where}, which configuration may not name")


def build(node: Any, **given: Any) -> Any:
    """The object that a node describes, its children first; `given` are handed to the outermost `_target_`.

    `_partial_: true` gives a function that still waits for arguments (optimizers wait for parameters). A mapping
    without `_target_` gives a dict of what its values describe.
    """
    from .resolved import plain  # the one import of OmegaConf here: plain dicts can be built without it

    return _build(plain(node), given)


def _build(node: Any, given: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_build(item, {}) for item in node]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        if given:
            raise UsageFault(
                f"a node without _target_ was handed {', '.join(given)}: it holds {', '.join(map(str, node))}"
            )
        return {key: _build(value, {}) for key, value in node.items()}
    target = permitted(node["_target_"])
    arguments = {key: _build(value, {}) for key, value in node.items() if key not in ("_target_", "_partial_")}
    strange = [key for key in arguments if str(key).startswith("_")]
    if strange:
        raise UsageFault(f"{node['_target_']}: {', '.join(strange)} is not understood; only _target_ and _partial_ are")
    arguments |= given
    if node.get("_partial_"):
        return functools.partial(target, **arguments)
    _bind(node["_target_"], target, arguments)
    return target(**arguments)


def check(cfg: Any) -> list[str]:
    """Every fault of the configuration at once: values still missing, targets not permitted, arguments not known.

    Arguments that the code hands over later (a width that the data decides) are not asked for here.
    """
    from .resolved import plain

    return list(_faults(plain(cfg), ""))


def _faults(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, str) and node == "???":
        yield f"{key} has no value: give {key}=..."
    elif isinstance(node, list):
        for place, item in enumerate(node):
            yield from _faults(item, f"{key}.{place}")
    elif isinstance(node, dict):
        if "_target_" in node:
            yield from _unbound(node, key)
        for name, value in node.items():
            yield from _faults(value, f"{key}.{name}" if key else str(name))


def _unbound(node: Mapping[str, Any], key: str) -> Iterator[str]:
    try:
        target = permitted(node["_target_"])
    except UsageFault as fault:
        yield f"{key}: {fault}"
        return
    arguments = {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}
    if isinstance(arguments.get("fit"), Mapping) and hasattr(target, "fit"):  # what a task fits, options of its `fit`
        yield from _misfits(arguments.pop("fit"), target.fit, f"{key}.fit", f"{node['_target_']}.fit")
    yield from _misfits(arguments, target, key, node["_target_"])


def _misfits(arguments: Mapping[str, Any], target: Any, key: str, called: str) -> Iterator[str]:
    """Faults of arguments that the signature does not have, or whose text can be no number."""
    parameters = inspect.signature(target).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(target)
    for name, value in arguments.items():
        if name not in parameters and not anything:
            yield f"{key}.{name}: {called} has no argument {name!r}{nearest(name, parameters)}"
        elif isinstance(value, str) and value != "???" and _numbers_only(hints.get(name)):
            yield f"{key}.{name}: a number is needed, not {value!r}"


def _hints(target: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # annotations of other packages may name what is not installed; then nothing is known
        return {}


def _numbers_only(hint: Any) -> bool:
    """Whether a text can never be right: int, float, bool, or a union of these with None or a tensor."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    numbers = [kind for kind in kinds if kind in (int, float, bool)]
    others = {getattr(kind, "__name__", "") for kind in kinds if kind not in (int, float, bool)}
    return bool(numbers) and others <= {"NoneType", "Tensor"}


def _bind(name: str, target: Any, arguments: Mapping[str, Any]) -> None:
    try:
        inspect.signature(target).bind(**arguments)
    except TypeError as wrong:
        raise UsageFault(f"{name}: {wrong}") from None


def _packages() -> tuple[str, ...]:
    return PACKAGES + tuple(filter(None, os.environ.get("MTL_PLUGINS", "").replace(" ", "").split(",")))


def _resolve(target: Any) -> Any:
    words = target.split(".") if isinstance(target, str) else []
    if len(words) < 2 or not all(word.isidentifier() for word in words):
        raise UsageFault(f"_target_ {target!r} is no dotted name of a class or function")
    if words[0] not in _packages():
        raise UsageFault(f"_target_ {target!r}: configuration may only name {', '.join(_packages())}")
    found: Any = importlib.import_module(words[0])
    for depth, word in enumerate(words[1:], start=2):
        if not hasattr(found, word) and inspect.ismodule(found):
            name = ".".join(words[:depth])
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as missing:
                if missing.name and not name.startswith(missing.name):
                    raise UsageFault(
                        f"_target_ {target!r} needs the package {missing.name!r}, which is not installed"
                    ) from None
                raise UsageFault(f"_target_ {target!r}: there is no {name}{_similar(word, found)}") from None
        if not hasattr(found, word):
            raise UsageFault(f"_target_ {target!r}: there is no {'.'.join(words[:depth])}{_similar(word, found)}")
        found = getattr(found, word)
    return found


def _similar(word: str, found: Any) -> str:
    return nearest(word, [name for name in dir(found) if not name.startswith("_")])


def _genuine(found: Any) -> bool:
    """A class or plain function, at the top of the module that it says it is from."""
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return False
    name = found.__qualname__
    home = sys.modules.get(found.__module__)
    return name.isidentifier() and not name.startswith("_") and getattr(home, name, None) is found


def _below(module: str, *parents: str) -> bool:
    return any(module == parent or module.startswith(parent + ".") for parent in parents)


def _ours(found: Any) -> bool:
    rooms = ROOMS if inspect.isclass(found) else FUNCTIONS
    return _below(found.__module__, *(f"nsclc_mtl.{room}" for room in rooms))


def _outside(found: Any) -> bool:
    module = found.__module__
    if module.startswith(REFUSED) or _below(module, "nsclc_mtl"):
        return False
    if found.__name__ in MAKERS.get(module, ()):
        return True
    return inspect.isclass(found) and issubclass(found, tuple(_bases()))


@functools.cache
def _bases() -> tuple[type, ...]:
    names = [name for package in BASES for name in BASES[package]]
    return tuple(getattr(importlib.import_module(module), word) for module, word in (n.split(":") for n in names))
