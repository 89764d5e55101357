"""Pauses between polls: a tenth of the time that has passed, shorter where earlier batches tell when the end comes."""

from __future__ import annotations

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from rowlab import ask

from pandas_batch import simulator
from pandas_batch.engine.pauses import marks_of, poll_pause_s
from pandas_batch.engine.polling import FIRST_POLL_S, MOST_POLL_S

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
