"""Pauses between polls: a tenth of the time that has passed, shorter where earlier batches tell when the end comes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rowlab import ask
from step_lab import place_at
from store_lab import CREATED_AT, add_run, bind

from pandas_batch import simulator
from pandas_batch.engine.pauses import marks_of, poll_pause_s
from pandas_batch.engine.polling import FIRST_POLL_S, MOST_POLL_S, Poller
from pandas_batch.simulator.faults import ErrorAnswer
from pandas_batch.wire import listing
from pandas_batch.wire.endpoints import Polled

FRAME = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(4)]})

seconds = st.floats(0, 86_400, allow_nan=False)


@given(elapsed_s=seconds, marks_s=st.lists(seconds, max_size=8))
def test_a_pause_is_at_most_a_tenth_of_what_has_passed(elapsed_s, marks_s):
    """Whatever is expected, a pause is between two seconds and a minute, and no more than a tenth of the time."""
    pause_s = poll_pause_s(elapsed_s, marks_s, first_s=FIRST_POLL_S, most_s=MOST_POLL_S)
    assert FIRST_POLL_S <= pause_s <= max(FIRST_POLL_S, min(MOST_POLL_S, elapsed_s / 10))


@given(elapsed_s=st.floats(0, 80_000), ahead_s=st.floats(0.1, 50))
def test_no_pause_goes_far_beyond_an_expected_end(elapsed_s, ahead_s):
    """Where a batch like it has ended after so long, the next look is soon after that."""
    pause_s = poll_pause_s(elapsed_s, [elapsed_s + ahead_s], first_s=FIRST_POLL_S, most_s=MOST_POLL_S)
    assert pause_s <= max(FIRST_POLL_S, ahead_s + 1.01)


@given(st.lists(st.tuples(st.integers(1, 100_000), st.floats(1, 86_400)), max_size=64), st.integers(1, 100_000))
def test_marks_are_durations_of_batches_like_it(durations, n_requests):
    """What is expected has happened: to batches of about that size, and there are never many such moments."""
    marks_s = marks_of(durations, n_requests)
    assert marks_s == sorted(marks_s)
    assert len(marks_s) <= 8
    assert set(marks_s) <= {took_s for n, took_s in durations if n / 8 <= n_requests <= n * 8}


def test_a_batch_that_takes_as_long_as_the_last_one_is_seen_at_its_end(clock):
    """The store's experience brings the look to the end of a batch, in another run too."""
    lags_s = []
    with simulator.serve(clock=clock.time_s, seconds_per_batch=1000) as api:
        for number in range(3):
            ask(FRAME + str(number), api, clock).result()
            lags_s.append(clock.time_s() - max(batch.stops_at for batch in api.batches))
    # After the end the run itself waits two seconds before it makes small what is home.
    # On a busy machine the played time may run on while a thread is late: one of two is in time.
    assert min(lags_s[1:]) < 2 * FIRST_POLL_S + 1


def test_a_given_interval_is_kept(clock):
    """`poll_interval` is the user's word: no expectation changes it."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=100) as api:
        ask(FRAME, api, clock, poll_interval=7).result()
        assert 14 <= api.calls("retrieve") <= 16


def test_canceled_batches_tell_nothing_about_ends(api, clock):
    """A batch that was canceled has no duration of its own."""
    with clock.held():
        run = ask(FRAME, api, clock)
        run.wait_submitted(20)
        run.cancel()
    run.wait()
    assert run.store.batches.durations(api.base_url) == []
    ask(FRAME + "b", api, clock).result()
    assert [n for n, _ in run.store.batches.durations(api.base_url)] == [4]


# ---------------------------------------------------------------- single looks


def bound_to(place: Any, *batch_ids: str, **changes: Any) -> list[Any]:
    """Record a run, one batch of two requests for each of the server's, and return them."""
    keys = add_run(place.store, "r", n=2 * len(batch_ids), n_batches=len(batch_ids)).batch_keys
    for key, batch_id in zip(keys, batch_ids, strict=True):
        bind(place.store, key, batch_id)
        place.store.batches.update(key, **changes)
    return place.store.batches.of_keys(keys)


def told(**listed: Any) -> Any:
    """Return what answers a retrieve with a batch that is worked on."""
    return lambda batch_id: Polled(batch={"id": batch_id, "processing_status": "in_progress", **listed})


@pytest.mark.parametrize(
    ("posted_s", "created_s", "since_s"),
    [
        (-300, -295, -295),
        (-300, 3600, -300),
        (-300, -7200, -300),
        (-700, -100, -100),
        (-700, -70, -700),
        (-300, None, -300),
        (None, -200, -200),
        (None, None, 0),
    ],
)
@pytest.mark.usefixtures("no_jitter")
def test_a_batch_is_as_old_as_our_clock_can_believe(api, clock, tmp_path, posted_s, created_s, since_s):
    """When the server says that it was made counts where that is within ten minutes of the post; else the post does."""
    posted_at, created_at = (
        None if at_s is None else CREATED_AT + timedelta(seconds=at_s) for at_s in (posted_s, created_s)
    )
    place = place_at(tmp_path, api, clock, retrieve=told())
    (batch,) = bound_to(place, "b", posted_at=posted_at, created_at=created_at)
    step = Poller(place).poll([batch])
    assert step.due_in_s == pytest.approx(poll_pause_s(-since_s, first_s=FIRST_POLL_S, most_s=MOST_POLL_S))


def test_what_a_poll_leaves_out_is_kept(api, clock, tmp_path):
    """When a batch was made, and when its cancel began, stay known where an answer does not say them any more."""
    counts = {"processing": 1, "succeeded": 1}
    place = place_at(tmp_path, api, clock, retrieve=told(request_counts=counts))
    (batch,) = bound_to(place, "b", created_at=CREATED_AT, cancel_initiated_at=CREATED_AT)
    Poller(place).poll([batch])
    polled = place.store.batches.get(batch.key)
    assert (polled.counts, polled.created_at, polled.cancel_initiated_at) == (counts, CREATED_AT, CREATED_AT)


def test_a_batch_that_is_there_again_is_not_missing_any_more(api, clock, tmp_path):
    """An absence is forgotten with the first answer, also one that tells nothing else that is new."""
    place = place_at(tmp_path, api, clock, retrieve=told(request_counts={"processing": 2}))
    (batch,) = bound_to(place, "b", not_found_since=CREATED_AT, counts={"processing": 2})
    Poller(place).poll([batch])
    assert place.store.batches.get(batch.key).not_found_since is None


def test_the_list_is_read_until_all_are_seen_and_no_further(api, clock, tmp_path, monkeypatch):
    """Many batches are looked at by the list alone; what is older than all of them is not read."""
    monkeypatch.setattr(listing, "_LARGEST_PAGE", 2)
    ids = [api.add_decoy(1, at=clock.time_s() - 1000 + i) for i in range(8)]
    place = place_at(tmp_path, api, clock)
    batches = bound_to(place, *ids[4:], created_at=CREATED_AT - timedelta(seconds=996))
    Poller(place).poll(batches)
    assert (api.calls("list"), api.calls("retrieve")) == (2, 0)


def test_where_one_does_not_know_its_time_the_list_is_read_on(api, clock, tmp_path, monkeypatch):
    """A recovered batch may be older than all whose times are known: no page ends the list then."""
    monkeypatch.setattr(listing, "_LARGEST_PAGE", 2)
    ids = [api.add_decoy(1, at=clock.time_s() - 1000 + i) for i in range(7)]
    place = place_at(tmp_path, api, clock)
    batches = bound_to(place, ids[0], *ids[4:], created_at=CREATED_AT - timedelta(seconds=996))
    place.store.batches.update(batches[0].key, created_at=None)
    Poller(place).poll(place.store.batches.of_keys([batch.key for batch in batches]))
    assert (api.calls("list"), api.calls("retrieve")) == (4, 0)


def test_what_answers_in_the_apis_place_is_borne_for_ten_minutes(api, clock, tmp_path):
    """A portal's page is a passing fault of the polls until it has lasted ten minutes; then the run stops."""
    api.faults.add(ErrorAnswer("retrieve", 403, body="<html>", content_type="text/html", times=None))
    place = place_at(tmp_path, api, clock)
    poller = Poller(place)
    batches = bound_to(place, api.add_decoy(2))
    assert poller.poll(batches).message.startswith("Something that is not the API answers;")
    clock.advance(599.5)
    assert poller.poll(batches).error is None
    clock.advance(0.5)
    assert poller.poll(batches).due_in_s is None


def test_a_look_that_is_overdue_is_due_now(api, clock, tmp_path):
    """However long ago it was due, no look is due before now."""
    place = place_at(tmp_path, api, clock)
    batches = bound_to(place, "b")
    poller = Poller(place)
    poller.posted(batches[0].key)
    assert poller.due_in_s(batches) == pytest.approx(FIRST_POLL_S)
    clock.advance(100)
    assert poller.due_in_s(batches) == 0
