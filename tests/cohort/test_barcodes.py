"""TCGA barcodes: parsed, cut to the patient, and what does not match is listed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.cohort import barcodes, manifest, schema
from nsclc_mtl.commands.cohort import write_unmatched
from nsclc_mtl.features import store
from nsclc_mtl.records import DataFault, Features, UsageFault

UUID = "8D07F006-425C-4724-BBB3-5BA099401234"


@pytest.mark.parametrize(
    ("text", "patient", "sample", "slide"),
    [
        ("TCGA-18-3406", "TCGA-18-3406", "", ""),
        ("TCGA-18-3406-01", "TCGA-18-3406", "01", ""),
        ("TCGA-18-3406-11A", "TCGA-18-3406", "11", ""),
        ("TCGA-02-0001-01C-01D-0182-01", "TCGA-02-0001", "01", ""),
        (f"TCGA-18-3406-01Z-00-DX1.{UUID}.svs", "TCGA-18-3406", "01", "DX1"),
        (f"TCGA-18-3406-01A-01-TS1.{UUID.lower()}", "TCGA-18-3406", "01", "TS1"),
        ("tcga-a5-a0gv-01a-01-bs1", "TCGA-A5-A0GV", "01", "BS1"),
        ("TCGA-A5-A1SV-01Z-00-DXV.svs", "TCGA-A5-A1SV", "01", "DXV"),  # `rstrip('.svs')` would eat the V... and more
    ],
)
def test_barcodes_are_read(text: str, patient: str, sample: str, slide: str) -> None:
    assert barcodes.parse(text) == barcodes.Barcode(patient, sample, slide)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "TCGA-18",
        "TCGA-18-34067",
        "TCGA.18.3406",
        "TCGA-18-3406-1",
        "TCGA-18-3406.csv",
        "C3L-00001",
        "TCGA-18-3406-01Z-",
    ],
)
def test_what_is_no_barcode_is_none(text: str) -> None:
    assert barcodes.parse(text) is None


SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@given(st.text(SIGNS, min_size=2, max_size=2), st.text(SIGNS, min_size=4, max_size=4), st.integers(1, 29))
def test_the_patient_survives_whatever_follows(site: str, person: str, sample: int) -> None:
    patient = f"TCGA-{site}-{person}"
    for more in (
        "",
        f"-{sample:02d}",
        f"-{sample:02d}A",
        f"-{sample:02d}Z-00-DX1",
        f"-{sample:02d}Z-00-DX1.{UUID}.svs",
    ):
        found = barcodes.parse(patient + more)
        assert found is not None
        assert found.patient == patient
        assert found.tumour == (not more or sample < 10)


def people(n: int) -> list[str]:
    return [f"TCGA-AA-{k:04d}" for k in range(n)]


@pytest.fixture
def cohort(tmp_path: Path) -> dict[str, Any]:
    """Twenty patients; genes by the barcode of an aliquot, one of them of normal tissue; slides without patient_id."""
    ids = people(20)
    (tmp_path / "patients.csv").write_text("case,t,e\n" + "".join(f"{p},5,1\n" for p in ids))
    aliquots = [f"{p}-01A-11R-1234-07" for p in ids] + [f"{ids[0]}-11A-11R-1234-07"]
    (tmp_path / "genes.csv").write_text("case,g\n" + "".join(f"{a},{k}\n" for k, a in enumerate(aliquots)))
    slides = [f"{p}-01Z-00-DX1" for p in ids[:3]]
    for slide in slides:
        store.write(tmp_path / f"{slide}.h5", Features(np.ones((2, 4), np.float16), np.zeros((2, 2), np.int64), {}))
    (tmp_path / "slides.csv").write_text("slide_id,path\n" + "".join(f"{s},{s}.h5\n" for s in slides))
    return {
        "name": "toy",
        "root": str(tmp_path),
        "patients": {"file": "patients.csv", "id": "case"},
        "tasks": {"os": {"kind": "survival", "time": "t", "unit": "days", "event": "e", "events": {"1": 1, "0": 0}}},
        "modalities": {
            "rna": {"kind": "omics", "file": "genes.csv", "ids": "tcga"},
            "wsi": {"kind": "bag", "ids": "tcga"},
        },
    }


def test_barcodes_are_cut_to_the_patient(cohort: dict[str, Any]) -> None:
    made = manifest.load(cohort, Path("out"))
    assert made.tables["rna"]["g"].to_dict() == {p: float(k) for k, p in enumerate(people(20))}
    assert set(made.bags["wsi"]) == set(people(3))
    assert "'genes.csv': 1 rows of normal tissue left out (samples: tumour)" in made.notes
    assert made.slides is not None
    assert made.slides["patient_id"].tolist() == people(3)
    assert schema.faults(cohort) == []


def test_the_cohort_may_say_it_for_all_its_tables(cohort: dict[str, Any]) -> None:
    root = Path(cohort["root"])
    (root / "patients.csv").write_text((root / "patients.csv").read_text().replace(",5,1", "-01,5,1"))
    cohort["patients"]["ids"] = "tcga"
    for options in cohort["modalities"].values():
        del options["ids"]
    made = manifest.load(cohort, Path("out"))
    assert made.ids == people(20)
    assert len(made.tables["rna"]) == 20
    assert schema.faults(cohort) == []


def test_two_tumour_samples_of_a_patient_need_a_policy(cohort: dict[str, Any]) -> None:
    cohort["modalities"]["rna"]["samples"] = "all"
    with pytest.raises(DataFault, match=r"several barcodes of 1 patients \(TCGA-AA-0000\)"):
        manifest.load(cohort, Path("out"))
    cohort["modalities"]["rna"]["duplicates"] = "first"
    assert manifest.load(cohort, Path("out")).tables["rna"].loc["TCGA-AA-0000", "g"] == 0


def test_without_the_declaration_an_aliquot_is_no_patient(cohort: dict[str, Any]) -> None:
    del cohort["modalities"]["rna"]["ids"]
    with pytest.raises(DataFault, match=r"21 of 21 ids are no patients .*`ids: tcga`"):
        manifest.load(cohort, Path("out"))
    assert [row.rule for row in schema.faults(cohort)] == ["fewer than 90% of the ids match"]


def test_an_id_that_is_no_barcode_is_refused_by_name(cohort: dict[str, Any]) -> None:
    root = Path(cohort["root"])
    (root / "genes.csv").write_text((root / "genes.csv").read_text() + "TCGA-AA-99,5\n")
    with pytest.raises(DataFault, match=r"1 of 22 ids are no TCGA barcodes \(TCGA-AA-99\)"):
        manifest.load(cohort, Path("out"))
    assert {(r.row, r.value, r.rule) for r in schema.faults(cohort)} >= {(23, "TCGA-AA-99", "no barcode")}
    cohort["modalities"]["rna"]["ids"] = "gtex"
    with pytest.raises(UsageFault, match="ids='gtex' is none of text, tcga"):
        manifest.load(cohort, Path("out"))


@pytest.mark.parametrize(("strangers", "refused"), [(1, False), (2, False), (3, True)])
def test_ids_that_match_nobody_are_listed_and_many_refused(
    cohort: dict[str, Any], strangers: int, refused: bool, tmp_path: Path
) -> None:
    """Under 90 % of the table's twenty ids: three of them."""
    root = Path(cohort["root"])
    rows = [f"{p},1\n" for p in people(20)[strangers:]] + [f"TCGA-ZZ-{k:04d},1\n" for k in range(strangers)]
    (root / "genes.csv").write_text("case,g\n" + "".join(rows))
    if refused:
        with pytest.raises(DataFault, match=r"3 of 20 ids are no patients .*TCGA-ZZ-0000, TCGA-ZZ-0001, .*than 90%"):
            manifest.load(cohort, Path("out"))
        cohort["modalities"]["rna"]["matched"] = 0.5
    made = manifest.load(cohort, Path("out"))
    assert f"'genes.csv': rows of {strangers} patients outside the cohort" in "; ".join(made.notes)
    write_unmatched(made, tmp_path)
    with (tmp_path / "unmatched.csv").open() as file:
        assert list(csv.reader(file)) == [["file", "id"]] + [
            ["genes.csv", f"TCGA-ZZ-{k:04d}"] for k in range(strangers)
        ]
