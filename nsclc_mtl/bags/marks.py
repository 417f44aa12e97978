"""What patients are known again by: digests of their inputs, whatever they are called and wherever their files lie.

Two cohorts may count their patients alike, and one may be told under several ids, with a cell corrected or a follow-up
that went on. So inputs are compared, never outcomes, and neither ids nor files alone. A mark of the *content* stands
for a patient whoever he is said to be: it is made only of what two people do not share. A row that many might have
(age, sex and smoking) makes a mark together with the id, and what that is worth, its chance tells.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.bags.cache import BagCache, read_volume
from nsclc_mtl.features import layouts
from nsclc_mtl.records import Manifest

BLOCKS, WIDTH = 8, 12  # marks of a table's row and columns of each, so that one changed cell changes one mark
LOOKED = 512  # columns of a table, evenly spread, among which the most telling are chosen
RARE = math.log(1e-9)  # natural log of the chance, were columns independent, below which a row is one person's
COMMON = 0.5  # a value that so many have says nothing: empty mutation profiles, flat copy numbers
TILES = 8  # of a slide that are looked at, the first in canonical order
DISTINCT = 16  # different numbers that tiles must show, and hundredfold a volume's voxels


@dataclass
class Marks:
    """Marks of some patients.

    `blocks`: table -> its columns that each mark is made of. By `table/block`: `chance`, how often two of the training
    patients have equal rows, and `telling`, the share of them whose rows are nobody else's. `content` and `named`:
    patient -> marks; `named` by `table/block`.
    """

    blocks: dict[str, list[list[str]]] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    telling: dict[str, float] = field(default_factory=dict)
    content: dict[str, list[str]] = field(default_factory=dict)
    named: dict[str, dict[str, str]] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {name: getattr(self, name) for name in ("blocks", "chance", "telling", "content", "named")}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Marks:
        """What `state()` came from. Raises KeyError, TypeError and ValueError where it is none."""
        return cls(
            {str(n): [[str(c) for c in block] for block in blocks] for n, blocks in dict(state["blocks"]).items()},
            {str(n): float(v) for n, v in dict(state["chance"]).items()},
            {str(n): float(v) for n, v in dict(state["telling"]).items()},
            {str(p): [str(m) for m in marks] for p, marks in dict(state["content"]).items()},
            {str(p): {str(k): str(m) for k, m in dict(by).items()} for p, by in dict(state["named"]).items()},
        )


def taken(manifest: Manifest, ids: Sequence[str]) -> Marks:
    """The marks of training patients, to be kept with the model.

    A row goes by its content where its unusual values alone make it one person's, else by its content and the id.
    Marks of the content that several of the patients share are left out: values that somebody filled in, an empty
    slide.
    """
    made = Marks(content={p: [] for p in ids})
    for name, table in manifest.tables.items():
        rows = table.loc[[p for p in ids if p in table.index]]
        made.blocks[name] = _blocks(rows)
        for k, columns in enumerate(made.blocks[name]):
            _keep(made, f"{name}/{k}", *_said(rows, columns))
    for name, visits in manifest.series.items():
        rows = _visits(visits, ids)
        made.blocks[name] = [[str(c) for c in rows.columns]]
        _keep(made, f"{name}/0", *_said(rows, made.blocks[name][0]))
    for patient, found in _images(manifest, ids).items():
        made.content[patient] += found
    several = Counter(mark for marks in made.content.values() for mark in set(marks))
    made.content = {p: [m for m in dict.fromkeys(marks) if several[m] == 1] for p, marks in made.content.items()}
    return made


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
        for k, columns in enumerate(blocks):
            if set(columns) <= set(map(str, rows.columns)):
                key = f"{name}/{k}"
                said, _ = _said(rows, columns)
                told |= set(said) if of.telling.get(key, 0.0) >= COMMON else set()
                for patient, text in said.items():
                    made.content[patient].append(_digest(key, text))
                    made.named.setdefault(patient, {})[key] = _digest(key, text, patient)
    for patient, found in _images(manifest, ids).items():
        made.content[patient] += found
        told |= {patient} if found else set()
    return made, told


# ---------------------------------------------------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------------------------------------------------


def _keep(made: Marks, key: str, said: Mapping[str, str], told: Mapping[str, float]) -> None:
    for patient, text in said.items():
        if told[patient] <= RARE:
            made.content[patient].append(_digest(key, text))
        else:
            made.named.setdefault(patient, {})[key] = _digest(key, text, patient)
    made.chance[key] = _chance(said.values())
    made.telling[key] = sum(told[patient] <= RARE for patient in said) / max(1, len(said))


def _chance(said: Iterable[str]) -> float:
    """Share of the pairs that have equal rows; as if one pair had, where none has."""
    counts = np.array(list(Counter(said).values()), float)
    pairs = counts.sum() * (counts.sum() - 1)
    return min(1.0, max(float((counts * (counts - 1)).sum()), 2.0) / pairs) if pairs else 1.0


def _blocks(rows: pd.DataFrame) -> list[list[str]]:
    """Columns of each mark of a table: of a narrow one all, else the most telling in as many blocks as there may be."""
    if rows.shape[1] < 2 * WIDTH:
        return [[str(c) for c in rows.columns]]
    some = rows.iloc[:, np.unique(np.linspace(0, rows.shape[1] - 1, LOOKED).astype(int))]
    cells = _cells(some, [str(c) for c in some.columns])
    alike = [float((pd.Series(column).value_counts(normalize=True) ** 2).sum()) for column in cells.values()]
    best = [list(cells)[i] for i in np.argsort(alike, kind="stable")[: BLOCKS * WIDTH]]
    count = len(best) // WIDTH
    return [best[k::count][:WIDTH] for k in range(count)]


def _said(rows: pd.DataFrame, columns: Sequence[str]) -> tuple[dict[str, str], dict[str, float]]:
    """By patient: these columns as text, over all rows of the patient; and the natural log of the chance of what is
    unusual in them. Who has no value in them is left out."""
    cells = _cells(rows, columns)
    unusual = np.zeros(len(rows))
    for column in cells.values():
        share = pd.Series(column).map(pd.Series(column).value_counts(normalize=True)).to_numpy(float)
        counts = (share < COMMON) & (np.array(column, object) != "")
        unusual += np.where(counts, np.log(share, where=share > 0, out=np.zeros(len(rows))), 0.0)
    texts: dict[str, list[str]] = {}
    told: dict[str, float] = {}
    for i, patient in enumerate(map(str, rows.index)):
        row = [column[i] for column in cells.values()]
        if any(row):
            texts.setdefault(patient, []).append("\x1f".join(row))
            told[patient] = told.get(patient, 0.0) + float(unusual[i])
    return {patient: "\x1e".join(lines) for patient, lines in texts.items()}, told


def _cells(rows: pd.DataFrame, columns: Sequence[str]) -> dict[str, list[str]]:
    """Column -> its values as text: numbers with four digits, so that a file written anew holds the same."""
    found = rows.set_axis([str(c) for c in rows.columns], axis=1)
    out = {}
    for name in columns:
        values = found[name]
        if pd.api.types.is_numeric_dtype(values):
            out[name] = ["" if math.isnan(v) else f"{v + 0.0:.4g}" for v in values.to_numpy(float)]
        else:
            out[name] = ["" if _missing(v) else str(v).strip() for v in values]
    return out


def _missing(value: Hashable) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _visits(visits: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """Rows of visits by patient, the day a column."""
    rows = visits[visits.index.get_level_values(0).isin(list(ids))]
    return rows.assign(**{"visits (day)": rows.index.get_level_values(1).to_numpy(float)}).droplevel(1)


# ---------------------------------------------------------------------------------------------------------------------
# Slides and scans
# ---------------------------------------------------------------------------------------------------------------------


def _images(manifest: Manifest, ids: Sequence[str]) -> dict[str, list[str]]:
    """Patient -> marks of his slides, sections and crops of scans."""
    out: dict[str, list[str]] = {}
    wanted = set(ids)
    for bags in manifest.bags.values():
        for patient, paths in bags.items():
            if patient in wanted:
                out.setdefault(patient, []).extend(mark for path in paths for mark in _slide(Path(path)))
    for volumes in manifest.volumes.values():
        for patient, path in volumes.items():
            voxels = read_volume(path) if patient in wanted else np.zeros(0)
            if len(np.unique(voxels)) >= 100 * DISTINCT:
                out.setdefault(patient, []).append(_digest("volume", str(voxels.shape), voxels))
    return out


def _slide(path: Path) -> list[str]:
    """Marks of a slide: what its features were made of, where the file says it, and its first tiles."""
    marks = []
    if path.suffix.lower() in layouts.HDF5:
        with layouts.opened(path) as file:
            origin = layouts.attributes(file).get("slide_hash")
        marks += [_digest("slide", str(origin))] if origin else []
    tiles, _ = BagCache(0)([str(path)], draw=lambda n: np.arange(min(n, TILES)))
    if len(np.unique(tiles)) >= DISTINCT:
        marks.append(_digest("tiles", str(tiles.shape), tiles))
    return marks


def _digest(*parts: str | np.ndarray) -> str:
    """80 bits, hexadecimal: two that are equal by chance are not to be expected."""
    made = hashlib.sha256()
    for part in parts:
        made.update(b"\x1d" + (part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()))
    return made.hexdigest()[:20]
