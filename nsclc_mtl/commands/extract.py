"""`mtl extract`: what the backbone sees in the tiles of every slide, and radiomics and crops of every scan."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import slide_features, slides
from nsclc_mtl.commands.device import available
from nsclc_mtl.commands.tile import jobs_of, rooted
from nsclc_mtl.records import UsageFault

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run


def body(cfg: DictConfig, run: Run) -> None:
    """Features under `out/features/<backbone>-<key8>/`, slide vectors under `out/slides/`, scans under `out/scans/`."""
    from nsclc_mtl.commands import engine, overview, plan, shards, slide_vectors
    from nsclc_mtl.config import plain
    from nsclc_mtl.features import export
    from nsclc_mtl.features.backbones import feature_key, hub
    from nsclc_mtl.features.keys import tiling_key
    from nsclc_mtl.features.slide_encoders import slide_key

    settings = plain(cfg)
    part, elsewhere = shards.of(settings) is not None, settings["engine"]["name"] == "ray"  # then the device is theirs
    if not elsewhere:
        available(settings["device"])
    if settings["scans"].get("batch"):  # PyRadiomics' own table: no cohort is needed
        from nsclc_mtl.scans.batch import extract_batch

        if settings["engine"]["name"] != "local":
            raise UsageFault("scans.batch writes one table of all cases: leave out engine=, it runs on this machine")
        extract_batch(Path(settings["scans"]["batch"]), settings["scans"], Path(settings["paths"]["out"]), run)
        return
    given, stain, out = settings["slides"], settings["stain"], Path(settings["paths"]["out"])
    backbone = settings["backbone"] | {"device": settings["device"]}
    from_folder = bool(given.get("dir"))
    kinds = {} if from_folder else _tables(rooted(settings))
    if settings["extract"]["slides"] and (from_folder or "bag" in kinds):
        also = export.check(settings["extract"].get("also") or [])
        backbone = hub.pinned(backbone)  # one file for all processes, whatever the hub does meanwhile
        tried = backbone | {"device": "cpu"} if elsewhere else backbone
        key = feature_key(given, backbone, stain)
        slides.segmenter_of(given)
        if "weights" in backbone:  # weights that are absent, damaged or strange end the run before any tile
            slide_features.load(tried, float(given["tile_um"]))
        encoder = settings["slide_encoder"] if settings["slide_encoder"].get("name") else {}
        options = {"slides": given, "backbone": backbone, "out": out, "stain": stain, "also": also}
        work = functools.partial(slide_features.extract, **options)
        state = functools.partial(plan.to_extract, **options)
        folders = [out / "tiles" / tiling_key(given), out / "features" / key]
        jobs = jobs_of(settings, run, with_features=bool(encoder))
        if encoder:
            slide_vectors.ready(encoder, tried, given, jobs)
            folders.append(out / "slides" / slide_key(key, encoder))
            work = functools.partial(slide_vectors.extract, encoder=encoder, **options)
        engine.work_on(jobs, work, state, settings, run, folders)
        overview.look_over([job for job in jobs if not job.features], folders[0], run)
        run.say(f"features: {out / 'features' / key}")
        if encoder:
            run.say(f"slide vectors: {folders[-1]}")
        if encoder and not from_folder and part:
            run.say(shards.LATER)
        elif encoder and not from_folder:
            slide_vectors.write_patients(rooted(settings), run.done, folders[-1], run)
    if settings["extract"]["scans"] and "scans" in kinds:
        from nsclc_mtl.commands import scans

        scans.extract(settings, Path(rooted(settings)["root"]), kinds["scans"], run)


def dry_run(cfg: DictConfig) -> int:
    """Prints which slides would be extracted, kept or refused, and writes nothing; the exit code to expect."""
    from nsclc_mtl.commands import plan
    from nsclc_mtl.config import plain
    from nsclc_mtl.features import export
    from nsclc_mtl.features.backbones import hub

    settings = plain(cfg)
    if settings["scans"].get("batch"):
        from nsclc_mtl.scans import batch

        return batch.listed(Path(settings["scans"]["batch"]), settings["scans"], Path(settings["paths"]["out"]))
    given = settings["slides"]
    listed = plan.Listing("features")
    if not settings["extract"]["slides"] or not (given.get("dir") or "bag" in _tables(rooted(settings))):
        return listed.slides([], lambda job: "", given)
    also = export.check(settings["extract"].get("also") or [])
    encoder = settings["slide_encoder"] if settings["slide_encoder"].get("name") else {}
    options = {
        "slides": given,
        "backbone": hub.pinned(settings["backbone"], fetch=False),
        "out": Path(settings["paths"]["out"]),
        "stain": settings["stain"],
        "also": also,
    }
    state = functools.partial(plan.to_extract, **options)
    if encoder:
        state = functools.partial(plan.to_encode, encoder=encoder, **options)
    return listed.slides(jobs_of(settings, listed, with_features=bool(encoder)), state, given)


def _tables(cohort: dict[str, Any]) -> dict[str, str]:
    """Which tables of images the cohort has: `bag` and `scans`, by file; those declared optional may be absent."""
    found = {}
    for spec in (cohort.get("modalities") or {}).values():
        kind = {"bag": "bag", "volume": "scans", "radiomics": "scans", "deep": "scans"}.get(spec["kind"])
        file = spec.get("table", "slides.csv" if kind == "bag" else "scans.csv")
        optional = bool(spec.get("optional")) or spec["kind"] == "radiomics"
        described = kind == "scans" and cohort.get("scans")  # a tree of files instead of a table
        if kind and (not optional or described or (Path(cohort["root"]) / file).is_file()):
            found[kind] = file
    return found
