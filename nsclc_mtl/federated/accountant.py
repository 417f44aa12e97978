"""What noisy training promises each patient, in numbers: epsilon at a delta, by the accountant of Opacus.

A step is the Gaussian mechanism on a Poisson sample. Its Rényi divergences add up over steps (Mironov, CSF 2017;
Mironov, Talwar and Zhang, arXiv:1908.10530) and are turned into epsilon and delta by Balle et al. (AISTATS 2020). That
is an upper bound: accountants of privacy loss distributions, which need another library, find a smaller epsilon for the
very same training.

Two cohorts of a site are neighbours where one patient is added or removed, his place left empty: the number of
training patients is taken for known. Epsilon is of everything that a site sends of its training, over all rounds
together. See `privacy` for what it does not cover. A round that is asked again is trained again and paid again, and a
patient trains in nearly every fold of a cross-validation: the `Ledger` of a site counts steps and not rounds, and says
what the folds have cost together.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from nsclc_mtl.federated.plan import Privacy
from nsclc_mtl.records import DataFault, IntegrityFault, UsageFault

ORDERS = [
    *(1 + x / 20 for x in range(1, 20)),
    *(2 + x / 10 for x in range(90)),
    *range(11, 64),
    *(72, 80, 96, 112, 128, 160, 192, 256, 512, 1024),
]
"""Orders of Rényi divergences among which the best one is taken: finer below 2 and wider than those of Opacus."""


class Steps(NamedTuple):
    """So many steps with the same noise (its SD over the clipping norm) and the same chance q to be drawn."""

    noise: float
    q: float
    steps: int


def spent(noise: float, q: float, steps: int, delta: float) -> tuple[float, float]:
    """(epsilon, delta) of so many steps; (0, delta) where there were none. Raises UsageFault for values that are none.

    noise: SD of the noise over the clipping norm. q: chance of each patient to be in a step.
    """
    return together([Steps(noise, q, steps)], delta), delta


def together(parts: Iterable[Steps], delta: float) -> float:
    """Epsilon of all these steps at delta; 0 where there are none. Raises UsageFault for values that are none."""
    from opacus.accountants.analysis.rdp import get_privacy_spent

    parts = list(parts)
    for noise, q, _ in parts:
        if not (noise > 0 and math.isfinite(noise) and 0 < q <= 1 and 0 < delta < 1):
            raise UsageFault(f"noise={noise} must be above 0, q={q} above 0 and up to 1, delta={delta} between 0 and 1")
    divergence: Any = sum(steps * _of_a_step(noise, q) for noise, q, steps in parts if steps > 0)
    if isinstance(divergence, int):
        return 0.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")  # at an end of ORDERS it is a bound still
        epsilon, _ = get_privacy_spent(orders=ORDERS, rdp=divergence, delta=delta)
    return max(0.0, float(epsilon))


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


class Ledger:
    """The noisy steps that a site has taken, fold by fold, in a file that outlives the process; None = in memory."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._taken: list[tuple[int, Steps]] = []
        if path is None or not path.is_file():
            return
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                fold, noise, q, steps = json.loads(line)
                self._taken.append((int(fold), Steps(float(noise), float(q), int(steps))))
        except (TypeError, ValueError) as wrong:
            raise IntegrityFault(
                f"'{path.name}' does not read as the steps that were taken: what patients were promised is not known "
                "any more; restore the file, or end this training"
            ) from wrong

    def take(self, fold: int, steps: Steps, delta: float, most: float | None = None) -> float:
        """Epsilon of the fold after these further steps, which are written down before they are taken.

        Raises DataFault, and writes nothing, where that would be more than `most`.
        """
        epsilon = together([*self.of(fold), steps], delta)
        if most is not None and epsilon > most:
            raise DataFault(
                f"a further round would spend epsilon={epsilon:.3g}, more than the {most:g} that the patients of this "
                "site were promised: the training ends here for it; more noise would allow more rounds"
            )
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([fold, *steps]) + "\n")
                file.flush()
                os.fsync(file.fileno())
        self._taken.append((fold, steps))
        return epsilon

    def of(self, fold: int | None = None) -> list[Steps]:
        """The steps of a fold; of all folds with None, which bounds what they cost a patient who trains in each."""
        return [steps for own, steps in self._taken if fold is None or own == fold]


def said(privacy: Privacy, parts: Iterable[Steps], n: int) -> str:
    """One sentence for the site's log: what was promised to each of its n training patients, and at what price."""
    parts = list(parts)
    epsilon, rates = together(parts, privacy.delta), sorted({f"{q:.3g}" for _, q, _ in parts})
    told = (
        f"differential privacy per patient: epsilon={epsilon:.3g} at delta={privacy.delta:g} after "
        f"{sum(steps for _, _, steps in parts)} steps (noise {privacy.noise:g}, clip {privacy.clip:g}, Poisson samples "
        f"with q={' and '.join(rates) or 'none'}; neighbours differ in one patient, added or removed; RDP accountant)"
    )
    if privacy.delta * n >= 1:
        told += f"; delta is not below 1/n: with {n} patients it would allow to publish one of them whole"
    return told
