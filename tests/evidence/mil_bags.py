"""Every slide encoder on the classic bags MUSK1 and ELEPHANT, with the given 5 x 10 folds, against a floor.

    python tests/evidence/mil_bags.py --data DIR                # all encoders, both sets
    python tests/evidence/mil_bags.py --data DIR --encoders abmil --sets musk1

DIR holds musk1.npz and elephant.npz. The floor is a logistic regression on mean, maximum and minimum of a bag's
instances. Encoders, fusion and head are those of `mtl train encoder=NAME`, trained by the Learner and Lightning;
features are standardised on the instances of the training bags.

Training settings are not searched for. `--optim shipped` is `conf/optim/adamw.yaml` as it stands (32 bags a step), for
the 100 epochs of attention MIL (Ilse, Tomczak and Welling, ICML 2018, appendix). `--optim published` is their Adam with
learning rate 5e-4 and weight decay 5e-3, one bag a step; with `--batch` bags in a step the learning rate grows with the
square root of their number (Malladi et al., NeurIPS 2022). Warm-up, cosine and clipping are those of `mtl train`.
The network is smaller than the published one (256-128-64): one tile layer, as shipped. Every encoder is trained alike,
and the last epoch counts. `shipped` became the default because it is what users get; two glances had come before: at
the test bags of the first repeat (few epochs of either, neither ahead in both numbers), and at `published --inner`.

Intervals are Student t over the 5 repeats, which share their bags: they tell the spread over splits and seeds, not over
other bags. Differences to the floor are paired by fold.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

LR, DECAY, EPOCHS = 5e-4, 5e-3, 100
ENCODERS = ("abmil", "mean", "max", "clam_sb", "clam_mb", "dsmil", "transmil")
SETS = ("musk1", "elephant")
BARS = {"musk1": 0.88, "elephant": 0.85}
PUBLISHED = {"musk1": "attention .892, gated .900", "elephant": "attention .868, gated .863"}


def scored(truth: np.ndarray, risk: np.ndarray) -> tuple[float, float]:
    """Accuracy at .5, and AUC (NaN where the part holds one class)."""
    from nsclc_mtl.metrics.classification import auc

    return float(((risk > 0.5) == truth).mean()), float(auc(truth, risk)) if len(set(truth)) == 2 else float("nan")


def floor(bags: Sequence[np.ndarray], y: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Probabilities of the test bags by logistic regression on (mean, max, min), standardised on the training bags."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rows = np.array([np.concatenate([bag.mean(0), bag.max(0), bag.min(0)]) for bag in bags])
    scale = StandardScaler().fit(rows[train])
    model = LogisticRegression(max_iter=2000).fit(scale.transform(rows[train]), y[train])
    return model.predict_proba(scale.transform(rows[test]))[:, 1]


def trained(
    name: str, bags: Sequence[np.ndarray], y: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int, args: Any
) -> np.ndarray:
    """Probabilities of the test bags by a learner of one encoder, trained on the training bags."""
    import pytorch_lightning as pl
    import torch

    from nsclc_mtl.bags.datamodule import moved
    from nsclc_mtl.config import build, compose, permitted, plain
    from nsclc_mtl.learner import Learner
    from nsclc_mtl.records import Bag, Batch, Target, TaskSpec

    pl.seed_everything(seed, verbose=False)
    cfg = plain(compose("train", [f"encoder={name}", "fusion=concat", *args.changes]))
    node, dim, spec = (
        cfg["parts"]["modalities"]["bag"]["encoder"],
        cfg["optim"]["dim"],
        TaskSpec("label", "binary", ("0", "1")),
    )
    rows = np.concatenate([bags[i] for i in train])
    sd = rows.std(0)
    given: dict[str, Any] = {"in_dim": rows.shape[1], "dim": dim}
    given["scale"] = {"mean": rows.mean(0).tolist(), "sd": np.where(sd > 1e-8, sd, 1).tolist()}
    if "classes" in permitted(node["_target_"]).__init__.__annotations__:
        given["classes"] = {"label": 2}
    fusion = build(cfg["fusion"], modalities=["wsi"], tasks=["label"], dim=dim)
    kind = permitted(cfg["parts"]["tasks"]["binary"]["_target_"])
    task = kind(spec, fusion.view_dim, kind.fit(spec, y[train].astype(float), y[train] * 0.0))
    if args.optim == "shipped":
        optimizer = build(cfg["optim"]["optimizer"])
    else:
        optimizer = functools.partial(torch.optim.Adam, lr=LR * args.batch**0.5, weight_decay=DECAY)
    learner = Learner(
        {"wsi": build(node, **given)}, fusion, {"label": task}, build(cfg["balance"], tasks=["label"]),
        optimizer, cfg["optim"]["warmup"],
    )  # fmt: skip

    def pack(ids: Sequence[int]) -> Batch:
        offsets = torch.tensor([0, *(len(bags[i]) for i in ids)]).cumsum(0)
        bag = Bag(torch.from_numpy(np.concatenate([bags[i] for i in ids])).float(), offsets)
        there = torch.ones(len(ids), dtype=torch.bool)
        label = Target(there, torch.tensor([float(y[i]) for i in ids]))
        return Batch([str(i) for i in ids], {"wsi": bag}, {"wsi": there}, {"label": label})

    class Data(pl.LightningDataModule):
        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(train.tolist(), args.batch, shuffle=True, collate_fn=pack)  # type: ignore[arg-type]

        def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
            return moved(batch, device)

    trainer = build({**cfg["trainer"], "max_epochs": args.epochs}, accelerator="cpu", logger=False)
    trainer.fit(learner, datamodule=Data())
    learner.eval()
    with torch.no_grad():
        return learner.predict_step(pack(test.tolist()), 0)["label"]["p:1"].numpy()


def interval(by_fold: np.ndarray) -> tuple[float, float]:
    """Mean over all folds [repeat, fold], and half the 95 % interval over the repeats."""
    each = np.nanmean(by_fold, axis=1)
    half = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else float("nan")
    return float(np.nanmean(by_fold)), float(half)


def measured(name: str, dataset: str, args: Any) -> np.ndarray:
    """Accuracy and AUC of each fold, [repeat, fold, 2]."""
    held = np.load(args.data / f"{dataset}.npz", allow_pickle=False)
    y = held["y"].astype(int)
    bags = [held["X"][held["bag"] == i] for i in range(len(y))]
    out = np.full((args.repeats, held["train_folds"].shape[1], 2), np.nan)
    for repeat, fold in np.ndindex(out.shape[:2]):
        inside = held["train_folds"][repeat, fold] == 1
        train, test = np.flatnonzero(inside), np.flatnonzero(~inside)
        if args.inner:  # a fifth of the training bags judges; the test bags are never seen
            turned = np.random.default_rng(repeat * 100 + fold).permutation(train)
            test, train = turned[: len(turned) // 5], turned[len(turned) // 5 :]
        if name == "floor":
            risk = floor(bags, y, train, test)
        else:
            seeds = [100 * repeat + fold + 1000 * member for member in range(args.members)]
            risk = np.mean([trained(name, bags, y, train, test, seed, args) for seed in seeds], axis=0)
        out[repeat, fold] = scored(y[test], risk)
        if name != "floor" and fold == out.shape[1] - 1:  # a long run tells how far it is
            told = np.nanmean(out[repeat], axis=0)
            print(
                f"    {name} repeat {repeat + 1}: accuracy {told[0]:.3f} AUC {told[1]:.3f}", file=sys.stderr, flush=True
            )
    return out


def main() -> None:
    """Prints the table, and writes every fold's numbers."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    words.add_argument("--data", type=Path, required=True, help="folder of musk1.npz and elephant.npz")
    words.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    words.add_argument("--encoders", nargs="*", default=ENCODERS)
    words.add_argument("--repeats", type=int, default=5, help="of the five given ones")
    words.add_argument("--epochs", type=int, default=EPOCHS)
    words.add_argument("--batch", type=int, default=32, help="bags a step")
    words.add_argument("--optim", choices=("published", "shipped"), default="shipped")
    words.add_argument("--members", type=int, default=1, help="networks whose probabilities are averaged (`members=`)")
    words.add_argument("--changes", nargs="*", default=[], help="further overrides of `mtl train`")
    words.add_argument("--inner", action="store_true", help="judge on a fifth of the training bags")
    words.add_argument("--out", type=Path, help="JSON of every fold")
    args = words.parse_args()
    import pytorch_lightning  # noqa: F401  sets the level of its logger, which is set again below
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    kept: dict[str, Any] = {}
    for dataset in args.sets:
        print(f"{dataset}: published {PUBLISHED[dataset]}; bar of gated ABMIL {BARS[dataset]}", flush=True)
        lines = measured("floor", dataset, args)
        kept[dataset] = {"floor": lines.tolist()}
        for name in ("floor", *args.encoders):
            began = time.monotonic()
            found = lines if name == "floor" else measured(name, dataset, args)
            kept[dataset][name] = found.tolist()
            told = [interval(found[..., m]) for m in (0, 1)]
            beside = [interval(found[..., m] - lines[..., m]) for m in (0, 1)]
            text = "  ".join(
                f"{word} {v:.3f} +- {h:.3f}" for word, (v, h) in zip(("accuracy", "AUC"), told, strict=True)
            )
            text += "   minus floor: " + "  ".join(f"{v:+.3f} +- {h:.3f}" for v, h in beside) if name != "floor" else ""
            print(f"  {name:10s} {text}   {time.monotonic() - began:.0f} s", flush=True)
            if args.out:
                args.out.write_text(json.dumps(kept) + "\n")


if __name__ == "__main__":
    import nsclc_mtl  # noqa: F401  before Lightning: it makes a torchvision built for CUDA importable

    main()
