"""Heads on bins: each loss against its formula in plain loops, curves, offsets, base rates."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor

from nsclc_mtl.records import NoEvents, Target, TaskSpec, UsageFault
from nsclc_mtl.tasks.bins import HORIZONS_DAYS, BinnedSurvival, exact_bins, hazards_of, logits_of, whole_bins
from nsclc_mtl.tasks.deephit import DeepHit
from nsclc_mtl.tasks.pc_hazard import PCHazard
from nsclc_mtl.tasks.pmf import MTLR, PMF
from nsclc_mtl.tasks.survival import DiscreteHazard

ONE = TaskSpec("os", "survival")
TWO = TaskSpec("os", "survival", causes=("cancer", "other"))
BINS = 5
HEADS: dict[str, tuple[type[BinnedSurvival], TaskSpec]] = {
    "hazard": (DiscreteHazard, ONE), "pc_hazard": (PCHazard, ONE), "pmf": (PMF, ONE), "mtlr": (MTLR, ONE),
    "deephit": (DeepHit, ONE), "deephit, two causes": (DeepHit, TWO),
}  # fmt: skip
every_head = pytest.mark.parametrize("name", HEADS)


@functools.cache
def follow_up(causes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.PCG64(3))
    event = (rng.random(80) < 0.6) * rng.integers(1, causes + 1, 80).astype(float)
    return rng.exponential(900, 80).round(2) + 0.01, event


@functools.cache
def head(name: str, **options: Any) -> BinnedSurvival:
    cls, spec = HEADS[name]
    torch.manual_seed(0)
    state = cls.fit(spec, *follow_up(max(1, len(spec.causes))), bins=BINS)  # type: ignore[call-arg]
    return cls(spec, 8, json.loads(json.dumps(state)), **options).double()


def outputs(name: str) -> int:
    return BINS * max(1, len(HEADS[name][1].causes))


def raw_of(name: str, n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, outputs(name), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def target(days: Any, event: Any) -> Target:
    days, event = torch.as_tensor(days, dtype=torch.float64), torch.as_tensor(event, dtype=torch.float64)
    return Target(torch.ones(len(days), dtype=torch.bool), days, event)


# --- the formulas, in plain loops -------------------------------------------------------------------------------------


def bins_by_hand(edges: list[float], t: float, cause: int) -> tuple[int, int] | None:
    """Bin and cause of an event; last bin passed whole and 0 of a censoring; None where no whole bin was seen."""
    if t > edges[-1]:
        return len(edges) - 1, 0
    if cause:
        return next(j for j, edge in enumerate(edges) if t <= edge), cause
    passed = [j for j, edge in enumerate(edges) if edge <= t]
    return (passed[-1], 0) if passed else None


def pmf_by_hand(logits: np.ndarray) -> np.ndarray:
    """Probability of each cause and bin, [cause, bin]; the rest outlives them all."""
    weights = np.exp(logits)
    return weights / (1 + weights.sum())


def likelihood_by_hand(p: list[np.ndarray], seen: list[tuple[int, int]]) -> float:
    total = 0.0
    for of, (j, cause) in zip(p, seen, strict=True):
        total -= math.log(of[cause - 1, j]) if cause else math.log(1 - of[:, : j + 1].sum())
    return total / len(seen)


def ranking_by_hand(p: list[np.ndarray], seen: list[tuple[int, int]], sigma: float) -> float:
    total = 0.0
    for of_i, (i, cause) in zip(p, seen, strict=True):
        for of_j, (j, other) in zip(p, seen, strict=True):
            if cause and (i < j or (i == j and not other)):
                mine, theirs = of_i[cause - 1, : i + 1].sum(), of_j[cause - 1, : i + 1].sum()
                total += math.exp(-(mine - theirs) / sigma)
    return total / len(seen) ** 2


def by_hand(name: str, task: BinnedSurvival, raw: Tensor, days: list[float], event: list[int]) -> float:
    """The loss of the head from its formula."""
    edges, values = task.edges.tolist(), raw.numpy()
    if name == "pc_hazard":
        total = 0.0
        for phi, t, e in zip(values, days, event, strict=True):
            begins, cumulative = 0.0, 0.0
            for j, edge in enumerate(edges):
                rate = math.log1p(math.exp(phi[j]))  # over the whole bin
                cumulative += rate * min(1.0, max(0.0, (t - begins) / (edge - begins)))
                if e and begins < t <= edge:
                    total -= math.log(rate)
                begins = edge
            total += cumulative
        return total / len(days)
    if name == "hazard":
        total = 0.0
        for z, t, e in zip(values, days, event, strict=True):
            begins = 0.0
            for odds, edge in zip(z, edges, strict=True):
                h = 1 / (1 + math.exp(-odds))
                if e and begins < t <= edge:
                    total -= math.log(h)
                else:
                    total -= min(1.0, max(0.0, (t - begins) / (edge - begins))) * math.log(1 - h)
                begins = edge
        return total / len(days)
    placed = [bins_by_hand(edges, t, e) for t, e in zip(days, event, strict=True)]
    kept = [(row, where) for row, where in zip(values, placed, strict=True) if where is not None]
    if not kept:
        return 0.0
    seen = [where for _, where in kept]
    rows = [row for row, _ in kept]
    if name == "mtlr":
        rows = [np.array([row[j:].sum() for j in range(BINS)]) for row in rows]
    p = [pmf_by_hand(row.reshape(-1, BINS)) for row in rows]
    if not name.startswith("deephit"):
        return likelihood_by_hand(p, seen)
    return 0.2 * likelihood_by_hand(p, seen) + 0.8 * ranking_by_hand(p, seen, 0.1)


def cases(edges: list[float], causes: int) -> dict[str, tuple[list[float], list[int]]]:
    first, second, last = edges[0], edges[1], edges[-1]
    both = [1, causes]
    return {
        "ties": ([second, second, second, second - 1, first, first], [1, 0, causes, 0, causes, 0]),
        "censored before the first edge": ([first / 2, first / 3, second, last - 1], [0, 1, 0, causes]),
        "all censored": ([first / 2, first, second + 1, last, last + 300], [0] * 5),
        "all censored before the first edge": ([first / 2, first / 3], [0, 0]),
        "one event": ([second - 1], [1]),
        "beyond the bins": ([last + 1, last + 500, last, second], [1, 0, causes, 1]),
        "mixed": ([1, first, second - 1, second + 1, edges[2], last - 1] * 2, [1, 0, *both, 0, *both, 0, 1, 0, *both]),
    }  # fmt: skip


@every_head
def test_the_loss_is_its_formula(name: str) -> None:
    task = head(name)
    for word, (days, event) in cases(task.edges.tolist(), max(1, len(HEADS[name][1].causes))).items():
        raw = raw_of(name, len(days)).requires_grad_(True)
        loss = task.loss(raw, target(days, event))
        assert float(loss.detach()) == pytest.approx(
            by_hand(name, task, raw.detach(), days, event), rel=1e-6, abs=1e-6
        ), word
        loss.backward()
        assert raw.grad is not None
        assert torch.isfinite(raw.grad).all(), word
        single = copy.deepcopy(task).float().loss(raw.detach().float(), target(days, event))
        assert float(single) == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-5), word


@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(HEADS)), seed=st.integers(0, 99),
    who=st.lists(st.tuples(st.floats(0.01, 5000), st.integers(0, 2)), min_size=1, max_size=9),
)  # fmt: skip
def test_the_loss_is_its_formula_for_anybody(name: str, seed: int, who: list[tuple[float, int]]) -> None:
    task = head(name)
    days, event = [t for t, _ in who], [min(e, max(1, len(HEADS[name][1].causes))) for _, e in who]
    raw = raw_of(name, len(who), seed)
    told = by_hand(name, task, raw, days, event)
    assert float(task.loss(raw, target(days, event))) == pytest.approx(told, rel=1e-6, abs=1e-6)


def test_other_heads_count_other_causes_as_censored() -> None:
    days, codes = [300.0, 500.0, 900.0, 100.0], [1, 2, 0, 2]
    for name in ("hazard", "pc_hazard", "pmf", "mtlr"):
        raw = raw_of(name, 4)
        assert torch.equal(head(name).loss(raw, target(days, codes)), head(name).loss(raw, target(days, [1, 0, 0, 0])))
        assert HEADS[name][0].counted(np.array([0.0, 1, 2])).tolist() == [0, 1, 0]
    assert DeepHit.counted(np.array([0.0, 1, 2])).tolist() == [0, 1, 2]


# --- curves -----------------------------------------------------------------------------------------------------------

raws = st.lists(st.floats(-30, 30), min_size=2 * BINS, max_size=2 * BINS)


@every_head
@settings(max_examples=20)
@given(values=raws, days=st.lists(st.floats(0, 9000), min_size=2, max_size=6))
def test_a_survival_curve_begins_with_one_and_never_rises(name: str, values: list[float], days: list[float]) -> None:
    for task, kind in ((head(name), torch.float64), (copy.deepcopy(head(name)).float(), torch.float32)):
        raw = torch.tensor([values[: outputs(name)]], dtype=kind)
        curve = task.survival(raw, sorted(days))[0]
        assert ((curve >= 0) & (curve <= 1)).all()
        assert (curve.diff() <= 1e-6).all()
        assert float(task.survival(raw, [0.0])) == 1


@every_head
@settings(max_examples=20)
@given(seed=st.integers(0, 999), steps=st.lists(st.floats(0.05, 3), min_size=2, max_size=4))
def test_the_order_of_the_risks_follows_an_offset(name: str, seed: int, steps: list[float]) -> None:
    task = head(name)
    raw = raw_of(name, 1, seed).expand(len(steps) + 1, -1)
    by = torch.tensor([0.0, *np.cumsum(steps)], dtype=torch.float64)[:, None] - 2
    moved = task.moved(raw, by)
    assert moved.shape == raw.shape
    assert (task.score(moved).diff() > 0).all()
    torch.testing.assert_close(task.moved(raw, by * 0), raw)
    torch.testing.assert_close(task.moved(moved, -by), raw)


@every_head
def test_an_offset_moves_the_log_odds_of_the_hazard(name: str) -> None:
    task, raw = head(name), raw_of(name, 4)
    by = torch.full((4, 1), 0.7, dtype=torch.float64)
    if len(HEADS[name][1].causes) < 2:
        torch.testing.assert_close(task.hazard_log_odds(task.moved(raw, by)), task.hazard_log_odds(raw) + 0.7)
        return
    before, after = (hazards_of(r.reshape(4, 2, BINS)) for r in (raw, task.moved(raw, by)))
    torch.testing.assert_close(after[:, 0], before[:, 0] + 0.7)
    torch.testing.assert_close(after[:, 1], before[:, 1])


@every_head
def test_the_score_is_an_area_and_has_a_gradient(name: str) -> None:
    task = head(name)
    raw = raw_of(name, 2, 5).requires_grad_(True)
    ends = [0.0, *task.edges.tolist()]
    for i in range(2):
        if isinstance(task, DeepHit) and task.causes > 1:
            lost = _area(lambda t, i=i, task=task: float(task.incidence(raw[i : i + 1].detach(), [t])[0, 0, 0]), ends)
            area = ends[-1] - lost
        else:
            area = _area(lambda t, i=i: float(task.survival(raw[i : i + 1].detach(), [t])[0, 0]), ends)
        assert float(task.score(raw.detach())[i]) == pytest.approx(-area / 365.25, rel=1e-6)
    task.score(raw).sum().backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    assert (raw.grad != 0).any(1).all()


def _area(of: Any, ends: list[float]) -> float:
    return sum(quad(of, a, b)[0] for a, b in itertools.pairwise(ends))


@every_head
def test_extremes_stay_finite(name: str) -> None:
    task = copy.deepcopy(head(name)).float()
    raw = (torch.tensor([[-200.0], [200.0], [0.0]]) * torch.ones(3, outputs(name))).requires_grad_(True)
    for days, event in (([300, 300, 300], [0, 1, 0]), ([1e6] * 3, [1, 0, 1]), ([0.0] * 3, [1, 0, 0])):
        loss = task.loss(raw, target(days, event))
        (gradient,) = torch.autograd.grad(loss + task.score(raw).sum(), raw)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


@every_head
def test_public_words(name: str) -> None:
    task = copy.deepcopy(head(name)).float()
    raw = task.head(torch.randn(4, 8), {})
    assert raw.shape == (4, outputs(name))
    told = task.predict(raw)
    words = ["risk", *(f"surv:{d:g}" for d in HORIZONS_DAYS)]
    causes = HEADS[name][1].causes
    assert list(told) == words + [f"cif:{cause}:{d:g}" for cause in causes for d in HORIZONS_DAYS]
    assert all(v.shape == (4,) for v in told.values())
    for d in HORIZONS_DAYS if causes else ():
        torch.testing.assert_close(told[f"cif:cancer:{d:g}"] + told[f"cif:other:{d:g}"], 1 - told[f"surv:{d:g}"])


# --- what is fitted ---------------------------------------------------------------------------------------------------


@every_head
@settings(max_examples=10)
@given(seed=st.integers(0, 200), unit=st.sampled_from([1.0, 30.4375, 365.25]))
def test_base_rates_are_the_best_constant(name: str, seed: int, unit: float) -> None:
    """At the fitted baseline the gradient of the likelihood on the training patients vanishes."""
    cls, spec = HEADS[name]
    rng = np.random.Generator(np.random.PCG64(seed))
    causes = max(1, len(spec.causes))
    value, event = rng.integers(1, 60, 300) * unit, (rng.random(300) < 0.6) * rng.integers(1, causes + 1, 300) * 1.0
    options = {"alpha": 1.0} if cls is DeepHit else {}
    task = cls(spec, 2, cls.fit(spec, value, event, bins=4), **options)  # type: ignore[call-arg]
    odds = torch.as_tensor(task.baseline).detach().double()
    raw = (torch.zeros(300, 1) + task.baseline).detach().double().requires_grad_(True)
    loss = task.loss(raw, target(value, event))
    loss.backward()
    assert raw.grad is not None
    z = hazards_of(task.logits(odds[None])[:, None]) if isinstance(task, PMF | MTLR) else odds.reshape(1, causes, -1)
    z = hazards_of(z) if isinstance(task, DeepHit) else z
    if bool((z.abs() < 4.5).all()):  # shares are kept within 1 and 99 %
        assert raw.grad.sum(0).abs().max() < 1e-5


def test_what_a_head_cannot_do_is_told() -> None:
    for name, (cls, spec) in HEADS.items():
        with pytest.raises(NoEvents, match="task os: 1 of 3 training patients had the event"):
            cls.fit(spec, np.array([1.0, 2, 3]), np.array([0.0, 1, 0]))
        assert head(name).edges[0] > 0
    state = DeepHit.fit(ONE, *follow_up(1))
    for wrong in ({"alpha": 1.5}, {"sigma": 0.0}):
        with pytest.raises(UsageFault, match=r"alpha=.* is to lie within 0 and 1, and sigma=.* above 0"):
            DeepHit(ONE, 8, state, **wrong)


@settings(max_examples=40)
@given(days=st.lists(st.floats(0, 4000, width=32), min_size=1, max_size=12), happens=st.booleans())
def test_bins_are_those_of_pycox(days: list[float], happens: bool) -> None:
    import pycox.preprocessing.label_transforms as transforms

    edges = head("hazard").edges.float()
    value = torch.tensor([*days, *edges.tolist()]).clamp(max=float(edges[-1]))
    at, event = whole_bins(edges, value, torch.full_like(value, float(happens)))
    theirs = transforms.LabTransDiscreteTime(np.concatenate([[0.0], edges.numpy()]).astype(np.float64))
    ends = np.append(value.numpy().astype(float), [float(edges[-1])] * 2)  # an event and a censoring, which it needs
    number, _ = theirs.transform(ends, np.append(event.numpy(), [1.0, 0.0]))
    assert (np.maximum(number[:-2], 1 if happens else 0) - 1).tolist() == at.tolist()
    last, share, _ = exact_bins(edges, value, event)
    begins = torch.cat([torch.zeros(1), edges])[last]
    torch.testing.assert_close(begins + share * (edges[last] - begins), value, rtol=1e-5, atol=1e-3)
    assert ((share >= 0) & (share <= 1)).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 99), causes=st.integers(1, 3))
def test_logits_and_log_odds_are_two_words_for_the_same(seed: int, causes: int) -> None:
    logits = torch.randn(3, causes, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4
    torch.testing.assert_close(logits_of(hazards_of(logits)), logits)
    p = logits.flatten(1).exp() / (1 + logits.flatten(1).exp().sum(1, keepdim=True))
    p = p.view_as(logits)
    outlives = 1 - p.sum(1).cumsum(1)
    torch.testing.assert_close(hazards_of(logits), (p / outlives[:, None]).log(), rtol=1e-6, atol=1e-6)
