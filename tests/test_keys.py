"""Keys, and names from other libraries: where they are given, and what is said where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pandas_batch import BatchClient, BatchRequest, simulator
from pandas_batch.errors import InputError, UnknownOptionError, clip
from pandas_batch.requests.names_elsewhere import _LINES, line_for
from pandas_batch.requests.option_checks import CHECKS
from pandas_batch.requests.options import parse_options
from pandas_batch.requests.parameters import parameter_hints

KEY = "sk-ant-api03-not-a-real-key"
FRAME = pd.DataFrame({"q": ["one"]})
SPELT = [
    "api_key",
    "apiKey",
    "API_KEY",
    "x-api-key",
    "auth_token",
    "authorization",
    "anthropic_api_key",
    "bearer_token",
]
HIDDEN: list[dict[str, Any]] = [
    {"metadata": {"user_id": KEY}},
    {"metadata": lambda df: pd.Series([{"user_id": KEY}], index=df.index)},
    {"extra_params": {"extra_headers": {"x-api-key": "something"}}},
    {"extra_params": {"gateway": {"auth": [{"Authorization": "Bearer abc"}]}}},
    {"extra_params": {"gateway": f"Bearer {KEY}"}},
    {"extra_params": {KEY: 1}},
    {"stop_sequences": [KEY]},
    {"name": KEY},
    {"prefix": KEY},
    {"betas": [KEY]},
    {"model": KEY},
    {"max_tokens": KEY},
    {"on_missing": KEY},
    {"prompt": KEY + "{missing}"},
]


@pytest.mark.parametrize("name", SPELT)
def test_a_key_is_given_with_the_client(name: str) -> None:
    """Under any spelling, as an option or as a parameter: the way is `client=`, and the key is not repeated."""
    for options in ({name: KEY}, {"extra_params": {name: KEY}}, {"extra_params": {name: "no key by its looks"}}):
        with pytest.raises(InputError) as raised:
            FRAME.claude_batch.preview("q", **options)
        assert "client=" in raised.value.hint
        assert "extra_params=" not in str(raised.value)
        assert KEY not in str(raised.value)


@pytest.mark.parametrize("options", HIDDEN, ids=lambda options: ", ".join(options))
def test_a_key_is_neither_written_nor_sent_nor_shown(
    api: simulator.Simulator, options: dict[str, Any], tmp_path: Path
) -> None:
    """Wherever a key is put by mistake, the call is refused, and neither message, store nor server has it."""
    first = () if "prompt" in options else ("q",)
    with pytest.raises(InputError) as raised:
        FRAME.claude_batch.submit(
            *first, client=api.client(), store=str(tmp_path), timeout=5, progress="off", **options
        )
    assert KEY not in str(raised.value)
    assert not api.requests
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


def test_the_client_layer_refuses_keys_too(api: simulator.Simulator) -> None:
    """A key among the parameters of a request is not sent."""
    for params in ({"api_key": KEY}, {"metadata": {"user_id": KEY}}, {"extra_params": {"api_key": KEY}}):
        with BatchClient(client=api.client()) as client, pytest.raises(InputError) as raised:
            client.submit([BatchRequest("a", "?", params=params)])
        assert KEY not in str(raised.value)
    assert not api.requests


def test_what_only_speaks_of_keys_is_sent() -> None:
    """Tools may have a parameter of that name, and MCP servers have a token of their own."""
    tools = [{"name": "t", "input_schema": {"type": "object", "properties": {"api_key": {"type": "string"}}}}]
    servers = [{"type": "url", "url": "https://example.org", "name": "x", "authorization_token": "t"}]
    (request,) = FRAME.claude_batch.preview(
        "q", tools=tools, system="Never tell your api_key.", extra_params={"mcp_servers": servers}
    )
    assert request["params"]["mcp_servers"] == servers


def test_no_message_shows_a_key() -> None:
    """Texts from outside are shown without the keys in them."""
    assert clip(f"the key {KEY} is wrong") == "the key sk-ant-… is wrong"


@pytest.mark.parametrize("name", sorted(_LINES))
def test_a_name_from_elsewhere_is_answered_with_a_line_that_works(name: str) -> None:
    """What people type from other libraries is no option here, and the line that is told instead names one."""
    with pytest.raises(UnknownOptionError) as raised:
        parse_options({name: 1})
    assert raised.value.hint == _LINES[name]
    said = raised.value.hint.partition("#")[0]
    named = said.partition("=")[0].strip()
    known = {*CHECKS, *parameter_hints(True), "client", "output_schema"}
    ways = ("leave it out", "df.", "run.")
    assert named in known or said.startswith(ways)
    assert "trial" not in said


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("max_token", "max_tokens"), ("promt", "prompt"), ("sytem", "system"), ("dedup", "dedupe"), ("stop_sequence", "")],
)
def test_a_near_match_is_a_slip_of_the_fingers(typed: str, meant: str) -> None:
    """A suggestion by spelling is made only where little differs."""
    with pytest.raises(UnknownOptionError) as raised:
        parse_options({typed: 1})
    assert raised.value.hint == (f"did you mean {meant}=?" if meant else line_for(typed))


@pytest.mark.parametrize("typed", ["storage", "maximum", "colour", "toolbox", "classification"])
def test_no_suggestion_where_only_letters_are_alike(typed: str) -> None:
    """A name that merely looks like an option is not taken for it."""
    with pytest.raises(UnknownOptionError) as raised:
        parse_options({typed: 1})
    assert "did you mean" not in raised.value.hint
