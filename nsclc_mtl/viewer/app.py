"""The application: routes to the pages and to what they fetch, behind one guard."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from nsclc_mtl import __version__
from nsclc_mtl.records import DataFault, Fault
from nsclc_mtl.viewer import cohort, guard, patient, reviews, scans, slides, worklist
from nsclc_mtl.viewer.board import Board

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Limits:
    """Bounds on what one server holds and does. `conf/serve.yaml` says what each is."""

    cache_mb: int = 256  # encoded tiles and volumes kept in memory
    open_slides: int = 8  # slide files held open
    readers: int = 4  # slide regions decoded at the same time
    body_kb: int = 64  # largest request body
    body_s: float = 10.0  # until a request's body is here
    requests: int = 64  # being answered at the same time


def build(board: Board, guarded: guard.Guard, limits: Limits | None = None) -> FastAPI:
    """The ASGI application that shows this board. Nothing is listening yet."""
    limits = limits or Limits()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    pages = Jinja2Templates(env=environment)
    environment.globals.update(version=__version__, cohort=board.cohort, model=board.models[0].name)

    for router in (
        worklist.routes(board, pages),
        patient.routes(board, pages),
        slides.routes(board, limits),
        scans.routes(board, limits),
        reviews.routes(board),
        cohort.routes(board, pages),
    ):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.add_exception_handler(Fault, _fault)
    app.add_exception_handler(RequestValidationError, _unread)
    app.add_exception_handler(HTTPException, _absent)
    bounds = guard.Bounds(limits.body_kb * 1024, limits.body_s, limits.requests)
    app.add_middleware(guard.Guarded, guard=guarded, bounds=bounds)
    return app


def without_folders(sentence: str) -> str:
    """A sentence with the names of files, not where they lie on the server.

    >>> without_folders("'/home/a b/S1.svs' is no slide (see /tmp/x/log.txt)")
    "'S1.svs' is no slide (see log.txt)"
    """
    quoted = re.sub(r"'(?:[A-Za-z]:)?[/\\][^'\n]*[/\\]([^'/\\]*)'", r"'\1'", sentence)
    return re.sub(r"(?<![^\s'\"(=:,])(?:[A-Za-z]:)?[/\\](?:[^\s'\"/\\]+[/\\])+", "", quoted)


async def _fault(request: Request, fault: Exception) -> JSONResponse:
    """An expected fault as one sentence; ids are escaped by JSON, and a page never shows a path."""
    status = 404 if isinstance(fault, DataFault) else 400
    return JSONResponse({"fault": without_folders(str(fault))}, status)


async def _unread(request: Request, fault: Exception) -> JSONResponse:
    """Which parts of a request are missing or of a wrong type; what was sent is not repeated."""
    assert isinstance(fault, RequestValidationError)
    wrong = [f"{'.'.join(str(part) for part in one['loc'][1:]) or 'body'}: {one['msg']}" for one in fault.errors()]
    return JSONResponse({"fault": "; ".join(wrong)[:1000]}, 422)


async def _absent(request: Request, fault: Exception) -> JSONResponse:
    """What Starlette refuses: no such page, another method, a body that is no JSON."""
    assert isinstance(fault, HTTPException)
    told = {404: "there is no such page", 405: "this method is not answered"}.get(fault.status_code, str(fault.detail))
    return JSONResponse({"fault": told}, fault.status_code, fault.headers)
