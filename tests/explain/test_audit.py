"""The audit's table: a modality that carries the signal is needed, one that is noise is equivalent to nothing."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.explain import shapley
from nsclc_mtl.explain.audit import COALITION, by_patient, summarise, together
from nsclc_mtl.metrics import comparison
from nsclc_mtl.metrics.classification import macro_auc
from nsclc_mtl.records import TaskSpec

IDS = [f"{i:03d}" for i in range(160)]
TASKS = {
    "response": TaskSpec("response", "binary", ("no", "yes")),
    "os": TaskSpec("os", "survival"),
    "look": TaskSpec("look", "multiclass", ("a", "b", "c")),  # no score orders its classes: one a class is told
}


def told() -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Scores of two folds: `rna` carries everything, `noise` nothing."""
    rng = np.random.Generator(np.random.PCG64(0))
    truth = rng.normal(size=len(IDS))
    labels = {
        "response": pd.DataFrame({"value": (truth + rng.normal(size=160) > 0).astype(float)}, index=IDS),
        "os": pd.DataFrame({"event": 1.0, "time_days": np.exp(6 - truth)}, index=IDS),
        "look": pd.DataFrame({"value": np.digitize(truth + rng.normal(size=160), [-0.5, 0.5]) * 1.0}, index=IDS),
    }
    labels["response"].iloc[:10] = np.nan
    rows = []
    for modality, mode, repeats in (
        ("", "", 1),
        *(("rna", mode, repeats) for mode, repeats in (("permute", 3), ("mean", 1), ("drop", 1))),
        *(("noise", mode, repeats) for mode, repeats in (("permute", 3), ("mean", 1))),
    ):
        for repeat in range(repeats):
            score = rng.permutation(truth) if modality == "rna" else truth
            for task, spec in TASKS.items():
                each = {c: -((score - at) ** 2) for c, at in zip("abc", (-1.2, 0, 1.2), strict=True)}
                for output, said in (each if spec.kind == "multiclass" else {"": score}).items():
                    rows += [
                        (p, int(i) % 2, task, modality, mode, repeat, output, s, bool(modality))
                        for i, (p, s) in enumerate(zip(IDS, said, strict=True))
                    ]
    columns = ["patient_id", "fold", "task", "modality", "mode", "repeat", "output", "value", "touched"]
    return pd.DataFrame(rows, columns=columns), labels


def test_what_is_needed_and_what_is_nothing() -> None:
    spoiled, labels = told()
    rows = {(r["task"], r["modality"], r["mode"]): r for r in summarise(spoiled, TASKS, labels, draws=200, seed=0)}
    assert {task for task, _, _ in rows} == {"response", "os", "look"}
    for task, metric in (("response", "auc"), ("os", "c_index"), ("look", "auc")):
        lost = rows[task, "rna", "permute"]
        assert (lost["metric"], lost["verdict"]) == (metric, "needed")
        assert lost["lo"] < lost["loss"] < lost["hi"]
        noise = rows[task, "noise", "permute"]
        assert (noise["loss"], noise["verdict"]) == (0, "equivalent to nothing")
    assert rows["os", "rna", "permute"]["loss"] == pytest.approx(0.5, abs=0.05)  # from a perfect order to chance
    assert rows["os", "rna", "drop"]["verdict"] == "needed"


def test_a_task_whose_labels_nobody_knows_has_no_rows() -> None:
    spoiled, labels = told()
    labels["response"]["value"] = np.nan
    rows = summarise(spoiled, TASKS, labels, draws=20, seed=0)
    assert {r["task"] for r in rows} == {"os", "look"}


def test_the_audit_of_classes_is_that_of_the_macro_auc() -> None:
    spoiled, labels = told()
    (row,) = [
        r
        for r in summarise(spoiled, TASKS, labels, draws=20, seed=0)
        if (r["task"], r["modality"], r["mode"]) == ("look", "rna", "drop")
    ]
    lost = []
    for fold in (0, 1):
        auc = {}
        for mode in ("", "drop"):
            mine = spoiled[(spoiled["task"] == "look") & (spoiled["fold"] == fold) & (spoiled["mode"] == mode)]
            wide = mine.pivot(index="patient_id", columns="output", values="value")[list("abc")]
            auc[mode] = macro_auc(labels["look"].loc[wide.index, "value"], wide)
        lost.append(auc[""] - auc["drop"])
    assert row["loss"] == pytest.approx(np.mean(lost), abs=1e-4)
    labels["look"]["value"] = labels["look"]["value"].clip(upper=1)  # the class c is nobody's
    rows = summarise(spoiled, TASKS, labels, draws=20, seed=0)
    assert all(r["loss"] is None for r in rows if r["task"] == "look")


def test_what_cannot_be_measured_is_null_in_json() -> None:
    spoiled, labels = told()
    labels["response"]["value"] = 1.0
    rows = summarise(spoiled, TASKS, labels, draws=20, seed=0)
    one_class = [r for r in rows if r["task"] == "response"]
    assert one_class
    assert all(r["loss"] is None and r["verdict"] == "unclear" for r in one_class)
    json.dumps(rows, allow_nan=False)


def games(parts: dict[str, np.ndarray], labels: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Coalitions whose score is the sum of their modalities' parts, in two folds; everybody has everything."""
    frames = []
    for row in shapley.coalitions(len(names)):
        inside = [name for name, there in zip(names, row, strict=True) if there]
        frames.append((together(inside), COALITION, sum((parts[name] for name in inside), np.full(len(IDS), 0.25))))
    frames += [("", "", frames[-1][2]), *((name, "mean", frames[-1][2]) for name in names)]
    rows = [
        pd.DataFrame({"patient_id": IDS, "fold": np.arange(160) % 2, "task": "response", "modality": modality,
                      "mode": mode, "repeat": 0, "output": "", "value": said, "touched": modality != "" or mode != ""})
        for modality, mode, said in frames
    ]  # fmt: skip
    return pd.concat(rows)


def test_shapley_values_of_patients_and_of_the_cohort() -> None:
    _, labels = told()
    rng = np.random.default_rng(1)
    known = labels["response"]["value"].fillna(0).to_numpy()
    parts = {"rna": known + rng.normal(size=160), "ct": 0.5 * known + rng.normal(size=160), "null": np.zeros(160)}
    spoiled = games(parts, labels["response"], tuple(parts))
    mine = by_patient(spoiled, TASKS)
    for name, part in parts.items():
        of = mine[mine["modality"] == name].set_index("patient_id").loc[IDS]
        np.testing.assert_allclose(of["value"], part, atol=1e-12)
    whole = mine.groupby("patient_id")["value"].sum()
    np.testing.assert_allclose(whole, mine.groupby("patient_id")[["score"]].first()["score"] - 0.25, atol=1e-12)
    rows = {r["modality"]: r for r in summarise(spoiled, TASKS, labels, 200, 0) if r["mode"] == "shapley"}
    values = [rows[name]["loss"] for name in parts]
    assert rows["rna"]["loss"] > rows["ct"]["loss"] > 0.02
    assert (rows["null"]["loss"], rows["null"]["verdict"]) == (0, "equivalent to nothing")
    assert rows["rna"]["n"] == rows["rna"]["of"] == 150
    at = spoiled[(spoiled["mode"] == "") & spoiled["patient_id"].isin(labels["response"].dropna().index)]
    aucs = [
        comparison.classes_in_order(
            labels["response"].loc[of["patient_id"], "value"].to_numpy(), of["value"].to_numpy()
        )(np.ones((1, len(of))))[0]
        for _, of in at.groupby("fold")
    ]
    assert sum(values) == pytest.approx(np.mean(aucs) - 0.5, abs=1e-4)  # up from the same score for all


def test_what_could_not_be_asked_says_why() -> None:
    spoiled, labels = told()
    rows = {(r["modality"], r["mode"]): r for r in summarise(spoiled, TASKS, labels, 20, 0) if r["task"] == "os"}
    assert rows["noise", "drop"]["loss"] is None
    assert "training never saw" in rows["noise", "drop"]["reason"]
    assert "modality_dropout" in rows["rna", "shapley"]["reason"]
    few = [r["reason"] for r in summarise(spoiled, TASKS, labels, 20, 0, most=1) if r["mode"] == "shapley"]
    assert set(few) == {"2 modalities make 4 combinations: set shapley=2 to have them taken"}
    assert not [r for r in summarise(spoiled, TASKS, labels, 20, 0, most=0) if r["mode"] == "shapley"]
    spoiled.loc[(spoiled["mode"] == "drop") & (spoiled["patient_id"] > "030"), "touched"] = False
    spoiled.loc[(spoiled["modality"] == "rna") & (spoiled["mode"] == "drop"), "value"] = 0.0
    whole = spoiled[spoiled["mode"] == ""].assign(value=0.0)
    still = pd.concat([whole, spoiled[spoiled["mode"] != ""]])
    (row,) = [
        r
        for r in summarise(still, TASKS, labels, 20, 0)
        if (r["task"], r["modality"], r["mode"]) == ("os", "rna", "drop")
    ]
    assert (row["loss"], row["verdict"]) == (0, "unclear")  # too few were touched to show that it is nothing
