"""A cohort of several kinds of scans: each preset is composed, and can be changed alone or with the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsclc_mtl.commands import scans
from nsclc_mtl.config import compose, plain
from nsclc_mtl.records import UsageFault

COHORT = """\
# two kinds of scans
name: mine
root: null
patients: {file: patients.csv, id: patient_id}
tasks: {t: {kind: binary, column: t, classes: [a, b]}}
modalities:
  pet: {kind: radiomics, scans: pet_suv}
  mr_volume: {kind: volume, scans: my_mr}
  mr_deep: {kind: deep, scans: my_mr}
"""
PRESET = """\
# mine
defaults: [mri_t1, _self_]
crop: {size_vox: 48}
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    for group, name, text in (("cohort", "mine", COHORT), ("scans", "my_mr", PRESET)):
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{name}.yaml").write_text(text)
    return tmp_path


@pytest.mark.parametrize("verb", ["extract", "train", "check"])
def test_every_preset_that_a_modality_names_is_composed(conf: Path, verb: str) -> None:
    cfg = compose(verb, ["cohort=mine"], [conf])
    assert list(cfg.scan_presets) == ["pet_suv", "my_mr"]
    assert cfg.scan_presets.my_mr.crop.size_vox == 48
    assert cfg.scan_presets.my_mr.modality == "T1"
    assert cfg.scan_presets.pet_suv.crop.spacing_mm == 4
    assert cfg.scans.modality == "CT"  # the group stays for modalities that name none
    assert "scan_presets" not in compose(verb, [], [conf])


def test_overrides_reach_one_preset_or_all(conf: Path) -> None:
    words = ["cohort=mine", "scan_presets.pet_suv.workers=5", "scans.workers=1", "scans.label=2"]
    cfg = compose("extract", words, [conf])
    assert (cfg.scan_presets.pet_suv.workers, cfg.scan_presets.my_mr.workers, cfg.scans.workers) == (5, 1, 1)
    assert cfg.scan_presets.my_mr.label == cfg.scan_presets.pet_suv.label == 2
    other = compose("extract", ["cohort=mine", "cohort.modalities.pet.scans=pet_suv_large"], [conf])
    assert list(other.scan_presets) == ["pet_suv_large", "my_mr"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scan_presets.pet_suv.wurkers=1"], "did you mean 'scan_presets.pet_suv.workers'"),
        (["cohort.modalities.pet.scans=pet_suvv"], "did you mean 'pet_suv'"),
        (["scans=mri_t1"], "cohort.modalities.pet.scans=mri_t1"),
        (["scan_presets.ct_lung.workers=1"], "ct_lung"),
    ],
)
def test_words_that_would_do_nothing_are_refused(conf: Path, words: list[str], told: str) -> None:
    with pytest.raises(UsageFault, match=told):
        compose("extract", ["cohort=mine", *words], [conf])


def test_each_preset_has_keys_of_its_own(conf: Path) -> None:
    settings = plain(compose("train", ["cohort=mine", "deep=squeezenet_25d", "deep.random=true"], [conf]))
    keys = scans.keys(settings)
    assert {"radiomics", "volumes", "radiomics@pet_suv", "volumes@my_mr", "deep@my_mr"} <= set(keys)
    assert keys["volumes@my_mr"] != keys["volumes@pet_suv"] != keys["volumes"]
    finer = plain(compose("train", ["cohort=mine", "scan_presets.my_mr.crop.spacing_mm=1"], [conf]))
    assert scans.keys(finer)["volumes@my_mr"] != keys["volumes@my_mr"]
    assert scans.keys(finer)["volumes@pet_suv"] == keys["volumes@pet_suv"]
    assert "deep@my_mr" not in scans.keys(finer)  # no network was chosen
