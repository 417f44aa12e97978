"""The faults of a cohort's tables as a list for people and as one for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from nsclc_mtl.records import FaultRow

if TYPE_CHECKING:
    from .run import Run

MOST = 40  # lines on the terminal; faults.json has them all


def tell(run: Run, rows: Sequence[FaultRow]) -> None:
    """One table for the user, faults alike in one line, and `faults.json` in the run folder."""
    content = json.dumps([asdict(row) for row in rows], indent=1)
    (run.path / "faults.json").write_text(content + "\n", encoding="utf-8")
    run.show(table(rows))


def table(rows: Sequence[FaultRow], most: int = MOST) -> Table:
    """The faults by file, column, value and rule, with the rows of each."""
    alike: dict[tuple[str, str, str, str, str], list[int | None]] = {}
    for row in rows:
        alike.setdefault((row.file, row.column, row.value, row.rule, row.todo), []).append(row.row)
    made = Table(title=f"{len(rows)} faults in the tables", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("file", "row", "column", "value", "rule", "what to do"):
        made.add_column(name, overflow="fold")
    for (file, column, value, rule, todo), at in list(alike.items())[:most]:
        made.add_row(*(_cell(text) for text in (file, _rows(at), column, value, rule, todo)))
    if len(alike) > most:
        made.add_row("...", "", "", "", f"{len(alike) - most} more kinds", "see faults.json")
    return made


def _rows(at: Sequence[int | None], most: int = 4) -> str:
    known = [str(row) for row in at if row is not None]
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")


def _cell(text: str, most: int = 160) -> str:
    """Text without marks of style, and without signs that move the cursor."""
    from rich.markup import escape

    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return escape(plain[:most] + ("..." if len(plain) > most else ""))
