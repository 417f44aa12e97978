"""What readers think of it."""

from __future__ import annotations

from fastapi import APIRouter

from nsclc_mtl.viewer.board import Board


def routes(board: Board) -> APIRouter:
    """Routes of the reviews."""
    return APIRouter()
