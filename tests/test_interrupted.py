"""`mtl train` killed, ended, on full disks: `--resume` goes on after an epoch, as if nothing had been."""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from test_way import SMALL, Way

from nsclc_mtl.commands import checkpoint, fold, resume, sealed, train
from nsclc_mtl.config import execute
from nsclc_mtl.config.frame import Terminated
from nsclc_mtl.learner import Learner
from nsclc_mtl.lease import Lease
from nsclc_mtl.records import TryAgain

# Two members, dropout, a validation part that early stopping looks at, tiles that are drawn, and a log.
WORDS = [
    *(word for word in SMALL if not word.startswith(("logger", "trainer.max_epochs", "folds.workers", "audit"))),
    "modalities=[wsi,clinical]", "tasks=[grade,survival]", "members=2", "audit=1", "optim.batch_size=8",
    "trainer.max_epochs=4", "callbacks=slowly",
]  # fmt: skip

# As slow as the environment says, which is no part of the configuration.
SLOW = """
import os, time
from pytorch_lightning import Callback

class Slow(Callback):
    def on_train_batch_end(self, *_):
        time.sleep(float(os.environ.get("SLOW_S", "0")))
"""


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """A working folder with `reference`, a run that nothing has disturbed."""
    made = Way(tmp_path_factory.mktemp("interrupted"))
    (made.root / "slow.py").write_text(SLOW)
    (made.root / "conf" / "callbacks").mkdir(parents=True)
    (made.root / "conf" / "callbacks" / "slowly.yaml").write_text(
        "defaults: [early_stopping, _self_]\nslow: {_target_: slow.Slow}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(made.root)
        patch.setenv("MTL_PLUGINS", "slow")
        patch.setenv("PYTHONPATH", f"{made.root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        assert run(made, "reference", "folds.workers=0") == 0
        yield made


@pytest.fixture(scope="module")
def stopped(way: Way) -> Path:
    """The folder of a run that was ended in the third epoch of the first member of fold 0."""
    with pytest.MonkeyPatch.context() as patch:
        stop_at(5, patch)
        assert run(way, "stopped", "fold=0") == 143
    return way.folder(name="stopped")


@pytest.fixture
def halted(way: Way, stopped: Path, name: str) -> Path:
    """A copy of that run under the name of the test."""
    return Path(shutil.copytree(stopped, way.folder(name=name)))


@pytest.fixture
def name(way: Way, request: pytest.FixtureRequest) -> str:
    """A run of its own for every test."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name)


def words(way: Way, name: str, *more: str) -> list[str]:
    return [f"name={name}", *way.paths, f"cohort.root={way.data}", *WORDS, "checkpoint_s=0", *more]


def run(way: Way, name: str, *more: str, resume: bool = False) -> int:
    return execute(
        "train",
        words(way, name, "folds.workers=0", *more),
        lambda: train.body,
        resume=resume,
        conf_dirs=[way.root / "conf"],
    )


@contextmanager
def command(way: Way, name: str, *more: str, slow: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    line = [sys.executable, "-m", "nsclc_mtl", "train", f"--conf={way.root / 'conf'}", *more, *words(way, name)]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, env={**os.environ, "SLOW_S": str(slow)}, **piped) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def until(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not list(folder.glob(pattern)) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def same(way: Way, name: str, part: str = ".", whole: str = "reference") -> None:
    """The run is the undisturbed one: same files, same weights and optimisers, same bytes of tables and logs."""
    one, other = way.folder(name=whole) / part, way.folder(name=name) / part
    # items.csv holds the seconds of what a start has measured
    files = [{str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()} - {"items.csv"} for f in (one, other)]
    assert files[0] == files[1]
    for suffix in ("model0.ckpt", "model1.ckpt", "log0/version_0/metrics.csv", "log1/version_0/metrics.csv"):
        assert sum(file.endswith(suffix) for file in files[0]) == (2 if part == "." else 1)
    for file in sorted(files[0]):
        if file.endswith((".csv", "audit.json", "metrics.json", "fitted.json", ".parquet")):
            assert (one / file).read_bytes() == (other / file).read_bytes(), file
        if "tfevents" in file:  # its records hold the time of day too
            assert (one / file).stat().st_size == (other / file).stat().st_size, file
        if file.endswith(".ckpt"):
            a, b = (torch.load(folder / file, weights_only=True) for folder in (one, other))
            assert a["state_dict"].keys() == b["state_dict"].keys()
            assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in a["state_dict"]), file
            assert str(a["optimizer_states"]) == str(b["optimizer_states"])
            assert (a["lr_schedulers"], str(a["callbacks"])) == (b["lr_schedulers"], str(b["callbacks"]))
            assert (a["epoch"], a["global_step"]) == (b["epoch"], b["global_step"])


def stop_at(step: int, patch: pytest.MonkeyPatch, kind: type[BaseException] = Terminated) -> None:
    """The training ends in the middle of its step number `step`, counted over all members and folds."""
    plain, count = Learner.training_step, iter(range(1_000_000))

    def stopped(self: Learner, batch: Any, index: int) -> Any:
        if next(count) == step:
            raise kind
        return plain(self, batch, index)

    patch.setattr(Learner, "training_step", stopped)


# ---------------------------------------------------------------------------------------------------------------------
# kill -9
# ---------------------------------------------------------------------------------------------------------------------


def killed(way: Way, name: str, pattern: str, after: float, workers: int, slow: float = 0.05) -> None:
    folder = way.folder(name=name)
    with command(way, name, f"folds.workers={workers}", slow=slow) as process:
        until(folder, pattern, process)
        time.sleep(after)
        process.kill()
        process.communicate()
    assert not (folder / "predictions.csv").exists()


@pytest.mark.slow
def test_killed_in_the_middle_of_a_fold_it_goes_on_there(
    way: Way, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(way, name, "fold1/resume-1-*.ckpt", 0.05, workers=0)
    assert run(way, name, resume=True) == 0
    told = capsys.readouterr().out
    assert "fold 0 is finished and kept" in told
    assert "fold 1 goes on after epoch" in told
    assert "of member 1" in told
    same(way, name)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_random_moments_and_again_while_it_goes_on(way: Way, name: str, seed: int) -> None:
    moment, folder = random.Random(seed), way.folder(name=name)
    killed(way, name, "fold*", moment.uniform(0, 4), workers=seed % 3, slow=0.2)  # long enough on any machine
    line = [
        sys.executable,
        "-m",
        "nsclc_mtl",
        "train",
        "--resume",
        *words(way, name, f"folds.workers={(seed + 1) % 3}"),
    ]
    with subprocess.Popen(line, env={**os.environ, "SLOW_S": "0.05"}) as process:
        written = (folder / "splits.csv").stat().st_mtime_ns
        while (folder / "splits.csv").stat().st_mtime_ns == written and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moment.uniform(0, 3))
        process.kill()
    assert run(way, name, resume=True) == 0
    same(way, name)


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 1, 2, 3, 7, 8, 11, 13, 15, 16, 17, 22, 25, 28, 31])
def test_stopped_in_any_step_without_a_word(way: Way, name: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `kill -9`, cheaply: whatever was not written before the step is lost."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Resumable, "on_exception", lambda *_: None)
        stop_at(step, patch)
        assert run(way, name) == 143
    assert run(way, name, resume=True) == 0
    same(way, name)


# ---------------------------------------------------------------------------------------------------------------------
# SIGTERM
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_keeps_the_last_finished_epoch_of_all_folds(way: Way, name: str, workers: int) -> None:
    folder = way.folder(name=name)
    with command(way, name, f"folds.workers={workers}", "checkpoint_s=600", slow=0.3) as process:
        until(folder, "fold0", process)
        assert run(way, name, resume=True) == 75  # nobody else may
        until(folder, "fold0/log0/version_0/metrics.csv", process)  # the first epoch is over
        time.sleep(0.2)
        process.terminate()
        told = process.communicate(timeout=60)[1]  # all processes have closed it
    assert (process.returncode, told) == (143, "mtl: ended by SIGTERM\n")
    assert json.loads((folder / "run.json").read_text())["exit_code"] == 143
    assert len(list(folder.glob("fold0/resume-*.ckpt"))) >= 1
    assert not list(folder.rglob("*.tmp"))
    assert not list(folder.rglob("finished.json"))
    assert run(way, name, resume=True) == 0
    same(way, name)


@pytest.mark.slow
def test_what_is_kept_in_memory_is_the_state_of_the_last_finished_epoch(
    way: Way, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped in the second step of an epoch of the second member, with no checkpoint written before."""
    with monkeypatch.context() as patch:
        stop_at(13, patch)
        assert run(way, name, "fold=0", "checkpoint_s=600") == 143
    assert [path.name[:10] for path in way.folder(name=name).glob("fold0/resume*")] == ["resume-1-2"]
    steps: list[int] = []
    plain = Learner.training_step
    monkeypatch.setattr(Learner, "training_step", lambda *given: (steps.append(1), plain(*given))[1])
    assert run(way, name, "fold=0", resume=True) == 0
    assert len(steps) == 4  # two epochs of two steps were left
    assert "fold 0 goes on after epoch 2 of member 1" in capsys.readouterr().out
    same(way, name, "fold0")


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["+trainer.max_steps=7"],
        ["+trainer.accumulate_grad_batches=2", "optim.batch_size=4"],
        ["callbacks=averages"],
        ["callbacks=[early_stopping,ema]"],
        ["callbacks=[early_stopping,swa]", "callbacks.swa.begins=0.5"],
        ["callbacks=none", "+trainer.check_val_every_n_epoch=2", "trainer.num_sanity_val_steps=1"],
    ],
)
def test_other_ways_of_training_go_on_exactly_too(
    way: Way, name: str, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (way.root / "conf" / "callbacks" / "averages.yaml").write_text(
        "ema: {_target_: pytorch_lightning.callbacks.EMAWeightAveraging}\n"
        "rates: {_target_: pytorch_lightning.callbacks.LearningRateMonitor}\n"
    )
    assert run(way, f"{name}0", "fold=0", *more) == 0
    with monkeypatch.context() as patch:
        stop_at(5, patch)
        assert run(way, name, "fold=0", *more) == 143
    assert list(way.folder(name=name).glob("fold0/resume-0-*.ckpt"))
    assert run(way, name, "fold=0", *more, resume=True) == 0
    same(way, name, "fold0", f"{name}0")


def test_of_two_commands_on_one_run_the_second_is_refused_by_name(
    way: Way, halted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in halted.rglob("*") if path.is_file()}
    held = Lease.take(halted / "run.lease")
    assert held is not None
    assert run(way, halted.name, "folds.workers=1", resume=True) == 75
    (told,) = capsys.readouterr().err.splitlines()
    assert f"process {os.getpid()} on " in told
    held.release()
    assert {path: path.read_bytes() for path in halted.rglob("*") if path.is_file()} == before


# ---------------------------------------------------------------------------------------------------------------------
# Disks
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def largest_file(limit: int) -> Iterator[None]:
    """No file may grow beyond `limit` bytes: what a full disk and a quota look like."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def as_anybody() -> Iterator[None]:
    """Without the right of root to write everywhere."""
    if os.geteuid():
        yield
        return
    libc, head = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; low words, then high words
    assert libc.capget(head, held) == 0
    less = type(held)(*held)
    less[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(head, less) == 0
    try:
        yield
    finally:
        assert libc.capset(head, held) == 0


@pytest.mark.parametrize("checkpoint_s", [0, pytest.param(600, marks=pytest.mark.slow)])
def test_a_full_disk_is_one_sentence_and_leaves_no_remnant(
    way: Way, name: str, checkpoint_s: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a checkpoint to go on from is written, or the last one of a member."""
    folder, size = way.folder(name=name), (way.folder(name="reference") / "fold0" / "model0.ckpt").stat().st_size
    with largest_file(size - 1000):
        assert run(way, name, "fold=0", f"checkpoint_s={checkpoint_s}") == 75
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"mtl: 'fold0/{'resume-0-1' if checkpoint_s == 0 else 'model0.ckpt'}")
    assert told.endswith(f"with name={name} --resume")
    assert not [path for path in folder.rglob("*") if path.suffix in {".ckpt", ".tmp", ".lease"}]
    assert json.loads((folder / "run.json").read_text())["exit_code"] == 75
    assert run(way, name, "fold=0", resume=True) == 0
    same(way, name, "fold0")


@pytest.mark.parametrize(
    "file", ["predictions.csv", "audit.parquet", "fitted.json", "manifest.sha256", "finished.json"]
)
def test_every_file_of_a_fold_is_whole_or_absent(tmp_path: Path, file: str) -> None:
    path = tmp_path / "runs" / "mine" / "fold3" / file
    path.parent.mkdir(parents=True)
    with pytest.raises(TryAgain, match="name=mine --resume"), largest_file(1000), sealed.written(path) as aside:
        aside.write_bytes(b"x" * 2000)
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_found_before_the_training(
    way: Way, halted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fold = halted / "fold0"
    before = {path.name: path.read_bytes() for path in fold.glob("*.*")}
    fold.chmod(0o555)
    with monkeypatch.context() as patch, as_anybody():
        stop_at(0, patch, AssertionError)
        assert run(way, halted.name, "fold=0", resume=True) == 75
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("mtl: 'fold0/begun.json' cannot be written (Permission denied)")
    assert {path.name: path.read_bytes() for path in fold.glob("*.*")} == before
    fold.chmod(0o755)
    assert run(way, halted.name, "fold=0", resume=True) == 0
    same(way, halted.name, "fold0")


@pytest.mark.parametrize("how", ["nothing arrives", "half of it arrives", "other bytes arrive"])
def test_a_checkpoint_that_did_not_arrive_is_noticed(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that reports no fault."""
    plain, raw = Path.write_bytes, checkpoint._bytes({"state_dict": {"a": torch.ones(1000)}})

    def silent(self: Path, raw: bytes) -> int:
        if how != "nothing arrives":
            plain(self, raw[: len(raw) // 2] + (b"" if how.startswith("half") else raw[: len(raw) // 2]))
        return len(raw)

    monkeypatch.setattr(Path, "write_bytes", silent)
    with pytest.raises(TryAgain, match=r"model0\.ckpt"):
        checkpoint.write(raw, tmp_path / "model0.ckpt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["flipped", "cut", "empty"])
def test_a_damaged_checkpoint_is_found_and_the_fold_starts_anew(
    way: Way, halted: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = halted.glob("fold0/resume*.ckpt")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes({"flipped": raw, "cut": raw[:-1], "empty": b""}[how])
    begun = resume.begun(path.parent, json.loads((path.parent / "begun.json").read_text())["made_from"])
    assert begun == f"its checkpoint 'fold0/{path.name}' is not the file that the training wrote (sha256 differs)"
    if how == "flipped":
        assert run(way, halted.name, "fold=0", resume=True) == 0
        assert f"fold 0 is trained again: {begun}" in capsys.readouterr().out
        same(way, halted.name, "fold0")


def test_half_a_fold_does_not_go_on_from_something_else(halted: Path) -> None:
    fold = halted / "fold0"
    told = json.loads((fold / "begun.json").read_text())
    found = resume.begun(fold, told["made_from"])
    assert isinstance(found, resume.Progress)
    assert (found.member, found.epoch) == (0, 2)
    assert resume.begun(fold, {**told["made_from"], "the configuration": ""}) == "the configuration has changed"
    assert resume.begun(fold, {**told["made_from"], "the cohort's tables": ""}) == "the cohort's tables have changed"
    told["made_from"]["the versions of the libraries"] = "{}"
    (fold / "begun.json").write_text(json.dumps(told))
    assert resume.begun(fold, {}) == "the versions of the libraries have changed"
    (fold / "model0.ckpt").write_bytes(b"not what was noted")
    (fold / "begun.json").write_text(
        json.dumps({**told, "members": {"model0.ckpt": "0"}, "made_from": found.made_from})
    )
    assert "'fold0/model0.ckpt' is not the file" in str(resume.begun(fold, {}))


# ---------------------------------------------------------------------------------------------------------------------
# Workers
# ---------------------------------------------------------------------------------------------------------------------


def test_the_threads_of_a_fold_depend_on_the_number_of_folds_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(7)
    try:
        with fold.threads(None, 3):
            assert torch.get_num_threads() == 2
        with fold.threads(5, 3):
            assert torch.get_num_threads() == 5
        with fold.threads(None, 9):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 7
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_another_number_of_workers_gives_the_same_weights(way: Way, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a process would take all cores for itself."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    for workers in (0, 1, 2):
        with command(way, f"{name}{workers}", f"folds.workers={workers}") as process:
            process.communicate()
        assert process.returncode == 0
        same(way, f"{name}{workers}")
