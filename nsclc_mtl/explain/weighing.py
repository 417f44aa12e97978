"""Whether the weights of a fusion say what the audit says: gates and attention beside measured losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

NULL = "equivalent to nothing"
AGREES_FROM = 0.6  # rank correlation below which weights and audit disagree
FEW = 3  # modalities: of two the order is right or wrong by chance
ALIKE = 0.01  # weights that differ by less tell nothing apart


@dataclass(frozen=True)
class Weighing:
    """Mean weight of each modality for one task, and a sentence of what it is worth."""

    sentence: str
    disagrees: bool = False
    mean: dict[str, float] = field(default_factory=dict)  # modality -> mean over test patients, 0 for who lacks it
    correlation: float = float("nan")


def compare(weights: pd.DataFrame, rows: Sequence[Mapping[str, Any]]) -> Weighing | None:
    """What the weights of one task (`fusion_weights.csv`) say beside its rows of `audit.json`; None without weights.

    Weights are compared with the Shapley values of the metric, or where there are none with the loss by permutation.
    """
    if weights.empty:
        return None
    modalities = list(dict.fromkeys(row["modality"] for row in rows))
    if not set(weights["part"]) <= set(modalities):
        return Weighing(_experts(weights))
    mean = {str(name): float(of) for name, of in weights.groupby("part", sort=False)["weight"].mean().items()}
    if max(mean.values()) - min(mean.values()) < ALIKE:
        return Weighing(
            "The weights of this fusion are alike for all modalities and tell nothing of them.", False, mean
        )
    worth = _worth(rows, "shapley") or _worth(rows, "permute")
    both = [name for name in mean if name in worth]
    rho = float("nan")
    if len(both) >= FEW and len({worth[name] for name in both}) > 1:
        rho = float(spearmanr([mean[name] for name in both], [worth[name] for name in both]).statistic)
    said = []
    if np.isfinite(rho) and round(rho, 6) < AGREES_FROM:
        said.append(
            f"Weights and audit disagree: the rank correlation of mean weight and measured worth over {len(both)} "
            f"modalities is {rho:.2f}."
        )
    top = max(mean, key=lambda name: mean[name])
    if _verdicts(rows).get(top) == NULL:
        said.append(
            f"The largest weight, {mean[top]:.2f}, is that of {top}, which the audit shows equivalent to nothing."
        )
    if said:
        return Weighing(" ".join([*said, "A weight is no influence: go by the audit."]), True, mean, rho)
    if np.isfinite(rho):
        told = f"Weights and audit agree in their order (rank correlation {rho:.2f}); still a weight is no influence."
        return Weighing(told, False, mean, rho)
    return Weighing("A weight says how much of the view a modality makes, not what it is worth.", False, mean)


def _worth(rows: Sequence[Mapping[str, Any]], mode: str) -> dict[str, float]:
    return {row["modality"]: row["loss"] for row in rows if row["mode"] == mode and row["loss"] is not None}


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {row["modality"]: row["verdict"] for row in rows if row["mode"] == "permute"}


def _experts(weights: pd.DataFrame) -> str:
    """Gates over experts: how many of them a patient's gate uses, exp of its entropy, mean over patients."""
    wide = weights.pivot(index=["fold", "member", "patient_id"], columns="part", values="weight").to_numpy(dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(wide > 0, wide * np.log(wide), 0.0).sum(axis=1)
    return (
        "The gates of this fusion weigh experts, each of which sees every modality, so that they say nothing of what a "
        f"modality is worth. On average a patient’s gate uses {np.exp(entropy).mean():.1f} of {wide.shape[1]} experts."
    )
