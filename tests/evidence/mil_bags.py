"""Every slide encoder on the classic bags MUSK1 and ELEPHANT, with the given 5 x 10 folds, against a floor.

    python tests/evidence/mil_bags.py --data DIR                # all encoders, both sets
    python tests/evidence/mil_bags.py --data DIR --encoders abmil published --sets musk1

DIR holds musk1.npz and elephant.npz. The floor is a logistic regression on mean, maximum and minimum of a bag's
instances. Encoders, fusion and head are those of `mtl train encoder=NAME`, trained by the Learner and Lightning;
features are standardised on the instances of the training bags.

Training settings are not searched for. `--optim shipped` is `conf/optim/adamw.yaml` as it stands (32 bags a step), for
the 100 epochs of attention MIL (Ilse, Tomczak and Welling, ICML 2018, appendix). `--optim published` is Adam with
their learning rate 5e-4 and weight decay 5e-3, one bag a step; with `--batch` bags in a step the learning rate grows
with the square root of their number (Malladi et al., NeurIPS 2022). Warm-up, cosine and clipping are those of
`mtl train`.
The network is smaller than the published one (256-128-64): one tile layer, as shipped. Every encoder is trained alike,
and the last epoch counts. `--encoders published` is the published network with SGD (see `published`). `--optim shipped`
became the default because it is what users get; two glances had come before: at the test bags of the first repeat (few
epochs of either, neither ahead in both numbers), and at `--optim published --inner`.

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


def published(
    bags: Sequence[np.ndarray], y: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]], seed: int, epochs: int
) -> list[np.ndarray]:
    """Probabilities of every fold's test bags by the published network, trained with SGD.

    `ABMIL` with an embedding of one number is that network: the number is the log odds. Instance layers 256-128-64 with
    ReLU and dropout .5, gate 64, Glorot's start, SGD with momentum .9 and the published learning rate and decay, one
    bag a step, no schedule. Nothing is held out for stopping: the last epoch counts. The networks of
    all folds, whose weights are stacked, take their steps at once; a fold with fewer bags is ahead in its epochs.
    """
    import torch
    from torch.nn import functional

    from nsclc_mtl.encoders.mil import ABMIL
    from nsclc_mtl.records import Bag

    torch.manual_seed(seed)
    nets, inputs, most = [], [], max(map(len, bags))
    for train, _ in folds:
        rows = np.concatenate([bags[i] for i in train])
        sd = rows.std(0)
        scale = {"mean": rows.mean(0).tolist(), "sd": np.where(sd > 1e-8, sd, 1).tolist()}
        net = ABMIL(rows.shape[1], 1, [256, 128, 64], 64, 0.0, scale, activation="relu", tile_dropout=0.5)
        for layer in net.modules():
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.xavier_uniform_(layer.weight)
                torch.nn.init.zeros_(layer.bias)
        nets.append(net)
        filled = [np.pad(bag, ((0, most - len(bag)), (0, 0))) for bag in bags]
        inputs.append(net.scale(torch.from_numpy(np.stack(filled))))
    tiles, sizes, truth = torch.stack(inputs), torch.tensor([len(bag) for bag in bags]), torch.from_numpy(y).float()
    stacked = {
        name: torch.stack([dict(net.named_parameters())[name].detach() for net in nets]).requires_grad_()
        for name, _ in nets[0].named_parameters()
    }

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.baddbmm(stacked[f"{name}.bias"][:, None], x, stacked[f"{name}.weight"].mT)

    def log_odds(at: torch.Tensor, training: bool = True) -> torch.Tensor:
        """Of one bag a network."""
        wide = int(sizes[at].max())
        tile = tiles[torch.arange(len(nets)), at, :wide]
        for name in ("tile.1", "tile.4", "tile.7"):
            tile = functional.dropout(functional.relu(linear(tile, name)), 0.5, training)
        score = linear(torch.tanh(linear(tile, "content")) * torch.sigmoid(linear(tile, "gate")), "score")[..., 0]
        weight = score.masked_fill(torch.arange(wide) >= sizes[at][:, None], -torch.inf).softmax(1)
        return linear(weight[:, None] @ tile, "out.1")[:, 0, 0]

    def said(net: ABMIL, i: int) -> torch.Tensor:
        with torch.no_grad():
            bag = torch.from_numpy(bags[i]).float()
            return net.eval()(Bag(bag, torch.tensor([0, len(bag)]))).vector[0, 0]

    some = torch.arange(len(nets)) % len(bags)  # the stacked formula is what the encoder says
    expected = torch.stack([said(net, int(i)) for net, i in zip(nets, some, strict=True)])
    torch.testing.assert_close(log_odds(some, training=False).detach(), expected, rtol=1e-4, atol=1e-5)
    steps = epochs * max(len(train) for train, _ in folds)
    orders = [
        torch.cat([torch.from_numpy(train)[torch.randperm(len(train))] for _ in range(-(-steps // len(train)))])[:steps]
        for train, _ in folds
    ]
    optimizer = torch.optim.SGD(stacked.values(), lr=LR, momentum=0.9, weight_decay=DECAY, fused=True)
    for at in torch.stack(orders, dim=1):
        loss = functional.binary_cross_entropy_with_logits(log_odds(at), truth[at], reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for k, net in enumerate(nets):
        net.load_state_dict({name: value.detach()[k] for name, value in stacked.items()}, strict=False)
    pairs = zip(nets, folds, strict=True)
    return [torch.stack([said(net, int(i)) for i in test]).sigmoid().numpy() for net, (_, test) in pairs]


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
    for repeat, inside in enumerate(held["train_folds"][: args.repeats] == 1):
        folds = [(np.flatnonzero(rows), np.flatnonzero(~rows)) for rows in inside]
        if args.inner:  # a fifth of the training bags judges; the test bags are never seen
            turned = [np.random.default_rng(repeat * 100 + i).permutation(train) for i, (train, _) in enumerate(folds)]
            folds = [(rows[len(rows) // 5 :], rows[: len(rows) // 5]) for rows in turned]
        if name == "published":
            risks = published(bags, y, folds, args.seed + repeat, args.epochs)
        elif name == "floor":
            risks = [floor(bags, y, train, test) for train, test in folds]
        else:
            risks = []
            for i, (train, test) in enumerate(folds):
                seeds = [args.seed + 100 * repeat + i + 1000 * member for member in range(args.members)]
                risks.append(np.mean([trained(name, bags, y, train, test, seed, args) for seed in seeds], axis=0))
        out[repeat] = [scored(y[test], risk) for risk, (_, test) in zip(risks, folds, strict=True)]
        if name != "floor":  # a long run tells how far it is
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
    words.add_argument(
        "--encoders",
        nargs="*",
        default=ENCODERS,
        help="names of conf/encoder, or `published`: gated ABMIL as published",
    )
    words.add_argument("--repeats", type=int, default=5, help="of the five given ones")
    words.add_argument("--epochs", type=int, default=EPOCHS)
    words.add_argument("--batch", type=int, default=32, help="bags a step")
    words.add_argument("--optim", choices=("published", "shipped"), default="shipped")
    words.add_argument("--members", type=int, default=1, help="networks whose probabilities are averaged (`members=`)")
    words.add_argument("--changes", nargs="*", default=[], help="further overrides of `mtl train`")
    words.add_argument("--seed", type=int, default=0, help="of the networks; the folds are given")
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
