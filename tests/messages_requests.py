"""Wrong values of every option that describes requests; their messages stand in messages.txt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from pandas_batch.requests.options import parse_options
from pandas_batch.requests.plan import plan_requests

SECRET = "the text of a prompt"

LABELS = ["r1", "r2"]


def objects(*cells: Any) -> pd.Series:
    return pd.Series(list(cells), index=LABELS, dtype=object)


FRAME = pd.DataFrame(
    {
        "review": ["good", "bad"],
        "title": ["A", "B"],
        "n": [1, 2],
        "mixed": objects(SECRET, 5),
        "surrogate": objects("fine", SECRET + "\ud83d"),
        "blocks": objects([{"type": "text", "text": SECRET}], [SECRET]),
        "missing": ["x", None],
        "photo": ["/nowhere/photo.png", None],
    },
    index=LABELS,
)

OPTIONS: dict[str, list[Any]] = {
    "prompt_col": [["review"], {"review": 1}],
    "prompt": [5, ["{title}"], None],
    "few_shot": ["question", [("question",)], [("q", "")], [(1, 2)], {"q": "a"}, [("q", "\ud83d")]],
    "system": [
        5,
        ["text"],
        [{"type": "image"}],
        [{"type": "text", "text": "x", "cache": 1}],
        {"type": "text"},
        "\ud83d",
    ],
    "model": [5, "", "two\nlines", ["claude"]],
    "max_tokens": [0, -1, 1.5, "many", True, [5], np.array([5])],
    "images_col": [["photo"]],
    "documents_col": [{"a"}],
    "schema_prefix": [5],
    "cache_system": ["yes", 1, True],
    "warm_cache": ["yes", True],
    "samples": [0, 1.5, 10_000, "3", True],
    "betas": [5, ["two words, and a comma"], [5], {"beta": True}, ["bêta"]],
    "extra_params": ["temperature", {"messages": []}, {"model": "x"}, {"a": np.nan}, {"a": {1, 2}}, {1: 2}],
    "retries": [-1, 11, 1.5, "2", True],
    "prefix": [5, None, "\ud83d"],
    "overwrite": ["no", 0],
    "columns": ["output", [], ["outputs"], [5], 5, {"output": 1}],
    "on_missing": ["drop", 5],
    "on_unsendable": ["ignore", None],
    "dedupe": ["no"],
    "reuse": [0],
    "max_cost_usd": [-1, float("nan"), -float("inf"), "5", True],
    "prices": [5, {"m": 5}, {"m": (1,)}, {"m": (1, -5)}, {"m": ("1", "5")}, {5: (1, 5)}],
    "preflight": ["yes"],
    "name": ["", " ", "two\nlines", "x" * 201, 5],
    "store": [5, ""],
    "lost_answer_grace": [-1, "10 min"],
    "poll_interval": [0, -1, "2s", float("nan")],
    "timeout": [-1, "1h", True],
    "progress": ["bar", True],
    "nested": ["yes", 1],
    "on_done": ["print", 5],
}

PARAMETERS: dict[str, list[Any]] = {
    "max_token": [5],
    "temperature": [0.5],
    "top_p": [1],
    "top_k": [5],
    "stream": [True],
    "speed": ["fast"],
    "fallbacks": [[]],
    "extra_headers": [{}],
    "extra_body": [{}],
    "messages": [[]],
    "frobnicate": [1],
    "mcp_servers": [[]],
    "metadata": [{"user": "x"}, "x", {"user_id": 5}, pd.Series([{"user_id": None}], index=["r1"])],
    "stop_sequences": ["END", [5]],
    "thinking": [True, {"type": "enabledd"}, {"type": "enabled"}, {"type": "enabled", "budget_tokens": np.nan}],
    "tools": [{"name": "x"}, [{"name": "x"}], [{"type": "web_serch_20250305", "name": "web_search"}]],
    "tool_choice": ["auto"],
    "output_config": [{"effort": "most"}, {"format": {"type": "json_schema"}}],
    "service_tier": ["batch"],
    "user_id": [FRAME["n"]],
}

FRAMES: dict[str, dict[str, Any]] = {
    "no prompt at all": {},
    "a column that is not there": {"prompt_col": "revew"},
    "a column like no other": {"prompt_col": "zzz"},
    "a number for a column": {"prompt_col": 5},
    "a callable for a column": {"prompt_col": len},
    "a Series for a column": {"prompt_col": FRAME["review"]},
    "a column of numbers": {"prompt_col": "n"},
    "a column of texts and numbers": {"prompt_col": "mixed"},
    "a lone surrogate": {"prompt_col": "surrogate"},
    "blocks that are none": {"prompt_col": "blocks"},
    "a missing prompt": {"prompt_col": "missing", "on_missing": "raise"},
    "a template with an unknown field": {"prompt": "{titel}"},
    "a template with an attribute": {"prompt": "{title.upper}"},
    "a template with an item": {"prompt": "{title[0]}"},
    "a template with a position": {"prompt": "{0}"},
    "a template with a conversion": {"prompt": "{title!r}"},
    "a template with a nested field": {"prompt": "{title:{n}}"},
    "a template that is too wide": {"prompt": "{title:>99999}"},
    "a template with JSON": {"prompt": 'Answer {"a": 1} to {title}'},
    "a template with an open brace": {"prompt": "{title"},
    "a template with a closed brace": {"prompt": "title}"},
    "a template without a field": {"prompt": "Classify."},
    "a template that is a column": {"prompt": "review"},
    "a format that does not fit": {"prompt": "{title:d}"},
    "both prompts": {"prompt": "{title}", "prompt_col": "title"},
    "a callable that returns a list": {"prompt": lambda df: ["x", "y"]},
    "a Series of other labels": {"prompt_col": "review", "max_tokens": pd.Series([1, 2])},
    "a Series of repeated labels": {
        "prompt_col": "review",
        "max_tokens": pd.Series([1, 2, 3], index=["r1", "r1", "r2"]),
    },
    "a Series with a gap": {"prompt_col": "review", "max_tokens": pd.Series([1, None], index=["r1", "r2"])},
    "a Series with a wrong value": {"prompt_col": "review", "model": pd.Series(["m", 5], index=["r1", "r2"])},
    "an attachment that is not there": {"prompt_col": "review", "images_col": "photo"},
    "an attachment column that is not there": {"prompt_col": "review", "images_col": "foto"},
    "a schema with a dict": {"prompt_col": "review", "output_schema": {"scores": dict[str, int]}},
    "a schema with Any": {"prompt_col": "review", "output_schema": {"a": Any}},
    "a schema with a tuple": {"prompt_col": "review", "output_schema": {"a": tuple[int, int]}},
    "a schema that is a list": {"prompt_col": "review", "output_schema": list[str]},
    "a schema that is text": {"prompt_col": "review", "output_schema": "sentiment"},
    "a schema of names": {"prompt_col": "review", "output_schema": {"sentiment": "str"}},
    "labels without an order": {"prompt_col": "review", "output_schema": {"good", "bad"}},
    "labels with what they mean": {"prompt_col": "review", "output_schema": {"good": "it works", "bad": "it broke"}},
    "a frame for a schema": {"prompt_col": "review", "output_schema": pd.DataFrame({"a": [SECRET]})},
    "a schema and a format": {
        "prompt_col": "review",
        "output_schema": {"a": int},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    },
}


def plan(kwargs: dict[str, Any]) -> object:
    return plan_requests(FRAME, parse_options(kwargs), base_url="https://api.anthropic.com", api_version="2026-10-21")


def cases() -> dict[str, Callable[[], object]]:
    """Return what to call by the title of its case; None of an option is its default and no mistake."""
    made: dict[str, Callable[[], object]] = {}
    for name, values in {**OPTIONS, **PARAMETERS}.items():
        for value in values:
            if value is not None:
                shown = "a Series" if isinstance(value, pd.Series) else ascii(value)
                shown = shown if len(shown) < 80 else shown[:77] + "..."
                made[f"{name}={shown}"] = lambda name=name, value=value: plan({"prompt_col": "review", name: value})
    for title, kwargs in FRAMES.items():
        made[title] = lambda kwargs=kwargs: plan(kwargs)
    return made
