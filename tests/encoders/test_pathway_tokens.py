"""Pathway tokens: each sees its own genes, attention sums to one, and a signal in one set is learned."""

from __future__ import annotations

import pytest
import torch

from nsclc_mtl.encoders.pathways import PathwayTokens

GROUPS = {"a": [0, 1, 2], "b": [2, 3], "c": [5]}


@pytest.fixture
def made() -> PathwayTokens:
    torch.manual_seed(0)
    return PathwayTokens(7, 4, GROUPS, width=3).eval()


def test_shapes_and_attention(made: PathwayTokens) -> None:
    told = made(torch.randn(5, 7))
    assert told.vector.shape == (5, 4)
    assert told.tokens is not None
    assert told.tokens.shape == (5, 3, 3)
    assert told.attention is not None
    torch.testing.assert_close(told.attention.sum(1), torch.ones(5))
    assert made.pathways == ("a", "b", "c")


def test_a_token_sees_its_own_genes_and_no_other(made: PathwayTokens) -> None:
    x = torch.randn(1, 7)
    before = made(x).tokens
    for gene in range(7):
        changed = x.clone()
        changed[0, gene] += 1
        moved = (made(changed).tokens != before).any(-1)[0].tolist()
        assert moved == [gene in columns for columns in GROUPS.values()]


def test_places_without_a_gene_get_no_gradient() -> None:
    torch.manual_seed(0)
    made = PathwayTokens(7, 4, GROUPS, width=3)
    made(torch.randn(5, 7)).vector.sum().backward()
    assert made.weight.grad is not None
    assert not (made.weight.grad * ~made.inside).any()
    assert not (made.weight * ~made.inside).any()


def test_attention_finds_the_set_that_tells() -> None:
    torch.manual_seed(1)
    x = torch.randn(400, 30)
    groups = {f"s{i}": list(range(3 * i, 3 * i + 3)) for i in range(10)}
    y = x[:, 6:9].sum(1)  # the third set
    made = PathwayTokens(30, 1, groups, dropout=0, input_dropout=0)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (made(x[:300]).vector[:, 0] - y[:300]).pow(2).mean()
        loss.backward()
        optimizer.step()
    told = made.eval()(x[300:])
    assert (told.vector[:, 0] - y[300:]).var() < 0.3 * y[300:].var()
    assert told.attention is not None
    assert int(told.attention.mean(0).argmax()) == 2
