"""A slide as a small picture with its tissue outlined and its tiles marked: looked at before anything is believed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nsclc_mtl.records import Tiles

OUTLINE, HOLE, TILE = (0, 114, 178), (213, 94, 0), (0, 158, 115)  # blue, vermilion, green of Okabe & Ito
CUT = {
    "pen": (204, 121, 167),
    "blur": (240, 228, 66),
    "grey": (150, 150, 150),
    "fold": (230, 159, 0),
}  # pink, yellow, ...
MAX_PX = 2400


def contour_picture(
    path: Path,
    thumbnail: np.ndarray,
    dimensions: tuple[int, int],
    polygons: Sequence[Sequence[list[list[float]]]],
    tiles: Tiles,
    cut: Mapping[str, np.ndarray] | None = None,
) -> None:
    """JPEG at `path`: thumbnail (uint8 [h, w, 3]), tissue in blue, holes in vermilion, tiles as thin green squares.

    What was cut out (`cut`: name -> bool [h, w]) is tinted: pen pink, blur yellow, grey things grey, folds orange.
    """
    pixels = thumbnail.copy()
    for name, area in (cut or {}).items():
        tint = np.array(CUT.get(name, (120, 120, 120)), np.uint16)
        pixels[area] = ((pixels[area] + tint * np.uint16(3)) // 4).astype(np.uint8)
    picture = Image.fromarray(pixels)
    longest = max(picture.size)
    wanted = min(MAX_PX, max(longest, 600))
    if wanted != longest:
        shape = [max(1, round(edge * wanted / longest)) for edge in picture.size]
        picture = picture.resize((shape[0], shape[1]), Image.Resampling.LANCZOS)
    per_x, per_y = dimensions[0] / picture.width, dimensions[1] / picture.height
    draw = ImageDraw.Draw(picture)
    size = tiles.size_level0
    for x, y in tiles.coords.tolist():
        draw.rectangle((x / per_x, y / per_y, (x + size) / per_x, (y + size) / per_y), outline=TILE)
    for rings in polygons:
        for number, ring in enumerate(rings):
            draw.line([(x / per_x, y / per_y) for x, y in ring], fill=HOLE if number else OUTLINE, width=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    held = io.BytesIO()  # Pillow takes no notice of a disk that takes only half of what it writes
    picture.save(held, format="JPEG", quality=88)
    aside.write_bytes(held.getbuffer())
    aside.replace(path)
