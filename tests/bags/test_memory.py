"""A slide of 200,000 tiles goes through evaluation in little more memory than its features take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nsclc_mtl.features import store
from nsclc_mtl.records import Features

TILES, DIM = 200_000, 1024
FEATURES_MB = TILES * DIM * 2 / 1e6  # 410
BOUND_MB = 1500.0  # of the whole process, torch, Lightning and pandas among it
BESIDE_MB = 250.0  # beside the libraries and the features

LOOK = """
import json, sys
from pathlib import Path
import numpy as np, pandas as pd, torch
from nsclc_mtl.bags.cache import BagCache
from nsclc_mtl.bags.datamodule import loader
from nsclc_mtl.bags.fitted import Fitted
from nsclc_mtl.encoders.mil import ABMIL, MeanPool
from nsclc_mtl.fusion.skip import mean_tile
from nsclc_mtl.records import Manifest, ModalitySpec, TaskSpec

def peak_mb():  # of this program alone: getrusage counts what the process was before it, too
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1.024e-3

path, dim = sys.argv[1], int(sys.argv[2])
scale = {"mean": [0.5] * dim, "sd": [2.0] * dim}
manifest = Manifest(
    "big", pd.DataFrame({"site": [""]}, index=["p"]), {"t": TaskSpec("t", "binary", ("a", "b"))},
    {"wsi": ModalitySpec("wsi", "bag")}, {"t": pd.DataFrame({"value": [1.0]}, index=["p"])},
    bags={"wsi": {"p": [path]}},
)
encoders = [ABMIL(dim, 32, scale=scale).eval(), ABMIL(dim, 32, 512, 256, scale=scale).eval(),
            MeanPool(dim, 32, scale=scale).eval()]
before, told = peak_mb(), []
with torch.no_grad():
    for batch in loader(manifest, ["p"], Fitted(bags={"wsi": scale}), BagCache()):
        bag = batch.inputs["wsi"]
        for encode in encoders:
            said = encode(bag)
            told.append([len(said.attention), float(said.attention.sum()), bool(torch.isfinite(said.vector).all())])
        mean = mean_tile(bag)
print(json.dumps({"before": before, "peak": peak_mb(), "told": told, "mean": mean[0, :3].tolist()}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_bag_of_200000_tiles_is_evaluated_in_bounded_memory(tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    few = rng.normal(0.5, 2.0, (1000, DIM)).astype(np.float16)
    places = np.arange(TILES)
    coords = np.stack([places % 500, places // 500], axis=1) * 256
    store.write(tmp_path / "big.h5", Features(np.tile(few, (TILES // 1000, 1)), coords, {}))
    command = [sys.executable, "-c", LOOK, str(tmp_path / "big.h5"), str(DIM)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    found = json.loads(done.stdout)
    print(found)
    assert all(tiles == TILES and total == pytest.approx(1, abs=1e-3) and ok for tiles, total, ok in found["told"])
    np.testing.assert_allclose(found["mean"], few.astype(np.float64).mean(0)[:3], atol=1e-3)
    assert found["peak"] < BOUND_MB
    assert found["peak"] - found["before"] < FEATURES_MB + BESIDE_MB
