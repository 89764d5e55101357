"""
The end of this process as an event like others.

Python ends in stages. First what was left with `threading` is called, before it waits for the threads of users; then
what was left with `atexit`, while daemon threads still run; then those are frozen wherever they are, in the middle of
C++ if it must be, and that is what a process dies of. So posts are waited for in the first stage (the only one that
the children of `multiprocessing` have), and all that is at work here is stopped in the second.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from contextlib import suppress
from typing import Protocol

PATIENCE_S = 30.0
"""How long the end of a process waits for what is still to be sent."""

_STEP_PATIENCE_S = 10.0
_TICK_S = 0.02


class ProcessEnding(BaseException):
    """Raised in a thread of ours whose process is ending; no step may swallow it."""


class AtWork(Protocol):
    """Something at work in threads of its own."""

    is_told: bool
    """Whether the user has heard all there is to say of it."""

    @property
    def is_waited_for(self) -> bool:
        """Whether a thread of the user's waits for it."""

    def may_still_send(self) -> bool:
        """Return whether something is still to be sent, and it is about to do so."""

    def last_words(self) -> str:
        """Return one line for whoever reads the end of the script, or nothing."""

    def stop(self) -> None:
        """End after the step that is being taken."""

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; return whether it has."""


_at_work: dict[int, AtWork] = {}
_is_ending = False
_until_s: float | None = None


def remember(work: AtWork) -> None:
    """Let the end of the process look after `work`."""
    _at_work[id(work)] = work


def forget(work: AtWork) -> None:
    """`work` has ended, and nothing is left to say of it."""
    _at_work.pop(id(work), None)


def is_ending() -> bool:
    """Return whether this process is ending: no new thread may be started, nothing long begun."""
    return _is_ending


def leave_if_ending() -> None:
    """Raise `ProcessEnding` where this process is ending; long work asks from time to time."""
    if _is_ending:
        raise ProcessEnding


def _wait_for_posts(*, at_last: bool) -> None:
    """Wait until nothing is left to send, and say what becomes of it; what somebody waits for is left to the end."""
    global _until_s
    if not _mine(at_last=at_last):
        return
    if _until_s is None:
        _until_s = time.monotonic() + PATIENCE_S
    with suppress(KeyboardInterrupt):
        # Asked anew each time: what was being prepared becomes a run.
        while time.monotonic() < _until_s and any(work.may_still_send() for work in _mine(at_last=at_last)):
            time.sleep(_TICK_S)
    if at_last or _is_child_of_multiprocessing():
        for work in _mine(at_last=at_last):
            if not work.is_told:
                work.is_told = True
                say(work.last_words())


def _mine(*, at_last: bool) -> list[AtWork]:
    return [work for work in list(_at_work.values()) if at_last or not work.is_waited_for]


def _is_child_of_multiprocessing() -> bool:
    # It leaves by `os._exit` after the first stage; whatever it registers with `atexit` is never called.
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def say(line: str) -> None:
    """Write a line to stderr, where there is one; what reads it may have closed it."""
    if line and sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


def _before_threads_end() -> None:
    # Whatever goes wrong here must not change the exit code of the script.
    with suppress(Exception):
        _wait_for_posts(at_last=False)


def _stop_all() -> None:
    global _is_ending
    with suppress(Exception):
        _wait_for_posts(at_last=True)
    _is_ending = True
    works = list(_at_work.values())
    for work in works:
        work.stop()
    until_s = time.monotonic() + _STEP_PATIENCE_S
    with suppress(KeyboardInterrupt):
        for work in works:
            work.join(max(0.0, until_s - time.monotonic()))


def _after_fork_in_child() -> None:
    # Threads are not copied: in the child nothing is at work yet.
    global _is_ending, _until_s
    _at_work.clear()
    _is_ending, _until_s = False, None


def _listen() -> None:
    # What is registered last is called first: before finalizers, which close clients and databases.
    weakref.finalize(AtWork, int)
    atexit.register(_stop_all)
    with suppress(AttributeError, RuntimeError):  # a private name; and a process that is ending already
        threading._register_atexit(_before_threads_end)  # type: ignore[attr-defined]  # said above
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork_in_child)


_listen()
