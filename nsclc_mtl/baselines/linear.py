"""Ridge models as plain weights: what the linear skip of the learner is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nsclc_mtl.baselines.model import Outcome
from nsclc_mtl.baselines.ridge import Ridge, RidgePath
from nsclc_mtl.baselines.tuning import choose, inner_folds

FEWEST = 10  # known labels (events of survival tasks) below which no line is fitted


def fit_weights(
    blocks: Mapping[str, np.ndarray],
    present: Mapping[str, np.ndarray],
    outcome: Outcome,
    known: np.ndarray,
    apart: Sequence[np.ndarray],
    classes: int,
    seed: int,
    family: Ridge | None = None,
) -> dict[str, np.ndarray]:
    """Weights of a ridge model of all blocks, block -> [model, column + 1, output]; the last row is the bias.

    blocks: name -> float [patient, column], patients who lack it hold anything. present: name -> bool [patient].
    outcome: of the patients `known` (int rows of the blocks), in their order. apart: bool [patient] each; model k is
    fitted without apart[k], the last one on all. The penalty is chosen once, by cross-validation among all.
    classes: number of outputs, one a class where the outcome is nominal, else 1. Columns are centred and scaled on the
    patients who have them. All weights are 0 where fewer than `FEWEST` labels (or events) are known.
    """
    ridge = family or Ridge()
    scaled: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    columns: list[tuple[np.ndarray, np.ndarray]] = []
    width = sum(block.shape[1] + 1 for block in blocks.values())
    at = 0
    for name, block in blocks.items():
        have = present[name]
        mean, sd = block[have].mean(0), block[have].std(0)
        sd = np.where(sd > 1e-9, sd, np.inf)  # a constant column says nothing
        scaled[name] = mean, sd
        share = have.mean()
        flag = (have - share)[:, None] / (np.sqrt(share * (1 - share)) if 0 < share < 1 else np.inf)
        rows = np.concatenate([np.where(have[:, None], (block - mean) / sd, 0.0), flag], axis=1)
        unit = np.zeros((width, rows.shape[1]))
        unit[at : at + rows.shape[1]] = np.eye(rows.shape[1])
        at += rows.shape[1]
        columns.append((rows, unit))
    out = {name: np.zeros((len(apart) + 1, block.shape[1] + 1, classes)) for name, block in blocks.items()}
    counted = int(outcome.event.sum()) if outcome.survival else len(outcome.y)
    sorted_into = not outcome.survival and not outcome.number  # classes
    if counted < FEWEST or (sorted_into and outcome.classes < 2) or (outcome.number and np.ptp(outcome.y) == 0):
        return out
    inner = inner_folds(outcome.event if outcome.survival else outcome.y, ridge.inner, np.random.default_rng(seed))
    alone = []
    for column in columns if len(columns) > 1 else []:
        found = choose(ridge, ridge.spaces([column], []), known, outcome, inner)
        alone.append(found.path.alone(found.step))
    space, path, step = choose(ridge, ridge.spaces(columns, alone), known, outcome, inner)
    assert isinstance(path, RidgePath)
    for model, without in enumerate([*apart, np.zeros(len(apart[0]) if apart else 0, bool)]):
        keep = ~without[known] if len(without) else np.ones(len(known), bool)
        ours, there = outcome.of(keep)
        if (outcome.survival and not ours.event.any()) or (sorted_into and len(there) < 2):
            continue
        slope = path.slope(space.train[known[keep]], ours, step)  # [axis, output]
        weights = np.zeros((width, classes))
        weights[:, there if outcome.nominal else [0]] = space.test @ slope
        at = 0
        for name, block in blocks.items():
            mean, sd = scaled[name]
            own = weights[at : at + block.shape[1]] / sd[:, None]
            share = present[name].mean()
            flag = weights[at + block.shape[1]] / (np.sqrt(share * (1 - share)) if 0 < share < 1 else np.inf)
            at += block.shape[1] + 1
            # who has the modality differs from who lacks it by the flag's weight; lacking it is left to the head
            out[name][model] = np.concatenate([own, (flag - mean @ own)[None]])
    return out
