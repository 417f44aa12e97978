from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsclc_mtl.metrics.decision import net_benefit, net_benefit_at

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads((GOLDEN / "decision.json").read_text())


def numbers(values: list[float | None]) -> list[float]:
    return [np.nan if v is None else v for v in values]


def test_net_benefit_is_that_of_a_loop_in_r(golden: dict[str, Any]) -> None:
    r, at = golden["binary"], golden["thresholds"]
    assert net_benefit(r["y"], r["p"], at)[0] == pytest.approx(r["benefit"], abs=1e-12)
    assert net_benefit(r["y"], np.ones(len(r["y"])), at)[0] == pytest.approx(r["all"], abs=1e-12)


@pytest.mark.parametrize("data", ["lung", "heavy"])
def test_net_benefit_at_a_horizon_is_that_of_r(golden: dict[str, Any], data: str) -> None:
    r, at = golden[data], golden["thresholds"]
    known = (r["time"], r["event"], r["when"], at)
    assert net_benefit_at(r["risk"], *known)[0] == pytest.approx(numbers(r["benefit"]), abs=1e-9, nan_ok=True)
    assert net_benefit_at(np.ones(len(r["time"])), *known)[0] == pytest.approx(r["all"], abs=1e-9)


def test_without_censoring_survival_is_a_class(golden: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    time, risk = rng.integers(1, 9, 80) * 1.0, rng.random(80)
    w = rng.multinomial(80, np.full(80, 1 / 80), size=5)
    at = golden["thresholds"]
    ours = net_benefit_at(risk, time, np.ones(80), 4, at, w)
    assert ours == pytest.approx(net_benefit(time <= 4, risk, at, w), abs=1e-12)
    again = np.repeat(np.arange(80), w[2])
    event = rng.integers(0, 2, 80)
    one = net_benefit_at(risk, time, event, 4, at, w)[2]
    assert one == pytest.approx(net_benefit_at(risk[again], time[again], event[again], 4, at)[0], abs=1e-12)


def test_edges_of_net_benefit() -> None:
    assert net_benefit([1, 0, 0, 0], [0.1] * 4, [0.5])[0] == 0  # nobody is treated
    assert net_benefit([0, 0], [1, 1], [0.5])[0] == -1  # nobody has the outcome, everybody is treated
    assert net_benefit([1, np.nan], [0.9, 0.9], [0.2])[0] == 1
    assert np.isnan(net_benefit([], [], [0.5])).all()
    assert np.isnan(net_benefit_at([0.9, 0.1], [1, 9], [0, 1], 5, [0.5])).all()  # the one above is censored before
    assert net_benefit_at([0.9, 0.1], [1, 9], [1, 1], 5, [0.5])[0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        net_benefit([1], [1], [1.0])
