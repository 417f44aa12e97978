"""`mtl plan-cost`: what many slides would cost in time, disk and network, from runs that were measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import items
from nsclc_mtl.records import DataFault, UsageFault

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.table import Table

    from nsclc_mtl.commands.costs import Row
    from nsclc_mtl.config import Run

LEAST = 3  # slides that a sample needs
FEW = 10  # fewer slides make a rough interval, which is said
FILE = "plan.json"


@dataclass(frozen=True)
class Sample:
    """A run that was measured."""

    verb: str
    folder: Path
    word: str  # as it was given
    rows: Sequence[items.Item]
    account: Mapping[str, Any]  # run.json
    settings: Mapping[str, Any]


def body(cfg: DictConfig, run: Run) -> None:
    """Prints the plan with what it assumes, and writes it to `plan.json`.

    Raises UsageFault where a folder is no run of `tile`, `extract` or `train`, DataFault where it measured too little.
    """
    from nsclc_mtl.commands import costs
    from nsclc_mtl.config import plain

    settings = plain(cfg)
    patients = settings["patients"]
    if patients is not None and (isinstance(patients, bool) or not isinstance(patients, int) or patients < 1):
        raise UsageFault(f"patients: a whole number from 1 up is needed, not {patients!r}, or null")
    given = settings["sample"]
    samples = [opened(str(word)) for word in (given if isinstance(given, list) else [given])]
    by = {sample.verb: sample for sample in samples}
    if len(by) < len(samples):
        raise UsageFault(
            "two runs of one verb in the sample: give one of tile, one of extract and one of train at most"
        )
    _once(by)
    for sample in samples:
        run.read(sample.folder / "run.json")
    rows = costs.rows(by, settings)
    notes = _assumptions(by, settings)
    content = {
        "slides": settings["slides"],
        "patients": settings["patients"] or settings["slides"],
        "sample": [{"run": s.word, "verb": s.verb, "measured": len(s.rows)} for s in samples],
        "rows": [row.plain() for row in rows],
        "assumptions": notes,
    }
    (run.path / FILE).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    run.show(_table(rows, settings))
    for note in notes:
        run.say(f"assumed: {note}")
    run.say(f"plan: {run.path / FILE}")
    run.done += [sample.word for sample in samples]


def opened(word: str) -> Sample:
    """The run in a folder, with what it measured."""
    import yaml

    folder = Path(word).expanduser()
    try:
        account = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        verb, code = str(account["argv"][1]), account["exit_code"]
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, KeyError, IndexError, TypeError, ValueError, yaml.YAMLError):
        raise UsageFault(f"'{word}' is no run folder: give those that mtl tile, extract and train printed") from None
    if verb not in ("tile", "extract", "train"):
        raise UsageFault(f"'{word}' is a run of mtl {verb}: costs are planned from runs of tile, extract and train")
    if code not in (0, 4) or (verb == "train" and code):
        raise DataFault(f"'{word}' did not come to its end (exit code {code}): a sample must be whole")
    rows, done = items.read(folder), len(account.get("done") or ())
    if not rows:
        what = "slides were complete" if verb != "train" else "folds were finished or begun"
        raise DataFault(
            f"nothing was measured in '{word}': its {done} {what} before; measure into a new folder, such as "
            f"{'name=sample' if verb == 'train' else 'paths.out=sample'}"
        )
    if verb != "train" and len(rows) < LEAST:
        raise DataFault(f"'{word}' measured {len(rows)} slide(s): {LEAST} are needed, better {FEW} and more")
    return Sample(verb, folder, word, rows, account, settings)


def _once(by: Mapping[str, Sample]) -> None:
    """Nothing may be counted twice."""
    if "tile" in by and "extract" in by and any(row.laid for row in by["extract"].rows):
        raise UsageFault(
            f"'{by['extract'].word}' laid its tiles itself, so that they would count twice: leave the run of tile out"
        )


def _assumptions(by: Mapping[str, Sample], settings: Mapping[str, Any]) -> list[str]:
    """What the numbers stand on, a sentence each."""
    from nsclc_mtl.commands import costs

    notes = []
    for verb in ("tile", "extract"):
        if sample := by.get(verb):
            told = f"{len(sample.rows)} slides of '{sample.word}'"
            sizes = [row.slide_bytes for row in sample.rows if row.slide_bytes is not None]
            tiles = [row.tiles or 0 for row in sample.rows]
            told += f", {sum(sizes) / len(sizes) / 1e6:.3g} MB" if sizes else ""
            notes.append(f"{told} and {sum(tiles) / len(tiles):.4g} tiles each in the mean, are like the others")
            kept = len(sample.account.get("done") or ()) - sum(row.tiles != 0 for row in sample.rows)
            if kept > 0:
                notes.append(f"{kept} slides of '{sample.word}' were complete before and do not count")
            if len(sample.rows) < FEW:
                notes.append(f"{len(sample.rows)} slides make a rough interval; it may be too narrow")
            warm = sum(costs.warm(sample.rows))
            first = len(sample.rows) - warm
            if warm < len(sample.rows):
                told = "a slide" if verb == "tile" else "a tile"
                notes.append(f"seconds {told} are of {warm} slides: {first} had to wait for a process to start")
            elif any(row.first for row in sample.rows):
                notes.append(f"seconds of {verb} hold the start of its processes, too few slides came after it")
    if "extract" in by and "tile" not in by and not any(row.laid for row in by["extract"].rows):
        notes.append("the tiles were there: no run of mtl tile is in the sample, and its time is not in the plan")
    if set(by) & {"tile", "extract"}:
        processes = f"{settings['shards']} x {settings['workers']} processes"
        notes += [
            f"linear in slides{_per(settings)}; {processes} at the speed that each had in the sample: as many cores "
            "for each, storage as fast, slides dealt evenly",
            "bytes that are read are what the processes asked for, their own results too; storage may send fewer",
            "intervals (95 %) are of the mean slide, from its spread in the sample; they know of no other source",
        ]
    if sample := by.get("train"):
        notes.append(
            f"training is linear in patients times epochs, with the patients' data as large as in '{sample.word}', the "
            "start of its processes among them, and has no interval; mtl evaluate and predict are not planned"
        )
    return notes


def _per(settings: Mapping[str, Any]) -> str:
    tiles, size = settings["tiles_per_slide"], settings["gb_per_slide"]
    told = [f"{tiles:g} tiles a slide (extract)"] if tiles is not None else []
    told += [f"{size:g} GB a slide (tile)"] if size is not None else []
    return f", and in {' and '.join(told)}" if told else ""


def _table(rows: Sequence[Row], settings: Mapping[str, Any]) -> Table:
    from rich.table import Table

    patients = settings["patients"] or settings["slides"]
    title = (
        f"{settings['slides']:,} slides, {patients:,} patients, {settings['shards']} x {settings['workers']} processes"
    )
    table = Table("", "what", "value", "95 %", "unit", "from", title=title)
    for row in rows:
        between = "" if row.lo is None or row.hi is None else f"{_told(row.lo)} to {_told(row.hi)}"
        table.add_row(row.step, row.what, _told(row.value), between, row.unit, ", ".join(row.runs))
    return table


def _told(value: float) -> str:
    """A number with three digits that count.

    >>> _told(12345.6), _told(0.98765), _told(7.0)
    ('12,300', '0.988', '7')
    """
    return f"{float(f'{value:.3g}'):,.10g}"
