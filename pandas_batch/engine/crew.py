"""Calls that are under way at once, in threads that no end of a process waits for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from concurrent.futures import Future
from typing import Any

from pandas_batch.clock import Clock


class Crew:
    """
    Does errands in threads of their own while whoever sends them looks after other things.

    Not an executor: its threads keep a process from ending for as long as a server likes, and take nothing new once
    the interpreter has begun to end. How many errands are under way is for the sender to bound.

    Parameters
    ----------
    clock
        Hears that somebody is at work, as time that is only played must not pass meanwhile.
    wake
        Set whenever an errand is done.

    Examples
    --------
    >>> crew = Crew(Clock(), threading.Event())
    >>> crew.begin("sum", lambda: 1 + 2)
    >>> crew.wait()
    >>> [(name, done.result()) for name, done in crew.finished()]
    [('sum', 3)]
    """

    def __init__(self, clock: Clock, wake: threading.Event) -> None:
        self._clock = clock
        self._wake = wake
        self._threads: dict[Hashable, threading.Thread | None] = {}
        self._done: deque[tuple[Hashable, Future[Any]]] = deque()

    def __len__(self) -> int:
        return len(self._threads)

    @property
    def under_way(self) -> Collection[Hashable]:
        """The names of the errands that were begun and not taken back by `finished`."""
        return self._threads.keys()

    def begin(self, name: Hashable, work: Callable[[], Any]) -> None:
        """Begin an errand; there is none of that name under way."""
        future: Future[Any] = Future()
        at_work = self._clock.at_work()
        at_work.__enter__()

        def go() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            finally:
                self._done.append((name, future))
                self._wake.set()
                at_work.__exit__(None, None, None)

        thread = threading.Thread(target=go, name=f"pandas_batch step {name}", daemon=True)
        self._threads[name] = thread
        try:
            thread.start()
        except RuntimeError:  # no thread can be started any more: the interpreter is ending
            self._threads[name] = None
            go()

    def finished(self) -> Iterator[tuple[Hashable, Future[Any]]]:
        """Take back what is done, in the order in which it was."""
        while self._done:
            name, future = self._done.popleft()
            self._threads.pop(name, None)
            yield name, future

    def wait(self) -> None:
        """Wait until nothing is under way; what was done is still to be taken back."""
        for thread in list(self._threads.values()):
            if thread is not None:
                thread.join()
