"""A few steps at once, in threads that no end of a process waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def side_by_side(work: Callable[[A], B], items: Sequence[A], n_threads: int) -> Iterator[B]:
    """
    Yield `work` of each item, in their order, with at most `n_threads` at work; all of it has ended when this has.

    Not by an executor: its threads keep a process from ending for as long as a server likes, and take nothing new
    once the interpreter has begun to end.

    Examples
    --------
    >>> list(side_by_side(len, ["a", "bc", "def"], 2))
    [1, 2, 3]
    """
    if len(items) < 2:
        # Another thread would only have to begin with cold caches.
        yield from map(work, items)
        return
    futures: list[Future[B]] = [Future() for _ in items]
    rest = iter(list(zip(futures, items, strict=True)))
    taking = threading.Lock()

    def go() -> None:
        while True:
            with taking:
                pair = next(rest, None)
            if pair is None:
                return
            future, item = pair
            try:
                future.set_result(work(item))
            except BaseException as error:
                future.set_exception(error)

    threads = []
    for number in range(min(n_threads, len(items))):
        thread = threading.Thread(target=go, name=f"pandas_batch step {number}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be started any more: the interpreter is ending
            break
        threads.append(thread)
    if not threads:
        go()
    try:
        for future in futures:
            yield future.result()
    finally:
        for thread in threads:
            thread.join()
