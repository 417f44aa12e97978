"""The sections of a report beside the chapters of the tasks, each in a file of its own."""

from __future__ import annotations

from nsclc_mtl.report.section import Maker
from nsclc_mtl.report.sections.drift import drift

SECTIONS: tuple[Maker, ...] = (drift,)
"""In the order in which they stand on the page."""
