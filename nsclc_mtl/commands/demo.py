"""`mtl demo`: the phantom cohort, and the whole way on it: tile, extract, train, evaluate, predict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.memory import Memory
from nsclc_mtl.records import DataFault, Fault, IntegrityFault, UsageFault

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run

WORDS = ("level", "n", "seed", "missing", "site")


@dataclass
class Step:
    """What a step took."""

    name: str
    seconds: float
    peak_mb: float
    folder: str = ""  # its run folder, relative to where we are


def body(cfg: DictConfig, run: Run) -> None:
    """Makes the cohort (or keeps, or verifies it), then runs the verbs on it and says what came out."""
    from nsclc_mtl.config import plain

    settings = plain(cfg)
    out = Path(settings["out"] or settings["cohort"].get("root") or settings["paths"]["data"])
    if settings["verify"]:
        verify(settings["cohort"], out, run)
        return
    began = time.monotonic()
    with Memory(os.getpid()) as memory:
        made = make_cohort(settings["cohort"], out, run)
    if settings["data_only"]:
        run.done.append(str(out))
        return
    steps = [Step("data" if made else "data (kept)", time.monotonic() - began, memory.peak_mb)]
    steps += walk(settings, out, run)
    _tell(steps, settings, run)


# ---------------------------------------------------------------------------------------------------------------------
# The cohort
# ---------------------------------------------------------------------------------------------------------------------


def make_cohort(cohort: Mapping[str, Any], out: Path, run: Run) -> bool:
    """True where the cohort was made in `out`, False where the same one was there; it appears whole or not at all.

    Raises UsageFault where the folder holds something else, IntegrityFault where its files are incomplete.
    """
    from nsclc_mtl.phantom import compare

    wanted = _identity(cohort)
    if (out / "phantom.json").is_file():
        _same(out, wanted)
        absent = compare.missing_files(out)
        if absent:
            raise IntegrityFault(
                f"'{out}' lacks {absent[0]}{f' and {len(absent) - 1} more files' if len(absent) > 1 else ''}; "
                "delete the folder and repeat"
            )
        run.say(f"cohort: kept the {_words(wanted)} in {out}")
        return False
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageFault(f"'{out}' is not empty and holds no phantom cohort; name another folder with --out DIR")
    run.say(f"cohort: making the {_words(wanted)} in {out}")
    began = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, so that the last step is a rename
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _make(partial / "cohort", wanted)
        if out.exists():
            out.rmdir()
        (partial / "cohort").rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    run.say(f"cohort: made in {time.monotonic() - began:.0f} s, {size / 1e6:.0f} MB")
    return True


def verify(cohort: Mapping[str, Any], out: Path, run: Run) -> None:
    """Compares the cohort in `out` with a fresh one by decoded content; IntegrityFault where they differ."""
    from nsclc_mtl.phantom import compare

    wanted = _identity(cohort)
    if not (out / "phantom.json").is_file():
        raise DataFault(f"no phantom cohort in '{out}'; make it with `mtl demo --data-only --out {out}`")
    _same(out, wanted)
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        fresh = Path(folder) / "cohort"
        _make(fresh, wanted)
        told = compare.differences(out, fresh)
    if told:
        for sentence in told[:20]:
            run.say(sentence)
        raise IntegrityFault(f"{len(told)} files in '{out}' are not those of the {_words(wanted)}; first: {told[0]}")
    run.say(f"{out} holds the {_words(wanted)}: every file agrees with a fresh one")
    run.done.append(str(out))


def _identity(cohort: Mapping[str, Any]) -> dict[str, Any]:
    from nsclc_mtl.phantom.cohort import identity

    if "level" not in cohort:
        raise UsageFault("mtl demo makes the phantom cohort alone; use cohort=phantom")
    return identity(**{key: cohort[key] for key in WORDS}, extras=tuple(cohort.get("extras") or ()))


def _make(folder: Path, wanted: Mapping[str, Any]) -> None:
    from nsclc_mtl.phantom.cohort import EXTRAS, make

    unknown = sorted(set(wanted["extras"]) - set(EXTRAS))
    if unknown:
        raise UsageFault(f"cohort.extras: {unknown[0]!r} is none of {', '.join(sorted(EXTRAS))}")
    try:
        make(folder, **{key: wanted[key] for key in WORDS}, extras=tuple(wanted["extras"]))
    except ValueError as error:
        raise UsageFault(str(error)) from error


def _same(out: Path, wanted: Mapping[str, Any]) -> None:
    try:
        found = json.loads((out / "phantom.json").read_text())
    except ValueError:
        raise IntegrityFault(f"'{out}/phantom.json' cannot be read; delete the folder and repeat") from None
    if found != wanted:
        unlike = ", ".join(f"{k}={found.get(k)} (asked: {v})" for k, v in wanted.items() if found.get(k) != v)
        raise UsageFault(f"'{out}' holds another phantom cohort: {unlike}; name another folder with --out DIR")


def _words(identity: Mapping[str, Any]) -> str:
    return "phantom of {n} patients (level {level}, seed {seed}, missing {missing}, site {site})".format(**identity)


# ---------------------------------------------------------------------------------------------------------------------
# The verbs
# ---------------------------------------------------------------------------------------------------------------------


def walk(settings: Mapping[str, Any], out: Path, run: Run) -> list[Step]:
    """Runs the verbs one after the other, each in a process of its own. Raises what a verb's exit code means."""
    cohort, paths = settings["cohort"], settings["paths"]
    same = [f"cohort.{key}={cohort[key]}" for key in WORDS]
    same += [f"cohort.extras=[{','.join(cohort.get('extras') or [])}]", f"cohort.root={out}"]
    where = [f"paths.out={paths['out']}", f"paths.runs={paths['runs']}"]
    common = [*where, f"seed={settings['seed']}", f"device={settings['device']}"]
    images = cohort["level"] == "images"
    steps: list[Step] = []

    def step(verb: str, *words: str) -> str:
        steps.append(_process(verb, [*words, *(settings["verbs"].get(verb) or [])], run))
        return steps[-1].folder

    if images:
        step("tile", str(out / "slides"), *where)
        step("extract", *same, *where)
    trained = step("train", *same, *common, f"folds.n={settings['folds']}")
    step("evaluate", f"ckpt={trained}", *where)
    step("predict", f"ckpt={trained}", f"cohort.root={out}", *where)
    return steps


def _process(verb: str, words: Sequence[str], run: Run) -> Step:
    command = [sys.executable, "-m", "nsclc_mtl", verb, *words]
    run.say(f"\nmtl {verb} {' '.join(words)}", style="bold")
    environment = {key: value for key, value in os.environ.items() if key != "MTL_RUN"}
    began, folder = time.monotonic(), ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**environment, "PYTHONUNBUFFERED": "1"}, errors="replace"
    ) as process, Memory(process.pid) as memory:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("run: "):
                    folder = os.path.relpath(line.removeprefix("run: ").strip())
                run.say(f"  {line.rstrip()}")
        except BaseException:  # an interrupt ends the step with us
            process.terminate()
            raise
    step = Step(verb, time.monotonic() - began, memory.peak_mb, folder)
    if process.returncode != 0:
        kinds = {kind.exit_code: kind for kind in (UsageFault, DataFault, IntegrityFault)}
        kind = kinds.get(process.returncode, Fault)
        raise kind(f"the demo stopped: `mtl {verb}` ended with exit code {process.returncode}; see {folder or 'above'}")
    run.done.append(verb)
    run.say(f"  {verb}: {step.seconds:.0f} s, peak memory {step.peak_mb:.0f} MB")
    return step


# ---------------------------------------------------------------------------------------------------------------------
# The end
# ---------------------------------------------------------------------------------------------------------------------


def _tell(steps: Sequence[Step], settings: Mapping[str, Any], run: Run) -> None:
    """Two tables (what it took, what came out), the report, and the next thing to try."""
    from rich.table import Table

    took = Table("step", "seconds", "peak memory, MB", title="what it took")
    for step in steps:
        took.add_row(step.name, f"{step.seconds:.0f}", f"{step.peak_mb:.0f}")
    took.add_row("in all", f"{sum(s.seconds for s in steps):.0f}", f"{max(s.peak_mb for s in steps):.0f}")
    run.show(took)
    folders = {step.name: step.folder for step in steps}
    metrics = Path(folders["evaluate"]) / "metrics.json"
    if not metrics.is_file():
        raise IntegrityFault(f"`mtl evaluate` wrote no {metrics}")
    run.show(results(json.loads(metrics.read_text())))
    run.say(f"report: {Path(folders['evaluate']) / 'report.html'}")
    run.say(f"predictions, with maps of what they rest on: {folders['predict']}")
    run.say("the patients in the browser, beside their slides and scans (or: make serve):")
    run.say(f"  mtl serve run={folders['predict']}")
    run.say("next: the same on 400 patients at the level of features, where there is enough to learn from:")
    run.say("  mtl train cohort.level=features cohort.n=400")


def results(written: Any) -> Any:
    """A table a task: the model with its interval, the best floor, and what could be reached at all."""
    from rich.table import Table

    rows = written["rows"] if isinstance(written, dict) else written
    table = Table(
        "task", "metric", "model", "95 % interval", "best floor", "attainable", title="test patients, all folds"
    )
    primary = {"ordinal_auc", "auc", "c_index"}
    chosen = [r for r in rows if r["part"] == "test" and str(r["fold"]) == "all" and r["metric"] in primary]
    for ours in (row for row in chosen if row["model"] == "learner"):
        beside = {r["model"]: r for r in chosen if r["task"] == ours["task"] and r["metric"] == ours["metric"]}
        floors = {m: r["value"] for m, r in beside.items() if m.startswith("floor:") and r["value"] is not None}
        best = max(floors, key=lambda m: floors[m], default="")
        top = beside.get("oracle:attainable", {"value": None})["value"]
        span = "" if ours["lo"] is None else f"{ours['lo']:.2f} to {ours['hi']:.2f}"
        floor = f"{floors[best]:.3f} ({best.removeprefix('floor:')})" if best else ""
        table.add_row(ours["task"], ours["metric"], _number(ours["value"]), span, floor, _number(top))
    return table


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"
