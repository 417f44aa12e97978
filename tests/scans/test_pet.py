"""PET to SUV: each number is worked out by hand, and every missing tag is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from toy_dicom import series
from toy_scan import ball

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans import files
from nsclc_mtl.scans.pet import suv_factor

HALF_LIFE = 6586.2  # s, fluorine-18
DOSE = 370e6  # Bq
WEIGHT = 74.0  # kg
UNDECAYED = WEIGHT * 1000 / DOSE
HOUR = 2 ** (3600 / HALF_LIFE)


def fluorine(**changes: object) -> Dataset:
    """The header of a slice: injected at 11:00, scanned from 12:00, decay-corrected to the start."""
    header = Dataset()
    header.Units, header.DecayCorrection, header.CorrectedImage = "BQML", "START", ["DECY", "ATTN", "SCAT"]
    header.PatientWeight = WEIGHT
    header.SeriesDate = header.AcquisitionDate = "20200301"
    header.SeriesTime, header.AcquisitionTime = "120000.00", "120000.00"
    injection = Dataset()
    injection.RadionuclideTotalDose, injection.RadionuclideHalfLife = DOSE, HALF_LIFE
    injection.RadiopharmaceuticalStartTime = "110000"
    header.RadiopharmaceuticalInformationSequence = [injection]
    for tag, value in changes.items():
        if tag in {"RadionuclideTotalDose", "RadionuclideHalfLife"} or tag.startswith("RadiopharmaceuticalStart"):
            setattr(injection, tag, value)
        elif value is None:
            delattr(header, tag)
        else:
            setattr(header, tag, value)
    return header


def refused(word: str, *headers: Dataset) -> None:
    with pytest.raises(ItemFault) as caught:
        suv_factor(headers, "pet")
    assert caught.value.reason == "not_suv"
    assert word in str(caught.value)


def test_the_dose_decays_from_the_injection_to_the_start_of_the_scan() -> None:
    factor, how = suv_factor([fluorine()], "pet")
    assert factor == pytest.approx(UNDECAYED * HOUR)
    assert factor == pytest.approx(2.92134e-4, rel=1e-4)  # 74,000 g / (370 MBq x 0.68461)
    assert "60.0 min" in how
    assert "2020" not in how


def test_beds_that_follow_do_not_move_the_start() -> None:
    later = fluorine(AcquisitionTime="121500")
    assert suv_factor([fluorine(), later], "pet")[0] == pytest.approx(UNDECAYED * HOUR)


def test_decay_correction_to_the_injection() -> None:
    assert suv_factor([fluorine(DecayCorrection="ADMIN")], "pet")[0] == pytest.approx(UNDECAYED)


def test_over_midnight() -> None:
    """Injected at 23:30, scanned at 00:30 of the next day; the time alone says nothing of the day."""
    night = fluorine(SeriesTime="003000", AcquisitionTime="003000", RadiopharmaceuticalStartTime="233000")
    assert suv_factor([night], "pet")[0] == pytest.approx(UNDECAYED * HOUR)
    night = fluorine(
        SeriesTime="003000", AcquisitionTime="003000", RadiopharmaceuticalStartDateTime="20200229233000.00"
    )
    assert suv_factor([night], "pet")[0] == pytest.approx(UNDECAYED * HOUR)


def test_the_clock_of_the_injection_may_stand_in_another_zone() -> None:
    header = fluorine(RadiopharmaceuticalStartDateTime="20200301100000.00+0000")
    header.TimezoneOffsetFromUTC = "+0100"
    assert suv_factor([header], "pet")[0] == pytest.approx(UNDECAYED * HOUR)


def test_a_series_that_a_workstation_wrote_later() -> None:
    """SeriesTime after the acquisition: GE's private time counts, else the time of a frame less its offset."""
    copied = fluorine(SeriesTime="150000")
    refused("FrameReferenceTime", copied)
    ge = fluorine(SeriesTime="150000")
    ge.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20200301120000.00")
    factor, how = suv_factor([ge], "pet")
    assert factor == pytest.approx(UNDECAYED * HOUR)
    assert "GE" in how
    # bed 3 begins at 12:06; its counts average shortly before the middle of its 3 min, 7.5 min after the start
    decay, length = math.log(2) / HALF_LIFE, 180.0
    average = math.log(decay * length / (1 - math.exp(-decay * length))) / decay
    assert 89 < average < 90
    siemens = fluorine(
        SeriesTime="150000", AcquisitionTime="120600", ActualFrameDuration=180000,
        FrameReferenceTime=(360 + average) * 1000,
    )  # fmt: skip
    factor, how = suv_factor([siemens], "pet")
    assert factor == pytest.approx(UNDECAYED * HOUR, rel=1e-6)
    assert "written later" in how


def test_philips_and_suv_units() -> None:
    counts = fluorine(Units="CNTS")
    refused("(7053,1000)", counts)
    block = counts.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x09, "DS", "2.5")
    assert suv_factor([counts], "pet")[0] == pytest.approx(2.5 * UNDECAYED * HOUR)
    block.add_new(0x00, "DS", "0.000551")
    assert suv_factor([counts], "pet")[0] == pytest.approx(0.000551)
    assert suv_factor([fluorine(Units="GML")], "pet")[0] == 1
    refused("LBM", fluorine(Units="GML", SUVType="LBM"))
    refused("PROPCPS", fluorine(Units="PROPCPS"))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"PatientWeight": None}, "PatientWeight"),
        ({"PatientWeight": 0}, "PatientWeight"),
        ({"PatientWeight": 74000}, "kg"),
        ({"Units": None}, "Units"),
        ({"DecayCorrection": None}, "DecayCorrection"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection NONE"),
        ({"CorrectedImage": ["DECY"]}, "attenuation"),
        ({"RadiopharmaceuticalInformationSequence": None}, "RadiopharmaceuticalInformationSequence"),
        ({"RadionuclideTotalDose": None}, "RadionuclideTotalDose"),
        ({"RadionuclideTotalDose": 370}, "MBq"),
        ({"RadionuclideHalfLife": None}, "RadionuclideHalfLife"),
        ({"RadiopharmaceuticalStartTime": None}, "RadiopharmaceuticalStartTime"),
        ({"RadiopharmaceuticalStartTime": "noon"}, "RadiopharmaceuticalStartTime"),
        ({"RadiopharmaceuticalStartDateTime": "20190301110000"}, "8785.0 h"),
        ({"SeriesTime": None}, "SeriesTime"),
        ({"SeriesDate": None}, "SeriesDate"),
        ({"AcquisitionTime": None}, "AcquisitionTime"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_what_is_missing_is_named(changes: dict[str, object], word: str) -> None:
    refused(word, fluorine(**changes))


def test_a_stack_without_its_end() -> None:
    with pytest.raises(ItemFault) as caught:
        suv_factor([fluorine(NumberOfSlices=3)] * 2, "pet")
    assert caught.value.reason == "missing_slices"


@pytest.fixture
def as_pet() -> Callable[[Dataset, int], None]:
    def change(slice_: Dataset, z: int) -> None:
        for element in fluorine():
            slice_.add(element)

    return change


def test_a_series_in_suv(tmp_path: Path, as_pet: Callable[[Dataset, int], None]) -> None:
    """A background of SUV 1 and a lesion of SUV 6, with another slope in every slice."""
    mask = ball()
    suv = np.where(mask > 0, 6.0, 1.0)
    activity = suv / (UNDECAYED * HOUR)
    slopes = np.linspace(0.2, 0.9, len(suv))
    slopes[0] = 1
    folder = series(tmp_path / "pet", activity, modality="PT", slope=slopes, intercept=0, change=as_pet)
    import SimpleITK as sitk

    image, notes = files.read(folder, modality="PT")
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), suv, rtol=3e-4)
    assert notes[1].startswith("SUV = activity x 74000 g")
