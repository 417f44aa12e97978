"""Adaptation to the sites on the features-level phantom: how well the embeddings tell the site, and what it costs.

    python tests/evidence/adaptation.py --seeds 0-1 --out adaptation.json    # a quarter of an hour on two cores
    python tests/evidence/adaptation.py --tell adaptation.json               # the tables of what was found before

Each cohort (n = 400; `site=shift` and `site=confounded`) is trained by `mtl train model=moe_mil` with adaptation=none,
dann and coral, once on random folds and once with each site held out, and judged by `mtl probe ckpt=RUN against=NONE`:
the AUC of a linear probe within the test parts (random folds alone, as a test part of one site has nothing to tell),
and the main metric of every task with the paired change. Intervals are bootstrapped over test patients.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from features_level import seeds

KINDS = ("dann", "coral")
FOLDS = {"random": [], "held out": ["folds.sites=leave_one_out"]}


def judged(site: str, seed: int, how: str, n: int, work: Path, kinds: list[str]) -> list[dict[str, Any]]:
    """A row an adaptation: the site probe and the tasks of one cohort and one kind of folds."""
    from nsclc_mtl.commands import probe, train
    from nsclc_mtl.config import execute

    paths = [f"paths.out={work}", f"paths.runs={work / 'runs'}"]
    cohort = ["cohort.level=features", f"cohort.n={n}", f"cohort.site={site}", f"cohort.seed={seed}", f"seed={seed}"]
    rows = []
    for kind in ("none", *kinds):
        name = f"{site}-{seed}-{how.replace(' ', '-')}-{kind}"
        run = work / "runs" / "train" / name
        if not (run / "metrics.json").is_file():
            words = [*cohort, *FOLDS[how], f"adaptation={kind}", "model=moe_mil", "audit=0", "logger=none"]
            code = execute("train", [*words, "folds.workers=0", *paths, f"name={name}"], lambda: train.body)
            if code:
                raise SystemExit(code)
        if kind == "none":
            before = run
            continue
        found = work / "runs" / "probe" / name / "probe.json"
        if not found.is_file():
            words = [f"ckpt={run}", f"against={before}", f"seed={seed}", *paths, f"name={name}"]
            code = execute("probe", words, lambda: probe.body)
            if code:
                raise SystemExit(code)
        rows.append({"site": site, "seed": seed, "folds": how, "adaptation": kind, **json.loads(found.read_text())})
    return rows


def told(at: dict[str, Any] | None, sign: str = "") -> str:
    """`value (low to high)`."""
    if at is None or at["value"] is None:
        return "-"
    return f"{at['value']:{sign}.3f} ({at['lo']:{sign}.3f} to {at['hi']:{sign}.3f})"


def tell(rows: list[dict[str, Any]]) -> None:
    """Prints the tables."""
    print("\nAUC of telling the site from the joined embeddings of test patients, random folds; chance: sites permuted")
    print(f"{'site':<12}{'seed':>4}  {'adaptation':<12}{'without':<26}{'with':<26}{'change':<30}chance")
    for row in rows:
        for at in row["embeddings"][:1]:
            cells = f"{told(at['against']):<26}{told(at['value']):<26}{told(at['change'], '+'):<30}{told(at['chance'])}"
            print(f"{row['site']:<12}{row['seed']:>4}  {row['adaptation']:<12}{cells}")
    print("\nMain metric of each task, and its change by the adaptation")
    for row in rows:
        for at in row["tasks"]:
            head = f"{row['site']:<12}{row['seed']:>4}  {row['folds']:<10}{row['adaptation']:<8}{at['task']:<10}"
            print(f"{head}{told(at['against']):<26}{told(at['value']):<26}{told(at['change'], '+')}")


def main() -> None:
    """Runs what is asked for, saves after every cohort, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-1")
    parser.add_argument("--sites", default="shift,confounded")
    parser.add_argument("--adaptations", default=",".join(KINDS))
    parser.add_argument("--n", type=int, default=400, help="patients a cohort")
    parser.add_argument("--out", default="adaptation.json")
    parser.add_argument("--work", default="out/adaptation", help="folder of cohorts and runs; those there are kept")
    parser.add_argument("--tell", help="print the tables of this file and run nothing")
    chosen = parser.parse_args()
    if chosen.tell:
        tell(json.loads(Path(chosen.tell).read_text()))
        return
    rows: list[dict[str, Any]] = []
    for seed in seeds(chosen.seeds):
        for site in chosen.sites.split(","):
            for how in FOLDS:
                work = Path(chosen.work).resolve()
                rows += judged(site, seed, how, chosen.n, work, chosen.adaptations.split(","))
                Path(chosen.out).write_text(json.dumps(rows, indent=1) + "\n")
    tell(rows)


if __name__ == "__main__":
    main()
