"""The frame of a verb: run folder, account, exit codes, and what the user is told."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nsclc_mtl.config import Run, execute
from nsclc_mtl.records import DataFault, IntegrityFault, ItemFault, ItemSkip, TryAgain, UsageFault

KEYS = [
    "argv", "config_hash", "versions", "git_commit", "seed", "inputs",
    "done", "skipped", "failed", "wall_s", "peak_rss_mb", "exit_code",
]  # fmt: skip

Body = Callable[[Any, Run], None]


def run_toy(body: Body, *words: str, **options: Any) -> int:
    return execute("toy", list(words), lambda: body, **options)


def account(name: str = "r") -> dict[str, Any]:
    return json.loads(Path(f"runs/toy/{name}/run.json").read_text())


def done(cfg: Any, run: Run) -> None:
    run.done.append("a")


def fails(fault: BaseException) -> Body:
    def body(cfg: Any, run: Run) -> None:
        raise fault

    return body


def test_run_folder_and_account(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def body(cfg: Any, run: Run) -> None:
        Path("input.csv").write_text("x\n")
        run.read(Path("input.csv"))
        run.say("twelve slides")
        run.done.append("a")

    assert run_toy(body, "seed=5", "name=r") == 0
    told = account()
    assert list(told) == KEYS
    assert told["argv"] == ["mtl", "toy", "seed=5", "name=r"]
    assert (told["seed"], told["done"], told["exit_code"]) == (5, ["a"], 0)
    assert told["inputs"][0]["sha256"] == "73cb3858a687a8494ca3323053016282f3dad39d42cf62ca4e79dda2aac7d9ac"
    assert len(told["config_hash"]) == 64
    assert told["versions"]["torch"]
    assert told["wall_s"] >= 0
    assert told["peak_rss_mb"] > 10
    assert "seed: 5" in Path("runs/toy/r/config.yaml").read_text()
    assert "twelve slides" in Path("runs/toy/r/log.txt").read_text()
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "twelve slides"
    assert out[-1] == f"run: {Path('runs/toy/r').resolve()}"
    assert "MTL_RUN" not in os.environ


def test_default_names_tell_time_and_hash_and_never_collide(conf: Path) -> None:
    for _ in range(3):
        assert run_toy(done) == 0
    names = sorted(path.name for path in Path("runs/toy").iterdir())
    assert len(names) == 3
    assert all(name[8] == "T" and name[15:17] == "Z-" for name in names)


@pytest.mark.parametrize(
    ("fault", "code"),
    [(DataFault("no slides in there"), 3), (IntegrityFault("hash"), 5), (TryAgain("locked"), 75), (SystemExit(7), 7)],
)
def test_faults_give_their_exit_code_and_one_sentence(
    conf: Path, capsys: pytest.CaptureFixture[str], fault: BaseException, code: int
) -> None:
    assert run_toy(fails(fault), "name=r") == code
    captured = capsys.readouterr()
    assert account()["exit_code"] == code
    assert "Traceback" not in captured.err
    if code != 7:
        assert captured.err == f"mtl: {fault}\n"
    assert captured.out.splitlines()[-1].startswith("run: ")


def test_a_wrong_word_found_by_the_body_leaves_no_folder(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_toy(fails(UsageFault("fold=9 is none of 0, 1, 2"))) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "mtl: fold=9 is none of 0, 1, 2\n")
    assert not list(Path.cwd().iterdir())
    assert run_toy(done, "name=r") == 0
    assert run_toy(fails(UsageFault("x")), "name=r", resume=True) == 2
    assert account()["exit_code"] == 2  # a run that had begun before keeps its folder


def test_a_full_disk_is_try_again(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_toy(fails(OSError(errno.ENOSPC, "No space left on device", "out/x.h5"))) == 75
    assert "the disk is full (out/x.h5)" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [MemoryError(), type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.")])
def test_out_of_memory_says_what_to_do(conf: Path, capsys: pytest.CaptureFixture[str], wrong: Exception) -> None:
    assert run_toy(fails(wrong)) == 75
    assert capsys.readouterr().err == "mtl: out of memory: take fewer patients a step or fewer tiles\n"


def test_a_run_in_work_is_not_gone_on_with(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = []

    def meanwhile(cfg: Any, run: Run) -> None:
        os.environ.pop("MTL_RUN")  # as from another shell
        codes.append(run_toy(done, "name=r", resume=True))

    assert run_toy(meanwhile, "name=r") == 0
    assert codes == [75]
    assert f"process {os.getpid()} on " in capsys.readouterr().err
    assert not Path("runs/toy/r/run.lease").exists()
    assert run_toy(done, "name=r", resume=True) == 0


def test_an_unexpected_fault_never_quotes_the_data(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_toy(fails(KeyError("Jane Doe, 1961")), "name=r") == 1
    err = capsys.readouterr().err
    assert "unexpected KeyError" in err
    assert "log.txt" in err
    assert "Jane" not in err + Path("runs/toy/r/log.txt").read_text()
    assert run_toy(fails(KeyError("Jane Doe, 1961")), "name=v", verbose=True) == 1
    assert "Traceback" in Path("runs/toy/v/log.txt").read_text()


@pytest.mark.parametrize(
    ("faults", "finished", "code"),
    [
        ([ItemFault("corrupt", "x")], ["b"], 4),
        ([ItemFault("corrupt", "x")], [], 3),
        ([ItemSkip("no_tissue", "x")], ["b"], 0),
        ([ItemSkip("no_tissue", "x")], [], 3),
        ([], [], 0),
    ],
)
def test_every_item_is_accounted_for_and_told(
    conf: Path, capsys: pytest.CaptureFixture[str], faults: list[ItemFault], finished: list[str], code: int
) -> None:
    def body(cfg: Any, run: Run) -> None:
        run.done.extend(finished)
        for fault in faults:
            run.not_done("slide-1", fault)

    assert run_toy(body, "name=r") == code
    told = account()
    assert len(told["skipped"]) + len(told["failed"]) == len(faults)
    out = capsys.readouterr().out
    for fault in faults:
        assert f"slide-1: {fault.reason}" in out


@pytest.mark.parametrize(
    "words",
    [["seeed=1"], ["+seeed=1"], ["name=a/b"], ["name=.."], ["seed=x"], ["optim.lr=fast", "optim._target_=os.system"]],
)
def test_nothing_is_written_for_a_wrong_configuration(
    conf: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert run_toy(done, *words) == 2
    assert not list(Path.cwd().iterdir())
    assert capsys.readouterr().err.startswith("mtl: ")


def test_show_and_check_write_nothing_and_load_no_body(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def load() -> Body:
        raise AssertionError("the body is not needed")

    assert execute("toy", ["seed=4"], load, show=True) == 0
    assert "seed: 4" in capsys.readouterr().out
    assert execute("toy", [], load, check_only=True) == 0
    assert "holds" in capsys.readouterr().out
    assert execute("tile", [], load, check_only=True) == 2
    assert execute("tile", [], load) == 2
    assert "slides.dir has no value" in capsys.readouterr().err
    assert not list(Path.cwd().iterdir())


def test_a_taken_name_needs_resume(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_toy(done, "name=r") == 0
    assert run_toy(done, "name=r") == 2
    assert "--resume" in capsys.readouterr().err
    assert run_toy(done, "name=r", resume=True) == 0
    assert run_toy(done, resume=True) == 2
    assert "needs the name" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_one_sentence(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("a file")
    assert run_toy(done, "paths.runs=taken") == 2
    assert "set paths.runs=FOLDER" in capsys.readouterr().err


def test_flags_of_a_verb_are_part_of_its_configuration(conf: Path) -> None:
    seen = {}

    def body(cfg: Any, run: Run) -> None:
        seen["out"] = cfg.out

    assert run_toy(body, "name=r", flags={"out": "data"}) == 0
    assert seen == {"out": "data"}
    assert "out: data" in Path("runs/toy/r/config.yaml").read_text()


def test_a_second_signal_does_not_disturb_the_ending(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process group that is stopped signals parent and child, and the parent passes its own on."""
    finish = Run.finish

    def late(run: Run, code: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        finish(run, code)

    monkeypatch.setattr(Run, "finish", late)

    def body(cfg: Any, run: Run) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not arrive")

    assert run_toy(body, "name=twice") == 143
    (account,) = Path().rglob("run.json")
    assert json.loads(account.read_text())["exit_code"] == 143


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_close_the_account(conf: Path, number: signal.Signals, code: int) -> None:
    def body(cfg: Any, run: Run) -> None:
        run.done.append("a")
        os.kill(os.getpid(), number)
        raise AssertionError("the signal came too late")

    assert run_toy(body, "name=r") == code
    assert (account()["exit_code"], account()["done"]) == (code, ["a"])


def test_messages_of_libraries_go_to_the_log(conf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def body(cfg: Any, run: Run) -> None:
        logging.getLogger("some.library").warning("chatter")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(False)
            logging.captureWarnings(True)
            warnings.warn("grumble", UserWarning, stacklevel=1)

    assert run_toy(body, "name=r") == 0
    captured = capfd.readouterr()
    assert "chatter" not in captured.out + captured.err
    log = Path("runs/toy/r/log.txt").read_text()
    assert "chatter" in log
    assert "grumble" in log


def test_ranks_and_folds_share_the_folder_and_leave_the_account_alone(
    conf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def outer(cfg: Any, run: Run) -> None:
        run.done.append("outer")
        before = (run.path / "run.json").read_text()
        assert run_toy(inner, "name=r") == 0  # what a process of a fold does, the variable being handed down
        assert (run.path / "run.json").read_text() == before

    def inner(cfg: Any, run: Run) -> None:
        assert run.attached
        run.say("from the fold")
        run.done.append("inner")

    assert run_toy(outer, "name=r") == 0
    assert account()["done"] == ["outer"]
    assert capsys.readouterr().out.count("run: ") == 1
    assert len(list(Path("runs/toy").iterdir())) == 1


def test_progress_is_silent_when_quick_and_plain_when_slow(
    conf: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 6))
    monkeypatch.setattr("nsclc_mtl.config.run.time.monotonic", lambda: next(clock))

    def body(cfg: Any, run: Run) -> None:
        assert list(run.track(range(6), "tiling")) == list(range(6))

    assert run_toy(body) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tiling")]
    assert lines == ["tiling: 3 of 6"] or lines[0].startswith("tiling: ")
    assert 1 <= len(lines) <= 3
