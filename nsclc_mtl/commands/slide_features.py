"""One slide as a job of `extract`: what a backbone sees in its tiles."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.job import Job, Outcome, guarded, once
from nsclc_mtl.commands.slides import laid, open_job, tiles_of
from nsclc_mtl.records import Features, Tiles

if TYPE_CHECKING:
    from torch import Tensor

    from nsclc_mtl.slides.reader import TileBatches


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

    tiles, kept = tiles_of(job, slides, out)
    if len(tiles) == 0:
        return laid(job, tiles, kept)
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
    return Outcome(store.header(path)[0], kept=True) if made is None else Outcome(len(made), laid=not kept)


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
