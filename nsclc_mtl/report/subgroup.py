"""Which columns part the patients into subgroups, and who is in each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from nsclc_mtl.records import Manifest, UsageFault
from nsclc_mtl.tables import stage
from nsclc_mtl.tables.read import MISSING

MOST = 8  # levels of a column; the smaller ones are joined beyond
OTHER = "other"
USUAL: dict[str, frozenset[str]] = {
    "sex": frozenset({"sex", "gender"}),
    "age": frozenset({"age"}),
    "stage": frozenset({"stage"}),
    "treatment": frozenset(
        {"treatment", "therapy", "chemotherapy", "radiotherapy", "immunotherapy", "radiochemotherapy"}
    ),
}
"""Words of a column's name that make it a subgroup where none are asked for; the site is one of its own."""
_TIMES = frozenset({"date", "day", "days", "month", "months", "year", "years", "time", "duration", "start", "end"})


@dataclass(frozen=True)
class Subgroups:
    """A column and the patients of each of its levels; who lacks a value is in none."""

    column: str
    members: dict[str, list[str]]  # level -> patient ids
    note: str = ""  # how it was made


def subgroups(manifest: Manifest, patients: Sequence[str], wanted: Sequence[str] | None) -> list[Subgroups]:
    """The subgroups of these patients by the columns `wanted`, or by site, sex, age, stage and treatment where None.

    Columns are those of the patients table and of the clinical tables. Numbers are parted at the median of these
    patients (unless the cohort declares them as categories), stages are brought to I, II, III, IV (T, N, M to their
    number), and of other columns the smaller levels are joined beyond the eighth. Columns with one level only are left
    out. Raises UsageFault on an unknown column.
    """
    known = dict(_columns(manifest))
    names = list(_usual(manifest, known)) if wanted is None else [str(name) for name in wanted]
    asked_for(manifest, wanted)
    coded = _categories(manifest)
    made = [_parted(name, known[name].reindex(list(patients)), name in coded) for name in names]
    return [one for one in made if len(one.members) > 1]


def asked_for(manifest: Manifest, wanted: Sequence[str] | None) -> None:
    """Raises UsageFault where a column that is asked for is none of the cohort's."""
    known = dict(_columns(manifest))
    for name in wanted or ():
        if str(name) not in known:
            near = difflib.get_close_matches(str(name), known, 3, 0.5) or list(known)[:8]
            raise UsageFault(
                f"subgroups: no clinical column '{name}' in cohort={manifest.name}; near: {', '.join(near)}"
            )


def _columns(manifest: Manifest) -> Iterator[tuple[str, pd.Series]]:
    """Columns of the clinical tables, and before them, where names are equal, those of the patients table."""
    tables = [t for name, t in manifest.tables.items() if manifest.modalities[name].kind == "clinical"]
    for table in [*reversed(tables), manifest.patients]:
        for name in table.columns:
            yield str(name), table[name]


def _usual(manifest: Manifest, known: dict[str, pd.Series]) -> Iterator[str]:
    """Site, then the columns whose name says sex, age, stage or treatment; outcomes but the stage are none."""
    outcomes = {column for task in manifest.tasks.values() for column in task.columns}
    if "site" in known:
        yield "site"
    for word, signs in USUAL.items():
        for name in known:
            parts = set(re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))
            when = word != "age" and parts & _TIMES  # days to the treatment are not the treatment
            if parts & signs and not when and (word == "stage" or name not in outcomes):
                yield name


def _categories(manifest: Manifest) -> set[str]:
    """Columns that the cohort declares as categories or ordered levels: their numbers are codes."""
    declared = [spec.options.get("columns") for spec in manifest.modalities.values() if spec.kind == "clinical"]
    return {str(n) for each in declared if isinstance(each, Mapping) for n, told in each.items() if told != "numeric"}


def _parted(name: str, column: pd.Series, coded: bool) -> Subgroups:
    text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    known = text[~text.isin(MISSING)]
    number = pd.to_numeric(known, errors="coerce")
    if len(known) and (number % 1 == 0).all():  # pandas writes codes beside a missing one as 1.0
        known = known.str.removesuffix(".0")
    if len(known) and not coded and number.notna().all() and number.nunique() > 5:
        middle = float(np.median(number))
        members = {
            f"up to {middle:g}": list(number.index[number <= middle]),
            f"above {middle:g}": list(number.index[number > middle]),
        }
        return Subgroups(name, {k: v for k, v in members.items() if v}, "parted at the median of the patients tested")
    staged = _staged(known)
    if staged is not None:
        levels = sorted(set(staged.dropna()))
        return Subgroups(name, {level: list(staged.index[staged == level]) for level in levels})
    counts = known.value_counts()
    kept = list(counts.index[:MOST]) if len(counts) > MOST + 1 else list(counts.index)
    members = {level: list(known.index[known == level]) for level in sorted(kept)}
    rest = list(known.index[~known.isin(kept)])
    if rest:
        members[OTHER if OTHER not in members else f"{OTHER} levels"] = rest
    note = f"the {len(counts) - len(kept)} smallest levels are joined" if rest else ""
    return Subgroups(name, members, note)


def _staged(known: pd.Series) -> pd.Series | None:
    """The stage group or the T, N or M category as its number, None where the column holds something else."""
    readers: list[Callable[[str], Sequence[str] | None]] = [stage.group]
    readers += [partial(stage.category, rule) for rule in ("ajcc_t", "ajcc_n", "ajcc_m")]
    for read in readers:
        found = {cell: read(cell) for cell in known.unique()}
        coarse = {cell: chain[-1] for cell, chain in found.items() if chain}
        if coarse and all(chain is not None for chain in found.values()):
            return known.map(coarse)
    return None
