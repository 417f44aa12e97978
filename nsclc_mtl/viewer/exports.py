"""What a reader may take away of a patient: one-file page, tables, tiles for QuPath, under names that a disk takes."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd
from fastapi import APIRouter, Response

from nsclc_mtl.records import DataFault
from nsclc_mtl.viewer.board import Board, Said, SlideFile
from nsclc_mtl.viewer.reviews import FORMULA

EXPLAIN = "`mtl predict explain.patients=all` makes it of every patient; serve that run"
LONGEST = 60  # characters of an id in a file name
# a page with inline styles and scripts of its own: should a browser show it here all the same, it runs nothing
ALONE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"


def routes(board: Board) -> APIRouter:
    """`/api/exports/...`: each answer is a file to keep. Raises DataFault (404) where there is none."""
    router = APIRouter(prefix="/api/exports")

    @router.get("/page.html")
    def page(id: str) -> Response:
        told = _bytes(_of_patient(board, id, "page.html"), EXPLAIN)
        answer = attached(told, f"patient-{plain_name(id)}.html", "text/html; charset=utf-8")
        answer.headers["content-security-policy"] = ALONE
        return answer

    @router.get("/features.csv")
    def features(id: str) -> Response:
        told = _bytes(_of_patient(board, id, "features.csv"), EXPLAIN)
        return attached(neutral(told), f"features-{plain_name(id)}.csv", "text/csv; charset=utf-8")

    @router.get("/predictions.csv")
    def predictions(id: str, model: str = "") -> Response:
        _known(board, id)
        said = board.model(model)
        name = f"predictions-{plain_name(id)}-{plain_name(said.name)}.csv"
        return attached(predicted(said, id), name, "text/csv; charset=utf-8")

    @router.get("/tiles.csv")
    def tiles(slide: int) -> Response:
        file = _slide(board, slide)
        told = _bytes(file.scores, EXPLAIN)
        return attached(neutral(told), f"tiles-{plain_name(file.slide_id)}.csv", "text/csv; charset=utf-8")

    @router.get("/tiles.geojson")
    def for_qupath(slide: int) -> Response:
        file = _slide(board, slide)
        told = _bytes(file.tiles, EXPLAIN)
        return attached(told, f"tiles-{plain_name(file.slide_id)}.geojson", "application/geo+json")

    return router


def listed(board: Board, patient: str, model: str) -> list[dict[str, str | None]]:
    """What there is to keep of a patient, and what there is not and why: [{name, url or None, why or None}].

    Pages, features and tiles are of the run that was asked for; of a second model there are the predictions.
    """

    def one(name: str, there: bool, path: str, **query: Any) -> dict[str, str | None]:
        url = f"/api/exports/{path}?{urlencode(query)}" if there else None
        return {"name": name, "url": url, "why": None if there else EXPLAIN}

    rows = [one("Predictions and confidence (CSV)", True, "predictions.csv", id=patient, model=model)]
    if board.model(model) is not board.models[0]:
        return rows
    for name, file in (
        ("Patient's page (one HTML file)", "page.html"),
        ("Features and attributions (CSV)", "features.csv"),
    ):
        rows.append(one(name, _of_patient(board, patient, file) is not None, file, id=patient))
    for n, slide in board.slides_of(patient).items():
        rows.append(one(f"Tiles of {slide.slide_id} (CSV)", slide.scores is not None, "tiles.csv", slide=n))
        rows.append(
            one(f"Tiles of {slide.slide_id} for QuPath (GeoJSON)", slide.tiles is not None, "tiles.geojson", slide=n)
        )
    return rows


def predicted(said: Said, patient: str) -> str:
    """The patient's rows of predictions.csv and trust.csv as one table; `table` says from which a row comes.

    Rows of trust.csv keep their word in `output`; those without a patient hold for the whole fold that predicts him.
    """
    rows = said.predictions[said.predictions["patient_id"] == patient]
    trust = said.trust
    of_fold = (trust["patient_id"] == "") & trust["fold"].isin(set(rows["fold"].astype(str)))
    trust = trust[(trust["patient_id"] == patient) | of_fold].rename(columns={"what": "output"})
    whole = pd.concat([rows.astype(object).assign(table="predictions"), trust.astype(object).assign(table="trust")])
    columns = ["table", *(c for c in whole.columns if c != "table")]
    return _csv([columns, *whole[columns].astype(object).where(whole[columns].notna(), "").to_numpy().tolist()])


def neutral(table: bytes) -> str:
    """A CSV whose texts no spreadsheet takes for formulas. Numbers stay numbers."""
    return _csv(csv.reader(io.StringIO(table.decode("utf-8", errors="replace"), newline="")))


def cell(value: object) -> object:
    """A cell as a spreadsheet may have it: a text that begins like a formula gets an apostrophe before it.

    >>> cell("=1+1"), cell("-0.5"), cell("G2")
    ("'=1+1", '-0.5', 'G2')
    """
    text = str(value)
    if not text.startswith(FORMULA):
        return value
    try:
        return value if math.isfinite(float(text)) and text == text.strip() else f"'{text}"
    except ValueError:
        return f"'{text}"


def plain_name(word: str) -> str:
    """A part of a file name: ASCII letters, digits, point, dash and underscore. Changed words get a hash, so that two
    ids never share a name.

    >>> plain_name("P0001"), plain_name("../etc")
    ('P0001', 'etc-f7f9121f')
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", word)[:LONGEST].strip("._-")
    if plain and plain == word:
        return plain
    return f"{plain or 'id'}-{hashlib.sha256(word.encode('utf-8', 'replace')).hexdigest()[:8]}"


def attached(content: str | bytes, name: str, kind: str) -> Response:
    """An answer that a browser keeps as a file of this name and never shows."""
    return Response(content, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})


def _csv(rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([cell(value) for value in row] for row in rows)
    return out.getvalue()


def _known(board: Board, patient: str) -> None:
    if patient not in board.covariates.index:
        raise DataFault(f"no patient '{patient[:80]}' is shown here")


def _of_patient(board: Board, patient: str, name: str) -> Path | None:
    """A file of the patient's own folder; None where it is not there, or is a link that leads out of it."""
    _known(board, patient)
    if board.folder is None:
        return None
    folder = board.folder(patient)
    file = folder / name
    return file if file.is_file() and file.resolve().parent == folder.resolve() else None


def _slide(board: Board, n: int) -> SlideFile:
    if not 0 <= n < len(board.slides):
        raise DataFault(f"no slide {n} is shown here")
    return board.slides[n]


def _bytes(path: Path | None, why: str) -> bytes:
    if path is None or not path.is_file():
        raise DataFault(f"this is not there: {why}")
    return path.read_bytes()
