"""Tables as they lie on disk: everything is text until somebody says what it is."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "None", "[Not Available]", "[Unknown]", "[Not Evaluated]")
"""Words that mean "not known" in a value column. In an id column they are ids like any other."""


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path, ids: str | None = None) -> pd.DataFrame:
    """All cells of a CSV (also zipped, `;`- or tab-separated, with BOM) or Parquet file as text, blanks as ''.

    In a `;`-separated file the comma of a number becomes a point, except in the column `ids`. Raises DataFault where
    the file is absent, empty or a spreadsheet, repeats a column or has ragged rows.
    """
    if not path.is_file():
        raise DataFault(f"no table '{path.name}' in '{path.parent.name}/'; correct the cohort's `file` or its root")
    if path.suffix.lower() in {".xlsx", ".xls", ".ods"}:
        raise DataFault(f"'{path.name}' is a spreadsheet; save it as CSV (ids and dates as text) and name that file")
    if path.suffix.lower() == ".parquet":
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:  # pyarrow's faults are ValueErrors
            raise DataFault(f"'{path.name}' cannot be read as Parquet: {error}; write it anew") from error
        if frame.index.name and frame.index.name not in frame.columns:
            frame = frame.reset_index()
        return frame.astype(object).where(frame.notna(), "").map(lambda cell: str(cell))
    text = _decode(path)
    first = text.lstrip("\n").split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    _rectangular(text, separator, path.name)
    # object rather than str: one block of memory, where thousands of columns of Arrow strings take seconds to touch
    frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=object, keep_default_na=False, index_col=False)
    if separator == ";":  # the decimal comma travels with the semicolon
        values = [name for name in frame.columns if name != ids]
        frame[values] = frame[values].replace(r"^([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)$", r"\1.\2", regex=True)
    return frame


def _rectangular(text: str, separator: str, file: str) -> None:
    """Raises DataFault where a table is empty, repeats a column, or has a row of another length than its header.

    Pandas cuts a row that is too long and fills one that is too short: values would stand in the wrong column.
    """
    rows = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        header = next((row for row in rows if row), None)
        if header is None:
            raise DataFault(f"'{file}' is empty; a table has a line of column names and a row a patient")
        repeated = [name for name, times in Counter(header).items() if name and times > 1]
        if repeated:
            raise DataFault(f"'{file}' repeats the column(s) {_some(repeated)}; keep one of each, or merge them")
        if '"' in text:
            widths = ((rows.line_num, len(row)) for row in rows if len(row) > 1 or (row and row[0].strip()))
        else:  # ten times as fast
            lines = enumerate(text.split("\n"), start=1)
            widths = ((at, line.count(separator) + 1) for at, line in lines if line.strip(" \r"))
        for at, width in widths:
            if width != len(header):
                raise DataFault(
                    f"'{file}' row {at} has {width} cells, the header {len(header)}; correct that row, "
                    "or quote the cells that hold the separator"
                )
    except csv.Error as error:
        raise DataFault(f"'{file}' cannot be read as a table: line {rows.line_num}: {error}") from error


def _decode(path: Path) -> str:
    data = path.read_bytes()
    for _ in range(2):  # some archives hold an archive
        if data[:4] != b"PK\x03\x04":
            break
        try:  # zipfile lacks a compression by NotImplementedError, and a password by RuntimeError
            data = _unpacked(data, path.name)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError) as error:
            raise DataFault(f"'{path.name}' is a broken or encrypted archive ({error}); pack it anew") from error
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataFault(f"'{path.name}' is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _unpacked(data: bytes, file: str) -> bytes:
    """The one table of an archive; the shadow files that a Mac packs beside it do not count."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise DataFault(f"'{file}' holds {len(names)} files, one table was expected")
        if archive.getinfo(names[0]).file_size > 4_000_000_000:
            raise DataFault(f"'{file}' unpacks to more than 4 GB; unpack it and name the table itself")
        return archive.read(names[0])


def read_indexed(path: Path, column: str, *, unique: bool = True) -> pd.DataFrame:
    """A table of text indexed by patient id (text, as written). Raises DataFault on absent, blank or repeated ids."""
    frame = read_text(path, ids=column)
    if column not in frame.columns:
        raise DataFault(f"'{path.name}' has no column '{column}'; it has {_some(frame.columns)}")
    blank = frame.index[frame[column].str.strip() == ""]
    if len(blank):
        raise DataFault(
            f"'{path.name}' row {blank[0] + 2}: the id in column '{column}' is blank; fill it or drop the row"
        )
    twice = frame[column][frame[column].duplicated()].unique()
    if unique and len(twice):
        raise DataFault(f"'{path.name}' lists {_some(twice)} more than once in '{column}'; keep one row a patient")
    return frame.set_index(column)


def numeric(column: pd.Series, where: str, missing: Sequence[str] = MISSING) -> pd.Series:
    """The column as float64, NaN where missing. Raises DataFault naming the first values that are no numbers."""
    text = column.astype(str).str.strip()
    blank = text.isin(missing) | column.isna()
    values = pd.to_numeric(text.where(~blank, "nan"), errors="coerce").astype(float)
    bad = text[~blank & (values.isna() | np.isinf(values))]
    if len(bad):
        listed = "; ".join(f"{patient}: {value!r}" for patient, value in bad.head(3).items())
        raise DataFault(f"{where}: {len(bad)} value(s) are no numbers ({listed}); correct them or leave them blank")
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


def _some(names: Iterable[object], most: int = 6) -> str:
    listed = [f"'{name}'" for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
