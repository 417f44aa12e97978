"""What moved a prediction: tiles of a slide, voxels of a scan, whole modalities; all else of the patient as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def audit(learner: Any, batch: Batch, repeats: int, seed: int) -> dict[tuple[str, str, int], dict[str, np.ndarray]]:
    """Scores [patient] (multiclass: probabilities [patient, class]) per task with one modality spoiled.

    The keys are (modality, mode, repeat). `permute` hands the modality's embeddings around among the patients who have
    it (repeated, each time anew); `drop` takes it from everybody who has another one. The keys ("", "", 0) hold the
    untouched scores. The whole test part of a fold comes as one batch, so that nobody's data leave the fold.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 301]))
    with torch.no_grad():
        seen = learner.embed(batch)
        out = {("", "", 0): _scores(learner, seen, batch.present)}
        for name, embedding in seen.items():
            have = torch.nonzero(batch.present[name]).squeeze(1)
            if len(have) < 2:
                continue
            for repeat in range(repeats):
                order = torch.arange(len(embedding.vector), device=have.device)
                order[have] = have[torch.from_numpy(_derangement(len(have), rng))]
                spoiled = {**seen, name: embedding.rows(order)}
                out[name, "permute", repeat] = _scores(learner, spoiled, batch.present)
            others = torch.stack(
                [p for other, p in batch.present.items() if other != name] or [torch.zeros_like(batch.present[name])]
            )
            left = batch.present[name] & ~others.any(0)  # patients who have nothing else keep it
            out[name, "drop", 0] = _scores(learner, seen, {**batch.present, name: left})
    return out


def _scores(learner: Any, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    out, _ = learner.decide(seen, present)
    return {name: _ranked_by(task, out[name]).cpu().numpy() for name, task in learner.tasks.items()}


def _ranked_by(task: Any, raw: Tensor) -> Tensor:
    """What the task's AUC ranks patients by: one score; of classes without an order, the probability of each."""
    if task.spec.kind != "multiclass":
        return task.score(raw)
    return torch.stack(list(task.predict(raw).values()), dim=1)


def _derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation of n that leaves (nearly) nobody in place: a random cyclic shift of a random order."""
    order = rng.permutation(n)
    out = np.empty(n, np.int64)
    out[order] = np.roll(order, int(rng.integers(1, n)))
    return out
