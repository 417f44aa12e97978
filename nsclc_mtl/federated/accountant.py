"""What noisy training promises each patient, in numbers: epsilon at a delta, by the accountant of Opacus.

A step is the Gaussian mechanism on a Poisson sample. Its Rényi divergences add up over steps (Mironov, CSF 2017;
Mironov, Talwar and Zhang, arXiv:1908.10530) and are turned into epsilon and delta by Balle et al. (AISTATS 2020). That
is an upper bound: accountants of privacy loss distributions, which need another library, find a smaller epsilon for the
very same training.

Two cohorts of a site are neighbours where one patient is added or removed, his place left empty: the number of
training patients is taken for known. Epsilon is of everything that a site sends of its training, over all rounds
together. See `privacy` for what it does not cover.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

from nsclc_mtl.federated.plan import Privacy
from nsclc_mtl.records import UsageFault

ORDERS = [
    *(1 + x / 20 for x in range(1, 20)),
    *(2 + x / 10 for x in range(90)),
    *range(11, 64),
    *(72, 80, 96, 112, 128, 160, 192, 256, 512, 1024),
]
"""Orders of Rényi divergences among which the best one is taken: finer below 2 and wider than those of Opacus."""


def spent(noise: float, q: float, steps: int, delta: float) -> tuple[float, float]:
    """(epsilon, delta) of so many steps; (0, delta) where there were none.

    noise: SD of the noise over the clipping norm. q: chance of each patient to be in a step. Raises UsageFault for
    values that are none.
    """
    from opacus.accountants.analysis.rdp import get_privacy_spent

    _sound(noise, q, delta)
    if steps < 1:
        return 0.0, delta
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")  # at an end of ORDERS it is a bound still
        epsilon, _ = get_privacy_spent(orders=ORDERS, rdp=steps * _of_a_step(noise, q), delta=delta)
    return max(0.0, float(epsilon)), delta


@lru_cache(maxsize=64)
def _of_a_step(noise: float, q: float) -> Any:
    """Rényi divergences of one step, [order]; those of several steps are so many times as large."""
    from opacus.accountants.analysis.rdp import compute_rdp

    return compute_rdp(q=q, noise_multiplier=noise, steps=1, orders=ORDERS)


def steps_for(epsilon: float, noise: float, q: float, delta: float, most: int = 1_000_000) -> int:
    """The largest number of steps, up to `most`, that spends no more than epsilon; 0 where one is too many."""
    low, high = 0, 1
    while high <= most and spent(noise, q, high, delta)[0] <= epsilon:
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(noise, q, middle, delta)[0] <= epsilon else (low, middle)
    return low


def noise_for(epsilon: float, q: float, steps: int, delta: float, slack: float = 1e-3) -> float:
    """The least noise, to a share `slack` of it, with which so many steps spend no more than epsilon.

    Raises UsageFault for an epsilon that is not above 0, or that no noise up to 10,000 reaches.
    """
    if not epsilon > 0:
        raise UsageFault(f"epsilon={epsilon} is no promise that can be kept: give a number above 0")
    low, high = 0.0, 1.0
    while spent(high, q, steps, delta)[0] > epsilon:
        low, high = high, 2 * high
        if high > 10_000:
            raise UsageFault(f"epsilon={epsilon:g} at delta={delta:g} is out of reach: take fewer steps")
    while high - low > slack * high:
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle, q, steps, delta)[0] > epsilon else (low, middle)
    return high


def said(privacy: Privacy, q: float, steps: int, n: int) -> str:
    """One sentence for the site's log: what was promised to each of its n training patients, and at what price."""
    epsilon, delta = spent(privacy.noise, q, steps, privacy.delta)
    told = (
        f"differential privacy per patient: epsilon={epsilon:.3g} at delta={delta:g} after {steps} steps (noise "
        f"{privacy.noise:g}, clip {privacy.clip:g}, Poisson samples with q={q:.3g}; neighbours differ in one patient, "
        "added or removed; RDP accountant)"
    )
    if delta * n >= 1:
        told += f"; delta is not below 1/n: with {n} patients it would allow to publish one of them whole"
    return told


def _sound(noise: float, q: float, delta: float) -> None:
    if not (noise > 0 and math.isfinite(noise) and 0 < q <= 1 and 0 < delta < 1):
        raise UsageFault(f"noise={noise} must be above 0, q={q} above 0 and up to 1, delta={delta} between 0 and 1")
