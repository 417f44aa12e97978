"""Staging: slides copied from slow storage to a local disk before they are read, a bounded number ahead."""

from __future__ import annotations

import errno
import re
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from nsclc_mtl.commands.job import Job
from nsclc_mtl.lease import Lease, heal
from nsclc_mtl.records import ItemFault, TryAgain

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stage:
    """Jobs with their slides copied to `folder`; without a folder, the jobs as they are.

    One thread copies while the slides before are worked on; not more than `ahead` copies wait. `wanted` says whether a
    slide will be read at all. Copies lie in a folder of this command's own, which its end removes; those of commands
    that were killed are removed by the next.
    """

    def __init__(
        self, folder: Path | None = None, ahead: int = 1, wanted: Callable[[Job], bool] = lambda job: True
    ) -> None:
        self.folder, self.ahead, self.wanted = folder, max(1, ahead), wanted
        self._waiting: deque[Job] = deque()
        self._copies: deque[tuple[Job, Future[Job]]] = deque()
        self._lease: Lease | None = None

    def __enter__(self) -> Self:
        if self.folder is None:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        for own in self.folder.glob("mtl-*"):
            if re.fullmatch("mtl-[0-9a-f]{32}", own.name) and heal(own.with_suffix(".lease")):
                shutil.rmtree(own, ignore_errors=True)
        self._lease = Lease.take(self.folder / f"mtl-{uuid.uuid4().hex}.lease")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stage")
        return self

    def __exit__(self, *_: object) -> None:
        if self._lease is None:
            return
        self._thread.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self._lease.path.with_suffix(""), ignore_errors=True)
        self._lease.release()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._copies)

    def add(self, job: Job) -> None:
        """Another job at the end of the queue."""
        self._waiting.append(job)
        self._fill()

    def next(self) -> tuple[Job, ItemFault | None]:
        """The next job, its slide copied if it is to be read, and the fault of copying it."""
        if self._lease is None:
            return self._waiting.popleft(), None
        job, copy = self._copies.popleft()
        try:
            return copy.result(), None
        except ItemFault as fault:
            return job, fault
        finally:
            self._fill()

    def drop(self, job: Job) -> Job:
        """The job as it was before, its copy removed."""
        if job.staged and self._lease is not None:
            own = self._lease.path.with_suffix("")
            shutil.rmtree(own / Path(job.staged).relative_to(own).parts[0], ignore_errors=True)
        return replace(job, staged="")

    def _fill(self) -> None:
        while self._lease is not None and self._waiting and len(self._copies) < self.ahead:
            job = self._waiting.popleft()
            self._copies.append((job, self._thread.submit(self.copy, job)))

    def copy(self, job: Job) -> Job:
        """The job with a copy of its slide; as it is where none is made, or where its reader is to tell what is wrong.

        Raises ItemFault where the slide changes meanwhile, TryAgain where the disk is full.
        """
        if self._lease is None:
            return job
        source, folder = Path(job.path), self._lease.path.with_suffix("") / uuid.uuid4().hex
        try:
            if not source.is_file() or not self.wanted(job):
                return job
            for file in parts_of(source):
                copy = folder / file.relative_to(source.parent)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
                if copy.stat().st_size != file.stat().st_size:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise ItemFault(
                        "copy_differs", f"slide '{job.slide_id}': '{file.name}' changed while it was copied; run again"
                    )
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            if error.errno in _FULL:
                told = f"no space left in slides.stage='{self.folder}' for '{source.name}'; free some and repeat"
                raise TryAgain(f"{told}, or lower slides.stage_ahead (now {self.ahead})") from error
            return job
        return replace(job, staged=str(folder / source.name))


def of(slides: Mapping[str, Any], state: Callable[[Job], str]) -> Stage:
    """The stage that the `slides` group asks for; slides are copied where `state` says that they are to be read."""
    folder = Path(slides["stage"]) if slides.get("stage") else None
    return Stage(folder, int(slides.get("stage_ahead", 2)), lambda job: state(job) == "todo")


def parts_of(slide: Path) -> list[Path]:
    """All files that a slide consists of, the one that is opened first.

    MIRAX keeps its pixels in a folder of the same name, Hamamatsu's VMS and VMU in files that they name, DICOM in the
    files of the same series; all beside the slide.
    """
    kind, beside = slide.suffix.lower(), slide.with_suffix("")
    found: list[Path] = []
    if kind == ".mrxs" and beside.is_dir():
        found = [file for file in sorted(beside.rglob("*")) if file.is_file()]
    elif kind in {".vms", ".vmu"}:
        named = re.findall(r"=\s*(\S[^\r\n]*?)\s*$", slide.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        found = [slide.parent / name for name in dict.fromkeys(named) if Path(name).name == name]
        found = [file for file in found if file.is_file()]
    elif kind == ".dcm":
        series = _series(slide)
        found = [file for file in sorted(slide.parent.glob("*.dcm")) if series and _series(file) == series]
    return [slide, *(file for file in found if file != slide)]


def _series(file: Path) -> str:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        head = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return str(head.get("SeriesInstanceUID", ""))
    except (InvalidDicomError, OSError, EOFError):
        return ""
