"""Folds as jobs: as those of the pool byte for byte, and what a fold that fails, is killed or is interrupted leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fold_works import each_its_own_way, slowly
from test_way import SMALL, Way

from nsclc_mtl import jobs
from nsclc_mtl.commands import fold_jobs, train
from nsclc_mtl.config import compose, execute, plain
from nsclc_mtl.records import DataFault, Fault, TryAgain, UsageFault

pytest.importorskip("submitit", reason="the extra `cluster` is not installed")

CHEAP = ["modalities=[wsi,clinical]", "tasks=[grade,survival]", "audit=0", "optim.batch_size=8"]


@pytest.fixture
def settings() -> dict[str, Any]:
    engine = plain(compose("train", ["engine=submitit"]).engine)
    return {"engine": engine, "device": "cpu", "folds": {"workers": 3}, "patient": "00123"}


class Heard:
    """A run that keeps what it was told."""

    verb, argv, conf_dirs = "train", ("mtl", "train", "name=mine", "engine=submitit"), ()

    def __init__(self, path: Path) -> None:
        self.path, self.told = path, list[str]()

    def say(self, text: str) -> None:
        self.told.append(text)

    def track(self, items: Any, label: str, total: int | None = None) -> Any:
        yield from items


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Heard:
    """A run whose jobs find the functions beside this file."""
    places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    (tmp_path / "mine").mkdir()
    return Heard(tmp_path / "mine")


@pytest.mark.parametrize(
    ("folds", "kind", "code", "sentence"),
    [
        ([0, 1, 3], DataFault, 3, "fold 1: no patient had the event"),
        (
            [0, 3],
            TryAgain,
            75,
            "so that fold 3 did not finish; the others are kept: repeat the command with name=mine --re",
        ),
        ([0, 2], Fault, 1, "unexpected KeyError at"),
    ],
)
def test_a_fold_that_fails_leaves_the_others(
    heard: Heard, settings: dict[str, Any], folds: list[int], kind: type[Fault], code: int, sentence: str
) -> None:
    each = fold_jobs.train(settings, folds, heard, each_its_own_way)  # type: ignore[arg-type]
    done: list[tuple[int, float | None]] = []
    with pytest.raises(kind, match=sentence) as caught:
        done.extend(each)
    assert caught.value.exit_code == code
    ((fold, seconds),) = done
    assert fold == 0
    assert seconds is not None
    assert (heard.path / "done0").is_file()
    assert sum("its log: jobs/" in line for line in heard.told) == len(folds)  # which job does what
    logs = "".join(path.read_text() for path in (heard.path / "jobs").glob("*.out"))
    assert "00123" not in logs  # a message may quote a patient's data


def test_other_engines_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageFault, match="engine=ray is for slides"):
        fold_jobs.engine({**settings, "engine": {"name": "ray"}})
    assert fold_jobs.engine({"folds": {}}) is None
    assert not fold_jobs.elsewhere(settings)


@pytest.mark.parametrize(("words", "options"), [(["engine.wait=false"], []), ([], ["--resume"])])
def test_jobs_of_a_sweep_are_found_again_by_name(
    words: list[str], options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nsclc_mtl.config.sweep import sweep

    given = [f"paths.runs={tmp_path / 'runs'}", "engine=submitit", "seed=0,1", *words]
    assert sweep("train", given, options=options) == 2
    assert "add name=... to --resume and to engine.wait=false" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_where_a_run_is_trained_is_nothing_about_its_folds() -> None:
    from nsclc_mtl.config import config_hash
    from nsclc_mtl.config.wiring import NO_MODEL

    here, there = (compose("train", words) for words in ([], ["engine=submitit", "engine.hours=3"]))
    assert config_hash(here, NO_MODEL) == config_hash(there, NO_MODEL)
    assert config_hash(here) != config_hash(there)


@pytest.mark.slow
def test_jobs_that_are_not_waited_for(heard: Heard, settings: dict[str, Any]) -> None:
    settings["engine"]["wait"] = False
    assert fold_jobs.only_handed_over(settings, [0, 1], heard, slowly)  # type: ignore[arg-type]
    assert heard.told[-1].endswith("when they have ended: mtl train --resume name=mine engine=submitit")
    with pytest.raises(TryAgain, match=r"fold 0 \(process \d+\), fold 1"):
        fold_jobs.at_work(settings, heard.path)
    with pytest.raises(
        TryAgain, match="queued or in work"
    ):  # nor does a start train them that has processes of its own
        fold_jobs.at_work({**settings, "engine": {"name": "local"}}, heard.path)
    settings["engine"]["wait"] = True
    assert sorted(fold_jobs.at_work(settings, heard.path)) == [0, 1]
    found = dict(fold_jobs.train(settings, [0, 1], heard, slowly))  # type: ignore[arg-type]
    assert sorted(found) == [0, 1]
    assert sum("is at work" in line for line in heard.told) == 2
    assert not list((heard.path / "jobs").glob("*.pkl"))


# ---------------------------------------------------------------------------------------------------------------------
# Real folds
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """A working folder with a run whose folds were trained in this process."""
    made = Way(tmp_path_factory.mktemp("jobs"))
    assert made.train("here", *CHEAP, "trainer.max_epochs=30", "checkpoint_s=0") == 0
    return made


def start(way: Way, name: str, *words: str, resume: bool = False) -> int:
    given = [f"name={name}", *way.paths, f"cohort.root={way.data}", *SMALL, *CHEAP, "trainer.max_epochs=30"]
    return execute("train", [*given, "checkpoint_s=0", *words], lambda: train.body, resume=resume)


def same(way: Way, name: str) -> None:
    one, other = way.folder(name="here"), way.folder(name=name)
    for file in ("predictions.csv", "metrics.json", "trust.csv", "fold0/fitted.json", "fold1/predictions.csv"):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    for fold in ("fold0", "fold1"):
        digests = [json.loads((run / fold / "finished.json").read_text())["weights"] for run in (one, other)]
        assert digests[0] == digests[1]
    assert {path.name.split("_")[-1] for path in (other / "jobs").iterdir()} == {"log.out"}


def disturb(act: Callable[[Path], None], folder: Path) -> threading.Thread:
    """Does something to a run once its first checkpoint is there."""

    def wait() -> None:
        deadline = time.monotonic() + 300
        while not list(folder.glob("fold1/resume-*.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.01)
        act(folder)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def tell(number: int) -> Callable[[Path], None]:
    """A signal to the process that trains fold 1."""

    def act(folder: Path) -> None:
        os.kill(int(json.loads((folder / "jobs" / "fold1.lease").read_text())["pid"]), number)

    return act


@pytest.mark.slow
def test_two_folds_as_jobs_are_those_of_one_process_byte_for_byte(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(way, "jobs", "engine=submitit") == 0
    same(way, "jobs")
    told = capsys.readouterr().out
    assert "fold 0: process " in told
    assert "fold 1: process " in told
    rows = (way.folder(name="jobs") / "items.csv").read_text().splitlines()
    assert sorted(row.split(",")[0] for row in rows) == ["fold0", "fold1", "item"]
    assert start(way, "jobs", resume=True) == 0  # another engine than at the first start
    assert "fold 1 is finished and kept" in capsys.readouterr().out


@pytest.mark.slow
def test_a_fold_whose_time_is_over_is_queued_again_and_goes_on(way: Way) -> None:
    folder = way.folder(name="over")
    thread = disturb(tell(signal.SIGUSR2), folder)
    assert start(way, "over", "engine=submitit") == 0
    thread.join()
    logs = "".join(path.read_text() for path in (folder / "jobs").iterdir())
    assert "Requeued job" in logs
    same(way, "over")


@pytest.mark.slow
def test_a_killed_fold_goes_on_with_resume(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    thread = disturb(tell(signal.SIGKILL), way.folder(name="killed"))
    assert start(way, "killed", "engine=submitit") == 75
    thread.join()
    assert "so that fold 1 did not finish" in capsys.readouterr().err
    assert start(way, "killed", "engine=submitit", resume=True) == 0
    told = capsys.readouterr().out
    assert "fold 0 is finished and kept" in told
    assert "fold 1 goes on after epoch" in told
    same(way, "killed")


@pytest.mark.slow
def test_sigterm_to_the_command_keeps_the_state_of_all_folds(way: Way) -> None:
    folder, paths = way.folder(name="ended"), [*way.paths, f"cohort.root={way.data}"]
    words = [*SMALL, *CHEAP, "trainer.max_epochs=30", "checkpoint_s=0", "engine=submitit", "folds.workers=2"]
    line = [sys.executable, "-m", "nsclc_mtl", "train", "name=ended", *paths, *words]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        disturb(lambda _: process.terminate(), folder).join()
        told = process.communicate(timeout=120)[1]
    assert process.returncode == 143
    assert "mtl: ended by SIGTERM" in told
    assert jobs.at_work(folder / "jobs") == []
    assert list(folder.glob("fold1/resume-*.ckpt"))
    assert start(way, "ended", resume=True) == 0
    assert (folder / "predictions.csv").read_bytes() == (way.folder(name="here") / "predictions.csv").read_bytes()


@pytest.mark.slow
def test_a_sweep_of_jobs(way: Way, capfd: pytest.CaptureFixture[str]) -> None:
    from nsclc_mtl.config.sweep import sweep

    words = ["name=grid", *way.paths, f"cohort.root={way.data}", *SMALL, *CHEAP, "seed=0,1", "fold=0"]
    assert sweep("train", [*words, "engine=submitit", "engine.parallel=2", "trainer.max_epochs=30"]) == 0
    out = capfd.readouterr().out
    assert "2 runs" in out
    assert "ordinal_auc" in out
    one, other = (way.folder(name=f"grid-{k}") / "fold0" / "predictions.csv" for k in (0, 1))
    assert one.read_bytes() == (way.folder(name="here") / "fold0" / "predictions.csv").read_bytes()
    assert one.read_bytes() != other.read_bytes()
    assert sweep("train", [*words, "engine=submitit", "trainer.max_epochs=30"]) == 2  # the names are taken
    assert "a run named 'grid-0' exists" in capfd.readouterr().err


@pytest.mark.slow
def test_tuned_folds_as_jobs(way: Way) -> None:
    pytest.importorskip("optuna", reason="the extra `tune` is not installed")
    from nsclc_mtl.commands import tune

    space = "space={optim.optimizer.lr: {low: 1e-3, high: 3e-2, log: true}}"
    common = [*way.paths, f"cohort.root={way.data}", *SMALL, *CHEAP, space, "trials=2", "startup=1", "inner=0"]
    for name, engine in (("one", "local"), ("two", "submitit")):
        words = [f"name={name}", *common, f"engine={engine}"]
        assert execute("tune", words, lambda: tune.body) == 0
    one, two = (way.folder("tune", name) / "predictions.csv" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
