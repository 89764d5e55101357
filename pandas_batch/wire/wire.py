"""The only door to the anthropic SDK: create a batch exactly once, poll, list, fetch raw results, cancel, delete.

The endpoints are flows (`pandas_batch.wire.endpoints`); `Wire` drives them for one client, from any thread.

What the SDK would do by itself, and is not let do:

* repeat a create whose answer was lost (three batches were made, and billed, for one call);
* sleep as long as any ``retry-after`` says;
* fetch results from whatever host the answer names, key in hand;
* take a portal's page, or ``{}``, for an answer.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar

from pandas_batch.clock import SYSTEM_CLOCK, Clock

from .body import Body
from .clients import resolve_client
from .connections import LoopThread, with_own_connections
from .drivers import adrive, aiterate, drive, iterate
from .endpoints import (
    Created,
    Page,
    Polled,
    Sink,
    cancel_flow,
    count_tokens_flow,
    create_flow,
    delete_flow,
    list_flow,
    model_flow,
    results_flow,
    retrieve_flow,
)
from .failures import (
    is_auth,
    is_not_found,
    is_spend_cap,
    is_transient,
    never_sent,
    retry_after_s,
    server_time,
)
from .flows import Flow
from .messages import Asked, message_flow
from .sending import is_async

__all__ = [
    "Asked",
    "Body",
    "Created",
    "Page",
    "Polled",
    "Wire",
    "is_auth",
    "is_not_found",
    "is_spend_cap",
    "is_transient",
    "never_sent",
    "resolve_client",
    "retry_after_s",
    "server_time",
]

T = TypeVar("T")
_END = object()


class Wire:
    """
    The calls of one client, each made once, usable from any thread.

    A synchronous client is called in place. An ``AsyncAnthropic`` belongs to its user's loop and is never driven
    from another: a copy of it with connections of its own lives on a private loop thread. After a fork, the child
    makes connections of its own too, and so does a run whose client was closed.

    Parameters
    ----------
    client
        As `resolve_client` takes it; None: built from the environment, and closed by `close`.
    api_key
        Used where no client is given; None: from the environment.

    Attributes
    ----------
    base_url
        The client's base URL, without a trailing slash.
    api_version
        The ``anthropic-version`` that the client sends.
    """

    def __init__(self, client: Any = None, *, api_key: str | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        # The client is held for as long as we live: results read after it was collected fail with a dead socket.
        self._client = resolve_client(client, api_key=api_key)
        self._is_ours = client is None
        self._clock = clock
        self._lock = threading.Lock()
        self._is_forked = False
        self._copy: Any = None
        self._loop_thread: LoopThread | None = None
        self._left_to_parent: list[Any] = []
        self.base_url = str(self._client.base_url).rstrip("/")
        versions = {name: v for name, v in self._client.default_headers.items() if name.lower() == "anthropic-version"}
        # Under another spelling it is the user's, and wins.
        self.api_version = str(
            next((v for name, v in versions.items() if not name.islower()), None) or next(iter(versions.values()), "")
        )
        if self._is_ours:
            # Nobody else can close a client that was built here: its sockets go when we do.
            weakref.finalize(self, self._client.close)
        _WIRES.add(self)

    def __repr__(self) -> str:
        return f"<Wire to {self.base_url}>"

    def create(self, body: Body, *, betas: Sequence[str] = ()) -> Created:
        """POST a create exactly once."""
        return self.drive(create_flow(body, betas=betas))

    def retrieve(self, batch_id: str) -> Polled:
        """Return a batch as the server describes it now."""
        return self.drive(retrieve_flow(batch_id))

    def list(self, *, limit: int = 100, before_id: str | None = None, after_id: str | None = None) -> Page:
        """Return one page of batches, newest first."""
        return self.drive(list_flow(limit=limit, before_id=before_id, after_id=after_id))

    def results(self, batch_id: str, sink: Sink, *, path: str | None = None) -> None:
        """Stream the raw results of a batch to `sink`, a binary file or a function of each block; see `own_path`."""
        self.drive(results_flow(batch_id, sink, path=path))

    def cancel(self, batch_id: str) -> dict[str, Any]:
        """Ask for a batch to be canceled and return it."""
        return self.drive(cancel_flow(batch_id))

    def delete(self, batch_id: str) -> dict[str, Any]:
        """Delete an ended batch from the server."""
        return self.drive(delete_flow(batch_id))

    def model(self, model: str) -> dict[str, Any]:
        """Return the server's description of a model."""
        return self.drive(model_flow(model))

    def count_tokens(self, params: Mapping[str, Any], *, betas: Sequence[str] = ()) -> int:
        """Return the server's estimate of the input tokens of one request."""
        return self.drive(count_tokens_flow(params, betas=betas))

    def ask(self, params: bytes, *, betas: Sequence[str] = ()) -> Asked:
        """Ask one request of the Messages API, once."""
        return self.drive(message_flow(params, betas=betas))

    def close(self) -> None:
        """Close what is ours: the loop thread, the copy, and a client that nobody passed in."""
        with self._lock:
            loop_thread, copy = self._loop_thread, self._copy
            self._loop_thread = self._copy = None
        if self._is_forked:
            return
        if loop_thread is not None:
            loop_thread.run(copy.close())
            loop_thread.close()
        elif copy is not None:
            copy.close()
        if self._is_ours:
            self._client.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def drive(self, flow: Flow[T]) -> T:
        """Drive any flow to its end with this client and return what it returns."""
        client, loop_thread = self._speaker()
        if loop_thread is None:
            return drive(flow, client, self._clock)
        return loop_thread.run(adrive(flow, client, self._clock))

    def iterate(self, flow: Flow[Any]) -> Generator[Any, None, None]:
        """Drive any flow with this client, yielding what it emits."""
        client, loop_thread = self._speaker()
        if loop_thread is None:
            yield from iterate(flow, client, self._clock)
            return
        items = aiterate(flow, client, self._clock)

        async def item() -> Any:
            return await anext(items, _END)

        try:
            while (found := loop_thread.run(item())) is not _END:
                yield found
        finally:
            loop_thread.run(items.aclose())

    def _speaker(self) -> tuple[Any, LoopThread | None]:
        with self._lock:
            if self._is_forked:
                # Kept, not closed: closing the child's side of a shared loop or connection disturbs the parent's.
                self._left_to_parent += [self._client, self._copy, self._loop_thread]
                self._copy = self._loop_thread = None
                self._client = with_own_connections(self._client, why="the process that made it")
                self._is_ours, self._is_forked = True, False
            if not is_async(self._client):
                if not self._is_ours and self._client.is_closed():
                    # A run outlives the ``with`` block of its client: what is on the server is paid for.
                    self._client = with_own_connections(self._client, why="whoever has closed it")
                    self._is_ours = True
                return self._client, None
            if self._loop_thread is None:
                self._copy = with_own_connections(self._client, why="your event loop")
                self._loop_thread = LoopThread()
            return self._copy, self._loop_thread

    def _after_fork_in_child(self) -> None:
        # Another thread may have held the lock when the process was copied; nobody here would ever release it.
        self._lock = threading.Lock()
        self._is_forked = True


_WIRES: weakref.WeakSet[Wire] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for wire in list(_WIRES):
        wire._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
