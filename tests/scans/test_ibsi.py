"""The IBSI digital phantom: PyRadiomics agrees with the consensus, but for what is known to deviate."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

EVIDENCE = Path(__file__).resolve().parent.parent / "evidence" / "ibsi.py"


@pytest.fixture(scope="module")
def ibsi() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evidence_ibsi", EVIDENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


@pytest.mark.realdata
def test_the_digital_phantom(real_data: Path, ibsi: ModuleType) -> None:
    rows = ibsi.rows(real_data / "radiology" / "ibsi")
    assert len(rows) == 482
    compared = [row for row in rows if not math.isnan(row.ours)]
    assert len(compared) == 271
    deviating = {row.tag: row for row in compared if not row.agrees}
    assert set(deviating) == {"stat_kurt", "morph_pca_min_axis", "morph_pca_least_axis"}
    assert deviating["stat_kurt"].ours - 3 == pytest.approx(deviating["stat_kurt"].reference, abs=5e-4)
    for tag in ("morph_pca_min_axis", "morph_pca_least_axis"):  # divided by n - 1 in place of n
        assert deviating[tag].ours * math.sqrt(74 / 73) == pytest.approx(deviating[tag].reference, abs=5e-3)
    assert all(ibsi.why(row) for row in rows if math.isnan(row.ours) or not row.agrees)


def test_what_agrees(ibsi: ModuleType) -> None:
    def row(reference: float, tolerance: float, ours: float) -> bool:
        return bool(ibsi.Row("t", "n", reference, tolerance, ours).agrees)

    assert row(2.15, 0, 2.1549)
    assert not row(2.15, 0, 2.1551)
    assert row(1490, 0, 1494.9)  # three digits
    assert not row(1490, 0, 1496)
    assert row(556, 4, 560.4)
    assert not row(556, 4, 560.6)
    assert not row(2.15, 0, math.nan)
