"""The sections of a report beside the chapters of the tasks, each in a file of its own."""

from __future__ import annotations

from nsclc_mtl.report.section import Maker
from nsclc_mtl.report.sections.cohort import cohort
from nsclc_mtl.report.sections.drift import drift
from nsclc_mtl.report.sections.intended import intended
from nsclc_mtl.report.sections.risk import risk

SECTIONS: tuple[Maker, ...] = (cohort, drift, risk, intended)
"""In the order in which they stand on the page."""
