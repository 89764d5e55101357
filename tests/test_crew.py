"""Calls side by side: all of them taken back, and nothing that waits for another batch's call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest
from rowlab import ask

from pandas_batch import simulator
from pandas_batch.clock import SYSTEM_CLOCK
from pandas_batch.engine.crew import Crew
from pandas_batch.engine.engine import Engine
from pandas_batch.run import recording
from pandas_batch.wire.wire import Wire

FRAME = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(10)]})
PATIENCE_S = 20.0


def test_what_is_begun_is_taken_back_once():
    """Errands go on side by side, wake whoever sent them, and give back what they came to, errors too."""
    wake, together = threading.Event(), threading.Barrier(3)
    crew = Crew(SYSTEM_CLOCK, wake)

    def work(number: int) -> int:
        together.wait(PATIENCE_S)
        if number == 1:
            raise LookupError("the second")
        return number

    for number in range(3):
        crew.begin(number, lambda number=number: work(number))
    assert set(crew.under_way) == {0, 1, 2}
    crew.wait()
    assert wake.is_set()
    assert len(crew) == 3
    done = dict(crew.finished())
    assert [done[0].result(), done[2].result()] == [0, 2]
    with pytest.raises(LookupError, match="the second"):
        done[1].result()
    assert not crew.under_way
    assert not list(crew.finished())


def test_an_errand_is_done_where_no_thread_can_be_started(monkeypatch):
    """At the end of an interpreter no thread can be started: the errand is done by whoever sends it."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    crew = Crew(SYSTEM_CLOCK, threading.Event())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    crew.begin("one", lambda: 1)
    crew.wait()
    assert [future.result() for _, future in crew.finished()] == [1]


@contextmanager
def held_up(monkeypatch, name: str, until: Callable[[], bool], *, nth: int) -> Iterator[list[bool]]:
    """Make the n-th call of that name of the wire take until something has come about; note whether it has."""
    came: list[bool] = []
    counting = threading.Lock()
    n_calls = 0
    call = getattr(Wire, name)

    def slow(self: Wire, *args: Any, **options: Any) -> Any:
        nonlocal n_calls
        with counting:
            n_calls += 1
            is_held = n_calls == nth
        if is_held:
            until_s = time.monotonic() + PATIENCE_S
            while not until() and time.monotonic() < until_s:
                time.sleep(0.002)
            came.append(until())
        return call(self, *args, **options)

    monkeypatch.setattr(Wire, name, slow)
    yield came


@pytest.mark.parametrize(("name", "nth"), [("create", 1), ("create", 5), ("results", 1), ("results", 4)])
def test_no_batch_waits_for_the_call_of_another(monkeypatch, quick_looks, name, nth):
    """A create or a download that never comes to its end keeps no other batch from being posted, polled and fetched."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 1)
    runs: list[Any] = []

    def others_are_home() -> bool:
        states = [batch.state for batch in runs[0].store.batches.of_run(runs[0].id)] if runs else []
        return states.count("collected") == 9

    with simulator.serve(seconds_per_batch=0.2) as api, held_up(monkeypatch, name, others_are_home, nth=nth) as came:
        given = {"client": api.client(), "progress": "off", "preflight": False}
        run = FRAME.claude_batch.start("prompt", **given)
        runs.append(run)
        assert run.result()["status"].eq("succeeded").all()
        assert came == [True]
        assert api.calls("create") == 10


def test_posts_go_on_while_a_poll_is_not_answered(monkeypatch, quick_looks):
    """A poll that is not answered keeps no batch from being posted."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 1)
    with simulator.serve(seconds_per_batch=0.2) as api:
        with held_up(monkeypatch, "retrieve", lambda: api.calls("create") == 10, nth=1) as came:
            run = FRAME.claude_batch.start("prompt", client=api.client(), progress="off", preflight=False)
            assert run.result()["status"].eq("succeeded").all()
        assert came in ([True], [])  # the list of all is asked instead where more than three are under way at once


def test_a_cancel_waits_for_creates_that_are_under_way(monkeypatch, clock):
    """Whatever is being posted when a run is canceled is canceled as well, as soon as its id is known."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 1)
    asked, began = threading.Event(), threading.Event()

    def is_asked() -> bool:
        began.set()
        return asked.is_set()

    with simulator.serve(clock=clock.time_s, seconds_per_batch=600) as api:
        with clock.held(), held_up(monkeypatch, "create", is_asked, nth=2) as came:
            run = ask(FRAME, api, clock)
            assert began.wait(PATIENCE_S)
            threading.Timer(0.05, asked.set).start()
            run.cancel()
            assert came == [True]
            assert all(batch.facts.cancel_at is not None for batch in api.batches)
        run.wait()
        assert not {batch.state for batch in run.store.batches.of_run(run.id)} - {"collected", "withdrawn"}


def test_a_cancel_reaches_what_is_posted_while_another_batch_is_on_its_way(monkeypatch, clock):
    """No batch goes on, and is billed, because the create of another is slow; that one is canceled when it is there."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 1)
    began = threading.Event()

    def is_canceled() -> bool:
        began.set()
        return api.calls("cancel") > 0

    def is_late() -> bool:
        return time.monotonic() > began_s + 1.0

    began_s = time.monotonic()
    with simulator.serve(clock=clock.time_s, seconds_per_batch=600) as api:
        # The cancel of the late one takes a while too: whoever asked waits for that.
        slow_cancel = held_up(monkeypatch, "cancel", is_late, nth=2)
        with clock.held(), slow_cancel, held_up(monkeypatch, "create", is_canceled, nth=2) as came:
            run = ask(FRAME, api, clock)
            assert began.wait(PATIENCE_S)
            run.cancel()
            assert came == [True]
            assert all(batch.facts.cancel_at is not None for batch in api.batches)
        run.wait()


def test_a_cancel_by_force_is_not_lost_beside_one_that_is_on_its_way(monkeypatch, clock):
    """What is asked while an engine cancels is done after it, and whoever asks for it waits for that."""
    asked, honest = [], Engine._cancel_batches

    def cancel_batches(self: Engine, *, force: bool) -> None:
        asked.append(force)
        if asked == [False]:
            self.request_cancel(force=True)
        honest(self, force=force)

    monkeypatch.setattr(Engine, "_cancel_batches", cancel_batches)
    with simulator.serve(clock=clock.time_s, seconds_per_batch=600) as api:
        with clock.held():
            run = ask(FRAME, api, clock)
            run.wait_submitted(PATIENCE_S)
            run.cancel()
        run.wait()
    assert asked[:2] == [False, True]
