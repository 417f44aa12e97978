"""Robust features: judged on training patients, and on nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.metrics.agreement import icc_consistency
from nsclc_mtl.records import DataFault, Repeated
from nsclc_mtl.tables.robust import robust_features

MASKS = ["erode 1 mm", "dilate 1 mm", "shift 1: 1 mm"]


def measured(n: int = 20) -> tuple[pd.DataFrame, Repeated]:
    """Three features: one that a mask hardly changes, one that it changes somewhat, one that is noise."""
    rng = np.random.Generator(np.random.PCG64(4))
    ids = [f"p{i}" for i in range(n)]
    true = rng.normal(100, 10, (n, 3))
    noise = np.array([0.5, 6.0, 100.0])
    table = pd.DataFrame(true + noise * rng.normal(size=(n, 3)), index=ids, columns=["firm", "soft", "noise"])
    frames = [pd.DataFrame(true + i + noise * rng.normal(size=(n, 3)), ids, table.columns) for i in range(len(MASKS))]
    again = (
        pd.concat(dict(zip(MASKS, frames, strict=True)), names=["perturbation", "patient_id"]).swaplevel().sort_index()
    )
    return table, Repeated(again, 0.75)


def test_what_is_kept() -> None:
    table, repeated = measured()
    found = robust_features(table, repeated, list(table.index), "radiomics")
    assert found.kept == ["firm"]
    assert found.patients == 20
    assert sorted(found.perturbations) == sorted(MASKS)
    values = np.stack([table["soft"], *(repeated.table.xs(m, level=1).loc[table.index, "soft"] for m in MASKS)], axis=1)
    icc, lower, _ = icc_consistency(values[None])
    assert found.icc["soft"] == [pytest.approx(icc[0], abs=1e-6), pytest.approx(lower[0], abs=1e-6)]
    repeated.lower = float(lower[0]) - 1e-6
    assert robust_features(table, repeated, list(table.index), "radiomics").kept == ["firm", "soft"]


def test_test_patients_change_nothing() -> None:
    table, repeated = measured()
    training = [f"p{i}" for i in range(14)]
    before = robust_features(table, repeated, training, "radiomics").state()
    rest = [p for p in table.index if p not in training]
    table.loc[rest] = 1e9
    repeated.table.loc[rest] = -(np.arange(len(rest) * len(MASKS) * 3.0).reshape(-1, 3) ** 2)
    assert robust_features(table, repeated, training, "radiomics").state() == before
    repeated.table = repeated.table.drop(index=rest, level=0)
    assert robust_features(table.drop(index=rest), repeated, training, "radiomics").state() == before


def test_missing_measurements() -> None:
    table, repeated = measured()
    repeated.table.loc[("p3", "erode 1 mm")] = np.nan  # eroded away
    repeated.table.loc[("p4", "shift 1: 1 mm"), "firm"] = np.nan
    found = robust_features(table, repeated, list(table.index), "radiomics")
    kept = [p for p in table.index if p not in ("p3", "p4")]
    alone = robust_features(table.loc[kept], repeated, kept, "radiomics")
    assert found.icc["firm"] == alone.icc["firm"]
    assert found.icc["soft"] != alone.icc["soft"]  # p4 counts there
    table["constant"], repeated.table["constant"] = 1.0, 1.0
    table["unmeasured"] = np.arange(20.0)
    found = robust_features(table, repeated, list(table.index), "radiomics")
    assert found.kept == ["firm"]
    assert found.icc["constant"] == found.icc["unmeasured"] == [None, None]


def test_too_few_or_nothing_robust() -> None:
    table, repeated = measured()
    with pytest.raises(DataFault, match=r"2 training patients.*robustness\.perturb=true"):
        robust_features(table, repeated, ["p0", "p1"], "radiomics")
    with pytest.raises(DataFault, match="none of 1 features is robust"):
        robust_features(table[["noise"]], repeated, list(table.index), "radiomics")
