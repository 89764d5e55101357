"""Creates: refused ones told, limited ones repeated, large ones split, and none ever repeated blindly."""

from __future__ import annotations

import pandas as pd
import pytest
from rowlab import ask
from step_lab import place_at
from store_lab import add_run

from pandas_batch import simulator
from pandas_batch.engine import posting
from pandas_batch.errors import UnreadableAnswerError
from pandas_batch.run import recording
from pandas_batch.simulator.faults import ErrorAnswer, Outage, spend_cap
from pandas_batch.wire.endpoints import Created
from pandas_batch.wire.wire import Wire

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


# ---------------------------------------------------------------- single steps


def recorded(place):
    """Record a run of one batch, and return what reads the batch."""
    (key,) = add_run(place.store, "r", n=2).batch_keys
    return lambda: place.store.batches.get(key)


def test_a_list_that_stays_broken_is_given_up_for_the_servers_clock(api, clock, tmp_path):
    """Three times a failing list is asked again; then the time in that answer stands in for the newest batch."""
    api.faults.add(ErrorAnswer("list", 503, times=None))
    made = Created(outcome="created", batch={"id": "b"})
    place = place_at(tmp_path, api, clock, create=lambda body, betas: made)
    batch, poster = recorded(place), posting.Poster(place)
    for _ in range(3):
        assert poster.step(batch()).due_in_s > 0
        assert (batch().state, batch().attempts) == ("intent", 0)
    assert poster.step(batch()).is_in
    assert (batch().state, batch().attempts, batch().watermark_id) == ("bound", 1, None)
    assert batch().server_posted_at.timestamp() == pytest.approx(clock.time_s(), abs=1)


def test_nothing_is_posted_where_no_server_tells_its_time(api, clock, tmp_path):
    """A list that breaks off says not even what time it is there: it is asked for ever, and nothing is sent."""
    api.faults.add(Outage(until_s=clock.time_s() + 1e6, endpoint="list"))
    place = place_at(tmp_path, api, clock)
    batch, poster = recorded(place), posting.Poster(place)
    for _ in range(6):
        step = poster.step(batch())
        assert (step.due_in_s is None, step.error, batch().state) == (False, None, "intent")
    assert api.calls("create") == 0


def test_creates_that_reach_nobody_are_tried_ever_more_rarely(api, clock, tmp_path):
    """Each connection that is refused doubles the pause before the next; every try is counted."""

    def unreachable(body, *, betas):
        with api.unreachable():
            return Wire(api.client(max_retries=0)).create(body, betas=betas)

    place = place_at(tmp_path, api, clock, create=unreachable)
    batch, poster = recorded(place), posting.Poster(place)
    for n_tries, pause_s in enumerate((1, 2, 4, 8), start=1):
        assert poster.step(batch()).due_in_s == pytest.approx(pause_s, rel=0.26)
        assert (batch().state, batch().attempts) == ("intent", n_tries)
    assert not api.batches
