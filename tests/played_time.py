"""Time that is only played: it stands still while anybody is at work, as work takes none of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pandas_batch.clock import Clock


class PlayedTime(Clock):
    """A clock whose waits are jumps, made when nobody is at work."""

    def __init__(self) -> None:
        self._n_at_work = 0
        self._counting = threading.Lock()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with self._counting:
            self._n_at_work += 1
        try:
            yield
        finally:
            with self._counting:
                self._n_at_work -= 1

    def is_woken(self, wake: threading.Event | None, patience_s: float) -> bool:
        """Wait until nobody is at work; return whether `wake` was set before time may go on."""
        if wake is None:
            return False
        while self._n_at_work:
            if wake.wait(0.0005):
                return True
        return wake.wait(patience_s)
