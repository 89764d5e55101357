"""One request of the Messages API: what is known after it, and what that means for the others."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import msgspec
import pandas as pd
import pytest
from rowlab import ask
from simulator_lab import params
from test_trial import reviews, tried

from pandas_batch import exiting, simulator
from pandas_batch.engine.asking import MAX_TRIES
from pandas_batch.engine.settling import settle_left_behind
from pandas_batch.store import Store
from pandas_batch.store.batches import Batches
from pandas_batch.wire.wire import Wire

CASES: list[tuple[Any, str]] = [
    (None, "answered"),
    (simulator.ErrorAnswer("messages", 400), "refused"),
    (simulator.ErrorAnswer("messages", 404), "refused"),
    (simulator.ErrorAnswer("messages", 413), "refused"),
    (simulator.ErrorAnswer("messages", 401), "blocked"),
    (simulator.ErrorAnswer("messages", 402), "blocked"),
    (simulator.ErrorAnswer("messages", 403), "blocked"),
    (simulator.ErrorAnswer("messages", 429, retry_after="7"), "limited"),
    (simulator.ErrorAnswer("messages", 429, error_code="enforced_spend_limit_reached"), "blocked"),
    (simulator.ErrorAnswer("messages", 500), "busy"),
    (simulator.ErrorAnswer("messages", 503), "busy"),
    (simulator.ErrorAnswer("messages", 504), "busy"),
    (simulator.ErrorAnswer("messages", 529), "busy"),
    (simulator.ErrorAnswer("messages", 502, body="bad gateway"), "lost"),
    (simulator.ErrorAnswer("messages", 403, body="<h1>proxy</h1>"), "foreign"),
    (simulator.LostAnswer("reset", endpoint="messages"), "lost"),
    (simulator.LostAnswer("close", endpoint="messages"), "lost"),
    (simulator.LostAnswer("cut", endpoint="messages"), "lost"),
    (simulator.LostAnswer("html", endpoint="messages"), "foreign"),
    (simulator.LostAnswer("empty_object", endpoint="messages"), "foreign"),
    (simulator.LostAnswer("bad_json", endpoint="messages"), "foreign"),
    (simulator.LostAnswer("redirect_307", endpoint="messages"), "foreign"),
]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("fault", "outcome"), CASES)
def test_what_is_known_after_a_request(api, fault, outcome, is_async):
    if fault is not None:
        api.faults.add(copy.deepcopy(fault))
    with Wire(api.async_client() if is_async else api.client()) as wire:
        asked = wire.ask(msgspec.json.encode(params()))
    assert asked.outcome == outcome
    assert (asked.error is None) == (outcome == "answered")
    # One call is one request: whether it is asked again is decided where that is recorded.
    assert api.calls("messages") == 1
    if outcome == "limited":
        assert asked.retry_after_s == 7.0
    if outcome == "refused":
        assert json.loads(asked.content)["error"].keys() == {"type", "message"}


def test_a_server_that_is_down_has_heard_nothing(api):
    with Wire(api.client()) as wire, api.unreachable():
        assert wire.ask(msgspec.json.encode(params())).outcome == "unreachable"


def test_betas_travel_with_the_request(api, clock):
    tried(reviews(1), api, clock, n=1, betas=["output-300k-2026-03-24"])
    (heard,) = [one for one in api.requests if one.endpoint == "messages"]
    assert heard.headers["anthropic-beta"] == "output-300k-2026-03-24"


def test_a_row_that_stays_overloaded_has_that_error_after_some_tries(api, clock):
    api.faults.add(simulator.RowFault("overloaded", marker="review 0"))
    out = tried(reviews(2), api, clock, n=2)
    assert out["status"].tolist() == ["errored", "succeeded"]
    assert out["error"].iloc[0] == "overloaded_error: Overloaded"
    assert api.calls("messages") == MAX_TRIES + 1


def test_a_pretty_printed_answer_is_one_line(api, clock, monkeypatch):
    made = simulator.service.json_response

    def pretty(data: Any, *args: Any, **kwargs: Any) -> Any:
        response = made(data, *args, **kwargs)
        response.blocks = (json.dumps(data, indent=2).replace("\n", "\r\n").encode(),)
        return response

    monkeypatch.setattr("pandas_batch.simulator.service.json_response", pretty)
    api.answer = "first\nsecond"
    assert tried(reviews(1), api, clock, n=1)["output"].tolist() == ["first\nsecond"]


def test_the_end_of_the_process_finds_an_asker_at_its_tidying_and_does_not_wait_for_it(api, clock, monkeypatch):
    """An asker that is making its batch small when the process ends leaves without a word, and at once."""
    stopped = []

    def compact(*_args: Any, **_options: Any) -> None:
        stopped.extend(exiting._at_work.values())
        raise exiting.ProcessEnding

    monkeypatch.setattr(Batches, "compact", compact)
    tried(reviews(1), api, clock, n=1)
    until_s = time.monotonic() + 60
    while not stopped:
        assert time.monotonic() < until_s
        time.sleep(0.002)
    assert all(work.join(60) for work in stopped)
    assert not exiting._at_work.keys() & {id(work) for work in stopped}


def left_behind(api: simulator.Simulator, clock: Any) -> tuple[Store, int]:
    """Return a store whose asker died: rows 0 and 1 are answered, row 2 was asked, row 3 was not."""
    tried(reviews(4), api, clock, n=4)
    store = Store.find()
    assert store is not None
    (batch,) = store.batches.where(state="collected")
    folder = store.path / "batches" / str(batch.key)
    until_s = time.monotonic() + 20
    while any(folder.glob("live.*")) or not (folder / "results.jsonl.zst").exists():
        # The asker makes the batch small, after the trial has returned.
        assert time.monotonic() < until_s
        time.sleep(0.002)
    with store.files.open_results(batch.key) as results:
        lines = list(results)
    store._opened.database.write(lambda c: c.execute("UPDATE batches SET state = 'live', counts = '{}'"))
    store._opened.database.write(lambda c: c.execute("DELETE FROM succeeded"))
    log = store.files.live_log(batch.key)
    by_position = sorted(lines, key=lambda line: line.split(b"_")[3])
    for position in range(3):
        log.ask(position)
    for line in by_position[:2]:
        log.answer(line.rstrip(b"\n"))
    log.close()
    with (folder / "live.jsonl").open("ab") as file:
        file.write(by_position[2][:40])  # killed in the middle of it
    return store, batch.key


def test_what_a_dead_asker_left_is_settled_as_it_is(api, clock):
    store, key = left_behind(api, clock)
    settle_left_behind(store, clock=clock)
    assert store.batches.get(key).state == "collected"
    assert store.batches.succeeded_of(key).tolist() == [True, True, False, False]
    out = tried(reviews(4), api, clock, n=4)
    assert out["status"].tolist() == ["succeeded"] * 4
    assert len(api.messages) == 4 + 2


def test_a_run_that_comes_back_to_it_says_what_may_have_been_billed(api, clock):
    store, _ = left_behind(api, clock)
    from pandas_batch.run.library import load

    (record,) = store.runs.all()
    out = load(record.id, client=api.client(), clock=clock).result()
    assert out["status"].tolist() == ["succeeded", "succeeded", "missing", "canceled"]
    assert out["cost_usd"].isna().tolist() == [False, False, True, False]
    assert out["cost_usd"].iloc[3] == 0


def test_a_live_batch_is_never_posted(api, clock):
    left_behind(api, clock)
    ask(reviews(4), api, clock).wait()
    assert [batch.n_requests for batch in api.batches] == [2]


def test_damaged_answers_of_a_trial_are_made_anew_at_the_same_price(api, clock):
    out = tried(reviews(4), api, clock, n=4)
    store = Store.find()
    assert store is not None
    (batch,) = store.batches.where(state="collected")
    path = store.files.answers_path(batch.key)
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    pd.testing.assert_frame_equal(tried(reviews(4), api, clock, n=4), out)
    assert len(api.messages) == 4
