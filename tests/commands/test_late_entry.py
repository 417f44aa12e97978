"""Patients who were followed already when their predictions were locked: simulated, so that the truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.commands import late_entry
from nsclc_mtl.commands.judging import evaluate_predictions
from nsclc_mtl.commands.training_parts import TRAINED_ON
from nsclc_mtl.metrics.survival import kaplan_meier
from nsclc_mtl.metrics.survival_calibration import assess_at
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.fold import LEARNER
from nsclc_mtl.report.probabilities import targets_of

TASK = {"survival": TaskSpec("survival", "survival")}
DAYS = (182.5, 365.0, 730.0, 1095.0, 1460.0, 1825.0)
SHAPE, SCALE, LOCK, TODAY = 0.9, 1500.0, 1400.0, 3600.0


def survival(day: np.ndarray | float, score: np.ndarray) -> np.ndarray:
    return np.exp(-((np.asarray(day) / SCALE) ** SHAPE) * np.exp(score))


@pytest.fixture(scope="module")
def simulated() -> pd.DataFrame:
    """Everybody's time to the event, follow-up when locked and today: recruited evenly until the lock, a perfect model.

    A fifth is never seen again after the lock, whatever becomes of them.
    """
    rng = np.random.default_rng(7)
    n = 6000
    score = rng.normal(0, 0.8, n)
    time = np.ceil(SCALE * (rng.exponential(1, n) / np.exp(score)) ** (1 / SHAPE))
    came = np.floor(rng.uniform(0, LOCK, n))
    table = pd.DataFrame({"score": score, "time": time, "then": LOCK - came, "now": TODAY - came})
    table["now"] = table["now"].where(rng.random(n) > 0.2, table["then"]).clip(upper=2000)
    table.index = pd.Index([f"P{i}" for i in range(n)], name="patient_id")
    return table


def locked(of: pd.DataFrame, follow_up: bool = True) -> pd.DataFrame:
    """Rows of predictions.csv as they were locked."""
    wide = pd.DataFrame({"risk": of["score"]} | {f"surv:{d:g}": survival(d, of["score"].to_numpy()) for d in DAYS})
    rows = wide.reset_index().melt("patient_id", var_name="output")
    rows = rows.assign(task="survival", fold="-1", part="test", target="")
    seen = np.minimum(of["time"], of["then"])
    event = (of["time"] <= of["then"]).astype(float)
    if not follow_up:
        seen, event = seen * np.nan, event * np.nan
    return rows.join(pd.DataFrame({"event": event, "time_days": seen}), on="patient_id")


def today(of: pd.DataFrame) -> pd.DataFrame:
    seen, event = np.minimum(of["time"], of["now"]), (of["time"] <= of["now"]).astype(int)
    return pd.DataFrame({"target": "", "event": event.astype(str), "time_days": seen.map("{:g}".format)}, of.index)


def judged(rows: pd.DataFrame, of: late_entry.Met) -> pd.DataFrame:
    """As `locked.joined` and `elsewhere.evaluate` bring them together."""
    whole = rows.drop(columns=["target", "event", "time_days"]).join(of.truth, on="patient_id")
    for column in ("event", "time_days"):
        whole[column] = pd.to_numeric(whole[column].replace("", None))
    return late_entry.since(whole, of) if of.late else whole


def ratios(predictions: pd.DataFrame) -> dict[str, float]:
    """Observed over expected events at each horizon."""
    result = evaluate_predictions(predictions, TASK, None, None, draws=2)["survival"]
    targets, _ = targets_of(result, [LEARNER])
    return {
        t.suffix: float(assess_at(t.said[LEARNER], t.time, t.event, t.when or 0.0).values["observed_expected"])
        for t in targets
    }


def test_a_calibrated_model_is_found_calibrated_in_whom_the_lock_found_alive(simulated: pd.DataFrame) -> None:
    """Counted from day 0 the same patients would seem to outlive their predictions by far."""
    rows = locked(simulated)
    of = late_entry.met(rows, today(simulated), simulated.index)
    assert of.late
    table = judged(rows, of)
    assert set(table["output"]) == {"risk", "surv:182.5", "surv:365"}  # those last recruited were followed 1,400 days
    ratio = ratios(table)
    assert set(ratio) == {"_1y"}
    assert ratio["_1y"] == pytest.approx(1, abs=0.06)
    alive = simulated[simulated["time"] > simulated["then"]]
    kept = alive[np.minimum(alive["time"], alive["now"]) > alive["then"]]  # as before: whoever has news, from day 0
    seen, event = np.minimum(kept["time"], kept["now"]), (kept["time"] <= kept["now"]).astype(float)
    expected = 1 - survival(365.25, kept["score"].to_numpy()).mean()
    naive = 1 - float(kaplan_meier(seen, event).at(np.array([365.25]))[0])
    assert naive / expected < 0.5


def test_nobody_is_left_out_for_what_came_of_him(simulated: pd.DataFrame) -> None:
    rows = locked(simulated)
    of = late_entry.met(rows, today(simulated), simulated.index)
    alive = simulated["time"] > simulated["then"]
    assert (of.state[~alive] == late_entry.BEFORE).all()
    assert of.judged[alive].all()
    lost = alive & (simulated["now"] <= simulated["then"])
    assert lost.sum() > 300
    assert (of.state[lost] == late_entry.STILL).all()
    table = judged(rows, of).drop_duplicates("patient_id").set_index("patient_id")
    assert (table.loc[lost[lost].index, "time_days"] == 0).all()
    assert (table.loc[lost[lost].index, "event"] == 0).all()
    news = of.state == late_entry.JOINED
    expected = np.minimum(simulated["time"], simulated["now"]) - simulated["then"]
    np.testing.assert_allclose(table.loc[news[news].index, "time_days"], expected[news], rtol=1e-6)


def test_predictions_are_those_given_that_the_patient_came_so_far(simulated: pd.DataFrame) -> None:
    rows = locked(simulated)
    of = late_entry.met(rows, today(simulated), simulated.index)
    wide = judged(rows, of).pivot(index="patient_id", columns="output", values="value")
    some = simulated[of.judged]
    truth = survival(some["then"] + 365, some["score"].to_numpy()) / survival(some["then"], some["score"].to_numpy())
    np.testing.assert_allclose(wide.loc[some.index, "surv:365"], truth, atol=0.02)
    np.testing.assert_allclose(wide["risk"], simulated.loc[wide.index, "score"])  # of everybody, as it was
    assert wide.loc[simulated.index[~of.judged], "surv:365"].isna().all()


def test_of_patients_without_follow_up_nothing_is_changed(simulated: pd.DataFrame) -> None:
    """Predicted at the diagnosis: every outcome counts from day 0."""
    rows = locked(simulated, follow_up=False)
    of = late_entry.met(rows, today(simulated), simulated.index)
    assert not of.late
    assert (of.state == late_entry.JOINED).all()
    ratio = ratios(judged(rows, of))
    assert all(value == pytest.approx(1, abs=0.06) for value in ratio.values())
    assert set(ratio) == {"_1y", "_3y", "_5y"}


def test_every_patient_has_a_word() -> None:
    of = pd.DataFrame(
        {"then": ["", "", "0", "100", "100", "100", "100", "100", "1500", "50", "", ""], "event": list("000000000100")},
        index=pd.Index(list("abcdefghijkl"), name="patient_id"),
    )
    event = of["event"].where(of["then"] != "", "")
    rows = pd.concat(
        pd.DataFrame(
            {"patient_id": of.index, "task": "survival", "fold": "-1", "part": "test", "output": output, "value": 0.5,
             "target": "", "event": pd.to_numeric(event).to_numpy(), "time_days": pd.to_numeric(of["then"]).to_numpy()}
        )
        for output in ("risk", "surv:365", "surv:1825")
    )  # fmt: skip
    truth = pd.DataFrame(
        {"target": "", "event": ["", "1", "0", "0", "", "1", "1", "0", "0", "1", "1", "1"],
         "time_days": ["", "30", "0", "80", "", "90", "101", "400", "1700", "50", "20", "20"]}, index=of.index,
    )  # fmt: skip
    told = late_entry.met(
        rows, truth, of.index.drop("h"), {"a": "held out", "k": "trained on", "l": "perhaps trained on"}
    )
    assert told.state.to_dict() == {
        "a": "none yet", "b": "joined", "c": "no later follow-up", "d": "no later follow-up", "e": "no later follow-up",
        "f": "event before that follow-up", "g": "joined", "h": "not in the tables",
        "i": "followed too long when locked", "j": "known when locked", "k": "trained on",
        "l": "perhaps trained on",
    }  # fmt: skip
    assert set(told.state) == set(late_entry.STATES)
    assert told.truth.loc[["d", "g"], "time_days"].tolist() == ["100", "101"]
    assert (told.truth.loc[["a", "f", "h", "i", "j", "k", "l"]] == "").all(axis=None)


def test_who_was_trained_on_is_never_judged(simulated: pd.DataFrame) -> None:
    some = simulated.head(20)
    trained = list(some.index[:5])
    found = late_entry.met(locked(some), today(some), some.index, dict.fromkeys(trained, TRAINED_ON))
    assert (found.state[trained] == TRAINED_ON).all()
    assert not found.judged[trained].any()
    assert (found.truth.loc[trained] == "").all().all()
    assert found.state.drop(trained).equals(late_entry.met(locked(some), today(some), some.index).state.drop(trained))
