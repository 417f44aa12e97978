"""The schema of a cohort's tables, built from its declaration: all faults at once, by file, row and column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nsclc_mtl.cohort import rules
from nsclc_mtl.cohort.rules import Rule
from nsclc_mtl.records import DataFault, FaultRow
from nsclc_mtl.tables import read

if TYPE_CHECKING:
    import pandera.pandas as pa

_BETWEEN = "\x1f"  # pandera carries one text a check: the word of the rule and what to do


@dataclass
class Table:
    """What the cohort says of one of its files: columns that must be there, and the rules of each."""

    file: str
    ids: list[str]  # columns of ids: text as written
    columns: dict[str, list[Rule]] = field(default_factory=dict)
    numeric: list[str] = field(default_factory=list)  # patterns: all other columns that match hold numbers
    optional: bool = True  # no part of the cohort that needs it was asked for
    frame: pd.DataFrame = field(default_factory=pd.DataFrame)  # as read: cells as text, rows counted from 0
    without: set[str] = field(default_factory=set)  # columns that the patterns leave out

    def add(self, column: str, *more: Rule) -> None:
        """Adds rules of a column; one that is there already does not count twice."""
        have = self.columns.setdefault(column, [])
        have += [rule for rule in more if (rule.word, rule.todo) not in {(r.word, r.todo) for r in have}]


def faults(
    cohort: Mapping[str, Any], *, tasks: Sequence[str] | None = None, modalities: Sequence[str] | None = None
) -> list[FaultRow]:
    """Every fault of the tables of a declared cohort, by file and row; empty where they are sound.

    `tasks` and `modalities` pick among the declared ones as in `manifest.load`. Raises UsageFault where the declaration
    itself is wrong.
    """
    from nsclc_mtl.cohort import declared

    root = Path(str(cohort["root"]))
    found: list[FaultRow] = []
    tables: dict[str, Table] = {}
    for table in declared.tables(cohort, tasks, modalities):
        path = root / table.file
        if not path.is_file():
            if not table.optional:
                todo = "correct the cohort's `file`, or cohort.root"
                found.append(FaultRow(table.file, None, "", "", "no such table", todo))
            continue
        try:
            table.frame = read.read_text(path, table.ids)
        except DataFault as fault:
            row = re.search(r"\b(?:row|line) (\d+)", str(fault))
            found.append(FaultRow(table.file, int(row[1]) if row else None, "", "", "not readable", str(fault)))
            continue
        tables[table.file] = table
    more = declared.rule(cohort, tables, tasks, modalities)
    for table in tables.values():
        found += _of_table(table, root)
    return list(dict.fromkeys(found + more))


def schema(table: Table) -> pa.DataFrameSchema:
    """The pandera schema of one table."""
    import pandera.pandas as pa

    def check(rule: Rule) -> pa.Check:
        return pa.Check(rule.holds, error=f"{rule.word}{_BETWEEN}{rule.todo}")

    columns = {
        name: pa.Column(None, [check(rule) for rule in more], nullable=True, required=True)
        for name, more in table.columns.items()
    }
    number = rules.number()
    for name in _numeric(table):
        columns[name] = pa.Column(None, check(number), nullable=True)
    return pa.DataFrameSchema(columns, strict=False)


def _numeric(table: Table) -> list[str]:
    """Columns of numbers that hold something else. The sound ones, often thousands, need no schema of their own."""
    wanted = [
        str(name)
        for name in table.frame
        if any(re.search(pattern, str(name)) for pattern in table.numeric)
        and name not in {*table.ids, *table.without, *table.columns}
    ]
    try:
        read.numeric_table(table.frame[wanted], table.file)
    except DataFault:
        holds = rules.number().holds
        return [name for name in wanted if not holds(table.frame[name]).all()]
    return []


def _of_table(table: Table, root: Path) -> list[FaultRow]:
    """What pandera finds in one table, lazily: all of it."""
    from pandera.errors import SchemaErrors

    try:
        schema(table).validate(table.frame, lazy=True)
    except SchemaErrors as errors:
        lines = read.line_numbers(root / table.file)
        return [_row(table, case, lines) for case in errors.failure_cases.to_dict("records")]
    return []


def _row(table: Table, case: Mapping[Any, Any], lines: Sequence[int]) -> FaultRow:
    """A failure of pandera as a row of the list of faults."""
    if case["check"] == "column_in_dataframe":
        has = ", ".join(f"'{name}'" for name in list(table.frame.columns)[:6])
        return FaultRow(
            table.file, None, str(case["failure_case"]), "", "no such column", f"correct the declaration; it has {has}"
        )
    word, _, todo = str(case["check"]).partition(_BETWEEN)
    at = case["index"]
    row = None if at is None or pd.isna(at) else lines[int(at)]
    return FaultRow(table.file, row, str(case["column"]), read.shown(case["failure_case"]), word, todo)
