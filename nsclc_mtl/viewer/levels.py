"""Subgroups of the patients by a covariate: its few levels, or the halves of a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

MOST = 6  # levels that stay apart on one figure; the rarer ones are joined
OTHER = "other"
FIRST = ("site", "sex", "age", "stage")  # what readers ask for first
EVERYBODY = "all patients"


def columns(covariates: pd.DataFrame) -> list[str]:
    """The covariates that part the patients into two to a few levels, or are numbers: site, sex, age first."""
    found = [str(c) for c in covariates.columns if len(parted(covariates[c])) > 1]
    return sorted(found, key=lambda c: FIRST.index(c.lower()) if c.lower() in FIRST else len(FIRST))


def parted(column: pd.Series) -> Mapping[str, Sequence[str]]:
    """Level -> patients, blanks left out. Numbers are halved at their median; names and ids (more than twenty levels,
    or hardly two patients in one) are no subgroup: empty.

    >>> {k: len(v) for k, v in parted(pd.Series(["50", "60", "61", "62", "70", "80"], list("abcdef"))).items()}
    {'up to 61.5': 3, 'above 61.5': 3}
    """
    text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    known = text[text != ""]
    number = pd.to_numeric(known, errors="coerce")
    if len(known) and number.notna().all() and number.nunique() > 5:
        middle = float(np.median(number))
        halves = {
            f"up to {middle:g}": list(known.index[number <= middle]),
            f"above {middle:g}": list(known.index[number > middle]),
        }
        return {level: ids for level, ids in halves.items() if ids}
    counts = known.value_counts()
    if len(counts) > 20 or len(counts) * 2 > len(known):
        return {}
    kept = sorted(counts.index[: MOST if len(counts) <= MOST else MOST - 1])
    out = {str(level): list(known.index[known == level]) for level in kept}
    rest = list(known.index[~known.isin(kept)])
    if rest:
        out[OTHER if OTHER not in out else f"{OTHER} levels"] = rest
    return out
