"""What `mtl compare` computes of survival and of repeated splits, on run folders made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made_runs import N, compare, rows_of, train

from nsclc_mtl.commands.trained import read_table
from nsclc_mtl.metrics.multiplicity import holm
from nsclc_mtl.metrics.paired import corrected_t
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report import evaluation
from nsclc_mtl.report.side_by_side import training_outcomes


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("beside")
    train(root / "whole", 2.0)
    train(root / "weak", 0.3, seed=2)
    train(root / "alone", 0.3, tasks=["survival"], seed=1, days=(200, 800))
    return root


@pytest.mark.parametrize("way", ["fewer training patients", "a fold keeps none", "other folds"])
def test_the_same_predictions_have_the_same_brier_score(runs: Path, way: str) -> None:
    """However the runs were trained: one censoring distribution, one end and one grid for all of them."""
    name = re.sub(r"\W", "-", way)
    for k in (0, 1):
        folder = train(runs / f"{name}{k}", 1.0, tasks=["survival"], seed=5, shift=k if way == "other folds" else 0)
        frame = pd.read_csv(folder / "predictions.csv", dtype={"patient_id": str})
        risk = np.sin(frame["patient_id"].astype(int))  # whichever fold says it
        day = pd.to_numeric(frame["output"].str.partition(":")[2])
        frame["value"] = np.where(day.isna(), risk, np.exp(-day / 900 * np.exp(risk)))
        gone = (frame["fold"] == 1) if way == "a fold keeps none" else frame["time_days"] > 500
        frame[(frame["part"] == "test") | ~gone | (k == 0)].to_csv(folder / "predictions.csv", index=False)
    code, told = compare(runs, f"{name}0", f"{name}1", name=name)
    assert code == 0, told
    found = rows_of(runs, name)
    ours, theirs = ({m: r for (_, m, run), r in found.items() if run == f"{name}{k}"} for k in (0, 1))
    # of other folds only what is a mean over patients can be the same: pairs are made within folds
    for metric in ("ibs",) if way == "other folds" else ("ibs", "ipa", "uno_c", "auc_1y"):
        assert theirs[metric]["value"] == pytest.approx(ours[metric]["value"], rel=1e-12), metric
    assert theirs["difference:ibs"]["value"] == pytest.approx(0, abs=1e-12)
    compare(runs, f"{name}1", f"{name}0", name=f"{name}-turned")  # nor does it depend on which run is the reference
    turned = rows_of(runs, f"{name}-turned")
    for k in (0, 1):
        at = turned["survival", "ibs", f"{name}{k}"]["value"]
        assert at == pytest.approx(found["survival", "ibs", f"{name}{k}"]["value"], rel=1e-12)


def test_runs_of_one_split_have_the_censoring_of_their_report(runs: Path) -> None:
    assert compare(runs, "whole", "weak", name="report")[0] == 0
    frame = read_table(runs / "weak" / "predictions.csv")
    training = training_outcomes(frame, "survival")
    alone = evaluation.judge(frame, {"survival": TaskSpec("survival", "survival")}, {"survival": training}, 20)
    for metric in ("ibs", "uno_c", "auc_1y", "ipa"):
        own = alone["survival"].metrics[metric]["learner"].value
        assert rows_of(runs, "report")["survival", metric, "weak"]["value"] == pytest.approx(float(own), rel=1e-9)


def test_brier_scores_are_compared_too(runs: Path) -> None:
    code, told = compare(runs, "whole", "weak", "alone", name="brier")
    assert code == 0, told
    found = rows_of(runs, "brier")
    gap = found["survival", "difference:ibs", "weak"]
    apart = found["survival", "ibs", "weak"]["value"] - found["survival", "ibs", "whole"]["value"]
    assert gap["value"] == pytest.approx(apart, abs=1e-12)
    assert gap["lo"] < gap["value"] < gap["hi"]
    p = found["survival", "p_bootstrap:ibs", "weak"]["value"]
    assert (p < 0.05) == (gap["lo"] > 0 or gap["hi"] < 0)
    assert ("survival", "p_holm:ibs", "weak") not in found  # Holm is over the primary metrics
    assert ("response", "difference:brier", "weak") not in found
    assert not [k for k in found if "nadeau" in k[1]]  # one partition into folds is no sample of splits
    page = (runs / "out" / "compare" / "brier" / "compare.html").read_text()
    assert "<th>integrated Brier score (95 % interval)" in page
    assert "Nadeau" not in page
    table = pd.read_csv(runs / "out" / "compare" / "brier" / "tables" / "compare.csv")
    assert table["metric"].tolist() == ["auc"] * 2 + ["c_index"] * 3 + ["ibs"] * 3


def test_repeated_splits_that_runs_share(runs: Path) -> None:
    """Nadeau and Bengio's test, by hand; of the larger of the two P Holm is made, and of bold."""
    for name, skill, who in (("often", 2.0, range(N)), ("again", 0.3, range(N)), ("less", 0.3, range(10, N))):
        train(runs / name, skill, repeats=2, seed=len(name), who=who)
    ruling: dict[tuple[str, str, str], float] = {}
    code, told = compare(runs, "often", "again", "less", name="splits")
    assert code == 0, told
    rows = json.loads((runs / "out" / "compare" / "splits" / "metrics.json").read_text())
    for task, metric in (("response", "auc"), ("survival", "c_index"), ("survival", "ibs")):
        each = [
            [r["value"] for r in rows if (r["task"], r["metric"], r["model"]) == (task, metric, run) and
             r["fold"] != "all"]
            for run in ("often", "again")
        ]  # fmt: skip
        right = corrected_t([b - a for a, b in zip(*each, strict=True)], 0.5)
        at = {run: {m: r["value"] for (t, m, label), r in rows_of(runs, "splits").items() if (t, label) == (task, run)}
              for run in ("again", "less")}  # fmt: skip
        for run, of in at.items():
            both = [of.get(f"p_delong:{metric}", of.get(f"p_bootstrap:{metric}")), of[f"p_nadeau_bengio:{metric}"]]
            ruling[task, metric, run] = max(both)
        found = rows_of(runs, "splits")
        assert found[task, f"nadeau_bengio:{metric}", "again"]["value"] == pytest.approx(right.difference.value)
        assert found[task, f"p_nadeau_bengio:{metric}", "again"]["value"] == pytest.approx(float(right.p))
    asked = {key: p for key, p in ruling.items() if key[1] != "ibs"}
    for (task, metric, run), p in zip(asked, holm(list(asked.values())), strict=True):
        assert found[task, f"p_holm:{metric}", run]["value"] == pytest.approx(p)
    # who has fewer training patients beside the same test patients sets the test's variance for both
    gap = found["response", "nadeau_bengio:auc", "less"]
    assert gap["lo"] < gap["value"] < gap["hi"]
    page = (runs / "out" / "compare" / "splits" / "compare.html").read_text()
    assert "Nadeau" in page
    assert "the larger of it and the P over the splits" in page
    assert "in the same folds (3 folds, 2 repeats)" in page
    assert "Holm: of the larger of P and P over the repeated splits" in told


def test_runs_that_were_dealt_in_other_folds_have_no_test_over_the_splits(runs: Path) -> None:
    for name, shift in (("here", 0), ("there", 1)):
        train(runs / name, 1.0, repeats=2, seed=3, shift=shift)
    code, told = compare(runs, "here", "there", name="apart")
    assert code == 0, told
    assert not [key for key in rows_of(runs, "apart") if "nadeau" in key[1]]
    page = (runs / "out" / "compare" / "apart" / "compare.html").read_text()
    assert "there is no test over repeated splits then" in page
