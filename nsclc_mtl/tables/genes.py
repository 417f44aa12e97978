"""Names of genes: those that a spreadsheet made dates or numbers of, and those that stand in a table twice."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping

import pandas as pd

from nsclc_mtl.records import DataFault
from nsclc_mtl.tables.read import plain

_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11,
    "dec": 12, "sept": 9, "march": 3, "mär": 3, "mrz": 3, "mars": 3, "okt": 10, "dez": 12, "déc": 12,
}  # fmt: skip
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DAY_MONTH = re.compile(rf"(\d{{1,2}})[-. /]({_MONTH})\.?(?:[-. /](?:\d{{4}}|\d{{2}}))?", re.IGNORECASE)  # 2-Sep-22
_MONTH_DAY = re.compile(rf"({_MONTH})\.?[-. /](\d{{1,2}})", re.IGNORECASE)  # Sep-02
_ISO = re.compile(r"(?:19|20)\d\d[-/](\d\d)[-/](\d\d)(?: 00:00(?::00)?)?")  # 2022-09-02
_SERIAL = re.compile(r"\d{5}(?:\.0)?")  # 44806: days since 1899-12-30
_FLOAT = re.compile(r"\d(?:[.,]\d+)?[eE]\+?\d{1,2}")  # 2.31E+13: a RIKEN clone such as 2310009E13
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d*)?")
_SUFFIX = re.compile(r"[_|]")  # 2-Sep_rnaseq


def mangled(names: Iterable[object]) -> dict[str, str]:
    """The names that a spreadsheet made of genes, each with the gene that it likely was, or with what it looks like.

    Ziemann, Eren and El-Osta (Genome Biol 2016) found such names in a fifth of the supplementary gene lists that they
    looked at; the genes were renamed for it (Bruford et al., Nat Genet 2020), and the new names are those given here.

    >>> mangled(["TP53", "SEPT2", "2-Sep", "Mar-01", "44806", "2.31E+13"])
    {'2-Sep': 'SEPTIN2', 'Mar-01': 'MARCHF1 or MTARC1', '44806': 'SEPTIN2', '2.31E+13': 'a RIKEN clone as 2310009E13'}
    """
    out = {}
    for name in names:
        written = plain(name).strip()
        if told := _likely(written) or (_SUFFIX.search(written) and _likely(_SUFFIX.split(written)[0], dates=True)):
            out[str(name)] = told
    return out


def _likely(name: str, *, dates: bool = False) -> str:
    """The gene that a name was before it became a date or a number; empty where it is neither."""
    if found := _DAY_MONTH.fullmatch(name):
        return _dated(_MONTHS[found[2].casefold()], int(found[1]))
    if found := _MONTH_DAY.fullmatch(name):
        return _dated(_MONTHS[found[1].casefold()], int(found[2]))
    if found := _ISO.fullmatch(name):
        return _dated(int(found[1]), int(found[2]))
    if dates:
        return ""  # with a suffix a number is an accession: 7157_rnaseq
    if _FLOAT.fullmatch(name):
        return "a RIKEN clone as 2310009E13"
    if _SERIAL.fullmatch(name):
        day = datetime.date(1899, 12, 30) + datetime.timedelta(days=int(name[:5]))
        if day.year >= 1990 and day.month in (3, 9, 12) and day.day <= 15:
            return _dated(day.month, day.day)
    return "a number" if _NUMBER.fullmatch(name) else ""


def _dated(month: int, number: int) -> str:
    if month == 9:  # 15-Sep was SEP15, the selenoprotein F
        return "SELENOF" if number == 15 else f"SEPTIN{number}"
    if month == 3:
        return f"MARCHF{number} or MTARC{number}" if number <= 2 else f"MARCHF{number}"
    return {(12, 1): "DELEC1", (10, 4): "POU5F1, once OCT4"}.get((month, number), "a gene whose name reads as a date")


def refuse(names: Iterable[object], where: str, key: str) -> None:
    """Raises DataFault where names of genes were made dates or numbers, with each name and the gene it likely was."""
    found = mangled(names)
    if not found:
        return
    listed = ", ".join(f"'{name}' ({gene})" for name, gene in list(found.items())[:6])
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    raise DataFault(
        f"{where}: {len(found)} column(s) have names that a spreadsheet made of genes: {listed}{more}; take the names "
        f"from the original file, or set {key}.gene_names to false where the columns are no genes"
    )


def renamed(names: Iterable[object]) -> list[str]:
    """Names as `TP53.1` beside `TP53`, which is how readers of tables rename a second column of the same name.

    >>> renamed(["TP53", "TP53.1", "AC004556.1"])
    ['TP53.1']
    """
    there = {str(name) for name in names}
    return [name for name in map(str, names) if re.search(r"\.\d$", name) and name[:-2] in there]


def groups(names: Iterable[object]) -> dict[str, list[str]]:
    """The columns of each name that stood in the table more than once, in the order of the table.

    >>> groups(["TP53", "KRAS", "TP53 #2"])
    {'TP53': ['TP53', 'TP53 #2']}
    """
    out: dict[str, list[str]] = {}
    for name in names:
        out.setdefault(plain(name), []).append(str(name))
    return {name: columns for name, columns in out.items() if len(columns) > 1}


def mean_of_each(table: pd.DataFrame, same: Mapping[str, list[str]]) -> pd.DataFrame:
    """The table with the mean of the columns of one name, of those that are known, in the place of the first."""
    made = table.copy()
    for columns in same.values():
        made[columns[0]] = table[columns].mean(axis=1)
    return made.drop(columns=[c for columns in same.values() for c in columns[1:]])


def widest_of_each(table: pd.DataFrame, same: Mapping[str, list[str]]) -> pd.DataFrame:
    """The table with the column of largest variance among those of one name; of equal ones the first.

    To be called with the training patients alone: the choice is fitted.
    """
    variance = table[[c for columns in same.values() for c in columns]].var().fillna(-1.0)
    kept = {max(columns, key=lambda c: float(variance[c])) for columns in same.values()}
    return table[[c for c in table.columns if c in kept or plain(c) not in same]]
