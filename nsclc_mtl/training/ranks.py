"""Several processes that train one model: who of them this one is, and what it tells the others.

Each process (rank) takes its share of every batch, and the gradients are averaged (data-parallel training; Li and
others, PVLDB 2020). Whoever starts the processes joins them; nothing here starts any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import distributed

from nsclc_mtl.bags.datamodule import Share

# A process that waits longer than this for the others has lost them.
PATIENCE = timedelta(minutes=30)


@contextmanager
def joined(share: Share, meeting: Path, backend: str = "gloo") -> Iterator[None]:
    """Within, this process is one of those that have met at the file `meeting`; alone, nothing happens."""
    if share.of == 1:
        yield
        return
    store = distributed.FileStore(str(meeting), share.of)
    distributed.init_process_group(backend, store=store, rank=share.rank, world_size=share.of, timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def gathered(told: Any) -> list[Any]:
    """What each process tells, in the order of their ranks; all must ask at the same place. Alone: its own word."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [told]
    all_told: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(all_told, told)
    return all_told


def summed(kept: Mapping[str, tuple[Any, int]]) -> dict[str, tuple[Any, int]]:
    """Sums and counts by name, over all processes; a name that not every process has is summed over those that do.

    >>> summed({"loss": (3.0, 2)})
    {'loss': (3.0, 2)}
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return dict(kept)
    total: dict[str, tuple[Any, int]] = {}
    for each in gathered({name: (float(value), count) for name, (value, count) in kept.items()}):
        for name, (value, count) in each.items():
            before, patients = total.get(name, (0.0, 0))
            total[name] = before + value, patients + count
    return total


class Known(ClusterEnvironment):
    """Tells Lightning which process this is. Lightning's own way is to start the command line again for every rank,
    which would cut the cohort and clear the folds once more in each."""

    def __init__(self, share: Share) -> None:
        super().__init__()
        self.share = share

    @property
    def creates_processes_externally(self) -> bool:
        """True: Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """Not asked for: the processes have met before."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Not asked for either."""
        return 0

    @staticmethod
    def detect() -> bool:
        """Never taken unless it is handed over."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return self.share.of

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """Which of them this one is."""
        return self.share.rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """All of them are on one machine."""
        return self.share.rank

    def node_rank(self) -> int:
        """All of them are on one machine."""
        return 0


def data_parallel(share: Share, backend: str) -> dict[str, Any]:
    """What Lightning's trainer is told where several processes, which have met, train one model."""
    return {
        "devices": share.of,
        # a task whose labels a batch lacks leaves its head without a gradient
        "strategy": DDPStrategy(find_unused_parameters=True, process_group_backend=backend),
        "use_distributed_sampler": False,  # the sampler deals the patients out itself
    }


class OwnDraws(pl.Callback):
    """Dropout of each process of its own; all begin with one seed, so that their models begin as one."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before a checkpoint's random numbers are taken up."""
        torch.manual_seed(torch.initial_seed() + trainer.global_rank)
