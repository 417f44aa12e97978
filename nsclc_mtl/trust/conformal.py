"""Prediction sets and intervals: what a patient may have, which miss the true one at a rate that was stated beforehand.

Split conformal prediction holds for patients who are exchangeable with those it was calibrated on, whatever the model;
it says nothing of a single patient, nor of another hospital.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from nsclc_mtl.records import UsageFault


def threshold(proba: ArrayLike, label: ArrayLike, miss: float) -> float:
    """How improbable (1 - p) a class may be and still belong to the set, from n calibration patients.

    proba: [n, class], label: [n] class numbers; `miss` is the share of patients whose true class a set may lack. It is
    the ceil((n + 1)(1 - miss))-th smallest of 1 - p(true class), and 1 (every class) where n is too small for `miss`.
    Sadinle, Lei and Wasserman, "Least ambiguous set-valued classifiers" (JASA, 2019). Raises UsageFault unless
    0 < miss < 1.

    >>> threshold([[0.9, 0.1]] * 9 + [[0.4, 0.6]], [0] * 10, miss=0.1)
    0.6
    """
    if not 0 < miss < 1:
        raise UsageFault(f"trust.miss={miss:g} is a share between 0 and 1")
    p, y = np.asarray(proba, dtype=float), np.asarray(label, dtype=int)
    rank = math.ceil((len(y) + 1) * (1 - miss) - 1e-9)
    if rank > len(y):
        return 1.0
    return float(np.sort(1 - p[np.arange(len(y)), y])[rank - 1])


def thresholds_by_class(proba: ArrayLike, label: ArrayLike, miss: float) -> tuple[np.ndarray, np.ndarray]:
    """A threshold a class [class], from the calibration patients of that class, and how many they are, int [class].

    Class-conditional (Mondrian) conformal prediction: of the patients of each class a set lacks the true one at most
    at the rate `miss` (Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005, section 4.5; Ding et
    al., NeurIPS 2023). A class with fewer than `fewest(miss)` patients gets the threshold of all, without that promise.

    >>> at, n = thresholds_by_class([[0.9, 0.1]] * 9 + [[0.4, 0.6]], [0] * 9 + [1], miss=0.1)
    >>> at.round(2).tolist(), n.tolist()
    ([0.1, 0.4], [9, 1])
    """
    p, y = np.asarray(proba, dtype=float), np.asarray(label, dtype=int)
    whole = threshold(p, y, miss)
    count = np.bincount(y, minlength=p.shape[1])
    each = [threshold(p[y == k], y[y == k], miss) if n >= fewest(miss) else whole for k, n in enumerate(count)]
    return np.array(each), count


def fewest(miss: float) -> int:
    """How many calibration patients a promise needs that says anything: with fewer, every class belongs to the set.

    >>> fewest(0.1)
    9
    """
    return math.ceil(1 / miss - 1e-9) - 1


def half_width(value: ArrayLike, said: ArrayLike, miss: float) -> float:
    """Half the width of an interval around a predicted number, from n calibration patients; value, said: [n].

    It is the ceil((n + 1)(1 - miss))-th smallest absolute error, infinite where n is too small for `miss`: split
    conformal regression (Lei et al., JASA 2018, algorithm 2). Raises UsageFault unless 0 < miss < 1.

    >>> half_width([1, 2, 3, 4, 5, 6, 7, 8, 9], [0] * 9, miss=0.2)
    8.0
    """
    if not 0 < miss < 1:
        raise UsageFault(f"trust.miss={miss:g} is a share between 0 and 1")
    error = np.sort(np.abs(np.asarray(value, dtype=float) - np.asarray(said, dtype=float)))
    rank = math.ceil((len(error) + 1) * (1 - miss) - 1e-9)
    return math.inf if rank > len(error) else float(error[rank - 1])


def promised(miss: float, sets: int = 1) -> float:
    """Share of the patients whose truth is sure to lie in the set, interval or beyond the bound, at least.

    1 - miss of one that was calibrated so; 1 - 2 miss of what at least half of several hold, whatever they share: by
    Markov's inequality more than half of them miss at most twice as often as one does (Cherubin, Machine Learning 2019;
    Gasparin and Ramdas, 2024). It is a floor: mostly such a vote holds the truth about as often as each set.

    >>> promised(0.1), promised(0.1, sets=5), promised(0.6, sets=3)
    (0.9, 0.8, 0.0)
    """
    return 1 - miss if sets == 1 else max(0.0, 1 - 2 * miss)


def joined(low: ArrayLike, high: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends [patient] of an interval that holds every number of at least half of the given intervals.

    low, high: [interval, patient].

    >>> a, b = joined([[0.0], [1.0], [5.0]], [[3.0], [4.0], [9.0]])
    >>> a.tolist(), b.tolist()
    ([1.0], [4.0])
    """
    a, b = np.sort(np.asarray(low, float), axis=0), np.sort(np.asarray(high, float), axis=0)
    votes = math.ceil(len(a) / 2)
    return a[votes - 1], b[len(b) - votes]


def sets(proba: ArrayLike, at: ArrayLike) -> np.ndarray:
    """Which classes belong to each patient's set, bool [n, class]; the most probable one always does.

    at: a threshold, or one a class [class], a patient [n, 1], or both [n, class].

    >>> sets([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]], 0.7).tolist()
    [[True, False, False], [True, True, False]]
    """
    p = np.asarray(proba, dtype=float)
    within = 1 - p <= np.asarray(at, dtype=float) + 1e-12
    within[np.arange(len(p)), p.argmax(axis=1)] = True
    return within


def coverage_band(n_calibration: int, n_test: int, miss: float, level: float = 0.95) -> tuple[float, float]:
    """Where the share of covered test patients lies with probability `level` if all is well.

    Beta-binomial with n + 1 - l and l, l = floor((n + 1) miss): Angelopoulos and Bates, "A gentle introduction to
    conformal prediction" (2021), section 3.2. Scores without ties are assumed, with ties coverage is higher.

    >>> low, high = coverage_band(100, 100, 0.1)
    >>> (round(low, 2), round(high, 2))
    (0.81, 0.97)
    """
    lacking = math.floor((n_calibration + 1) * miss + 1e-9)
    if lacking == 0:
        return 1.0, 1.0
    law = stats.betabinom(n_test, n_calibration + 1 - lacking, lacking)
    tail = (1 - level) / 2
    return float(law.ppf(tail)) / n_test, float(law.ppf(1 - tail)) / n_test
