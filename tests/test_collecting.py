"""Polling and downloading: nothing lost, nothing doubled, nothing believed too early."""

from __future__ import annotations

import pandas as pd
import pytest
from rowlab import ask, until

from pandas_batch import ResultsGoneError, simulator
from pandas_batch.running import preparing
from pandas_batch.simulator.faults import BadResults, ErrorAnswer, Outage, revoked_key

FRAME = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(12)]})


def assert_whole(out: pd.DataFrame) -> None:
    """Each row has the answer to its own prompt."""
    assert out["status"].tolist() == ["succeeded"] * len(out)
    for text, prompt in zip(out["output"], out["prompt"], strict=True):
        assert prompt in text


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("polite", [True, False])
@pytest.mark.parametrize("at_byte", [0, 1, 700, -1, -40])
def test_cut_download_is_fetched_again(api, clock, framing, polite, at_byte):
    """Wherever a download ends early, politely or not, it is fetched again whole."""
    api.faults.add(BadResults("cut", at_byte=at_byte, framing=framing, polite=polite))
    assert_whole(ask(FRAME, api, clock).result())


@pytest.mark.parametrize(
    "damage", ["missing", "doubled", "doubled_differently", "unknown_id", "junk", "blank", "crlf", "bom", "empty"]
)
def test_damaged_download_loses_no_row(api, clock, damage):
    """Damage of one download costs no row; harmless damage costs no second download."""
    api.faults.add(BadResults(damage, n_rows=2))
    run = ask(FRAME, api, clock)
    assert_whole(run.result(partial=False) if damage != "unknown_id" else _quietly(run))


def _quietly(run) -> pd.DataFrame:
    with pytest.warns(UserWarning, match="never sent"):
        return run.result()


def test_differing_lines_keep_the_first_and_say_so(api, clock):
    """Two differing results for one id are fetched again; if they stay, the first is kept and a warning told."""
    api.faults.add(BadResults("doubled_differently", n_rows=1, times=None))
    run = ask(FRAME, api, clock)
    with pytest.warns(UserWarning, match="two differing results"):
        out = run.result()
    assert_whole(out)
    assert api.calls("results") > 1


@pytest.mark.parametrize("endpoint", ["retrieve", "results"])
def test_transient_404_is_not_believed(api, clock, endpoint):
    """A 404 right after the create, or in the middle, is a passing fault."""
    api.faults.add(ErrorAnswer(endpoint, 404, times=3))
    assert_whole(ask(FRAME, api, clock).result())


@pytest.mark.parametrize("status", [429, 500, 503, 529])
@pytest.mark.parametrize("endpoint", ["retrieve", "results"])
def test_server_errors_are_waited_out(api, clock, endpoint, status):
    """Errors while polling and downloading delay a run and cost nothing."""
    api.faults.add(ErrorAnswer(endpoint, status, times=5))
    assert_whole(ask(FRAME, api, clock).result())


@pytest.mark.parametrize("how", ["reset", 503])
def test_a_day_of_outage_is_survived(clock, how):
    """Hours without a server end with every answer at home."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=3600) as api:
        run = ask(FRAME, api, clock)
        api.faults.add(Outage(from_s=clock.time_s() + 60, until_s=clock.time_s() + 12 * 3600, how=how))
        assert_whole(run.result())


def test_clock_jump_forward_polls_at_once(clock):
    """After hours of sleep the next look comes soon, and the batch that ended meanwhile is collected."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=6 * 3600) as api:
        with clock.held():
            run = ask(FRAME, api, clock)
            until(run, "in_progress")
            clock.advance(8 * 3600)
        waited_s = len(clock.waited_s)
        assert_whole(run.result())
        assert sum(clock.waited_s[waited_s:]) < 60


def test_long_retry_after_is_capped(api, clock):
    """A retry-after of a day does not freeze a run for a day."""
    api.faults.add(ErrorAnswer("retrieve", 429, retry_after="86400"))
    started_s = clock.monotonic_s()
    assert_whole(ask(FRAME, api, clock).result())
    assert clock.monotonic_s() - started_s < 3600


def test_deleted_batch_is_believed_gone_only_after_a_while(api, clock):
    """A batch that retrieve and list both lack is gone after ten minutes, and said so; nothing is posted again."""
    with clock.held():
        run = ask(FRAME, api, clock)
        until(run, "in_progress")
        api.remove(api.batches[0].id)
    with pytest.raises(ResultsGoneError):
        run.result()
    assert api.calls("create") == 1
    assert set(run.result(partial=True)["status"]) == {"missing"}


def test_revoked_key_pauses_and_the_same_line_goes_on(clock):
    """A key that stops working pauses the run in words; with a good one the same line brings the answers."""
    import anthropic

    with simulator.serve(clock=clock.time_s, seconds_per_batch=3600) as api:
        with clock.held():
            run = ask(FRAME, api, clock)
            until(run, "in_progress")
            api.faults.add(revoked_key())
        with pytest.raises(anthropic.AuthenticationError) as told:
            run.result()
        assert any(run.id in note for note in told.value.__notes__)
        api.faults.clear()
        assert_whole(ask(FRAME, api, clock).result())
        assert api.calls("create") == 1


def test_many_batches_are_polled_with_one_list_call(clock, monkeypatch):
    """Over three open batches, a poll is one list call and not one call each."""
    monkeypatch.setattr(preparing, "MAX_BATCH_REQUESTS", 2)
    with simulator.serve(clock=clock.time_s, seconds_per_batch=600) as api:
        assert_whole(ask(FRAME, api, clock).result())
        assert len(api.batches) == 6
        assert api.calls("retrieve") == 0
