"""Losses of the sites: their gradients, their values by hand, and who takes no part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nsclc_mtl.records import Batch, DataFault, Embedding, UsageFault
from nsclc_mtl.tasks.adaptation import Adaptation, Dann, DeepCoral, Reversal, even, ramp

NAMES, DIM, SITES = ("wsi", "rna"), 3, 3


def drawn(n: int = 12, seed: int = 0) -> tuple[dict[str, Embedding], dict[str, Tensor], Batch]:
    """Embeddings that ask for a gradient; patient 0 has no site, patient 1 no genes."""
    made = torch.Generator().manual_seed(seed)
    seen = {name: Embedding(torch.randn(n, DIM, generator=made).requires_grad_()) for name in NAMES}
    present = {name: torch.ones(n, dtype=torch.bool) for name in NAMES}
    present["rna"][1] = False
    site = torch.arange(n) % SITES
    site[0] = -1
    return seen, present, Batch([str(i) for i in range(n)], {}, present, {}, site)


def both() -> list[Adaptation]:
    torch.manual_seed(0)
    return [Dann(NAMES, DIM, SITES), Dann(NAMES, DIM, SITES, hidden=5), DeepCoral(NAMES, DIM, SITES, means=1.0)]


def gradients(part: Adaptation, seen: dict[str, Embedding], present: dict[str, Tensor], batch: Batch) -> list[Tensor]:
    loss = part(seen, present, batch, 1.0)
    return list(torch.autograd.grad(loss, [seen[name].vector for name in NAMES], allow_unused=True))


def test_the_reversed_gradient_is_minus_strength_times_the_plain_one() -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(Reversal.apply(x, 0.7), x)
    (turned,) = torch.autograd.grad((weight * Reversal.apply(x, 0.7)).sum(), x)
    assert torch.allclose(turned, -0.7 * weight)


def test_encoders_are_pushed_against_the_classifier_that_learns_as_ever() -> None:
    """By another way to the same number: a plain cross-entropy of plainly joined embeddings."""
    seen, present, batch = drawn()
    part = Dann(NAMES, DIM, SITES, strength=2.0, damping=0.0)
    loss = part(seen, present, batch, 0.3)
    own = torch.autograd.grad(loss, [*part.parameters(), *(seen[n].vector for n in NAMES)])
    assert batch.site is not None
    rows = {n: seen[n].vector * (present[n] & (batch.site >= 0))[:, None] for n in NAMES}
    said = part.tell(torch.cat(list(rows.values()), dim=1))
    each = torch.nn.functional.cross_entropy(said, batch.site.clamp(min=0), reduction="none")
    plain = torch.stack([each[batch.site == k].mean() for k in range(SITES)]).mean()
    wanted = torch.autograd.grad(plain, [*part.parameters(), *(seen[n].vector for n in NAMES)])
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    turned = [1.0] * len(list(part.parameters())) + [-2.0 * ramp(0.3)] * len(NAMES)
    for one, other, sign in zip(own, wanted, turned, strict=True):
        assert torch.allclose(one, sign * other, atol=1e-6)


def test_damping_is_half_the_squared_weights() -> None:
    seen, present, batch = drawn()
    part = Dann(NAMES, DIM, SITES, damping=0.0, speed=4.0)
    free = part(seen, present, batch, 1.0)
    part.damping = 0.6
    (layer,) = part.tell
    added = 0.3 * float((4.0 * layer.weight.detach()).square().sum())
    assert (part(seen, present, batch, 1.0) - free).item() == pytest.approx(added, rel=1e-4)


@pytest.mark.parametrize("means", [0.0, 2.5])
def test_coral_by_hand(means: float) -> None:
    seen, present, batch = drawn(15, seed=3)
    assert batch.site is not None
    total = 0.0
    for name in NAMES:
        x, used = seen[name].vector.detach().numpy().astype(float), present[name].numpy()
        of = [x[used & (batch.site.numpy() == k)] for k in range(SITES)]
        pairs = [(of[0], of[1]), (of[0], of[2]), (of[1], of[2])]
        gaps = [
            np.sum((np.cov(a.T) - np.cov(b.T)) ** 2) / (4 * DIM**2)
            + means * np.sum((a.mean(0) - b.mean(0)) ** 2) / (4 * DIM)
            for a, b in pairs
        ]
        total += float(np.mean(gaps))
    part = DeepCoral(NAMES, DIM, SITES, strength=3.0, means=means)
    assert part(seen, present, batch, 0.0).item() == pytest.approx(3.0 * total, rel=1e-5)


def test_covariances_do_not_see_a_shift() -> None:
    seen, present, batch = drawn()
    assert batch.site is not None
    moved = {n: Embedding(e.vector + 5.0 * batch.site[:, None]) for n, e in seen.items()}
    published, ours = DeepCoral(NAMES, DIM, SITES), DeepCoral(NAMES, DIM, SITES, means=1.0)
    before, after = (published(x, present, batch, 1.0).item() for x in (seen, moved))
    assert after == pytest.approx(before, rel=1e-3)
    before, after = (ours(x, present, batch, 1.0).item() for x in (seen, moved))
    assert after > 10 * before


def test_unknown_sites_and_absent_rows_get_no_gradient_and_say_nothing() -> None:
    for part in both():
        seen, present, batch = drawn()
        wsi, rna = gradients(part, seen, present, batch)
        assert not wsi[0].any()
        assert not rna[0].any()
        assert not rna[1].any()
        assert wsi[1:].any(1).all()
        assert rna[2:].any(1).all()
        spoiled = {name: Embedding(e.vector.detach().clone()) for name, e in seen.items()}
        spoiled["wsi"].vector[0] = torch.nan
        spoiled["rna"].vector[:2] = torch.inf
        assert part(spoiled, present, batch, 1.0).item() == pytest.approx(part(seen, present, batch, 1.0).item())


@given(st.lists(st.integers(-1, SITES - 1), min_size=1, max_size=8), st.integers(0, 99))
def test_any_batch_has_a_finite_loss_with_a_gradient(sites: list[int], seed: int) -> None:
    n = len(sites)
    for part in both():
        seen, _, _ = drawn(n + 2, seed)
        seen = {name: Embedding(e.vector.detach()[:n].requires_grad_()) for name, e in seen.items()}
        present = {name: torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.6 for name in NAMES}
        batch = Batch([str(i) for i in range(n)], {}, present, {}, torch.tensor(sites))
        loss = part(seen, present, batch, 0.5)
        assert loss.isfinite()
        grads = torch.autograd.grad(loss, [seen[name].vector for name in NAMES], allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in grads)
        taking = {s for s, *has in zip(sites, *(present[n].tolist() for n in NAMES), strict=True) if any(has)} - {-1}
        if len(taking) < 2:
            assert not any(g is not None and g.any() for g in grads)


def test_without_sites_in_the_batch_there_is_no_loss() -> None:
    seen, present, batch = drawn()
    for site in (None, torch.ones(len(batch), dtype=torch.long)):
        batch.site = site
        assert DeepCoral(NAMES, DIM, SITES)(seen, present, batch, 1.0).item() == 0.0
        assert Dann(NAMES, DIM, SITES)(seen, present, batch, 1.0).item() == 0.0


@given(st.lists(st.integers(-1, SITES - 1), min_size=2, max_size=20))
def test_every_site_weighs_the_same(sites: list[int]) -> None:
    site = torch.tensor(sites)
    weight = even(site, site >= 0, SITES)
    there = sorted(set(sites) - {-1})
    assert not weight[site < 0].any()
    if len(there) < 2:
        assert not weight.any()
        return
    assert [float(weight[site == k].sum()) for k in there] == pytest.approx([1 / len(there)] * len(there), rel=1e-5)


def test_one_modality_alone_and_none_at_all() -> None:
    seen, present, batch = drawn()
    for part in (Dann(NAMES, DIM, SITES, ["rna"]), DeepCoral(NAMES, DIM, SITES, ["rna", "elsewhere"])):
        wsi, rna = gradients(part, seen, present, batch)
        assert wsi is None
        assert rna.any()
    with pytest.raises(UsageFault, match=r"names none of the run's modalities \(wsi, rna\)"):
        Dann(NAMES, DIM, SITES, ["radiomics"])
    with pytest.raises(DataFault, match="know 1 site, two are needed"):
        DeepCoral(NAMES, DIM, 1)
