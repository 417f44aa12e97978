"""The split that a configuration asks for, through the command's own words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nsclc_mtl.cohort.split_record import digest
from nsclc_mtl.commands import check as command
from nsclc_mtl.commands import splitting
from nsclc_mtl.commands.cohort import open_cohort
from nsclc_mtl.config import compose, execute, plain
from nsclc_mtl.phantom.cohort import make
from nsclc_mtl.records import DataFault, IntegrityFault, Manifest, UsageFault


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("phantom") / "data", level="features", n=60)


def settings(data: Path, *words: str) -> dict[str, Any]:
    base = [f"cohort.root={data}", "cohort.level=features", "cohort.n=60", "folds.n=3"]
    return plain(compose("train", [*base, *words]))


@pytest.fixture(scope="module")
def manifest(data: Path) -> Manifest:
    return open_cohort(settings(data))


def split(data: Path, manifest: Manifest, *words: str) -> splitting.Split:
    return splitting.split(settings(data, *words), manifest)


def test_whole_sites(data: Path, manifest: Manifest) -> None:
    made = split(data, manifest, "folds.sites=preserve")
    site = made.table["patient_id"].map(manifest.patients["site"])
    assert (made.table.assign(site=site).groupby(["fold", "site"])["part"].nunique() == 1).all()
    said = splitting.record(settings(data, "folds.sites=preserve"), manifest, made)
    assert sorted(fold["name"] for fold in said["folds"]) == ["A", "B", "C"]
    assert [len(fold["parts"]["test"]["sites"]) for fold in said["folds"]] == [1, 1, 1]
    assert said["options"]["sites"] == "preserve"
    assert "workers" not in said["options"]


def test_one_site_left_out_and_an_external_one(data: Path, manifest: Manifest) -> None:
    left = split(data, manifest, "folds.sites=leave_one_out", "folds.site_patients=5")
    assert list(left.names.values()) == ["A", "B", "C"]
    external = split(data, manifest, "folds.external={column: site, values: [C]}")
    tested = external.table[external.table["part"] == "test"]["patient_id"]
    assert set(manifest.patients.loc[list(tested), "site"]) == {"C"}
    others = external.table[external.table["part"] != "test"]["patient_id"]
    assert "C" not in set(manifest.patients.loc[list(others), "site"])


@pytest.mark.parametrize(
    ("words", "fault", "told"),
    [
        (["folds.sites=keep"], UsageFault, "folds.sites='keep' is none of"),
        (["folds.sites=preserve", "folds.file=x.csv"], UsageFault, "folds.file and folds.sites both give the folds"),
        (
            ["folds.external={column: site, values: [Z]}"],
            UsageFault,
            "no patient has 'Z' in column 'site'; it",
        ),
        (["folds.external={column: town, values: [Z]}"], UsageFault, "no column 'town'"),
        (["folds.external={column: site}"], UsageFault, "needs a column and its values"),
        (["folds.sites=preserve", "folds.n=4"], DataFault, "3 sites cannot be dealt into 4 folds"),
        (["folds.together=[me]"], UsageFault, "folds.together names 'me'"),
        (["folds.sha256=00ff"], IntegrityFault, "the split hashes to .* promises 00ff"),
    ],
)
def test_words_that_cannot_be(data: Path, manifest: Manifest, words: list[str], fault: type, told: str) -> None:
    with pytest.raises(fault, match=told):
        split(data, manifest, *words)


def test_the_promised_split(data: Path, manifest: Manifest) -> None:
    made = split(data, manifest)
    same = split(data, manifest, f"folds.sha256={digest(made.table)}")
    pd.testing.assert_frame_equal(made.table, same.table)


def test_a_shared_slide_joins_its_owners_and_their_sites(data: Path, tmp_path: Path) -> None:
    cfg = settings(data, "folds.sites=preserve", "folds.n=2", "folds.validation=0")
    manifest = open_cohort(cfg)
    site = manifest.patients["site"]
    one, other = site.index[site == "A"][0], site.index[site == "B"][0]
    slides = manifest.slides
    assert slides is not None
    manifest.slides = slides = slides.copy()
    mine, theirs = (slides.index[slides["patient_id"] == p][0] for p in (one, other))
    slides.loc[theirs, "path"] = slides.loc[mine, "path"]
    made = splitting.split(cfg, manifest)
    part = made.table.set_index(["fold", "patient_id"])["part"]
    assert all(part[fold, one] == part[fold, other] for fold in (0, 1))
    assert any("A + B" in note for note in made.notes)
    assert any("2 patients stand together in one part, by slides" in note for note in manifest.notes)
    given = tmp_path / "mine.csv"
    rows = [(p, 0, "test" if p == one else "train") for p in manifest.ids]
    pd.DataFrame(rows, columns=["patient_id", "fold", "part"]).to_csv(given, index=False)
    cfg = settings(data, f"folds.file={given}")
    torn = splitting.split(cfg, manifest)
    with pytest.raises(DataFault, match="both sides of the test part of fold 0"):
        splitting.sound(cfg, manifest, torn)
    free = settings(data, f"folds.file={given}", "folds.together=[]", "folds.min_events=1")
    splitting.sound(free, manifest, splitting.split(free, manifest))


def test_too_few_events_are_refused_with_a_proposal(data: Path, manifest: Manifest) -> None:
    cfg = settings(data, "folds.n=20", "folds.min_test=2")
    with pytest.raises(DataFault, match=r"set folds.n=\d+, the nearest number of folds that has enough"):
        splitting.sound(cfg, manifest, splitting.split(cfg, manifest))


def test_labels_that_are_missing_say_nothing(data: Path) -> None:
    """Seven tenths of a task unknown: the split balances what is known."""
    manifest = open_cohort(settings(data))
    unknown = manifest.ids[::10] + manifest.ids[1::10] + manifest.ids[2::10] + manifest.ids[3::10]
    unknown += manifest.ids[4::10] + manifest.ids[5::10] + manifest.ids[6::10]
    manifest.labels["grade"].loc[unknown, "value"] = float("nan")
    cfg = settings(data, "folds.min_events=1")
    made = splitting.split(cfg, manifest)
    said = splitting.record(cfg, manifest, made)
    tested = [sum(fold["parts"]["test"]["grade"].values()) for fold in said["folds"]]
    assert sum(tested) == manifest.labels["grade"]["value"].notna().sum()
    assert max(tested) - min(tested) <= 4


def test_check_names_a_split_by_site(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"cohort.root={data}", "cohort.level=features", "cohort.n=60", "name=it", "folds.sites=leave_one_out"]
    assert execute("check", [*words, "folds.site_patients=5"], lambda: command.body) == 0
    said = json.loads(Path("runs/check/it/check.json").read_text())
    assert [fold["name"] for fold in said["splits"]["folds"]] == ["A", "B", "C"]
    assert [row["shared_sites"] for row in said["overlap"]] == [0, 0, 0]
    assert [row["shared_patients"] for row in said["overlap"]] == [0, 0, 0]


def test_given_folds_leave_out_whom_nothing_is_known_of_and_strangers_with_a_note(data: Path, tmp_path: Path) -> None:
    words = ["modalities=[rna]", "folds.together=[]"]
    ids = list(pd.read_csv(data / "patients.csv", dtype=str)["patient_id"])
    with_rna = set(pd.read_csv(data / "rna.csv", dtype=str)["patient_id"])
    rows = [(p, fold, "test" if at % 2 == fold else "train") for at, p in enumerate([*ids, "X"]) for fold in (0, 1)]
    pd.DataFrame(rows, columns=["patient_id", "fold", "part"]).to_csv(tmp_path / "f.csv", index=False)
    manifest = open_cohort(settings(data, *words))
    made = split(data, manifest, *words, f"folds.file={tmp_path / 'f.csv'}")
    assert set(made.table["patient_id"]) == with_rna
    assert made.notes[0] == f"{60 - len(with_rna)} of 60 patients lack any modality: left out"
    assert "'f.csv' lists 1 patients who are not in the cohort: left out" in made.notes
    with pytest.raises(UsageFault, match=r"folds.file: there is no file 'absent.csv'"):
        split(data, manifest, "folds.file=absent.csv")


def test_given_columns_have_a_calibration_part_where_one_is_asked_for(
    data: Path, manifest: Manifest, tmp_path: Path
) -> None:
    half = len(manifest.ids) // 2
    pairs = zip(manifest.ids[:half], manifest.ids[half:], strict=True)
    pd.DataFrame(pairs, columns=["train", "val"]).to_csv(tmp_path / "s_0.csv", index=False)
    made = split(data, manifest, f"folds.columns={tmp_path}/s_*.csv", "folds.calibration=0.2", "folds.together=[]")
    assert dict(made.table["part"].value_counts()) == {"test": 30, "train": 21, "calibration": 6, "validation": 3}
