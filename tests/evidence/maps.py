"""Maps that `mtl predict explain.patients=all` wrote of the phantom: against tumour truth, and their deletion curves.

python tests/evidence/maps.py runs/predict/NAME data/truth/tumour out/features/texture-KEY

Per map the mean per-slide AUC for tiles whose middle lies in tumour, with its t interval over slides, beside the best
single feature; then the gap between each map and random tiles, mean over patients.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from features_level import inside, interval

from nsclc_mtl.features import store
from nsclc_mtl.metrics.classification import auc
from nsclc_mtl.report.sections.maps import gaps


def main(run: Path, truth: Path, features: Path) -> None:
    """Prints one line a map, the best single feature, and one line a gap."""
    found: dict[str, list[float]] = {}
    each: list[np.ndarray] = []
    for path in sorted(run.glob("patients/*/*-tiles.csv")):
        slide_id = path.name.removesuffix("-tiles.csv")
        tiles = pd.read_csv(path)
        middle = tiles[["x", "y"]].to_numpy() + tiles["size_level0"].to_numpy()[:, None] / 2
        tumour = inside(truth / f"{slide_id}.geojson", middle)
        if not 0 < tumour.sum() < len(tumour):
            continue
        for what in [c for c in tiles.columns[3:] if not c.endswith("_percentile")]:
            found.setdefault(what, []).append(float(auc(tumour, tiles[what].to_numpy())))
        values = store.read(features / f"{slide_id}.h5").features.astype(float)
        each.append(np.array([float(auc(tumour, column)) for column in values.T]))
    for what, values in found.items():
        mean, lo, hi = interval(values)
        print(f"tumour tiles, per-slide AUC: {what:<20} {mean:.3f} ({lo:.3f} to {hi:.3f}), {len(values)} slides")
    mean = np.mean(each, axis=0)
    best = np.maximum(mean, 1 - mean)
    print(f"tumour tiles, per-slide AUC: best single feature  {best.max():.3f} (feature {int(best.argmax())})")
    told = pd.read_csv(run / "explanations" / "deletion.csv", dtype={"patient_id": str})
    for row in gaps(told, 1000, 0).to_dict("records"):
        times = f", {row['times']:.2f} times random" if row["times"] == row["times"] else ""
        print(
            f"{row['task']:<9} tiles {row['mode']:<7} {row['map']:<22} gap {row['gap']:+.3f} "
            f"({row['lo']:+.3f} to {row['hi']:+.3f}){times}, {row['n']} patients"
        )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
