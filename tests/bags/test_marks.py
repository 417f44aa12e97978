"""What patients are known again by: which rows, slides and scans tell who somebody is, and which do not."""

from __future__ import annotations

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
    assert kept.telling == {f"rna/{k}": 1.0 for k in range(marks.BLOCKS)}
    assert all(len(own) == marks.BLOCKS for own in kept.content.values())
    again = table.rename(index=lambda p: f"X{p}").round(12).sample(frac=1, axis=1, random_state=0)
    again.loc["XP3", kept.blocks["rna"][2][0]] = 9.0
    found, tell = marks.like(manifest(tables={"rna": again}), list(again.index), kept)
    assert tell == set(again.index)
    for patient in IDS:
        assert shared(kept, found, f"X{patient}", patient) == marks.BLOCKS - (patient == "P3")
    assert shared(kept, found, "XP1", "P2") == 0


def test_a_short_row_tells_only_with_the_id() -> None:
    table = pd.DataFrame({"age": rng.integers(50, 70, 40).astype(float), "sex": ["m", "f"] * 20}, IDS)
    kept = marks.taken(manifest(tables={"clinical": table}), IDS)
    assert not any(kept.content.values())
    assert set(kept.named) == set(IDS)
    assert kept.telling == {"clinical/0": 0.0}
    pairs = [(a, b) for a in range(40) for b in range(a)]
    equal = sum(table.iloc[a].equals(table.iloc[b]) for a, b in pairs)
    assert kept.chance["clinical/0"] == pytest.approx(equal / len(pairs))
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
    assert shared(kept, found, "P7", "P7") == marks.BLOCKS - 1


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
    assert [len(kept.content[p]) for p in ("P0", "P1", "P2", "P3")] == [3, 1, 2, 1]
    again = {
        "bags": {"wsi": {"Q": slide("z", tiles, made_by="another"), "R": slide("y", tiles + 2)}},
        "volumes": {"ct": {"Q": scan("z", voxels)}},
        "series": {"labs": visits.loc[["P0", "P9"]].rename(index={"P0": "Q"}, level=0)},
    }
    found, tell = marks.like(manifest(**again), ["Q", "R"], kept)
    assert shared(kept, found, "Q", "P0") == 3
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
