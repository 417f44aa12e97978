"""One patient: what the model says, how far to rely on it, what it rests on, and the raw data beside it."""

from __future__ import annotations

from typing import Any

import pandas as pd
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from nsclc_mtl.records import DataFault
from nsclc_mtl.viewer import exports
from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.reference import Reference
from nsclc_mtl.viewer.told import Told, at_years, covariates, number

MOST_FEATURES = 12  # of a task, the strongest first


def routes(details: Details, pages: Jinja2Templates) -> APIRouter:
    """`/patient` and `/api/patient`."""
    router = APIRouter()

    @router.get("/patient", response_class=HTMLResponse)
    def page(request: Request, id: str) -> HTMLResponse:
        details.known(id)
        return pages.TemplateResponse(request, "patient.html.j2", {"patient": id})

    @router.get("/api/patient")
    def detail(id: str, model: str = "") -> dict[str, Any]:
        return details.of(id, model)

    return router


class Details:
    """What `/api/patient` answers, for each of the models that are served."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.told = {said.name: Told(said, board.tasks) for said in board.models}
        self.reference = {said.name: Reference(said, board.tasks) for said in board.models}
        self.index = {patient: k for k, patient in enumerate(board.ids)}

    def known(self, patient: str) -> None:
        """Raises DataFault where nobody of this id is shown."""
        if patient not in self.index:
            raise DataFault(f"no patient '{patient[:80]}' is shown here")

    def of(self, patient: str, model: str = "") -> dict[str, Any]:
        """Everything that a patient's page shows but the pixels. Raises DataFault where the id or run is not known."""
        self.known(patient)
        said = self.board.model(model)
        told, reference = self.told[said.name], self.reference[said.name]
        whole = told.patient(patient)
        if whole["present"] is None:
            whole["present"] = [m for m in self.board.modalities if m not in whole["missing"]]
        features = self._features(patient) if said is self.board.models[0] else None
        tasks = []
        for name in self.board.tasks:
            task = told.task(patient, name)
            if task is None:
                continue
            task |= {
                "of_model": list(said.of_model(name, task["fold"])),
                "years": at_years(task["curve"]),
                "position": reference.position(task, patient),
                "groups": reference.groups(name),
                "group": reference.group(task),
                "contributions": told.contributions(patient, name, self.board.modalities, whole["missing"]),
                "base": told.base(patient, name),
                "shown": told.shown(patient, name),
                "weights": told.weights(patient, name),
                "features": _strongest(features, name),
            }
            tasks.append(task)
        return {
            "id": patient,
            "index": self.index[patient],
            "of": len(self.index),
            "before": self.board.ids[self.index[patient] - 1] if self.index[patient] else None,
            "after": self.board.ids[self.index[patient] + 1] if self.index[patient] + 1 < len(self.index) else None,
            "covariates": covariates(self.board, patient),
            **whole,
            "models": [one.name for one in self.board.models],
            "model": said.name,
            "tasks": tasks,
            "slides": [
                {"n": n, "id": s.slide_id, "maps": s.scores is not None, "contour": s.contour is not None}
                for n, s in self.board.slides_of(patient).items()
            ],
            "scans": [
                {
                    "n": n, "id": s.scan_id, "modality": s.modality, "mask": s.mask is not None,
                    "maps": [{"method": method, "task": task} for method, task in s.maps],
                }
                for n, s in self.board.scans_of(patient).items()
            ],
            "exports": exports.listed(self.board, patient, said.name),
            "provenance": [list(pair) for pair in said.provenance],
        }  # fmt: skip

    def _features(self, patient: str) -> pd.DataFrame | None:
        """features.csv of an explained patient: task, modality, feature, value, attribution."""
        if self.board.folder is None:
            return None
        file = self.board.folder(patient) / "features.csv"
        return pd.read_csv(file, dtype={"patient_id": str, "value": str}) if file.is_file() else None


def _strongest(features: pd.DataFrame | None, task: str) -> list[dict[str, Any]]:
    if features is None:
        return []
    own = features[features["task"] == task]
    own = own.loc[own["attribution"].abs().sort_values(ascending=False, kind="stable").index[:MOST_FEATURES]]
    return [
        {"modality": str(m), "feature": str(f), "value": None if pd.isna(v) else str(v), "attribution": number(a)}
        for m, f, v, a in own[["modality", "feature", "value", "attribution"]].itertuples(index=False)
    ]
