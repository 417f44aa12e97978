"""The audit's part of the page: its words, figures with their numbers, and what an older run lacks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nsclc_mtl.commands.judging import evaluate_predictions
from nsclc_mtl.report.section import Evidence
from nsclc_mtl.report.sections.audit import audit, sentences
from tests.report.conftest import TASKS

NASTY = "<img src=x onerror=alert(1)>"
LOSSES = {"wsi": (0.2, 0.1, 0.3, "needed"), "rna": (0.001, -0.01, 0.01, "equivalent to nothing"),
          NASTY: (0.02, -0.01, 0.05, "unclear")}  # fmt: skip


def row(task: str, modality: str, mode: str, of: tuple[float | None, Any, Any, str], **more: Any) -> dict[str, Any]:
    known = dict(zip(("loss", "lo", "hi", "verdict"), of, strict=True))
    return {
        "task": task,
        "modality": modality,
        "mode": mode,
        "metric": "auc",
        **known,
        "n": 80,
        "of": 80,
        "reason": "",
        **more,
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training run's audit of grade: nobody could be left without rna, and wsi of few."""
    rows = [row("grade", m, mode, of) for m, of in LOSSES.items() for mode in ("permute", "mean", "drop", "shapley")]
    rows[2] |= {"n": 30}
    rows[6] |= {"loss": None, "lo": None, "hi": None, "verdict": "unclear", "n": 0, "reason": "training never saw it"}
    (tmp_path / "audit.json").write_text(json.dumps(rows))
    weights = [("a", 0, 0, "grade", m, w) for m, w in zip(LOSSES, (0.1, 0.6, 0.3), strict=True)]
    table = pd.DataFrame(weights, columns=["patient_id", "fold", "member", "task", "part", "weight"])
    table.to_csv(tmp_path / "fusion_weights.csv", index=False)
    values = [
        (p, "grade", 0, "", m, v) for p, s in (("a", 1), ("b", -2)) for m, v in zip(LOSSES, (3 * s, s, 0), strict=True)
    ]
    columns = ["patient_id", "task", "fold", "output", "modality", "value"]
    pd.DataFrame(values, columns=columns).to_csv(tmp_path / "shapley.csv", index=False)
    return tmp_path


def evidence(toy: dict[str, Any], folder: Path | None) -> Evidence:
    results = evaluate_predictions(toy["predictions"], TASKS, None, None, draws=0)
    return Evidence(results, toy["predictions"], toy["manifest"], toy["splits"], folder=folder)


def test_a_section_for_the_task_and_one_for_the_reader(toy: dict[str, Any], run: Path) -> None:
    own, whole = audit(evidence(toy, run))
    assert (own.name, own.task, whole.name, whole.task) == ("audit-grade", "grade", "audit", "")
    assert "Needed: wsi (0.200); the ordinal AUC falls" in own.html
    assert "Equivalent to nothing: rna; a loss of 0.02 or more is ruled out" in own.html
    assert "<strong>Weights and audit disagree" in own.html
    assert "is that of rna, which the audit shows equivalent to nothing" in own.html
    assert "Left out, rna: training never saw it." in own.html
    assert "having something else that training knows: wsi 30 of 80" in own.html
    assert NASTY not in own.html + whole.html
    assert NASTY not in "".join(figure.svg for figure in own.figures)
    assert len(whole.tables["audit"]) == 12


def test_on_a_page_about_other_patients_it_says_whose_it_is(toy: dict[str, Any], run: Path) -> None:
    here = evidence(toy, run)
    own, whole = audit(replace(here, splits=None))
    assert own.title.endswith("in the training cohort")
    assert whole.title.endswith("in the training cohort")
    assert "measured on the test patients of the training cohort" in own.html
    assert all(figure.caption.endswith("Test patients of the training cohort.") for figure in own.figures)
    assert not any("training cohort" in section.title + section.html for section in audit(here))


def test_an_audit_of_one_fold_leaves_out_the_patients_of_the_others(toy: dict[str, Any], run: Path) -> None:
    rows = [row("grade", "wsi", mode, (0.05, -0.1, 0.2, "unclear")) for mode in ("permute", "shapley")]
    other = pd.read_csv(run / "shapley.csv").assign(fold=1, patient_id="c")
    pd.concat([pd.read_csv(run / "shapley.csv"), other]).to_csv(run / "shapley.csv", index=False)
    here = evidence(toy, run)
    one = toy["predictions"][toy["predictions"]["fold"].astype(str) == "0"]
    own, whole = audit(replace(here, predictions=one, audit=rows))
    assert "Not told: wsi" in own.html
    assert "Needed" not in own.html
    assert len(whole.tables["audit"]) == 2
    patients = next(figure for figure in own.figures if figure.name.endswith("-patients"))
    everybody = next(figure for figure in audit(here)[0].figures if figure.name.endswith("-patients"))
    assert (patients.data["patients"].max(), everybody.data["patients"].max()) == (2, 3)
    assert audit(replace(here, audit=[])) == []


def test_figures_bring_their_numbers(toy: dict[str, Any], run: Path) -> None:
    own, _ = audit(evidence(toy, run))
    losses, added, patients = (figure.data for figure in own.figures)
    assert [figure.name for figure in own.figures] == [f"grade-audit-{w}" for w in ("losses", "shapley", "patients")]
    assert len(losses) == 8  # three modes of three modalities, but for one that was not measured
    assert added.set_index("modality").loc["wsi", ["shapley", "weight"]].tolist() == [0.2, 0.1]
    assert patients.set_index("modality")["q0.5"].to_dict() == pytest.approx({"wsi": 0.75, "rna": 0.25, NASTY: 0})


def test_an_older_run_without_shapley_and_weights_has_a_section_too(toy: dict[str, Any], tmp_path: Path) -> None:
    assert audit(evidence(toy, None)) == audit(evidence(toy, tmp_path)) == []
    old = [{k: v for k, v in row("response", m, "permute", of).items() if k not in ("n", "of", "reason")}
           for m, of in LOSSES.items()]  # fmt: skip
    (tmp_path / "audit.json").write_text(json.dumps(old))
    own, _ = audit(evidence(toy, tmp_path))
    assert len(own.figures) == 1
    assert "<th>Shapley value</th>" not in own.html


def test_what_misleads_is_told_without_its_sign() -> None:
    (told,) = sentences([row("grade", "rna", "permute", (-0.03, -0.05, -0.01, "misleads"))], "AUC")
    assert told.startswith("Misleading: rna (0.030); the AUC rises")


def test_a_mode_that_nothing_has_is_no_column_and_its_reason_names_nobody(toy: dict[str, Any], tmp_path: Path) -> None:
    rows = [row("grade", m, "permute", of) for m, of in LOSSES.items()]
    rows += [row("grade", m, "shapley", (None, None, None, ""), reason="too many combinations") for m in LOSSES]
    (tmp_path / "audit.json").write_text(json.dumps(rows))
    own, _ = audit(evidence(toy, tmp_path))
    assert "<th>Shapley value</th>" not in own.html
    assert "Shapley value: too many combinations." in own.html
