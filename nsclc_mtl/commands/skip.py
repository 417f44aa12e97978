"""The weights of the linear skip: ridge models of a fold's training patients, from what the encoders see."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Manifest

if TYPE_CHECKING:
    import numpy as np

    from nsclc_mtl.bags.datamodule import FoldData


def fit(settings: Mapping[str, Any], manifest: Manifest, data: FoldData) -> dict[str, dict[str, np.ndarray]]:
    """Weights of every task and modality, [fold + 1, column + 1, output]; nothing where the configuration has no skip.

    Tables as the encoders take them, bags as their mean tile; all from the training patients.
    """
    import numpy as np

    from nsclc_mtl.baselines.linear import fit_weights
    from nsclc_mtl.baselines.model import Outcome

    if not settings.get("skip"):
        return {}
    folds, train = int(settings["skip"].get("folds", 5)), data.parts["train"]
    blocks, present = _blocks(manifest, data, bool(settings["skip"]["bags"]))
    dealt = np.array([zlib.crc32(patient.encode()) % folds for patient in train])
    apart = [dealt == fold for fold in range(folds)]
    weights = {}
    for task, spec in manifest.tasks.items():
        label = manifest.labels[task].loc[train]
        known = np.flatnonzero(label.notna().all(axis=1).to_numpy())
        values = label.iloc[known]
        if spec.kind == "survival":
            outcome = Outcome(values["time_days"].to_numpy(float), values["event"].to_numpy(float), 0, True)
            classes = np.zeros(0, int)
        elif spec.kind == "regression":  # on the scale that the head learns on
            fitted = data.fitted.tasks[task]
            number = (values["value"].to_numpy(float) - fitted["mean"]) / fitted["scale"]
            outcome, classes = Outcome(number, np.zeros(len(known)), 0, True, number=True), np.zeros(0, int)
        else:
            classes, numbers = np.unique(values["value"].to_numpy(int), return_inverse=True)
            outcome = Outcome(numbers, np.zeros(len(known)), len(classes), spec.kind != "multiclass")
        outputs = len(classes) if outcome.nominal else 1
        made = fit_weights(blocks, present, outcome, known, apart, outputs, int(settings["seed"]))
        weights[task] = made if spec.kind != "multiclass" else _every_class(made, classes, len(spec.classes))
    return weights


def _blocks(manifest: Manifest, data: FoldData, slides: bool) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Rows [patient, column] of the training patients by modality, and who has it."""
    import numpy as np

    train, dims = data.parts["train"], data.fitted.dims()
    found: dict[str, dict[str, np.ndarray]] = {name: dict(data.train_set.rows[name]) for name in manifest.tables}
    for name, paths in manifest.bags.items() if slides else ():
        chosen = data.train_set.chosen.get(name)
        bags = {p: data.cache(paths[p], None, chosen)[0] for p in train if p in paths}
        found[name] = {p: tiles.mean(axis=0, dtype=np.float64) for p, tiles in bags.items() if len(tiles)}
    present = {name: np.array([p in rows for p in train]) for name, rows in found.items()}
    blocks = {
        name: np.stack([np.asarray(rows.get(p, np.zeros(dims[name])), float) for p in train])
        for name, rows in found.items()
    }
    return blocks, present


def _every_class(made: Mapping[str, np.ndarray], there: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Outputs for all classes of a task, of weights for those that occur among the training patients."""
    import numpy as np

    out = {}
    for name, weights in made.items():
        out[name] = np.zeros((*weights.shape[:2], classes))
        if len(there) > 2:  # of two classes one number tells, and it is left to the heads
            out[name][:, :, there] = weights
    return out
