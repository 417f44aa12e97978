"""Metrics of patients from elsewhere: by hand, and by scikit-survival that is given the same training patients."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc, integrated_brier_score
from sksurv.util import Surv

from nsclc_mtl.commands import censoring, sealed
from nsclc_mtl.commands.judging import evaluate_predictions
from nsclc_mtl.metrics.survival import accuracy_index, brier, censoring_curve, graf_weights, kaplan_meier
from nsclc_mtl.records import IntegrityFault, Manifest, TaskSpec
from nsclc_mtl.report.evaluation import TaskResult, metric_rows
from nsclc_mtl.report.section import Evidence
from nsclc_mtl.report.sections.censoring import censoring as section
from nsclc_mtl.report.survival_measures import last_day

TASKS = {"os": TaskSpec("os", "survival")}
DAYS = (200, 366, 600, 900)  # of the learner's curve
FOLDS = ["fold0", "fold1", "fold2"]


def cohort(n: int, seed: int, parity: int, until: float) -> tuple[pd.DataFrame, np.ndarray]:
    """Outcomes and a latent. On even or on odd days, so that nobody of one cohort shares a day with the other."""
    rng = np.random.default_rng(seed)
    m = rng.normal(size=n)
    t, u = rng.exponential(700 * np.exp(-m)), np.minimum(rng.exponential(1400, n), until)
    days = 2 * np.round(np.minimum(t, u) / 2) + 2 + parity
    ids = [f"p{i}" for i in range(n)]  # both count their patients alike
    return pd.DataFrame({"event": (t <= u) * 1.0, "time_days": days}, index=ids), m


OURS, _ = cohort(40, 1, 0, 1500)
THEIRS, LATENT = cohort(30, 2, 1, 1150)
SPLITS = pd.DataFrame(
    [(p, k, "test" if i % 3 == k else "train") for k in range(3) for i, p in enumerate(OURS.index)],
    columns=["patient_id", "fold", "part"],
)


def manifest(label: pd.DataFrame) -> Manifest:
    return Manifest("toy", pd.DataFrame(index=label.index), TASKS, {}, {"os": label})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What training leaves of three folds, as far as it matters here."""
    folder = tmp_path_factory.mktemp("run")
    for k, rows in SPLITS.groupby("fold"):
        (folder / f"fold{k}").mkdir()
        kept = censoring.kept(manifest(OURS), list(rows.loc[rows["part"] != "test", "patient_id"]))
        (folder / f"fold{k}/fitted.json").write_text(json.dumps({"fitted": {"follow_up": kept}}))
        sealed.seal(folder / f"fold{k}")
    return folder


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    """A learner that sees a noisy latent, and a floor that sees another."""
    rng, rows = np.random.default_rng(3), []
    for model in ("learner", "floor:age"):
        seen = LATENT + rng.normal(size=len(LATENT))
        for p, s in zip(THEIRS.index, seen, strict=True):
            said = {"risk": s} | {f"surv:{d}": float(np.exp(-d / 900 * np.exp(s))) for d in DAYS}
            label = THEIRS.loc[p]
            rows += [
                (p, "os", "-1", "test", o, v, "", label["event"], label["time_days"], model) for o, v in said.items()
            ]
    names = ["patient_id", "task", "fold", "part", "output", "value", "target", "event", "time_days", "model"]
    return pd.DataFrame(rows, columns=names)


def judged(run: Path, predictions: pd.DataFrame, folds: list[str] = FOLDS, **of: Any) -> TaskResult:
    found = censoring.of_training(run, folds, TASKS, **of)
    return evaluate_predictions(predictions, TASKS, None, None, draws=20, follow_up=found)["os"]


@pytest.fixture(scope="module")
def result(run: Path, predictions: pd.DataFrame) -> TaskResult:
    return judged(run, predictions)


def value(result: TaskResult, metric: str, model: str = "learner") -> float:
    return float(result.metrics[metric][model].interval().value)


@pytest.mark.parametrize("model", ["learner", "floor:age"])
def test_metrics_are_those_of_scikit_survival_with_the_training_patients(result: TaskResult, model: str) -> None:
    train, test = (Surv.from_arrays(label["event"] == 1, label["time_days"]) for label in (OURS, THEIRS))
    said = result.folds[0].said[model].loc[THEIRS.index]
    tau = last_day(result.folds)
    assert tau == OURS["time_days"].max()  # a tenth of the training patients is left until the end
    assert value(result, "uno_c", model) == pytest.approx(concordance_index_ipcw(train, test, said["risk"], tau)[0])
    known, _ = cumulative_dynamic_auc(train, test, said["risk"], [365.25])
    assert value(result, "auc_1y", model) == pytest.approx(known[0])
    few = result.metrics["auc_3y"]["learner"].value
    assert few.reason.endswith("followed so far, at least 10 are needed")
    curves = said[[f"surv:{d}" for d in DAYS]].to_numpy()
    assert value(result, "brier_1y", model) == pytest.approx(brier_score(train, test, curves[:, [1]], [366])[1][0])
    assert value(result, "ibs", model) == pytest.approx(integrated_brier_score(train, test, curves, DAYS))


def test_brier_score_and_accuracy_by_hand(result: TaskResult) -> None:
    """G and the reference from all training patients, patient by patient."""

    @cache
    def product(when: float, of: int, strictly: bool) -> float:
        """Kaplan-Meier at a time, or just before it, of the event (1) or the censoring (0)."""
        left = 1.0
        for t in sorted(set(OURS["time_days"])):
            if t < when or (t == when and not strictly):
                here = OURS[OURS["time_days"] == t]["event"]
                risk = (OURS["time_days"] >= t).sum() - (0 if of else (here == 1).sum())
                left *= 1 - (here == of).sum() / risk if risk else 1.0
        return left

    def score(said: np.ndarray, day: float) -> float:
        total = 0.0
        for s, (event, time) in zip(said, THEIRS[["event", "time_days"]].to_numpy(), strict=True):
            if time <= day and event == 1:
                total += s**2 / product(time, 0, strictly=True)
            elif time > day:
                total += (1 - s) ** 2 / product(day, 0, strictly=False)
        return total / len(THEIRS)

    said = result.folds[0].said["learner"].loc[THEIRS.index]
    assert value(result, "brier_1y") == pytest.approx(score(said["surv:366"].to_numpy(), 366))
    each = np.array([score(said[f"surv:{d}"].to_numpy(), d) for d in DAYS])
    base = np.array([score(np.full(len(THEIRS), product(d, 1, strictly=False)), d) for d in DAYS])
    assert value(result, "ipa") == pytest.approx(1 - np.trapezoid(each, DAYS) / np.trapezoid(base, DAYS))


def test_own_censoring_stands_beside_it(result: TaskResult, predictions: pd.DataFrame) -> None:
    [made] = section(Evidence({"os": result}, predictions, settings={"bootstrap": 20, "seed": 0}))
    assert (made.task, made.title) == ("os", "Censoring here and in the training")
    rows = {(r["metric"], r["model"]): r["value"] for r in made.rows}
    assert {m for _, m in rows} == {"learner", "floor:age"}
    here = Surv.from_arrays(THEIRS["event"] == 1, THEIRS["time_days"])
    said = result.folds[0].said["learner"].loc[THEIRS.index]
    curves = said[[f"surv:{d}" for d in DAYS]].to_numpy()
    known = integrated_brier_score(here, here, curves, DAYS)
    assert rows["own_censoring:ibs", "learner"] == pytest.approx(known)
    assert rows["own_censoring:auc_1y", "learner"] == pytest.approx(
        cumulative_dynamic_auc(here, here, said["risk"], [365.25])[0][0]
    )
    assert "own_censoring:c_index" not in {m for m, _ in rows}
    table = made.tables["os-censoring"].set_index(["metric", "model"])
    main = {(r["metric"], r["model"]): r["value"] for r in metric_rows({"os": result}) if r["fold"] == "all"}
    for key, row in table.iterrows():
        if np.isfinite(row["gap_value"]):
            assert row["gap_value"] == pytest.approx(rows["own_censoring:" + key[0], key[1]] - main[key])
            assert row["training_value"] == pytest.approx(main[key])
    weights = made.tables["os-censoring-weights"].set_index("horizon")
    assert weights["own"].tolist() == pytest.approx([1.0, 1.0])
    g = censoring_curve(OURS["time_days"], OURS["event"])
    time, event = THEIRS["time_days"].to_numpy(), THEIRS["event"].to_numpy()
    mean = np.where(time > 365.25, 1 / g.at(365.25), np.where(event == 1, 1 / g.before(time), 0)).mean()
    assert weights.loc["1y", "training"] == pytest.approx(mean)
    steps = made.figures[0].data
    assert set(steps["group"]) == {"training", "these patients"}
    assert "0 years" not in made.html
    assert section(Evidence({"os": result}, predictions, splits=SPLITS)) == []


def test_one_fold_weighs_by_those_whom_it_knows(run: Path, predictions: pd.DataFrame) -> None:
    own = OURS.loc[SPLITS.query("fold == 1 and part != 'test'")["patient_id"]]
    found = judged(run, predictions, ["fold1"]).folds[0].censoring
    assert found is not None
    known = censoring_curve(own["time_days"], own["event"])
    np.testing.assert_allclose(found.at(np.arange(1600)), known.at(np.arange(1600)))


def test_a_run_of_before_is_counted_in_its_cohort_or_says_why_not(
    run: Path, result: TaskResult, predictions: pd.DataFrame, tmp_path: Path
) -> None:
    for name in FOLDS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "fitted.json").write_text('{"fitted": {}}')
        sealed.seal(tmp_path / name)
    again = judged(tmp_path, predictions, cohort=manifest(OURS), splits=SPLITS.astype(str))
    lines, known = metric_rows({"os": again}), metric_rows({"os": result})
    assert lines == known
    without = judged(tmp_path, predictions)
    weighed = {m: without.metrics[m]["learner"].interval() for m in ("uno_c", "auc_1y", "brier_1y", "ibs", "ipa")}
    assert all(np.isnan(at.value) and "put it back, or train again" in at.reason for at in weighed.values())
    [made] = section(Evidence({"os": without}, predictions, settings={"bootstrap": 20, "seed": 0}))
    assert "There is no G of the training patients" in made.html
    assert {r["metric"] for r in made.rows if r["value"] is not None} >= {
        f"own_censoring:{m}"
        for m in weighed
        if m != "ipa"  # its reference is the training patients' curve
    }


def test_a_fold_that_was_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fold0").mkdir()
    file = tmp_path / "fold0/fitted.json"
    file.write_text('{"fitted": {"follow_up": {"os": {"days": [1], "events": [1.5], "censored": [0]}}}}')
    sealed.seal(tmp_path / "fold0")
    with pytest.raises(IntegrityFault, match="follow-up of the training patients"):
        censoring.of_training(tmp_path, ["fold0"], TASKS)
    file.write_text('{"fitted": {}}')
    with pytest.raises(IntegrityFault, match="is not the file that the training wrote"):
        censoring.of_training(tmp_path, ["fold0"], TASKS)


def test_where_patients_leave_sooner_than_in_the_training_own_censoring_is_right() -> None:
    """20,000 patients whose every outcome is known, and then censored: the numbers of docs/elsewhere.md."""
    rng, n, day = np.random.default_rng(0), 20_000, 1095.0

    def draw(leave: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        m = rng.normal(size=n)
        t, u = rng.exponential(1500 * np.exp(-m)), np.minimum(rng.exponential(leave, n), 3000)
        return m, t, np.minimum(t, u), (t <= u) * 1.0

    _, _, *train = draw(4000)
    m, t, *seen = draw(1200)
    trained, own, base = censoring_curve(*train), censoring_curve(*seen), kaplan_meier(*train)
    said = np.exp(-day / 1500 * np.exp(m))
    truth = ((said - (t > day)) ** 2).mean()
    flat = ((base.at(day) - (t > day)) ** 2).mean()
    assert brier(said, *seen, day, own) == pytest.approx(truth, abs=0.004)
    assert brier(said, *seen, day, trained) < truth - 0.05  # the weights of a cohort that is followed longer
    for g in (own, trained):  # in the ratio most of it cancels
        assert accuracy_index(said[:, None], *seen, [day], g, base) == pytest.approx(1 - truth / flat, abs=0.01)
    weight = graf_weights(*seen, day, trained)
    assert isinstance(weight, np.ndarray)
    assert weight.mean() == pytest.approx(0.67, abs=0.01)


def test_patients_without_an_event_have_a_section_and_no_numbers(run: Path, predictions: pd.DataFrame) -> None:
    found = judged(run, predictions.assign(event=0.0))
    [made] = section(Evidence({"os": found}, predictions, settings={"bootstrap": 20, "seed": 0}))
    assert not {r["metric"] for r in made.rows} & {"own_censoring:uno_c", "own_censoring:auc_1y"}
    early = predictions.assign(event=0.0, time_days=5.0)
    [made] = section(Evidence({"os": judged(run, early)}, early, settings={"bootstrap": 20, "seed": 0}))
    assert made.tables == {}
    assert "No metric with weights can be computed here" in made.html
