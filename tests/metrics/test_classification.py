from __future__ import annotations

import json
import math
from pathlib import Path
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


@given(labelled)
def test_average_precision_is_that_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    y, s = np.array(rows, dtype=float).T
    ours = c.average_precision(y, s)
    if len(set(y)) < 2:
        assert ours.reason.startswith("one class only")
        return
    assert ours == pytest.approx(sk.average_precision_score(y, s), abs=1e-12)
    assert c.average_precision(y, np.exp(s)) == pytest.approx(ours)


def test_average_precision_of_perfect_constant_and_reversed() -> None:
    assert c.average_precision([0, 0, 1, 1], [1, 2, 3, 4]) == 1
    assert c.average_precision([0, 0, 0, 1], [7, 7, 7, 7]) == 0.25  # the share of positives
    assert c.average_precision([0, 0, 1], [3, 2, 1]) == pytest.approx(1 / 3)
    assert c.average_precision([1, 0], [np.nan, 1]).reason == "1 of 2 scores are NaN"
    assert c.average_precision([], []).reason == "no patients"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=25))
def test_quadratic_kappa_is_that_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    y, s = np.array(rows, dtype=float).T
    ours = c.quadratic_kappa(y, s, 4)
    if len({*y, *s}) == 1:
        assert ours.reason == "one class only, known and predicted"
    else:
        theirs = sk.cohen_kappa_score(y, s, labels=[0, 1, 2, 3], weights="quadratic")
        assert ours == pytest.approx(theirs, abs=1e-12)
        assert c.quadratic_kappa(s, y, 4) == pytest.approx(ours)


def test_quadratic_kappa_of_perfect_constant_and_reversed() -> None:
    assert c.quadratic_kappa([0, 1, 2], [0, 1, 2], 3) == 1
    assert c.quadratic_kappa([0, 1, 2], [1, 1, 1], 3) == 0
    assert c.quadratic_kappa([0, 1, 2], [2, 1, 0], 3) == -1
    assert c.quadratic_kappa([], [], 3).reason == "no patients"
    with pytest.raises(ValueError, match=r"0\.\.2"):
        c.quadratic_kappa([0, 3], [0, 1], 3)


@pytest.mark.parametrize("marker", ["s100b", "ndka", "wfns"])
def test_thresholds_are_those_of_proc(marker: str) -> None:
    golden = json.loads((Path(__file__).parent.parent / "golden" / "metrics.json").read_text())
    y, r = golden["outcome"], golden["classes"][marker]
    ours = [(c.sensitivity(y, r["score"], t), c.specificity(y, r["score"], t)) for t in r["thresholds"]]
    np.testing.assert_allclose(ours, np.c_[r["sensitivities"], r["specificities"]], atol=1e-12)
    cut = c.youden_threshold(y, r["score"])
    assert cut == pytest.approx(r["best"]["threshold"])
    assert c.sensitivity(y, r["score"], cut) == pytest.approx(r["best"]["sensitivity"])


def test_thresholds_of_edge_cases() -> None:
    assert c.youden_threshold([0, 1, 0, 1], [1, 2, 3, 4]) == 1.5  # as good as 3.5, and more sensitive
    assert c.youden_threshold([0, 1], [1, 1]).reason == "the scores do not vary"
    assert c.youden_threshold([1, 1], [1, 2]).reason == "one class only (2 positive of 2)"
    assert c.youden_threshold([0, 1], [np.nan, 2]).reason == "1 of 2 scores are NaN"
    assert c.sensitivity([1, 1, 0], [0.5, 0.4, 0.9], 0.5) == 0.5  # at the threshold is called
    assert c.specificity([1, 0, 0], [0.5, 0.5, 0.4], 0.5) == 0.5
    assert c.sensitivity([0], [1], 0.5).reason == "no positive patient"
    assert c.specificity([1], [1], 0.5).reason == "no negative patient"


def test_every_draw_of_precision_kappa_and_rates_is_that_of_the_patients_drawn() -> None:
    from nsclc_mtl.metrics import measure as m
    from nsclc_mtl.metrics.comparison import resamples

    y, p = three_classes(60)
    score, said, above = np.round(p[:, 2], 1), p.argmax(axis=1), (y == 2).astype(float)
    weights = resamples([60], 20, np.random.default_rng(0))[0]
    people = [np.repeat(np.arange(60), w) for w in weights]
    for ours, plain in (
        (m.precision(above, score), lambda i: c.average_precision(above[i], score[i])),
        (m.agreement(y, said, 3), lambda i: c.quadratic_kappa(y[i], said[i], 3)),
        (m.ratio(above * (score >= 0.4), above), lambda i: c.sensitivity(above[i], score[i], 0.4)),
        (m.gain((y - 1) ** 2, (y - 0.5) ** 2), lambda i: 1 - ((y[i] - 1) ** 2).sum() / ((y[i] - 0.5) ** 2).sum()),
    ):
        np.testing.assert_allclose(ours(weights), [float(plain(i)) for i in people], atol=1e-12)
