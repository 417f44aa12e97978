"""One slide as a job of `tile`: where its tissue is, and the tiles on it.

Every job is idempotent: what is complete for the same slide and settings is kept, everything else is made again. A
slide that another process is working on is left to it (`Outcome.busy`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.job import Job, Outcome, guarded, once
from nsclc_mtl.records import ItemFault, Tiles

if TYPE_CHECKING:
    from nsclc_mtl.slides.reader import Slide


def tile(job: Job, slides: Mapping[str, Any], out: Path) -> Outcome:
    """`out/tiles/<tiling>/<slide_id>.h5`, contours for QuPath and a picture; the .h5 comes last and is the proof."""
    return guarded(job, functools.partial(_tile, job, slides, out))


def _tile(job: Job, slides: Mapping[str, Any], out: Path) -> Outcome:
    return laid(job, *tiles_of(job, slides, out))


def laid(job: Job, tiles: Tiles, kept: bool) -> Outcome:
    """What is said of the tiles of a slide: their number, or why there are none."""
    if len(tiles) == 0:
        reason = str(tiles.attrs["reason"])
        words = {"no_tissue": "holds no tissue", "too_small": "is smaller than a tile"}
        return Outcome(0, kept, reason, f"slide '{job.slide_id}' {words.get(reason, reason)}", skipped=True)
    return Outcome(len(tiles), kept)


def tiles_of(job: Job, slides: Mapping[str, Any], out: Path) -> tuple[Tiles, bool]:
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
    classes = (slides.get("roi_classes"), slides.get("roi_exclude"))
    regions = roi.load(drawn, job.slide_id, *classes) if drawn else None
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
