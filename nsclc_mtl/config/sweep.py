"""A grid of runs, one process each: memory and seeds are clean, and one failed run does not end the grid."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nsclc_mtl.records import Fault

from .overrides import parse
from .resolved import to_yaml
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

    `model=abmil,moe_mil seed=0,1` gives four runs. All of them are composed before the first one starts.
    """
    try:
        grid = expand(verb, overrides)
        for words in grid:
            cfg = compose(verb, words, conf_dirs)
            if show:
                print(f"--- # {' '.join(words)}\n{to_yaml(cfg)}", end="")
    except Fault as fault:
        for line in str(fault).splitlines():
            print(f"mtl: {line}", file=sys.stderr)
        return fault.exit_code
    if show:
        return 0
    rows = [_one(verb, words, [*options, *(f"--conf={folder}" for folder in conf_dirs)], command) for words in grid]
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
