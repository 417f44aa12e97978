"""Linear floors of a number: the fits against scikit-learn, the penalty by held-out likelihood, the floor's table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import ElasticNet as TheirNet
from sklearn.linear_model import Ridge as TheirRidge

from nsclc_mtl.baselines.elastic_net import NetPath
from nsclc_mtl.baselines.floor import fit_floors
from nsclc_mtl.baselines.likelihoods import NumberLikelihood
from nsclc_mtl.baselines.linear import fit_weights
from nsclc_mtl.baselines.model import Outcome
from nsclc_mtl.baselines.ridge import RidgePath
from nsclc_mtl.records import TaskSpec

SPEC = TaskSpec("ki67", "regression", (), ("ki67",), unit="%")


def data(n: int = 80, p: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, p))
    return x, 200 + 30 * x[:, 0] - 12 * x[:, 1] + draw.normal(0, 20, n)


def outcome(y: np.ndarray) -> Outcome:
    return Outcome(y, np.zeros(len(y)), 0, True, number=True)


@pytest.mark.parametrize("penalty", [0.5, 20.0, 400.0])
def test_the_ridge_fit_is_that_of_others(penalty: float) -> None:
    x, y = data()
    path = RidgePath(np.array([penalty]))
    theirs = TheirRidge(alpha=penalty).fit(x, y)
    assert path.fit(x, outcome(y), 0)(x) == pytest.approx(theirs.predict(x), rel=1e-7)
    assert path.slope(x, outcome(y), 0)[:, 0] == pytest.approx(theirs.coef_, rel=1e-7)


def test_the_elastic_net_is_that_of_others() -> None:
    x, y = data()
    sd = y.std()
    ours = NetPath(np.array([0.1]), 0.5).fit(x, outcome(y), 0)(x)
    theirs = TheirNet(alpha=0.1, l1_ratio=0.5, tol=1e-10, max_iter=100_000).fit(x, (y - y.mean()) / sd)
    assert ours == pytest.approx(theirs.predict(x) * sd + y.mean(), rel=1e-5)


def test_derivatives_by_differences() -> None:
    x, y = data(12, 3)
    likelihood, at = NumberLikelihood(x, y), np.array([0.3, -0.2, 0.5, 0.1])
    value, gradient, curvature = likelihood(at)
    for k in range(4):
        step = np.eye(4)[k] * 1e-5
        assert (likelihood.value(at + step) - likelihood.value(at - step)) / 2e-5 == pytest.approx(
            gradient[k], rel=1e-6
        )
        change = (likelihood(at + step)[1] - likelihood(at - step)[1]) / 2e-5
        assert -change == pytest.approx(curvature[k], rel=1e-5, abs=1e-6)
    assert likelihood.value(at) == value
    assert likelihood.slopes(at) == pytest.approx(gradient[1:])


def test_a_floor_writes_the_number() -> None:
    x, y = data(120)
    ids = [f"p{i:03d}" for i in range(120)]
    labels = pd.DataFrame({"value": np.where(np.arange(120) % 10 == 3, np.nan, y)}, index=ids)
    splits = pd.DataFrame(
        {"patient_id": ids, "fold": 0, "part": ["test" if i % 4 == 0 else "train" for i in range(120)]}
    )
    table = pd.DataFrame(x, index=ids, columns=list("abcdef"))
    made = fit_floors({"clinical": table}, {"ki67": SPEC}, {"ki67": labels}, splits, None, 0)
    assert set(made["output"]) == {"value"}
    assert len(made) == 30
    known = made[made["target"] != ""]
    truth = known["target"].astype(float)
    assert np.allclose(truth, labels.loc[known["patient_id"], "value"])
    assert np.corrcoef(known["value"], truth)[0, 1] > 0.75
    noise = fit_floors({"clinical": table.sample(frac=1, random_state=1).set_axis(ids)}, {"ki67": SPEC},
                       {"ki67": labels}, splits, None, 0)  # fmt: skip
    assert noise["value"].std() < 0.5 * known["value"].std()  # nothing to learn: held-out likelihood shrinks it
    few = fit_floors({"clinical": table}, {"ki67": SPEC}, {"ki67": labels.mask(np.arange(120)[:, None] > 10)}, splits,
                     None, 0)  # fmt: skip
    assert few["value"].isna().all()


def test_the_skip_weights_are_a_line_of_the_number() -> None:
    x, y = data(100)
    z = (y - y.mean()) / y.std()
    apart = [np.arange(100) % 2 == k for k in (0, 1)]
    made = fit_weights({"t": x}, {"t": np.ones(100, bool)}, outcome(z), np.arange(100), apart, 1, 0)["t"]
    assert made.shape == (3, 7, 1)
    for k, rows in enumerate([~apart[0], ~apart[1], np.ones(100, bool)]):
        said = x @ made[k, :-1, 0] + made[k, -1, 0]
        assert np.corrcoef(said[rows], z[rows])[0, 1] > 0.8
        assert abs(np.polyfit(said, z, 1)[0] - 1) < 0.35  # on the scale of z
