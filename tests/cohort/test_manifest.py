"""The manifest: who has what, text ids, and outcomes that never become inputs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from nsclc_mtl.cohort import manifest
from nsclc_mtl.features import store
from nsclc_mtl.records import DataFault, Features, UsageFault

COHORT: dict[str, Any] = {
    "name": "toy",
    "patients": {"file": "patients.csv", "id": "patient_id", "site": "hospital"},
    "tasks": {
        "grade": {"kind": "ordinal", "column": "grade", "classes": ["1", "2"]},
        "os": {"kind": "survival", "time": "t", "unit": "days", "event": "e", "events": {"dead": 1, "alive": 0}},
    },
    "modalities": {
        "clinical": {
            "kind": "clinical",
            "file": "patients.csv",
            "columns": {"age": "numeric", "smoking": ["no", "yes"]},
        },
        "rna": {"kind": "omics", "file": "rna.csv", "match": "^g"},
        "wsi": {"kind": "bag", "table": "slides.csv"},
        "embedding": {"kind": "vector", "file": "vectors.npz"},
        "other": {"kind": "omics", "file": "absent.csv", "optional": True},
    },
}
PATIENTS = """patient_id,hospital,age,smoking,grade,t,e
00123,A,60,no,1,10,dead
1E5,A,70, yes,2,20,alive
NA,B,,sometimes,,30,dead
7,B,50,no,1,,alive
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four patients: rna of three, slides of two, vectors of two."""
    (tmp_path / "patients.csv").write_text(PATIENTS)
    (tmp_path / "rna.csv").write_text("patient_id,g1,g2,grade,other\n00123,1,2,1,5\nNA,3,,2,5\n7,0,1,1,5\n")
    for slide, tiles in (("s1", 3), ("s2", 2), ("s3", 4)):
        coords = np.arange(2 * tiles).reshape(-1, 2) * 256
        store.write(tmp_path / "f" / f"{slide}.h5", Features(np.ones((tiles, 4), np.float16), coords, {}))
    (tmp_path / "slides.csv").write_text(
        "slide_id,patient_id,path\ns1,1E5,f/s1.h5\ns2,1E5,f/s2.h5\ns3,NA,f/s3.h5\ns4,7,f/s4.h5\ns5,Z,f/s1.h5\n"
    )
    np.savez(tmp_path / "vectors.npz", **{"00123": np.ones(3), "7": np.zeros(3)})
    return tmp_path


def declared(folder: Path, /, **changes: Any) -> dict[str, Any]:
    """The toy cohort at this root; keys with `__` reach below: modalities__rna=..."""
    made: dict[str, Any] = copy.deepcopy(COHORT) | {"root": str(folder)}
    for key, value in changes.items():
        *above, last = key.split("__")
        node = made
        for word in above:
            node = node[word]
        node[last] = value
    return made


def load(root: Path, cohort: dict[str, Any] | None = None, **asked: Any) -> Any:
    return manifest.load(cohort or declared(root), root / "out", **asked)


def test_who_has_what(root: Path) -> None:
    made = load(root)
    assert made.ids == ["00123", "1E5", "NA", "7"]
    assert made.patients["site"].tolist() == ["A", "A", "B", "B"]
    assert list(made.modalities) == ["clinical", "rna", "wsi", "embedding"]
    assert list(made.tables["rna"].index) == ["00123", "NA", "7"]
    assert made.tables["rna"].columns.tolist() == ["g1", "g2"]
    assert np.isnan(made.tables["rna"].loc["NA", "g2"])
    assert {p: len(paths) for p, paths in made.bags["wsi"].items()} == {"1E5": 2, "NA": 1}
    assert made.tables["embedding"].loc["00123"].tolist() == [1, 1, 1]
    assert made.tables["clinical"]["smoking"].tolist() == ["no", "yes", "sometimes", "no"]
    np.testing.assert_array_equal(made.labels["grade"]["value"], [0, 1, np.nan, 0])
    assert made.labels["os"].loc["7"].isna().all()
    assert {i["path"] for i in made.inputs} == {"patients.csv", "rna.csv", "slides.csv", "vectors.npz"}
    told = "; ".join(made.notes)
    for words in (
        "wsi: listed with a feature file that is not there: 1 of 5 slides (s4)",
        "slides of 1 patients outside", "column 'smoking' holds 'sometimes' (1 rows)",
    ):  # fmt: skip
        assert words in told
    assert "other" not in made.modalities
    assert "other" not in told  # an optional table that is not there is no news


def test_tasks_and_modalities_are_picked_by_name(root: Path) -> None:
    made = load(root, tasks=["os"], modalities=["rna", "wsi"])
    assert (list(made.tasks), list(made.modalities)) == (["os"], ["rna", "wsi"])
    assert "grade" not in made.tables["rna"]  # an outcome that is not trained stays an outcome
    with pytest.raises(UsageFault, match="cohort=toy declares no task 'pfs'; it has grade, os"):
        load(root, tasks=["pfs"])
    with pytest.raises(UsageFault, match="no modality 'mri'; it has"):
        load(root, modalities=["mri"])
    with pytest.raises(DataFault, match=r"no table 'absent.csv'"):
        load(root, modalities=["other"])


def test_outcomes_are_never_inputs(root: Path) -> None:
    everything = declared(root, modalities__rna__match=None, never_inputs=["other"])
    assert load(root, everything).tables["rna"].columns.tolist() == ["g1", "g2"]
    with pytest.raises(DataFault, match="'t', which is an outcome"):
        load(root, declared(root, modalities__clinical__columns={"t": "numeric"}))
    with pytest.raises(DataFault, match=r"'rna.csv'.*no column .*left|no column of 'rna.csv' is left"):
        load(root, declared(root, modalities__rna__match="^grade$"))


def test_ids_written_in_two_ways_are_refused(root: Path) -> None:
    (root / "rna.csv").write_text("patient_id,g1\n123,1\n100000,2\n7,3\n")
    with pytest.raises(DataFault, match=r"2 of 3 ids are no patients .*compared as text"):
        load(root)


def test_an_empty_modality_leaves_no_trace(root: Path) -> None:
    (root / "rna.csv").write_text("patient_id,g1\n")
    made = load(root)
    assert "rna" not in made.modalities
    assert "rna" not in made.tables
    with pytest.raises(DataFault, match="no patient has the modality 'rna'"):
        load(root, modalities=["rna"])


def test_a_broken_optional_table_is_told_not_hidden(root: Path) -> None:
    (root / "absent.csv").write_text("patient_id,x\n7,1\n7,2\n")
    with pytest.raises(DataFault, match="'7' more than once"):
        load(root)


@pytest.mark.parametrize(
    ("vectors", "told"),
    [
        ({"7": np.ones(3), "NA": np.ones(4)}, r"lengths \[3, 4\]"),
        ({"7": np.array([1.0, np.nan])}, "vector of 7 holds NaN"),
        ({"7": np.array([{"a": 1}], dtype=object)}, "pickled"),
        ({}, "no vector"),
        (None, "no .npz"),
    ],
)
def test_wrong_vectors_are_refused(root: Path, vectors: dict[str, np.ndarray] | None, told: str) -> None:
    if vectors is None:
        (root / "vectors.npz").write_bytes(b"PK\x03\x04 cut short")
    else:
        np.savez(root / "vectors.npz", **vectors)
    with pytest.raises(DataFault, match=told):
        load(root)


@pytest.mark.parametrize(
    ("changes", "fault", "told"),
    [
        ({"root": None}, UsageFault, r"cohort.root=PATH"),
        ({"root": "/nowhere/at/all"}, DataFault, "no folder"),
        ({"modalities__rna__kind": "genes"}, UsageFault, "none of bag, clinical"),
        ({"modalities__clinical__columns": {"weight": "numeric"}}, DataFault, "no column 'weight'"),
        ({"patients": {"file": "patients.csv", "site": "clinic"}}, DataFault, "no column 'clinic'"),
        ({"patients": {"file": "patients.csv", "id": "name"}}, DataFault, "no column 'name'"),
        ({"modalities__wsi__table": "nothing.csv"}, DataFault, r"no table 'nothing.csv'"),
    ],
)
def test_a_wrong_declaration_is_one_sentence(
    root: Path, changes: dict[str, Any], fault: type[Exception], told: str
) -> None:
    with pytest.raises(fault, match=told):
        load(root, declared(root, **changes))


def test_extracted_radiomics_are_found_by_key(root: Path) -> None:
    cohort = declared(root, modalities={"radiomics": {"kind": "radiomics", "file": "radiomics.csv"}})
    keys = {"radiomics": "radiomics-12345678"}
    with pytest.raises(DataFault, match="run `mtl extract`"):
        load(root, cohort, keys=keys)
    table = pd.DataFrame({"volume": [2.0, 1.0]}, index=pd.Index(["7", "00123"], name="patient_id"))
    (root / "out" / "scans").mkdir(parents=True)
    table.to_parquet(root / "out" / "scans" / "radiomics-12345678.parquet")
    assert load(root, cohort, keys=keys).tables["radiomics"]["volume"].to_dict() == {"00123": 1, "7": 2}


def test_patients_as_written(root: Path) -> None:
    text = manifest.text_only(declared(root))
    assert text.loc["NA", "age"] == ""


def foreign(path: Path, tiles: int) -> str:
    """A feature file as other tools write it; returns its name."""
    path.parent.mkdir(exist_ok=True)
    values, coords = np.ones((tiles, 4), np.float32), np.zeros((tiles, 2), np.int64)
    if path.suffix == ".npz":
        np.savez(path, features=values, coords=coords)
    elif path.suffix == ".pt":
        torch.save(torch.from_numpy(values), path)
    else:
        with h5py.File(path, "w") as file:
            file["feats" if "stamp" in path.name else "features"] = values if "clam" not in path.name else values[None]
            file["coords"] = coords
    return f"f/{path.name}"


@pytest.mark.parametrize("name", ["clam.h5", "stamp.h5", "plain.npz", "plain.pt"])
def test_a_slide_without_a_tile_is_an_absent_slide(root: Path, name: str) -> None:
    none, some = foreign(root / "f" / f"none-{name}", 0), foreign(root / "f" / f"some-{name}", 5)
    (root / "slides.csv").write_text(
        f"slide_id,patient_id,path\na,1E5,{none}\nb,1E5,{some}\nc,NA,{none}\nd,7,{some}\ne,Z,{none}\n"
    )
    made = load(root)
    assert made.bags["wsi"] == {"1E5": [str(root / some)], "7": [str(root / some)]}
    assert "wsi: 2 of 5 slides (a, c) hold no tile: taken as absent" in made.notes


def test_a_large_feature_file_is_not_opened_to_count_its_tiles(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = foreign(root / "f" / "large.pt", 50_000)
    (root / "slides.csv").write_text(f"slide_id,patient_id,path\na,1E5,{large}\n")
    monkeypatch.setattr(store, "header", lambda path: pytest.fail(f"{path} was opened"))
    assert set(load(root).bags["wsi"]) == {"1E5"}


def test_a_small_file_that_cannot_be_read_is_left_to_its_reader(root: Path) -> None:
    (root / "f" / "broken.h5").write_bytes(b"no HDF5")
    (root / "slides.csv").write_text("slide_id,patient_id,path\na,1E5,f/broken.h5\n")
    made = load(root)
    with pytest.raises(DataFault, match="is not a whole HDF5 file"):
        store.read(Path(made.bags["wsi"]["1E5"][0]))


def test_perturbed_measurements_come_with_the_radiomics(root: Path) -> None:
    cohort = declared(root, modalities={"radiomics": {"kind": "radiomics"}})
    scans = root / "out" / "scans"
    scans.mkdir(parents=True)
    table = pd.DataFrame({"volume": [1.0, 2.0]}, index=pd.Index(["00123", "7"], name="patient_id"))
    table.to_parquet(scans / "radiomics-1.parquet")
    keys = {"radiomics": "radiomics-1", "perturbed": "perturbed-2"}
    found = manifest.load(cohort, root / "out", keys=keys, icc_lower=0.8).repeated["radiomics"]
    assert (len(found.table), found.lower) == (0, 0.8)  # a prediction does not need them, a training says so
    again = pd.concat({"erode 1 mm": table, "dilate 1 mm": table}, names=["perturbation"]).swaplevel()
    again.to_parquet(scans / "perturbed-2.parquet")
    found = manifest.load(cohort, root / "out", keys=keys).repeated["radiomics"]
    assert found.table.index.names == ["patient_id", "perturbation"]
    assert set(found.table.index.get_level_values(0)) == {"00123", "7"}
    assert manifest.load(cohort, root / "out", keys={"radiomics": "radiomics-1"}).repeated == {}
