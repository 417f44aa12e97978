"""PET activity to SUV by body weight, from the tags of the series; what is missing is named and never assumed.

SUV = activity concentration [Bq/ml] x weight [g] / dose [Bq], the dose decayed to the time to which the voxels are
corrected. Which time that is follows the vendor-neutral pseudo-code of QIBA's FDG-PET/CT profile (v1.13, appendix G),
and DICOM PS3.3 C.8.9.4.1.5 where the time of the series was changed after the scan.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from nsclc_mtl.records import ItemFault

_MOST_HALF_LIVES = 8.0  # between injection and scan: 0.4 % of the dose is left, no image is taken later
_LEAST_DOSE = 1e6  # Bq; a smaller "dose" was written in MBq
_WEIGHTS = (0.3, 500.0)  # kg


def suv_factor(headers: Sequence[Any], name: str) -> tuple[float, str]:
    """What the rescaled voxels of a PET series are multiplied by to be SUV (g/ml), and how it was found.

    Units BQML are decayed (DecayCorrection START: to the start of the scan; ADMIN: to the injection), GML is SUV
    already, CNTS needs the factors of Philips, (7053,1000) for SUV or (7053,1009) for Bq/ml.

    Raises `ItemFault` (`not_suv`) that names the tag, `missing_slices` where the header counts more slices.
    """
    first = headers[0]
    slices = int(first.get("NumberOfSlices", 0) or 0)  # required in PET; the ends of a stack show no gap
    if len(headers) < slices:
        raise ItemFault("missing_slices", f"{name} has {len(headers)} of its {slices} slices; fetch the missing ones")
    units = _one(headers, "Units", name)
    if units == "GML":
        kind = str(first.get("SUVType", "") or "BW")
        if kind != "BW":
            raise ItemFault("not_suv", f"{name} is in SUV by {kind}, not by body weight (SUVType); give activity or BW")
        return 1.0, "PET in SUV by body weight already (Units GML)"
    corrected = {str(word) for word in first.get("CorrectedImage") or []}
    if units not in {"BQML", "CNTS"}:
        raise ItemFault("not_suv", f"{name} is PET in {units}, which is not turned into SUV; give Bq/ml or SUV")
    if units == "CNTS":
        suv = _philips(headers, 0x00)
        if suv:
            return suv, f"SUV by Philips' factor (7053,1000) = {suv:.6g}"
        activity = _philips(headers, 0x09)
        if not activity:
            raise ItemFault("not_suv", f"{name} is PET in counts without Philips' factors (7053,1000) or (7053,1009)")
    else:
        activity = 1.0
    if "ATTN" not in corrected:
        raise ItemFault("not_suv", f"{name} is not corrected for attenuation (CorrectedImage): no SUV can be had")
    weight = _number(first, "PatientWeight", name)
    if not _WEIGHTS[0] <= weight <= _WEIGHTS[1]:
        raise ItemFault("not_suv", f"{name} has PatientWeight {weight:g}, which is no weight in kg; correct the tag")
    dose, how = _dose(headers, name)
    factor = activity * weight * 1000 / dose
    return factor, f"SUV = activity x {weight * 1000:g} g / {dose / 1e6:.4g} MBq ({how})"


def _dose(headers: Sequence[Any], name: str) -> tuple[float, str]:
    """The dose in Bq at the time to which the voxels are corrected, and a word on that time."""
    first = headers[0]
    given = first.get("RadiopharmaceuticalInformationSequence") or []
    if len(given) != 1:
        told = "has no" if not given else f"has {len(given)} items in"
        raise ItemFault("not_suv", f"{name} {told} RadiopharmaceuticalInformationSequence; one injection is needed")
    injection = given[0]
    dose = _number(injection, "RadionuclideTotalDose", name)
    if dose < _LEAST_DOSE:
        raise ItemFault("not_suv", f"{name} has RadionuclideTotalDose {dose:g}, too little in Bq; is it in MBq?")
    correction = _one(headers, "DecayCorrection", name)
    if correction == "ADMIN":
        return dose, "decay-corrected to the injection"
    if correction != "START":
        raise ItemFault("not_suv", f"{name} is not corrected for decay (DecayCorrection {correction}); reconstruct it")
    half_life = _number(injection, "RadionuclideHalfLife", name)
    scan, how = _scan_start(headers, half_life, name)
    started = _injected(injection, scan, first, name)
    waited = (scan - started).total_seconds()
    if waited < 0 or waited > _MOST_HALF_LIVES * half_life:
        raise ItemFault(
            "not_suv",
            f"{name}: {waited / 3600:.1f} h lie between injection and scan; one of RadiopharmaceuticalStartDateTime, "
            "SeriesDate and SeriesTime was changed",
        )
    return dose * 2 ** (-waited / half_life), f"decayed for {waited / 60:.1f} min to {how}"


def _scan_start(headers: Sequence[Any], half_life: float, name: str) -> tuple[datetime, str]:
    """The time to which decay is corrected, and its name.

    It is the time of the series, unless a workstation has overwritten that with the time at which it made a copy: then
    it lies after the first acquisition, and GE's private time, or the time of a frame less its offset, replaces it.
    """
    first = headers[0]
    series = _moment(first, "Series", name)
    acquired = [_moment(header, "Acquisition", name) for header in headers]
    # clocks of the console and the scanner are rounded differently: a second is not a new series
    if series <= min(acquired) + timedelta(seconds=1):
        return series, "the time of the series"
    private = _private(first, 0x0009, "GEMS_PETD_01", 0x0D)
    if private:
        return _datetime(str(private), "(0009,100d)", name), "GE's time of the scan (0009,100d)"
    offset, duration = (first.get(tag) for tag in ("FrameReferenceTime", "ActualFrameDuration"))
    if not offset or not duration:
        raise ItemFault(
            "not_suv",
            f"the SeriesTime of {name} is after its AcquisitionTime (a later copy), and without FrameReferenceTime and "
            "ActualFrameDuration the start of the scan is unknown; give the original series",
        )
    decay = math.log(2) / half_life
    during = decay * float(duration) / 1000  # tags are in ms
    # the moment within a frame at which its average activity occurs (PS3.3 C.8.9.4.1.5, example 2)
    average = math.log(during / -math.expm1(-during)) / decay
    start = acquired[0] + timedelta(seconds=average - float(offset) / 1000)
    return start, "the start of the scan by FrameReferenceTime, as the series was written later"


def _injected(injection: Any, scan: datetime, first: Any, name: str) -> datetime:
    whole = injection.get("RadiopharmaceuticalStartDateTime")
    if whole:
        zone = str(first.get("TimezoneOffsetFromUTC", "") or "")
        return _datetime(str(whole), "RadiopharmaceuticalStartDateTime", name, zone)
    time = injection.get("RadiopharmaceuticalStartTime")
    if not time:
        raise ItemFault(
            "not_suv", f"{name} has neither RadiopharmaceuticalStartDateTime nor RadiopharmaceuticalStartTime"
        )
    # the time carries no date: a time after the scan means the day before
    start = _datetime(f"{scan:%Y%m%d}{time}", "RadiopharmaceuticalStartTime", name)
    return start - timedelta(days=1) if start > scan else start


def _moment(header: Any, which: str, name: str) -> datetime:
    for tag in (f"{which}Date", f"{which}Time"):
        if not header.get(tag):
            raise ItemFault("not_suv", f"{name} has no {tag}, so the decay of the dose is unknown")
    return _datetime(f"{header.get(f'{which}Date')}{header.get(f'{which}Time')}", f"{which}Time", name)


def _datetime(text: str, tag: str, name: str, zone: str = "") -> datetime:
    """A DICOM date and time on the clock of the scanner, whose offset from UTC is `zone` where it is known."""
    parts = re.fullmatch(r"(\d{8})(\d{4})(\d\d)?(\.\d{1,6})?([+-]\d{4})?", text.strip())
    try:
        if parts is None:
            raise ValueError(text)
        moment = datetime.strptime(f"{parts[1]}{parts[2]}{parts[3] or '00'}", "%Y%m%d%H%M%S")
        offset = timedelta(seconds=float(parts[4] or 0))
        if parts[5] and zone.strip():
            offset += _utc_offset(zone.strip()) - _utc_offset(parts[5])
        return moment + offset
    except ValueError:
        raise ItemFault("not_suv", f"the {tag} of {name} is no DICOM date and time; correct the tag") from None


def _utc_offset(text: str) -> timedelta:
    parts = re.fullmatch(r"([+-])(\d\d)(\d\d)", text)
    if parts is None:
        raise ValueError(text)
    return timedelta(hours=int(parts[2]), minutes=int(parts[3])) * (-1 if parts[1] == "-" else 1)


def _number(header: Any, tag: str, name: str) -> float:
    try:
        value = float(header.get(tag) or 0)
    except (TypeError, ValueError):
        value = 0.0
    if not value > 0 or not math.isfinite(value):
        raise ItemFault("not_suv", f"{name} has no {tag}, so its values cannot be turned into SUV; give a NIfTI in SUV")
    return value


def _one(headers: Sequence[Any], tag: str, name: str) -> str:
    values = {str(header.get(tag, "") or "") for header in headers}
    if len(values) > 1 or "" in values:
        told = f"several {tag}" if len(values) > 1 else f"no {tag}"
        raise ItemFault("not_suv", f"{name} has {told}, so its values cannot be turned into SUV; give a NIfTI in SUV")
    return values.pop()


def _private(header: Any, group: int, creator: str, element: int) -> Any:
    try:
        return header.private_block(group, creator)[element].value
    except KeyError:
        return None


def _philips(headers: Sequence[Any], element: int) -> float:
    """A factor of Philips that all slices share; 0 where there is none or the slices disagree."""
    values = {_private(header, 0x7053, "Philips PET Private Group", element) for header in headers}
    try:
        return float(values.pop()) if len(values) == 1 else 0.0
    except (TypeError, ValueError):
        return 0.0
