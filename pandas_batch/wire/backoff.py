"""How long to wait after failures in a row."""

from __future__ import annotations

import secrets


def backoff_s(n_failures: int, *, first_s: float = 1.0, most_s: float = 60.0, growth: float = 2.0) -> float:
    """
    Return the pause after the n-th failure in a row: growing, bounded, with a quarter of jitter either way.

    Examples
    --------
    >>> 0.75 <= backoff_s(1) <= 1.25, backoff_s(99) <= 75
    (True, True)
    """
    pause_s = min(most_s, first_s * growth ** min(max(n_failures, 1) - 1, 16))
    return pause_s * (0.75 + secrets.randbelow(501) / 1000)
