"""`mtl compare` on run folders made by hand: the same patients, paired, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hand_made_runs import N, compare, rows_of, train

from nsclc_mtl.commands import evaluations
from nsclc_mtl.metrics import delong
from nsclc_mtl.metrics.classification import auc
from nsclc_mtl.metrics.multiplicity import holm


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
    assert table["run"].tolist() == ["whole", "weak", *["whole", "weak", "alone"] * 2]
    assert (out / "figures" / "survival-runs.svg").is_file()
    account = json.loads((out / "run.json").read_text())
    assert account["done"] == ["response", "survival"]
    assert len(account["inputs"]) == 6


def test_what_has_no_interval_says_why(runs: Path) -> None:
    """Of the further metrics, too: their reasons stand in metrics.json."""
    assert compare(runs, "whole", "alone", name="why")[0] == 0
    page = (runs / "out" / "compare" / "why" / "compare.html").read_text()
    further = re.findall(r"<summary>Further metrics</summary>(.*?)</table>", page, flags=re.S)
    cells = [cell for part in further for cell in re.findall(r"<td class=\"v\">(.*?)</td>", part, flags=re.S)]
    bare = [cell for cell in cells if 'class="band"' not in cell]
    assert bare
    assert all('<span class="soft">' in cell for cell in bare)
    found = rows_of(runs, "why")
    few = found["survival", "brier_5y", "whole"]
    assert few["value"] is None
    assert few["reason"].endswith("followed so far, at least 10 are needed")
    assert f">{few['reason']}<" in page


def test_a_run_against_itself_and_an_evaluation_for_its_run(runs: Path) -> None:
    code, told = compare(runs, "weak", "judged", "labels=[a,b]", "reference=b", name="self")
    assert code == 0, told
    found = rows_of(runs, "self")
    gap = found["survival", "difference:c_index", "a"]
    assert gap["value"] == 0
    assert (gap["lo"], gap["reason"]) == (None, "all resamples agree: no interval can be told")
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


def test_a_comparison_is_a_look_at_the_test_patients(runs: Path, tmp_path: Path) -> None:
    one, two = train(tmp_path / "one", 1.0), train(tmp_path / "two", 1.0, seed=1)
    digests = [{"path": "patients.csv", "sha256": "a" * 64}]
    for folder in (one, two):
        (folder / "run.json").write_text(json.dumps({"inputs": digests}))
    cohort = SimpleNamespace(name="toy", inputs=digests)
    evaluations.count(one / evaluations.FILE, cohort, N, ["response"], SimpleNamespace(path=Path("e")))  # type: ignore[arg-type]
    (tmp_path / "judged").mkdir()  # stands for `two`, of which there is one look in this comparison
    (tmp_path / "judged" / "config.yaml").write_text(f"ckpt: {two}\n")
    code, told = compare(tmp_path, "one", "two", "judged", name="counted")
    assert code == 0, told
    assert "one: evaluated 2 times on this cohort" in told
    assert "two: evaluated once on this cohort" in told
    assert "judged: evaluated once on this cohort" in told
    page = (tmp_path / "out" / "compare" / "counted" / "compare.html").read_text()
    assert page.count("evaluated once on this cohort") == 2
    assert "evaluated 2 times on this cohort" in page
    lines = [json.loads(line) for line in (one / evaluations.FILE).read_text().splitlines()]
    assert lines[1] | {"time": ""} == lines[0] | {"time": "", "tasks": ["response", "survival"], "run": "counted"}
    assert compare(tmp_path, "one", "two", "reference=none", name="refused")[0] == 2
    assert len((two / evaluations.FILE).read_text().splitlines()) == 1


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
