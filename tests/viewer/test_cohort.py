"""The cohort page's numbers are those of the metrics of the same patients, within their folds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from nsclc_mtl.metrics.calibration import groups, rates
from nsclc_mtl.metrics.classification import auc
from nsclc_mtl.metrics.roc import roc
from nsclc_mtl.metrics.survival import kaplan_meier
from nsclc_mtl.report.words import slug as slug_of_report
from nsclc_mtl.viewer.app import build
from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.cohort import Cohort
from nsclc_mtl.viewer.evaluation import slug
from nsclc_mtl.viewer.guard import Guard
from nsclc_mtl.viewer.levels import columns, parted
from tests.viewer import board as toys
from tests.viewer.board import EVIL, TASKS

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Sixty patients; one of them alone is of site D."""
    made = toys.make(tmp_path_factory.mktemp("crowd"), patients=60, pictures=False)
    made.covariates.loc["P0001", "site"] = "D"
    return made


@pytest.fixture(scope="module")
def evaluation(crowd: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mtl evaluate` leaves, of the task `response` alone."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "figures").mkdir()
    n = len(_wide(crowd, "response"))
    same = {"task": "response", "part": "test", "fold": "all", "model": "learner", "n": n, "n_events": 30}
    rows = [
        same | {"metric": "auc", "value": 0.7, "lo": 0.6, "hi": float("nan"), "reason": ""},
        same | {"metric": "auc|sex=male", "value": 0.65, "lo": 0.5, "hi": 0.8, "reason": ""},
        same | {"metric": "auc", "fold": "0", "value": 0.1, "lo": None, "hi": None, "reason": ""},
        same | {"metric": "auc", "model": "floor:stage", "value": 0.2, "lo": None, "hi": None, "reason": ""},
    ]
    (folder / "metrics.json").write_text(json.dumps(rows))
    (folder / "report.html").write_text("<!doctype html><title>report</title><script>document.title = 'ran'</script>")
    (folder / "figures" / "response-calibration.csv").write_text(
        "kind,model,predicted,observed,lo,hi,n\ncurve,learner,0.1,0.2,,,\ncurve,floor:stage,0.1,0.9,,,\n"
        "group,learner,0.3,0.25,0.1,0.5,20\nhistogram,learner,0.025,,,,2\n"
    )
    (folder / "figures" / "response-abstention-auc.csv").write_text(
        "kept,n,value,random_lo,random_hi,metric\n1,64,0.7,0.7,0.7,auc\n0.5,32,,,,auc\n"
    )
    return folder


@pytest.fixture(scope="module")
def ask(crowd: Board) -> Ask:
    """What /api/cohort answers of a board without an evaluation."""
    return _asked(crowd)


def _asked(board: Board) -> Ask:
    """The answers of a board, as JSON has them: NaN is none."""
    cohort = Cohort(board)
    return lambda **query: json.loads(json.dumps(cohort.of(**query), allow_nan=False))


def _client(board: Board) -> TestClient:
    guard = Guard.local(8765)
    return TestClient(build(board, guard), base_url="http://127.0.0.1:8765", cookies={guard.cookie: guard.token})


def _wide(board: Board, task: str) -> pd.DataFrame:
    """Test patients with a known outcome, a row each, columns by output."""
    rows = board.models[0].predictions
    rows = rows[rows["task"] == task]
    first = rows.drop_duplicates("patient_id").set_index("patient_id")[["fold", "target", "event", "time_days"]]
    wide = rows.pivot(index="patient_id", columns="output", values="value").join(first).loc[first.index]
    return wide[wide["time_days"].notna()] if task == "survival" else wide[wide["target"] != ""]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("by", ["", "site", "sex", "age"])
def test_every_figure_is_of_the_patients_whose_outcome_is_known(ask: Ask, crowd: Board, task: str, by: str) -> None:
    told, wide = ask(task=task, by=by), _wide(crowd, task)
    assert told["n"] == len(wide) == len(told["points"])
    assert told["unknown"] == len(crowd.ids) - len(wide)
    assert sum(level["n"] for level in told["levels"]) == len(wide)  # no covariate of the toy is blank
    assert {p["id"] for p in told["points"]} == set(wide.index)
    assert {p["level"] for p in told["points"]} == {level["name"] for level in told["levels"]}


def test_roc_curves_are_drawn_within_folds(ask: Ask, crowd: Board) -> None:
    told, wide = ask(task="response", by="sex"), _wide(crowd, "response")
    for level in told["curves"][0]["levels"]:
        own = wide[crowd.covariates.loc[wide.index, "sex"] == level["name"]]
        folds = [
            ((f["target"] == "responder").to_numpy(float), f["p:responder"].to_numpy(float))
            for _, f in own.groupby("fold")
        ]
        expected = roc("", folds)
        assert expected is not None
        assert level["mean"] == pytest.approx(expected.mean, abs=1e-5)
        assert level["folds"] == [pytest.approx(f, abs=1e-5) for f in expected.folds]
        metric = next(one for one in told["levels"] if one["name"] == level["name"])["metric"]
        each = [float(auc(*fold)) for fold in folds]
        assert metric["value"] == pytest.approx(np.average(each, weights=[len(y) for y, _ in folds]))
        assert metric["lo"] is None  # without an evaluation there is no interval


def test_ordinal_tasks_have_a_curve_a_cut_and_classes_one_each(ask: Ask, crowd: Board) -> None:
    assert ask(task="grade")["targets"] == ["above G1", "above G2"]
    assert [curve["target"] for curve in ask(task="subtype")["curves"]] == ["adeno", "squamous", "other"]
    wide, told = _wide(crowd, "grade"), ask(task="grade")
    said = {point["id"]: point["said"] for point in told["points"]}
    for patient, row in wide.iterrows():
        assert said[patient] == pytest.approx([row["p:G2"] + row["p:G3"], row["p:G3"]])


def test_survival_is_parted_at_the_cut_off_of_each_fold(ask: Ask, crowd: Board) -> None:
    wide = _wide(crowd, "survival")
    for level in ask(task="survival", by="sex")["curves"]:
        own = wide[crowd.covariates.loc[wide.index, "sex"] == level["name"]]
        assert sum(group["n"] for group in level["groups"]) == len(own)
        for group in level["groups"]:
            above = own["risk"] > 0.8  # of both folds in the toy
            part = own[above if group["name"] == "higher risk" else ~above]
            assert group["n"] == len(part)
            assert group["survival"] == pytest.approx(kaplan_meier(part["time_days"], part["event"]).value, abs=1e-5)


def test_calibration_of_a_subgroup_is_grouped_as_in_the_report(ask: Ask, crowd: Board) -> None:
    wide = _wide(crowd, "response")
    (target,) = ask(task="response", by="sex")["calibration"]
    assert target["curve"] is None
    for level in target["levels"]:
        own = wide[crowd.covariates.loc[wide.index, "sex"] == level["name"]]
        expected = groups(own["p:responder"], rates((own["target"] == "responder").to_numpy(float)))
        assert [g["observed"] for g in level["groups"]] == pytest.approx([g.observed for g in expected])
        assert [g["n"] for g in level["groups"]] == [g.n for g in expected]


@pytest.mark.parametrize("task", ["response", "grade", "survival"])
def test_small_subgroups_say_so(ask: Ask, task: str) -> None:
    told = ask(task=task, by="site")
    levels = told["curves"] if task == "survival" else told["curves"][0]["levels"]
    few = [level for level in levels if level["n"] < 10]
    assert all(level["reason"].endswith("fewer than 10, so nothing is drawn") for level in few)
    assert all(not level.get("mean") and not level.get("groups") for level in few)
    assert all(level["reason"] == "" for level in levels if level["n"] >= 10)


def test_one_outcome_only_has_no_curve(crowd: Board) -> None:
    rows = crowd.models[0].predictions.copy()
    rows.loc[(rows["task"] == "response") & (rows["target"] != ""), "target"] = "responder"
    board = replace(crowd, models=[replace(crowd.models[0], reference=rows)])
    told = _asked(board)(task="response")
    (level,) = told["curves"][0]["levels"]
    assert level["mean"] is None
    assert level["reason"] == "all of them have the same outcome"
    assert told["levels"][0]["metric"]["value"] is None
    assert told["levels"][0]["metric"]["reason"]


def test_without_training_patients_on_the_worklist_no_point_opens(crowd: Board) -> None:
    """Patients from elsewhere are on the worklist: those whom the training tested have no page here."""
    board = replace(crowd, covariates=crowd.covariates.rename(index=lambda p: f"new {p}"))
    told = _asked(board)(task="response", by="sex")
    assert told["points"]
    assert not any(point["opens"] for point in told["points"])
    assert told["levels"] == []


def test_a_run_without_reference_or_evaluation_shows_nobody(crowd: Board) -> None:
    board = replace(crowd, models=[replace(crowd.models[0], reference=None)])
    ask = _asked(board)
    for task in TASKS:
        told = ask(task=task)
        assert told["n"] == 0
        assert told["points"] == told["metrics"] == told["abstention"] == []


def test_an_evaluation_is_read_and_not_computed_again(crowd: Board, evaluation: Path) -> None:
    ask = _asked(replace(crowd, report=evaluation))
    told, by_sex, other = ask(task="response"), ask(task="response", by="sex"), ask(task="grade")
    assert [(m["words"], m["value"], m["lo"], m["hi"], m["n"], m["events"]) for m in told["metrics"]] == [
        ("AUC", 0.7, 0.6, None, told["n"], 30)
    ]
    (target,) = told["calibration"]
    assert target["curve"] == {"predicted": [0.1], "observed": [0.2], "lo": [None], "hi": [None]}
    assert [(g["predicted"], g["n"]) for g in target["levels"][0]["groups"]] == [(0.3, 20)]
    assert told["abstention"][0]["value"] == [0.7, None]
    sex = {level["name"]: level["metric"] for level in by_sex["levels"]}
    assert (sex["male"]["value"], sex["male"]["lo"]) == (0.65, 0.5)
    assert sex["female"]["lo"] is None  # the evaluation has no interval for them
    assert other["metrics"] == other["abstention"] == []
    assert other["levels"][0]["metric"]["value"] is not None
    assert told["other"] == ""
    assert other["other"] == f"The evaluation {evaluation.name} does not judge grade."


@pytest.mark.parametrize("changed", [{"fold": "-1"}, {"n": 7}])
def test_an_evaluation_of_other_patients_lends_no_numbers(
    crowd: Board, evaluation: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    rows = json.loads((evaluation / "metrics.json").read_text())
    folds = [row | changed for row in rows] if "n" in changed else [*rows, rows[0] | changed]
    (tmp_path / "metrics.json").write_text(json.dumps(folds))
    told = _asked(replace(crowd, report=tmp_path))(task="response")
    assert "judged other patients" in told["other"]
    assert told["metrics"] == []
    assert told["levels"][0]["metric"]["lo"] is None


def test_the_report_is_sandboxed_and_never_a_file_from_elsewhere(
    crowd: Board, evaluation: Path, tmp_path: Path
) -> None:
    with _client(replace(crowd, report=evaluation)) as client:
        shown, saved = client.get("/report.html"), client.get("/report.html", params={"download": "true"})
    policy = shown.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script-src" not in policy
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert saved.headers["content-disposition"] == 'attachment; filename="report.html"'
    assert saved.content == (evaluation / "report.html").read_bytes()
    secret = tmp_path / "secret.html"
    secret.write_text("secret")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.json").write_text("[]")
    (folder / "report.html").symlink_to(secret)
    with _client(replace(crowd, report=folder)) as client:
        assert client.get("/report.html").status_code == 404
        assert not client.get("/api/cohort").json()["report"]


def test_what_is_not_there_is_not_found(client: TestClient) -> None:
    for query in ({"task": "nothing"}, {"by": "../../etc/passwd"}, {"by": EVIL}):
        answer = client.get("/api/cohort", params=query)
        assert answer.status_code == 404
        assert "fault" in answer.json()
    assert client.get("/report.html").status_code == 404


def test_the_page_is_there_and_strangers_get_nothing(client: TestClient, stranger: TestClient) -> None:
    assert "cohort.js" in client.get("/cohort").text
    assert [stranger.get(path).status_code for path in ("/cohort", "/api/cohort", "/report.html")] == [401] * 3


def test_covariates_with_many_levels_are_no_subgroups() -> None:
    table = pd.DataFrame(
        {
            "id": [f"x{k}" for k in range(30)],
            "code": [f"c{k % 8}" for k in range(30)],
            "same": ["one"] * 30,
            "Sex": ["f", "m"] * 15,
            "weight": [f"{k}" for k in range(30)],
        },
        index=[f"P{k}" for k in range(30)],
    )
    assert columns(table) == ["Sex", "code", "weight"]
    assert [len(ids) for ids in parted(table["code"]).values()] == [4, 4, 4, 4, 4, 10]  # the rarer ones are joined
    assert list(parted(table["weight"])) == ["up to 14.5", "above 14.5"]


@pytest.mark.parametrize("name", ["survival", "PD-L1 (%)", "Grün", "_above_G1", "…"])
def test_files_are_named_as_the_report_names_them(name: str) -> None:
    assert slug(name) == slug_of_report(name)
