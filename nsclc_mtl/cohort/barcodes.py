"""TCGA barcodes: read part by part and cut to the patient, never by stripping letters off an end."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from nsclc_mtl.records import DataFault, UsageFault

IDS = ("text", "tcga")
"""How ids are written: as they stand, or as TCGA barcodes that begin with the patient."""
SAMPLES = ("tumour", "all")

# https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode: project, tissue source site, participant; sample type and
# vial; portion and analyte, plate and centre for molecules, or portion and slide for slides (TS, MS, BS: top, middle,
# bottom of the frozen block, DX: diagnostic), whose file names add a UUID and an ending.
_BARCODE = re.compile(
    r"(?P<patient>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})"
    r"(-(?P<sample>\d{2})(?P<vial>[A-Z])?"
    r"(-(?P<portion>\d{2})(?P<analyte>[A-Z])?"
    r"(-(?P<slide>(TS|MS|BS|DX)[A-Z0-9]{1,3})|-(?P<plate>[A-Z0-9]{4})(-(?P<centre>\d{2}))?)?"
    r")?)?"
    r"(?P<uuid>\.[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12})?"
    r"(?P<ending>\.(SVS|TIFF?|H5|PT|NPZ))?"
)


@dataclass(frozen=True)
class Barcode:
    """The parts of a TCGA barcode; '' where it ends before them."""

    patient: str  # project, tissue source site and participant: TCGA-37-4129
    sample: str = ""  # two digits: 01 to 09 tumour, 10 to 19 normal, 20 to 29 control
    slide: str = ""  # DX1, TS1, ...

    @property
    def tumour(self) -> bool:
        """Whether it is of a tumour, or of the patient as a whole."""
        return self.sample[:1] in ("", "0")


def parse(text: str) -> Barcode | None:
    """The barcode that `text` is, or None where it is none.

    >>> parse("TCGA-18-3406-01Z-00-DX1.8D07F006-425C-4724-BBB3-5BA099401234.svs")
    Barcode(patient='TCGA-18-3406', sample='01', slide='DX1')
    >>> parse("TCGA-18-34067") is None
    True
    """
    found = _BARCODE.fullmatch(text.strip().upper())
    return found and Barcode(found["patient"], found["sample"] or "", found["slide"] or "")


def patients(ids: Iterable[str], style: str, where: str) -> list[str]:
    """The patient of every id, by the declared `style` (one of IDS).

    Raises UsageFault on another style and DataFault, with the first of them, where ids are no barcodes.
    """
    given = [str(name) for name in ids]
    if style not in IDS:
        raise UsageFault(f"{where}: ids={style!r} is none of {', '.join(IDS)}")
    if style == "text":
        return given
    read = [parse(name) for name in given]
    bad = [name for name, barcode in zip(given, read, strict=True) if barcode is None]
    if bad:
        raise DataFault(
            f"{where}: {len(bad)} of {len(given)} ids are no TCGA barcodes ({', '.join(bad[:3])}); correct them, or "
            "take `ids: tcga` out of the cohort"
        )
    return [barcode.patient for barcode in read if barcode]


def tumours(ids: Iterable[str]) -> pd.Series:
    """Which barcodes are of a tumour (or name no sample): bool, in the order of the ids."""
    read = [parse(str(name)) for name in ids]
    return pd.Series([barcode is None or barcode.tumour for barcode in read], dtype=bool)
