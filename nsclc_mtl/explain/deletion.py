"""Whether a map finds what the model uses: a task's score as tiles are taken away in its order, against random ones.

Tiles are taken from one patient's bag, all else of the patient stays as it is; one tile always stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import Bag, Batch

if TYPE_CHECKING:
    from torch import Tensor

RANDOM = "random"
COLUMNS = ("task", "by", "mode", "share", "tiles", "score", "change")
_BYTES = 64_000_000  # of tile features in a batch of bags


def curves(
    learner: Any,
    batch: Batch,
    modality: str,
    maps: Mapping[str, np.ndarray],
    steps: int,
    draws: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """The score of every task with a share of the tiles removed, and with that share alone kept; the columns `COLUMNS`.

    `maps` are named `attention` (judged on every task) and `influence:<task>` (on its own), scores [tile] each; tiles
    go from the highest to the lowest. `mode` removed: the share is gone; kept: the share is all there is. Shares are
    1/steps, 2/steps, ... of the patient's tiles. `by` is attention, influence or random; `change` is |score - score of
    all tiles|, for the maps never say in which direction a tile moves a score; of random tiles both are means over the
    draws, and so is a patient's expectation. Samek et al., IEEE TNNLS 2017; Petsiuk et al., BMVC 2018.
    """
    features = batch.inputs[modality].features
    n, tasks = len(features), list(learner.tasks)
    sizes = {s / steps: int(np.clip(round(s / steps * n), 1, n - 1)) for s in range(1, steps)} if n > 1 else {}
    wanted: dict[tuple[str, str, float], list[int]] = {}  # (by, mode, share) -> rows of what is asked
    kept: list[np.ndarray] = [np.arange(n)]

    def ask(key: tuple[str, str, float], rows: np.ndarray) -> None:
        wanted.setdefault(key, []).append(len(kept))
        kept.append(np.sort(rows))  # an encoder may read the order of the tiles

    for what, scores in maps.items():
        order = np.argsort(-np.asarray(scores, float), kind="stable")
        for share, k in sizes.items():
            ask((what, "removed", share), order[k:])
            ask((what, "kept", share), order[:k])
    # what is left of random tiles is random tiles: a look at so many serves both modes
    sized: dict[int, list[int]] = {size: [] for k in sizes.values() for size in (k, n - k)}
    rng = np.random.Generator(np.random.PCG64([seed, 601]))
    for _ in range(draws):
        order = rng.permutation(n)
        for size, looks in sized.items():
            looks.append(len(kept))
            kept.append(np.sort(order[:size]))
    for share, k in sizes.items() if draws else ():
        wanted |= {(RANDOM, "removed", share): sized[n - k], (RANDOM, "kept", share): sized[k]}
    said = scores_of(learner, batch, modality, kept)
    rows: list[dict[str, Any]] = []
    for (what, mode, share), places in wanted.items():
        by, _, own = what.partition(":")
        for task in [own] if own else tasks:
            score, whole = said[task][places], said[task][0]
            rows.append(
                {
                    "task": task, "by": by, "mode": mode, "share": share,
                    "tiles": len(kept[places[0]]), "score": score.mean(), "change": np.abs(score - whole).mean(),
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def areas(told: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """How much better than random a map is: one row for the groups of `by`, task, map and mode, columns area, random
    and gap.

    `area` is the mean change over the shares (trapezoids, no change where nothing is removed), in units of the task's
    score. `gap` is positive where the map finds what matters: tiles removed change the score more than random ones;
    tiles kept hold it better.
    """
    keys = [*by, "task", "by", "mode"]
    rows = [(*key, _area(here)) for key, here in told.groupby(keys, sort=False)]
    each = pd.DataFrame(rows, columns=[*keys, "area"])
    random = each[each["by"] == RANDOM].drop(columns="by").rename(columns={"area": "random"})
    found = each[each["by"] != RANDOM].merge(random, on=[*by, "task", "mode"])
    sign = np.where(found["mode"] == "removed", 1.0, -1.0)
    return found.assign(gap=sign * (found["area"] - found["random"])).reset_index(drop=True)


def _area(rows: pd.DataFrame) -> float:
    removed = rows["mode"].iloc[0] == "removed"
    share, change = np.r_[rows["share"], 0.0 if removed else 1.0], np.r_[rows["change"], 0.0]
    order = np.argsort(share)
    share, change = share[order], change[order]
    return float(np.trapezoid(change, share) / np.ptp(share))


def scores_of(learner: Any, batch: Batch, modality: str, kept: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Score of every task with these tiles alone (row numbers of the patient's bag), task -> [subset]."""
    import torch

    bag = batch.inputs[modality]
    most = max(len(bag.features), _BYTES // max(1, bag.features.shape[1] * bag.features.element_size()))
    parts: list[dict[str, Tensor]] = []
    with torch.no_grad():
        seen = learner.embed(batch)
        for rows in _batches([len(k) for k in kept], most):
            parts.append(_scores(learner, batch, modality, bag, seen, [kept[row] for row in rows]))
    return {task: torch.cat([part[task] for part in parts]).double().cpu().numpy() for task in learner.tasks}


def _scores(
    learner: Any, batch: Batch, modality: str, bag: Bag, seen: Mapping[str, Any], kept: Sequence[np.ndarray]
) -> dict[str, Tensor]:
    import torch

    place = bag.features.device
    tiles = torch.from_numpy(np.concatenate(kept)).to(place)
    offsets = torch.tensor([0, *map(len, kept)], device=place).cumsum(0)
    coords = None if bag.coords is None else bag.coords[tiles]
    same = torch.zeros(len(kept), dtype=torch.long, device=place)  # the patient, again and again
    others = {name: embedding.rows(same) for name, embedding in seen.items() if name != modality}
    changed = learner.look(modality, Bag(bag.features[tiles], offsets, coords), batch.patients * len(kept))
    present = {name: there[same] for name, there in batch.present.items()}
    order = {name: changed if name == modality else others[name] for name in seen}
    out, _ = learner.decide(order, present)
    return {task: of.score(out[task]) for task, of in learner.tasks.items()}


def _batches(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Row numbers in batches of at most `most` tiles."""
    made: list[list[int]] = [[]]
    held = 0
    for row, size in enumerate(sizes):
        if made[-1] and held + size > most:
            made.append([])
            held = 0
        made[-1].append(row)
        held += size
    return made
