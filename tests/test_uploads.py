"""Bodies go one after the other as long as they move; their answers, polls and downloads are waited for beside them."""

from __future__ import annotations

import threading

import pandas as pd
from rowlab import ask

from pandas_batch import simulator
from pandas_batch.engine.uploads import STALLED_S, Uploads
from pandas_batch.run import recording
from pandas_batch.wire.body import Body
from pandas_batch.wire.wire import Wire


def test_the_next_body_follows_when_one_is_out_or_stalls(clock):
    """The way is free again when all is sent, and when nothing has moved for a second; each end is told once."""
    told = []
    uploads = Uploads(clock, on_sent=lambda: told.append(True))
    assert uploads.free_in_s() == 0
    uploads.begin(1)
    clock.advance(STALLED_S / 2)
    assert uploads.free_in_s() == STALLED_S / 2
    uploads.moves(1)
    assert uploads.free_in_s() == STALLED_S
    clock.advance(STALLED_S)
    assert uploads.free_in_s() == 0
    uploads.moves(1)
    uploads.end(1)
    uploads.end(1)
    uploads.moves(1)
    assert uploads.free_in_s() == 0
    assert told == [True]


def test_a_watched_body_tells_each_block_and_its_end():
    """What is told comes after the block, and the end after the last one; the bytes are the same each time."""
    told = []
    body = Body.from_chunks([b"ab", b"c"]).watched(lambda: told.append("block"), lambda: told.append("end"))
    assert (body.n_bytes, b"".join(body), b"".join(body)) == (3, b"abc", b"abc")
    assert told == ["block", "block", "end"] * 2


def test_no_two_bodies_are_under_way_at_once(monkeypatch, clock):
    """A body begins when the one before it is out, and does not wait for its answer."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 1)
    frame = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(8)]})
    counting = threading.Lock()
    n_moving, n_waiting, most_moving, most_waiting = 0, 0, 0, 0
    all_wait = threading.Event()
    create = Wire.create

    def watched(self, body, *, betas=()):
        nonlocal n_moving, n_waiting, most_moving, most_waiting
        with counting:
            n_moving += 1
            most_moving = max(most_moving, n_moving)
        for _ in body:
            pass
        with counting:
            n_moving -= 1
            n_waiting += 1
            most_waiting = max(most_waiting, n_waiting)
            if n_waiting == 3:
                all_wait.set()
        # The first three answers come when three are waited for: nobody waits with its body for them.
        all_wait.wait(20)
        created = create(self, body, betas=betas)
        with counting:
            n_waiting -= 1
        return created

    monkeypatch.setattr(Wire, "create", watched)
    with simulator.serve(clock=clock.time_s, seconds_per_batch=60) as api:
        assert ask(frame, api, clock).result()["status"].eq("succeeded").all()
        assert len(api.batches) == 8
    assert all_wait.is_set()
    assert (most_moving, most_waiting) == (1, 3)
