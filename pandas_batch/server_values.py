"""The one door through which what a server says of a batch becomes ours: times, counts, size. Nothing in it raises.

Whatever a gateway makes of them, the batch is made and paid: a value that cannot be read is not known, no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_LONGEST_TIME = 64
_MOST_REQUESTS = 10**6
"""Ten times what one batch may hold."""

_OUTCOMES = ("processing", "succeeded", "errored", "canceled", "expired")
KNOWN_STATUSES = frozenset({"in_progress", "canceling", "ended"})


def time_of(value: Any) -> datetime | None:
    """
    Return a time of the API as an aware UTC datetime; None where it cannot be read. Without a zone it is UTC.

    Examples
    --------
    >>> time_of("2026-08-19T14:44:51.493319+00:00").hour, time_of("2026-08-19T14:44:51Z").hour
    (14, 14)
    >>> time_of("2026-08-19T14:44:51").tzinfo is UTC, time_of("soon"), time_of(None)
    (True, None, None)
    """
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TIME:
        return None
    try:
        time = datetime.fromisoformat(value.strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def counts_of(value: Any) -> dict[str, int]:
    """
    Return the ``request_counts`` of a batch; empty where they cannot be read.

    Examples
    --------
    >>> counts_of({"processing": 3, "succeeded": 0}), counts_of(None), counts_of({"processing": "many"})
    ({'processing': 3, 'succeeded': 0}, {}, {})
    """
    if not isinstance(value, Mapping):
        return {}
    counts: dict[str, int] = {}
    for name, n in value.items():
        n = 0 if n is None else n
        if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= _MOST_REQUESTS:
            return {}
        counts[str(name)] = n
    return counts


def n_requests_of(batch: Mapping[str, Any]) -> int | None:
    """
    Return how many requests a batch holds, as its counts say; None where they do not say it, or only half of it.

    Examples
    --------
    >>> counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 2)
    >>> n_requests_of({"request_counts": counts})
    10
    >>> n_requests_of({"request_counts": {"processing": 0, "succeeded": 3}}) is None
    True
    """
    told = batch.get("request_counts")
    if not isinstance(told, Mapping) or any(told.get(name) is None for name in _OUTCOMES):
        # A count that is left out may be any number, and with it the size.
        return None
    return sum(counts_of(told).values()) or None


def is_state_told(batch: Mapping[str, Any]) -> bool:
    """Return whether a batch says whether it has ended, in a word that the API has."""
    status = batch.get("processing_status")
    return isinstance(status, str) and status in KNOWN_STATUSES


def times_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the times and counts of a batch object as the store keeps them."""
    names = ("created_at", "expires_at", "ended_at", "cancel_initiated_at", "archived_at")
    return {name: time_of(batch.get(name)) for name in names} | {"counts": counts_of(batch.get("request_counts"))}
