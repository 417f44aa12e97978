"""Federated against pooled and local models, recomputed by plain loops from made predictions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.metrics.comparison import resamples_of
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.federated import ways
from nsclc_mtl.report.federated.ways import ALL, CENTRALISED, DIFFERENCE, FEDERATED, LOCAL

TASKS = {
    "response": TaskSpec("response", "binary", ("no", "yes")),
    "grade": TaskSpec("grade", "ordinal", ("G1", "G2", "G3")),
    "survival": TaskSpec("survival", "survival"),
}
SITES = {"A": 24, "B": 30, "tiny": 6}
FOLDS = 2
LEAST = 4
REFUSED = {("1", "B"): "fewer than two classes"}


def made(seed: int = 0) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Predictions of three ways, and who is where; one local model is missing, `tiny` has three patients a fold."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {FEDERATED: [], CENTRALISED: [], LOCAL: []}
    site_of = {f"{site}{i:02d}": site for site, n in SITES.items() for i in range(n)}
    for k, patient in enumerate(site_of):
        m, unknown = rng.normal(), k % 11 == 0
        days, event = float(round(600 * np.exp(-m) * rng.exponential()) + 1), int(rng.random() < 0.7)
        label, grade = int(m + rng.normal() > 0), int(np.clip(round(m + 1), 0, 2))
        for fold in range(FOLDS):
            part = "test" if k % FOLDS == fold else "train"
            for way, out in rows.items():
                s = m + {FEDERATED: 1.0, CENTRALISED: 0.7, LOCAL: 2.0}[way] * rng.normal()
                if way == LOCAL and (str(fold), site_of[patient]) in REFUSED:
                    continue
                yes = 1 / (1 + np.exp(-s))
                high = [1 - yes, yes * (1 - yes), yes * yes]
                target = "" if unknown else ["no", "yes"][label]
                head = (patient, fold, part)
                out += [(*head, "response", f"p:{c}", p, target, "", "") for c, p in (("no", 1 - yes), ("yes", yes))]
                out += [(*head, "grade", f"p:G{j + 1}", p, f"G{grade + 1}", "", "") for j, p in enumerate(high)]
                out.append((*head, "survival", "risk", s, "", event, days))
    columns = ["patient_id", "fold", "part", "task", "output", "value", "target", "event", "time_days"]
    frames = {way: pd.DataFrame(out, columns=columns) for way, out in rows.items()}
    for frame in frames.values():
        frame["fold"] = frame["fold"].astype(str)
        frame[["event", "time_days"]] = frame[["event", "time_days"]].replace("", None).astype(float)
    return frames, site_of


@pytest.fixture(scope="module")
def study() -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    return made()


@pytest.fixture(scope="module")
def rows(study: Any) -> dict[tuple[str, ...], dict[str, Any]]:
    told = ways.rows(*_given(study), REFUSED, LEAST, draws=30, seed=4)
    keyed = {(r["task"], r["metric"], r["site"], r["measure"], r["way"]): r for r in told}
    assert len(keyed) == len(told)
    return keyed


def _given(study: Any) -> tuple[Any, Any, Any]:
    return study[0], TASKS, study[1]


def plain_auc(label: list[float], score: list[float]) -> float:
    """Share of the pairs of unequal labels that the score orders; NaN without a pair."""
    won = pairs = 0.0
    for a, x in zip(label, score, strict=True):
        for b, y in zip(label, score, strict=True):
            if a > b:
                pairs, won = pairs + 1, won + (x > y) + 0.5 * (x == y)
    return won / pairs if pairs else float("nan")


def plain_c(known: pd.DataFrame) -> float:
    won = pairs = 0.0
    for a in known.itertuples():
        for b in known.itertuples():
            if a.event == 1 and (a.time_days < b.time_days or (a.time_days == b.time_days and b.event == 0)):
                pairs, won = pairs + 1, won + (a.score > b.score) + 0.5 * (a.score == b.score)
    return won / pairs if pairs else float("nan")


def scored(frame: pd.DataFrame, site_of: dict[str, str], task: str) -> pd.DataFrame:
    """One row a tested patient with a known outcome: fold, site, label or time and event, score."""
    own = frame[(frame["task"] == task) & (frame["part"] == "test")]
    wide = own.pivot_table(index=["fold", "patient_id"], columns="output", values="value")
    about = own.drop_duplicates(["fold", "patient_id"]).set_index(["fold", "patient_id"])
    if task == "survival":
        score = wide["risk"]
    elif task == "response":
        score = wide["p:yes"]
    else:
        score = wide["p:G2"] + 2 * wide["p:G3"]
    out = about.assign(score=score).reset_index().sort_values(["fold", "patient_id"])
    out["label"] = out["target"].map({"no": 0, "yes": 1, "G1": 0, "G2": 1, "G3": 2})
    out["site"] = out["patient_id"].map(site_of)
    return out if task == "survival" else out[out["label"].notna()]


def by_hand(known: pd.DataFrame, task: str, by: list[str], least: int = LEAST) -> tuple[float, int]:
    """Mean of the metric within groups by their patients, and how many these are."""
    found = []
    for _, group in known.groupby(by):
        value = plain_c(group) if task == "survival" else plain_auc(list(group["label"]), list(group["score"]))
        if len(group) >= least and not np.isnan(value):
            found.append((value, len(group)))
    total = sum(n for _, n in found)
    return sum(v * n for v, n in found) / total, total


METRIC = {"response": "auc", "grade": "ordinal_auc", "survival": "c_index"}


@pytest.mark.parametrize("task", list(TASKS))
@pytest.mark.parametrize("way", [FEDERATED, CENTRALISED, LOCAL])
def test_values_are_those_of_plain_loops(study: Any, rows: Any, task: str, way: str) -> None:
    known = scored(study[0][way], study[1], task)
    for site in ("A", "B", ALL):
        value, n = by_hand(known if site == ALL else known[known["site"] == site], task, ["fold", "site"])
        row = rows[task, METRIC[task], site, "within", way]
        assert row["value"] == pytest.approx(value, abs=1e-12)
        assert row["n"] == n
    if way == LOCAL:
        assert (task, METRIC[task], ALL, "whole", LOCAL) not in rows
    else:
        value, n = by_hand(known, task, ["fold"])
        assert rows[task, METRIC[task], ALL, "whole", way]["value"] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("other", [CENTRALISED, LOCAL])
def test_differences_stand_on_the_same_patients(study: Any, rows: Any, other: str) -> None:
    ours, theirs = (scored(study[0][way], study[1], "response") for way in (FEDERATED, other))
    if other == LOCAL:
        ours = ours[~((ours["site"] == "B") & (ours["fold"] == "1"))]
    a, n = by_hand(ours, "response", ["fold", "site"])
    b, m = by_hand(theirs, "response", ["fold", "site"])
    assert n == m
    row = rows["response", f"{DIFFERENCE}auc", ALL, "within", other]
    assert row["value"] == pytest.approx(a - b, abs=1e-12)
    assert row["n"] == n
    if other == LOCAL:
        whole = rows["response", "auc", ALL, "within", FEDERATED]["value"]
        assert row["value"] != pytest.approx(whole - rows["response", "auc", ALL, "within", LOCAL]["value"])
        assert row["reason"].startswith("3 of 6 groups left out")  # the refused one, and both of the tiny site


def test_intervals_are_percentiles_of_patients_drawn_within_fold_and_site(study: Any, rows: Any) -> None:
    """The same draws again, with patients repeated one by one."""
    rng = np.random.default_rng([4, *b"response"])
    each = {way: scored(study[0][way], study[1], "response") for way in (FEDERATED, CENTRALISED)}
    taken: list[tuple[int, list[tuple[float, float]]]] = []
    for site in sorted(SITES):
        ours = each[FEDERATED][each[FEDERATED]["site"] == site]
        groups = [sorted(ours.loc[ours["fold"] == fold, "patient_id"]) for fold in ("0", "1")]
        for fold, (ids, drawn) in enumerate(zip(groups, resamples_of(groups, 30, rng), strict=True)):
            if len(ids) < LEAST:
                continue
            values = []
            for draw in drawn:
                who = [p for p, times in zip(ids, draw, strict=True) for _ in range(int(times))]
                pair = []
                for known in each.values():
                    one = known[known["fold"] == str(fold)].set_index("patient_id").loc[who]
                    pair.append(plain_auc(list(one["label"]), list(one["score"])))
                values.append((pair[0], pair[1]))
            taken.append((len(ids), values))
    assert len(taken) == 4
    sizes = np.array([n for n, _ in taken])
    drawn_values = np.array([values for _, values in taken])  # [group, draw, way]
    known_draws = ~np.isnan(drawn_values)
    assert 0 < (~known_draws).sum() < 0.1 * known_draws.size  # a draw of one class alone leaves its group out
    mean = np.einsum("g,gdw->dw", sizes, np.nan_to_num(drawn_values)) / np.einsum("g,gdw->dw", sizes, known_draws)
    row = rows["response", "auc", ALL, "within", FEDERATED]
    assert (row["lo"], row["hi"]) == pytest.approx(tuple(np.quantile(mean[:, 0], [0.025, 0.975])))
    gap = rows["response", f"{DIFFERENCE}auc", ALL, "within", CENTRALISED]
    assert (gap["lo"], gap["hi"]) == pytest.approx(tuple(np.quantile(mean[:, 0] - mean[:, 1], [0.025, 0.975])))


def test_what_is_too_small_or_refused_has_a_reason_and_no_value(rows: Any) -> None:
    small = rows["response", "auc", "tiny", "within", FEDERATED]
    assert small["value"] is None
    assert small["lo"] is None
    assert small["reason"] == f"fewer than {LEAST} patients"
    assert 0 < small["n"] < 6
    assert rows["response", f"{DIFFERENCE}auc", "tiny", "within", CENTRALISED]["value"] is None
    half = rows["response", "auc", "B", "within", LOCAL]
    assert half["reason"] == "1 of 2 folds left out: the site could not be trained alone"
    assert half["value"] is not None
    assert half["n"] < rows["response", "auc", "B", "within", FEDERATED]["n"]


def test_scores_of_sites_are_not_compared_within_and_are_across(study: Any, rows: Any) -> None:
    """What moves all risks of one site moves only the measure over the whole fold."""
    frames = {way: frame.copy() for way, frame in study[0].items()}
    moved = frames[FEDERATED]
    moved.loc[moved["patient_id"].map(study[1]) == "A", "value"] += 50 * (moved["output"] == "risk")
    told = ways.rows({FEDERATED: moved}, {"survival": TASKS["survival"]}, study[1], {}, LEAST, draws=0)
    again = {(r["site"], r["measure"]): r["value"] for r in told if r["metric"] == "c_index"}
    before = rows["survival", "c_index", ALL, "within", FEDERATED]["value"]
    assert again[ALL, "within"] == pytest.approx(before, abs=1e-12)
    assert abs(again[ALL, "whole"] - rows["survival", "c_index", ALL, "whole", FEDERATED]["value"]) > 0.01


def test_further_metrics_are_means_over_patients(study: Any, rows: Any) -> None:
    known = scored(study[0][CENTRALISED], study[1], "response")
    kept = known[known["site"] != "tiny"]
    row = rows["response", "brier", ALL, "within", CENTRALISED]
    assert row["value"] == pytest.approx(float(np.mean((kept["score"] - kept["label"]) ** 2)))
    ours = rows["response", "brier", ALL, "within", FEDERATED]["value"]
    assert rows["response", f"{DIFFERENCE}brier", ALL, "within", CENTRALISED]["value"] == pytest.approx(
        ours - row["value"]
    )


def test_rows_come_in_the_order_of_the_tasks_and_have_the_same_words(study: Any) -> None:
    told = ways.rows(*_given(study), REFUSED, LEAST, draws=0)
    assert {tuple(row) for row in told} == {
        ("task", "metric", "site", "measure", "way", "value", "lo", "hi", "n", "n_events", "reason")
    }
    order = [row["task"] for row in told]
    assert all(list(TASKS).index(a) <= list(TASKS).index(b) for a, b in pairwise(order))
    assert all(row["lo"] is None for row in told)  # nothing was drawn
