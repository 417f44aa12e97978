"""A fold trained by several processes: this one, which is rank 0, and those that it starts for the time of the fit.

They are started here and not by Lightning, which would start the command line again for each (see ADR 009). Each builds
the same data and model from the settings, trains on its share of every batch, and leaves; only rank 0 writes, and it
predicts alone.
"""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import connection, get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from nsclc_mtl import signals
from nsclc_mtl.records import Fault, TryAgain, UsageFault

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.bags.datamodule import Share
    from nsclc_mtl.commands.resume import Progress

LEAVE_S = 60.0  # what the others get to leave in after the last member


def processes(settings: Mapping[str, Any]) -> int:
    """Number of processes that train a fold together: `trainer.devices` of `trainer=ddp`, else 1. Raises UsageFault."""
    strategy, devices = settings["trainer"].get("strategy") or "auto", settings["trainer"].get("devices") or 1
    if strategy not in ("auto", "ddp"):
        raise UsageFault(f"trainer.strategy={strategy} is none of auto, ddp")
    if strategy == "auto":
        return 1
    if not isinstance(devices, int) or devices < 1:
        raise UsageFault(f"trainer.devices={devices!r} must be the number of processes, 1 or more")
    return devices


@contextmanager
def together(settings: Mapping[str, Any], rows: pd.DataFrame, progress: Progress) -> Iterator[Share]:
    """The share of this process in a fold; within, the other processes train with it.

    Raises UsageFault where there are fewer GPUs than processes, and TryAgain where one of them was killed.
    """
    from nsclc_mtl.bags.datamodule import Share

    of = processes(settings)
    if of == 1:
        yield Share()
        return
    import torch

    from nsclc_mtl.commands import device
    from nsclc_mtl.training.ranks import joined

    on = device.backend(settings["device"], of)
    context, others, lines = get_context("spawn"), [], []
    gone: list[str] | None = None  # those that had ended before any was ended from here
    with TemporaryDirectory(prefix="mtl-ranks-") as folder:
        meeting = Path(folder) / "meeting"
        try:
            for rank in range(1, of):
                ours, theirs = context.Pipe(duplex=False)
                given = (settings, rows, replace(progress), Share(rank, of), meeting, torch.get_num_threads(), theirs)
                process = context.Process(target=follow, args=given, name=f"rank {rank}", daemon=True)
                with signals.unheard(signal.SIGUSR1, signal.SIGUSR2):  # SLURM tells all processes of a job
                    signals.undisturbed(process.start)
                others.append(process)
                lines.append(ours)
            for line, process in zip(lines, others, strict=True):
                connection.wait([line, process.sentinel])
                if not line.poll() or line.recv() != "ready":
                    raise EOFError("a rank ended before it was ready")
            with joined(Share(0, of), meeting, on):
                try:
                    yield Share(0, of)
                except BaseException:  # they may wait for a word that does not come, and would be waited for in turn
                    gone = [process.name for process in others if process.exitcode]
                    for process in others:
                        process.kill()
                    raise
            for process in others:
                process.join(LEAVE_S)
        except Exception as wrong:
            gone = gone if gone is not None else [process.name for process in others if process.exitcode]
            if isinstance(wrong, Fault) or not gone:
                raise
            for line in lines:
                with suppress(EOFError):
                    if line.poll():
                        logging.getLogger(__name__).error(line.recv())
            raise TryAgain(
                f"{gone[0]} of the {of} processes of fold {int(rows['fold'].iloc[0])} ended while it trained (was the "
                f"memory full? see log.txt): repeat the command with name={progress.folder.parent.name} --resume"
            ) from wrong
        finally:
            for process in others:
                process.kill()  # those that train have nothing to save
                process.join()


def follow(
    settings: Mapping[str, Any],
    rows: pd.DataFrame,
    progress: Progress,
    share: Share,
    meeting: Path,
    threads: int,
    line: connection.Connection,
) -> None:
    """The life of a rank above 0: trains along, writes nothing, leaves.

    Signals are for rank 0, which ends the step that all are in and keeps the state; it ends this process, too, and this
    process ends with it.
    """
    from nsclc_mtl.commands.pool import end_with_parent

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    import torch

    from nsclc_mtl.commands import device
    from nsclc_mtl.commands.cohort import open_cohort
    from nsclc_mtl.commands.members import train_members
    from nsclc_mtl.training.ranks import joined

    torch.set_num_threads(threads)
    try:
        manifest = open_cohort(settings)
        line.send("ready")
        with joined(share, meeting, device.backend(settings["device"], share.of)):
            train_members(settings, manifest, rows, progress, share)
    except Fault as fault:  # rank 0 has it too, and tells it
        sys.exit(fault.exit_code)
    except Exception:  # mostly that rank 0 is gone; its own fault is for log.txt, which rank 0 writes
        with suppress(OSError):
            line.send(traceback.format_exc())
        sys.exit(1)
