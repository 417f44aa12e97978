"""Endpoints: the first of several declared events, never a guessed one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables import outcomes

YES = {"1": 1, "0": 0}
PFS: dict[str, Any] = {
    "kind": "survival", "endpoint": "PFS", "unit": "days", "censored_at": "last",
    "events_any": {
        "progression": {"event": "prog", "events": YES, "time": "prog_t"},
        "death": {"event": "dead", "events": YES, "time": "dead_t"},
    },
}  # fmt: skip


def made(declared: dict[str, Any], notes: list[str] | None = None, **columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(columns)
    table.index = pd.Index([f"P{i}" for i in range(len(table))])
    return outcomes.labels(outcomes.task_spec("pfs", declared), declared, table, "p.csv", notes)


def test_the_first_event_counts_and_the_last_look_censors() -> None:
    told = made(
        PFS, prog=["1", "0", "1", "0"], prog_t=["100", "", "50", ""], dead=["1", "1", "0", "0"],
        dead_t=["300", "200", "400", ""], last=["300", "200", "400", "365"],
    )  # fmt: skip
    assert told["event"].tolist() == [1, 1, 1, 0]
    assert told["time_days"].tolist() == [100, 200, 50, 365]


def test_what_is_not_known_gives_no_label() -> None:
    notes: list[str] = []
    told = made(
        PFS, notes, prog=["", "1", "1", "", "0", "0"], prog_t=["", "", "10", "", "", ""],
        dead=["1", "1", "", "0", "", "0"], dead_t=["9", "9", "", "", "", ""], last=["9", "9", "10", "8", "8", ""],
    )  # fmt: skip
    # a death whose progression is unknown or undated may not be the first event; a dated progression before an unknown
    # death is; nobody is free of events whose components are not all known, or who was never looked at
    assert told["event"].tolist()[2] == 1
    assert told["time_days"].tolist()[2] == 10
    assert told.isna().any(axis=1).tolist() == [True, True, False, True, True, True]
    assert notes == ["pfs: 2 patients had an event, but another component or its time is not known, so that the first "
                     "event is not: no label"]  # fmt: skip


def test_units_zero_and_impossible_orders() -> None:
    mixed = {**PFS, "unit": "months", "events_any": {**PFS["events_any"]}}
    mixed["events_any"]["death"] = {**PFS["events_any"]["death"], "unit": "days"}
    told = made(mixed, prog=["0", "0"], prog_t=["", ""], dead=["1", "0"], dead_t=["60", ""], last=["2", "12"])
    assert told["time_days"].tolist() == [60, 365.25]
    one = {"dead": ["1"], "dead_t": ["9"], "last": ["9"]}
    with pytest.raises(DataFault, match=r"progression is dated after death for P0 \(1 rows\)"):
        made(PFS, prog=["1"], prog_t=["10"], **one)
    with pytest.raises(DataFault, match="zero for P0"):
        made(PFS, prog=["1"], prog_t=["0"], **one)
    assert made({**PFS, "zero": "half_day"}, prog=["1"], prog_t=["0"], **one)["time_days"].tolist() == [0.5]
    with pytest.raises(DataFault, match=r"'maybe' \(1 rows\), which cohort.tasks.pfs.events_any.progression.events"):
        made(PFS, prog=["maybe"], prog_t=[""], **one)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 99), st.booleans(), st.integers(0, 99)), min_size=1))
def test_a_composite_is_the_minimum_of_its_parts(rows: list[tuple[bool, int, bool, int]]) -> None:
    progressed, when, dead, more = (list(column) for column in zip(*rows, strict=True))
    death = [w + m for w, m in zip(when, more, strict=True)]
    told = made(
        PFS, prog=[str(int(p)) for p in progressed], prog_t=[str(w) for w in when],
        dead=[str(int(d)) for d in dead], dead_t=[str(d) for d in death], last=[str(d) for d in death],
    )  # fmt: skip
    np.testing.assert_array_equal(told["event"] == 1, np.logical_or(progressed, dead))
    np.testing.assert_array_equal(told["time_days"], np.where(progressed, when, death))


def test_names_of_endpoints() -> None:
    single = {"kind": "survival", "time": "t", "unit": "days", "event": "e", "events": YES}
    assert outcomes.task_spec("a", {**single, "endpoint": "DSS"}).endpoint == "disease-specific survival"
    assert outcomes.task_spec("os", single).endpoint == "overall survival"
    assert (
        outcomes.task_spec("a", {**single, "endpoint": "time to next treatment"}).endpoint == "time to next treatment"
    )
    with pytest.raises(UsageFault, match="endpoint='overal survival' is no endpoint, but near to 'overall survival'"):
        outcomes.task_spec("a", {**single, "endpoint": "overal survival"})
    assert outcomes.task_spec("pfs", PFS).columns == ("prog_t", "prog", "dead_t", "dead", "last")


def without(*path: str) -> dict[str, Any]:
    declared = {**PFS, "events_any": {k: dict(v) for k, v in PFS["events_any"].items()}}
    node: Any = declared
    for word in path[:-1]:
        node = node[word]
    del node[path[-1]]
    return declared


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (without("censored_at"), "declares no `censored_at`"),
        (without("events_any", "death"), "counts progression and death, and events_any has no `death`"),
        (without("events_any", "death", "time"), "events_any.death declares no `time`"),
        (without("unit"), "unit=None is none of days"),
        ({**PFS, "time": "t"}, "both `events_any` and `time`"),
        ({**PFS, "endpoint": "OS"}, "overall survival does not count `progression`"),
        ({**PFS, "endpoint": "TTP"}, "time to progression does not count `death`"),
        ({**PFS, "events_any": ["prog"]}, "needs components by name"),
    ],
)
def test_a_wanting_declaration_is_a_usage_fault(declared: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageFault, match=told):
        outcomes.task_spec("pfs", declared)
