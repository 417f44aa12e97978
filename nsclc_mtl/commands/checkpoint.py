"""Checkpoints of a fit: written whole or not at all, read back before they count, and enough to go on exactly.

Lightning keeps weights, optimiser, schedule, counters and the state of its callbacks. What it leaves out is added here:
the generators of random numbers of every process, and the lines of the CSV log. Taken between two epochs, such a
checkpoint gives on one processor the weights of a fit that was never interrupted, bit by bit.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import random
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.loggers import CSVLogger

from nsclc_mtl.commands.resume import Progress
from nsclc_mtl.commands.sealed import written
from nsclc_mtl.config import build
from nsclc_mtl.records import Fault, IntegrityFault, TryAgain
from nsclc_mtl.training.logs import TensorBoard
from nsclc_mtl.training.ranks import gathered

OURS = "mtl"  # what is added to Lightning's checkpoint lies under this key


class WholeFiles(TorchCheckpointIO):
    """Lightning's reading and writing of checkpoints, made safe. Its own says nothing of a folder that is read-only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """A file of plain types at `path`, read back. `storage_options` may be a function that takes it instead.

        Raises TryAgain where it cannot be written, or does not read back.
        """
        if storage_options is not None:
            storage_options(checkpoint)
        else:
            write(_bytes(checkpoint), Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """The checkpoint at `path`; nothing in it is executed. Raises IntegrityFault where it is not one."""
        return read(Path(path))


def _bytes(checkpoint: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def write(raw: bytes, path: Path) -> None:
    """Writes a checkpoint and reads it back before it gets its name. Raises TryAgain where that does not succeed."""
    with written(path) as aside:
        aside.write_bytes(raw)
        if aside.read_bytes() != raw:
            raise TryAgain("it did not read back as written")
        try:
            read(aside)
        except IntegrityFault as fault:  # the bytes are there: something in them is no plain type
            raise RuntimeError("a checkpoint holds more than plain types: a callback's state?") from fault


def read(path: Path) -> dict[str, Any]:
    """A checkpoint on the processor, of plain types only. Raises IntegrityFault where it is damaged or holds others."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, key and runtime errors alike for a file that is not ours
        raise IntegrityFault(
            f"the checkpoint '{path.parent.name}/{path.name}' does not load: it was changed, or is of another version"
        ) from error


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of the weights and buffers of a model, in the order of the names.

    The same seed on the same machine gives the same; the checkpoint's own digest tells of its time and place as well.
    """
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Resumable(pl.Callback):
    """Writes the state of a fit between two epochs, and takes it up again.

    `every_s` seconds lie at least between two files (0: after every epoch). In between the state of the last finished
    epoch is kept in memory, and written where a signal or a fault ends the fit.
    """

    def __init__(self, progress: Progress, member: int, every_s: float) -> None:
        self.progress, self.member, self.every_s = progress, member, every_s
        self._last = time.monotonic()
        self._begun = 0  # the epoch that the fit began with
        self._between = False  # True while the checkpoint that is made is ours, not the last one of the fit
        self._kept: tuple[int, dict[str, Any]] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """With `max_steps` Lightning takes every checkpoint for one from the middle of an epoch; ours never are."""
        trainer.fit_loop.epoch_loop.restarting = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The state as it is now, before anything of the epoch has happened: that of the end of the one before."""
        if trainer.current_epoch == self._begun:
            return
        self._between = True
        try:
            trainer.save_checkpoint(self.progress.folder / "unused", storage_options=self._take)
        finally:
            self._between = False
        if time.monotonic() - self._last >= self.every_s:
            self._write()
        elif self._kept:
            self._kept = self._kept[0], _apart(self._kept[1])  # the weights are about to move

    def _take(self, checkpoint: dict[str, Any]) -> None:
        self._kept = int(checkpoint["epoch"]), checkpoint

    def _write(self) -> None:
        if self._kept:
            epoch, checkpoint = self._kept
            raw = _bytes(checkpoint)
            self.progress.reached(self.member, epoch, raw, write)
            self._kept, self._last = None, time.monotonic()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """The last finished epoch is not lost."""
        with suppress(OSError, Fault):  # where the disk is full, the file before this one stays
            self._write()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds what Lightning leaves out."""
        if self._between:
            epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]
            for count in (epochs["current"], epochs["total"]):
                count["ready"] = count["completed"]  # the epoch that is about to start has not
            logs = [_position(logger) for logger in trainer.loggers]
            checkpoint[OURS] = {"random": gathered(random_state()), "logs": logs}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes up the logs and, since nothing draws between here and the epoch's loader, the random numbers."""
        self._begun = int(checkpoint["epoch"])
        if trainer.is_global_zero:  # the others have no logs
            for logger, log in zip(trainer.loggers, checkpoint[OURS]["logs"], strict=True):
                _take_up(logger, log)
        set_random_state(checkpoint[OURS]["random"][trainer.global_rank])


def _apart(part: Any) -> Any:
    """A copy that shares no tensor: `deepcopy` takes several times as long, and small models have short epochs."""
    if isinstance(part, torch.Tensor):
        return part.detach().clone()
    if isinstance(part, dict):
        made = copy.copy(part)  # also the versions that torch hangs on a state of weights
        made.update((key, _apart(value)) for key, value in part.items())
        return made
    if isinstance(part, (list, tuple)):
        return type(part)(_apart(value) for value in part)
    return part


def random_state() -> dict[str, Any]:
    """State of the generators of torch (processor and GPUs), NumPy and Python, as tensors and a few plain values."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  the one that libraries draw from
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "python": [version, torch.tensor(words), gauss],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Takes up what `random_state` gave."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))


def _position(logger: Any) -> dict[str, Any]:
    """Where a log is: its folder or run, the lines of a CSV log so far, the size of TensorBoard's file.

    Others only ever append.
    """
    at: dict[str, Any] = {"version": logger.version, "lines": "", "size": 0}
    if isinstance(logger, CSVLogger):
        logger.save()
        file = Path(logger.experiment.metrics_file_path)
        at["lines"] = file.read_text() if file.is_file() else ""
    if isinstance(logger, TensorBoard):
        at["size"] = logger.size()
    return at


def _take_up(logger: Any, at: Mapping[str, Any]) -> None:
    """Puts lines back in front of those that will come; what was logged after the checkpoint is logged again."""
    if isinstance(logger, TensorBoard):
        logger.cut(at["size"])
    if isinstance(logger, CSVLogger):
        rows = csv.DictReader(io.StringIO(at["lines"]))
        logger.experiment.metrics_keys = list(rows.fieldnames or [])
        logger.experiment.metrics = list(rows)


def loggers(settings: Mapping[str, Any], folder: Path, point: Path | None) -> list[Any]:
    """The loggers of a member in its log folder; they go on where those of the checkpoint `point` were, if any."""
    if point is None:
        shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed in its first epoch
    nodes = list((settings.get("logger") or {}).values())
    versions = [None] * len(nodes) if point is None else [log["version"] for log in read(point)[OURS]["logs"]]
    return [
        build(node, save_dir=str(folder), name="", **({} if version is None else {"version": version}))
        for node, version in zip(nodes, versions, strict=True)
    ]
