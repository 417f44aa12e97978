"""What is said of a patient is what stands in the tables of the run."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
from starlette.testclient import TestClient

from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.patient import Details
from tests.viewer.board import DAYS, EVIL, MODALITIES, TASKS


@pytest.mark.parametrize("patient", ["P0001", "P/3 ü", EVIL])
def test_a_patient_has_every_task_as_the_run_said_it(client: TestClient, shown: Board, patient: str) -> None:
    detail = client.get("/api/patient", params={"id": patient}).json()
    assert detail["id"] == patient
    assert [task["name"] for task in detail["tasks"]] == list(TASKS)
    rows = shown.models[0].predictions
    for task in detail["tasks"]:
        own = rows[(rows["patient_id"] == patient) & (rows["task"] == task["name"])].set_index("output")["value"]
        if task["kind"] == "survival":
            assert task["curve"]["days"] == list(DAYS)
            assert task["curve"]["survival"] == [own[f"surv:{d}"] for d in DAYS]
            assert task["curve"]["lower"] is None  # one member: how far others would differ is not known
        else:
            assert {p["class"]: p["p"] for p in task["probabilities"]} == {c: own[f"p:{c}"] for c in task["classes"]}
        assert [one["modality"] for one in task["contributions"]] == list(MODALITIES)


def test_missing_modalities_and_reasons_come_from_the_run(client: TestClient, shown: Board) -> None:
    detail = client.get("/api/patient", params={"id": "P0002"}).json()
    assert detail["missing"] == ["ct_volume"]
    assert detail["reasons"] == ["no ct_volume"]
    absent = [c["modality"] for c in detail["tasks"][0]["contributions"] if not c["present"]]
    assert absent == ["ct_volume"]


def test_a_second_model_stands_beside(client: TestClient) -> None:
    first, second = (client.get("/api/patient", params={"id": "P0001", "model": m}).json() for m in ("", "second"))
    assert first["models"] == second["models"] == ["first", "second"]
    assert second["model"] == "second"
    assert first["tasks"][0]["probabilities"] != second["tasks"][0]["probabilities"]


@pytest.mark.parametrize("query", [{"id": "nobody"}, {"id": "P0001", "model": "nothing"}, {"id": "../../etc/passwd"}])
def test_who_is_not_shown_is_not_found(client: TestClient, query: dict[str, str]) -> None:
    answer = client.get("/api/patient", params=query)
    assert answer.status_code == 404
    assert "fault" in answer.json()


def test_the_worklist_has_a_row_a_patient_and_no_numbers_that_json_lacks(client: TestClient, shown: Board) -> None:
    text = client.get("/api/worklist").text
    rows = json.loads(text, parse_constant=lambda word: pytest.fail(word))["patients"]
    assert [row["id"] for row in rows] == shown.ids
    assert all(set(row["tasks"]) == set(TASKS) for row in rows)
    assert [row["slides"] for row in rows] == [2, 0, 0, 1, 0]


def test_risk_groups_are_cut_where_training_cut(client: TestClient, shown: Board) -> None:
    survival = client.get("/api/patient", params={"id": "P0001"}).json()["tasks"][-1]
    rows = shown.models[0].predictions
    risk = rows[(rows["output"] == "risk") & rows["time_days"].notna()]
    above = int((risk["value"] > 0.8).sum())
    assert {g["name"]: g["n"] for g in survival["groups"]}.get("higher risk", 0) == above
    assert survival["group"] == ("higher risk" if survival["risk"] > 0.8 else "lower risk")


def test_what_if_shows_the_scores_that_the_audit_found(client: TestClient) -> None:
    """All modalities first, each left out once, and the coalitions; absent modalities are in none of them."""
    detail = client.get("/api/patient", params={"id": "P0002"}).json()
    have = [m for m in MODALITIES if m != "ct_volume"]
    for task in detail["tasks"]:
        shown = {tuple(one["modalities"]): one["score"] for one in task["shown"]}
        if task["kind"] == "multiclass":
            assert not shown
            continue
        assert task["shown"][0] == {"modalities": have, "score": 1.0}
        assert all("ct_volume" not in names for names in shown)
        # the coalition stands for what leaving the third one out would say
        assert shown["wsi", "rna"] == 0.25
        for one in task["contributions"]:
            left = tuple(m for m in have if m != one["modality"])
            if one["present"] and left != ("wsi", "rna"):
                assert shown[left] == pytest.approx(1.0 - one["value"])


def test_survival_at_whole_years_stands_on_the_curve_with_the_band_of_the_members(shown: Board) -> None:
    """A band of two standard deviations where several members predicted, within 0 and 1."""
    rows = [("P0001", "0", "survival", f"spread:{day}", "0.1") for day in DAYS]
    said = shown.models[0]
    told = pd.concat([said.trust, pd.DataFrame(rows, columns=said.trust.columns)])
    details = Details(replace(shown, models=[replace(said, trust=told)]))
    one = next(t for t in details.of("P0001")["tasks"] if t["name"] == "survival")
    at = dict(zip(one["curve"]["days"], one["curve"]["survival"], strict=True))
    assert [year["years"] for year in one["years"]] == [1, 3, 5]
    for year in one["years"]:
        s = at[365 * year["years"]]
        assert year["survival"] == pytest.approx(s)
        assert year["lower"] == pytest.approx(max(0, s - 0.2), abs=1e-6)
        assert year["upper"] == pytest.approx(min(1, s + 0.2))
    alone = next(t for t in details.of("P0002")["tasks"] if t["name"] == "survival")
    assert [year["lower"] for year in alone["years"]] == [None] * 3


def test_contributions_start_from_what_is_said_without_any_modality(client: TestClient) -> None:
    assert {task["base"] for task in client.get("/api/patient", params={"id": "P0001"}).json()["tasks"]} == {1.0}


def test_a_model_abstains_where_its_set_leaves_several_classes_or_none(shown: Board) -> None:
    said = shown.models[0]
    trust = said.trust[said.trust["what"] != "set"]
    rows = [("P0001", "0", "grade", "set", ""), ("P0001", "0", "grade", "set_size", "0")]
    rows += [("P0001", "0", "response", "set", "non-responder|responder"), ("P0001", "0", "subtype", "set", "other")]
    told = pd.concat([trust, pd.DataFrame(rows, columns=trust.columns)])
    tasks = {t["name"]: t for t in Details(replace(shown, models=[replace(said, trust=told)])).of("P0001")["tasks"]}
    assert {n: (t["set"], t["abstains"]) for n, t in tasks.items() if n != "survival"} == {
        "grade": ([], True),
        "response": (["non-responder", "responder"], True),
        "subtype": (["other"], False),
    }


@pytest.mark.parametrize("shift", [0.0, 4e-6])  # as written with fewer digits elsewhere
def test_a_test_patient_stands_among_the_others_of_his_fold_and_a_newcomer_among_all(
    shown: Board, shift: float
) -> None:
    reference = Details(shown).reference["first"]
    task = next(t for t in Details(shown).of("P0001")["tasks"] if t["name"] == "survival")
    rows = shown.models[0].predictions
    risks = rows[(rows["output"] == "risk") & (rows["fold"].astype(str) == task["fold"])].set_index("patient_id")[
        "value"
    ]
    assert len(risks) > 1
    place = reference.position(task | {"risk": task["risk"] + shift}, "P0001")
    assert place is not None
    assert (place["values"], place["others"]) == (sorted(risks.drop("P0001").round(5)), True)
    newcomer = reference.position(task | {"fold": "ensemble"}, "P0001")  # an id of another cohort may be the same
    assert newcomer is not None
    assert (len(newcomer["values"]), newcomer["others"]) == (len(shown.ids), False)
