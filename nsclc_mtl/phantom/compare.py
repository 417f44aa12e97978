"""Whether two phantom folders hold the same cohort, judged by decoded content rather than by bytes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PIXEL_LEVELS = 2  # of 255, and HU: what another processor or codec may round differently
TABLE = 1e-9
FEATURE = 2e-3  # two steps of float16


def missing_files(root: Path) -> list[str]:
    """Files that the cohort's own tables name and that are absent or empty, as paths below the root."""
    wanted = ["patients.csv", "rna.csv", "proteomics.csv", "slides.csv", "truth/latents.csv", "truth/oracle.json"]
    for table, columns in (("slides.csv", ("path",)), ("scans.csv", ("image", "mask"))):
        if (root / table).is_file():
            frame = pd.read_csv(root / table, dtype=str, keep_default_na=False)
            wanted += [path for column in columns for path in frame[column]]
            if table == "slides.csv":
                wanted += [f"truth/tumour/{slide}.geojson" for slide in frame["slide_id"]]
    level = json.loads((root / "phantom.json").read_text())
    wanted += ["scans.csv"] if level["level"] == "images" else ["radiomics.csv"]
    wanted += [f"{name}.csv" for name in level["extras"]]
    return [path for path in wanted if not (root / path).is_file() or (root / path).stat().st_size == 0]


def differences(root: Path, fresh: Path) -> list[str]:
    """One sentence a file of `root` that differs from `fresh`; empty where they hold the same cohort."""
    ours, theirs = ({p.relative_to(r).as_posix() for p in r.rglob("*") if p.is_file()} for r in (root, fresh))
    told = [f"{path}: absent" for path in sorted(theirs - ours)]
    told += [f"{path}: does not belong to this cohort" for path in sorted(ours - theirs)]
    for path in sorted(ours & theirs):
        if (root / path).read_bytes() == (fresh / path).read_bytes():
            continue
        try:
            said = _compare(root / path, fresh / path)
        except Exception as error:  # any decoder may refuse a damaged file, each in its own way
            said = f"cannot be read ({type(error).__name__})"
        if said:
            told.append(f"{path}: {said}")
    return told


def _compare(one: Path, other: Path) -> str:
    """How two files differ in content, in words; empty where they do not."""
    if one.suffix == ".tiff":
        import tifffile

        with tifffile.TiffFile(one) as a, tifffile.TiffFile(other) as b:
            if [p.shape for p in a.pages] != [p.shape for p in b.pages]:
                return "another size"
            return _pixels(*(np.concatenate([p.asarray().ravel() for p in t.pages]) for t in (a, b)))
    if one.name.endswith(".nii.gz"):
        import nibabel

        x, y = nibabel.Nifti1Image.from_filename(one), nibabel.Nifti1Image.from_filename(other)
        if x.shape != y.shape or not np.allclose(x.affine, y.affine, atol=1e-6):
            return "another grid"
        return _pixels(np.asarray(x.dataobj), np.asarray(y.dataobj))
    if one.suffix == ".h5":
        from nsclc_mtl.features import store

        f, g = store.read(one), store.read(other)
        same = f.features.shape == g.features.shape and np.array_equal(f.coords, g.coords)
        near = same and np.allclose(f.features.astype(float), g.features.astype(float), rtol=FEATURE, atol=FEATURE)
        return "" if near else "other features"
    if one.suffix == ".csv":
        return _tables(one, other)
    return "" if _alike(json.loads(one.read_text()), json.loads(other.read_text())) else "other content"


def _pixels(a: np.ndarray, b: np.ndarray) -> str:
    most = int(np.abs(a.astype(np.int32) - b.astype(np.int32)).max(initial=0))
    return f"pixels differ by up to {most} levels" if most > PIXEL_LEVELS else ""


def _tables(one: Path, other: Path) -> str:
    a, b = (pd.read_csv(p, dtype=str, keep_default_na=False) for p in (one, other))
    if list(a.columns) != list(b.columns) or len(a) != len(b):
        return "other rows or columns"
    for column in a.columns:
        rows = np.flatnonzero((a[column] != b[column]).to_numpy())
        for row in rows:
            if not _alike(_number(a[column][row]), _number(b[column][row])):
                return f"column {column} differs in row {row + 2}"
    return ""


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _alike(a: Any, b: Any) -> bool:
    """Whether two values of JSON are the same, numbers to TABLE."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_alike(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=TABLE, abs_tol=TABLE)
    return bool(a == b)
