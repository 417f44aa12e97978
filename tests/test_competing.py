"""Competing causes from the declaration to the metrics: train, predict and evaluate on a cohort that has them."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.config import execute
from nsclc_mtl.metrics.survival import c_index, kaplan_meier
from nsclc_mtl.phantom.cohort import make
from nsclc_mtl.records import TaskSpec, UsageFault
from nsclc_mtl.tables import outcomes

CAUSES = [
    "cohort.tasks.survival.events.deceased=cancer", "+cohort.tasks.survival.events.elsewise=other",
    "+cohort.tasks.survival.causes=[cancer,other]",
]  # fmt: skip
SMALL = [
    "cohort.level=features", "cohort.n=40", "folds.n=2", "folds.workers=0", "folds.validation=0.2",
    "folds.min_events=2",
    "trainer.max_epochs=2", "optim.min_steps=1", "audit=1", "device=cpu", "logger=none", "tasks=[survival]",
    "modalities=[clinical,rna]",
]  # fmt: skip


class Way:
    """A phantom in which every third death has another cause, and the verbs."""

    def __init__(self, root: Path) -> None:
        self.root, self.data = root, make(root / "data", level="features", n=40, seed=0)
        table = pd.read_csv(self.data / "patients.csv", dtype=str, keep_default_na=False)
        dead = table.index[table["os_status"] == "deceased"]
        table.loc[dead[::3], "os_status"] = "elsewise"
        table.to_csv(self.data / "patients.csv", index=False)
        self.status = table.set_index("patient_id")["os_status"]

    def run(self, verb: str, name: str, *words: str) -> int:
        body = import_module(f"nsclc_mtl.commands.{verb}").body
        paths = [f"paths.runs={self.root / 'runs'}", f"paths.out={self.root / 'out'}"]
        return execute(verb, [f"name={name}", *paths, *words], lambda: body)

    def train(self, name: str, *words: str) -> int:
        return self.run("train", name, f"cohort.root={self.data}", *SMALL, *CAUSES, *words)

    def folder(self, name: str, verb: str = "train") -> Path:
        return self.root / "runs" / verb / name

    def table(self, name: str, verb: str = "train") -> pd.DataFrame:
        return pd.read_csv(self.folder(name, verb) / "predictions.csv", dtype={"event": str}, keep_default_na=False)


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    made = Way(tmp_path_factory.mktemp("competing"))
    assert made.train("both", "survival=deephit") == 0
    return made


def test_predictions_hold_the_cause_and_its_incidence(way: Way) -> None:
    frame = way.table("both")
    risk = frame[(frame["output"] == "risk") & (frame["part"] == "test")].set_index("patient_id")
    code = way.status.map({"deceased": "1", "elsewise": "2", "alive": "0", "": ""})
    assert set(risk["event"]) >= {"0", "1", "2"}
    assert (risk["event"] == code.loc[risk.index]).all()
    test = frame[frame["part"] == "test"].pivot_table(index="patient_id", columns="output", values="value")
    for days in ("182.5", "365", "730", "1095", "1460", "1825"):
        parts = test[f"cif:cancer:{days}"] + test[f"cif:other:{days}"] + test[f"surv:{days}"]
        np.testing.assert_allclose(parts, 1, atol=1e-5)
    told = json.loads((way.folder("both") / "cohort.json").read_text())["tasks"]["survival"]
    assert told["causes"] == ["cancer", "other"]
    assert told["events"] == (code == "1").sum()


def test_the_check_knows_the_causes(way: Way) -> None:
    words = [f"cohort.root={way.data}", "cohort.level=features", "cohort.n=40", "folds.n=2", *CAUSES]
    assert way.run("check", "it", *words, "tasks=[survival]", "modalities=[clinical,rna]") == 0
    told = json.loads((way.folder("it", "check") / "check.json").read_text())
    assert not [f for f in told["findings"] if f["rule"] == "events"]
    follow_up = told["follow_up"]["survival"]
    assert follow_up["events"] == (way.status == "deceased").sum()
    days = pd.read_csv(way.data / "patients.csv", dtype=str, keep_default_na=False).set_index("patient_id")["os_days"]
    seen = way.status != ""
    curve = kaplan_meier(days[seen].astype(float), (way.status[seen] == "alive").astype(float))  # any death ends it
    assert follow_up["median_days"] == curve.time[np.flatnonzero(curve.value <= 0.5 + 1e-9)[0]]


def test_metrics_are_of_the_first_cause(way: Way) -> None:
    assert way.run("evaluate", "both", f"ckpt={way.folder('both')}", "bootstrap=2") == 0
    rows = json.loads((way.folder("both", "evaluate") / "metrics.json").read_text())
    frame = way.table("both")
    risk = frame[(frame["output"] == "risk") & (frame["part"] == "test") & (frame["event"] != "")]
    for fold, own in risk.groupby("fold"):
        wanted = c_index(own["value"], own["time_days"].astype(float), (own["event"] == "1").astype(float))
        (told,) = [r for r in rows if (r["metric"], r["fold"], r["model"]) == ("c_index", str(fold), "learner")]
        assert told["value"] == pytest.approx(float(wanted), abs=1e-6)
        assert told["n_events"] == (own["event"] == "1").sum()
    assert {r["reason"] for r in rows if r["metric"] == "ibs" and r["model"] == "learner"} <= {
        "competing causes: the survival curve is of any event, the outcome of the first cause",
    }  # fmt: skip
    assert any(r["model"].startswith("floor:") and r["metric"] == "c_index" and r["value"] for r in rows)
    log = (way.folder("both") / "log.txt").read_text()
    assert "survival: competing causes (cancer " in log
    assert "learns cancer alone" not in log
    assert way.run("predict", "again", f"ckpt={way.folder('both')}", "explain.patients=0", "explain.features=0") == 0
    again, first = (f.set_index(["patient_id", "output"])["value"].sort_index() for f in (
        way.table("again", "predict"), frame[frame["part"] == "test"]))  # fmt: skip
    np.testing.assert_allclose(again.loc[first.index], first, atol=1e-5)


def test_other_heads_say_that_they_know_one_cause(way: Way) -> None:
    assert way.train("one", "survival=pmf") == 0
    log = (way.folder("one") / "log.txt").read_text()
    assert log.count("survival: PMF learns cancer alone, with other as censored; survival=deephit learns all") == 1
    outputs = set(way.table("one")["output"])
    assert outputs == {"risk", *(f"surv:{d}" for d in ("182.5", "365", "730", "1095", "1460", "1825"))}


OS: dict[str, Any] = {
    "kind": "survival", "time": "t", "unit": "days", "event": "e", "causes": ["cancer", "other"],
    "events": {"a": 0, "c": "cancer", "o": "other", "x": "other", "?": None},
}  # fmt: skip


def test_labels_hold_the_first_cause_and_the_number_of_each() -> None:
    notes: list[str] = []
    spec = outcomes.task_spec("os", OS)
    assert spec == TaskSpec("os", "survival", (), ("t", "e"), "overall survival", 0.0, ("cancer", "other"))
    table = pd.DataFrame({"t": ["1", "2", "3", "4", "5", "6"], "e": ["a", "c", "o", "x", "?", "c"]})
    told = outcomes.labels(spec, OS, table, "p.csv", notes)
    np.testing.assert_array_equal(told["cause"], [0, 1, 2, 2, np.nan, 1])
    np.testing.assert_array_equal(told["event"], [0, 1, 0, 0, np.nan, 1])
    assert notes == [
        "os: competing causes (cancer 2, other 2 patients); metrics, floors and curves of the cohort are of cancer, "
        "the others counted as censored"
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"causes": ["cancer"]}, "name two causes or more"),
        ({"causes": ["cancer", "cancer"]}, "name two causes or more"),
        ({"causes": "cancer"}, "name two causes or more"),
        ({"causes": ["cancer", 2]}, "name two causes or more"),
        ({"causes": ["cancer", "a:b"]}, "name two causes or more"),
        ({"events": {**OS["events"], "c": 1}}, "events gives 1; with `causes` each value is cancer, other, 0"),
        ({"events": {"a": 0, "c": "cancer"}}, "events gives nobody the cause 'other'"),
        ({"causes": None}, "events gives 'cancer'; each value is 1 .* named by `causes`"),
        ({"events_any": {"death": {}}}, "declares both `events_any` and `causes`"),
    ],
)
def test_what_is_ambiguous_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageFault, match=words):
        outcomes.task_spec("os", {**OS, **change})
