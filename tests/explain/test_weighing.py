"""Weights of a fusion beside the audit: a plain sentence where they disagree."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from nsclc_mtl.explain.weighing import compare

WORTH = {"wsi": 0.2, "rna": 0.1, "clinical": 0.05, "proteomics": 0.001}


def rows(worth: dict[str, float] = WORTH) -> list[dict[str, Any]]:
    return [
        {"modality": m, "mode": mode, "loss": loss, "verdict": "needed" if loss > 0.02 else "equivalent to nothing"}
        for m, loss in worth.items()
        for mode in ("permute", "shapley")
    ]


def weights(of: dict[str, float]) -> pd.DataFrame:
    parts = [{"patient_id": p, "fold": 0, "member": 0, "part": m, "weight": w} for p in "ab" for m, w in of.items()]
    return pd.DataFrame(parts)


def test_weights_in_the_order_of_the_audit_agree() -> None:
    found = compare(weights({"wsi": 0.5, "rna": 0.3, "clinical": 0.15, "proteomics": 0.05}), rows())
    assert found is not None
    assert (found.disagrees, found.correlation) == (False, pytest.approx(1.0))
    assert found.mean["rna"] == pytest.approx(0.3)


def test_weights_that_turn_the_audit_around_are_flagged() -> None:
    found = compare(weights({"wsi": 0.1, "rna": 0.2, "clinical": 0.3, "proteomics": 0.4}), rows())
    assert found is not None
    assert found.disagrees
    assert "rank correlation of mean weight and measured worth over 4 modalities is -1.00" in found.sentence
    assert (
        "The largest weight, 0.40, is that of proteomics, which the audit shows equivalent to nothing" in found.sentence
    )


def test_the_largest_weight_on_a_null_modality_is_flagged_even_of_two() -> None:
    two = {"wsi": 0.2, "proteomics": 0.001}
    found = compare(weights({"wsi": 0.4, "proteomics": 0.6}), rows(two))
    assert found is not None
    assert found.disagrees
    assert "rank correlation" not in found.sentence


def test_equal_weights_and_experts_tell_nothing_of_modalities() -> None:
    alike = compare(weights(dict.fromkeys(WORTH, 0.25)), rows())
    assert alike is not None
    assert "alike for all modalities" in alike.sentence
    gates = compare(weights({"expert0": 0.5, "expert1": 0.5, "expert2": 0.0}), rows())
    assert gates is not None
    assert (gates.disagrees, gates.mean) == (False, {})
    assert "uses 2.0 of 3 experts" in gates.sentence
    assert compare(weights({}), rows()) is None
