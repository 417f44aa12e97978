"""Balances of gradients from TorchJD, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nsclc_mtl.records import UsageFault
from nsclc_mtl.tasks.gradients import GradientBalance


class TorchJD(GradientBalance):
    """An aggregator of TorchJD joins the tasks' gradients (Quinton and Rey, arXiv 2406.16232).

    Args:
        tasks: their names. aggregator: the name of a class of `torchjd.aggregation`. options: its arguments.

    Raises UsageFault where TorchJD is not installed, has no such aggregator, or the aggregator keeps a state, which a
    checkpoint would lose.
    """

    def __init__(
        self, tasks: Sequence[str], aggregator: str = "MGDA", options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(tasks)
        try:
            from torchjd import Stateful, aggregation
        except ImportError as error:
            raise UsageFault("balance=torchjd needs TorchJD: install nsclc-mtl[torchjd]") from error
        found = getattr(aggregation, aggregator, None)
        if aggregator.startswith("_") or not (isinstance(found, type) and issubclass(found, aggregation.Aggregator)):
            raise UsageFault(f"balance.aggregator={aggregator!r} is no aggregator of TorchJD, such as MGDA or IMTLG")
        try:
            made = found(**(options or {}))
        except (ImportError, TypeError, ValueError) as error:
            raise UsageFault(f"balance.aggregator={aggregator} cannot be made: {error}") from error
        if isinstance(made, Stateful):
            raise UsageFault(
                f"balance.aggregator={aggregator} keeps a state that a checkpoint would lose; take another"
            )
        self.aggregator = made

    def joined(self, losses: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """What the aggregator makes of the rows."""
        return self.aggregator(rows) if len(rows) > 1 and rows.shape[1] else rows.sum(0)
