"""Reasons not to rely on a prediction, from what folds say of made-up patients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.commands import confidence, reasons
from nsclc_mtl.records import Manifest, ModalitySpec, TaskSpec, UsageFault

IDS = ["a", "b", "c"]
TASKS = {
    "grade": TaskSpec("grade", "ordinal", ("G1", "G2", "G3")),
    "survival": TaskSpec("survival", "survival"),
    "ki67": TaskSpec("ki67", "regression"),
}


def manifest(ids: list[str] = IDS, site: list[str] | None = None) -> Manifest:
    blank = pd.DataFrame({"value": np.nan}, index=ids)
    slides = pd.DataFrame({"patient_id": ids, "path": "x", "scanner": ["P1000"] * (len(ids) - 1) + ["AT2"]})
    return Manifest(
        "toy",
        pd.DataFrame({"site": site or ["A"] * len(ids)}, index=pd.Index(ids, name="patient_id")),
        TASKS,
        {"rna": ModalitySpec("rna", "omics")},
        dict.fromkeys(TASKS, blank),
        tables={"rna": pd.DataFrame({"g": 1.0}, index=ids[1:])},
        slides=slides,
    )


def outputs(p: list[list[float]], free: float = 0.7, number: float = 3.0) -> dict[str, pd.DataFrame]:
    index = pd.Index(IDS, name="patient_id")
    return {
        "grade": pd.DataFrame(p, index=index, columns=["p:G1", "p:G2", "p:G3"]),
        "survival": pd.DataFrame({"risk": 0.0, "surv:365": 1.0, "surv:1095": free}, index=index),
        "ki67": pd.DataFrame({"value": number}, index=index),
    }


def seen(members: list[dict[str, pd.DataFrame]], rarity: float = 0.5, **trust: Any) -> reasons.Seen:
    mean = {t: sum(m[t] for m in members) / len(members) for t in TASKS}
    far = pd.DataFrame({"rarity": rarity, "furthest": "rna", "all": 0.9, "rna": 0.99}, index=IDS)
    out = {"rate": 0.05, "reference": "held out", "known": [0.0] * 40, "attributes": {"scanner": ["P1000"]}}
    own = {"survival": {"horizon_days": 1095.0, "until_days": 1500.0}, "ki67": {"sd": 2.0}} | trust
    fitted = SimpleNamespace(trust=own, outside=out, sites=["A", "B"], dims=lambda: {"rna": 1})
    return reasons.Seen(mean, members, far, fitted)


def value(table: pd.DataFrame, patient: str, task: str, what: str) -> str:
    found = table[(table["patient_id"] == patient) & (table["task"] == task) & (table["what"] == what)]["value"]
    return str(found.iloc[0]) if len(found) else ""


def why(table: pd.DataFrame, patient: str) -> str:
    return "; ".join(table[(table["patient_id"] == patient) & (table["what"] == "reason")]["value"])


SURE, UNSURE = [0.9, 0.08, 0.02], [0.1, 0.5, 0.4]


def test_a_patient_without_a_reason_gets_none_and_each_reason_is_said_in_words() -> None:
    one = outputs([SURE, SURE, SURE])
    two = outputs([SURE, [0.1, 0.2, 0.7], SURE], free=0.74)
    table = reasons.rows([seen([one, two, one])], manifest(site=["A", "A", "Z"]), 0)
    assert why(table, "a") == ""
    assert why(table, "b") == "grade: the members disagree (2 of 3 say G1)"
    assert "site Z was not among those of the training" in why(table, "c")
    assert "scanner AT2 was not among those of the training" in why(table, "c")
    assert value(table, "a", "grade", "predicted") == "G1"
    assert float(value(table, "a", "grade", "confidence")) == pytest.approx(0.9)
    assert float(value(table, "a", "survival", "confidence")) == pytest.approx((0.7 * 2 + 0.74) / 3)
    assert value(table, "a", "survival", "predicted") == "event-free"
    assert float(value(table, "a", "survival", "spread")) == pytest.approx(np.std([0.7, 0.74, 0.7], ddof=1), rel=1e-4)
    assert value(table, "b", "survival", "spread:1095") == value(table, "b", "survival", "spread")  # the horizon
    assert float(value(table, "b", "survival", "spread:365")) == 0  # all members say 1 there
    assert value(table, "a", "ki67", "confidence") == ""
    assert [value(table, p, "", "flag:missing:rna") for p in IDS] == ["1", "0", "0"]
    cautions = pd.DataFrame({"caution": ["no rna", "", ""]}, index=pd.Index(IDS, name="patient_id"))
    made = reasons.joined(cautions, table, manifest())
    assert made["caution"].tolist()[0] == "no rna"
    assert made["caution"].tolist()[1].startswith("grade: the members disagree")
    assert {"confidence:grade", "spread:grade", "spread:ki67"} <= set(made)


def test_the_spread_of_a_curve_is_told_for_each_day_that_several_members_predict() -> None:
    members = [outputs([SURE] * 3, free=free) for free in (0.2, 0.4, 0.9)]
    table = reasons.rows([seen(members)], manifest(), 0)
    told = set(table.loc[table["what"].str.startswith("spread"), "what"])
    assert told == {"spread", "spread:365", "spread:1095"}
    assert float(value(table, "c", "survival", "spread:1095")) == pytest.approx(
        np.std([0.2, 0.4, 0.9], ddof=1), rel=1e-5
    )
    alone = reasons.rows([seen(members[:1])], manifest(), 0)
    assert not alone["what"].str.startswith("spread").any()


def test_who_lies_outside_is_told_where_and_of_several_folds_half_decide() -> None:
    one = outputs([SURE] * 3)
    far = reasons.rows([seen([one], rarity=0.02)], manifest(), 0)
    assert why(far, "a") == "unlike the training patients in rna"
    assert value(far, "a", "", "flag:outside") == "1"
    both = [seen([one], rarity=r) for r in (0.02, 0.4, 0.6)]
    assert value(reasons.rows(both, manifest(), -1), "a", "", "flag:outside") == "0"
    both = [seen([one], rarity=r) for r in (0.02, 0.04, 0.6)]
    table = reasons.rows(both, manifest(), -1)
    assert value(table, "a", "", "flag:outside") == "1"
    assert value(table, "", "grade", "members") == "3"  # one of each fold: their spread is told, too
    assert value(table, "a", "grade", "votes") == "3"


def test_sets_bounds_and_intervals_are_in_the_table() -> None:
    trust = {
        "grade": {"threshold": 0.65, "miss": 0.1, "n": 30, "mondrian": "class",
                  "groups": {"G1": {"threshold": 0.95, "n": 12}, "G2": {"n": 8}, "G3": {"threshold": 0.55, "n": 10}}},
        "survival": {"horizon_days": 1095.0, "until_days": 800.0, "level": 0.1, "miss": 0.1, "n": 30},
        "ki67": {"sd": 2.0, "half_width": 1.5, "miss": 0.1, "n": 30},
    }  # fmt: skip
    table = reasons.rows([seen([outputs([SURE, UNSURE, [0.3, 0.3, 0.4]])], **trust)], manifest(), 0)
    assert [value(table, p, "grade", "set") for p in IDS] == ["G1", "G1|G2", "G1|G3"]  # of its own class each
    assert why(table, "b") == "grade: G1 or G2, the set does not decide"
    bound = 365 + 730 * np.log(0.9) / np.log(0.7)
    assert float(value(table, "a", "survival", "lower_bound_days")) == np.floor(bound)
    assert (value(table, "a", "ki67", "interval_low"), value(table, "a", "ki67", "interval_high")) == ("1.5", "4.5")
    assert value(table, "", "grade", "n_calibration:class:G2") == "8"
    assert "sets" not in set(table["what"])  # one fold: nobody votes


def test_folds_that_each_say_another_class_leave_an_empty_set_and_a_reason() -> None:
    trust = {"grade": {"threshold": 0.2, "miss": 0.1, "n": 30}}
    each = [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]]
    table = reasons.rows([seen([outputs([p] * 3)], **trust) for p in each], manifest(), -1)
    assert value(table, "a", "grade", "set") == ""
    assert value(table, "a", "grade", "sets") == "3"  # that voted
    assert value(table, "a", "grade", "set_size") == "0"
    assert "grade: the folds agree on no class" in why(table, "a")


def test_thresholds_by_site_serve_their_own_patients_and_small_sites_as_all() -> None:
    rng = np.random.default_rng(0)
    ids = [f"p{i}" for i in range(60)]
    site = ["A"] * 30 + ["B"] * 25 + ["C"] * 5
    whole = manifest(ids, site)
    whole.labels["grade"] = pd.DataFrame({"value": rng.integers(0, 3, 60).astype(float)}, index=ids)
    p = pd.DataFrame(rng.dirichlet(np.ones(3), 60), index=ids, columns=["p:G1", "p:G2", "p:G3"])
    trust = confidence.fit({"grade": p}, whole, 0.1, mondrian="site")
    of = trust["grade"]
    assert {name: group["n"] for name, group in of["groups"].items()} == {"A": 30, "B": 25, "C": 5}
    assert "threshold" not in of["groups"]["C"]
    told = confidence.scaled({"grade": p}, whole, trust)["grade"].to_numpy()
    held = confidence.sets([({"grade": pd.DataFrame(told, ids, p.columns)}, trust)], whole)["set:grade"]
    at = [of["groups"][s].get("threshold", of["threshold"]) for s in site]
    for words, row, limit in zip(held, told, at, strict=True):
        assert set(words.split("|")) >= {c for c, q in zip(TASKS["grade"].classes, row, strict=True) if 1 - q <= limit}
    whole.patients = whole.patients.assign(site="")
    with pytest.raises(UsageFault, match="declares no sites"):
        confidence.fit({"grade": p}, whole, 0.1, mondrian="site")


def test_incidences_and_the_calibrated_curve_still_sum_to_one() -> None:
    ids = ["a", "b"]
    of = TaskSpec("dss", "survival", causes=("cancer", "other"))
    whole = manifest(ids)
    whole.tasks = {"dss": of}
    first, second = np.array([[0.1, 0.3, 0.3], [0.0, 0.05, 0.1]]), np.array([[0.05, 0.1, 0.2], [0.0, 0.2, 0.3]])
    days = (365, 730, 1095)
    wide = pd.DataFrame(
        {f"surv:{d}": 1 - first[:, k] - second[:, k] for k, d in enumerate(days)}
        | {f"cif:cancer:{d}": first[:, k] for k, d in enumerate(days)}
        | {f"cif:other:{d}": second[:, k] for k, d in enumerate(days)},
        index=ids,
    )
    trust = {"dss": {"shift": 0.4, "slope": 1.3, "centre": -0.5, "horizon_days": 1000.0}}
    told = confidence.scaled({"dss": wide}, whole, trust)["dss"]
    assert (told["surv:1095"] - wide["surv:1095"]).abs().min() > 0.01
    for d in days:
        np.testing.assert_allclose(told[[f"surv:{d}", f"cif:cancer:{d}", f"cif:other:{d}"]].sum(axis=1), 1)
    for cause in ("cancer", "other"):
        assert (np.diff(told[[f"cif:{cause}:{d}" for d in days]], axis=1) >= -1e-12).all()
    assert told.loc["a", "cif:cancer:730"] == pytest.approx(told.loc["a", "cif:cancer:1095"])  # none of that cause then
