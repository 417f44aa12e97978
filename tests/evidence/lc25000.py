"""Real lung tiles: what colour, `texture` and `squeezenet` know of adenocarcinoma, squamous carcinoma and normal lung.

    python tests/evidence/lc25000.py --data ../shared/data

LC25000, 224 px; the images of a group are rotations of one photograph, so whole groups are held out: 60 % of them
train, 40 % test (stratified, seed 0). The penalty of the logistic head is chosen by cross-validation over training
groups, and so were the features of `texture`. Intervals bootstrap test groups. The last number has every group
tested once, in five folds, with that penalty: more groups, but among them those that the choices were made on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nsclc_mtl.features.backbones.squeezenet import Squeezenet
from nsclc_mtl.features.backbones.texture import Texture

PENALTIES = (0.001, 0.01, 0.1, 1.0)


def colour(tiles: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation of R, G, B: the floor."""
    flat = tiles.flatten(1, 2).double()
    return torch.cat([flat.mean(1), flat.std(1)], dim=1)


def main() -> None:
    """Print one line a way, and the differences from colour."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--draws", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.data / "tiles" / "lc25000_dev"
    listed = pd.read_csv(folder / "manifest.csv")
    tiles = torch.from_numpy(
        np.stack([np.asarray(Image.open(folder / row.cls / row.file).convert("RGB")) for row in listed.itertuples()])
    )
    group, told = np.unique(listed.cls + listed.group.astype(str), return_inverse=True)[1], listed.cls.to_numpy(object)
    folds = list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(told, told, group))
    test = np.sort(np.concatenate([held for _, held in folds[:2]]))
    train = np.setdiff1d(np.arange(len(told)), test)
    print(f"{len(train)} images in {len(set(group[train]))} groups train, {len(test)} in {len(set(group[test]))} test")
    ways = {
        "colour": colour, "texture": Texture(tile_px=tiles.shape[1]),
        "squeezenet": Squeezenet(str(options.data / "weights" / "sqz_notop.mat"), tile_px=tiles.shape[1]),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    groups, place = np.unique(group[test], return_inverse=True)
    weights = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=options.draws)[:, place]
    right: dict[str, np.ndarray] = {}
    for name, look in ways.items():
        began = time.process_time()
        seen = torch.cat([look(some) for some in tiles.split(25)]).double().numpy()
        rate = len(seen) / (time.process_time() - began)
        head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
        search = GridSearchCV(
            head, {"logisticregression__C": PENALTIES}, cv=StratifiedGroupKFold(5, shuffle=True, random_state=1)
        )
        search.fit(seen[train], told[train], groups=group[train])
        right[name] = (search.predict(seen[test]) == told[test]).astype(float)
        everywhere = cross_val_predict(search.best_estimator_, seen, told, cv=folds)
        low, high = np.percentile(weights @ right[name] / weights.sum(1), [2.5, 97.5])
        print(
            f"{name}: {seen.shape[1]} features, accuracy {right[name].mean():.3f} [{low:.3f}, {high:.3f}], "
            f"in cross-validation of the training groups {search.best_score_:.3f} ({search.best_params_}), "
            f"over all groups {(everywhere == told).mean():.3f}, "
            f"{rate:.0f} tiles a second of processor time",
            flush=True,
        )
    for name in ("texture", "squeezenet"):
        gain = right[name] - right["colour"]
        low, high = np.percentile(weights @ gain / weights.sum(1), [2.5, 97.5])
        print(f"{name} - colour: {gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    main()
