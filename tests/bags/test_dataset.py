"""From files to batches: fitted on training patients, packed without loss, the same for the same seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from nsclc_mtl.bags.cache import BagCache
from nsclc_mtl.bags.datamodule import FoldData, Share, batches, loader
from nsclc_mtl.bags.dataset import PatientDataset, pack
from nsclc_mtl.bags.fitted import Fitted, fit
from nsclc_mtl.commands import members
from nsclc_mtl.config import compose, plain
from nsclc_mtl.features import store
from nsclc_mtl.records import Bag, DataFault, Features, IntegrityFault, Manifest, ModalitySpec, Repeated, TaskSpec

DIM, TILES = 4, {"p0": 6, "p1": 3, "p3": 1, "p4": 0, "p5": 8}
PARTS = ["train"] * 4 + ["validation", "test"]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Six patients: slides of five (one without tiles, one with two slides), rna of three, scans of two."""
    rng = np.random.Generator(np.random.PCG64(0))
    ids = [f"p{i}" for i in range(6)]
    bags: dict[str, list[str]] = {}
    for patient, tiles in TILES.items():
        for part, n in enumerate([tiles] if patient != "p0" else [4, 2]):
            path = tmp_path / f"{patient}-{part}.h5"
            coords = np.stack([np.arange(n), np.zeros(n)], axis=1).astype(np.int64) * 256
            store.write(path, Features(rng.normal(2, 3, (n, DIM)).astype(np.float16), coords, {}))
            bags.setdefault(patient, []).append(str(path))
    volumes = {}
    for patient in ("p1", "p5"):
        volumes[patient] = str(tmp_path / f"{patient}.scan.h5")
        with h5py.File(volumes[patient], "w") as file:
            file["volume"] = rng.normal(size=(2, 3, 4)).astype(np.float16)
    value = pd.DataFrame({"value": [0, 1, np.nan, 1, 0, 1]}, index=ids)
    survival = pd.DataFrame({"event": [1, 0, np.nan, 1, 0, 1], "time_days": [5.0, 6, np.nan, 8, 9, 10]}, index=ids)
    return Manifest(
        name="toy",
        patients=pd.DataFrame({"site": ""}, index=ids),
        tasks={"t": TaskSpec("t", "binary", ("a", "b")), "os": TaskSpec("os", "survival")},
        modalities={n: ModalitySpec(n, kind) for n, kind in (("wsi", "bag"), ("rna", "omics"), ("ct", "volume"))},
        labels={"t": value, "os": survival},
        tables={"rna": pd.DataFrame(rng.normal(size=(3, 2)), index=["p0", "p2", "p5"], columns=["g1", "g2"])},
        bags={"wsi": bags},
        volumes={"ct": volumes},
    )


def split(manifest: Manifest) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": manifest.ids, "fold": 0, "part": PARTS})


def fold(manifest: Manifest, **options: Any) -> FoldData:
    return FoldData(manifest, split(manifest), **{"batch_size": 2, **options})


def one_by_one(data: FoldData, ids: list[str]) -> list[Bag]:
    return [b.inputs["wsi"] for b in loader(data.manifest, ids, data.fitted, data.cache, batch_size=1)]


def test_a_batch_says_who_has_what(manifest: Manifest) -> None:
    data = fold(manifest)
    (batch,) = batches(loader(manifest, manifest.ids, data.fitted, data.cache))
    assert batch.patients == manifest.ids
    assert batch.present["wsi"].tolist() == [True, True, False, True, False, True]  # p4: a bag of no tile is missing
    assert batch.present["rna"].tolist() == [True, False, True, False, False, True]
    assert batch.present["ct"].tolist() == [False, True, False, False, False, True]
    assert batch.inputs["wsi"].offsets.tolist() == [0, 6, 9, 9, 10, 10, 18]
    assert batch.inputs["wsi"].coords.shape == (18, 2)
    assert batch.inputs["ct"].shape == (6, 1, 2, 3, 4)
    for name in ("rna", "ct"):
        assert batch.inputs[name][~batch.present[name]].abs().sum() == 0
    assert batch.targets["t"].known.tolist() == [True, True, False, True, True, True]
    assert batch.targets["os"].value.tolist() == [5, 6, 0, 8, 9, 10]
    assert batch.targets["os"].event is not None
    assert batch.targets["os"].event.tolist() == [1, 0, 0, 1, 0, 1]


def test_packing_changes_nothing(manifest: Manifest) -> None:
    data = fold(manifest)
    (batch,) = batches(loader(manifest, manifest.ids, data.fitted, data.cache))
    bag = batch.inputs["wsi"]
    for i, alone in enumerate(one_by_one(data, manifest.ids)):
        rows = slice(int(bag.offsets[i]), int(bag.offsets[i + 1]))
        assert torch.equal(alone.features, bag.features[rows])
        assert torch.equal(alone.coords, bag.coords[rows])


def test_everything_is_fitted_on_training_patients_alone(manifest: Manifest) -> None:
    before = fold(manifest).fitted
    manifest.tables["rna"].loc["p5"] = 1e6
    tiles = Features(np.full((3, DIM), 900, np.float16), np.arange(6).reshape(3, 2), {})
    store.write(Path(manifest.bags["wsi"]["p5"][0]), tiles)
    after = fold(manifest).fitted
    assert json.dumps(before.state()) == json.dumps(after.state())
    again = Fitted.load(json.loads(json.dumps(before.state())))
    assert again.state() == before.state()
    assert again.dims() == {"rna": 2, "wsi": DIM, "ct": (2, 3, 4)}


def test_robust_features_are_chosen_by_training_patients_alone(manifest: Manifest) -> None:
    """`g1` survives other masks, `g2` does not; what the test patient has measured decides nothing."""
    rng = np.random.Generator(np.random.PCG64(2))
    table = pd.DataFrame(rng.normal(0, 10, (6, 2)), manifest.ids, ["g1", "g2"])
    manifest.tables["rna"] = table
    masks = {m: table + rng.normal(size=(6, 2)) * [0.1, 30.0] for m in ("erode 1 mm", "dilate 1 mm")}
    again = pd.concat(masks, names=["perturbation", "patient_id"]).swaplevel()
    manifest.repeated["rna"] = Repeated(again, 0.75)
    fitted = fold(manifest).fitted
    assert fitted.tables["rna"].numbers == fitted.robust["rna"]["kept"] == ["g1"]
    assert fitted.robust["rna"]["patients"] == 4
    manifest.tables["rna"].loc["p5"] = [1e6, 2.0]
    again.loc["p5"] = -1e6
    after = fold(manifest).fitted
    assert json.dumps(after.state()) == json.dumps(fitted.state())
    assert Fitted.load(json.loads(json.dumps(after.state()))).state() == fitted.state()
    older = {k: v for k, v in fitted.state().items() if k != "robust"}  # trained before there was such a thing
    assert Fitted.load(older).robust == {}
    manifest.repeated["rna"] = Repeated(again.iloc[:0], 0.75)
    with pytest.raises(DataFault, match="perturb=true"):
        fold(manifest)


def test_the_scale_of_tiles_weighs_bags_alike(manifest: Manifest) -> None:
    cache = BagCache()
    scale = fit(manifest, ["p0", "p1", "p2"], cache, {}).bags["wsi"]
    bags = [cache(manifest.bags["wsi"][p])[0].astype(float) for p in ("p0", "p1")]
    mean = np.mean([b.mean(0) for b in bags], axis=0)
    sd = np.sqrt(np.mean([(b**2).mean(0) for b in bags], axis=0) - mean**2)
    np.testing.assert_allclose(scale["mean"], mean, atol=1e-5)
    np.testing.assert_allclose(scale["sd"], sd, atol=1e-5)


def test_combinations_that_were_trained_are_listed(manifest: Manifest) -> None:
    assert fold(manifest).fitted.patterns == [["rna", "wsi"], ["wsi", "ct"], ["rna"], ["wsi"]]


@pytest.mark.parametrize("modality", ["rna", "wsi", "ct"])
def test_a_modality_that_nobody_trains_with_is_told(manifest: Manifest, modality: str) -> None:
    rows = {"rna": ["p1", "p3"], "wsi": ["p2"], "ct": ["p0", "p2"]}[modality]
    with pytest.raises(DataFault, match=rf"no training patient of the fold has the modality '{modality}'.*modalities="):
        fit(manifest, rows, BagCache(), {})
    del manifest.tables["rna"], manifest.volumes["ct"]
    with pytest.raises(DataFault, match="no slide of the fold's training patients has a tile"):
        fit(manifest, ["p4"], BagCache(), {})


def epoch(data: FoldData, train: object) -> tuple[list[str], list[Tensor]]:
    made = list(train)  # type: ignore[call-overload]
    return [p for b in made for p in b.patients], [b.inputs["wsi"].features for b in made]


def test_each_epoch_draws_anew_and_the_same_seed_draws_the_same(manifest: Manifest) -> None:
    most = {"wsi": 2}
    data, twin, other = (fold(manifest, max_tiles=most, seed=seed) for seed in (0, 0, 1))
    train, train_twin = data.train_dataloader(), twin.train_dataloader()
    epochs = [epoch(data, train) for _ in range(5)]
    for (ids, tiles), (ids_twin, tiles_twin) in zip(epochs, (epoch(twin, train_twin) for _ in range(5)), strict=True):
        assert ids == ids_twin
        assert all(torch.equal(a, b) for a, b in zip(tiles, tiles_twin, strict=True))
    assert len({tuple(ids) for ids, _ in epochs}) > 1
    drawn = {str(data.train_set[0].inputs["wsi"][1].tolist()) for data.train_set.epoch in range(12)}
    assert len(drawn) > 1
    seen = {str(sorted(torch.cat(tiles).flatten().tolist())) for _, tiles in epochs}
    assert len(seen) > 1  # through the loader as well: the epoch reaches the dataset
    assert [epoch(other, other.train_dataloader())[0] for _ in range(3)] != [ids for ids, _ in epochs[:3]]
    sizes = [len(t) for _, tiles in epochs for t in tiles]
    assert sum(sizes) == 5 * (2 + 2 + 0 + 1)


@pytest.mark.parametrize(("wsi", "spots"), [(2, 5), (5, 2), (2, None), (None, 2)])
def test_each_kind_of_bags_has_its_own_limit(manifest: Manifest, wsi: int | None, spots: int | None) -> None:
    manifest.modalities["spots"] = ModalitySpec("spots", "bag")
    manifest.bags["spots"] = dict(manifest.bags["wsi"])
    data = fold(manifest, max_tiles={"wsi": wsi, "spots": spots}).train_set
    for index, patient in enumerate(data.ids):
        for name, most in (("wsi", wsi), ("spots", spots)):
            held = len(data[index].inputs.get(name, ((),))[0])
            assert held == min(TILES.get(patient, 0), most or 99)


def test_the_configuration_limits_each_modality_by_itself(manifest: Manifest) -> None:
    """A limit of one kind, or a cohort's word on one modality, says nothing of another."""
    for name, options in (("wsi", {}), ("ihc", {"max_tiles": None}), ("spots", {"max_tiles": 3})):
        manifest.modalities[name] = ModalitySpec(name, "bag", options)
        manifest.bags[name] = manifest.bags["wsi"]
    for name, kind in (("rna", manifest.tables), ("ct", manifest.volumes)):
        del manifest.modalities[name], kind[name]
    settings = plain(compose("train", ["parts.modalities.bag.max_tiles=2"]))
    held = members.fold_data(settings, manifest, split(manifest), BagCache(), Share()).train_set[0].inputs
    assert {name: len(bag[0]) for name, bag in held.items()} == {"wsi": 2, "ihc": 6, "spots": 3}


def test_what_is_drawn_of_a_patient_is_his_own(manifest: Manifest) -> None:
    """By (seed, epoch, patient) alone: neither the others of the list nor their order have a say."""
    for path in (path for paths in manifest.bags["wsi"].values() for path in paths):
        plain = store.read(Path(path))
        plain.views = np.stack([plain.features + 100])
        store.write(Path(path), plain)
    fitted = fold(manifest).fitted

    def drawn(ids: list[str], seed: int = 0) -> list[list[float]]:
        how: dict[str, Any] = {"seed": seed, "max_tiles": {"wsi": 2}, "augment": True}
        data = PatientDataset(manifest, ids, fitted, BagCache(), **how)
        return [data[ids.index("p5")].inputs["wsi"][0].flatten().tolist() for data.epoch in range(8)]

    assert drawn(["p5"]) == drawn(["p0", "p1", "p5"]) == drawn(["p3", "p5", "p0"])
    assert drawn(["p5"]) != drawn(["p5"], seed=1)
    assert len({str(epoch) for epoch in drawn(["p5"])}) > 2


def test_no_step_of_one_patient(manifest: Manifest) -> None:
    assert [len(b) for b in fold(manifest, batch_size=3).train_dataloader()] == [3]
    assert [len(b) for b in fold(manifest, batch_size=4).train_dataloader()] == [4]
    assert [len(b) for b in fold(manifest, batch_size=1).train_dataloader()] == [1] * 4


def test_the_test_part_is_out_of_reach(manifest: Manifest) -> None:
    data = fold(manifest)
    assert "test" not in data.parts
    seen = {p for load in (data.train_dataloader(), data.val_dataloader()) for b in load for p in b.patients}
    assert seen == {"p0", "p1", "p2", "p3", "p4"}


def test_the_cache_keeps_what_was_used_last(manifest: Manifest) -> None:
    paths = manifest.bags["wsi"]
    cache = BagCache(limit_bytes=300)
    for patient in ("p0", "p1", "p3", "p0", "p5"):
        features, coords = cache(paths[patient])
        assert len(features) == len(coords) == TILES[patient]
        assert cache.held == sum(f.nbytes + c.nbytes for f, c in cache.kept.values())
    assert cache.held <= 300 or len(cache.kept) == 1
    assert tuple(paths["p5"]) in cache.kept


def test_other_dimensions_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    data = fold(manifest)
    wide = tmp_path / "wide.h5"
    store.write(wide, Features(np.ones((2, DIM + 1), np.float16), np.arange(4).reshape(2, 2), {}))
    with pytest.raises(IntegrityFault, match=r"dimensions; extract them alike"):
        data.cache([str(wide), manifest.bags["wsi"]["p1"][0]])
    manifest.bags["wsi"]["p5"] = [str(wide)]
    there = PatientDataset(manifest, ["p5"], data.fitted, data.cache)
    with pytest.raises(IntegrityFault, match=rf"\[{DIM + 1}\] dimensions, the model was trained on {DIM}"):
        pack([there[0]], data.fitted)
    del manifest.bags["wsi"]["p5"]
    with h5py.File(manifest.volumes["ct"]["p5"], "w") as file:
        file["volume"] = np.zeros((1, 3, 4), np.float16)  # would spread over the block in silence
    there = PatientDataset(manifest, ["p5"], data.fitted, data.cache)
    with pytest.raises(IntegrityFault, match=r"'ct' of patient p5 has the shape \[1, 3, 4\]"):
        pack([there[0]], data.fitted)


def test_training_draws_a_view_and_evaluation_the_plain_tiles(manifest: Manifest) -> None:
    for patient, paths in manifest.bags["wsi"].items():
        for path in paths:
            plain = store.read(Path(path))
            plain.views = np.stack([plain.features + 100, plain.features + 200])
            store.write(Path(path), plain)
        assert patient in manifest.ids
    data, twin = fold(manifest), fold(manifest)

    def drawn(data: FoldData) -> list[int]:
        return [round(float(data.train_set[0].inputs["wsi"][0].mean()) / 100) for data.train_set.epoch in range(20)]

    assert set(drawn(data)) == {0, 1, 2}
    assert drawn(data) == drawn(twin)
    for batch in data.val_dataloader():
        assert not (batch.inputs["wsi"].features.abs() > 50).any()
