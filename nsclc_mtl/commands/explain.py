"""Pictures of what a prediction rests on: maps over slides, strips of tiles, Grad-CAM and occlusion of the lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.outputs import patient_folder
from nsclc_mtl.records import Batch, Manifest

if TYPE_CHECKING:
    from nsclc_mtl.config import Run


SIGNED = {
    "Grad-CAM": "raises (red) or lowers (blue) the score, no unit",
    "occlusion": "lost when hidden: red raises, blue lowers the score",
}
"""What the colours of a scan's map say."""


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
    part: Mapping[str, str],
) -> None:
    """Writes `patients/<id>/` for these patients: per slide maps and tiles, per scan Grad-CAM and occlusion, by task;
    and `explanations/`: what holds for all of them.

    The model that explains a patient is the first member of the (first) fold that predicted it. `part` says of every
    patient whether that model knows him: test, external or train.
    """
    from nsclc_mtl.bags.datamodule import batches, loader, moved
    from nsclc_mtl.commands.slide_maps import Found

    found = Found({patient: (part[patient], by[patient]) for patient in ids})
    for patient in run.track(list(ids), "pictures"):
        members, data = models[by[patient]]
        (batch,) = batches(loader(manifest, [patient], data.fitted, data.cache))
        batch = moved(batch, members[0].device)
        tasks = list(options["tasks"] or members[0].tasks)
        of = Explained(members[0], batch, tasks, manifest, read, options, patient_folder(run.path, patient), run)
        for name in data.fitted.bags:
            if bool(batch.present[name][0]):
                found.add(of, name)
        for name in data.fitted.volumes:
            if bool(batch.present[name][0]):
                _scan(of, name)
    found.save(run.path / "explanations")
    if found.slides:
        run.say(f"slides explained: {found.slides}, {found.seconds / found.slides:.1f} s each from stored features")


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
        if of.options["pictures"]:
            gradcam.picture(
                cube, values, of.folder / f"{name}.png", f"{path.stem}: {method} on {task}",
                score_words(of.learner.tasks[task]), SIGNED[method],
            )  # fmt: skip
        own = crop.on_grid(values, cube.affine, grid)
        gradcam.write_nifti(own, grid[1], of.folder / f"{name}.nii.gz")


def score_words(task: Any) -> str:
    """What the score of a task is, in words; the tasks say it themselves in the first line of its description."""
    line = (task.score.__doc__ or "score").splitlines()[0].rstrip(".")
    told = line[:1].lower() + line[1:]
    classes = task.spec.classes
    if task.spec.kind == "binary":
        return f"{told} ({classes[1]})"
    if task.spec.kind == "ordinal":
        return f"{told} ({classes[0]} = 0 to {classes[-1]} = {len(classes) - 1})"
    return f"{told} (higher = worse)" if task.spec.kind == "survival" else told
