"""Room in the server's queue: found out by one batch at a time, soon after there is some, and told while it is not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
from gateway import Answer, Gateway, is_create
from rowlab import ask, until_batches

from pandas_batch import simulator
from pandas_batch.display.account import text_account
from pandas_batch.engine.room import QueueRoom, words_of_room
from pandas_batch.run import recording
from pandas_batch.simulator.faults import ErrorAnswer, Outage

FRAME = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(20)]})
FULL = {"type": "error", "error": {"type": "rate_limit_error", "message": "The queue is full."}}


@pytest.fixture(autouse=True)
def ten_batches(monkeypatch):
    """Let the frame go in ten batches."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 2)


class Queue:
    """A gateway with room for so many batches at once; it notes when each was taken, and when one was refused."""

    def __init__(self, clock, room: Callable[[], int], headers: dict[str, str]) -> None:
        self._clock, self._room = clock, room
        self._headers = {"content-type": "application/json", **headers}
        self._lock = threading.Lock()
        self.taken: list[float] = []
        self.refused: list[float] = []
        self.seconds = 0.0

    def stop(self, method: str, path: str) -> Answer | None:
        if not is_create(method, path):
            return None
        with self._lock:
            now_s = self._clock.time_s()
            if sum(now_s < at_s + self.seconds for at_s in self.taken) < self._room():
                self.taken.append(now_s)
                return None
            self.refused.append(now_s)
        return Answer(429, json.dumps(FULL).encode(), self._headers)


@contextmanager
def queue(clock, seconds: float, room: Callable[[], int], **headers: str) -> Iterator[tuple[Any, Gateway, Queue]]:
    """Open a server whose batches take so long, behind a queue."""
    line = Queue(clock, room, headers)
    line.seconds = seconds
    with simulator.serve(clock=clock.time_s, seconds_per_batch=seconds) as api, Gateway(api, stop=line.stop) as gate:
        yield api, gate, line


@pytest.mark.parametrize("seconds", [60, 600])
@pytest.mark.parametrize("asked_s", [None, "20"])
def test_a_full_queue_costs_little(clock, seconds, asked_s):
    """Ten batches with room for two: at most five uploads each, and next to no time is lost."""
    headers = {} if asked_s is None else {"retry-after": asked_s}
    with queue(clock, seconds, lambda: 2, **headers) as (api, gate, line):
        started_s = clock.time_s()
        assert ask(FRAME, api, clock, client=gate.client()).result()["status"].eq("succeeded").all()
        assert len(api.batches) == 10
        assert len(line.taken + line.refused) <= 50
        # Of each of the five rounds a poll's pause, or what the server has asked for, may be lost.
        assert clock.time_s() - started_s < 5 * (seconds * 1.05 + 25)


def test_room_is_tried_by_one_batch_at_a_time(clock):
    """Where nothing of ours is in the queue, one create at a time finds out whether there is room, ever more rarely."""
    open_at_s = clock.time_s() + 3000
    with queue(clock, 1, lambda: 99 if clock.time_s() >= open_at_s else 0) as (api, gate, line):
        assert ask(FRAME, api, clock, client=gate.client()).result()["status"].eq("succeeded").all()
    assert len(line.refused) < 20
    assert all(later_s - at_s >= 3 for at_s, later_s in pairwise(line.refused[3:]))
    assert min(line.taken) < open_at_s + 375


def test_what_the_server_asks_for_is_obeyed(clock):
    """No create is made before the time that a refused one was told to wait, even when a batch of ours has ended."""
    with queue(clock, 60, lambda: 2, **{"retry-after": "90"}) as (api, gate, line):
        assert ask(FRAME, api, clock, client=gate.client()).result()["status"].eq("succeeded").all()
    assert len(line.refused) > 2
    for at_s in line.refused:
        assert not [later_s for later_s in line.taken + line.refused if at_s + 0.2 < later_s < at_s + 90]


def test_other_failures_do_not_open_the_queue(clock):
    """A list that fails while batches wait for room says nothing about room: no other batch is posted for it."""
    open_at_s = clock.time_s() + 1000
    with queue(clock, 1, lambda: 99 if clock.time_s() >= open_at_s else 0) as (api, gate, line):
        api.faults.add(ErrorAnswer("list", 503, times=40, skip=4))
        assert ask(FRAME, api, clock, client=gate.client()).result()["status"].eq("succeeded").all()
    assert len(line.refused) < 20


def test_an_outage_in_a_full_queue_is_survived(clock):
    """A server that goes away while batches wait for room, and comes back, gets each of them once."""
    with queue(clock, 600, lambda: 2) as (api, gate, _):
        api.faults.add(Outage(from_s=clock.time_s() + 100, until_s=clock.time_s() + 4000, how=503))
        assert ask(FRAME, api, clock, client=gate.client()).result()["status"].eq("succeeded").all()
        assert sorted(batch.n_requests for batch in api.batches) == [2] * 10


def test_waiting_for_room_is_told(clock):
    """While batches wait for room, everything that shows the run says how many of them are in."""
    with queue(clock, 600, lambda: 2) as (api, gate, _):
        with clock.held():
            run = ask(FRAME, api, clock, client=gate.client())
            until_batches(run, *["bound"] * 2, *["intent"] * 8)
            until_message(run)
            status = run.snapshot()
            assert status.message == "Waiting for room in the queue: 2 of 10 batches are in."
            assert status.message in text_account(status)
        assert run.result()["status"].eq("succeeded").all()
        assert run.snapshot().message == ""


def until_message(run) -> None:
    """Return when the run has something to say."""
    deadline_s = time.monotonic() + 20
    while not run.snapshot().message:
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def test_a_batch_that_was_under_way_beside_the_refused_one_opens_nothing():
    """Only the batch that tries tells that there is room, and only its refusal makes the pause longer."""
    room = QueueRoom()
    first_s = room.refused(1, asked_s=None, n_ours=0, now_s=0.0)
    assert room.refused(2, asked_s=None, n_ours=0, now_s=1.0) == pytest.approx(first_s - 1.0)
    room.accepted(3, 1.0)
    assert room.due_in_s(1.0) > 0
    room.tries(4)
    room.accepted(4, 2.0)
    assert room.due_in_s(2.0) == 0
    room.tries(5)
    room.refused(5, asked_s=60.0, n_ours=2, now_s=3.0)
    room.one_has_ended(4.0)
    assert room.due_in_s(4.0) == pytest.approx(59.0)


def test_the_first_try_is_due_and_the_pauses_end_at_five_minutes(no_jitter):
    """Nothing is waited for before a refusal; after many, with nothing of ours in, a try comes every five minutes."""
    room = QueueRoom()
    assert room.due_in_s(0.0) == 0
    pauses_s = [room.refused(1, asked_s=None, n_ours=0, now_s=0.0) for _ in range(12) if room.tries(1) is None]
    assert pauses_s[:3] == [5, 10, 20]
    assert pauses_s[-1] == 300


def test_words_count_what_was_sent():
    """A run of which nothing is in says so."""
    assert words_of_room([]) == "Waiting for room in the queue: 0 of 0 batches are in."
