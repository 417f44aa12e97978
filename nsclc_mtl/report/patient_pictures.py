"""The pictures of a patient's page: within the page itself, small enough, a map and its slide as two."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nsclc_mtl.explain.attention import SPLIT

LARGEST_BYTES = 4_000_000  # of the pictures as they stand in the page
_WIDE_PX = 1400  # pictures are made no wider than this for the page


def embedded(
    pictures: Sequence[tuple[Path, str]], most: int = LARGEST_BYTES
) -> tuple[list[dict[str, Any]], list[str], bool]:
    """Pictures {caption, parts: their data URIs with the width in px} of `most` bytes together, names of those left out
    (the largest), and whether any were made smaller (JPEG) than their files.

    A slide and its map in one file are two parts, so that a narrow page can set one below the other.
    """
    made: dict[Path, dict[str, Any]] = {}
    for path, caption in pictures:
        parts = _parts(path.read_bytes())
        share = min(1.0, _WIDE_PX / sum(part.width for part in parts))
        made[path] = {"caption": caption, "parts": [_embedded(part, most // 40, share) for part in parts]}
    sizes = {path: sum(len(part["uri"]) for part in picture["parts"]) for path, picture in made.items()}
    kept, size = dict(made), sum(sizes.values())
    for path in sorted(made, key=lambda p: sizes[p], reverse=True):
        if size <= most:
            break
        size -= sizes[path]
        del kept[path]
    shown = list(kept.values())
    smaller = any("image/jpeg" in part["uri"] for picture in shown for part in picture["parts"])
    return shown, [p.name for p in made if p not in kept], smaller


def _parts(data: bytes) -> list[Any]:
    """The images of a PNG: the slide and the map of `attention.heatmap`, or the one that it is."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        whole, split = image.copy(), image.info.get(SPLIT)
    if split is None:
        return [whole]
    at = round(float(split) * whole.width)
    return [whole.crop((0, 0, at, whole.height)), whole.crop((at, 0, whole.width, whole.height))]


def _embedded(image: Any, large: int, share: float) -> dict[str, Any]:
    """The data URI of an image and its width; of one with more than `large` bytes the smaller of PNG and a JPEG that is
    reduced to a share of its edges."""
    from PIL import Image

    buffer, kind = io.BytesIO(), "png"
    image.save(buffer, "PNG")
    if buffer.tell() > large:
        whole = image.convert("RGBA")
        paper = Image.new("RGBA", whole.size, "white")
        paper.alpha_composite(whole)
        paper.thumbnail((max(1, round(share * image.width)), 2 * _WIDE_PX))
        less = io.BytesIO()
        paper.convert("RGB").save(less, "JPEG", quality=85)
        if less.tell() < buffer.tell():
            buffer, kind = less, "jpeg"
    return {"uri": f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode(), "width": image.width}
