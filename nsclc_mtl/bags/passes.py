"""All training patients at once, batch by batch: what a step over the whole cohort is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from nsclc_mtl.records import Batch


class Pass:
    """The training patients of one epoch. Every walk through it gives the same batches, read anew: same order, same
    tiles, so that a cohort need not fit into memory to be looked at twice."""

    def __init__(self, batches: Callable[[], Iterable[Batch]], seed: int, epoch: int, patients: int) -> None:
        self.batches, self.seed, self.epoch, self.patients = batches, seed, epoch, patients

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches())

    def __len__(self) -> int:
        """Number of patients, as of a batch."""
        return self.patients


class Passes:
    """A loader of one pass an epoch, beginning with `epoch`; `batches` makes the batches of an epoch."""

    def __init__(self, batches: Callable[[int], Iterable[Batch]], seed: int, patients: int, epoch: int = 0) -> None:
        self.batches, self.seed, self.patients, self.epoch = batches, seed, patients, epoch

    def __len__(self) -> int:
        """One step an epoch."""
        return 1

    def __iter__(self) -> Iterator[Pass]:
        epoch = self.epoch
        self.epoch += 1
        yield Pass(lambda: self.batches(epoch), self.seed, epoch, self.patients)
