"""A table's text: its encoding, its separator, its rows of one length, its decimal signs."""

from __future__ import annotations

import codecs
import csv
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

SPREADSHEETS = (".xlsx", ".xls", ".ods")


def decode(path: Path) -> str:
    """The text of a file, also zipped or in UTF-16, with one sign for the end of a line.

    Raises DataFault on a broken or encrypted archive, a spreadsheet under another name, and another encoding.
    """
    data = path.read_bytes()
    for _ in range(2):  # some archives hold an archive
        if data[:4] != b"PK\x03\x04":
            break
        try:  # of a password, and of a compression that it lacks, zipfile raises RuntimeError or its child
            data = _unpacked(data, path.name)
        except (zipfile.BadZipFile, RuntimeError, zlib.error, EOFError) as error:
            raise DataFault(f"'{path.name}' is a broken or encrypted archive ({error}); pack it anew") from error
    if data[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise DataFault(spreadsheet(path.name))
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
            raise DataFault(spreadsheet(file))
        if len(names) != 1:
            raise DataFault(f"'{file}' holds {len(names)} files, one table was expected")
        if archive.getinfo(names[0]).file_size > 4_000_000_000:
            raise DataFault(f"'{file}' unpacks to more than 4 GB; unpack it and name the table itself")
        return archive.read(names[0])


def spreadsheet(file: str) -> str:
    """What is said of a spreadsheet."""
    return f"'{file}' is a spreadsheet; save it as CSV (ids and dates as text) and name that file"


def separator_of(text: str) -> str:
    """The sign that stands most often between the names of the columns."""
    first = text.lstrip("\n").split("\n", 1)[0]
    return max(",;\t", key=re.sub(r'"[^"]*"', "", first).count)


def rectangular(text: str, separator: str, file: str, ids: Sequence[str], repeats: bool) -> list[str]:
    """The header. Raises DataFault where a table is empty, repeats a column, or has a row of another length.

    Pandas cuts a row that is too long and fills one that is too short: values would stand in the wrong column. With
    `repeats` only the columns `ids` must not stand there twice.
    """
    rows = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        header = next((row for row in rows if row), None)
        if header is None:
            raise DataFault(f"'{file}' is empty; a table has a line of column names and a row a patient")
        repeated = [name for name, times in Counter(header).items() if name and times > 1]
        if repeats:
            repeated = [name for name in repeated if name in ids]
        if repeated:
            raise DataFault(f"'{file}' repeats the column(s) {some(repeated)}; keep one of each, or merge them")
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
    return header


def cells_of(text: str, separator: str, header: list[str]) -> pd.DataFrame:
    """The cells below the header, one block of objects: thousands of columns of Arrow strings take seconds to touch."""
    times: Counter[str] = Counter()
    names = []
    for i, name in enumerate(header):
        times[name] += 1
        again = name and times[name] > 1
        names.append(f"{name} #{times[name]}" if again else name or f"Unnamed: {i}")
    if '"' in text or "\r" in text or "\x00" in text:
        frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=object, keep_default_na=False, index_col=False)
    else:  # ten times as fast for thousands of columns
        rows = [line.split(separator) for line in text.split("\n") if line.strip(" ")][1:]
        block = np.empty((len(rows), len(header)), dtype=object)
        if rows:
            block[:] = rows
        frame = pd.DataFrame(block, dtype=object, copy=False)
    frame.columns = pd.Index(names)
    return frame


_COMMA = r"^([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)$"
_POINT = r"^[+-]?\d*\.\d+(?:[eE][+-]?\d+)?$"
_THOUSANDS = r"^[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?$"


def with_points(cells: pd.DataFrame, file: str) -> pd.DataFrame:
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


def some(names: Iterable[object], most: int = 6) -> str:
    """The first names, quoted, and how many more there are."""
    listed = [f"'{name}'" for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
