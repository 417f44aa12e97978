"""Reviews are kept for ever, in order, as they were said."""

from __future__ import annotations

import csv
import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.reviews import Reviews
from tests.viewer.board import EVIL


def say(client: TestClient, **more: Any) -> Any:
    return client.post(
        "/api/reviews", json={"id": "P0001", "task": "grade", "author": "Dr. A", "verdict": "agree", **more}
    )


def test_what_was_said_is_told_again_with_time_and_author(client: TestClient, fresh: Board) -> None:
    assert say(client).status_code == 201
    assert say(client, verdict="disagree", note="  tile 3 is\nnecrosis ", author="Dr. Ü").status_code == 201
    assert say(client, id=EVIL, task="", verdict="", note=EVIL).status_code == 201
    rows = client.get("/api/reviews", params={"id": "P0001"}).json()["reviews"]
    assert [(row["author"], row["verdict"], row["note"]) for row in rows] == [
        ("Dr. A", "agree", ""),
        ("Dr. Ü", "disagree", "tile 3 is\nnecrosis"),
    ]
    assert all(row["time"].endswith("Z") and row["model"] == "first" for row in rows)
    assert client.get("/api/reviews").json()["last"] == {"P0001": {"grade": "disagree"}}
    assert fresh.reviews is not None
    assert len(fresh.reviews.read_text("utf-8").splitlines()) == 3


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"id": "nobody"}, 404),
        ({"task": "nothing"}, 404),
        ({"verdict": "yes"}, 422),
        ({"author": ""}, 422),
        ({"verdict": "", "note": "  "}, 400),
        ({"note": "x" * 20_000}, 422),
        ({"note": "x" * 70_000}, 413),
    ],
)
def test_what_is_no_review_is_refused_and_nothing_is_written(
    client: TestClient, fresh: Board, more: dict[str, str], status: int
) -> None:
    assert say(client, **more).status_code == status
    assert fresh.reviews is not None
    assert not fresh.reviews.exists()


def test_formulas_are_text_to_a_spreadsheet(client: TestClient) -> None:
    say(client, note='=HYPERLINK("http://evil.com")')
    answer = client.get("/api/reviews.csv")
    assert "attachment" in answer.headers["content-disposition"]
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["note"].startswith("'=")


def test_reviews_of_many_at_once_are_all_there_and_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    kept = Reviews(tmp_path / "r.jsonl")
    threads = [threading.Thread(target=kept.add, args=({"author": str(k), "note": "x" * 2000},)) for k in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with (tmp_path / "r.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"author": "torn"})[:9])
    assert sorted(int(row["author"]) for row in kept.rows()) == list(range(20))
    kept.add({"author": "20"})
    assert kept.rows()[-1]["author"] == "20"


def test_a_note_with_a_line_separator_is_one_review(tmp_path: Path) -> None:
    kept = Reviews(tmp_path / "r.jsonl")
    kept.add({"author": "a", "note": "one\u2028two\x85three"})
    assert [row["note"] for row in kept.rows()] == ["one\u2028two\x85three"]
