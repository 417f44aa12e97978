"""The floors alone on a declared cohort, ridge and elastic net side by side, without any training.

    python tests/evidence/floors.py tcga_lusc PATH/tcga
    python tests/evidence/floors.py hancock PATH/hancock --floors clinical,pathological,blood,he,stage,'all tables'

Same patients, folds and code as `mtl evaluate`; the split is the one of `mtl train experiment=NAME seed=0`.
"""

from __future__ import annotations

import argparse
import json
import time

import pandas as pd
from threadpoolctl import threadpool_limits


def main() -> None:
    """Prints a line a task, floor and family: metric with its 95 % interval over test patients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("root")
    parser.add_argument("--families", default="ridge,elastic_net")
    parser.add_argument("--floors", default=None, help="names with commas; all by default")
    parser.add_argument("--out", default=None, help="a JSON file for the numbers")
    parser.add_argument("changes", nargs="*", help="overrides of `mtl train`")
    chosen = parser.parse_intermixed_args()

    from nsclc_mtl.commands.cohort import open_cohort, split
    from nsclc_mtl.commands.floors import fit_floors
    from nsclc_mtl.config import compose, plain
    from nsclc_mtl.report.evaluation import judge

    words = [f"experiment={chosen.experiment}", f"cohort.root={chosen.root}", *chosen.changes]
    trained = plain(compose("train", words))
    manifest = open_cohort(trained)
    splits = split(trained, manifest)
    tests = splits[splits["part"] == "test"]
    rows = []
    for family in chosen.families.split(","):
        settings = plain(compose("evaluate", ["ckpt=none", f"floor={family}"]))
        settings["floors"] = chosen.floors.split(",") if chosen.floors else None
        began = time.monotonic()
        said = tests.assign(task="none", output="none", value=0.0)  # which folds there are
        with threadpool_limits(1):
            floors = fit_floors(settings, trained, manifest, splits, said, manifest.tasks)
        seconds = time.monotonic() - began
        floors["fold"] = floors["fold"].astype(str)
        every = list(dict.fromkeys(floors["model"]))
        for task, spec in manifest.tasks.items():
            first = floors[(floors["task"] == task) & (floors["model"] == every[-1])].assign(model="learner")
            own = floors[floors["task"] == task]
            (result,) = judge(pd.concat([first, own]), {task: spec}).values()
            for model, values in result.metrics[result.primary].items():
                at = values.interval()
                if model == "learner":
                    continue
                told = {"family": family, "task": task, "floor": model.removeprefix("floor:")}
                rows.append(told | {"value": at.value, "lo": at.lo, "hi": at.hi})
                print(
                    *(f"{word:18}" for word in told.values()),
                    f"{at.value:.3f} ({at.lo:.3f} to {at.hi:.3f})",
                    flush=True,
                )
        print(f"{family}: {seconds:.0f} s", flush=True)
    if chosen.out:
        with open(chosen.out, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
