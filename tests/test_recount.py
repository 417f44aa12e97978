"""Every number of an evaluation once more, from the files beside it and without the code that made it."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sksurv.metrics import concordance_index_censored

from nsclc_mtl.phantom.cohort import make

import plain_metrics as plain
from recount import Key, Recount, Row
from test_way import Way

NOT_RECOUNTED: dict[str, str] = {
    "deletion_gap:": "needs the model: what it says of patients without some of their tiles (`explained=`)",
    "nadeau_bengio:": "only where patients are dealt into folds anew several times (`folds.repeats`)",
    "p_nadeau_bengio:": "the same",
    "log_rank_p": "only of one fold: risk groups of several are not independent of the outcome",
}
"""Kinds of rows that these files do not tell, or that these runs do not have. A new kind has to be recounted or stand
here with its reason."""


@dataclass
class Told:
    """What an evaluation wrote, and what the recount makes of the same files."""

    folder: Path
    rows: dict[Key, dict[str, Any]]
    again: dict[Key, Row]


@pytest.fixture(
    scope="module", params=["small", pytest.param("whole", marks=pytest.mark.slow)], ids=["small", "whole"]
)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    way = Way(tmp_path_factory.mktemp("recount"))
    words = ["audit=0", "folds.calibration=0.3", "trust.miss=0.3"]
    judged = ["bootstrap=24", "floors=[stage]", "primary_floor=stage"]
    if request.param == "whole":
        way.data = make(way.root / "more", level="features", n=150, seed=1)
        words += ["cohort.n=150", "cohort.seed=1", "folds.n=3", "folds.validation=0.1", "optim.min_steps=40"]
        words += ["trainer.max_epochs=10"]
        judged = ["bootstrap=60", "floors=[stage, clinical, rna, all tables]"]
    assert way.train("whole", *words) == 0
    assert way.run("evaluate", "e", f"ckpt={way.folder()}", *judged) == 0
    folder = way.folder("evaluate", "e")
    rows = json.loads((folder / "metrics.json").read_text())
    by_key = {(r["task"], r["metric"], r["part"], r["fold"], r["model"]): r for r in rows}
    assert len(by_key) == len(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # infinite weights: NaN in the end
        again = Recount(way.data, way.folder(), folder).rows
    return Told(folder, by_key, again)


def test_every_row_is_recounted_or_named(told: Told) -> None:
    wanted = {key for key in told.rows if not key[1].startswith(tuple(NOT_RECOUNTED))}
    assert set(told.again) == wanted


def test_every_value_and_interval_is_that_of_the_files(told: Told) -> None:
    wrong = []
    for key, mine in told.again.items():
        row = told.rows[key]
        theirs = [math.nan if row[end] is None else row[end] for end in ("value", "lo", "hi")]
        if not np.allclose(mine[:3], theirs, rtol=1e-6, atol=1e-6, equal_nan=True):
            wrong.append((key, mine[:3], theirs, row["reason"]))
    assert not wrong, "\n".join(map(str, wrong[:20]))


def test_every_row_counts_its_patients_and_events(told: Told) -> None:
    counted = {key: (row["n"], row["n_events"]) for key, row in told.rows.items() if key in told.again}
    assert counted == {key: mine[3:] for key, mine in told.again.items()}


def test_what_has_no_value_says_why_and_nothing_else_is_missing(told: Told) -> None:
    for key, row in told.rows.items():
        if row["value"] is None:
            assert row["reason"], key
            assert row["lo"] is row["hi"] is None, key
        if row["lo"] is not None:
            assert row["lo"] <= row["hi"], key


def test_plain_concordances_are_those_of_other_libraries() -> None:
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, 40) * 1.0, rng.integers(0, 9, 40) * 1.0
    assert plain.in_order(label, score) == pytest.approx(roc_auc_score(label, score))
    time = rng.integers(1, 20, 40) * 1.0
    assert plain.concordance(score, time, label) == pytest.approx(concordance_index_censored(label == 1, time, score)[0])
