"""Small federations on the features-level phantom, for tests."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from nsclc_mtl.commands import federate, federation
from nsclc_mtl.commands.cohort import open_cohort, split
from nsclc_mtl.config import compose, plain
from nsclc_mtl.federated.plan import Plan
from nsclc_mtl.federated.site import Site
from nsclc_mtl.records import Manifest

QUICK = ("trainer.max_epochs=2", "optim.min_steps=2", "logger=none", "trust.outside=0", "audit=0", "folds.n=3")


@functools.cache
def settings_of(out: Path, *words: str) -> Any:
    """Composed settings of `mtl federate simulate` on a phantom of 90 patients at three shifted sites."""
    own = ("cohort.level=features", "cohort.n=90", "cohort.site=shift", f"paths.out={out}", *QUICK)
    return plain(compose("federate", [*own, *words]))


def opened(settings: Mapping[str, Any]) -> tuple[Manifest, pd.DataFrame, dict[str, list[str]]]:
    """Manifest, split and sites."""
    manifest = open_cohort(settings)
    splits = split(settings, manifest)
    sites = federate.sites_of(settings, manifest, splits, Plan.of(settings["federated"]))
    return manifest, splits, sites


def sites_of(settings: Mapping[str, Any], **words: Any) -> dict[str, Site]:
    """The sites of the cohort, as `mtl federate simulate` makes them."""
    manifest, splits, named = opened(settings)
    plan, declared = Plan.of(settings["federated"]), federation.declared(settings, manifest)
    out = {}
    for name, ids in named.items():
        parts = federation.Configured(settings, declared, None, plan.privacy)
        own = splits[splits["patient_id"].isin(ids)]
        out[name] = Site(name, federation.only(manifest, ids), own, plan, parts, **words)
    return out
