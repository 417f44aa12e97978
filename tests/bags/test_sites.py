"""Harmonised tables on their way: fitted with the fold, saved, applied to new patients, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.bags.cache import BagCache
from nsclc_mtl.bags.fitted import Fitted, fit
from nsclc_mtl.commands import assemble, evaluate, predict, train
from nsclc_mtl.commands.cohort import open_cohort
from nsclc_mtl.commands.sites import unknown_sites
from nsclc_mtl.config import compose, execute, plain
from nsclc_mtl.phantom.cohort import make
from nsclc_mtl.records import DataFault, UsageFault

SHIFTED = ("cohort.level=features", "cohort.n=60", "cohort.site=shift", "modalities=[rna,clinical]")
KEPT = "parts.modalities.omics.combat.covariates={age: numeric, sex: categorical}"
COMBAT = ("parts.modalities.omics.harmonize=combat", "parts.modalities.omics.combat.covariates=[age,sex]")


def settings(folder: Path, *words: str) -> dict:
    return plain(compose("train", [*SHIFTED, f"paths.out={folder / 'out'}", *words]))


def test_fitted_with_the_fold_and_back_again(tmp_path: Path) -> None:
    cfg = settings(tmp_path, *COMBAT)
    who = open_cohort(cfg)
    chosen = assemble.options(cfg, who)
    plainly = {name: {**one, "harmonize": "none"} for name, one in chosen.items()}
    ids = who.ids[:40]
    made = fit(who, ids, BagCache(), chosen)
    assert set(made.combat) == {"rna"}
    again = Fitted.load(json.loads(json.dumps(made.state())))
    new = [p for p in who.ids[40:] if p in who.tables["rna"].index]
    np.testing.assert_array_equal(made.rows(who, "rna", new), again.rows(who, "rna", new))
    np.testing.assert_array_equal(made.rows(who, "rna", new)[:3], made.rows(who, "rna", new[:3]))
    old = fit(who, ids, BagCache(), plainly)
    assert not old.combat
    assert Fitted.load({k: v for k, v in old.state().items() if k != "combat"}).combat == {}
    site = who.patients["site"].loc[new]

    def apart(rows: np.ndarray) -> float:
        frame = pd.DataFrame(rows, new).groupby(site)
        return float((frame.mean().var() / frame.var().mean()).max())

    assert apart(made.rows(who, "rna", new)) < 0.5 * apart(old.rows(who, "rna", new))
    spoiled = open_cohort(cfg)
    spoiled.tables["rna"].loc[new] += 100.0
    assert fit(spoiled, ids, BagCache(), chosen).state() == made.state()


def test_what_cannot_be_harmonised_is_said_at_once(tmp_path: Path) -> None:
    cfg = settings(tmp_path, *COMBAT)
    who = open_cohort(cfg)
    splits = pd.DataFrame({"patient_id": who.ids, "fold": 0, "part": ["train"] * 40 + ["test"] * 20})
    assert unknown_sites(who, splits, assemble.options(cfg, who)) == []
    lone = settings(tmp_path, *COMBAT, "parts.modalities.omics.combat.least=40")
    (told,) = unknown_sites(who, splits, assemble.options(lone, who))
    assert "fewer than 40 training patients in some fold (combat.least)" in told
    for word in ("grade", "os_days", "survival"):
        spoiled = settings(tmp_path, f"parts.modalities.omics.combat.covariates=[{word}]", "tasks=[stage]")
        with pytest.raises(DataFault, match=f"names '{word}', which is an outcome"):
            assemble.options(spoiled, who)
    who.patients["site"] = ""
    with pytest.raises(UsageFault, match="harmonize=combat of the modality 'rna' needs to know the sites"):
        unknown_sites(who, splits, assemble.options(cfg, who))
    with pytest.raises(UsageFault, match="is none of none, combat"):
        fit(who, who.ids, BagCache(), assemble.options(settings(tmp_path, COMBAT[0].replace("combat", "batch")), who))


@pytest.mark.slow
def test_trained_and_carried_to_patients_of_another_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [f"paths.runs={tmp_path / 'runs'}", f"paths.out={tmp_path / 'out'}"]
    small = ["tasks=[response]", "folds.n=2", "folds.workers=0", "trainer.max_epochs=1", "optim.min_steps=1", "audit=0"]
    words = [*SHIFTED, COMBAT[0], KEPT, *paths, *small, "name=a", "device=cpu", "logger=none"]
    assert execute("train", words, lambda: train.body) == 0
    run = tmp_path / "runs" / "train" / "a"
    kept = json.loads((run / "fold0" / "fitted.json").read_text())["fitted"]["combat"]["rna"]
    assert set(kept["sites"]) == {"A", "B"}  # of C fewer than combat.least train
    assert kept["kept"]["kinds"] == {"age": "numeric", "sex": "categorical"}
    new = make(tmp_path / "new", level="features", n=60, seed=9, site="shift")
    table = pd.read_csv(new / "patients.csv", dtype=str, keep_default_na=False)
    table.assign(site="Z").to_csv(new / "patients.csv", index=False)
    elsewhere = ["cohort=phantom", "cohort.level=features", "cohort.n=60", "cohort.site=shift", f"cohort.root={new}"]
    capsys.readouterr()
    words = [f"ckpt={run}", *elsewhere, *paths, "name=b", "explain.patients=0", "explain.features=0", "device=cpu"]
    assert execute("predict", words, lambda: predict.body) == 0
    assert "are of a site that training does not know: combat.unseen=pooled" in capsys.readouterr().out
    words = [f"ckpt={run}", *elsewhere, *paths, "name=c", "floors=[rna]", "bootstrap=10"]
    assert execute("evaluate", words, lambda: evaluate.body) == 0
    floors = pd.read_csv(tmp_path / "runs" / "evaluate" / "c" / "floors.csv")
    assert floors["value"].notna().all()
