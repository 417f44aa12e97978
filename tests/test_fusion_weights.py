"""`fusion_weights.csv`: how much each modality counted for each patient, by `mtl train` and `mtl predict`."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from nsclc_mtl.config import execute
from nsclc_mtl.phantom.cohort import make

SMALL = [
    "cohort.level=features", "cohort.n=40", "folds.n=2", "folds.workers=0", "folds.validation=0.2",
    "folds.min_events=2", "trainer.max_epochs=1", "optim.min_steps=1", "audit=0", "device=cpu", "logger=none",
    "modalities=[rna,clinical,radiomics]", "members=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("weights")
    make(made / "data", level="features", n=40, seed=0)
    return made


def ran(root: Path, verb: str, name: str, *words: str) -> Path:
    paths = [f"paths.runs={root / 'runs'}", f"paths.out={root / 'out'}"]
    body = import_module(f"nsclc_mtl.commands.{verb}").body
    assert execute(verb, [f"name={name}", *paths, *words], lambda: body) == 0
    return root / "runs" / verb / name


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "fusion_weights.csv", dtype={"patient_id": str})


@pytest.mark.slow
def test_attention_of_every_test_patient_sums_to_one_over_what_he_has(root: Path) -> None:
    run = ran(root, "train", "attention", f"cohort.root={root / 'data'}", *SMALL, "model=attention_fusion")
    said = table(run)
    assert list(said) == ["patient_id", "fold", "member", "task", "part", "weight"]
    splits = pd.read_csv(run / "splits.csv", dtype={"patient_id": str})
    tested = splits[splits["part"] == "test"].set_index("patient_id")["fold"]
    assert (said["fold"] == tested.loc[said["patient_id"]].to_numpy()).all()
    assert set(said["member"]) == {0, 1}
    assert set(said["task"]) == {"grade", "stage", "response", "survival"}
    total = said.groupby(["patient_id", "member", "task"])["weight"].sum()
    assert len(total) == len(tested) * 2 * 4
    assert total.between(0.9999, 1.0001).all()
    cohort = {name: set(pd.read_csv(root / "data" / f"{name}.csv", dtype=str)["patient_id"]) for name in ("rna",)}
    rna = said[said["part"] == "rna"]
    assert ((rna["weight"] > 0) == rna["patient_id"].isin(cohort["rna"])).all()
    finished = json.loads((run / "fold0" / "finished.json").read_text())
    assert "fusion_weights.csv" in finished["files"]

    told = table(ran(root, "predict", "own", f"ckpt={run}", "explain.patients=0", "explain.features=0"))
    order = ["patient_id", "fold", "member", "task", "part"]
    pd.testing.assert_frame_equal(
        told.sort_values(order, ignore_index=True), said.sort_values(order, ignore_index=True), rtol=1e-4, atol=1e-6
    )


def test_a_fusion_without_weights_writes_none(root: Path) -> None:
    run = ran(root, "train", "tensor", f"cohort.root={root / 'data'}", *SMALL, "fusion=tensor")
    assert not list(run.rglob("fusion_weights.csv"))


def test_the_whole_tensor_of_four_modalities_ends_with_exit_code_2(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in SMALL if not word.startswith("modalities")]
    words += [f"cohort.root={root / 'data'}", "modalities=[rna,clinical,radiomics,proteomics]", "fusion=tensor"]
    body = import_module("nsclc_mtl.commands.train").body
    assert execute("train", ["name=four", f"paths.runs={root / 'runs'}", *words], lambda: body) == 2
    assert "fusion=tensor takes at most 3 modalities, not 4" in capsys.readouterr().err
