"""Ratios of speed, measured in one run, against the plain way of doing the same: `make bench`.

Each pair computes the same numbers (checked before it is timed), so that a ratio can be believed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nsclc_mtl.encoders.mil import ABMIL
from nsclc_mtl.metrics.classification import auc
from nsclc_mtl.metrics.comparison import bootstrap, classes_in_order, resamples, survivors_in_order
from nsclc_mtl.records import Bag

Row = tuple[str, str, float, str, float]


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median time of one call, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def packed_bags(rng: np.random.Generator, patients: int = 16, dim: int = 256) -> Row:
    """Attention over packed bags against bags padded to the longest one, forward and backward."""
    torch.manual_seed(0)
    sizes = np.clip(rng.lognormal(7.0, 0.9, patients), 100, 12_000).astype(int)  # tiles a patient, as cohorts have them
    tiles = [torch.randn(size, dim) for size in sizes]
    encoder = ABMIL(dim, 32, dropout=0.0)
    offsets = torch.tensor([0, *np.cumsum(sizes)])

    def packed() -> Tensor:
        encoder.zero_grad()
        vector = encoder(Bag(torch.cat(tiles), offsets)).vector
        vector.sum().backward()
        return vector

    def padded() -> Tensor:
        encoder.zero_grad()
        block = torch.nn.utils.rnn.pad_sequence(tiles, batch_first=True)
        inside = torch.arange(block.shape[1])[None] < torch.tensor(sizes)[:, None]
        tile = encoder.tile(encoder.scale(block))
        score = encoder.score(torch.tanh(encoder.content(tile)) * torch.sigmoid(encoder.gate(tile))).squeeze(2)
        weight = score.masked_fill(~inside, -torch.inf).softmax(1)
        vector = encoder.out((tile * weight[..., None]).sum(1))
        vector.sum().backward()
        return vector

    torch.testing.assert_close(packed(), padded(), rtol=1e-3, atol=1e-4)
    return (
        f"attention, {patients} bags of {sizes.min()}-{sizes.max()} tiles",
        "padded",
        seconds(padded),
        "packed",
        seconds(packed),
    )


def bootstrap_intervals(rng: np.random.Generator, patients: int = 300, draws: int = 1000) -> Row:
    """All resamples of an AUC by cumulative sums against one AUC after the other."""
    label = rng.integers(0, 2, patients)
    score = label + rng.normal(0, 1.5, patients)

    def together() -> np.ndarray:
        weights = resamples([patients], draws, np.random.Generator(np.random.PCG64(1)))
        return bootstrap([classes_in_order(label, score)], weights).draws

    def one_by_one() -> np.ndarray:
        weights = resamples([patients], draws, np.random.Generator(np.random.PCG64(1)))[0]
        counts = np.asarray(weights).reshape(draws, patients).astype(int)
        return np.array([auc(np.repeat(label, row), np.repeat(score, row)) for row in counts])

    np.testing.assert_allclose(np.ravel(together()), one_by_one(), rtol=1e-9)
    return (
        f"AUC of {draws} resamples, {patients} patients",
        "loop",
        seconds(one_by_one, 3),
        "ranks",
        seconds(together),
    )


def concordance_intervals(rng: np.random.Generator, patients: int = 10_000, draws: int = 1000, some: int = 4) -> Row:
    """All resamples of a C-index against scikit-survival in a loop over a few of them, scaled up to as many.

    Both are measured in turns, three times, and the medians stand in the table.
    """
    from sksurv.metrics import concordance_index_censored

    x = rng.normal(size=patients)
    died, left = rng.exponential(np.exp(-x)), rng.exponential(2, patients)
    times, event, risk = np.minimum(died, left), died <= left, x + rng.normal(size=patients)
    weights = resamples([patients], draws, np.random.Generator(np.random.PCG64(1)))[0]
    measure = survivors_in_order(risk, times, event.astype(float))

    def one_by_one() -> np.ndarray:
        people = (np.repeat(np.arange(patients), row) for row in weights[:some])
        return np.array([concordance_index_censored(event[i], times[i], risk[i])[0] for i in people])

    np.testing.assert_allclose(measure(weights[:some]), one_by_one(), rtol=1e-9)
    slow, fast = [], []
    for _ in range(3):
        began = time.perf_counter()
        one_by_one()
        slow.append((time.perf_counter() - began) * draws / some)
        began = time.perf_counter()
        measure(weights)
        fast.append(time.perf_counter() - began)
    return (
        f"C-index of {draws} resamples, {patients} patients",
        f"scikit-survival, {some} draws scaled",
        float(np.median(slow)),
        "blocks",
        float(np.median(fast)),
    )


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    rng = np.random.Generator(np.random.PCG64(0))
    table = Table("what", "plain way", "ms", "our way", "ms", "ratio", title="one thread")
    for what, plain, slow, ours, fast in (packed_bags(rng), bootstrap_intervals(rng), concordance_intervals(rng)):
        table.add_row(what, plain, f"{1e3 * slow:.1f}", ours, f"{1e3 * fast:.1f}", f"{slow / fast:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
