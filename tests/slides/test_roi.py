"""Contours go to QuPath and come back; whatever QuPath exports is read, and what is broken is told in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsclc_mtl.records import DataFault, ItemFault, ItemSkip
from nsclc_mtl.slides import geojson, roi

SQUARE = [[0, 0], [40, 0], [40, 40], [0, 40], [0, 0]]
HOLE = [[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]
FAR = [[[60, 60], [80, 60], [80, 80], [60, 80], [60, 60]]]


def feature(geometry: dict[str, Any], **classification: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": classification or None}}


POLYGON = {"type": "Polygon", "coordinates": [SQUARE, HOLE]}
MULTI = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], FAR]}


def area(path: Path) -> int:
    return int(geojson.rasterise([rings for _, rings in geojson.read(path)], (100, 100), (100, 100)).sum())


def test_contours_are_read_back_as_the_mask_they_came_from(tmp_path: Path) -> None:
    mask = np.zeros((60, 80), bool)
    mask[5:40, 10:50] = True
    mask[15:25, 20:30] = False
    mask[45:55, 60:79] = True
    polygons = geojson.contours(mask, (800, 600), tolerance_px=0.1)
    assert sorted(len(rings) for rings in polygons) == [1, 2]
    geojson.write(tmp_path / "t.geojson", [geojson.annotation(rings, "Tissue") for rings in polygons])
    feature = json.loads((tmp_path / "t.geojson").read_text())["features"][0]
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["geometry"]["coordinates"][0][0] == feature["geometry"]["coordinates"][0][-1]
    found = geojson.read(tmp_path / "t.geojson")
    assert {name for name, _ in found} == {"Tissue"}
    again = geojson.rasterise([rings for _, rings in found], (800, 600), mask.shape)
    assert (again != mask).mean() < 0.06  # the outline itself, at most
    (tmp_path / "no.geojson").write_text("nothing")
    with pytest.raises(DataFault, match="no GeoJSON"):
        geojson.read(tmp_path / "no.geojson")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (POLYGON, 1500),
        (feature(POLYGON, name="Tumor"), 1500),
        ([feature(POLYGON), feature({"type": "Polygon", "coordinates": FAR})], 1900),
        ({"type": "FeatureCollection", "features": [feature(MULTI, names=["Tumor", "Positive"])]}, 1900),
        ({"type": "GeometryCollection", "geometries": [POLYGON, {"type": "Point", "coordinates": [1, 2]}]}, 1500),
        (feature({"type": "Polygon", "coordinates": [[[*point, 0.0] for point in SQUARE], HOLE]}), 1500),
    ],
)
def test_every_export_of_qupath_is_read(tmp_path: Path, content: Any, expected: int) -> None:
    (tmp_path / "a.geojson").write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    assert area(tmp_path / "a.geojson") == pytest.approx(expected, rel=0.06)  # outlines belong to the polygon


@pytest.mark.parametrize(
    "text",
    [
        "", "nothing", "3", "null", "{}", '{"type": "Feature"}', '{"type": "Polygon", "coordinates": 3}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', '{"type": "Cloud", "coordinates": []}',
        '{"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [2, 2]]]}',
        '{"type": "FeatureCollection", "features": 5}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, NaN], [2, 2]]]}', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_broken_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.geojson").write_text(text)
    with pytest.raises(ItemFault, match=r"slide 's': 's\.geojson' (is no|holds)") as caught:
        roi.load(tmp_path / "s.geojson", "s")
    assert caught.value.reason == "roi_invalid"
    assert "\n" not in str(caught.value)


def test_classes_choose_and_tissue_is_the_mask_itself(tmp_path: Path) -> None:
    found = [
        feature(POLYGON, name="Tumor"),
        feature({"type": "Polygon", "coordinates": FAR}, name="Tissue"),
        feature(MULTI),
    ]
    geojson.write(tmp_path / "s.geojson", found)
    every = roi.load(roi.find(tmp_path, "s"), "s")
    assert (len(every.tissue), len(every.inside)) == (1, 3)
    only = roi.load(tmp_path / "s.geojson", "s", ["Tumor"])
    assert (len(only.tissue), len(only.inside)) == (0, 1)
    with pytest.raises(ItemFault, match=r"no region of class Stroma, but \(no class\), Tissue, Tumor"):
        roi.load(tmp_path / "s.geojson", "s", ["Stroma"])
    with pytest.raises(ItemSkip, match="draw its regions"):
        roi.find(tmp_path, "other")
    with pytest.raises(DataFault, match="no folder"):
        roi.find(tmp_path / "nowhere", "s")
    with pytest.raises(ItemFault, match="mend its column"):
        roi.load(tmp_path / "gone.geojson", "s")


def test_what_qupath_ignores_and_what_the_user_excludes_is_cut_out(tmp_path: Path) -> None:
    far = {"type": "Polygon", "coordinates": FAR}
    geojson.write(
        tmp_path / "s.geojson",
        [feature(POLYGON, name="Tumor"), feature(far, name="Ignore*"), feature(far, name="Artefact")],
    )
    found = roi.load(tmp_path / "s.geojson", "s")
    assert (len(found.inside), len(found.outside)) == (2, 1)
    found = roi.load(tmp_path / "s.geojson", "s", ["Tumor"], ["Artefact"])
    assert (len(found.tissue), len(found.inside), len(found.outside)) == (0, 1, 2)
    geojson.write(tmp_path / "s.geojson", [feature(far, name="Ignore*")])  # the whole slide but this
    found = roi.load(tmp_path / "s.geojson", "s")
    assert (found.tissue, found.inside, len(found.outside)) == ((), (), 1)


def test_thousands_of_regions_lie_where_they_were_drawn() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 970, (3000, 2))
    polygons = [
        [[[float(x), float(y)], [x + 30.0, float(y)], [x + 30.0, y + 30.0], [float(x), y + 30.0]]] for x, y in corners
    ]
    truth = np.zeros((1000, 1000), bool)
    for x, y in corners:
        truth[y : y + 30, x : x + 30] = True
    found = geojson.rasterise(polygons, (1000, 1000), (500, 500))
    assert (found != truth[::2, ::2]).mean() < 0.03
    assert not geojson.rasterise([[[[-50.0, -50.0], [-10.0, -50.0], [-10.0, -10.0]]]], (1000, 1000), (50, 50)).any()
