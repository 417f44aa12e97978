"""Slides as jobs: find them, tile one, extract one, and many of them in a pool of processes.

Every job is idempotent: what is complete for the same slide and settings is kept, everything else is made again.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, ItemFault, ItemSkip, Tiles

if TYPE_CHECKING:
    from torch import Tensor

    from nsclc_mtl.config import Run
    from nsclc_mtl.slides.reader import Slide, TileBatches

FEATURE_FILES = frozenset({".h5", ".hdf5", ".npz", ".pt", ".pth"})
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """One slide to be worked on."""

    slide_id: str
    path: str
    mpp: float | None = None  # um/px that somebody states, instead of the slide itself
    mpp_source: str = "metadata"


@dataclass
class Outcome:
    """What became of a job: tiles, or the reason why there are none."""

    tiles: int = 0
    kept: bool = False  # complete before
    reason: str = ""
    sentence: str = ""
    skipped: bool = False  # nothing in it, rather than unusable


# ---------------------------------------------------------------------------------------------------------------------
# Finding
# ---------------------------------------------------------------------------------------------------------------------


def in_folder(folder: Path, mpp: float | None, run: Run) -> list[Job]:
    """All slides below a folder, by known suffixes; two that would share a slide_id are failed by name.

    A DICOM series counts once, whatever the number of its files. PNG and JPEG pictures count only where their scale is
    stated (`mpp`) and nothing else is there: beside slides they are thumbnails. Raises DataFault where the folder does
    not exist or holds no slide.
    """
    from nsclc_mtl.slides.reader import PICTURE_SUFFIXES, SUFFIXES, one_a_series

    if not folder.is_dir():
        raise DataFault(f"no folder '{folder}'; give the folder of slides: mtl tile DIR")
    found: dict[str, list[Path]] = {}
    listed = list(_files(folder))
    slides = [file for file in listed if file.suffix.lower() in SUFFIXES]
    if dicom := [file for file in slides if file.suffix.lower() == ".dcm"]:
        slides = [file for file in slides if file not in set(dicom)] + one_a_series(dicom)
    if not slides and mpp is not None:
        slides = [file for file in listed if file.suffix.lower() in PICTURE_SUFFIXES]
    for file in slides:
        slide_id = file.relative_to(folder).with_suffix("").as_posix().replace("/", "__")
        found.setdefault(slide_id, []).append(file)
    if not found:
        raise DataFault(f"no slides below '{folder}': files with {' '.join(sorted(SUFFIXES))} are looked for")
    jobs = []
    for slide_id, files in sorted(found.items()):
        if len(files) > 1:
            names = ", ".join(f"'{file.relative_to(folder)}'" for file in files)
            run.not_done(
                slide_id, ItemFault("id_collision", f"{names} would all be called '{slide_id}'; rename all but one")
            )
            continue
        jobs.append(Job(slide_id, str(files[0]), mpp, "slides.mpp" if mpp is not None else "metadata"))
    return jobs


def _files(folder: Path) -> Iterator[Path]:
    """Files below a folder, links followed, each real folder once: loops of links end."""
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(where) / name for name in sorted(files) if not name.startswith("."))


def of_cohort(cohort: Mapping[str, Any], mpp: float | None, run: Run) -> list[Job]:
    """The slides that a cohort's bag modalities list (`cohort["root"]` is set); feature files are skipped by name."""
    from nsclc_mtl.tables.read import MISSING, read_indexed

    jobs: dict[str, Job] = {}
    root = Path(cohort["root"])
    files = [
        spec.get("table", "slides.csv") for spec in (cohort.get("modalities") or {}).values() if spec["kind"] == "bag"
    ]
    for file in dict.fromkeys(files):
        table = read_indexed(root / file, "slide_id")
        if "path" not in table:
            raise DataFault(f"'{file}' has no column 'path'; it names each slide's file, relative to the cohort's root")
        for slide_id, row in table.iterrows():
            slide_id = str(slide_id)
            if slide_id != Path(slide_id).name or slide_id.startswith("."):
                raise DataFault(f"'{file}': slide_id '{slide_id}' cannot be a file name; leave out / and leading dots")
            if Path(row["path"]).suffix.lower() in FEATURE_FILES:
                run.not_done(slide_id, ItemSkip("features_given", f"'{file}' names a feature file for this slide"))
                continue
            stated = str(row.get("mpp", "")).strip()
            try:
                value = None if stated in MISSING else float(stated)
            except ValueError:
                run.not_done(
                    slide_id, ItemFault("mpp_implausible", f"'{file}' says mpp '{stated}', which is no number")
                )
                continue
            source = f"{file}" if value is not None else "slides.mpp" if mpp is not None else "metadata"
            jobs[slide_id] = Job(slide_id, str(root / row["path"]), mpp if value is None else value, source)
    return list(jobs.values())


# ---------------------------------------------------------------------------------------------------------------------
# One slide
# ---------------------------------------------------------------------------------------------------------------------


def tile(job: Job, slides: Mapping[str, Any], out: Path) -> Outcome:
    """`out/tiles/<tiling>/<slide_id>.h5`, contours for QuPath and a picture; the .h5 comes last and is the proof."""
    return _guarded(job, functools.partial(_tile, job, slides, out))


def _tile(job: Job, slides: Mapping[str, Any], out: Path) -> Outcome:
    tiles, kept = _tiles(job, slides, out)
    if len(tiles) == 0:
        reason = str(tiles.attrs["reason"])
        words = {"no_tissue": "holds no tissue", "too_small": "is smaller than a tile"}
        return Outcome(0, kept, reason, f"slide '{job.slide_id}' {words.get(reason, reason)}", skipped=True)
    return Outcome(len(tiles), kept)


def _tiles(job: Job, slides: Mapping[str, Any], out: Path) -> tuple[Tiles, bool]:
    from nsclc_mtl.features import store
    from nsclc_mtl.slides import geojson, tiling, tissue
    from nsclc_mtl.slides.picture import contour_picture
    from nsclc_mtl.slides.reader import content_hash

    key = store.tiling_key(slides)
    path = out / "tiles" / key / f"{job.slide_id}.h5"
    if not Path(job.path).is_file():
        raise ItemFault("absent", f"slide '{job.slide_id}' does not exist at '{Path(job.path).name}'; mend its path")
    digest = store.config_hash({"tiling": key, "slide": content_hash(Path(job.path)), "mpp": job.mpp})
    if store.is_complete(path, digest):
        return store.read_tiles(path), True
    with _open(job, slides) as slide:
        options = dict(slides["tissue"])
        scale = float(options.pop("um_per_px"))
        thumbnail = slide.thumbnail(scale)
        found = tissue.examine(thumbnail, scale, **options)
        lengths = {word: float(slides[word]) for word in ("tile_um", "min_tissue", "overlap_um")}
        tiles = tiling.grid(found.mask, job.slide_id, slide.dimensions, slide.mpp, **lengths)
        settings = {name: value for name, value in slides.items() if name not in store.NO_GEOMETRY}
        tiles.attrs |= {
            "config_hash": digest,
            "slide_hash": content_hash(Path(job.path)),
            "mpp_source": slide.mpp_source,
            "vendor": slide.vendor,
            "read_by": slide.read_by,
            "unreadable_fraction": slide.unreadable,
            "level0_width": slide.dimensions[0],
            "level0_height": slide.dimensions[1],
            "level0_magnification": slide.magnification,
            "tiling": settings,
            "tissue_threshold": found.threshold,
            "pen_fraction": found.pen_fraction,
            "glass": list(found.white),
        }
        polygons = geojson.contours(found.mask, slide.dimensions)
        geojson.write(path.with_suffix(".geojson"), [geojson.annotation(rings, "Tissue") for rings in polygons])
        if slides.get("pictures", True):
            contour_picture(path.with_suffix(".jpg"), thumbnail, slide.dimensions, polygons, tiles)
    store.write_tiles(path, tiles)
    return tiles, False


def _open(job: Job, slides: Mapping[str, Any]) -> Slide:
    from nsclc_mtl.slides.reader import open_slide

    return open_slide(
        Path(job.path), job.mpp, job.mpp_source, mpp_from_power=bool(slides.get("mpp_from_power", False)),
        max_unreadable=float(slides.get("max_unreadable", 0.0)),
    )  # fmt: skip


def extract(
    job: Job, slides: Mapping[str, Any], backbone: Mapping[str, Any], out: Path, stain: Mapping[str, Any] | None = None
) -> Outcome:
    """`out/features/<backbone>-<key8>/<slide_id>.h5`; tiles that are missing are made on the way."""
    return _guarded(job, functools.partial(_extract, job, slides, backbone, out, stain or {}))


def _extract(
    job: Job, slides: Mapping[str, Any], backbone: Mapping[str, Any], out: Path, stain: Mapping[str, Any]
) -> Outcome:
    from nsclc_mtl.features import store
    from nsclc_mtl.features.backbones import feature_key
    from nsclc_mtl.records import Features
    from nsclc_mtl.slides.reader import TileBatches

    tiles, _ = _tiles(job, slides, out)
    if len(tiles) == 0:
        return _tile(job, slides, out)
    key = feature_key(slides, backbone, stain)
    path = out / "features" / key / f"{job.slide_id}.h5"
    digest = store.config_hash({"features": key, "tiles": tiles.attrs["config_hash"]})
    least = (1.0 - float(slides.get("max_unreadable", 0.0))) * len(tiles)  # unreadable tiles have no features
    if store.is_complete(path, digest) and least <= (found := store.header(path)[0]) <= len(tiles):
        return Outcome(found, kept=True)
    from nsclc_mtl.features.backbones.seeing import see  # torch takes seconds, and a rerun does not need it
    from nsclc_mtl.slides import restain

    look = load(backbone, tiles.tile_um)
    with _open(job, slides) as slide:
        read = functools.partial(
            TileBatches, slide, size_level0=tiles.size_level0, tile_px=look.tile_px, batch=look.batch,
            threads=int(slides.get("readers", 2)), tolerance=float(slides.get("mpp_tolerance", 0.0)),
        )  # fmt: skip
        normalise, stained = _stain(stain, tiles, read)
        batches = read(coords=tiles.coords)
        seen = see(look, batches, normalise, restain.views(stain, job.slide_id))
        unreadable = max(slide.unreadable, len(batches.unreadable) / len(tiles))
    attrs = {name: value for name, value in tiles.attrs.items() if name != "reason"} | {
        "config_hash": digest,
        "name": job.slide_id,
        "mpp": tiles.mpp,
        "tile_um": tiles.tile_um,
        "patch_size": look.tile_px,
        "patch_size_level0": tiles.size_level0,
        "target_magnification": round(10.0 * look.tile_px / tiles.tile_um, 2),
        "overlap": round(float(slides["overlap_um"]) / tiles.tile_um * look.tile_px),
        "backbone": look.name,
        "weights_hash": look.weights_hash,
        "feature_key": key,
        "unreadable_fraction": unreadable,
        "unreadable_tiles": len(batches.unreadable),
        "code_digest": store.code_digest("features/backbones", "slides/reader"),
    }
    attrs |= seen.attrs | stained
    coords = tiles.coords[seen.places]
    store.write(path, Features(seen.features, coords, attrs, seen.views))
    return Outcome(len(coords))


def _stain(
    options: Mapping[str, Any], tiles: Tiles, read: Callable[..., TileBatches]
) -> tuple[Callable[[Tensor], Tensor] | None, dict[str, Any]]:
    """The change that brings this slide to the reference, and the attributes that say so; nothing where stain=none."""
    import numpy as np

    from nsclc_mtl.slides.restain import normaliser

    some = np.empty((0, 1, 1, 3), np.uint8)
    if options.get("method", "none") != "none":
        places = np.unique(np.linspace(0, len(tiles) - 1, int(options.get("sample", 64))).round().astype(int))
        some = np.concatenate([pixels for _, pixels in read(coords=tiles.coords[places])])
    change, measured = normaliser(options, some)
    return change, ({"stain": dict(options)} if change or options.get("views") else {}) | measured


def load(backbone: Mapping[str, Any], tile_um: float) -> Any:
    """The backbone for tiles of `tile_um`, made once a process. Raises what ends a run: usage, integrity, data."""
    return _backbone(json.dumps(dict(backbone), sort_keys=True), tile_um / float(backbone["tile_px"]))


@functools.lru_cache(maxsize=1)
def _backbone(settings: str, um_per_px: float) -> Any:
    from nsclc_mtl.config import build

    return build(json.loads(settings), um_per_px=um_per_px)


def _guarded(job: Job, work: Callable[[], Outcome]) -> Outcome:
    """What the work gives; a slide that cannot be used becomes an outcome with its reason, so that the others go on."""
    try:
        return work()
    except ItemFault as fault:
        return Outcome(reason=fault.reason, sentence=str(fault), skipped=isinstance(fault, ItemSkip))
    except DataFault as fault:
        return Outcome(reason="invalid", sentence=str(fault))
    except PermissionError as error:
        return Outcome(reason="unreadable", sentence=f"slide '{job.slide_id}': {error.strerror}; mend its permissions")


# ---------------------------------------------------------------------------------------------------------------------
# Many slides
# ---------------------------------------------------------------------------------------------------------------------


def work_through(jobs: list[Job], work: Callable[[Job], Outcome], workers: int, run: Run, label: str) -> None:
    """All jobs, over some processes; the run keeps account of each. Raises what ends them all (full disk, usage)."""
    results: dict[str, Outcome] = {}
    for slide_id, outcome in run.track(_each(jobs, work, min(workers, len(jobs) // 2)), label, total=len(jobs)):
        results[slide_id] = outcome
    for job in jobs:  # the account in the order of the list, however the processes ran
        outcome = results[job.slide_id]
        if outcome.reason:
            kind = ItemSkip if outcome.skipped else ItemFault
            run.not_done(job.slide_id, kind(outcome.reason, outcome.sentence))
            run.say(f"{label} {job.slide_id}: {outcome.sentence}")
        else:
            run.done.append(job.slide_id)
    done = [outcome for outcome in results.values() if not outcome.reason]
    kept = sum(outcome.kept for outcome in done)
    run.say(
        f"{label}: {len(done)} of {len(jobs)} done ({kept} of them complete before), "
        f"{sum(outcome.tiles for outcome in done)} tiles"
    )


def _each(jobs: list[Job], work: Callable[[Job], Outcome], workers: int) -> Iterator[tuple[str, Outcome]]:
    if workers < 2:  # a process costs seconds to start, more than a slide or two
        yield from ((job.slide_id, work(job)) for job in jobs)
        return
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # one thread a process: more would only queue
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            waiting = {pool.submit(work, job): job.slide_id for job in jobs}
            try:
                for future in as_completed(waiting):
                    yield waiting[future], _result(future)
            except BaseException:  # a full disk or a signal: what has not begun must not begin
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _result(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        told = "a worker was killed, perhaps for memory; lower slides.workers and run again, finished slides are kept"
        return Outcome(reason="worker_died", sentence=told)
