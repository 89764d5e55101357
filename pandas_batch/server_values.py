"""The one door through which what a server says of a batch becomes ours: times, counts, size. Nothing in it raises.

Whatever a gateway makes of them, the batch is made and paid: a value that cannot be read is not known, no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_LONGEST_TIME = 64
_MOST_REQUESTS = 10**9


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
    """Return how many requests a batch holds, as its counts say; None where they do not say it."""
    return sum(counts_of(batch.get("request_counts")).values()) or None


def times_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the times and counts of a batch object as the store keeps them."""
    names = ("created_at", "expires_at", "ended_at", "cancel_initiated_at", "archived_at")
    return {name: time_of(batch.get(name)) for name in names} | {"counts": counts_of(batch.get("request_counts"))}
