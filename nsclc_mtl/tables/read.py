"""Tables as they lie on disk: everything is text until somebody says what it is."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import re
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
SPREADSHEETS = (".xlsx", ".xls", ".ods")


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path, ids: str | Sequence[str] | None = None) -> pd.DataFrame:
    """All cells of a CSV (also zipped, `;`- or tab-separated, with BOM, UTF-16) or Parquet file as text, blanks as ''.

    In a `;`-separated file the comma of a number becomes a point, except in the columns `ids`, which are text as
    written. Raises DataFault where the file is absent, empty or a spreadsheet, repeats a column, has ragged rows, or
    writes numbers in two ways.
    """
    named = [ids] if isinstance(ids, str) else list(ids or ())
    if not path.is_file():
        raise DataFault(f"no table '{path.name}' in '{path.parent.name}/'; correct the cohort's `file` or its root")
    if path.suffix.lower() in SPREADSHEETS:
        raise DataFault(_spreadsheet(path.name))
    if path.suffix.lower() == ".parquet":
        return _parquet(path, named)
    text = decode(path)
    separator = _separator(text)
    _rectangular(text, separator, path.name)
    # object rather than str: one block of memory, where thousands of columns of Arrow strings take seconds to touch
    frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=object, keep_default_na=False, index_col=False)
    if separator == ";":  # the decimal comma travels with the semicolon
        values = [name for name in frame.columns if name not in named]
        frame[values] = _with_points(frame[values], path.name)
    return frame


def line_numbers(path: Path) -> list[int]:
    """The line of the file on which each row of `read_text` begins; counted from 1 in Parquet, which has no lines."""
    if path.suffix.lower() == ".parquet":
        return list(range(1, len(pd.read_parquet(path)) + 1))
    text = decode(path)
    rows = csv.reader(io.StringIO(text), delimiter=_separator(text))
    starts, before = [], 0
    for row in rows:
        if len(row) > 1 or (row and row[0].strip()):
            starts.append(before + 1)
        before = rows.line_num
    return starts[1:]


def _separator(text: str) -> str:
    """The sign that stands most often between the names of the columns."""
    first = text.lstrip("\n").split("\n", 1)[0]
    return max(",;\t", key=re.sub(r'"[^"]*"', "", first).count)


def _spreadsheet(file: str) -> str:
    return f"'{file}' is a spreadsheet; save it as CSV (ids and dates as text) and name that file"


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


_COMMA = r"^([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)$"
_POINT = r"^[+-]?\d*\.\d+(?:[eE][+-]?\d+)?$"
_THOUSANDS = r"^[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?$"


def _with_points(cells: pd.DataFrame, file: str) -> pd.DataFrame:
    """Cells with a decimal point for the decimal comma. Raises DataFault where a column holds both, or a number such as
    1.234 beside decimal commas may be a thousand."""
    commas = {name: cells[name].str.match(_COMMA) for name in cells}
    used = [name for name, found in commas.items() if found.any()]
    if not used:
        return cells
    for name in cells:
        doubt = cells[name].str.match(_POINT if name in used else _THOUSANDS) | cells[name].str.match(_THOUSANDS)
        if doubt.any():
            value = cells[name][doubt].iloc[0]
            raise DataFault(
                f"'{file}' column '{name}' holds {value!r} in a file with decimal commas: a part, or thousands? "
                "Write all numbers in one way, without a sign for thousands"
            )
    return cells.assign(**{str(name): cells[name].str.replace(_COMMA, r"\1.\2", regex=True) for name in used})


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


def decode(path: Path) -> str:
    """The text of a file, also zipped or in UTF-16, with one sign for the end of a line.

    Raises DataFault on a broken or encrypted archive, a spreadsheet under another name, and another encoding.
    """
    data = path.read_bytes()
    for _ in range(2):  # some archives hold an archive
        if data[:4] != b"PK\x03\x04":
            break
        try:  # zipfile lacks a compression by NotImplementedError, and a password by RuntimeError
            data = _unpacked(data, path.name)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError) as error:
            raise DataFault(f"'{path.name}' is a broken or encrypted archive ({error}); pack it anew") from error
    if data[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise DataFault(_spreadsheet(path.name))
    wide = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # what Excel calls Unicode text
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        name = "UTF-16, though it begins so" if wide else "UTF-8"
        raise DataFault(f"'{path.name}' is not {name} (byte {error.start}); save it as UTF-8") from error
    if "\0" in text:
        raise DataFault(f"'{path.name}' is not UTF-8 (it holds zero bytes); save it as UTF-8")
    return text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")


def _unpacked(data: bytes, file: str) -> bytes:
    """The one table of an archive; the shadow files that a Mac packs beside it do not count."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if "[Content_Types].xml" in names or "mimetype" in names:
            raise DataFault(_spreadsheet(file))
        if len(names) != 1:
            raise DataFault(f"'{file}' holds {len(names)} files, one table was expected")
        if archive.getinfo(names[0]).file_size > 4_000_000_000:
            raise DataFault(f"'{file}' unpacks to more than 4 GB; unpack it and name the table itself")
        return archive.read(names[0])


def read_indexed(path: Path, column: str, *, unique: bool = True) -> pd.DataFrame:
    """A table of text indexed by patient id (text, as written). Raises DataFault on absent, blank or repeated ids."""
    frame = read_text(path, ids=(column, "patient_id"))
    if column not in frame.columns:
        raise DataFault(f"'{path.name}' has no column '{column}'; it has {_some(frame.columns)}")
    blank = frame.index[frame[column].str.strip() == ""]
    if len(blank):
        row = line_numbers(path)[blank[0]]
        raise DataFault(f"'{path.name}' row {row}: the id in column '{column}' is blank; fill it or drop the row")
    twice = frame[column][frame[column].duplicated()].unique()
    if unique and len(twice):
        raise DataFault(f"'{path.name}' lists {_some(twice)} more than once in '{column}'; keep one row a patient")
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


def _some(names: Iterable[object], most: int = 6) -> str:
    listed = [f"'{name}'" for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
