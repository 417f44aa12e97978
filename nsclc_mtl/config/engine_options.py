"""What the groups `engine` and `shard` may say to a verb, beside numbers: found wrong before anything is read."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .resolved import plain

# Engines that a verb knows; the group holds those of all verbs.
OF: dict[str, tuple[str, ...]] = {
    "tile": ("local", "shard", "ray"),
    "extract": ("local", "shard", "ray"),
    "train": ("local", "submitit"),
}


def faults(verb: str, cfg: Any) -> list[str]:
    """What is wrong with engine and shard, a sentence each; none where all hold. Numbers: see `values`."""
    settings = plain(cfg)
    options = settings.get("engine")
    if verb not in OF or not isinstance(options, Mapping):
        return []
    name = options.get("name")
    if name not in OF[verb]:
        return [f"engine={name} is not for `mtl {verb}`, which knows {', '.join(OF[verb])}"]
    found = list(_shard(name, settings.get("shard") or {}))
    return [*found, *_ray(options, settings)] if name == "ray" else found


def _shard(name: str, shard: Mapping[str, Any]) -> Iterator[str]:
    index, count = shard.get("index"), shard.get("count", 1)
    if name != "shard":
        if index is not None or count != 1:
            yield f"shard.index={index}, shard.count={count} do nothing with engine={name}: add engine=shard"
    elif index is None:
        yield "engine=shard needs shard.index=0 (to shard.count - 1); in a SLURM array $SLURM_ARRAY_TASK_ID"
    elif isinstance(index, int) and isinstance(count, int) and index >= count >= 1:
        yield f"shard.index={index} is none of shard.count={count} shares, which are counted from 0"


def _ray(options: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    address, interface = options.get("address"), options.get("interface")
    if address not in (None, "auto") and not re.fullmatch(r"[\w.\-]+:\d+|\[[0-9a-fA-F:]+\]:\d+", str(address)):
        yield f"engine.address: null, auto or HOST:PORT is needed, not {address!r}"
    try:
        ipaddress.ip_address(str(interface))
    except ValueError:
        yield f"engine.interface: an IP address such as 127.0.0.1 is needed, not {interface!r}"
    for word in ("cpus", "gpus"):  # Ray divides one, and counts from there on
        value = options.get(word)
        if isinstance(value, float) and value > 1 and not value.is_integer():
            yield f"engine.{word}: a part of one or a whole number is needed, not {value!r}"
    if settings.get("device") == "cuda" and options.get("gpus") == 0:
        yield "device=cuda with engine.gpus=0: workers would see no GPU; set engine.gpus=1"
