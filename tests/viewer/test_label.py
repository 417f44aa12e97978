"""The label of a slide, which may bear a name, cannot be fetched in any way that there is."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from starlette.testclient import TestClient

from nsclc_mtl.viewer.app import build
from nsclc_mtl.viewer.board import Board, SlideFile
from nsclc_mtl.viewer.guard import Guard

PIXELS = "Aperio Image Library v11.2.1\n{} [0,0 {}] (256x256) JPEG/RGB Q=30|AppMag = 20|MPP = 0.5"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Aperio file of grey tissue with a thumbnail, a magenta label and a magenta macro."""
    path = tmp_path_factory.mktemp("labelled") / "S.svs"
    tissue = np.random.default_rng(0).integers(120, 180, (1024, 1280, 1), dtype=np.uint8).repeat(3, 2)
    magenta = np.zeros((200, 200, 3), np.uint8) + np.array([255, 0, 255], np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        how = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb", "metadata": None}
        tiff.write(tissue, description=PIXELS.format("1280x1024", "1280x1024"), **how)
        tiff.write(tissue[::4, ::4], description="Aperio\nthumbnail", photometric="rgb", metadata=None)
        tiff.write(magenta, description="Aperio\nlabel 200x200", subfiletype=1, photometric="rgb", metadata=None)
        tiff.write(magenta, description="Aperio\nmacro 200x200", subfiletype=9, photometric="rgb", metadata=None)
    return path


def test_no_pixel_of_a_label_or_macro_is_served(fresh: Board, labelled: Path) -> None:
    assert {"label", "macro"} <= set(openslide.OpenSlide(str(labelled)).associated_images)
    guard = Guard.local(1)
    board = replace(fresh, slides=[SlideFile("S", fresh.ids[0], labelled, 0.5)], scans=[])
    with TestClient(build(board, guard), base_url="http://127.0.0.1:1", cookies={guard.cookie: guard.token}) as client:
        info = client.get("/api/slides/0").json()
        assert not [key for key in info if "label" in key or "macro" in key]
        for name in ("label", "macro", "associated/label", "associated_images/label", "label.png", "thumbnail/label"):
            assert client.get(f"/api/slides/0/{name}").status_code == 404, name
            assert client.get(f"/api/slides/0/{name}.jpg").status_code == 404, name
        pictures = ["thumbnail.jpg", "crop.jpg?x=640&y=512&size=512&px=128"]
        for level in range(info["levels"] + 2):
            pictures += [f"tile/{level}/{x}/{y}.jpg" for x in range(6) for y in range(5)]
        served = 0
        for picture in pictures:
            answer = client.get(f"/api/slides/0/{picture}")
            if answer.status_code == 404:  # beyond the slide
                continue
            assert answer.status_code == 200
            seen = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"), dtype=int)
            assert np.abs(seen[..., 0] - seen[..., 1]).max() < 60, picture  # grey, not magenta
            served += 1
        assert served > 30
