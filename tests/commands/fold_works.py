"""What jobs do in the place of training, for test_fold_jobs.py: imports little, so that they start fast."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nsclc_mtl.records import DataFault


def each_its_own_way(settings: Mapping[str, Any], fold: int, path: Path) -> None:
    """Fold 0 is done; 1 has a fault of the data; 2 one of the program; 3 is killed, as by a machine without memory."""
    if fold == 1:
        raise DataFault("fold 1: no patient had the event")
    if fold == 2:
        raise KeyError(f"patient {settings['patient']}")
    if fold == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    (path / f"done{fold}").touch()


def slowly(settings: Mapping[str, Any], fold: int, path: Path) -> None:
    time.sleep(1.5)
