"""What each option takes: one check per option, each returning the value in the form that is kept."""

from __future__ import annotations

import difflib
import math
import typing
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pandas_batch.columns import COLUMN
from pandas_batch.errors import KEY, InputError, is_one_line
from pandas_batch.types import Prompt

from .keys import HOW_TO_GIVE_A_KEY
from .labels import with_plain_labels
from .parameters import check_parameter, check_unchecked_names, whole_number
from .plain_values import exact_text, is_sendable_text, kind_of, plain, quoted, shown

MAX_RETRIES = 10
_MOST = 1e300
_MOST_SECONDS = 1e9
"""Longer than anybody waits; what takes a timeout of the system fails on ten times as much."""
MAX_SAMPLES = 1000


def is_per_row(value: Any) -> bool:
    """Return whether an option's value is one value per row: a Series, an array, or a callable that makes one."""
    import numpy as np
    import pandas as pd

    if isinstance(value, np.ndarray):
        return value.ndim == 1  # a list is a value of the parameter itself
    # What typing makes of types (a Literal, a list[str]) is callable too, and is none.
    is_type = isinstance(value, type | Prompt) or typing.get_origin(value) is not None
    return isinstance(value, pd.Series) or (callable(value) and not is_type)


def is_plain_schema(schema: Any) -> bool:
    """Return whether an output schema is plain JSON, which a store can remember."""
    if isinstance(schema, Mapping):
        return all(is_plain_schema(value) for value in schema.values())
    if isinstance(schema, list | tuple):
        return all(is_plain_schema(value) for value in schema)
    return schema is None or isinstance(schema, str | int | float)


def one_of(*choices: str) -> Callable[[Any, str], str]:
    """Return the check of an option with a fixed set of words."""

    def check(value: Any, name: str) -> str:
        if not isinstance(value, str) or value not in choices:
            raise InputError(f"{name} is {shown(value)}; it has to be one of {', '.join(map(repr, choices))}.")
        return exact_text(value)

    return check


def check_yes_or_no(value: Any, name: str) -> bool:
    """Return True or False, and take nothing that merely looks like it."""
    import numpy as np

    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} is {shown(value)}; it has to be True or False.")
    return bool(value)


def check_function(value: Any, name: str) -> Any:
    """Return something that can be called."""
    if not callable(value):
        raise InputError(f"{name} is {shown(value)}; it has to be a function, which gets the run.")
    return value


def amount(*, zero: bool, unit: str, endless: bool = False) -> Callable[[Any, str], float]:
    """Return the check of an option that is an amount: not negative, not zero unless `zero`, infinite if `endless`."""

    def check(value: Any, name: str) -> float:
        import numpy as np

        if isinstance(value, np.number):
            value = value.item()
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        if (
            number is None
            or not (0 <= number < math.inf or (endless and number == math.inf))
            or (number == 0 and not zero)
        ):
            raise InputError(
                f"{name} is {shown(value)}; it has to be a number of {unit} {'from' if zero else 'above'} 0."
            )
        most = _MOST_SECONDS if unit == "seconds" else _MOST
        if most < number < math.inf:
            raise InputError(f"{name} is a number of {unit} that no computer can hold.")
        return float(number)

    return check


def check_environment_amount(text: str) -> float:
    """Read the budget from the environment's text."""
    try:
        return amount(zero=True, unit="US dollars")(float(text), "PANDAS_BATCH_MAX_COST_USD")
    except ValueError:
        raise InputError(
            f"The environment's PANDAS_BATCH_MAX_COST_USD is {quoted(text, 40)}; it has to be a number from 0.",
            hint="export PANDAS_BATCH_MAX_COST_USD=5.00   # or max_cost_usd=5.00",
        ) from None


def check_text(value: Any, name: str) -> str:
    """Return a text that can be sent."""
    if not isinstance(value, str):
        raise InputError(f"{name} is {shown(value)}; it has to be text.")
    if KEY.search(value):
        raise InputError(f"{name} holds a key, which would be written to the store.", hint=HOW_TO_GIVE_A_KEY)
    if not is_sendable_text(value):
        raise InputError(f"{name} holds a lone surrogate, which is not text.")
    return exact_text(value)


def check_name(value: Any, name: str) -> str:
    """Return a run's name: short, and printable on one line."""
    text = check_text(value, name)
    if not text.strip() or not is_one_line(text) or len(text) > 200:
        raise InputError(f"{name} is {quoted(text)}; it has to be 1 to 200 printable characters.")
    return text


def check_texts(value: Any, name: str) -> tuple[str, ...]:
    """Return header values: plain ASCII words, without repetition."""
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, Collection) or isinstance(values, Mapping):
        raise InputError(f"{name} is {shown(value)}; it has to be a list of texts.")
    for item in values:
        if isinstance(item, str) and KEY.search(item):
            raise InputError(f"{name} holds a key, which is not shown.", hint=HOW_TO_GIVE_A_KEY)
        if not isinstance(item, str) or not item.strip() or not item.isascii() or not item.isprintable() or "," in item:
            raise InputError(
                f"{name} holds {shown(item)}, which is not a header's value.", hint=f'{name}=["output-300k-2026-03-24"]'
            )
    return tuple(dict.fromkeys(item.strip() for item in values))


def check_columns(value: Any, name: str) -> str | tuple[str, ...]:
    """Return ``"core"``, ``"all"``, or names of columns that are added."""
    if isinstance(value, str) and value in ("core", "all"):
        return value
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise InputError(
            f'{name} is {shown(value)}; it has to be "core", "all", or a list of names.',
            hint='columns=["output", "error"]',
        )
    unknown = [item for item in value if item not in COLUMN]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), COLUMN, n=1)
        raise InputError(
            f"{name} names {shown(unknown[0])}, which is not one of the columns that are added.",
            hint=f"did you mean {close[0]!r}?" if close else f"known: {', '.join(COLUMN)}",
        )
    return tuple(dict.fromkeys(value))


def check_few_shot(value: Any, name: str) -> tuple[tuple[Any, Any], ...]:
    """Return example pairs of question and answer, made plain."""
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise InputError(
            f"{name} is {kind_of(value)}; it has to be a list of pairs.", hint='few_shot=[("question", "answer"), ...]'
        )
    pairs = []
    for i, pair in enumerate(value):
        if isinstance(pair, str | Mapping) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(
                f"{name}[{i}] is not a pair of a question and its answer.",
                hint='few_shot=[("question", "answer"), ...]',
            )
        for part in pair:
            if not isinstance(part, str | list | tuple) or not part or (isinstance(part, str) and not part.strip()):
                raise InputError(
                    f"{name}[{i}] holds {kind_of(part) if part else 'an empty part'}; a part is text or content blocks."
                )
        pairs.append((plain(pair[0], f"{name}[{i}]"), plain(pair[1], f"{name}[{i}]")))
    return tuple(pairs)


def check_prompt(value: Any, name: str) -> Any:
    """Return a template, a callable or a Series; a template is parsed when the frame is known."""
    if not isinstance(value, str) and not is_per_row(value):
        raise InputError(
            f"{name} is {kind_of(value)}; it has to be a template, a callable, or a Series.",
            hint='prompt="Classify: {title}"',
        )
    return value


def check_label(value: Any, name: str) -> Hashable:
    """Return a column's label."""
    if not isinstance(value, Hashable) or is_per_row(value):
        way_out = (
            "prompt=... takes a callable or a Series" if name == "prompt_col" and is_per_row(value) else f'{name}="..."'
        )
        raise InputError(f"{name} is {shown(value)}; it has to be the name of a column.", hint=way_out)
    return value


def check_prices(value: Any, name: str) -> dict[str, tuple[float, float]]:
    """Return prices in USD per million tokens by model."""
    hint = 'prices={"my-model": (1.0, 5.0)}  # USD per million input and output tokens, without the batch discount'
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {shown(value)}; it has to be a dict of model to (input, output).", hint=hint)
    made = {}
    for model, pair in value.items():
        if not isinstance(model, str) or not model.strip():
            raise InputError(f"{name} has {shown(model)} in place of a model's name.", hint=hint)
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(f"{name}[{quoted(model)}] is not a pair (input, output).", hint=hint)
        dollars = amount(zero=True, unit="US dollars")
        made[str(model)] = (
            dollars(pair[0], f"{name}[{quoted(model)}]"),
            dollars(pair[1], f"{name}[{quoted(model)}]"),
        )
    return made


def check_store(value: Any, name: str) -> str:
    """Return the store's path as text."""
    if not isinstance(value, str | Path) or not str(value).strip():
        raise InputError(f"{name} is {shown(value)}; it has to be a path.", hint='store="~/.pandas_batch"')
    if KEY.search(str(value)):
        raise InputError(f"{name} is a key, which is not shown.", hint=HOW_TO_GIVE_A_KEY)
    return str(value)


def check_extra_params(value: Any, name: str) -> Mapping[str, Any]:
    """Return parameters that are sent unchecked, save that JSON has to hold them."""
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {shown(value)}; it has to be a dict.", hint='extra_params={"name": value}')
    if "messages" in value:
        raise InputError(
            "extra_params sets 'messages', which are made from the rows.", hint="prompt_col=, prompt= or few_shot="
        )
    made = plain(value, name)
    # Names of options are looked at where all of them are known.
    check_unchecked_names(made, (), name)
    return MappingProxyType(made)


def check_request_option(value: Any, name: str) -> Any:
    """Return an option of one request: checked where it is plain, as it is where it is per row."""
    return value if is_per_row(value) else check_parameter(name, value)


# The line to type next, for the options whose check has no better one.
EXAMPLES = {
    "few_shot": 'few_shot=[("question", "answer"), ...]',
    "system": 'system="Answer with one word."',
    "max_tokens": "max_tokens=1024",
    "schema_prefix": 'schema_prefix="answer_"',
    "cache_system": 'system="...", cache_system=True',
    "warm_cache": 'system="...", cache_system=True, warm_cache=True',
    "samples": "samples=3",
    "extra_params": 'extra_params={"name": value}',
    "betas": 'betas=["output-300k-2026-03-24"]',
    "prefix": 'prefix="summary_"',
    "overwrite": "overwrite=True",
    "on_missing": 'on_missing="raise"',
    "on_unsendable": 'on_unsendable="skip"',
    "dedupe": "dedupe=False",
    "reuse": "reuse=False",
    "max_cost_usd": "max_cost_usd=5.00",
    "prices": 'prices={"my-model": (1.0, 5.0)}',
    "preflight": "preflight=False",
    "name": 'name="nightly"',
    "lost_answer_grace": "lost_answer_grace=600",
    "poll_interval": "poll_interval=10",
    "timeout": "timeout=3600",
    "progress": 'progress="text"',
    "nested": "nested=True",
    "retries": "retries=2",
    "on_done": "on_done=lambda run: print(run.status)",
}
CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "prompt_col": check_label,
    "prompt": check_prompt,
    "few_shot": check_few_shot,
    "system": check_request_option,
    "model": check_request_option,
    "max_tokens": check_request_option,
    "images_col": check_label,
    "documents_col": check_label,
    "output_schema": lambda value, _: with_plain_labels(value),
    "schema_prefix": check_text,
    "cache_system": check_yes_or_no,
    "warm_cache": check_yes_or_no,
    "samples": lambda value, name: whole_number(value, name, at_most=MAX_SAMPLES),
    "extra_params": check_extra_params,
    "betas": check_texts,
    "prefix": check_text,
    "overwrite": check_yes_or_no,
    "columns": check_columns,
    "on_missing": one_of("skip", "raise"),
    "on_unsendable": one_of("raise", "skip"),
    "dedupe": check_yes_or_no,
    "reuse": check_yes_or_no,
    "max_cost_usd": amount(zero=True, unit="US dollars", endless=True),
    "prices": check_prices,
    "preflight": check_yes_or_no,
    "name": check_name,
    "store": check_store,
    "lost_answer_grace": amount(zero=True, unit="seconds"),
    "poll_interval": amount(zero=False, unit="seconds"),
    "timeout": amount(zero=True, unit="seconds"),
    "progress": one_of("auto", "widget", "text", "off"),
    "nested": check_yes_or_no,
    "on_done": check_function,
    "retries": lambda value, name: whole_number(value, name, at_least=0, at_most=MAX_RETRIES),
}
