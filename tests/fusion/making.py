"""Every fusion with made-up patients, whose slides have tiles and whose genes have tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nsclc_mtl.fusion.attention import Attention
from nsclc_mtl.fusion.coattention import CoAttention
from nsclc_mtl.fusion.concat import Concat
from nsclc_mtl.fusion.experts import Experts
from nsclc_mtl.fusion.joining import Fusion
from nsclc_mtl.fusion.late import Late
from nsclc_mtl.fusion.ple import ProgressiveExtraction
from nsclc_mtl.fusion.tensor import LowRankFusion, TensorFusion
from nsclc_mtl.records import Embedding

NAMES, TASKS, DIM = ("wsi", "rna", "clinical"), ("grade", "survival"), 4
TILES, TOKENS = {"wsi": 6}, {"rna": 5}  # widths
SETS = 3  # tokens of genes

KINDS: dict[str, tuple[Callable[..., Fusion], dict[str, Any]]] = {
    "attention": (Attention, {}),
    "attention of all tasks": (Attention, {"per_task": False}),
    "coattention": (CoAttention, {"tiles": TILES, "tokens": TOKENS}),
    "coattention without tokens": (CoAttention, {}),
    "concat": (Concat, {}),
    "experts": (Experts, {}),
    "experts, two of four": (Experts, {"top_k": 2, "noise": 0.5, "load_balance": 0.1}),
    "late": (Late, {}),
    "low rank": (LowRankFusion, {}),
    "ple": (ProgressiveExtraction, {}),
    "ple of two levels": (ProgressiveExtraction, {"levels": 2, "own": 2}),
    "tensor": (TensorFusion, {}),
    "tensor without gates": (TensorFusion, {"gated": False}),
}


def fusion(kind: str, names: tuple[str, ...] = NAMES, **options: Any) -> Fusion:
    """One of the kinds; what starts at zero (tokens of what is absent, weights of products) is told from zero."""
    torch.manual_seed(0)
    make, given = KINDS[kind]
    made = make(names, TASKS, DIM, **{**given, **options})
    for parameter in made.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter)
    return made


def patients(n: int, seed: int, chance: float = 0.6) -> tuple[dict[str, Embedding], dict[str, Tensor]]:
    """Embeddings and who has what; who has no slide owns tiles all the same, as one whose slide was hidden."""
    draw = torch.Generator().manual_seed(seed)
    seen = {name: Embedding(torch.randn(n, DIM, generator=draw)) for name in NAMES}
    sizes = torch.randint(1, 5, (n,), generator=draw)
    seen["wsi"].offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    seen["wsi"].tokens = torch.randn(int(sizes.sum()), TILES["wsi"], generator=draw)
    seen["rna"].tokens = torch.randn(n, SETS, TOKENS["rna"], generator=draw)
    return seen, {name: torch.rand(n, generator=draw) < chance for name in NAMES}


def owner(embedding: Embedding) -> Tensor:
    """Patient of each tile."""
    assert embedding.offsets is not None
    return torch.repeat_interleave(torch.arange(len(embedding.vector)), embedding.offsets.diff())


def spoiled(seen: dict[str, Embedding], present: dict[str, Tensor], garbage: float) -> dict[str, Embedding]:
    """The same with garbage in everything that is not present: vectors, tokens and tiles."""
    out = {}
    for name, e in seen.items():
        there, tokens = present[name], e.tokens
        if tokens is not None:
            rows = there if e.offsets is None else there[owner(e)]
            tokens = torch.where(rows.view(-1, *[1] * (tokens.ndim - 1)), tokens, garbage)
        out[name] = Embedding(torch.where(there[:, None], e.vector, garbage), tokens, offsets=e.offsets)
    return out
