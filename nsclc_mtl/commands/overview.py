"""A page of all slides of a run, `slides.html`: what was cut out of each, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nsclc_mtl.records import Fault

if TYPE_CHECKING:
    from nsclc_mtl.commands.job import Job
    from nsclc_mtl.config import Run
    from nsclc_mtl.slides.montage import Shot

MOST_LOST = 0.5  # of what looked like tissue; beyond it a slide is to be looked at


def look_over(jobs: Sequence[Job], folder: Path, run: Run) -> None:
    """Warns of slides that lost more than half of their tissue, and writes `slides.html` into the run's folder."""
    from nsclc_mtl.slides import montage

    shots = [_shot(job.slide_id, folder, run) for job in jobs]
    known = {job.slide_id for job in jobs}
    for verdict, items in (("failed", run.failed), ("skipped", run.skipped)):
        left_out = [item for item in items if item["id"] not in known]
        shots += [
            montage.Shot(item["id"], verdict=verdict, reason=item["reason"], sentence=run.told(item["id"]))
            for item in left_out
        ]
    for shot in shots:
        if shot.verdict != "failed" and shot.lost > MOST_LOST:
            run.say(f"warning: slide '{shot.slide_id}': {shot.sentence}", style="yellow")
    montage.write(run.path / "slides.html", shots, f"Slides of {run.path.name}")
    run.say(f"contours of all slides: {run.path / 'slides.html'}")


def _shot(slide_id: str, folder: Path, run: Run) -> Shot:
    from nsclc_mtl.features import store
    from nsclc_mtl.slides.montage import WORDS, Shot

    shot = Shot(slide_id)
    for verdict, items in (("failed", run.failed), ("skipped", run.skipped)):
        if found := next((item for item in items if item["id"] == slide_id), None):
            shot.verdict, shot.reason, shot.sentence = verdict, found["reason"], run.told(slide_id)
    try:
        tiles = store.read_tiles(folder / f"{slide_id}.h5")
    except Fault:  # no tiles: the slide failed, and its sentence says why
        return shot
    shot.tiles = len(tiles)
    shot.picture = next((p for p in [folder / f"{slide_id}.jpg"] if p.is_file()), None)
    names = ("tissue", *WORDS)
    shot.fractions = {name: float(tiles.attrs.get(f"{name}_fraction", 0.0)) for name in names}
    shot.lost = float(tiles.attrs.get("lost_fraction", 0.0))
    if shot.lost > MOST_LOST:
        cut = [name for name in ("pen", "blur", "grey") if shot.fractions[name] > 0.01]
        told = ", ".join(f"{WORDS[name]} {100 * shot.fractions[name]:.0f} %" for name in cut)
        shot.sentence = f"{shot.sentence}; " if shot.sentence else ""
        shot.sentence += (
            f"{100 * shot.lost:.0f} % of what looked like tissue was cut out ({told}); look at its contours"
        )
    return shot
