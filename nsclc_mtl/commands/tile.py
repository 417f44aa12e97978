"""`mtl tile DIR`: tissue and tile coordinates of every slide of a folder or of the cohort."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import finding, slides
from nsclc_mtl.commands.job import Job
from nsclc_mtl.records import UsageFault

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run


def body(cfg: DictConfig, run: Run) -> None:
    """Tiles, contours and a picture a slide under `out/tiles/<tiling>/`."""
    from nsclc_mtl.commands import engine, overview, plan
    from nsclc_mtl.config import plain
    from nsclc_mtl.features.keys import tiling_key

    settings = plain(cfg)
    slides.segmenter_of(settings["slides"])  # weights that are absent or strange end the run before any slide
    jobs = jobs_of(settings, run)
    given, out = settings["slides"], Path(settings["paths"]["out"])
    folder = out / "tiles" / tiling_key(given)
    work = functools.partial(slides.tile, slides=given, out=out)
    state = functools.partial(plan.to_tile, slides=given, out=out)
    engine.work_on(jobs, work, state, settings, run, [folder])
    overview.look_over(jobs, folder, run)
    run.say(f"tiles: {folder}")


def dry_run(cfg: DictConfig) -> int:
    """Prints which slides would be tiled, kept or refused, and writes nothing; the exit code to expect."""
    from nsclc_mtl.commands import plan
    from nsclc_mtl.config import plain

    settings = plain(cfg)
    listed = plan.Listing("tiles")
    state = functools.partial(plan.to_tile, slides=settings["slides"], out=Path(settings["paths"]["out"]))
    return listed.slides(jobs_of(settings, listed), state, settings["slides"])


def jobs_of(settings: dict[str, Any], account: finding.Account, with_features: bool = False) -> Sequence[Job]:
    """The slides that a run is about: those below `slides.dir`, else those that the cohort lists; a share of them.

    `with_features`: also those of which the cohort names a feature file instead. What is wrong with the list itself is
    told by the first of several shares.
    """
    from nsclc_mtl.commands import shards

    return shards.share(settings, account, lambda told: _listed(settings, told, with_features))


def _listed(settings: dict[str, Any], account: finding.Account, with_features: bool) -> list[Job]:
    given = settings["slides"]
    if given.get("dir"):
        return finding.in_folder(Path(given["dir"]), given.get("mpp"), account)
    cohort = rooted(settings)
    if not any(spec["kind"] == "bag" for spec in (cohort.get("modalities") or {}).values()):
        raise UsageFault(f"cohort={cohort.get('name')} declares no slides; name their folder: mtl tile DIR")
    return finding.of_cohort(cohort, given.get("mpp"), account, with_features)


def rooted(settings: dict[str, Any]) -> dict[str, Any]:
    """The cohort's settings with the folder of its tables filled in."""
    from nsclc_mtl.commands.cohort import phantom_root

    cohort = dict(settings["cohort"])
    if "level" in cohort:
        cohort["root"] = str(phantom_root(cohort, settings["paths"]))
    if not cohort.get("root"):
        raise UsageFault(f"cohort={cohort.get('name')} needs the folder of its tables: set cohort.root=PATH")
    return cohort
