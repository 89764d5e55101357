"""Who has the processor to himself: threads that could all use it whole only take it from each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from pandas_batch.clock import Clock

_processor = threading.Lock()
_LOOK_BYTES = 1 << 20
_LOOK_S = 0.05
_FAST_BYTES_PER_S = 200e6
_PATIENCE_S = 10.0
"""A batch of 100,000 rows has the turn for two seconds; what has it much longer has stalled."""


class ProcessorTurn:
    """
    The turn of one thread among those that collect answers; one has it at a time.

    A download that waits for its network goes on beside the others. One that comes faster than that takes its turn,
    and keeps it until it is decoded: of three at once each would have to wait for the interpreter at every block,
    and the answers of a million rows took 13 s of CPU in place of 10 s.

    Parameters
    ----------
    clock
        Tells how fast blocks come.

    Examples
    --------
    >>> from pandas_batch.clock import SYSTEM_CLOCK
    >>> came = bytearray()
    >>> with ProcessorTurn(SYSTEM_CLOCK) as turn:
    ...     turn.paced(came.extend)(b"{}")
    ...     turn.take()
    >>> bytes(came)
    b'{}'
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._is_mine = False
        self._is_patient = True

    def take(self) -> None:
        """Wait until nobody else has the turn, and keep it; after ten seconds in vain, go on beside the others."""
        if not self._is_mine and self._is_patient:
            self._is_mine = self._is_patient = _processor.acquire(timeout=_PATIENCE_S)

    def end(self) -> None:
        """Let others have it."""
        if self._is_mine:
            self._is_mine = False
            _processor.release()

    def paced(self, write: Callable[[bytes], Any]) -> Callable[[bytes], None]:
        """Return a function that writes the blocks of a download, and takes the turn as long as they come fast."""
        n_bytes, since_s = 0, self._clock.monotonic_s()

        def write_block(block: bytes) -> None:
            nonlocal n_bytes, since_s
            write(block)
            n_bytes += len(block)
            elapsed_s = self._clock.monotonic_s() - since_s
            if n_bytes < _LOOK_BYTES and elapsed_s < _LOOK_S:
                return
            if n_bytes < _FAST_BYTES_PER_S * elapsed_s:
                self.end()
            else:
                self.take()
            n_bytes, since_s = 0, self._clock.monotonic_s()

        return write_block

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def _after_fork_in_child() -> None:
    # The thread that had the turn lives on in the parent only; nobody here would ever end it.
    global _processor
    _processor = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
