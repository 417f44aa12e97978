"""The evidence on who is known again, small: no stranger of clinical tables and genes, and those of the training."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import pytest

SCRIPT = run_path(str(Path(__file__).parent / "evidence" / "known_again.py"))


@pytest.mark.parametrize(
    ("kind", "under_other_ids"), [("coarse", 0.0), ("registry", 0.95), ("missing", 0.0), ("genes", 1.0)]
)
def test_strangers_are_not_taken_for_patients_of_the_training(kind: str, under_other_ids: float) -> None:
    found = SCRIPT["run"](SCRIPT[kind], 150, 0)
    assert found["stranger"] == found["stranger/X"] == 0
    assert found["mixture, stranger"] <= 0.03
    assert {found[word] for word in ("as it was", "three digits", "two decimals", "half precision", "a cell")} == {1.0}
    assert found["as it was/X"] >= under_other_ids
