from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

Draw = Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="session")
def drawn() -> Draw:
    """Probabilities [n, classes] that are right, and classes drawn from them, of a seed."""

    def draw(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        p = rng.dirichlet(np.ones(classes), n)
        return p, (p.cumsum(1) > rng.random((n, 1))).argmax(1)

    return draw
