"""The two drivers of flows: a thread's and an event loop's. They do what a flow asks, and decide nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from pandas_batch.clock import Clock

from .flows import Emit, Flow, Pause, Read, Step
from .sending import AsyncStream, Stream, call_async, call_in_thread, call_sync, is_async, presentable

T = TypeVar("T")


@dataclass(frozen=True)
class _Done:
    value: Any


def _advance(flow: Flow[Any], reply: Any, error: BaseException | None) -> Step | _Done:
    try:
        return flow.throw(error) if error is not None else flow.send(reply)
    except StopIteration as stop:
        return _Done(stop.value)


def iterate(flow: Flow[T], client: Any, clock: Clock) -> Generator[Any, None, T]:
    """Drive `flow` with a synchronous client, yielding what it emits and returning what it returns."""
    reply: Any = None
    error: BaseException | None = None
    stream: Stream | None = None
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
                    reply = _opened(stream).read()
                else:
                    if stream is not None:
                        stream.close()
                        stream = None
                    reply, stream = call_sync(client, step)
            except Exception as failure:
                error = presentable(failure)
            except BaseException as interrupt:
                # Handed in, so that the flow can note on it which batches are under way; it is raised out again.
                error = interrupt
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
    error: BaseException | None = None
    stream: Stream | AsyncStream | None = None
    # A synchronous client may be what a user of the asynchronous classes has; its calls then take a thread each.
    call: Callable[..., Any] = call_async if is_async(client) else call_in_thread
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
                    reply = await _opened(stream).aread()
                else:
                    if stream is not None:
                        await stream.aclose()
                        stream = None
                    reply, stream = await call(client, step)
            except Exception as failure:
                error = presentable(failure)
            except BaseException as interrupt:
                error = interrupt
    finally:
        if stream is not None:
            await stream.aclose()
        flow.close()


async def aiterate(flow: Flow[Any], client: Any, clock: Clock) -> AsyncGenerator[Any, None]:
    """Drive `flow` in the running loop, yielding what it emits."""
    async with aclosing(_aiterate(flow, client, clock)) as steps:
        async for step in steps:
            if isinstance(step, Emit):
                yield step.item


async def adrive(flow: Flow[T], client: Any, clock: Clock) -> T:
    """Drive `flow` to its end in the running loop and return what it returns."""
    value: Any = None
    async with aclosing(_aiterate(flow, client, clock)) as steps:
        async for step in steps:
            if isinstance(step, _Done):
                value = step.value
    return cast("T", value)


def collect(flow: Flow[Any], *, enough: Callable[[Any], bool] | None = None) -> Flow[list[Any]]:
    """
    Gather what `flow` emits into a list, as a flow; stop early after an item for which `enough` returns True.

    Examples
    --------
    >>> def numbers():
    ...     yield Emit(1)
    ...     yield Emit(2)
    >>> drive(collect(numbers()), None, Clock())
    [1, 2]
    >>> drive(collect(numbers(), enough=lambda n: n == 1), None, Clock())
    [1]
    """
    items: list[Any] = []
    reply: Any = None
    error: BaseException | None = None
    try:
        while True:
            step = _advance(flow, reply, error)
            reply = error = None
            if isinstance(step, _Done):
                return items
            if isinstance(step, Emit):
                items.append(step.item)
                if enough is not None and enough(step.item):
                    return items
                continue
            try:
                reply = yield step
            except BaseException as failure:
                error = failure
    finally:
        flow.close()


S = TypeVar("S", bound="Stream | AsyncStream")


def _opened(stream: S | None) -> S:
    if stream is None:
        raise RuntimeError("A flow reads from a stream that it has not opened.")
    return stream
