"""What a covariate may be declared as, in short and in long, and what is implausible."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.covariates import covariate, covariates, limits, plausible


def test_short_and_long_forms_say_the_same() -> None:
    short = covariates({"age": "numeric", "sex": "categorical", "smoking": ["never", "now"]}, "here")
    long = covariates(
        {
            "age": {"type": "numeric", "unit": "years"},
            "sex": {"type": "categorical"},
            "smoking": {"type": "ordered", "values": ["never", "now"]},
        },
        "here",
    )
    assert [one.short for one in short.values()] == [one.short for one in long.values()]
    assert [one.short for one in long.values()] == ["numeric", "categorical", ["never", "now"]]
    assert covariates(None, "here") == {}


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ("number", "say numeric, categorical, or list its values"),
        ("ordered", "say numeric, categorical, or list its values"),
        (None, "say numeric"),
        ({"unit": "years"}, "say numeric"),
        ({"type": "numeric", "values": [1]}, "values is no word of a numeric column; it has max, min, unit"),
        ({"type": "categorical", "min": 0}, "min is no word of a categorical column"),
        ({"type": "ordered"}, "list its `values` from low to high"),
        ({"type": "numeric", "min": "old"}, "are numbers"),
        ({"type": "numeric", "min": 5, "max": 1}, "min 5 is above max 1"),
    ],
)
def test_a_wrong_declaration_is_refused(declared: Any, told: str) -> None:
    with pytest.raises(UsageFault, match=rf"(?s)here\.age.*{told}"):
        covariate("age", declared, "here")


def test_limits_include_themselves_and_mind_nothing_missing() -> None:
    age = covariate("age", {"type": "numeric", "unit": "years", "min": 0, "max": 120}, "here")
    plausible(pd.Series(["0", "120", "", "NA", "61.5"]), age, "here")
    for value in ("-1", "120.5", "999"):
        with pytest.raises(DataFault, match=rf"outside 0 to 120 years \(P: {value}\)"):
            plausible(pd.Series([value], index=["P"]), age, "here")
    assert limits(covariate("x", {"type": "numeric", "min": 1}, "here")) == "1 and above"
    assert limits(covariate("x", {"type": "numeric", "max": 1, "unit": "mm"}, "here")) == "1 mm and below"


def test_categories_are_those_that_are_declared() -> None:
    sex = covariate("sex", {"type": "categorical", "values": ["f", "m"]}, "here")
    plausible(pd.Series(["f", " m ", "", "NA"]), sex, "here")
    with pytest.raises(DataFault, match=r"holds 'd' \(2 rows\), none of its values"):
        plausible(pd.Series(["f", "d", "d"]), sex, "here")
    plausible(pd.Series(["anything"]), covariate("site", "categorical", "here"), "here")
