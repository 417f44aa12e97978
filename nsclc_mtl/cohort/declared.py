"""Which tables a cohort declares, and what it says of their columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.cohort import barcodes, rules, scan_files, specs, times
from nsclc_mtl.cohort.schema import Table
from nsclc_mtl.records import DataFault, FaultRow
from nsclc_mtl.tables import read
from nsclc_mtl.tables.covariates import covariates

Tables = dict[str, Table]
SLIDES = ("slide_id", "scan_id", "section_id")  # ids of tables with several rows a patient


def tables(cohort: Mapping[str, Any], tasks: Sequence[str] | None, modalities: Sequence[str] | None) -> list[Table]:
    """Every table that the picked tasks and modalities read, once, with its columns of ids."""
    found: Tables = {}

    def add(file: str, column: str, optional: bool) -> None:
        table = found.setdefault(file, Table(file, []))
        table.ids += [name for name in dict.fromkeys((column, "patient_id")) if name not in table.ids]
        table.optional &= optional

    main, own = cohort["patients"]["file"], _id(cohort, {})
    add(main, own, False)
    index = cohort.get("index_date") or {}
    if index.get("column"):
        add(index.get("file") or main, _id(cohort, index), False)
    for task in _tasks(cohort, tasks).values():
        for part in (task, task.get("applies") or {}):
            add(part.get("file") or task.get("file") or main, _id(cohort, {**task, **part}), False)
    for name, options in _modalities(cohort, modalities).items():
        optional = modalities is None and bool(options.get("optional"))
        file, column = _table_of(cohort, options)
        if file:
            add(file, column, optional or name == "")
    return list(found.values())


def rule(
    cohort: Mapping[str, Any], found: Tables, tasks: Sequence[str] | None, modalities: Sequence[str] | None
) -> list[FaultRow]:
    """Gives the tables that were found the rules of their columns; faults that are none of a single cell come back."""
    more: list[FaultRow] = []
    main = cohort["patients"]["file"]
    style = str(cohort["patients"].get("ids") or "text")
    _ids(found.get(main), _id(cohort, {}), style, unique=True)
    site = cohort["patients"].get("site")
    if site and main in found:
        found[main].add(site)
    patients = _patients(found.get(main), _id(cohort, {}), style)
    index, wrong = _index(cohort, found)
    more += wrong
    for name, task in _tasks(cohort, tasks).items():
        more += _task(cohort, name, task, found, index, patients)
    for name, options in _modalities(cohort, modalities).items():
        more += _modality(cohort, name, options, found, index, patients)
    return more


# ---------------------------------------------------------------------------------------------------------------------
# What is picked
# ---------------------------------------------------------------------------------------------------------------------


def _tasks(cohort: Mapping[str, Any], wanted: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    declared = cohort.get("tasks") or {}
    if wanted is None:
        return {name: task for name, task in declared.items() if not task.get("optional")}
    return {name: declared[name] for name in wanted if name in declared}


def _modalities(cohort: Mapping[str, Any], wanted: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """The picked modalities, without optional ones that are later than the index date and that nobody asked for."""
    declared = cohort.get("modalities") or {}
    if wanted is not None:
        return {name: declared[name] for name in wanted if name in declared}
    later = {
        name
        for name, options in declared.items()
        if options.get("optional")
        and options.get("time") == "after"
        and options.get("after_index", "refuse") == "refuse"
    }
    return {name: options for name, options in declared.items() if name not in later}


def _id(cohort: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    return str(options.get("id") or cohort["patients"].get("id", "patient_id"))


def _table_of(cohort: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, str]:
    """File and id column of the cohort's own table behind a modality; '' where there is none."""
    kind = options.get("kind")
    if kind == "bag":
        return str(options.get("table", "slides.csv")), "slide_id"
    if kind == "spots":
        return str(options.get("table", "spots.csv")), "section_id"
    if kind == "volume":
        return ("", "") if cohort.get("scans") else (str(options.get("table", scan_files.FILE)), "scan_id")
    if kind in ("clinical", "omics", "radiomics") and options.get("file"):
        return str(options["file"]), _id(cohort, options)
    return "", ""


# ---------------------------------------------------------------------------------------------------------------------
# Rules
# ---------------------------------------------------------------------------------------------------------------------


def _ids(table: Table | None, column: str, style: str, *, unique: bool) -> None:
    if table is None:
        return
    table.add(column, rules.filled())
    if style == "tcga":
        table.add(column, rules.barcode())
    if unique:
        table.add(column, rules.once(style) if column not in SLIDES else rules.once(todo="keep one row"))


def _patients(table: Table | None, column: str, style: str) -> pd.Series:
    """The patient of every row of a table; empty where the column is not there. Ids that are no barcodes stay."""
    if table is None or column not in table.frame:
        return pd.Series(dtype=str)
    cells = table.frame[column]
    if style != "tcga":
        return cells
    return pd.Series([b.patient if (b := barcodes.parse(cell)) else cell for cell in cells], index=cells.index)


def _index(cohort: Mapping[str, Any], found: Tables) -> tuple[times.IndexDate, list[FaultRow]]:
    declared = cohort.get("index_date") or {}
    column = declared.get("column")
    table = found.get(declared.get("file") or cohort["patients"]["file"])
    if not column or table is None:
        return times.index_date({**cohort, "index_date": {**declared, "column": None}}, pd.DataFrame()), []
    form = str(declared.get("format") or times.ISO)
    wanted = rules.dated(lambda cells: times.dates(cells, form, ""), form)
    table.add(column, wanted)
    owners = _patients(table, _id(cohort, declared), str(cohort["patients"].get("ids") or "text"))
    if column not in table.frame:
        return times.IndexDate(str(declared.get("event") or ""), format=form), []
    sound = table.frame[column].where(wanted.holds(table.frame[column]), "")
    rows = pd.DataFrame({column: sound.to_numpy()}, index=owners.to_numpy())
    return times.index_date(cohort, rows[~rows.index.duplicated()]), []


def _task(
    cohort: Mapping[str, Any], name: str, task: Mapping[str, Any], found: Tables, index: times.IndexDate, patients: Any
) -> Iterator[FaultRow]:
    """Rules of a task's columns. What no rule of a single column says is asked of the labels themselves."""
    file = task.get("file") or cohort["patients"]["file"]
    by = task.get("applies")
    if by and (of := found.get(by.get("file") or file)):
        of.add(str(by.get("column")))
    table = found.get(file)
    if table is None:
        return
    spec = specs.task_spec(name, task)
    style, column = str(cohort["patients"].get("ids") or "text"), _id(cohort, task)
    _ids(table, column, style, unique=True)
    owners = _patients(table, column, style)
    plain = specs.plain(task)
    if spec.kind == "survival" and "time" not in plain:  # composed of components: the labels themselves are asked
        for part in _own(spec, task):
            table.add(part)
    elif spec.kind == "survival" and {plain["time"], plain["event"]} <= set(table.frame):
        events = {str(value): meant for value, meant in plain["events"].items()}
        table.add(plain["event"], rules.mapped(task["events"], f"cohort.tasks.{name}.events"))
        happened = table.frame[plain["event"]].str.strip()
        known = happened.isin([value for value, meant in events.items() if meant is not None])
        if isinstance(task["time"], Mapping):
            table.add(plain["time"], rules.dated(lambda c: times.dates(c, index.format, ""), index.format))
        else:
            table.add(plain["time"], *rules.time_of(name, plain, known))
    elif spec.kind == "survival":
        table.add(plain["event"])
        table.add(plain["time"])
    elif "rule" in task:
        for part in _own(spec, task):
            table.add(part)
    elif spec.kind == "regression":
        nothing = [str(word) for word in task.get("map") or {}]
        table.add(plain["column"], rules.number(nothing))
    elif isinstance(plain.get("column"), str):
        named = task.get("map") or {c: c for c in spec.classes}
        table.add(plain["column"], rules.mapped(named, f"cohort.tasks.{name}.map"))
    yield from _unmatched(file, owners, patients, float(task.get("matched", 0.9)))


def _own(spec: Any, task: Mapping[str, Any]) -> list[str]:
    """The columns that a task is read from, without those that are only kept from the inputs."""
    return [name for name in spec.columns if name not in (task.get("also") or ())]


def _modality(
    cohort: Mapping[str, Any],
    name: str,
    options: Mapping[str, Any],
    found: Tables,
    index: times.IndexDate,
    patients: pd.Series,
) -> Iterator[FaultRow]:
    file, column = _table_of(cohort, options)
    table, where = found.get(file), f"cohort.modalities.{name}"
    later = options.get("time") == "after" and options.get("after_index", "refuse") == "refuse"
    if later:
        told = f"take it out, or set {where}.after_index=declared"
        yield FaultRow(file or name, None, "", "", f"after {index}", told)
    if table is None:
        return
    style = str(options.get("ids") or cohort["patients"].get("ids") or "text")
    if column in SLIDES:
        _ids(table, column, "text", unique=True)
        if style != "tcga" or "patient_id" in table.frame:
            table.add("patient_id", rules.filled())
        table.add("image" if column == "scan_id" else "path")
        owners = _patients(table, "patient_id" if "patient_id" in table.frame else column, style)
    else:
        _ids(table, column, style, unique=options.get("duplicates", "refuse") == "refuse")
        owners = _patients(table, column, style)
        _columns(cohort, name, options, table, index, owners)
    ours = owners.isin(set(patients))
    if isinstance(options.get("time"), Mapping):
        _time(table, options["time"], options.get("after_index"), where, index, owners, ours)
    yield from _unmatched(file, owners, patients, float(options.get("matched", 0.9)))


def _columns(
    cohort: Mapping[str, Any],
    name: str,
    options: Mapping[str, Any],
    table: Table,
    index: times.IndexDate,
    owners: pd.Series,
) -> None:
    where = f"cohort.modalities.{name}.columns"
    wanted = covariates(options.get("columns"), where)
    for column, covariate in wanted.items():
        table.add(column, *rules.of_covariate(covariate))
        if isinstance(covariate.time, Mapping) and column in table.frame:
            told = covariate.after_index or options.get("after_index")
            filled = ~table.frame[column].isin(read.MISSING)
            _time(table, covariate.time, told, f"{where}.{column}", index, owners, filled)
    if not wanted:
        never = {c for n, t in cohort["tasks"].items() for c in specs.task_spec(n, t).columns}
        never |= set(cohort.get("never_inputs") or ()) | set(options.get("exclude") or ())
        never |= times.columns(options.get("time")) | {str((cohort.get("index_date") or {}).get("column"))}
        table.numeric.append(str(options.get("match") or ""))
        table.without |= never


def _time(
    table: Table,
    time: Mapping[str, Any],
    after: Any,
    where: str,
    index: times.IndexDate,
    owners: pd.Series,
    counts: pd.Series,
) -> None:
    """Rules of the column that says when an input was known. `counts`: the rows that are inputs."""
    policy = times.policy(after, where)
    (unit, column), *_ = time.items()
    table.add(str(column))
    if column not in table.frame:
        return
    date = rules.dated(lambda cells: times.dates(cells, index.format, ""), index.format)
    sound = date if unit == "date" else rules.number()
    table.add(column, sound)
    if policy != "refuse":
        return
    cells = table.frame[column].where(sound.holds(table.frame[column]), "")
    try:
        days = index.days(time, table.frame.assign(**{column: cells}), list(owners), where)
    except DataFault:
        return
    # what is no date at all is told of by its own rule
    told = days.where(counts & sound.holds(table.frame[column]), -np.inf)
    table.add(column, *rules.early(lambda rows: told.loc[rows], where, str(index)))


def _unmatched(file: str, ids: pd.Series, patients: pd.Series, least: float) -> Iterator[FaultRow]:
    """One fault where too few ids of a table are patients of the cohort, as `Folder.matched` counts them."""
    given, known = list(dict.fromkeys(ids)), set(patients)
    strange = [name for name in given if name not in known]
    if len(strange) > 1 and len(given) - len(strange) < least * min(len(known), len(given)):
        listed = ", ".join(strange[:3]) + (f" and {len(strange) - 3} more" if len(strange) > 3 else "")
        told = "write ids in one way (barcodes: `ids: tcga`), or lower `matched`"
        yield FaultRow(file, None, "", listed, f"fewer than {least:.0%} of the ids match", told)
