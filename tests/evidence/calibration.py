"""Calibration of the phantom's true probabilities: what a right prediction has in a cohort of this size.

    python tests/evidence/calibration.py --n 400 --seeds 20

The true probabilities of response, of a grade above each cut and of death within 1, 3 and 5 years, from the latents
that made the outcomes: mean and spread over the seeds of slope, observed / expected and ICI, and how often
D-calibration has a P below .05. The learner's are on the page that `mtl evaluate` writes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from scipy.special import ndtr

from nsclc_mtl.metrics.calibration import assess
from nsclc_mtl.metrics.survival_calibration import assess_at, d_calibration
from nsclc_mtl.phantom.truth import (
    GRADE_CUTS,
    GRADE_SLOPE,
    WEIBULL_SCALE_DAYS,
    WEIBULL_SHAPE,
    Truth,
    draw,
    log_hazard,
    response_logit,
)

SHOWN = ("slope", "observed_expected", "ici")


def true_survival(truth: Truth, days: np.ndarray | float) -> np.ndarray:
    """S of each patient at a day, or at a day of his own, [patient]."""
    return np.exp(-((days / WEIBULL_SCALE_DAYS) ** WEIBULL_SHAPE) * np.exp(log_hazard(truth.latents)))


def numbers(truth: Truth) -> Iterator[tuple[str, float]]:
    """Each number of the true probabilities on these patients, by name."""
    told = {"response": assess(truth.outcomes["response"], 1 / (1 + np.exp(-response_logit(truth.latents))))}
    for k, cut in enumerate(GRADE_CUTS):
        told[f"grade above {k + 1}"] = assess(
            truth.outcomes["grade"] > k, ndtr(GRADE_SLOPE * truth.latents[:, 0] - cut)
        )
    days, event = (truth.outcomes[c].to_numpy(dtype=float) for c in ("os_days", "os_event"))
    for years in (1, 3, 5):
        risk = 1 - true_survival(truth, years * 365.25)
        told[f"survival {years}y"] = assess_at(risk, days, event, years * 365.25)
    for name, found in told.items():
        yield from ((f"{name} {k}", float(found.values[k])) for k in SHOWN)
    yield "survival D-calibration P", float(d_calibration(true_survival(truth, days), event).p)


def main() -> None:
    """Prints a line a number: mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=20)
    chosen = parser.parse_args()
    every = [dict(numbers(draw(chosen.n, seed))) for seed in range(chosen.seeds)]
    for name in every[0]:
        values = np.array([one[name] for one in every])
        tail = f"   below .05: {np.mean(values < 0.05):.2f}" if name.endswith(" P") else ""
        print(f"{name:36s} {np.nanmean(values):6.3f} +- {np.nanstd(values):.3f}{tail}")


if __name__ == "__main__":
    main()
