"""What `mtl serve` finds in real run folders of a small phantom, and what it says where something is gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from starlette.testclient import TestClient
from test_way import Way

from nsclc_mtl.commands import served
from nsclc_mtl.phantom.cohort import make
from nsclc_mtl.records import DataFault, Fault, UsageFault
from nsclc_mtl.viewer.app import build
from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.guard import Guard
from nsclc_mtl.viewer.patient import Details

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """Two folds, an evaluation of them, predictions for the same forty patients, and a bundle."""
    made = Way(tmp_path_factory.mktemp("served"))
    assert made.train("whole") == 0
    assert made.run("evaluate", "judged", f"ckpt={made.folder()}", "floors=[]", "bootstrap=20") == 0
    assert made.predict("told") == 0
    assert made.run("bundle", "packed", f"ckpt={made.folder()}") == 0
    return made


def settings(way: Way, run: Path, **changes: Any) -> dict[str, Any]:
    base = {"run": str(run), "against": None, "evaluation": None, "cohort": {"root": None}}
    return base | {"paths": {"runs": str(way.root / "runs"), "out": str(way.root / "out")}} | changes


def shown(board: Board) -> dict[str, Any]:
    """What the pages are given of the first patient."""
    guard = Guard.local(1)
    with TestClient(build(board, guard), base_url="http://127.0.0.1:1", cookies={guard.cookie: guard.token}) as client:
        rows = client.get("/api/worklist")
        assert rows.status_code == 200
        assert len(rows.json()["patients"]) == len(board.ids)
        detail = client.get("/api/patient", params={"id": board.ids[0]})
        assert detail.status_code == 200
        assert client.get("/").status_code == 200
        return dict(detail.json())


def test_a_run_of_predict(way: Way) -> None:
    board = served.board(settings(way, way.folder("predict", "told")))
    assert len(board.ids) == 40
    assert list(board.tasks) == ["grade", "stage", "response", "survival"]
    assert board.report == way.folder("evaluate", "judged")
    assert board.reviews == way.folder("predict", "told") / "reviews.jsonl"
    assert board.models[0].audit is not None
    assert board.models[0].reference is not None
    assert dict(board.models[0].provenance)["trained run"] == "whole"
    assert dict(board.models[0].provenance)["backbone"].endswith("tiles of 128 um")
    outcomes = {column for spec in board.tasks.values() for column in spec.columns}
    assert not outcomes & set(board.covariates.columns)
    detail = shown(board)
    assert [task["name"] for task in detail["tasks"]] == list(board.tasks)
    assert board.slides == []  # files of features are no pictures


def test_beside_a_probability_stands_what_the_page_of_predict_says_of_the_model(way: Way) -> None:
    assert way.predict("paged", "explain.patients=1") == 0
    page = next((way.folder("predict", "paged") / "patients").glob("*/page.html"))
    board = served.board(settings(way, way.folder("predict", "paged")))
    details = Details(board).of(page.parent.name)
    words = page.read_text(encoding="utf-8")
    for task in details["tasks"]:
        assert any(sentence.startswith("Probabilities are ") for sentence in task["of_model"])
        assert any("held-out patients of the training cohort" in sentence for sentence in task["of_model"])
        assert all(f"<li>{sentence}</li>" in words for sentence in task["of_model"])


def test_runs_of_train_and_of_evaluate_show_the_test_patients(way: Way) -> None:
    trained = served.board(settings(way, way.folder()))
    judged = served.board(settings(way, way.folder("evaluate", "judged")))
    assert trained.ids == judged.ids
    assert len(trained.ids) == 40
    assert set(trained.models[0].predictions["part"]) == {"test"}
    assert not trained.models[0].predictions.duplicated(["patient_id", "task", "output"]).any()
    assert judged.report == way.folder("evaluate", "judged")
    shown(trained)


@pytest.mark.browser
def test_tables_of_the_report_fit_a_wide_page(way: Way, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.goto((way.folder("evaluate", "judged") / "report.html").as_uri())
    cut = "all => all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.innerText.slice(0, 60))"
    assert page.locator("#calibration-grade").count() == 1
    assert page.locator(".scroll").evaluate_all(cut) == []
    page.close()


def test_two_runs_side_by_side(way: Way) -> None:
    board = served.board(settings(way, way.folder("predict", "told"), against=str(way.folder())))
    assert [said.name for said in board.models] == ["told", "whole"]
    assert shown(board)["models"] == ["told", "whole"]


def test_tables_that_moved(way: Way, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(way.data, moved)
    board = served.board(settings(way, way.folder("predict", "told"), cohort={"root": str(moved)}))
    assert len(board.ids) == 40


def test_runs_that_moved(way: Way, tmp_path: Path) -> None:
    """The folder of runs as a whole, on another machine: the training stands beside the predictions."""
    shutil.copytree(way.root / "runs", tmp_path / "runs")
    told = tmp_path / "runs" / "predict" / "told"
    file = told / "config.yaml"
    content = yaml.safe_load(file.read_text())
    content["ckpt"] = "/gone/runs/train/whole"
    file.write_text(yaml.safe_dump(content))
    run, training = served.folders(told)
    assert (run, training) == (told, tmp_path / "runs" / "train" / "whole")


def test_predictions_of_a_bundle(way: Way, tmp_path: Path) -> None:
    packed = next((way.root / "runs" / "bundle").glob("**/manifest.sha256")).parent
    others = make(tmp_path / "others", level="features", n=12, seed=5)
    assert way.predict("strange", f"cohort.root={others}", ckpt=packed) == 0
    board = served.board(settings(way, way.folder("predict", "strange"), cohort={"root": str(others)}))
    assert len(board.ids) == 12
    assert board.models[0].reference is None
    assert board.models[0].audit is None
    assert [task["name"] for task in shown(board)["tasks"]] == list(board.tasks)


def faults(way: Way, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any], type[Fault], str]]:
    """Name, settings, kind and words of every fault."""
    told = way.folder("predict", "told")
    yield "nothing", settings(way, tmp_path / "none"), UsageFault, "does not exist"
    yield "a file", settings(way, told / "predictions.csv"), UsageFault, "does not exist"
    yield "no run", settings(way, tmp_path), UsageFault, "has no predictions"
    yield "against", settings(way, told, against=str(tmp_path)), UsageFault, "has no predictions"
    yield "evaluation", settings(way, told, evaluation=str(tmp_path)), UsageFault, "no folder of `mtl evaluate`"
    yield "no tables", settings(way, told, cohort={"root": str(tmp_path / "none")}), Fault, "none"
    cut = tmp_path / "cut"
    shutil.copytree(told, cut)
    (cut / "predictions.csv").write_bytes(b"\x00\x01,,\n\xff")
    yield "no table", settings(way, cut), DataFault, "predictions.csv"
    bad = tmp_path / "bad"
    shutil.copytree(told, bad)
    (bad / "config.yaml").write_text("{")
    yield "no yaml", settings(way, bad), DataFault, "config.yaml"
    lost = tmp_path / "lost"
    shutil.copytree(told, lost)
    (lost / "config.yaml").write_text("ckpt: /gone/train/never\n")
    yield "no training", settings(way, lost), UsageFault, "never"
    other = tmp_path / "other"
    shutil.copytree(way.data, other)
    patients = other / "patients.csv"
    patients.write_text(
        "\n".join(["X" + line if k else line for k, line in enumerate(patients.read_text().splitlines())])
    )
    yield "others", settings(way, told, cohort={"root": str(other)}), Fault, ""


def test_faults_are_one_sentence(way: Way, tmp_path: Path) -> None:
    for name, given, kind, words in faults(way, tmp_path):
        with pytest.raises(kind) as told:
            served.board(given)
        assert told.value.exit_code in (2, 3), name
        assert words in str(told.value), (name, str(told.value))
        assert "\n" not in str(told.value), name


def test_slides_and_scans_that_are_gone_leave_the_rest(way: Way, tmp_path: Path) -> None:
    """The tables are there, the folders of pictures are not."""
    data = tmp_path / "data"
    shutil.copytree(way.data, data)
    for folder in (p for p in data.iterdir() if p.is_dir() and p.name != "truth"):
        shutil.rmtree(folder)
    read = {"cohort": {"root": str(data)}, "paths": {"out": str(tmp_path / "out")}}
    assert served.scans(read, tmp_path, {"P0001"}) == []


def test_a_run_is_shown_after_its_features_were_deleted(way: Way, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(way.data, data)
    files = list(data.rglob("*.h5"))
    assert files
    for path in files:
        path.unlink()
    board = served.board(settings(way, way.folder("predict", "told"), cohort={"root": str(data)}))
    assert len(board.ids) == 40
    assert len(shown(board)["tasks"]) == 4
