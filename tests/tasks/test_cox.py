"""Cox's task: the partial likelihood against R, double loops and finite differences; Breslow's baseline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.linear_model.coxph import CoxPHOptimizer

from nsclc_mtl.records import NoEvents, Target, TaskSpec, UsageFault
from nsclc_mtl.tasks.cox import TIES, Cox, cumulative_hazard, partial_likelihood

SPEC = TaskSpec("os", "survival", (), ("t", "e"), "OS")
GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "survival.json"


def drawn(n: int, seed: int, times: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, days of few different values, and events, of which there is at least one."""
    rng = np.random.Generator(np.random.PCG64(seed))
    event = (rng.random(n) < 0.6).astype(float)
    event[0] = 1
    return rng.normal(size=n) * 2, rng.integers(1, times + 1, n).astype(float), event


def by_hand(score: np.ndarray, days: np.ndarray, event: np.ndarray, ties: str) -> float:
    """Death by death, as it stands in the book."""
    terms = []
    for day in sorted(set(days[event == 1])):
        dead = [i for i in range(len(days)) if days[i] == day and event[i] == 1]
        at_risk = sum(np.exp(score[i]) for i in range(len(days)) if days[i] >= day)
        together = sum(np.exp(score[i]) for i in dead)
        for k, i in enumerate(dead):
            taken = k / len(dead) * together if ties == "efron" else 0.0
            terms.append(np.log(at_risk - taken) - score[i])
    return float(np.mean(terms))


def ours(score: np.ndarray, days: np.ndarray, event: np.ndarray, ties: str) -> float:
    return float(partial_likelihood(torch.tensor(score), torch.tensor(days), torch.tensor(event), ties))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9999), n=st.integers(1, 30), times=st.sampled_from([1, 3, 10, 1000]), ties=st.sampled_from(TIES)
)
def test_the_likelihood_is_the_one_written_out(seed: int, n: int, times: int, ties: str) -> None:
    score, days, event = drawn(n, seed, times)
    loss = ours(score, days, event, ties)
    assert loss == pytest.approx(by_hand(score, days, event, ties), rel=1e-9, abs=1e-9)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(n)
    assert ours(score[order], days[order], event[order], ties) == pytest.approx(loss, rel=1e-9, abs=1e-9)
    assert ours(score + 50, days**2, event, ties) == pytest.approx(loss, rel=1e-9, abs=1e-9)  # ranks and ratios alone
    single = Cox(SPEC, 4, {"hazard": [0.1] * 6}, ties=ties).loss(torch.tensor(score).float(), whole(days, event))
    assert float(single) == pytest.approx(loss, rel=1e-5, abs=1e-5)


def test_r_has_the_same_likelihood_and_maximum() -> None:
    """`survival::coxph` on NCCTG lung, of which many times are tied."""
    golden = json.loads(GOLDEN.read_text())
    x, days, event = (torch.tensor(golden[word], dtype=torch.float64) for word in ("x", "time", "event"))
    for ties in TIES:
        beta = torch.tensor(golden[ties], dtype=torch.float64, requires_grad=True)
        loss = partial_likelihood(x @ beta, days, event, ties)
        if ties == "efron":
            assert float(-loss.detach() * event.sum()) == pytest.approx(golden["efron_loglik"], rel=1e-9)
        loss.backward()
        assert beta.grad is not None
        assert float(beta.grad.abs().max()) < 1e-7


@pytest.mark.parametrize("ties", TIES)
def test_scikit_survival_has_the_same_likelihood_and_slope(ties: str) -> None:
    _, days, event = drawn(60, 3)
    x = np.random.Generator(np.random.PCG64(1)).normal(size=(60, 3))
    theirs = CoxPHOptimizer(x, event == 1, days, alpha=np.zeros(3), ties=ties)
    weights = np.array([0.3, -1.0, 0.5])
    beta = torch.tensor(weights, requires_grad=True)
    loss = partial_likelihood(torch.tensor(x) @ beta, torch.tensor(days), torch.tensor(event), ties)
    loss.backward()
    assert float(loss.detach()) * event.sum() == pytest.approx(theirs.nlog_likelihood(weights) * len(days), rel=1e-9)
    theirs.update(weights)
    assert beta.grad is not None
    np.testing.assert_allclose(beta.grad.numpy() * event.sum(), theirs.gradient * len(days), rtol=1e-8)


@pytest.mark.realdata
@pytest.mark.parametrize("file", ["with_ties", "without_ties"])
def test_published_values_of_r(real_data: Path, file: str) -> None:
    """Log likelihoods of `survival` at hazards that are written with four decimals."""
    path = real_data / "survival" / "torchsurv_benchmarks" / f"benchmark_cox_{file}.json"
    if not path.is_file():
        pytest.skip("no torchsurv benchmarks among the real data")
    compared = 0
    for golden in json.loads(path.read_text()):
        days, event = np.array(golden["time"], float), np.array(golden["status"], float)
        for ties in TIES:
            end = f"_{ties}" if file == "with_ties" else ""
            loss = ours(np.array(golden[f"log_hazard{end}"][0]), days, event, ties)
            assert -loss * event.sum() == pytest.approx(golden[f"log_likelihood{end}"][0], rel=1.5e-6)
            compared += 1
    assert compared >= 6


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), n=st.integers(1, 12), ties=st.sampled_from(TIES))
def test_the_gradient_is_that_of_finite_differences(seed: int, n: int, ties: str) -> None:
    score, days, event = drawn(n, seed, 4)
    raw = torch.tensor(score, requires_grad=True)
    partial_likelihood(raw, torch.tensor(days), torch.tensor(event), ties).backward()
    assert raw.grad is not None
    for i in range(n):
        step = np.eye(n)[i] * 1e-6
        slope = (by_hand(score + step, days, event, ties) - by_hand(score - step, days, event, ties)) / 2e-6
        assert float(raw.grad[i]) == pytest.approx(slope, abs=1e-6)
    assert float(raw.grad.sum()) == pytest.approx(0, abs=1e-9)  # only differences of scores matter


@pytest.mark.parametrize("ties", TIES)
def test_corners(ties: str) -> None:
    def of(score: list[float], days: list[float], event: list[float]) -> tuple[float, list[float]]:
        raw = torch.tensor(score, requires_grad=True)
        loss = partial_likelihood(raw, torch.tensor(days), torch.tensor(event), ties)
        loss.backward()
        assert raw.grad is not None
        assert torch.isfinite(raw.grad).all()
        return float(loss.detach()), raw.grad.tolist()

    assert of([1.0, 2.0], [3.0, 4.0], [0.0, 0.0]) == (0, [0, 0])
    assert of([5.0], [3.0], [1.0]) == (0, [0])
    all_tied = (np.log(3) + np.log(2) + np.log(1)) / 3 if ties == "efron" else np.log(3)
    assert of([7.0] * 3, [3.0] * 3, [1.0] * 3)[0] == pytest.approx(all_tied)
    # nothing overflows, and what is next to nothing in its risk set is not lost
    far, grad = of([1e4, -1e4, 0.0, -1e4], [1.0, 2.0, 3.0, 2.0], [1.0, 1.0, 1.0, 1.0])
    assert far == pytest.approx(2e4 / 4)
    assert grad == pytest.approx([0, -0.25, 0.5, -0.25])


def whole(days: np.ndarray, event: np.ndarray, known: torch.Tensor | None = None) -> Target:
    known = torch.ones(len(days), dtype=torch.bool) if known is None else known
    return Target(known, torch.tensor(days, dtype=torch.float32), torch.tensor(event, dtype=torch.float32))


def cox(n: int = 12, seed: int = 0) -> Cox:
    _, days, event = drawn(n, seed, 2000)
    return Cox(SPEC, 8, json.loads(json.dumps(Cox.fit(SPEC, days, event))))


def test_missing_labels_take_no_part_and_nobody_known_costs_nothing() -> None:
    score, days, event = drawn(6, 0)
    known = torch.tensor([True, True, False, True, False, True])
    raw = torch.tensor(score, dtype=torch.float32, requires_grad=True)
    loss = cox().loss(raw, whole(days, event, known))
    days[~known.numpy()], event[~known.numpy()] = [-1.0, np.nan], np.nan
    assert torch.equal(loss, cox().loss(raw, whole(days, event, known)))
    nobody = cox().loss(raw, whole(days, event, ~(known | ~known)))
    assert nobody.item() == 0
    nobody.backward()
    assert raw.grad is not None
    assert raw.grad.abs().sum() == 0


def test_faults_in_words() -> None:
    with pytest.raises(NoEvents, match="task os: none of 2 training patients"):
        Cox.fit(SPEC, np.array([1.0, 2]), np.zeros(2))
    with pytest.raises(UsageFault, match="task os: ties='exact' is none of efron, breslow"):
        Cox(SPEC, 4, {"hazard": [0.1] * 6}, ties="exact")


def test_breslow_by_hand() -> None:
    """Times 1, 2, 2, 3 years; events 1, 1, 1, 0; hazard ratios 1, 2, 3, 4."""
    score, days = np.log([1.0, 2, 3, 4]), np.array([360.0, 700, 700, 1095])
    told = cumulative_hazard(score, days, np.array([1.0, 1, 1, 0]))
    first, second = 1 / 10, 2 / 9  # ties share the risk set of 2 + 3 + 4
    assert told == pytest.approx([0, first, first + second, *[first + second] * 3])
    task = cox()
    task.set_baseline(score, days, np.array([1.0, 1, 1, 0]))
    risk = torch.tensor([0.0, 1.0])
    told_curve = task.predict(risk)["surv:730"]
    torch.testing.assert_close(told_curve, torch.exp(-(first + second) * risk.exp()))
    assert torch.equal(task.predict(risk)["risk"], risk)


def test_nelson_aalen_where_all_scores_are_equal() -> None:
    told = cumulative_hazard(np.zeros(3), np.array([100.0, 200, 3000]), np.array([1, 0, 1]))
    assert told == pytest.approx([1 / 3] * 6)
