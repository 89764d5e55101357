"""Conversations with a server, written once and driven twice: in a thread, or in an event loop.

A *flow* is a generator that yields what it wants done (`Call`, `Read`, `Pause`, `Emit`) and is sent what came of
it. `drive` and `iterate` do those things with a synchronous SDK client, `adrive` and `aiterate` with an
asynchronous one; all decisions stand in the flow, so the two can never differ.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar, cast

from .body import Body
from .clock import Clock

T = TypeVar("T")
Flow = Generator["Call | Read | Pause | Emit", Any, T]
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


# -------------------------------------------------------------------- the two drivers


@dataclass(frozen=True)
class _Done:
    value: Any


def _advance(flow: Flow[Any], reply: Any, error: Exception | None) -> Call | Read | Pause | Emit | _Done:
    try:
        return flow.throw(error) if error is not None else flow.send(reply)
    except StopIteration as stop:
        return _Done(stop.value)


def iterate(flow: Flow[T], client: Any, clock: Clock) -> Generator[Any, None, T]:
    """Drive `flow` with a synchronous client, yielding what it emits and returning what it returns."""
    reply: Any = None
    error: Exception | None = None
    stream: _Stream | None = None
    try:
        while True:
            step = _advance(flow, reply, error)
            reply = error = None
            if isinstance(step, _Done):
                return cast("T", step.value)
            if isinstance(step, Emit):
                yield step.item
                continue
            try:
                if isinstance(step, Pause):
                    clock.wait(step.seconds)
                elif isinstance(step, Read):
                    reply = _required(stream).read()
                else:
                    if stream is not None:
                        stream.close()
                        stream = None
                    response = _send(client, step)
                    if step.stream:
                        stream = _Stream(response)
                    reply = _reply(response, step)
            except Exception as failure:
                error = _presentable(failure)
    finally:
        if stream is not None:
            stream.close()
        flow.close()


def drive(flow: Flow[T], client: Any, clock: Clock) -> T:
    """Drive `flow` to its end with a synchronous client and return what it returns."""
    steps = iterate(flow, client, clock)
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        return cast("T", stop.value)
    finally:
        steps.close()


async def _aiterate(flow: Flow[Any], client: Any, clock: Clock) -> AsyncGenerator[Emit | _Done, None]:
    reply: Any = None
    error: Exception | None = None
    stream: _Stream | None = None
    try:
        while True:
            step = _advance(flow, reply, error)
            reply = error = None
            if isinstance(step, _Done):
                yield step
                return
            if isinstance(step, Emit):
                yield step
                continue
            try:
                if isinstance(step, Pause):
                    await clock.async_wait(step.seconds)
                elif isinstance(step, Read):
                    reply = await _required(stream).aread()
                else:
                    if stream is not None:
                        await stream.aclose()
                        stream = None
                    response = await _send(client, step, of_loop=True)
                    if step.stream:
                        stream = _Stream(response)
                    reply = _reply(response, step)
            except Exception as failure:
                error = _presentable(failure)
    finally:
        if stream is not None:
            await stream.aclose()
        flow.close()


async def aiterate(flow: Flow[Any], client: Any, clock: Clock) -> AsyncGenerator[Any, None]:
    """Drive `flow` with an asynchronous client in the running loop, yielding what it emits."""
    async with aclosing(_aiterate(flow, client, clock)) as steps:
        async for step in steps:
            if isinstance(step, Emit):
                yield step.item


async def adrive(flow: Flow[T], client: Any, clock: Clock) -> T:
    """Drive `flow` to its end with an asynchronous client in the running loop; return what it returns."""
    value: Any = None
    async with aclosing(_aiterate(flow, client, clock)) as steps:
        async for step in steps:
            if isinstance(step, _Done):
                value = step.value
    return cast("T", value)


# -------------------------------------------------------------------- the SDK's public verbs


def _send(client: Any, call: Call, *, of_loop: bool = False) -> Any:
    """Return the SDK's response to `call` (an awaitable of it, with a client of a loop); errors are raised."""
    import anthropic
    import httpx2

    headers = dict(call.headers)
    options: dict[str, Any] = {
        "max_retries": 0,
        "follow_redirects": False,
        "timeout": anthropic.Timeout(call.timeout_s, connect=10.0),
        "params": dict(call.query),
    }
    arguments: dict[str, Any] = {"cast_to": httpx2.Response, "options": options}
    if call.stream:
        arguments |= {"stream": True, "stream_cls": anthropic.AsyncStream if of_loop else anthropic.Stream}
    if call.body is not None:
        headers |= {"content-type": "application/json", "content-length": str(call.body.n_bytes)}
        if not of_loop:
            arguments["content"] = _SyncBlocks(call.body)
        elif _signs_bodies(client):
            arguments["content"] = b"".join(call.body)
        else:
            arguments["content"] = _AsyncBlocks(call.body)
    options["headers"] = headers
    send = {"GET": client.get, "POST": client.post, "DELETE": client.delete}[call.method]
    return send(call.path, **arguments)


def _signs_bodies(client: Any) -> bool:
    # It hashes the body before sending, and reads it with the blocking call, which an async stream refuses.
    return any(cls.__name__ == "AsyncAnthropicAWS" for cls in type(client).__mro__)


class _SyncBlocks:
    def __init__(self, body: Body) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)


class _AsyncBlocks:
    def __init__(self, body: Body) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for block in self._body:
            yield block


class _Stream:
    """A response whose bytes are still under way."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._blocks: Any = None

    def read(self) -> bytes:
        # Without a size: with one, the blocks are cut anew, at twice the cost.
        if self._blocks is None:
            self._blocks = self._response.iter_bytes()
        return next(self._blocks, b"")

    async def aread(self) -> bytes:
        if self._blocks is None:
            self._blocks = self._response.aiter_bytes()
        return await anext(self._blocks, b"")

    def close(self) -> None:
        self._response.close()

    async def aclose(self) -> None:
        await self._response.aclose()


def _required(stream: _Stream | None) -> _Stream:
    if stream is None:
        raise RuntimeError("A flow reads from a stream that it has not opened.")
    return stream


def _reply(response: Any, call: Call) -> Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    content = b"" if call.stream else response.content
    return Reply(status_code=response.status_code, headers=headers, content=content)


_SECRET_HEADERS = ("authorization", "x-api-key", "proxy-authorization", "cookie", "x-amz-security-token")


def _presentable(error: Exception) -> Exception:
    """
    Return `error` as the SDK's own kind, its request without the key.

    The SDK wraps what fails before the answer's head, but not what fails in the middle of a stream; and an
    error that is pickled, or shown with its local variables, would carry the headers of its request along.
    """
    import anthropic
    import httpx2

    seen: BaseException | None = error
    while seen is not None:
        request = _request_of(seen)
        for name in _SECRET_HEADERS:
            if request is not None and name in request.headers:
                request.headers[name] = "[removed]"
        seen = seen.__cause__
    if isinstance(error, httpx2.RequestError | httpx2.StreamError | OSError):
        request = _request_of(error) or httpx2.Request("GET", "https://unknown.invalid/")
        wrapped = anthropic.APIConnectionError(
            message=f"The answer broke off ({type(error).__name__}).", request=request
        )
        wrapped.__cause__ = error
        return wrapped
    return error


def _request_of(error: BaseException) -> Any:
    try:
        return getattr(error, "request", None)
    except RuntimeError:
        # An httpx2 error that was raised before its request was known says so by raising.
        return None
