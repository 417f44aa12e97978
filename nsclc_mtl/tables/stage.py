"""Stage groups, T, N and M from AJCC strings. Editions and prefixes are never mixed in silence.

AJCC Cancer Staging Manual, 6th to 8th edition, and the lung chapter of the 9th (Rami-Porta et al., J Thorac Oncol
2024): the same tumour may be IB in one edition and IIA in the next, and a clinical T is not a pathological one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from nsclc_mtl.records import DataFault, TaskSpec, UsageFault
from nsclc_mtl.tables import cells
from nsclc_mtl.tables.read import MISSING

EDITIONS = ("6", "7", "8", "9")
MIXED = "mixed_declared"
USUAL = {
    "ajcc_group": ("I", "II", "III", "IV"),
    "ajcc_t": ("T1", "T2", "T3", "T4"),
    "ajcc_n": ("N0", "N1", "N2", "N3"),
    "ajcc_m": ("M0", "M1"),
}
_PREFIX = r"(?P<prefix>[acpry]{0,3})"  # c clinical, p pathological, y after therapy, r at recurrence, a at autopsy
_UNKNOWN = re.compile(r"(stage )?(unknown|unstaged|not staged|cannot be assessed|x)")
# `IS` is not read: a stage of testis cancer to some, carcinoma in situ to others. Nor are Arabic numerals: codes.
_GROUP = re.compile(_PREFIX + r"(?:stage)?(?:(?P<number>iv|iii|ii|i)(?:(?P<letter>[a-e])(?P<digit>[1-3])?)?"
                    r"|(?P<zero>0)(?:is|a)?|(?P<x>x))")  # fmt: skip
_COUNT = r"(?:\((?:m|s|\d+)\))?"  # several tumours: T2(m), T2(3)
_CATEGORY = {
    "ajcc_t": re.compile(
        _PREFIX + r"(?P<letter>t)(?:(?P<x>x)|(?P<base>is)(?:\([a-z ]+\))?|(?P<ta>a)"
        r"|(?P<number>[0-4])(?P<fine>mi|[a-e](?P<digit>[1-3])?)?)" + _COUNT
    ),
    "ajcc_n": re.compile(
        _PREFIX + r"(?P<letter>n)(?:(?P<x>x)|(?P<number>[0-3])(?P<fine>mi|[a-c](?P<digit>i{1,3}|iv|[1-3])?)?)"
        r"(?P<cells>\((?:i|mol)[+-]\))?(?:\((?:sn|f)\))?"
    ),
    "ajcc_m": re.compile(
        _PREFIX + r"(?P<letter>m)(?:(?P<x>x)|(?P<number>[01])(?P<fine>[a-e](?P<digit>[1-3])?)?)(?P<cells>\(i[+-]\))?"
    ),
}


def task_spec(name: str, declared: Mapping[str, Any]) -> TaskSpec:
    """The task that a rule `ajcc_group`, `ajcc_t`, `ajcc_n` or `ajcc_m` declares. Raises UsageFault where the column,
    the edition or the classes are wanting."""
    where = f"cohort.tasks.{name}"
    if not declared.get("column"):
        raise UsageFault(f"{where} declares no `column`; name the one that holds its strings")
    edition, by, kept = declared.get("edition"), declared.get("edition_column"), declared.get("editions")
    if edition is None and not by:
        raise UsageFault(
            f"{where} declares no AJCC edition; set edition to one of {', '.join(EDITIONS)}, name its edition_column, "
            f"or set edition: {MIXED} where the cohort mixes editions that nobody noted"
        )
    for given in [edition] if edition is not None else []:
        if str(given) not in (*EDITIONS, MIXED):
            raise UsageFault(f"{where}.edition={given!r} is none of {', '.join((*EDITIONS, MIXED))}")
    strange = [e for e in kept or () if str(e) not in EDITIONS]
    if strange or (kept and not by):
        told = f"holds {strange[0]!r}, none of {', '.join(EDITIONS)}" if strange else "needs an edition_column"
        raise UsageFault(f"{where}.editions {told}")
    classes = cells.classes_of(name, declared, USUAL[declared["rule"]])
    columns = (declared["column"], *([by] if by else []), *declared.get("also", ()))
    spec = TaskSpec(name, declared["kind"], classes, columns)
    cells.reachable(spec, declared, _reading(declared["rule"]))
    return spec


def labels(
    spec: TaskSpec, declared: Mapping[str, Any], table: pd.DataFrame, file: str, notes: list[str]
) -> pd.DataFrame:
    """Class numbers by patient, column `value`, NaN where not known.

    Raises DataFault on a string that cannot be read, on several editions and on several prefixes, each with counts.
    """
    text = cells.column(table, declared["column"], file)
    text = _of_edition(spec, declared, table, text, file, notes)
    text = _of_prefix(spec, declared, text, file, notes)
    reading = _reading(declared["rule"])
    return pd.DataFrame({"value": cells.classified(spec, declared, text, reading, file, declared["column"])})


def group(cell: str) -> cells.Chain:
    """Words of a stage group, finest first; [] where it is not known, None where it is no stage group.

    >>> group("Stage IIIA3"), group("pStage iib"), group("0is"), group("Stage X"), group("3A")
    (['IIIA3', 'IIIA', 'III'], ['IIB', 'II'], ['0'], [], None)
    """
    if _UNKNOWN.fullmatch(cell.casefold().strip()):
        return []
    found = _GROUP.fullmatch(_bare(cell))
    if not found:
        return None
    if found["x"]:
        return []
    if found["zero"]:
        return ["0"]
    number, letter, digit = found["number"].upper(), (found["letter"] or "").upper(), found["digit"] or ""
    return list(dict.fromkeys([number + letter + digit, number + letter, number]))


def category(rule: str, cell: str) -> cells.Chain:
    """Words of a T, N or M category, finest first; [] where it is not known (X), None where it is none.

    >>> category("ajcc_t", "ypT2a"), category("ajcc_n", "pN1mi(sn)"), category("ajcc_m", "MX"), category("ajcc_t", "2")
    (['T2a', 'T2'], ['N1mi', 'N1'], [], None)
    """
    if _UNKNOWN.fullmatch(cell.casefold().strip()):
        return []
    found = _CATEGORY[rule].fullmatch(_bare(cell))
    if not found:
        return None
    part = found.groupdict()
    if part["x"]:
        return []
    letter = part["letter"].upper()
    if part.get("base") or part.get("ta"):
        return [letter + (part.get("base") or "a")]
    base, fine = letter + part["number"], part["fine"] or ""
    shorter = fine.removesuffix(part["digit"] or "")
    apart = [base + (part.get("cells") or "")] if part.get("cells") else []
    return list(dict.fromkeys([base + fine + (part.get("cells") or ""), base + fine, base + shorter, *apart, base]))


def prefix(rule: str, cell: str) -> str | None:
    """The prefix of a string as `p`, `c`, `yp`, ...; '' without one, None where the string cannot be read."""
    found = (_GROUP if rule == "ajcc_group" else _CATEGORY[rule]).fullmatch(_bare(cell))
    return found["prefix"] if found else None


def _reading(rule: str) -> Callable[[str], cells.Chain]:
    return group if rule == "ajcc_group" else lambda cell: category(rule, cell)


def _bare(cell: str) -> str:
    return re.sub(r"[\s_]", "", cell.casefold())


def _of_edition(
    spec: TaskSpec, declared: Mapping[str, Any], table: pd.DataFrame, text: pd.Series, file: str, notes: list[str]
) -> pd.Series:
    """The strings of the declared editions; blank where an edition was left out, which is noted."""
    name, where = declared.get("edition_column"), f"cohort.tasks.{spec.name}"
    if not name:
        return text
    written = cells.column(table, name, file)
    edition = written.str.extract(r"(?i)^(?:ajcc|uicc)?\s*(?:v(?:ersion)?\s*)?([1-9])(?:\.0)?\s*(?:st|nd|rd|th)?"
                                  r"\s*(?:ed(?:ition)?\.?)?$")[0]  # fmt: skip
    staged = ~text.isin(MISSING)
    strange = written[staged & edition.isna() & ~written.isin(MISSING)]
    if len(strange):
        raise DataFault(f"'{file}' column '{name}' holds {cells.counted(strange)}, no AJCC edition; write 7, 8, ...")
    edition = edition.where(staged)
    kept = [str(e) for e in declared.get("editions") or ()]
    if not kept and declared.get("edition") not in (None, MIXED):
        kept = [str(declared["edition"])]
        other = edition[edition.notna() & ~edition.isin(kept)]
        if len(other):
            raise DataFault(
                f"'{file}' column '{name}' holds {cells.counted(other)} beside {where}.edition={kept[0]}; set "
                f"{where}.editions to those that keep their label, or edition: {MIXED}"
            )
    if kept:
        out = staged & ~edition.isin(kept)
        if out.any():
            told = cells.counted(edition[out].fillna("not stated"))
            notes.append(f"{spec.name}: no label by another AJCC edition than {', '.join(kept)}: {told}")
        return text.mask(out, "")
    seen = edition.where(edition.notna() | ~staged, "not stated").dropna()
    if declared.get("edition") == MIXED:
        notes.append(f"{spec.name}: AJCC editions are mixed, as declared: {cells.counted(seen)}")
    elif seen.nunique() > 1:
        raise DataFault(
            f"'{file}' column '{name}' holds several AJCC editions: {cells.counted(seen)}; set {where}.editions to "
            f"those that keep their label, or {where}.edition: {MIXED} to mix them knowingly"
        )
    return text


def _of_prefix(spec: TaskSpec, declared: Mapping[str, Any], text: pd.Series, file: str, notes: list[str]) -> pd.Series:
    """The strings of the declared prefixes; blank where one was left out. Which there are is noted."""
    found = {cell: prefix(declared["rule"], cell) for cell in text.unique()}
    given = text.map(found).astype(object)
    given = given.where(given.notna(), None)
    seen = given[given.notna() & ~text.isin(MISSING)].replace("", "none")
    kept = declared.get("prefixes")
    if kept is not None:
        kept = ["none" if str(word) == "none" or not word else str(word) for word in kept]
        out = seen.index[~seen.isin(kept)]
        if len(out):
            notes.append(f"{spec.name}: no label by another prefix than {', '.join(kept)}: "
                         f"{cells.counted(seen.loc[out])}")  # fmt: skip
        return text.mask(text.index.isin(out), "")
    if seen.nunique() > 1:
        raise DataFault(
            f"'{file}' column '{declared['column']}' mixes prefixes (c clinical, p pathological, y after therapy): "
            f"{cells.counted(seen)}; set cohort.tasks.{spec.name}.prefixes to those that keep their label"
        )
    if len(seen) and seen.iloc[0] != "none":
        notes.append(f"{spec.name}: all strings have the prefix '{seen.iloc[0]}'")
    return text
