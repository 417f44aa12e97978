"""Which numbers of a model travel, and how they come out of a learner and back into it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nsclc_mtl.encoders.volumetric import GroupRMSNorm
from nsclc_mtl.federated.update import State
from nsclc_mtl.records import IntegrityFault

NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    GroupRMSNorm,
)
RUNNING = ("running_mean", "running_var")


def learned(model: nn.Module, normalisation: str = "shared") -> dict[str, Tensor]:
    """What training changes, by name: parameters, and the running moments of batch norm.

    With `normalisation=site` without those of norm layers, which then stay at the site (FedBN). Everything else of a
    model, such as the scales that its encoders were built with, follows from what was fitted.
    """
    out: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if normalisation == "site" and isinstance(module, NORMS):
            continue
        own: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
        own |= {name: value for name, value in module.named_buffers(recurse=False) if name in RUNNING}
        out |= {f"{path}.{name}" if path else name: value for name, value in own.items()}
    return dict(sorted(out.items()))


def taken(model: nn.Module, normalisation: str = "shared") -> dict[str, np.ndarray]:
    """A copy of the numbers that travel, as arrays."""
    return {name: value.detach().cpu().numpy().copy() for name, value in learned(model, normalisation).items()}


def put(model: nn.Module, state: State, normalisation: str = "shared") -> None:
    """Writes the numbers that travelled into the model. Raises IntegrityFault where names or shapes are others."""
    own = learned(model, normalisation)
    if own.keys() != state.keys():
        strange = sorted(own.keys() ^ state.keys())
        raise IntegrityFault(
            f"the model that came has other parts than this one ({len(strange)} names, such as '{strange[0]}'): server "
            "and site must run the same version and configuration"
        )
    with torch.no_grad():
        for name, value in own.items():
            if tuple(value.shape) != state[name].shape:
                raise IntegrityFault(
                    f"'{name}' of the model that came has the shape {list(state[name].shape)}, here "
                    f"{list(value.shape)}: server and site must run the same version and configuration"
                )
            value.copy_(torch.from_numpy(np.array(state[name])))
