"""Train and predict on series of visits and sections of spots: the course over time, and not its end, is learned."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import visium
import yaml

from nsclc_mtl.bags.datamodule import FoldData
from nsclc_mtl.cohort import manifest
from nsclc_mtl.config import execute
from nsclc_mtl.metrics.classification import auc

pytestmark = pytest.mark.slow  # trainings whose tables and sections are made first

N, GENES = 90, [f"G{i}" for i in range(12)]
COHORT = {
    "name": "courses",
    "root": None,
    "patients": {"file": "patients.csv"},
    "tasks": {
        "response": {"kind": "binary", "column": "response", "classes": ["falls", "rises"]},
        "subtype": {"kind": "binary", "column": "subtype", "classes": ["a", "b"]},
    },
    "modalities": {
        "ctdna": {"kind": "series", "table": "visits.csv", "until_days": 90},
        "st": {"kind": "spots", "top_variance": 8},
    },
}


def write(root: Path, n: int = N, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """A cohort whose response is the direction of `marker` over time, from a baseline of its own a patient, and whose
    subtype is the expression of one gene in a quarter of the spots; and the last value of every patient."""
    rng = np.random.Generator(np.random.PCG64(seed))
    root.mkdir(parents=True)
    ids = [f"{i:03d}" for i in range(n)]
    rises, kind = rng.random(n) < 0.5, rng.random(n) < 0.5
    patients = pd.DataFrame({"response": np.where(rises, "rises", "falls"), "subtype": np.where(kind, "b", "a")}, ids)
    patients.to_csv(root / "patients.csv", index_label="patient_id")
    rows, sections, last = [], [], {}
    for i, patient in enumerate(ids):
        if rng.random() < 0.9:
            days = np.sort(rng.choice(100, rng.integers(3, 7), replace=False))
            marker = 5 + 3 * rng.normal() + (1 if rises[i] else -1) * 0.02 * days + 0.2 * rng.normal(size=len(days))
            cells = [f"{v:.3f}" if rng.random() < 0.85 else "" for v in marker]
            rows += [(patient, d, cell, f"{rng.normal():.3f}") for d, cell in zip(days, cells, strict=True)]
            seen = [float(c) for d, c in zip(days, cells, strict=True) if c and d <= 90]
            last.update({patient: seen[-1]} if seen else {})
        if rng.random() < 0.9:
            counts = rng.poisson(4, (30, len(GENES)))
            counts[:8, 3] += 25 * int(kind[i])
            places = rng.integers(0, 5000, (30, 2))
            if i % 2 == 0:
                visium.visium(root / f"s{patient}", counts, places, GENES)
            else:
                visium.h5ad(root / f"s{patient}.h5ad", counts, places, GENES)
            sections.append((f"sec{patient}", patient, f"s{patient}" + (".h5ad" if i % 2 else "")))
    visits = pd.DataFrame(rows, columns=["patient_id", "days", "marker", "noise"]).sample(frac=1, random_state=seed)
    visits.to_csv(root / "visits.csv", index=False)
    pd.DataFrame(sections, columns=["section_id", "patient_id", "path"]).to_csv(root / "spots.csv", index=False)
    return patients, pd.Series(last)


def run(root: Path, verb: str, *words: str) -> int:
    body = import_module(f"nsclc_mtl.commands.{verb}").body
    paths = [f"paths.runs={root / 'runs'}", f"paths.out={root / 'out'}", "device=cpu"]
    return execute(verb, [*paths, *words], lambda: body, conf_dirs=[root / "conf"])


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, pd.Series]:
    """A working folder in which two folds were trained."""
    root = tmp_path_factory.mktemp("courses")
    patients, last = write(root / "data")
    (root / "conf" / "cohort").mkdir(parents=True)
    (root / "conf" / "cohort" / "courses.yaml").write_text("# a cohort\n" + yaml.safe_dump(COHORT))
    words = ["name=whole", "cohort=courses", f"cohort.root={root / 'data'}", "folds.n=2", "folds.workers=0", "audit=3"]
    assert run(root, "train", *words, "optim.min_steps=200", "logger=none") == 0
    return root, patients, last


def scores(folder: Path, task: str) -> pd.Series:
    table = pd.read_csv(folder / "predictions.csv", dtype={"patient_id": str})
    table = table[(table["task"] == task) & (table["part"] == "test") & table["output"].str.startswith("p:")]
    return table[table["output"] == table["output"].iloc[-1]].set_index("patient_id")["value"]


def test_the_course_is_learned_and_not_only_its_end(way: tuple[Path, pd.DataFrame, pd.Series]) -> None:
    root, patients, last = way
    rows = json.loads((root / "runs" / "train" / "whole" / "metrics.json").read_text())
    told = {row["task"]: row["value"] for row in rows if row["fold"] == "all"}
    rises = (patients.loc[last.index, "response"] == "rises").to_numpy(int)
    only_last = auc(rises, last.to_numpy())
    assert told["response"] > 0.9
    assert only_last < 0.8
    assert told["subtype"] > 0.85


# that each of them finds a course stands in tests/encoders/test_recurrent.py
@pytest.mark.parametrize("encoder", ["gru", pytest.param("transformer", marks=pytest.mark.slow)])
def test_the_other_encoders_of_visits_find_it_too(way: tuple[Path, pd.DataFrame, pd.Series], encoder: str) -> None:
    root = way[0]
    words = [f"name={encoder}", "cohort=courses", f"cohort.root={root / 'data'}", "folds.n=2", "folds.workers=0"]
    only = ["modalities=[ctdna]", "tasks=[response]", "audit=0", "optim.min_steps=300", "logger=none"]
    assert run(root, "train", *words, *only, f"series_encoder={encoder}") == 0
    trained = root / "runs" / "train" / encoder
    told = {row["fold"]: row["value"] for row in json.loads((trained / "metrics.json").read_text())}
    assert told["all"] > 0.85
    assert run(root, "predict", f"name={encoder}", f"ckpt={trained}", "explain.patients=0", "explain.features=0") == 0
    again, before = scores(root / "runs" / "predict" / encoder, "response"), scores(trained, "response")
    pd.testing.assert_series_equal(again, before.loc[again.index], rtol=1e-4)


def test_a_series_that_is_handed_around_is_missed(way: tuple[Path, pd.DataFrame, pd.Series]) -> None:
    """The modality audit permutes and drops series and spots like any other modality."""
    rows = json.loads((way[0] / "runs" / "train" / "whole" / "audit.json").read_text())
    lost = {(r["task"], r["modality"], r["mode"]): r["loss"] for r in rows}
    for mode in ("permute", "drop"):
        assert lost["response", "ctdna", mode] > 0.2
        assert lost["subtype", "st", mode] > 0.2
        assert abs(lost["response", "st", mode]) < 0.15


def test_predicting_the_same_patients_gives_the_same_numbers(way: tuple[Path, pd.DataFrame, pd.Series]) -> None:
    root = way[0]
    trained = root / "runs" / "train" / "whole"
    assert run(root, "predict", "name=same", f"ckpt={trained}", "explain.patients=3", "explain.pictures=false") == 0
    same = root / "runs" / "predict" / "same"
    again, before = scores(same, "response"), scores(trained, "response")
    pd.testing.assert_series_equal(again, before.loc[again.index])
    # sections of Visium have a map
    table = pd.read_csv(next(same.glob("patients/*/sec*-tiles.csv")))
    assert len(table) == 30
    assert {"attention", "influence:subtype", "influence:subtype_percentile"} <= set(table)
    assert set(table["size_level0"]) == {90}


def test_new_patients_are_predicted_from_what_they_have(way: tuple[Path, pd.DataFrame, pd.Series]) -> None:
    root = way[0]
    patients, _ = write(root / "new", n=30, seed=5)
    trained = root / "runs" / "train" / "whole"
    words = [f"ckpt={trained}", f"cohort.root={root / 'new'}", "explain.patients=0", "explain.features=0"]
    assert run(root, "predict", "name=new", *words) == 0
    who = pd.read_csv(root / "runs" / "predict" / "new" / "patients.csv", dtype=str, keep_default_na=False)
    who = who.set_index("patient_id")
    table = pd.read_csv(root / "runs" / "predict" / "new" / "predictions.csv", dtype={"patient_id": str})
    rises = table[(table["task"] == "response") & (table["output"] == "p:rises")].set_index("patient_id")["value"]
    have = [p for p in rises.index if "ctdna" not in who.loc[p, "missing"]]
    assert len(have) < len(rises)  # who has no visit is predicted all the same
    assert auc((patients.loc[have, "response"] == "rises").to_numpy(int), rises[have].to_numpy()) > 0.9
    shutil.copytree(root / "new", root / "other")
    strange = next((root / "other").glob("s*.h5ad"))
    visium.h5ad(strange, np.ones((3, 2), int), np.zeros((3, 2)), ["X1", "X2"])
    assert run(root, "predict", "name=other", *words, f"cohort.root={root / 'other'}") == 5


def test_what_test_patients_have_changes_nothing_that_is_fitted(way: tuple[Path, pd.DataFrame, pd.Series]) -> None:
    root = way[0]
    splits = pd.read_csv(root / "runs" / "train" / "whole" / "splits.csv", dtype={"patient_id": str})
    held = set(splits.loc[(splits["fold"] == 0) & (splits["part"] == "test"), "patient_id"])
    shutil.copytree(root / "data", root / "altered")
    visits = pd.read_csv(root / "data" / "visits.csv", dtype={"patient_id": str})
    visits.loc[visits["patient_id"].isin(held), ["marker", "noise"]] = 1e6
    visits.to_csv(root / "altered" / "visits.csv", index=False)
    for patient in held:
        if (path := root / "altered" / f"s{patient}.h5ad").is_file():
            visium.h5ad(path, np.full((4, len(GENES)), 9), np.zeros((4, 2)), GENES)
    fitted = []
    for data in ("data", "altered"):
        cohort = {**COHORT, "root": str(root / data)}
        made = manifest.load(cohort, root / "out" / data)
        rows = splits[splits["fold"] == 0]
        state = FoldData(made, rows, options={"st": {"top_variance": 4}}).fitted.state()
        fitted.append(json.dumps(state))
        assert "G3" in state["bags"]["st"]["genes"]
        assert len(state["bags"]["st"]["genes"]) == 4
    assert fitted[0] == fitted[1]
