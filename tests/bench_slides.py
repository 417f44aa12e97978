"""Ratios of reading slides, measured in one run: `make bench-slides`.

The slide is a mosaic of a real region (2,220 x 2,967 px of H&E at 20x, `wsi/cmu-1-small-region.svs` below
MTL_REAL_DATA), written as a JPEG pyramid with tiles of 256 px into a temporary folder. Each way reads the same tiles
with the same number of threads, from slides opened anew for every round; rounds of all ways alternate and the best one
of each counts, so that other work on the machine weighs on all alike. Pixels are compared before anything is timed.
Rates are a second of the clock; the last ratio is one of processor time, which other work disturbs less.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import tifffile
from PIL import Image
from rich.console import Console
from rich.table import Table

from nsclc_mtl.slides.reader import TileBatches, open_slide
from nsclc_mtl.slides.reader.jpeg import JpegSource

TILE, MPP, STEP, QUALITY = 256, 0.5, 4, 80
BATCH = 32
Way = Callable[[], object]


def mosaic(path: Path, px: int) -> Path:
    """A slide of px x px pixels whose every tile is another piece of the real region."""
    region = Path(os.environ.get("MTL_REAL_DATA", "../shared/data")) / "wsi" / "cmu-1-small-region.svs"
    if not region.is_file():
        raise SystemExit("no real data: set MTL_REAL_DATA to the folder that holds wsi/cmu-1-small-region.svs")
    image = tifffile.imread(region, key=0)
    image = image[: image.shape[0] // 16 * 16, : image.shape[1] // 16 * 16]
    with tifffile.TiffWriter(path) as tiff:
        for level in range(3):
            edge = px // STEP**level
            per_cm = 1e4 / (MPP * STEP**level)
            tiff.write(
                _tiles(image, edge), shape=(edge, edge, 3), dtype=np.uint8, photometric="rgb", compression="jpeg",
                compressionargs={"level": QUALITY}, tile=(TILE, TILE), subfiletype=int(level > 0), metadata=None,
                resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
            )  # fmt: skip
            image = np.asarray(Image.fromarray(image).reduce(STEP))
    return path


def _tiles(image: np.ndarray, edge: int) -> Iterator[np.ndarray]:
    height, width = image.shape[:2]
    for y in range(0, edge, TILE):
        rows = image[np.arange(y, y + TILE) % height]
        for x in range(0, edge, TILE):
            yield np.ascontiguousarray(rows[:, np.arange(x, x + TILE) % width])


def grid(px: int, most: int, shift: int = 0, size: int = TILE) -> np.ndarray:
    """int64 [tile, 2]: whole rows of tiles side by side, at most about `most` of them."""
    places = np.arange(shift, px - size + 1, size)
    rows = places[: max(1, most // len(places))]
    return np.stack([np.tile(places, len(rows)), np.repeat(rows, len(places))], axis=1)


# ---------------------------------------------------------------------------------------------------------------------
# Three ways to the same pixels
# ---------------------------------------------------------------------------------------------------------------------


def ours(path: Path, coords: np.ndarray, size: int, threads: int) -> Way:
    """The package's own iterator, on a slide with nothing decoded yet."""
    slide = open_slide(path)
    batches = TileBatches(slide, coords, size, TILE, BATCH, threads)

    def read() -> None:
        with slide:
            assert sum(len(tiles) for _, tiles in batches) == len(coords)

    return read


def per_tile(path: Path, coords: np.ndarray, size: int, threads: int) -> Way:
    """OpenSlide's `read_region` a tile, to RGB, a handle a thread, resampled by Pillow as we do where sizes differ."""
    pieces = np.array_split(coords, threads)
    handles = [openslide.OpenSlide(path) for _ in pieces]

    def read(handle: openslide.OpenSlide, piece: np.ndarray) -> None:
        for x, y in piece.tolist():
            picture = handle.read_region((x, y), 0, (size, size)).convert("RGB")
            if size % TILE == 0 and size != TILE:
                picture = picture.reduce(size // TILE)
            elif size != TILE:
                picture = picture.resize((TILE, TILE), Image.Resampling.LANCZOS)
            np.asarray(picture)
        handle.close()

    return lambda: _all(read, handles, pieces)


def pure_decode(path: Path, coords: np.ndarray, threads: int) -> Way:
    """libjpeg alone, from memory, into a buffer that is there: nobody can be faster with this codec."""
    slide = open_slide(path)
    source = slide._source
    assert isinstance(source, JpegSource)
    level = source.levels[0]
    index = (coords[:, 1] // TILE * level.across + coords[:, 0] // TILE).tolist()
    stored = [os.pread(source._file, level.counts[i], level.offsets[i]) for i in index]
    slide.close()
    pieces = [stored[i::threads] for i in range(threads)]

    def decode(piece: Sequence[bytes], out: np.ndarray) -> None:
        for data in piece:
            imagecodecs.jpeg8_decode(data, tables=level.tables, colorspace=level.colour, outcolorspace="rgb", out=out)

    return lambda: _all(decode, pieces, [np.empty((TILE, TILE, 3), np.uint8) for _ in pieces])


def _all(work: Callable[..., None], *arguments: Sequence[object]) -> None:
    with ThreadPoolExecutor(len(arguments[0])) as pool:
        list(pool.map(work, *arguments))


def best(ways: dict[str, Callable[[], Way]], rounds: int) -> dict[str, np.ndarray]:
    """Least seconds of each way, [clock, processor]; what a way prepares is not timed, rounds alternate."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, prepare in ways.items():
            run = prepare()
            began = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return {name: np.min(found, axis=0) for name, found in times.items()}


# ---------------------------------------------------------------------------------------------------------------------
# What is measured
# ---------------------------------------------------------------------------------------------------------------------


def rates(folder: Path, options: argparse.Namespace) -> Table:
    """Tiles a second: the fast way, OpenSlide a tile, and pure decoding, aligned and not."""
    path = mosaic(folder / "large.tif", options.px)
    table = Table("tiles", "threads", "pure/s", "OpenSlide/s", "ours/s", "of pure", "x OpenSlide", "in CPU time")
    with open_slide(path) as slide, open_slide(path, fast=False) as plain:
        assert slide.read_by == "jpeg tiles"
        for x, y in [*grid(options.px, 200, 0)[::7], *grid(options.px, 200, 100)[::7]]:
            at = (int(x), int(y))
            np.testing.assert_array_equal(slide.read(*at, TILE, TILE), plain.read(*at, TILE, TILE))
    cases = [
        ("256 px, on the grid", 0, TILE), ("256 px, across the grid", 100, TILE),
        ("300 px to 256, Lanczos", 0, 300), ("512 px to 256, areas", 0, 512),
    ]  # fmt: skip
    for threads in (1, 2):
        for what, shift, size in cases:
            coords = grid(options.px, options.tiles // (size // TILE) ** 2, shift, size)
            ways = {
                "OpenSlide": lambda c=coords, s=size, t=threads: per_tile(path, c, s, t),
                "ours": lambda c=coords, s=size, t=threads: ours(path, c, s, t),
            }
            if (shift, size) == (0, TILE):
                ways["pure"] = lambda c=coords, t=threads: pure_decode(path, c, t)
            took = best(ways, options.rounds)  # type: ignore[arg-type]
            rate = {name: len(coords) / seconds[0] for name, seconds in took.items()}
            pure = rate.get("pure")
            table.add_row(
                what, str(threads), f"{pure:.0f}" if pure else "-", f"{rate['OpenSlide']:.0f}", f"{rate['ours']:.0f}",
                f"{rate['ours'] / pure:.0%}" if pure else "-", f"{rate['ours'] / rate['OpenSlide']:.1f}",
                f"{took['OpenSlide'][1] / took['ours'][1]:.1f}",
            )  # fmt: skip
    return table


def memory(folder: Path, options: argparse.Namespace) -> Table:
    """Peak memory of a process that reads every tile of a slide across the grid, against the slide's size."""
    table = Table("slide", "tiles", "peak, MB", title="memory of a process that reads a slide")
    for px in (options.px // 4, options.px // 2, options.px):
        path = folder / ("large.tif" if px == options.px else f"{px}.tif")
        if not path.exists():
            mosaic(path, px)
        told = subprocess.run(
            [sys.executable, __file__, "--peak", str(path)], check=True, capture_output=True, text=True
        )
        table.add_row(f"{px:,} x {px:,} px", *told.stdout.split())
    return table


def slides(folder: Path, options: argparse.Namespace) -> Table:
    """Seconds to open and read some slides, one after the other: the same a slide, however many."""
    path = mosaic(folder / "small.tif", 4096)
    coords = grid(4096, 10**6)
    table = Table("slides", "s", "s a slide", title="opening and reading slides of 4,096 px")
    for count in (1, 4, 16):
        took = best({"all": lambda n=count: lambda: [ours(path, coords, TILE, 2)() for _ in range(n)]}, 2)["all"][0]  # type: ignore[misc]
        table.add_row(str(count), f"{took:.2f}", f"{took / count:.3f}")
    return table


def extraction(folder: Path, options: argparse.Namespace) -> Table:
    """ResNet-50 (random weights, for timing alone): extraction against its forward, and that against plain float32."""
    import torch
    from monai.networks.nets.resnet import resnet50

    from nsclc_mtl.features.backbones.resnet import Resnet50
    from nsclc_mtl.features.backbones.seeing import see

    torch.set_num_threads(os.cpu_count() or 1)  # the reading threads and the network share the cores
    net = resnet50(
        spatial_dims=2, n_input_channels=3, feed_forward=False, shortcut_type="B", bias_downsample=False,
        conv1_t_stride=2,
    ).eval()  # fmt: skip
    torch.save(net.state_dict(), folder / "resnet50.pth")
    path = mosaic(folder / "extract.tif", 2048)
    coords = grid(2048, 64)[:64]
    ours = {word: Resnet50(str(folder / "resnet50.pth"), precision=word, device="cpu") for word in ("auto", "32")}
    with open_slide(path) as slide:
        tiles = [torch.from_numpy(t) for _, t in TileBatches(slide, coords, TILE, TILE, BATCH)]
        light = [((t.permute(0, 3, 1, 2) - ours["32"].mean) / ours["32"].spread).contiguous() for t in tiles]

        def forward(look: Callable[[torch.Tensor], torch.Tensor], batches: list[torch.Tensor]) -> torch.Tensor:
            with torch.inference_mode():
                return torch.cat([look(batch) for batch in batches])

        ways: dict[str, Way] = {
            "plain float32, channels first": lambda: forward(net, light),
            "ours, float32": lambda: forward(ours["32"], tiles),
            f"ours, {ours['auto'].precision}": lambda: forward(ours["auto"], tiles),
            "extraction, reading and all": lambda: see(ours["auto"], TileBatches(slide, coords, TILE, TILE, BATCH)),
        }
        plain, half = forward(net, light), forward(ours["auto"], tiles)
        took = best({name: lambda w=way: w for name, way in ways.items()}, options.rounds)  # type: ignore[misc]
    seconds = [found[0] for found in took.values()]
    cosine = float(torch.nn.functional.cosine_similarity(plain, half).min())
    table = Table("way", "tiles/s", "x plain", "of forward", title=f"ResNet-50, {TILE} px; least cosine {cosine:.6f}")
    for name, spent in zip(took, seconds, strict=True):
        share = f"{seconds[2] / spent:.0%}" if name.startswith("extraction") else "-"
        table.add_row(name, f"{len(coords) / spent:.1f}", f"{seconds[0] / spent:.1f}", share)
    return table


MEASURED = (rates, memory, slides, extraction)


def peak(path: Path) -> None:
    """Read all tiles of a slide, then print their number and this process's peak memory in MB."""
    with open_slide(path) as slide:
        coords = grid(slide.dimensions[0], 10**6, 100)
        count = sum(len(tiles) for _, tiles in TileBatches(slide, coords, TILE, TILE, BATCH, threads=2))
    print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--px", type=int, default=20480, help="edge of the large slide")
    parser.add_argument("--tiles", type=int, default=400, help="tiles read a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return peak(options.peak)
    console = Console(width=120)
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, OpenSlide {openslide.__library_version__}")
    with tempfile.TemporaryDirectory() as folder:
        for measure in MEASURED:
            console.print(measure(Path(folder), options))
    return None


if __name__ == "__main__":
    main()
