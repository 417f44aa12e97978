"""What moved a prediction: tiles of a slide, voxels of a scan; all else of the patient as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nsclc_mtl.encoders.tiles import TileScale
from nsclc_mtl.records import Batch, Embedding


def tiles(learner: Any, batch: Batch, modality: str) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """Attention [tile] of one patient's bag, and per task the influence of every tile, [tile], never negative.

    Attention is a pooling weight: where the model looked; where the fusion reads the tiles too (co-attention), the mean
    of the encoder's and the fusion's. Influence is attention times the length of d score / d tile
    (taken at the scaled tile features): how far a small change of the tile would move the task's score. An encoder
    without attention has None, and its influence is the length of the gradient alone.
    """
    bag = batch.inputs[modality]
    with torch.enable_grad():
        features = bag.features.detach().to(torch.float32, copy=True).requires_grad_(True)  # half rounds off gradients
        seen = learner.embed(replace(batch, inputs={**batch.inputs, modality: replace(bag, features=features)}))
        out, _ = learner.decide(seen, batch.present)
        influence = {}
        scale = next((part.sd for part in learner.encoders[modality].modules() if isinstance(part, TileScale)), 1.0)
        for name, task in learner.tasks.items():
            (gradient,) = torch.autograd.grad(task.score(out[name]).sum(), features, retain_graph=True)
            influence[name] = (gradient * scale).norm(dim=1)
    attention = seen[modality].attention
    if attention is None:
        return None, {name: g.cpu().numpy() for name, g in influence.items()}
    weight = attention.detach()
    with torch.no_grad():
        read = learner.fusion.tile_weights(seen, batch.present)
    if modality in read:
        weight = (weight + read[modality]) / 2
    return weight.cpu().numpy(), {name: (weight * g).cpu().numpy() for name, g in influence.items()}


def score_of(learner: Any, batch: Batch, modality: str, task: str) -> Callable[[Embedding], Tensor]:
    """The task's score as a function of one modality's embedding, everything else of the patient as it is."""
    with torch.no_grad():
        seen = learner.embed(batch)

    def score(embedding: Embedding) -> Tensor:
        out, _ = learner.decide({**seen, modality: embedding}, batch.present)
        return learner.tasks[task].score(out[task]).sum()

    return score
