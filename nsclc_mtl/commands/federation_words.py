"""What server and sites must have configured alike, and what a site is told before it takes part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsclc_mtl.federated.fitting import Declared
    from nsclc_mtl.federated.plan import Plan

# Sections of the configuration that make the model and its training. Where files lie and what computes is each site's.
SHARED = ("seed", "precision", "parts", "fusion", "balance", "optim", "trainer", "cox", "skip", "adaptation", "members")
OWN = ("sites", "against", "timeout_s", "retries")  # of `federated`: the server's business


def agreement(settings: Mapping[str, Any], declared: Declared) -> dict[str, str]:
    """Digests of what both sides must have alike, by section: parts of the model, tasks, modalities, the plan."""
    told: dict[str, Any] = {word: settings.get(word) for word in SHARED}
    told["federated"] = {word: value for word, value in settings["federated"].items() if word not in OWN}
    told["tasks"] = {name: [spec.kind, list(spec.classes)] for name, spec in declared.tasks.items()}
    told["modalities"] = {
        name: [spec.kind, declared.options[name], spec.options.get("columns")]
        for name, spec in declared.modalities.items()
    }
    return {
        word: hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
        for word, value in told.items()
    }


def leaving(declared: Declared, plan: Plan, columns: Mapping[str, int], server: str, folds: Sequence[int]) -> list[str]:
    """What will leave the site, a sentence a line. columns: modality -> columns of its table here."""
    wide = ", ".join(f"{name} ({n} columns)" for name, n in columns.items())
    told = [
        f"to {server}, for fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}:",
        f"  once a fold: counts of patients, classes and categories, none of fewer than {plan.least} patients; the "
        f"longest follow-up in whole years; the names of all columns",
    ]
    if wide:
        told.append(
            f"  once a fold: sums of values, squares and products, and counts on grids of 128 cells, of the "
            f"tables {wide}"
        )
    bags = [name for name, spec in declared.modalities.items() if spec.kind == "bag"]
    if bags:
        told.append(f"  once a fold: the mean and mean square of the tile features of {', '.join(bags)}")
    if plan.secure:
        told.append("  every round: the numbers of the model under masks, of which the server can open the sum alone")
    else:
        told.append("  every round: the numbers of the model as trained on this site's patients")
    if plan.privacy is not None:
        told.append(
            f"  these numbers carry noise: differential privacy per patient (clip {plan.privacy.clip:g}, noise "
            f"{plan.privacy.noise:g}, delta {plan.privacy.delta:g}); what leaves once a fold does not"
        )
    else:
        told.append("  every round: the mean losses of training; without federated.privacy nothing limits what a model")
        told.append("  may have learned of a single patient")
    told.append(f"  at the end of a fold: the main metric of every task on test patients here, if {plan.least} or more")
    told.append("no table, slide, scan, patient id or prediction leaves; every message is noted in messages.jsonl")
    return told
