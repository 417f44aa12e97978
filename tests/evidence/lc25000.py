"""Real lung tiles: what colour, `texture` and `squeezenet` know of adenocarcinoma, squamous carcinoma and normal lung.

    python tests/evidence/lc25000.py --data ../shared/data      # six minutes of processor time

LC25000, 224 px; the images of a group are rotations of one photograph, so whole groups are held out, as test and
inside as validation. Every image is told once a repeat by a logistic head whose penalty was chosen inside the training
groups (nested cross-validation, 5 folds in 5). Accuracy is the mean over the repeats; intervals bootstrap the groups,
and differences are paired. A single split of 60 to 40 has an interval as wide as the differences, so its accuracy is
printed for the record only. The filters of `texture` were chosen earlier by looking at 60 % of these groups.
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
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nsclc_mtl.features.backbones.squeezenet import Squeezenet
from nsclc_mtl.features.backbones.texture import Texture

PENALTIES = (0.003, 0.01, 0.03, 0.1, 1.0, 10.0)  # inverse strength; colour wants the weak ones


def colour(tiles: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation of R, G, B: the floor."""
    flat = tiles.flatten(1, 2).double()
    return torch.cat([flat.mean(1), flat.std(1)], dim=1)


def head(inner: int) -> GridSearchCV:
    """A logistic head that chooses its penalty on whole groups of what it is fitted on."""
    plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
    folds = StratifiedGroupKFold(inner, shuffle=True, random_state=1)
    return GridSearchCV(plain, {"logisticregression__C": PENALTIES}, cv=folds, refit=True)


def told_right(
    seen: np.ndarray, truth: np.ndarray, group: np.ndarray, repeats: int, inner: int
) -> tuple[np.ndarray, list[float]]:
    """Share of repeats in which each image is told right while its group is held out, and the penalties chosen."""
    right, chosen = np.zeros(len(truth)), []
    for repeat in range(repeats):
        for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=repeat).split(truth, truth, group):
            found = head(inner).fit(seen[train], truth[train], groups=group[train])
            right[test] += (found.predict(seen[test]) == truth[test]) / repeats
            chosen.append(found.best_params_["logisticregression__C"])
    return right, chosen


def main() -> None:
    """Print one line a way, and the paired differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--inner", type=int, default=5, help="folds in which the penalty is chosen")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.data / "tiles" / "lc25000_dev"
    listed = pd.read_csv(folder / "manifest.csv")
    tiles = torch.from_numpy(
        np.stack([np.asarray(Image.open(folder / row.cls / row.file).convert("RGB")) for row in listed.itertuples()])
    )
    truth = listed.cls.to_numpy(object)
    group = np.unique(listed.cls + listed.group.astype(str), return_inverse=True)[1]
    groups = int(group.max()) + 1
    print(f"{len(truth)} images in {groups} groups, {options.repeats} times 5 folds")
    ways = {
        "colour": colour, "texture": Texture(tile_px=tiles.shape[1]),
        "squeezenet": Squeezenet(str(options.data / "weights" / "sqz_notop.mat"), tile_px=tiles.shape[1]),
    }  # fmt: skip
    drawn = np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), size=options.draws)
    weights = drawn[:, group]

    def interval(values: np.ndarray) -> str:
        low, high = np.percentile(weights @ values / weights.sum(1), [2.5, 97.5])
        return f"[{low:+.3f}, {high:+.3f}]" if values.min() < 0 else f"[{low:.3f}, {high:.3f}]"

    folds = list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(truth, truth, group))
    test = np.sort(np.concatenate([held for _, held in folds[:2]]))
    train = np.setdiff1d(np.arange(len(truth)), test)
    right: dict[str, np.ndarray] = {}
    for name, look in ways.items():
        began = time.process_time()
        seen = torch.cat([look(some) for some in tiles.split(25)]).double().numpy()
        rate = len(seen) / (time.process_time() - began)
        right[name], chosen = told_right(seen, truth, group, options.repeats, options.inner)
        once = head(options.inner).fit(seen[train], truth[train], groups=group[train]).score(seen[test], truth[test])
        print(
            f"{name}: {seen.shape[1]} features, accuracy {right[name].mean():.3f} {interval(right[name])} "
            f"(C {min(chosen):g} to {max(chosen):g}); one split of 60 to 40: {once:.3f}; "
            f"{rate:.0f} tiles a second of processor time",
            flush=True,
        )
    for one, other in (("texture", "colour"), ("squeezenet", "colour"), ("texture", "squeezenet")):
        gain = right[one] - right[other]
        print(f"{one} - {other}: {gain.mean():+.3f} {interval(gain)}")


if __name__ == "__main__":
    main()
