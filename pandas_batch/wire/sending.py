"""One `Call` through the public verbs of an SDK client, and its errors made fit to be shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from .body import Body
from .flows import Call, Reply

CONNECT_TIMEOUT_S = 10.0


def is_async(client: Any) -> bool:
    """Return whether `client` is one that has to be awaited."""
    import anthropic

    return isinstance(client, anthropic.AsyncAnthropic)


def call_sync(client: Any, call: Call) -> tuple[Reply, Stream | None]:
    """Make one call with a synchronous client; return the answer, and the open stream where one was asked for."""
    answer = _send(client, call)
    return _reply(answer, call), Stream(answer) if call.stream else None


async def call_in_thread(client: Any, call: Call) -> tuple[Reply, Stream | None]:
    """Make one call with a synchronous client, in a thread, so that the loop goes on."""
    return await asyncio.to_thread(call_sync, client, call)


async def call_async(client: Any, call: Call) -> tuple[Reply, AsyncStream | None]:
    """Make one call with an asynchronous client."""
    answer = await _send(client, call)
    return _reply(answer, call), AsyncStream(answer) if call.stream else None


def _send(client: Any, call: Call) -> Any:
    """Return what the SDK answers to `call`, or an awaitable of it; errors are raised."""
    import anthropic

    asynchronous = is_async(client)
    headers = dict(call.headers)
    options: dict[str, Any] = {
        "max_retries": 0,
        "follow_redirects": False,
        "timeout": anthropic.Timeout(call.timeout_s, connect=CONNECT_TIMEOUT_S),
        "params": dict(call.query),
    }
    # Not `httpx2.Response`, which the SDK hands through as it is: where a client has middleware, that never sees the
    # wrapper it expects, and an error status is returned in place of being raised.
    arguments: dict[str, Any] = {"options": options}
    if call.stream:
        stream_cls = anthropic.AsyncStream[object] if asynchronous else anthropic.Stream[object]
        arguments |= {"cast_to": object, "stream": True, "stream_cls": stream_cls}
    else:
        arguments["cast_to"] = anthropic.AsyncAPIResponse[object] if asynchronous else anthropic.APIResponse[object]
    if call.body is not None:
        headers |= {"content-type": "application/json", "content-length": str(call.body.n_bytes)}
        if not asynchronous:
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


# The SDK is handed these, and not the `Body`: what it logs at DEBUG is then a bare object, never a prompt.
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


class Stream:
    """A response whose bytes are still under way, read by a thread."""

    def __init__(self, answer: Any) -> None:
        self._response = answer.response
        # Without a size: with one, the blocks are cut anew, at twice the cost.
        self._blocks: Iterator[bytes] = self._response.iter_bytes()

    def read(self) -> bytes:
        """Return the next block; ``b""`` at the end."""
        return next(self._blocks, b"")

    def close(self) -> None:
        """Let the connection go, whatever is still under way."""
        self._response.close()

    async def aread(self) -> bytes:
        """Return the next block; ``b""`` at the end."""
        return await asyncio.to_thread(self.read)

    async def aclose(self) -> None:
        """Let the connection go, whatever is still under way."""
        self.close()


class AsyncStream:
    """A response whose bytes are still under way, read by a loop."""

    def __init__(self, answer: Any) -> None:
        self._response = answer.response
        self._blocks: AsyncIterator[bytes] = self._response.aiter_bytes()

    async def aread(self) -> bytes:
        """Return the next block; ``b""`` at the end."""
        return await anext(self._blocks, b"")

    async def aclose(self) -> None:
        """Let the connection go, whatever is still under way."""
        await self._response.aclose()


def _reply(answer: Any, call: Call) -> Reply:
    response = answer.response if call.stream else answer.http_response
    headers = {name.lower(): value for name, value in response.headers.items()}
    content = b"" if call.stream else response.content
    return Reply(status_code=response.status_code, headers=headers, content=content)


_SECRET_HEADERS = ("authorization", "x-api-key", "proxy-authorization", "cookie", "x-amz-security-token")


def presentable(error: Exception) -> Exception:
    """
    Return `error` as the SDK's own kind, its request without the key.

    The SDK wraps what fails before the answer's head, but not what fails in the middle of a stream; and an
    error that is pickled, or shown with its local variables, would carry the headers of its request along.
    """
    import anthropic
    import httpx2

    seen: BaseException | None = error
    while seen is not None:
        # The answer to a redirect holds a second request, ready to be sent after it.
        for request in (_request_of(seen), getattr(getattr(seen, "response", None), "next_request", None)):
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
