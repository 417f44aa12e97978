"""Files of a run: written whole or not at all, and sealed so that none is taken that the training did not write."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nsclc_mtl.records import IntegrityFault, TryAgain

SEAL = "manifest.sha256"
OWN = "settings.yaml"  # of a fold: what differs from the run's configuration
_FOLD = re.compile(r"fold\d+")


def seal(folder: Path) -> None:
    """`manifest.sha256` of a fold, as `sha256sum -c` reads it; torch alone loads a flipped byte in silence."""
    from nsclc_mtl.tables.read import sha256

    own = [folder / OWN] if (folder / OWN).is_file() else []
    files = [folder / "fitted.json", *own, *sorted(folder.glob("model*.ckpt"))]
    with written(folder / SEAL) as aside:
        aside.write_text("".join(f"{sha256(file)}  {file.name}\n" for file in files))


def unbroken(folder: Path) -> None:
    """Raises IntegrityFault where a file of the fold is not the one that the training wrote, before any is loaded."""
    from nsclc_mtl.tables.read import sha256

    try:
        lines = (folder / SEAL).read_text().splitlines()
        sealed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise IntegrityFault(
            f"'{folder.name}/{SEAL}' is missing or damaged: the training did not finish; train again"
        ) from error
    there = {path.name for pattern in ("model*.ckpt", OWN) for path in folder.glob(pattern)}
    for name in sorted({*sealed, *there}):
        if not (folder / name).is_file() or sha256(folder / name) != sealed.get(name):
            raise IntegrityFault(
                f"'{folder.name}/{name}' is not the file that the training wrote (sha256 differs); train again"
            )


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A file of a fold to be written beside its final name, which it gets when it is whole; or nothing is left.

    Raises TryAgain where it cannot be written.
    """
    from nsclc_mtl.features.store import published

    try:
        with published(path) as aside:
            yield aside
    except TryAgain as fault:
        full = isinstance(fault.__cause__, OSError)
        raise TryAgain(unwritable(path, os.strerror(28) if full else str(fault))) from fault
    except OSError as error:
        raise TryAgain(unwritable(path, error.strerror)) from error


def unwritable(path: Path, why: str | None) -> str:
    """What cannot be written, why, and what to do."""
    run = next(above for above in path.parents if not _FOLD.fullmatch(above.name))
    return (
        f"'{path.relative_to(run)}' cannot be written ({why}): make room, or let it be written to, then repeat the "
        f"command with name={run.name} --resume"
    )
