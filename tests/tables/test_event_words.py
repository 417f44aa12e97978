"""Events and times as the world writes them: by an explicit map or not at all; missing stays missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.records import DataFault
from nsclc_mtl.tables import outcomes

TASK: dict[str, Any] = {"kind": "survival", "time": "t", "unit": "months", "event": "e"}


def labels(written: list[str], times: list[str], **declared: Any) -> pd.DataFrame:
    task = TASK | declared
    table = pd.DataFrame({"t": times, "e": written}, index=[f"P{k}" for k in range(len(written))])
    return outcomes.labels(outcomes.task_spec("os", task), task, table, "t.csv")


CODES = [("2", "1"), ("True", "False"), ("dead", "alive"), ("1:DECEASED", "0:LIVING"), ("1.0", "0.0"), ("1", "0")]


@pytest.mark.parametrize(("happened", "censored"), CODES)
@pytest.mark.parametrize("missing", ["", "nan", "NA", " "])
def test_events_are_what_the_map_says(happened: str, censored: str, missing: str) -> None:
    made = labels([happened, censored, missing], ["1", "2", "3"], events={happened: 1, censored: 0})
    np.testing.assert_array_equal(made["event"], [1, 0, np.nan])
    assert made["time_days"].isna().tolist() == [False, False, True]  # nobody without a status is alive
    assert made["time_days"].iloc[0] == pytest.approx(365.25 / 12)


@pytest.mark.parametrize(("happened", "censored"), CODES)
def test_a_coding_that_the_map_does_not_name_is_refused_with_counts(happened: str, censored: str) -> None:
    with pytest.raises(DataFault, match=rf"'{happened}' \(2 rows\)") as caught:
        labels([happened, happened, censored], ["1"] * 3, events={"yes": 1, censored: 0})
    assert caught.value.exit_code == 3


def test_a_map_from_yaml_may_have_numbers_and_truth_values() -> None:
    assert labels(["1", "2"], ["1", "1"], events={1: 0, 2: 1})["event"].tolist() == [0, 1]
    assert labels(["True", "False"], ["1", "1"], events={True: 1, False: 0})["event"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("time", "told"),
    [
        ("-3", r"negative for P1 \(1 rows\)"),
        ("soon", "no numbers.*P1"),
        ("0", r"zero for P1 \(1 rows\)"),
        ("inf", "P1"),
    ],
)
def test_times_that_are_none_name_their_rows(time: str, told: str) -> None:
    with pytest.raises(DataFault, match=told) as caught:
        labels(["1", "1"], ["5", time], events={"1": 1})
    assert caught.value.exit_code == 3
    assert "t.csv" in str(caught.value)


def test_a_time_that_is_missing_is_no_label() -> None:
    assert labels(["1", "1"], ["5", "nan"], events={"1": 1}).notna().all(axis=1).tolist() == [True, False]
