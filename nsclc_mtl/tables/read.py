"""Tables as they lie on disk: everything is text until somebody says what it is."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault
from nsclc_mtl.tables.text import (
    SPREADSHEETS,
    cells_of,
    decode,
    rectangular,
    separator_of,
    some,
    spreadsheet,
    with_points,
)

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "None", "[Not Available]", "[Unknown]", "[Not Evaluated]")
"""Words that mean "not known" in a value column. In an id column they are ids like any other."""


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(column: object) -> str:
    """The name as written of a column that stood in a table more than once: `TP53 #2` is the second TP53.

    >>> plain("TP53 #2"), plain("TP53"), plain("HLA #A")
    ('TP53', 'TP53', 'HLA #A')
    """
    name, mark, number = str(column).rpartition(" #")
    return name if mark and number.isdigit() else str(column)


def read_text(path: Path, ids: str | Sequence[str] | None = None, *, repeats: bool = False) -> pd.DataFrame:
    """All cells of a CSV (also zipped, `;`- or tab-separated, with BOM, UTF-16) or Parquet file as text, blanks as ''.

    In a `;`-separated file the comma of a number becomes a point, except in the columns `ids`, which are text as
    written. With `repeats` a column may stand there several times, and the second one comes out as `NAME #2` (see
    `plain`); never the columns `ids`. Raises DataFault where the file is absent, empty or a spreadsheet, repeats a
    column, has ragged rows, or writes numbers in two ways.
    """
    named = [ids] if isinstance(ids, str) else list(ids or ())
    if not path.is_file():
        raise DataFault(f"no table '{path.name}' in '{path.parent.name}/'; correct the cohort's `file` or its root")
    if path.suffix.lower() in SPREADSHEETS:
        raise DataFault(spreadsheet(path.name))
    if path.suffix.lower() == ".parquet":
        return _parquet(path, named)
    text = decode(path)
    separator = separator_of(text)
    header = rectangular(text, separator, path.name, named, repeats)
    frame = cells_of(text, separator, header)
    if separator == ";":  # the decimal comma travels with the semicolon
        values = [name for name in frame.columns if name not in named]
        frame[values] = with_points(frame[values], path.name)
    return frame


def line_numbers(path: Path) -> list[int]:
    """The line of the file on which each row of `read_text` begins; counted from 1 in Parquet, which has no lines."""
    if path.suffix.lower() == ".parquet":
        return list(range(1, len(pd.read_parquet(path)) + 1))
    text = decode(path)
    rows = csv.reader(io.StringIO(text), delimiter=separator_of(text))
    starts, before = [], 0
    for row in rows:
        if len(row) > 1 or (row and row[0].strip()):
            starts.append(before + 1)
        before = rows.line_num
    return starts[1:]


def _parquet(path: Path, ids: Sequence[str]) -> pd.DataFrame:
    """Cells as text; whole numbers that a column of floats holds as ids lose the `.0` that they never had."""
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's faults are ValueErrors
        raise DataFault(f"'{path.name}' cannot be read as Parquet: {error}; write it anew") from error
    if frame.index.name and frame.index.name not in frame.columns:
        frame = frame.reset_index()
    numbers = {name: frame[name] for name in ids if name in frame and frame[name].dtype.kind == "f"}
    frame = frame.astype(object).where(frame.notna(), "").map(lambda cell: str(cell))
    for name, column in numbers.items():
        whole = column.isna() | ((column % 1 == 0) & (column.abs() < 2**53))
        if not whole.all():
            raise DataFault(f"'{path.name}' holds fractions in the id column '{name}'; write ids as text")
        frame[name] = ["" if np.isnan(cell) else str(int(cell)) for cell in column]
    return frame


def read_indexed(path: Path, column: str, *, unique: bool = True, repeats: bool = False) -> pd.DataFrame:
    """A table of text indexed by patient id (text, as written). Raises DataFault on absent, blank or repeated ids.

    `repeats` is that of `read_text`.
    """
    frame = read_text(path, ids=(column, "patient_id"), repeats=repeats)
    if column not in frame.columns:
        raise DataFault(f"'{path.name}' has no column '{column}'; it has {some(frame.columns)}")
    blank = frame.index[frame[column].str.strip() == ""]
    if len(blank):
        row = line_numbers(path)[blank[0]]
        raise DataFault(f"'{path.name}' row {row}: the id in column '{column}' is blank; fill it or drop the row")
    twice = frame[column][frame[column].duplicated()].unique()
    if unique and len(twice):
        raise DataFault(f"'{path.name}' lists {some(twice)} more than once in '{column}'; keep one row a patient")
    return frame.set_index(column)


_DATE = re.compile(r"\d{1,4}[-./ ](\d{1,2}|[A-Za-z]{3,9})[-./ ]\d{2,4}")


def shown(value: object) -> str:
    """A value as a sentence may quote it: of a date only the form, for logs hold no dates of patients.

    >>> shown("31.12.2019"), shown("G4")
    ('##.##.####', 'G4')
    """
    text = str(value)
    return re.sub(r"\d", "#", text) if _DATE.search(text) else text


def numeric(column: pd.Series, where: str, missing: Sequence[str] = MISSING) -> pd.Series:
    """The column as float64, NaN where missing. Raises DataFault naming the first values that are no numbers."""
    text = column.astype(str).str.strip()
    blank = text.isin(missing) | column.isna()
    values = pd.to_numeric(text.where(~blank, "nan"), errors="coerce").astype(float)
    bad = text[~blank & (values.isna() | np.isinf(values))]
    if len(bad):
        listed = "; ".join(f"{patient}: {shown(value)!r}" for patient, value in bad.head(3).items())
        comma = bad.str.fullmatch(r"[+-]?[\d.]*,\d+").any()
        told = "; a decimal comma is read only where `;` separates the columns" if comma else ""
        raise DataFault(
            f"{where}: {len(bad)} value(s) are no numbers ({listed}); correct them or leave them blank{told}"
        )
    return values


def numeric_table(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """All columns as float64, NaN where missing; as `numeric` of each column, in one pass for thousands of them."""
    text = np.array([dtype.kind != "f" for dtype in table.dtypes], dtype=bool)
    out = np.empty(table.shape)
    out[:, ~text] = table.loc[:, ~text].to_numpy(dtype=float)
    cells = table.loc[:, text]
    try:
        out[:, text] = numeric(pd.Series(cells.to_numpy(dtype=object).ravel()), where).to_numpy().reshape(cells.shape)
    except DataFault:
        for name in cells:  # again, to name the column and the patient
            numeric(cells[name], f"{where}, column '{name}'")
        raise
    return pd.DataFrame(out, index=table.index, columns=table.columns)
