"""Tables as they lie on disk: everything is text until somebody says what it is."""

from __future__ import annotations

import hashlib
import io
import zipfile
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


def read_text(path: Path) -> pd.DataFrame:
    """All cells of a CSV (also zipped, `;`- or tab-separated, with BOM) or Parquet file as text, blanks as ''.

    Raises DataFault where the file is absent, is a spreadsheet, repeats a column or has ragged rows.
    """
    if not path.is_file():
        raise DataFault(f"no table '{path.name}' in '{path.parent.name}/'; correct the cohort's `file` or its root")
    if path.suffix.lower() in {".xlsx", ".xls", ".ods"}:
        raise DataFault(f"'{path.name}' is a spreadsheet; save it as CSV (ids and dates as text) and name that file")
    if path.suffix.lower() == ".parquet":
        frame = pd.read_parquet(path)
        if frame.index.name and frame.index.name not in frame.columns:
            frame = frame.reset_index()
        return frame.astype(object).where(frame.notna(), "").map(lambda cell: str(cell))
    text = _decode(path)
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    header = pd.read_csv(io.StringIO(first), sep=separator, header=None, dtype=str, keep_default_na=False).iloc[0]
    repeated = header[header.duplicated() & (header != "")].unique()
    if len(repeated):
        raise DataFault(
            f"'{path.name}' repeats the column(s) {', '.join(map(repr, repeated[:5]))}; keep one of each, or merge them"
        )
    try:
        frame = pd.read_csv(
            io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, index_col=False, on_bad_lines="error"
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataFault(f"'{path.name}' cannot be read as a table: {error}") from error
    if separator == ";":  # the decimal comma travels with the semicolon
        frame = frame.replace(r"^(-?\d+),(\d+)$", r"\1.\2", regex=True)
    return frame.fillna("")


def _decode(path: Path) -> str:
    data = path.read_bytes()
    for _ in range(2):  # some archives hold an archive
        if data[:2] != b"PK":
            break
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise DataFault(f"'{path.name}' holds {len(names)} files, one table was expected")
            if archive.getinfo(names[0]).file_size > 4_000_000_000:
                raise DataFault(f"'{path.name}' unpacks to more than 4 GB; unpack it and name the table itself")
            data = archive.read(names[0])
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataFault(f"'{path.name}' is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def read_indexed(path: Path, column: str, *, unique: bool = True) -> pd.DataFrame:
    """A table of text indexed by patient id (text, as written). Raises DataFault on absent, blank or repeated ids."""
    frame = read_text(path)
    if column not in frame.columns:
        raise DataFault(f"'{path.name}' has no column '{column}'; it has {_some(frame.columns)}")
    blank = frame.index[frame[column] == ""]
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
    blank = text.isin(missing)
    values = pd.to_numeric(text.where(~blank, "nan"), errors="coerce").astype(float)
    bad = text[~blank & (values.isna() | np.isinf(values))]
    if len(bad):
        listed = "; ".join(f"{patient}: {value!r}" for patient, value in bad.head(3).items())
        raise DataFault(f"{where}: {len(bad)} value(s) are no numbers ({listed}); correct them or leave them blank")
    return values


def _some(names: Iterable[object], most: int = 6) -> str:
    listed = [f"'{name}'" for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
