"""What is home is made small: after the answers are given, and also where a process ended before it could."""

from __future__ import annotations

from contextlib import ExitStack

import pandas as pd
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes

from pandas_batch import failpoints
from pandas_batch.engine import engine
from pandas_batch.engine.spooling import spool_lines
from pandas_batch.store import Store

FRAME = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(20)]})


def test_nobody_waits_for_compression(api, clock):
    """The answers are there before anything is compressed; whoever wants it done now gets it now."""
    with ExitStack() as stack:
        # Time stands still from the moment on at which the last answer is home.
        failpoints.on_reached = lambda point: stack.enter_context(clock.held()) if point == "batch collected" else None
        stack.callback(setattr, failpoints, "on_reached", None)
        run = ask(FRAME, api, clock)
        assert run.result()["status"].eq("succeeded").all()
        store, key = Store.open(), run.record.batch_keys[0]
        assert store.files.results_path(key).exists()
        assert run.engine.join(20)
        assert not store.files.results_path(key).exists()
        assert store.files.has_results(key)


@cut_on_purpose
def test_what_a_process_left_behind_is_made_small_by_the_next(api, clock, monkeypatch):
    """A script that ends with its answers in hand leaves large files; the next run compresses them, losing nothing."""
    plan_outcomes(api)
    with monkeypatch.context() as ended_early:
        ended_early.setattr(engine, "compact_run", lambda *args, **kwargs: None)
        first = ask(all_outcomes(), api, clock)
        before = first.result()
        first.engine.join(20)
    store, key = Store.open(), first.record.batch_keys[0]
    n_requests = store.batches.get(key).n_requests
    assert store.files.results_path(key).exists()
    second = ask(FRAME, api, clock)
    second.result()
    assert second.engine.join(20)
    assert not store.files.results_path(key).exists()
    assert not store.files.spool_path(key).exists()
    with store.files.open_spool(key) as spool:
        assert len(list(spool_lines(spool))) == n_requests
    pd.testing.assert_frame_equal(ask(all_outcomes(), api, clock).result(), before)
