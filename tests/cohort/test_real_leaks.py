"""The linter on real tables: with columns of outcomes among the inputs it names every one, without them none."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.cohort import site_splits
from nsclc_mtl.cohort.manifest import load
from nsclc_mtl.config import compose, execute, plain

pytestmark = pytest.mark.realdata
COLUMNS = "+cohort.modalities.clinical.columns"


def check(*words: str) -> tuple[int, dict]:
    code = execute("check", ["name=it", *words], lambda: import_module("nsclc_mtl.commands.check").body)
    return code, json.loads(Path("runs/check/it/check.json").read_text())


def beside(source: Path, folder: Path, table: str) -> pd.DataFrame:
    """The files of a real cohort as links, but for one table, which is given back to be changed."""
    folder.mkdir()
    for file in source.iterdir():
        if file.name != table:
            (folder / file.name).symlink_to(file)
    return pd.read_csv(source / table, dtype=str, keep_default_na=False)


@pytest.mark.slow
def test_tcga_columns_of_days_and_states(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["cohort=tcga_lusc", "folds.columns=splits_lusc/splits_*.csv", "modalities=[clinical]"]
    code, plainly = check(*given, f"cohort.root={real_data / 'tcga'}")
    assert code == 0
    assert not [f for f in plainly["findings"] if f["rule"] in ("copy", "alarm", "name")]
    table = beside(real_data / "tcga", tmp_path / "tcga", "tcga_lusc_labels.csv")
    table["days_to_death"] = table["OS_days"].where(table["OS"] == "1.0", "")
    table["vital"] = table["OS"].map({"1.0": "Dead", "0.0": "Alive"}).fillna("")
    table["tumor_status"] = table["PFI"].map({"1.0": "WITH TUMOR", "0.0": "TUMOR FREE"}).fillna("")
    table["months"] = (pd.to_numeric(table["OS_days"], errors="coerce") / 30.44).round().astype(str).replace("nan", "")
    table.to_csv(tmp_path / "tcga" / "tcga_lusc_labels.csv", index=False)
    planted = {"days_to_death": "numeric", "vital": "categorical", "tumor_status": "categorical", "months": "numeric"}
    planted |= {"OS_days": "numeric", "PFI": "categorical"}
    words = [f"{COLUMNS}.{column}={kind}" for column, kind in planted.items()]
    monkeypatch.chdir(tmp_path / "tcga")  # another folder for the run of the same name
    code, found = check(*given, f"cohort.root={tmp_path / 'tcga'}", *words)
    assert code == 3
    assert {f["column"] for f in found["findings"] if f["level"] == "error"} == set(planted)


@pytest.mark.slow
def test_hancock_with_the_survival_status(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = beside(real_data / "hancock", tmp_path / "hancock", "clinical.csv")
    targets = pd.read_csv(real_data / "hancock" / "targets.csv", dtype=str).set_index("patient_id")
    table["survival_status"] = table["state"] = table["patient_id"].map(targets["survival_status"])
    table["seen"] = table["patient_id"].map(targets["days_to_last_information"])
    table.to_csv(tmp_path / "hancock" / "clinical.csv", index=False)
    words = [f"{COLUMNS}.survival_status=categorical", f"{COLUMNS}.state=categorical", f"{COLUMNS}.seen=numeric"]
    code, found = check("cohort=hancock", f"cohort.root={tmp_path / 'hancock'}", "modalities=[clinical,blood]", *words)
    assert code == 3
    assert {f["column"] for f in found["findings"] if f["level"] == "error"} == {"survival_status", "state", "seen"}


def test_whole_centres_of_tcga_are_balanced(real_data: Path) -> None:
    """Forty centres, named in the patients' ids, in five parts: as even in patients and events as single patients."""
    cfg = plain(compose("check", ["cohort=tcga_lusc", f"cohort.root={real_data / 'tcga'}"]))
    who = load(cfg["cohort"], Path("out"), modalities=["clinical"])
    labels = {"survival": who.labels["survival"]}
    site = np.array([patient.split("-")[1] for patient in who.ids])
    made = site_splits.preserve(labels, who.ids, site, folds=5, seed=0, validation=0.1).splits
    tested = made[made["part"] == "test"].set_index("patient_id")["fold"]
    assert tested.value_counts().between(95, 107).all()
    events = who.labels["survival"]["event"].dropna()
    assert events.groupby(tested.reindex(events.index)).sum().between(39, 47).all()
