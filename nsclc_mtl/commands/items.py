"""`items.csv` of a run: what each slide or fold took of the machine, for `mtl plan-cost`. What was kept has no row."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nsclc_mtl.commands.job import Job, Outcome
from nsclc_mtl.commands.staging import parts_of

FILE = "items.csv"
SUFFIXES = (".h5", ".geojson", ".jpg")  # of what `tile` and `extract` leave of a slide


@dataclass(frozen=True)
class Item:
    """One slide or fold that was worked on. Bytes that are not known, or are no matter of the verb, are None."""

    item: str
    seconds: float
    first: bool = False  # of its process, so that it waited for libraries and weights
    tiles: int | None = None
    slide_bytes: int | None = None  # size of the slide's files
    read_bytes: int | None = None  # that were asked for, code and own results too
    tiles_bytes: int | None = None  # that its tiles take on the disk, with contours and picture
    features_bytes: int | None = None
    vectors_bytes: int | None = None  # of the vector of a slide encoder
    laid: int | None = None  # 1: `mtl extract` laid the tiles itself on the way


def write(folder: Path, rows: Iterable[Item]) -> None:
    """Adds rows to `items.csv` of a run; those of an earlier start of the same items go."""
    new = list(rows)
    if not new:
        return
    names = {row.item for row in new}
    kept = [row for row in read(folder) if row.item not in names]
    aside = folder / f"{FILE}.tmp"
    with suppress(OSError):  # a full disk ends the run by itself, and with its own sentence
        with aside.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, [column.name for column in fields(Item)], lineterminator="\n")
            table.writeheader()
            table.writerows({**asdict(row), "first": int(row.first)} for row in (*kept, *new))
        aside.replace(folder / FILE)


def read(folder: Path) -> list[Item]:
    """The rows of a run's `items.csv`; none where it has no such file, or another program's."""
    try:
        with (folder / FILE).open(encoding="utf-8", newline="") as file:
            return [_item(row) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError):
        return []


def _item(row: Mapping[str, str]) -> Item:
    counts = {c.name: int(row[c.name]) if row[c.name] else None for c in fields(Item)[3:]}
    return Item(row["item"], float(row["seconds"]), row["first"] == "1", **counts)


def of_slides(jobs: Sequence[Job], results: Mapping[str, Outcome], folders: Sequence[Path]) -> list[Item]:
    """Rows of the slides that were worked on; `folders` are those of `tiles`, `features` and `slides` below `out`."""
    rows = []
    for job in jobs:
        outcome = results.get(job.slide_id)
        if outcome is None or outcome.cost is None or outcome.kept or (outcome.reason and not outcome.skipped):
            continue
        made = {folder.parent.name: _made(folder, job.slide_id) for folder in folders}
        rows.append(
            Item(
                job.slide_id,
                outcome.cost.seconds,
                outcome.cost.first,
                outcome.tiles,
                None if job.features else slide_bytes(Path(job.path)),
                outcome.cost.read_bytes,
                made.get("tiles"),
                made.get("features"),
                made.get("slides"),
                int(outcome.laid),
            )
        )
    return rows


def slide_bytes(path: Path) -> int | None:
    """Size of a slide's files, of formats with several all of them; None where it cannot be seen."""
    with suppress(OSError):
        # whose DICOM file is whose stands in thousands of headers: the folder is taken as one slide
        files = list(path.parent.glob("*.dcm")) if path.suffix.lower() == ".dcm" else parts_of(path)
        return sum(file.stat().st_size for file in files)
    return None


def _made(folder: Path, slide_id: str) -> int:
    total = 0
    for suffix in SUFFIXES:
        with suppress(OSError):
            total += (folder / f"{slide_id}{suffix}").stat().st_size
    return total
