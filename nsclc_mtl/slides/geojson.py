"""Regions as QuPath reads and writes them: GeoJSON feature collections in level-0 pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours

from nsclc_mtl.records import DataFault

Ring = list[list[float]]


def contours(mask: np.ndarray, dimensions: tuple[int, int], tolerance_px: float = 0.7) -> list[list[Ring]]:
    """Polygons of a mask (bool [h, w]) that covers a slide of `dimensions` (w, h): outer ring first, then its holes."""
    per_x, per_y = dimensions[0] / mask.shape[1], dimensions[1] / mask.shape[0]
    labels, _ = ndimage.label(mask)
    found = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        piece = labels[window] == number
        solid = ndimage.binary_fill_holes(piece)
        holes, count = ndimage.label(solid & ~piece, np.ones((3, 3), bool))
        shapes = [solid] + [holes == hole for hole in range(1, count + 1)]
        top, left = window[0].start, window[1].start
        rings = []
        for shape in shapes:
            lines = find_contours(np.pad(shape, 1).astype(np.float32), 0.5)
            line = approximate_polygon(max(lines, key=len), tolerance_px)
            if len(line) >= 4:
                x = np.clip((line[:, 1] - 0.5 + left) * per_x, 0, dimensions[0])
                y = np.clip((line[:, 0] - 0.5 + top) * per_y, 0, dimensions[1])
                rings.append(np.stack([x, y], axis=1).round(1).tolist())
        if rings:
            found.append(rings)
    return found


def annotation(rings: Sequence[Ring], name: str, colour: tuple[int, int, int] = (0, 114, 178)) -> dict[str, Any]:
    """One region as a QuPath annotation of class `name`."""
    return _feature(rings, "annotation", {"classification": {"name": name, "color": list(colour)}})


def tile(x: int, y: int, size: int, measurements: Mapping[str, float], colour: tuple[int, int, int]) -> dict[str, Any]:
    """One square tile as a QuPath detection with its measurements."""
    ring = [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]
    extra = {"color": list(colour), "measurements": {key: float(value) for key, value in measurements.items()}}
    return _feature([ring], "tile", extra)


def _feature(rings: Sequence[Any], kind: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": list(rings)}
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": kind, **properties}}


def write(path: Path, features: Iterable[Mapping[str, Any]]) -> None:
    """A feature collection at `path`, written aside and renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}), encoding="utf-8")
    aside.replace(path)


def read(path: Path) -> list[tuple[str, list[Ring]]]:
    """(class name, rings) of every polygon of a file, multi-polygons taken apart. Raises DataFault on anything else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataFault(f"'{Path(path).name}' is no GeoJSON file; export the regions from QuPath as GeoJSON") from error
    features = content.get("features", [content]) if isinstance(content, dict) else content
    found: list[tuple[str, list[Ring]]] = []
    for feature in features:
        geometry = feature.get("geometry") or {}
        name = str(((feature.get("properties") or {}).get("classification") or {}).get("name", ""))
        polygons = {"Polygon": lambda g: [g["coordinates"]], "MultiPolygon": lambda g: g["coordinates"]}
        if geometry.get("type") in polygons:
            found += [(name, rings) for rings in polygons[geometry["type"]](geometry)]
    return found


def rasterise(polygons: Iterable[Sequence[Ring]], dimensions: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """bool [h, w] of `shape`: True inside the polygons (level-0 pixels of a slide of `dimensions`), holes left out."""
    per_x, per_y = dimensions[0] / shape[1], dimensions[1] / shape[0]
    mask = np.zeros(shape, bool)
    for rings in polygons:
        canvas = Image.new("1", (shape[1], shape[0]))
        draw = ImageDraw.Draw(canvas)
        for number, ring in enumerate(rings):
            draw.polygon([(x / per_x - 0.5, y / per_y - 0.5) for x, y in ring], fill=int(number == 0))
        mask |= np.asarray(canvas, bool)
    return mask
