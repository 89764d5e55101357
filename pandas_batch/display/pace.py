"""How often a display may draw: quick at first, slow in the long run, so that a day fits in few messages.

A browser that is away does not lose messages: the server keeps them all, in memory, until it is back.
"""

from __future__ import annotations

GAP_S = 0.5
"""Never two drawings within this time, but for the last one."""

_N_QUICK = 60
_S_PER_QUICK = 120.0


def clock_interval_s(age_s: float) -> float:
    """
    Return how often the clock of a run of this age moves.

    Examples
    --------
    >>> [clock_interval_s(s) for s in (0, 59, 60, 600)]
    [1.0, 1.0, 5.0, 60.0]
    """
    if age_s < 60:
        return 1.0
    return 5.0 if age_s < 600 else 60.0


class Pace:
    """
    Says when to draw next; changes are drawn together, and the last of a burst is always drawn.

    Changes of batches have an allowance of 60 quick drawings that refills by one every two minutes: a thousand
    batches that end one by one, hour after hour, are drawn in groups. A change of the run's state never waits for it.

    Parameters
    ----------
    started_s
        Time of the first drawing, on the clock that the other methods are given.
    """

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self._drawn_s = started_s
        self._quick = float(_N_QUICK)
        self._counted_s = started_s
        self._pending = False
        self._urgent = False

    def changed(self, *, urgent: bool = False) -> None:
        """Note that there is something new to draw; `urgent` is not held back by the allowance."""
        self._pending = True
        self._urgent = self._urgent or urgent

    def due_in_s(self, now_s: float) -> float:
        """Return in how many seconds to draw; 0 is now."""
        due_s = self._drawn_s + clock_interval_s(now_s - self._started_s)
        if self._urgent:
            due_s = min(due_s, self._drawn_s + GAP_S)
        elif self._pending:
            wait_s = max(0.0, 1.0 - self._allowance(now_s)) * _S_PER_QUICK
            due_s = min(due_s, max(self._drawn_s + GAP_S, now_s + wait_s))
        return max(0.0, due_s - now_s)

    def drawn(self, now_s: float) -> bool:
        """Note that the clock was drawn; return whether the changes are to be drawn with it."""
        self._drawn_s = now_s
        self._quick, self._counted_s = self._allowance(now_s), now_s
        whole = self._urgent or (self._pending and self._quick >= 1.0)
        if whole:
            if not self._urgent:
                self._quick -= 1.0
            self._pending = self._urgent = False
        return whole

    def _allowance(self, now_s: float) -> float:
        return min(float(_N_QUICK), self._quick + (now_s - self._counted_s) / _S_PER_QUICK)
