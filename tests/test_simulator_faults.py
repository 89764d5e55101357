"""Every fault of the simulator, seen through the real SDK."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import anthropic
import httpx2
import pytest
from simulator_lab import N_ROWS, requests

from pandas_batch import simulator
from pandas_batch.simulator import BadResults, ErrorAnswer, ListLag, LostAnswer, Outage

# ---- errors


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (402, getattr(anthropic, "PaymentRequiredError", anthropic.APIStatusError), "billing_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (408, anthropic.RequestTimeoutError, "timeout_error"),
        (409, anthropic.ConflictError, "invalid_request_error"),
        (413, anthropic.ContentTooLargeError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (504, anthropic.GatewayTimeoutError, "timeout_error"),
        (529, anthropic.OverloadedError, "overloaded_error"),
    ],
)
@pytest.mark.parametrize("committed", [False, True])
def test_a_create_fails_before_or_after_it_was_done(api, once, status, error, kind, committed):
    """An HTTP error raises the SDK's class for it; whether a batch was made nobody can tell from it."""
    fault = api.faults.add(ErrorAnswer("create", status, committed=committed))
    with pytest.raises(error) as caught:
        once.messages.batches.create(requests=requests())
    assert caught.value.status_code == status
    assert caught.value.body["error"]["type"] == kind
    assert len(api.batches) == committed
    assert fault.hits == 1
    once.messages.batches.create(requests=requests())
    assert len(api.batches) == committed + 1


def test_the_default_client_pays_three_times_for_a_lost_answer(api):
    """The SDK's own retries make three batches of one create: the danger all of this is about."""
    api.faults.add(ErrorAnswer("create", 500, committed=True, retry_after="0", times=None))
    with pytest.raises(anthropic.InternalServerError):
        api.client().messages.batches.create(requests=requests())
    assert len(api.batches) == 3


def test_retry_after_is_sent_when_asked_for(api, once):
    """A 429 may come with a time to wait, or without."""
    api.faults.add(ErrorAnswer("retrieve", 429, retry_after="17"))
    api.faults.add(ErrorAnswer("retrieve", 429))
    headers = []
    for _ in range(2):
        with pytest.raises(anthropic.RateLimitError) as caught:
            once.messages.batches.retrieve("msgbatch_x")
        headers.append(caught.value.response.headers.get("retry-after"))
    assert headers == ["17", None]


def test_a_spend_cap_is_a_429_that_no_retry_helps(api, once):
    """The SDK knows the spend cap by its code; it comes without a time to wait."""
    api.faults.add(simulator.spend_cap())
    with pytest.raises(anthropic.RateLimitError) as caught:
        once.messages.batches.create(requests=requests())
    assert caught.value.error_code == "enforced_spend_limit_reached"
    assert "retry-after" not in caught.value.response.headers
    assert len(list(once.messages.batches.list())) == 0


def test_a_revoked_key_is_refused_everywhere_from_then_on(api, once, clock):
    """After the key is revoked every call is a 401, until the fault is taken out."""
    batch = once.messages.batches.create(requests=requests())
    fault = api.faults.add(simulator.revoked_key())
    for call in (
        lambda: once.messages.batches.retrieve(batch.id),
        lambda: once.messages.batches.list(),
        lambda: once.models.retrieve("claude-haiku-4-5"),
    ):
        with pytest.raises(anthropic.AuthenticationError):
            call()
    api.faults.remove(fault)
    assert once.messages.batches.retrieve(batch.id).id == batch.id


def test_a_proxy_answers_in_its_own_way(api, once):
    """An error may carry any body, and a 200 may carry anything but the API's JSON."""
    page = "<html><body>413 Payload Too Large</body></html>"
    api.faults.add(ErrorAnswer("create", 413, body=page, content_type="text/html"))
    with pytest.raises(anthropic.ContentTooLargeError) as caught:
        once.messages.batches.create(requests=requests())
    assert caught.value.type is None
    api.faults.add(ErrorAnswer("retrieve", 200, body='{"id":"x","processing_status":"dreaming"}'))
    assert once.messages.batches.retrieve("x").processing_status == "dreaming"


def test_faults_wait_for_their_turn(api, once):
    """`skip` lets calls pass, `times` ends a fault, and faults that overlap strike one after the other."""
    api.faults.add(ErrorAnswer("list", 500, skip=1, times=2))
    api.faults.add(ErrorAnswer("list", 529, skip=1))
    seen = []
    for _ in range(5):
        try:
            once.messages.batches.list()
            seen.append(200)
        except anthropic.APIStatusError as error:
            seen.append(error.status_code)
    assert seen == [200, 500, 500, 529, 200]


def test_a_new_batch_may_be_unknown_for_some_calls(api, once):
    """The transient 404 after a create strikes every batch on its own."""
    api.faults.add(ErrorAnswer("retrieve", 404, times=2, each_batch=True))
    for _ in range(2):
        batch = once.messages.batches.create(requests=requests())
        for _ in range(2):
            with pytest.raises(anthropic.NotFoundError):
                once.messages.batches.retrieve(batch.id)
        assert once.messages.batches.retrieve(batch.id).id == batch.id


# ---- lost answers

LOSSES: dict[str, type[Exception] | str] = {
    "reset": anthropic.APIConnectionError,
    "close": anthropic.APIConnectionError,
    "cut": anthropic.APIConnectionError,
    "stall": anthropic.APITimeoutError,
    "html": "a text",
    "empty_object": "no id",
    "bad_json": json.JSONDecodeError,
    "redirect_302": "no id",
    "redirect_307": "a second batch",
}


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("how", sorted(LOSSES))
def test_the_answer_to_a_create_is_lost(api, how, committed):
    """However the answer is lost, the batch is there if the server had done its work, and the SDK gives no id."""
    client = api.client(max_retries=0, timeout=0.5 if how == "stall" else 10)
    api.faults.add(LostAnswer(how, committed=committed))
    expected = LOSSES[how]
    if isinstance(expected, str):
        answer: Any = client.messages.batches.create(requests=requests())
        if expected == "a text":
            assert isinstance(answer, str)
            assert answer.startswith("<!DOCTYPE html>")
        elif expected == "no id":
            assert answer.id is None
        else:
            assert answer.id == api.batches[0].id
    else:
        with pytest.raises(expected):
            client.messages.batches.create(requests=requests())
    assert len(api.batches) == committed + (expected == "a second batch")


def test_a_create_is_committed_after_its_connection_died(api, once, clock):
    """A late commit: for some time nobody can see the batch, then it is there."""
    api.faults.add(LostAnswer("close", late_s=30))
    with pytest.raises(anthropic.APIConnectionError):
        once.messages.batches.create(requests=requests())
    clock.advance(29.9)
    assert list(once.messages.batches.list()) == []
    clock.advance(0.2)
    (batch,) = once.messages.batches.list()
    assert batch.processing_status == "in_progress"
    assert once.messages.batches.retrieve(batch.id).request_counts.processing == N_ROWS


@pytest.mark.parametrize("endpoint", ["retrieve", "list", "results", "cancel", "count_tokens", "models"])
def test_any_answer_can_be_lost(api, once, clock, endpoint):
    """Losses strike the endpoint they name and no other."""
    batch = once.messages.batches.create(requests=requests())
    clock.advance(0 if endpoint == "cancel" else 3)
    api.faults.add(LostAnswer("reset", endpoint=endpoint))
    calls = {
        "retrieve": lambda: once.messages.batches.retrieve(batch.id),
        "list": lambda: once.messages.batches.list(),
        "results": lambda: list(once.messages.batches.results(batch.id)),
        "cancel": lambda: once.messages.batches.cancel(batch.id),
        "count_tokens": lambda: once.messages.count_tokens(
            model="claude-haiku-4-5", messages=[{"role": "user", "content": "x"}]
        ),
        "models": lambda: once.models.list(),
    }
    for name, call in calls.items():
        if name not in (endpoint, "cancel", "results"):
            call()
    with pytest.raises(anthropic.APIConnectionError):
        calls[endpoint]()
    if endpoint == "cancel":
        assert once.messages.batches.retrieve(batch.id).processing_status == "canceling"


@pytest.mark.parametrize("how", ["reset", 503])
def test_an_outage_lasts_for_its_time(api, once, clock, how):
    """From one moment to another nothing is answered, before and after everything is."""
    api.faults.add(Outage(from_s=clock.time_s() + 10, until_s=clock.time_s() + 100, how=how))
    once.messages.batches.list()
    clock.advance(50)
    for call in (lambda: once.messages.batches.list(), lambda: once.messages.batches.create(requests=requests())):
        with pytest.raises(anthropic.APIConnectionError if how == "reset" else anthropic.InternalServerError):
            call()
    clock.advance(50)
    assert list(once.messages.batches.list()) == []


def test_a_server_that_is_down_refuses_connections(api, once):
    """While it is unreachable a connection fails before anything is sent; its batches are there afterwards."""
    batch = once.messages.batches.create(requests=requests())
    with api.unreachable(), pytest.raises(anthropic.APIConnectionError) as caught:
        once.messages.batches.create(requests=requests())
    assert isinstance(caught.value.__cause__, httpx2.ConnectError)
    assert [one.id for one in once.messages.batches.list()] == [batch.id]


# ---- batches of others, lists


def test_decoys_are_batches_of_others(api, once, clock):
    """A decoy is listed and ends like any batch, at the time given; it is not on the bill."""
    earlier = api.add_decoy(5, at=clock.time_s() - 60)
    mine = once.messages.batches.create(requests=requests())
    clock.advance(1)
    later = api.add_decoy(N_ROWS)
    theirs = api.add_decoy(N_ROWS, workspace_id="wrkspc_other")
    assert [batch.id for batch in once.messages.batches.list()] == [later, mine.id, earlier]
    coming = api.add_decoy(1, at=clock.time_s() + 100)
    for hidden in (theirs, coming):
        with pytest.raises(anthropic.NotFoundError):
            once.messages.batches.retrieve(hidden)
    clock.advance(100)
    assert once.messages.batches.retrieve(coming).processing_status == "in_progress"
    assert next(row.custom_id for row in once.messages.batches.results(earlier)).startswith("decoy-")
    assert {bill.batch_id for bill in api.billed} == {mine.id}


def test_the_list_lags(api, once, clock):
    """A new batch can be retrieved at once, and is listed only after the lag."""
    api.faults.add(ListLag(20))
    batch = once.messages.batches.create(requests=requests())
    assert once.messages.batches.retrieve(batch.id).id == batch.id
    assert list(once.messages.batches.list()) == []
    clock.advance(20.1)
    assert [one.id for one in once.messages.batches.list()] == [batch.id]


def test_a_batch_may_name_its_results_elsewhere(api, once, clock):
    """`results_url` can be made to name another host, as an attacker's or a gateway's would."""
    batch = once.messages.batches.create(requests=requests())
    clock.advance(3)
    api.faults.add(simulator.ForeignResultsUrl("http://127.0.0.1:9"))
    shown = once.messages.batches.retrieve(batch.id).results_url
    assert shown == f"http://127.0.0.1:9/v1/messages/batches/{batch.id}/results"


def test_a_batch_may_vanish(api, once):
    """Somebody else may delete a batch, even one in progress."""
    batch = once.messages.batches.create(requests=requests())
    api.remove(batch.id)
    with pytest.raises(anthropic.NotFoundError):
        once.messages.batches.retrieve(batch.id)


# ---- the plan itself


def test_an_answer_may_come_late(api):
    """A delayed answer is right; a client that does not wait for it gives up."""
    api.faults.add(simulator.Delay("list", 60))
    with pytest.raises(anthropic.APITimeoutError):
        api.client(max_retries=0, timeout=0.1).messages.batches.list()
    api.faults.clear()
    api.faults.add(simulator.Delay("list", 0.01))
    assert list(api.client(max_retries=0).messages.batches.list()) == []


def test_a_port_in_use_is_an_error(api, tmp_path):
    """A second server on one port fails at once and leaves nothing behind."""
    n_threads = threading.active_count()
    with pytest.raises(OSError, match="in use"):
        simulator.serve(port=api.port)
    assert threading.active_count() == n_threads


def test_closing_does_not_wait_for_a_stall(clock):
    """A server that is stalling a client stops at once."""
    with (
        simulator.serve(clock=clock.time_s, faults=[LostAnswer("stall", endpoint="list")]) as api,
        socket.create_connection(("127.0.0.1", api.port), timeout=30) as sock,
    ):
        sock.sendall(b"GET /v1/messages/batches HTTP/1.1\r\n\r\n")
        while not api.calls("list"):
            time.sleep(0.001)
        began_s = time.monotonic()
        api.close()
        assert not any(thread.name.startswith(f"simulator-{api.port}") for thread in threading.enumerate())
        assert sock.recv(1) == b""
    assert time.monotonic() - began_s < 8


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_reset_is_not_a_close(api, how):
    """On the wire a reset is a reset and a close is a close, though the SDK has one name for both."""
    api.faults.add(LostAnswer(how, endpoint="list"))
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as sock:
        sock.sendall(b"GET /v1/messages/batches HTTP/1.1\r\n\r\n")
        if how == "reset":
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        else:
            assert sock.recv(1) == b""


def test_no_thread_is_left_behind(clock):
    """After the server has stopped none of its threads runs, and its port is free."""
    with simulator.serve(clock=clock.time_s) as api:
        idle = socket.create_connection(("127.0.0.1", api.port))
        api.client().messages.batches.list()
        assert any(thread.name.startswith(f"simulator-{api.port}") for thread in threading.enumerate())
    assert not any(thread.name.startswith(f"simulator-{api.port}") for thread in threading.enumerate())
    idle.close()
    socket.create_server(("127.0.0.1", api.port)).close()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ErrorAnswer("creat", 500),
        lambda: LostAnswer("vanish"),
        lambda: Outage(5.0, how="rst"),
        lambda: BadResults("torn"),
        lambda: BadResults("cut", framing="none"),
        lambda: simulator.RowFault("broken"),
    ],
)
def test_a_misspelled_fault_is_refused(make):
    """A fault that could never strike is refused where it is made, and the message lists what there is."""
    with pytest.raises(ValueError, match="must be one of"):
        make()
