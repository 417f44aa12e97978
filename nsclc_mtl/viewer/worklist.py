"""The first page: every patient, what the model says, how sure it is, why not to rely on it, and what is known."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

import pandas as pd
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.told import Told

COVARIATES = ("site", "age", "sex")  # columns of the list, where the cohort has them
KEPT = ("said", "confidence", "set", "abstains", "known", "reasons", "risk", "value", "interval", "horizon_days")


def routes(board: Board, pages: Jinja2Templates) -> APIRouter:
    """`/` and `/api/worklist`."""
    router = APIRouter()
    lock = threading.Lock()
    kept: list[bytes] = []  # the answer: what a run says never changes while it is served

    @router.get("/", response_class=HTMLResponse)
    def page(request: Request) -> HTMLResponse:
        return pages.TemplateResponse(request, "worklist.html.j2", {})

    @router.get("/api/worklist")
    def rows() -> Response:
        with lock:
            if not kept:
                kept.append(json.dumps(whole(board), ensure_ascii=False, allow_nan=False).encode())
        return Response(kept[0], media_type="application/json")

    return router


def whole(board: Board) -> dict[str, Any]:
    """{patients, tasks, covariates}: a row a patient in the order of the board, and what columns there are.

    One pass over each table of the run; nothing of it is read again for a patient.
    """
    told = Told(board.models[0], board.tasks)
    columns = [c for c in board.covariates.columns if str(c).lower() in COVARIATES]
    columns.sort(key=lambda c: COVARIATES.index(str(c).lower()))
    covariates = {c: [_text(v) for v in board.covariates[c].tolist()] for c in columns}
    slides = Counter(slide.patient_id for slide in board.slides)
    scans = Counter(scan.patient_id for scan in board.scans)
    one_scale = board.models[0].predictions["fold"].nunique() == 1
    patients = []
    for k, patient in enumerate(board.ids):
        tasks = {name: told.task(patient, name) for name in board.tasks}
        patients.append(
            {
                "id": patient,
                "covariates": {str(c): text for c, column in covariates.items() if (text := column[k])},
                **told.patient(patient),
                "tasks": {
                    name: task and {key: task[key] for key in KEPT} | {"rank": rank(board.tasks[name], task, one_scale)}
                    for name, task in tasks.items()
                },
                "slides": slides[patient],
                "scans": scans[patient],
            }
        )
    return {
        "patients": patients,
        "tasks": [
            {"name": t.name, "kind": t.kind, "classes": list(t.classes), "unit": t.unit} for t in board.tasks.values()
        ],
        "covariates": [str(c) for c in columns],
    }


def rank(spec: TaskSpec, task: dict[str, Any], one_scale: bool) -> float | None:
    """The number by which a column of predictions is sorted; None goes last.

    The expected class, the value, the probability of the event at the horizon. Where there is none, the
    risk, but only if all patients were predicted on `one_scale`: risks of different folds cannot be compared.
    """
    if spec.kind == "regression":
        return None if task["value"] is None else float(task["value"])
    if spec.kind == "survival":
        sure = task["confidence"]
        if sure is not None and task["said"] is not None:
            return float(sure if task["said"] == "event" else 1 - sure)
        return task["risk"] if one_scale else None
    p = [one["p"] for one in task["probabilities"]]
    if any(v is None for v in p):
        return None
    if spec.kind == "multiclass":  # without an order: by name of the class, the surest first
        return p.index(max(p)) + 1 - float(max(p))
    return float(sum(k * v for k, v in enumerate(p)))


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)
