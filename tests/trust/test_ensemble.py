from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nsclc_mtl.trust import ensemble


@given(st.integers(0, 999), st.integers(1, 6))
def test_members_that_agree_tell_nothing_and_others_at_most_the_entropy(seed: int, count: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.ones(4), (count, 5))
    found = ensemble.mutual_information(p)
    assert (found >= 0).all()
    assert (found <= ensemble.entropy(p.mean(0)) + 1e-12).all()
    alike = np.repeat(p[:1], 3, axis=0)
    np.testing.assert_allclose(ensemble.mutual_information(alike), 0, atol=1e-12)
    np.testing.assert_allclose(ensemble.distance(alike), 0, atol=1e-12)
    assert (ensemble.votes(alike) == 3).all()
    assert ((ensemble.distance(p) >= 0) & (ensemble.distance(p) < 1)).all()


def test_mutual_information_is_the_mean_divergence_from_the_mean() -> None:
    p = np.random.default_rng(1).dirichlet(np.ones(3), (5, 7))
    by_hand = (p * np.log(p / p.mean(0))).sum(-1).mean(0)
    np.testing.assert_allclose(ensemble.mutual_information(p), by_hand)


def test_one_member_has_no_deviation() -> None:
    assert np.isnan(ensemble.deviation([[1.0, 2.0]])).all()
    np.testing.assert_allclose(ensemble.deviation([[1.0], [2.0], [4.0]]), np.std([1, 2, 4], ddof=1))


def test_dropout_works_inside_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Dropout(0.0)).eval()
    x, before = torch.ones(3, 4), model[1].running_mean.clone()
    still = model(x)
    with ensemble.dropping(model) as layers:
        assert layers == 1
        assert not torch.equal(model(x), model(x))
        assert not model[1].training
    assert torch.equal(model(x), still)
    assert torch.equal(model[1].running_mean, before)
    with pytest.raises(RuntimeError), ensemble.dropping(model):
        raise RuntimeError
    assert not model[2].training
