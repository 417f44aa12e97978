"""Every survival head on GBSG and WHAS, the given train and test parts (Katzman et al., BMC Med Res Methodol, 2018).

    python tests/evidence/survival_heads.py PATH/survival
    python tests/evidence/survival_heads.py PATH/survival --sets whas --heads 'hazard;cox' --members 1

Each head runs through the Learner with the clinical encoder (one hidden layer) on the scaled columns. Its settings are
the best of `SETTINGS` by the C of a fifth of the training part; the members (other seeds) are then trained on all of it
and their risks averaged. The test part is looked at once a head, after that. Published on the same parts, in months:
CoxPH .656 (GBSG) and .816 (WHAS), DeepSurv .668 and .863.

WHAS holds patients several times: of its test part 70 % stand in its training part, with the same columns and the same
time. What learns by heart wins there, so the C of the other 30 % is printed beside it.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from nsclc_mtl.config import compose, permitted, plain
from nsclc_mtl.encoders.tabular import MLP
from nsclc_mtl.fusion.concat import Concat
from nsclc_mtl.learner import Learner
from nsclc_mtl.metrics.comparison import resamples, survivors_in_order
from nsclc_mtl.metrics.survival import c_index
from nsclc_mtl.records import Batch, Target, TaskSpec
from nsclc_mtl.tasks.balance import Sum

SETS = {"gbsg": "gbsg_cancer_train_test.h5", "whas": "whas_train_test.h5"}
PUBLISHED = {"gbsg": {"CoxPH": 0.656, "DeepSurv": 0.668}, "whas": {"CoxPH": 0.816, "DeepSurv": 0.863}}
HEADS: dict[str, list[str]] = {
    "cox": ["survival=cox"],
    "hazard, proportional": ["survival=hazard"],
    "hazard, free": ["survival=hazard", "parts.tasks.survival.fit.proportional=false"],
    "pc_hazard, proportional": ["survival=pc_hazard"],
    "pc_hazard, free": ["survival=pc_hazard", "parts.tasks.survival.fit.proportional=false"],
    "pmf": ["survival=pmf"],
    "mtlr": ["survival=mtlr"],
    "deephit": ["survival=deephit"],
}
# epochs, hidden units, dropout, weight decay: from a small network that is stopped early to one that learns by heart
SETTINGS = ((20, 32, 0.3, 1.0), (200, 128, 0.0, 0.01))
PATIENTS = 256  # a step; Cox sees the risk sets of so many
SPEC = TaskSpec("os", "survival")
DAYS_PER_MONTH = 30.4375


@dataclass
class Part:
    """Patients of one part: columns, days, events."""

    x: np.ndarray
    days: np.ndarray
    event: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Part:
        return Part(self.x[rows], self.days[rows], self.event[rows])

    def batch(self, rows: np.ndarray | slice = slice(None)) -> Batch:
        """The patients `rows` as the learner takes them."""
        there = torch.ones(len(self.days[rows]), dtype=torch.bool)
        x, days, event = (torch.as_tensor(a[rows], dtype=torch.float32) for a in (self.x, self.days, self.event))
        target = Target(there, days, event)
        return Batch([str(i) for i in range(len(x))], {"clinical": x}, {"clinical": there}, {"os": target})


class Deck:
    """Batches of a part, the patients shuffled anew each time it is gone through."""

    def __init__(self, part: Part, size: int, seed: int) -> None:
        self.part, self.size, self.rng = part, size, np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.part.x) // self.size

    def __iter__(self) -> Iterator[Batch]:
        order = self.rng.permutation(len(self.part.x))
        return (self.part.batch(order[i * self.size : (i + 1) * self.size]) for i in range(len(self)))


def read(path: Path, name: str) -> tuple[Part, Part]:
    """The given train and test part; columns scaled by the training part, and times in days."""
    with h5py.File(path / SETS[name]) as file:
        parts = [Part(*(file[part][key][:] for key in "xte")) for part in ("train", "test")]
    unit = DAYS_PER_MONTH if name == "gbsg" else 1.0
    mean, spread = parts[0].x.mean(0), parts[0].x.std(0)
    return tuple(Part(np.clip((p.x - mean) / spread, -5, 5), p.days * unit, p.event) for p in parts)  # type: ignore[return-value]


def new(train: Part, test: Part) -> np.ndarray:
    """Which test patients do not stand in the training part with the same columns and time, bool [patient]."""
    known = {(*x, t) for x, t in zip(train.x.tolist(), train.days.tolist(), strict=True)}
    return np.array([(*x, t) not in known for x, t in zip(test.x.tolist(), test.days.tolist(), strict=True)])


def trained(node: dict[str, Any], part: Part, chosen: tuple[int, int, float, float], seed: int) -> Learner:
    """A learner with this head, trained on the part."""
    import pytorch_lightning as pl

    epochs, hidden, dropout, decay = chosen
    pl.seed_everything(seed, verbose=False)
    target = permitted(node["_target_"])
    state = target.fit(SPEC, part.days, part.event, **(node.get("fit") or {}))
    own = {key: value for key, value in node.items() if key not in ("_target_", "fit")}
    encoder = MLP(part.x.shape[1], 32, hidden=hidden, dropout=dropout, input_dropout=0.0)
    fusion = Concat(("clinical",), ("os",), 32, width=hidden, dropout=dropout, modality_dropout=0.0)
    task = target(SPEC, fusion.view_dim, state, **own)
    optimizer = functools.partial(torch.optim.AdamW, lr=1e-2, weight_decay=decay)
    learner = Learner({"clinical": encoder}, fusion, {"os": task}, Sum(["os"]), optimizer)
    trainer = pl.Trainer(
        max_epochs=epochs, gradient_clip_val=1.0, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(learner, Deck(part, PATIENTS, seed))
    return learner.eval()


def risk(learner: Learner, part: Part) -> np.ndarray:
    """Risk of every patient."""
    with torch.no_grad():
        return learner.predict_step(part.batch(), 0)["os"]["risk"].numpy()


def chosen(node: dict[str, Any], train: Part, seed: int) -> tuple[tuple[int, int, float, float], list[float]]:
    """The settings with the best C in a fifth of the training part, and the C of all of them there."""
    order = np.random.default_rng(seed).permutation(len(train.x))
    held, kept = order[: len(order) // 5], order[len(order) // 5 :]
    told = []
    for settings in SETTINGS:
        said = risk(trained(node, train[kept], settings, seed), train[held])
        told.append(float(c_index(said, train.days[held], train.event[held])))
    return SETTINGS[int(np.argmax(told))], told


def main() -> None:
    """Prints a line a head: test C with its 95 % interval, and the settings that were chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--heads", default=None, help="what their names begin with, parted by ;; all by default")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="a JSON file for the numbers")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    wanted = tuple(asked.heads.split(";")) if asked.heads else tuple(HEADS)
    rows = []
    for name in asked.sets.split(","):
        train, test = read(asked.root, name)
        measure_of = functools.partial(survivors_in_order, time=test.days, event=test.event)
        (draws,) = resamples([len(test.x)], 1000, np.random.default_rng(asked.seed))
        published = ", ".join(f"{model} {value:.3f}" for model, value in PUBLISHED[name].items())
        print(f"{name}: {len(train.x)} patients to train on, {len(test.x)} with {int(test.event.sum())} events to test")
        apart = new(train, test)
        print(f"  published: {published}; {int(apart.sum())} test patients do not stand in the training part")
        print(
            f"  {'head':<24} {'C':>5}  {'95 % interval':<15} {'one member':<11} {'new':>5}  "
            "settings (C of each in validation)"
        )
        for head in (h for h in HEADS if h.startswith(wanted)):
            node = plain(compose("train", HEADS[head]).parts.tasks.survival)
            began = time.monotonic()
            settings, tried = chosen(node, train, asked.seed)
            each = [risk(trained(node, train, settings, asked.seed + 1 + m), test) for m in range(asked.members)]
            alone = [float(c_index(said, test.days, test.event)) for said in each]
            said = np.mean(each, axis=0)
            unseen = float(c_index(said[apart], test.days[apart], test.event[apart]))
            measure = measure_of(said)
            value = float(measure(np.ones((1, len(test.x))))[0])
            lo, hi = np.quantile(measure(draws), [0.025, 0.975])
            told = f"{settings[0]} epochs, {settings[1]} units ({' '.join(f'{c:.3f}' for c in tried)})"
            span, seconds = f"{min(alone):.3f}-{max(alone):.3f}", time.monotonic() - began
            numbers = f"{value:.3f}  {lo:.3f} to {hi:.3f}  {span:<11} {unseen:.3f}"
            print(f"  {head:<24} {numbers}  {told}, {seconds:.0f} s", flush=True)
            rows.append({"set": name, "head": head, "c": value, "lo": lo, "hi": hi, "alone": alone, "new": unseen})
    if asked.out:
        asked.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    main()
