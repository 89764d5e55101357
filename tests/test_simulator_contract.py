"""The simulator against its original: the published schema, and recordings of the real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from anthropic.types import Message, MessageTokensCount, ModelInfo
from anthropic.types.messages import DeletedMessageBatch, MessageBatch, MessageBatchIndividualResponse
from simulator_lab import DAY_S, ask, request, requests

from pandas_batch import simulator
from pandas_batch.simulator.faults import RowOutcome

SHARED = Path(__file__).parents[2] / "shared" / "fixtures"
needs_recordings = pytest.mark.skipif(
    not SHARED.exists(), reason="the recordings of the real API are not on this machine"
)


@pytest.fixture(scope="module")
def contract() -> Any:
    if not SHARED.exists():
        pytest.skip("the published schema is not on this machine")
    import yaml

    return yaml.safe_load((SHARED / "openapi" / "anthropic_batches_subset_2026-08-18.yaml").read_text())


def validator(contract: Any, name: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": contract["components"]})


def every_kind_of_batch(api: simulator.Simulator, clock: Any) -> Iterator[dict[str, Any]]:
    """Yield batch objects in every state, by every call that shows one."""
    base = "/v1/messages/batches"
    created = ask(api, "POST", base, {"requests": requests(4)}).json
    yield created
    yield ask(api, "GET", f"{base}/{created['id']}").json
    canceled = ask(api, "POST", base, {"requests": requests(4)}).json
    clock.advance(1)
    yield ask(api, "POST", f"{base}/{canceled['id']}/cancel").json
    clock.advance(5)
    yield from (ask(api, "GET", f"{base}/{batch['id']}").json for batch in (created, canceled))
    yield from ask(api, "GET", base).json["data"]
    clock.advance(30 * DAY_S)
    yield ask(api, "GET", f"{base}/{created['id']}").json


def test_every_batch_fits_the_published_schema(api, clock, contract):
    """Batch objects, list pages, delete answers and errors are valid against the OpenAPI description."""
    check = validator(contract, "MessageBatch").validate
    shown = list(every_kind_of_batch(api, clock))
    for batch in shown:
        check(batch)
    assert {batch["processing_status"] for batch in shown} == {"in_progress", "canceling", "ended"}
    validator(contract, "ListResponse_MessageBatch_").validate(ask(api, "GET", "/v1/messages/batches").json)
    validator(contract, "ErrorResponse").validate(ask(api, "GET", "/v1/messages/batches/nobody").json)
    gone = ask(api, "DELETE", f"/v1/messages/batches/{shown[0]['id']}").json
    validator(contract, "DeleteMessageBatchResponse").validate(gone)


def test_bodies_that_the_schema_takes_are_taken(api, contract):
    """A create body of the official SDK is valid by the published schema, and the server takes it."""
    check = validator(contract, "CreateMessageBatchParams")
    body = {"requests": requests(3)}
    check.validate(body)
    assert ask(api, "POST", "/v1/messages/batches", body).status == 200
    for bad in ({"requests": [], "x": 1}, {"requests": [{"custom_id": "a b", "params": {}}]}):
        assert not check.is_valid(bad)
        assert ask(api, "POST", "/v1/messages/batches", bad).status == 400


def recorded(pattern: str) -> list[Path]:
    return sorted(path for path in SHARED.glob(pattern) if not path.name.endswith(".meta.json"))


@needs_recordings
def test_batch_objects_have_the_recorded_keys(api, clock):
    """A batch has the same keys as in recordings of the real server, and times in the same form."""
    shown = list(every_kind_of_batch(api, clock))
    seen = 0
    for path in (
        *recorded("ruby_llm/*post*.json"),
        *recorded("ruby_llm/*retrieve.json"),
        *recorded("curator/*retrieve.json"),
    ):
        real = json.loads(path.read_text())
        same = [batch for batch in shown if batch["processing_status"] == real["processing_status"]]
        for batch in same[:2]:
            assert list(batch) == list(real)
            assert list(batch["request_counts"]) == list(real["request_counts"])
            for key in ("created_at", "expires_at", "ended_at"):
                assert (batch[key] is None) == (real[key] is None)
                if batch[key] is not None:
                    assert (len(batch[key]), batch[key][-6:]) == (len(real[key]), real[key][-6:])
            seen += 1
    assert seen > 10


@needs_recordings
def test_headers_are_the_recorded_ones(api, clock):
    """Answers carry the headers that recordings show: `retry-after` only while in progress, results as x-jsonl."""
    created = ask(api, "POST", "/v1/messages/batches", {"requests": requests(2)})
    base = f"/v1/messages/batches/{created.json['id']}"
    polled = ask(api, "GET", base)
    clock.advance(5)
    ended, results = ask(api, "GET", base), ask(api, "GET", f"{base}/results")
    for answer, name in (
        (created, "answers.01.post_create.json"),
        (polled, "answers.02.get_retrieve.json"),
        (ended, "answers.03.get_retrieve.json"),
        (results, "answers.04.get_results.jsonl"),
    ):
        meta = json.loads((SHARED / "ruby_llm" / f"{name}.meta.json").read_text())["response"]["headers"]
        assert set(meta) <= set(answer.headers)
        assert ("retry-after" in meta) == ("retry-after" in answer.headers)
        for header in ("content-type", "retry-after", "transfer-encoding"):
            assert answer.headers.get(header) == (meta.get(header) or [None])[0]
    assert results.headers["content-disposition"].startswith("attachment; filename*=utf-8''msgbatch_")
    assert {"anthropic-organization-id", "anthropic-workspace-id"} <= set(results.headers)
    assert results.body.endswith(b"}\n")


@needs_recordings
def test_recorded_creates_are_taken_and_answered_in_the_recorded_shape(clock):
    """A create that the real server took is taken here, and its rows have the keys of the recorded rows."""
    pairs = [
        ("ruby_llm/answers.01.post_create.json", "ruby_llm/answers.04.get_results.jsonl"),
        ("ruby_llm/reload.01.post_create.json", "ruby_llm/reload.04.get_results.jsonl"),
    ]
    for create, results in pairs:
        body = json.loads((SHARED / f"{create}.meta.json").read_text())["request"]["body"]
        real = [json.loads(line) for line in (SHARED / results).read_text().splitlines()]
        with simulator.serve(clock=clock.time_s, seconds_per_batch=0) as api:
            batch_id = ask(api, "POST", "/v1/messages/batches", body).json["id"]
            lines = ask(api, "GET", f"/v1/messages/batches/{batch_id}/results").body.splitlines()
        ours = sorted((json.loads(line) for line in lines), key=lambda row: str(row["custom_id"]))
        assert [row["custom_id"] for row in ours] == sorted(row["custom_id"] for row in real)
        for mine, theirs in zip(ours, real, strict=True):
            assert list(mine) == list(theirs)
            assert list(mine["result"]) == list(theirs["result"])
            message, recorded_message = mine["result"]["message"], theirs["result"]["message"]
            assert list(message) == list(recorded_message)
            assert list(message["usage"]) == list(recorded_message["usage"])
            assert message["model"] == recorded_message["model"]
            # The heuristic tokenizer is of the right order, which is all it promises.
            assert abs(message["usage"]["input_tokens"] - recorded_message["usage"]["input_tokens"]) <= 10


def test_every_answer_is_valid_for_the_models_of_the_sdk(clock):
    """The SDK builds its objects without checking; checked strictly, every answer fits its model."""
    outcomes: tuple[Any, ...] = get_args(RowOutcome)
    faults = [simulator.RowFault(outcome, marker=outcome) for outcome in outcomes]
    with simulator.serve(clock=clock.time_s, seconds_per_batch=0, faults=faults) as api:
        wanted = [request(outcome, f"be {outcome}") for outcome in outcomes] + [request("fine"), request("bad", 5)]
        created = ask(api, "POST", "/v1/messages/batches", {"requests": wanted}).json
        base = f"/v1/messages/batches/{created['id']}"
        lines = ask(api, "GET", f"{base}/results").body.splitlines()
        assert len(lines) == len(wanted)
        for line in lines:
            row = MessageBatchIndividualResponse.model_validate_json(line, strict=False)
            assert row.result.type == json.loads(line)["result"]["type"]
        for shown in (created, ask(api, "GET", base).json, *ask(api, "GET", "/v1/messages/batches").json["data"]):
            MessageBatch.model_validate(shown)
        for model in ask(api, "GET", "/v1/models?limit=100").json["data"]:
            ModelInfo.model_validate(model)
            assert ask(api, "GET", f"/v1/models/{model['id']}").json == model
        params = request("x")["params"]
        Message.model_validate(ask(api, "POST", "/v1/messages", params).json)
        del params["max_tokens"]
        MessageTokensCount.model_validate(ask(api, "POST", "/v1/messages/count_tokens", params).json)
        DeletedMessageBatch.model_validate(ask(api, "DELETE", base).json)
