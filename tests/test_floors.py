"""The floors that `mtl evaluate` fits: which there are, on what, and as which family of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.baselines import floor_tables
from nsclc_mtl.commands import floors
from nsclc_mtl.commands.cohort import open_cohort, split
from nsclc_mtl.config import compose, plain
from nsclc_mtl.features import store
from nsclc_mtl.records import Manifest, ModalitySpec, UsageFault


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Manifest, pd.DataFrame]:
    out = tmp_path_factory.mktemp("floors")
    words = [
        "cohort.level=features",
        "cohort.n=80",
        "cohort.site=shift",
        "folds.n=2",
        "tasks=[stage]",
        f"paths.out={out}",
    ]
    trained = plain(compose("train", words))
    manifest = open_cohort(trained)
    return trained, manifest, split(trained, manifest)


def fitted(phantom: tuple[dict[str, Any], Manifest, pd.DataFrame], *words: str, **changes: Any) -> pd.DataFrame:
    trained, manifest, splits = phantom
    settings = plain(compose("evaluate", ["ckpt=none", *words]))
    said = splits[splits["part"] == "test"].assign(task="none", output="none", value=0.0)
    return floors.fit_floors(settings, {**trained, **changes}, manifest, splits, said, manifest.tasks)


def test_names_are_stable() -> None:
    assert floor_tables(["rna", "clinical"], ["stage", "tumour volume"]) == {
        "stage": ("stage",),
        "tumour volume": ("tumour volume",),
        "rna": ("rna",),
        "clinical": ("clinical",),
        "all tables": ("rna", "clinical"),
        "all tables + volume": ("rna", "clinical", "tumour volume"),
    }
    assert list(floor_tables(["rna"], ["tumour volume"])) == ["tumour volume", "rna"]


def test_the_mean_slide_feature(phantom: tuple[dict[str, Any], Manifest, pd.DataFrame]) -> None:
    trained, manifest, _ = phantom
    means = floors.slide_means(manifest, "wsi")
    patient, paths = next(iter(manifest.bags["wsi"].items()))
    whole = np.concatenate([store.read(Path(path)).features for path in paths]).astype(float)
    np.testing.assert_allclose(means.loc[patient], whole.mean(0), atol=1e-9)
    assert set(means.index) == set(manifest.bags["wsi"])
    apart, _ = floors.apart_tables(trained, manifest, manifest.tasks, ["clinical"])
    assert "mean slide feature" not in apart
    made = fitted(phantom, "floors=[mean slide feature,clinical]")
    assert set(made["model"]) == {"floor:mean slide feature", "floor:clinical"}
    with pytest.raises(UsageFault, match=r"no floor 'slides' here; there are .*mean slide feature"):
        fitted(phantom, "floors=[slides]")


def test_tumour_volume_beside_all_tables(phantom: tuple[dict[str, Any], Manifest, pd.DataFrame]) -> None:
    trained, manifest, splits = phantom
    table = manifest.tables["radiomics"].rename(columns={"original_phantom_F000": "original_shape_MeshVolume"})
    spec = {"radiomics": ModalitySpec("radiomics", "radiomics"), "clinical": manifest.modalities["clinical"]}
    who = Manifest(
        "toy", manifest.patients, manifest.tasks, spec, manifest.labels,
        tables={"radiomics": table, "clinical": manifest.tables["clinical"]},
    )  # fmt: skip
    made = fitted(
        (trained, who, splits), "floors=[tumour volume,all tables,all tables + volume]", parts=trained["parts"]
    )
    assert set(made["model"]) == {"floor:tumour volume", "floor:all tables", "floor:all tables + volume"}
    assert made["value"].notna().all()


def test_another_family_of_models(phantom: tuple[dict[str, Any], Manifest, pd.DataFrame]) -> None:
    ridge, net = (fitted(phantom, "floors=[clinical,rna]", f"floor={family}") for family in ("ridge", "elastic_net"))
    assert list(ridge["patient_id"]) == list(net["patient_id"])
    assert not np.allclose(ridge["value"], net["value"])
    with pytest.raises(UsageFault, match="0 is floor=ridge"):
        fitted(phantom, "floors=[rna]", "floor=elastic_net", "floor.l1_ratio=[0.0]")


def test_a_floor_sees_the_table_that_the_learner_sees(phantom: tuple[dict[str, Any], Manifest, pd.DataFrame]) -> None:
    """Harmonised with the run's options, fitted on the fold's training patients."""
    trained, manifest, splits = phantom
    parts = trained["parts"]
    radiomics = {**parts["modalities"]["radiomics"], "harmonize": "combat"}
    changed = {"parts": {**parts, "modalities": {**parts["modalities"], "radiomics": radiomics}}}
    plainly, ours = fitted(phantom, "floors=[radiomics,rna]"), fitted(phantom, "floors=[radiomics,rna]", **changed)
    moved = (plainly["value"] - ours["value"]).abs().groupby(ours["model"]).max()
    assert moved["floor:radiomics"] > 1e-3
    assert moved["floor:rna"] == 0
    prepare = floors.without_site_effects({**trained, **changed}, manifest)
    assert set(prepare) == {"radiomics"}
    training = list(splits.loc[(splits["fold"] == 0) & (splits["part"] != "test"), "patient_id"])
    table = manifest.tables["radiomics"]
    spoiled = table.copy()
    spoiled.loc[[p for p in table.index if p not in training]] *= 5
    inside = [p for p in table.index if p in training]
    pd.testing.assert_frame_equal(
        prepare["radiomics"](table, training).loc[inside], prepare["radiomics"](spoiled, training).loc[inside]
    )
