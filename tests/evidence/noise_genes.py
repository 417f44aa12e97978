"""Genes selected on pure noise, through `mtl train`: the AUC must be that of a coin.

    python tests/evidence/noise_genes.py                                    # 200 patients x 20,000 genes, 10 seeds
    python tests/evidence/noise_genes.py --patients 60 --genes 2000 --seeds 2 --out noise.json

Each seed is a cohort on disk: labels (two classes, and survival) that have nothing to do with the genes. Every fold
selects its genes on its training patients (`select: univariate`). What `metrics.json` of the run says is averaged over
seeds with a Student t interval. `--select variance` is the comparison without labels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

COHORT = """name: noise
root: {root}
patients: {{file: patients.csv, id: patient_id}}
tasks:
  response: {{kind: binary, column: response, classes: ['no', 'yes']}}
  survival: {{kind: survival, time: days, unit: days, event: status, events: {{dead: 1, alive: 0}}}}
modalities: {{rna: {{kind: omics, file: rna.csv, values: z, select: {select}, keep: {keep}}}}}
"""


def write(folder: Path, patients: int, genes: int, seed: int, select: str, keep: int) -> None:
    """The cohort of a seed: `patients.csv`, `rna.csv` and its declaration."""
    rng = np.random.default_rng(seed)
    ids = [f"P{i:03d}" for i in range(patients)]
    response = rng.permutation(np.arange(patients) % 2)
    days, dead = rng.exponential(700, patients).astype(int) + 1, rng.random(patients) < 0.6
    rows = [
        f"{p},{('no', 'yes')[r]},{d},{'dead' if e else 'alive'}"
        for p, r, d, e in zip(ids, response, days, dead, strict=True)
    ]
    (folder / "patients.csv").write_text("\n".join(["patient_id,response,days,status", *rows]) + "\n")
    values = rng.normal(size=(patients, genes)).round(4)
    with (folder / "rna.csv").open("w") as file:
        file.write("patient_id," + ",".join(f"G{i}" for i in range(genes)) + "\n")
        for patient, row in zip(ids, values.tolist(), strict=True):
            file.write(f"{patient}," + ",".join(map(str, row)) + "\n")
    conf = folder / "conf" / "cohort"
    conf.mkdir(parents=True)
    (conf / "noise.yaml").write_text(COHORT.format(root=folder, select=select, keep=keep))


def one(seed: int, chosen: argparse.Namespace) -> dict[str, float]:
    """What `mtl train` says of the tasks on the cohort of a seed, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, chosen.patients, chosen.genes, seed, chosen.select, chosen.keep)
        words = [
            "train", "--conf", "conf", "cohort=noise", "model=moe_mil", f"seed={seed}", "name=it", "folds.n=5",
            "folds.workers=0", "audit=0", "logger=none", "device=cpu", *chosen.changes,
        ]  # fmt: skip
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "nsclc_mtl", *words], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"mtl train ended with {done.returncode}: {done.stderr[-2000:]}")
        rows = json.loads((folder / "runs" / "train" / "it" / "metrics.json").read_text())
        told = {row["task"]: row["value"] for row in rows if row["fold"] == "all"}
        return {"seed": seed, **told, "seconds": round(time.monotonic() - began, 1)}


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean with its 95 % Student t interval."""
    x = np.array(values)
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else float("nan")
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Runs all seeds, prints and saves what came out; the means by task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--select", default="univariate")
    parser.add_argument("--keep", type=int, default=200)
    parser.add_argument("--out", default="noise_genes.json")
    parser.add_argument("changes", nargs="*", help="overrides of `mtl train`")
    chosen = parser.parse_args(arguments)
    rows = []
    for seed in range(chosen.seeds):
        rows.append(one(seed, chosen))
        print(
            ", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()), flush=True
        )
        Path(chosen.out).write_text(json.dumps(rows, indent=1) + "\n")
    means = {}
    for task, metric in (("response", "AUC"), ("survival", "C")):
        mean, low, high = interval([row[task] for row in rows])
        means[task] = mean
        print(f"{task}: mean {metric} {mean:.3f} ({low:.3f} to {high:.3f}) over {len(rows)} seeds")
    return means


if __name__ == "__main__":
    main()
