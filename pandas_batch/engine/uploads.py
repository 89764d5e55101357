"""Whose body is on its way: two at once would each take twice as long, and the first batch would begin later."""

from __future__ import annotations

from collections.abc import Callable

from pandas_batch.clock import Clock

STALLED_S = 1.0
"""An upload of which nothing has moved for so long leaves the way to another."""


class Uploads:
    """
    The uploads of one run that are under way.

    Parameters
    ----------
    clock
        Tells how long nothing has moved.
    on_sent
        Called whenever a body is out, from the thread that has sent it.

    Examples
    --------
    >>> uploads = Uploads(Clock(), on_sent=lambda: print("next"))
    >>> uploads.begin(1)
    >>> uploads.free_in_s() > 0
    True
    >>> uploads.end(1)
    next
    >>> uploads.free_in_s()
    0.0
    """

    def __init__(self, clock: Clock, *, on_sent: Callable[[], object]) -> None:
        self._clock = clock
        self._on_sent = on_sent
        self._moved_s: dict[int, float] = {}

    def begin(self, key: int) -> None:
        """Note that batch `key` is about to be sent."""
        self._moved_s[key] = self._clock.monotonic_s()

    def moves(self, key: int) -> None:
        """Note that a part of batch `key` has gone."""
        if key in self._moved_s:
            self._moved_s[key] = self._clock.monotonic_s()

    def end(self, key: int) -> None:
        """Note that nothing more of batch `key` is to be sent; again is harmless."""
        if self._moved_s.pop(key, None) is not None:
            self._on_sent()

    def free_in_s(self) -> float:
        """Return in how many seconds another body may follow, as far as is known now; 0 is at once."""
        since_s = max(list(self._moved_s.values()), default=None)
        return 0.0 if since_s is None else max(0.0, since_s + STALLED_S - self._clock.monotonic_s())
