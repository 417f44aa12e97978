"""Regions as QuPath reads and writes them: GeoJSON feature collections in level-0 pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """(class name, rings) of every polygon of a file, multi-polygons taken apart, in level-0 pixels.

    Takes what QuPath writes: a feature collection, a list of features, one feature, or a bare geometry. Points and
    lines are no regions and are passed over. Raises DataFault in one sentence on anything else.
    """
    name = Path(path).name
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataFault(f"'{name}' is no GeoJSON file; export the regions from QuPath as GeoJSON") from error
    try:
        return list(_polygons(content, ""))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        told = f": {error}" if type(error) is ValueError else ""
        raise DataFault(f"'{name}' holds a broken region{told}; export the regions from QuPath again") from error


def _polygons(node: Any, name: str) -> Iterator[tuple[str, list[Ring]]]:
    if isinstance(node, list):
        for item in node:
            yield from _polygons(item, name)
        return
    kind = node["type"]
    if kind == "FeatureCollection":
        yield from _polygons(list(node["features"]), name)
    elif kind == "Feature":
        yield from _polygons(node["geometry"], _class_name(node.get("properties") or {})) if node["geometry"] else ()
    elif kind == "GeometryCollection":
        yield from _polygons(list(node["geometries"]), name)
    elif kind == "Polygon":
        yield name, [_ring(ring) for ring in node["coordinates"]]
    elif kind == "MultiPolygon":
        yield from ((name, [_ring(ring) for ring in rings]) for rings in node["coordinates"])
    elif kind not in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        raise ValueError(f"{str(kind)[:40]!r} is no GeoJSON type")


def _class_name(properties: Mapping[str, Any]) -> str:
    """Name of the class; of a derived class (`Tumor: Positive`) as QuPath shows it."""
    found = properties.get("classification") or {}
    if isinstance(found, str):
        return found
    return str(found.get("name") or ": ".join(map(str, found.get("names") or ())))


def _ring(points: Sequence[Sequence[float]]) -> Ring:
    ring = [[float(point[0]), float(point[1])] for point in points]  # a third coordinate is a plane of a stack
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError(f"a ring of {len(ring)} points, or one that is no number")
    return ring


def rasterise(polygons: Iterable[Sequence[Ring]], dimensions: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """bool [h, w] of `shape`: True inside the polygons (level-0 pixels of a slide of `dimensions`), holes left out."""
    per_px = np.array([dimensions[0] / shape[1], dimensions[1] / shape[0]])
    mask = np.zeros(shape, bool)
    for rings in polygons:
        scaled = [np.asarray(ring, np.float64) / per_px for ring in rings]
        if not scaled:
            continue
        # Drawn in the polygon's own window: thousands of small ones cost no more than they cover.
        low = np.clip(np.floor(scaled[0].min(axis=0)).astype(int) - 1, 0, (shape[1], shape[0]))
        high = np.clip(np.ceil(scaled[0].max(axis=0)).astype(int) + 1, 0, (shape[1], shape[0]))
        if (high <= low).any():
            continue
        canvas = Image.new("1", (int(high[0] - low[0]), int(high[1] - low[1])))
        draw = ImageDraw.Draw(canvas)
        for number, ring in enumerate(scaled):
            draw.polygon([tuple(point) for point in (ring - low - 0.5).tolist()], fill=int(number == 0))
        mask[low[1] : high[1], low[0] : high[0]] |= np.asarray(canvas, bool)
    return mask
