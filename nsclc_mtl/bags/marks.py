"""What patients are known again by: digests of their inputs, whatever they are called and wherever their files lie.

Two cohorts may count their patients alike, and one may be told under several ids, with a cell corrected or a follow-up
that went on. So inputs are compared, never outcomes, and neither ids nor files alone. A mark of the *content* stands
for a patient whoever he is said to be: it is made only of what two people do not share. A row that many might have
(age, sex and smoking) makes a mark together with the id, and what that is worth, its chance tells; without the id such
rows say something of a cohort as a whole, where few of the training patients share theirs with another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.bags.image_marks import composed, digest, images
from nsclc_mtl.cohort import twins
from nsclc_mtl.records import Manifest

BLOCKS, WIDTH = 12, 8  # marks of a table's row and columns of each, so that one changed cell changes one mark
DIGITS = {"": 4, "/2": 2}  # significant digits of numbers, by the end of a mark's key: few outlive a rounded export
VISITS = 3  # the first of a patient, so that later ones change nothing
LEVELS = 5  # most kinds of values of a column when it is asked whether another column tells the same
LOOKED = 512  # columns of a table, evenly spread, among which the most telling are chosen
RARE = math.log(1e-9)  # natural log of the chance, were columns independent, below which a row is one person's
COMMON = 0.5  # a value that so many have says nothing: empty mutation profiles, flat copy numbers


@dataclass
class Marks:
    """Marks of some patients.

    `blocks`: table -> its columns that each mark is made of. By `table/block`: `chance`, the share of the training
    patients who have the commonest row, so that a stranger has that of his namesake no more often; `telling`, the share
    of them whose rows are nobody else's; `twins`, the share of the persons whose row another one has too. `content`:
    patient -> marks. `named` and `short`: patient -> `table/block` -> mark of a row that is not one person's, with the
    id, and without it once a person. A bundle holds no `short`: who tries would read the rows from them.
    """

    blocks: dict[str, list[list[str]]] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    telling: dict[str, float] = field(default_factory=dict)
    content: dict[str, list[str]] = field(default_factory=dict)
    named: dict[str, dict[str, str]] = field(default_factory=dict)
    twins: dict[str, float] = field(default_factory=dict)
    short: dict[str, dict[str, str]] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Marks:
        """What `state()` came from. Raises KeyError, TypeError and ValueError where it is none."""
        return cls(
            {str(n): [[str(c) for c in block] for block in blocks] for n, blocks in dict(state["blocks"]).items()},
            {str(n): float(v) for n, v in dict(state["chance"]).items()},
            {str(n): float(v) for n, v in dict(state["telling"]).items()},
            {str(p): [str(m) for m in marks] for p, marks in dict(state["content"]).items()},
            {str(p): {str(k): str(m) for k, m in dict(by).items()} for p, by in dict(state["named"]).items()},
            {str(n): float(v) for n, v in dict(state.get("twins", {})).items()},
            {str(p): {str(k): str(m) for k, m in dict(by).items()} for p, by in dict(state.get("short", {})).items()},
        )


def taken(manifest: Manifest, ids: Sequence[str]) -> Marks:
    """The marks of training patients, to be kept with the model.

    A row goes by its content where its unusual values alone make it one person's, else by its content and the id.
    Marks of the content that several persons share are left out: values that somebody filled in, an empty slide. Who is
    entered several times, by his rows and outcomes, is one person.
    """
    made, person = Marks(content={p: [] for p in ids}), _persons(manifest, ids)
    for name, table in manifest.tables.items():
        rows = table.loc[[p for p in ids if p in table.index]]
        made.blocks[name] = _blocks(rows)
        _keep(made, name, rows, person)
    for name, visits in manifest.series.items():
        rows, each = _visits(visits, ids), visits.shape[1] + 1
        made.blocks[name] = [list(rows.columns[: each * k]) for k in range(1, rows.shape[1] // each + 1)]
        _keep(made, name, rows, person)
    for patient, found in images(manifest, ids).items():
        made.content[patient] += found
    several = Counter(mark for mark, _ in {(mark, person[p]) for p, marks in made.content.items() for mark in marks})
    made.content = {p: [m for m in dict.fromkeys(marks) if several[m] == 1] for p, marks in made.content.items()}
    return made


def _persons(manifest: Manifest, ids: Sequence[str]) -> dict[str, str]:
    """Patient -> the first of the patients who are the same person, mostly himself."""
    first: dict[int, str] = {}
    number = twins.components(ids, [same.patients for same in twins.same_in_outcomes(manifest)]).tolist()
    return {patient: first.setdefault(k, patient) for patient, k in zip(ids, number, strict=True)}


def like(manifest: Manifest, ids: Sequence[str], of: Marks) -> tuple[Marks, set[str]]:
    """The marks of other patients, made as those `of` the training: every row by its content and, too, with the id.
    And who of them would be known again under any id, by a slide, a scan or rows of which most are telling.

    Tables that lack a column of a block make no mark of it.
    """
    made = Marks(of.blocks, of.chance, of.telling, {p: [] for p in ids})
    told = set[str]()
    for name, blocks in of.blocks.items():
        if name in manifest.tables:
            rows = manifest.tables[name].loc[[p for p in ids if p in manifest.tables[name].index]]
        elif name in manifest.series:
            rows = _visits(manifest.series[name], ids)
        else:
            continue
        for key, cells in _each(name, rows, [b for b in blocks if set(b) <= set(map(str, rows.columns))], blocks):
            said = _said(rows.index, cells)
            told |= set(said) if of.telling.get(key, 0.0) >= COMMON else set()
            for patient, text in said.items():
                made.content[patient].append(digest(key, text))
                made.named.setdefault(patient, {})[key] = digest(key, text, patient)
                made.short.setdefault(patient, {})[key] = digest(key, text)
    for patient, found in images(manifest, ids).items():
        made.content[patient] += found
        told |= {patient} if found else set()
    return made, told


# ---------------------------------------------------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------------------------------------------------


def _each(
    name: str, rows: pd.DataFrame, blocks: Sequence[list[str]], of: Sequence[list[str]]
) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Key and cells of each mark that these blocks make of a table, numbered as among all its blocks `of`."""
    for columns in blocks:
        for end, digits in DIGITS.items():
            yield f"{name}/{of.index(columns)}{end}", _cells(rows, columns, digits)


def _keep(made: Marks, name: str, rows: pd.DataFrame, person: Mapping[str, str]) -> None:
    for key, cells in _each(name, rows, made.blocks[name], made.blocks[name]):
        said, told = _said(rows.index, cells), _unusual(rows.index, cells)
        for patient, text in said.items():
            if told[patient] <= RARE:
                made.content[patient].append(digest(key, text))
            else:
                made.named.setdefault(patient, {})[key] = digest(key, text, patient)
                if person[patient] == patient:
                    made.short.setdefault(patient, {})[key] = digest(key, text)
        counts = Counter(said.values())
        made.chance[key] = max(counts.values(), default=0) / max(1, len(said))
        made.telling[key] = sum(told[patient] <= RARE for patient in said) / max(1, len(said))
        persons = Counter(text for patient, text in said.items() if person[patient] == patient)
        made.twins[key] = max(1, sum(n for n in persons.values() if n > 1)) / max(1, persons.total())


def _blocks(rows: pd.DataFrame) -> list[list[str]]:
    """Columns of each mark of a table: of a narrow one all and either half, so that a changed cell leaves one; else the
    most telling in as many blocks as there may be."""
    if rows.shape[1] < 2 * WIDTH:
        every = [str(c) for c in rows.columns]
        return [every, every[::2], every[1::2]] if len(every) > 1 else [every]
    some = rows.iloc[:, np.unique(np.linspace(0, rows.shape[1] - 1, LOOKED).astype(int))]
    cells = _cells(some, [str(c) for c in some.columns], 2)
    alike = [float((pd.Series(column).value_counts(normalize=True) ** 2).sum()) for column in cells.values()]
    best = [list(cells)[i] for i in np.argsort(alike, kind="stable")[: BLOCKS * WIDTH]]
    count = len(best) // WIDTH
    return [best[k::count][:WIDTH] for k in range(count)]


def _said(index: pd.Index, cells: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """By patient: the cells of all his rows as text. Who has no value in them is left out."""
    texts: dict[str, list[str]] = {}
    for patient, row in zip(map(str, index), zip(*cells.values(), strict=True), strict=True):
        if any(row):
            texts.setdefault(patient, []).append("\x1f".join(row))
    return {patient: "\x1e".join(lines) for patient, lines in texts.items()}


def _unusual(index: pd.Index, cells: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """By patient: the natural log of the chance of what is unusual in his rows.

    Columns are taken as independent but for what one before tells of them: of a code that goes with its words nothing
    is left, of a gene by what it goes its own way.
    """
    unusual = np.zeros(len(index))
    for column, own in zip(cells.values(), _own(cells), strict=True):
        values = pd.Series(column)
        share = values.map(values.value_counts(normalize=True)).to_numpy(float)
        unusual += own * np.where((share < COMMON) & (values != "").to_numpy(), np.log(share), 0.0)
    whole = pd.Series(unusual, index.map(str)).groupby(level=0).sum()
    return dict(zip(map(str, whole.index), whole.tolist(), strict=True))


def _own(cells: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Share of each column's entropy that the column before that tells most of it does not tell, [column].

    Of columns in few levels; mutual information is less its bias, (r - 1)(c - 1) / 2n (Miller, 1955).
    """
    if not cells or not len(next(iter(cells.values()))):
        return np.ones(len(cells))
    codes = [_levels(pd.Series(column)) for column in cells.values()]
    each = [np.eye(code.max() + 1)[code] for code in codes]
    starts = np.cumsum([0, *(one.shape[1] for one in each[:-1])])
    whole = np.concatenate(each, 1)
    share, joint = whole.mean(0), whole.T @ whole / len(whole)
    terms = joint * np.log(np.where(joint > 0, joint / np.outer(share, share), 1.0))
    told = np.add.reduceat(np.add.reduceat(terms, starts, 0), starts, 1)
    entropy, degrees = np.diag(told), np.array([one.shape[1] - 1 for one in each])
    told = np.tril((told - np.outer(degrees, degrees) / (2 * len(whole))) / np.maximum(entropy, 1e-9)[:, None], -1)
    return 1 - np.clip(told.max(1), 0, 1)


def _levels(values: pd.Series) -> np.ndarray:
    """Values as numbers from 0 on: ranks of numbers in `LEVELS` parts, or the commonest texts and the others."""
    numbers = pd.to_numeric(values, errors="coerce")
    if values.nunique() > LEVELS and numbers.notna().mean() > COMMON:
        parts = np.ceil(numbers.rank(pct=True).fillna(0) * LEVELS)
        return pd.factorize(parts)[0]
    common = values.value_counts().index[: LEVELS - 1]
    return pd.factorize(values.where(values.isin(common), "\x00others"))[0]


def _cells(rows: pd.DataFrame, columns: Sequence[str], digits: int) -> dict[str, list[str]]:
    """Column -> its values as text: numbers with so many digits, so that a file written anew holds the same."""
    found = rows.set_axis([str(c) for c in rows.columns], axis=1)
    out = {}
    for name in columns:
        values = found[name]
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(float, na_value=math.nan)
        texts = values if not pd.api.types.is_numeric_dtype(values) else [""] * len(values)
        out[name] = [
            f"{n + 0.0:.{digits}g}" if not math.isnan(n) else "" if _missing(t) else composed(str(t).strip())
            for n, t in zip(numbers, texts, strict=True)
        ]
    return out


def _missing(value: Hashable) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _visits(visits: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """The first visits, a row a patient; of each the day and the values, columns `NAME (visit K)`."""
    rows = visits[visits.index.get_level_values(0).isin(list(ids))]
    rows = rows.assign(**{"(day)": rows.index.get_level_values(1).to_numpy(float)}).droplevel(1)
    number = rows.groupby(level=0).cumcount()
    parts = [rows[(number == k).to_numpy()].add_suffix(f" (visit {k + 1})") for k in range(VISITS)]
    return pd.concat([part for part in parts if len(part)], axis=1) if len(rows) else rows.iloc[:, :0]
