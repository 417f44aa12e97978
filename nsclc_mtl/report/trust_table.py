"""What `trust.csv` says of a fold's patients, aligned to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def words(rows: pd.DataFrame, task: str, what: str, fold: str, patients: Sequence[str]) -> pd.Series:
    """What the rows say of these patients, as text, NaN where nothing."""
    own = rows[(rows["task"] == task) & (rows["what"] == what) & (rows["fold"].astype(str) == fold)]
    return own.drop_duplicates("patient_id").set_index("patient_id")["value"].reindex(list(patients))


def numbers(rows: pd.DataFrame, task: str, what: str, fold: str, patients: Sequence[str]) -> np.ndarray:
    """The same as numbers, float [patient]."""
    return pd.to_numeric(words(rows, task, what, fold, patients), errors="coerce").to_numpy(float)


def fact(rows: pd.DataFrame, task: str, what: str, fold: str) -> str:
    """What a fold was given, '' where it is not told."""
    found = words(rows, task, what, fold, [""]).iloc[0]
    return "" if pd.isna(found) else str(found)
