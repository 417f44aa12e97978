"""Interactions: products of modalities, by hand; none at first, none with what is absent, and found where they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nsclc_mtl.fusion.experts import Experts
from nsclc_mtl.fusion.interactions import Interactions
from nsclc_mtl.metrics.classification import auc
from nsclc_mtl.records import Embedding

NAMES, DIM = ("wsi", "rna", "proteomics"), 4


def embeddings(n: int, seed: int) -> dict[str, Embedding]:
    draw = torch.Generator().manual_seed(seed)
    return {name: Embedding(torch.randn(n, DIM, generator=draw)) for name in NAMES}


def everything(n: int) -> dict[str, Tensor]:
    return {name: torch.ones(n, dtype=torch.bool) for name in NAMES}


def test_products_by_hand_and_none_with_what_is_absent() -> None:
    torch.manual_seed(0)
    made = Interactions(("grade",), modalities=3, dim=DIM, width=5, factors=2, gain=3.0)
    joined = torch.randn(2, 3, DIM)
    used = torch.tensor([[True, True, True], [True, False, True]])
    factors = torch.stack([3.0 * joined[:, i] @ made.factors[i] for i in range(3)], dim=1)
    products = made.products(joined, used).reshape(2, 3, 2, 2)  # [patient, pair, factor of one, factor of the other]
    for pair, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
        torch.testing.assert_close(products[0, pair], torch.outer(factors[0, i], factors[0, j]))
    assert (products[1, 0] == 0).all()
    assert (products[1, 2] == 0).all()
    torch.testing.assert_close(products[1, 1], torch.outer(factors[1, 0], factors[1, 2]))


def test_the_model_starts_additive() -> None:
    torch.manual_seed(0)
    fuse = Experts(NAMES, ("grade",), DIM).eval()
    seen = embeddings(6, 1)
    joined = torch.stack([e.vector for e in seen.values()], dim=1).flatten(1)
    views, _ = fuse(seen, everything(6))
    assert torch.equal(views["grade"], fuse.views(joined)["grade"])


def test_the_penalty_is_the_lasso_in_training_alone() -> None:
    torch.manual_seed(0)
    fuse = Experts(NAMES, ("grade", "survival"), DIM, sparsity=0.5)
    assert fuse.interactions is not None
    for weight in fuse.interactions.weights.values():
        nn.init.constant_(weight, -0.25)
    count = sum(weight.numel() for weight in fuse.interactions.weights.values())
    _, losses = fuse.train()(embeddings(3, 0), everything(3))
    assert losses["interactions"].item() == pytest.approx(0.5 * 0.25 * count)
    assert fuse.eval()(embeddings(3, 0), everything(3))[1] == {}


@pytest.mark.parametrize(("names", "factors"), [(("wsi",), 3), (NAMES, 0)])
def test_one_modality_or_no_factors_have_no_interactions(names: tuple[str, ...], factors: int) -> None:
    fuse = Experts(names, ("grade",), DIM, factors=factors)
    views, losses = fuse({n: e for n, e in embeddings(3, 0).items() if n in names}, everything(3))
    assert fuse.interactions is None
    assert losses == {}
    assert views["grade"].shape == (3, fuse.view_dim)


def trained(seed: int) -> tuple[Experts, float]:
    """AUC on new patients of a yes or no that is the sign of a product of two modalities, from 200 patients."""
    torch.manual_seed(seed)
    fuse = Experts(NAMES, ("response",), DIM)
    head = nn.Linear(fuse.view_dim, 1)
    optimizer = torch.optim.AdamW([*fuse.parameters(), *head.parameters()], lr=5e-3, weight_decay=1.0)
    parts = []
    for n in (200, 500):
        seen = embeddings(n, 10 * seed + n)
        parts.append((seen, (seen["wsi"].vector[:, 0] * seen["rna"].vector[:, 0] > 0).float()))
    (seen, answer), (new, truth) = parts
    for _ in range(120):
        views, losses = fuse(seen, everything(200))
        score = head(views["response"]).squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(score, answer) + sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    views, _ = fuse.eval()(new, everything(500))
    return fuse, float(auc(truth.numpy() == 1, head(views["response"]).squeeze(1).detach().numpy()))


@pytest.mark.parametrize("seed", [0, 1])
def test_an_interaction_is_found_between_the_right_two(seed: int) -> None:
    fuse, found = trained(seed)
    assert found > 0.85
    assert fuse.interactions is not None
    weight = fuse.interactions.weights["response"].detach().abs().reshape(fuse.view_dim, 3, 9).sum((0, 2))
    assert weight[0] > 2 * weight[1:].max()  # wsi x rna against the pairs with proteomics
