"""Pictures of what a prediction rests on: maps over slides, strips of tiles, Grad-CAM and occlusion of the lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nsclc_mtl.records import Batch, Fault, Manifest

if TYPE_CHECKING:
    from nsclc_mtl.config import Run


@dataclass(frozen=True)
class Explained:
    """One patient whose prediction is explained: the model, what it saw, and where the pictures go."""

    learner: Any
    batch: Batch  # of this patient alone
    tasks: Sequence[str]
    manifest: Manifest
    read: Mapping[str, Any]  # the configuration that the cohort was read by
    options: Mapping[str, Any]  # which pictures, and how fine
    folder: Path
    run: Run


def pictures(
    ids: Sequence[str],
    models: Mapping[int, Any],
    by: Mapping[str, int],
    manifest: Manifest,
    read: Mapping[str, Any],
    options: Mapping[str, Any],
    run: Run,
) -> None:
    """Writes `patients/<id>/` for these patients: per slide maps and tiles, per scan Grad-CAM and occlusion, by task.

    The model that explains a patient is the first member of the (first) fold that predicted it.
    """
    from nsclc_mtl.bags.datamodule import batches, loader, moved

    for patient in run.track(list(ids), "pictures"):
        members, data = models[by[patient]]
        (batch,) = batches(loader(manifest, [patient], data.fitted, data.cache))
        batch = moved(batch, members[0].device)
        tasks = list(options["tasks"] or members[0].tasks)
        of = Explained(members[0], batch, tasks, manifest, read, options, run.path / "patients" / patient, run)
        for name in data.fitted.bags:
            if bool(batch.present[name][0]):
                _slides(of, name)
        for name in data.fitted.volumes:
            if bool(batch.present[name][0]):
                _scan(of, name)


def _slides(of: Explained, modality: str) -> None:
    """Attention and influence of every slide of the patient, as picture, QuPath GeoJSON and CSV."""
    from nsclc_mtl.explain import attention, influence
    from nsclc_mtl.features import store

    looked, moved = influence.tiles(of.learner, of.batch, modality)
    maps = {"attention": looked, **{f"influence-{task}": moved[task] for task in of.tasks}}
    begin = 0
    for path in of.manifest.bags[modality][of.batch.patients[0]]:
        slide = store.read(Path(path))
        rows = slice(begin, begin + len(slide))
        begin += len(slide)
        slide_id = Path(path).stem
        size = int(slide.attrs.get("patch_size_level0") or 0)
        if slide.attrs.get("coords_unit") != "level0_px" or not size:
            of.run.say(f"{slide_id}: no maps, its coordinates are not level-0 pixels with a tile size")
            continue
        for what, scores in maps.items():
            attention.table(of.folder / f"{slide_id}-{what}.csv", slide.coords, scores[rows], size, what)
            attention.qupath(of.folder / f"{slide_id}-{what}.geojson", slide.coords, scores[rows], size, what)
        if of.options["pictures"]:
            _draw(of, slide_id, slide.coords, {what: scores[rows] for what, scores in maps.items()}, size)


def _draw(of: Explained, slide_id: str, coords: np.ndarray, maps: Mapping[str, np.ndarray], size: int) -> None:
    """Maps over the slide itself, where the slide is at hand; features alone give tables and GeoJSON only."""
    from nsclc_mtl.commands.cohort import cohort_root
    from nsclc_mtl.explain import attention
    from nsclc_mtl.slides.reader import open_slide

    if of.manifest.slides is None or slide_id not in of.manifest.slides.index:
        return  # spots: a section has no picture of its own here
    row = of.manifest.slides.loc[slide_id]
    path = cohort_root(of.read) / row["path"]
    if path.suffix in {".h5", ".hdf5", ".npz", ".pt", ".pth"}:
        return
    mpp = float(str(row["mpp"])) if row.get("mpp") else None
    try:
        with open_slide(path, mpp) as slide:
            # a small section is drawn finer, so that its picture is not a mosaic of single pixels
            finest = max(slide.dimensions) * slide.mpp / 900
            thumbnail = slide.thumbnail(min(float(of.options["um_per_px"]), max(finest, slide.mpp)))
            shrink = slide.dimensions[0] / thumbnail.shape[1]
            for what, scores in maps.items():
                attention.heatmap(
                    thumbnail, coords, scores, size, shrink, of.folder / f"{slide_id}-{what}.png",
                    title=f"{slide_id}: {what.replace('-', ' on ')}", what=what.split("-")[0],
                    um_per_px=shrink * slide.mpp,
                )  # fmt: skip
            first = next(iter(maps))
            for what in [w for w in maps if w != first] or [first]:
                strip = of.folder / f"{slide_id}-{what}-tiles.png"
                best = of.options["tiles"]
                attention.top_tiles(slide, coords, maps[what], size, strip, k=best, what=what.split("-")[0])
    except Fault as fault:
        of.run.say(f"{slide_id}: no pictures, {fault}")


def _scan(of: Explained, modality: str) -> None:
    """Grad-CAM and occlusion of the scan's encoder by task, signed: a picture and a NIfTI file in the scan's space."""
    from nsclc_mtl.explain import gradcam, influence
    from nsclc_mtl.scans import crop

    path = Path(of.manifest.volumes[modality][of.batch.patients[0]])
    cube, grid = crop.load(path), crop.scan_grid(path)
    encoder, seen = of.learner.encoders[modality], of.batch.inputs[modality][:1]
    scores = {task: influence.score_of(of.learner, of.batch, modality, task) for task in of.tasks}
    maps = {(task, "Grad-CAM"): gradcam.grad_cam(encoder, seen, score) for task, score in scores.items()}
    if windows := int(of.options["occlusion"]):
        hidden = gradcam.occlusion(encoder, seen, scores, windows)
        maps |= {(task, "occlusion"): values for task, values in hidden.items()}
    for (task, method), values in maps.items():
        name = f"{path.stem}-{method.replace('-', '').lower()}-{task}"
        # the tasks say themselves what their score is: the first line of its description
        told = (of.learner.tasks[task].score.__doc__ or "score").splitlines()[0].rstrip(".")
        if of.options["pictures"]:
            gradcam.picture(cube, values, of.folder / f"{name}.png", f"{path.stem}: {method} on {task}", told)
        own = crop.on_grid(values, cube.affine, grid)
        gradcam.write_nifti(own, grid[1], of.folder / f"{name}.nii.gz")
