"""Radiomics a minute against the library's own sequential call on the same cases: `make bench-scans`.

The cases are real CT (or `--modality PET`, `MR_T1`) of the soft-tissue sarcoma patients below MTL_REAL_DATA, with the
filters and classes of `conf/scans/ct_lung_full.yaml` (original, LoG, wavelet; all). The plain way: one extractor,
`execute` case by case, with the library's defaults. Ours: the job of `mtl extract`, from files to the table, the start
of its processes included. The two ways alternate and the best round of each counts, so that other work on the machine
weighs on both alike; every value is compared. Memory is the peak of a process of its own that measures one large scan
(`--voxels`), what imports take left out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the processes of the pool import this file again, as they do `mtl`
    import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
PRESETS = {"CT": "ct_lung_full", "PET": "pet_suv", "MR_T1": "mri_t1"}
KINDS = {"CT": "CT", "PET": "PT", "MR_T1": "MR"}


class Quiet:
    """A run that keeps what it was told."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.skipped: list[dict[str, str]] = []
        self.failed: list[dict[str, str]] = []

    def say(self, text: str) -> None:
        """Nothing."""

    def track(self, items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        """The items."""
        yield from items


def settings(modality: str) -> dict[str, Any]:
    """The preset's radiomics, widened to all filters and classes."""
    import yaml

    from nsclc_mtl.config import compose, plain

    made = plain(compose("extract", [f"scans={PRESETS[modality]}", "cohort.level=features"]))["scans"]["radiomics"]
    full = yaml.safe_load((ROOT / "conf" / "scans" / "ct_lung_full.yaml").read_text())["radiomics"]
    return {
        "setting": made["setting"],
        "imageType": full["imageType"],
        "featureClass": {**made["featureClass"], **full["featureClass"]},
    }


def library(cases: list[tuple[Path, Path]], params: dict[str, Any]) -> list[dict[str, float]]:
    """The plain way: case by case."""
    import radiomics
    from radiomics import featureextractor

    radiomics.setVerbosity(60)
    extractor = featureextractor.RadiomicsFeatureExtractor(params)
    found = []
    for image, mask in cases:
        told = extractor.execute(str(image), str(mask))
        found.append({name: float(value) for name, value in told.items() if not name.startswith("diagnostics")})
    return found


def ours(cases: list[tuple[Path, Path]], params: dict[str, Any], kind: str, workers: int, out: Path) -> pd.DataFrame:
    """Our way: the job over files, to the table."""
    import pandas as pd

    from nsclc_mtl.scans import job, radiomics

    rows = [
        {"scan_id": f"s{i}", "patient_id": f"P{i:03d}", "modality": kind, "image": str(image), "mask": str(mask)}
        for i, (image, mask) in enumerate(cases)
    ]
    cfg = {"modality": kind, "radiomics": params, "workers": workers}
    job.extract_scans(Path("/"), pd.DataFrame(rows), cfg, out, notes := Quiet())
    if notes.failed:
        raise SystemExit(f"failed: {notes.failed}")
    return pd.read_parquet(radiomics.radiomics_table(out, cfg))


def furthest(theirs: list[dict[str, float]], table: pd.DataFrame) -> float:
    """The largest relative difference between the two ways."""
    worst = 0.0
    for plain, (_, row) in zip(theirs, table.iterrows(), strict=True):
        if list(plain) != list(row.index):
            raise SystemExit("the two ways have other features")
        for name, value in plain.items():
            same = row[name] == value or (math.isnan(value) and math.isnan(row[name]))
            worst = worst if same else max(worst, abs(row[name] - value) / max(abs(value), 1e-12))
    return worst


def processor() -> float:
    """Seconds of processor time of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def large(folder: Path, voxels: int) -> tuple[Path, Path]:
    """A CT of `voxels` x `voxels` x `voxels` / 4 with a lesion of 3 cm: image and mask as NIfTI, int16."""
    import numpy as np
    import SimpleITK as sitk

    rng = np.random.Generator(np.random.PCG64(0))
    shape = (voxels // 4, voxels, voxels)
    array = rng.integers(-900, 100, shape, np.int16)
    z, y, x = np.ogrid[[slice(0, n) for n in shape]]
    away = ((z - shape[0] / 2) * 2.5) ** 2 + ((y - voxels / 2) * 0.8) ** 2 + ((x - voxels / 3) * 0.8) ** 2
    paths = folder / "image.nii.gz", folder / "mask.nii.gz"
    for path, values in zip(paths, (array, (away < 15**2).astype(np.uint8)), strict=True):
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((0.8, 0.8, 2.5))
        sitk.WriteImage(image, str(path))
    return paths


def alone(way: str, folder: Path, params: dict[str, Any]) -> tuple[float, float]:
    """Seconds and peak MiB of one large scan in a process of its own, imports apart."""
    (folder / "params.json").write_text(json.dumps(params))
    words = [sys.executable, __file__, "--alone", way, "--folder", str(folder)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), float(peak)


def _alone(way: str, folder: Path) -> None:
    import radiomics.featureextractor  # noqa: F401

    from nsclc_mtl.scans import job  # noqa: F401

    params = json.loads((folder / "params.json").read_text())
    cases = [(folder / "image.nii.gz", folder / "mask.nii.gz")]
    before, start = _peak_mib(), time.perf_counter()
    if way == "library":
        library(cases, params)
    else:
        ours(cases, params, "CT", 1, folder / "out")
    seconds = time.perf_counter() - start
    print(seconds, _peak_mib() - before)


def _peak_mib() -> float:
    # not ru_maxrss, which a process inherits from the one that started it
    told = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
    return int(told[0]) / 1024


def main() -> None:
    """Prints the two ways side by side and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modality", choices=list(KINDS), default="CT")
    parser.add_argument("--cases", type=int, default=11, help="how many patients")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--voxels", type=int, default=384, help="edge of the large scan; 0 leaves memory out")
    parser.add_argument("--alone", choices=["library", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        _alone(options.alone, options.folder)
        return
    data = Path(os.environ.get("MTL_REAL_DATA", "../shared/data")) / "radiology" / "sts_pet_mr_ct"
    found = sorted(data.glob(f"STS_*/{options.modality}_image.nii.gz"))[: options.cases]
    cases = [(image, image.with_name(f"{options.modality}_mask.nii.gz")) for image in found]
    if not cases:
        raise SystemExit("no real data: set MTL_REAL_DATA to the folder that holds radiology/sts_pet_mr_ct")
    params = settings(options.modality)
    import radiomics.featureextractor  # noqa: F401  not timed in either way
    from rich.console import Console
    from rich.table import Table

    from nsclc_mtl.scans import job  # noqa: F401

    times: dict[str, tuple[float, float]] = {}

    def clock(way: str, start: float, used: float) -> None:
        now = time.perf_counter() - start, processor() - used
        times[way] = min(times.get(way, now), now)

    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            start, used = time.perf_counter(), processor()
            theirs = library(cases, params)
            clock("library, sequential", start, used)
            start, used = time.perf_counter(), processor()
            table = ours(cases, params, KINDS[options.modality], options.workers, Path(folder) / str(number))
            clock(f"mtl extract, {options.workers} processes", start, used)
        console = Console(width=110)
        shown = Table(title=f"{len(cases)} cases of {options.modality}, {table.shape[1]} features each")
        for column in ("way", "seconds", "cases a minute", "processor seconds"):
            shown.add_column(column, justify="left" if column == "way" else "right")
        for way, (seconds, cpu) in times.items():
            shown.add_row(way, f"{seconds:.1f}", f"{60 * len(cases) / seconds:.1f}", f"{cpu:.1f}")
        console.print(shown)
        (plain, plain_cpu), (mine, mine_cpu) = times.values()
        console.print(f"throughput {plain / mine:.2f} x; processor time {mine_cpu / plain_cpu:.2f} x")
        console.print(f"largest relative difference of {table.size} values: {furthest(theirs, table):.1e}")
        if options.voxels:
            image = large(Path(folder), options.voxels)[0]
            size = options.voxels**3 / 4 / 2**20
            console.print(
                f"one scan of {size:.0f} Mi voxels ({image.stat().st_size / 2**20:.0f} MiB on disk), one process:"
            )
            for way in ("library", "ours"):
                seconds, peak = alone(way, Path(folder), params)
                console.print(f"  {way:8s} {seconds:6.1f} s, peak {peak:6.0f} MiB, {peak / size:.1f} bytes a voxel")


if __name__ == "__main__":
    main()
