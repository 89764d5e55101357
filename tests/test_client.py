"""The client layer: every call of it, in a thread and in a loop, over real HTTP, with everything that may go wrong."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import pickle
import re
import traceback
import tracemalloc
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandas_batch.client import bodies
from pandas_batch.client.bodies import Requests, encode_requests
from pandas_batch.client.client import AsyncBatchClient, BatchClient, arun_prompts, run_prompts
from pandas_batch.errors import (
    BatchTooLargeError,
    InputError,
    LostAnswerError,
    NotEndedError,
    ResultsGoneError,
    UnreadableAnswerError,
    WaitTimeout,
)
from pandas_batch.simulator import (
    BadResults,
    ErrorAnswer,
    ListLag,
    LostAnswer,
    Outage,
    Reply,
    RowFault,
    Simulator,
    revoked_key,
    serve,
    spend_cap,
)
from pandas_batch.types import BatchJob, BatchRequest, BatchResult, Prompt

CANARY_KEY = "sk-ant-api03-canaryKEYcanaryKEY"


class Caller:
    """One of the two classes, called the same way: coroutines are run to their end."""

    def __init__(self, client: BatchClient | AsyncBatchClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found = getattr(self.client, name)(*args, **kwargs)
            if inspect.iscoroutine(found):
                return asyncio.run(found)
            return asyncio.run(_gathered(found)) if inspect.isasyncgen(found) else found

        return call


async def _gathered(items: Any) -> list[Any]:
    return [item async for item in items]


def _make(kind: str, api: Simulator, clock: Any, **options: Any) -> BatchClient | AsyncBatchClient:
    cls, sdk = {
        "sync": (BatchClient, api.client),
        "async": (AsyncBatchClient, api.async_client),
        "sync over async": (BatchClient, api.async_client),
        "async over sync": (AsyncBatchClient, api.client),
    }[kind]
    return cls(client=sdk(), clock=clock, **options)


KINDS = ["sync", "async", "sync over async", "async over sync"]


@pytest.fixture(params=KINDS)
def caller(request: pytest.FixtureRequest, api: Simulator, clock: Any) -> Any:
    """Each of the four ways to have a client."""
    made = _make(request.param, api, clock)
    yield Caller(made)
    if isinstance(made, BatchClient):
        made.close()


@pytest.fixture(params=["sync", "async"])
def either(request: pytest.FixtureRequest, api: Simulator, clock: Any) -> Any:
    """The two plain ways, where the four would tell nothing more."""
    made = _make(request.param, api, clock)
    yield Caller(made)
    if isinstance(made, BatchClient):
        made.close()


def tasks(n: int, start: int = 0) -> list[BatchRequest]:
    return [BatchRequest(f"r{i}", f"prompt {i}") for i in range(start, start + n)]


def answered(results: Sequence[BatchResult], n: int) -> bool:
    """Return whether there are n results, in order, each with the answer to its own prompt."""
    return [(r.custom_id, r.output) for r in results] == [(f"r{i}", f"prompt {i}") for i in range(n)]


# -------------------------------------------------------------------- each call


def test_submit_returns_at_once(caller: Any, api: Simulator, clock: Any) -> None:
    """A submitted batch is told as the server describes it, without a wait."""
    job = caller.submit(tasks(3))
    assert isinstance(job, BatchJob)
    assert (job.status, job.n_requests, job.is_complete) == ("in_progress", 3, False)
    assert job.created_at == clock.now()
    assert job.expires_at is not None
    assert (job.expires_at - job.created_at).total_seconds() == 86_400
    assert job.ended_at is None
    assert clock.waited_s == []
    assert job.to_dict()["batch_id"] == api.batches[0].id


def test_status_follows_a_batch_to_its_end(caller: Any, clock: Any) -> None:
    """in_progress, then ended, with times and counts."""
    job = caller.submit(tasks(2))
    assert caller.status(job.batch_id).status == "in_progress"
    clock.advance(60)
    ended = caller.status(job.batch_id)
    assert (ended.status, ended.is_complete, ended.request_counts["succeeded"]) == ("ended", True, 2)
    assert ended.ended_at is not None
    assert ended.ended_at.tzinfo is not None


def test_results_only_when_ended(caller: Any, clock: Any) -> None:
    """Before the end there is an error that names the wait; after it, all results."""
    job = caller.submit(tasks(5))
    for call in (caller.results, lambda batch_id: list(caller.iter_results(batch_id))):
        with pytest.raises(NotEndedError) as caught:
            call(job.batch_id)
        assert isinstance(caught.value, RuntimeError)
        assert f'client.wait("{job.batch_id}")' in str(caught.value)
    clock.advance(60)
    results = caller.results(job.batch_id)
    assert answered(sorted(results, key=lambda r: r.custom_id), 5)
    assert results == list(caller.iter_results(job.batch_id))
    result = results[0]
    assert result.succeeded
    assert result.ok
    assert result.tokens == result.input_tokens + result.output_tokens > 0
    assert result.cost_usd is not None
    assert result.cost_usd > 0
    assert result.message is not None
    assert result.message["usage"]["service_tier"] == "batch"
    assert result.to_dict()["succeeded"] is True


def test_wait_grows_its_pauses_and_obeys_the_server(clock: Any) -> None:
    """Pauses begin at 2 s, at least what retry-after asks (10), and never go above a minute and its jitter."""
    with (
        serve(clock=clock.time_s, seconds_per_batch=3000) as api,
        BatchClient(client=api.client(), clock=clock) as client,
    ):
        job = client.submit(tasks(2))
        assert len(client.wait(job.batch_id)) == 2
    assert min(clock.waited_s) >= 10
    assert 54 <= clock.waited_s[-2] <= 66
    assert max(clock.waited_s) <= 66
    assert len(clock.waited_s) < 100


def test_a_given_interval_wins_over_the_wish_of_a_200_not_of_a_429(either: Any, api: Simulator, clock: Any) -> None:
    """poll_interval=0.5 polls every half second; a 429 that asks for 90 s gets them."""
    job = either.submit(tasks(1))
    api.faults.add(ErrorAnswer("retrieve", 429, retry_after="90", skip=2))
    either.wait(job.batch_id, poll_interval=0.5)
    assert clock.waited_s == [0.5, 0.5, 90.0]


def test_wait_times_out_with_the_batch_in_hand(caller: Any, api: Simulator, clock: Any) -> None:
    """After the timeout the error carries the batch, which goes on and can be waited for again."""
    job = caller.submit(tasks(2))
    api.faults.add(Outage(until_s=clock.time_s() + 500, endpoint="retrieve", from_s=clock.time_s() + 1))
    start = clock.now()
    with pytest.raises(WaitTimeout) as caught:
        caller.wait(job.batch_id, timeout=100)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.run.batch_id == job.batch_id
    assert (clock.now() - start).total_seconds() == 100
    assert f'client.wait("{job.batch_id}")' in str(caught.value)
    assert len(caller.wait(job.batch_id)) == 2


def test_timeout_zero_looks_once(either: Any, clock: Any) -> None:
    """With timeout=0 a batch that has ended is returned and one that has not is a timeout."""
    job = either.submit(tasks(1))
    with pytest.raises(WaitTimeout):
        either.wait(job.batch_id, timeout=0)
    clock.advance(60)
    assert len(either.wait(job.batch_id, timeout=0)) == 1


def test_run_keeps_the_order_of_the_requests(caller: Any) -> None:
    """Results come in the order of the requests, whatever the server's."""
    assert answered(caller.run(tasks(50)), 50)
    assert caller.run([]) == []


def test_cancel_list_delete(caller: Any, api: Simulator, clock: Any) -> None:
    """Cancel tells whether it came in time; what was canceled ends as canceled; delete takes only what has ended."""
    first = caller.submit(tasks(2))
    clock.advance(1)
    second = caller.submit(tasks(3))
    assert [job.batch_id for job in caller.list()] == [second.batch_id, first.batch_id]
    assert [job.batch_id for job in caller.list(limit=1)] == [second.batch_id]
    with pytest.raises(NotEndedError):
        caller.delete(second.batch_id)
    assert caller.cancel(second.batch_id) is True
    assert caller.cancel(second.batch_id) is True
    assert caller.status(second.batch_id).status == "canceling"
    clock.advance(60)
    ended = caller.status(second.batch_id)
    assert (ended.status, ended.is_complete) == ("canceled", True)
    assert {r.status for r in caller.results(second.batch_id)} == {"canceled"}
    assert caller.cancel(first.batch_id) is False
    caller.delete(second.batch_id)
    assert [job.batch_id for job in caller.list()] == [first.batch_id]
    for call in (caller.status, caller.results, caller.cancel, caller.delete):
        with pytest.raises(anthropic.NotFoundError) as told:
            call(second.batch_id)
        assert [note for note in told.value.__notes__ if "client.list()" in note] == told.value.__notes__


def test_list_reads_as_many_pages_as_it_takes(either: Any, api: Simulator) -> None:
    """More than a page holds is read page by page."""
    for _ in range(1203):
        api.add_decoy(1)
    assert len({job.batch_id for job in either.list(1101)}) == 1101
    assert len(either.list(5000)) == 1203
    with pytest.raises(InputError):
        either.list(0)


def test_both_classes_have_the_same_calls() -> None:
    """AsyncBatchClient has every call of BatchClient, with the same parameters."""
    names = [name for name, value in vars(BatchClient).items() if inspect.isfunction(value) and name[0] != "_"]
    assert len(names) == 10
    for name in names:
        one, other = (inspect.signature(getattr(cls, name)) for cls in (BatchClient, AsyncBatchClient))
        assert list(one.parameters.values()) == list(other.parameters.values()), name
    assert inspect.signature(BatchClient).parameters == inspect.signature(AsyncBatchClient).parameters
    assert inspect.signature(run_prompts).parameters == inspect.signature(arun_prompts).parameters


# -------------------------------------------------------------------- rows


ROWS: list[tuple[str, str, str | None, bool]] = [
    ("errored", "errored", "invalid_request_error", False),
    ("overloaded", "errored", "overloaded_error", False),
    ("api_error", "errored", "api_error", False),
    ("expired", "expired", "expired", False),
    ("canceled", "canceled", "canceled", False),
    ("refused", "succeeded", None, True),
    ("refused_early", "succeeded", None, True),
    ("truncated", "succeeded", None, True),
    ("paused", "succeeded", None, True),
    ("no_text", "succeeded", None, True),
]


@pytest.mark.parametrize(("outcome", "status", "error", "succeeded"), ROWS)
def test_every_outcome_of_a_row_is_told(
    either: Any, api: Simulator, outcome: Any, status: str, error: str | None, succeeded: bool
) -> None:
    """A row that was not answered has its reason, costs nothing, and takes no other row with it."""
    api.faults.add(RowFault(outcome, marker="prompt 1"))
    results = either.run(tasks(3))
    assert [r.succeeded for r in results] == [True, succeeded, True]
    row = results[1]
    assert row.status == status
    if error is None:
        assert row.error is None
        assert row.stop_reason is not None
    else:
        assert row.error is not None
        assert row.error.startswith(error)
        assert (row.output, row.tokens, row.cost_usd) == ("", 0, 0)
    assert (results[0].output, results[2].output) == ("prompt 0", "prompt 2")


def test_a_batch_that_expires_is_no_exception(clock: Any) -> None:
    """After 24 hours unanswered rows are expired, at no cost."""
    with (
        serve(clock=clock.time_s, seconds_per_batch=1e6) as api,
        BatchClient(client=api.client(), clock=clock) as client,
    ):
        results = client.run(tasks(3), timeout=None)
    assert [(r.status, r.cost_usd) for r in results] == [("expired", 0.0)] * 3


# -------------------------------------------------------------------- what stands in for what


def test_the_client_fills_in_what_a_request_leaves_out(clock: Any) -> None:
    """Model, system and max_tokens come from the request, else from the call, else from the client."""
    seen: list[dict[str, Any]] = []

    def answer(params: dict[str, Any]) -> str:
        seen.append(params)
        return "x"

    requests = [
        BatchRequest("a", "p"),
        BatchRequest(
            "b", "p", model="claude-sonnet-4-5", system="mine", max_tokens=7, params={"stop_sequences": ["!"]}
        ),
        BatchRequest(
            "c",
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}],
        ),
    ]
    defaults: dict[str, Any] = {"model": "claude-opus-4-5", "system": Prompt(role="judge"), "max_tokens": 99}
    with serve(answer, clock=clock.time_s) as api, BatchClient(**defaults, client=api.client(), clock=clock) as client:
        client.run(requests)
        client.run(requests[:1], system="the call's")
    by_prompt = {str(params["messages"]) + str(params["model"]) + str(params["system"]): params for params in seen}
    assert len(by_prompt) == 4
    first = next(p for p in seen if p["model"] == "claude-opus-4-5" and p["system"] == "Role: judge")
    assert first["max_tokens"] == 99
    second = next(p for p in seen if p["model"] == "claude-sonnet-4-5")
    assert (second["system"], second["max_tokens"], second["stop_sequences"]) == ("mine", 7, ["!"])
    assert any(p["system"] == "the call's" for p in seen)
    assert any(len(p["messages"]) == 3 for p in seen)


def test_run_prompts_is_one_call(quick_looks: None) -> None:
    """Texts in, results in the same order out, under ids task-{i}-{hex}; with both kinds of function."""
    with serve(seconds_per_batch=0) as api:
        prompts = [f"p{i}" for i in range(20)]
        for results in (
            run_prompts(prompts, client=api.client()),
            asyncio.run(arun_prompts(prompts, client=api.async_client())),
        ):
            assert [r.output for r in results] == prompts
            assert all(re.fullmatch(rf"task-{i}-[0-9a-f]{{8}}", r.custom_id) for i, r in enumerate(results))
        assert run_prompts([], client=api.client()) == []


def test_run_prompts_takes_its_key_from_the_environment(quick_looks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """api_key="" and None mean the environment, for both kinds, in one loop after the other."""
    with serve(seconds_per_batch=0) as api:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.base_url)
        assert run_prompts(["a"], api_key="")[0].output == "a"
        assert asyncio.run(arun_prompts(["a"], api_key=""))[0].output == "a"
        client = AsyncBatchClient(api_key=None)
        for _ in range(2):
            assert asyncio.run(client.run(tasks(1), poll_interval=0.01))[0].output == "prompt 0"
        with BatchClient() as blocking:
            assert blocking.list()


@pytest.mark.parametrize("prompts", ["one text", b"bytes", {"a": "b"}, ["a", None], ["a", 7], ["a", ["b"]]])
def test_prompts_that_are_no_texts_are_refused(api: Simulator, prompts: Any) -> None:
    """A text in place of a list, or something else among the texts, is told before anything is sent."""
    with pytest.raises(InputError):
        run_prompts(prompts, client=api.client())
    with pytest.raises(InputError):
        asyncio.run(arun_prompts(prompts, client=api.async_client()))
    assert api.requests == []


# -------------------------------------------------------------------- mistakes, before anything is sent


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([], "no requests"),
        ("text", "not a list"),
        (BatchRequest("a", "p"), "not a list"),
        ([{"custom_id": "a"}], "NoneType"),
        ([BatchRequest("", "p")], "custom_id=''"),
        ([BatchRequest("a b", "p")], "custom_id='a b'"),
        ([BatchRequest("a" * 65, "p")], "1 to 64"),
        ([BatchRequest("ä", "p")], "1 to 64"),
        ([BatchRequest("a\n", "p")], "1 to 64"),
        ([BatchRequest(7, "p")], "custom_id=7"),
        ([BatchRequest("a", "p"), BatchRequest("b", "p"), BatchRequest("a", "q")], r"requests\[0\] and requests\[2\]"),
        ([BatchRequest("a", None)], "NoneType"),
        ([BatchRequest("a", b"x")], "bytes"),
        ([BatchRequest("a", [{"x": 1}])], "neither content blocks"),
        ([BatchRequest("a", "secretprompt \ud83d")], "surrogate"),
        ([BatchRequest("a", "p", params={"extra_params": {"x": float("nan")}})], "NaN"),
        ([BatchRequest("a", "p", params={"extra_params": {"x": {1, 2}}})], "set"),
    ],
)
def test_wrong_requests_are_told_before_anything_is_sent(
    either: Any, api: Simulator, requests: Any, words: str
) -> None:
    """The message names the request and its id, never its prompt; nothing goes out."""
    with pytest.raises(InputError, match=words) as caught:
        either.submit(requests)
    assert "secretprompt" not in str(caught.value)
    assert "Nothing was sent" in str(caught.value)
    if requests != []:
        with pytest.raises(InputError, match=words):
            either.run(requests)
    assert api.requests == []


@pytest.mark.parametrize(
    "times",
    [{"poll_interval": 0}, {"poll_interval": -1}, {"poll_interval": "5"}, {"timeout": -1}, {"timeout": float("nan")}],
)
def test_wrong_times_are_told_before_anything_is_sent(either: Any, api: Simulator, times: Any) -> None:
    """A poll interval or timeout that is none is refused."""
    with pytest.raises(InputError):
        either.run(tasks(1), **times)
    with pytest.raises(InputError):
        either.wait("msgbatch_1", **times)
    assert api.requests == []


@pytest.mark.parametrize("most", [1_000, pytest.param(100_000, marks=pytest.mark.full)])
def test_one_request_too_many_is_refused_by_submit_and_split_by_run(
    api: Simulator, clock: Any, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """100,001 requests: submit says that they are 1 too many; run makes two batches and keeps the order."""
    assert bodies.MAX_BATCH_REQUESTS == 100_000
    monkeypatch.setattr(bodies, "MAX_BATCH_REQUESTS", most)
    monkeypatch.setitem(Requests.split.__kwdefaults__, "most", most)
    many = [BatchRequest(f"r{i}", "p") for i in range(most + 1)]
    with BatchClient(client=api.client(), clock=clock) as client:
        with pytest.raises(BatchTooLargeError, match=f"{most + 1:,} requests are 1 more"):
            client.submit(many)
        assert api.requests == []
        results = client.run(many)
    assert [result.custom_id for result in results] == [request.custom_id for request in many]
    assert all(result.succeeded for result in results)
    assert sorted(batch.facts.n_requests for batch in api.batches) == [1, most]


def test_bytes_are_limited_too(either: Any, api: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many bytes are refused by submit, with by how much, and split by run; one giant is refused by both."""
    monkeypatch.setattr(bodies, "MAX_BATCH_BYTES", 10_000)
    monkeypatch.setattr(bodies, "SPLIT_BYTES", 9_000)
    requests = [BatchRequest(f"r{i}", f"prompt {i}" + " " * 1000) for i in range(20)]
    n_bytes = encode_requests(requests, model="claude-haiku-4-5-20251001", system=None, max_tokens=1024).n_bytes
    with pytest.raises(BatchTooLargeError, match=f"{n_bytes:,} bytes of requests are {n_bytes - 10_000:,} more"):
        either.submit(requests)
    assert api.requests == []
    assert len(either.run(requests)) == 20
    assert len(api.batches) == 3
    assert all(call.n_bytes <= 9_000 for call in api.requests if call.endpoint == "create")
    with pytest.raises(BatchTooLargeError, match="'giant' alone"):
        either.run([*requests, BatchRequest("giant", "x" * 20_000)])
    assert len(api.batches) == 3


@given(st.lists(st.binary(min_size=2, max_size=60), max_size=60), st.integers(1, 10), st.integers(20, 200))
def test_split_loses_nothing_and_fits(lines: list[bytes], most: int, most_bytes: int) -> None:
    """The parts are the whole, in order; each fits, or is one request that cannot; the length is exact."""
    whole = Requests([f"r{i}" for i in range(len(lines))], lines)
    parts = whole.split(most=most, most_bytes=most_bytes)
    assert [line for part in parts for line in part.lines] == lines
    assert [custom_id for part in parts for custom_id in part.custom_ids] == list(whole.custom_ids)
    for part in parts:
        assert part.n_bytes == part.body().n_bytes == len(b"".join(part.body()))
        assert 1 <= len(part) <= most
        assert part.n_bytes <= most_bytes or len(part) == 1


# -------------------------------------------------------------------- failing polls


@pytest.mark.parametrize("status", [408, 429, 500, 503, 529])
def test_run_survives_failing_polls(either: Any, api: Simulator, status: int) -> None:
    """Passing errors of polls, lists and downloads cost time and nothing else."""
    for endpoint in ("retrieve", "results", "list"):
        api.faults.add(ErrorAnswer(endpoint, status, times=4))
    assert answered(either.run(tasks(3)), 3)
    assert len(api.batches) == 1


def test_run_survives_an_outage_of_hours(either: Any, api: Simulator, clock: Any) -> None:
    """Ten hours without an answer to a poll end well, without a second batch."""
    start_s = clock.time_s()
    api.faults.add(Outage(from_s=start_s + 1, until_s=start_s + 36_000))
    assert answered(either.run(tasks(3)), 3)
    assert len(api.batches) == 1
    assert len(clock.waited_s) < 1000


def test_a_portal_in_between_is_waited_out(either: Any, api: Simulator) -> None:
    """Pages and redirects in place of polls and results are no answers."""
    for how in ("html", "redirect_302", "empty_object", "bad_json"):
        api.faults.add(LostAnswer(how, "retrieve"))
    api.faults.add(LostAnswer("html", "results"))
    assert answered(either.run(tasks(3)), 3)


def test_a_404_passes(either: Any, api: Simulator) -> None:
    """404s after the create, in the middle and at the download are waited out."""
    api.faults.add(ErrorAnswer("retrieve", 404, times=3))
    api.faults.add(ErrorAnswer("results", 404, times=2))
    assert answered(either.run(tasks(3)), 3)


def test_a_404_is_not_believed_while_the_list_knows_better(either: Any, api: Simulator, clock: Any) -> None:
    """Half an hour of 404s end in results when the list still shows the batch."""
    api.faults.add(ErrorAnswer("retrieve", 404, times=None))
    assert answered(either.run(tasks(3)), 3)
    assert 600 <= sum(clock.waited_s) < 1200


def test_a_deleted_batch_is_gone_after_ten_minutes(either: Any, api: Simulator, clock: Any) -> None:
    """A batch that neither retrieve nor list knows is told as gone, after the patience and not before."""
    job = either.submit(tasks(2))
    api.remove(job.batch_id)
    with pytest.raises(ResultsGoneError):
        either.wait(job.batch_id)
    assert 600 <= sum(clock.waited_s) < 700


def test_results_that_were_archived_are_gone(either: Any, clock: Any) -> None:
    """29 days later the error says so, with the date."""
    job = either.submit(tasks(2))
    clock.advance(30 * 86_400)
    with pytest.raises(ResultsGoneError, match="2026-12-22"):
        either.results(job.batch_id)


def test_a_revoked_key_stops_the_wait_and_names_the_batch(either: Any, api: Simulator) -> None:
    """A 401 in the middle is raised at once, with a note on what goes on."""
    job = either.submit(tasks(2))
    api.faults.add(revoked_key())
    with pytest.raises(anthropic.AuthenticationError) as caught:
        either.wait(job.batch_id)
    assert job.batch_id in "".join(caught.value.__notes__)


def test_status_and_list_are_patient_but_not_for_long(either: Any, api: Simulator, clock: Any) -> None:
    """A few failures are waited out; a lasting one is the SDK's error, after seconds."""
    job = either.submit(tasks(1))
    api.faults.add(ErrorAnswer("retrieve", 529, times=3))
    assert either.status(job.batch_id).n_requests == 1
    api.faults.add(ErrorAnswer("*", 529, times=None))
    for call in (lambda: either.status(job.batch_id), either.list, lambda: either.results(job.batch_id)):
        with pytest.raises(anthropic.InternalServerError):
            call()
    assert sum(clock.waited_s) < 60


# -------------------------------------------------------------------- lost creates

LOSSES = ["reset", "close", "cut", "html", "empty_object", "bad_json", "redirect_302", "redirect_307"]


@pytest.mark.parametrize("how", LOSSES)
def test_a_lost_answer_is_found_again_by_run(either: Any, api: Simulator, how: Any) -> None:
    """Whatever became of the answer, the batch is found among others of its size, and not made twice."""
    api.add_decoy(3)
    api.faults.add(LostAnswer(how))
    for _ in range(2):
        api.add_decoy(3)
    assert answered(either.run(tasks(3)), 3)
    assert sum(not batch.facts.decoy for batch in api.batches) == 1
    assert api.calls("create") == 1


@pytest.mark.parametrize("status", [408, 409, 500, 504, 529])
def test_an_error_after_the_commit_is_found_again_by_run(either: Any, api: Simulator, status: int) -> None:
    """An error status is no proof that there is no batch."""
    api.faults.add(ErrorAnswer("create", status, committed=True))
    assert answered(either.run(tasks(3)), 3)
    assert len(api.batches) == 1


def test_nothing_found_is_posted_again_after_the_grace(either: Any, api: Simulator, clock: Any) -> None:
    """A create that never arrived is made again, but not before ten minutes of looking."""
    api.faults.add(LostAnswer("reset", committed=False))
    assert answered(either.run(tasks(3)), 3)
    assert api.calls("create") == 2
    creates = [call.at_s for call in api.requests if call.endpoint == "create"]
    assert creates[1] - creates[0] >= 600
    assert len(api.batches) == 1


@pytest.mark.parametrize("fault", [LostAnswer("reset", late_s=300), ListLag(300)])
def test_a_batch_that_shows_up_late_is_awaited(either: Any, api: Simulator, fault: Any) -> None:
    """A batch that is committed, or listed, within the grace is found and not made twice."""
    api.faults.add(
        type(fault)(**({"how": "reset", "late_s": 300} if isinstance(fault, LostAnswer) else {"seconds": 300}))
    )
    if isinstance(fault, ListLag):
        api.faults.add(LostAnswer("reset"))
    assert answered(either.run(tasks(3)), 3)
    assert len(api.batches) == 1


def test_the_grace_is_the_users(api: Simulator, clock: Any) -> None:
    """lost_answer_grace decides how long is looked."""
    api.faults.add(LostAnswer("reset", committed=False))
    with BatchClient(client=api.client(), clock=clock, lost_answer_grace=30) as client:
        assert answered(client.run(tasks(3)), 3)
    creates = [call.at_s for call in api.requests if call.endpoint == "create"]
    assert 30 <= creates[1] - creates[0] < 60


@pytest.mark.parametrize("status", [400, 403, 404, 413])
@pytest.mark.parametrize("committed", [True, False])
def test_a_refusal_that_is_not_the_apis_is_doubted(api: Simulator, clock: Any, status: int, committed: bool) -> None:
    """A page in the API's place refuses nothing: `run` looks for its batch, `submit` says what answered."""
    page = {"body": "<html>Company filter</html>", "content_type": "text/html", "committed": committed}
    api.faults.add(ErrorAnswer("create", status, **page))
    with BatchClient(client=api.client(), clock=clock) as client:
        results = client.run([BatchRequest("a", "one"), BatchRequest("b", "two")])
        assert [result.ok for result in results] == [True, True]
        assert len(api.batches) == 1
        api.faults.add(ErrorAnswer("create", status, **page))
        with pytest.raises(LostAnswerError, match="Company filter"):
            client.submit([BatchRequest("c", "three")])


def test_what_answers_every_create_is_named(api: Simulator, clock: Any) -> None:
    """After three answers of something else `run` stops and quotes it."""
    page = {"body": "<html>Company filter</html>", "content_type": "text/html"}
    api.faults.add(ErrorAnswer("create", 403, times=None, **page))
    with (
        BatchClient(client=api.client(), clock=clock) as client,
        pytest.raises(UnreadableAnswerError, match="Company filter"),
    ):
        client.run([BatchRequest("a", "one")])
    assert api.calls("create") == 3


@pytest.mark.parametrize(
    "fault",
    [
        ErrorAnswer("create", 429, times=None),
        ErrorAnswer("list", 200, times=None, body="<html>Company filter</html>", content_type="text/html"),
        LostAnswer("reset", "list", times=None),
    ],
    ids=["429 for ever", "a list that is a page", "a list that breaks off"],
)
def test_the_timeout_holds_before_anything_is_posted(api: Simulator, clock: Any, fault: Any) -> None:
    """`run` gives up after its timeout also where the server takes nothing, and says that nothing was billed."""
    api.faults.add(fault)
    started_s = clock.monotonic_s()
    with BatchClient(client=api.client(), clock=clock) as client:
        if "filter" in str(fault):
            assert client.run([BatchRequest("a", "one")], timeout=60)[0].ok
            return
        with pytest.raises(WaitTimeout) as told:
            client.run([BatchRequest("a", "one")], timeout=60)
    assert clock.monotonic_s() - started_s <= 60
    words = str(told.value) + " ".join(getattr(told.value, "__notes__", ()))
    assert "nothing was billed" in words
    assert "may have been made" not in words


def test_the_timeout_before_the_last_post_sends_nobody_to_pay_twice(
    api: Simulator, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a part of the requests is there, or may be, the line to type is not the one that posts them all again."""
    monkeypatch.setattr(bodies, "SPLIT_BYTES", 700)
    api.faults.add(ErrorAnswer("create", 429, times=None, skip=1))
    with BatchClient(client=api.client(), clock=clock) as client, pytest.raises(WaitTimeout) as told:
        client.run([BatchRequest(name, name * 500) for name in "ab"], timeout=60)
    (batch,) = api.batches
    assert told.value.hint == f'client.wait("{batch.id}")'
    assert "That made no batch of them" in told.value.state


def test_the_timeout_of_a_lost_batch_that_is_posted_again_says_where_to_look(api: Simulator, clock: Any) -> None:
    """The first POST may have made one after all."""
    api.faults.add(ErrorAnswer("create", 500))
    api.faults.add(ErrorAnswer("create", 429, times=None))
    with BatchClient(client=api.client(), clock=clock) as client, pytest.raises(WaitTimeout) as told:
        client.run([BatchRequest("a", "one")], timeout=1_000)
    assert "could not be posted" in told.value.what
    assert told.value.hint.startswith("client.list()")
    assert "may have been made" in " ".join(told.value.__notes__)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_create_is_not_called_one_that_may_have_been_made(api: Simulator, clock: Any, status: int) -> None:
    """The API's own refusal is certain: no note sends the user to look for a batch."""
    api.faults.add(ErrorAnswer("create", status))
    with BatchClient(client=api.client(), clock=clock) as client, pytest.raises(anthropic.APIStatusError) as told:
        client.run([BatchRequest("a", "one")])
    assert "may have been made" not in " ".join(told.value.__notes__)


@pytest.mark.parametrize("status", [403, 404, 405])
def test_a_list_that_is_refused_hinders_no_run_of_which_nothing_is_lost(
    api: Simulator, clock: Any, status: int
) -> None:
    """The list is needed where an answer was lost: then the error names it, and before that `run` goes on without."""
    api.faults.add(ErrorAnswer("list", status, times=None))
    with BatchClient(client=api.client(), clock=clock) as client:
        assert client.run([BatchRequest("a", "one")])[0].ok
        api.faults.add(LostAnswer("reset"))
        with pytest.raises(anthropic.APIStatusError) as told:
            client.run([BatchRequest("b", "two")])
    assert "listing batches was refused" in " ".join(told.value.__notes__)
    assert api.calls("create") == 2


@pytest.mark.parametrize("cls", [BatchClient, AsyncBatchClient])
def test_a_client_that_is_sent_to_another_process_says_what_to_send(api: Simulator, cls: Any) -> None:
    """Connections and keys stay where they are; the error names what can be sent. A copy is the same client."""
    client = cls(client=api.client())
    with pytest.raises(TypeError, match="make one there, and send the batch_id"):
        pickle.dumps(client)
    assert copy.copy(client) is copy.deepcopy(client) is client


def test_a_candidate_without_results_is_never_a_strangers(api: Simulator, clock: Any) -> None:
    """Results that answer 404 for a while hide whose batch it is: nothing is posted again meanwhile."""
    api.faults.add(LostAnswer("reset"))
    api.faults.add(ErrorAnswer("results", 404, times=30))
    with BatchClient(client=api.client(), clock=clock) as client:
        assert client.run([BatchRequest("a", "one")])[0].ok
    assert len(api.batches) == 1


def test_two_lost_parts_find_their_own_batches(either: Any, api: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of the same size whose answers were both lost are told apart by their ids."""
    monkeypatch.setattr(bodies, "SPLIT_BYTES", 700)
    api.faults.add(LostAnswer("reset", times=2))
    n = 12
    assert answered(either.run(tasks(n)), n)
    assert api.calls("create") == len(api.batches) > 2


@pytest.mark.parametrize("is_own", [True, False])
def test_a_batch_of_the_same_ids_made_before_is_not_taken(either: Any, api: Simulator, is_own: bool) -> None:
    """What was there before the POST, be it of another call of this client or of another program, is never adopted."""
    other = either if is_own else Caller(BatchClient(client=api.client()))
    mine = other.submit(tasks(3))
    api.faults.add(LostAnswer("reset", committed=False))
    results = either.run(tasks(3))
    assert answered(results, 3)
    assert len(api.batches) == 2
    assert mine.batch_id in {batch.id for batch in api.batches}


def test_a_batch_that_shares_only_some_ids_is_not_taken(
    api: Simulator, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's batch of the same size that was made meanwhile is not ours, even where some ids are the same."""
    theirs = [*tasks(2), BatchRequest("theirs", "prompt 2")]
    wait = clock.wait

    def meanwhile(*args: Any) -> bool:
        if not api.batches:
            api.client().messages.batches.create(requests=[one.to_api_request() for one in theirs])
        return wait(*args)

    monkeypatch.setattr(clock, "wait", meanwhile)
    api.faults.add(LostAnswer("reset", committed=False))
    with BatchClient(client=api.client(), clock=clock) as client:
        assert answered(client.run(tasks(3)), 3)
    assert len(api.batches) == 2


def test_an_unreadable_list_before_the_post_falls_back_on_the_clock(either: Any, api: Simulator) -> None:
    """Where the newest batch cannot be had, the server's time stands in, and a lost batch is found all the same."""
    api.faults.add(ErrorAnswer("list", 500, times=5))
    api.faults.add(LostAnswer("reset"))
    assert answered(either.run(tasks(3)), 3)
    assert len(api.batches) == 1


def test_a_lost_answer_of_submit_says_what_to_look_for(either: Any, api: Simulator, clock: Any) -> None:
    """submit posts once and tells when, how many requests, and the line that finds the batch."""
    api.faults.add(LostAnswer("reset"))
    with pytest.raises(LostAnswerError) as caught:
        either.submit(tasks(7))
    error = caught.value
    assert error.n_requests == 7
    assert error.posted_at == clock.now().astimezone(UTC)
    assert "job.n_requests == 7" in error.hint
    assert "2026-11-23 08:00:00 UTC" in error.hint
    assert api.calls("create") == 1
    assert next(job for job in either.list(100) if job.n_requests == 7).batch_id == api.batches[0].id


# -------------------------------------------------------------------- refused creates


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (402, getattr(anthropic, "PaymentRequiredError", anthropic.APIStatusError)),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (422, anthropic.UnprocessableEntityError),
    ],
)
def test_a_refused_create_is_the_sdks_error_with_a_note(
    either: Any, api: Simulator, status: int, kind: type[Exception]
) -> None:
    """Nothing was made and nothing billed, and the error says so."""
    for call in (either.submit, either.run):
        api.faults.add(ErrorAnswer("create", status))
        with pytest.raises(kind) as caught:
            call(tasks(2))
        assert "nothing was billed" in "".join(caught.value.__notes__)
    assert api.batches == []


def test_a_spend_cap_is_not_waited_for(either: Any, api: Simulator, clock: Any) -> None:
    """The 429 of a spend limit is raised at once."""
    api.faults.add(spend_cap())
    with pytest.raises(anthropic.RateLimitError) as caught:
        either.run(tasks(2))
    assert "spend limit" in "".join(caught.value.__notes__)
    assert api.calls("create") == 1
    assert clock.waited_s == []


def test_a_rate_limit_is_waited_for(either: Any, api: Simulator, clock: Any) -> None:
    """A plain 429 is posted again when it asks, by submit and by run."""
    api.faults.add(ErrorAnswer("create", 429, retry_after="20"))
    assert either.submit(tasks(2)).n_requests == 2
    assert sum(clock.waited_s) == 20
    api.faults.add(ErrorAnswer("create", 429, retry_after="86400", times=5))
    assert answered(either.run(tasks(2)), 2)
    assert max(clock.waited_s) <= 300


def test_a_server_that_is_not_there_is_tried_again_and_then_told(clock: Any) -> None:
    """A connection that fails before anything is sent is tried for a while; then the error comes with a note."""
    client = BatchClient(client=anthropic.Anthropic(api_key="k", base_url="http://127.0.0.1:9"), clock=clock)
    with pytest.raises(anthropic.APIConnectionError) as caught:
        client.submit(tasks(1))
    assert "nothing was billed" in "".join(caught.value.__notes__)
    assert 10 < sum(clock.waited_s) <= 30
    with pytest.raises(anthropic.APIConnectionError):
        client.run(tasks(1))


def test_a_batch_that_is_too_large_for_the_server_is_halved_by_run(clock: Any) -> None:
    """A 413 makes nothing; run goes on with halves, submit tells."""
    with serve(clock=clock.time_s, max_bytes=1000) as api, BatchClient(client=api.client(), clock=clock) as client:
        with pytest.raises(anthropic.ContentTooLargeError) as caught:
            client.submit(tasks(20))
        assert "nothing was billed" in "".join(caught.value.__notes__)
        assert answered(client.run(tasks(20)), 20)
        assert len(api.batches) == 4
        with pytest.raises(anthropic.ContentTooLargeError):
            client.run([BatchRequest("a", "x" * 2000)])


# -------------------------------------------------------------------- results that are not what they should be


@pytest.mark.parametrize(
    "fault",
    [
        BadResults("cut", at_byte=1000, times=2),
        BadResults("cut", n_rows=5, polite=True),
        BadResults("cut", at_byte=1501, polite=True, framing="close"),
        BadResults("cut", at_byte=3000, reset=True),
        BadResults("missing", n_rows=2),
        BadResults("doubled", n_rows=3, times=None),
        BadResults("doubled_differently", n_rows=2),
        BadResults("junk", n_rows=2, times=None),
        BadResults("junk", n_rows=2, text="[1]", times=None),
        BadResults("blank", n_rows=2, times=None),
        BadResults("crlf", times=None),
        BadResults("bom", times=None),
        BadResults("empty"),
    ],
    ids=lambda fault: f"{fault.damage}-{fault.framing}-{fault.polite}",
)
def test_broken_downloads_end_whole(either: Any, api: Simulator, fault: Any) -> None:
    """Cut, short, doubled and dirty downloads are made again until each row is there once."""
    fresh = {name: value for name, value in vars(fault).items() if name[0] != "_" and name != "hits"}
    api.faults.add(BadResults(**fresh))
    assert answered(either.run(tasks(10)), 10)
    batch_id = api.batches[0].id
    api.faults.clear()
    api.faults.add(BadResults(**fresh))
    found = list(either.iter_results(batch_id))
    assert answered(sorted(found, key=lambda r: int(r.custom_id[1:])), 10)


def test_what_the_server_never_tells_is_missing(either: Any, api: Simulator) -> None:
    """A row without a line comes as missing from run, with unknown cost; results warns."""
    api.faults.add(BadResults("missing", n_rows=1, times=None))
    with pytest.warns(RuntimeWarning, match="1 results have no line"):
        results = either.run(tasks(10))
    assert [r.custom_id for r in results] == [f"r{i}" for i in range(10)]
    missing = [r for r in results if r.status == "missing"]
    assert len(missing) == 1
    assert (missing[0].succeeded, missing[0].cost_usd, missing[0].output) == (False, None, "")
    assert missing[0].error is not None
    assert missing[0].error.startswith("missing")
    with pytest.warns(RuntimeWarning, match="1 results have no line"):
        assert len(either.results(api.batches[0].id)) == 9


def test_differing_lines_for_one_id_keep_the_first_and_warn(either: Any, api: Simulator) -> None:
    """A server that says two things of one row is asked again, then the first is taken and told."""
    api.faults.add(BadResults("doubled_differently", n_rows=1, times=None))
    with pytest.warns(RuntimeWarning, match="1 results have differing lines"):
        assert answered(either.run(tasks(10)), 10)


def test_rows_that_were_never_asked_for_are_left_out(either: Any, api: Simulator) -> None:
    """A foreign id in the results is warned about, and harms no row."""
    api.faults.add(BadResults("unknown_id", n_rows=1, times=None))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = either.run(tasks(10))
    assert [r.custom_id for r in results] == [f"r{i}" for i in range(10)]
    assert any("never asked for" in str(warning.message) for warning in caught)


def test_iter_results_does_not_grow_with_the_answers(clock: Any) -> None:
    """Going through 30 MB of results takes a few MB; stopping early takes next to nothing and leaves no stream."""
    with (
        serve("x" * 10_000, clock=clock.time_s) as api,
        BatchClient(client=api.client(), clock=clock) as client,
    ):
        job = client.submit([BatchRequest(f"r{i}", "p", max_tokens=10_000) for i in range(3000)])
        clock.advance(60)
        next(iter(client.iter_results(job.batch_id)))
        tracemalloc.start()
        try:
            n_chars = sum(len(result.output) for result in client.iter_results(job.batch_id))
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert n_chars == 30_000_000
        assert peak_bytes < 8_000_000


def test_an_abandoned_async_iteration_closes_its_stream(api: Simulator, clock: Any) -> None:
    """Breaking out of ``async for`` leaves nothing open in the loop."""

    async def main() -> str:
        client = AsyncBatchClient(client=api.async_client(), clock=clock)
        job = await client.submit(tasks(500))
        clock.advance(60)
        async for result in client.iter_results(job.batch_id):
            return result.custom_id
        return ""

    assert asyncio.run(main()).startswith("r")


# -------------------------------------------------------------------- interrupts, loops, secrets


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_passes_and_names_what_goes_on(
    api: Simulator, clock: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in run cancels nothing, and its note names the batch that goes on."""

    def interrupted(*args: Any) -> bool:
        raise KeyboardInterrupt

    async def ainterrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    made = _make(kind, api, clock)
    monkeypatch.setattr(clock, "wait", interrupted)
    monkeypatch.setattr(clock, "async_wait", ainterrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        Caller(made).run(tasks(2))
    if isinstance(made, BatchClient):
        made.close()
    assert api.batches[0].id in "".join(getattr(caught.value, "__notes__", []))
    assert api.calls("cancel") == 0


def test_a_blocking_client_works_inside_a_running_loop(api: Simulator, clock: Any) -> None:
    """In a notebook a loop is running already; BatchClient works there, over either kind of client."""

    async def main() -> list[int]:
        counts = []
        for sdk in (api.client(), api.async_client()):
            with BatchClient(client=sdk, clock=clock) as client:
                counts.append(len(client.run(tasks(2))))
        return counts

    assert asyncio.run(main()) == [2, 2]


def test_the_users_own_async_client_is_used_in_the_users_loop(api: Simulator, clock: Any) -> None:
    """AsyncBatchClient drives the very client it was given, with calls of the user's beside it."""

    async def main() -> None:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=api.base_url) as user:
            client = AsyncBatchClient(client=user, clock=clock)
            results = await asyncio.gather(
                client.run(tasks(3)), client.run(tasks(4)), user.messages.batches.list(), client.list()
            )
            assert answered(results[0], 3)
            assert answered(results[1], 4)
            assert (await user.messages.batches.list()).data

    asyncio.run(main())


def test_a_canceled_task_cancels_nothing_on_the_server(api: Simulator) -> None:
    """A task that is canceled in its wait ends at once; the batch goes on."""

    async def main() -> None:
        client = AsyncBatchClient(client=api.async_client())
        task = asyncio.create_task(client.run(tasks(2)))
        while not api.calls("create"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert api.batches[0].id in "".join(getattr(caught.value, "__notes__", []))

    asyncio.run(main())
    assert api.calls("cancel") == 0


def test_the_key_is_nowhere_to_be_seen(api: Simulator, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in a repr, nor in an error, nor in the local variables of its traceback."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", api.base_url)
    shown = [repr(BatchClient(api_key=CANARY_KEY)), repr(AsyncBatchClient(api_key=CANARY_KEY))]
    for call in (run_prompts, lambda *args, **kwargs: asyncio.run(arun_prompts(*args, **kwargs))):
        api.faults.add(ErrorAnswer("create", 400))
        with pytest.raises(anthropic.BadRequestError) as caught:
            call(["a"], api_key=CANARY_KEY)
        frames = [
            frame
            for frame in traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
            if "pandas_batch" in frame.filename
        ]
        assert len(frames) > 3
        shown += [str(frame.locals) for frame in frames]
        shown += ["".join(traceback.format_exception(caught.value))]
    assert [text for text in shown if CANARY_KEY in text] == []


def test_a_job_is_json_and_its_text_is_its_id() -> None:
    """`to_dict` is what `json.dumps` takes, whatever the server's times and counts look like; `str` is the id."""
    batch = {
        "id": "msgbatch_1",
        "processing_status": "in_progress",
        "request_counts": {"processing": 2},
        "created_at": "2026-11-30T03:00:00",
        "ended_at": 1790000000,
        "expires_at": "soon",
    }
    job = BatchJob.from_api(batch)
    told = json.loads(json.dumps(job.to_dict()))
    assert (told["batch_id"], told["created_at"], told["ended_at"], told["expires_at"]) == (
        "msgbatch_1",
        "2026-11-30T03:00:00+00:00",
        None,
        None,
    )
    assert (str(job), f"{job}") == ("msgbatch_1", "msgbatch_1")
    assert BatchJob.from_api(batch | {"request_counts": "many"}).request_counts == {}


def test_a_job_stands_for_its_id_and_a_dict_for_a_request(api: Simulator, clock: Any) -> None:
    """Whatever takes an id takes the job, and whatever takes a request takes the API's form or the names of ours."""
    client = BatchClient(client=api.client(), system="mine", clock=clock)
    as_sdk = {"custom_id": "a", "params": {"max_tokens": 7, "messages": [{"role": "user", "content": "A"}]}}
    as_ours = {"custom_id": "b", "prompt": "B", "params": {"stop_sequences": ["!"]}}
    job = client.submit([as_sdk, as_ours, BatchRequest("c", "C")])
    results = {result.custom_id: result for result in client.wait(job)}
    assert {key: result.output for key, result in results.items()} == {"a": "A", "b": "B", "c": "C"}
    assert client.status(job).batch_id == str(job)
    assert [one.custom_id for one in client.iter_results(job)] == [one.custom_id for one in client.results(job)]
    assert client.cancel(job) is False
    client.delete(job)
    assert client.list() == []


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"custom_id": "a", "prompt": "x", "promt": "y"}, "'promt'"),
        ({"custom_id": "a", "params": {"messages": "x"}}, "no list of messages"),
        ({"custom_id": "a", "params": {"messages": [{"role": "user", "content": "x"}], "max_token": 1}}, "max_token"),
        ({"prompt": "x"}, "custom_id=None"),
        ({"custom_id": "a"}, "NoneType"),
        ({}, "custom_id=None"),
    ],
)
def test_a_dict_that_is_no_request_is_refused(api: Simulator, request_: Any, reason: str) -> None:
    """Its place and what is wrong are named, and nothing is sent."""
    with pytest.raises((InputError, TypeError)) as caught:
        BatchClient(client=api.client()).submit([request_])
    assert reason in str(caught.value)
    assert api.calls("create") == 0


def test_a_result_has_more_than_its_text(api: Simulator, clock: Any) -> None:
    """Thinking, calls of tools and cache tokens stand beside the text; a result without them says so."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"city": "Rome"}}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    usage = {"cache_read_input_tokens": 3, "cache_creation_input_tokens": 0}
    api.answer = lambda params: Reply(content=[thought, call], usage=usage)
    (result,) = BatchClient(client=api.client(), clock=clock).run([BatchRequest("a", "x")])
    assert (result.thinking, result.output) == ("Hm.", "")
    assert result.tool_calls == [{"id": "toolu_1", "name": "look", "input": {"city": "Rome"}}]
    assert (result.cache_read_tokens, result.cache_write_tokens) == (3, 0)
    api.answer = lambda params: "plain"
    (plain,) = BatchClient(client=api.client(), clock=clock).run([BatchRequest("a", "x")])
    assert (plain.thinking, list(plain.tool_calls)) == (None, [])
    assert json.dumps(plain.to_dict() | {"message": None})
