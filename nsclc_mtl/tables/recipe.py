"""How a table becomes numbers: the words that `conf/modalities/` and a cohort may say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from nsclc_mtl.records import UsageFault

SCALINGS = ("standard", "robust", "none")


@dataclass(frozen=True)
class Recipe:
    """Steps in their order: logarithm, gene sets, imputation, scaling, selection, components. Raises UsageFault.

    `values` is what the cohort declares of the table. `top_variance` is the older word for `select: variance` with
    `keep`, and wins over them. `wide` leaves the components to the learner: the scaled columns come out. `clip` is in
    standard deviations; without scaling nothing is clipped.
    """

    clip: float | None = 5.0
    top_variance: int | None = None
    select: str = "none"
    keep: int | None = None
    components: int | None = None
    values: str | None = None
    log: str = "auto"
    wide: bool = False
    scaling: str = "standard"
    missing_indicators: bool = True
    scores: str = "mean_z"

    def __post_init__(self) -> None:
        if self.scaling not in SCALINGS:
            raise UsageFault(f"scaling={self.scaling!r} is none of {', '.join(SCALINGS)}")
        if self.top_variance is not None and self.select == "univariate":
            raise UsageFault("top_variance and select=univariate choose by different rules; set top_variance to null")

    @classmethod
    def of(cls, chosen: Mapping[str, Any], declared: Mapping[str, Any]) -> Recipe:
        """The words of `chosen` (the kind's, changed by the cohort) and what the cohort declares of the table."""
        said = {f.name: chosen[f.name] for f in fields(cls) if f.name in chosen}
        scores = (declared.get("pathways") or {}).get("scores") or chosen.get("scores", cls.scores)
        return cls(**{**said, "values": declared.get("values"), "scores": scores})

    @property
    def rule(self) -> tuple[str, int | None]:
        """The rule of selection and the number of columns that it keeps."""
        return (self.select, self.keep) if self.top_variance is None else ("variance", self.top_variance)


OWN_WORDS = tuple(f.name for f in fields(Recipe) if f.name not in ("values", "scores", "wide"))
"""What a cohort may say of one modality in the place of its kind's `conf/modalities/KIND.yaml`."""
