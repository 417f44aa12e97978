"""A stated population: the temperature is fitted before, and sets and probabilities agree after."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.commands import confidence
from nsclc_mtl.records import Manifest, TaskSpec
from nsclc_mtl.tasks import prior
from nsclc_mtl.trust import conformal, temperature

SPEC = TaskSpec("response", "binary", ("no", "yes"), ("r",))


def made() -> tuple[pd.DataFrame, Manifest, np.ndarray]:
    draw = np.random.default_rng(0)
    p = draw.beta(1, 3, 300)
    label = (draw.random(300) < p).astype(float)
    ids = [f"p{i}" for i in range(300)]
    wide = pd.DataFrame({"p:no": 1 - p, "p:yes": p}, index=ids)
    labels = {"response": pd.DataFrame({"value": label}, index=ids)}
    return wide, Manifest("toy", pd.DataFrame(index=ids), {"response": SPEC}, {}, labels), label


def test_probabilities_go_to_the_population_after_the_temperature() -> None:
    wide, manifest, label = made()
    share = float(label.mean())
    ratio = prior.population(SPEC, {"no": 0.5, "yes": 0.5}, [1 - share, share])
    trust = confidence.fit({"response": wide}, manifest, 0.2, {"response": ratio})
    plain = confidence.fit({"response": wide}, manifest, 0.2)
    assert trust["response"]["temperature"] == plain["response"]["temperature"]
    told = confidence.scaled({"response": wide}, manifest, trust, {"response": ratio})["response"].to_numpy()
    by_hand = temperature.scaled(wide.to_numpy(), trust["response"]["temperature"])
    odds = by_hand[:, 1] / by_hand[:, 0] * (1 - share) / share
    assert told[:, 1] == pytest.approx(odds / (1 + odds))
    # a sample with that prevalence is calibrated in the large
    weight = np.where(label == 1, 0.5 / share, 0.5 / (1 - share))
    assert np.average(told[:, 1], weights=weight) == pytest.approx(0.5, abs=0.05)
    covered = conformal.sets(told, trust["response"]["threshold"])[np.arange(300), label.astype(int)].mean()
    assert covered >= 0.8


def test_without_a_population_nothing_moves() -> None:
    wide, manifest, _ = made()
    pd.testing.assert_frame_equal(confidence.scaled({"response": wide}, manifest, {})["response"], wide)


def test_a_number_gets_an_interval() -> None:
    ids = [f"p{i}" for i in range(19)]
    spec = TaskSpec("ki67", "regression", (), ("k",))
    said = pd.DataFrame({"value": np.zeros(19)}, index=ids)
    labels = {"ki67": pd.DataFrame({"value": np.arange(19.0)}, index=ids)}
    manifest = Manifest("toy", pd.DataFrame(index=ids), {"ki67": spec}, {}, labels)
    trust = confidence.fit({"ki67": said}, manifest, 0.1)
    assert trust["ki67"] == {"half_width": 17.0, "miss": 0.1, "n": 19}  # the 18th smallest error
    outputs = confidence.scaled({"ki67": said}, manifest, trust)
    pd.testing.assert_frame_equal(outputs["ki67"], said)
    other = {"ki67": said + 4}
    sets = confidence.sets([(outputs, trust), (other, trust), (other, trust)], manifest)
    assert set(sets["set:ki67"]) == {"-13 to 21"}
