"""Two sides beside each other are what each says alone, and their difference is told in true words."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from nsclc_mtl.viewer.compare import differences, overall
from tests.viewer.board import EVIL, TASKS


def task(kind: str = "binary", **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "kind": kind, "classes": ["no", "yes"], "said": "yes", "set": None, "position": None, "abstains": False,
        "contributions": [], "group": None, "curve": None, "value": None, "unit": "",
        "probabilities": [{"class": "no", "p": 0.3}, {"class": "yes", "p": 0.7}],
    }  # fmt: skip
    return base | more


def yes(p: float) -> list[dict[str, Any]]:
    return [{"class": "no", "p": 1 - p}, {"class": "yes", "p": p}]


def adds(modality: str, value: float) -> list[dict[str, Any]]:
    return [{"modality": modality, "value": value, "present": True}]


def curve(*points: tuple[int, float]) -> dict[str, Any]:
    return {"days": [day for day, _ in points], "survival": [s for _, s in points]}


P = "in the probability of"
CASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("binary", {"probabilities": yes(0.55)}, {"probabilities": yes(0.34)},
     f"The two differ by 21 percentage points {P} yes (55 % and 34 %)."),
    ("binary", {"probabilities": yes(0.5)}, {"probabilities": yes(0.501)},
     f"The two differ by less than a percentage point {P} yes (50 % and 50 %)."),
    ("ordinal", {}, {}, "The two differ by less than a percentage point in every class."),
    ("binary", {}, {"said": "no"}, "A is said to be yes, B no."),
    ("binary", {"set": ["yes"]}, {"set": ["no"]}, "The prediction sets share no class."),
    ("binary", {"set": ["yes", "no"]}, {"set": ["yes"]}, "Both prediction sets hold yes; they are not the same."),
    ("binary", {}, {"abstains": True}, "The model does not decide on B."),
    ("binary", {"position": {"values": [1, 2, 3, 4], "own": 2.5}}, {"position": {"values": [1, 2], "own": 0}},
     "A lies above 50 % of the test patients, B above none."),
    ("binary", {"contributions": adds("wsi", -1)}, {"contributions": adds("rna", 0.1)},
     "Strongest modality: wsi for A, rna for B."),
    ("regression", {"value": 3.0, "unit": "mm"}, {"value": 4.5, "unit": "mm"}, "The two differ by 1.5 mm (3 and 4.5)."),
    ("survival", {"group": "lower risk"}, {"group": "higher risk"},
     "A is in the lower risk group, B in the higher risk group."),
    ("survival", {"curve": curve((365, 0.9), (1095, 0.8))}, {"curve": curve((365, 0.8), (1095, 0.5), (1825, 0.1))},
     f"The two differ by 30 percentage points {P} no event at 3 years (80 % and 50 %), where they differ most."),
    ("survival", {"curve": curve((100, 0.9))}, {"curve": curve((200, 0.8))},
     "The two curves have no day in common to be compared at."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "a", "b", "sentence"), CASES)
def test_a_difference_is_told_in_words(kind: str, a: dict[str, Any], b: dict[str, Any], sentence: str) -> None:
    assert sentence in differences(task(kind, **a), task(kind, **b))


def test_what_one_side_lacks_is_said_of_that_side() -> None:
    side = {"id": "P1", "model": "m", "missing": [], "present": ["wsi", "rna"], "abstains": False, "tasks": []}
    other = side | {"id": "P2", "missing": ["rna"], "present": ["wsi"], "abstains": True}
    assert overall(side, other) == [
        "Only P2 was predicted without rna.",
        "The model should not be relied on for P2.",
    ]
    folds = [side | {"id": f"P{k}", "tasks": [{"name": "os", "fold": str(k)}]} for k in range(2)]
    assert "share no scale" in overall(*folds)[0]
    assert "cannot be laid to either" in overall(side, other | {"model": "n"})[0]
    assert overall(side, side) == ["Both sides show the same patient under the same model."]


@pytest.mark.parametrize(("a", "b", "model_b"), [("P0001", "P0002", ""), ("P0001", "", "second"), ("P/3 ü", EVIL, "")])
def test_each_side_is_what_its_own_page_says(client: TestClient, a: str, b: str, model_b: str) -> None:
    told = client.get("/api/compare", params={"a": a, "b": b, "model_b": model_b}).json()
    assert told["a"] == client.get("/api/patient", params={"id": a}).json()
    assert told["b"] == client.get("/api/patient", params={"id": b or a, "model": model_b}).json()
    assert [one["name"] for one in told["tasks"]] == list(TASKS)
    (response,) = (one["words"] for one in told["tasks"] if one["name"] == "response")
    p = [
        next(q["p"] for t in told[s]["tasks"] if t["name"] == "response" for q in t["probabilities"][1:]) for s in "ab"
    ]
    (points,) = (m[1] for word in response if (m := re.search(r"differ by (\d+) percentage", word)))
    assert int(points) == round(100 * abs(p[0] - p[1]))


@pytest.mark.parametrize(
    "query",
    [
        {"a": "nobody", "b": "P0001"},
        {"a": "P0001", "b": "../P0002"},
        {"a": "P0001", "b": "P0002", "model_b": "nothing"},
    ],
)
def test_who_is_not_shown_is_not_compared_and_the_page_says_so(client: TestClient, query: dict[str, str]) -> None:
    assert client.get("/api/compare", params=query).status_code == 404
    page = client.get("/compare", params=query)
    assert page.status_code == 404
    assert 'role="alert"' in page.text


def test_the_page_offers_every_patient_and_escapes_what_it_is_asked(client: TestClient) -> None:
    page = client.get("/compare")
    assert page.status_code == 200
    assert page.text.count("<option value=") == 5
    assert "onerror=&#34;" in page.text
    assert EVIL not in page.text
    assert EVIL not in client.get("/compare", params={"a": EVIL, "b": "P0001"}).text
    assert "<script>x" not in client.get("/compare", params={"a": "<script>x", "b": '"><script>x'}).text
