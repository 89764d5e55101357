"""The life of a batch on the simulator, seen through the real SDK."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import timedelta
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulator_lab import DAY_S, ask, request, requests

from pandas_batch import simulator
from pandas_batch.simulator.batches import Batch, BatchFacts
from pandas_batch.simulator.blobs import Blob


def test_a_batch_goes_from_in_progress_to_ended_and_its_results_are_complete(api, client, clock):
    """Counts stay `processing` until the end, then every request has exactly one result."""
    created = client.messages.batches.create(requests=requests(7))
    assert (created.processing_status, created.request_counts.processing) == ("in_progress", 7)
    assert created.ended_at is None
    assert created.results_url is None
    clock.advance(1.9)
    polled = client.messages.batches.retrieve(created.id)
    assert (polled.processing_status, polled.request_counts.processing, polled.request_counts.succeeded) == (
        "in_progress",
        7,
        0,
    )
    clock.advance(0.2)
    ended = client.messages.batches.retrieve(created.id)
    assert (ended.processing_status, ended.request_counts.processing, ended.request_counts.succeeded) == ("ended", 0, 7)
    assert ended.ended_at is not None
    assert (ended.ended_at - ended.created_at).total_seconds() == pytest.approx(2)
    rows = {row.custom_id: row.result for row in client.messages.batches.results(created.id)}
    assert sorted(rows) == [f"r{number}" for number in range(7)]
    assert rows["r3"].message.content[0].text == "prompt 3"
    assert rows["r3"].message.usage.service_tier == "batch"


async def _async_round(api: simulator.Simulator, clock: Any) -> list[str]:
    async with api.async_client() as client:
        created = await client.messages.batches.create(requests=requests(3))
        clock.advance(3)
        assert (await client.messages.batches.retrieve(created.id)).processing_status == "ended"
        page = await client.messages.batches.list()
        assert [batch.id for batch in page.data] == [created.id]
        assert (await client.messages.count_tokens(**_counted(requests(1)[0]["params"]))).input_tokens > 0
        assert (await client.models.retrieve("claude-haiku-4-5")).capabilities is not None
        return sorted([row.custom_id async for row in await client.messages.batches.results(created.id)])


def _counted(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != "max_tokens"}


def test_the_async_client_sees_the_same(api, clock):
    """The asynchronous SDK gets what the synchronous one gets."""
    import asyncio

    assert asyncio.run(_async_round(api, clock)) == ["r0", "r1", "r2"]


def test_results_come_in_another_order_and_the_seed_decides_it(clock):
    """Results are shuffled; the same seed gives the same order and the same bytes, another seed another order."""

    def orders(seed: int) -> tuple[list[str], bytes]:
        with simulator.serve(clock=clock.time_s, seconds_per_batch=0, seed=seed) as api:
            batch_id = ask(api, "POST", "/v1/messages/batches", {"requests": requests(40)}).json["id"]
            body = ask(api, "GET", f"/v1/messages/batches/{batch_id}/results").body
            return [json.loads(line)["custom_id"] for line in body.splitlines()], body

    first, again, other = orders(0), orders(0), orders(1)
    assert first == again
    assert first[0] != other[0]
    assert sorted(first[0]) == sorted(other[0]) != first[0]


def test_listing_is_newest_first_and_pages_both_ways(api, client, clock):
    """`after_id` goes to older batches, `before_id` to newer ones, `has_more` follows the direction."""
    ids = []
    for _ in range(7):
        ids.append(client.messages.batches.create(requests=requests(1)).id)
        clock.advance(1)
    newest_first = ids[::-1]
    assert [batch.id for batch in client.messages.batches.list(limit=3)] == newest_first  # the SDK pages by itself
    page = client.messages.batches.list(limit=3)
    assert ([batch.id for batch in page.data], page.has_more) == (newest_first[:3], True)
    assert (page.first_id, page.last_id) == (newest_first[0], newest_first[2])
    older = client.messages.batches.list(limit=4, after_id=page.last_id)
    assert ([batch.id for batch in older.data], older.has_more) == (newest_first[3:], False)
    newer = client.messages.batches.list(limit=2, before_id=newest_first[4])
    assert ([batch.id for batch in newer.data], newer.has_more) == (newest_first[2:4], True)
    newest = client.messages.batches.list(limit=20, before_id=newest_first[1])
    assert ([batch.id for batch in newest.data], newest.has_more) == (newest_first[:1], False)
    nothing = client.messages.batches.list(before_id=newest_first[0])
    assert (nothing.data, nothing.has_more, nothing.first_id) == ([], False, None)


@pytest.mark.parametrize("limit", ["0", "1001", "x"])
def test_a_limit_out_of_bounds_is_refused(api, limit):
    """`limit` is a number from 1 to 1000."""
    answer = ask(api, "GET", f"/v1/messages/batches?limit={limit}")
    assert answer.status == 400
    assert answer.json["error"]["message"].startswith("limit: Input should be")


def test_cancel_lets_what_was_processed_succeed(api, client, clock):
    """A canceled batch is `canceling`, then ended; what was processed by then is answered, the rest canceled."""
    created = client.messages.batches.create(requests=requests(10))
    clock.advance(0.6)
    canceled = client.messages.batches.cancel(created.id)
    assert (canceled.processing_status, canceled.request_counts.processing) == ("canceling", 10)
    assert canceled.cancel_initiated_at is not None
    clock.advance(0.5)
    assert client.messages.batches.cancel(created.id).cancel_initiated_at == canceled.cancel_initiated_at
    assert client.messages.batches.retrieve(created.id).processing_status == "canceling"
    clock.advance(0.6)
    ended = client.messages.batches.retrieve(created.id)
    assert ended.ended_at == canceled.cancel_initiated_at + timedelta(seconds=1)
    assert (ended.processing_status, ended.request_counts.succeeded, ended.request_counts.canceled) == ("ended", 3, 7)
    types = [row.result.type for row in client.messages.batches.results(created.id)]
    assert sorted(types) == ["canceled"] * 7 + ["succeeded"] * 3
    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.cancel(created.id)


def test_a_batch_canceled_at_once_still_has_results(api, client, clock):
    """All rows canceled: the batch ends, its results can be read, nothing is billed."""
    created = client.messages.batches.create(requests=requests(3))
    client.messages.batches.cancel(created.id)
    clock.advance(5)
    assert [row.result.type for row in client.messages.batches.results(created.id)] == ["canceled"] * 3
    assert api.billed == []


def test_deleting_needs_an_ended_batch(api, client, clock):
    """A batch in progress cannot be deleted; an ended one is gone afterwards, and stays billed."""
    created = client.messages.batches.create(requests=requests(2))
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.batches.delete(created.id)
    assert "In progress batches cannot be deleted. Consider canceling the batch instead." in str(caught.value)
    clock.advance(3)
    assert client.messages.batches.delete(created.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError) as gone:
        client.messages.batches.retrieve(created.id)
    assert f"Message Batch {created.id} not found." in str(gone.value)
    assert list(client.messages.batches.list()) == []
    assert len(api.billed) == 2


def test_results_before_the_end_are_not_found(api, client):
    """The results of a batch in progress answer 404 in the server's words; the SDK refuses by itself."""
    created = client.messages.batches.create(requests=requests(1))
    answer = ask(api, "GET", f"/v1/messages/batches/{created.id}/results")
    assert (answer.status, answer.json["error"]["message"]) == (
        404,
        f"Message Batch {created.id} has no available results.",
    )
    with pytest.raises(anthropic.AnthropicError, match="No `results_url`"):
        client.messages.batches.results(created.id)


def test_a_batch_that_takes_a_day_expires(clock):
    """What is not processed 24 hours after the creation expires; the clock may jump there."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=4 * DAY_S) as api:
        client = api.client()
        created = client.messages.batches.create(requests=requests(8))
        clock.advance(DAY_S - 1)
        assert client.messages.batches.retrieve(created.id).processing_status == "in_progress"
        clock.advance(2)
        ended = client.messages.batches.retrieve(created.id)
        assert ended.ended_at == ended.expires_at
        assert (ended.request_counts.succeeded, ended.request_counts.expired) == (2, 6)
        assert len(api.billed) == 2


def test_results_are_archived_29_days_after_the_creation(api, client, clock):
    """After 29 days the batch can be seen and its results cannot."""
    created = client.messages.batches.create(requests=requests(1))
    clock.advance(29 * DAY_S - 1)
    assert len(list(client.messages.batches.results(created.id))) == 1
    clock.advance(2)
    archived = client.messages.batches.retrieve(created.id)
    assert archived.archived_at is not None
    assert archived.results_url is None
    assert ask(api, "GET", f"/v1/messages/batches/{created.id}/results").status == 404


@given(
    n_requests=st.integers(1, 50),
    seconds=st.floats(0, 3 * DAY_S),
    cancel_at=st.none() | st.floats(0, 3 * DAY_S),
    moments=st.lists(st.floats(0, 40 * DAY_S), max_size=8),
)
def test_the_state_depends_on_the_clock_alone(n_requests, seconds, cancel_at, moments):
    """However often one asks, the state is the same; it only goes forward, and every request is counted."""
    facts = BatchFacts("b", 1, n_requests, 0.0, "w", "2026-10-21", [], seconds, 1.0, 0.0)
    batch = Batch(facts, Blob())
    if cancel_at is not None and batch.phase(cancel_at) != "ended":
        facts.cancel_at = cancel_at
    order = ["in_progress", "canceling", "ended"]
    phases = [order.index(batch.phase(at_s)) for at_s in sorted(moments)]
    assert phases == sorted(phases)
    assert batch.stops_at <= min(DAY_S, seconds + 1) + (1 if facts.cancel_at is not None else 0)
    assert 0 <= batch.n_processed() <= n_requests
    if facts.cancel_at is None and seconds <= DAY_S:
        assert batch.n_processed() == n_requests
    for at_s in moments:
        shown = batch.to_json(at_s, "http://x")
        if shown["processing_status"] != "ended":
            assert sum(shown["request_counts"].values()) == shown["request_counts"]["processing"] == n_requests
        assert (shown["ended_at"] is None) == (shown["processing_status"] != "ended")


def test_many_clients_at_once(clock):
    """Threads that create, poll, list and download together each get their own rows, whole."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=0) as api:
        failures: list[BaseException] = []

        def work(name: int) -> None:
            try:
                with api.client() as client:
                    for turn in range(5):
                        wanted = [request(f"t{name}-{turn}-{number}") for number in range(20)]
                        batch = client.messages.batches.create(requests=wanted)
                        client.messages.batches.list(limit=3)
                        rows = [row.custom_id for row in client.messages.batches.results(batch.id)]
                        assert sorted(rows) == sorted(one["custom_id"] for one in wanted)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len({batch.id for batch in api.batches}) == 30


def test_answer_and_pace_can_change_while_it_runs(api, client, clock):
    """A new answer holds for batches not settled yet, a new pace for batches created from then on."""
    slow = client.messages.batches.create(requests=requests(1))
    api.answer = "changed"
    api.seconds_per_batch = lambda n_requests: 10.0 * n_requests
    slower = client.messages.batches.create(requests=requests(3))
    clock.advance(3)
    assert [row.result.message.content[0].text for row in client.messages.batches.results(slow.id)] == ["changed"]
    clock.advance(26)
    assert client.messages.batches.retrieve(slower.id).processing_status == "in_progress"
    clock.advance(2)
    assert client.messages.batches.retrieve(slower.id).processing_status == "ended"
    assert (api.answer, callable(api.seconds_per_batch)) == ("changed", True)
    assert {key: row["type"] for key, row in api.batches[0].outcomes.items()} == dict.fromkeys(
        ("r0", "r1", "r2"), "succeeded"
    )


def test_the_beta_client_sees_the_same(api, client, clock):
    """The beta endpoints of the SDK go to the same batches."""
    created = client.beta.messages.batches.create(requests=requests(2), betas=["output-300k-2026-03-24"])
    clock.advance(3)
    assert client.beta.messages.batches.retrieve(created.id).request_counts.succeeded == 2
    assert len(list(client.beta.messages.batches.results(created.id))) == 2
    assert api.batches[0].facts.betas == ["output-300k-2026-03-24"]


def test_importing_the_simulator_does_not_import_the_sdk():
    """A simulator that serves another program needs no SDK."""
    code = "import sys, pandas_batch.simulator.server; print([m for m in ('anthropic', 'httpx2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
