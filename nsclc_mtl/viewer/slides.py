"""Slides in the browser: deep-zoom tiles straight from the file, and the scores that were found on its tiles."""

from __future__ import annotations

import json
from asyncio import shield, wrap_future
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pandas as pd
from fastapi import APIRouter, Response

from nsclc_mtl.records import DataFault
from nsclc_mtl.slides.reader.resample import resample
from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.open_slides import OVERVIEW_LEVEL, Cache, Opened, OpenSlides

if TYPE_CHECKING:
    from nsclc_mtl.viewer.app import Limits

TILE_PX = 256
TOGETHER = 2  # tiles across and down that are decoded as one block
THUMBNAIL_PX = 320
QUALITY = 85  # of JPEG: nuclei keep their edges, a tile takes about 15 kB
MOST_PX = 1024  # edge of a crop
CROP_SHRINK = 16  # level-0 pixels a pixel of a crop, at most: what is read is bounded
POINTS = ("attention", "influence:")  # the columns of a table of scores that are maps begin so


def routes(board: Board, limits: Limits) -> APIRouter:
    """`/api/slides/{n}` and what lies below it. Only the scanned area is read: label and macro pictures never are."""
    router = APIRouter(prefix="/api/slides/{n}")
    open_ones = OpenSlides(board.slides, limits.open_slides, limits.readers, limits.decoded_mb * 1_000_000)
    tiles = Cache(limits.cache_mb * 1_000_000 // 2)
    coming: dict[tuple[int, ...], Future[dict[tuple[int, int], bytes]]] = {}  # only the event loop touches it

    @cache  # the tables of all slides of a patient are read for it, and do not change while the run is shown
    def highest_of(patient: str) -> dict[str, float]:
        return highest(s.scores for s in board.slides_of(patient).values() if s.scores is not None)

    async def jpeg(key: tuple[Any, ...], see: Callable[[Opened], bytes]) -> Response:
        picture = tiles.kept(key)
        if picture is None:
            picture = await wrap_future(open_ones.see(key[0], see))
            tiles.keep(key, picture)
        return Response(picture, media_type="image/jpeg")

    @router.get("")
    async def info(n: int) -> dict[str, Any]:
        file = open_ones.file(n)
        width, height, mpp, source, magnification = await wrap_future(open_ones.see(n, _told))
        open_ones.look_ahead(n)
        return {
            "id": file.slide_id, "patient": file.patient_id, "width": width, "height": height, "mpp": mpp,
            "mpp_source": source, "magnification": magnification, "tile": TILE_PX, "levels": levels(width, height),
            "maps": file.scores is not None, "contour": file.contour is not None,
        }  # fmt: skip

    @router.get("/tile/{level}/{x}/{y}.jpg")
    async def tile(n: int, level: int, x: int, y: int) -> Response:
        if (found := tiles.kept((n, level, x, y))) is not None:
            return Response(found, media_type="image/jpeg")
        if level <= OVERVIEW_LEVEL:  # waits here, and leaves the readers to those who look closer
            await shield(wrap_future(open_ones.look_ahead(n)))
        block = (n, level, x // TOGETHER, y // TOGETHER)
        if block not in coming:
            coming[block] = open_ones.see(n, lambda opened: _block(opened, *block[1:]))
        try:
            made = await shield(wrap_future(coming[block]))
        finally:
            coming.pop(block, None)
        for (column, row), picture in made.items():
            tiles.keep((n, level, column, row), picture)
        return await jpeg((n, level, x, y), lambda opened: _tile(opened, level, x, y))

    @router.get("/thumbnail.jpg")
    async def thumbnail(n: int) -> Response:
        return await jpeg((n, "thumbnail"), _thumbnail)

    @router.get("/crop.jpg")
    async def crop(n: int, x: int, y: int, size: int, px: int = 256) -> Response:
        return await jpeg((n, "crop", x, y, size, px), lambda opened: _crop(opened, x, y, size, px))

    @router.get("/scores")
    def scores(n: int) -> Response:
        slide = open_ones.file(n)
        if slide.scores is None:
            raise DataFault("this slide was not explained: run mtl predict with explain.patients=all")
        told = maps(pd.read_csv(slide.scores), highest_of(slide.patient_id))
        return Response(json.dumps(told, allow_nan=False), media_type="application/json")

    @router.get("/contour")
    def contour(n: int) -> Response:
        return _geojson(open_ones.file(n).contour, "this slide was not tiled here")

    @router.get("/tiles.geojson")
    def for_qupath(n: int) -> Response:
        return _geojson(open_ones.file(n).tiles, "this slide was not explained")

    return router


def levels(width: int, height: int) -> int:
    """How many levels a deep-zoom pyramid has: the last one is the slide itself, each other half as large.

    >>> levels(1280, 1024)
    12
    """
    return int(max(width, height) - 1).bit_length() + 1


def maps(table: pd.DataFrame, most: Mapping[str, float]) -> dict[str, Any]:
    """Tiles and their scores by map: {size, x, y, maps: {name: {raw, percentile, highest}}}, in the order of the table.

    most: map -> the `highest` score of the patient's slides, where the colours of raw scores end, as those of
    `mtl predict` do (`tile_scores.span`).

    >>> maps(pd.DataFrame({"x": [0], "y": [256], "size_level0": [256], "attention": [0.5]}), {"attention": 2.0})["maps"]
    {'attention': {'raw': [0.5], 'percentile': None, 'highest': 2.0}}
    """
    found = {}
    for name in filter(_is_map, map(str, table)):
        rank = f"{name}_percentile"
        raw, ranks = _plain(table[name]), _plain(table[rank]) if rank in table else None
        found[name] = {"raw": raw, "percentile": ranks, "highest": most.get(name)}
    size = int(table["size_level0"].iloc[0]) if len(table) else 0
    return {"size": size, "x": table["x"].tolist(), "y": table["y"].tolist(), "maps": found}


def highest(tables: Iterable[Path]) -> dict[str, float]:
    """Map -> the highest score of all slides in these tables; a map without a score is left out."""
    found: dict[str, float] = {}
    for table in tables:
        for name, score in pd.read_csv(table, usecols=_is_map).max().dropna().items():
            found[str(name)] = max(float(score), found.get(str(name), float(score)))
    return found


def encoded(pixels: np.ndarray) -> bytes:
    """JPEG of uint8 [h, w, 3]."""
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=QUALITY))


def _told(opened: Opened) -> tuple[int, int, float, str, float]:
    slide = opened.slide
    return *slide.dimensions, slide.mpp, slide.mpp_source, float(slide.magnification)


def _block(opened: Opened, level: int, column: int, row: int) -> dict[tuple[int, int], bytes]:
    """JPEG of the tiles of a block by (x, y): a view asks for all of them, and what is stored is decoded once.

    None of them where the block cannot be read as a whole: then each tile is on its own, and tells what is wrong.
    """
    edge = TOGETHER * TILE_PX
    try:
        left, top, wide, high, shrink = _place(opened, level, column, row, edge)
        pixels = opened.area(left, top, wide, high, shrink)
    except DataFault:
        return {}
    return {
        ((left + x) // TILE_PX, (top + y) // TILE_PX): encoded(pixels[y : y + TILE_PX, x : x + TILE_PX])
        for y in range(0, high, TILE_PX)
        for x in range(0, wide, TILE_PX)
    }


def _tile(opened: Opened, level: int, x: int, y: int) -> bytes:
    return encoded(opened.area(*_place(opened, level, x, y, TILE_PX)))


def _place(opened: Opened, level: int, x: int, y: int, edge: int) -> tuple[int, int, int, int, int]:
    """Left, top, width and height of a tile in pixels of its level, and by how much that is coarser than the slide."""
    width, height = opened.slide.dimensions
    last = levels(width, height) - 1
    if not 0 <= level <= last:
        raise DataFault(f"this slide has no level {level}")
    shrink = 2 ** (last - level)
    wide, high = -(-width // shrink), -(-height // shrink)  # pixels of the level
    left, top = x * edge, y * edge
    if not (0 <= left < wide and 0 <= top < high):
        raise DataFault(f"level {level} of this slide has no tile {x}, {y}")
    return left, top, min(edge, wide - left), min(edge, high - top), shrink


def _thumbnail(opened: Opened) -> bytes:
    whole = [one for one in opened.overviews() if max(one.shape) >= THUMBNAIL_PX or one is opened.overviews()[0]][-1]
    share = min(1.0, THUMBNAIL_PX / max(whole.shape))
    across, down = (max(1, round(whole.shape[k] * share)) for k in (1, 0))
    return encoded(resample(whole, (0.0, 0.0, float(whole.shape[1]), float(whole.shape[0])), across, down))


def _crop(opened: Opened, x: int, y: int, size: int, px: int) -> bytes:
    if not (16 <= px <= MOST_PX and 1 <= size <= min(max(opened.slide.dimensions), px * CROP_SHRINK)):
        raise DataFault(f"a crop is 16 to {MOST_PX} px of a square that is at most {CROP_SHRINK} times as wide")
    return encoded(opened.slide.read(x, y, size, px))


def _is_map(column: str) -> bool:
    return column.startswith(POINTS) and not column.endswith("_percentile")


def _geojson(path: Path | None, fault: str) -> Response:
    if path is None:
        raise DataFault(fault)
    return Response(path.read_bytes(), media_type="application/geo+json")


def _plain(column: pd.Series) -> list[float | None]:
    values = column.to_numpy(float)
    return [value if known else None for value, known in zip(values.tolist(), np.isfinite(values), strict=True)]
