"""`mtl compare` on run folders made by hand: the same patients, paired, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from nsclc_mtl.cli import app
from nsclc_mtl.cohort.split_record import digest
from nsclc_mtl.metrics import delong
from nsclc_mtl.metrics.classification import auc
from nsclc_mtl.metrics.multiplicity import holm

N, FOLDS = 90, 3
TASKS: dict[str, dict[str, Any]] = {
    "response": {"kind": "binary", "classes": ["no", "yes"]},
    "survival": {"kind": "survival", "classes": [], "endpoint": "overall survival"},
}
COLUMNS = ["patient_id", "task", "fold", "part", "output", "value", "target", "event", "time_days"]


def train(
    folder: Path,
    skill: float,
    *,
    tasks: Sequence[str] = ("response", "survival"),
    who: Sequence[int] = range(N),
    shift: int = 0,
    seed: int = 0,
    days: Sequence[int] = (200, 400, 800),
) -> Path:
    """A run folder as `mtl train` leaves it; the higher the skill, the better it predicts."""
    truth, rng = np.random.default_rng(9), np.random.default_rng(seed)
    m = truth.normal(size=N)
    label = (m + 0.5 * truth.normal(size=N) > 0).astype(int)
    t, u = truth.exponential(600 * np.exp(-m)) + 1, truth.exponential(1200, N) + 1
    rows, split = [], []
    for k in range(FOLDS):
        seen = skill * m + rng.normal(size=N)
        for i in who:
            part = "test" if (i + shift * (i // 7)) % FOLDS == k else "train"
            split.append((f"{i:04d}", k, part))
            if "response" in tasks:
                yes = round(1 / (1 + np.exp(-seen[i])), 6)
                truth_of = (["no", "yes"][label[i]], "", "")
                rows += [(f"{i:04d}", "response", k, part, f"p:{c}", p, *truth_of) for c, p in
                         (("no", 1 - yes), ("yes", yes))]  # fmt: skip
            if "survival" in tasks:
                curve = {f"surv:{d}": np.exp(-d / 900 * np.exp(seen[i])) for d in days} if part == "test" else {}
                for output, value in ({"risk": seen[i]} | curve).items():
                    rows.append(
                        (f"{i:04d}", "survival", k, part, output, value, "", int(t[i] <= u[i]), min(t[i], u[i]))
                    )
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "predictions.csv", index=False, float_format="%.7g")
    splits = pd.DataFrame(split, columns=["patient_id", "fold", "part"])
    splits.to_csv(folder / "splits.csv", index=False)
    (folder / "splits.json").write_text(json.dumps({"sha256": digest(splits), "folds": []}))
    (folder / "cohort.json").write_text(json.dumps({"name": "toy", "tasks": {name: TASKS[name] for name in tasks}}))
    (folder / "config.yaml").write_text("seed: 0\n")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare")
    train(root / "whole", 2.0)
    train(root / "alone", 0.3, tasks=["survival"], seed=1, days=(200, 800))
    train(root / "weak", 0.3, seed=2)
    train(root / "fewer", 1.0, who=range(10, N), seed=3)
    train(root / "other", 1.0, shift=1, seed=4)
    judged = root / "judged"
    judged.mkdir()
    (judged / "config.yaml").write_text(f"ckpt: {root / 'weak'}\n")
    return root


def compare(runs: Path, *words: str, name: str = "x") -> tuple[int, str]:
    given = [str(runs / word) if "=" not in word else word for word in words]
    done = CliRunner().invoke(app, ["compare", *given, f"paths.runs={runs / 'out'}", f"name={name}", "bootstrap=200"])
    return done.exit_code, " ".join(done.output.split())


def rows_of(runs: Path, name: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows = json.loads((runs / "out" / "compare" / name / "metrics.json").read_text())
    return {(r["task"], r["metric"], r["model"]): r for r in rows if r["fold"] == "all"}


def by_hand(folder: Path) -> tuple[list[delong.Influence], list[list[str]], float]:
    frame = pd.read_csv(folder / "predictions.csv", dtype={"patient_id": str})
    own = frame[(frame["task"] == "response") & (frame["part"] == "test") & (frame["output"] == "p:yes")]
    folds = [f.sort_values("patient_id") for _, f in own.groupby("fold")]
    labels = [(f["target"] == "yes").astype(float) for f in folds]
    value = np.average(
        [auc(y, f["value"]) for y, f in zip(labels, folds, strict=True)], weights=[len(f) for f in folds]
    )
    terms = [delong.auc_influence(y, f["value"]) for y, f in zip(labels, folds, strict=True)]
    return terms, [list(f["patient_id"]) for f in folds], float(value)


def test_runs_on_the_same_folds(runs: Path) -> None:
    code, told = compare(runs, "whole", "weak", "alone", name="same")
    assert code == 0, told
    out = runs / "out" / "compare" / "same"
    assert "note:" not in told
    assert told.endswith(f"run: {out}")
    found = rows_of(runs, "same")
    (ours, people, value), (theirs, _, other) = by_hand(runs / "whole"), by_hand(runs / "weak")
    assert found["response", "auc", "whole"]["value"] == pytest.approx(value, abs=1e-6)
    assert found["response", "difference:auc", "weak"]["value"] == pytest.approx(other - value, abs=1e-6)
    right = delong.delong_test(theirs, ours, people).p
    assert found["response", "p_delong:auc", "weak"]["value"] == pytest.approx(right, rel=1e-3)
    p = [found[k]["value"] for k in (("response", "p_delong:auc", "weak"), ("survival", "p_bootstrap:c_index", "weak"),
                                     ("survival", "p_bootstrap:c_index", "alone"))]  # fmt: skip
    adjusted = [found[k]["value"] for k in (("response", "p_holm:auc", "weak"), ("survival", "p_holm:c_index", "weak"),
                                            ("survival", "p_holm:c_index", "alone"))]  # fmt: skip
    assert adjusted == pytest.approx(holm(p))
    assert not [k for k in found if k[0] == "response" and k[2] == "alone"]
    # one grid of days for all: those that every run writes
    assert found["survival", "ibs", "alone"]["value"] > 0
    assert found["survival", "c_index", "whole"]["n"] == N
    page = (out / "compare.html").read_text()
    assert "Research use only" in page
    assert "<strong>" in page  # 2.0 against 0.3: told apart in 90 patients
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    table = pd.read_csv(out / "tables" / "compare.csv")
    assert table["run"].tolist() == ["whole", "weak", "whole", "weak", "alone"]
    assert (out / "figures" / "survival-runs.svg").is_file()
    account = json.loads((out / "run.json").read_text())
    assert account["done"] == ["response", "survival"]
    assert len(account["inputs"]) == 6


def test_a_run_against_itself_and_an_evaluation_for_its_run(runs: Path) -> None:
    code, told = compare(runs, "weak", "judged", "labels=[a,b]", "reference=b", name="self")
    assert code == 0, told
    found = rows_of(runs, "self")
    gap = found["survival", "difference:c_index", "a"]
    assert (gap["value"], gap["lo"], gap["hi"]) == (0, 0, 0)
    assert found["response", "p_delong:auc", "a"]["value"] == 1
    assert found["survival", "p_bootstrap:c_index", "a"]["value"] == 1
    assert "<strong>" not in (runs / "out" / "compare" / "self" / "compare.html").read_text()


def test_other_folds_and_other_patients_are_said(runs: Path) -> None:
    code, told = compare(runs, "whole", "other", name="folds")
    assert code == 0, told
    assert "the splits differ (whole " in told
    assert "the patients of response, survival in different folds" in told
    assert "in different folds" in (runs / "out" / "compare" / "folds" / "compare.html").read_text()
    found = rows_of(runs, "folds")
    (ours, people, value), (theirs, others, other) = by_hand(runs / "whole"), by_hand(runs / "other")
    gap = found["response", "difference:auc", "other"]
    assert gap["value"] == pytest.approx(other - value, abs=1e-6)
    assert gap["lo"] < gap["value"] < gap["hi"]
    right = delong.delong_test(theirs, ours, others, people).p
    assert found["response", "p_delong:auc", "other"]["value"] == pytest.approx(right, rel=1e-3)
    code, told = compare(runs, "whole", "fewer", name="fewer")
    assert code == 0
    assert "the runs hold different patients (whole 90, fewer 80), and the 80 whom all hold stand in the same" in told
    assert rows_of(runs, "fewer")["survival", "c_index", "whole"]["n"] == 80


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["whole"], 2, "needs two runs or more"),
        (["whole", "nowhere"], 2, "is no folder"),
        (["whole", "empty"], 2, "has no cohort.json"),
        (["whole", "whole"], 2, "two runs are called"),
        (["whole", "weak", "reference=else"], 2, "reference=else is none of the runs: whole, weak"),
        (["whole", "weak", "labels=[a]"], 2, "labels: 1 names for 2 runs"),
        (["whole", "weak", "runs=[alone]"], 2, "the runs are given twice"),
        (["whole", "weak", "bootstap=3"], 2, "bootstrap"),
        (["whole", "liar"], 3, "know different outcomes of 1 of 90 patients (such as 0000)"),
        (["whole", "renamed"], 3, "task 'response' is binary (no, yes) in whole and binary (yes, no) in renamed"),
        (["alone", "tasks"], 3, "no task was tested in two of the runs"),
        (["whole", "apart"], 3, "no patient with a known outcome was tested in all of whole, apart"),
        (["whole", "broken"], 3, "has no column 'fold'"),
        (["whole", "changed"], 5, "promises"),
    ],
)
def test_what_is_refused(runs: Path, words: list[str], code: int, said: str) -> None:
    wrong = words[-1]
    made = runs / wrong
    if wrong == "empty":
        made.mkdir()
    elif wrong == "tasks":
        train(made, 1.0, tasks=["response"])
    elif wrong in ("liar", "renamed", "apart", "broken", "changed"):
        train(made, 1.0, who=range(N))
        frame = pd.read_csv(made / "predictions.csv", dtype=str, keep_default_na=False)
        if wrong == "liar":
            one = (frame["patient_id"] == "0000") & (frame["task"] == "response")
            frame.loc[one, "target"] = np.where(frame.loc[one, "target"] == "yes", "no", "yes")
        elif wrong == "apart":
            frame["patient_id"] = "X" + frame["patient_id"]
        elif wrong == "broken":
            frame = frame.drop(columns="fold")
        elif wrong == "renamed":
            told = json.loads((made / "cohort.json").read_text())
            told["tasks"]["response"]["classes"] = ["yes", "no"]
            (made / "cohort.json").write_text(json.dumps(told))
        else:
            (made / "splits.csv").write_text((made / "splits.csv").read_text().replace("train", "test", 1))
        frame.to_csv(made / "predictions.csv", index=False)
    found, told = compare(runs, *words, name=re.sub(r"\W", "", f"no{wrong}"))
    assert found == code, told
    assert said in told
    assert "Traceback" not in told
