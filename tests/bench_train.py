"""Training, measured in one run: `make bench-train`.

Steps (forward and backward, no optimiser) of every slide encoder on 8,192 tiles of 1,024 features in half precision,
against the products of matrices that such a step cannot do without, on the same machine and thread, in single precision
and in bf16; rounds of all ways alternate and the median counts. Then packed bags against one bag after the other, cost
against tiles and patients, patients a second from disk with the system's file cache cold and warm, and peak memory
against tiles. A new encoder is a line of ENCODERS.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from nsclc_mtl.bags.cache import BagCache
from nsclc_mtl.config import build, compose, permitted, plain
from nsclc_mtl.encoders.supervised import SupervisedEncoder
from nsclc_mtl.features import store
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Bag, Batch, Features, Target, TaskSpec

TILES, FEATURES, DIM = 8192, 1024, 32
CLASSES = {"grade": 3}
LARGE, MODES = (8192, 65_536, 200_000), ("training", "training, bf16", "evaluation")  # of peak memory
Work = Callable[[], object]


@dataclass
class Encoder:
    """A slide encoder, its arguments, and the widths (in, out) of its products over tiles after the first layer."""

    target: str
    hidden: int | None  # None: nothing is multiplied tile by tile
    options: dict[str, Any] = field(default_factory=dict)
    inner: Sequence[tuple[int, int]] = ()


ENCODERS = {
    "ABMIL 64/32": Encoder("mil.ABMIL", 64, {}, [(64, 32), (64, 32), (32, 1)]),
    "ABMIL 512/256": Encoder("mil.ABMIL", 512, {"hidden": 512, "gate": 256}, [(512, 256), (512, 256), (256, 1)]),
    "mean": Encoder("mil.MeanPool", None),
    "max": Encoder("pooling.MaxPool", 64),
    "CLAM SB": Encoder("clam.CLAM", 64, {"classes": CLASSES}, [(64, 32), (64, 32), (32, 1)]),
    "CLAM MB": Encoder("clam.CLAM", 64, {"classes": CLASSES, "branches": "class"}, [(64, 32), (64, 32), (32, 3)]),
    "DSMIL": Encoder("dsmil.DSMIL", 64, {"classes": CLASSES}, [(64, 3), (64, 32), (64, 64)]),
    # keys, values, queries and what follows them, and keys times values, a head of 16; the convolutions are no product
    "TransMIL": Encoder("transmil.TransMIL", 64, {}, [(64, 64)] * 6 + [(64, 17)] * 3),
}


def made(encoder: Encoder, features: int = FEATURES, **options: Any) -> nn.Module:
    """The encoder in training mode, from the same start each time."""
    torch.manual_seed(0)
    room, name = encoder.target.rsplit(".", 1)
    kind = getattr(importlib.import_module(f"nsclc_mtl.encoders.{room}"), name)
    scale = {"mean": [0.5] * features, "sd": [2.0] * features}
    module: nn.Module = kind(features, DIM, scale=scale, **encoder.options, **options)
    return module.train()


def step(module: nn.Module, bag: Bag, bf16: bool = False) -> Work:
    """One training step: forward and backward, with an encoder's own losses of tiles where it has some."""
    present = torch.ones(len(bag.offsets) - 1, dtype=torch.bool)
    targets = {"grade": Target(present, torch.arange(len(present)).remainder(CLASSES["grade"]).float(), None)}

    def work() -> Tensor:
        module.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            said = module(bag)
            loss = said.vector.float().square().sum()
            if isinstance(module, SupervisedEncoder):
                loss = loss + sum(module.supervise(bag, said, targets, present).values())
        loss.backward()
        return loss.detach()

    return work


def limit(encoder: Encoder, tiles: int = TILES, dtype: torch.dtype = torch.float32) -> tuple[Work, float, str]:
    """The products of a step alone, of the same shapes, their FLOPs and the formula.

    The first layer needs no gradient of the features: forward and one product back; those after it two back.
    """
    if encoder.hidden is None:
        rows, share = torch.randn(tiles, FEATURES).to(dtype), torch.full((1, tiles), 1 / tiles, dtype=dtype)
        return lambda: share @ rows, 2.0 * tiles * FEATURES, f"2*{tiles}*{FEATURES} (the mean as a product)"
    products = [(FEATURES, encoder.hidden, 2), *((a, b, 3) for a, b in encoder.inner)]
    shapes = [((tiles, a), (b, a), (tiles, b), times) for a, b, times in products]
    data = [(*(torch.randn(shape).to(dtype) for shape in three), times) for *three, times in shapes]

    def work() -> None:
        for seen, weight, gradient, times in data:
            seen @ weight.T
            gradient.T @ seen
            if times == 3:
                gradient @ weight

    flops = sum(2.0 * tiles * a * b * times for a, b, times in products)
    many = Counter(products)
    terms = " + ".join(f"{times * n}*{a}*{b}" for (a, b, times), n in many.items())
    return work, flops, f"2*{tiles}*({terms})"


def alternated(ways: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of the processor of every way, round by round, after one that warms up.

    Nothing here waits, and there is one thread: on a machine of one's own these are the seconds of the clock.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, work in ways.items():
            began = time.process_time()
            work()
            if turn:
                times[name].append(time.process_time() - began)
    return times


def ratio(times: dict[str, list[float]], above: str, below: str) -> float:
    """Median over rounds of how much longer `above` took than `below`."""
    return float(np.median(np.array(times[above]) / np.array(times[below])))


def bag_of(sizes: Sequence[int], features: int = FEATURES, seed: int = 0) -> Bag:
    """Packed bags of random features in half precision."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    return Bag((torch.randn(int(offsets[-1]), features, generator=generator) * 2 + 0.5).half(), offsets)


def against_products(rounds: int, console: Console) -> None:
    """Every encoder against its products, and in bf16 against its own single precision."""
    single, half = Table(title=f"training step, {TILES} tiles x {FEATURES}, 4 patients, single precision"), Table()
    half.title = "the same in bf16, against single precision; products: the same of their products alone"
    for table, words in (
        (single, ("encoder", "step ms", "tiles/s", "products ms", "share of limit", "GFLOP")),
        (half, ("encoder", "step ms", "tiles/s", "products ms", "share of limit", "step faster", "products faster")),
    ):
        for word in words:
            table.add_column(word)
    bag, formulas = bag_of([TILES // 4] * 4), []
    for name, encoder in ENCODERS.items():
        module, (products, flops, formula) = made(encoder), limit(encoder)
        ways = {"products": products, "step": step(module, bag)}
        if has_bf16():
            ways |= {
                "bf16 products": limit(encoder, dtype=torch.bfloat16)[0],
                "bf16 step": step(module, bag, bf16=True),
            }
        times = alternated(ways, rounds)
        for table, kind in ((single, ""), (half, "bf16 ")):
            if kind and not has_bf16():
                continue
            seconds, limited = (float(np.median(times[kind + way])) for way in ("step", "products"))
            share = ratio(times, f"{kind}products", f"{kind}step")
            table.add_row(
                name, f"{1e3 * seconds:.1f}", f"{TILES / seconds:,.0f}", f"{1e3 * limited:.1f}", f"{share:.2f}",
                *([f"{ratio(times, way, f'bf16 {way}'):.2f}" for way in ("step", "products")] if kind else
                  [f"{flops / 1e9:.2f}"]),
            )  # fmt: skip
        formulas.append(f"{name}: FLOP = {formula}")
    console.print(single)
    console.print("\n".join(formulas), highlight=False)
    console.print(half if has_bf16() else "bf16: this processor has no avx512_bf16 or amx_bf16; not measured")


def has_bf16() -> bool:
    """Whether the processor multiplies in bf16."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and any(word in cpuinfo.read_text() for word in ("avx512_bf16", "amx_bf16"))


def packed(rounds: int, console: Console, patients: int = 16, tiles: int = 500, features: int = FEATURES) -> None:
    """A packed batch against the same bags one after the other: the encoder's gradients alone, and training steps.

    Gradients: the same sum over the bags either way, checked first; no step of an optimiser. Training: what `mtl train`
    of slides alone with `optim.batch_size` 1 or `patients` does with a batch that is read: encoder, fusion, a grade and
    a survival task, their balanced loss, its gradient and a step of the optimiser.
    """
    table = Table("encoder", "features", "precision", title=f"{patients} bags of {tiles} tiles, packed and one by one")
    for word in ("gradients: alone ms", "packed ms", "faster", "training: alone ms", "packed ms", "faster"):
        table.add_column(word)
    for name, encoder in ENCODERS.items():
        for width in (features, 128):
            whole = bag_of([tiles] * patients, width)
            bags = [Bag(rows, torch.tensor([0, tiles])) for rows in whole.features.split(tiles)]
            for bf16 in (False, True) if has_bf16() else (False,):
                ways: dict[str, Work] = {}
                for way, batches in (("alone", bags), ("packed", [whole])):
                    ways[f"{way}, gradients"] = gradients(made(encoder, width, dropout=0.0), batches, bf16)
                    ways[f"{way}, training"] = training(made(encoder, width), batches, bf16)
                loose = 2e-2 if bf16 else 1e-4
                torch.testing.assert_close(
                    ways["alone, gradients"](), ways["packed, gradients"](), rtol=loose, atol=1e-5
                )
                times, row = alternated(ways, rounds), [name, str(width), "bf16" if bf16 else "fp32"]
                for what in ("gradients", "training"):
                    pair = (f"alone, {what}", f"packed, {what}")
                    row += [f"{1e3 * np.median(times[way]):.1f}" for way in pair] + [f"{ratio(times, *pair):.2f}"]
                table.add_row(*row)
    console.print(table)


def gradients(module: nn.Module, batches: Sequence[Bag], bf16: bool) -> Work:
    """Forward and backward of one batch after the other; the losses' sum."""

    def work() -> Tensor:
        module.zero_grad()
        losses = []
        for bag in batches:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                loss = module(bag).vector.float().square().sum()
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    return work


def training(encoder: nn.Module, bags: Sequence[Bag], bf16: bool) -> Work:
    """Steps of a learner of that encoder, one batch after the other."""
    learner = learner_of(encoder)
    optimiser = learner.optimizer(learner.parameters())
    batches = [batch_of(bag) for bag in bags]

    def work() -> None:
        for number, batch in enumerate(batches):
            optimiser.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                loss = learner.training_step(batch, number)
            loss.backward()
            optimiser.step()

    return work


def learner_of(encoder: nn.Module) -> Learner:
    """The learner of slides alone with a grade and a survival task, of the shipped configuration."""
    cfg = plain(compose("train", ["model=abmil"]))
    specs = [TaskSpec("grade", "ordinal", ("1", "2", "3")), TaskSpec("os", "survival")]
    names, patients = [spec.name for spec in specs], np.arange(200)
    fusion = build(cfg["fusion"], modalities=["wsi"], tasks=names, dim=DIM)
    tasks = {}
    for spec in specs:
        kind = permitted(cfg["parts"]["tasks"][spec.kind]["_target_"])
        value = 10.0 * (patients + 1) if spec.kind == "survival" else patients % 3.0
        tasks[spec.name] = kind(spec, fusion.view_dim, kind.fit(spec, value, patients % 2.0))
    balance, optimizer = build(cfg["balance"], tasks=names), build(cfg["optim"]["optimizer"])
    return Learner({"wsi": encoder}, fusion, tasks, balance, optimizer).train()


def batch_of(bag: Bag) -> Batch:
    """The patients of a packed bag with a grade and a time each, one event in two."""
    order = torch.arange(len(bag.offsets) - 1)
    there = torch.ones(len(order), dtype=torch.bool)
    targets = {
        "grade": Target(there, order.remainder(3).float()),
        "os": Target(there, 100.0 * (order + 1), order.remainder(2).float()),
    }
    return Batch([str(int(i)) for i in order], {"wsi": bag}, {"wsi": there}, targets)


def growth(rounds: int, console: Console) -> None:
    """Seconds of a step against tiles of one patient, and against patients of 500 tiles; exponent of a log-log line."""
    for what, counts in (("tiles", (1024, 4096, 16384, 65536)), ("patients", (4, 16, 64))):
        table = Table("encoder", *map(str, counts), "exponent", title=f"ms of a training step against {what}")
        bags = {n: bag_of([n] if what == "tiles" else [500] * n) for n in counts}
        for name, encoder in ENCODERS.items():
            module = made(encoder)
            times = alternated({str(n): step(module, bag) for n, bag in bags.items()}, rounds)
            median = [float(np.median(times[str(n)])) for n in counts]
            slope = np.polyfit(np.log(counts), np.log(median), 1)[0]
            table.add_row(name, *(f"{1e3 * t:.1f}" for t in median), f"{slope:.2f}")
        console.print(table)


def from_disk(console: Console, patients: int = 16, tiles: int = 12_000, drawn: int = 4096) -> None:
    """Patients a second from feature files, with the system's file cache cold (where it can be dropped) and warm, whole
    bags and drawn tiles, against reading all through HDF5 and taking the rows then."""
    import h5py

    def draw(n: int) -> np.ndarray:
        return np.sort(np.random.default_rng(n).choice(n, drawn, replace=False))

    def through_hdf5(path: str) -> np.ndarray:
        with h5py.File(path, "r") as file:
            values, coords = file["features"][()], file["coords"][()]
        rows: np.ndarray = values[np.lexsort((coords[:, 0], coords[:, 1]))][draw(tiles)]
        return rows

    with tempfile.TemporaryDirectory() as folder:
        rng, paths = np.random.default_rng(0), []
        for i in range(patients):
            order = np.arange(tiles)
            coords = np.stack([order % 100, order // 100], axis=1) * 256
            values = rng.normal(size=(tiles, FEATURES)).astype(np.float16)
            paths.append(str(Path(folder) / f"p{i}.h5"))
            store.write(Path(paths[-1]), Features(values, coords, {}))
        np.testing.assert_array_equal(BagCache(0)([paths[0]], draw=draw)[0], through_hdf5(paths[0]))
        ways = {
            "all through HDF5, then drawn": lambda: [through_hdf5(path) for path in paths],
            "whole bags": lambda: [BagCache(0)([path]) for path in paths],
            f"{drawn} drawn tiles": lambda: [BagCache(0)([path], draw=draw) for path in paths],
        }
        kept = BagCache(10**10)
        _ = [kept([path]) for path in paths]
        table = Table("way", "cold", "MB read", "warm", title=f"patients/s, {tiles} tiles x {FEATURES} a patient")
        for name, work in (ways | {"drawn from bags in memory": lambda: [kept([p], draw=draw) for p in paths]}).items():
            before, cold = _read_mb(), 0.0 if "memory" in name else patients / _timed(work, paths)
            table.add_row(
                name, f"{cold:.1f}" if cold else "-", f"{_read_mb() - before:.0f}",
                f"{patients / float(np.median([_timed(work) for _ in range(3)])):.1f}",
            )  # fmt: skip
        console.print(table)
        console.print(
            "cold: the files' pages were given up before; MB read: what then came from the device, by the system"
        )


def _timed(work: Work, cold: Sequence[str] = ()) -> float:
    for path in cold:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)  # the system may keep what it likes
        os.close(handle)
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _read_mb() -> float:
    """MB that this process made the system fetch from a device; NaN where it does not say."""
    said = (int(line.split()[1]) for line in _lines("/proc/self/io") if line.startswith("read_bytes"))
    return next(said, float("nan")) / 1e6


def memory(console: Console) -> None:
    """Peak memory of a process: what a training step and an evaluation add to the libraries and the features."""
    table = Table("encoder", "mode", *(f"{n:,} tiles" for n in LARGE), title="peak MB beside libraries and features")
    table.add_row("(features)", "", *(f"{tiles * FEATURES * 2 / 1e6:.0f}" for tiles in LARGE))
    for name in ENCODERS:
        for mode in MODES:
            words = [sys.executable, __file__, "--peak", name, mode]
            beside = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
            table.add_row(name, mode, *beside)
    console.print(table)


def peak(name: str, mode: str) -> None:
    """Prints the MB that steps of more and more tiles take beside the features; run in a process of its own."""
    module, bf16 = made(ENCODERS[name]), "bf16" in mode
    step(module, bag_of([256]), bf16)()  # what libraries hold after a first step is theirs
    some = torch.randn(1024, FEATURES)
    features = torch.cat([some.half()] * (max(LARGE) // 1024 + 1))
    before = _memory("VmRSS")
    for tiles in LARGE:
        bag = Bag(features[:tiles], torch.tensor([0, tiles]))
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
        if mode == "evaluation":
            with torch.no_grad():
                module.eval()(bag)
        else:
            step(module, bag, bf16)()
        print(f"{max(0.0, _memory('VmHWM') - before):.0f}")


def _memory(word: str) -> float:
    return next(int(line.split()[1]) for line in _lines("/proc/self/status") if line.startswith(word)) * 1.024e-3


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []


PARTS = ("products", "packed", "growth", "disk", "memory")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--encoders", default=",".join(ENCODERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    torch.set_num_threads(1)
    if words.peak:
        return peak(*words.peak)
    console, parts = Console(width=130), words.parts.split(",")
    model = next((row.split(": ")[1] for row in _lines("/proc/cpuinfo") if row.startswith("model name")), "?")
    console.print(f"{model}, torch {torch.__version__}, one thread; load of the machine {os.getloadavg()[0]:.1f}")
    if unknown := set(parts) - set(PARTS):
        raise SystemExit(f"no part {sorted(unknown)}: {', '.join(PARTS)}")
    if unknown := set(wanted := words.encoders.split(",")) - set(ENCODERS):
        raise SystemExit(f"no encoder {sorted(unknown)}: {', '.join(ENCODERS)}")
    for name in set(ENCODERS) - set(wanted):
        del ENCODERS[name]
    if "products" in parts:
        against_products(words.rounds, console)
    if "packed" in parts:
        packed(words.rounds, console)
    if "growth" in parts:
        growth(words.rounds, console)
    if "disk" in parts:
        from_disk(console)
    if "memory" in parts:
        memory(console)
    return None


if __name__ == "__main__":
    main()
