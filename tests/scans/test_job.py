"""The job over a cohort: every scan is done, skipped or failed, and a rerun does only what is missing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toy_dicom import contours_of, rtstruct, series
from toy_scan import ball, chest

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.scans import crop, job, measuring, radiomics, sources

CFG: dict[str, Any] = {
    "modality": "CT",
    "workers": 1,
    "crop": {"size_vox": 16, "spacing_mm": 1.5, "window": [-1000, 400]},
    "radiomics": {"setting": {"binWidth": 25}, "featureClass": {"shape": [], "firstorder": []}},
}


@dataclass
class Notes:
    done: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)

    def track(self, items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        yield from items


@pytest.fixture
def cohort(write: Callable[..., Path]) -> Callable[..., pd.DataFrame]:
    def make(n: int = 3) -> pd.DataFrame:
        rows = []
        for i in range(n):
            mask = ball(4.0 + i)
            image, drawn = write(f"ct{i}.nii.gz", chest(mask, i)), write(f"mask{i}.nii.gz", mask)
            told = {"modality": "CT", "image": image.name, "mask": drawn.name}
            rows.append({"scan_id": f"00{i}", "patient_id": f"P{i}", **told})
        return pd.DataFrame(rows)

    return make


def run(root: Path, scans: pd.DataFrame, cfg: dict[str, Any] = CFG) -> Notes:
    notes = Notes()
    job.extract_scans(root, scans, cfg, root / "out", notes)
    return notes


def test_a_cohort(tmp_path: Path, cohort: Callable[..., pd.DataFrame]) -> None:
    notes = run(tmp_path, cohort(), {**CFG, "qc": True})
    assert notes.done == ["000", "001", "002"]
    assert not notes.failed
    table = pd.read_parquet(radiomics.radiomics_table(tmp_path / "out", CFG))
    assert table.index.name == "patient_id"
    assert list(table.index) == ["P0", "P1", "P2"]
    assert table.shape == (3, 32)
    assert table["original_shape_VoxelVolume"].is_monotonic_increasing
    assert not table.isna().any(axis=None)
    folder = crop.volume_folder(tmp_path / "out", CFG)
    assert sorted(p.name for p in folder.iterdir()) == ["000.h5", "001.h5", "002.h5"]
    chosen = pd.read_csv(folder.with_suffix(".csv"), dtype=str)
    assert chosen.to_dict("list") == {"patient_id": ["P0", "P1", "P2"], "scan_id": ["000", "001", "002"]}
    pictures = list((tmp_path / "out" / "scans" / "qc").iterdir())
    assert len(pictures) == 3
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)


def test_a_rerun_does_only_what_is_missing_or_changed(
    tmp_path: Path, cohort: Callable[..., pd.DataFrame], write: Callable[..., Path]
) -> None:
    scans = cohort()
    run(tmp_path, scans)
    folder = crop.volume_folder(tmp_path / "out", CFG)
    table = radiomics.radiomics_table(tmp_path / "out", CFG)
    first = pd.read_parquet(table)
    stamps = {p: p.stat().st_mtime_ns for p in [*folder.iterdir(), *table.with_suffix("").iterdir()]}
    cut = folder / "001.h5"
    cut.write_bytes(cut.read_bytes()[:-1])
    write("ct2.nii.gz", chest(ball(6.0), seed=9))  # other content under the same name
    time.sleep(0.01)
    notes = run(tmp_path, scans)
    assert "3 done (1 of them complete before)" in notes.said[0]
    changed = {p.name for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp}
    assert changed == {"001.h5", "002.h5", "002.json"}
    second = pd.read_parquet(table)
    pd.testing.assert_frame_equal(second.iloc[:2], first.iloc[:2])
    assert second.loc["P2", "original_firstorder_Mean"] != first.loc["P2", "original_firstorder_Mean"]


def test_faults_are_named_and_the_others_go_on(
    tmp_path: Path, cohort: Callable[..., pd.DataFrame], write: Callable[..., Path]
) -> None:
    scans = cohort(6)
    write("mask1.nii.gz", ball() * 0)
    (tmp_path / "ct2.nii.gz").write_bytes(b"")
    (tmp_path / "ct3.nii.gz").unlink()
    scans.loc[4, "mask"] = np.nan
    scans.loc[5, "modality"] = "PET"
    notes = run(tmp_path, scans)
    assert notes.done == ["000"]
    assert notes.failed == [
        {"id": "001", "reason": "empty_roi"},
        {"id": "002", "reason": "corrupt"},
        {"id": "003", "reason": "absent"},
    ]
    assert notes.skipped == [{"id": "005", "reason": "other_modality"}, {"id": "004", "reason": "no_mask"}]
    assert any("scan 001: empty_roi: mask mask1.nii.gz is empty" in line for line in notes.said)
    assert len(pd.read_parquet(radiomics.radiomics_table(tmp_path / "out", CFG))) == 1
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_ids_that_cannot_be_files_or_are_not_unique(tmp_path: Path, cohort: Callable[..., pd.DataFrame]) -> None:
    scans = cohort(2)
    scans.loc[0, "scan_id"] = "../../evil"
    notes = run(tmp_path, scans)
    assert notes.failed == [{"id": "../../evil", "reason": "bad_id"}]
    scans["scan_id"] = "same"
    with pytest.raises(DataFault, match="same"):
        run(tmp_path, scans)


def test_nothing_usable_writes_no_table(tmp_path: Path, cohort: Callable[..., pd.DataFrame]) -> None:
    scans = cohort(1)
    (tmp_path / "ct0.nii.gz").unlink()
    assert run(tmp_path, scans).failed == [{"id": "000", "reason": "absent"}]
    assert not list((tmp_path / "out").rglob("*.parquet"))
    assert run(tmp_path, scans.iloc[:0]).done == []


def test_wrong_settings_stop_the_job(tmp_path: Path, cohort: Callable[..., pd.DataFrame]) -> None:
    with pytest.raises(UsageFault, match=r"scans\.radiomics"):
        run(tmp_path, cohort(1), {**CFG, "radiomics": {"featureClass": {"nonsense": []}}})


def test_only_crops_or_only_radiomics(tmp_path: Path, cohort: Callable[..., pd.DataFrame]) -> None:
    run(tmp_path, cohort(1), {**CFG, "radiomics": None})
    run(tmp_path, cohort(1), {**CFG, "crop": None})
    assert len(list((tmp_path / "out").rglob("*.h5"))) == 1
    assert len(list((tmp_path / "out").rglob("*.parquet"))) == 1


def test_undefined_features_stay_undefined(tmp_path: Path) -> None:
    stamp = {"source": "s", "patient_id": "P"}
    measuring.write_json(tmp_path / "a.json", {**stamp, "complete": 1, "features": {"a": float("nan"), "b": 2.0}})
    assert json.loads((tmp_path / "a.json").read_text())["features"] == {"a": None, "b": 2.0}
    found = measuring.read_json(tmp_path / "a.json", stamp)
    assert found is not None
    assert np.isnan(found["a"])
    assert measuring.read_json(tmp_path / "a.json", {**stamp, "source": "t"}) is None


@pytest.mark.parametrize(
    ("timepoints", "first"),
    [
        (["10", "2", ""], "b"),
        (["T10", "T2", None], "b"),
        (["2021-03-01", "2020-12-24", "2021-01-01"], "b"),
        (None, "a"),
    ],
)
def test_the_first_scan_of_a_patient(timepoints: list[str] | None, first: str) -> None:
    scans = pd.DataFrame({"scan_id": ["a", "b", "c"], "patient_id": "P"})
    if timepoints is not None:
        scans["timepoint"] = timepoints
    assert list(job.first_scans(scans)["scan_id"]) == [first]


def test_a_later_scan_never_stands_in_for_an_earlier_one() -> None:
    scans = pd.DataFrame({"scan_id": list("abc"), "patient_id": "P", "timepoint": [0, 0, 1]})
    assert list(job.first_scans(scans, {"b", "c"})["scan_id"]) == ["b"]  # the same day
    assert job.first_scans(scans, {"c"}).empty  # the future


def test_a_first_scan_without_a_mask_is_not_replaced_by_a_later_one(
    tmp_path: Path, cohort: Callable[..., pd.DataFrame]
) -> None:
    scans = cohort(3).assign(patient_id=["P0", "P0", "P1"], timepoint=["0", "90", "0"])
    scans.loc[0, "mask"] = None
    notes = run(tmp_path, scans)
    assert list(pd.read_parquet(radiomics.radiomics_table(tmp_path / "out", CFG)).index) == ["P1"]
    assert any("1 patients have no usable scan" in line for line in notes.said)


def test_several_scans_a_patient_are_said(tmp_path: Path, cohort: Callable[..., pd.DataFrame]) -> None:
    scans = cohort(3).assign(patient_id="P0", timepoint=["2", "1", "1"])
    notes = run(tmp_path, scans)
    table = pd.read_parquet(radiomics.radiomics_table(tmp_path / "out", CFG))
    assert list(table.index) == ["P0"]
    single = json.loads((radiomics.radiomics_table(tmp_path / "out", CFG).with_suffix("") / "001.json").read_text())
    assert table.iloc[0].to_dict() == single["features"]
    assert any("1 patients have several scans" in line for line in notes.said)


def test_two_processes_give_what_one_gives(tmp_path: Path, cohort: Callable[..., pd.DataFrame]) -> None:
    scans = cohort(3)
    (tmp_path / "ct1.nii.gz").unlink()
    one = run(tmp_path, scans)
    table = radiomics.radiomics_table(tmp_path / "out", CFG)
    alone = pd.read_parquet(table)
    job.extract_scans(tmp_path, scans, {**CFG, "workers": 2}, tmp_path / "other", both := Notes())
    together = pd.read_parquet(radiomics.radiomics_table(tmp_path / "other", CFG))
    pd.testing.assert_frame_equal(alone, together)
    assert (both.done, both.failed) == (one.done, one.failed)


@pytest.mark.realdata
def test_a_sarcoma_patient(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "radiology" / "sts_pet_mr_ct"
    files = {"image": "STS_001/PET_image.nii.gz", "mask": "STS_001/PET_mask.nii.gz"}
    scans = pd.DataFrame([{"scan_id": "1", "patient_id": "STS_001", "modality": "PET", **files}])
    cfg = {
        "modality": "PT",
        "qc": True,
        "crop": {"size_vox": 32, "spacing_mm": 4.0, "window": [0, 15]},
        "radiomics": {"setting": {"binWidth": 0.25}, "featureClass": {"shape": [], "firstorder": [], "glcm": []}},
    }
    notes = Notes()
    job.extract_scans(root, scans, cfg, tmp_path, notes)
    assert notes.done == ["1"]
    table = pd.read_parquet(radiomics.radiomics_table(tmp_path, cfg))
    assert table.shape == (1, 56)
    assert 7 < table.loc["STS_001", "original_firstorder_Maximum"] < 9  # SUVmax


def tables(out: Path, cfg: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Radiomics and acquisition of a run."""
    path = radiomics.radiomics_table(out, cfg)
    taken = path.with_name(f"{path.stem}-acquisition.csv")
    return pd.read_parquet(path), pd.read_csv(taken, dtype=str, na_filter=False)


def test_how_each_scan_was_taken(tmp_path: Path, cohort: Callable[..., pd.DataFrame]) -> None:
    """From the headers of DICOM, from columns for NIfTI; nothing that tells who or when."""

    def scanner(slice_: Any, z: int) -> None:
        slice_.Manufacturer, slice_.ManufacturerModelName, slice_.ConvolutionKernel = "ACME", "Ring 9", ["B30f", "A"]
        slice_.KVP, slice_.StudyDate, slice_.InstitutionName = 120, "20200301", "Hospital"

    scans = cohort(3).assign(manufacturer=["", "Other", ""], kvp=["", "100", ""])
    series(tmp_path / "dicom", chest(ball(4.0)), change=scanner)
    scans.loc[0, "image"] = "dicom"
    notes = run(tmp_path, scans)
    assert notes.done == ["000", "001", "002"]
    _, taken = tables(tmp_path / "out", CFG)
    first = taken.iloc[0].to_dict()
    assert first["scan_id"] == "000"
    assert first["patient_id"] == "P0"
    assert (first["manufacturer"], first["model"], first["kernel"]) == ("ACME", "Ring 9", "B30f/A")
    assert (float(first["kvp"]), float(first["slice_thickness_mm"])) == (120, 2)
    assert first["roi_origin"] == "drawn"
    assert taken.loc[1, ["manufacturer", "kvp", "model"]].tolist() == ["Other", "100", ""]
    text = (tmp_path / "out" / "scans").glob("*-acquisition.csv").__next__().read_text()
    private = ("Nobody", "MRN12345", "1950", "20200301", "Hospital", "1.2.77")
    assert not any(word in text for word in private)
    for path in (tmp_path / "out" / "scans").rglob("*.*"):  # histories, attributes of crops, pictures
        assert not any(word.encode() in path.read_bytes() for word in private), path
    assert not any(word in line for word in private for line in notes.said)


def test_a_lesion_that_nobody_drew_says_so(tmp_path: Path, cohort: Callable[..., pd.DataFrame]) -> None:
    scans = cohort(3).assign(x_mm="", y_mm="", z_mm="")
    scans.loc[1:, "mask"] = ""
    scans.loc[1, ["x_mm", "y_mm", "z_mm"]] = ["27", "18", "-80"]
    cfg = {**CFG, "no_mask": "box", "box": {"size_mm": 8}}
    notes = run(tmp_path, scans, cfg)
    assert notes.failed == [{"id": "002", "reason": "no_point"}]
    table, taken = tables(tmp_path / "out", cfg)
    assert table["roi_origin"].to_dict() == {"P0": "drawn", "P1": "box"}
    assert taken["roi_origin"].tolist() == ["drawn", "box"]
    made = radiomics.radiomics_table(tmp_path / "out", cfg).with_suffix("") / "001.json"
    assert any("a box of 8x8x8 mm" in note for note in json.loads(made.read_text())["history"])
    assert radiomics.radiomics_key(cfg) != radiomics.radiomics_key(CFG)
    assert run(tmp_path, scans).skipped == [{"id": "001", "reason": "no_mask"}, {"id": "002", "reason": "no_mask"}]
    with pytest.raises(UsageFault, match="on_mismatch"):
        run(tmp_path, scans, {**CFG, "on_mismatch": "resampel"})


def test_other_weights_are_another_lesion(tmp_path: Path, cohort: Callable[..., pd.DataFrame]) -> None:
    (tmp_path / "weights.pt").write_bytes(b"one")
    cfg = {**CFG, "no_mask": "bundle", "segmenter": {"weights": str(tmp_path / "weights.pt")}}
    row = {**cohort(1).iloc[0].to_dict(), "mask": ""}
    before = sources.of(row, tmp_path, cfg).digest()
    (tmp_path / "weights.pt").write_bytes(b"three")
    assert sources.of(row, tmp_path, cfg).digest() != before


def test_several_masks_a_scan(tmp_path: Path, cohort: Callable[..., pd.DataFrame], write: Callable[..., Path]) -> None:
    """Columns mask_<name> and the option roi; a row may also name the region in its own file."""
    scans = cohort(2).drop(columns="mask").assign(mask_primary=["mask0.nii.gz", "mask1.nii.gz"], mask_nodes="")
    write("nodes.nii.gz", np.roll(ball(3.0), 5, 2))
    scans.loc[1, "mask_nodes"] = "nodes.nii.gz"
    primary, nodes = {**CFG, "roi": "primary"}, {**CFG, "roi": "nodes"}
    assert run(tmp_path, scans, primary).done == ["000", "001"]
    notes = run(tmp_path, scans, nodes)
    assert (notes.done, notes.skipped) == (["001"], [{"id": "000", "reason": "no_mask"}])
    ml = "original_shape_VoxelVolume"
    assert tables(tmp_path / "out", nodes)[0].loc["P1", ml] == 2 * ball(3.0).sum()
    assert tables(tmp_path / "out", primary)[0].loc["P1", ml] == 2 * ball(5.0).sum()
    rows = cohort(2).assign(roi=["GTV", "gtv-1"])
    for i, name in enumerate(("GTV", "GTV-1")):
        series(tmp_path / f"ct{i}", chest(ball()))
        contours = {name: contours_of(ball(4.0 + i)), "Lung": contours_of(ball(9.0))}
        rows.loc[i, ["image", "mask"]] = [f"ct{i}", rtstruct(tmp_path / f"rs{i}.dcm", contours).name]
    assert run(tmp_path, rows).done == ["000", "001"]
    assert tables(tmp_path / "out", CFG)[0][ml].tolist() == [2 * ball(4.0).sum(), 2 * ball(5.0).sum()]


def test_one_mask_for_several_sequences(
    tmp_path: Path, cohort: Callable[..., pd.DataFrame], write: Callable[..., Path]
) -> None:
    scans = cohort(2).assign(patient_id="P0", modality=["T1", "T2"], drawn_on=["", "000"])
    scans.loc[1, "mask"] = ""
    cfg = {**CFG, "modality": "T2", "crop": {**CFG["crop"], "window": None}}
    notes = run(tmp_path, scans, cfg)
    assert (notes.done, notes.skipped) == (["001"], [{"id": "000", "reason": "other_modality"}])
    assert tables(tmp_path / "out", cfg)[0]["original_shape_VoxelVolume"].tolist() == [2 * ball(4.0).sum()]
    write("ct1.nii.gz", chest(ball())[1:])
    assert run(tmp_path, scans, cfg).failed == [{"id": "001", "reason": "not_registered"}]
    scans.loc[1, "drawn_on"] = "777"
    scans.loc[1, "mask"] = "mask1.nii.gz"
    assert run(tmp_path, scans, cfg).failed == [{"id": "001", "reason": "absent"}]
    for modality, taken in (("MR", ["000", "001"]), ("T1", ["000"]), (None, ["000", "001"]), ("CT", [])):
        kept = [row["scan_id"] for row in scans.to_dict("records") if sources.of_modality(row, {"modality": modality})]
        assert kept == taken
    assert sources.of_modality({"modality": "MRI"}, {"modality": "T1"})  # a table that does not name its sequence
