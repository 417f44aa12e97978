"""Who tells the slopes of the probabilities: training patients, each through members that were trained without him."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.commands import confidence, fold, members, outputs, recalibrate
from nsclc_mtl.records import DataFault, Manifest, TaskSpec

IDS = [f"p{i}" for i in range(300)]
PARTS = ["train"] * 200 + ["validation"] * 20 + ["calibration"] * 30 + ["test"] * 50
SPECS = {
    "grade": TaskSpec("grade", "ordinal", ("G1", "G2", "G3"), ("g",)),
    "response": TaskSpec("response", "binary", ("no", "yes"), ("r",)),
}


def cohort(unknown: int = 0) -> Manifest:
    """Two tasks, the label of response unknown for the first patients; nothing else is asked of it."""
    draw = np.random.default_rng(0)
    labels = {
        "grade": pd.DataFrame({"value": draw.integers(0, 3, len(IDS)).astype(float)}, index=IDS),
        "response": pd.DataFrame({"value": draw.integers(0, 2, len(IDS)).astype(float)}, index=IDS),
    }
    labels["response"].iloc[:unknown] = np.nan
    return Manifest("toy", pd.DataFrame(index=IDS), SPECS, {}, labels)


def settings(parts: int = 4) -> dict[str, Any]:
    return {"seed": 0, "trust": {"crossfit": parts}, "optim": {"batch_size": 32}, "folds": {"together": []}}


ROWS = pd.DataFrame({"patient_id": IDS, "fold": 0, "part": PARTS})
DATA: Any = SimpleNamespace(parts={"train": IDS[:200], "validation": IDS[200:220]}, cache=object())


class Trainings:
    """Stands in for the training and the prediction; notes who trained and who was predicted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: DataFault | None = None) -> None:
        self.rows: list[pd.DataFrame] = []
        self.asked: list[list[str]] = []
        self.settings: list[Any] = []
        self.fault = fault
        monkeypatch.setattr(members, "train_members", self.train)
        monkeypatch.setattr(outputs, "means", self.means)

    def train(self, given: Any, manifest: Manifest, rows: pd.DataFrame, progress: Any, cache: Any) -> Any:
        assert cache is DATA.cache
        if self.fault:
            raise self.fault
        self.rows.append(rows)
        self.settings.append(given)
        return [], None

    def means(self, members: Any, manifest: Manifest, ids: Any, data: Any) -> dict[str, pd.DataFrame]:
        """Twice too sure of the truth of half of the patients."""
        self.asked.append(list(ids))
        made = {}
        for task, spec in manifest.tasks.items():
            draw = np.random.default_rng(len(self.asked))
            p = draw.dirichlet(np.ones(len(spec.classes)), len(ids))
            made[task] = pd.DataFrame(p, list(ids), [f"p:{c}" for c in spec.classes])
        return made


def test_each_training_patient_is_predicted_once_by_members_without_him(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Trainings(monkeypatch)
    found = recalibrate.slopes(settings(), cohort(), ROWS, DATA)
    assert set(found) == {"grade", "response"}
    assert sorted(p for ids in seen.asked for p in ids) == sorted(IDS[:200])  # nobody else is ever asked
    for rows, asked in zip(seen.rows, seen.asked, strict=True):
        part = rows.set_index("patient_id")["part"]
        assert (part[asked] == "test").all()  # whom no fit can reach
        assert set(part.index[part == "train"]) == set(IDS[:200]) - set(asked)
        assert (part[IDS[200:]] == PARTS[200:]).all()
    assert {given["optim"]["batch_size"] for given in seen.settings} == {24}
    assert all(given["logger"] == {} for given in seen.settings)
    # predictions that say nothing of the outcome lose most of their spread
    assert 0 < found["response"] < 0.6
    assert 0 < found["grade"] < 0.6


def test_too_few_labels_or_none_asked_for_train_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Trainings(monkeypatch)
    assert recalibrate.slopes(settings(0), cohort(), ROWS, DATA) == {}
    assert seen.rows == []
    assert set(recalibrate.slopes(settings(), cohort(unknown=101), ROWS, DATA)) == {"grade"}
    few: Any = SimpleNamespace(parts={"train": IDS[:99]}, cache=DATA.cache)
    before = len(seen.rows)
    assert recalibrate.slopes(settings(), cohort(), ROWS, few) == {}
    assert len(seen.rows) == before


def test_a_part_that_cannot_be_left_out_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Trainings(monkeypatch, DataFault("no training patient of the fold has the modality 'rna'"))
    with caplog.at_level(logging.WARNING):
        assert recalibrate.slopes(settings(), cohort(), ROWS, DATA) == {}
    assert "fold 0: the slopes" in caplog.text
    assert "modality 'rna'" in caplog.text


def test_levels_are_those_of_the_training_labels_and_temperatures_are_left_out_where_a_slope_is_known() -> None:
    manifest, draw = cohort(unknown=20), np.random.default_rng(1)
    said = {
        task: pd.DataFrame(draw.dirichlet(np.ones(len(s.classes)), 200), IDS[:200], [f"p:{c}" for c in s.classes])
        for task, s in SPECS.items()
    }
    fitted = recalibrate.levels(said, manifest, {"response": 0.5})
    assert fitted["response"]["recalibration"]["fitted"]
    assert not fitted["grade"]["recalibration"]["fitted"]
    assert fitted["grade"]["recalibration"]["slope"] == 1.0
    told = confidence.scaled(said, manifest, fitted)
    known = manifest.labels["response"].loc[IDS[:200], "value"].dropna()
    assert told["response"].loc[known.index, "p:yes"].mean() == pytest.approx(known.mean())
    grade = manifest.labels["grade"].loc[IDS[:200], "value"]
    assert told["grade"]["p:G3"].mean() == pytest.approx((grade == 2).mean())
    unseen = {task: wide.set_axis(IDS[100:300]) for task, wide in told.items()}
    trust = confidence.fit(unseen, manifest, 0.2, sloped=("response",))
    assert "temperature" in trust["grade"]
    assert "temperature" not in trust["response"]
    again = confidence.scaled(said, manifest, {"response": {**fitted["response"], **trust["response"]}})
    pd.testing.assert_frame_equal(again["response"], told["response"])


@pytest.mark.slow
def test_outcomes_of_the_test_patients_tell_nothing(tmp_path: Path) -> None:
    from nsclc_mtl.commands.cohort import open_cohort, split
    from nsclc_mtl.commands.resume import begin
    from nsclc_mtl.config import compose, plain

    words = ["cohort.level=features", "cohort.n=180", "folds.n=3", "trainer.max_epochs=2", "optim.min_steps=1",
             "logger=none", "device=cpu", "trust.crossfit=2", f"paths.out={tmp_path / 'out'}"]  # fmt: skip
    given = plain(compose("train", words))
    told = []
    for other in (False, True):
        manifest = open_cohort(given)
        splits = split(given, manifest)
        rows = splits[splits["fold"] == 0]
        if other:
            tested = list(rows.loc[rows["part"] == "test", "patient_id"])
            for label in manifest.labels.values():
                label.loc[tested] = label.loc[tested[::-1]].to_numpy()
        monkey = pytest.MonkeyPatch()
        with TemporaryDirectory() as folder, monkey.context() as patch:
            patch.setattr(recalibrate, "FEWEST", 50)
            trained, data = members.train_members(given, manifest, rows, begin(Path(folder) / "fold0", {}))
            slopes = recalibrate.slopes(given, manifest, rows, data)
        fold.fit_trust(given, trained, manifest, data, slopes=slopes)
        assert set(slopes) == {"grade", "stage", "response"}
        told.append(data.fitted.trust)
    assert told[0] == told[1]
