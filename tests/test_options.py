"""Options: every keyword of the contract, checked before anything happens."""

from __future__ import annotations

import dataclasses
import json
from enum import Enum
from typing import Any, Literal

import numpy as np
import pandas as pd
import pydantic
import pytest

from pandas_batch.columns import ALL_COLUMNS, CORE_COLUMNS
from pandas_batch.errors import InputError, UnknownOptionError, clip
from pandas_batch.requests import option_checks
from pandas_batch.requests.option_checks import CHECKS
from pandas_batch.requests.options import Options, parse_options
from pandas_batch.types import DEFAULT_MODEL, Prompt


class Answer(pydantic.BaseModel):
    score: float


DEFAULTS: dict[str, Any] = {
    "prompt_col": None,
    "prompt": None,
    "few_shot": (),
    "system": None,
    "model": DEFAULT_MODEL,
    "max_tokens": 1024,
    "images_col": None,
    "documents_col": None,
    "output_schema": None,
    "schema_prefix": None,
    "cache_system": False,
    "warm_cache": False,
    "samples": 1,
    "extra_params": {},
    "betas": (),
    "prefix": "",
    "overwrite": False,
    "columns": "core",
    "on_missing": "skip",
    "on_unsendable": "raise",
    "dedupe": True,
    "reuse": True,
    "max_cost_usd": None,
    "prices": None,
    "preflight": True,
    "name": None,
    "client": None,
    "store": None,
    "lost_answer_grace": 600,
    "poll_interval": None,
    "timeout": None,
    "progress": "auto",
    "nested": False,
    "retries": 0,
    "on_done": None,
}

PLAIN: dict[str, Any] = {
    "prompt_col": ("reviews", "text"),
    "few_shot": [("good?", "yes"), ([{"type": "text", "text": "bad?"}], "no")],
    "system": "Be brief.",
    "model": "claude-sonnet-5",
    "max_tokens": np.int64(99),
    "images_col": "photo",
    "documents_col": 7,
    "output_schema": {"type": "object", "properties": {"a": {"type": "string"}}},
    "schema_prefix": "s_",
    "cache_system": True,
    "warm_cache": True,
    "samples": 3,
    "extra_params": {"temperature": np.float64(0.5)},
    "betas": ["output-300k-2026-03-24"],
    "prefix": "p_",
    "overwrite": True,
    "columns": ["output", "error"],
    "on_missing": "raise",
    "on_unsendable": "skip",
    "dedupe": False,
    "reuse": False,
    "max_cost_usd": 5,
    "prices": {"my-model": (1, 5)},
    "preflight": False,
    "name": "nightly",
    "store": "/tmp/elsewhere",
    "lost_answer_grace": 60,
    "poll_interval": 0.5,
    "timeout": 3600,
    "progress": "off",
    "nested": True,
    "retries": 2,
    "stop_sequences": ["END"],
    "thinking": {"type": "enabled", "budget_tokens": np.int32(2048)},
    "metadata": {"user_id": "u1"},
}


def test_the_defaults_are_those_of_the_contract() -> None:
    """Nothing given is what the table says, and the table is whole."""
    options = parse_options({})
    assert {f.name for f in dataclasses.fields(options)} == {*DEFAULTS, "params", "budget_from_environment"}
    for name, value in DEFAULTS.items():
        assert getattr(options, name) == value, name
    assert not options.params


def test_plain_options_survive_a_restart() -> None:
    """What is plain is remembered with the run, through JSON, and comes back equal."""
    options = parse_options(PLAIN)
    assert options.not_remembered == ()
    stored = json.loads(json.dumps(options.to_json(), allow_nan=False))
    back = Options.from_json(stored)
    for f in dataclasses.fields(options):
        # How long to wait is of the call alone: whoever comes back waits as long as it takes.
        kept = None if f.name == "timeout" else getattr(options, f.name)
        assert getattr(back, f.name) == kept, f.name
    assert back.params["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert back.prompt_col == ("reviews", "text")


def test_each_plain_option_alone_survives_a_restart() -> None:
    """No option needs another one to be remembered."""
    for name, value in PLAIN.items():
        together = {"system": "S", "cache_system": True} if name in ("cache_system", "warm_cache") else {}
        options = parse_options({**together, name: value})
        back = Options.from_json(json.loads(json.dumps(options.to_json())))
        given = back.params.get(name, getattr(back, name, None))
        kept = None if name == "timeout" else options.params.get(name, getattr(options, name, None))
        assert given == kept, name


def test_what_is_not_plain_is_named_and_given_again() -> None:
    """Callables, Series, schema classes and labels that JSON does not have are named; the client never is."""
    options = parse_options(
        {
            "prompt": lambda df: df["a"],
            "system": pd.Series(["x"]),
            "max_tokens": lambda df: df["n"],
            "metadata": lambda df: df["m"],
            "output_schema": {"score": Literal["a", "b"]},
            "images_col": pd.Timestamp("2026-01-01"),
            "client": object(),
            "stop_sequences": ["END"],
        }
    )
    assert options.not_remembered == ("images_col", "max_tokens", "metadata", "output_schema", "prompt", "system")
    stored = options.to_json()
    assert not {*options.not_remembered, "client"} & stored.keys()
    back = Options.from_json(stored, system="again", max_tokens=5)
    assert (back.system, back.max_tokens, back.params["stop_sequences"]) == ("again", 5, ["END"])
    assert parse_options({"output_schema": Answer}).not_remembered == ("output_schema",)


def test_a_schema_is_remembered_in_its_order() -> None:
    """The JSON of a schema, also of a class, is kept to the letter by a store that sorts; an older store is read."""
    schema = {
        "type": "object",
        "properties": {"z": {"type": "string"}, "a": {"type": "string"}},
        "required": ["z", "a"],
    }
    stored = json.dumps(parse_options({"output_schema": schema}).to_json(), sort_keys=True)
    assert json.dumps(Options.from_json(json.loads(stored)).output_schema) == json.dumps(schema)
    of_class = json.loads(json.dumps(parse_options({"output_schema": Answer}).to_json(), sort_keys=True))
    assert Options.from_json(of_class).output_schema == Answer.model_json_schema()
    assert Options.from_json(of_class, output_schema=Answer).output_schema is Answer
    assert Options.from_json({"output_schema": schema}).output_schema == schema


def test_the_model_of_a_stored_run_does_not_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is remembered with the model it was made with, also where that was the default."""
    stored = parse_options({}).to_json()
    monkeypatch.setenv("PANDAS_BATCH_MODEL", "claude-opus-5")
    assert Options.from_json(stored).model == DEFAULT_MODEL
    assert parse_options({}).model == "claude-opus-5"
    assert parse_options({"model": "claude-sonnet-5"}).model == "claude-sonnet-5"


def test_the_budget_of_the_environment_is_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """PANDAS_BATCH_MAX_COST_USD holds where the call says nothing, and has to be a number."""
    monkeypatch.setenv("PANDAS_BATCH_MAX_COST_USD", "2.50")
    assert parse_options({}).max_cost_usd == 2.5
    assert parse_options({"max_cost_usd": 1}).max_cost_usd == 1
    assert parse_options({}).budget_from_environment
    assert not parse_options({"max_cost_usd": 2.5}).budget_from_environment
    assert parse_options({"max_cost_usd": float("inf")}).max_cost_usd == float("inf")
    for wrong in ("much", "nan", "-1", "inf"):
        monkeypatch.setenv("PANDAS_BATCH_MAX_COST_USD", wrong)
        with pytest.raises(InputError, match="PANDAS_BATCH_MAX_COST_USD"):
            parse_options({})


def test_a_budget_without_end_and_one_of_the_environment_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a retry may spend is what its run was told: an infinite budget outlives JSON, and so does whose it was."""
    monkeypatch.setenv("PANDAS_BATCH_MAX_COST_USD", "2.50")
    for given in ({}, {"max_cost_usd": float("inf")}, {"max_cost_usd": 2.5}):
        options = parse_options(given)
        again = Options.from_json(json.loads(json.dumps(options.to_json(), allow_nan=False)))
        assert again.max_cost_usd == options.max_cost_usd
        assert again.budget_from_environment == options.budget_from_environment == (not given)


def test_an_unknown_keyword_is_a_type_error_with_a_suggestion() -> None:
    """As Python's own unknown keyword, but with the nearest name; and still one of this package's errors."""
    with pytest.raises(TypeError, match="did you mean max_tokens=") as caught:
        parse_options({"max_token": 5})
    assert isinstance(caught.value, UnknownOptionError | InputError)


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_parameters_get_a_sentence_of_their_own(name: str) -> None:
    """They were removed from the API: the error says since when, and the way that is left."""
    with pytest.raises(TypeError, match="2026-10-21"):
        parse_options({name: 1})
    assert parse_options({"extra_params": {name: 1}}).extra_params == {name: 1}


@pytest.mark.parametrize("name", ["stream", "speed", "fallbacks", "extra_headers", "extra_body", "messages"])
def test_what_batches_refuse_is_refused_here(name: str) -> None:
    """The API would only tell after the whole batch has ended."""
    with pytest.raises(TypeError, match=r"batch|rows"):
        parse_options({name: True, "betas": ["some-beta"]})


def test_beta_parameters_need_their_header() -> None:
    """A parameter of the beta endpoint is taken with `betas`, and without them the error says so."""
    servers = [{"type": "url", "name": "a", "url": "https://example.com"}]
    with pytest.raises(TypeError, match="beta parameter"):
        parse_options({"mcp_servers": servers})
    options = parse_options({"mcp_servers": servers, "betas": ["mcp-client-2025-11-20"]})
    assert options.params["mcp_servers"] == servers


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("stop_sequences", "END", "stop_sequences is 'END'; it has to be a list"),
        ("stop_sequences", ["a", 1], "stop_sequences[1] is 1"),
        ("thinking", {"type": "enabledd"}, "did you mean 'enabled'"),
        ("thinking", {"type": "enabled"}, "lacks 'budget_tokens'"),
        ("metadata", {"user": "x"}, "did you mean 'user_id'"),
        ("output_config", {"effort": "max!"}, "output_config['effort'] is 'max!'"),
        ("tools", {"name": "x"}, "tools is a dict; it has to be a list"),
        ("tools", [{"name": "x"}], "tools[0] lacks 'input_schema'"),
        ("tools", [{"type": "web_serch_20250305", "name": "web_search"}], "did you mean 'web_search_20250305'"),
        ("system", [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "2h"}}], "'2h'"),
        ("service_tier", "batch", "service_tier is 'batch'; known are 'auto', 'standard_only'"),
    ],
)
def test_the_shape_of_a_parameter_is_checked_against_the_sdk(name: str, value: Any, place: str) -> None:
    """A wrong nested value is named with its place, before it can cost a batch."""
    with pytest.raises(InputError) as caught:
        parse_options({name: value})
    assert place in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("thinking", {"type": "adaptive"}),
        ("tools", [{"name": "x", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}]),
        ("tools", [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]),
        ("tool_choice", {"type": "auto"}),
        ("output_config", {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"}),
        ("cache_control", {"type": "ephemeral", "ttl": "1h"}),
        ("inference_geo", "us"),
        ("container", "container_1"),
        ("system", [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]),
    ],
)
def test_parameters_as_the_documentation_writes_them_pass(name: str, value: Any) -> None:
    """The check refuses nothing that the SDK's own types allow."""
    options = parse_options({name: value})
    assert options.given(name) == value


def test_numpy_and_tuples_become_json_and_nothing_else_does() -> None:
    """Nested numpy scalars and tuples are converted; NaN, sets, bytes, dates and Series are refused by place."""
    extra = parse_options({"extra_params": {"a": (np.int64(1), np.float32(0.5), np.bool_(True), np.str_("x"))}})
    assert json.dumps(extra.extra_params["a"]) == '[1, 0.5, true, "x"]'
    assert extra.extra_params["a"][2] is True
    for wrong in (
        np.nan,
        np.inf,
        pd.NA,
        pd.NaT,
        {1},
        b"x",
        pd.Timestamp(0),
        pd.Series([1]),
        Enum("E", "a").a,
        object(),
    ):
        with pytest.raises(InputError, match=r"extra_params\['a'\]\[0\]"):
            parse_options({"extra_params": {"a": [wrong]}})


def test_a_structured_prompt_is_its_text() -> None:
    """`Prompt` is rendered when the options are read, so that it is remembered as text."""
    assert parse_options({"system": Prompt(role="judge")}).system == "Role: judge"
    assert parse_options({"system": ""}).system is None


def test_no_value_stands_in_a_repr() -> None:
    """Options may hold prompts, and a client holds a key: a repr shows names only."""
    shown = repr(parse_options({"system": "SECRET", "few_shot": [("SECRET", "x")], "metadata": {"user_id": "SECRET"}}))
    assert "SECRET" not in shown
    assert "system" in shown


def test_options_are_frozen() -> None:
    """A call cannot be changed after it was checked."""
    options = parse_options({"extra_params": {"a": 1}})
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.model = "other"
    with pytest.raises(TypeError):
        options.extra_params["a"] = 2


def test_the_prompt_column_is_given_once() -> None:
    """As the first argument or as a keyword, not both; a template excludes a column."""
    assert parse_options({"prompt_col": "a"}).prompt_col == "a"
    assert parse_options({}, prompt_col=0).prompt_col == 0
    with pytest.raises(InputError, match="twice"):
        parse_options({"prompt_col": "a"}, prompt_col="b")
    with pytest.raises(InputError, match="one prompt"):
        parse_options({"prompt": "{a}"}, prompt_col="a")


def test_columns_are_names_of_this_package() -> None:
    """core and all are the contract's lists, and a list of names is taken in its order."""
    assert parse_options({}).column_names == CORE_COLUMNS
    assert parse_options({"columns": "all"}).column_names == ALL_COLUMNS
    assert parse_options({"columns": ["error", "output", "error"]}).column_names == ("error", "output")


def test_every_option_has_a_check_or_needs_none() -> None:
    """No option takes whatever it is given, save those that say later what they take."""
    unchecked = {f.name for f in dataclasses.fields(Options)} - CHECKS.keys()
    assert unchecked == {"params", "client", "budget_from_environment"}


@pytest.mark.parametrize(
    ("name", "is_taken"),
    [
        ("\u0645\u06cc\u200c\u0634\u0648\u062f", True),
        ("\u0915\u094d\u200d\u0937", True),
        ("\U0001f469\u200d\U0001f52c lab", True),
        ("\u2764\ufe0f\u200d\U0001f525", True),
        ("e\u0301t\u00e9", True),
        ("ad\u200dmin", False),
        ("\u200d", False),
        ("a\u202eb", False),
        ("\u06cc\u202e", False),
        ("a\u200bb", False),
        ("a\ufeff", False),
        ("a\nb", False),
    ],
)
def test_a_name_is_written_as_its_script_is_written(name: str, is_taken: bool) -> None:
    """Joiners of scripts and of emoji belong to the word; what is not seen, or turns the direction, is refused."""
    if is_taken:
        assert option_checks.check_name(name, "name") == name
        assert clip(name) == name
    else:
        with pytest.raises(InputError):
            option_checks.check_name(name, "name")
        assert clip(name) != name
