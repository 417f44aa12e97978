"""Patients who belong together stand in one part: declared groups, one slide, the same rows everywhere."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_cohort import cohort, findings

from nsclc_mtl.cohort import companions, splits, twins
from nsclc_mtl.records import DataFault, Manifest, ModalitySpec, UsageFault


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(20, 60),
    links=st.lists(st.lists(st.integers(0, 59), min_size=2, max_size=4), max_size=8),
    folds=st.integers(2, 4),
    seed=st.integers(0, 5),
)
def test_linked_patients_are_in_one_part_of_every_fold(n: int, links: list[list[int]], folds: int, seed: int) -> None:
    ids = [f"p{i}" for i in range(n)]
    unit = twins.components(ids, [[f"p{i}" for i in link] for link in links])
    labels = {"t": pd.DataFrame({"value": np.arange(n) % 3 * 1.0}, index=ids)}
    if len(np.unique(unit)) < 2 * folds:
        return
    made = splits.k_fold(labels, ids, folds=folds, seed=seed, validation=0.3, unit=unit)
    part = made.pivot_table(index="patient_id", columns="fold", values="part", aggfunc="first")
    for link in links:
        known = [f"p{i}" for i in link if i < n]
        assert (part.loc[known].nunique() <= 1).all()


def test_without_links_the_split_is_the_plain_one() -> None:
    manifest = cohort(60)
    unit = np.arange(60)
    plain = splits.k_fold(manifest.labels, manifest.ids, folds=3, seed=4)
    pd.testing.assert_frame_equal(plain, splits.k_fold(manifest.labels, manifest.ids, folds=3, seed=4, unit=unit))


def test_the_same_rows_in_all_tables_make_one_person_and_in_one_table_do_not() -> None:
    manifest = cohort()
    rna, clinical = manifest.tables["rna"], manifest.tables["clinical"]
    first, second, third = rna.index[:3]
    rna.loc[second] = rna.loc[first]
    rna.loc[third] = rna.loc[first]
    clinical.loc[first] = clinical.loc[second]
    clinical.loc[third, "age"] = clinical.loc[first, "age"] + 1
    found = companions.companions(manifest, ["rows"], None, None)
    assert [set(same.patients) for same in found] == [{first, second}]
    (any_row,) = companions.companions(manifest, ["any_row"], None, None)
    assert set(any_row.patients) == {first, second, third}
    said = [f.sentence for f in findings(manifest) if f.rule == "duplicate"]
    assert any("one person?" in sentence for sentence in said)


def registry(n: int, seed: int, days: int) -> Manifest:
    """A cohort of one narrow table: age, sex and stage, of which many have the same; survival in whole days."""
    draw = np.random.default_rng(seed)
    ids = [f"r{i}" for i in range(n)]
    row = {"age": draw.integers(40, 80, n) * 1.0, "sex": draw.integers(0, 2, n) * 1.0, "stage": draw.integers(1, 5, n)}
    event = draw.integers(0, 2, n) * 1.0
    time = np.where(event == 1, draw.integers(1, days, n), np.minimum(draw.integers(1, 2 * days, n), days)) * 1.0
    return Manifest(
        "registry", pd.DataFrame({"site": "a"}, index=ids), {}, {"clinical": ModalitySpec("clinical", "clinical")},
        {"os": pd.DataFrame({"event": event, "time_days": time}, index=ids)},
        {"clinical": pd.DataFrame(row, index=ids)},
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_many_share_a_narrow_row_and_some_of_them_a_day(seed: int) -> None:
    """Half of the censored end on one day, as in a trial: nobody is there twice."""
    assert twins.same_in_outcomes(registry(800, seed, 2000)) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_person_entered_twice_is_told_by_row_and_outcomes(seed: int) -> None:
    manifest = registry(800, seed, 2000)
    again, first = manifest.ids[700:], manifest.ids[:100]
    for table in (manifest.tables["clinical"], manifest.labels["os"]):
        table.loc[again] = table.loc[first].to_numpy()
    assert twins.same_in_all(manifest, twins.same_rows(manifest)) == []  # the row alone does not tell it
    found = companions.companions(manifest, ["rows"], None, None)
    joined = {frozenset(pair) for same in found for pair in combinations(same.patients, 2)}
    died = manifest.labels["os"]["time_days"] < 2000  # of those who end with the trial nothing is told
    pairs = {frozenset(pair) for pair in zip(first, again, strict=True) if died[pair[0]]}
    assert pairs <= joined
    assert len(joined - pairs) <= 3
    manifest.labels["os"].loc[again, "time_days"] += 1
    assert companions.companions(manifest, ["rows"], None, None) == []


def test_one_person_twice_in_a_small_cohort() -> None:
    manifest = registry(40, 1, 2000)
    died = [p for p in manifest.ids if manifest.labels["os"].loc[p, "event"] == 1]
    for table in (manifest.tables["clinical"], manifest.labels["os"]):
        table.loc[died[1]] = table.loc[died[0]]
    (same,) = twins.same_in_outcomes(manifest)
    assert set(same.patients) == set(died[:2])


def test_of_classes_many_have_the_same_and_it_tells_nothing() -> None:
    manifest = registry(300, 0, 2000)
    manifest.labels = {"grade": pd.DataFrame({"value": np.arange(300) % 3 * 1.0}, index=manifest.ids)}
    assert twins.same_in_outcomes(manifest) == []
    manifest.tables = {}
    assert twins.same_in_outcomes(manifest) == []


def test_empty_profiles_are_no_twins() -> None:
    """Half of the patients have no mutation in two hundred genes; the rest have one each."""
    manifest = cohort()
    made = pd.DataFrame(0.0, index=manifest.patients.index, columns=[f"M{i}" for i in range(200)])
    for k, patient in enumerate(made.index[:60]):
        made.loc[patient, f"M{k}"] = 1.0
    manifest.tables["rna"] = made
    assert companions.companions(manifest, ["rows"], None, None) == []


def test_a_declared_group() -> None:
    manifest = cohort(40)
    person = [f"f{i}" for i in range(40)]
    person[3] = person[20] = "family"
    person[5] = person[6] = ""
    manifest.patients["person"] = person
    (same,) = companions.companions(manifest, ["group"], None, "person")
    assert set(same.patients) == {manifest.ids[3], manifest.ids[20]}
    with pytest.raises(DataFault, match="no column 'somebody'"):
        companions.companions(manifest, ["group"], None, "somebody")
    with pytest.raises(
        UsageFault, match=r"folds.together names 'twins', which is none of group, slides, rows, any_row"
    ):
        companions.companions(manifest, ["twins"], None, None)


def slides(folder: Path, content: dict[str, bytes], owners: dict[str, str]) -> Manifest:
    manifest = cohort(40)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    names = dict(zip("abc", manifest.ids, strict=False))
    rows = [(slide, names[owner], f"{slide[0]}.svs") for slide, owner in owners.items()]
    manifest.slides = pd.DataFrame(rows, columns=["slide_id", "patient_id", "path"]).set_index("slide_id")
    return manifest


def test_the_same_slide_under_two_ids(tmp_path: Path) -> None:
    """By path and by bytes; a slide of the same size is another one. The linter calls it an error."""
    big = bytes(range(256)) * 40
    other = big[:-1] + b"x"
    manifest = slides(tmp_path, {"1.svs": big, "2.svs": big, "3.svs": other}, {"1": "a", "1b": "b", "2": "c", "3": "c"})
    found = twins.same_slides(manifest, tmp_path)
    a, b, c = manifest.ids[:3]
    assert [(set(f.patients), f.sentence) for f in found] == [
        ({a, b}, "are the same file '1.svs'"), ({a, c}, "hold the same bytes"),
    ]  # fmt: skip
    assert [set(f.patients) for f in twins.same_slides(manifest, None)] == [{a, b}]
    said = [f for f in findings(manifest, root=tmp_path) if f.rule == "duplicate"]
    assert [f.level for f in said] == ["error", "error"]
    unit = twins.components(manifest.ids, [f.patients for f in found])
    assert len({unit[0], unit[1], unit[2]}) == 1
    torn = pd.DataFrame({"patient_id": [a, b, c], "fold": 0, "part": ["test", "train", "train"]})
    with pytest.raises(DataFault, match="both sides of the test part of fold 0"):
        companions.torn(found, torn)
    companions.torn(found, torn.assign(part="train"))


def test_feature_files_made_of_one_slide(tmp_path: Path) -> None:
    manifest = cohort(40)
    for name, origin in (("x", "h1"), ("y", "h1"), ("z", "h2")):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.attrs["slide_hash"] = origin
    (tmp_path / "w.h5").write_bytes(b"no HDF5")
    first, second, *_ = manifest.ids
    paths = {name: str(tmp_path / f"{name}.h5") for name in "xyzw"}
    manifest.bags["wsi"] = {first: [paths["x"], paths["z"]], second: [paths["y"], paths["w"]]}
    manifest.modalities["wsi"] = ModalitySpec("wsi", "bag")
    (found,) = twins.same_slides(manifest, None)
    assert set(found.patients) == {first, second}
    assert set(found.items) == {"x", "y"}


@pytest.mark.parametrize(
    ("ids", "alike"),
    [
        (["P1", "p1", "P2"], [("P1", "p1")]),
        (["007", "7", "70"], [("007", "7")]),
        (["A-1", "A_1 ", "A1"], [("A-1", "A_1 ")]),
        (["TCGA-18-3406", "TCGA-18-3406-01A", "TCGA-18-3407"], [("TCGA-18-3406", "TCGA-18-3406-01A")]),
        (["P10", "P1", "P100"], []),
    ],
)
def test_one_id_in_several_spellings(ids: list[str], alike: list[tuple[str, ...]]) -> None:
    assert [same.patients for same in twins.same_ids(ids)] == alike
