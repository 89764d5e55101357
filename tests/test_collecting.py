"""Polling and downloading: nothing lost, nothing doubled, nothing believed too early."""

from __future__ import annotations

import json

import anthropic
import pandas as pd
import pytest
from gateway import Answer, Gateway, is_list
from rowlab import ask, until
from step_lab import place_at
from store_lab import add_run, bind

import pandas_batch
from pandas_batch import ResultsGoneError, simulator
from pandas_batch.display.account import text_account
from pandas_batch.engine.collecting import Collector, look_again
from pandas_batch.errors import InputError, UnreadableAnswerError
from pandas_batch.run import recording
from pandas_batch.simulator.faults import BadResults, ErrorAnswer, Outage, revoked_key, spend_cap

JSON = {"content-type": "application/json"}
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
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 2)
    with simulator.serve(clock=clock.time_s, seconds_per_batch=600) as api:
        assert_whole(ask(FRAME, api, clock).result())
        assert len(api.batches) == 6
        assert api.calls("retrieve") == 0


def test_results_that_are_not_given_out_stay_at_the_server(api, clock):
    """A batch that has ended and is listed is never given up: its results are fetched when they can be had."""
    api.faults.add(ErrorAnswer("results", 404, times=None))
    run = ask(FRAME, api, clock)
    with pytest.raises(UnreadableAnswerError, match="has ended and is not archived"):
        run.result()
    with pytest.raises(InputError, match="has not ended"):
        run.retry_failed()
    api.faults.clear()
    assert_whole(ask(FRAME, api, clock).result())
    assert pandas_batch.load(run.id, client=api.client()).result()["status"].eq("succeeded").all()
    assert api.calls("create") == 1


def test_results_are_fetched_where_the_batch_says_they_are(api, clock):
    """A gateway may serve results at another address of its own, which the batch's results_url names."""
    moved = []

    def stop(method, path):
        if path.endswith("/results"):
            return Answer(404, b'{"type":"error","error":{"type":"not_found_error","message":"Not found"}}', JSON)
        if path.startswith("/elsewhere/"):
            moved.append(path)
            (batch,) = (batch for batch in api.batches if batch.id == path.split("/")[2])
            return Answer(200, b"\n".join(batch.result_lines()), {"content-type": "application/x-jsonl"})
        return None

    def change(method, path, answer):
        batch = json.loads(answer.body)
        if "results_url" not in batch:
            return None
        batch["results_url"] = f"{gate.base_url}/elsewhere/{batch['id']}"
        return Answer(200, json.dumps(batch).encode(), JSON)

    with Gateway(api, change=change, stop=stop) as gate:
        assert_whole(ask(FRAME, api, clock, client=gate.client()).result())
    assert len(moved) == 1


def test_a_batch_that_was_given_up_is_looked_for_anew(api, clock):
    """Gone is what retrieve and list both lack; whoever comes back looks again, before a retry pays for it."""
    gone = Answer(404, b'{"type":"error","error":{"type":"not_found_error","message":"Not found"}}', JSON)
    is_hidden = True

    def stop(method, path):
        return gone if is_hidden and method == "GET" and "/batches/" in path else None

    def change(method, path, answer):
        return Answer(200, b'{"data":[],"has_more":false}', JSON) if is_hidden and is_list(method, path) else None

    with Gateway(api, stop=stop, change=change) as gate:
        run = ask(FRAME, api, clock, client=gate.client())
        with pytest.raises(ResultsGoneError):
            run.result()
        with pytest.raises(ResultsGoneError):
            ask(FRAME, api, clock, client=gate.client()).result()
        is_hidden = False
        again = pandas_batch.load(run.id, client=gate.client())
        with pytest.raises(InputError, match="has not ended"):
            again.retry_failed()
        assert again.result()["status"].eq("succeeded").all()
        assert_whole(ask(FRAME, api, clock, client=gate.client()).result())
    assert api.calls("create") == 1


def test_a_portal_that_answers_the_polls_stops_nothing_for_good(clock):
    """A page in the API's place is waited out; it is no word about the key, nor about the batch."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=3600) as api:
        page = {"body": "<html>Sign in</html>", "content_type": "text/html", "times": 20}
        for status in (401, 403, 404):
            for endpoint in ("retrieve", "results"):
                api.faults.add(ErrorAnswer(endpoint, status, skip=1, **page))
        run = ask(FRAME, api, clock)
        told = []
        for _ in range(8):
            try:
                assert_whole(run.result())
            except anthropic.APIStatusError as error:
                told.append(str(error))
            else:
                break
        assert len(told) < 8
        assert all("Sign in" in words for words in told)
        assert api.calls("create") == 1


def test_a_refused_batch_leaves_the_others_watched(clock, monkeypatch):
    """Where one batch is refused, those on the server are followed to their end, and the reason is told."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 4)
    with simulator.serve(clock=clock.time_s, seconds_per_batch=600) as api:
        with clock.held():
            api.faults.add(spend_cap(skip=1))
            run = ask(FRAME, api, clock)
            until(run, "blocked")
            told = text_account(run.snapshot())
        assert "usage limits" in told
        assert "at most $" in told
        with pytest.raises(anthropic.RateLimitError):
            run.result()
        assert run.engine.join(20)
        assert run.counts["succeeded"] == 4
        assert run.status == "blocked"
        assert "usage limits" in pandas_batch.load(run.id, client=api.client()).snapshot().message
        api.faults.clear()
        assert_whole(run.result())
        assert len(api.billed) == 12


def test_results_without_a_line_of_the_batch_are_never_believed(api, clock):
    """What another server answers in place of the results is no sign that rows are missing."""
    is_broken = True

    def stop(method, path):
        if is_broken and path.endswith("/results"):
            return Answer(200, b'{"detail":"no such file"}', {"content-type": "application/x-jsonl"})
        return None

    with Gateway(api, stop=stop) as gate:
        run = ask(FRAME, api, clock, client=gate.client())
        with pytest.raises(UnreadableAnswerError, match="hold no line of it"):
            run.result()
        assert "missing" not in run.counts
        is_broken = False
        assert_whole(run.result())


# ---------------------------------------------------------------- single steps


def bound(place, batch_id: str):
    """Record a run of one batch that is on the server under an id."""
    (key,) = add_run(place.store, "r", n=2).batch_keys
    bind(place.store, key, batch_id)
    return place.store.batches.get(key)


def test_results_that_another_answers_for_are_fetched_again_for_ten_minutes(api, clock, tmp_path):
    """A portal's page in place of results is a passing fault until it has lasted; then the run stops in words."""
    api.faults.add(ErrorAnswer("results", 403, body="<html>", content_type="text/html", times=None))
    place = place_at(tmp_path, api, clock)
    batch, collector = bound(place, api.add_decoy(2)), Collector(place)
    for seconds in (0, 599.5):
        clock.advance(seconds)
        step = collector.step(batch)
        assert (step.error, "fetched again" in step.message) == (None, True)
    clock.advance(0.5)
    step = collector.step(batch)
    assert (step.due_in_s, "could not be fetched" in step.message) == (None, True)


def test_results_that_stay_short_are_believed_after_four_downloads(api, clock):
    """A row that four downloads lack is missing, and not looked for again."""
    api.faults.add(BadResults("missing", n_rows=1, times=None))
    assert ask(FRAME, api, clock).result()["status"].eq("missing").sum() == 1
    assert api.calls("results") == 4


def test_a_batch_that_was_given_up_is_looked_for_where_it_was(api, clock, tmp_path):
    """One that is there again is taken up; one that is not stays given up; who cannot ask is told so."""
    place = place_at(tmp_path, api, clock)
    batch = bound(place, api.add_decoy(2))
    place.store.batches.transition(batch.key, expect={"bound"}, to="gone")
    api.faults.add(ErrorAnswer("retrieve", 404))
    assert not look_again(place, batch)
    api.faults.add(ErrorAnswer("retrieve", 500))
    with pytest.raises(anthropic.InternalServerError):
        look_again(place, batch)
    assert place.store.batches.get(batch.key).state == "gone"
    assert look_again(place, batch)
    assert place.store.batches.get(batch.key).state == "bound"
