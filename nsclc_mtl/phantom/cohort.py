"""A phantom cohort on disk: the files a research group would have, and the truth beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.features import store
from nsclc_mtl.metrics.classification import ordinal_auc
from nsclc_mtl.metrics.survival import c_index
from nsclc_mtl.phantom import evidence, truth
from nsclc_mtl.records import Features

VERSION = 2  # raised when the same settings would give other bytes
LEVELS = ("features", "images")
EXTRAS = {"redundant": evidence.redundant, "site_coded": evidence.site_coded}


def identity(level: str, n: int, seed: int, missing: str, site: str, extras: tuple[str, ...] = ()) -> dict[str, Any]:
    """What `phantom.json` says of a cohort; two cohorts of the same identity hold the same bytes."""
    return {
        "phantom": VERSION, "level": level, "n": n, "seed": seed, "missing": missing, "site": site,
        "extras": sorted(extras),
    }  # fmt: skip


def make(
    root: Path,
    *,
    level: str = "images",
    n: int = 48,
    seed: int = 0,
    missing: str = "mcar",
    site: str = "none",
    extras: tuple[str, ...] = (),
) -> Path:
    """Folder with the cohort's tables, slides, scans (level=images) or feature files (level=features), and `truth/`."""
    if level not in LEVELS:
        raise ValueError(f"cohort.level={level!r} is none of {', '.join(LEVELS)}")
    drawn = truth.draw(n, seed, missing, site)
    (root / "truth" / "tumour").mkdir(parents=True, exist_ok=True)
    _patients(root, drawn)
    _csv(evidence.rna(drawn, seed), root / "rna.csv")
    _csv(evidence.proteomics(drawn, seed), root / "proteomics.csv")
    for name in sorted(extras):
        _csv(EXTRAS[name](drawn, seed), root / f"{name}.csv")
    if level == "features":
        _csv(evidence.radiomics(drawn, seed), root / "radiomics.csv")
        _feature_slides(root, evidence.slides(drawn, seed))
    else:
        from nsclc_mtl.phantom import scans, slides

        slides.render(drawn, root, seed)
        scans.render(drawn, root, seed)
    _truth(root, drawn)
    # last: a folder without it is unfinished
    (root / "phantom.json").write_text(json.dumps(identity(level, n, seed, missing, site, extras), indent=1) + "\n")
    return root


def _patients(root: Path, drawn: truth.Truth) -> None:
    """`patients.csv`: covariates and outcomes in words, blank where the label is missing."""
    out, known = drawn.outcomes, drawn.known
    frame = drawn.patients[["patient_id", "site", "age", "sex", "smoking"]].copy()
    for task, names in (("grade", truth.GRADES), ("stage", truth.STAGES), ("response", truth.RESPONSES)):
        frame[task] = np.where(known[task], np.array(names, object)[out[task]], "")
    frame["os_days"] = np.where(known["survival"], out["os_days"].astype(str), "")
    frame["os_status"] = np.where(known["survival"], np.where(out["os_event"] == 1, "deceased", "alive"), "")
    _csv(frame, root / "patients.csv")


def _feature_slides(root: Path, slides: list[evidence.SlideFeatures]) -> None:
    from nsclc_mtl.phantom.slides import write_tumour

    rows = []
    for slide in slides:
        attrs = {
            "patch_size_level0": evidence.TILE_LEVEL0,
            "mpp": evidence.TILE_MPP,
            "backbone": "phantom",
            "config_hash": f"phantom-{VERSION}",
        }
        path = root / "features" / f"{slide.slide_id}.h5"
        store.write(path, Features(slide.features.astype(np.float16), slide.coords, attrs))
        write_tumour(root, slide.slide_id, squares(slide.coords[slide.tumour], evidence.TILE_LEVEL0))
        rows.append(
            {"slide_id": slide.slide_id, "patient_id": slide.patient_id, "path": path.relative_to(root).as_posix()}
        )
    _csv(pd.DataFrame(rows), root / "slides.csv")


def squares(coords: np.ndarray, size: int) -> list[list[list[int]]]:
    """Closed rings around the tiles at `coords` [tile, 2], level-0 pixels; neighbours in a row share one ring."""
    rings = []
    for y in np.unique(coords[:, 1]):
        x = np.sort(coords[coords[:, 1] == y, 0])
        for run in np.split(x, np.flatnonzero(np.diff(x) != size) + 1):
            left, right, low = int(run[0]), int(run[-1]) + size, int(y)
            rings.append([[left, low], [right, low], [right, low + size], [left, low + size], [left, low]])
    return rings


def _truth(root: Path, drawn: truth.Truth) -> None:
    """`truth/latents.csv` and `truth/oracle.json`: what nobody has in a clinic, and the best one could do with it."""
    frame = drawn.patients[["patient_id"]].copy()
    for i, name in enumerate(truth.LATENTS):
        frame[name] = np.round(drawn.latents[:, i], 6)
        frame[f"s_{name}"] = np.round(drawn.statistics[:, i], 6)
    frame["look"] = drawn.patients["look"]
    for column in drawn.outcomes:
        frame[column] = drawn.outcomes[column]
    for modality in ("radiomics", "rna"):
        frame[f"has_{modality}"] = drawn.has[modality].astype(int)
    _csv(frame, root / "truth" / "latents.csv")

    scores = truth.ceilings(drawn)
    known, out = drawn.known, drawn.outcomes
    value: dict[str, dict[str, float]] = {}
    for ceiling, tasks in scores.items():
        row = {
            task: float(ordinal_auc(out[task].to_numpy()[known[task]], tasks[task][known[task]]))
            for task in ("grade", "stage", "response")
        }
        seen = known["survival"]
        row["survival"] = float(
            c_index(tasks["survival"][seen], out["os_days"].to_numpy()[seen], out["os_event"].to_numpy()[seen])
        )
        value[ceiling] = {task: round(number, 6) for task, number in row.items()}
    ids = drawn.patients["patient_id"]
    listed = {
        c: {t: dict(zip(ids, np.round(s, 6).tolist(), strict=True)) for t, s in tasks.items()}
        for c, tasks in scores.items()
    }
    text = json.dumps({"metric": {"survival": "c_index", "*": "auc"}, "value": value, "scores": listed}, indent=0)
    (root / "truth" / "oracle.json").write_text(text + "\n")


def _csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, index=False, lineterminator="\n", float_format="%.6g")
