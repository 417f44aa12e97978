"""A grid of runs, one process or one job each: memory and seeds are clean, and a failed run does not end the grid."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nsclc_mtl.records import Fault, TryAgain, UsageFault

from .frame import Terminated, listening
from .overrides import parse
from .resolved import plain, to_yaml
from .wiring import compose

COMMAND = (sys.executable, "-m", "nsclc_mtl")


def sweep(
    verb: str,
    overrides: Sequence[str],
    *,
    conf_dirs: Sequence[Path] = (),
    options: Sequence[str] = (),
    show: bool = False,
    command: Sequence[str] = COMMAND,
) -> int:
    """Runs every combination of the values; 0 all done, 4 some failed, else the code of the runs.

    `model=abmil,moe_mil seed=0,1` gives four runs. All of them are composed before the first one starts. With
    `engine=submitit` each is a job of its own, and the folds of a job are processes of that job.
    """
    given = [*options, *(f"--conf={Path(folder).resolve()}" for folder in conf_dirs)]
    try:
        grid = expand(verb, overrides)
        for words in grid:
            cfg = compose(verb, words, conf_dirs)
            if show:
                print(f"--- # {' '.join(words)}\n{to_yaml(cfg)}", end="")
        if show:
            return 0
        settings = plain(cfg)
        if (settings.get("engine") or {}).get("name") == "submitit" and "--check" not in options:
            rows = _jobs(verb, grid, given, command, settings)
        else:
            rows = [_one(verb, words, given, command) for words in grid]
    except Fault as fault:
        for line in str(fault).splitlines():
            print(f"mtl: {line}", file=sys.stderr)
        return fault.exit_code
    except Terminated:
        print("mtl: ended by SIGTERM", file=sys.stderr)
        return 143
    if not rows:  # handed over and not waited for
        return 0
    _table(rows)
    failed = [code for _, code, _, _ in rows if code]
    if not failed:
        return 0
    return 4 if len(failed) < len(rows) else failed[0]


def expand(verb: str, overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each run of the grid; a given `name` gets the number of the run appended."""
    choices: list[list[str]] = []
    for override in parse(verb, overrides):
        if override.is_sweep_override():
            sign = "+" if override.is_add() else "++" if override.is_force_add() else ""
            choices.append(
                [f"{sign}{override.get_key_element().lstrip('+')}={v}" for v in override.sweep_string_iterator()]
            )
        else:
            choices.append([str(override.input_line)])
    grid = [list(words) for words in itertools.product(*choices)]
    if len(grid) > 1:
        for number, words in enumerate(grid):
            words[:] = [_numbered(word, number) for word in words]
    return grid


def _numbered(word: str, number: int) -> str:
    return f"name={word[5:].strip(chr(39))}-{number}" if word.startswith("name=") else word


Row = tuple[list[str], int, float, str]


def _one(verb: str, words: list[str], options: Sequence[str], command: Sequence[str]) -> Row:
    """One run in a process of its own; what it prints is passed on."""
    print(f"--- mtl {verb} {' '.join(words)}", flush=True)
    began, folder = time.monotonic(), ""
    with subprocess.Popen([*command, verb, *words, *options], stdout=subprocess.PIPE, text=True) as child:
        try:
            for line in child.stdout or ():
                print(line, end="", flush=True)
                if line.startswith("run: "):
                    folder = line[5:].strip()
        except BaseException:  # an interrupt ends the grid; the child has got the signal too
            child.terminate()
            raise
    return words, child.returncode, time.monotonic() - began, folder


def _jobs(
    verb: str, grid: list[list[str]], options: Sequence[str], command: Sequence[str], settings: Mapping[str, Any]
) -> list[Row]:
    """The runs as jobs of their own; no rows where they are not waited for. Their logs lie under `runs/sweep/`."""
    from nsclc_mtl import jobs

    engine, runs = settings["engine"], Path(settings["paths"]["runs"]).resolve()
    jobs.sound(engine)
    if ("--resume" in options or not engine["wait"]) and not any(word.startswith("name=") for word in grid[0]):
        raise UsageFault("runs are found again by their name: add name=... to --resume and to engine.wait=false")
    digest = hashlib.sha256(repr(grid).encode()).hexdigest()[:6]
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{digest}"
    bare = [[word for word in words if not word.startswith(("engine=", "engine."))] for words in grid]
    grid = [_named(words, f"{stamp}-{k}") for k, words in enumerate(bare)]
    places = [runs / verb / next(word[5:].strip("'") for word in words if word.startswith("name=")) for words in grid]
    for place in places:
        if place.exists() and "--resume" not in options:
            raise UsageFault(f"a run named {place.name!r} exists in {place.parent}: take another name, or add --resume")
    again = ["--resume"] * ("--resume" not in options)  # one queued again goes on, and a run that is not there begins
    folder = runs / "sweep" / stamp
    lines = [[*command, verb, *words, *options, *again] for words in grid]
    calls = [jobs.Call(f"run{k}", folder, functools.partial(jobs.command, line)) for k, line in enumerate(lines)]

    def told(ticket: jobs.Ticket) -> None:
        words = " ".join(grid[int(ticket.key[3:])])
        print(f"--- {ticket} of {engine['cluster']}: mtl {verb} {words}", flush=True)

    if not engine["wait"]:
        for ticket in jobs.hand_over(calls, engine, f"mtl-{stamp}"):
            told(ticket)
        print(f"the jobs go on by themselves; their logs: {folder}. The table: the same words with --resume, later")
        return []
    print(f"logs: {folder}", flush=True)
    rows: dict[int, Row] = {}
    most = int(engine["parallel"] or 1)
    with listening():
        for ticket, end in jobs.work_through(calls, [], engine, f"mtl-{stamp}", most, folder, told):
            k = int(ticket.key[3:])
            code = TryAgain.exit_code if end is None else end.exit_code  # of a job that was lost
            rows[k] = (grid[k], code, (end.seconds if end else None) or 0.0, str(places[k]))
            print(f"--- {ticket} ended with exit code {code}" if end else f"--- {ticket} was lost", flush=True)
    return [rows[k] for k in sorted(rows)]


def _named(words: list[str], name: str) -> list[str]:
    """The words with a name among them, by which the run can go on."""
    return words if any(word.startswith("name=") for word in words) else [f"name={name}", *words]


def _table(rows: Sequence[Row]) -> None:
    shared = set.intersection(*(set(words) for words, *_ in rows))
    told = [metrics(Path(folder) / "metrics.json") if folder else {} for *_, folder in rows]
    tasks = list(dict.fromkeys(task for found in told for task in found))
    heads = [f"{task}\n{next(found[task][0] for found in told if task in found)}" for task in tasks]
    title = f"{len(rows)} run{'s' * (len(rows) > 1)}"
    if tasks:
        title += "; test metrics within the folds, weighted by patients"
    table = Table("run", "exit", *heads, "seconds", "folder", title=title)
    for (words, code, seconds, folder), found in zip(rows, told, strict=True):
        label = " ".join(word for word in words if word not in shared) or " ".join(words)
        values = [found.get(task, ("", None))[1] for task in tasks]
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        table.add_row(label, str(code), *cells, f"{seconds:.0f}", folder, style="red" if code else None)
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def metrics(path: Path) -> dict[str, tuple[str, float | None]]:
    """{task: (its main metric, the learner's value over all folds)} of a run's metrics.json; empty without one."""
    found: dict[str, tuple[str, float | None]] = {}
    if path.is_file():
        for row in json.loads(path.read_text(encoding="utf-8")):
            if row["model"] == "learner" and row["fold"] == "all":  # the main metric of a task stands first
                found.setdefault(row["task"], (row["metric"], row["value"]))
    return found
