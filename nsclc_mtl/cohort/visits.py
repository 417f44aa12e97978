"""Repeated visits: a long table with a row a visit, known up to a declared day and no further."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nsclc_mtl.cohort import barcodes
from nsclc_mtl.records import DataFault, Manifest, ModalitySpec, UsageFault
from nsclc_mtl.tables import read

if TYPE_CHECKING:
    from nsclc_mtl.cohort.sources import Sources

LATER = ("drop", "refuse")
"""What becomes of visits after `until_days`."""


def series(sources: Sources, manifest: Manifest, spec: ModalitySpec) -> pd.DataFrame:
    """The visits of the cohort's patients, indexed by (patient_id, days), in the order of time; numbers as float64.

    The table `table` has the columns patient_id, `days` (days from the index date) and the values; cells may be blank,
    and the order of its rows is nothing. Visits later than `until_days` are dropped and noted, or refused
    (`later: refuse`). Raises UsageFault where `until_days` is not declared, DataFault on a time or value that is no
    number, two rows of one day, and an outcome among the columns.
    """
    file, options = str(spec.options.get("table", "visits.csv")), spec.options
    until = _until(spec)
    table = sources.folder.rows(file)
    days = str(options.get("days", "days"))
    for name in ("patient_id", days):
        if name not in table:
            raise DataFault(f"'{file}' has no column '{name}' (cohort.modalities.{spec.name})")
    style = str(options.get("ids") or sources.folder.ids)
    ids = pd.Series(barcodes.patients(table["patient_id"].str.strip(), style, f"'{file}'"), index=table.index)
    if (ids == "").any():
        at = int(np.flatnonzero(ids == "")[0]) + 2
        raise DataFault(f"'{file}' row {at}: the id in column 'patient_id' is blank; fill it or drop the row")
    least = float(options.get("matched", 0.9))
    sources.folder.matched(pd.Index(ids.unique()), manifest.patients.index, file, least)
    columns = _columns(spec, table, days, sources.forbidden, file)
    rows = table[ids.isin(manifest.patients.index)]
    patients = ids[rows.index]
    where = f"'{file}' column '{days}'"
    when = read.numeric(rows[days].set_axis(patients), where)
    if when.isna().any():
        raise DataFault(f"{where}: blank for {_some(when.index[when.isna()])}; a visit needs its day, or drop the row")
    made = read.numeric_table(rows[columns].set_axis(patients), f"'{file}'")
    made.index = pd.MultiIndex.from_arrays([patients.to_numpy(), when.to_numpy()], names=["patient_id", "days"])
    twice = made.index[made.index.duplicated()]
    if len(twice):
        raise DataFault(
            f"'{file}' has two rows of patient {twice[0][0]} on day {twice[0][1]:g} ({len(twice)} such rows); keep one "
            "row a visit"
        )
    made = _known(made, until, str(options.get("later", "drop")), spec.name, sources.folder.notes, file)
    order = {patient: i for i, patient in enumerate(manifest.patients.index)}
    place = made.index.get_level_values(0).map(order).to_numpy()
    return made.iloc[np.lexsort((made.index.get_level_values(1).to_numpy(), place))]


def latest(manifest: Manifest) -> dict[str, pd.DataFrame]:
    """A row a patient of every series, for those who look for leaks: the latest value of each column, the number of
    visits and the day of the latest one."""
    made = {}
    for name, rows in manifest.series.items():
        by = rows.groupby(level=0, sort=False)
        days = pd.Series(rows.index.get_level_values(1).to_numpy(float), rows.index).groupby(level=0, sort=False)
        made[name] = by.last().assign(**{"visits (number)": by.size().astype(float), "visits (latest day)": days.max()})
    return made


def before_the_outcome(manifest: Manifest) -> None:
    """Raises DataFault where a series knows visits of a time in which a survival task counts events already: how long
    a patient came would tell when the event was (immortal time)."""
    for name in manifest.series:
        until = float(manifest.modalities[name].options["until_days"])
        for task, spec in manifest.tasks.items():
            if spec.kind == "survival" and spec.landmark_days < until:
                raise DataFault(
                    f"cohort.modalities.{name} knows visits up to day {until:g}, and the time of the task '{task}' "
                    f"counts from day {spec.landmark_days:g}: how long a patient came tells when the event was; set "
                    f"cohort.tasks.{task}.landmark_days={until:g} or a smaller until_days, or leave one of the two out"
                )


def _until(spec: ModalitySpec) -> float:
    """The last day whose visits are known when a prediction is made."""
    where, until = f"cohort.modalities.{spec.name}", spec.options.get("until_days")
    if until is None or isinstance(until, (str, bool)):
        raise UsageFault(
            f"{where} declares no `until_days`; name the day, counted from the index date, up to which visits are "
            "known when a prediction is made (0 = the index date)"
        )
    if spec.options.get("later", "drop") not in LATER:
        raise UsageFault(f"{where}.later={spec.options['later']!r} is none of {', '.join(LATER)}")
    return float(until)


def _columns(spec: ModalitySpec, table: pd.DataFrame, days: str, forbidden: frozenset[str], file: str) -> list[str]:
    """The columns of values: those declared, or all but the id and the day."""
    where, declared = f"cohort.modalities.{spec.name}.columns", spec.options.get("columns")
    if declared is None:
        names = [str(c) for c in table.columns if c not in ("patient_id", days, spec.options.get("visit"))]
    else:
        names = [str(c) for c in declared]
        kinds = declared if isinstance(declared, Mapping) else dict.fromkeys(names, "numeric")
        for name, kind in kinds.items():
            if (kind.get("type") if isinstance(kind, Mapping) else kind) != "numeric":
                raise UsageFault(f"{where}.{name} is no number: a series holds numeric columns; code it as 0 and 1")
    absent = [name for name in names if name not in table.columns]
    if absent or not names:
        raise DataFault(f"'{file}' has no column '{absent[0] if absent else 'of values'}' ({where})")
    named = [name for name in names if name in forbidden]
    if named:
        raise DataFault(
            f"{where}: '{named[0]}' is an outcome or a part of one, and an outcome is never an input; name the columns "
            "to use without it"
        )
    return names


def _known(made: pd.DataFrame, until: float, later: str, name: str, notes: list[str], file: str) -> pd.DataFrame:
    """Visits up to a day that hold at least one value; the others are noted."""
    late = made.index.get_level_values(1).to_numpy() > until
    if late.any() and later == "refuse":
        raise DataFault(
            f"'{file}': {int(late.sum())} visits later than day {until:g}, the first of {_some(made.index[late])}; "
            f"take them out, or set cohort.modalities.{name}.later: drop"
        )
    if late.any():
        notes.append(f"{name}: {int(late.sum())} of {len(made)} visits later than day {until:g} left out")
    blank = ~late & made.isna().all(axis=1).to_numpy()
    if blank.any():
        notes.append(f"{name}: {int(blank.sum())} visits without any value left out")
    return made[~late & ~blank]


def _some(index: pd.Index) -> str:
    ids = index.get_level_values(0) if index.nlevels > 1 else index
    return f"{', '.join(map(str, ids[:3]))} ({len(ids)} rows)"
