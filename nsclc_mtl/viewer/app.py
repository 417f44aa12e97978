"""The application: routes to the pages and to what they fetch, behind one guard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nsclc_mtl import __version__
from nsclc_mtl.viewer import cohort, compare, exports, faults, guard, patient, reviews, scans, slides, worklist
from nsclc_mtl.viewer.board import Board

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Limits:
    """Bounds on what one server holds and does. `conf/serve.yaml` says what each is."""

    cache_mb: int = 256  # encoded tiles and volumes kept in memory
    scan_mb: int = 512  # voxels of the scan that was opened last, kept in memory
    open_slides: int = 8  # slide files held open
    decoded_mb: int = 512  # decoded pixels that they keep together
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

    details = patient.Details(board)
    for router in (
        worklist.routes(board, pages),
        patient.routes(details, pages),
        compare.routes(board, pages, details),
        exports.routes(board),
        slides.routes(board, limits),
        scans.routes(board, limits),
        reviews.routes(board),
        cohort.routes(board, pages),
    ):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    faults.install(app, pages)
    bounds = guard.Bounds(limits.body_kb * 1024, limits.body_s, limits.requests)
    app.add_middleware(guard.Guarded, guard=guarded, bounds=bounds)
    return app
