"""What surrounds every verb: compose, check, run folder, signals, exit code, and the sentence when it goes wrong."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nsclc_mtl import signals
from nsclc_mtl.records import Fault, TableFault, TryAgain, UsageFault

from . import engine_options, fault_table, values
from .allow import check
from .resolved import to_yaml
from .run import FULL, Log, Run
from .wiring import compose

Body = Callable[[DictConfig, Run], None]

# Libraries that chat on the terminal through loggers of their own.
CHATTY = ("pytorch_lightning", "lightning", "lightning_fabric", "lightning.pytorch", "py.warnings", "radiomics")


class Terminated(BaseException):
    """The process was asked to end (SIGTERM)."""


def execute(
    verb: str,
    overrides: Sequence[str],
    load: Callable[[], Body],
    *,
    flags: Mapping[str, Any] | None = None,
    conf_dirs: Sequence[Path] = (),
    show: bool = False,
    check_only: bool = False,
    no_run: Callable[[], Callable[[DictConfig], int]] | None = None,
    resume: bool = False,
    verbose: bool = False,
) -> int:
    """The exit code of `mtl VERB OVERRIDES`. `load` gives the body, and is called only when there is something to run.

    `flags` are options of the verb with a home in its configuration (`--data-only` of the demo): key -> value.
    `no_run` gives what works without a run folder: what lists the work instead of doing it, or serves pages.
    """
    try:
        cfg = compose(verb, overrides, conf_dirs)
        for key, value in (flags or {}).items():
            OmegaConf.update(cfg, key, value, force_add=True)
        if show:
            print(to_yaml(cfg), end="")
            return 0
        faults = check(cfg)
        known = {fault.split(":")[0] for fault in faults}
        more = [*values.faults(cfg), *engine_options.faults(verb, cfg)]
        faults += [fault for fault in more if fault.split(":")[0] not in known]
        if check_only and not faults:
            print(f"the configuration of `mtl {verb}` holds")
        if faults or check_only:
            return _tell(faults, 2 if faults else 0)
        if no_run:
            return no_run()(cfg)
        run = Run.open(cfg, verb, ["mtl", verb, *overrides], resume)
        run.conf_dirs = [Path(folder).resolve() for folder in conf_dirs]
    except Fault as fault:
        if verbose:
            traceback.print_exc()
        return _tell(str(fault).splitlines(), fault.exit_code)
    return _run(cfg, run, load, verbose)


def _run(cfg: DictConfig, run: Run, load: Callable[[], Body], verbose: bool) -> int:
    code, unused = 1, False
    with _logging(run), listening() as caught:
        try:
            load()(cfg, run)
            code = run.code()
            if code:
                _tell([run.verdict()], code)
        except Fault as fault:
            if isinstance(fault, TableFault):
                with suppress(OSError):
                    fault_table.tell(run, fault.rows)
            code = _fault(run, str(fault), fault.exit_code, verbose)
            unused = isinstance(fault, UsageFault)
        except Terminated:
            code = _fault(run, "ended by SIGTERM", 143, False)
        except KeyboardInterrupt:
            code = _fault(run, "interrupted", 130, False)
        except SystemExit as left:  # Lightning leaves so after it has caught an interrupt
            code = 130 if caught else (left.code if isinstance(left.code, int) else 1)
        except OSError as wrong:
            if wrong.errno in FULL:
                sentence = f"the disk is full ({wrong.filename or run.path}): free some space and repeat the command"
                code = _fault(run, sentence, TryAgain.exit_code, verbose)
            else:
                code = _unexpected(run, wrong, verbose)
        except Exception as wrong:
            if type(wrong).__name__ in ("MemoryError", "OutOfMemoryError"):  # the latter is torch's, of a GPU
                told = "out of memory: take fewer patients a step or fewer tiles"
                code = _fault(run, told, TryAgain.exit_code, verbose)
            else:
                code = _unexpected(run, wrong, verbose)
        finally:
            if not (unused and run.withdraw()):
                run.finish(code)
    return code


def _fault(run: Run, sentence: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    with suppress(OSError):  # a full disk must not hide what is being told
        run.note(sentence)
        if verbose:
            run.note(traceback.format_exc())
    return _tell(sentence.splitlines(), code)


def _unexpected(run: Run, wrong: Exception, verbose: bool) -> int:
    """A fault of the program: its type and place only, since the message may quote a patient's data."""
    inside = [f for f in traceback.extract_tb(wrong.__traceback__) if "nsclc_mtl" in Path(f.filename).parts]
    place = f" at {Path(inside[-1].filename).name}:{inside[-1].lineno}" if inside else ""
    sentence = f"unexpected {type(wrong).__name__}{place}: a fault of the program; "
    if isinstance(wrong, OSError):
        sentence = f"{type(wrong).__name__}{place}: {wrong.strerror} ({wrong.filename}); "
    told = "the traceback is in" if verbose else "repeat with --verbose for the traceback, see"
    return _fault(run, f"{sentence}{told} {run.path / 'log.txt'}", 1, verbose)


def _tell(sentences: Sequence[str], code: int) -> int:
    for sentence in sentences:
        print(f"mtl: {sentence}", file=sys.stderr, flush=True)
    return code


@contextmanager
def _logging(run: Run) -> Iterator[None]:
    """Library messages and warnings go to log.txt."""
    root, handler = logging.getLogger(), Log(run)
    level, kept = root.level, {name: logging.getLogger(name).handlers[:] for name in CHATTY}
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO) or logging.INFO)
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # for data-loading processes, which have no log of ours
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(level)
        for name, handlers in kept.items():
            logging.getLogger(name).handlers = handlers


@contextmanager
def listening() -> Iterator[list[int]]:
    """Turns SIGTERM into an exception, and remembers which signals came.

    A second signal, such as a process group's own copy of the first, does not disturb the ending; a third does.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def stop(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) == 2:
            return
        signals.end(KeyboardInterrupt() if number == signal.SIGINT else Terminated())

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
