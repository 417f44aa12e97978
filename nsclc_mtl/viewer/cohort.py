"""The cohort page."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.templating import Jinja2Templates

from nsclc_mtl.viewer.board import Board


def routes(board: Board, pages: Jinja2Templates) -> APIRouter:
    """Routes of the page."""
    return APIRouter()
