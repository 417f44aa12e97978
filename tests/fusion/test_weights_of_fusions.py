"""Attention, late and tensor fusion by hand; co-attention against loops, and its memory, which is tokens x tiles."""

from __future__ import annotations

import math

import pytest
import torch
from making import DIM, NAMES, SETS, TASKS, TILES, TOKENS, fusion, owner, patients
from torch import Tensor, nn

from nsclc_mtl.fusion.attention import Attention
from nsclc_mtl.fusion.coattention import CoAttention
from nsclc_mtl.fusion.late import Late
from nsclc_mtl.fusion.tensor import LowRankFusion, TensorFusion
from nsclc_mtl.records import Embedding, UsageFault


def test_attention_by_hand() -> None:
    fuse = fusion("attention").eval()
    assert isinstance(fuse, Attention)
    seen, present = patients(5, 1)
    views, _ = fuse(seen, present)
    weights = fuse.weights_of(seen, present)
    trust = fuse.trust.view(len(TASKS), len(NAMES))
    for p in range(5):
        have = [m for m, name in enumerate(NAMES) if present[name][p]]
        for t, task in enumerate(TASKS):
            scores = {}
            for m in have:
                x = seen[NAMES[m]].vector[p]
                gated = torch.tanh(fuse.content[m](x)) * torch.sigmoid(fuse.gate[m](x))
                scores[m] = (gated @ fuse.score.weight[t] + trust[t, m]).exp().item()
            total = sum(scores.values())
            view = torch.zeros(fuse.view_dim)
            for m in have:
                assert weights[task][p, m].item() == pytest.approx(scores[m] / total, rel=1e-4)
                view = view + len(have) * scores[m] / total * fuse.says[m](seen[NAMES[m]].vector[p])
            torch.testing.assert_close(views[task][p], view, rtol=1e-4, atol=1e-5)


def test_late_fusion_is_the_mean_of_a_score_a_modality() -> None:
    fuse, head = fusion("late").eval(), nn.Linear(32, 1)
    assert isinstance(fuse, Late)
    seen, present = patients(6, 2)
    views, _ = fuse(seen, present)
    score = head(views["survival"]).squeeze(1)
    for p in range(6):
        have = [m for m, name in enumerate(NAMES) if present[name][p]]
        each = [head(fuse.heads["survival"][m](seen[NAMES[m]].vector[p])).item() for m in have]  # type: ignore[index]
        assert score[p].item() == pytest.approx(sum(each) / len(each) if each else head.bias.item(), abs=1e-5)


def outer(seen: dict[str, Embedding], present: dict[str, Tensor], p: int) -> Tensor:
    """Outer product of (embedding, 1) over the modalities of a patient; of an absent one the 1 alone."""
    rows = [torch.cat([seen[n].vector[p] * present[n][p], torch.ones(1)]) for n in NAMES]
    return torch.einsum("i,j,k->ijk", *rows)


def test_the_tensor_is_the_outer_product_and_an_absent_modality_its_constant() -> None:
    fuse = fusion("tensor without gates").eval()
    assert isinstance(fuse, TensorFusion)
    seen, present = patients(6, 3)
    views, _ = fuse(seen, present)
    weight, bias = fuse.layers[0].weight, fuse.layers[0].bias
    for p in range(6):
        by_hand = outer(seen, present, p).flatten() @ weight.T + bias  # type: ignore[union-attr, operator]
        torch.testing.assert_close(views["grade"][p], by_hand, rtol=1e-4, atol=1e-4)


def test_low_rank_is_a_whole_tensor_of_that_rank() -> None:
    fuse = fusion("low rank", rank=3, width=2).eval()
    assert isinstance(fuse, LowRankFusion)
    for constant in fuse.constants:
        nn.init.normal_(constant)
    seen, present = patients(6, 3)
    views, _ = fuse(seen, present)
    # [modality][dim + 1, rank, width]: the last row belongs to the constant
    rows = [torch.cat([f, c[None]]).view(DIM + 1, 3, 2) for f, c in zip(fuse.factors, fuse.constants, strict=True)]
    whole = torch.einsum("r,irw,jrw,krw->ijkw", fuse.weights, *rows)
    for p in range(6):
        by_hand = torch.einsum("ijk,ijkw->w", outer(seen, present, p), whole) + fuse.bias
        torch.testing.assert_close(views["grade"][p], by_hand, rtol=1e-4, atol=1e-4)


def test_the_whole_tensor_of_four_modalities_is_refused() -> None:
    with pytest.raises(UsageFault, match=r"at most 3 modalities, not 4 .* use fusion=low_rank"):
        TensorFusion([*NAMES, "ct"], TASKS, DIM)


def test_coattention_by_loops() -> None:
    fuse = fusion("coattention", width=5).eval()
    assert isinstance(fuse, CoAttention)
    seen, present = patients(5, 7)
    views, _ = fuse(seen, present)
    maps = fuse.tile_weights(seen, present)["wsi"]
    wsi, rna = seen["wsi"], seen["rna"]
    assert wsi.tokens is not None
    assert rna.tokens is not None
    joined = []
    for p in range(5):
        asks = [fuse.nobody]
        asks += [fuse.token["rna"](rna.tokens[p, s]) for s in range(SETS)] if present["rna"][p] else []
        asks += [fuse.token["clinical"](seen["clinical"].vector[p])] if present["clinical"][p] else []
        weigh = [fuse.gate(token).exp().item() for token in asks]
        mine = torch.nonzero(owner(wsi) == p).flatten()
        answers, looked = torch.zeros(DIM), torch.zeros(len(mine))
        for token, share in zip(asks, weigh, strict=True):
            query = fuse.query(token)
            each = torch.stack([(query * fuse.key["wsi"](wsi.tokens[i])).sum() / math.sqrt(5) for i in mine]).exp()
            attention = each / each.sum()
            read = sum(a * fuse.value["wsi"](wsi.tokens[i]) for a, i in zip(attention, mine, strict=True))
            answers = answers + share / sum(weigh) * fuse.answer["wsi"](torch.cat([read, token]))
            looked = looked + share / sum(weigh) * attention
        there = [seen[n].vector[p] if present[n][p] else fuse.join.absent[n] for n in NAMES]
        joined.append(torch.cat([*there, answers if present["wsi"][p] else fuse.join.absent["wsi/asked"]]))
        assert torch.allclose(maps[mine], looked if present["wsi"][p] else torch.zeros(len(mine)), atol=1e-6)
    torch.testing.assert_close(views["grade"], fuse.layers(torch.stack(joined)), rtol=1e-4, atol=1e-5)


def test_tile_weights_sum_to_one_for_who_has_a_slide_and_a_slide_without_tiles_is_none() -> None:
    fuse = fusion("coattention").eval()
    seen, present = patients(6, 2)
    sizes = torch.tensor([2, 0, 3, 1, 0, 4])
    seen["wsi"].offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    seen["wsi"].tokens = torch.randn(10, TILES["wsi"])
    weights = fuse.tile_weights(seen, present)["wsi"]
    total = torch.zeros(6).index_add(0, owner(seen["wsi"]), weights)
    torch.testing.assert_close(total, (present["wsi"] & (sizes > 0)).float())
    views, _ = fuse(seen, present)
    assert torch.isfinite(views["grade"]).all()


def kept(tiles: int) -> tuple[int, int]:
    """Numbers that a training step of one patient keeps for its gradient: of the largest tensor, and of all."""
    torch.manual_seed(0)
    fuse = CoAttention(NAMES, TASKS, DIM, TILES, TOKENS).train()
    bag = Embedding(torch.randn(1, DIM), torch.randn(tiles, TILES["wsi"]), offsets=torch.tensor([0, tiles]))
    seen = {"wsi": bag, "rna": Embedding(torch.randn(1, DIM), torch.randn(1, SETS, TOKENS["rna"]))}
    seen["clinical"] = Embedding(torch.randn(1, DIM))
    sizes: dict[int, int] = {}

    def keep(saved: Tensor) -> Tensor:
        sizes[saved.data_ptr()] = saved.numel()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        fuse(seen, {name: torch.ones(1, dtype=torch.bool) for name in NAMES})[0]["grade"].sum().backward()
    return max(sizes.values()), sum(sizes.values())


def test_memory_of_coattention_is_linear_in_tiles() -> None:
    (_, few), (largest, many) = kept(2_000), kept(20_000)
    assert largest <= 20_000 * 16  # tiles x width; tokens x tiles is less, tiles x tiles would be 4e8
    assert many < 10.5 * few


def test_tokens_and_tiles_of_what_is_absent_get_no_gradient() -> None:
    fuse = fusion("coattention").eval()
    seen, present = patients(8, 3)
    wsi, rna = seen["wsi"], seen["rna"]
    assert wsi.tokens is not None
    assert rna.tokens is not None
    present["wsi"][:4], present["rna"][:4] = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 0]).bool()
    views, _ = fuse(seen, present)
    assert not views["grade"].isnan().any()
    tiles, sets = wsi.tokens.requires_grad_(True), rna.tokens.requires_grad_(True)
    of_tiles, of_sets = torch.autograd.grad(fuse(seen, present)[0]["grade"].square().sum(), [tiles, sets])
    assert ((of_tiles.abs().sum(1) > 0) == present["wsi"][owner(wsi)]).all()
    asked = present["rna"] & present["wsi"]  # genes ask where there is somebody to ask
    assert ((of_sets.abs().sum((1, 2)) > 0) == asked).all()
