"""Training with adaptation to the sites, and `mtl probe ckpt=RUN`: what the embeddings tell before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from test_way import Way, wide

from nsclc_mtl.commands import probe, train
from nsclc_mtl.config import execute

ONE = ["fold=0", "audit=0", "modalities=[wsi,rna,clinical]", "logger=csv"]
FUSIONS = ["attention", "coattention", "concat", "experts", "late", "low_rank", "ple", "tensor"]


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    return Way(tmp_path_factory.mktemp("adaptation"))


def log(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "fold0" / "log0" / "version_0" / "metrics.csv")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "fold0" / "model0.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("kind", ["dann", "coral"])
@pytest.mark.slow
def test_a_run_is_adapted_and_predicts_what_it_said(way: Way, kind: str) -> None:
    assert way.train(kind, *ONE, f"adaptation={kind}") == 0
    told = log(way.folder(name=kind))["train/adaptation"].dropna()
    assert len(told) == 2
    assert (told > 0).all()
    assert way.predict(kind, ckpt=way.folder(name=kind) / "fold0" / "model0.ckpt") == 0
    again = wide(way.table("predict", kind))
    said = way.table(name=kind)
    assert again.to_numpy() == pytest.approx(wide(said[said["part"] == "test"])[again.index].to_numpy(), abs=1e-5)


@pytest.mark.slow
def test_without_it_nothing_is_logged_and_with_it_the_encoders_differ(way: Way) -> None:
    for name, words in {"plain": [], "adapted": ["adaptation=coral"]}.items():
        assert way.train(name, *ONE, "tasks=[grade]", *words) == 0
    assert "train/adaptation" not in log(way.folder(name="plain"))
    one, other = (weights(way.folder(name=name)) for name in ("plain", "adapted"))
    assert one.keys() == other.keys()  # it has no weights of its own
    assert not all(torch.equal(one[key], other[key]) for key in one if key.startswith("encoders."))


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_goes_with_it(way: Way, fusion: str) -> None:
    words = [f"fusion={fusion}", "adaptation=dann", "tasks=[grade]"]
    assert way.train(fusion, *ONE, *words) == 0
    assert log(way.folder(name=fusion))["train/adaptation"].dropna().gt(0).all()


@pytest.mark.slow
def test_whole_passes_go_with_it(way: Way) -> None:
    words = ["survival=cox", "cox.mode=exact", "tasks=[survival]", "adaptation=dann"]
    assert way.train("exact", *ONE, *words) == 0
    assert any(key.startswith("auxiliaries.adaptation.tell") for key in weights(way.folder(name="exact")))


def test_what_cannot_be_adapted(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(code: int, *words: str) -> str:
        capsys.readouterr()
        assert way.train(f"never{len(words[0])}", *ONE, "adaptation=dann", *words) == code
        return " ".join(capsys.readouterr().err.split())

    assert "cohort=phantom declares none: name their column in cohort.patients.site" in fails(
        2, "~cohort.patients.site"
    )
    assert "fold 0 know only the site 'A', two are needed" in fails(
        3, "folds.external={column: site, values: [B, C]}", "folds.min_events=0"
    )
    assert "the cohort declares no 'wis'; did you mean 'wsi'?" in fails(2, "adaptation.modalities=[wis]")
    assert "names none of the run's modalities" in fails(2, "adaptation.modalities=[proteomics]")
    assert "adaptation.speed: a number above 0 is needed" in fails(2, "adaptation.speed=0")


def probed(way: Way, name: str, *words: str) -> dict[str, Any]:
    given = [f"name={name}", *way.paths, "bootstrap=30", "permutations=3", *words]
    assert execute("probe", given, lambda: probe.body) == 0
    return json.loads((way.folder("probe", name) / "probe.json").read_text())


@pytest.mark.slow
def test_two_runs_stand_side_by_side(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in {"one": [], "two": ["adaptation=coral"], "other": ["seed=1"]}.items():
        assert way.train(name, "audit=0", "modalities=[rna,clinical]", "tasks=[grade,survival]", *words) == 0
    pair = [f"ckpt={way.folder(name='two')}", f"against={way.folder(name='one')}", "least=4"]
    found = probed(way, "pair", *pair)
    assert found["runs"] == {"ckpt": "two", "against": "one"}
    assert [row["embedding"] for row in found["embeddings"]] == ["all, joined", "rna", "clinical"]
    for row in [*found["embeddings"], *found["tasks"]]:
        assert row["change"]["value"] == pytest.approx(row["value"]["value"] - row["against"]["value"])
    alone = probed(way, "alone", pair[0], "least=4")
    assert [row["value"]["value"] for row in alone["embeddings"]] == [r["value"]["value"] for r in found["embeddings"]]
    assert "change" not in alone["embeddings"][0]
    said = json.loads((way.folder(name="two") / "metrics.json").read_text())
    whole = {row["task"]: row["value"] for row in said if row["fold"] == "all"}
    assert {row["task"]: row["value"]["value"] for row in alone["tasks"]} == pytest.approx(whole)
    bare = probed(way, "bare", pair[0], "least=30")
    assert bare["embeddings"] == []
    assert len(bare["tasks"]) == 2
    capsys.readouterr()
    for words, sentence in {
        (pair[0], f"against={way.folder(name='other')}"): "do not test the same patients in the same folds",
        (pair[1],): "give the first as ckpt=RUN",
        ("ckpt=nowhere",): "does not exist",
    }.items():
        assert execute("probe", ["name=never", *way.paths, *words], lambda: probe.body) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_sites_fall_silent_and_tasks_do_not(tmp_path: Path) -> None:
    paths = [f"paths.runs={tmp_path / 'runs'}", f"paths.out={tmp_path / 'out'}"]
    cohort = ["cohort.level=features", "cohort.n=400", "cohort.site=shift", "folds.workers=0"]
    runs = {kind: tmp_path / "runs" / "train" / kind for kind in ("none", "dann", "coral")}
    for kind in runs:
        words = [*cohort, *paths, "audit=0", "logger=none", "device=cpu", f"adaptation={kind}", f"name={kind}"]
        assert execute("train", words, lambda: train.body) == 0
    for kind in ("dann", "coral"):
        words = [*paths, f"ckpt={runs[kind]}", f"against={runs['none']}", "permutations=5", "bootstrap=200"]
        assert execute("probe", [*words, f"name={kind}"], lambda: probe.body) == 0
        found = json.loads((tmp_path / "runs" / "probe" / kind / "probe.json").read_text())
        joined = found["embeddings"][0]
        assert joined["against"]["value"] > 0.9, kind
        assert joined["value"]["value"] < 0.8, kind
        assert joined["change"]["hi"] < -0.15, kind
        assert joined["chance"]["value"] == pytest.approx(0.5, abs=0.06), kind
        for row in found["tasks"]:
            assert row["change"]["value"] > -0.06, (kind, row["task"])
        assert {row["task"]: row["value"]["value"] > 0.62 for row in found["tasks"] if row["task"] != "response"} == (
            dict.fromkeys(("grade", "stage", "survival"), True)
        ), kind
