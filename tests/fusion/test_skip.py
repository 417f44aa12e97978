"""The linear skip: offsets that are the ridge floor's own, honest in training, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import torch

from nsclc_mtl.baselines.linear import fit_weights
from nsclc_mtl.baselines.model import Outcome
from nsclc_mtl.baselines.ridge import Ridge
from nsclc_mtl.fusion.skip import LinearSkip, mean_tile
from nsclc_mtl.records import Bag, Embedding

N, ONE = 80, Ridge(strongest=1.0, weakest=1.0, steps=1)  # one penalty: nothing is chosen


def data(seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Outcome]:
    rng = np.random.Generator(np.random.PCG64(seed))
    blocks = {"rna": rng.normal(size=(N, 6)), "clinical": rng.normal(2.0, 3.0, size=(N, 2))}
    present = {"rna": rng.random(N) < 0.8, "clinical": np.ones(N, bool)}
    score = np.where(present["rna"], blocks["rna"][:, 0] * 2, 0.0) + 0.3 * blocks["clinical"][:, 1]
    y = (score + rng.logistic(size=N) > np.median(score)).astype(float)
    return blocks, present, Outcome(y, np.zeros(N), 2, True)


def test_weights_do_not_see_the_patients_who_are_set_apart() -> None:
    blocks, present, outcome = data()
    number = np.arange(N) % 2
    apart = [number == 0, number == 1]
    turned = Outcome(np.where(number == 0, 1 - outcome.y, outcome.y), outcome.event, 2, True)
    # the penalty is chosen among all, so that it is held where the labels of fold 0 are turned
    one = lambda of: fit_weights(blocks, present, of, np.arange(N), apart, 1, seed=0, family=ONE)  # noqa: E731
    held, spoiled = one(outcome), one(turned)
    for name in blocks:
        np.testing.assert_allclose(held[name][0], spoiled[name][0])
        assert not np.allclose(held[name][1], spoiled[name][1])
        assert held[name].shape == (3, blocks[name].shape[1] + 1, 1)


def test_scores_are_those_of_a_penalised_regression_of_the_scaled_columns() -> None:
    from scipy.optimize import minimize

    blocks, present, outcome = data()
    weights = fit_weights({"rna": blocks["rna"]}, {"rna": present["rna"]}, outcome, np.arange(N), [], 1, 0, ONE)
    have, share = present["rna"], present["rna"].mean()
    mean, sd = blocks["rna"][have].mean(0), blocks["rna"][have].std(0)
    flag = (have - share) / np.sqrt(share * (1 - share))
    x = np.c_[np.where(have[:, None], (blocks["rna"] - mean) / sd, 0.0), flag]
    penalty = (x**2).sum() / N

    def cost(b: np.ndarray) -> float:
        eta = x @ b[1:] + b[0]
        return float(np.logaddexp(0, eta).sum() - eta @ outcome.y + penalty * (b[1:] ** 2).sum() / 2)

    slope = minimize(cost, np.zeros(8), method="BFGS", options={"gtol": 1e-9}).x[1:]
    wanted = np.where(have, ((blocks["rna"] - mean) / sd) @ slope[:6] + slope[6] / np.sqrt(share * (1 - share)), 0.0)
    w = weights["rna"][-1][:, 0]
    np.testing.assert_allclose(np.where(have, blocks["rna"] @ w[:6] + w[6], 0.0), wanted, atol=1e-4)


def test_in_training_a_patient_is_spoken_of_by_the_line_that_has_not_seen_him() -> None:
    skip = LinearSkip({"rna": 2}, {"grade": 1}, folds=3)
    values = np.arange(4)[:, None, None] * np.ones((4, 3, 1))
    skip.load({"grade": {"rna": values}})
    patients = [f"P{i}" for i in range(9)]
    rows = torch.ones(9, 2)
    told = skip.train()("rna", rows, patients)["grade"][:, 0]
    assert told.tolist() == [3.0 * skip.fold_of(p) for p in patients]
    assert len(set(told.tolist())) == 3
    assert skip.eval()("rna", rows, patients)["grade"][:, 0].tolist() == [9.0] * 9
    assert skip("proteomics", rows, patients) == {}


def test_what_is_absent_adds_nothing_and_the_trust_is_learned() -> None:
    skip = LinearSkip({"rna": 2, "wsi": 2}, {"grade": 1})
    skip.load({"grade": {"rna": np.ones((6, 3, 1)), "wsi": np.ones((6, 3, 1))}})
    skip.eval()
    bag = Bag(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 5.0]]), torch.tensor([0, 2, 2, 3]))
    assert mean_tile(bag).tolist() == [[2.0, 3.0], [0.0, 0.0], [5.0, 5.0]]
    seen = {
        "rna": Embedding(torch.zeros(3, 4), linear=skip("rna", torch.full((3, 2), torch.nan), list("abc"))),
        "wsi": Embedding(torch.zeros(3, 4), linear=skip("wsi", bag, list("abc"))),
    }
    present = {"rna": torch.zeros(3, dtype=torch.bool), "wsi": torch.tensor([True, False, True])}
    joined = skip.joined("grade", seen, present)
    assert joined[:, 0].tolist() == [6.0, 0.0, 11.0]
    joined.sum().backward()
    assert skip.trust["grade"].grad is not None
    assert skip.trust["grade"].grad.item() == 17.0
