"""What the API is certain to refuse is refused here, before anything is sent, and by the simulator as the API does."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from retry_lab import TEXTS, settled
from rowlab import ask

from pandas_batch import BatchClient, BatchRequest, simulator
from pandas_batch.errors import InputError

SHORT, HOUR = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
TOOL = {"name": "look", "input_schema": {"type": "object"}}
THINKING = {"type": "enabled", "budget_tokens": 2048}


def text(mark: Any = None, words: str = "Look.") -> dict[str, Any]:
    block = {"type": "text", "text": words}
    return block if mark is None else {**block, "cache_control": mark}


def tool(mark: Any, name: str = "look") -> dict[str, Any]:
    return {**TOOL, "name": name, "cache_control": mark}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "max_tokens=2048"),
    ({"thinking": THINKING, "max_tokens": 2048}, "max_tokens=3072"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1023}, "max_tokens": 9000}, "1024 and more"),
    ({"stop_sequences": ["END", ""]}, "empty text"),
    ({"stop_sequences": ["\n"]}, "stop_sequences"),
    ({"stop_sequences": ["\t \u00a0", "END"]}, "stop_sequences"),
    ({"tool_choice": {"type": "any"}}, "no tools"),
    ({"tool_choice": {"type": "tool", "name": "see"}, "tools": [TOOL]}, "'look'"),
    ({"tools": [TOOL, TOOL]}, "two tools"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "any"}, "thinking": THINKING, "max_tokens": 9000},
        "takes one of them",
    ),
    ({"tools": [tool(SHORT)], "system": [text(HOUR)]}, "after one of five minutes"),
    ({"system": [text(SHORT), text(HOUR)]}, "after one of five minutes"),
    ({"system": [text(SHORT)], "cache_control": HOUR}, "after one of five minutes"),
    ({"system": [text(HOUR) for _ in range(5)]}, "5 cache marks"),
    ({"system": [text(HOUR) for _ in range(3)], "tools": [tool(HOUR)], "cache_control": HOUR}, "5 cache marks"),
]
ALLOWED: list[dict[str, Any]] = [
    {"thinking": THINKING, "max_tokens": 2049},
    {"stop_sequences": ["END", " ."]},
    {"tools": [TOOL, {**TOOL, "name": "see"}], "tool_choice": {"type": "tool", "name": "see"}},
    {"tools": [tool(HOUR)], "system": [text(HOUR), text(SHORT)], "cache_control": SHORT},
]
FRAME = pd.DataFrame({"q": ["one", "two"]})


def ids(case: Any) -> str:
    return ", ".join(case[0] if isinstance(case, tuple) else case)


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_it_is_refused_before_anything_is_sent(api: simulator.Simulator, options: dict[str, Any], words: str) -> None:
    """Every call that would send it says what is wrong and what to type; the server hears of nothing."""
    calls = FRAME.claude_batch
    for call in (calls.preview, calls.estimate, calls.submit, calls.start):
        with pytest.raises(InputError) as raised:
            call("q", client=api.client(), **options)
        assert words in str(raised.value)
    assert not api.requests


@pytest.mark.parametrize(("options", "_"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_the_simulator_refuses_it_row_by_row(
    api: simulator.Simulator, clock: Any, options: dict[str, Any], _: str
) -> None:
    """What goes out unchecked comes back a day later, as an error of each row."""
    params = {
        "model": "claude-haiku-4-5",
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": "?"}],
        **options,
    }
    created = api.client().messages.batches.create(requests=[{"custom_id": "a", "params": params}])
    clock.advance(3600)
    (line,) = api.client().messages.batches.results(created.id)
    assert line.result.type == "errored"
    assert line.result.error.error.type == "invalid_request_error"


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_the_client_layer_refuses_the_same(api: simulator.Simulator, options: dict[str, Any], words: str) -> None:
    """`BatchClient` checks what the accessor checks, and names the request."""
    own = {name: options[name] for name in ("system", "max_tokens") if name in options}
    params = {name: value for name, value in options.items() if name not in own}
    with BatchClient(client=api.client()) as client, pytest.raises(InputError) as raised:
        client.submit([BatchRequest("fine", "?"), BatchRequest("a", "?", params=params, **own)])
    assert words in str(raised.value)
    assert "requests[1] ('a')" in str(raised.value)
    assert not api.requests


@pytest.mark.parametrize("options", ALLOWED, ids=ids)
def test_what_the_api_takes_goes_out(api: simulator.Simulator, clock: Any, options: dict[str, Any]) -> None:
    """Nothing is refused that the API takes, here and by the client layer."""
    FRAME.claude_batch.preview("q", **options)
    params = {
        "model": "claude-haiku-4-5",
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": "?"}],
        **options,
    }
    created = api.client().messages.batches.create(requests=[{"custom_id": "a", "params": params}])
    clock.advance(3600)
    (line,) = api.client().messages.batches.results(created.id)
    assert line.result.type == "succeeded"
    own = {name: options[name] for name in ("system", "max_tokens") if name in options}
    further = {name: value for name, value in options.items() if name not in own}
    with BatchClient(client=api.client()) as client:
        client.submit([BatchRequest("a", "?", params=further, **own)])


def test_a_value_per_row_is_refused_with_its_row() -> None:
    """A row whose own `max_tokens` is not above the budget for thinking is named."""
    with pytest.raises(InputError, match="In row 1 "):
        FRAME.claude_batch.preview(
            "q", thinking=THINKING, max_tokens=lambda df: pd.Series([4096, 2048], index=df.index)
        )


def test_marks_in_prompts_count_with_those_of_all_rows() -> None:
    """Cache marks of content blocks stand after those of tools and system prompt, and are counted with them."""
    for mark in (HOUR, {"type": "ephemeral", "ttl": "2h"}):
        frame = pd.DataFrame({"q": pd.Series(["one", [text(mark)]], dtype=object)})
        with pytest.raises(InputError, match="In row 1 "):
            frame.claude_batch.preview("q", tools=[tool(SHORT)])
    with pytest.raises(InputError, match="of an hour after one of five minutes"):
        FRAME.claude_batch.preview("q", tools=[tool(SHORT)], few_shot=[([text(HOUR)], "Yes.")])


def test_the_mark_that_stands_too_late_is_named_by_its_place() -> None:
    """Whether it is in the prompt, or in an answer that is given as an example, the message says."""
    prompts = pd.DataFrame({"q": pd.Series([[text(HOUR)]], dtype=object)})
    with pytest.raises(InputError, match="the prompt has a cache mark of an hour"):
        prompts.claude_batch.preview("q", tools=[tool(SHORT)])
    with pytest.raises(InputError, match="an earlier answer has a cache mark of an hour"):
        FRAME.claude_batch.preview("q", tools=[tool(SHORT)], few_shot=[("Is it?", [text(HOUR)])])


def test_the_mark_of_cache_system_stands_in_order_beside_the_users_own() -> None:
    """`cache_system=True` builds a valid request beside marks of the user's own, or says no."""
    for own in ({"system": [text(SHORT), text()]}, {"system": "s", "tools": [tool(SHORT)]}):
        with pytest.raises(InputError, match="cache_system=True"):
            FRAME.claude_batch.preview("q", cache_system=True, **own)
    with pytest.raises(InputError, match="cache_system=True"):
        FRAME.claude_batch.preview("q", cache_system=True, system="s", extra_params={"tools": [tool(SHORT)]})
    (request, _) = FRAME.claude_batch.preview("q", cache_system=True, system=[text(HOUR), text(SHORT)])
    assert [block["cache_control"] for block in request["params"]["system"]] == [HOUR, SHORT]


def test_what_is_passed_on_unchecked_is_not_checked() -> None:
    """`extra_params` may hold what is not known yet, such as a longer life of a mark."""
    odd = {
        "stop_sequences": ["\n"],
        "tools": [tool({"type": "ephemeral", "ttl": "24h"})],
        "thinking": {"type": "later"},
    }
    (request, _) = FRAME.claude_batch.preview("q", extra_params=odd)
    assert odd.items() <= request["params"].items()


def test_thinking_between_tools_may_have_a_budget_of_all_turns() -> None:
    """With that beta the budget is not that of one answer, and may be above its `max_tokens`."""
    FRAME.claude_batch.preview("q", thinking=THINKING, tools=[TOOL], betas=["interleaved-thinking-2025-05-14"])
    with pytest.raises(InputError):
        FRAME.claude_batch.preview("q", thinking=THINKING, betas=["interleaved-thinking-2025-05-14"])


def test_a_retry_with_other_parameters_is_checked_too(api: simulator.Simulator, clock: Any) -> None:
    """A retry pays like a first call: what its changes make impossible is refused before anything is sent."""
    api.answer = lambda params: simulator.Reply(error=("overloaded_error", "no"))
    run = settled(ask(TEXTS, api, clock))
    before = len(api.batches)
    with pytest.raises(InputError, match=r"max_tokens=3072"):
        run.retry_failed(thinking=THINKING)
    assert len(api.batches) == before


CLIENT_OPTIONS = ["betas", "extra_body", "extra_headers", "extra_query", "timeout", "stream", "max_retries", "base_url"]


@pytest.mark.parametrize("name", [*CLIENT_OPTIONS, "workspace_id", "user_profile_id", "max_cost_usd", "prompt"])
def test_options_are_no_fields_of_a_request(api: simulator.Simulator, name: str) -> None:
    """Options of the SDK's calls and clients, headers, and our own options are refused among the parameters."""
    with pytest.raises(InputError):
        FRAME.claude_batch.preview("q", extra_params={name: {}})
    with BatchClient(client=api.client()) as client, pytest.raises(InputError):
        client.submit(
            [BatchRequest("a", "?", params={"extra_params": {name: {}} if name in CLIENT_OPTIONS else {}, name: 1})]
        )


@pytest.mark.parametrize(
    ("name", "header"), [("workspace_id", "anthropic-workspace-id"), ("user_profile_id", "anthropic-user-profile-id")]
)
def test_what_is_a_header_is_refused_with_the_client_that_sends_it(name: str, header: str) -> None:
    """The SDK takes it as a parameter and sends it as a header; a batch has one for all its rows."""
    for options in ({name: "x_1"}, {"extra_params": {name: "x_1"}}):
        with pytest.raises(InputError) as raised:
            FRAME.claude_batch.preview("q", **options)
        assert f'default_headers={{"{header}"' in raised.value.hint
