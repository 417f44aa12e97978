"""`mtl probe` on the phantom: the site is told before ComBat and not after, and the tasks are judged elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nsclc_mtl.baselines import site_probe
from nsclc_mtl.commands import probe
from nsclc_mtl.config import execute

SMALL = ["cohort.level=features", "cohort.n=120", "folds=2", "bootstrap=30", "floor.steps=3", "floor.inner=2"]


def run(folder: Path, name: str, *words: str) -> int:
    paths = [f"paths.runs={folder / 'runs'}", f"paths.out={folder / 'out'}"]
    return execute("probe", [*SMALL, *paths, f"name={name}", *words], lambda: probe.body)


def told(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / "runs" / "probe" / name / "probe.json").read_text())


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the probe of a cohort whose sites shift every feature."""
    folder = tmp_path_factory.mktemp("probe")
    words = ("cohort.site=shift", "cohort.extras=[site_coded]", "tasks=[stage]")
    picked = "modalities=[wsi,radiomics,clinical,site_coded]"
    assert run(folder, "a", *words, picked, "combat.covariates=[age,sex]") == 0
    return folder


@pytest.mark.slow
def test_the_site_is_told_before_and_not_after(shifted: Path) -> None:
    content = told(shifted, "a")
    assert set(content["sites"]) == {"A", "B", "C"}
    rows = {row["table"]: row for row in content["probe"]}
    assert set(rows) == {"mean slide feature", "radiomics", "clinical", "site_coded"}
    for name in ("mean slide feature", "radiomics", "site_coded"):
        row = rows[name]
        assert row["before"]["value"] > 0.85, name
        assert row["after"]["value"] < 0.65, name
        assert row["change"]["hi"] < -0.15, name
        assert row["change"]["value"] == pytest.approx(row["after"]["value"] - row["before"]["value"])
        if row["before"]["value"] < 1:
            assert row["before"]["lo"] <= row["before"]["value"] <= row["before"]["hi"]
        else:  # always told: in every resample, so that there is no interval
            assert row["before"]["lo"] is None
    assert "after" not in rows["clinical"]
    assert abs(rows["clinical"]["before"]["value"] - 0.5) < 0.15


@pytest.mark.slow
def test_tasks_at_sites_held_out(shifted: Path) -> None:
    rows = {row["floor"]: row for row in told(shifted, "a")["tasks"]}
    assert set(rows) == {"mean slide feature", "radiomics", "clinical", "site_coded", "all tables"}
    for name, row in rows.items():
        assert row["task"] == "stage"
        if name == "clinical":
            assert "pooled" not in row
            continue
        for how in ("pooled", "own"):
            gap = row[f"{how} minus it"]
            assert gap["value"] == pytest.approx(row[how]["value"] - row["without"]["value"])
            assert gap["lo"] <= gap["hi"]
    assert rows["radiomics"]["own"]["value"] > 0.55
    log = (shifted / "runs" / "probe" / "a" / "log.txt").read_text()
    assert "AUC of telling the site" in log
    assert "each site held out in turn" in log


def test_what_cannot_be_probed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "b", "least=100", "modalities=[radiomics]") == 2
    assert "has 0 sites with 100 patients or more, two are needed" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert run(tmp_path, "c", "combat.covariates=[grade]", "tasks=[stage]", "modalities=[radiomics]") == 3
    assert "names 'grade', which is an outcome" in capsys.readouterr().err


def test_each_site_is_held_out_once() -> None:
    site = pd.Series(["A", "B", "A", "tiny", ""], list("pqrst"))
    splits = site_probe.leave_one_site_out(site, ["A", "B"])
    assert splits[splits["part"] == "test"].groupby("fold")["patient_id"].apply(list).tolist() == [["p", "r"], ["q"]]
    assert splits.groupby("fold").size().tolist() == [5, 5]
