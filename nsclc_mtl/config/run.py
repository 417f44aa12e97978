"""The run folder: what was asked for, what was done, what was not and why."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nsclc_mtl.lease import Lease
from nsclc_mtl.records import ItemFault, ItemSkip, TryAgain, UsageFault

from .machine import git_commit, peak_rss_mb, versions
from .resolved import among, config_hash, flat, plain, to_yaml
from .wiring import NO_MODEL

T = TypeVar("T")

# A run hands its folder to the processes of its own (ranks, folds) through this variable: "verb:path".
HANDED = "MTL_RUN"
LEASE = "run.lease"  # held while a process works on the run


class Run:
    """One run of a verb: its folder, and the account of every item."""

    def __init__(self, path: Path, verb: str, cfg: Any, argv: Sequence[str], attached: bool = False) -> None:
        self.path = path
        self.verb = verb
        self.argv = list(argv)
        self.conf_dirs: list[Path] = []  # the user's own configurations, for a verb that composes again
        self.resumed = False
        self.attached = attached  # a rank or a fold of a run whose account another process keeps
        self.quiet = int(os.environ.get("LOCAL_RANK", "0")) > 0
        self.done: list[str] = []
        self.skipped: list[dict[str, str]] = []
        self.failed: list[dict[str, str]] = []
        self.inputs: list[dict[str, str]] = []
        self._told: dict[str, str] = {}  # why an item was not done, in a sentence
        self._lease: Lease | None = None
        self.exit_code: int | None = None
        self.config_hash = config_hash(cfg)
        self.seed = plain(cfg).get("seed")
        self.console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=True)
        self._began = time.monotonic()

    @classmethod
    def open(cls, cfg: Any, verb: str, argv: Sequence[str], resume: bool = False) -> Run:
        """A run in a folder of its own; UsageFault where the name is taken or the folder cannot be written,
        TryAgain where another process works on the run that is to go on."""
        verb_of, _, handed = os.environ.get(HANDED, "").partition(":")
        if handed and verb_of == verb:
            return cls(Path(handed), verb, cfg, argv, attached=True)
        content = plain(cfg)
        folder = Path((content.get("paths") or {}).get("runs") or "runs") / verb
        path = _claim(folder, content.get("name"), config_hash(cfg), resume)
        if verb in ("train", "tune"):
            _goes_on(path / "config.yaml", content)
        run = cls(path.resolve(), verb, cfg, argv)
        try:
            run._lease = Lease.claim(run.path / LEASE, f"the run in '{path}'")
            run.resumed = (path / "run.json").exists()
            for remnant in run.path.glob("*.tmp"):  # of a process that was killed
                shutil.rmtree(remnant) if remnant.is_dir() else remnant.unlink()
            write_atomic(run.path / "config.yaml", to_yaml(cfg))
            (run.path / "log.txt").touch()
            run._account()
        except OSError as wrong:
            run._leave()
            kind = TryAgain if wrong.errno in FULL else UsageFault
            raise kind(f"the run folder {path} cannot be written: {wrong.strerror}") from None
        os.environ[HANDED] = f"{verb}:{run.path}"
        return run

    # -- telling ------------------------------------------------------------------------------------------------------

    def say(self, text: str, style: str | None = None) -> None:
        """A line for the user and for log.txt; styled on a terminal only."""
        self.note(text)
        if not self.quiet:
            self.console.print(text, style=style, markup=False)

    def show(self, table: RenderableType) -> None:
        """A rich table (or other renderable), on the terminal and as plain text in log.txt."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as log:
            Console(file=log, width=120).print(table)
        if not self.quiet:
            self.console.print(table)

    def note(self, text: str) -> None:
        """A line for log.txt alone."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """The items one by one, with a progress bar on a terminal and a plain line now and then elsewhere."""
        if total is None:
            total = len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]
        if self.quiet:
            yield from items
        elif self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=self.console, transient=True) as bar:
                yield from bar.track(items, total=total, description=label)
        else:
            yield from self._track_plainly(items, label, total)

    def _track_plainly(self, items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
        told = time.monotonic()
        for count, item in enumerate(items, start=1):
            yield item
            if time.monotonic() - told > 15 and count != total:  # sparse: a log file is read by people
                told = time.monotonic()
                self.say(f"{label}: {count} of {total if total is not None else '?'}")

    # -- the account --------------------------------------------------------------------------------------------------

    def read(self, path: Path) -> None:
        """Notes a file among the inputs with its SHA-256."""
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.inputs.append({"path": str(path), "sha256": digest})

    def not_done(self, item: str, fault: ItemFault) -> None:
        """Counts an item as skipped (nothing in it) or failed (unusable), with its reason and one line for the user."""
        kept = self.skipped if isinstance(fault, ItemSkip) else self.failed
        kept.append({"id": item, "reason": fault.reason})
        self._told[item] = str(fault)
        self.note(f"{item}: {fault.reason}: {fault}")

    def told(self, item: str) -> str:
        """The sentence that was kept of an item which was not done."""
        return self._told.get(item, "")

    def code(self) -> int:
        """The exit code that the account amounts to: 0, 3 (nothing done), 4 (some failed, some done)."""
        if self.failed:
            return 4 if self.done else 3
        return 3 if self.skipped and not self.done else 0

    def verdict(self) -> str:
        """One sentence on what was not done, for an exit code that is not 0."""
        missed = self.failed or self.skipped
        if len(missed) == 1:
            told = f"{missed[0]['id']}: {self._told.get(missed[0]['id'], missed[0]['reason'])}"
        else:
            listed = ", ".join(f"{item['id']} ({item['reason']})" for item in missed[:5])
            more = f" and {len(missed) - 5} more" if len(missed) > 5 else ""
            told = f"{listed}{more}; {self.path / 'log.txt'} says why"
        total = len(self.done) + len(self.skipped) + len(self.failed)
        return f"{len(self.failed)} of {total} items failed: {told}" if self.done else f"nothing could be done: {told}"

    def finish(self, exit_code: int) -> None:
        """Closes the account; the last line on stdout names the folder."""
        self.exit_code = exit_code
        if self.attached:
            return
        for word, items in (("skipped", self.skipped), ("failed", self.failed)):
            for item in items:
                self.say(f"{word} {item['id']}: {item['reason']}", style="yellow" if word == "skipped" else "red")
        with contextlib.suppress(OSError):  # a full disk: the exit code still says so
            self.note(f"exit code {exit_code} after {time.monotonic() - self._began:.1f} s")
            self._account()
        self._leave()
        os.environ.pop(HANDED, None)
        sys.stdout.flush()
        print(f"run: {self.path}", flush=True)

    def withdraw(self) -> bool:
        """Takes the folder away again if nothing has come of the run: a wrong word leaves no trace."""
        own = {"config.yaml", "run.json", "log.txt"}
        if self.attached or self.resumed or self.done or self.skipped or self.failed:
            return False
        if {path.name for path in self.path.iterdir()} - own - {LEASE}:
            return False
        self._leave()
        for name in own:
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path, self.path.parent, self.path.parent.parent):
            try:
                folder.rmdir()
            except OSError:  # other runs are in it
                break
        os.environ.pop(HANDED, None)
        return True

    def _leave(self) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _account(self) -> None:
        if self.attached:
            return
        account = {
            "argv": self.argv,
            "config_hash": self.config_hash,
            "versions": versions(),
            "git_commit": git_commit(),
            "seed": self.seed,
            "inputs": self.inputs,
            "done": self.done,
            "skipped": self.skipped,
            "failed": self.failed,
            "wall_s": round(time.monotonic() - self._began, 3),
            "peak_rss_mb": peak_rss_mb(),
            "exit_code": self.exit_code,
        }
        write_atomic(self.path / "run.json", json.dumps(account, indent=1) + "\n")


class Log(logging.Handler):
    """Sends the messages of libraries to log.txt, so that the terminal stays readable."""

    def __init__(self, run: Run) -> None:
        super().__init__(logging.INFO)
        self.run = run

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record as one line."""
        try:
            self.run.note(f"{record.levelname.lower()} {record.name}: {' '.join(record.getMessage().split())}")
        except OSError:  # a full disk must not hide the fault that is being told
            self.handleError(record)


def _claim(folder: Path, name: Any, digest: str, resume: bool) -> Path:
    """The folder of this run, made by this process alone."""
    if name is not None:
        name = str(name)
        if not re.fullmatch(r"[\w][\w.+=,@-]*", name):
            raise UsageFault(f"name={name!r} cannot be a folder: use letters, digits, and . - _ + =")
        if resume and (folder / name).is_dir():
            return folder / name
    elif resume:
        raise UsageFault("--resume needs the name of the run that is to go on: name=...")
    stamp = name or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{digest[:6]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for again in range(1, 1000):
            path = folder / (stamp if again == 1 else f"{stamp}-{again}")
            try:
                path.mkdir()
                return path
            except FileExistsError:
                if name is not None:
                    raise UsageFault(
                        f"a run named {name!r} exists in {folder}: take another name, or add --resume"
                    ) from None
    except OSError as wrong:
        if wrong.errno in FULL:
            raise TryAgain(
                f"the run folder cannot be made in {folder}: {wrong.strerror}; free some space and repeat"
            ) from None
        raise UsageFault(
            f"the run folder cannot be made in {folder}: {wrong.strerror}; set paths.runs=FOLDER"
        ) from None
    raise TryAgain(f"too many runs named {stamp} in {folder}")


def _goes_on(before: Path, content: Any) -> None:
    """Raises UsageFault where the run that is to go on was begun with another configuration."""
    try:
        old = flat(yaml.safe_load(before.read_text(encoding="utf-8")))
    except (OSError, AttributeError, yaml.YAMLError):  # a new run, or one that was killed before it began
        return
    new = flat(yaml.safe_load(yaml.safe_dump(content)))
    unlike = [key for key in {**old, **new} if old.get(key) != new.get(key) and not among(key, NO_MODEL)]
    if unlike:
        raise UsageFault(
            f"the run in '{before.parent}' was begun with another configuration ({', '.join(unlike[:5])}); "
            "repeat its words, or take another name"
        )


FULL = (28, 122, 27)  # ENOSPC, EDQUOT, EFBIG


def write_atomic(path: Path, text: str) -> None:
    """Writes a small file so that a reader sees the old or the new one, never a half."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
