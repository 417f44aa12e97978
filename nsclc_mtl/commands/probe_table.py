"""Rows of `mtl probe` with intervals: as JSON has them, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from nsclc_mtl.metrics.comparison import Interval


def plain_interval(at: Interval) -> dict[str, Any]:
    """An interval as JSON has it, None for NaN."""
    numbers = {"value": at.value, "lo": at.lo, "hi": at.hi}
    return {**{k: float(v) if v == v else None for k, v in numbers.items()}, "reason": at.reason}


def made(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows as a table for the terminal; cells of intervals as `value (low to high)`, changes with their sign."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(
            *(_told(row.get(column), column.endswith("minus it") or column == "change") for column in columns)
        )
    return table


def _told(cell: Any, signed: bool = False) -> str:
    if not isinstance(cell, dict):
        return "-" if cell is None else str(cell)
    if cell["value"] is None:
        return f"- ({cell['reason']})" if cell["reason"] else "-"
    sign = "+" if signed else ""
    band = f" ({cell['lo']:{sign}.3f} to {cell['hi']:{sign}.3f})" if cell["lo"] is not None else ""
    return f"{cell['value']:{sign}.3f}{band}"
