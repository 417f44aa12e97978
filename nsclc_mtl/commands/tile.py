"""`mtl tile DIR`: tissue and tile coordinates of every slide of a folder or of the cohort."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import slides
from nsclc_mtl.records import UsageFault

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run


def body(cfg: DictConfig, run: Run) -> None:
    """Tiles, contours and a picture a slide under `out/tiles/<tiling>/`."""
    from nsclc_mtl.config import plain
    from nsclc_mtl.features.store import tiling_key

    settings = plain(cfg)
    jobs = jobs_of(settings, run)
    out = Path(settings["paths"]["out"])
    work = functools.partial(slides.tile, slides=settings["slides"], out=out)
    slides.work_through(jobs, work, int(settings["slides"]["workers"]), run, "slides")
    run.say(f"tiles: {out / 'tiles' / tiling_key(settings['slides'])}")


def jobs_of(settings: dict[str, Any], run: Run) -> list[slides.Job]:
    """The slides that a run is about: those below `slides.dir`, else those that the cohort lists."""
    given = settings["slides"]
    if given.get("dir"):
        return slides.in_folder(Path(given["dir"]), given.get("mpp"), run)
    cohort = rooted(settings)
    if not any(spec["kind"] == "bag" for spec in (cohort.get("modalities") or {}).values()):
        raise UsageFault(f"cohort={cohort.get('name')} declares no slides; name their folder: mtl tile DIR")
    return slides.of_cohort(cohort, given.get("mpp"), run)


def rooted(settings: dict[str, Any]) -> dict[str, Any]:
    """The cohort's settings with the folder of its tables filled in."""
    from nsclc_mtl.commands.cohort import phantom_root

    cohort = dict(settings["cohort"])
    if "level" in cohort:
        cohort["root"] = str(phantom_root(cohort, settings["paths"]))
    if not cohort.get("root"):
        raise UsageFault(f"cohort={cohort.get('name')} needs the folder of its tables: set cohort.root=PATH")
    return cohort
