"""The first page: every patient, what the model says, how sure it is, why not to rely on it, and what is known."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.told import Told, summary


def routes(board: Board, pages: Jinja2Templates) -> APIRouter:
    """`/` and `/api/worklist`."""
    router = APIRouter()
    told = Told(board.models[0], board.tasks)

    @router.get("/", response_class=HTMLResponse)
    def page(request: Request) -> HTMLResponse:
        return pages.TemplateResponse(request, "worklist.html.j2", {"tasks": list(board.tasks)})

    @router.get("/api/worklist")
    def rows() -> dict[str, Any]:
        tasks = [{"name": t.name, "kind": t.kind, "classes": list(t.classes)} for t in board.tasks.values()]
        return {"patients": [summary(board, told, patient) for patient in board.ids], "tasks": tasks}

    return router
