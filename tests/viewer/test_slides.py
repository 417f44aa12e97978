"""Deep-zoom tiles are the pixels of the slide, in bounded memory; nothing but the scanned area is ever read."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from nsclc_mtl.slides.reader import open_slide
from nsclc_mtl.viewer.app import build
from nsclc_mtl.viewer.board import Board
from nsclc_mtl.viewer.guard import Guard
from nsclc_mtl.viewer.open_slides import Cache, Opened, OpenSlides
from nsclc_mtl.viewer.slides import TILE_PX


def pixels(client: TestClient, path: str, **query: int) -> np.ndarray:
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return np.asarray(imagecodecs.jpeg8_decode(answer.content), float)


def test_tiles_of_every_level_lay_out_the_slide(client: TestClient, shown: Board) -> None:
    told = client.get("/api/slides/0").json()
    assert (told["width"], told["height"], told["levels"], told["mpp"]) == (1280, 1024, 12, 0.5)
    with open_slide(shown.slides[0].path) as slide:
        for level in range(told["levels"]):
            shrink = 2 ** (told["levels"] - 1 - level)
            wide, high = -(-1280 // shrink), -(-1024 // shrink)
            whole = np.zeros((high, wide, 3))
            for y in range(0, high, TILE_PX):
                for x in range(0, wide, TILE_PX):
                    tile = pixels(client, f"/api/slides/0/tile/{level}/{x // TILE_PX}/{y // TILE_PX}.jpg")
                    whole[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
            truth = slide.read_area(0, 0, wide * shrink, high * shrink, wide, high)
            if min(wide, high) >= 16:  # below, JPEG's blocks and halved colours are all there is
                assert np.abs(whole - truth).mean() < (5 if min(wide, high) >= 64 else 15)


@pytest.mark.parametrize(
    "path",
    [
        "/api/slides/99",
        "/api/slides/-1/tile/0/0/0.jpg",
        "/api/slides/0/tile/12/0/0.jpg",
        "/api/slides/0/tile/11/5/0.jpg",
        "/api/slides/0/tile/11/-1/0.jpg",
        "/api/slides/0/label.jpg",
        "/api/slides/0/macro",
        "/api/slides/0/associated/label",
        "/api/slides/0/crop.jpg?x=0&y=0&size=100000&px=256",
        "/api/slides/0/crop.jpg?x=0&y=0&size=256&px=100000",
    ],
)
def test_what_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_scores_are_those_of_the_table(client: TestClient) -> None:
    told = client.get("/api/slides/0/scores").json()
    assert len(told["x"]) == len(told["y"]) == 20
    assert set(told["maps"]) == {"attention", *(f"influence:{t}" for t in ("grade", "response", "subtype", "survival"))}
    assert max(told["maps"]["attention"]["percentile"]) == 100
    assert client.get("/api/slides/0/contour").json()["features"][0]["geometry"]["type"] == "Polygon"
    assert client.get("/api/slides/0/tiles.geojson").status_code == 404


def test_raw_scores_of_one_patient_share_a_range(fresh: Board, tmp_path: Path) -> None:
    weak, strong = pd.read_csv(fresh.slides[0].scores), pd.read_csv(fresh.slides[1].scores)
    weak["attention"] = strong["attention"] / 10
    fresh.slides[0] = replace(fresh.slides[0], scores=tmp_path / "weak-tiles.csv")
    weak.to_csv(fresh.slides[0].scores, index=False)
    guard = Guard.local(1)
    with TestClient(build(fresh, guard), base_url="http://127.0.0.1:1", cookies={guard.cookie: guard.token}) as asked:
        first, second, other = (asked.get(f"/api/slides/{n}/scores").json()["maps"]["attention"] for n in range(3))
    assert first["highest"] == second["highest"] == pytest.approx(strong["attention"].max())
    assert max(first["raw"]) == pytest.approx(first["highest"] / 10)
    assert other["highest"] == max(other["raw"])  # of another patient


def test_crops_show_the_place_that_was_asked_for(client: TestClient, shown: Board) -> None:
    with open_slide(shown.slides[0].path) as slide:
        truth = slide.read(512, 256, 256, 128)
    assert np.abs(pixels(client, "/api/slides/0/crop.jpg", x=512, y=256, size=256, px=128) - truth).mean() < 4


def test_few_slides_are_open_while_many_are_read(shown: Board) -> None:
    slides = OpenSlides(shown.slides * 4, most=2, readers=3)
    faults: list[BaseException] = []

    def look(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for n in rng.integers(0, len(slides.files), 20):
                with slides.reading(int(n)) as opened:
                    opened.slide.read(0, 0, 256, 64)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=look, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(slides._open) <= 2


def test_the_cache_forgets_the_oldest_first() -> None:
    cache = Cache(10)
    made: list[str] = []

    def of(key: str) -> bytes:
        return cache.get(key, lambda: (made.append(key), b"1234")[1])

    for key in "abacab":  # b is older than a when c comes
        of(key)
    assert made == ["a", "b", "c", "b"]
    assert cache.size <= 10


def test_a_slide_that_vanished_is_told_in_a_sentence(fresh: Board, tmp_path: Path, client: TestClient) -> None:
    from dataclasses import replace

    fresh.slides[:] = [replace(fresh.slides[0], path=tmp_path / "secret" / "gone.svs"), *fresh.slides[1:]]
    answer = client.get("/api/slides/0")
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_the_levels_from_afar_are_those_of_the_slide_halved(shown: Board) -> None:
    slides = OpenSlides(shown.slides, most=1, readers=2)
    slides.look_ahead(0).result(60)
    with slides.reading(0) as opened:
        wholes = opened.overviews()
        assert [whole.shape[:2] for whole in wholes[:3]] == [(1024, 1280), (512, 640), (256, 320)]
        assert wholes[-1].shape[:2] == (1, 1)
        mean = wholes[0][:512, :512].astype(float).mean((0, 1))
        assert np.abs(opened.area(0, 0, 256, 256, 2).mean((0, 1)) - mean).max() < 1
    assert slides.look_ahead(0) is slides.look_ahead(0)


def test_tiles_that_are_asked_for_together_are_decoded_together(
    client: TestClient, shown: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []
    area = Opened.area

    def counted(self: Opened, *place: int) -> np.ndarray:
        asked.append(place)
        return area(self, *place)

    monkeypatch.setattr(Opened, "area", counted)
    for x, y in ((2, 2), (3, 2), (2, 3), (3, 3)):
        assert pixels(client, f"/api/slides/0/tile/11/{x}/{y}.jpg").shape == (256, 256, 3)
    assert asked == [(512, 512, 512, 512, 1)]


def test_answers_are_not_held_back_by_nagle() -> None:
    from nsclc_mtl.commands.serve import checked
    from nsclc_mtl.config import compose, plain

    with checked(plain(compose("serve", ["run=none", "port=0"]))) as one:
        assert one.proto == socket.IPPROTO_TCP  # asyncio sets TCP_NODELAY on such sockets alone
