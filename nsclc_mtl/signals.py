"""Signals that end a command, raised as exceptions; held back while a step runs that must not be cut in two.

A handler raises between any two steps of the main thread, also within `finally` and `__exit__`. Whoever makes something
that must not stay behind does it `undisturbed`, and lets signals through again for the long work.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Given = TypeVar("Given")

_depth = 0
_waiting: list[BaseException] = []


def end(by: BaseException) -> None:
    """Called by a handler: raises `by`, now or at the end of the step that must not be disturbed."""
    if _depth:
        _waiting.append(by)
    else:
        raise by


def undisturbed(step: Callable[[], Given]) -> Given:
    """What `step` gives. A signal that comes meanwhile is raised after it."""
    return _at(_depth + 1, step)


def disturbed(work: Callable[[], Given]) -> Given:
    """What `work`, within an undisturbed step, gives. A signal ends it."""

    def begin() -> Given:
        _raise()
        return work()

    return _at(0, begin)


@contextmanager
def unheard(*numbers: int) -> Iterator[None]:
    """Processes that are started within never hear these signals; this one does, after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _at(depth: int, step: Callable[[], Given]) -> Given:
    global _depth
    before, _depth = _depth, depth
    try:
        given = step()
    finally:
        _depth = before
    if not _depth:
        _raise()
    return given


def _raise() -> None:
    if _waiting:
        raise _waiting.pop()
