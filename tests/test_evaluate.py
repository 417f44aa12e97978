"""`mtl evaluate` on a run folder whose learner says exactly what the phantom's ceiling says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from nsclc_mtl.commands import evaluate
from nsclc_mtl.commands.cohort import open_cohort, split
from nsclc_mtl.commands.train import describe
from nsclc_mtl.commands.trained import read_table, run_folder
from nsclc_mtl.config import compose, execute, plain


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as `mtl train` leaves it, its predictions made from the attainable scores."""
    root = tmp_path_factory.mktemp("evaluate")
    words = ["cohort.level=features", "cohort.n=60", "folds.n=3", f"paths.out={root / 'out'}"]
    settings = plain(compose("train", words))
    manifest = open_cohort(settings)
    splits = split(settings, manifest)
    folder = root / "train"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    describe(manifest, folder)
    splits.to_csv(folder / "splits.csv", index=False)
    [oracle] = (root / "out").rglob("oracle.json")
    scores = json.loads(oracle.read_text())["scores"]["attainable"]
    rows = []
    for _, (patient, fold, part) in splits[["patient_id", "fold", "part"]].iterrows():
        for name, task in manifest.tasks.items():
            score, label = scores[name][patient], manifest.labels[name].loc[patient]
            if task.kind == "survival":
                said = {
                    "risk": score,
                    "surv:365": np.exp(-0.3 * np.exp(score)),
                    "surv:730": np.exp(-0.6 * np.exp(score)),
                }
                truth = ("", label["event"], label["time_days"])
            else:
                cuts = np.linspace(-1, 1, len(task.classes) - 1) if len(task.classes) > 2 else np.zeros(1)
                above = np.r_[1, 1 / (1 + np.exp(cuts - score)), 0]
                said = {f"p:{c}": above[k] - above[k + 1] for k, c in enumerate(task.classes)}
                truth = ("" if np.isnan(label["value"]) else task.classes[int(label["value"])], "", "")
            kept = {k: v for k, v in said.items() if part != "train" or not k.startswith("surv:")}
            rows += [(patient, name, fold, part, output, value, *truth) for output, value in kept.items()]
    columns = ["patient_id", "task", "fold", "part", "output", "value", "target", "event", "time_days"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "predictions.csv", index=False)
    return folder


def run(folder: Path, *words: str) -> int:
    return execute(
        "evaluate", [f"ckpt={folder}", f"paths.runs={folder.parent / 'runs'}", *words], lambda: evaluate.body
    )


@pytest.mark.slow
def test_a_learner_that_knows_all_that_can_be_known(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(trained, "name=all", "bootstrap=100") == 0
    out = trained.parent / "runs" / "evaluate" / "all"
    told = capsys.readouterr().out
    assert "learner minus it" in told
    assert told.strip().splitlines()[-1] == f"run: {out}"
    rows = json.loads((out / "metrics.json").read_text())
    own = {(r["task"], r["metric"], r["model"]): r for r in rows if r["fold"] == "all"}
    for task in ("grade", "stage", "response", "survival"):
        assert own[task, "share", "learner"]["value"] == pytest.approx(1, abs=0.01)
    assert {f"floor:{m}" for m in ("stage", "rna", "radiomics", "clinical", "all tables")} <= {r["model"] for r in rows}
    assert not [r for r in rows if r["task"] == "stage" and r["model"] == "floor:stage" and r["value"] is not None]
    assert own["survival", "c_index", "floor:stage"]["value"] is not None
    page = (out / "report.html").read_text()
    assert "Research use only" in page
    assert "share of the attainable margin" in page
    assert (out / "card.md").read_text().startswith("---\nlicense: unknown\n")
    for name in ("tables/tripod.csv", "tables/cohort.csv", "figures/study-flow.svg", "figures/survival-survival.csv"):
        assert (out / name).is_file(), name
    floors = read_table(out / "floors.csv")
    assert set(floors["part"]) == {"test", "train"}
    assert set(floors.loc[floors["part"] == "train", "task"]) == {"response"}  # a threshold is found by them
    assert own["response", "sensitivity", "floor:rna"]["value"] is not None
    account = json.loads((out / "run.json").read_text())
    assert account["done"] == ["grade", "stage", "response", "survival"]
    assert {Path(i["path"]).name for i in account["inputs"]} == {
        "predictions.csv", "config.yaml", "cohort.json", "splits.csv",
    }  # fmt: skip


@pytest.mark.slow
def test_the_floor_can_be_chosen_or_left_out(trained: Path) -> None:
    assert run(trained, "name=one", "bootstrap=50", "floors=[clinical]") == 0
    models = {r["model"] for r in json.loads((trained.parent / "runs/evaluate/one/metrics.json").read_text())}
    assert {m for m in models if m.startswith("floor:")} == {"floor:clinical"}
    assert run(trained, "name=none", "bootstrap=50", "floors=[]") == 0
    models = {r["model"] for r in json.loads((trained.parent / "runs/evaluate/none/metrics.json").read_text())}
    assert not {m for m in models if m.startswith("floor:")}


def test_faults_are_one_sentence_each(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(trained, "risk_groups=quartiles") == 2
    assert "risk_groups='quartiles' is none of median, tertiles, maxstat" in capsys.readouterr().err
    assert run(trained, "floors=[genome]") == 2
    assert "no floor 'genome' here; there are stage" in capsys.readouterr().err
    assert run(trained, "images=[nowhere.png]", "floors=[]", "bootstrap=50") == 2
    assert "nowhere.png" in capsys.readouterr().err
    assert run(tmp_path / "absent") == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty") == 2
    assert "has no predictions.csv" in capsys.readouterr().err
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.yaml", "cohort.json", "splits.csv"):
        (broken / name).write_text((trained / name).read_text())
    (broken / "predictions.csv").write_text("patient_id,task\nA,grade\n")
    assert run(broken) == 3
    assert "no column 'fold'" in capsys.readouterr().err


def test_a_checkpoint_names_its_run(trained: Path) -> None:
    (trained / "fold0").mkdir()
    (trained / "fold0" / "model0.ckpt").touch()
    assert run_folder(trained / "fold0" / "model0.ckpt") == trained
    assert run_folder(trained) == trained


def test_ids_survive_reading(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("patient_id,fold,part,value\n00123,0,test,1\nNA,0,test,\n1E5,0,test,2\n")
    frame = read_table(tmp_path / "p.csv")
    assert frame["patient_id"].tolist() == ["00123", "NA", "1E5"]
    assert frame["value"].isna().tolist() == [False, True, False]
    (tmp_path / "p.csv").write_text("patient_id,fold,part,value\nA,0,test,x\n")
    with pytest.raises(Exception, match="column 'value'"):
        read_table(tmp_path / "p.csv")


def test_a_primary_floor_that_is_none_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(trained, "name=primary", "primary_floor=stagee", "bootstrap=2") == 2
    assert "primary_floor: no floor 'stagee' here; there are stage" in capsys.readouterr().err
    assert not (trained.parent / "runs" / "evaluate" / "primary").exists()
