from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from nsclc_mtl.metrics import calibration
from nsclc_mtl.metrics import classification as c
from nsclc_mtl.metrics.score import Score

labelled = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=1, max_size=30)
graded = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=25)


def three_classes(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, n)
    p = rng.dirichlet(np.ones(3), n) + 0.4 * np.eye(3)[y]
    return y.astype(float), p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("marker", ["s100b", "ndka", "wfns"])
def test_auc_is_that_of_proc(bleeding: dict[str, Any], marker: str) -> None:
    assert c.auc(bleeding["outcome"], bleeding[marker]) == pytest.approx(bleeding[f"auc_{marker}"], abs=1e-12)


@given(labelled)
def test_auc_is_that_of_scikit_learn_and_turns_over(rows: list[tuple[int, int]]) -> None:
    y, s = np.array(rows, dtype=float).T
    ours = c.auc(y, s)
    if len(set(y)) < 2:
        assert math.isnan(ours)
        assert ours.reason.startswith("one class only")
        return
    assert ours == pytest.approx(sk.roc_auc_score(y, s), abs=1e-12)
    assert ours + c.auc(y, -s) == pytest.approx(1)
    assert c.auc(1 - y, s) == pytest.approx(1 - ours)
    assert c.auc(y, np.exp(s)) == pytest.approx(ours)


@given(graded)
def test_ordinal_auc_counts_pairs_of_unequal_grades(rows: list[tuple[int, int]]) -> None:
    y, s = np.array(rows, dtype=float).T
    higher = y[:, None] > y
    won = (s[:, None] > s) + 0.5 * (s[:, None] == s)
    ours = c.ordinal_auc(y, s)
    if not higher.any():
        assert not ours.known
        assert ours.reason == "one class only"
    else:
        assert ours == pytest.approx(won[higher].mean(), abs=1e-12)


def test_perfect_constant_and_reversed() -> None:
    y = [0, 0, 1, 1]
    assert c.auc(y, y) == 1
    assert c.auc(y, [1, 1, 1, 1]) == 0.5
    assert c.auc(y, [1, 1, 0, 0]) == 0
    assert c.ordinal_auc([0, 1, 2, 3], [0.1, 0.2, 0.3, 0.4]) == 1


def test_unknown_labels_are_left_out_and_unknown_scores_are_named() -> None:
    assert c.auc([0, 1, np.nan], [0.1, 0.2, 0.9]) == 1
    assert c.auc([0, 1], [np.nan, 0.2]).reason == "1 of 2 scores are NaN"
    assert c.auc([], []).reason == "no patients"
    with pytest.raises(ValueError, match="3 labels but 2 predictions"):
        c.auc([0, 1, 1], [1, 2])
    with pytest.raises(ValueError, match="0, 1 or NaN"):
        c.auc([0, 1, 2], [1, 2, 3])


def test_many_classes_as_scikit_learn_has_them() -> None:
    y, p = three_classes()
    assert c.macro_auc(y, p) == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr", average="macro"), abs=1e-12)
    assert c.balanced_accuracy(y, p) == pytest.approx(sk.balanced_accuracy_score(y, p.argmax(1)), abs=1e-12)
    assert c.brier(y, p) == pytest.approx(((p - np.eye(3)[y.astype(int)]) ** 2).sum(1).mean())
    assert c.brier(y > 1, np.stack([1 - p[:, 2], p[:, 2]], 1)) == pytest.approx(sk.brier_score_loss(y > 1, p[:, 2]))
    cuts = c.auc_per_cut(y, p)
    assert cuts[0] == pytest.approx(sk.roc_auc_score(y > 0, 1 - p[:, 0]))
    assert cuts[1] == pytest.approx(sk.roc_auc_score(y > 1, p[:, 2]), abs=1e-9)


def test_a_class_nobody_has_makes_the_macro_auc_nan_by_name() -> None:
    y, p = three_classes()
    assert c.macro_auc(np.where(y == 2, 0, y), p).reason == "class 2: one class only (0 positive of 200)"
    assert c.balanced_accuracy(np.zeros(5), np.ones((5, 2)) / 2).reason == "one class only"


def test_a_score_is_a_float_that_survives_pickling() -> None:
    import pickle

    missing = pickle.loads(pickle.dumps(Score.missing("why")))
    assert not missing.known
    assert missing.reason == "why"
    assert repr(missing) == "Score(nan, 'why')"
    assert Score(0.5) + 0.25 == 0.75


def test_calibration_slope_is_the_logistic_fit_of_r(bleeding: dict[str, Any]) -> None:
    p = 1 / (1 + np.exp(1 - 3 * np.array(bleeding["s100b"])))
    slope, intercept = calibration.calibration_slope(bleeding["outcome"], p)
    assert [float(intercept), float(slope)] == pytest.approx(bleeding["recalibrate"], rel=1e-6)


def test_calibration_of_true_probabilities_and_of_extreme_ones() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, 20000)
    y = (rng.random(20000) < p).astype(float)
    slope, intercept = calibration.calibration_slope(y, p)
    assert slope == pytest.approx(1, abs=0.05)
    assert intercept == pytest.approx(0, abs=0.05)
    logit = np.log(p / (1 - p))
    assert calibration.calibration_slope(y, 1 / (1 + np.exp(-3 * logit)))[0] == pytest.approx(slope / 3, abs=1e-4)
    assert calibration.calibration_error(y, np.stack([1 - p, p], 1)) < 0.02
    assert calibration.calibration_error(np.zeros(4), np.tile([0.1, 0.9], (4, 1))) == pytest.approx(0.9)


def test_calibration_says_why_it_is_missing() -> None:
    assert "at least 5" in calibration.calibration_slope([0, 1], [0.2, 0.8])[0].reason
    assert "constant" in calibration.calibration_slope([0, 1] * 9, [0.5] * 18)[0].reason
    assert (
        "separated"
        in calibration.calibration_slope([0] * 9 + [1] * 9, [0.1, 0.2, 0.3] * 3 + [0.7, 0.8, 0.9] * 3)[0].reason
    )
    assert calibration.calibration_error([], np.zeros((0, 2))).reason == "no patients"
