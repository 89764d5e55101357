"""What the simulator takes and refuses: creates, keys and versions, tokens, messages, models, and junk."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import Any

import anthropic
import pytest
from simulator_lab import HEADERS, Answer, ask, request, requests

from pandas_batch import simulator


def _counted(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != "max_tokens"}


# ---- what a create refuses, in the server's words


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"requests": []}, "requests: List should have at least 1 item after validation, not 0"),
        ({}, "requests: Field required"),
        ({"requests": {}}, "requests: Input should be a valid list"),
        ({"requests": requests(1), "name": "x"}, "name: Extra inputs are not permitted"),
        (
            {"requests": [request("dup"), request("a"), request("dup")]},
            "requests: custom_id's must be unique within a batch. Duplicate custom_id found: dup",
        ),
        ({"requests": [{"params": {}}]}, "requests.0.custom_id: Field required"),
        ({"requests": [request("a"), {"custom_id": "b"}]}, "requests.1.params: Field required"),
        ({"requests": [request("x" * 65)]}, "requests.0.custom_id: String should have at most 64 characters"),
        ({"requests": [request("")]}, "requests.0.custom_id: String should have at least 1 character"),
        (
            {"requests": [request("a b")]},
            "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
        ),
        (
            {"requests": [request("é")]},
            "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
        ),
        ({"requests": [{"custom_id": 5, "params": {}}]}, "requests.0.custom_id: Input should be a valid string"),
        (
            b'{"requests":[{"custom_id":"a","params":{"x":"\\ud83d"}}]}',
            "The request body is not valid JSON: no low surrogate in string",
        ),
    ],
)
def test_a_create_is_refused_at_once_for_its_list_and_ids(api, body, message):
    """What is wrong with the list of requests refuses the whole create, and no batch is made."""
    answer = ask(api, "POST", "/v1/messages/batches", body)
    assert answer.status == 400
    assert answer.json["type"] == "error"
    assert answer.json["error"] == {"type": "invalid_request_error", "message": message}
    assert api.batches == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nonsense", b'{"requests":[{"custom_id":"\xff","params":{}}]}', b"[" * 9999]
)
def test_a_body_that_is_not_json_is_refused(api, body):
    """Whatever is not JSON is a 400 that says so."""
    answer = ask(api, "POST", "/v1/messages/batches", body)
    assert answer.status == 400
    assert answer.json["error"]["message"].startswith("The request body is not valid JSON:")


def test_params_are_not_checked_when_the_batch_is_created(api, client, clock):
    """A request without messages is accepted, and errors when the batch has ended."""
    created = ask(api, "POST", "/v1/messages/batches", {"requests": [{"custom_id": "a", "params": {"model": "x"}}]})
    assert (created.status, created.json["request_counts"]["processing"]) == (200, 1)
    clock.advance(3)
    (row,) = client.messages.batches.results(created.json["id"])
    assert row.result.type == "errored"
    assert row.result.error.request_id is None


def test_too_many_requests_or_bytes_are_a_413(clock):
    """The limits of a batch answer 413 and make no batch; the proxy's form has no top-level type."""
    with simulator.serve(clock=clock.time_s, max_requests=3, max_bytes=2000) as api:
        client = api.client(max_retries=0)
        client.messages.batches.create(requests=requests(3))
        with pytest.raises(anthropic.APIStatusError) as too_many:
            client.messages.batches.create(requests=requests(4))
        with pytest.raises(anthropic.APIStatusError) as too_large:
            client.messages.batches.create(requests=[request("a", "x" * 3000)])
        assert (too_many.value.status_code, too_large.value.status_code) == (413, 413)
        assert too_large.value.body == {
            "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}
        }
        assert len(api.batches) == 1


def test_a_full_queue_is_a_429(clock):
    """Requests in batches that have not ended count against the queue."""
    with simulator.serve(clock=clock.time_s, max_queued=5) as api:
        client = api.client(max_retries=0)
        client.messages.batches.create(requests=requests(3))
        with pytest.raises(anthropic.RateLimitError):
            client.messages.batches.create(requests=requests(3))
        clock.advance(3)
        client.messages.batches.create(requests=requests(3))


# ---- who calls


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"anthropic-version": "2026-10-21"}, 401, "authentication_error"),
        ({**HEADERS, "authorization": "Bearer invalid"}, 401, "authentication_error"),
        ({"authorization": "Bearer key"}, 400, "invalid_request_error"),
        ({**HEADERS, "anthropic-version": "1999-01-01"}, 400, "invalid_request_error"),
        ({"x-api-key": "key", "anthropic-version": "2023-06-01"}, 200, None),
        (HEADERS, 200, None),
    ],
)
def test_a_key_and_a_version_are_needed(api, headers, status, kind):
    """Without a key it is a 401, without a known version a 400; a key may come as Bearer or in its own header."""
    answer = ask(api, "GET", "/v1/messages/batches", headers=headers)
    assert answer.status == status
    assert kind is None or answer.json["error"]["type"] == kind


def test_a_key_of_another_workspace_sees_nothing_of_ours(clock):
    """Batches belong to the workspace of the key that made them."""
    with simulator.serve(clock=clock.time_s, workspaces={"theirs": "wrkspc_02"}) as api:
        created = api.client().messages.batches.create(requests=requests(1))
        other = api.client(api_key="theirs")
        assert list(other.messages.batches.list()) == []
        with pytest.raises(anthropic.NotFoundError):
            other.messages.batches.retrieve(created.id)
        answers = [
            ask(api, "GET", "/v1/messages/batches", headers={**HEADERS, "authorization": f"Bearer {key}"})
            for key in ("ours", "theirs")
        ]
        assert len({answer.headers["anthropic-workspace-id"] for answer in answers}) == 2


def test_the_log_of_requests_holds_no_key(api, client):
    """`requests` tells what was asked and never with which key."""
    client.with_options(api_key="sk-canary").messages.batches.list(limit=5)
    ask(api, "GET", "/v1/messages/batches", headers={**HEADERS, "x-api-key": "sk-canary"})
    assert "sk-canary" not in repr(api.requests)
    assert (api.requests[0].endpoint, api.requests[0].query) == ("list", {"limit": "5"})
    assert api.calls("list") == 2
    assert api.requests[0].headers["anthropic-version"] == "2026-10-21"


def test_an_unknown_path_is_not_found(api):
    """What is no endpoint answers 404 in the API's form."""
    for method, path in (("GET", "/"), ("PUT", "/v1/messages/batches"), ("GET", "/v1/messages/batches/a/b/c")):
        answer = ask(api, method, path)
        assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")


# ---- the other endpoints


def test_count_tokens_agrees_with_the_usage_of_the_row(api, client, clock):
    """What `count_tokens` says of a request is what its row is billed as input."""
    shapes = [
        request("plain", "How are you?"),
        request("system", "How are you?", system="Be terse, please."),
        request("blocks", [{"type": "text", "text": "naïve 😀"}, {"type": "text", "text": "two"}]),
        request("schema", output_config={"format": {"type": "json_schema", "schema": {"type": "string"}}}),
        request("tools", tools=[{"name": "f", "input_schema": {"type": "object"}}]),
        request("turns", messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
    ]
    created = client.messages.batches.create(requests=shapes)
    clock.advance(3)
    rows = {row.custom_id: row.result.message.usage for row in client.messages.batches.results(created.id)}
    for shape in shapes:
        counted = client.messages.count_tokens(**_counted(shape["params"]))
        assert counted.input_tokens == rows[shape["custom_id"]].input_tokens > 4


def test_count_tokens_refuses_what_it_does_not_take(api, client):
    """`max_tokens` is no parameter of count_tokens, and an unknown model is not found."""
    with pytest.raises(anthropic.BadRequestError, match="max_tokens: Extra inputs are not permitted"):
        client.messages.count_tokens(
            model="claude-haiku-4-5", messages=[{"role": "user", "content": "x"}], extra_body={"max_tokens": 5}
        )
    with pytest.raises(anthropic.NotFoundError, match="model: claude-unknown"):
        client.messages.count_tokens(model="claude-unknown", messages=[{"role": "user", "content": "x"}])


def test_count_tokens_checks_even_one_option(api, client):
    """A parameter that the model does not take is refused, also where it is the only one beside the message."""
    thinking = {"type": "enabled", "budget_tokens": 2048}
    with pytest.raises(anthropic.BadRequestError, match="thinking"):
        client.messages.count_tokens(
            model="claude-opus-5-5", messages=[{"role": "user", "content": "x"}], thinking=thinking
        )


def test_messages_are_answered_at_the_standard_tier(api, client):
    """`POST /v1/messages` answers at once, and a wrong parameter is refused at once."""
    params: Any = {"max_tokens": 16, "messages": [{"role": "user", "content": "Hello"}]}
    message = client.messages.create(model="claude-haiku-4-5", **params)
    assert (message.content[0].text, message.usage.service_tier) == ("Hello", "standard")
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="claude-unknown", **params)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model="claude-haiku-4-5", **params, extra_body={"nonsense": 1})


def test_models_tell_lifecycle_limits_and_whether_they_take_batches(client):
    """The catalogue lists every model once; an alias finds its model; a retired one is shown as such."""
    listed = list(client.models.list(limit=5))
    assert len({model.id for model in listed}) == len(listed) > 10
    haiku = client.models.retrieve("claude-haiku-4-5")
    assert (haiku.id, haiku.max_tokens, haiku.lifecycle) == ("claude-haiku-4-5-20251001", 64_000, "active")
    assert haiku.capabilities is not None
    assert haiku.capabilities.batch.supported
    leaving = client.models.retrieve("claude-sonnet-4-5")
    assert leaving.lifecycle == "deprecated"
    assert leaving.retires_at is not None
    retired = client.models.retrieve("claude-mythos-preview")
    assert retired.lifecycle == "retired"
    assert retired.capabilities is not None
    assert not retired.capabilities.batch.supported
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("claude-unknown")


def test_every_body_is_read_whole_whatever_its_framing(api):
    """A body may come with a length or chunked, in one piece or byte by byte, many on one connection."""
    body = json.dumps({"requests": requests(30)}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", api.port)
    for size in (1, 7, 500, len(body)):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        connection.request("POST", "/v1/messages/batches", iter(pieces), HEADERS, encode_chunked=True)
        assert Answer(connection.getresponse()).status == 200
    connection.close()
    assert [batch.n_requests for batch in api.batches] == [30] * 4
    assert api.batches[0].requests == requests(30)


@pytest.mark.parametrize(
    "junk",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01" + b"\xff" * 100 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 70_000,
    ],
)
def test_junk_on_the_wire_ends_its_connection_only(api, client, junk):
    """What is not HTTP is hung up on, and the server goes on."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=5) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(junk)
        assert sock.recv(100) == b""
    assert list(client.messages.batches.list()) == []
