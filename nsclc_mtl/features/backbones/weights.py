"""Weights that somebody brings: a local file first, else a repository of the hub; verified, read without pickles."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nsclc_mtl.features.backbones import file_hash
from nsclc_mtl.features.backbones.hub import FILES, fetched
from nsclc_mtl.records import DataFault, IntegrityFault, UsageFault


def found(
    name: str, weights: str | None, hub: str | None = None, file: str | None = None, sha256: str | None = None,
    about: str = "",
) -> tuple[Path, str]:  # fmt: skip
    """Path of the weights and their digest `sha256:...`; `weights` wins over `hub`.

    `about` says what the hub asks for (licence, gate) where it does not hand the file out. Raises UsageFault where
    there are no weights, IntegrityFault where `sha256` is given and differs.
    """
    path = Path(weights) if weights else _from_hub(name, hub, (file,) if file else FILES, about)
    digest = file_hash(path)
    if sha256 and digest != sha256.lower().removeprefix("sha256:"):
        raise IntegrityFault(
            f"weights '{path.name}' have digest {digest[:12]}..., expected {sha256.removeprefix('sha256:')[:12]}...; "
            "copy them again"
        )
    return path, f"sha256:{digest}"


def state_of(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.safetensors` file, or in one of torch (weights only); wrappers `state_dict`, `model` and
    the prefix `module.` are taken off. Raises DataFault where it is none."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise DataFault(
            f"weights '{path.name}' are no plain state dict ({type(error).__name__}); nothing was loaded"
        ) from error
    except Exception as error:  # safetensors raises a type of its own
        raise DataFault(f"weights '{path.name}' cannot be read ({type(error).__name__}); copy them again") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataFault(f"weights '{path.name}' are no plain state dict; nothing was loaded")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def fill(net: nn.Module, state: Mapping[str, Tensor], what: str, file: str, unused: tuple[str, ...] = ()) -> None:
    """Put the state into the network; parameters below `unused` may be left over. Raises DataFault where it misfits."""
    state = {key: value for key, value in state.items() if not key.startswith(unused)} if unused else dict(state)
    try:
        missing, strange = net.load_state_dict(state, strict=False)
    except RuntimeError as error:  # other shapes
        wrong = next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), "other shapes")
        raise DataFault(f"weights '{file}' do not fit {what}: {wrong}") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or strange:
        example = (missing + strange)[0]
        raise DataFault(
            f"weights '{file}' do not fit {what}: {len(missing)} parameters missing, {len(strange)} unknown "
            f"(for example '{example}'); give a checkpoint with the usual names"
        )


def _from_hub(name: str, hub: str | None, files: tuple[str, ...], about: str) -> Path:
    if not hub:
        raise UsageFault(
            f"backbone={name} needs weights: set backbone.weights=PATH to a local file, or take backbone=texture, "
            f"which needs none{f' ({about})' if about else ''}"
        )
    return fetched(hub, files, about)
