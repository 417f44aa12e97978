"""What patients are known again by: which rows, slides and scans tell who somebody is, and which do not."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.bags import marks
from nsclc_mtl.features import store
from nsclc_mtl.records import Features, Manifest

IDS = [f"P{k}" for k in range(40)]
rng = np.random.default_rng(0)


def manifest(**held: object) -> Manifest:
    return Manifest("m", pd.DataFrame({"site": ""}, index=IDS), {}, {}, {}, **held)  # type: ignore[arg-type]


def wide(columns: int = 200) -> pd.DataFrame:
    return pd.DataFrame(rng.normal(size=(40, columns)), IDS, [f"g{k}" for k in range(columns)])


def shared(ours: marks.Marks, theirs: marks.Marks, patient: str, as_whom: str) -> int:
    return len(set(ours.content[as_whom]) & set(theirs.content[patient]))


def test_a_row_of_measurements_tells_who_it_is_under_any_id_and_after_a_correction() -> None:
    table = wide()
    kept = marks.taken(manifest(tables={"rna": table}), IDS)
    assert kept.telling == {f"rna/{k}{end}": 1.0 for k in range(marks.BLOCKS) for end in marks.DIGITS}
    assert all(len(own) == 2 * marks.BLOCKS for own in kept.content.values())
    again = table.rename(index=lambda p: f"X{p}").round(12).sample(frac=1, axis=1, random_state=0)
    again.loc["XP3", kept.blocks["rna"][2][0]] = 9.0
    found, tell = marks.like(manifest(tables={"rna": again}), list(again.index), kept)
    assert tell == set(again.index)
    for patient in IDS:
        assert shared(kept, found, f"X{patient}", patient) == 2 * (marks.BLOCKS - (patient == "P3"))
    assert shared(kept, found, "XP1", "P2") == 0


@pytest.mark.parametrize(
    "written", [lambda t: t.round(2), lambda t: t.map("{:.3g}".format), lambda t: t.astype("float16")]
)
def test_a_table_written_with_fewer_digits_tells_who_its_rows_are(written: Callable[[pd.DataFrame], object]) -> None:
    table = 7 + wide()
    kept = marks.taken(manifest(tables={"rna": table}), IDS)
    found, _ = marks.like(manifest(tables={"rna": written(table)}), IDS, kept)  # type: ignore[dict-item]
    for patient in IDS:
        assert shared(kept, found, patient, patient) > 0
        assert shared(kept, found, patient, "P0" if patient != "P0" else "P1") == 0


def test_columns_that_say_the_same_in_other_words_count_once() -> None:
    """Stage with its code and its parts, histology with two codes, age with the year of birth."""
    stage, kind, age = rng.integers(0, 8, 400), rng.integers(0, 7, 400), rng.integers(40, 85, 400)
    table = pd.DataFrame(
        {"age": age, "born": 2012 - age, "group": age // 5, "stage": stage, "code": 10 * stage, "t": stage // 2}
        | {"uicc": stage + 1, "kind": kind, "morphology": 8140 + kind, "icd": 3 * kind, "topography": 34 + kind},
        index=[f"P{k}" for k in range(400)],
    )
    everybody = replace(manifest(tables={"clinical": table}), patients=table)
    kept = marks.taken(everybody, list(table.index))
    assert table.duplicated().any()
    assert not any(kept.content.values())
    assert kept.named.keys() == kept.short.keys() == set(table.index)


def test_who_is_entered_several_times_is_one_person() -> None:
    """In a telling table his rows still make marks; in a narrow one he shares his row with nobody else."""
    outcomes = pd.DataFrame({"event": 1.0, "time_days": 100.0 + np.arange(40)}, IDS)
    genes, short = wide(), pd.DataFrame({"age": rng.integers(50, 70, 40) * 1.0, "size": np.arange(40) % 20 * 1.0}, IDS)
    for table in (outcomes, genes, short):
        table.iloc[20:30] = table.iloc[:10].to_numpy()
    both = replace(manifest(tables={"rna": genes}), labels={"os": outcomes})
    assert all(marks.taken(both, IDS).content.values())
    once = marks.taken(replace(both, tables={"clinical": short}), IDS)
    assert set(once.short) == set(IDS[:20] + IDS[30:])
    alone = marks.taken(replace(both, tables={"clinical": short}, labels={}), IDS)
    assert set(alone.short) == set(IDS)
    assert once.twins["clinical/0"] < 0.2 < 0.5 <= alone.twins["clinical/0"]


def test_a_short_row_tells_only_with_the_id() -> None:
    table = pd.DataFrame({"age": rng.integers(50, 70, 40).astype(float), "sex": ["m", "f"] * 20}, IDS)
    kept = marks.taken(manifest(tables={"clinical": table}), IDS)
    assert not any(kept.content.values())
    assert set(kept.named) == set(IDS)
    assert set(kept.telling) == {f"clinical/{k}{end}" for k in range(3) for end in marks.DIGITS}  # both, and each alone
    assert not any(kept.telling.values())
    rows = table.value_counts()
    assert kept.chance["clinical/0"] == rows.max() / 40
    assert kept.twins["clinical/0"] == rows[rows > 1].sum() / 40
    same, tell = marks.like(manifest(tables={"clinical": table}), IDS, kept)
    assert same.named == kept.named
    assert not tell
    other, _ = marks.like(manifest(tables={"clinical": table.rename({"P0": "Q0"})}), ["Q0"], kept)
    assert other.named["Q0"] != kept.named["P0"]


def test_what_many_might_have_tells_nobody() -> None:
    """An empty mutation profile, a single rare mutation, and values that were filled in."""
    mutations = pd.DataFrame((rng.random((40, 300)) < 0.03).astype(float), IDS).rename(columns=str)
    mutations.loc[["P0"]] = 0.0
    mutations.loc[["P1"]] = np.eye(300)[5]
    filled = wide()
    filled.loc[["P4", "P5"]] = 0.5
    for table, patients in ((mutations, ("P0", "P1")), (filled, ("P4", "P5"))):
        kept = marks.taken(manifest(tables={"t": table}), IDS)
        assert not [p for p in patients if kept.content[p]]


def test_a_table_without_a_column_makes_no_mark_of_its_block() -> None:
    table = wide()
    kept = marks.taken(manifest(tables={"rna": table}), IDS)
    found, _ = marks.like(manifest(tables={"rna": table.drop(columns=kept.blocks["rna"][0][0])}), IDS, kept)
    assert shared(kept, found, "P7", "P7") == 2 * (marks.BLOCKS - 1)


def test_accents_are_the_same_however_they_are_written() -> None:
    table = pd.DataFrame({"age": rng.normal(65, 9, 40), "site": ["Universität", "Charité"] * 20}, IDS)
    ids = dict(zip(IDS, [unicodedata.normalize("NFC", f"Jürgen-{k}") for k in range(40)], strict=True))
    kept = marks.taken(manifest(tables={"clinical": table.rename(ids)}), list(ids.values()))
    apart = {p: unicodedata.normalize("NFD", name) for p, name in ids.items()}
    other = table.rename(apart).assign(site=table["site"].map(lambda t: unicodedata.normalize("NFD", t)).to_numpy())
    found, _ = marks.like(manifest(tables={"clinical": other}), list(apart.values()), kept)
    assert [found.named[apart[p]] for p in IDS] == [kept.named[ids[p]] for p in IDS]


def test_later_visits_change_nothing() -> None:
    days = pd.MultiIndex.from_product([IDS, [0.0, 7.0, 21.0, 60.0]])
    visits = pd.DataFrame(rng.normal(size=(160, 4)), days, ["a", "b", "c", "d"])
    kept = marks.taken(manifest(series={"labs": visits[days.get_level_values(1) < 60]}), IDS)
    found, _ = marks.like(manifest(series={"labs": visits}), IDS, kept)
    assert [shared(kept, found, p, p) for p in IDS] == [len(kept.content[p]) for p in IDS]
    assert min(map(len, kept.content.values())) > 0


def test_slides_scans_and_visits_tell(tmp_path: Path) -> None:
    def slide(name: str, values: np.ndarray, **attrs: str) -> list[str]:
        coords = np.stack([np.arange(len(values)), np.zeros(len(values))], 1).astype(np.int64)
        store.write(tmp_path / f"{name}.h5", Features(values.astype(np.float16), coords, attrs))
        return [str(tmp_path / f"{name}.h5")]

    def scan(name: str, values: np.ndarray) -> str:
        with h5py.File(tmp_path / f"{name}.scan.h5", "w") as file:
            file["volume"] = values.astype(np.float32)
        return str(tmp_path / f"{name}.scan.h5")

    tiles, voxels = rng.normal(size=(20, 16)), rng.normal(size=(12, 12, 12))
    visits = pd.DataFrame(
        rng.normal(size=(120, 4)), pd.MultiIndex.from_product([IDS, [0.0, 7.0, 21.0]]), ["a", "b", "c", "d"]
    )
    held = {
        "bags": {"wsi": {"P0": slide("a", tiles), "P1": slide("b", np.zeros((5, 16))), "P2": slide("c", tiles + 1)}},
        "volumes": {"ct": {"P0": scan("a", voxels), "P1": scan("b", np.zeros((12, 12, 12)))}},
        "series": {"labs": visits},
    }
    kept = marks.taken(manifest(**held), IDS)
    assert [len(kept.content[p]) for p in ("P0", "P1", "P2", "P3")] == [
        6,
        4,
        5,
        4,
    ]  # of visits two and three together, with four digits and two
    again = {
        "bags": {"wsi": {"Q": slide("z", tiles, made_by="another"), "R": slide("y", tiles + 2)}},
        "volumes": {"ct": {"Q": scan("z", voxels)}},
        "series": {"labs": visits.loc[["P0", "P9"]].rename(index={"P0": "Q"}, level=0)},
    }
    found, tell = marks.like(manifest(**again), ["Q", "R"], kept)
    assert shared(kept, found, "Q", "P0") == 6
    assert shared(kept, found, "R", "P0") == 0
    assert tell == {"Q", "R"}


def test_features_of_one_slide_made_twice_are_known_by_the_slide(tmp_path: Path) -> None:
    coords = np.array([[0, 0], [1, 0]])
    for name, shift in (("a", 0.0), ("b", 0.01)):
        values = (rng.normal(size=(2, 16)) + shift).astype(np.float16)
        store.write(tmp_path / f"{name}.h5", Features(values, coords, {"slide_hash": "abc"}))
    kept = marks.taken(manifest(bags={"wsi": {"P0": [str(tmp_path / "a.h5")]}}), IDS)
    found, _ = marks.like(manifest(bags={"wsi": {"P1": [str(tmp_path / "b.h5")]}}), ["P1"], kept)
    assert shared(kept, found, "P1", "P0") == 1


def test_marks_come_back_as_they_were_kept() -> None:
    kept = marks.taken(manifest(tables={"rna": wide(), "c": wide(2).round()}), IDS)
    assert marks.Marks.load(kept.state()) == kept
