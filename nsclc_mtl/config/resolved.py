"""A composed configuration as plain types, as text and as a hash."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nsclc_mtl.records import UsageFault


def plain(cfg: Any) -> Any:
    """Plain dicts, lists and numbers with every interpolation resolved; `???` stays where a value is still missing."""
    if not isinstance(cfg, DictConfig | ListConfig):
        return cfg
    register()
    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as wrong:
        raise UsageFault(f"configuration: {first_line(wrong)}") from None


def to_yaml(cfg: DictConfig) -> str:
    """The resolved configuration as text, in the order of the files."""
    return yaml.safe_dump(plain(cfg), sort_keys=False, allow_unicode=True, width=120)


def config_hash(cfg: Any, without: Sequence[str] = ("name",)) -> str:
    """SHA-256 of the resolved configuration without the keys named and those below them; the name is no part of it."""
    content = {key: value for key, value in flat(plain(cfg)).items() if not among(key, without)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def flat(content: Any, above: str = "") -> dict[str, Any]:
    """`{dotted.key: value}` of nested mappings; lists and empty mappings are values."""
    out: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{above}{key}"
        out |= flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return out


def among(key: str, words: Sequence[str]) -> bool:
    """Whether a dotted key is one of the words or lies below one.

    >>> among("engine.cluster", ["engine"]), among("folds.n", ["fold"])
    (True, False)
    """
    return any(key == word or key.startswith(f"{word}.") for word in words)


def register() -> None:
    """Lets `${oc.env:X}` see only MTL_* and removes `${now:}`: a stranger's YAML learns nothing of this machine."""
    OmegaConf.register_new_resolver("oc.env", _environment, replace=True)
    if OmegaConf.has_resolver("now"):
        OmegaConf.clear_resolver("now")


def _environment(name: str, *default: Any) -> Any:
    if not name.startswith("MTL_"):
        raise UsageFault(f"${{oc.env:{name}}} does not resolve: configurations may read only variables named MTL_*")
    if name in os.environ:
        return os.environ[name]
    if default:
        return default[0]
    raise UsageFault(f"the environment variable {name} is not set, and the configuration names no default for it")


def first_line(wrong: BaseException) -> str:
    """The one sentence of an error of OmegaConf or Hydra, with the key that it speaks of."""
    if isinstance(wrong.__cause__, UsageFault):
        wrong = wrong.__cause__
    lines = [line.strip() for line in str(wrong).splitlines() if line.strip()]
    text = re.sub(r"^\w+ raised while resolving interpolation: ", "", lines[0]) if lines else type(wrong).__name__
    key = getattr(wrong, "full_key", None)
    return f"{text} (at {key})" if key and str(key) not in text else text
