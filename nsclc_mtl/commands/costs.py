"""The arithmetic of `mtl plan-cost`: from what slides and folds took in a sample to what many will take."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nsclc_mtl.commands.items import Item
from nsclc_mtl.records import DataFault

if TYPE_CHECKING:
    from nsclc_mtl.commands.plan_cost import Sample

LEAST = 3  # slides that seconds are taken from, where the first of a process are left out
FAR = 2.0  # times the largest, or part of the smallest slide of the sample, up to which slides are scaled
Get = Callable[[Item], "int | float | None"]


@dataclass(frozen=True)
class Row:
    """One figure of the plan, and the runs that it comes from."""

    step: str  # tile | extract | train | disk | network
    what: str
    value: float
    unit: str
    runs: tuple[str, ...]
    lo: float | None = None  # of the 95 % interval
    hi: float | None = None

    def plain(self) -> dict[str, Any]:
        """As plain types."""
        return {**asdict(self), "runs": list(self.runs)}


@dataclass(frozen=True)
class Total:
    """A sum over all slides, and the same over resamples of the sample's slides."""

    value: float
    draws: np.ndarray  # [resample]

    def __truediv__(self, by: float) -> Total:
        return Total(self.value / by, self.draws / by)


def rows(by: Mapping[str, Sample], settings: Mapping[str, Any]) -> list[Row]:
    """All figures that the sample gives, a row each."""
    made: list[Row] = []
    disk: list[Row] = []
    network: list[Row] = []
    for verb in ("tile", "extract"):
        if sample := by.get(verb):
            made += _work(sample, settings)
            disk += _disk(sample, settings)
            network += _network(sample, settings, told=bool(network))
    if sample := by.get("train"):
        times, space = _training(sample, settings)
        made, disk = made + times, disk + space
        if extract := by.get("extract"):
            network += _features_read(sample, extract, settings)
    if len(disk) > 1:
        runs = tuple(dict.fromkeys(run for row in disk for run in row.runs))
        disk.append(Row("disk", "all of it", sum(row.value for row in disk), "GB", runs))
    return made + disk + network


def warm(rows: Sequence[Item]) -> list[bool]:
    """Which of them did not wait for a process to start, where they are enough; else all."""
    found = [not row.first for row in rows]
    return found if sum(found) >= LEAST else [True] * len(rows)


def total(
    rows: Sequence[Item],
    get: Get,
    settings: Mapping[str, Any],
    per: Get | None = None,
    mean: float | None = None,
    known: Sequence[bool] | None = None,
) -> Total:
    """What all slides of the plan come to, if they are like the rows; with `mean`, like rows with so much of `per`.

    `known` are the rows whose value counts; the others count with their size alone, at the rate of those. Raises
    DataFault where `mean` is far from what the rows have of `per`.
    """
    value, size = (np.array([float(of(row) or 0) for row in rows]) for of in (get, per or (lambda row: 1)))
    if mean is not None and not size.min() / FAR <= mean <= size.max() * FAR:
        between = f"{size.min():.4g} to {size.max():.4g}"
        raise DataFault(
            f"slides of {mean:.4g} tiles or bytes are far from those of the sample ({between}), and what a slide costs "
            "once would be counted many times: measure slides of that size"
        )
    counts = np.ones(len(rows)) if known is None else np.array(known, float)
    if not (size * counts).sum():  # slides without a tile
        size = np.ones(len(rows))
    drawn = np.random.default_rng(settings["seed"]).integers(0, len(rows), (int(settings["bootstrap"]), len(rows)))
    each = np.vstack([np.arange(len(rows)), drawn])  # the sample itself, then its resamples
    below = (size * counts)[each].sum(axis=1)
    rate = (value * counts)[each].sum(axis=1) / np.where(below > 0, below, np.nan)
    all_of_them = float(settings["slides"]) * rate * (size[each].mean(axis=1) if mean is None else mean)
    return Total(float(all_of_them[0]), all_of_them[1:])


def _row(step: str, what: str, found: Total, unit: str, sample: Sample) -> Row:
    if not len(found.draws):
        return Row(step, what, found.value, unit, (sample.word,))
    lo, hi = (float(end) for end in np.nanpercentile(found.draws, [2.5, 97.5]))
    return Row(step, what, found.value, unit, (sample.word,), lo, hi)


def _by_size(sample: Sample, settings: Mapping[str, Any]) -> tuple[Get | None, float | None]:
    """What the costs of a verb follow: `tile` looks at a slide as a whole, `extract` at its tiles."""
    if sample.verb == "extract":
        return lambda row: row.tiles, settings["tiles_per_slide"]
    size = settings["gb_per_slide"]
    return (None, None) if size is None else (lambda row: row.slide_bytes, size * 1e9)


def _seconds(sample: Sample, settings: Mapping[str, Any]) -> Total:
    return total(sample.rows, lambda row: row.seconds, settings, *_by_size(sample, settings), warm(sample.rows))


def _work(sample: Sample, settings: Mapping[str, Any]) -> list[Row]:
    seconds = _seconds(sample, settings)
    processes = int(settings["shards"]) * int(settings["workers"])
    return [
        _row(sample.verb, "work of one process", seconds / 3600, "h", sample),
        _row(sample.verb, f"time of {processes} processes", seconds / (3600 * processes), "h", sample),
        Row(sample.verb, "memory, largest process", float(sample.account["peak_rss_mb"]), "MB", (sample.word,)),
    ]


def _disk(sample: Sample, settings: Mapping[str, Any]) -> list[Row]:
    mean: float | None = settings["tiles_per_slide"]
    columns: dict[str, Get] = {"tiles": lambda row: row.tiles_bytes}
    if sample.verb == "extract":
        laid = any(row.laid for row in sample.rows)  # else they are of the run of tile
        columns = {**(columns if laid else {}), "features": lambda row: row.features_bytes}
        columns["slide vectors"] = lambda row: row.vectors_bytes
    made = []
    for what, get in columns.items():
        if all(get(row) is not None for row in sample.rows):
            made.append(
                _row("disk", what, total(sample.rows, get, settings, lambda row: row.tiles, mean) / 1e9, "GB", sample)
            )
    items = len(sample.account["done"]) + len(sample.account["skipped"]) + len(sample.account["failed"])
    share = _bytes_of(sample.folder) / max(1, items)
    made.append(Row("disk", f"run of {sample.verb}", share * settings["slides"] / 1e9, "GB", (sample.word,)))
    return made


def _network(sample: Sample, settings: Mapping[str, Any], told: bool) -> list[Row]:
    made, size = [], settings["gb_per_slide"]
    if not told and all(row.slide_bytes is not None for row in sample.rows):
        whole = total(sample.rows, lambda row: row.slide_bytes, settings) / 1e9
        if size is None:
            made.append(_row("network", "slides, whole", whole, "GB", sample))
        else:
            made.append(Row("network", "slides, whole", size * settings["slides"], "GB", ("gb_per_slide",)))
    if all(row.read_bytes is not None for row in sample.rows):
        known = warm(sample.rows)  # the first of a process reads libraries and weights
        read = total(sample.rows, lambda row: row.read_bytes, settings, *_by_size(sample, settings), known)
        seconds, processes = _seconds(sample, settings), int(settings["shards"]) * int(settings["workers"])
        rate = Total(read.value / seconds.value, read.draws / seconds.draws)
        made.append(_row("network", f"read by {sample.verb}", read / 1e9, "GB", sample))
        hourly = Total(rate.value * 3.6e-6 * processes, rate.draws * 3.6e-6 * processes)
        made.append(_row("network", f"an hour of {sample.verb}", hourly, "GB/h", sample))
    return made


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


def _parts(sample: Sample) -> tuple[int, dict[str, int], dict[str, int]]:
    """Patients; training patients of every fold; training and validation patients of every fold."""
    with (sample.folder / "splits.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    trained = Counter(row["fold"] for row in table if row["part"] == "train")
    seen = Counter(row["fold"] for row in table if row["part"] in ("train", "validation"))
    return len({row["patient_id"] for row in table}), dict(trained), dict(seen)


def epochs(settings: Mapping[str, Any], patients: int) -> int:
    """Epochs of a fit on so many training patients, as `mtl train` counts them when nothing stops it early."""
    from nsclc_mtl.commands import members
    from nsclc_mtl.commands.assemble import whole_passes

    batches = 1 if whole_passes(settings) else math.ceil(patients / int(settings["optim"]["batch_size"]))
    return members.epochs(settings, batches)[0]


def _training(sample: Sample, settings: Mapping[str, Any]) -> tuple[list[Row], list[Row]]:
    """Time and memory, and disk, of training on the patients of the plan."""
    given, (patients, trained, _) = sample.settings, _parts(sample)
    times = (settings["patients"] or settings["slides"]) / patients
    before = sum(epochs(given, trained[row.item[4:]]) * trained[row.item[4:]] for row in sample.rows)
    after = [epochs(given, round(n * times)) * n * times for n in trained.values()]
    speed = sum(row.seconds for row in sample.rows) / before  # seconds a patient and epoch, over all members
    at_a_time = min(int(settings["folds_at_a_time"] or max(1, int(given["folds"]["workers"]))), len(trained))
    hours = sum(after) * speed / 3600
    waves = math.ceil(len(trained) / at_a_time)
    runs = (sample.word,)
    made = [
        Row("train", f"work of {len(trained)} folds", hours, "h", runs),
        Row("train", f"time, {at_a_time} at a time", hours * waves / len(trained), "h", runs),
        Row("train", "memory, largest process", float(sample.account["peak_rss_mb"]), "MB", runs),
    ]
    weights = sum(path.stat().st_size for path in sample.folder.glob("fold*/*.ckpt"))
    rest = _bytes_of(sample.folder) - weights
    return made, [Row("disk", "run of train", (weights + rest * times) / 1e9, "GB", runs)]


def _features_read(sample: Sample, extract: Sample, settings: Mapping[str, Any]) -> list[Row]:
    """Bytes of features that training reads: once a fold where its memory holds them, else in every epoch."""
    if any(row.features_bytes is None for row in extract.rows):
        return []
    bags = total(extract.rows, lambda row: row.features_bytes, settings, *_by_size(extract, settings)).value
    patients, trained, seen = _parts(sample)
    cache, read = float(sample.settings["bag_cache_mb"]) * 1e6, 0.0
    times = (settings["patients"] or settings["slides"]) / patients
    for fold, n in seen.items():
        mine = bags * n / patients
        again = 1 if mine <= cache else epochs(sample.settings, round(trained[fold] * times))
        read += mine * again * int(sample.settings["members"])
    told = "features read by train, at most"
    return [Row("network", told, read / 1e9, "GB", (extract.word, sample.word))]


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
