"""The scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from nsclc_mtl.viewer.board import Board

if TYPE_CHECKING:
    from nsclc_mtl.viewer.app import Limits


def routes(board: Board, limits: Limits) -> APIRouter:
    """Routes of the scans."""
    return APIRouter()
