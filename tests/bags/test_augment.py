"""Crops in training: drawn from (seed, epoch, patient) alone, changed as asked, never beyond 0..1."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from nsclc_mtl.bags.augment import changed, wanted
from nsclc_mtl.bags.datamodule import FoldData
from nsclc_mtl.records import Manifest, ModalitySpec, TaskSpec, UsageFault

ALL = {"flip": 1.0, "rotate_deg": 20.0, "contrast": 0.1, "brightness": 0.05}


def cube(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((8, 8, 8), np.float32)


def test_the_draw_depends_on_seed_epoch_and_patient() -> None:
    first = changed(cube(), ALL, 0, 0, "p1")
    assert first.dtype == np.float32
    assert 0 <= first.min() <= first.max() <= 1
    np.testing.assert_array_equal(first, changed(cube(), ALL, 0, 0, "p1"))
    for other in ((1, 0, "p1"), (0, 1, "p1"), (0, 0, "p2")):
        assert not np.allclose(first, changed(cube(), ALL, *other))


def test_each_option_does_what_it_says() -> None:
    given = cube()
    flips = {changed(given, {"flip": 1.0}, 0, epoch, "p").tobytes() for epoch in range(40)}
    assert len(flips) == 8  # every combination of three axes
    assert all(np.array_equal(np.sort(np.frombuffer(f, np.float32)), np.sort(given, None)) for f in flips)
    lighter = changed(given, {"brightness": 0.2}, 0, 3, "p")
    assert np.ptp((lighter - given)[(lighter > 0) & (lighter < 1)]) < 1e-6
    blob = np.zeros((9, 9, 9), np.float32)
    blob[4, 4, 4] = 1
    turned = changed(blob, {"rotate_deg": 30.0}, 0, 0, "p")
    assert turned.argmax() == blob.argmax()  # about the middle
    np.testing.assert_array_equal(changed(given, {}, 0, 0, "p"), given)


def test_words_are_checked_and_zeros_leave_the_crop_alone() -> None:
    assert wanted({"flip": False, "rotate_deg": 0, "contrast": 0.1}, "ct") == {"contrast": 0.1}
    assert wanted(None, "ct") == {}
    with pytest.raises(UsageFault, match="'rotate'"):
        wanted({"rotate": 3}, "ct")


@pytest.fixture
def data(tmp_path: Path) -> FoldData:
    ids = [f"p{i}" for i in range(6)]
    volumes = {}
    for i, patient in enumerate(ids):
        volumes[patient] = str(tmp_path / f"{patient}.h5")
        with h5py.File(volumes[patient], "w") as file:
            file["volume"] = cube(i).astype(np.float16)
    manifest = Manifest(
        name="toy", patients=pd.DataFrame({"site": ""}, index=ids), tasks={"t": TaskSpec("t", "binary", ("a", "b"))},
        modalities={"ct": ModalitySpec("ct", "volume")}, volumes={"ct": volumes},
        labels={"t": pd.DataFrame({"value": [0.0, 1.0] * 3}, index=ids)},
    )  # fmt: skip
    split = pd.DataFrame({"patient_id": ids, "fold": 0, "part": ["train"] * 4 + ["validation", "test"]})
    return FoldData(manifest, split, options={"ct": {"augment": ALL}}, batch_size=2)


def test_training_sees_changed_crops_validation_the_plain_ones(data: FoldData) -> None:
    epochs = [{p: b.inputs["ct"][i] for b in data.train_dataloader() for i, p in enumerate(b.patients)} for _ in "ab"]
    plain = torch.from_numpy(data.train_set.volumes[data.manifest.volumes["ct"]["p0"]])
    assert not torch.allclose(epochs[0]["p0"][0], plain)
    assert not data.train_set.volumes[data.manifest.volumes["ct"]["p0"]].flags.writeable or torch.equal(
        plain, torch.from_numpy(cube(0).astype(np.float16).astype(np.float32))
    )  # the cached crop stays as it was
    (batch,) = list(data.val_dataloader())
    np.testing.assert_array_equal(batch.inputs["ct"][0, 0].numpy(), cube(4).astype(np.float16).astype(np.float32))


def test_the_number_of_processes_changes_nothing(data: FoldData) -> None:
    data.train_set.epoch = 3

    def seen(workers: int) -> list[np.ndarray]:
        loaded = DataLoader(
            data.train_set, batch_size=None, num_workers=workers, multiprocessing_context="fork" if workers else None
        )
        return [patient.inputs["ct"] for patient in loaded]

    for alone, shared in zip(seen(0), seen(2), strict=True):
        np.testing.assert_array_equal(alone, shared)
