"""The words of a command line as overrides that Hydra reads."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from nsclc_mtl.records import UsageFault


def parse(verb: str, overrides: Sequence[str]) -> list[Override]:
    """The overrides as Hydra reads them; paths with signs that its grammar reserves are quoted first."""
    lines: list[str] = []
    places = 0
    runs: list[str] = []
    for word in overrides:
        if _is_override(word):
            lines.append(_readable(word))
        elif verb == "tile" and places == 0:
            places = 1
            lines.append(f"slides.dir={quoted(word)}")
        elif verb == "serve" and places == 0:
            places = 1
            lines.append(f"run={quoted(str(Path(word).expanduser()))}")
        elif verb == "compare":
            runs.append(quoted(str(Path(word).expanduser())))
        else:
            few = "only `mtl tile DIR`, `mtl serve RUN` and `mtl compare RUN RUN` take bare words"
            hint = few if verb != "tile" else "`mtl tile` takes one folder"
            raise UsageFault(f"{word!r} is not an override: write key=value ({hint})")
    if runs:
        if any(line.startswith("runs=") for line in lines):
            raise UsageFault("the runs are given twice: as words, or as runs=[a,b]")
        lines.append(f"runs=[{','.join(runs)}]")
    parser = OverridesParser.create()
    parsed = []
    for line in lines:
        try:
            override = parser.parse_override(line)
        except HydraException as wrong:
            detail = str(wrong).strip().splitlines()[0]
            raise UsageFault(f"cannot read the override {line!r}: {detail}; quote values that hold signs") from None
        parsed.append(override)
    return parsed


def _is_override(word: str) -> bool:
    return bool(re.match(r"^(~[\w./@-]+$|[+~]{0,2}[A-Za-z_][\w./@-]*=)", word))


def _readable(line: str) -> str:
    """The override with its value quoted where it is a path that Hydra's grammar would not read."""
    key, equals, value = line.partition("=")
    if not equals:
        return line
    if key == "name" and re.fullmatch(r"[\w.+@-]+", value) and value != "null":
        return f"{key}={quoted(value)}"  # 007 and 1e5 are names, not numbers
    if key == "patients" and re.fullmatch(r"\[[\w.+@, -]*\]", value):
        ids = [item.strip() for item in value[1:-1].split(",")]
        return f"{key}=[{','.join(quoted(item) for item in ids if item)}]"  # so are ids
    if value.startswith("~/"):
        return f"{key}={quoted(str(Path(value).expanduser()))}"
    if value.startswith(("/", "./", "../")) or (value and not value.startswith("[") and _exists(value)):
        return f"{key}={quoted(value)}" if re.search(r"[^\w./:\-]", value) and not _sweeps(value) else line
    return line


def _exists(value: str) -> bool:
    try:
        return ("/" in value or os.sep in value) and Path(value).exists()
    except OSError:
        return False


def _sweeps(value: str) -> bool:
    """A comma-separated list of paths, unless the whole is itself a path that exists."""
    return "," in value and not _exists(value)


def quoted(value: str) -> str:
    """The value in quotes, as Hydra reads it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
