"""`mtl train` at full strength: early stopping, averages, accumulation, several processes, bf16, one seed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_way import SMALL, Way

from nsclc_mtl.commands import checkpoint, train
from nsclc_mtl.config import execute
from nsclc_mtl.config.frame import Terminated
from nsclc_mtl.learner import Learner
from nsclc_mtl.metrics.classification import expected_class, ordinal_auc
from nsclc_mtl.metrics.survival import c_index

# One step of plain gradient descent on eight patients who all have their grade, without any draw.
ONE_STEP = [
    "modalities=[clinical]", "tasks=[grade]", "fold=0", "audit=0", "+trainer.max_steps=1", "optim.batch_size=8",
    "trainer.gradient_clip_val=null", "optim.optimizer._target_=torch.optim.SGD", "optim.optimizer.lr=0.1",
    "optim.warmup=0", "fusion.dropout=0", "fusion.modality_dropout=0",
]  # fmt: skip
TWO = ["modalities=[wsi,clinical]", "tasks=[grade,survival]", "fold=0", "audit=0", "optim.batch_size=8"]


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """A working folder with a cohort in which every patient has a grade."""
    made = Way(tmp_path_factory.mktemp("training"))
    file = made.data / "patients.csv"
    patients = pd.read_csv(file, dtype=str, keep_default_na=False)
    patients.loc[patients["grade"] == "", "grade"] = "G2"
    patients.to_csv(file, index=False)
    return made


def weights(way: Way, name: str) -> dict[str, torch.Tensor]:
    return checkpoint.read(way.folder(name=name) / "fold0" / "model0.ckpt")["state_dict"]


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of any weight."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def log(way: Way, name: str) -> list[dict[str, str]]:
    with (way.folder(name=name) / "fold0/log0/version_0/metrics.csv").open() as file:
        return list(csv.DictReader(file))


def validation_score(frame: pd.DataFrame) -> float:
    """Mean of the metrics of grade and survival on the validation part, from what was predicted of it."""
    rows = frame[frame["part"] == "validation"]
    grade = rows[(rows["task"] == "grade") & (rows["target"] != "")]
    proba = grade.pivot_table(index="patient_id", columns="output", values="value")
    label = grade.groupby("patient_id")["target"].first().str[1].astype(int) - 1
    risk = rows[(rows["output"] == "risk") & (rows["event"] != "")]
    days, event = risk["time_days"].astype(float), risk["event"].astype(float)
    each = [ordinal_auc(label, expected_class(proba)), c_index(risk["value"], days, event)]
    return float(np.nanmean(each))


# ---------------------------------------------------------------------------------------------------------------------
# Early stopping and averages
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("callbacks", ["early_stopping", "[early_stopping,ema]"])
def test_the_best_epoch_predicts(way: Way, callbacks: str) -> None:
    name = "stop" + str(len(callbacks))
    words = ["folds.validation=0.4", "trainer.max_epochs=30", "logger=csv", f"callbacks={callbacks}"]
    assert way.train(name, *TWO, *words, "callbacks.early_stopping.patience=3", "optim.optimizer.lr=0.02") == 0
    told = [float(row["validation/score"]) for row in log(way, name) if row["validation/score"]]
    best = int(np.argmax(told))
    assert len(told) == best + 4 < 30
    assert validation_score(way.table(name=name)) == pytest.approx(told[best], abs=1e-6)
    saved = checkpoint.read(way.folder(name=name) / "fold0" / "model0.ckpt")
    assert [s["best_epoch"] for s in saved["callbacks"].values() if "best_epoch" in s] == [best]


def test_each_task_and_their_mean_are_logged(way: Way) -> None:
    rows = [row for row in log(way, "stop14") if row["validation/score"]]
    for row in rows:
        each = [float(row[f"validation/score/{task}"]) for task in ("grade", "survival")]
        assert float(row["validation/score"]) == pytest.approx(np.mean(each), abs=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Steps in parts: accumulated, or of several processes
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stepped(way: Way) -> dict[str, torch.Tensor]:
    """The weights after one step of one process on the whole batch."""
    assert way.train("whole", *ONE_STEP, "logger=csv") == 0
    return weights(way, "whole")


def test_two_halves_of_a_batch_are_the_batch(way: Way, stepped: dict[str, torch.Tensor]) -> None:
    words = ["optim.batch_size=4", "+trainer.accumulate_grad_batches=2"]
    assert way.train("halves", *ONE_STEP, *words) == 0
    assert apart(stepped, weights(way, "halves")) < 1e-6
    assert way.train("half", *ONE_STEP, "optim.batch_size=4") == 0
    assert apart(stepped, weights(way, "half")) > 1e-4


def test_what_is_left_of_an_epoch_is_a_mean_of_its_own(way: Way) -> None:
    """Sixteen patients train: four batches of four, of which a step would take nine."""
    assert way.train("everybody", *ONE_STEP, "optim.batch_size=16") == 0
    assert way.train("left", *ONE_STEP, "optim.batch_size=4", "+trainer.accumulate_grad_batches=9") == 0
    assert apart(weights(way, "everybody"), weights(way, "left")) < 1e-6


@pytest.mark.slow
def test_accumulated_steps_are_counted_as_steps(way: Way) -> None:
    words = [*TWO, "optim.batch_size=4", "+trainer.accumulate_grad_batches=2", "optim.min_steps=7"]
    assert way.train("counted", *words) == 0
    saved = checkpoint.read(way.folder(name="counted") / "fold0" / "model0.ckpt")
    assert 7 <= saved["global_step"] < 7 + 4


@pytest.mark.slow
def test_two_processes_make_the_step_of_one(way: Way, stepped: dict[str, torch.Tensor]) -> None:
    assert way.train("two", *ONE_STEP, "trainer=ddp", "logger=csv") == 0
    assert apart(stepped, weights(way, "two")) < 1e-5
    files = {str(path.relative_to(way.folder(name="two"))) for path in way.folder(name="two").rglob("*")}
    assert {file for file in files if file.startswith("fold0/")} == {
        f"fold0/{name}" for name in (
            "model0.ckpt", "fitted.json", "manifest.sha256", "finished.json", "predictions.csv", "trust.csv",
            "fusion_weights.csv", "log0", "log0/version_0", "log0/version_0/metrics.csv",
        )
    }  # fmt: skip
    one, two = way.table(name="whole"), way.table(name="two")
    assert list(one["patient_id"]) == list(two["patient_id"])  # everybody once
    np.testing.assert_allclose(one["value"], two["value"], atol=1e-5)
    ((loss,), (alone,)) = ([float(row["train/loss"]) for row in log(way, name)] for name in ("two", "whole"))
    assert loss == pytest.approx(alone, abs=1e-6)  # the mean over the patients of both


def test_a_batch_that_cannot_be_dealt_is_refused(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    assert way.train("odd", *ONE_STEP, "trainer=ddp", "optim.batch_size=7") == 2
    assert "optim.batch_size=7" in capsys.readouterr().err
    assert way.train("spawned", *ONE_STEP, "+trainer.strategy=ddp_spawn") == 2
    assert "'ddp_spawn' is none of auto, ddp" in capsys.readouterr().err


def go_on(way: Way, name: str, *words: str, resume: bool = True) -> int:
    given = [f"name={name}", *way.paths, f"cohort.root={way.data}", *SMALL, *words]
    return execute("train", given, lambda: train.body, resume=resume)


def test_variables_of_slurm_change_nothing(
    way: Way, stepped: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"JOB_ID": "7", "JOB_NAME": "mtl", "NTASKS": "2", "NTASKS_PER_NODE": "2", "PROCID": "1", "LOCALID": "1"}
    for word, value in told.items():
        monkeypatch.setenv(f"SLURM_{word}", value)
    assert way.train("slurm", *ONE_STEP) == 0
    assert apart(stepped, weights(way, "slurm")) == 0


SLURM = {
    "JOB_ID": "7", "JOB_NAME": "mtl", "NTASKS": "2", "NTASKS_PER_NODE": "2", "PROCID": "0", "LOCALID": "0",
    "NODEID": "0", "JOB_NUM_NODES": "2", "JOB_NODELIST": "n[1-2]", "STEP_NODELIST": "n[1-2]",
    "SRUN_COMM_HOST": "192.0.2.1",
}  # fmt: skip


@pytest.mark.slow
def test_two_processes_within_a_job_of_slurm_are_ours(
    way: Way, stepped: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever SLURM says of tasks and nodes: nobody else is waited for."""
    for word, value in SLURM.items():
        monkeypatch.setenv(f"SLURM_{word}", value)
    assert way.train("slurm-two", *ONE_STEP, "trainer=ddp") == 0
    assert apart(stepped, weights(way, "slurm-two")) < 1e-5


@pytest.mark.slow
def test_signals_that_all_processes_of_a_job_get(way: Way) -> None:
    """SIGUSR2 is for who trains in rank 0; SIGTERM ends all, with the last finished epoch kept."""
    words = [*TWO, "trainer=ddp", "trainer.max_epochs=40", "logger=csv", "checkpoint_s=0"]
    assert go_on(way, "whole-ddp", *words, resume=False) == 0
    folder, given = way.folder(name="told"), [*way.paths, f"cohort.root={way.data}", *SMALL, *words]
    line = [sys.executable, "-m", "nsclc_mtl", "train", "name=told", *given]
    told = {**os.environ, **{f"SLURM_{word}": value for word, value in SLURM.items()}}
    with subprocess.Popen(line, env=told, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            until_epoch(folder, 2, process)
            for child in children(process.pid):
                os.kill(child, signal.SIGUSR2)
            until_epoch(folder, 5, process)
            os.killpg(process.pid, signal.SIGTERM)
            said = process.communicate(timeout=60)[1]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, said) == (143, "mtl: ended by SIGTERM\n")
    assert go_on(way, "told", *words) == 0
    assert apart(weights(way, "whole-ddp"), weights(way, "told")) == 0


def until_epoch(folder: Path, epoch: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if any(int(path.name.split("-")[2]) >= epoch for path in folder.glob("fold0/resume-0-*.ckpt")):
            return
        time.sleep(0.01)
    raise AssertionError("the epoch did not come")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_two_processes_go_on_exactly(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout of each process included; the signal comes in the middle of the third epoch."""
    words = [*TWO, "trainer=ddp", "trainer.max_epochs=4", "callbacks=[early_stopping,ema]", "logger=csv"]
    assert go_on(way, "ddp", *words, resume=False) == 0
    plain, count = Learner.training_step, iter(range(1_000))

    def stopped(self: Learner, batch: Any, index: int) -> Any:
        if next(count) == 5:
            raise Terminated
        return plain(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", stopped)
        assert go_on(way, "gone", *words, resume=False) == 143
    assert len(list(way.folder(name="gone").glob("fold0/resume-0-*.ckpt"))) == 1
    assert go_on(way, "gone", *words) == 0
    assert apart(weights(way, "ddp"), weights(way, "gone")) == 0
    assert log(way, "ddp") == log(way, "gone")
    assert (way.folder(name="ddp") / "predictions.csv").read_bytes() == (
        way.folder(name="gone") / "predictions.csv"
    ).read_bytes()


@pytest.mark.slow
def test_a_process_that_is_killed_is_one_sentence(
    way: Way, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import multiprocessing

    plain, count = Learner.training_step, iter(range(1_000))

    def kills(self: Learner, batch: Any, index: int) -> Any:
        if next(count) == 3:
            (other,) = (child for child in multiprocessing.active_children() if child.name == "rank 1")
            os.kill(other.pid or 0, signal.SIGKILL)
            other.join()
        return plain(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", kills)
        assert go_on(way, "alone", *TWO, "trainer=ddp", "trainer.max_epochs=4", resume=False) == 75
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mtl:")]
    assert "rank 1 of the 2 processes of fold 0 ended" in told
    assert told.endswith("name=alone --resume")
    assert not multiprocessing.active_children()
    assert go_on(way, "alone", *TWO, "trainer=ddp", "trainer.max_epochs=4") == 0


# ---------------------------------------------------------------------------------------------------------------------
# Seeds and precision
# ---------------------------------------------------------------------------------------------------------------------


def test_one_seed_is_one_hash_of_weights(way: Way) -> None:
    for name, seed in (("seed", 3), ("same", 3), ("other", 4)):
        assert way.train(name, *TWO, f"seed={seed}", "folds.seed=0") == 0
    told = [
        json.loads((way.folder(name=n) / "fold0/finished.json").read_text())["weights"]
        for n in ("seed", "same", "other")
    ]
    assert told[0] == told[1]
    assert told[0] != told[2]
    assert told[0] == {"model0.ckpt": checkpoint.weights_sha256(weights(way, "seed"))}


@pytest.mark.slow
def test_every_default_part_trains_in_bf16(way: Way) -> None:
    words = ["precision=bf16", "fold=0", "skip=linear", "callbacks=[early_stopping,ema]", "logger=csv"]
    assert way.train("mixed", *words) == 0
    mixed = way.table(name="mixed")
    assert set(mixed["task"]) == {"grade", "stage", "response", "survival"}
    assert np.isfinite(mixed["value"]).all()
    assert all(np.isfinite(float(value)) for row in log(way, "mixed") for value in row.values() if value)
    assert all(value.dtype == torch.float32 for value in weights(way, "mixed").values() if value.is_floating_point())
