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
    """Nadeau and Bengio's test, by hand; not where the runs have splits of their own."""
    for name, skill, who in (("often", 2.0, range(N)), ("again", 0.3, range(N)), ("less", 0.3, range(10, N))):
        train(runs / name, skill, repeats=2, seed=len(name), who=who)
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
        found = rows_of(runs, "splits")
        assert found[task, f"nadeau_bengio:{metric}", "again"]["value"] == pytest.approx(right.difference.value)
        assert found[task, f"p_nadeau_bengio:{metric}", "again"]["value"] == pytest.approx(float(right.p))
        assert (task, f"nadeau_bengio:{metric}", "less") not in found
    assert "Nadeau" in (runs / "out" / "compare" / "splits" / "compare.html").read_text()
