"""The sections of a report beside the chapters of the tasks, each in a file of its own."""

from __future__ import annotations

from nsclc_mtl.report.section import Maker

SECTIONS: tuple[Maker, ...] = ()
"""In the order in which they stand on the page."""
