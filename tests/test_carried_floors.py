"""`mtl evaluate cohort=OTHER`: the floors are fitted on the training cohort and carried over to the new patients."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_way import Way

from nsclc_mtl.baselines.design import Design
from nsclc_mtl.baselines.ridge import newton
from nsclc_mtl.commands.cohort import open_cohort
from nsclc_mtl.commands.trained import read_table
from nsclc_mtl.metrics.partial_likelihood import CoxLikelihood
from nsclc_mtl.phantom.cohort import make

CHEAP = ("modalities=[clinical,rna]", "tasks=[stage,survival]", "audit=0")


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """A working folder with a trained run, and another cohort whose patients bear the same ids."""
    made = Way(tmp_path_factory.mktemp("carried"))
    assert made.train("whole", *CHEAP) == 0
    make(made.root / "other", level="features", n=30, seed=5)
    return made


def elsewhere(way: Way, name: str, *words: str) -> Path:
    other = ("cohort=phantom", "cohort.level=features", "cohort.n=30", f"cohort.root={way.root / 'other'}")
    assert way.run("evaluate", name, f"ckpt={way.folder()}", *other, "bootstrap=30", *words) == 0
    return way.folder("evaluate", name)


@pytest.mark.slow
def test_floors_of_the_training_cohort_judge_the_new_patients(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    out = elsewhere(way, "new")
    rows = json.loads((out / "metrics.json").read_text())
    whole = {(r["task"], r["model"]): r for r in rows if r["metric"] == "c_index" and r["fold"] == "all"}
    assert {m for _, m in whole if not m.startswith("oracle:")} == {
        "learner",
        "floor:stage",
        "floor:clinical",
        "floor:rna",
        "floor:all tables",
    }
    assert len({r["n"] for r in whole.values()}) == 1
    assert any(r["metric"] == "difference:c_index" for r in rows)
    said = capsys.readouterr().out
    assert "floors fitted on 39 patients of the training cohort" in said or "floors fitted on 40 patients" in said
    told = read_table(out / "floors.csv")
    assert set(told["fold"]) == {"-1"}
    assert set(told["patient_id"]) == set(way.table("evaluate", "new")["patient_id"])
    assert "floor" in (out / "report.html").read_text()


def test_a_floor_is_what_the_training_patients_alone_make_of_it(way: Way) -> None:
    """Its order of the new patients is that of a ridge Cox model of the old ones."""
    floors = read_table(elsewhere(way, "one", "floors=[clinical]") / "floors.csv")
    mine = floors[(floors["task"] == "survival") & (floors["output"] == "risk")].set_index("patient_id")["value"]
    cohort = {"level": "features", "n": 40, "seed": 0, "missing": "mcar", "site": "none"}
    trained = yaml.safe_load((way.folder() / "config.yaml").read_text())
    old = open_cohort(trained)
    new = open_cohort({**trained, "cohort": {**trained["cohort"], **cohort, "n": 30, "root": str(way.root / "other")}})
    label = old.labels["survival"].dropna()
    design = Design(old.tables["clinical"], list(label.index))
    z = design(old.tables["clinical"], list(label.index))
    like = CoxLikelihood(z, label["time_days"].to_numpy(), label["event"].to_numpy())
    found = []
    for penalty in np.geomspace(0.1, 1e4, 30):
        risk = design(new.tables["clinical"], list(mine.index)) @ newton(like, np.zeros(z.shape[1]), penalty)
        found.append(np.corrcoef(risk, mine)[0, 1])
    assert max(found) > 0.98


def test_without_the_training_cohort_the_floors_are_missing_and_said(
    way: Way, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(way.data, way.root / "gone")
    try:
        out = elsewhere(way, "alone")
    finally:
        shutil.move(way.root / "gone", way.data)
    assert "no floors, because the training cohort is not at hand: " in capsys.readouterr().out
    models = {r["model"] for r in json.loads((out / "metrics.json").read_text())}
    assert not {m for m in models if m.startswith("floor:")}


@pytest.mark.slow
def test_no_floor_wanted_is_none_fitted(way: Way) -> None:
    out = elsewhere(way, "none", "floors=[]")
    assert not (out / "floors.csv").exists()
