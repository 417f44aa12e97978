"""The truth behind the phantom: latents, sufficient statistics, outcomes and the best that anybody could predict.

The constants stand here and in ADR 002; they were fixed before the first model saw the phantom. Structure (directions,
loadings, cut points) comes from one fixed seed, so that cohorts of different seeds are samples of one population and a
model trained on one can be judged on another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, ndtr, ndtri

STRUCTURE_SEED = 20260407
LATENTS = ("h", "r", "m")  # histology, radiology, molecular
CORRELATION = 0.2
RELIABILITY = 0.80  # of a sufficient statistic: var(latent) / var(statistic)
NOISE_SD = float(np.sqrt(1 / RELIABILITY - 1))

GRADE_SLOPE = 1.5  # ordinal probit of h
GRADE_SHARES = (0.30, 0.40, 0.30)
STAGE_SLOPE = 1.5  # ordinal probit of r ...
STAGE_AGE = 0.3  # ... with a little age, a standard deviation of it
STAGE_SHARES = (0.40, 0.25, 0.22, 0.13)
HAZARD = {"h": 0.6, "m": 0.5, "r": 0.4, "hm": 0.4}  # log hazard
WEIBULL_SHAPE = 1.3
WEIBULL_SCALE_DAYS = 1100.0
CENSORING_MAX_DAYS = 2560.0  # uniform follow-up; gives 40 % censored in the population

AGE_MEAN, AGE_SD = 66.0, 9.0
SITES = ("A", "B", "C")
GRADES = ("G1", "G2", "G3")
STAGES = ("I", "II", "III", "IV")
RESPONSES = ("non-responder", "responder")

_COVARIANCE = np.full((3, 3), CORRELATION) + np.eye(3) * (1 - CORRELATION)


@dataclass
class Truth:
    """Everything that is known of the phantom's patients, row by row."""

    latents: np.ndarray  # float [patient, 3]: h, r, m
    statistics: np.ndarray  # float [patient, 3]: s_h, s_r, s_m
    age_z: np.ndarray  # float [patient]
    patients: pd.DataFrame  # patient_id, site, look, age, sex, smoking
    outcomes: pd.DataFrame  # grade, stage, response (class numbers), os_days, os_event; complete
    has: dict[str, np.ndarray]  # modality -> bool [patient]
    known: dict[str, np.ndarray]  # task -> bool [patient]
    slides: np.ndarray  # int [patient]: number of slides


def log_hazard(latents: np.ndarray) -> np.ndarray:
    """Log hazard against the baseline, [patient]."""
    h, r, m = latents.T
    return HAZARD["h"] * h + HAZARD["m"] * m + HAZARD["r"] * r + HAZARD["hm"] * h * m


def response_logit(latents: np.ndarray) -> np.ndarray:
    """Log odds of response, [patient]: mostly an interaction of histology and molecular state."""
    h, _, m = latents.T
    return 0.5 * h + 0.5 * m + 1.5 * h * m


def _cuts(shares: tuple[float, ...], variance: float) -> np.ndarray:
    """Cut points of an ordinal probit whose classes have the given shares in the population."""
    return ndtri(np.cumsum(shares)[:-1]) * np.sqrt(variance)


GRADE_CUTS = _cuts(GRADE_SHARES, GRADE_SLOPE**2 + 1)
STAGE_CUTS = _cuts(STAGE_SHARES, STAGE_SLOPE**2 + STAGE_AGE**2 + 1)


def draw(n: int, seed: int, missing: str = "mcar", site: str = "none") -> Truth:
    """Patients with latents, statistics, outcomes and what is missing; the same seed gives the same patients."""
    rng = np.random.Generator(np.random.PCG64([seed, n]))
    latents = rng.multivariate_normal(np.zeros(3), _COVARIANCE, size=n, method="cholesky")
    statistics = latents + NOISE_SD * rng.standard_normal((n, 3))
    age = np.clip(np.rint(AGE_MEAN + AGE_SD * rng.standard_normal(n)), 35, 92)
    age_z = (age - AGE_MEAN) / AGE_SD
    sex = np.where(rng.random(n) < 0.55, "male", "female")
    smoking = rng.choice(["never", "former", "current"], size=n, p=[0.2, 0.5, 0.3])

    grade = np.digitize(GRADE_SLOPE * latents[:, 0] + rng.standard_normal(n), GRADE_CUTS)
    stage = np.digitize(STAGE_SLOPE * latents[:, 1] + STAGE_AGE * age_z + rng.standard_normal(n), STAGE_CUTS)
    response = (rng.random(n) < expit(response_logit(latents))).astype(int)
    death = WEIBULL_SCALE_DAYS * (rng.exponential(size=n) / np.exp(log_hazard(latents))) ** (1 / WEIBULL_SHAPE)
    follow_up = rng.uniform(30, CENSORING_MAX_DAYS, size=n)
    event = (death <= follow_up).astype(int)
    days = np.maximum(1, np.rint(np.minimum(death, follow_up))).astype(int)

    where, look = _sites(site, grade, rng)
    has, known = _missing(missing, n, rng, age_z=age_z, site=where, grade=grade, event=event)
    slides = 1 + (rng.random(n) < 0.15).astype(int)
    patients = pd.DataFrame(
        {
            "patient_id": [f"P{i:04d}" for i in range(1, n + 1)],
            "site": where,
            "look": look,
            "age": age.astype(int),
            "sex": sex,
            "smoking": smoking,
        }
    )
    outcomes = pd.DataFrame({"grade": grade, "stage": stage, "response": response, "os_days": days, "os_event": event})
    return Truth(latents, statistics, age_z, patients, outcomes, has, known, slides)


def _sites(kind: str, grade: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Site of each patient, and the site whose look (stain, scanner, gene offsets) its data wear.

    `none` and `shift` deal sites at random (the look is neutral in `none`). `confounded`: A takes most high grades and
    B most low ones, so that the look goes with the grade; in C the looks of A and B are worn the other way round.
    """
    n = len(grade)
    where = rng.choice(SITES, size=n)
    if kind == "none":
        return where, np.full(n, "")
    if kind == "shift":
        return where, where.copy()
    if kind != "confounded":
        raise ValueError(f"cohort.site={kind!r} is none of none, shift, confounded")
    high = np.where(grade == 1, rng.random(n) < 0.5, grade == 2)
    agrees = rng.random(n) < 0.85
    where = np.where(rng.random(n) < 1 / 3, "C", np.where(high == agrees, "A", "B"))
    look = np.where(where == "C", np.where(high == agrees, "B", "A"), where)
    return where, look


def _missing(
    kind: str,
    n: int,
    rng: np.random.Generator,
    *,
    age_z: np.ndarray,
    site: np.ndarray,
    grade: np.ndarray,
    event: np.ndarray,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Which modalities each patient has, and which labels are known."""
    scan = np.full(n, 0.25)
    if kind == "mar":  # older patients and site C are scanned less often
        scan = expit(-1.4 + 0.7 * age_z + 1.2 * (site == "C"))
    elif kind == "mnar":  # the outcome decides
        scan = expit(-2.2 + 1.0 * (grade == 2) + 1.6 * event)
    elif kind != "mcar":
        raise ValueError(f"cohort.missing={kind!r} is none of mcar, mar, mnar")
    has_scan = rng.random(n) >= scan
    has_rna = rng.random(n) >= 0.20
    everyone = np.ones(n, bool)
    has = {
        "wsi": everyone, "radiomics": has_scan, "ct_volume": has_scan, "rna": has_rna, "proteomics": everyone,
        "clinical": everyone,
    }  # fmt: skip
    known = {task: rng.random(n) >= 0.15 for task in ("grade", "stage", "response", "survival")}
    return has, known


# ---------------------------------------------------------------------------------------------------------------------
# Ceilings
# ---------------------------------------------------------------------------------------------------------------------


def posterior(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Mean [patient, 3] and covariance [patient, 3, 3] of the latents, given the statistics that are there."""
    seen = np.stack([truth.has["wsi"], truth.has["radiomics"], truth.has["rna"]], axis=1)
    return _posterior(truth.statistics, seen)


def _posterior(statistics: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, covariance = np.zeros_like(statistics), np.zeros((len(statistics), 3, 3))
    for pattern in np.unique(seen, axis=0):
        rows = (seen == pattern).all(axis=1)
        at = np.flatnonzero(pattern)
        gain = _COVARIANCE[:, at] @ np.linalg.inv(_COVARIANCE[np.ix_(at, at)] + NOISE_SD**2 * np.eye(len(at)))
        mean[rows] = statistics[np.ix_(rows, at)] @ gain.T
        covariance[rows] = _COVARIANCE - gain @ _COVARIANCE[at]
    return mean, covariance


def _expected_class(mean: np.ndarray, variance: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Expected class of an ordinal probit whose linear predictor is normal with this mean and variance."""
    return ndtr((mean[:, None] - cuts) / np.sqrt(1 + variance[:, None])).sum(axis=1)


def _expected_response(mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Probability of response under the posterior, by Gauss-Hermite quadrature over (h, m)."""
    node, weight = np.polynomial.hermite_e.hermegauss(25)
    weight = weight / weight.sum()
    a, b = np.meshgrid(node, node, indexing="ij")
    grid = np.stack([a.ravel(), b.ravel()])  # [2, node^2]
    root = np.linalg.cholesky(covariance[:, [0, 2]][:, :, [0, 2]])
    h, m = np.moveaxis(mean[:, [0, 2], None] + root @ grid, 1, 0)
    latents = np.stack([h.ravel(), np.zeros(h.size), m.ravel()], axis=1)
    return expit(response_logit(latents)).reshape(h.shape) @ np.outer(weight, weight).ravel()


def ceilings(truth: Truth) -> dict[str, dict[str, np.ndarray]]:
    """Scores [patient] per ceiling (latent, attainable, additive) and task, higher = higher class, response or risk.

    `attainable` is the posterior mean of the outcome's score given the sufficient statistics of what each patient has.
    `additive` is the best model that is linear in the posterior means of the three latents, fitted in the population
    (a sample of 50,000): what no fusion beyond addition can pass.
    """
    mean, covariance = posterior(truth)
    variance = covariance[:, range(3), range(3)]
    weights = np.array([HAZARD["h"], HAZARD["r"], HAZARD["m"]])
    cross = mean[:, 0] * mean[:, 2] + covariance[:, 0, 2]
    stage = STAGE_SLOPE * mean[:, 1] + STAGE_AGE * truth.age_z
    attainable = {
        "grade": _expected_class(GRADE_SLOPE * mean[:, 0], GRADE_SLOPE**2 * variance[:, 0], GRADE_CUTS),
        "stage": _expected_class(stage, STAGE_SLOPE**2 * variance[:, 1], STAGE_CUTS),
        "response": _expected_response(mean, covariance),
        "survival": mean @ weights + HAZARD["hm"] * cross,
    }
    latent = {
        "grade": truth.latents[:, 0],
        "stage": STAGE_SLOPE * truth.latents[:, 1] + STAGE_AGE * truth.age_z,
        "response": response_logit(truth.latents),
        "survival": log_hazard(truth.latents),
    }
    additive = {
        "grade": attainable["grade"],
        "stage": attainable["stage"],
        "response": mean @ _additive_response(),
        "survival": mean @ weights,
    }
    return {"latent": latent, "attainable": attainable, "additive": additive}


def _additive_response() -> np.ndarray:
    """Weights [3] of the best linear log odds of response in the posterior means (h, r, m), in the population."""
    population = draw(50_000, STRUCTURE_SEED)
    mean, _ = posterior(population)
    x, y = np.column_stack([mean, np.ones(len(mean))]), population.outcomes["response"].to_numpy()
    beta = np.zeros(4)
    for _ in range(20):  # Newton's method for logistic regression; strictly concave, converges in a few steps
        p = expit(x @ beta)
        beta += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (y - p))
    return beta[:3]
