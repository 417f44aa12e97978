"""Logs beside the CSV file: TensorBoard and MLflow read back what was written, with their own code."""

from __future__ import annotations

import json
import sqlite3
import struct
from pathlib import Path

import pytest

from nsclc_mtl.commands import checkpoint
from nsclc_mtl.records import UsageFault
from nsclc_mtl.training import logs

LOGGED = [({"train/loss": 1.5, "epoch": 0}, 3), ({"validation/score": 0.625, "train/loss": -2e-5}, 300_000)]


def read(folder: Path) -> list[tuple[int, str, float]]:
    """Step, name and value of every scalar, as TensorBoard's own reader finds them; it checks the sums, too."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    events = list(loader.EventFileLoader(str(folder / "events.out.tfevents.mtl")).Load())
    assert events[0].file_version == "brain.Event:2"
    return [(e.step, v.tag, v.tensor.float_val[0]) for e in events for v in e.summary.value]


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    made = logs.TensorBoard(str(tmp_path / "fold0" / "log0"))
    assert made.size() == 0
    for metrics, step in LOGGED:
        made.log_metrics(metrics, step)
    told = read(tmp_path / "fold0" / "log0")
    assert [(step, tag) for step, tag, _ in told] == [(step, tag) for metrics, step in LOGGED for tag in metrics]
    assert [v for *_, v in told] == pytest.approx([v for metrics, _ in LOGGED for v in metrics.values()], rel=1e-6)


def test_a_fit_that_goes_on_cuts_the_events_back(tmp_path: Path) -> None:
    made = logs.TensorBoard(str(tmp_path))
    made.log_metrics(*LOGGED[0])
    at = checkpoint._position(made)
    made.log_metrics(*LOGGED[1])
    again = logs.TensorBoard(str(tmp_path))
    checkpoint._take_up(again, at)
    again.log_metrics({"train/loss": 7.0}, 4)
    assert [(step, value) for step, _, value in read(tmp_path)] == [(3, 1.5), (3, 0.0), (4, 7.0)]


@pytest.mark.slow
def test_mlflow_keeps_a_run_a_member_in_the_run_folder(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    for fold in ("fold0", "fold1"):
        (tmp_path / "mine" / fold).mkdir(parents=True)
        made = logs.MLflow(str(tmp_path / "mine" / fold / "log0"))
        made.log_metrics({"train/loss": 1.5}, 3)
    again = logs.MLflow(str(tmp_path / "mine" / "fold1" / "log0"), version=checkpoint._position(made)["version"])
    again.log_metrics({"train/loss": 1.25}, 4)
    again.finalize("success")
    with sqlite3.connect(tmp_path / "mine" / "mlflow.db") as base:
        assert [row[0] for row in base.execute("select name from runs order by start_time")] == [
            "fold0/log0",
            "fold1/log0",
        ]
        told = base.execute("select run_uuid, step, value from metrics order by step").fetchall()
        assert base.execute("select name from experiments where name != 'Default'").fetchall() == [("mine",)]
    assert sorted((step, value) for _, step, value in told) == [(3, 1.5), (3, 1.5), (4, 1.25)]
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"mlflow.db", "fold0", "fold1"}


@pytest.mark.slow
def test_wandb_keeps_a_run_a_member_offline(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Members follow each other in one process, and one goes on after it was interrupted."""
    pytest.importorskip("wandb")
    versions = []
    for k, loss in enumerate((1.5, 2.5)):
        made = logs.WeightsAndBiases(str(tmp_path / "mine" / f"fold{k}" / "log0"))
        made.log_metrics({"train/loss": loss}, 3)
        versions.append(checkpoint._position(made)["version"])
        made.finalize("success")
    again = logs.WeightsAndBiases(str(tmp_path / "mine" / "fold1" / "log0"), version=versions[1])
    again.log_metrics({"train/loss": 1.25}, 4)
    again.finalize("success")
    assert len(set(versions)) == 2
    told = [wandb_scalars(file) for k in range(2) for file in wandb_files(tmp_path / "mine" / f"fold{k}" / "log0")]
    assert told == [
        (versions[0], "mine/fold0/log0", [(3, 1.5)]),
        (versions[1], "mine/fold1/log0", [(3, 2.5)]),
        (versions[1], "mine/fold1/log0", [(4, 1.25)]),
    ]
    assert "".join(capfd.readouterr()) == ""


def wandb_files(folder: Path) -> list[Path]:
    """Offline runs of a member, the oldest first."""
    return sorted(folder.rglob("*.wandb"), key=lambda file: file.stat().st_mtime_ns)


def wandb_scalars(file: Path) -> tuple[str, str, list[tuple[int, float]]]:
    """Id, name, and step and loss of a short offline run: W&B's messages, framed as LevelDB frames its logs."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, who, told, at = file.read_bytes(), ("", ""), [], 7
    assert data[:4] == b":W&B"
    while at < len(data):
        _, length, whole = struct.unpack_from("<IHB", data, at)
        assert whole == 1
        record = Record.FromString(data[at + 7 : (at := at + 7 + length)])
        if record.HasField("run"):
            who = (record.run.run_id, record.run.display_name)
        if record.HasField("history"):
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            told.append((row["trainer/global_step"], row["train/loss"]))
    return (*who, told)


def test_a_tracker_that_is_not_installed_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.loggers import mlflow, wandb

    monkeypatch.setattr(wandb, "_WANDB_AVAILABLE", False)
    monkeypatch.setattr(mlflow, "_MLFLOW_AVAILABLE", False)
    (tmp_path / "fold0").mkdir()
    for made in (logs.MLflow, logs.WeightsAndBiases):
        with pytest.raises(UsageFault, match=r"pip install 'nsclc-mtl\[tracking\]'"):
            made(str(tmp_path / "fold0" / "log0"))
