"""What a reader takes away: the right rows, names that every disk takes, texts that no spreadsheet computes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from starlette.testclient import TestClient

from nsclc_mtl.viewer.app import build
from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.exports import cell, neutral, plain_name
from nsclc_mtl.viewer.guard import Guard
from tests.viewer.board import EVIL, PATIENTS, TASKS
from tests.viewer.conftest import PORT

NAME = re.compile(r'attachment; filename="([A-Za-z0-9][A-Za-z0-9._-]*)"')


@pytest.fixture
def explained(fresh: Board, tmp_path: Path) -> Board:
    """The board with a page, features and tiles for QuPath of the first patient."""
    folder = tmp_path / "patients"
    (folder / "0").mkdir(parents=True)
    (folder / "1").mkdir()
    (folder / "0" / "page.html").write_text("<!doctype html><p>one file</p>", encoding="utf-8")
    (folder / "0" / "features.csv").write_text(
        "patient_id,task,modality,feature,value,attribution\nP0001,grade,clinical,=cmd|' /C calc'!A0,@x,-0.25\n",
        encoding="utf-8",
    )
    (tmp_path / "secret.html").write_text("secret", encoding="utf-8")
    (folder / "1" / "page.html").symlink_to(tmp_path / "secret.html")
    tiles = tmp_path / "tiles.geojson"
    tiles.write_text('{"type": "FeatureCollection", "features": []}', encoding="utf-8")
    slides = [replace(fresh.slides[0], tiles=tiles), *fresh.slides[1:]]
    return replace(fresh, slides=slides, folder=lambda patient: folder / str(PATIENTS.index(patient)))


@pytest.fixture
def reader(explained: Board) -> Iterator[TestClient]:
    guard = Guard.local(PORT)
    with TestClient(
        build(explained, guard), base_url=f"http://127.0.0.1:{PORT}", cookies={guard.cookie: guard.token}
    ) as one:
        yield one


def kept(answer: Any) -> str:
    """The file name of a download that is one."""
    assert answer.status_code == 200, answer.text
    found = NAME.fullmatch(answer.headers["content-disposition"])
    assert found, answer.headers["content-disposition"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    return found[1]


def test_every_export_that_is_listed_is_there_and_the_others_say_how_to_get_them(reader: TestClient) -> None:
    seen = set()
    for patient in PATIENTS:
        rows = reader.get("/api/patient", params={"id": patient}).json()["exports"]
        assert len({row["name"] for row in rows}) == len(rows)
        for row in rows:
            assert (row["url"] is None) != (row["why"] is None)
            if row["url"] is None:
                assert "mtl predict" in row["why"]
            else:
                seen.add(kept(reader.get(row["url"])))
    assert {"predictions-P0001-first.csv", "patient-P0001.html", "features-P0001.csv"} <= seen
    assert {"tiles-P0001-S1.csv", "tiles-P0001-S1.geojson"} <= seen
    assert len([name for name in seen if name.startswith("predictions-")]) == len(PATIENTS)


@pytest.mark.parametrize("patient", ["P0001", EVIL])
def test_predictions_are_the_rows_of_the_run(reader: TestClient, explained: Board, patient: str) -> None:
    answer = reader.get("/api/exports/predictions.csv", params={"id": patient, "model": "second"})
    assert "second" in kept(answer)
    rows = pd.read_csv(io.StringIO(answer.text), dtype=str, keep_default_na=False)
    said, own = explained.models[1], rows[rows["table"] == "predictions"]
    mine = said.predictions[said.predictions["patient_id"] == patient]
    assert list(own["value"].astype(float)) == list(mine["value"])
    assert set(own["patient_id"]) == {patient}
    trust = rows[(rows["table"] == "trust") & (rows["patient_id"] != "")]
    assert list(trust["output"]) == list(said.trust[said.trust["patient_id"] == patient]["what"])
    assert set(trust["task"]) == set(TASKS)


def test_the_page_is_kept_and_never_shown_and_links_out_are_not_followed(reader: TestClient) -> None:
    answer = reader.get("/api/exports/page.html", params={"id": "P0001"})
    assert kept(answer) == "patient-P0001.html"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "script" not in answer.headers["content-security-policy"]
    assert reader.get("/api/exports/page.html", params={"id": "P0002"}).status_code == 404


def test_what_is_not_shown_is_not_found(reader: TestClient) -> None:
    for path in (
        "page.html?id=nobody",
        "page.html?id=../../secret",
        "page.html?id=P0001%2F..%2F..%2Fsecret",
        "features.csv?id=%2e%2e",
        "predictions.csv?id=nobody",
        "predictions.csv?id=P0001&model=../second",
        "tiles.csv?slide=99",
        "tiles.csv?slide=-1",
        "tiles.geojson?slide=1",
        "../../../../etc/passwd",
        "%2e%2e/%2e%2e/secret.html",
    ):
        answer = reader.get(f"/api/exports/{path}")
        assert answer.status_code == 404, path
        assert "/tmp" not in answer.text
        assert "secret" not in answer.text or "secret" in path
    assert reader.get("/api/exports/tiles.csv?slide=../0").status_code == 422


def test_nobody_without_the_token_takes_anything(stranger: TestClient) -> None:
    assert stranger.get("/api/exports/predictions.csv?id=P0001").status_code == 401


def test_texts_are_no_formulas_and_numbers_stay_numbers(reader: TestClient) -> None:
    (row,) = csv.DictReader(io.StringIO(reader.get("/api/exports/features.csv?id=P0001").text))
    assert row["feature"].startswith("'=cmd")
    assert row["value"] == "'@x"
    assert row["attribution"] == "-0.25"
    assert [cell(v) for v in ("-1e-3", "-inf", "+a", "-1\n", 0.5, "\t=1")] == [
        "-1e-3",
        "'-inf",
        "'+a",
        "'-1\n",
        0.5,
        "'\t=1",
    ]
    assert neutral(b'a,"=b"\n"x\ny",-2\n') == 'a,\'=b\n"x\ny",-2\n'


@pytest.mark.parametrize(
    "word", ["P/3 ü", EVIL, "..", "", "a" * 300, 'x"; filename="y', "CON", "x\r\nset-cookie: a=b", "患者"]
)
def test_names_are_plain_and_differ_where_ids_do(word: str) -> None:
    name = plain_name(word)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", name)
    assert name == plain_name(word) != plain_name(f"{word}/")
    assert not name.startswith(".")
