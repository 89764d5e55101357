"""Conversations with a server, written once and driven twice: in a thread, or in an event loop.

A *flow* is a generator that yields what it wants done (`Call`, `Read`, `Pause`, `Emit`) and is sent what came of
it. `pandas_batch.wire.drivers` does those things, with a synchronous or an asynchronous client; all decisions stand in
the flows, so the two can never differ.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from .body import Body

T = TypeVar("T")
Flow = Generator["Step", Any, T]
"""A generator of wishes that returns a `T`."""

MAX_RETRY_AFTER_S = 300.0
"""A server may ask for any wait; a longer one than this freezes a notebook for nothing."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """
    One HTTP request, made exactly once: no retry, no redirect.

    With `stream`, the answer to it is a `Reply` without content, and `Read` brings its bytes block by block.
    """

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    stream: bool = False


class Read:
    """The next block of the open stream; the answer is ``b""`` at its end."""


@dataclass(frozen=True)
class Pause:
    """Nothing for some seconds."""

    seconds: float


@dataclass(frozen=True)
class Emit:
    """Something for whoever iterates over the flow."""

    item: Any


Step = Call | Read | Pause | Emit


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The answer to a `Call`, with status 2xx (any other is raised as the SDK's error)."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes = b""

    @property
    def server_at(self) -> datetime | None:
        """The server's clock when it answered."""
        return date_of(self.headers)

    @property
    def workspace_id(self) -> str | None:
        """The workspace that the credentials belong to."""
        return self.headers.get("anthropic-workspace-id")

    @property
    def request_id(self) -> str | None:
        """The server's name for the request."""
        return self.headers.get("request-id")


def date_of(headers: Mapping[str, str]) -> datetime | None:
    """Return the ``Date`` header as an aware UTC datetime, or None."""
    try:
        date = parsedate_to_datetime(headers["date"])
    except (KeyError, TypeError, ValueError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)


def wait_asked_s(headers: Mapping[str, str]) -> float | None:
    """
    Return the seconds that ``retry-after`` asks for, at most `MAX_RETRY_AFTER_S`; None where it asks nothing sane.

    Examples
    --------
    >>> wait_asked_s({"retry-after": "10"}), wait_asked_s({"retry-after": "86400"})
    (10.0, 300.0)
    >>> wait_asked_s({"retry-after": "soon"}) is None
    True
    """
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        then = date_of({"date": text})
        if then is None:
            return None
        # Both times are the server's where it tells its own, so a wrong clock here does no harm.
        seconds = (then - (date_of(headers) or datetime.now(UTC))).total_seconds()
    if not math.isfinite(seconds) or seconds < 0:
        return None
    return min(seconds, MAX_RETRY_AFTER_S)
