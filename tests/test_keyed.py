"""Keyed random numbers: evenly spread, the patient's own, and the same in any company."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from nsclc_mtl.encoders.recurrent import VisitTransformer
from nsclc_mtl.keyed import Keyed
from nsclc_mtl.records import Bag, Batch, Series, UsageFault

SIZES = {"a": 3, "b": 0, "c": 5, "d": 1, "e": 2, "f": 4}


def batch(names: str, dim: int = 6) -> Batch:
    offsets = torch.tensor([0, *(SIZES[name] for name in names)]).cumsum(0)
    return Batch(list(names), {"wsi": Bag(torch.ones(int(offsets[-1]), dim), offsets)}, {}, {})


def big(rows: int) -> Batch:
    return Batch(["x", "y"], {"wsi": Bag(torch.ones(rows, 1), torch.tensor([0, rows // 2, rows]))}, {}, {})


class Part(nn.Module):
    """An encoder that draws."""

    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return self.draw(x)


def of(
    names: str, draw: Callable[[Tensor], Tensor], rows: str = "tiles", seed: int = 0, epoch: int = 0
) -> dict[str, Tensor]:
    """What each patient gets, when these patients are together."""
    given, part = batch(names), Part(draw)
    bag = given.inputs["wsi"]
    with Keyed(given, seed, epoch, {"wsi" if rows == "tiles" else "rna": part}):
        made = part(bag.features if rows == "tiles" else torch.ones(len(names), 6))
    ends = bag.offsets.tolist() if rows == "tiles" else range(len(names) + 1)
    return {name: made[ends[i] : ends[i + 1]] for i, name in enumerate(names)}


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: functional.dropout(x, 0.5),
    "alpha dropout": lambda x: functional.alpha_dropout(x, 0.5, training=True),
    "dropout in place": lambda x: functional.dropout(x.clone(), 0.5, inplace=True),
    "rand": lambda x: torch.rand(x.shape),
    "rand_like": torch.rand_like,
    "randn": lambda x: torch.randn(x.shape),
    "uniform": lambda x: torch.empty_like(x).uniform_(-1, 2),
    "normal": lambda x: torch.empty_like(x).normal_(3, 2),
    "bernoulli": lambda x: torch.bernoulli(x * 0.3),
}


@pytest.mark.parametrize("rows", ["tiles", "patients"])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_a_patient_gets_the_same_in_any_company(draw: Callable[[Tensor], Tensor], rows: str) -> None:
    together = of("abcdef", draw, rows)
    for names in ("fca", "be", "d"):
        for name, mine in of(names, draw, rows).items():
            assert torch.equal(mine, together[name])
    whole = torch.cat(list(together.values()))
    assert len(whole.unique()) > 1
    for other in (of("abcdef", draw, rows, seed=1), of("abcdef", draw, rows, epoch=1)):
        assert not torch.equal(torch.cat(list(other.values())), whole)


def test_padding_moves_nobodys_numbers() -> None:
    with Keyed(batch("ab"), 0, 0):
        short = torch.rand(2, 3, 4, 5)
    with Keyed(batch("ab"), 0, 0):
        long = torch.rand(2, 3, 7, 9)
    assert torch.equal(short, long[:, :, :4, :5])


def test_draws_and_places_have_numbers_of_their_own() -> None:
    encoders = nn.ModuleDict({"wsi": nn.Dropout(0.5), "rna": nn.Dropout(0.5)})
    x = torch.ones(6, 200)
    with Keyed(batch("abcdef"), 0, 0, dict(encoders.items())) as keys:
        made = [encoders["wsi"](x), encoders["wsi"](x), encoders["rna"](x), functional.dropout(x, 0.5)]
        assert keys.draws == {"wsi": 2, "rna": 1, "": 1}
    for i, one in enumerate(made):
        for other in made[:i]:
            assert 0.4 < float((one == other).float().mean()) < 0.6
    assert not encoders["wsi"]._forward_pre_hooks
    assert not encoders["wsi"]._forward_hooks


def test_numbers_are_evenly_spread_and_independent() -> None:
    with Keyed(big(2000), 7, 3):
        u, v, z = torch.rand(2000, 500), torch.rand(2000, 500), torch.randn(2000, 50)
        kept = functional.dropout(torch.ones(2000, 500), 0.25) > 0
    assert stats.kstest(u.flatten().numpy()[:100_000], "uniform").pvalue > 1e-3
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.003)
    bits = (u * 2**24).int()  # every bit is a coin
    for bit in range(24):
        assert float(((bits >> bit) & 1).float().mean()) == pytest.approx(0.5, abs=0.003)
    pairs = [u, v, u.roll(1, 0), u.roll(1, 1), u.roll(1000, 0)]
    apart = np.corrcoef(torch.stack(pairs).flatten(1).numpy()) - np.eye(len(pairs))
    assert np.abs(apart).max() < 0.005


def test_attention_drops_by_the_keys_too() -> None:
    torch.manual_seed(0)
    attend = nn.MultiheadAttention(6, 2, dropout=0.5, batch_first=True)
    x = torch.randn(6, 4, 6)
    for words in ({}, {"need_weights": False}):
        with Keyed(batch("abcdef"), 0, 0):
            whole = attend(x, x, x, **words)[0]
        with Keyed(batch("cd"), 0, 0):
            some = attend(x[2:4], x[2:4], x[2:4], **words)[0]
        torch.testing.assert_close(some, whole[2:4])
        assert not torch.equal(whole, attend.eval()(x, x, x, **words)[0])
        attend.train()


def test_visits_of_those_who_have_some_are_drawn_by_the_keys_too() -> None:
    """The transformer over visits has a row a patient who was seen, however many there are in the batch."""
    torch.manual_seed(0)
    encoder = VisitTransformer(3, 4, dropout=0.5)
    values, time = torch.randn(15, 3), torch.arange(15.0)

    def given(names: str) -> tuple[Batch, Series]:
        start = dict(zip(SIZES, torch.tensor([0, *SIZES.values()]).cumsum(0).tolist(), strict=False))
        rows = [start[name] + k for name in names for k in range(SIZES[name])]
        offsets = torch.tensor([0, *(SIZES[name] for name in names)]).cumsum(0)
        visits = Series(values[rows], torch.ones(len(rows), 3), time[rows], offsets)
        return Batch(list(names), {"blood": visits}, {}, {}), visits

    def said(names: str) -> dict[str, Tensor]:
        made, visits = given(names)
        with Keyed(made, 0, 0, {"blood": encoder}):
            return dict(zip(names, encoder(visits).vector, strict=True))

    whole = said("abcdef")
    for names in ("bca", "bf", "db", "f"):
        for name, mine in said(names).items():
            torch.testing.assert_close(mine, whole[name])
    plain = encoder.eval()(given("abcdef")[1]).vector
    assert not torch.allclose(torch.stack(list(whole.values())), plain)


FAULTS: dict[str, Callable[[], Tensor]] = {
    "kinds": lambda: torch.randperm(6),
    "choices": lambda: torch.multinomial(torch.ones(3), 1),
    "shapes": lambda: torch.rand(7, 2),
    "single numbers": lambda: torch.rand(()),
    "recurrent dropout over time": lambda: nn.GRU(3, 4, 2, dropout=0.5)(torch.ones(7, 3, 3))[0],
}


@pytest.mark.parametrize("draw", FAULTS.values(), ids=FAULTS.keys())
def test_what_belongs_to_nobody_is_refused(draw: Callable[[], Tensor]) -> None:
    with (
        pytest.raises(
            UsageFault, match=r"cox.mode=exact: a part behind the encoders draws random numbers .* cox.mode=batch"
        ),
        Keyed(batch("abcd"), 0, 0),
    ):
        draw()


def test_without_dropout_nothing_is_asked_and_the_generator_stays_where_it_was() -> None:
    before = torch.get_rng_state()
    x = torch.ones(4, 3, 2)
    with Keyed(batch("abcd"), 0, 0):
        functional.scaled_dot_product_attention(x, x, x)
        functional.dropout(x, 0.5)
    assert torch.equal(before, torch.get_rng_state())
