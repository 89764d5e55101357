"""What a run is shown by asks for no more than somebody sees, and says once that it is done."""

from __future__ import annotations

import threading
from typing import Any

from pandas_batch.display.display import Actions
from pandas_batch.requests.options import parse_options
from pandas_batch.run.showing import RunDisplay
from pandas_batch.types import RunStatus


class Handle:
    """A run, as far as its display knows one, that counts how often its status is made."""

    id = "r"

    def __init__(self, **options: Any) -> None:
        self.n_made = 0
        self.done: list[Any] = []
        self.called = threading.Event()
        given = parse_options({"prompt_col": "q", "on_done": self._on_done, **options})
        self.display = RunDisplay(self, given, snapshot=self._status, actions=Actions(print, print))

    def _status(self) -> RunStatus:
        self.n_made += 1
        raise AssertionError("nobody looks")

    def _on_done(self, run: Any) -> None:
        self.done.append(run)
        self.called.set()


def test_nobody_looks_and_no_status_is_made() -> None:
    """With progress="off" neither the opening nor the end of a display reads a store."""
    handle = Handle(progress="off")
    assert not handle.display.open(None, blocking=False)
    handle.display.finish()
    assert (handle.n_made, handle.display.is_open, handle.display.is_seen) == (0, True, False)


def test_many_that_come_to_the_end_say_so_once() -> None:
    """The thread of a run and whoever waits for it may both be there first: `on_done` is called once."""
    handle = Handle(progress="off")
    together = threading.Barrier(8)

    def end() -> None:
        together.wait()
        handle.display.signal()

    threads = [threading.Thread(target=end) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert handle.called.wait(60)
    for thread in threading.enumerate():
        if thread.name.startswith("pandas_batch on_done"):
            thread.join(60)
    assert handle.done == [handle]
