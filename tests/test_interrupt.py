"""Ctrl-C: back at the prompt at once, nothing canceled, nothing lost, and the way on is told."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pandas as pd
import pytest
from rowlab import ask, until

from pandas_batch import simulator
from pandas_batch.engine import posting
from pandas_batch.run import recording


def interrupt_soon(seconds: float) -> threading.Timer:
    """Send this process what the stop button sends."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_interrupted_wait_returns_within_a_second(api, clock):
    """An interrupt ends the wait within a second, is raised again, and the run goes on by itself."""
    with clock.held():
        run = ask(pd.DataFrame({"prompt": ["a", "b"]}), api, clock)
        until(run, "in_progress")
        interrupt_soon(0.2)
        started_s = time.monotonic()
        with pytest.raises(KeyboardInterrupt) as told:
            run.wait()
        assert time.monotonic() - started_s < 1.2
    note = "\n".join(told.value.__notes__)
    assert "1 of 1 batches is posted" in note
    assert f'pandas_batch.load("{run.id}")' in note
    assert "run.cancel()" in note
    assert api.calls("cancel") == 0
    assert run.result()["status"].tolist() == ["succeeded", "succeeded"]
    assert api.calls("create") == 1


def test_interrupt_stops_further_posts_and_the_same_line_makes_them(clock, monkeypatch):
    """After an interrupt no further batch is posted; the same line posts the others, once each."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 1)
    monkeypatch.setattr(posting, "CONNECT_PATIENCE_S", 1e9)
    frame = pd.DataFrame({"prompt": [f"p{i}" for i in range(6)]})
    with simulator.serve(clock=clock.time_s, seconds_per_batch=5) as api:
        with api.unreachable():
            run = ask(frame, api, clock)
            interrupt_soon(0.2)
            with pytest.raises(KeyboardInterrupt) as told:
                run.wait()
            assert "0 of 6 batches are posted" in "\n".join(told.value.__notes__)
            assert run.engine.wait(5)
        assert api.calls("create") == 0
        out = ask(frame, api, clock).result()
        assert out["status"].eq("succeeded").all()
        assert len(api.batches) == 6


def test_async_wait_is_interrupted_too(api, clock):
    """Cancelling an `await` stops the waiting and not the run."""

    async def wait() -> None:
        task = asyncio.ensure_future(run.result_async())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with clock.held():
        run = ask(pd.DataFrame({"prompt": ["a"]}), api, clock)
        asyncio.run(wait())
    assert run.result()["status"].tolist() == ["succeeded"]
