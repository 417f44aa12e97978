"""The words of a cohort's declaration: one that nobody reads is refused, because it would be obeyed by nobody."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from nsclc_mtl.records import UsageFault
from nsclc_mtl.tables.recipe import OWN_WORDS

# the last six are the phantom's
_COHORT = """
    name root patients index_date tasks modalities never_inputs stage_column floors scans level n seed missing
    site extras
"""
COHORT = frozenset(_COHORT.split())
PATIENTS = frozenset(["file", "id", "ids", "site", "group"])
_TASK = """
    kind optional file id ids matched applies also endpoint time unit event events zero negative landmark_days
    events_any censored_at causes column classes map rule edition edition_column editions prefixes stable_disease
    progressive_disease not_evaluable early_death assessed died patterns histology resected ties tolerance
"""
TASK = frozenset(_TASK.split())
_MODALITY = """
    kind optional file id ids matched table columns match exclude duplicates duplicate_columns scans
    scan_modality time after_index days until_days later visit samples layer values pathways gene_names
    min_genes combat harmonize encoder max_tiles augment
"""
MODALITY = frozenset(_MODALITY.split()) | frozenset(OWN_WORDS)


def refuse_unknown(cohort: Mapping[str, Any]) -> None:
    """Raises UsageFault naming every word of the declaration that is none, and the nearest one that is.

    A misspelt `never_inputs` or `zero` left an outcome among the inputs, or a time as it was, without a sound.
    """
    faults = list(_unknown(cohort))
    if faults:
        raise UsageFault("\n".join(faults))


def _unknown(cohort: Mapping[str, Any]) -> Iterator[str]:
    yield from _strange("cohort", cohort, COHORT)
    yield from _strange("cohort.patients", cohort.get("patients"), PATIENTS)
    for group, known in (("tasks", TASK), ("modalities", MODALITY)):
        for name, declared in (cohort.get(group) or {}).items():
            yield from _strange(f"cohort.{group}.{name}", declared, known)


def _strange(where: str, declared: Any, known: frozenset[str]) -> Iterator[str]:
    for word in declared if isinstance(declared, Mapping) else ():
        if word not in known:
            near = difflib.get_close_matches(str(word), sorted(known), n=1, cutoff=0.6)
            yield f"{where} has no word '{word}'" + (f"; did you mean '{near[0]}'?" if near else "; take it out")
