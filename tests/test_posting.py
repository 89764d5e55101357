"""Creates: refused ones told, limited ones repeated, large ones split, and none ever repeated blindly."""

from __future__ import annotations

import pandas as pd
import pytest
from rowlab import ask

from pandas_batch import simulator
from pandas_batch.engine import posting
from pandas_batch.errors import UnreadableAnswerError
from pandas_batch.run import recording
from pandas_batch.simulator.faults import ErrorAnswer, spend_cap

FRAME = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(9)]})


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_refused_create_is_posted_once(api, clock, status):
    """A refusal is raised as the SDK's own error with a note, after one POST."""
    import anthropic

    api.faults.add(ErrorAnswer("create", status))
    run = ask(FRAME, api, clock)
    with pytest.raises(anthropic.APIStatusError) as told:
        run.result()
    assert told.value.status_code == status
    assert api.calls("create") == 1
    assert any("batches are on the server" in note for note in told.value.__notes__)


def test_spend_cap_blocks_and_the_same_line_resumes(api, clock):
    """A reached spend limit stops in words; nothing is lost and the same line goes on next month."""
    import anthropic

    api.faults.add(spend_cap(times=1))
    with pytest.raises(anthropic.RateLimitError):
        ask(FRAME, api, clock).result()
    assert api.calls("create") == 1
    assert ask(FRAME, api, clock).result()["status"].eq("succeeded").all()


def test_rate_limit_is_waited_for(api, clock):
    """A 429 says that no batch was made: the POST is made again after the pause it asks for."""
    api.faults.add(ErrorAnswer("create", 429, retry_after="7", times=3))
    started_s = clock.monotonic_s()
    assert ask(FRAME, api, clock).result()["status"].eq("succeeded").all()
    assert clock.monotonic_s() - started_s >= 21
    assert len(api.batches) == 1


def test_too_large_goes_in_halves(api, clock):
    """A 413 splits the batch; every row is answered once, under ids of the new batches."""
    api.faults.add(ErrorAnswer("create", 413, times=3, body="<html>too large</html>", content_type="text/html"))
    out = ask(FRAME, api, clock).result()
    assert out["status"].eq("succeeded").all()
    assert all(prompt in text for prompt, text in zip(out["prompt"], out["output"], strict=True))
    assert sum(batch.n_requests for batch in api.batches) == len(FRAME)
    assert len(api.batches) > 1
    again = ask(FRAME, api, clock)
    pd.testing.assert_frame_equal(again.result(), out)


def test_one_request_that_a_proxy_finds_too_large_is_told(api, clock):
    """What cannot be halved is not posted for ever: after three such answers the run stops and quotes them."""
    page = {"body": "<html>too large</html>", "content_type": "text/html", "times": None}
    api.faults.add(ErrorAnswer("create", 413, **page))
    with pytest.raises(UnreadableAnswerError, match="too large"):
        ask(FRAME.iloc[:1], api, clock).result()
    assert api.calls("create") == 3


def test_unreachable_server_is_told_after_a_while(clock):
    """A server that cannot be reached at all is tried for minutes, then told; nothing was sent."""
    import anthropic

    with simulator.serve(clock=clock.time_s) as api, api.unreachable():
        with pytest.raises(anthropic.APIConnectionError) as told:
            ask(FRAME, api, clock).result()
        assert any("0 of 1 batches" in note for note in told.value.__notes__)
    assert clock.monotonic_s() >= posting.CONNECT_PATIENCE_S


def test_batches_are_cut_at_the_limits(api, clock, monkeypatch):
    """More requests or bytes than one batch may hold go in several, in the order of the rows."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 4)
    out = ask(FRAME, api, clock).result()
    assert sorted(batch.n_requests for batch in api.batches) == [1, 4, 4]
    assert out["status"].eq("succeeded").all()
    monkeypatch.setattr(recording, "BATCH_BYTES", 700)
    frame = pd.DataFrame({"prompt": ["x" * 100 + str(i) for i in range(7)]})
    assert ask(frame, api, clock).result()["status"].eq("succeeded").all()
    assert all(batch.n_requests <= 4 for batch in api.batches)


def test_warm_cache_sends_one_row_first(clock):
    """With `warm_cache` the others are posted only when the first one's batch has ended."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=30) as api:
        run = ask(FRAME, api, clock, system="Be brief. " * 2000, cache_system=True, warm_cache=True)
        out = run.result()
        first, rest = sorted(api.batches, key=lambda batch: batch.facts.created_at)
        assert (first.n_requests, rest.n_requests) == (1, 8)
        assert rest.facts.created_at >= first.facts.created_at + 30
        assert out["status"].eq("succeeded").all()
