"""How far rows are that are asked one by one: a bar where somebody looks, a line now and then where nobody does."""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

from pandas_batch.clock import SYSTEM_CLOCK, Clock
from pandas_batch.exiting import say

from .progress import LINE_INTERVAL_S, in_kernel

TROUBLE_INTERVAL_S = 10.0


class LiveProgress:
    """
    Shows how many of some requests are done; never stops whoever tells it.

    Parameters
    ----------
    mode
        As the option ``progress``; ``"off"`` shows nothing.
    title, n
        What is asked, and how many requests.
    """

    def __init__(self, mode: str, title: str, n: int, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._mode, self._title, self._n, self._clock = mode, title, n, clock
        self._lock = threading.Lock()
        self._bar: Any = None
        self._told_s = clock.monotonic_s()
        self._trouble_s = -math.inf
        if mode != "off" and n > 1 and (mode == "text" or in_kernel() or _is_terminal()):
            from tqdm import tqdm

            # What came of it is shown below; the bar itself is of no use then.
            self._bar = tqdm(total=n, desc=title, unit="row", file=sys.stderr, leave=False)

    def tell(self, text: str) -> None:
        """Write a line."""
        if self._mode != "off":
            say(text)

    def update(self, n_done: int) -> None:
        """Show that so many are done."""
        with self._lock:
            if self._bar is not None:
                self._bar.update(n_done - self._bar.n)
            elif self._clock.monotonic_s() - self._told_s >= LINE_INTERVAL_S:
                self._told_s = self._clock.monotonic_s()
                self.tell(f"{self._title}: {n_done:,} of {self._n:,}")

    def trouble(self, text: str) -> None:
        """Show why nothing moves, the same not too often."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            if self._mode != "off" and now_s - self._trouble_s >= TROUBLE_INTERVAL_S:
                self._trouble_s = now_s
                say(f"{self._title}: {text}")

    def close(self) -> None:
        """Show nothing more."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
