"""Tiles of `mtl serve` under several viewers, measured: `make bench-serve`.

A server of its own process shows a JPEG pyramid of 20,000 x 20,000 px in a temporary folder (the region of
`wsi/cmu-1-small-region.svs` below MTL_REAL_DATA again and again, else drawn tissue) and, where it is there, the real
slide `wsi/1065626.svs`. Each viewer pans as a browser does: it asks for the 12 to 20 tiles of a view over six
connections, rests a little, and looks on: 70 % of views lie near the one before, at its level or the next; the others
anywhere. It keeps what it has seen last, as OpenSeadragon does, and asks only for the rest. A latency runs from the
request to the last byte. `--rest 0` shows what the server can do at most, with all connections busy all the time.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

TILE, MPP, STEP, QUALITY = 256, 0.5, 4, 85
KEPT = 400  # tiles that a viewer has at hand
REAL = Path(os.environ.get("MTL_REAL_DATA", "../shared/data")) / "wsi"


def tissue() -> np.ndarray:
    """uint8 [h, w, 3], edges in whole tiles at three levels: a real region where it is there, else drawn tissue."""
    region = REAL / "cmu-1-small-region.svs"
    if region.is_file():
        image = tifffile.imread(region, key=0)
    else:
        rng = np.random.default_rng(0)
        soft = Image.fromarray(rng.integers(120, 245, (80, 80, 3)).astype(np.uint8)).resize((2560, 2560), 3)
        image = (np.asarray(soft, float) + rng.normal(0, 12, (2560, 2560, 1))).clip(0, 255).astype(np.uint8)
    edge = TILE * STEP * STEP
    return np.pad(image, [(0, -n % edge) for n in image.shape[:2]] + [(0, 0)], mode="reflect")[: 2 * edge, : 2 * edge]


def pyramid(path: Path, px: int) -> Path:
    """A tiled JPEG TIFF of px x px pixels and three levels, made of the tissue again and again."""
    image = tissue()
    with tifffile.TiffWriter(path) as tiff:
        for level in range(3):
            edge, per_cm = px // STEP**level, 1e4 / (MPP * STEP**level)
            tiff.write(
                _tiles(image, edge), shape=(edge, edge, 3), dtype=np.uint8, photometric="ycbcr", compression="jpeg",
                compressionargs={"outcolorspace": "ycbcr"}, subsampling=(2, 2), tile=(TILE, TILE), metadata=None,
                subfiletype=int(level > 0), resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
            )  # fmt: skip
            image = np.asarray(Image.fromarray(image).reduce(STEP))
    return path


def _tiles(image: np.ndarray, edge: int) -> Iterator[bytes]:
    rows, columns = (n // TILE for n in image.shape[:2])
    known = {
        (row, column): imagecodecs.jpeg8_encode(
            np.ascontiguousarray(image[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]),
            level=QUALITY, colorspace="rgb", outcolorspace="ycbcr", subsampling="420",
        )
        for row in range(rows)
        for column in range(columns)
    }  # fmt: skip
    across = -(-edge // TILE)
    for row in range(across):
        yield from (known[row % rows, column % columns] for column in range(across))


def serve(path: Path) -> None:
    """Shows one slide until the process is ended; prints port and token."""
    import pandas as pd
    import uvicorn

    from nsclc_mtl.viewer.app import build
    from nsclc_mtl.viewer.board import Board, Said, SlideFile
    from nsclc_mtl.viewer.guard import Guard

    nothing = pd.DataFrame(columns=["patient_id", "task", "fold", "output", "value", "part", "what"])
    board = Board("bench", {}, ["wsi"], pd.DataFrame(index=["A"]), [Said("bench", nothing, nothing)])
    board.slides = [SlideFile("slide", "A", path)]
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # as `mtl serve`: no Nagle
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # who comes before the server is up waits
    guard = Guard.local(listening.getsockname()[1])
    print(listening.getsockname()[1], guard.token, flush=True)
    config = uvicorn.Config(build(board, guard), log_level="error", access_log=False, ws="none")
    uvicorn.Server(config).run(sockets=[listening])


class Viewer:
    """One browser: panning until `end`, with the seconds of each tile and each view."""

    def __init__(self, port: int, token: str, told: dict[str, int], seed: int, connections: int, rest: float) -> None:
        self.port, self.token, self.told, self.rest = port, token, told, rest
        self.rng, self.pool = np.random.default_rng(seed), ThreadPoolExecutor(connections)
        self.own = threading.local()
        self.seen: OrderedDict[str, None] = OrderedDict()
        self.tiles: list[float] = []
        self.views: list[float] = []
        self.errors: list[str] = []

    def ask(self, path: str) -> None:
        """One tile, timed."""
        begun = time.perf_counter()
        try:
            status, picture = self.answer(path)
            if status != 200 or not picture.startswith(b"\xff\xd8"):
                self.errors.append(f"{status} {path}")
        except (OSError, http.client.HTTPException) as wrong:
            self.errors.append(f"{wrong!r} {path}")
        self.tiles.append(time.perf_counter() - begun)

    def answer(self, path: str) -> tuple[int, bytes]:
        """Status and body; asks again, as browsers do, where the server has closed a line that rested too long."""
        used = hasattr(self.own, "line")
        if not used:
            self.own.line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            self.own.line.request("GET", path, headers={"authorization": f"Bearer {self.token}"})
            answer = self.own.line.getresponse()
            return answer.status, answer.read()
        except (ConnectionError, http.client.HTTPException):
            del self.own.line
            if used:
                return self.answer(path)
            raise

    def pan(self, end: float) -> None:
        """Looks around until the clock says `end`."""
        last, rng = self.told["levels"] - 1, self.rng
        level, x, y = last, 0.5, 0.5
        while time.perf_counter() < end:
            if rng.random() < 0.7:
                level = int(np.clip(level + rng.choice([-1, 0, 0, 0, 1]), 8, last))
                x, y = (float(np.clip(v + rng.normal(0, 300 * 2 ** (last - level) / 20_000), 0, 1)) for v in (x, y))
            else:
                level, x, y = int(rng.integers(8, last + 1)), float(rng.random()), float(rng.random())
            wanted = [path for path in self.view(level, x, y) if path not in self.seen]
            begun = time.perf_counter()
            list(self.pool.map(self.ask, wanted))
            if wanted:
                self.views.append(time.perf_counter() - begun)
            for path in wanted:
                self.seen[path] = None
            while len(self.seen) > KEPT:
                self.seen.popitem(last=False)
            time.sleep(self.rest * float(rng.uniform(0.5, 1.5)))
        self.pool.shutdown()

    def view(self, level: int, x: float, y: float) -> list[str]:
        """The addresses of the 4 to 5 by 3 to 4 tiles around a place, with those of"""
        shrink = 2 ** (self.told["levels"] - 1 - level)
        across, down = (-(-self.told[edge] // (shrink * TILE)) for edge in ("width", "height"))
        wide, high = int(self.rng.integers(4, 6)), int(self.rng.integers(3, 5))
        left, top = int(x * across) - wide // 2, int(y * down) - high // 2
        return [
            f"/api/slides/0/tile/{level}/{column}/{row}.jpg"
            for row in range(max(0, top), min(down, top + high))
            for column in range(max(0, left), min(across, left + wide))
        ]


def resident_mb(pid: int) -> float:
    """Resident memory of a process, MB; NaN where the system does not say."""
    try:
        told = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return float("nan")
    return int(told.split("VmRSS:")[1].split()[0]) / 1024


def busy_s(pid: int) -> float:
    """Processor seconds that a process has used; NaN where the system does not say."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return float("nan")
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def measure(path: Path, seconds: float, clients: int, connections: int, rest: float) -> int:
    """Prints what was measured on a slide; the number of errors."""
    import json

    command = [sys.executable, __file__, "--serve", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port, token = server.stdout.readline().split()
            line = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
            line.request("GET", "/api/slides/0", headers={"authorization": f"Bearer {token}"})
            told = json.loads(line.getresponse().read())
            busy = busy_s(server.pid)
            memory = [resident_mb(server.pid)]
            viewers = [Viewer(int(port), token, told, seed, connections, rest) for seed in range(clients)]
            end = time.perf_counter() + seconds
            threads = [threading.Thread(target=viewer.pan, args=(end,)) for viewer in viewers]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(0.5)
                memory.append(resident_mb(server.pid))
            busy = busy_s(server.pid) - busy
        finally:
            server.terminate()
    tiles = 1000 * np.concatenate([viewer.tiles for viewer in viewers])
    views = 1000 * np.concatenate([viewer.views for viewer in viewers])
    errors = [error for viewer in viewers for error in viewer.errors]
    print(f"{path.name}: {told['width']:,} x {told['height']:,} px, {clients} viewers, {seconds:g} s, rest {rest:g} s")
    print(f"  a tile   p50 {np.median(tiles):.1f} ms, p95 {np.quantile(tiles, 0.95):.1f} ms; {len(tiles)} tiles")
    print(f"  a view   p50 {np.median(views):.1f} ms, p95 {np.quantile(views, 0.95):.1f} ms; {len(views)} views")
    print(f"  together {len(tiles) / seconds:.0f} tiles/s, {len(errors)} errors {errors[:3] or ''}")
    print(f"  server   {1000 * busy / len(tiles):.1f} ms of one processor a tile")
    middle = memory[len(memory) // 2]
    print(f"  memory   {memory[0]:.0f} MB at the start, {middle:.0f} in the middle, {memory[-1]:.0f} at the end")
    return len(errors)


def main() -> int:
    """Measures the slides that are there; 1 where a tile could not be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="on each slide, at most 600")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--connections", type=int, default=6, help="of a client at the same time")
    parser.add_argument("--rest", type=float, default=0.3, help="mean seconds between the views of a client")
    parser.add_argument("--px", type=int, default=20_000, help="edge of the slide that is made")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        slides = [pyramid(Path(folder) / "pyramid.tif", given.px)]
        if (REAL / "1065626.svs").is_file():
            slides.append(REAL / "1065626.svs")
        options = min(given.seconds, 600), given.clients, given.connections, given.rest
        return int(sum([measure(slide, *options) for slide in slides]) > 0)


if __name__ == "__main__":
    sys.exit(main())
