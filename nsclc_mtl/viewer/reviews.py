"""What readers think of a prediction: verdicts and notes with author and time, in a file that only grows."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.viewer.board import Board

COLUMNS = ("time", "author", "patient_id", "task", "model", "verdict", "note")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # a cell that begins so is a formula to a spreadsheet


class Review(BaseModel):
    """What a reader sends. An empty task is about the patient as a whole."""

    id: str = Field(max_length=500)
    task: str = Field("", max_length=200)
    model: str = Field("", max_length=200)
    verdict: Literal["agree", "disagree", "unsure", ""] = ""
    note: str = Field("", max_length=10_000)
    author: str = Field(min_length=1, max_length=200)


def routes(board: Board) -> APIRouter:
    """`/api/reviews` (of one patient; of all, their last verdicts) and `/api/reviews.csv`."""
    router = APIRouter(prefix="/api")
    kept = Reviews(board.reviews)

    @router.get("/reviews")
    def told(id: str | None = None) -> dict[str, Any]:
        rows = kept.rows()
        if id is not None:
            return {"reviews": [row for row in rows if row["patient_id"] == id]}
        last: dict[str, dict[str, str]] = {}
        for row in rows:
            if row["verdict"]:
                last.setdefault(row["patient_id"], {})[row["task"]] = row["verdict"]
        return {"last": last}

    @router.post("/reviews", status_code=201)
    def say(review: Review) -> dict[str, Any]:
        if review.id not in board.covariates.index:
            raise DataFault("no such patient is shown here")
        if review.task and review.task not in board.tasks:
            raise DataFault("no such task is shown here")
        if not review.verdict and not review.note.strip():
            raise UsageFault("say whether you agree, or write a note")
        return kept.add(
            {
                "author": review.author.strip(), "patient_id": review.id, "task": review.task,
                "model": review.model or board.models[0].name, "verdict": review.verdict, "note": review.note.strip(),
            }
        )  # fmt: skip

    @router.get("/reviews.csv")
    def table() -> Response:
        headers = {"content-disposition": 'attachment; filename="reviews.csv"'}
        return Response(kept.csv(), media_type="text/csv; charset=utf-8", headers=headers)

    return router


class Reviews:
    """The file `reviews.jsonl`: a line a review, appended and synced one at a time, never rewritten."""

    def __init__(self, path: Path | None) -> None:
        self.path, self._lock = path, threading.Lock()

    def add(self, row: dict[str, str]) -> dict[str, str]:
        """The row with its time (UTC), once it is on the disk. Raises UsageFault where nothing can be written."""
        if self.path is None:
            raise UsageFault("this run keeps no reviews")
        whole = {"time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", **row}
        line = (json.dumps(whole, ensure_ascii=False) + "\n").encode()
        with self._lock:
            try:
                # one write in append mode: lines of two servers on one run do not mix
                file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    size = os.fstat(file).st_size
                    torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"  # a crash cut the last line short
                    os.write(file, b"\n" + line if torn else line)
                    os.fsync(file)
                finally:
                    os.close(file)
            except OSError as wrong:
                raise UsageFault(f"the review could not be kept: {wrong.strerror}") from wrong
        return whole

    def rows(self) -> list[dict[str, str]]:
        """All reviews, the oldest first. A line that a crash cut short is passed over."""
        if self.path is None or not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):  # a note may hold U+2028
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                found.append({column: str(row.get(column, "")) for column in COLUMNS})
        return found

    def csv(self) -> str:
        """All reviews as a table that a spreadsheet opens as text."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self.rows():
            writer.writerow([f"'{v}" if (v := row[c]).startswith(FORMULA) else v for c in COLUMNS])
        return out.getvalue()
