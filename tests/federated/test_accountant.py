"""The accountant: epsilon is that of another library, and of a plain numeric integral."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("opacus")

from nsclc_mtl.federated import accountant
from nsclc_mtl.federated.accountant import Steps
from nsclc_mtl.federated.plan import Privacy
from nsclc_mtl.records import DataFault, IntegrityFault, UsageFault

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "privacy.json").read_text())
LOW = [  # best orders are so low that the other library's series does not converge
    {"noise": 2.0, "q": 0.5, "steps": 120, "delta": 1e-5},
    {"noise": 0.5, "q": 0.3, "steps": 500, "delta": 1e-5},
]


def integrated(noise: float, q: float, steps: int, delta: float) -> float:
    """Epsilon by integrating the Rényi divergence of the sampled Gaussian at every order, and Balle's conversion."""
    z = np.linspace(-20 * noise, 20 * noise + 130, 40_001)
    null = -(z**2) / (2 * noise**2) - math.log(noise * math.sqrt(2 * math.pi))
    with np.errstate(divide="ignore"):
        ratio = np.logaddexp(np.log1p(-np.float64(q)), math.log(q) + (2 * z - 1) / (2 * noise**2))
    best = math.inf
    for order in (*np.arange(1.02, 11, 0.02), *range(11, 101)):
        far = null + order * ratio  # of the neighbour with the patient; the other direction is never the larger one
        top = far.max()
        divergence = (top + math.log(np.exp(far - top).sum() * (z[1] - z[0]))) / (order - 1)
        told = (math.log(delta) + math.log(order)) / (order - 1)
        best = min(best, steps * divergence + math.log((order - 1) / order) - told)
    return best


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['noise']}-{case['q']:.2g}-{case['steps']}")
def test_epsilon_is_that_of_another_accountant(case: dict[str, Any]) -> None:
    ours, delta = accountant.spent(case["noise"], case["q"], case["steps"], case["delta"])
    assert delta == case["delta"]
    assert ours == pytest.approx(case["rdp"], rel=0.01)
    assert case["pld"] <= ours * 1.0001  # an upper bound: what the tighter accountant says is never more


@pytest.mark.parametrize("case", [GOLDEN[0], GOLDEN[2], GOLDEN[4], *LOW])
def test_epsilon_is_that_of_a_plain_integral(case: dict[str, Any]) -> None:
    ours, _ = accountant.spent(case["noise"], case["q"], case["steps"], case["delta"])
    plain = integrated(case["noise"], case["q"], case["steps"], case["delta"])
    assert plain * 0.9999 <= ours  # the integral has more orders to choose from
    assert ours == pytest.approx(plain, rel=0.01)


def test_more_steps_more_patients_and_less_noise_cost_more() -> None:
    base = accountant.spent(1.0, 0.1, 50, 1e-5)[0]
    assert accountant.spent(1.0, 0.1, 51, 1e-5)[0] > base
    assert accountant.spent(1.0, 0.11, 50, 1e-5)[0] > base
    assert accountant.spent(0.9, 0.1, 50, 1e-5)[0] > base
    assert accountant.spent(1.0, 0.1, 50, 1e-6)[0] > base
    assert accountant.spent(1.0, 0.1, 0, 1e-5) == (0.0, 1e-5)


def test_steps_and_noise_are_found_from_epsilon() -> None:
    steps = accountant.steps_for(4.0, 1.2, 0.1, 1e-5)
    assert accountant.spent(1.2, 0.1, steps, 1e-5)[0] <= 4.0 < accountant.spent(1.2, 0.1, steps + 1, 1e-5)[0]
    assert accountant.steps_for(0.01, 0.5, 0.5, 1e-5) == 0
    assert accountant.steps_for(100.0, 50.0, 0.01, 1e-5, most=40) == 40
    noise = accountant.noise_for(2.0, 0.1, 60, 1e-5)
    assert accountant.spent(noise, 0.1, 60, 1e-5)[0] <= 2.0 < accountant.spent(noise * 0.998, 0.1, 60, 1e-5)[0]
    with pytest.raises(UsageFault, match="above 0"):
        accountant.noise_for(0.0, 0.1, 60, 1e-5)
    with pytest.raises(UsageFault, match="out of reach"):
        accountant.noise_for(1e-9, 1.0, 10_000, 1e-9)


@pytest.mark.parametrize("bad", [(0.0, 0.1, 1e-5), (1.0, 0.0, 1e-5), (1.0, 1.1, 1e-5), (1.0, 0.1, 1.0)])
def test_values_that_are_none_are_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(UsageFault, match="noise="):
        accountant.spent(bad[0], bad[1], 10, bad[2])


def test_the_sentence_tells_the_promise_and_a_delta_that_is_none() -> None:
    told = accountant.said(Privacy(), [Steps(1.0, 0.1, 20), Steps(1.0, 0.1, 40)], 300)
    assert "epsilon=6.33 at delta=1e-05 after 60 steps" in told
    assert "with q=0.1;" in told
    assert "delta is not below" not in told
    assert "delta is not below 1/n" in accountant.said(Privacy(delta=0.01), [Steps(1.0, 0.1, 60)], 300)
    assert "epsilon=0 " in accountant.said(Privacy(), [], 300)


def test_parts_with_other_rates_add_up() -> None:
    one, other = Steps(1.0, 0.1, 30), Steps(1.0, 0.3, 10)
    both = accountant.together([one, other], 1e-5)
    single = [accountant.together([part], 1e-5) for part in (one, other)]
    assert max(single) < both < sum(single)
    assert accountant.together([other, one], 1e-5) == pytest.approx(both, rel=1e-12)
    assert accountant.together([Steps(1.0, 0.1, 10)] * 6, 1e-5) == pytest.approx(
        accountant.spent(1.0, 0.1, 60, 1e-5)[0]
    )


def test_a_ledger_counts_every_step_over_restarts_and_ends_where_the_promise_ends(tmp_path: Path) -> None:
    path, steps = tmp_path / "site" / "privacy.jsonl", Steps(1.0, 0.1, 20)
    ledger = accountant.Ledger(path)
    first = ledger.take(0, steps, 1e-5, most=6.5)
    second = accountant.Ledger(path).take(0, steps, 1e-5, most=6.5)  # the process was ended between the two
    assert first < second == pytest.approx(accountant.spent(1.0, 0.1, 40, 1e-5)[0])
    again = accountant.Ledger(path)
    assert again.take(1, steps, 1e-5, most=6.5) == pytest.approx(first)  # another fold
    again.take(0, steps, 1e-5, most=6.5)
    with pytest.raises(DataFault, match="would spend epsilon=7"):
        again.take(0, steps, 1e-5, most=6.5)
    assert again.of(0) == accountant.Ledger(path).of(0) == [steps] * 3
    assert accountant.together(again.of(), 1e-5) == pytest.approx(accountant.spent(1.0, 0.1, 80, 1e-5)[0])
    path.write_text(path.read_text() + '["half')
    with pytest.raises(IntegrityFault, match="promised is not known any more"):
        accountant.Ledger(path)
