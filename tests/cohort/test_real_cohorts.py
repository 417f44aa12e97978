"""The shipped public cohorts on their real tables: counts, inputs without outcomes, the given folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.cohort import manifest
from nsclc_mtl.commands.cohort import split
from nsclc_mtl.config import compose, plain
from nsclc_mtl.records import DataFault, Manifest

pytestmark = pytest.mark.realdata

FOLDERS = {"hancock": "hancock", "tcga_lusc": "tcga", "tcga_ucec": "tcga"}
NEVER = {
    "hancock": {"grading", "c020", "t810"},  # with every column of targets.csv, below
    "tcga_lusc": {"OS", "OS_days", "survival_months", "censorship", "train", "site", "stage", "stage_raw", "response"},
    "tcga_ucec": {"OS", "OS_days", "survival_months", "censorship", "train", "site", "grade", "oncotree_code"},
}


def settings(name: str, real_data: Path) -> dict[str, Any]:
    return plain(compose("train", [f"experiment={name}", f"cohort.root={real_data / FOLDERS[name]}"]))


@pytest.fixture(scope="module")
def cohorts(real_data: Path) -> dict[str, tuple[dict[str, Any], Manifest]]:
    """Configuration and manifest of every real cohort, read once."""
    made = {}
    for name in FOLDERS:
        cfg = settings(name, real_data)
        made[name] = cfg, manifest.load(cfg["cohort"], Path("out"))
    return made


def known(who: Manifest, task: str, patients: list[str] | None = None) -> pd.DataFrame:
    return who.labels[task].loc[who.ids if patients is None else patients].dropna()


@pytest.mark.slow
def test_hancock_counts(cohorts: dict[str, tuple[dict[str, Any], Manifest]]) -> None:
    _, who = cohorts["hancock"]
    assert len(who.ids) == 458
    assert known(who, "survival")["event"].agg(["size", "sum"]).tolist() == [458, 128]
    # 182 events stand in the table; five of them are dated before the index date: these patients were not at risk
    assert known(who, "rfs")["event"].agg(["size", "sum"]).tolist() == [453, 177]
    assert known(who, "rfs")["time_days"].min() == 0.5
    assert known(who, "grading")["value"].value_counts().to_dict() == {2.0: 223, 1.0: 140, 0.0: 8}
    assert {n: len(t) for n, t in who.tables.items()} == {
        "clinical": 458, "pathological": 458, "blood": 421, "cell_density": 441, "he": 456, "cd3": 448, "cd8": 456,
        "cd56": 456, "cd68": 456, "cd163": 453, "mhc1": 456, "pdl1": 456,
    }  # fmt: skip
    assert who.tables["he"].shape[1] == 512


def test_hancock_not_graded_is_not_a_grade(
    cohorts: dict[str, tuple[dict[str, Any], Manifest]], real_data: Path
) -> None:
    """Nobody who has a grade is HPV-associated: of the p16 column nothing can be read of the grade's code 3."""
    _, who = cohorts["hancock"]
    p16 = who.tables["pathological"]["hpv_association_p16"]
    graded = who.labels["grading"]["value"].notna()
    assert set(p16[graded]) == {"0", "1"}
    assert set(p16[~graded]) == {"2"}


def test_lusc_counts_on_the_given_folds(cohorts: dict[str, tuple[dict[str, Any], Manifest]]) -> None:
    cfg, who = cohorts["tcga_lusc"]
    assert list(who.tasks) == ["survival", "stage", "response"]  # pfi, dss, dfi only where asked for
    inside = sorted(split(cfg, who)["patient_id"].unique())
    assert (len(who.ids), len(inside)) == (504, 450)
    assert known(who, "survival", inside)["event"].agg(["size", "sum"]).tolist() == [450, 192]
    assert known(who, "stage", inside)["value"].value_counts().sort_index().tolist() == [220, 142, 78, 6]
    assert known(who, "response", inside)["value"].value_counts().to_dict() == {1.0: 283, 0.0: 39}
    assert {n: t.shape for n, t in who.tables.items()} == {
        "rna": (450, 1556), "mutations": (450, 850), "clinical": (504, 2),
    }  # fmt: skip
    assert [note for note in who.notes if "34 further rows" in note]


def test_ucec_counts_on_the_given_folds(cohorts: dict[str, tuple[dict[str, Any], Manifest]]) -> None:
    cfg, who = cohorts["tcga_ucec"]
    inside = sorted(split(cfg, who)["patient_id"].unique())
    assert known(who, "survival", inside)["event"].agg(["size", "sum"]).tolist() == [480, 75]
    assert known(who, "grade", inside)["value"].value_counts().sort_index().tolist() == [94, 113, 265]
    assert {n: t.shape for n, t in who.tables.items()} == {
        "cnv": (480, 935), "mutations": (480, 8137), "clinical": (548, 1),
    }  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_no_outcome_is_an_input(
    name: str, cohorts: dict[str, tuple[dict[str, Any], Manifest]], real_data: Path
) -> None:
    """Neither by its name, nor as a copy of an event, a class or a time under another name."""
    _, who = cohorts[name]
    forbidden = set(NEVER[name])
    if name == "hancock":
        forbidden |= set(pd.read_csv(real_data / "hancock" / "targets.csv", nrows=0).columns)
    for table in who.tables.values():
        assert not forbidden & set(table.columns)
        if table.shape[1] > 100:
            continue  # copies are looked for in the hand-made tables; genes are measured
        for column in table:
            codes = pd.Series(pd.factorize(table[column])[0], index=table.index, dtype=float)
            for labels in who.labels.values():
                for outcome in labels:
                    both = pd.concat([codes, labels[outcome]], axis=1, join="inner").dropna().to_numpy()
                    for level in np.unique(both[:, 1])[:10]:
                        told = abs(np.corrcoef(both[:, 0] == both[0, 0], both[:, 1] == level)[0, 1])
                        assert not told > 0.9, f"{column} tells {outcome}"


def test_an_outcome_among_the_columns_is_refused(real_data: Path) -> None:
    cfg = settings("hancock", real_data)["cohort"]
    cfg["modalities"]["clinical"]["file"] = "targets.csv"
    cfg["modalities"]["clinical"]["columns"] = {"survival_status": "categorical"}
    with pytest.raises(DataFault, match="columns names 'survival_status', which is an outcome") as caught:
        manifest.load(cfg, Path("out"), modalities=["clinical"])
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("name", "folder"), [("tcga_lusc", "splits_lusc"), ("tcga_ucec", "splits_ucec")])
def test_folds_are_the_given_ones(
    name: str, folder: str, cohorts: dict[str, tuple[dict[str, Any], Manifest]], real_data: Path
) -> None:
    made = split(*cohorts[name])
    assert sorted(made["fold"].unique()) == [0, 1, 2, 3, 4]
    for fold, rows in made.groupby("fold"):
        given = pd.read_csv(real_data / "tcga" / folder / f"splits_{fold}.csv", dtype=str)
        tested = rows["part"] == "test"
        assert set(rows["patient_id"][tested]) == set(given["val"].dropna())
        assert set(rows["patient_id"][~tested]) == set(given["train"].dropna())
        assert 0.08 < (rows["part"] == "validation").sum() / (~tested).sum() < 0.12


def test_repeated_rows_need_a_policy(real_data: Path) -> None:
    cfg = settings("tcga_lusc", real_data)["cohort"]
    del cfg["modalities"]["rna"]["duplicates"]
    with pytest.raises(DataFault, match="more than once"):
        manifest.load(cfg, Path("out"), modalities=["rna"])


def test_the_rules_give_the_labels_of_explicit_maps(cohorts: dict[str, tuple[dict[str, Any], Manifest]]) -> None:
    """Stage, grade and response of the shipped TCGA cohorts by rule, against a map of every value."""
    maps = {
        ("tcga_lusc", "stage"): ("stage", {"1.0": 0, "2.0": 1, "3.0": 2, "4.0": 3}),
        ("tcga_ucec", "grade"): ("grade", {"G1": 0, "G2": 1, "G3": 2}),
        **{
            (name, "response"): ("response", {
                "Complete Remission/Response": 1, "Partial Remission/Response": 1, "Stable Disease": 0,
                "Progressive Disease": 0,
            })
            for name in ("tcga_lusc", "tcga_ucec")
        },
    }  # fmt: skip
    for (name, task), (column, numbers) in maps.items():
        _, who = cohorts[name]
        expected = who.patients[column].map(numbers).astype(float)
        pd.testing.assert_series_equal(who.labels[task]["value"], expected, check_names=False)


def test_substages_and_what_tcga_does_not_tell(real_data: Path) -> None:
    cfg = settings("tcga_lusc", real_data)["cohort"]
    stage = cfg["tasks"]["stage"]
    stage["classes"] = ["IA", "IB", "IIA", "IIB", "IIIA", "IIIB", "IV"]
    with pytest.raises(DataFault, match=r"'Stage III?' \(3 rows\).*none of the classes IA, IB"):
        manifest.load(cfg, Path("out"), tasks=["stage"], modalities=["clinical"])
    stage["map"].update({f"Stage {word}": None for word in ("I", "II", "III")})
    made = manifest.load(cfg, Path("out"), tasks=["stage"], modalities=["clinical"]).labels["stage"]["value"]
    assert made.value_counts().sort_index().tolist() == [90, 152, 65, 95, 63, 19, 7]
    ucec = settings("tcga_ucec", real_data)["cohort"]
    ucec["tasks"]["figo"] = {"kind": "ordinal", "rule": "ajcc_group", "column": "stage_raw", "edition": 7}
    with pytest.raises(DataFault, match=r"'\[Not Applicable\]' \(548 rows\), which rule=ajcc_group does not read"):
        manifest.load(ucec, Path("out"), tasks=["figo"], modalities=["clinical"])
