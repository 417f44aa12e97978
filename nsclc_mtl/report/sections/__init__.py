"""The sections of a report beside the chapters of the tasks, each in a file of its own."""

from __future__ import annotations

from nsclc_mtl.report.section import Maker
from nsclc_mtl.report.sections.abstention import abstention
from nsclc_mtl.report.sections.audit import audit
from nsclc_mtl.report.sections.calibration import calibration
from nsclc_mtl.report.sections.censoring import censoring
from nsclc_mtl.report.sections.cohort import cohort
from nsclc_mtl.report.sections.comparison import comparison
from nsclc_mtl.report.sections.decision import decision
from nsclc_mtl.report.sections.drift import drift
from nsclc_mtl.report.sections.intended import intended
from nsclc_mtl.report.sections.maps import maps
from nsclc_mtl.report.sections.optimism import optimism
from nsclc_mtl.report.sections.risk import risk
from nsclc_mtl.report.sections.subgroups import subgroups
from nsclc_mtl.report.sections.trust import trust

SECTIONS: tuple[Maker, ...] = (
    cohort, drift, risk, calibration, decision, censoring, comparison, subgroups, audit, abstention, optimism, trust,
    maps, intended,
)  # fmt: skip
"""In the order in which they stand on the page."""
