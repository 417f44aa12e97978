"""The phantom as files: the same bytes every time, readable by others, and true to what was drawn."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile
from skimage.draw import polygon2mask

from nsclc_mtl.phantom import cohort, compare, nuclei, scans, section, slides, truth

SEED = 8


def digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort.make(tmp_path_factory.mktemp("images") / "cohort", level="images", n=2, seed=SEED)


@pytest.fixture(scope="module")
def drawn() -> truth.Truth:
    return truth.draw(2, SEED)


def test_same_seed_same_bytes_of_images(made: Path, tmp_path: Path) -> None:
    again = cohort.make(tmp_path / "again", level="images", n=2, seed=SEED)
    assert digests(made) == digests(again)
    assert compare.missing_files(made) == []


@pytest.mark.slow
def test_bytes_of_slides_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    drawn = truth.draw(8, SEED)
    for processes in (1, 2, 3):
        slides.render(drawn, tmp_path / str(processes), SEED, processes=processes)
    assert digests(tmp_path / "1") == digests(tmp_path / "2") == digests(tmp_path / "3")


def test_same_seed_same_bytes_of_features(tmp_path: Path) -> None:
    for name in ("one", "two"):
        cohort.make(tmp_path / name, level="features", n=6, seed=SEED, extras=("redundant", "site_coded"))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert compare.missing_files(tmp_path / "one") == []
    other = cohort.make(tmp_path / "three", level="features", n=6, seed=SEED + 1)
    assert digests(other)["rna.csv"] != digests(tmp_path / "one")["rna.csv"]


def test_slides_open_as_pyramids_with_their_resolution(made: Path) -> None:
    table = pd.read_csv(made / "slides.csv", dtype=str)
    assert list(table.columns) == ["slide_id", "patient_id", "path"]
    for path in table["path"]:
        with openslide.OpenSlide(made / path) as slide:
            assert slide.properties["openslide.vendor"] == "generic-tiff"
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=1e-6)
            assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5, rel=1e-6)
            assert slide.level_count == slides.LEVELS
            assert slide.level_downsamples == pytest.approx((1, 4, 16), rel=0.01)
        with tifffile.TiffFile(made / path) as tiff:
            assert tiff.pages[0].tags["Software"].value == "mtl"
            assert "DateTime" not in tiff.pages[0].tags


def test_slides_show_what_was_drawn(made: Path, drawn: truth.Truth) -> None:
    item = slides.plan(drawn, SEED)[0]
    image = slides.draw(item).image
    with openslide.OpenSlide(made / slides.path_of(item)) as slide:
        assert slide.dimensions == (image.shape[1], image.shape[0])
        read = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    assert np.abs(read.astype(int) - image).mean() < 4  # JPEG


def test_tumour_outline_matches_the_truth(made: Path, drawn: truth.Truth) -> None:
    for item in slides.plan(drawn, SEED):
        drawn_section = slides.draw(item)
        said = json.loads((made / "truth" / "tumour" / f"{item['slide_id']}.geojson").read_text())
        shape = said["features"][0]["geometry"]
        assert shape["type"] == "MultiPolygon"
        inside = np.zeros(drawn_section.tumour.shape, bool)
        for (ring,) in shape["coordinates"]:
            assert ring[0] == ring[-1]
            yx = np.array(ring)[:, ::-1] / section.COARSE - 0.5
            inside ^= polygon2mask(inside.shape, yx)
        overlap = (inside & drawn_section.tumour).sum() / (inside | drawn_section.tumour).sum()
        assert overlap > 0.95
        share = drawn_section.tumour.sum() / drawn_section.tissue.sum()
        assert section.TUMOUR_SHARE[0] - 0.02 < share < section.TUMOUR_SHARE[1] + 0.02


def test_tumour_nuclei_grow_with_the_statistic_and_normal_ones_do_not() -> None:
    full = np.ones((600, 600), np.float32)
    none = np.zeros_like(full)
    tumour = nuclei.Tissue(full, full, none, full, none, none, full > 0, none)
    benign = nuclei.Tissue(full, none, full, full, none, none, full > 0, none)
    normal = nuclei.Tissue(full, none, none, none, none, none, full > 0, none)
    seen = [nuclei.tumour_nuclei(np.random.Generator(np.random.PCG64(1)), tumour, z) for z in (-2.0, 0.0, 2.0)]
    sizes = [n.radius.mean() for n in seen]
    spreads = [np.log(n.radius).std() for n in seen]
    assert sizes == sorted(sizes)
    assert spreads == sorted(spreads)
    assert len(seen[0].points) < len(seen[1].points) < len(seen[2].points)  # crowded
    assert [n.coarseness for n in seen] == sorted(n.coarseness for n in seen)
    quiet = nuclei.normal_nuclei(np.random.Generator(np.random.PCG64(1)), normal, 0.0)
    assert quiet.radius.mean() < sizes[0]
    # benign epithelium looks the same at the same number, but never grows in tumour, nor tumour's in it
    mimic = nuclei.benign_nuclei(np.random.Generator(np.random.PCG64(1)), benign, 2.0)
    assert np.array_equal(mimic.radius, seen[2].radius)
    assert len(nuclei.benign_nuclei(np.random.Generator(np.random.PCG64(1)), tumour, 2.0).points) == 0
    assert len(nuclei.tumour_nuclei(np.random.Generator(np.random.PCG64(1)), benign, 2.0).points) == 0


def test_looks_change_the_colour_and_nothing_else() -> None:
    plain, stained = (section.draw(np.random.Generator(np.random.PCG64(3)), 0.5, 0.0, 0.0, look) for look in ("", "C"))
    assert plain.rings == stained.rings
    assert np.abs(plain.image.mean((0, 1)) - stained.image.mean((0, 1))).max() > 4
    # nuclei and glass lie in the same places: the darkest and the brightest places agree
    dark, bright = ([(p.image.sum(2) < 330), (p.image.sum(2) > 690)] for p in (plain, stained))
    assert np.mean(dark[0] == bright[0]) > 0.9


def test_scans_and_masks_lie_on_one_grid(made: Path, drawn: truth.Truth) -> None:
    table = pd.read_csv(made / "scans.csv", dtype=str)
    assert list(table.columns) == ["scan_id", "patient_id", "modality", "image", "mask"]
    assert list(table["patient_id"]) == list(drawn.patients["patient_id"][drawn.has["ct_volume"]])
    for image, mask in zip(table["image"], table["mask"], strict=True):
        one, other = (nibabel.Nifti1Image.from_filename(made / path) for path in (image, mask))
        assert one.shape == other.shape == scans.SHAPE[::-1]
        assert np.array_equal(one.affine, other.affine)
        assert one.header.get_zooms() == pytest.approx(scans.SPACING_MM[::-1])
        hu, lesion = np.asarray(one.dataobj), np.asarray(other.dataobj)
        assert hu.dtype == np.int16
        assert set(np.unique(lesion)) == {0, 1}
        assert -920 < np.median(hu) < -780  # lung
        assert -300 < hu[lesion == 1].mean() < 80
        assert (made / image).read_bytes()[:9] == b"\x1f\x8b\x08" + bytes(6)  # no name, no time


def test_lesion_texture_follows_the_statistic_more_than_its_volume() -> None:
    z = np.random.Generator(np.random.PCG64(5)).standard_normal(24)
    spread, volume = [], []
    for i, value in enumerate(z):
        hu, lesion = scans.draw({"seed": [5, i], "z": float(value), "look": ""})
        spread.append(np.subtract(*np.percentile(hu[lesion == 1], [95, 60])))
        volume.append(np.log(lesion.sum()))
    assert np.corrcoef(z, spread)[0, 1] > 0.55
    assert 0.1 < np.corrcoef(z, volume)[0, 1] < 0.65


def test_comparison_finds_a_changed_pixel_block_a_changed_number_and_a_stray_file(made: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    assert compare.differences(copy, made) == []
    slide = next((copy / "slides").iterdir())
    with tifffile.TiffFile(slide) as tiff:
        image = tiff.pages[0].asarray()
    image[:64, :64] -= 40
    slides.write_pyramid(slide, image)
    table = (copy / "rna.csv").read_text().splitlines()
    words = table[1].split(",")
    table[1] = ",".join([*words[:-1], str(float(words[-1]) + 1e-4)])
    (copy / "rna.csv").write_text("\n".join(table) + "\n")
    (copy / "notes.txt").write_text("mine")
    (copy / "scans.csv").unlink()
    told = "\n".join(compare.differences(copy, made))
    assert f"slides/{slide.name}: pixels differ" in told
    assert "rna.csv: column GENE499 differs in row 2" in told
    assert "notes.txt: does not belong" in told
    assert "scans.csv: absent" in told
    assert "scans.csv" in compare.missing_files(copy)
