from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.commands.judging import evaluate_predictions, with_others
from nsclc_mtl.metrics.calibration import assess
from nsclc_mtl.metrics.decision import net_benefit, net_benefit_at
from nsclc_mtl.metrics.survival_calibration import assess_at, interpolated
from nsclc_mtl.records import UsageFault
from nsclc_mtl.report.section import Evidence, Section
from nsclc_mtl.report.sections.calibration import calibration
from nsclc_mtl.report.sections.decision import decision

from .conftest import DAYS, TASKS

SETTINGS = {"primary_floor": "clinical", "seed": 0, "bootstrap": 50}


@pytest.fixture(scope="module")
def evidence(toy: dict[str, Any]) -> Evidence:
    """The toy study with a floor that says class probabilities and risks, but no survival curves."""
    floor = toy["predictions"][toy["predictions"]["part"] == "test"].assign(model="floor:clinical")
    floor = floor[~floor["output"].str.startswith("surv:")]
    every = with_others(toy["predictions"], floor)
    results = evaluate_predictions(every, TASKS, toy["manifest"], toy["splits"], 20)
    return Evidence(results, toy["predictions"], toy["manifest"], toy["splits"], SETTINGS)


@pytest.fixture(scope="module")
def sections(evidence: Evidence) -> dict[str, Section]:
    return {s.name: s for make in (calibration, decision) for s in make(evidence)}


def rows_of(section: Section, model: str = "learner") -> dict[str, dict[str, Any]]:
    return {r["metric"]: r for r in section.rows if r["model"] == model}


def table(predictions: pd.DataFrame, task: str, output: str) -> pd.DataFrame:
    """Test patients with this output, as a reader of predictions.csv finds them."""
    own = predictions[(predictions["task"] == task) & (predictions["part"] == "test")]
    return own[own["output"] == output].set_index("patient_id").sort_index()


def test_every_task_with_probabilities_has_both_sections(sections: dict[str, Section]) -> None:
    assert set(sections) == {f"{kind}-{task}" for kind in ("calibration", "decision") for task in TASKS}
    figures = [f.name for s in sections.values() for f in s.figures]
    assert len(figures) == len(set(figures))
    assert {"response-calibration", "grade-calibration-above-g1", "type-decision-c", "survival-decision-1y"} <= {
        *figures
    }


def test_numbers_of_classes_come_back_from_predictions(sections: dict[str, Section], toy: dict[str, Any]) -> None:
    own = table(toy["predictions"], "response", "p:yes")
    own = own[own["target"] != ""]
    y, p = (own["target"] == "yes").to_numpy(dtype=float), own["value"].to_numpy()
    found, rows = assess(y, p).values, rows_of(sections["calibration-response"])
    assert rows["calibration_slope"]["value"] == pytest.approx(found["slope"])
    assert rows["calibration_in_the_large"]["value"] == pytest.approx(found["in_the_large"])
    assert rows["ici"]["value"] == pytest.approx(found["ici"])
    assert rows["ici"]["lo"] < rows["ici"]["hi"]
    assert (rows["ici"]["n"], rows["ici"]["n_events"]) == (len(y), int(y.sum()))
    drawn = sections["decision-response"].figures[0].data
    ours = drawn[drawn["strategy"] == "learner"]
    assert ours["net_benefit"].to_numpy() == pytest.approx(net_benefit(y, p, ours["threshold"])[0])
    above = table(toy["predictions"], "grade", "p:G3")
    above = above[above["target"] != ""]
    found = assess(above["target"] == "G3", above["value"]).values
    assert rows_of(sections["calibration-grade"])["calibration_slope_above_G2"]["value"] == pytest.approx(
        found["slope"], abs=1e-4
    )


def test_numbers_of_survival_come_back_from_predictions(sections: dict[str, Section], toy: dict[str, Any]) -> None:
    columns = [table(toy["predictions"], "survival", f"surv:{d:g}") for d in DAYS]
    risk = 1 - interpolated(DAYS, np.stack([c["value"] for c in columns], axis=1), 365.25)
    time, event = columns[0]["time_days"].to_numpy(), columns[0]["event"].to_numpy()
    own = interpolated(DAYS, np.stack([c["value"] for c in columns], axis=1), np.minimum(time, 365.25))
    found = assess_at(risk, time, event, 365.25, hazard=-np.log(own)).values
    rows = rows_of(sections["calibration-survival"])
    told = {"slope": "calibration_slope_1y", "observed_expected": "observed_expected_1y", "e90": "e90_1y"}
    told["in_the_large"] = "calibration_in_the_large_1y"
    for name, metric in told.items():
        assert rows[metric]["value"] == pytest.approx(found[name])
    assert 0 <= rows["d_calibration_p"]["value"] <= 1
    drawn = sections["decision-survival"].figures[0].data
    ours = drawn[drawn["strategy"] == "learner"]
    own = net_benefit_at(risk, time, event, 365.25, ours["threshold"])[0]
    assert ours["net_benefit"].to_numpy() == pytest.approx(own, nan_ok=True)


def test_what_cannot_be_shown_says_why(sections: dict[str, Section], evidence: Evidence) -> None:
    text = sections["calibration-survival"].html
    assert "at 3 years: " in text  # the toy's curves end after two
    assert "clinical: none are saved" in text  # the floor has no curves
    assert "floor:clinical" not in {r["model"] for r in sections["decision-survival"].rows}
    bare = {**evidence.results}
    for fold in bare["survival"].folds:
        fold.said["learner"] = fold.said["learner"][["risk"]]
    lone = [s for s in calibration(replace(evidence, results=bare)) if s.task == "survival"]
    assert "Calibration is not shown: at 1 year" in lone[0].html
    assert not [s for s in decision(replace(evidence, results=bare)) if s.task == "survival"]


def test_every_number_on_the_page_is_in_the_rows(sections: dict[str, Section]) -> None:
    for name in ("calibration-response", "decision-grade"):
        section = sections[name]
        said = re.sub(r"<[^>]+>", "", section.html).replace("−", "-")
        shown = {f"{r[k]:.3f}" for r in section.rows for k in ("value", "lo", "hi") if r[k] is not None}
        assert set(re.findall(r"-?\d\.\d{3}", said)) <= shown | {"0.000", "-0.000"}


def cells(section: Section) -> list[dict[str, str]]:
    """The rows of the section's table, {head: text}."""
    plain = [
        [re.sub(r"<[^>]+>", "", cell).replace("−", "-") for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line)]
        for line in re.findall(r"<tr.*?</tr>", section.html, flags=re.S)
    ]
    return [dict(zip(plain[0], line, strict=True)) for line in plain[1:]]


def test_intercept_and_calibration_in_the_large_stand_on_the_page(sections: dict[str, Section]) -> None:
    for name, suffix in (("response", ""), ("survival", "_1y")):
        rows = rows_of(section := sections[f"calibration-{name}"])
        line = next(cell for cell in cells(section) if cell["model"] == "learner")
        large = rows[f"calibration_in_the_large{suffix}"]
        assert line["in the large"] == f"{large['value']:.3f} ({large['lo']:.3f} to {large['hi']:.3f})"
        assert ("intercept" in line) == (name == "response")  # beside a free slope: of classes only
        if name == "response":
            assert line["intercept"].startswith(f"{rows['calibration_intercept']['value']:.3f} (")


def test_thresholds_are_named(evidence: Evidence) -> None:
    named = replace(evidence, settings={**SETTINGS, "thresholds": [0.1, 0.4]})
    section = decision(named)[0]
    at = section.figures[0].data["threshold"]
    assert (at.min(), at.max()) == (0.1, 0.4)
    assert "named beforehand" in section.html
    with pytest.raises(UsageFault, match="no range"):
        decision(replace(evidence, settings={**SETTINGS, "thresholds": [0.4, 0.1]}))
