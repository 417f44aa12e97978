"""Slides of the phantom as files: small pyramidal TIFFs that any slide viewer opens, and the table that lists them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile

from nsclc_mtl.phantom import section
from nsclc_mtl.phantom.evidence import STATISTIC_SD
from nsclc_mtl.phantom.truth import Truth

TILE_PX = 256
MIMIC_SD = 1.2  # of benign epithelium, in SD of the statistic
DOWNSAMPLE, LEVELS = 4, 3
JPEG_QUALITY = 82

Rings = list[list[list[int]]]


def render(drawn: Truth, root: Path, seed: int, processes: int | None = None) -> None:
    """Draw `slides/*.tiff`, `slides.csv` and the true tumour regions; the bytes do not depend on `processes`."""
    (root / "slides").mkdir(parents=True, exist_ok=True)
    (root / "truth" / "tumour").mkdir(parents=True, exist_ok=True)
    todo = plan(drawn, seed)
    rings = spread(_draw, [(item, str(root)) for item in todo], processes)
    for item, outline in zip(todo, rings, strict=True):
        write_tumour(root, item["slide_id"], outline)
    rows = [{"slide_id": i["slide_id"], "patient_id": i["patient_id"], "path": path_of(i)} for i in todo]
    pd.DataFrame(rows).to_csv(root / "slides.csv", index=False, lineterminator="\n")


def write_tumour(root: Path, slide_id: str, rings: Rings) -> None:
    """`truth/tumour/<slide_id>.geojson`: the true tumour regions as QuPath reads them, level-0 pixels."""
    feature = {
        "type": "Feature",
        "geometry": {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]},
        "properties": {"objectType": "annotation", "classification": {"name": "Tumor"}},
    }
    text = json.dumps({"type": "FeatureCollection", "features": [feature]}, separators=(",", ":"))
    (root / "truth" / "tumour" / f"{slide_id}.geojson").write_text(text + "\n")


def plan(drawn: Truth, seed: int) -> list[dict[str, Any]]:
    """What every slide needs to be drawn: its ids, seed, statistic, nuisance and look."""
    nuisance = np.random.Generator(np.random.PCG64([seed, 71])).standard_normal((2, len(drawn.patients)))
    items = []
    for i, patient in enumerate(drawn.patients["patient_id"]):
        for number in range(int(drawn.slides[i])):
            item = {
                "slide_id": f"{patient}-S{number + 1}", "patient_id": str(patient), "seed": [seed, 72, i, number],
                "z": float(drawn.statistics[i, 0] / STATISTIC_SD), "look": str(drawn.patients["look"].iloc[i]),
                "reactive": float(nuisance[0, i]), "mimic": float(MIMIC_SD * nuisance[1, i]),
            }  # fmt: skip
            items.append(item)
    return items


def path_of(item: dict[str, Any]) -> str:
    """Path of a slide below the cohort's root."""
    return f"slides/{item['slide_id']}.tiff"


def draw(item: dict[str, Any]) -> section.Section:
    """The section of one item of the plan."""
    rng = np.random.Generator(np.random.PCG64(item["seed"]))
    return section.draw(rng, item["z"], item["reactive"], item["mimic"], item["look"])


def _draw(item: dict[str, Any], root: str) -> Rings:
    drawn = draw(item)
    write_pyramid(Path(root) / path_of(item), drawn.image)
    return drawn.rings


def write_pyramid(path: Path, image: np.ndarray, mpp: float = section.MPP) -> None:
    """Tiled JPEG pyramid of an image uint8 [h, w, 3], sides a multiple of 16; OpenSlide reads it as generic-tiff."""
    with tifffile.TiffWriter(path, bigtiff=False) as tiff:
        for level in range(LEVELS):
            if level:
                image = shrink(image)
            per_cm = 1e4 / (mpp * DOWNSAMPLE**level)
            tiff.write(
                image, photometric="rgb", compression="jpeg", compressionargs={"level": JPEG_QUALITY},
                tile=(TILE_PX, TILE_PX), subfiletype=1 if level else 0,
                resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", metadata=None, software="mtl",
            )  # fmt: skip


def shrink(image: np.ndarray) -> np.ndarray:
    """The next level: means of DOWNSAMPLE x DOWNSAMPLE pixels, rounded, uint8 [h / 4, w / 4, 3]."""
    h, w, _ = image.shape
    blocks = image.reshape(h // DOWNSAMPLE, DOWNSAMPLE, w // DOWNSAMPLE, DOWNSAMPLE, 3)
    area = DOWNSAMPLE * DOWNSAMPLE
    return ((blocks.sum(axis=(1, 3), dtype=np.uint16) + area // 2) // area).astype(np.uint8)


def spread(work: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], processes: int | None = None) -> list[Any]:
    """Results of `work(*job)` in the order of the jobs, over some processes (None: as many as cores, at most 4)."""
    jobs = list(jobs)
    n = min(processes or min(os.cpu_count() or 1, 4), max(1, len(jobs) // 4))
    if n == 1:
        return [work(*job) for job in jobs]
    # spawned, not forked: the parent may hold threads of its numerical libraries
    with ProcessPoolExecutor(n, mp_context=get_context("spawn")) as pool:
        return list(pool.map(work, *zip(*jobs, strict=True)))
