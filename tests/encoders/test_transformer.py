"""Tables with a token a column: what a token is, each patient alone, absent columns, and what attention can learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nsclc_mtl.encoders.transformer import Block, FTTransformer, of_the_others
from nsclc_mtl.records import UsageFault
from nsclc_mtl.tables.encode import TableEncoder

COLUMNS = {"age": [0, 2], "pack_years": [1], "sex": [3, 4], "smoking": [5, 6, 7]}


def encoder(seed: int = 0, **words: int) -> FTTransformer:
    torch.manual_seed(seed)
    return FTTransformer(8, 5, COLUMNS, width=8, heads=2, **words).eval()


def plain_block(of: Block, tokens: torch.Tensor) -> torch.Tensor:
    """The block by PyTorch's own attention, one row at a time."""
    width, outs = tokens.shape[-1], []
    for row in of.before(tokens):
        made, _ = nn.functional.multi_head_attention_forward(
            row[:, None], row[:, None], row[:, None], width, of.heads, of.ask.weight, of.ask.bias, None, None, False,
            0.0, of.out.weight, of.out.bias, training=False,
        )  # fmt: skip
        outs.append(made[:, 0])
    tokens = tokens + torch.stack(outs)
    wide = of.wide(of.then(tokens))
    return tokens + of.narrow(torch.relu(wide[..., : of.inside]) * wide[..., of.inside :])


def test_a_block_is_the_attention_of_pytorch() -> None:
    torch.manual_seed(0)
    of, tokens = Block(8, 2).eval(), torch.randn(3, 5, 8)
    torch.testing.assert_close(of(tokens)[0], plain_block(of, tokens))


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 99))
def test_filler_is_looked_at_by_none(real: int, filler: int, seed: int) -> None:
    torch.manual_seed(seed)
    of, tokens = Block(8, 2).eval(), torch.randn(2, real + filler, 8)
    there = torch.arange(real + filler).expand(2, -1) < real
    made, attention = of(tokens, there)
    alone, same = of(tokens[:, :real])
    torch.testing.assert_close(made[:, :real], alone)
    torch.testing.assert_close(attention[:, :real], same)
    assert (attention[:, real:] == 0).all()


def test_a_token_is_a_number_times_a_vector_or_the_vector_of_a_category() -> None:
    of = encoder(depth=0)
    x = torch.tensor([[2.0, -1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]])  # age 2 and missing, second sex, smoking unknown
    token = of(x).tokens
    assert token is not None
    want = torch.stack([2 * of.weight[0] + of.weight[2], -of.weight[1], of.weight[4], torch.zeros(8)]) + of.bias
    torch.testing.assert_close(token[0], want)


def test_a_row_is_encoded_by_itself_and_attention_sums_to_one() -> None:
    of, x = encoder(depth=2), torch.randn(7, 8)
    said = of(x)
    assert said.vector.shape == (7, 5)
    assert said.tokens is not None
    assert said.attention is not None
    assert said.tokens.shape == (7, 4, of.token_dim)
    torch.testing.assert_close(said.attention.sum(1), torch.ones(7))
    torch.testing.assert_close(said.vector[3:4], of(x[3:4]).vector)
    other = x.clone()
    other[:2] = 1e6
    torch.testing.assert_close(of(other).vector[2:], said.vector[2:])
    assert torch.isfinite(of(other).vector).all()
    of.train()
    of(x).vector.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in of.parameters())


@settings(max_examples=20)
@given(st.permutations(list(COLUMNS)))
def test_the_order_of_columns_is_nothing(order: list[str]) -> None:
    of, x = encoder(), torch.randn(4, 8)
    torch.manual_seed(0)
    other = FTTransformer(8, 5, {name: COLUMNS[name] for name in order}, width=8, heads=2).eval()
    other.load_state_dict(of.state_dict())
    with torch.no_grad():
        other.bias.copy_(of.bias[[list(COLUMNS).index(name) for name in order]])
    torch.testing.assert_close(other(x).vector, of(x).vector)


def test_faults_are_told() -> None:
    with pytest.raises(UsageFault, match="multiple"):
        Block(10, 4)
    with pytest.raises(ValueError, match="each once"):
        FTTransformer(3, 2, {"a": [0, 1], "b": [1, 2]})
    assert float(of_the_others(torch.tensor([[1.0, 0.0, 0.0]])).sum()) == 0  # nothing but itself: no NaN


def test_a_table_tells_what_came_of_each_column() -> None:
    table = pd.DataFrame(
        {
            "age": [60.0, 70, np.nan, 50],
            "sex": ["m", "f", "m", ""],
            "dose": [1.0, 2, 3, 4],
            "flat": [1.0] * 4,
        },
        index=list("abcd"),
    ).astype({"age": object})
    table["age"] = ["60", "70", "", "50"]
    kinds = {"age": "numeric", "sex": "categorical", "dose": "numeric", "flat": "numeric"}
    made = TableEncoder.fit(table, kinds)
    assert made.sources == {"age": [0, 2], "dose": [1], "sex": [3, 4]}
    assert made.names == ["age", "dose", "age missing", "sex=f", "sex=m"]
    few = TableEncoder.fit(table, kinds, components=1)
    assert sorted(i for own in few.sources.values() for i in own) == list(range(few.dim))


def test_attention_learns_what_no_line_can() -> None:
    """A number counts for one category and against for the other: tokens tell each other which it is."""
    torch.manual_seed(0)
    x = torch.randn(600, 2)
    group = torch.randint(2, (600,))
    x = torch.cat([x, nn.functional.one_hot(group, 2).float()], dim=1)
    y = x[:, 0] * (2 * group - 1)
    of = FTTransformer(4, 1, {"a": [0], "b": [1], "group": [2, 3]}, dropout=0.0)
    step = torch.optim.AdamW(of.parameters(), 0.01)
    for _ in range(200):
        step.zero_grad()
        nn.functional.mse_loss(of(x[:400]).vector[:, 0], y[:400]).backward()
        step.step()
    said = of.eval()(x[400:]).vector[:, 0].detach()
    assert float(torch.corrcoef(torch.stack([said, y[400:]]))[0, 1]) > 0.9
