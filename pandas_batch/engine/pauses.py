"""How long to wait between two looks at a batch that is under way."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

POLL_SHARE = 0.1
"""The longest pause between two looks, as a share of the time that has passed."""
_N_MARKS = 8
_ALIKE = 8
"""Batches up to so many times larger or smaller tell something about one another."""
_AFTER_MARK_S = 1.0


def poll_pause_s(
    elapsed_s: float, marks_s: Sequence[float] = (), *, first_s: float, most_s: float, share: float = POLL_SHARE
) -> float:
    """
    Return the pause before the next look at a batch: at most a share of the time that it has been under way.

    It ends just after the next of the moments at which batches like it have ended.

    Parameters
    ----------
    elapsed_s
        How long it has been under way.
    marks_s
        After how long others have ended; see `marks_of`.
    first_s, most_s
        The shortest and the longest pause.
    share
        The share.

    Examples
    --------
    >>> poll_pause_s(1.0, first_s=2.0, most_s=60.0)
    2.0
    >>> 35.0 <= poll_pause_s(600.0, first_s=2.0, most_s=60.0) <= 60.0
    True
    >>> poll_pause_s(595.0, [600.0], first_s=2.0, most_s=60.0)
    6.0
    """
    jitter = 0.7 + secrets.randbelow(251) / 1000
    pause_s = min(most_s, max(elapsed_s, 0.0) * share) * jitter
    until_mark_s = min((mark_s - elapsed_s + _AFTER_MARK_S for mark_s in marks_s if mark_s > elapsed_s), default=most_s)
    return max(first_s, min(pause_s, until_mark_s))


def marks_of(durations: Sequence[tuple[int, float]], n_requests: int) -> list[float]:
    """
    Return the moments at which a batch of `n_requests` may well end, from how long others took.

    Parameters
    ----------
    durations
        Of each of them: its size, and the seconds that it took.
    n_requests
        The size of the batch.

    Examples
    --------
    >>> marks_of([(100, 61.0), (120, 58.0), (100_000, 1800.0)], 110)
    [58.0, 61.0]
    """
    alike = sorted(
        seconds for n, seconds in durations if n <= n_requests * _ALIKE and n_requests <= n * _ALIKE and seconds > 0
    )
    if len(alike) <= _N_MARKS:
        return alike
    return [alike[round(at * (len(alike) - 1) / (_N_MARKS - 1))] for at in range(_N_MARKS)]
