"""Connections of our own for a client whose connections belong to another event loop, or another process."""

from __future__ import annotations

import asyncio
import copy
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar, cast

from pandas_batch.errors import InputError

T = TypeVar("T")


def with_own_connections(client: Any, *, why: str) -> Any:
    """
    Return a copy of `client` with the same credentials, headers, address, proxies and certificates.

    Nothing that is open is in common: connections of a loop must not be used in another, those of a process not in
    its child.

    Parameters
    ----------
    client
        An SDK client whose connections belong to somebody else.
    why
        Whom they belong to, for the message where a copy cannot be made.

    Raises
    ------
    InputError
        If the client stands on a transport that nobody but its maker can make again.
    """
    http_client = _same_way_anew(client._client)
    if http_client is None:
        # Going another way than the user has chosen (a proxy, a certificate) is worse than not going.
        raise InputError(
            f"The client has a transport of its own, whose connections belong to {why}.",
            hint="client=anthropic.Anthropic(...)   # made here, and not for an event loop",
        )
    return client.copy(http_client=http_client)


def _same_way_anew(http_client: Any) -> Any:
    """
    Return an HTTP client that goes the same way over connections of its own; None if that cannot be known.

    Proxies, certificates and limits cannot be read from an HTTP client by any public name, so its parts are
    copied and their open connections left out. Whatever does not look as it is known to look is refused.
    """
    import httpx2

    pooled = (httpx2.HTTPTransport, httpx2.AsyncHTTPTransport)
    unconnected = (httpx2.MockTransport, httpx2.ASGITransport, httpx2.WSGITransport, type(None))
    open_parts = {"_connections", "_requests", "_optional_thread_lock"}

    def anew(transport: Any) -> Any:
        if isinstance(transport, unconnected):
            return transport
        if type(transport) not in pooled or not open_parts <= vars(transport._pool).keys():
            raise LookupError
        pool: Any = copy.copy(transport._pool)
        pool._connections, pool._requests = [], []
        pool._optional_thread_lock = type(pool._optional_thread_lock)()
        pool._max_keepalive_connections = 0
        transport = copy.copy(transport)
        transport._pool = pool
        return transport

    try:
        twin = copy.copy(http_client)
        twin._transport = anew(http_client._transport)
        twin._mounts = {pattern: anew(transport) for pattern, transport in http_client._mounts.items()}
        twin._state = type(http_client._state)(1)
    except (LookupError, AttributeError, TypeError, ValueError):
        return None
    return twin


class LoopThread:
    """An event loop of our own in a daemon thread, for what must not run in anybody else's."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run_forever, args=(self._loop,), name="pandas-batch-loop", daemon=True)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _stop, self._loop, self._thread)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the loop and wait for it; an interrupt of the waiting thread cancels it."""

        async def guarded() -> tuple[T | None, BaseException | None]:
            try:
                return await work, None
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                # An interrupt raised in a loop stops the loop; it is for the thread that waits.
                return None, error

        future = asyncio.run_coroutine_threadsafe(guarded(), self._loop)
        try:
            value, error = future.result()
        except CancelledError:
            raise RuntimeError("The loop was stopped while a call was under way.") from None
        except BaseException:
            future.cancel()
            raise
        if error is not None:
            raise error
        return cast("T", value)

    def close(self) -> None:
        """Stop the loop and its thread."""
        self._finalizer()


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if loop.is_closed():
        return
    if thread.is_alive():
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(timeout=2.0)
    if not loop.is_running():
        loop.close()
