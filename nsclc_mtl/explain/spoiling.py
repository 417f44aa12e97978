"""Scores of patients of whom one modality is spoiled, or of whom only some modalities are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nsclc_mtl.explain.shapley import coalitions
from nsclc_mtl.records import Batch, Embedding

MODES = ("permute", "drop", "mean")
"""How a modality is spoiled: another patient's, none, or the mean of the training patients."""


@dataclass(frozen=True)
class Typical:
    """What a member makes of its training patients on the average."""

    embeddings: dict[str, Embedding]  # modality -> the mean of those who have it, one row
    scores: dict[str, np.ndarray]  # task -> mean score, [] (classes without an order: [class])


@dataclass(frozen=True)
class Spoiled:
    """Scores of all patients, and who of them was touched: the others have the scores of before."""

    scores: dict[str, np.ndarray]  # task -> [patient]; classes without an order: probabilities [patient, class]
    touched: np.ndarray  # bool [patient]


def typical(learner: Any, batches: Iterable[Batch]) -> Typical:
    """Mean embedding of each modality over those who have it, and mean score of each task, of training patients.

    Of tokens the patients' mean tokens are averaged where a patient has many (tiles), else token by token.
    """
    sums: dict[str, dict[str, Tensor]] = {}
    counts: dict[str, int] = {}
    scores: dict[str, np.ndarray] = {}
    patients = 0
    with torch.no_grad():
        for batch in batches:
            seen = learner.embed(batch)
            for name, embedding in seen.items():
                have = batch.present[name]
                counts[name] = counts.get(name, 0) + int(have.sum())
                for part, rows in _parts(embedding).items():
                    kept = torch.where(have.view(-1, *[1] * (rows.ndim - 1)), rows, 0.0).double().sum(0)
                    of = sums.setdefault(name, {})
                    of[part] = of[part] + kept if part in of else kept
            for task, said in _scores(learner, seen, batch.present).items():
                scores[task] = scores.get(task, 0) + said.astype(float).sum(0)
            patients += len(batch)
    means = {
        name: {part: (total / max(1, counts[name])).float() for part, total in of.items()} for name, of in sums.items()
    }
    return Typical(
        {name: _embedding(of) for name, of in means.items()}, {task: total / patients for task, total in scores.items()}
    )


def _parts(embedding: Embedding) -> dict[str, Tensor]:
    """The embedding as rows of patients: `vector`, `tokens` ([patient, width] of packed ones), and `linear/<task>`."""
    parts = {"vector": embedding.vector} | {f"linear/{task}": said for task, said in embedding.linear.items()}
    if embedding.tokens is not None and embedding.offsets is not None:
        sizes = embedding.offsets.diff()
        owner = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
        total = embedding.tokens.new_zeros(len(sizes), embedding.tokens.shape[1]).index_add(0, owner, embedding.tokens)
        parts["packed"] = total / sizes.clamp(min=1)[:, None]
    elif embedding.tokens is not None:
        parts["tokens"] = embedding.tokens
    return parts


def _embedding(means: Mapping[str, Tensor]) -> Embedding:
    """The row that these means are of."""
    rows = {part: mean[None] for part, mean in means.items()}
    linear = {part.removeprefix("linear/"): row for part, row in rows.items() if part.startswith("linear/")}
    tokens, offsets = rows.get("tokens"), None
    if "packed" in rows:
        tokens = rows["packed"]
        offsets = torch.tensor([0, 1], device=tokens.device)
    return Embedding(rows["vector"], tokens, None, {}, offsets, linear)


def spoil(
    learner: Any, batch: Batch, repeats: int, seed: int, mean: Typical, patterns: Sequence[Sequence[str]]
) -> dict[tuple[str, str, int], Spoiled]:
    """Scores with one modality spoiled; keys (modality, mode, repeat), ("", "", 0) holds the untouched ones.

    `permute` hands the modality's embeddings around among the patients who have it (`repeats` times, each anew), `mean`
    puts the mean of the training patients in their place, `drop` takes them away where the model was trained without
    them: from patients who have something else, so that `patterns` (modalities of the training patients) tell of the
    rest. Encoders look once; the whole test part of a fold comes as one batch, so that nobody's data leave the fold.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 301]))
    present, n = batch.present, len(batch)
    with torch.no_grad():
        seen = learner.embed(batch)
        untouched = _scores(learner, seen, present)
        out = {("", "", 0): Spoiled(untouched, np.zeros(n, bool))}
        for name, embedding in seen.items():
            has = present[name].cpu().numpy()
            have = torch.nonzero(present[name]).squeeze(1)
            if len(have) < 2:
                continue
            for repeat in range(repeats):
                order = torch.arange(n, device=have.device)
                order[have] = have[torch.from_numpy(_derangement(len(have), rng)).to(have.device)]
                moved = {**seen, name: embedding.rows(order)}
                out[name, "permute", repeat] = Spoiled(_scores(learner, moved, present), has)
            filled = mean.embeddings[name].rows(torch.zeros(n, dtype=torch.int64, device=have.device))
            said = _scores(learner, {**seen, name: filled}, present)
            out[name, "mean", 0] = Spoiled(_kept(said, untouched, has), has)
            known = np.array([learner.fusion.knows(rest, patterns) for rest in _having(present, without=name)])
            if (dropped := has & known).any():
                left = present[name] & ~torch.from_numpy(dropped).to(have.device)
                out[name, "drop", 0] = Spoiled(_scores(learner, seen, {**present, name: left}), dropped)
    return out


def shown(
    learner: Any, batch: Batch, mean: Typical, patterns: Sequence[Sequence[str]]
) -> dict[tuple[str, ...], Spoiled]:
    """Scores of patients of whom only a coalition of the modalities is shown, coalition -> scores.

    Who has nothing of a coalition is given the mean score of the training patients: what is said of somebody of whom
    nothing is known. Touched are the patients of whom the model was trained on every part of what they have; of the
    others not all coalitions may be asked about, and they have no Shapley values. Empty where there is no such patient.
    """
    names, n = list(batch.present), len(batch)
    every = coalitions(len(names))
    parts: dict[frozenset[str], bool] = {}
    for have in set(_having(batch.present)):
        subsets = [frozenset(s) for s in (_named(names, row) for row in every[1:]) if set(s) <= have]
        parts[have] = bool(subsets) and all(learner.fusion.knows(s, patterns) for s in subsets)
    touched = np.array([parts[have] for have in _having(batch.present)])
    if not touched.any():
        return {}
    out = {}
    with torch.no_grad():
        seen = learner.embed(batch)
        for row in every:
            present = {name: batch.present[name] & bool(inside) for name, inside in zip(names, row, strict=True)}
            some = torch.stack(list(present.values())).any(0).cpu().numpy()
            nothing = {task: np.broadcast_to(score, (n, *np.shape(score))) for task, score in mean.scores.items()}
            said = _kept(_scores(learner, seen, present), nothing, some) if some.any() else nothing
            out[_named(names, row)] = Spoiled(said, touched)
    return out


def _named(names: Sequence[str], row: np.ndarray) -> tuple[str, ...]:
    return tuple(name for name, inside in zip(names, row, strict=True) if inside)


def _having(present: Mapping[str, Tensor], without: str = "") -> list[frozenset[str]]:
    """Which modalities each patient has, [patient]."""
    names = [name for name in present if name != without]
    table = np.stack([present[name].cpu().numpy() for name in names], axis=1) if names else None
    n = len(next(iter(present.values())))
    return [frozenset(_named(names, row)) for row in table] if table is not None else [frozenset()] * n


def _kept(scores: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray], of: np.ndarray) -> dict[str, np.ndarray]:
    """The new scores of the patients `of`, and those of before of the others."""
    return {
        task: np.where(of if said.ndim == 1 else of[:, None], said, before[task]).astype(said.dtype)
        for task, said in scores.items()
    }


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
