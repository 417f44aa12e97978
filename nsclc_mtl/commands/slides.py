"""One slide as a job: its tiles, and what a backbone sees in them.

Every job is idempotent: what is complete for the same slide and settings is kept, everything else is made again. A
slide that another process is working on is left to it (`Outcome.busy`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nsclc_mtl.commands.lease import Taken, heal, holding
from nsclc_mtl.records import DataFault, Features, ItemFault, ItemSkip, Tiles

if TYPE_CHECKING:
    from torch import Tensor

    from nsclc_mtl.slides.reader import Slide, TileBatches

Made = TypeVar("Made")


@dataclass(frozen=True)
class Job:
    """One slide to be worked on."""

    slide_id: str
    path: str
    mpp: float | None = None  # um/px that somebody states, instead of the slide itself
    mpp_source: str = "metadata"
    staged: str = ""  # a copy on a faster disk
    roi: str | None = None  # file of regions that restrict the tiling, stated for this slide
    features: str = ""  # a file of its features that somebody else made: there is nothing to tile or to extract


@dataclass
class Outcome:
    """What became of a job: tiles, or the reason why there are none."""

    tiles: int = 0
    kept: bool = False  # complete before
    reason: str = ""
    sentence: str = ""
    skipped: bool = False  # nothing in it, rather than unusable
    busy: str = ""  # the lease that another process holds: to be tried again


class Busy(Exception):
    """Another process works on the slide; the lease that says so."""


def tile(job: Job, slides: Mapping[str, Any], out: Path) -> Outcome:
    """`out/tiles/<tiling>/<slide_id>.h5`, contours for QuPath and a picture; the .h5 comes last and is the proof."""
    return guarded(job, functools.partial(_tile, job, slides, out))


def _tile(job: Job, slides: Mapping[str, Any], out: Path) -> Outcome:
    tiles, kept = _tiles(job, slides, out)
    if len(tiles) == 0:
        reason = str(tiles.attrs["reason"])
        words = {"no_tissue": "holds no tissue", "too_small": "is smaller than a tile"}
        return Outcome(0, kept, reason, f"slide '{job.slide_id}' {words.get(reason, reason)}", skipped=True)
    return Outcome(len(tiles), kept)


def _tiles(job: Job, slides: Mapping[str, Any], out: Path) -> tuple[Tiles, bool]:
    """The tiles of a slide, and whether they were there before. Raises Busy where another process makes them."""
    from nsclc_mtl.features import store

    path, digest = tile_file(job, slides, out)
    made = once(path, lambda: store.is_complete(path, digest, deep=True), lambda: _lay(job, slides, path, digest))
    return (store.read_tiles(path), True) if made is None else (made, False)


def tile_file(job: Job, slides: Mapping[str, Any], out: Path) -> tuple[Path, str]:
    """Where the tiles of a slide lie, and the digest of what they depend on. Raises ItemFault `absent`."""
    from nsclc_mtl.features import keys
    from nsclc_mtl.slides import roi
    from nsclc_mtl.slides.reader import content_hash

    key = keys.tiling_key(slides)
    if not Path(job.path).is_file():
        raise ItemFault("absent", f"slide '{job.slide_id}' does not exist at '{Path(job.path).name}'; mend its path")
    content = {"tiling": key, "slide": content_hash(Path(job.path)), "mpp": job.mpp}
    if drawn := _roi(job, slides):
        content["roi"] = roi.digest(drawn)
    digest = keys.config_hash(content)
    return out / "tiles" / key / f"{job.slide_id}.h5", digest


def _lay(job: Job, slides: Mapping[str, Any], path: Path, digest: str) -> Tiles:
    from nsclc_mtl.features import keys, store
    from nsclc_mtl.slides import geojson, roi, tiling
    from nsclc_mtl.slides.picture import contour_picture
    from nsclc_mtl.slides.reader import content_hash
    from nsclc_mtl.slides.tissue import survey

    drawn = _roi(job, slides)
    regions = roi.load(drawn, job.slide_id, slides.get("roi_classes")) if drawn else None
    with open_job(job, slides) as slide:
        thumbnail, found = survey(slide, segmenter_of(slides), slides["tissue"], regions)
        lengths = {word: float(slides[word]) for word in ("tile_um", "min_tissue", "overlap_um")}
        tiles = tiling.grid(found.mask, job.slide_id, slide.dimensions, slide.mpp, **lengths)
        tiles = tiling.sample(tiles, slides.get("sample"), int(slides.get("sample_seed", 0)))
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
            "tiling": {name: value for name, value in keys.geometry(slides).items() if name != "roi"},
            "tissue_threshold": found.threshold,
            "glass": list(found.white),
            "lost_fraction": found.lost,
        }
        tiles.attrs |= {f"{name}_fraction": share for name, share in found.fractions.items()}
        if drawn:
            tiles.attrs |= {"roi_hash": roi.digest(drawn)}
        polygons = geojson.contours(found.mask, slide.dimensions)
        geojson.write(path.with_suffix(".geojson"), [geojson.annotation(rings, roi.TISSUE) for rings in polygons])
        if slides.get("pictures", True):
            contour_picture(path.with_suffix(".jpg"), thumbnail, slide.dimensions, polygons, tiles, found.cut)
    store.write_tiles(path, tiles)
    return tiles


def _roi(job: Job, slides: Mapping[str, Any]) -> Path | None:
    """The file of regions of a slide: its own, else the one in `slides.roi`. Raises ItemSkip where that has none."""
    from nsclc_mtl.slides import roi

    if job.roi:
        return Path(job.roi)
    return roi.find(Path(slides["roi"]), job.slide_id) if slides.get("roi") else None


def segmenter_of(slides: Mapping[str, Any]) -> Any:
    """The segmenter of the `slides` group, made once a process. Raises what ends a run: usage, integrity."""
    return _segmenter(json.dumps(slides["segmenter"], sort_keys=True))


@functools.lru_cache(maxsize=1)
def _segmenter(settings: str) -> Any:
    from nsclc_mtl.config import build

    return build(json.loads(settings))


def open_job(job: Job, slides: Mapping[str, Any]) -> Slide:
    """The slide of a job, or its copy on a faster disk. Raises ItemFault where it cannot be used."""
    from nsclc_mtl.slides.reader import open_slide

    return open_slide(
        Path(job.staged or job.path), job.mpp, job.mpp_source, mpp_from_power=bool(slides.get("mpp_from_power", False)),
        max_unreadable=float(slides.get("max_unreadable", 0.0)),
    )  # fmt: skip


def extract(
    job: Job,
    slides: Mapping[str, Any],
    backbone: Mapping[str, Any],
    out: Path,
    stain: Mapping[str, Any] | None = None,
    also: Sequence[str] = (),
) -> Outcome:
    """`out/features/<backbone>-<key8>/<slide_id>.h5`; tiles that are missing are made on the way.

    `also` names the layouts of other tools that are written beside it (features/export.py).
    """
    return guarded(job, functools.partial(_extract, job, slides, backbone, out, stain or {}, also))


def _extract(
    job: Job,
    slides: Mapping[str, Any],
    backbone: Mapping[str, Any],
    out: Path,
    stain: Mapping[str, Any],
    also: Sequence[str],
) -> Outcome:
    from nsclc_mtl.features import export, store
    from nsclc_mtl.features.backbones import feature_key

    tiles, _ = _tiles(job, slides, out)
    if len(tiles) == 0:
        return _tile(job, slides, out)
    key = feature_key(slides, backbone, stain)
    path, digest = feature_file(job, key, str(tiles.attrs["config_hash"]), out)

    def complete() -> bool:
        if not store.is_complete(path, digest, deep=True):
            return False
        # A slide that may lose tiles has no features of these.
        least = (1.0 - float(slides.get("max_unreadable", 0.0))) * len(tiles)
        return least <= store.header(path)[0] <= len(tiles) and all(export.is_complete(kind, path) for kind in also)

    def make() -> Features:
        if store.is_complete(path, digest, deep=True):  # all that lacks is the layout of another tool
            found = store.read(path)
        else:
            found = _see(job, slides, backbone, stain, tiles)
            found.attrs |= {"config_hash": digest, "feature_key": key}
            store.write(path, found)
        for kind in also:
            export.write(kind, path)
        return found

    if not path.is_file():  # a backbone that cannot be had ends the run before anything is written
        load(backbone, tiles.tile_um)
    made = once(path, complete, make)
    return Outcome(store.header(path)[0], kept=True) if made is None else Outcome(len(made))


def feature_file(job: Job, key: str, tiles_digest: str, out: Path) -> tuple[Path, str]:
    """Where the features of a slide lie, and the digest of what they depend on."""
    from nsclc_mtl.features import keys

    return out / "features" / key / f"{job.slide_id}.h5", keys.config_hash({"features": key, "tiles": tiles_digest})


def _see(
    job: Job, slides: Mapping[str, Any], backbone: Mapping[str, Any], stain: Mapping[str, Any], tiles: Tiles
) -> Features:
    """What the backbone sees in the tiles of a slide, with where it comes from."""
    from nsclc_mtl.features import keys
    from nsclc_mtl.features.backbones.seeing import see  # torch takes seconds, and a rerun does not need it
    from nsclc_mtl.slides import restain
    from nsclc_mtl.slides.reader import TileBatches

    look = load(backbone, tiles.tile_um)
    with open_job(job, slides) as slide:
        read = functools.partial(
            TileBatches, slide, size_level0=tiles.size_level0, tile_px=look.tile_px, batch=look.batch,
            threads=int(slides.get("readers", 2)), tolerance=float(slides.get("mpp_tolerance", 0.0)),
        )  # fmt: skip
        normalise, stained = _stain(stain, tiles, read)
        batches = read(coords=tiles.coords)
        seen = see(look, batches, normalise, restain.views(stain, job.slide_id))
        unreadable = max(slide.unreadable, len(batches.unreadable) / len(tiles))
    attrs = {name: value for name, value in tiles.attrs.items() if name != "reason"} | {
        "name": job.slide_id,
        "mpp": tiles.mpp,
        "tile_um": tiles.tile_um,
        "patch_size": look.tile_px,
        "patch_size_level0": tiles.size_level0,
        "target_magnification": round(10.0 * look.tile_px / tiles.tile_um, 2),
        "overlap": round(float(slides["overlap_um"]) / tiles.tile_um * look.tile_px),
        "backbone": look.name,
        "weights_hash": look.weights_hash,
        "unreadable_fraction": unreadable,
        "unreadable_tiles": len(batches.unreadable),
        "code_digest": keys.code_digest("features/backbones", "slides/reader"),
    }
    attrs |= seen.attrs | stained
    return Features(seen.features, tiles.coords[seen.places], attrs, seen.views)


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


def once(path: Path, complete: Callable[[], bool], make: Callable[[], Made]) -> Made | None:
    """What `make` makes of `path`, by one process at a time; None where it is complete. Raises Busy."""
    lease = path.with_name(f"{path.stem}.lease")
    if complete():
        if not heal(lease):  # the lease of a process that is just finishing, or that died after it had finished
            raise Busy(str(lease))
        return None
    try:  # it may have been finished between the look and the lease
        return holding(lease, lambda: None if complete() else make())
    except Taken as taken:
        raise Busy(str(lease)) from taken


def guarded(job: Job, work: Callable[[], Outcome]) -> Outcome:
    """What the work gives; a slide that cannot be used becomes an outcome with its reason, so that the others go on."""
    try:
        return work()
    except Busy as busy:
        return Outcome(busy=str(busy))
    except ItemFault as fault:
        return Outcome(reason=fault.reason, sentence=str(fault), skipped=isinstance(fault, ItemSkip))
    except DataFault as fault:
        return Outcome(reason="invalid", sentence=str(fault))
    except PermissionError as error:
        return Outcome(reason="unreadable", sentence=f"slide '{job.slide_id}': {error.strerror}; mend its permissions")
