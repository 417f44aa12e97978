"""How a federation trains: the words of `federated` in a configuration, judged once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from nsclc_mtl.records import UsageFault

AGGREGATIONS = ("mean", "trimmed_mean")
SCALINGS = ("pooled", "site")
NORMALISATIONS = ("shared", "site")


@dataclass(frozen=True)
class Privacy:
    """Differential privacy per patient: gradients of single patients clipped at `clip`, noise of SD `noise` x `clip` on
    their sum. `delta` is the probability with which the promise may fail. `epsilon`: a site answers no more when a fold
    would cost more; None = it tells what it has cost."""

    clip: float = 1.0
    noise: float = 1.0
    delta: float = 1e-5
    epsilon: float | None = None

    def __post_init__(self) -> None:
        if self.clip <= 0 or self.noise <= 0 or not 0 < self.delta < 1 or (self.epsilon or 1) <= 0:
            raise UsageFault("federated.privacy: clip, noise and epsilon must be above 0, delta between 0 and 1")


@dataclass(frozen=True)
class Plan:
    """What server and sites agree on. Raises UsageFault where words contradict each other.

    rounds: of training; None = as many as give every site the optimiser steps that training on all patients takes.
    local_epochs: passes over a site's patients in a round. aggregation: `mean` weighs sites by their patients;
    `trimmed_mean` leaves out the `trim` lowest and highest sites of every number and weighs the others alike.
    proximal: weight of FedProx's pull towards the model of the round (Li et al., MLSys 2020). normalisation: `site`
    keeps norm layers at the site (FedBN, Li et al., ICLR 2021). scaling: `site` scales inputs by the site's own
    patients. least: patients that a count must stand on to leave a site. min_sites: answers that a round needs.
    norm_limit: an update may be so many times as long as the (lower) median one. retries: of a round that too few
    answered, before the federation stops. timeout_s: for any answer.
    """

    rounds: int | None = None
    local_epochs: int = 1
    aggregation: str = "mean"
    trim: int = 1
    proximal: float = 0.0
    normalisation: str = "shared"
    scaling: str = "pooled"
    least: int = 5
    min_sites: int = 2
    norm_limit: float = 10.0
    retries: int = 2
    timeout_s: float = 600.0
    secure: bool = False
    privacy: Privacy | None = None

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Plan:
        """The plan of a configuration's `federated`; other words there are not its business."""
        said = {f.name: words[f.name] for f in fields(cls) if f.name in words}
        own = said.pop("privacy", None) or {}
        privacy = Privacy(**{k: v for k, v in own.items() if k != "enabled"}) if own.get("enabled") else None
        return cls(**said, privacy=privacy)

    def __post_init__(self) -> None:
        for word, value, known in (
            ("aggregation", self.aggregation, AGGREGATIONS),
            ("scaling", self.scaling, SCALINGS),
            ("normalisation", self.normalisation, NORMALISATIONS),
        ):
            if value not in known:
                raise UsageFault(f"federated.{word}={value!r} is none of {', '.join(known)}")
        if (self.rounds is not None and self.rounds < 1) or self.local_epochs < 1:
            raise UsageFault("federated.rounds and federated.local_epochs must be 1 or more")
        if self.proximal < 0 or self.norm_limit <= 1:
            raise UsageFault("federated.proximal must be 0 or more, federated.norm_limit above 1")
        if self.min_sites < 2:
            raise UsageFault("federated.min_sites must be 2 or more: the sum of one site is that site")
        if self.least < 1 or self.retries < 0 or self.timeout_s <= 0:
            raise UsageFault("federated.least must be 1 or more, retries 0 or more, timeout_s above 0")
        if self.aggregation == "trimmed_mean" and (self.trim < 1 or self.min_sites <= 2 * self.trim):
            raise UsageFault(
                f"federated.aggregation=trimmed_mean leaves out {2 * self.trim} sites of a round: set "
                f"federated.min_sites to {2 * self.trim + 1} or more, or lower federated.trim"
            )
        if self.secure and self.aggregation != "mean":
            raise UsageFault(
                "federated.secure=true hides single updates from the server, and aggregation=trimmed_mean must see "
                "them: choose protection from the server (secure) or from a bad site (trimmed_mean)"
            )
