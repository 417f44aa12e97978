"""A board made by hand: five patients with a slide, a scan, four tasks and everything that a run can leave of them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.held_out import HeldOut, of_model
from nsclc_mtl.viewer.board import Board, Said, ScanFile, SlideFile
from tests.slides.conftest import picture, save

EVIL = '<img src=x onerror="document.title=1">'
PATIENTS = ["P0001", "P0002", "P/3 ü", EVIL, "P0005"]
HELD_OUT = HeldOut("auc", 0.435, 0.152, 0.703, 21, 12)
DAYS = (365, 730, 1095, 1825)
MODALITIES = ("wsi", "ct_volume", "rna", "clinical")
TASKS = {
    "grade": TaskSpec("grade", "ordinal", ("G1", "G2", "G3")),
    "response": TaskSpec("response", "binary", ("non-responder", "responder")),
    "subtype": TaskSpec("subtype", "multiclass", ("adeno", "squamous", "other")),
    "survival": TaskSpec("survival", "survival", endpoint="overall survival"),
}


def make(folder: Path, patients: int = len(PATIENTS), seed: int = 0, pictures: bool = True) -> Board:
    """The board; more patients than five are called Q0006, Q0007, ... and have no slides."""
    rng = np.random.default_rng(seed)
    ids = (PATIENTS + [f"Q{k:04d}" for k in range(len(PATIENTS) + 1, patients + 1)])[:patients]
    covariates = pd.DataFrame(
        {
            "site": rng.choice(["A", "B", "C"], len(ids)),
            "age": rng.integers(40, 85, len(ids)).astype(str),
            "sex": rng.choice(["female", "male"], len(ids)),
        },
        index=pd.Index(ids, name="patient_id"),
    )
    run = folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    model = said("first", ids, rng)
    board = Board("toy & co", dict(TASKS), list(MODALITIES), covariates, [model, said("second", ids, rng)])
    board.folder = lambda patient: run / "patients" / str(ids.index(patient))
    board.reviews = run / "reviews.jsonl"
    if pictures:
        board.slides = [
            slide(folder, 0, "P0001-S1", ids[0]),
            slide(folder, 1, "P0001-S2", ids[0]),
            slide(folder, 2, EVIL, ids[3]),
        ]
        board.scans = [scan(folder, "P0001-CT", ids[0])]
    return board


def said(name: str, ids: list[str], rng: np.random.Generator) -> Said:
    """What a model says of these patients, in the forms of the tables of a run."""
    rows, trust, shapley, audit = [], [], [], []
    missing = {patient: ["ct_volume"] if k % 2 else [] for k, patient in enumerate(ids)}
    for k, patient in enumerate(ids):
        for task in TASKS.values():
            known = bool(rng.random() < 0.8)
            truth = {"target": "", "event": None, "time_days": None}
            if task.kind == "survival":
                if known:
                    truth |= {"event": float(rng.integers(2)), "time_days": float(rng.integers(100, 2000))}
                curve = np.cumprod(rng.uniform(0.6, 0.98, len(DAYS)))
                values = {"risk": float(-np.log(curve[-1]))} | {
                    f"surv:{d}": float(s) for d, s in zip(DAYS, curve, strict=True)
                }
                told = {"predicted": "event" if curve[-1] < 0.5 else "event-free", "confidence": 0.7}
                told |= {"horizon_days": 1825, "lower_bound_days": 400, "set": ""}
            else:
                if known:
                    truth["target"] = str(rng.choice(task.classes))
                p = rng.dirichlet(np.ones(len(task.classes)))
                values = {f"p:{c}": float(v) for c, v in zip(task.classes, p, strict=True)}
                likely = task.classes[int(p.argmax())]
                told = {"predicted": likely, "confidence": float(p.max()), "set": likely}
            for output, value in values.items():
                rows.append({"patient_id": patient, "task": task.name, "fold": str(k % 2), "part": "test"}
                            | {"output": output, "value": value} | truth)  # fmt: skip
            for what, value in told.items():
                trust.append((patient, str(k % 2), task.name, what, str(value)))
            for modality in MODALITIES:
                value, base = float(rng.normal(0, 0.3)), 1.0
                shapley.append((patient, task.name, str(k % 2), "", modality, value, base, base + value))
                audit.append(
                    (patient, k % 2, 1.0 - value, modality not in missing[patient], "", task.name, modality, "drop", 0)
                )
            audit.append((patient, k % 2, 1.0, False, "", task.name, "", "", 0))
            audit.append((patient, k % 2, 0.25, True, "", task.name, "wsi+rna", "coalition", 0))
    patients = pd.DataFrame(
        {
            "modalities": [" ".join(m for m in MODALITIES if m not in missing[p]) for p in ids],
            "missing": [" ".join(missing[p]) for p in ids],
            "caution": ["; ".join(f"no {m}" for m in missing[p]) for p in ids],
        },
        index=pd.Index(ids, name="patient_id"),
    )
    predictions = pd.DataFrame(rows)
    columns = ["patient_id", "fold", "value", "touched", "output", "task", "modality", "mode", "repeat"]
    return Said(
        name,
        predictions,
        pd.DataFrame(trust, columns=["patient_id", "fold", "task", "what", "value"]),
        patients,
        pd.DataFrame(shapley, columns=["patient_id", "task", "fold", "output", "modality", "value", "base", "score"]),
        pd.DataFrame(audit, columns=columns),
        reference=predictions,
        cutoffs={"survival": {"0": {"median": 0.8}, "1": {"median": 0.8}}},
        of_model=lambda task, fold: of_model(None if task == "grade" else "", HELD_OUT),
        provenance=[("trained run", "toy"), ("program", "nsclc-mtl 0")],
    )


def slide(folder: Path, seed: int, slide_id: str, patient: str) -> SlideFile:
    """A pyramid of 1,280 x 1,024 px at 0.5 um/px with scores of its 20 tiles, in files of plain names."""
    path = save(folder / "slides" / f"slide{seed}.tif", picture(seed=seed))
    rng = np.random.default_rng(seed)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(5) * 256, np.arange(4) * 256))
    scores = pd.DataFrame({"x": x, "y": y, "size_level0": 256})
    for column in ("attention", *(f"influence:{task}" for task in TASKS)):
        scores[column] = rng.random(len(x))
        scores[f"{column}_percentile"] = scores[column].rank(pct=True) * 100
    table = path.with_name(f"slide{seed}-tiles.csv")
    scores.to_csv(table, index=False)
    contour = path.with_name(f"slide{seed}.geojson")
    contour.write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": '
        '{"type": "Polygon", "coordinates": [[[300, 200], [1000, 200], [1000, 800], [300, 800], [300, 200]]]}}]}'
    )
    return SlideFile(slide_id, patient, path, None, table, contour)


def scan(folder: Path, scan_id: str, patient: str) -> ScanFile:
    """A CT of 32 x 32 x 24 voxels with a bright ball, its mask and signed maps for two tasks."""
    z, y, x = np.mgrid[:24, :32, :32]
    ball = ((x - 20) ** 2 + (y - 12) ** 2 + (z - 10) ** 2 < 36).transpose(2, 1, 0)
    affine = np.diag([2.0, 2.0, 2.5, 1.0])
    (folder / "scans").mkdir(parents=True, exist_ok=True)

    def write(values: np.ndarray, name: str) -> Path:
        path = folder / "scans" / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(values, affine), path)
        return path

    image = write(np.where(ball, 60, -700).astype(np.int16), "image")
    mask = write(ball.astype(np.uint8), "mask")
    warm = np.where(ball, 1.0, 0.0).astype(np.float32)
    maps = {("gradcam", task): write(warm * sign, f"gradcam-{task}") for task, sign in (("grade", 1), ("survival", -1))}
    maps["occlusion", "grade"] = write(warm * 0.5, "occlusion-grade")
    return ScanFile(scan_id, patient, "CT", image, mask, maps)
