"""A first draft of a cohort's declaration from its tables: guesses are marked, event and time are never guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from nsclc_mtl.cohort.lint.alarms import HARMLESS, SMELLS
from nsclc_mtl.cohort.templates import quoted
from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.read import MISSING

GUESS = "# guess"
WIDE = 20  # columns of numbers, from which a table is one of features
FEW = 10  # different values, up to which words are categories and whole numbers may be codes
_ID = re.compile(r"(^|_)(id|patient|case|subject|barcode|pid|mrn)(_|$)")
_SITE = re.compile(r"(^|_)(site|cent(er|re)|hospital|institution|clinic)(_|$)")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./]\d\d?[./]\d{2,4}")
_TIME = re.compile(r"(^|_)(days?|weeks?|months?|years?|time|follow\w*|fu|date)(_|$)")

Sort = Literal["outcome", "date", "numeric", "categorical", "text", "constant", "empty"]


@dataclass
class Drafted:
    """One table of the study: where it lies, its column of ids, and what its other columns look like."""

    file: str
    frame: pd.DataFrame
    id: str
    certain: bool  # the id column bears the usual name
    sorts: dict[str, Sort] = field(default_factory=dict)
    parsed: set[str] = field(default_factory=set)  # columns that hold numbers alone

    def follow(self, column: str) -> None:
        """Takes the id column of the patients' table, where this one has it too."""
        if column != self.id and column in self.frame:
            del self.sorts[column]
            self.sorts[self.id] = "text"
            self.id = column

    def of(self, *sorts: Sort) -> list[str]:
        """The columns of these sorts, in their order."""
        return [name for name, sort in self.sorts.items() if sort in sorts]

    @property
    def kind(self) -> str:
        """`slides`, `scans`, `omics` or `clinical`."""
        names = {str(name).lower() for name in self.frame}
        if {"slide_id", "path"} <= names:
            return "slides"
        if {"scan_id", "image"} <= names:
            return "scans"
        return "omics" if len(self.numbers) >= WIDE and len(self.numbers) >= 0.9 * len(self.sorts) else "clinical"

    @property
    def numbers(self) -> list[str]:
        """The columns of numbers, codes among them, that speak of no outcome."""
        return [name for name in self.of("numeric", "categorical", "constant") if name in self.parsed]


def draft(name: str, root: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """The declaration of a study as YAML text, from its tables (file below `root` -> cells as text).

    Of the tables with one row a patient, the one with most names that speak of outcomes is taken for that of the
    patients. Raises UsageFault without tables and DataFault where no column can be the id.
    """
    if not tables:
        raise UsageFault("`mtl init --from` needs the tables that are there")
    read = [_table(file, frame) for file, frame in tables.items()]
    whole = [table for table in read if table.kind not in ("slides", "scans") and table.frame[table.id].is_unique]
    if not whole:
        raise DataFault(f"none of {', '.join(tables)} has one row a patient: name the table of the patients too")
    main = max(whole, key=lambda table: (table.kind == "clinical", len(table.of("outcome"))))
    for table in read:
        table.follow(main.id)
    smelling = sorted({name for table in read for name in table.of("outcome")})
    parts = [
        f"# {name}: drafted by `mtl init --from`. A line marked `{GUESS}` is a guess: look at it.",
        "# ??? is to be filled in; nothing runs before.",
        f"name: {quoted(name)}",
        f"root: {quoted(root)}",
        "",
        f"patients: {_patients(main)}",
        "",
        *_index(read),
        *_tasks(main),
        "# Names that speak of an outcome are no columns below. What is part of one, and no task, belongs here.",
        f"# Proposed: {_listed(smelling, 40) or 'none'}",
        "never_inputs: []",
        "",
        "# Add to each `time: before`, {days: COLUMN}, {date: COLUMN} or `after`: when it was known.",
        "modalities:",
    ]
    taken: set[str] = set()
    for table in read:
        parts += _modality(table, main, taken)
    return "\n".join(parts) + "\n"


# ---------------------------------------------------------------------------------------------------------------------
# Looking at a table
# ---------------------------------------------------------------------------------------------------------------------


def _table(file: str, frame: pd.DataFrame) -> Drafted:
    column, certain = _id(frame, file)
    made = Drafted(file, frame, column, certain)
    made.parsed = {str(name) for name in frame if _numbers(frame[name])}
    made.sorts = {str(name): sort_of(str(name), frame[name]) for name in frame if name != column}
    return made


def _id(frame: pd.DataFrame, file: str) -> tuple[str, bool]:
    """The column of ids, and whether it bears the usual name.

    Else the first that is named like one, else the first without blanks and repetition that holds no fractions.
    """
    if "patient_id" in frame:
        return "patient_id", True
    filled = [str(name) for name in frame if len(frame) and (frame[name].str.strip() != "").all()]
    named = [name for name in filled if _ID.search(name.lower())]
    single = [n for n in filled if frame[n].is_unique and not frame[n].str.contains(r"^-?\d*\.\d+$").any()]
    for name in [*(n for n in named if n in single), *named, *single]:
        return name, False
    raise DataFault(f"'{file}' has no column that could be the id: filled in every row, and of one value a patient")


def sort_of(name: str, column: pd.Series) -> Sort:
    """What a column looks like, by its name and its cells (text)."""
    if smells(name):
        return "outcome"
    text = column.astype(str).str.strip()
    known = text[~text.isin(MISSING)]
    if known.empty:
        return "empty"
    different = known.nunique()
    if different == 1:
        return "constant"
    if known.str.fullmatch(_DATE).all():
        return "date"
    numbers = pd.to_numeric(known, errors="coerce")
    if numbers.notna().all():
        codes = different <= FEW and (numbers % 1 == 0).all() and len(known) > 2 * different
        return "categorical" if codes else "numeric"
    return "categorical" if different <= max(FEW, len(known) // 10) and different < len(known) else "text"


def _numbers(column: pd.Series) -> bool:
    text = column.str.strip()
    return bool((pd.to_numeric(text, errors="coerce").notna() | text.isin(MISSING)).all())


def smells(name: str) -> bool:
    """Whether a name speaks of what happened later, by the words that `mtl check` minds."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    bad = [word for word in words if SMELLS.match(word)]
    if bad == ["status"] and any(HARMLESS.match(word) for word in words):
        return False
    return bool(bad) or {"days", "to"} <= set(words)


# ---------------------------------------------------------------------------------------------------------------------
# Writing it down
# ---------------------------------------------------------------------------------------------------------------------


def _patients(table: Drafted) -> str:
    sites = [name for name in table.sorts if _SITE.search(name.lower())]
    site = f", site: {quoted(sites[0])}" if sites else ""
    told = [] if table.certain else ["id"]
    told += ["site"] if sites else []
    mark = f"   {GUESS}: {' and '.join(told)}" if told else ""
    return f"{{file: {quoted(table.file)}, id: {quoted(table.id)}{site}}}{mark}"


def _index(tables: Sequence[Drafted]) -> list[str]:
    dates = [name for table in tables for name in table.of("date")]
    return [
        "# The day at which a prediction is made: {column: COLUMN, event: surgery}, or without dates {event: surgery}.",
        f"# Columns of dates: {_listed(dates) or 'none'}",
        "# index_date: {}",
        "",
    ]


def _tasks(table: Drafted) -> list[str]:
    """A survival task to be filled in, and the columns that could be its parts."""
    frame, outcome = table.frame, table.of("outcome")
    times = [n for n in table.frame if n != table.id and _TIME.search(str(n).lower())]
    times += [n for n in outcome if n not in times and sort_of("x", frame[n]) in ("numeric", "date")]
    words = [n for n in outcome if sort_of("x", frame[n]) == "categorical" or frame[n].nunique() <= 4]
    events = [f"{n} ({_listed(sorted(set(frame[n]) - set(MISSING)), 5)})" for n in words]
    classes = [n for n in table.of("categorical") if 2 <= frame[n].nunique() <= 6]
    return [
        "tasks:",
        "  survival:",
        "    kind: survival",
        "    endpoint: ???   # which events count: overall survival, recurrence-free survival, ...",
        f"    time: ???       # candidates: {_listed(times) or 'none by name'}",
        "    unit: ???       # days, weeks, months or years",
        f"    event: ???      # candidates: {_listed(events, 6) or 'none by name'}",
        "    events: ???     # every value that occurs: {dead: 1, alive: 0}; null = not known",
        "  # Classes: NAME: {kind: ordinal, column: COLUMN, classes: [lowest, ..., highest]}",
        f"  # candidates: {_listed(classes, 6) or 'none'}",
        "",
    ]


def _modality(table: Drafted, main: Drafted, taken: set[str]) -> list[str]:
    """The lines of one table, a modality under the name of its file."""
    stem = re.sub(r"\W+", "_", table.file.rsplit("/", 1)[-1].split(".", 1)[0]).strip("_").lower() or "table"
    name = next(word for word in [stem, *(f"{stem}_{k}" for k in range(2, 99))] if word not in taken)
    taken.add(name)
    if table.kind == "slides":
        return [f"  wsi: {{kind: bag, table: {quoted(table.file)}, optional: true}}   {GUESS}: kind"]
    if table.kind == "scans":
        words = "{kind: radiomics, scans: PRESET, optional: true}"
        return [f"  # {name}: {words}   # a preset of conf/scans, such as ct_lung"]
    begin = [f"    file: {quoted(table.file)}"]
    if table.id != main.id:
        begin.append(f"    id: {quoted(table.id)}{'' if table.certain else f'   {GUESS}'}")
    if not table.frame[table.id].is_unique:
        begin.append("    # several rows a patient, which is refused; `duplicates: first` would keep the first of each")
    if table.kind == "omics":
        begin = [f"  {name}:", f"    kind: omics   {GUESS}", *begin]
        kept = set(table.numbers)
        out = [quoted(column) for column in table.sorts if column not in kept]
        return [*begin, f"    exclude: [{', '.join(out)}]   {GUESS}: no numbers, or outcomes"] if out else begin
    columns = [n for n in table.of("numeric", "categorical") if not _SITE.search(n.lower())]
    left = [
        f"{word}: {_listed(names)}"
        for word, sort in (("dates", "date"), ("text or ids", "text"), ("one value", "constant"), ("blank", "empty"))
        if (names := [n for n, found in table.sorts.items() if found == sort])
    ]
    if not columns:
        return [f"  # '{table.file}' holds no column that looks like an input ({'; '.join(left) or 'outcomes alone'})"]
    lines = [f"  {name}:", "    kind: clinical", *begin, "    columns:"]
    for column in columns:
        seen = sorted(set(table.frame[column].str.strip()) - set(MISSING))
        told = f": {_listed(seen, 6)}" if table.sorts[column] == "categorical" else "; add unit, min and max"
        lines.append(f"      {quoted(column)}: {table.sorts[column]}   {GUESS}{told}")
    return lines + [f"      # left out, {words}" for words in left]


def _listed(names: Sequence[object], most: int = 8) -> str:
    """Names for a comment, on one line."""
    flat = [re.sub(r"\s+", " ", str(name))[:40] for name in names]
    return ", ".join(flat[:most]) + (f" and {len(flat) - most} more" if len(flat) > most else "")
