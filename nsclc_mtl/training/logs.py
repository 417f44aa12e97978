"""Logs of losses and metrics beside the CSV file: TensorBoard, MLflow, Weights & Biases; all inside the run."""

from __future__ import annotations

import fcntl
import functools
import os
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import MLFlowLogger, WandbLogger
from pytorch_lightning.loggers.logger import Logger

from nsclc_mtl.records import UsageFault


class TensorBoard(Logger):
    """One event file, `save_dir/events.out.tfevents.mtl`, as TensorBoard reads it; scalars alone.

    Written by ourselves, a few bytes of framing around a protobuf of three fields (TFRecord and event.proto of
    TensorFlow), and not by TensorBoard's own writer: a fit that goes on from a checkpoint cuts the file back to where
    it was (`size`, `cut`), its name tells no host and no process, and a full disk is told where it happens instead of
    in a thread.
    """

    def __init__(self, save_dir: str, name: str = "", version: int | None = None) -> None:
        super().__init__()
        self.path = Path(save_dir) / "events.out.tfevents.mtl"

    @property
    def name(self) -> str:
        """None: the folder tells which fold and member it is."""
        return ""

    @property
    def version(self) -> None:
        """None: a fit that begins anew begins the file anew."""
        return None

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: `config.yaml` of the run has them."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Appends the metrics of a step."""
        summary = b"".join(
            _field(1, 2, _text(1, name) + _field(2, 5, struct.pack("<f", float(value))))
            for name, value in metrics.items()
        )
        records = b""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            records = _record(_event(0, _text(3, "brain.Event:2")))  # the version that the format asks for
        records += _record(_event(step or 0, _field(5, 2, summary)))
        with self.path.open("ab") as file:
            file.write(records)

    def size(self) -> int:
        """Bytes that are written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Takes back what was logged after the file had this size."""
        if self.size() > size:
            os.truncate(self.path, size)


def _event(step: int, what: bytes) -> bytes:
    """An `Event` of TensorBoard's event.proto: wall time (1), step (2), and what happened."""
    return _field(1, 1, struct.pack("<d", time.time())) + _field(2, 0, _varint(step)) + what


def _field(number: int, wire: int, value: bytes) -> bytes:
    """A field of a protobuf message; wire types: 0 varint, 1 eight bytes, 2 counted bytes, 5 four bytes."""
    return _varint(number << 3 | wire) + (_varint(len(value)) if wire == 2 else b"") + value


def _text(number: int, text: str) -> bytes:
    return _field(number, 2, text.encode())


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _record(data: bytes) -> bytes:
    """A TFRecord: length, its masked CRC-32C, the data, and theirs."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked(length)) + data + struct.pack("<I", _masked(data))


def _masked(data: bytes) -> int:
    crc, table = 0xFFFFFFFF, _crc_table()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _crc_table() -> list[int]:
    """CRC-32C (Castagnoli), reflected, byte by byte."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


class MLflow(MLFlowLogger):
    """One experiment a run, one MLflow run a member of a fold, in the database `mlflow.db` of the run folder.

    Look at it with `mlflow ui --backend-store-uri sqlite:///runs/train/NAME/mlflow.db`. Nothing leaves the machine:
    MLflow's telemetry is switched off. Raises UsageFault where MLflow is not installed.
    """

    def __init__(self, save_dir: str, name: str = "", version: str | None = None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self.run_folder, member = _run_folder(save_dir)
        with _alone(self.run_folder):  # the first one makes the tables
            try:
                super().__init__(
                    experiment_name=self.run_folder.name,
                    run_name=member,
                    tracking_uri=f"sqlite:///{self.run_folder / 'mlflow.db'}",
                    artifact_location=(self.run_folder / "mlflow").as_uri(),
                    run_id=version,
                )
            except ModuleNotFoundError as missing:
                raise _not_installed("mlflow") from missing
            _ = self.experiment


class WeightsAndBiases(WandbLogger):
    """One W&B run a member of a fold, offline in its log folder until `wandb sync` sends it.

    `offline=False` sends it at once, to a service outside: that is for the user to decide. Raises UsageFault where
    wandb is not installed.
    """

    def __init__(
        self,
        save_dir: str,
        name: str = "",
        version: str | None = None,
        project: str = "nsclc_mtl",
        offline: bool = True,
    ) -> None:
        folder, member = _run_folder(save_dir)
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        try:
            super().__init__(
                name=f"{folder.name}/{member}", save_dir=save_dir, version=version, project=project, offline=offline
            )
            from wandb import Settings
        except ModuleNotFoundError as missing:
            raise _not_installed("wandb") from missing
        # its words would stand among ours, and what is printed is kept in log.txt
        self._wandb_init["settings"] = Settings(silent=True, console="off")
        del self._wandb_init["anonymous"]  # of a version of W&B that was; the word alone makes it warn

    def finalize(self, status: str) -> None:
        """Ends the W&B run: the next member of this process would write into it."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


def _run_folder(save_dir: str) -> tuple[Path, str]:
    """The run folder and `fold<k>/log<m>`, from the log folder of a member."""
    folder = Path(save_dir).resolve()
    return folder.parents[1], "/".join(folder.parts[-2:])


def _not_installed(package: str) -> UsageFault:
    return UsageFault(f"logger={package} needs the package {package}: pip install 'nsclc-mtl[tracking]'")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time; the others wait."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
