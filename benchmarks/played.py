"""Time that is played for several threads at once, and a network of so many bytes a second in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pandas_batch.clock import Clock

_LOOK_S = 0.0003


class PlayedClock(Clock):
    """
    A clock that jumps to the next moment for which anybody waits, as soon as nobody does anything but wait.

    Whoever is at work is said by `at_work`; besides, `n_always` threads are, that of the engine.
    """

    def __init__(self, n_always: int = 1) -> None:
        self._now_s = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
        self._n_at_work = n_always
        self._waiting: dict[int, tuple[float, threading.Event | None]] = {}
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s, UTC)

    def monotonic_s(self) -> float:
        return self._now_s

    def time_s(self) -> float:
        """Return the time as the simulator takes it."""
        return self._now_s

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with self._lock:
            self._n_at_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_at_work -= 1

    def wait(self, seconds: float, wake: threading.Event | None = None) -> bool:
        me = threading.get_ident()
        until_s = self._now_s + seconds
        with self._lock:
            self._waiting[me] = (until_s, wake)
        try:
            while True:
                if wake is not None and wake.is_set():
                    return True
                with self._lock:
                    if self._now_s >= until_s:
                        return False
                    is_woken = any(event is not None and event.is_set() for _, event in self._waiting.values())
                    is_next = until_s <= min(at_s for at_s, _ in self._waiting.values())
                    if is_next and not is_woken and len(self._waiting) >= self._n_at_work:
                        self._now_s = until_s
                        return False
                time.sleep(_LOOK_S)
        finally:
            with self._lock:
                del self._waiting[me]


class Link:
    """
    One direction of a network: what is sent at once shares it.

    Attributes
    ----------
    busy
        When it was busy: pairs of seconds, in order.
    """

    def __init__(self, clock: PlayedClock, bytes_per_s: float) -> None:
        self._clock, self._bytes_per_s = clock, bytes_per_s
        self._n_sharing = 0
        self._lock = threading.Lock()
        self.busy: list[tuple[float, float]] = []

    def carry(self, n_bytes: float, n_parts: int = 50) -> Iterator[None]:
        """Carry so many bytes, in parts; time passes between one part and the next."""
        with self._lock:
            self._n_sharing += 1
        began_s = self._clock.monotonic_s()
        try:
            for _ in range(n_parts):
                self._clock.wait(n_bytes / n_parts / self._bytes_per_s * self._n_sharing)
                yield
        finally:
            with self._lock:
                self._n_sharing -= 1
            self.busy.append((began_s, self._clock.monotonic_s()))
