"""The door to the SDK: each call made once, to one host, and what is known afterwards is told truthfully."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rowlab import ask, until_batches

from pandas_batch.errors import InputError, UnreadableAnswerError
from pandas_batch.simulator import BadResults, ErrorAnswer, ForeignResultsUrl, LostAnswer, Simulator, spend_cap
from pandas_batch.wire import endpoints
from pandas_batch.wire.clients import is_loopback
from pandas_batch.wire.connections import with_own_connections
from pandas_batch.wire.flows import MAX_RETRY_AFTER_S, wait_asked_s
from pandas_batch.wire.wire import (
    Body,
    Wire,
    is_auth,
    is_not_found,
    is_transient,
    never_sent,
    resolve_client,
    retry_after_s,
    server_time,
)

CANARY_KEY = "sk-ant-api03-canaryKEYcanaryKEY"
CANARY_PROMPT = "canaryPROMPT"


def body_of(n_requests: int = 2, prompt: str = CANARY_PROMPT) -> Body:
    params = {"model": "claude-haiku-4-5", "max_tokens": 16, "messages": [{"role": "user", "content": prompt}]}
    return Body.from_json({"requests": [{"custom_id": f"r{i}", "params": params} for i in range(n_requests)]})


@pytest.fixture(params=["Anthropic", "AsyncAnthropic"])
def sdk(request: pytest.FixtureRequest, api: Simulator) -> Any:
    """A client of either kind; the wire has to hide which."""
    return api.client() if request.param == "Anthropic" else api.async_client()


@pytest.fixture
def wire(sdk: Any, clock: Any) -> Iterator[Wire]:
    with Wire(sdk, clock=clock) as opened:
        yield opened


# -------------------------------------------------------------------- create


def test_created_tells_the_batch_and_the_headers(wire: Wire, api: Simulator) -> None:
    """A create that is answered yields the batch, the server's time and the workspace."""
    created = wire.create(body_of(3))
    assert created.outcome == "created"
    assert created.batch is not None
    assert created.batch["id"] == api.batches[0].id
    assert created.batch["request_counts"]["processing"] == 3
    assert created.error is None
    assert created.server_at == datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
    assert created.workspace_id == "wrkspc_01Simulator"
    assert created.request_id is not None
    assert created.request_id.startswith("req_")


CREATE_FAULTS: list[tuple[Any, str, int]] = [
    (ErrorAnswer("create", 400), "refused", 0),
    (ErrorAnswer("create", 401), "refused", 0),
    (ErrorAnswer("create", 402), "refused", 0),
    (ErrorAnswer("create", 403), "refused", 0),
    (ErrorAnswer("create", 404), "refused", 0),
    (ErrorAnswer("create", 422), "refused", 0),
    (spend_cap(times=1), "refused", 0),
    (ErrorAnswer("create", 413), "too_large", 0),
    (ErrorAnswer("create", 429), "retry", 0),
    (ErrorAnswer("create", 429, retry_after="7"), "retry", 0),
    (ErrorAnswer("create", 408), "unknown", 0),
    (ErrorAnswer("create", 409, committed=True), "unknown", 1),
    (ErrorAnswer("create", 500, committed=True), "unknown", 1),
    (ErrorAnswer("create", 500), "unknown", 0),
    (ErrorAnswer("create", 503, committed=True, retry_after="1"), "unknown", 1),
    (ErrorAnswer("create", 504, committed=True), "unknown", 1),
    (ErrorAnswer("create", 529, committed=True), "unknown", 1),
    (LostAnswer("reset"), "unknown", 1),
    (LostAnswer("reset", committed=False), "unknown", 0),
    (LostAnswer("close"), "unknown", 1),
    (LostAnswer("cut"), "unknown", 1),
    (LostAnswer("html"), "unknown", 1),
    (LostAnswer("empty_object"), "unknown", 1),
    (LostAnswer("bad_json"), "unknown", 1),
    (LostAnswer("redirect_302"), "unknown", 1),
    (LostAnswer("redirect_307"), "unknown", 1),
]


@pytest.mark.parametrize(
    ("fault", "outcome", "n_batches"),
    CREATE_FAULTS,
    ids=lambda value: str(value)[:60] if not isinstance(value, int) else "",
)
def test_create_posts_once_and_doubts_where_doubt_is_due(
    wire: Wire, api: Simulator, clock: Any, fault: Any, outcome: str, n_batches: int
) -> None:
    """Whatever comes back, one POST was made, nobody slept, and no possible batch is called impossible."""
    api.faults.add(type(fault)(**{k: v for k, v in vars(fault).items() if not k.startswith("_") and k != "hits"}))
    created = wire.create(body_of())
    assert created.outcome == outcome
    assert created.batch is None
    assert created.error is not None
    assert api.calls("create") == 1
    assert len(api.batches) == n_batches
    assert clock.waited_s == []
    assert outcome == "unknown" or n_batches == 0


def test_create_that_stalls_is_unknown(wire: Wire, api: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A create without an answer within the timeout may have made a batch."""
    monkeypatch.setattr(endpoints, "CREATE_TIMEOUT_S", 0.2)
    api.faults.add(LostAnswer("stall", stall_s=1.0))
    created = wire.create(body_of())
    assert (created.outcome, created.status_code) == ("unknown", None)
    assert len(api.batches) == 1


@pytest.mark.parametrize("kind", [anthropic.Anthropic, anthropic.AsyncAnthropic])
def test_create_that_cannot_connect_was_never_sent(kind: Any) -> None:
    """A server that is not there has made no batch, so that posting again is safe."""
    with Wire(kind(api_key="k", base_url="http://127.0.0.1:9")) as wire:
        created = wire.create(body_of())
    assert created.outcome == "retry"
    assert never_sent(created.error)
    assert is_transient(created.error)


def test_create_obeys_no_retry_after_but_tells_it_capped(wire: Wire, api: Simulator) -> None:
    """A wish of a day is told as five minutes, and slept by nobody."""
    api.faults.add(ErrorAnswer("create", 429, retry_after="86400"))
    created = wire.create(body_of())
    assert created.retry_after_s == MAX_RETRY_AFTER_S
    assert retry_after_s(created.error) == MAX_RETRY_AFTER_S
    assert server_time(created.error) == datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def test_create_names_its_length_and_betas(wire: Wire, api: Simulator, tmp_path: Path) -> None:
    """A body from a file is sent with its exact length, not chunked, and the betas in one header."""
    path = tmp_path / "body.json"
    path.write_bytes(b"".join(body_of(500)))
    created = wire.create(Body.from_path(path), betas=["one-2026-01-01", "two-2026-01-01"])
    assert created.outcome == "created"
    heard = api.requests[-1]
    assert heard.headers["content-length"] == str(path.stat().st_size)
    assert heard.n_bytes == path.stat().st_size
    assert "transfer-encoding" not in heard.headers
    assert heard.headers["content-type"] == "application/json"
    assert heard.headers["anthropic-beta"] == "one-2026-01-01,two-2026-01-01"


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_a_body_can_be_read_again(chunks: list[bytes]) -> None:
    """A body says its length and gives the same bytes each time."""
    body = Body.from_chunks(chunks)
    assert b"".join(body) == b"".join(body) == b"".join(chunks)
    assert body.n_bytes == len(b"".join(chunks))


# -------------------------------------------------------------------- the other calls


def test_retrieve_list_cancel_delete(wire: Wire, api: Simulator, clock: Any) -> None:
    """The life of a batch can be followed to its end over the wire."""
    ids = []
    for _ in range(3):
        created = wire.create(body_of())
        assert created.batch is not None
        ids.append(created.batch["id"])
        clock.advance(1)
    polled = wire.retrieve(ids[2])
    assert polled.batch["processing_status"] == "in_progress"
    assert polled.retry_after_s == 10
    assert polled.server_at == clock.now()
    page = wire.list(limit=2)
    assert [batch["id"] for batch in page.batches] == ids[:0:-1]
    assert page.has_more
    assert wire.list(limit=2, after_id=page.last_id).batches[0]["id"] == ids[0]
    assert [batch["id"] for batch in wire.list(before_id=ids[1]).batches] == [ids[2]]
    assert wire.cancel(ids[2])["processing_status"] == "canceling"
    clock.advance(3600)
    assert wire.retrieve(ids[2]).retry_after_s is None
    assert wire.delete(ids[2])["type"] == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError) as caught:
        wire.retrieve(ids[2])
    assert is_not_found(caught.value)
    assert not is_transient(caught.value)


def test_model_and_count_tokens(wire: Wire) -> None:
    """The free questions are answered; what count_tokens does not take is left out."""
    assert wire.model("claude-haiku-4-5-20251001")["max_tokens"] > 0
    params = {"model": "claude-haiku-4-5", "max_tokens": 16, "messages": [{"role": "user", "content": "hi"}]}
    assert wire.count_tokens(params) > 0
    with pytest.raises(anthropic.NotFoundError):
        wire.model("no/such model")


@pytest.mark.parametrize("how", ["html", "empty_object", "bad_json", "redirect_302", "redirect_307"])
@pytest.mark.parametrize("endpoint", ["retrieve", "list", "cancel", "model"])
def test_a_portals_answer_is_no_answer(wire: Wire, api: Simulator, endpoint: Any, how: Any) -> None:
    """A page, an empty object, half an object or a redirect in the API's place is told as such, and can be retried."""
    batch = wire.create(body_of()).batch
    assert batch is not None
    api.faults.add(LostAnswer(how, endpoint, committed=how == "bad_json", location="http://127.0.0.1:9/elsewhere"))
    calls = {
        "retrieve": lambda: wire.retrieve(batch["id"]),
        "list": lambda: wire.list(),
        "cancel": lambda: wire.cancel(batch["id"]),
        "model": lambda: wire.model("claude-haiku-4-5"),
    }
    if endpoint == "model" and how == "empty_object":
        assert calls[endpoint]() == {}
        return
    with pytest.raises(UnreadableAnswerError) as caught:
        calls[endpoint]()
    assert is_transient(caught.value)
    assert server_time(caught.value) is not None
    assert "<script" not in str(caught.value)


@pytest.mark.parametrize(
    "body", ['{"id": "session-1"}', '{"id": 7, "processing_status": "ended"}', '["msgbatch_1"]', '"x"']
)
def test_any_json_is_not_a_batch(wire: Wire, api: Simulator, body: str) -> None:
    """A gateway's own JSON, with an id of its own, is taken for no batch."""
    api.faults.add(ErrorAnswer("create", 200, body=body, content_type="application/json"))
    assert wire.create(body_of()).outcome == "unknown"
    api.faults.add(ErrorAnswer("retrieve", 200, body=body, content_type="application/json"))
    with pytest.raises(UnreadableAnswerError):
        wire.retrieve("msgbatch_1")


@pytest.mark.parametrize("batch_id", ["", "../../v1/models", "a/b", "x" * 129, "a b", "//evil.example/x", None, 7])
def test_an_id_cannot_lead_elsewhere(wire: Wire, api: Simulator, batch_id: Any) -> None:
    """What is no batch id is refused before anything is sent."""
    for call in (wire.retrieve, wire.cancel, wire.delete, lambda odd: wire.results(odd, io.BytesIO())):
        with pytest.raises(InputError):
            call(batch_id)
    assert api.requests == []


# -------------------------------------------------------------------- results


@pytest.fixture
def ended(wire: Wire, clock: Any) -> str:
    """The id of a batch whose results are there."""
    batch = wire.create(body_of(200)).batch
    assert batch is not None
    clock.advance(60)
    return str(batch["id"])


def test_results_arrive_byte_for_byte(wire: Wire, api: Simulator, ended: str) -> None:
    """A file and a function get the same bytes, which are the server's."""
    file, blocks = io.BytesIO(), []
    wire.results(ended, file)
    wire.results(ended, blocks.append)
    assert file.getvalue() == b"".join(blocks)
    assert file.getvalue().count(b"\n") == 200
    assert api.calls("retrieve") == 0


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_stream_that_breaks_is_one_kind_of_error(
    wire: Wire, api: Simulator, ended: str, framing: Any, reset: bool
) -> None:
    """A cut download raises the SDK's connection error, after what had arrived."""
    api.faults.add(BadResults("cut", at_byte=30_000, framing=framing, reset=reset))
    file = io.BytesIO()
    with pytest.raises(anthropic.APIConnectionError) as caught:
        wire.results(ended, file)
    assert is_transient(caught.value)
    assert not never_sent(caught.value)
    assert len(file.getvalue()) <= 30_000
    wire.results(ended, io.BytesIO())


def test_a_stream_that_stalls_is_given_up(
    wire: Wire, api: Simulator, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence in the middle of a download ends it with the same kind of error."""
    monkeypatch.setattr(endpoints, "READ_TIMEOUT_S", 0.2)
    api.faults.add(BadResults("stall", at_byte=1000, pause_s=1.0))
    with pytest.raises(anthropic.APIConnectionError) as caught:
        wire.results(ended, io.BytesIO())
    assert is_transient(caught.value)


def test_a_page_in_the_place_of_results_reaches_no_sink(wire: Wire, api: Simulator, ended: str) -> None:
    """HTML is refused before a byte of it is written."""
    api.faults.add(LostAnswer("html", "results"))
    file = io.BytesIO()
    with pytest.raises(UnreadableAnswerError):
        wire.results(ended, file)
    assert file.getvalue() == b""


def test_what_a_sink_raises_comes_out_unchanged(wire: Wire, ended: str) -> None:
    """A full disk is a full disk, not a network error; and the connection is free again."""

    def full(block: bytes) -> None:
        raise OSError(28, "No space left on device")

    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            wire.results(ended, full)
    assert wire.retrieve(ended).batch["processing_status"] == "ended"


def test_the_key_never_goes_to_a_host_that_an_answer_names(wire: Wire, api: Simulator, ended: str) -> None:
    """A results_url on another host is not followed: nobody even connects there."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.2)
        foreign = f"http://127.0.0.1:{trap.getsockname()[1]}"
        api.faults.add(ForeignResultsUrl(foreign))
        assert wire.retrieve(ended).batch["results_url"].startswith(foreign)
        file = io.BytesIO()
        wire.results(ended, file)
        assert file.getvalue().count(b"\n") == 200
        for how in ("redirect_302", "redirect_307"):
            api.faults.add(LostAnswer(how, "results", location=f"{foreign}/v1/messages/batches/{ended}/results"))
            with pytest.raises((anthropic.APIStatusError, UnreadableAnswerError)):
                wire.results(ended, io.BytesIO())
        with pytest.raises(TimeoutError):
            trap.accept()


# -------------------------------------------------------------------- what an error means


@pytest.mark.parametrize(
    ("status", "transient", "auth"),
    [
        (400, False, False),
        (401, False, True),
        (403, False, True),
        (408, True, False),
        (409, True, False),
        (413, False, False),
        (429, True, False),
        (500, True, False),
        (529, True, False),
    ],
)
def test_errors_are_told_apart(wire: Wire, api: Simulator, status: int, transient: bool, auth: bool) -> None:
    """Each status is either worth a retry, or a matter of credentials, or neither."""
    api.faults.add(ErrorAnswer("list", status))
    with pytest.raises(anthropic.APIStatusError) as caught:
        wire.list()
    assert (is_transient(caught.value), is_auth(caught.value)) == (transient, auth)
    assert api.calls("list") == 1


@given(st.text(max_size=30) | st.floats().map(str) | st.integers().map(str))
def test_any_retry_after_is_a_short_wait_or_none(text: str) -> None:
    """No header can ask for more than five minutes, for a negative wait, or for an exception."""
    seconds = wait_asked_s({"retry-after": text})
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_S


def test_a_retry_after_date_is_read_by_the_servers_clock() -> None:
    """A date is taken against the server's own, so that a wrong clock here does no harm."""
    headers = {"date": "Mon, 23 Nov 2026 08:00:00 GMT", "retry-after": "Mon, 23 Nov 2026 08:00:42 GMT"}
    assert wait_asked_s(headers) == 42
    assert wait_asked_s({**headers, "retry-after": "Fri, 01 Jan 2099 00:00:00 GMT"}) == MAX_RETRY_AFTER_S


@pytest.mark.parametrize("kind", ["client", "async_client"])
def test_middleware_of_the_user_hides_no_error(api: Simulator, kind: str) -> None:
    """A client with middleware raises the same errors, streams the same bytes, and its middleware sees each call."""
    statuses: list[int] = []

    def see(request: Any, call_next: Any) -> Any:
        response = call_next(request)
        statuses.append(response.http_response.status_code)
        return response

    async def asee(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        statuses.append(response.http_response.status_code)
        return response

    with Wire(getattr(api, kind)(middleware=[see if kind == "client" else asee])) as wire:
        for status, outcome in ((400, "refused"), (413, "too_large"), (429, "retry"), (500, "unknown")):
            api.faults.add(ErrorAnswer("create", status))
            assert wire.create(body_of()).outcome == outcome
        batch = wire.create(body_of(3)).batch
        assert batch is not None
        file = io.BytesIO()
        with pytest.raises(anthropic.NotFoundError):
            wire.results(batch["id"], file)
        assert file.getvalue() == b""
        api.advance(60)
        wire.results(batch["id"], file)
        assert file.getvalue().count(b"\n") == 3
    assert statuses == [400, 413, 429, 500, 200, 404, 200]


# -------------------------------------------------------------------- secrets


def _shown(error: BaseException) -> str:
    texts = [repr(error), str(error), "".join(traceback.format_exception(error)), repr(vars(error))]
    texts += getattr(error, "__notes__", [])
    seen: BaseException | None = error
    while seen is not None:
        with contextlib.suppress(AttributeError, RuntimeError):
            texts.append(repr(dict(seen.request.headers)))
        seen = seen.__cause__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(TypeError, AttributeError, pickle.PicklingError, NotImplementedError):
            texts.append(pickle.dumps(error).decode("latin-1"))
    return "\n".join(texts)


@pytest.mark.parametrize("kind", ["client", "async_client"])
def test_neither_key_nor_prompt_leaks(api: Simulator, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """The key stands in no repr, error, pickle or log at DEBUG; a prompt in no log of a create."""
    sdk = getattr(api, kind)(api_key=CANARY_KEY)
    caplog.set_level(logging.DEBUG)
    with Wire(sdk) as wire:
        shown = [repr(wire), repr(vars(wire))]
        for status in (400, 401, 500):
            api.faults.add(ErrorAnswer("create", status))
            created = wire.create(body_of())
            assert created.error is not None
            shown += [repr(created), _shown(created.error)]
        for how in ("reset", "html", "redirect_302"):
            api.faults.add(LostAnswer(how))
            created = wire.create(body_of())
            assert created.error is not None
            shown += [repr(created), _shown(created.error)]
        created = wire.create(body_of())
        assert created.batch is not None
        for endpoint in ("retrieve", "results"):
            api.faults.add(LostAnswer("reset", endpoint))
            with pytest.raises(anthropic.APIConnectionError) as caught:
                wire.retrieve(created.batch["id"]) if endpoint == "retrieve" else wire.results(
                    created.batch["id"], io.BytesIO()
                )
            shown.append(_shown(caught.value))
    shown += [record.getMessage() for record in caplog.records]
    shown.append(caplog.text)
    assert len(caplog.records) > 10
    assert [text[max(0, text.index(CANARY_KEY) - 200) :][:400] for text in shown if CANARY_KEY in text] == []
    assert [text[max(0, text.index(CANARY_PROMPT) - 200) :][:400] for text in shown if CANARY_PROMPT in text] == []


# -------------------------------------------------------------------- which client


def test_without_credentials_the_error_names_the_way_out() -> None:
    """Without a key nothing is sent, and the message names the variable and the simulator."""
    for call in (resolve_client, lambda: resolve_client(api_key=""), lambda: resolve_client(asynchronous=True)):
        with pytest.raises(InputError) as caught:
            call()
        assert "ANTHROPIC_API_KEY" in str(caught.value)
        assert "simulator" in str(caught.value)


def test_the_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty or absent api_key falls back to the environment; a given one wins."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "from-the-environment")
    assert resolve_client().api_key == "from-the-environment"
    assert resolve_client(api_key="").api_key == "from-the-environment"
    assert resolve_client(api_key="given").api_key == "given"


@pytest.mark.parametrize("name", ["AnthropicBedrock", "AsyncAnthropicBedrock", "AnthropicVertex", "AnthropicFoundry"])
def test_clients_without_batches_are_refused(name: str) -> None:
    """A cloud that has no Message Batches is named in the refusal."""
    stand_in = type(name, (), {"__module__": "anthropic.lib.somewhere"})()
    with pytest.raises(InputError, match="does not offer the Message Batches API"):
        resolve_client(stand_in)


@pytest.mark.parametrize("value", [CANARY_KEY, 7, object(), anthropic.Anthropic, {"api_key": CANARY_KEY}])
def test_what_is_no_client_is_refused_without_being_shown(value: Any) -> None:
    """A key passed as client= is refused, and not echoed."""
    with pytest.raises(InputError) as caught:
        resolve_client(value)
    assert CANARY_KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://api.example.com", "http://192.168.0.7:8080", "http://127.0.0.1.nip.io", "ftp://x"]
)
def test_a_key_does_not_travel_in_the_clear(url: str) -> None:
    """Plain http is for this machine only."""
    with pytest.raises(InputError, match="not encrypted"):
        resolve_client(anthropic.Anthropic(api_key="k", base_url=url))


@pytest.mark.parametrize("url", ["https://gateway.example.com/anthropic", "http://localhost:1", "http://[::1]:1"])
def test_encrypted_or_local_addresses_are_fine(url: str) -> None:
    """Any https address, and this machine, are accepted, paths included."""
    client = anthropic.Anthropic(api_key="k", base_url=url)
    assert resolve_client(client) is client
    assert Wire(client).base_url == url


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    """Userinfo would replace the key and be shown with the address."""
    with pytest.raises(InputError) as caught:
        resolve_client(anthropic.Anthropic(api_key="k", base_url="https://me:secret@api.example.com"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-canary\n", " sk-canary", "sk-canary…", "sk canary"])
def test_a_broken_key_is_refused_and_not_shown(key: str) -> None:
    """A key with a line break or a blank would be quoted by the error it causes."""
    with pytest.raises(InputError) as caught:
        resolve_client(anthropic.Anthropic(api_key=key))
    assert "canary" not in str(caught.value)


def test_a_closed_client_is_refused() -> None:
    """A closed client is told as such before anything is planned with it."""
    client = anthropic.Anthropic(api_key="k")
    client.close()
    with pytest.raises(InputError, match="closed"):
        resolve_client(client)


def test_loopback_is_judged_by_address_not_by_looks() -> None:
    """Names that merely begin like a loopback address are not one."""
    assert is_loopback("127.8.9.10")
    assert not is_loopback("localhost.example.com")
    assert not is_loopback("10.0.0.1")


def test_api_version_is_what_is_sent(api: Simulator) -> None:
    """The version the wire tells is the one the server hears, overridden or not."""
    for headers in ({}, {"Anthropic-Version": "2023-06-01"}):
        wire = Wire(api.client(default_headers=headers))
        wire.list()
        assert wire.api_version == api.requests[-1].headers["anthropic-version"]


# -------------------------------------------------------------------- loops, threads, forks


def test_an_async_client_stays_in_its_users_loop(api: Simulator) -> None:
    """The user's AsyncAnthropic works before, during and after the wire uses a copy of it elsewhere."""

    async def main() -> list[int]:
        user = anthropic.AsyncAnthropic(api_key="k", base_url=api.base_url)
        counts = [len((await user.messages.batches.list()).data)]
        wire = Wire(user)
        for _ in range(3):
            created, page = await asyncio.gather(
                asyncio.to_thread(wire.create, body_of()), user.messages.batches.list()
            )
            assert created.outcome == "created"
            assert page.data is not None
        counts.append(len((await user.messages.batches.list()).data))
        await asyncio.to_thread(wire.close)
        counts.append(len((await user.messages.batches.list()).data))
        await user.close()
        return counts

    assert asyncio.run(main()) == [0, 3, 3]


def test_the_copy_goes_the_users_way(api: Simulator) -> None:
    """Headers, credentials and the proxy of an AsyncAnthropic hold for the copy too."""
    proxied = anthropic.DefaultAsyncHttpxClient(proxy=api.base_url)
    user = anthropic.AsyncAnthropic(
        api_key="k", base_url="http://127.0.0.1:9", default_headers={"x-mine": "1"}, http_client=proxied
    )
    with Wire(user) as wire:
        assert wire.list().batches == []
    assert api.requests[-1].headers["x-mine"] == "1"
    assert api.requests[-1].headers["host"] == "127.0.0.1:9"


def test_a_copy_shares_no_connection(api: Simulator) -> None:
    """What the user's client holds open stays its own, and open, whatever the copy does."""
    http_client = anthropic.DefaultHttpxClient()
    user = api.client(http_client=http_client)
    user.messages.batches.list()
    pool = http_client._transport._pool
    held = list(pool.connections)
    twin = with_own_connections(user, why="a test")
    assert twin._client._transport._pool.connections == []
    twin.messages.batches.list()
    twin.close()
    assert held
    assert list(pool.connections) == held
    user.messages.batches.list()
    assert list(pool.connections) == held


def test_a_transport_that_cannot_be_copied_is_refused(api: Simulator) -> None:
    """Rather than another way than the user has chosen, no way is gone."""

    class Tunnel(httpx2.AsyncBaseTransport):
        pass

    user = anthropic.AsyncAnthropic(
        api_key="k", base_url=api.base_url, http_client=anthropic.DefaultAsyncHttpxClient(transport=Tunnel())
    )
    with Wire(user) as wire, pytest.raises(InputError, match="transport of its own"):
        wire.list()
    assert api.requests == []


def test_many_threads_share_one_wire(wire: Wire, api: Simulator) -> None:
    """Calls from many threads at once do not mix their answers."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: wire.create(body_of(n)), range(1, 25)))
    counts = [created.batch["request_counts"]["processing"] for created in made if created.batch is not None]
    assert counts == list(range(1, 25))


# A call that is under way when its client is closed leaves its socket to the collector of garbage.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("posted", [False, True])
@pytest.mark.parametrize("kind", ["Anthropic", "AsyncAnthropic"])
def test_a_run_outlives_its_closed_client(api: Simulator, clock: Any, kind: str, posted: bool) -> None:
    """The client of a run may be closed while it goes on (the end of a ``with`` block): it is paid once."""
    client = api.client() if kind == "Anthropic" else api.async_client()
    api.seconds_per_batch = 100.0
    with clock.held():
        run = ask(pd.DataFrame({"prompt": ["a", "b"]}), api, clock, client=client)
        if posted:
            until_batches(run, "bound")
        asyncio.run(client.close()) if kind == "AsyncAnthropic" else client.close()
    assert run.wait(timeout=3600) is run
    assert run.result()["status"].tolist() == ["succeeded"] * 2
    assert len(api.batches) == 1
    gc.collect()


def test_a_closed_client_of_a_strange_transport_is_told(api: Simulator) -> None:
    """What cannot be made again as its user made it is refused in words, and not tried for ever."""

    class Odd(httpx2.HTTPTransport):
        pass

    client = anthropic.Anthropic(api_key=CANARY_KEY, base_url=api.base_url, http_client=httpx2.Client(transport=Odd()))
    wire = Wire(client)
    client.close()
    with pytest.raises(InputError, match="whoever has closed it"):
        wire.list()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("kind", ["client", "async_client"])
def test_a_forked_child_makes_its_own_connections(api: Simulator, kind: str) -> None:
    """Parent and child can both go on over the wire that was open before the fork."""
    with Wire(getattr(api, kind)()) as wire:
        assert wire.create(body_of(1)).outcome == "created"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                os._exit(0 if wire.create(body_of(2)).outcome == "created" else 1)
            except BaseException:
                os._exit(2)
        assert wire.create(body_of(3)).outcome == "created"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert wire.create(body_of(4)).outcome == "created"
    assert sorted(batch.facts.n_requests for batch in api.batches) == [1, 2, 3, 4]


def test_an_interrupt_comes_out_at_once(api: Simulator) -> None:
    """A KeyboardInterrupt in the middle of a stream is not swallowed, and leaves the wire usable."""
    with Wire(api.async_client()) as wire:
        batch = wire.create(body_of()).batch
        assert batch is not None
        api.advance(60)

        def interrupted(block: bytes) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            wire.results(batch["id"], interrupted)
        assert wire.retrieve(batch["id"]).batch["id"] == batch["id"]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="there are no such signals here")
def test_an_interrupt_from_outside_ends_a_silent_call_within_a_second(api: Simulator) -> None:
    """Ctrl-C while the server is silent comes through at once, with either kind of client."""
    for sdk in (api.client(), api.async_client()):
        api.faults.add(LostAnswer("stall", "list", stall_s=3.0))
        with Wire(sdk) as wire:
            timer = threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
            start_s = time.monotonic()
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                wire.list()
            assert time.monotonic() - start_s < 1.3
            timer.join()
            assert wire.list().batches == []


def test_closing_leaves_nothing_open(api: Simulator) -> None:
    """After close, no thread of ours runs and no socket is left to be warned about."""
    before = threading.active_count()
    for _ in range(3):
        wire = Wire(api.async_client())
        wire.list()
        wire.close()
        wire.close()
    wire = Wire(api.async_client())
    wire.list()
    del wire
    gc.collect()
    ours = [thread for thread in threading.enumerate() if thread.name == "pandas-batch-loop"]
    assert ours == []
    assert threading.active_count() <= before + 8


def test_importing_the_wire_is_cheap() -> None:
    """The SDK is imported when a client is needed, not before."""
    code = (
        "import sys, pandas_batch.wire.wire, pandas_batch.client.client\n"
        "print('anthropic' in sys.modules, 'httpx2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
