"""Which runs are being finished now in this process, so that whoever shows a run, or waits for it, knows of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_S = 0.25


class Finish:
    """
    One `finish_now` at work.

    Attributes
    ----------
    words
        What it does just now.
    error
        What ended it before it was done, or None.
    warnings
        What the user is to be warned of in the end.
    over
        Set when it has ended.
    """

    def __init__(self) -> None:
        self.words = "Finishing now."
        self.error: Exception | None = None
        self.warnings: list[str] = []
        self.over = threading.Event()
        self._thread_id = threading.get_ident()
        self._on_stop: list[Callable[[], object]] = []
        self._is_stopped = False

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more is to be asked."""
        return self._is_stopped

    @property
    def is_of_this_thread(self) -> bool:
        """Whether whoever asks is the one that finishes."""
        return self._thread_id == threading.get_ident()

    def stop(self) -> None:
        """Ask nothing more; what is under way is kept when it comes."""
        self._is_stopped = True
        for call in list(self._on_stop):
            call()

    def when_stopped(self, call: Callable[[], object]) -> None:
        """Call this at a stop, at once where it was one already."""
        self._on_stop.append(call)
        if self._is_stopped:
            call()


_finishes: dict[tuple[str, str], Finish] = {}
_lock = threading.Lock()


def _after_fork_in_child() -> None:
    # They are threads of the parent.
    global _lock
    _lock = threading.Lock()
    _finishes.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def finish_of(place: tuple[str, str]) -> Finish | None:
    """Return the finish at work on a run (its store's path and its id), or None."""
    return _finishes.get(place)


@contextmanager
def finishing(place: tuple[str, str]) -> Iterator[Finish]:
    """While this is open the run is being finished by whoever opened it; one after the other."""
    finish = Finish()
    while True:
        with _lock:
            other = _finishes.setdefault(place, finish)
        if other is finish:
            break
        other.over.wait(_LOOK_S)
    try:
        yield finish
    except Exception as error:
        finish.error = error
        raise
    finally:
        with _lock:
            del _finishes[place]
        finish.over.set()
