"""Cox by the risk sets of batches against those of all training patients, on the features-level phantom.

    python tests/evidence/cox_modes.py --seeds 20-21        # some minutes on one core

Both modes take the same number of optimiser steps with the configuration that `mtl train model=moe_mil` composes, Cox
for the survival task; each seed is another cohort of 400 with its own five folds. C is the patient-weighted mean of the
C-index within the test parts; seconds are the processor's, of the training alone. In equal steps `exact` looks at every
training patient in each of them, `batch` at the 32 of `optim.batch_size`; `exact` reads 160 at a time, which changes
its seconds and its memory, and not its gradient.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

COX = "survival=cox"


def trained(mode: str, seed: int, n: int, steps: int, out: str, changes: list[str]) -> dict[str, Any]:
    """One cohort, cross-validated in one mode: C, the loss of the whole training part, seconds, and steps a fold."""
    import torch

    from nsclc_mtl.commands.cohort import open_cohort, split
    from nsclc_mtl.commands.members import train_members
    from nsclc_mtl.commands.outputs import predict
    from nsclc_mtl.commands.resume import begin
    from nsclc_mtl.config import compose, plain
    from nsclc_mtl.metrics.survival import c_index
    from nsclc_mtl.tasks.cox import partial_likelihood

    torch.set_num_threads(1)
    words = ["model=moe_mil", "cohort.level=features", f"cohort.n={n}", f"cohort.seed={seed}", f"seed={seed}", COX]
    words += [f"cox.mode={mode}", "logger=none", f"paths.out={out}", f"optim.min_steps={steps}"]
    words += ["optim.batch_size=160"] if mode == "exact" else []
    settings = plain(compose("train", [*words, "trainer.max_epochs=1", f"+trainer.max_steps={steps}", *changes]))
    manifest = open_cohort(settings)
    found: list[tuple[float, float, int]] = []
    seconds = 0.0
    for _, rows in split(settings, manifest).groupby("fold"):
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            members, data = train_members(settings, manifest, rows, begin(Path(folder), {}))
            seconds += time.process_time() - began
        assert members[0].trainer.global_step == steps
        told: dict[str, tuple[float, float]] = {}
        for part in ("train", "test"):
            ids = list(rows.loc[rows["part"] == part, "patient_id"])
            known = manifest.labels["survival"].loc[ids].dropna()
            risk = predict(members, manifest, ids, data)["survival"].loc[known.index, "risk"].to_numpy()
            days, event = known["time_days"].to_numpy(), known["event"].to_numpy()
            loss = partial_likelihood(torch.tensor(risk), torch.tensor(days), torch.tensor(event))
            told[part] = float(c_index(risk, days, event)), float(loss)
        found.append((told["test"][0], told["train"][1], len(known)))
    c, loss, patients = map(np.array, zip(*found, strict=True))
    return {
        "mode": mode, "seed": seed, "steps": steps, "c": float(np.average(c, weights=patients)),
        "train_loss": float(loss.mean()), "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    """Runs both modes on every seed, and prints and saves what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="20-21")
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--steps", type=int, default=140)
    parser.add_argument("--out", default="cox_modes.json")
    parser.add_argument("--work", default="out")
    parser.add_argument("changes", nargs="*", help="overrides of `mtl train`")
    chosen = parser.parse_args()
    first, _, last = chosen.seeds.partition("-")
    results = []
    print(f"{'seed':>4} {'mode':<6} {'steps':>5} {'C':>6} {'loss of the training part':>26} {'seconds':>8}")
    for seed in range(int(first), int(last or first) + 1):
        for mode in ("batch", "exact"):
            found = trained(mode, seed, chosen.n, chosen.steps, chosen.work, chosen.changes)
            results.append(found)
            Path(chosen.out).write_text(json.dumps(results, indent=1))
            row = f"{seed:>4} {mode:<6} {found['steps']:>5} {found['c']:>6.3f} {found['train_loss']:>26.4f}"
            print(f"{row} {found['seconds']:>8.1f}", flush=True)
    by = {mode: {r["seed"]: r["c"] for r in results if r["mode"] == mode} for mode in ("batch", "exact")}
    gain = [by["exact"][seed] - by["batch"][seed] for seed in by["batch"]]
    print(f"C of exact minus batch: mean {np.mean(gain):+.4f}, by seed {', '.join(f'{g:+.4f}' for g in gain)}")


if __name__ == "__main__":
    main()
