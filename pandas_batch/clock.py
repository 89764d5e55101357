"""Time as something that is passed in, so that a test can spend a day in a millisecond."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime


class Clock:
    """
    The machine's clock: wall time, monotonic time, and the two ways of waiting.

    Wall time decides what is due (a monotonic clock stands still while a laptop sleeps); monotonic time
    measures how long something took.
    """

    def now(self) -> datetime:
        """Return the wall time as an aware UTC datetime."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Return seconds from an arbitrary start, never going back."""
        return time.monotonic()

    def wait(self, seconds: float, wake: threading.Event | None = None) -> bool:
        """Block for `seconds` or until `wake` is set; return whether it was set."""
        if wake is not None:
            return wake.wait(seconds)
        time.sleep(seconds)
        return False

    def at_work(self) -> AbstractContextManager[None]:
        """Return what is open while somebody works: of time that is only played, none may pass meanwhile."""
        return nullcontext()

    async def async_wait(self, seconds: float) -> None:
        """Let the event loop go on for `seconds`."""
        await asyncio.sleep(seconds)


SYSTEM_CLOCK = Clock()


_TICKS_S = ((60.0, 1.0), (600.0, 5.0))
_LONGEST_TICK_S = 60.0


def tick_s(elapsed_s: float) -> float:
    """
    Return how long to sleep at most: displays want a clock, and a laptop that slept wants to be noticed.

    Examples
    --------
    >>> tick_s(0), tick_s(120), tick_s(7200)
    (1.0, 5.0, 60.0)
    """
    return next((most_s for until_s, most_s in _TICKS_S if elapsed_s < until_s), _LONGEST_TICK_S)
