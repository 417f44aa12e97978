"""Scans as the browser gets them: where voxels lie, what is known before they are read, and what is refused."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from starlette.testclient import TestClient

from nsclc_mtl.scans.grid import affine_of, to_sitk
from nsclc_mtl.viewer import scans
from nsclc_mtl.viewer.app import build
from nsclc_mtl.viewer.board import Board, ScanFile
from nsclc_mtl.viewer.guard import Guard
from tests.viewer.conftest import PORT

SHAPE = (20, 24, 28)  # z, y, x
# oblique, with unequal steps: rows that run neither along x nor along y
ANGLE = np.deg2rad(20)
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = TURN @ np.diag([-0.8, -0.9, 2.5])
OBLIQUE[:3, 3] = (30, 40, -120)


@pytest.fixture
def asked(fresh: Board) -> Iterator[TestClient]:
    """A client whose board's scans a test may set."""
    guard = Guard.local(PORT)
    board = fresh
    board.scans = list(board.scans)
    with TestClient(
        build(board, guard), base_url=f"http://127.0.0.1:{PORT}", cookies={guard.cookie: guard.token}
    ) as one:
        one.board = board
        yield one


def chest(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """int16 [z, y, x] in HU with a lesion of 4 x 6 x 5 voxels off the middle, and the lesion."""
    rng = np.random.default_rng(seed)
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[5:9, 6:12, 15:20] = 1
    return np.where(lesion > 0, 40, rng.integers(-850, -750, SHAPE)).astype(np.int16), lesion


def written(folder: Path, name: str, values: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
    path = folder / name
    if name.endswith(".nii.gz"):
        nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), affine), path)
    else:
        sitk.WriteImage(to_sitk(values, affine), str(path))
    return path


def loaded(content: bytes) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(content))


def serve(asked: TestClient, scan: ScanFile) -> dict[str, object]:
    asked.board.scans[:] = [scan]
    answer = asked.get("/api/scans/0")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("kind", ["scan.nii.gz", "scan.nrrd", "scan.mha"])
def test_image_and_mask_lie_where_the_files_say(asked: TestClient, tmp_path: Path, kind: str) -> None:
    values, lesion = chest()
    mask = written(tmp_path, "mask.nii.gz", lesion)
    told = serve(asked, ScanFile("a", "P0001", "CT", written(tmp_path, kind, values), mask))
    image, drawn = (loaded(asked.get(f"/api/scans/0/{name}.nii.gz").content) for name in ("image", "mask"))
    assert np.array_equal(np.asarray(image.dataobj), values.transpose(2, 1, 0))
    assert np.array_equal(np.asarray(drawn.dataobj), lesion.transpose(2, 1, 0))
    for one in (image, drawn):
        assert np.allclose(one.affine, OBLIQUE, atol=1e-4)
        assert one.header["sform_code"] == one.header["qform_code"] == 1
    middle = np.argwhere(lesion)
    z, y, x = middle[np.linalg.norm(middle - middle.mean(0), axis=1).argmin()]
    assert told["lesion_mm"] == pytest.approx((OBLIQUE @ [x, y, z, 1])[:3], abs=0.01)
    assert told["lesion_ml"] == pytest.approx(4 * 6 * 5 * 0.8 * 0.9 * 2.5 / 1000, abs=0.005)
    assert (told["unit"], told["window"], told["mask"]) == ("HU", "lung", True)


def test_a_dicom_folder_is_shown_without_the_names_in_it(
    asked: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scans"))
    from toy_dicom import series

    values, _ = chest()
    told = serve(asked, ScanFile("d", "P0001", "CT", series(tmp_path / "dicom", values)))
    packed = gzip.decompress(asked.get("/api/scans/0/image.nii.gz").content)
    assert np.array_equal(np.asarray(loaded(gzip.compress(packed)).dataobj), values.transpose(2, 1, 0))
    assert b"Nobody" not in packed
    assert b"MRN12345" not in packed
    assert (told["mask"], told["lesion_mm"], told["shape"]) == (False, None, list(SHAPE[::-1]))


def test_maps_come_as_they_were_written_and_lie_on_the_scan(client: TestClient) -> None:
    told = client.get("/api/scans/0").json()
    assert {(m["method"], m["task"]) for m in told["maps"]} == {
        ("gradcam", "grade"), ("gradcam", "survival"), ("occlusion", "grade")
    }  # fmt: skip
    image, mask = (loaded(client.get(f"/api/scans/0/{name}.nii.gz").content) for name in ("image", "mask"))
    cam = loaded(client.get("/api/scans/0/maps/gradcam/survival.nii.gz").content)
    assert np.allclose(cam.affine, image.affine)
    assert np.array_equal(np.asarray(cam.dataobj) < 0, np.asarray(mask.dataobj) > 0)
    for wrong in ("gradcam/response.nii.gz", "gradcam/grade.png", "..%2f..%2fx/grade.nii.gz"):
        assert client.get(f"/api/scans/0/maps/{wrong}").status_code == 404
    assert client.get("/api/scans/7").status_code == 404
    assert client.get("/api/scans/-1/image.nii.gz").status_code == 404


def test_of_several_labels_the_largest_is_outlined(asked: TestClient, tmp_path: Path) -> None:
    values, lesion = chest()
    labels = lesion * 2
    labels[0, 0, 0] = 1
    serve(asked, ScanFile("m", "P0001", "CT", written(tmp_path, "i.nrrd", values), written(tmp_path, "m.nrrd", labels)))
    drawn = loaded(asked.get("/api/scans/0/mask.nii.gz").content)
    assert np.array_equal(np.asarray(drawn.dataobj), lesion.transpose(2, 1, 0))


def test_a_mask_that_cannot_be_read_leaves_the_scan_and_its_reason(asked: TestClient, tmp_path: Path) -> None:
    values, lesion = chest()
    image = written(tmp_path, "i.nii.gz", values)
    told = serve(asked, ScanFile("e", "P0001", "CT", image, written(tmp_path, "empty.nii.gz", lesion * 0)))
    assert told["mask"] is False
    assert "empty.nii.gz is empty" in str(told["mask_fault"])
    assert str(tmp_path) not in str(told)
    assert asked.get("/api/scans/0/image.nii.gz").status_code == 200
    refused = asked.get("/api/scans/0/mask.nii.gz")
    assert refused.status_code == 404
    assert refused.json()["fault"] == told["mask_fault"]


def test_what_cannot_be_read_says_why_in_one_sentence_without_a_path(asked: TestClient, tmp_path: Path) -> None:
    torn = written(tmp_path, "torn.nii.gz", chest()[0])
    torn.write_bytes(torn.read_bytes()[:900])
    strange = tmp_path / "scan.txt"
    strange.write_text("no scan")
    for path, words in ((tmp_path / "gone.nii.gz", "not there"), (torn, "torn.nii.gz"), (strange, "scan.txt")):
        asked.board.scans[:] = [ScanFile("f", "P0001", "CT", path)]
        for wish in ("", "/image.nii.gz", "/mask.nii.gz"):
            answer = asked.get(f"/api/scans/0{wish}")
            assert answer.status_code == 404, (path.name, wish)
            assert words in answer.json()["fault"]
            assert str(tmp_path) not in answer.text


@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_values_that_are_no_hounsfield_units_or_suv_get_no_windows_of_them(
    asked: TestClient, tmp_path: Path, modality: str
) -> None:
    image = written(tmp_path, "i.nii.gz", (chest()[0] + 1000).astype(np.float32))
    told = serve(asked, ScanFile("u", "P0001", modality, image))
    assert told["unit"] == ""
    assert [w["name"] for w in told["windows"]] == ["whole range"]
    assert told["notes"]
    assert told["window"] == "whole range"


def test_a_large_scan_is_shown_coarser_in_its_place_and_a_larger_one_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, lesion = chest()
    scan = ScanFile("l", "P0001", "CT", written(tmp_path, "i.nrrd", values), written(tmp_path, "m.nrrd", lesion))
    monkeypatch.setattr(scans, "MOST_VOXELS", values.size // 2)
    view = scans.read(scan)
    assert list(view.coarser) == [2, 1, 1]
    assert view.image.GetSize() == view.lesion.GetSize() == (14, 24, 20)
    # the corner of the first voxel stays where it was
    assert np.allclose(affine_of(view.image) @ [-0.5, -0.5, -0.5, 1], OBLIQUE @ [-0.5, -0.5, -0.5, 1], atol=1e-4)
    monkeypatch.setattr(scans, "MOST_BYTES", 4 * values.size - 1)
    with pytest.raises(scans.DataFault, match="GiB"):
        scans.read(scan)


def test_a_scan_is_read_once_and_kept_only_within_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, lesion = chest()
    scan = ScanFile("o", "P0001", "CT", written(tmp_path, "i.nrrd", values), written(tmp_path, "m.nrrd", lesion))
    reads: list[str] = []
    read = scans.read
    monkeypatch.setattr(scans, "read", lambda one: reads.append(one.scan_id) or read(one))
    views = scans.Views([scan, replace(scan, scan_id="other")], most=10**6)
    views.info(0), views.packed(0), views.packed_lesion(0), views.info(0)
    assert reads == ["o"]
    views.packed(1), views.packed(0), views.info(0)
    assert reads == ["o", "other", "o"]
    small = scans.Views([scan], most=values.nbytes)
    small.packed(0), small.packed(0), small.info(0), small.info(0)
    assert reads[3:] == ["o"] * 3
    assert small._last is None


def test_percentiles_of_a_large_volume_are_read_from_a_sample() -> None:
    values = np.random.default_rng(0).normal(0, 100, (100, 200, 200)).astype(np.float32)
    values[0, 0, :7] = np.nan
    seen = scans.sampled(values)
    assert seen.size < 2 * scans.SAMPLE
    assert np.isfinite(seen).all()
    assert np.percentile(seen, [1, 99]) == pytest.approx(np.percentile(values[1:], [1, 99]), rel=0.03)
    assert scans.sampled(np.full((2, 2, 2), np.nan)).tolist() == [0.0]
