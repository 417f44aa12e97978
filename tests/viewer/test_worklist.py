"""The worklist says what the run says, in one pass over its tables; faults are pages to whoever opens one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from starlette.testclient import TestClient

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.viewer import worklist
from nsclc_mtl.viewer.app import HERE
from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.faults import without_paths
from nsclc_mtl.viewer.patient import Details
from nsclc_mtl.viewer.worklist import KEPT, rank, whole
from tests.viewer import board as toys
from tests.viewer.board import EVIL

PAGE = {"accept": "text/html,application/xhtml+xml"}


def test_a_row_says_what_the_page_of_the_patient_says(client: TestClient, shown: Board) -> None:
    text = client.get("/api/worklist").text
    told = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert [row["id"] for row in told["patients"]] == shown.ids
    assert told["covariates"] == ["site", "age", "sex"]
    details = Details(shown)
    for row in told["patients"]:
        page = details.of(row["id"])
        assert {k: row[k] for k in ("present", "missing", "reasons", "abstains")} == {
            k: page[k] for k in ("present", "missing", "reasons", "abstains")
        }
        assert [row["slides"], row["scans"]] == [len(page["slides"]), len(page["scans"])]
        for task in page["tasks"]:
            assert {k: row["tasks"][task["name"]][k] for k in KEPT} == {k: task[k] for k in KEPT}


def test_blanks_and_what_was_not_predicted_are_null(tmp_path: Path) -> None:
    board = toys.make(tmp_path, pictures=False)
    said = board.models[0]
    rows = said.predictions
    object.__setattr__(said, "predictions", rows[~((rows["patient_id"] == "P0001") & (rows["task"] == "grade"))])
    rows.loc[rows["patient_id"] == "P0002", "value"] = float("nan")
    board.covariates.loc["P0001", "age"] = None
    first, second, *_ = json.loads(json.dumps(whole(board), allow_nan=False))["patients"]
    assert first["tasks"]["grade"] is None
    assert "age" not in first["covariates"]
    assert first["tasks"]["survival"]["rank"] is not None
    object.__setattr__(said, "predictions", rows)
    assert whole(board)["patients"][1]["tasks"]["survival"]["risk"] is None
    assert second["id"] == "P0002"


def test_reasons_sets_and_disagreement_are_told(tmp_path: Path) -> None:
    board = toys.make(tmp_path, pictures=False)
    told = [
        ("P0001", "0", "grade", "set", "G2|G3"),
        ("P0001", "0", "response", "flag:disagree", "1"),
        ("P0001", "0", "response", "reason", "response: the members disagree"),
        ("P0005", "0", "", "flag:outside", "1"),
        ("P0005", "0", "subtype", "set", ""),
    ]
    said = board.models[0]
    columns = list(said.trust.columns)
    object.__setattr__(said, "trust", pd.concat([said.trust, pd.DataFrame(told, columns=columns)], ignore_index=True))
    rows = {row["id"]: row for row in whole(board)["patients"]}
    assert rows["P0001"]["tasks"]["grade"]["set"] == ["G2", "G3"]
    assert [rows["P0001"]["tasks"][t]["abstains"] for t in ("grade", "response", "subtype")] == [True, True, False]
    assert rows["P0001"]["tasks"]["response"]["reasons"] == ["response: the members disagree"]
    assert not rows["P0001"]["abstains"]
    assert rows["P0005"]["abstains"]


def test_more_patients_are_no_more_passes_over_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Selections from tables are counted: as many for 300 patients as for 5, so a row costs dictionaries only."""
    few, many = (toys.make(tmp_path / str(n), patients=n, pictures=False) for n in (5, 300))
    passes: list[int] = []
    for kind in (pd.DataFrame, pd.Series):
        real = kind.__getitem__
        monkeypatch.setattr(kind, "__getitem__", lambda self, key, real=real: (passes.append(1), real(self, key))[1])
    counts = []
    for board in (few, many):
        passes.clear()
        whole(board)
        counts.append(len(passes))
    assert 0 < counts[0] == counts[1] < 100


def test_the_list_is_made_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first = client.get("/api/worklist").content
    monkeypatch.setattr(worklist, "whole", lambda board: pytest.fail("made again"))
    assert client.get("/api/worklist").content == first


@pytest.mark.parametrize(
    ("kind", "classes", "task", "one_scale", "number"),
    [
        ("ordinal", ("a", "b", "c"), {"p": [0.2, 0.3, 0.5]}, False, 1.3),
        ("binary", ("a", "b"), {"p": [0.25, 0.75]}, False, 0.75),
        ("multiclass", ("a", "b", "c"), {"p": [0.1, 0.7, 0.2]}, False, 1.3),
        ("multiclass", ("a", "b", "c"), {"p": [None, 0.7, 0.2]}, False, None),
        ("regression", (), {"value": 3.5}, False, 3.5),
        ("survival", (), {"said": "event", "confidence": 0.8}, False, 0.8),
        ("survival", (), {"said": "event-free", "confidence": 0.8}, False, 0.2),
        ("survival", (), {"risk": 4.0}, True, 4.0),
        ("survival", (), {"risk": 4.0}, False, None),  # risks of different folds have no common scale
    ],
)
def test_what_a_column_is_sorted_by(
    kind: Any, classes: tuple[str, ...], task: dict[str, Any], one_scale: bool, number: float | None
) -> None:
    p = task.pop("p", [])
    whole_task = {"said": None, "confidence": None, "risk": None, "value": None} | task
    whole_task["probabilities"] = [{"class": c, "p": v} for c, v in zip(classes, p, strict=True)]
    found = rank(TaskSpec("t", kind, classes), whole_task, one_scale)
    assert found == (None if number is None else pytest.approx(number))


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nothing", 404, "no such page"),
        ("/patient?id=nobody", 404, "no patient"),
        ("/patient", 422, "id: field required"),
        ("/static/nothing.css", 404, "no such page"),
    ],
)
def test_a_fault_is_a_page_to_a_reader_and_a_sentence_to_a_script(
    client: TestClient, path: str, status: int, words: str
) -> None:
    page = client.get(path, headers=PAGE)
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (status, "text/html")
    assert words in page.text.lower()
    assert "Research use only" in page.text
    script = client.get(path)
    assert script.status_code == status
    assert words in script.json()["fault"].lower()


def test_what_was_asked_for_is_escaped_and_paths_are_not_told(client: TestClient) -> None:
    page = client.get("/patient", params={"id": f"{EVIL}x"}, headers=PAGE)
    assert EVIL not in page.text
    assert "&lt;img" in page.text
    told = without_paths("cannot read /data/secret/a.svs and 'C:\\data\\b.csv': P/3 ü is 1/2 read")
    assert told == "cannot read a.svs and 'b.csv': P/3 ü is 1/2 read"


def test_what_goes_wrong_unexpectedly_is_not_told_in_detail(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worklist, "whole", lambda board: {}["/data/secret"])
    answer = client.get("/api/worklist")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("path", ["/", "/patient?id=P0001", "/nothing"])
def test_every_page_says_what_it_is_for_and_where_one_is(client: TestClient, path: str) -> None:
    text = client.get(path, headers=PAGE).text
    assert '<html lang="en">' in text
    assert 'class="skip" href="#main"' in text
    assert "Research use only" in text
    assert len(re.findall("aria-current", text)) == (path != "/nothing")
    assert re.search(r"<title>[^<]+ – toy &amp; co</title>", text)


def test_texts_stand_out_from_what_is_behind_them() -> None:
    """WCAG 2.1, contrast at least 4.5 for texts and 3 for the focus; relative luminance of sRGB."""

    def luminance(colour: str) -> float:
        colour = colour.lstrip("#")
        colour = "".join(c * 2 for c in colour) if len(colour) == 3 else colour
        parts = [int(colour[k : k + 2], 16) / 255 for k in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    css = (HERE / "static" / "base.css").read_text("utf-8")
    token = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{3,6})", css))
    row = "#eaf3f9"  # the marked row of the worklist
    assert row in (HERE / "static" / "worklist.css").read_text("utf-8")
    behind = [token["paper"], token["wash"], row, "#e4eef5"]
    for text in ("ink", "soft", "blue", "warm", "faint"):
        for ground in behind:
            assert contrast(token[text], ground) >= 4.5, (text, ground)
    assert contrast(token["ink"], token["mark"]) >= 4.5
    assert contrast("#fff", token["blue"]) >= 4.5
    assert min(contrast(token["focus"], ground) for ground in behind) >= 3
