"""`mtl init`: the first files of a study, as templates or drafted from tables that are there."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from nsclc_mtl.records import Fault, UsageFault


def init(folder: Path, tables: Sequence[Path], name: str | None = None) -> int:
    """The exit code of `mtl init`: 0, or 2 where a file is in the way, or 3 where a table cannot be read."""
    try:
        made = drafted(folder, tables, name) if tables else templates(folder, name)
        write(made)
    except Fault as fault:
        print(f"mtl: {fault}", file=sys.stderr)
        return fault.exit_code
    for path in made:
        print(f"wrote {path}")
    conf = next(path for path in made if path.suffix == ".yaml")
    print("fill in what is marked, then look at it:" if tables else "replace the examples, then look at it:")
    print(f"  mtl check --conf {_word(conf.parent.parent)} cohort={conf.stem}")
    return 0


def templates(folder: Path, name: str | None) -> dict[Path, str]:
    """Template tables with example rows, and the declaration that fits them."""
    from nsclc_mtl.cohort import templates

    word = study(folder, name)
    made = {folder / file: text for file, text in templates.TABLES.items()}
    return {**made, _conf(folder, word): templates.cohort(word, str(folder.resolve()))}


def drafted(folder: Path, tables: Sequence[Path], name: str | None) -> dict[Path, str]:
    """The declaration drafted from tables, which stay where they are."""
    from nsclc_mtl.cohort.draft import draft
    from nsclc_mtl.tables.read import read_text

    absent = [str(path) for path in tables if not path.is_file()]
    if absent:
        raise UsageFault(f"no table '{absent[0]}'; `mtl init DIR --from A.csv B.csv` names tables that are there")
    word = study(folder, name)
    paths = [path.resolve() for path in tables]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    frames = {path.relative_to(root).as_posix(): read_text(path) for path in dict.fromkeys(paths)}
    return {_conf(folder, word): draft(word, str(root), frames)}


def study(folder: Path, name: str | None) -> str:
    """The name of the study: as given, or that of its folder in letters, digits and _."""
    word = name or re.sub(r"\W+", "_", folder.resolve().name, flags=re.ASCII).strip("_").lower()
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", word):
        raise UsageFault(f"'{word}' cannot name a study: give letters, digits and _ with --name NAME")
    return word


def write(files: dict[Path, str]) -> None:
    """Writes the files, all or none. Raises UsageFault where one is there already or the folder takes none."""
    there = [str(path) for path in files if path.exists()]
    if there:
        raise UsageFault(f"'{there[0]}' is there already and is not overwritten; take another folder or --name")
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as wrong:
        raise UsageFault(f"'{wrong.filename}' cannot be written: {wrong.strerror}") from None


def _conf(folder: Path, word: str) -> Path:
    return folder / "conf" / "cohort" / f"{word}.yaml"


def _word(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
