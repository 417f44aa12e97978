"""`mtl extract`: what the backbone sees in the tiles of every slide, and radiomics and crops of every scan."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import slides
from nsclc_mtl.commands.tile import jobs_of, rooted
from nsclc_mtl.commands.train import available

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run


def body(cfg: DictConfig, run: Run) -> None:
    """Feature files under `out/features/<backbone>-<key8>/`, scans under `out/scans/`."""
    from nsclc_mtl.config import plain
    from nsclc_mtl.features.backbones import feature_key

    settings = plain(cfg)
    available(settings["device"])
    settings["backbone"]["device"] = settings["device"]
    out = Path(settings["paths"]["out"])
    from_folder = bool(settings["slides"].get("dir"))
    kinds = {} if from_folder else _tables(rooted(settings))
    if settings["extract"]["slides"] and (from_folder or "bag" in kinds):
        key = feature_key(settings["slides"], settings["backbone"], settings["stain"])
        if "weights" in settings["backbone"]:  # weights that are absent, damaged or strange end the run before any tile
            slides.load(settings["backbone"], float(settings["slides"]["tile_um"]))
        work = functools.partial(
            slides.extract, slides=settings["slides"], backbone=settings["backbone"], out=out, stain=settings["stain"]
        )
        slides.work_through(jobs_of(settings, run), work, int(settings["slides"]["workers"]), run, "slides")
        run.say(f"features: {out / 'features' / key}")
    if settings["extract"]["scans"] and "scans" in kinds:
        from nsclc_mtl.scans.job import extract_scans
        from nsclc_mtl.tables.read import read_indexed

        root = Path(rooted(settings)["root"])
        scans = read_indexed(root / kinds["scans"], "scan_id").reset_index()
        extract_scans(root, scans, settings["scans"], out, run)


def _tables(cohort: dict[str, Any]) -> dict[str, str]:
    """Which tables of images the cohort has: `bag` and `scans`, by file; those declared optional may be absent."""
    found = {}
    for spec in (cohort.get("modalities") or {}).values():
        kind = {"bag": "bag", "volume": "scans", "radiomics": "scans"}.get(spec["kind"])
        file = spec.get("table", "slides.csv" if kind == "bag" else "scans.csv")
        optional = bool(spec.get("optional")) or spec["kind"] == "radiomics"
        if kind and (not optional or (Path(cohort["root"]) / file).is_file()):
            found[kind] = file
    return found
