"""What a row of the simulator comes to: refusals of its params, answers, usage, prompt caching and the bill."""

from __future__ import annotations

import json
import random
import string
from typing import Any

import anthropic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator_lab import HAIKU, OBJECT, VERSION, params, result_of, settled, text

from pandas_batch import simulator
from pandas_batch.simulator.rendering import _holds
from pandas_batch.simulator.schema_values import value_for
from pandas_batch.simulator.validation import ApiError, check_params


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in params().items() if key != name}


def format_(schema: Any) -> dict[str, Any]:
    return {"format": {"type": "json_schema", "schema": schema}}


# ---- refusals


@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        (without("messages"), "invalid_request_error", "messages: Field required"),
        (without("model"), "invalid_request_error", "model: Field required"),
        (without("max_tokens"), "invalid_request_error", "max_tokens: Field required"),
        (params(max_tokens=0), "invalid_request_error", "max_tokens: must be greater than or equal to 1"),
        (params(max_tokens="5"), "invalid_request_error", "max_tokens: Input should be a valid integer"),
        (
            params(max_tokens=9999999),
            "invalid_request_error",
            f"max_tokens: 9999999 > 64000, which is the maximum allowed number of output tokens for {HAIKU}",
        ),
        (params(model="claude-does-not-exist-9"), "not_found_error", "model: claude-does-not-exist-9"),
        (params(model="claude-mythos-preview"), "not_found_error", "model: claude-mythos-preview"),
        (params(extra_body={}), "invalid_request_error", "extra_body: Extra inputs are not permitted"),
        (params(speed="fast"), "invalid_request_error", "speed: Extra inputs are not permitted"),
        (params(user_profile_id="u"), "invalid_request_error", "user_profile_id: Extra inputs are not permitted"),
        (params(workspace_id="w"), "invalid_request_error", "workspace_id: Extra inputs are not permitted"),
        (params(fallbacks=[]), "invalid_request_error", "fallbacks: Extra inputs are not permitted"),
        (
            params(stream=True),
            "invalid_request_error",
            '"stream=True" is not supported in the Message Batches API',
        ),
        (params(None), "invalid_request_error", "messages.0.content: Input should be a valid string"),
        (params(5), "invalid_request_error", "messages.0.content: Input should be a valid string"),
        (params(""), "invalid_request_error", "messages.0: user messages must have non-empty content"),
        (params([]), "invalid_request_error", "messages.0: user messages must have non-empty content"),
        (params(" \n"), "invalid_request_error", "messages: text content blocks must contain non-whitespace text"),
        (params(messages=[]), "invalid_request_error", "messages: at least one message is required"),
        (
            params(messages=[{"role": "robot", "content": "x"}]),
            "invalid_request_error",
            "messages.0.role: Input should be 'user' or 'assistant'",
        ),
        (params(system=5), "invalid_request_error", "system: Input should be a valid string"),
        (
            params(output_config=format_({"type": "integer", "minimum": 1})),
            "invalid_request_error",
            "output_config.format.schema: For 'integer' type, properties minimum are not supported",
        ),
        (
            params(output_config=format_({"type": "object", "properties": {}})),
            "invalid_request_error",
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false",
        ),
        (
            params(model="claude-opus-5", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000),
            "invalid_request_error",
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and '
            '"output_config.effort"',
        ),
        (
            params([{"type": "image", "source": {"type": "url", "url": "https://example.invalid/a.png"}}]),
            "invalid_request_error",
            "Unable to download the file. Please verify the URL and try again.",
        ),
        ([1], "invalid_request_error", "params: Input should be a valid dictionary or object to extract fields from"),
    ],
)
def test_wrong_params_error_their_row_only(bad, kind, message):
    """A row with wrong params errors in the server's words; the row beside it is answered, and only that is billed."""
    results, batch = settled({"bad": bad, "good": params()})
    assert results["good"]["type"] == "succeeded"
    error = results["bad"]["error"]
    assert results["bad"]["type"] == "errored"
    assert error["error"] == {"details": {"error_visibility": "user_facing"}, "type": kind, "message": message}
    assert (error["request_id"] is not None) == message.startswith("Unable to download")
    assert batch.facts.counts == {"succeeded": 1, "errored": 1, "canceled": 0, "expired": 0}


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_parameters_are_gone_since_october_2026(name):
    """`temperature`, `top_p` and `top_k` error the row, unless the batch came under the older version."""
    assert result_of(params(**{name: 1}))["error"]["error"]["type"] == "invalid_request_error"
    assert result_of(params(**{name: 1}), version="2023-06-01")["type"] == "succeeded"


def test_what_newer_models_refuse():
    """A prefilled answer and a forced tool are refused by the models that no longer take them."""
    prefill = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert result_of(params(**prefill))["type"] == "succeeded"
    assert result_of(params(model="claude-opus-5", **prefill))["type"] == "errored"
    tools = {"tools": [{"name": "f", "input_schema": OBJECT}], "tool_choice": {"type": "any"}}
    assert result_of(params(model="claude-opus-5", **tools))["message"]["stop_reason"] == "tool_use"
    assert result_of(params(model="claude-opus-5-5", **tools))["type"] == "errored"


def test_a_beta_raises_the_limit_of_output():
    """The beta for long outputs lets `max_tokens` be 300,000."""
    long = params(max_tokens=300_000)
    with pytest.raises(ApiError):
        check_params(long, version=VERSION)
    assert check_params(long, version=VERSION, betas=["output-300k-2026-03-24"]).id == HAIKU


def test_a_prompt_beyond_the_window_errors():
    """More input tokens than the model's window is an error that tells both numbers."""
    error = result_of(params("x" * 1_000_000))["error"]["error"]
    assert error["message"] == "prompt is too long: 250007 tokens > 200000 maximum"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "cache_control",
    "max_tokens",
    "messages",
    "model",
    "output_config",
    "stop_sequences",
    "system",
    "thinking",
    "tool_choice",
    "tools",
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6), st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_params_can_break_the_server(odd, sane):
    """Whatever JSON the params are, the row has one of the four types of result."""
    result = result_of({**params(), **odd} if sane else odd)
    assert result["type"] in ("succeeded", "errored")


# ---- answers


def test_the_default_answer_is_the_prompt():
    """Left to itself the simulator gives each prompt back, so that a test sees which answer belongs to which row."""
    results, _ = settled({f"r{number}": params(f"prompt {number} \u2028 é 😀") for number in range(300)})
    assert all(text(result) == f"prompt {key[1:]} \u2028 é 😀" for key, result in results.items())
    assert text(result_of(params([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]))) == "a\nb"


def test_an_answer_is_a_text_a_function_or_told_in_full():
    """`answer` may be a text, a function to a text, a dict (as JSON) or a `Reply`; what it raises errors the row."""
    assert text(result_of(params(), "positive")) == "positive"
    assert text(result_of(params("abc"), lambda asked: asked["messages"][0]["content"].upper())) == "ABC"
    assert json.loads(text(result_of(params(), lambda asked: {"mood": "good"}))) == {"mood": "good"}
    paused = result_of(
        params(), lambda asked: simulator.Reply("hm", stop_reason="pause_turn", usage={"service_tier": "standard"})
    )
    assert paused["message"]["stop_reason"] == "pause_turn"
    assert paused["message"]["usage"]["service_tier"] == "standard"
    errored = result_of(params(), lambda asked: simulator.Reply(error=("overloaded_error", "Overloaded")))
    assert errored["error"]["error"]["type"] == "overloaded_error"
    broken = result_of(params(), lambda asked: 1 / 0)
    assert broken["error"]["error"]["message"] == "answer() raised ZeroDivisionError: division by zero"


def test_an_answer_function_is_called_once_a_row():
    """A function may count its calls: one for each row that is answered, whatever it returns, none for the others."""
    asked: list[str] = []

    def answer(given: dict[str, Any]) -> Any:
        asked.append(given["messages"][0]["content"])
        return ["text", {"a": 1}, "long " * 999, "", None][len(asked) % 5]

    results, _ = settled(
        {**{f"r{number}": params(f"{number}") for number in range(20)}, "bad": without("model")}, answer
    )
    assert sorted(asked, key=int) == [str(number) for number in range(20)]
    assert [result["type"] for result in results.values()].count("errored") == 1


def test_an_answer_is_cut_at_max_tokens():
    """No row has more output tokens than it asked for, and a cut one says so."""
    message = result_of(params("word " * 100, max_tokens=10))["message"]
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("max_tokens", 10)
    assert "word " * 100 != message["content"][0]["text"] == ("word " * 100)[:40]
    emoji = result_of(params("😀" * 100, max_tokens=10))["message"]
    assert emoji["content"][0]["text"] == "😀" * 10


def test_a_stop_sequence_ends_the_answer():
    """The answer ends before the stop sequence, which is named."""
    message = result_of(params("one STOP two", stop_sequences=["STOP"]))["message"]
    assert (message["stop_reason"], message["stop_sequence"], message["content"][0]["text"]) == (
        "stop_sequence",
        "STOP",
        "one ",
    )


def test_thinking_shows_in_content_and_usage():
    """A model that thinks has a thinking block, and its thinking tokens are among the output tokens."""
    message = result_of(params(model="claude-fable-5-2", max_tokens=1024))["message"]
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    thinking = message["usage"]["output_tokens_details"]["thinking_tokens"]
    assert 0 < thinking < message["usage"]["output_tokens"]
    eaten = result_of(params(model="claude-fable-5-2", max_tokens=5))["message"]
    assert (eaten["stop_reason"], eaten["usage"]["output_tokens"]) == ("max_tokens", 5)
    assert text(result_of(params(model="claude-fable-5-2", max_tokens=5))) == ""


SCHEMAS: list[Any] = [
    OBJECT,
    {"type": "array", "items": {"type": "integer"}, "minItems": 1},
    {"anyOf": [{"type": "null"}, {"type": "string", "format": "date-time"}]},
    {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                **OBJECT,
                "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["next"],
            }
        },
    },
    {"allOf": [{"$ref": "#/$defs/o"}], "$defs": {"o": OBJECT}},
    {"type": ["string", "null"]},
    {"const": 5},
    {"type": "integer", "minimum": 1, "maximum": 5},
    {"type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": 0},
    {"type": "integer", "minimum": 100, "multipleOf": 25},
    {"type": "integer", "maximum": -100},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "exclusiveMinimum": 9.9},
    {"type": "number", "minimum": 3, "multipleOf": 0.5},
    {"type": "string", "minLength": 12, "maxLength": 14},
    {"type": "string", "maxLength": 2},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 1},
    {"properties": {"x": {"type": "boolean"}}, "required": ["x"], "type": "object", "additionalProperties": False},
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_structured_outputs_fit_their_schema(schema):
    """Where a schema is asked for, the answer is JSON that is valid against it, whatever the seed."""
    from jsonschema import Draft202012Validator

    for seed in range(30):
        Draft202012Validator(schema).validate(value_for(schema, random.Random(seed)))
    # The API takes no bounds: the SDK writes them into the description.
    sent = anthropic.transform_schema(schema) if isinstance(schema.get("type"), str) else schema
    for seed in range(30):
        Draft202012Validator(schema).validate(value_for(sent, random.Random(seed)))
    answer = result_of(params(max_tokens=5000, output_config=format_(sent)))
    Draft202012Validator(schema).validate(json.loads(text(answer)))


def test_a_tool_call_fits_its_input_schema():
    """A forced tool is called with an input that fits."""
    message = result_of(
        params(tools=[{"name": "f", "input_schema": OBJECT}], tool_choice={"type": "tool", "name": "f"})
    )
    (call,) = message["message"]["content"]
    assert (call["type"], call["name"], message["message"]["stop_reason"]) == ("tool_use", "f", "tool_use")
    assert call["input"]["mood"] in ("good", "bad")


# ---- rows made to fail


@pytest.mark.parametrize(
    ("outcome", "kind", "error"),
    [
        ("errored", "errored", "invalid_request_error"),
        ("overloaded", "errored", "overloaded_error"),
        ("api_error", "errored", "api_error"),
        ("expired", "expired", None),
        ("canceled", "canceled", None),
        ("refused", "succeeded", None),
        ("refused_early", "succeeded", None),
        ("truncated", "succeeded", None),
        ("paused", "succeeded", None),
        ("invalid_json", "succeeded", None),
        ("no_text", "succeeded", None),
    ],
)
def test_rows_fail_as_they_are_told(outcome, kind, error):
    """A row fault hits the rows that hold its marker, and those only; what failed early is not billed."""
    rows = {"hit": params("please FAIL now"), "escaped": params("bitte ÄRGER"), "spared": params("fine")}
    faults = [simulator.RowFault(outcome, marker="FAIL"), simulator.RowFault(outcome, marker="ÄRGER")]
    results, batch = settled(rows, faults=faults)
    assert results["spared"]["type"] == "succeeded"
    assert text(results["spared"]) == "fine"
    billed = {bill.custom_id for bill in simulator.rendering.bills_of(batch)}
    for key in ("hit", "escaped"):
        assert results[key]["type"] == kind
        if error:
            assert results[key]["error"]["error"]["type"] == error
            assert results[key]["error"]["request_id"].startswith("workerreq_")
        assert (key in billed) == (kind == "succeeded" and outcome != "refused_early")
    stop_reasons = {
        "refused": "refusal",
        "refused_early": "refusal",
        "truncated": "max_tokens",
        "paused": "pause_turn",
        "invalid_json": "end_turn",
        "no_text": "end_turn",
    }
    if kind == "succeeded":
        assert results["hit"]["message"]["stop_reason"] == stop_reasons[outcome]
    if outcome in ("refused_early", "no_text"):
        assert results["hit"]["message"]["content"] == []


@pytest.mark.parametrize("marker", ["ÄRGER", "two\nlines", 'a "quote"', "plain"])
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_a_marker_is_found_however_it_is_escaped(marker, ensure_ascii):
    """Clients escape their JSON in different ways; the marker is the text, not its bytes."""
    for prompt, held in ((f"x {marker} y", True), ("something else é", False)):
        assert _holds(json.dumps(params(prompt), ensure_ascii=ensure_ascii).encode(), marker) == held


def test_a_share_of_the_rows_fails_the_same_ones_each_time():
    """`share` picks rows by the seed; `where` by the params; `kind` and `message` are the row's."""
    rows = {f"r{number}": params(f"{number}") for number in range(400)}
    fault = simulator.RowFault("errored", share=0.25, kind="billing_error", message="no credit")
    first, second = (settled(rows, faults=[fault])[0] for _ in range(2))
    assert first == second
    hit = [key for key, result in first.items() if result["type"] == "errored"]
    assert 60 < len(hit) < 140
    assert first[hit[0]]["error"]["error"]["type"] == "billing_error"
    even = simulator.RowFault("expired", where=lambda asked: int(asked["messages"][0]["content"]) % 2 == 0)
    _, batch = settled(rows, faults=[even])
    assert batch.facts.counts is not None
    assert batch.facts.counts["expired"] == 200


def test_faults_meet_rows_through_the_api(api, client, clock):
    """A row fault counts batches: the first is hit, the next one is not."""
    api.faults.add(simulator.RowFault("expired", times=1))
    wanted: Any = [{"custom_id": letter, "params": params()} for letter in string.ascii_lowercase]
    first, second = (client.messages.batches.create(requests=wanted) for _ in range(2))
    clock.advance(3)
    assert client.messages.batches.retrieve(first.id).request_counts.expired == 26
    assert client.messages.batches.retrieve(second.id).request_counts.succeeded == 26
    assert len(api.billed) == 26
    assert api.billed_usd == sum(bill.cost_usd for bill in api.billed) > 0


@pytest.mark.parametrize(
    "description",
    ["{Choose, where minimum: 400, say, the best}", "{see minimum: 90}", "{of the form minimum: 7}", "minimum: 5"],
)
def test_a_number_in_a_description_of_the_users_own_is_no_bound(description):
    """Only what the SDK writes in place of a bound is one."""
    plain = value_for({"type": "integer"}, random.Random(3))
    assert value_for({"type": "integer", "description": description}, random.Random(3)) == plain
    moved = {"type": "integer", "description": "{pattern: ^a{1,2}$, minimum: 400, maximum: 400}"}
    assert value_for(moved, random.Random(3)) == 400
