"""How many folds are trained at the same time: those that are asked for, as far as the free memory holds them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import memory

if TYPE_CHECKING:
    from nsclc_mtl.config import Run
    from nsclc_mtl.records import Manifest

# Of the process of a fold that holds no tile features, MB: torch, Lightning and tables. Measured on folds of
# 400 phantom patients: 840 to 1,140 at most, of which 290 are files that all processes share.
PROCESS_MB = 1000


def workers(settings: Mapping[str, Any], manifest: Manifest, run: Run) -> int:
    """Folds to train at once: `folds.workers`, or fewer, and a note, where the free memory holds fewer. At least one.

    A fold keeps up to `bag_cache_mb` of the tile features of the cohort. Where the free memory is not known, or none of
    it is needed here (`folds.workers` of one or none), the number stays as it is.
    """
    asked = int(settings["folds"]["workers"])
    free = memory.free_mb()
    if asked <= 1 or free is None:
        return asked
    each = PROCESS_MB + min(features_mb(manifest), float(settings["bag_cache_mb"]))
    held = max(1, min(asked, int(free // each)))
    if held < asked:
        run.say(
            f"note: {free:,.0f} MB of memory are free and a fold may need {each:,.0f}: "
            f"{held} at a time instead of {asked}"
        )
    return held


def features_mb(manifest: Manifest) -> float:
    """Size of all tile features of the cohort, MB; a file that is not there counts nothing."""
    files = {file for bags in manifest.bags.values() for several in bags.values() for file in several}
    return sum(os.path.getsize(file) for file in files if os.path.isfile(file)) / 1e6
