"""The TRIPOD+AI checklist (Collins et al., BMJ 2024), filled with what the run knows; authors write the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from markupsafe import Markup

from nsclc_mtl.report.facts import KINDS, MODALITY_KINDS, Facts, counted, facts, limits, listed, said
from nsclc_mtl.report.section import Evidence, Section
from nsclc_mtl.report.templates import template

UNFILLED = "unfilled: to be written by the authors"
NAME = "tripod-ai"


def checklist(evidence: Evidence, anchors: Mapping[str, str]) -> Section:
    """The section and its table. anchors: ids of the chapters on the page with their titles; answers lead to them."""
    rows = filled(facts(evidence), anchors)
    states = [row["state"] for row in rows]
    html = template("sections/tripod.html.j2").render(
        rows=rows,
        words=anchors,
        counts={state: states.count(state) for state in ("filled", "in part", UNFILLED)},
        unfilled=[row["item"] for row in rows if row["state"] == UNFILLED],
        unfilled_word=UNFILLED,
    )
    table = pd.DataFrame([{**row, "anchors": " ".join(f"#{a}" for a in row["anchors"])} for row in rows])
    return Section(NAME, "TRIPOD+AI checklist", Markup(html), tables={"tripod": table})


def filled(of: Facts, anchors: Collection[str]) -> list[dict[str, Any]]:
    """Every item: item, part, of, asks, state (filled, in part, unfilled ...), answer, left, anchors."""
    items = yaml.safe_load((Path(__file__).parent / "tripod.yaml").read_text(encoding="utf-8"))
    out = []
    for item in items:
        found = list(_found(item.get("anchors", ()), anchors))
        make = ANSWERS.get(item["item"])
        answer = make(of) if make is not None and (found or not item.get("needs")) else ""
        left = item.get("left", "") if answer else ""
        state = UNFILLED if not answer else "in part" if left else "filled"
        kept = {key: item[key] for key in ("item", "part", "of", "asks")}
        out.append({**kept, "state": state, "answer": answer, "left": left, "anchors": found if answer else []})
    return out


def _found(wanted: Iterable[str], anchors: Collection[str]) -> Iterable[str]:
    for pattern in wanted:
        yield from (a for a in anchors if fnmatchcase(a, pattern))


# ---------------------------------------------------------------------------------------------------------------------
# What the run knows. An empty answer leaves the item to the authors.
# ---------------------------------------------------------------------------------------------------------------------


def _missing(of: Facts) -> str:
    short = [f"{name} {of.patients - n}" for name, (_, n) in of.modalities.items() if n < of.patients]
    told = f"Patients without a modality: {', '.join(short)}. " if short else "Every patient has every modality. "
    return told + (
        "A missing modality enters the model as missing, without being imputed; single missing values of a table are "
        "imputed from the training patients of the fold; a missing outcome takes the patient out of that task alone."
    )


def _parts(of: Facts) -> str:
    if of.external:
        return "All evaluated patients served for evaluation alone."
    folds = of.trained.get("folds") or {}
    each = of.folds // of.repeats
    n = f"{each} fold{'s' * (each != 1)}"
    again = f", dealt anew in {of.repeats} repeats" if of.repeats > 1 else ""
    parts = ["training", "validation (early stopping)"]
    parts += ["calibration"] if float(folds.get("calibration") or 0) > 0 else []
    return f"{n}{again}; each has parts for {listed([*parts, 'test'])}, by patient. The test part is never used to fit."


def _forms(of: Facts) -> str:
    kinds = {word for word, _ in of.modalities.values()}
    slides = " Slides enter as bags of tile features of a frozen backbone." if MODALITY_KINDS["bag"] in kinds else ""
    return f"Columns of tables are scaled by the mean and spread of the fold’s training patients.{slides}"


def _model(of: Facts) -> str:
    fusion = str((of.trained.get("fusion") or {}).get("_target_", "")).rpartition(".")[2]
    members = int(of.trained.get("members") or 1)
    return (
        f"One network for all tasks: an encoder a modality, a fusion ({fusion or 'see config.yaml'}), a head a task; "
        f"{members} member{'s' * (members != 1)} a fold. All settings stand in config.yaml of the run."
    )


def _measures(of: Facts) -> str:
    floors = any(r.models("floor:") for r in of.results.values())
    what = "Metrics over all patients" if of.external else "Within-fold metrics weighted by patients"
    return f"{what}, with 95 % intervals from resampled patients" + (
        "; paired differences to linear models on the same patients." if floors else "."
    )


def _imbalance(of: Facts) -> str:
    sampler = (of.trained.get("optim") or {}).get("sampler")
    tasks = (of.trained.get("parts") or {}).get("tasks") or {}
    kinds = {r.task.kind for r in of.results.values()} - {"survival", "regression"}
    if not kinds:
        return "No task has classes."
    if sampler is None or not tasks:
        return ""
    weights = sorted({str((tasks.get(kind) or {}).get("weights", "none")) for kind in kinds})
    how = "balanced by classes" if sampler == "balanced" else "as they come"
    return f"Patients are drawn {how}; class weights of the losses: {', '.join(weights)}."


def _beside(of: Facts) -> str:
    if of.external:
        return "Both cohorts stand side by side." if of.evidence.training is not None else ""
    return (
        "Both are parts of one cohort; the parts stand side by side."
        if of.folds == 1
        else ("Each fold is tested on a part of the same cohort; the test parts stand side by side.")
    )


def _software(of: Facts) -> str:
    return (
        "nsclc_mtl (Apache-2.0), version and commit at the head of this page; the run folder holds config.yaml and the "
        "hashes of all inputs."
    )


def _numbers(of: Facts) -> str:
    return "; ".join(f"{name}: {counted(r)}" for name, r in of.results.items()) + "."


ANSWERS: Mapping[str, Callable[[Facts], str]] = {
    "1": lambda of: (
        f"{'Evaluation' if of.external else 'Development and validation'} of one model for "
        f"{listed(list(of.results))} in {of.patients} patients ({of.cohort})."
    ),
    "3b": lambda of: "Research on patients like these; no medical device.",
    "4": lambda of: f"{of.design[:1].upper()}{of.design[1:]}.",
    "5a": lambda of: f"Cohort {of.cohort}: {listed(list(of.modalities))}.",
    "6a": lambda of: f"{of.sites} sites." if of.sites > 1 else "",
    "6b": lambda of: "Patients of the cohort’s table with at least one modality and one known outcome.",
    "7": lambda of: (
        "Scaling, imputation, selection of columns and harmonisation are fitted on the training patients of "
        "each fold and saved with it."
    ),
    "8a": lambda of: "; ".join(said(r.task) for r in of.results.values()) + ".",
    "9a": lambda of: (
        "All of the modalities given: " + listed([f"{n} ({w})" for n, (w, _) in of.modalities.items()]) + "; "
        "no column that holds an outcome is an input."
    ),
    "9b": lambda of: (
        "Clinical variables stand in the table of characteristics; features of slides and scans are made by "
        "the settings in config.yaml."
    ),
    "10": lambda of: f"{of.patients} patients; {_numbers(of)}",
    "11": _missing,
    "12a": _parts,
    "12b": _forms,
    "12c": _model,
    "12d": lambda of: "Performance by site, among the subgroups." if of.sites > 1 else "",
    "12e": _measures,
    "12f": lambda of: "None: nothing was updated.",
    "12g": lambda of: (
        ("The mean of the folds’ probabilities and survival curves." if of.folds != 1 else "One fold alone.")
        if of.external
        else "Each patient is predicted by the models that held this patient out."
    ),
    "13": _imbalance,
    "14": lambda of: "Performance by subgroup, with intervals and tests of interaction.",
    "15": lambda of: (
        "; ".join(f"{n}: {KINDS[r.task.kind]}" for n, r in of.results.items()) + ". Cut-offs are fixed on "
        "training patients."
    ),
    "16": _beside,
    "18e": lambda of: "Predictions, metrics and the numbers behind every figure lie beside this page.",
    "18f": _software,
    "20a": lambda of: f"{of.patients} patients; the flow and the follow-up stand in the chapter on who was studied.",
    "20b": lambda of: "The table of characteristics, with missing values.",
    "20c": lambda of: _beside(of) if of.external else "Does not apply: no other cohort was evaluated.",
    "21": _numbers,
    "22": lambda of: (
        "The run folder holds the weights, the fitted preprocessing and config.yaml; mtl predict computes new "
        "patients from it."
    ),
    "23a": lambda of: "Every metric with its interval, in the chapter of each task.",
    "23b": lambda of: "Performance by site, among the subgroups." if of.sites > 1 else "",
    "24": lambda of: "Does not apply: nothing was updated.",
    "26": lambda of: f"{len(limits(of))} limits are listed.",
    "27a": lambda of: (
        "A modality that is missing is named with the prediction; a combination of modalities that was never "
        "trained is refused unless it is asked for."
    ),
}
