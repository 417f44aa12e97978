"""`mtl extract slide_encoder=`: slides and features of other tools become vectors, a modality for training."""

from __future__ import annotations

import importlib
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import yaml
from onnx_file import slide_encoder

from nsclc_mtl.commands.cohort import open_cohort
from nsclc_mtl.commands.slide_vectors import write_patients
from nsclc_mtl.config.frame import execute
from nsclc_mtl.features import store, vectors
from nsclc_mtl.lease import Lease
from nsclc_mtl.phantom.slides import write_pyramid
from nsclc_mtl.records import DataFault, Features, Manifest

TILES = 6
QUICK = ["slides.tile_um=64", "backbone.tile_px=64"]


def mtl(verb: str, *words: str, dry: bool = False) -> tuple[int, dict]:
    """Exit code and run.json of a command run in the current folder."""
    seen = set(Path("runs").rglob("run.json"))
    room = importlib.import_module(f"nsclc_mtl.commands.{verb}")
    code = execute(
        verb, list(words), lambda: room.body, no_run=(lambda: room.dry_run) if dry else None, conf_dirs=[Path("conf")]
    )
    new = set(Path("runs").rglob("run.json")) - seen
    return code, json.loads(new.pop().read_text()) if new else {}


def tissue(px: int = 768, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((px, px, 3), 242, np.int16)
    image[px // 4 :, px // 4 :] = (222, 160, 195)
    for y, x in rng.integers(px // 4, px - 12, (200, 2)):
        image[y : y + 12, x : x + 12] = (90, 60, 140)
    return (image + rng.integers(-3, 4, (px, px, 1))).clip(0, 255).astype(np.uint8)


def features(path: Path, shift: float, seed: int, **attrs: object) -> None:
    """A feature file as another tool writes it: five numbers a tile, about `shift`."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = rng.normal(shift, 1.0, (TILES, 5)).astype(np.float32)
        file["coords"] = np.stack([np.arange(TILES) % 3, np.arange(TILES) // 3], axis=1) * 256
        file["coords"].attrs["patch_size_level0"] = 256
        for name, value in attrs.items():
            file.attrs[name] = value


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cohort `mine` of 24 patients with feature files, the first of them with two; the mean says the grade."""
    monkeypatch.chdir(tmp_path)
    patients, slides = ["patient_id,grade"], ["slide_id,patient_id,path"]
    for number in range(24):
        patients.append(f"{number:03},{'high' if number % 2 else 'low'}")
        slides.append(f"s{number},{number:03},f/s{number}.h5")
        features(tmp_path / "f" / f"s{number}.h5", 2.0 * (number % 2), number)
    slides.append("extra,000,f/extra.h5")
    features(tmp_path / "f" / "extra.h5", 0.0, 99)
    (tmp_path / "patients.csv").write_text("\n".join(patients) + "\n")
    (tmp_path / "slides.csv").write_text("\n".join(slides) + "\n")
    cohort = {
        "name": "mine",
        "root": str(tmp_path),
        "patients": {"file": "patients.csv", "id": "patient_id"},
        "tasks": {"grade": {"kind": "binary", "column": "grade", "classes": ["low", "high"]}},
        "modalities": {"wsi": {"kind": "bag"}, "whole": {"kind": "vector", "optional": True}},
    }
    (tmp_path / "conf" / "cohort").mkdir(parents=True)
    (tmp_path / "conf" / "cohort" / "mine.yaml").write_text(
        "# a test's own\n" + yaml.safe_dump(cohort, sort_keys=False)
    )
    return tmp_path


def opened(**changes: object) -> Manifest:
    """The cohort as training opens it, under the settings of the last extraction."""
    latest = max(Path("runs/extract").glob("*/config.yaml"), key=lambda path: path.stat().st_mtime_ns)
    return open_cohort(yaml.safe_load(latest.read_text()) | changes)


def the_folder() -> Path:
    (folder,) = Path("out/slides").iterdir()
    return folder


def model(bench: Path, **options: object) -> list[str]:
    """A small model in the ONNX format, and the words that choose it."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is an optional extra")
    weight = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    (bench / "model.onnx").write_bytes(slide_encoder(weight, **options))  # type: ignore[arg-type]
    return ["slide_encoder=onnx", "slide_encoder.weights=model.onnx"]


def test_features_of_other_tools_become_vectors_that_training_takes(bench: Path) -> None:
    words = model(bench, places=True)
    code, account = mtl("extract", "cohort=mine", *words)
    assert (code, len(account["done"]), account["skipped"], account["failed"]) == (0, 25, [], [])
    vector, attrs = vectors.read(the_folder() / "s1.h5")
    assert vector.shape == (6,)
    np.testing.assert_allclose(vector[4:], [1.0, 0.5])  # the middle of 3 x 2 tiles, in edges of a tile
    assert (attrs["slide_encoder"], attrs["tiles"]) == ("onnx", TILES)
    assert attrs["slide_encoder_weights_hash"].startswith("sha256:")

    found = opened()
    assert found.modalities["whole"].kind == "vector"
    assert found.tables["whole"].shape == (24, 6)
    both = [vectors.read(the_folder() / f"{name}.h5")[0] for name in ("s0", "extra")]
    np.testing.assert_allclose(found.tables["whole"].loc["000"], np.mean(both, axis=0), rtol=1e-6)
    assert "whole" not in opened(slide_encoder={"name": None}).modalities  # optional, and nobody chose an encoder
    with pytest.raises(DataFault, match=r"set slide_encoder=NAME as for `mtl extract`"):
        opened(slide_encoder={"name": None}, modalities=["whole"])
    with pytest.raises(DataFault, match="run `mtl extract` with the same slide_encoder"):
        opened(slide_encoder={"name": "mean"}, modalities=["whole"])


def test_what_is_complete_is_kept_and_what_changed_is_made_again(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["cohort=mine", *model(bench)]
    assert mtl("extract", *words)[0] == 0
    table = the_folder() / "mine-slides.npz"
    before, stamps = table.read_bytes(), {path: path.stat().st_mtime_ns for path in the_folder().glob("*.h5")}
    assert mtl("extract", *words)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in the_folder().glob("*.h5")} == stamps
    assert table.read_bytes() == before

    features(bench / "f" / "s3.h5", 5.0, 3)  # extracted again elsewhere
    (the_folder() / "s4.h5").write_bytes(b"")  # damaged
    (the_folder() / "s5.h5.0123abcd.tmp").write_bytes(b"left by a killed process")
    capsys.readouterr()
    assert mtl("extract", *words, dry=True)[0] == 0
    assert "2 to do, 23 kept" in capsys.readouterr().out
    assert mtl("extract", *words)[0] == 0
    changed = {path.stem for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert changed == {"s3", "s4"}
    assert table.read_bytes() != before
    assert not list(the_folder().glob("*.tmp"))

    Path("model.onnx").write_bytes(slide_encoder(np.ones((5, 4), np.float32)))
    assert mtl("extract", *words, dry=True)[0] == 0
    assert "25 to do, 0 kept" in capsys.readouterr().out  # other weights are another encoder


def test_slides_that_cannot_be_encoded_are_counted_and_the_others_go_on(bench: Path) -> None:
    words = model(bench, places=True)
    features(bench / "f" / "s1.h5", 0.0, 1, backbone="uni")
    np.savez(bench / "f" / "s2.npz", features=np.zeros((4, 5), np.float32))  # no coordinates
    (bench / "f" / "s3.h5").write_text("no HDF5")
    (bench / "f" / "s4.h5").unlink()
    store.write(bench / "f" / "s5.h5", Features(np.zeros((0, 5)), np.zeros((0, 2)), {}))
    listed = (bench / "slides.csv").read_text().replace("f/s2.h5", "f/s2.npz")
    (bench / "slides.csv").write_text(listed)
    code, account = mtl("extract", "cohort=mine", *words, "slide_encoder.backbones=[conch_v15]")
    assert code == 4
    assert len(account["done"]) == 20
    assert {item["id"]: item["reason"] for item in account["failed"]} == {
        "s1": "other_features", "s2": "no_coords", "s3": "invalid", "s4": "absent",
    }  # fmt: skip
    assert {item["id"]: item["reason"] for item in account["skipped"]} == {"s5": "no_tissue"}
    assert set(opened().tables["whole"].index) == {
        f"{number:03}" for number in range(24) if number not in (1, 2, 3, 4, 5)
    }
    features(bench / "f" / "s1.h5", 0.0, 1)
    with h5py.File(bench / "f" / "s1.h5", "r+") as file:
        del file["features"]
        file["features"] = np.zeros((TILES, 8), np.float32)
    code, _ = mtl("extract", "cohort=mine", *words)
    assert code == 5  # features of another length are another backbone's: no slide of it would be right


def test_own_features_are_made_first_and_must_be_the_encoders(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pyramid(bench / "one.tiff", tissue())
    write_pyramid(bench / "glass.tiff", np.full((768, 768, 3), 243, np.uint8))
    (bench / "slides.csv").write_text("slide_id,patient_id,path\none,000,one.tiff\nglass,001,glass.tiff\n")
    code, account = mtl("extract", "cohort=mine", "slide_encoder=mean", *QUICK)
    assert (code, account["done"]) == (0, ["one"])
    assert account["skipped"] == [{"id": "glass", "reason": "no_tissue"}]
    (path,) = Path("out/features").rglob("one.h5")
    vector, attrs = vectors.read(the_folder() / "one.h5")
    np.testing.assert_allclose(vector, store.read(path).features.astype(np.float64).mean(axis=0), rtol=1e-5)
    assert attrs["backbone"] == "texture"
    assert attrs["feature_key"] == path.parent.name
    assert list(opened().tables["whole"].index) == ["000"]

    runs = set(Path("runs/extract").iterdir())
    words = model(bench)
    for options, exit_code, told in (
        (["slide_encoder.backbones=[virchow]"], 2, "reads features of virchow, not of texture; take that backbone"),
        (["slide_encoder.tile_um=256"], 2, "set slides.tile_um=256"),
        ([], 5, f"reads 5 features a tile, backbone=texture gives {len(vector)}"),
    ):
        capsys.readouterr()
        assert mtl("extract", "cohort=mine", *words, *QUICK, *options)[0] == exit_code
        assert told in capsys.readouterr().err
    assert mtl("extract", "cohort=mine", "slide_encoder=titan", *QUICK)[0] == 2
    left = [
        path
        for path in set(Path("runs/extract").iterdir()) - runs
        if json.loads((path / "run.json").read_text())["done"]
    ]
    assert not left


def test_slides_of_a_folder_get_vectors_but_belong_to_nobody(bench: Path) -> None:
    (bench / "slides").mkdir()
    write_pyramid(bench / "slides" / "one.tiff", tissue())
    code, account = mtl("extract", "slides.dir=slides", "slide_encoder=mean", *QUICK)
    assert (code, account["done"]) == (0, ["one"])
    assert [path.name for path in the_folder().iterdir()] == ["one.h5"]


def test_two_commands_write_the_patients_in_turn(tmp_path: Path) -> None:
    (tmp_path / "slides.csv").write_text("slide_id,patient_id\na,1\nb,1\nc,2\nd,NA\n")
    folder, said = tmp_path / "out", list[str]()
    for name in "abcd":
        vectors.write(folder / f"{name}.h5", np.array([float(ord(name))], np.float32), {})
    lease = Lease.take(folder / "mine-slides.lease")
    assert lease is not None
    threading.Timer(0.5, lease.release).start()
    began = time.monotonic()
    cohort = {"name": "mine", "root": str(tmp_path), "modalities": {"wsi": {"kind": "bag"}}}
    write_patients(cohort, ["a", "b", "d"], folder, SimpleNamespace(say=said.append))  # type: ignore[arg-type]
    assert time.monotonic() - began > 0.4
    assert said == [f"vectors of 2 patients: {folder / 'mine-slides.npz'}"]
    with np.load(folder / "mine-slides.npz") as found:
        assert {name: found[name].tolist() for name in found.files} == {"1": [97.5], "NA": [100.0]}
    assert not list(folder.glob("*.lease"))


@pytest.mark.slow
def test_a_model_is_trained_on_the_vectors(bench: Path) -> None:
    words = ["cohort=mine", *model(bench)]
    assert mtl("extract", *words)[0] == 0
    code, _ = mtl(
        "train", *words, "modalities=[whole]", "name=vectors", "folds.n=2", "folds.workers=0", "folds.min_events=1",
        "trainer.max_epochs=30", "audit=0",
    )  # fmt: skip
    assert code == 0
    rows = json.loads(Path("runs/train/vectors/metrics.json").read_text())
    auc = [row["value"] for row in rows if row["metric"] == "auc" and row["part"] == "test"]
    assert auc
    assert min(auc) > 0.8  # the mean of the tiles says the grade
