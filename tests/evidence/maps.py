"""Maps that `mtl predict explain.patients=all` wrote, against the phantom's tumour truth: mean per-slide AUC.

python tests/evidence/maps.py runs/predict/NAME data/truth/tumour out/features/texture-KEY
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from features_level import inside, interval

from nsclc_mtl.features import store
from nsclc_mtl.metrics.classification import auc


def main(run: Path, truth: Path, features: Path) -> None:
    """Prints one line a kind of map, with the best single feature beside it."""
    found: dict[str, list[float]] = {}
    each: list[np.ndarray] = []
    for table in sorted(run.glob("patients/*/*-attention.csv")):
        slide_id = table.name.removesuffix("-attention.csv")
        for path in sorted(table.parent.glob(f"{slide_id}-*.csv")):
            tiles = pd.read_csv(path)
            middle = tiles[["x", "y"]].to_numpy() + tiles["size_level0"].to_numpy()[:, None] / 2
            tumour = inside(truth / f"{slide_id}.geojson", middle)
            if 0 < tumour.sum() < len(tumour):
                what = path.stem.removeprefix(f"{slide_id}-")
                found.setdefault(what, []).append(float(auc(tumour, tiles.iloc[:, 3].to_numpy())))
                if what == "attention":
                    values = store.read(features / f"{slide_id}.h5").features.astype(float)
                    each.append(np.array([float(auc(tumour, column)) for column in values.T]))
    for what, values in found.items():
        mean, lo, hi = interval(values)
        print(f"{what:<24} {mean:.3f} ({lo:.3f} to {hi:.3f}), {len(values)} slides")
    mean = np.mean(each, axis=0)
    best = np.maximum(mean, 1 - mean)
    print(f"best single feature      {best.max():.3f} (feature {int(best.argmax())})")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
