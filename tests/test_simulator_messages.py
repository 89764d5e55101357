"""The simulator answers ``messages.create`` by the rules of a row of a batch, at once, and bills the standard price."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

import anthropic
import pandas as pd
import pytest
from simulator_lab import HAIKU, OBJECT, params, requests

from pandas_batch import simulator
from pandas_batch.simulator import models


def test_a_message_is_billed_at_the_standard_price_and_told_from_rows_of_batches(api, client, clock):
    created = client.messages.batches.create(requests=requests(2))
    clock.advance(10)
    list(client.messages.batches.results(created.id))
    answer = client.messages.create(**params("Hi there"))
    row, *_, live = api.billed
    assert (row.is_live, row.batch_id, live.is_live, live.batch_id, live.custom_id) == (False, created.id, True, "", "")
    assert answer.usage.service_tier == "standard"
    usage = live.usage
    assert live.cost_usd == (usage["input_tokens"] + 5 * usage["output_tokens"]) / Decimal(1_000_000)
    assert api.billed_usd == sum(bill.cost_usd for bill in api.billed)
    (heard,) = api.messages
    assert (heard.params["messages"][0]["content"], heard.message["id"]) == ("Hi there", answer.id)


def test_two_equal_messages_are_two_answers(api, client):
    ids = {client.messages.create(**params()).id for _ in range(3)}
    assert (len(ids), len(api.billed)) == (3, 3)


@pytest.mark.parametrize(
    ("bad", "status", "kind"),
    [
        ({"max_tokens": -1}, 400, "invalid_request_error"),
        ({"model": "claude-none"}, 404, "not_found_error"),
        ({"temperature": 0.5}, 400, "invalid_request_error"),
        ({"messages": []}, 400, "invalid_request_error"),
    ],
)
def test_params_are_refused_at_once_in_the_api_s_own_form(api, once, bad, status, kind):
    with pytest.raises(anthropic.APIStatusError) as caught:
        once.post("/v1/messages", body={**params(), **bad}, cast_to=object)
    body: Any = caught.value.body
    assert (caught.value.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert api.billed == []
    assert [one.error[0] for one in api.messages if one.error] == [kind]


def test_a_schema_is_answered_with_a_value_that_fits(client):
    config: Any = {"format": {"type": "json_schema", "schema": OBJECT}}
    answer = client.messages.create(**params(output_config=config))
    assert '"mood"' in answer.content[0].text


@pytest.mark.parametrize(
    ("outcome", "status", "kind"),
    [
        ("errored", 400, "invalid_request_error"),
        ("overloaded", 529, "overloaded_error"),
        ("api_error", 500, "api_error"),
    ],
)
def test_faults_of_rows_strike_messages_too(api, once, outcome, status, kind):
    api.faults.add(simulator.RowFault(outcome, marker="bad"))
    with pytest.raises(anthropic.APIStatusError) as caught:
        once.messages.create(**params("a bad one"))
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (status, kind)
    assert once.messages.create(**params("a good one")).stop_reason == "end_turn"
    assert len(api.billed) == 1


def test_answers_that_are_none_come_live_too(api, once):
    for outcome in ("refused", "refused_early", "truncated", "paused"):
        api.faults.add(simulator.RowFault(outcome, marker=f"be {outcome}!"))
    reasons = [
        once.messages.create(**params(f"please be {outcome}!")).stop_reason
        for outcome in ("refused", "refused_early", "truncated", "paused", "good")
    ]
    assert reasons == ["refusal", "refusal", "max_tokens", "pause_turn", "end_turn"]
    assert len(api.billed) == 4  # a refusal before any output is free


def test_a_fault_may_strike_batches_only_or_messages_only(api, once, clock):
    api.faults.add(simulator.RowFault("overloaded", asked="batch"))
    api.faults.add(simulator.RowFault("refused", asked="live"))
    assert once.messages.create(**params()).stop_reason == "refusal"
    created = once.messages.batches.create(requests=requests(2))
    clock.advance(10)
    rows = list(once.messages.batches.results(created.id))
    assert [row.result.error.error.type for row in rows] == ["overloaded_error"] * 2


def test_what_only_a_batch_can_come_to_leaves_a_message_alone(api, once):
    for outcome in ("expired", "canceled"):
        api.faults.add(simulator.RowFault(outcome))
    assert once.messages.create(**params()).stop_reason == "end_turn"


def test_a_share_of_the_messages_is_struck(api, once):
    api.faults.add(simulator.RowFault("refused", share=0.5))
    reasons = [once.messages.create(**params(f"n {n}")).stop_reason for n in range(40)]
    assert 5 < reasons.count("refusal") < 35


def test_a_rate_limit_names_its_pause_and_the_sdk_obeys_it(api):
    fault = api.faults.add(simulator.ErrorAnswer("messages", 429, retry_after="0"))
    assert api.client(max_retries=1).messages.create(**params()).stop_reason == "end_turn"
    assert (fault.hits, api.calls("messages"), len(api.billed)) == (1, 2, 1)


def test_an_answer_takes_as_long_as_it_is_told(api, once):
    api.seconds_per_message = lambda asked: 0.2 if asked["messages"][0]["content"] == "slow" else 0.0
    began_s = time.monotonic()
    once.messages.create(**params("slow"))
    assert time.monotonic() - began_s >= 0.2


def test_a_lost_answer_was_billed(api, once):
    api.faults.add(simulator.LostAnswer("reset", endpoint="messages"))
    with pytest.raises(anthropic.APIConnectionError):
        once.messages.create(**params())
    assert len(api.billed) == 1


def test_many_messages_are_answered_side_by_side(api, client):
    api.seconds_per_message = 0.2
    began_s = time.monotonic()
    threads = [threading.Thread(target=client.messages.create, kwargs=params(f"n {n}")) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began_s < 16 * 0.2
    assert len(api.messages) == 16


def test_messages_survive_a_restart(tmp_path):
    with simulator.serve(path=tmp_path) as api:
        api.client().messages.create(**params("one"))
        billed = api.billed
    written = tmp_path / "messages.jsonl"
    written.write_bytes(written.read_bytes() + b'{"half')
    with simulator.serve(path=tmp_path) as again:
        assert again.billed == billed
        again.client().messages.create(**params("two"))
        assert len({one.message["id"] for one in again.messages}) == 2


def test_a_model_may_be_for_batches_only(api, once, monkeypatch):
    monkeypatch.setitem(models.MODELS, HAIKU, replace(models.MODELS[HAIKU], live=False))
    with pytest.raises(anthropic.BadRequestError, match="not supported in the Messages API"):
        once.messages.create(**params())
    assert once.messages.count_tokens(model=HAIKU, messages=params()["messages"]).input_tokens > 0


def test_a_batch_that_takes_no_time_has_ended_when_its_create_is_answered():
    with simulator.serve(seconds_per_batch=0) as api:
        created = api.client().messages.batches.create(requests=requests(3))
        assert (created.processing_status, created.request_counts.succeeded) == ("ended", 3)


def test_a_run_is_home_without_a_poll_where_batches_take_no_time():
    frame = pd.DataFrame({"review": [f"review {n}" for n in range(20)]})
    with simulator.serve(seconds_per_batch=0) as api:
        out = frame.claude_batch.submit("review", client=api.client(), progress="off", preflight=False)
        assert out["status"].tolist() == ["succeeded"] * 20
        assert (api.calls("retrieve"), api.calls("results")) == (0, 1)
