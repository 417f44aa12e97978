"""The images-level phantom, measured: what a ridge reads from the mean tile and from the tumour's tiles alone.

    python tests/evidence/images_level.py --n 96 --seeds 0-3      # about ten minutes on two cores

Slides are drawn, tiled and extracted by the code and the settings of `mtl extract`. Each seed is another cohort.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from features_level import inside, seeds
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nsclc_mtl.commands.job import Job
from nsclc_mtl.commands.slide_features import extract
from nsclc_mtl.config import compose, plain
from nsclc_mtl.features import store
from nsclc_mtl.metrics.classification import auc, ordinal_auc
from nsclc_mtl.phantom import slides, truth

FOLDS, REPEATS = 5, 10


def tiles_of(item: dict[str, Any], settings: dict[str, Any], root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features [tile, dim] of a slide of the plan, drawn for this, and which tiles have their middle in the tumour."""
    slide_id, path = item["slide_id"], root / slides.path_of(item)
    drawn = slides.draw(item)
    slides.write_pyramid(path, drawn.image)
    slides.write_tumour(root, slide_id, drawn.rings)
    done = extract(Job(slide_id, str(path)), settings["slides"], settings["backbone"], root)
    if done.reason:
        raise ValueError(done.sentence)
    path.unlink()
    found = store.read(next(root.glob(f"features/*/{slide_id}.h5")))
    middle = found.coords + found.attrs["patch_size_level0"] / 2
    return found.features.astype(float), inside(root / "truth" / "tumour" / f"{slide_id}.geojson", middle)


def cohort_of(seed: int, n: int, workers: int) -> dict[str, Any]:
    """Truth of a cohort and its tiles: features [tile, dim], tumour [tile], slide and patient (numbers) [tile]."""
    settings = plain(compose("extract", ["slides.pictures=false"]))
    drawn = truth.draw(n, seed)
    plan = slides.plan(drawn, seed)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "slides").mkdir()
        (Path(folder) / "truth" / "tumour").mkdir(parents=True)
        pairs = slides.spread(partial(tiles_of, settings=settings, root=Path(folder)), [(i,) for i in plan], workers)
    number = {patient: i for i, patient in enumerate(drawn.patients["patient_id"])}
    sizes = [len(tumour) for _, tumour in pairs]
    return {
        "x": np.concatenate([x for x, _ in pairs]),
        "tumour": np.concatenate([tumour for _, tumour in pairs]),
        "slide": np.repeat(np.arange(len(plan)), sizes),
        "patient": np.repeat([number[item["patient_id"]] for item in plan], sizes),
        "grade": drawn.outcomes["grade"].to_numpy(),
        "statistic": drawn.statistics[:, 0],
        "attainable": truth.ceilings(drawn)["attainable"]["grade"],
    }


def ridge() -> Any:
    """The ridge that every line here means."""
    return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13)))


def measure(c: dict[str, Any]) -> dict[str, float]:
    """What a ridge reads of a cohort, and how the tumour's tiles stand out."""
    n, x, tumour, grade = len(c["grade"]), c["x"], c["tumour"], c["grade"]
    top = float(ordinal_auc(grade, c["attainable"])) - 0.5
    found: dict[str, float] = {"grade, attainable AUC": top + 0.5}
    for name, rows in (("mean tile", np.ones(len(x), bool)), ("tumour tiles", tumour)):
        # a patient without a tile of the tumour is read from all of them
        mean = np.stack([x[p & rows if (p & rows).any() else p].mean(0) for p in (c["patient"] == i for i in range(n))])
        folds = [KFold(FOLDS, shuffle=True, random_state=k) for k in range(REPEATS)]
        said = [cross_val_predict(ridge(), mean, grade, cv=f) for f in folds]
        told = cross_val_predict(ridge(), mean, c["statistic"], cv=folds[0])
        found[f"grade, {name}: AUC"] = float(np.mean([float(ordinal_auc(grade, s)) for s in said]))
        found[f"grade, {name}: share of the margin"] = (found[f"grade, {name}: AUC"] - 0.5) / top
        found[f"statistic, {name}: correlation"] = float(np.corrcoef(told, c["statistic"])[0, 1])
    both = [s for s in np.unique(c["slide"]) if 0 < tumour[c["slide"] == s].mean() < 1]
    each = np.mean([[float(auc(tumour[at], v)) for v in x[at].T] for at in (c["slide"] == s for s in both)], axis=0)
    found["tumour, best single feature: AUC within a slide"] = float(np.maximum(each, 1 - each).max())
    told = cross_val_predict(ridge(), x, tumour.astype(float), groups=c["patient"], cv=GroupKFold(FOLDS))
    found["tumour, ridge on all features: AUC within a slide"] = float(
        np.mean([float(auc(tumour[c["slide"] == s], told[c["slide"] == s])) for s in both])
    )
    z = (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)
    shown = c["statistic"][c["patient"][tumour]]
    slope = np.cov(z[tumour].T, shown)[-1, :-1] / shown.var(ddof=1)
    found["statistic: share of the tiles' whole variance"] = float((slope**2).mean() * shown.var() * tumour.mean())
    spread = np.var(z @ slope / np.linalg.norm(slope))
    found["statistic, its direction: principal components of wider spread"] = float(
        (np.linalg.eigvalsh(np.cov(z.T)) > spread).sum()
    )
    return found


def main() -> None:
    """Prints every cohort's numbers, their mean, and those of all patients together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=96, help="patients a cohort")
    parser.add_argument("--seeds", default="0-3")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    cohorts = [cohort_of(seed, chosen.n, chosen.workers) for seed in seeds(chosen.seeds)]
    found = [measure(c) for c in cohorts]
    for i, c in enumerate(cohorts):
        for key in ("patient", "slide"):
            c[key] = c[key] + (cohorts[i - 1][key].max() + 1 if i else 0)
    together = measure({key: np.concatenate([c[key] for c in cohorts]) for key in cohorts[0]})
    print(f"{'cohorts of ' + str(chosen.n) + ' patients':<64}   mean   each{' ' * 6 * (len(found) - 1)}together")
    for key, value in together.items():
        each = [f[key] for f in found]
        print(f"{key:<64} {np.mean(each):6.3f}  {' '.join(f'{v:5.2f}' for v in each)}  {value:6.3f}")


if __name__ == "__main__":
    main()
