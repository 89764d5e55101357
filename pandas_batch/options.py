"""The options of a call, checked and frozen: what `submit`, `start`, `preview` and `estimate` all take."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .errors import InputError, clip
from .parameters import check_names, check_parameter, is_sendable_text, kind_of, plain, whole_number
from .types import DEFAULT_MAX_TOKENS, DEFAULT_MODEL, Prompt

CORE_COLUMNS = (
    "output",
    "status",
    "stop_reason",
    "input_tokens",
    "output_tokens",
    "tokens",
    "cost_usd",
    "error",
)
ALL_COLUMNS = (
    *CORE_COLUMNS,
    "cache_read_tokens",
    "cache_write_tokens",
    "thinking_tokens",
    "model",
    "reused",
    "custom_id",
    "batch_id",
    "message_id",
)
MAX_SAMPLES = 1000

_REQUEST_OPTIONS = ("model", "max_tokens", "system")


@dataclass(frozen=True, kw_only=True, eq=False)
class Options:
    """
    Every option of a call, checked. Made by `parse_options`; the table in the README says what each means.

    Attributes
    ----------
    params
        Further parameters of the Messages API: plain values, Series, or callables ``df -> Series``.
    extra_params
        Parameters that are sent unchecked.
    """

    prompt_col: Hashable = None
    prompt: str | Callable[..., Any] | None = None
    few_shot: tuple[tuple[Any, Any], ...] = ()
    system: Any = None
    model: Any = DEFAULT_MODEL
    max_tokens: Any = DEFAULT_MAX_TOKENS
    images_col: Hashable = None
    documents_col: Hashable = None
    output_schema: Any = None
    schema_prefix: str | None = None
    cache_system: bool = False
    warm_cache: bool = False
    samples: int = 1
    params: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    extra_params: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    betas: tuple[str, ...] = ()
    prefix: str = ""
    overwrite: bool = False
    columns: str | tuple[str, ...] = "core"
    on_missing: str = "skip"
    on_unsendable: str = "raise"
    dedupe: bool = True
    reuse: bool = True
    max_cost_usd: float | None = None
    prices: Mapping[str, tuple[float, float]] | None = None
    preflight: bool = True
    name: str | None = None
    client: Any = None
    store: str | None = None
    lost_answer_grace: float = 600.0
    poll_interval: float | None = None
    timeout: float | None = None
    progress: str = "auto"
    nested: bool = False

    def __repr__(self) -> str:
        # Values may be prompts, and a client holds a key: only names are shown.
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        given = [n for n, d in defaults.items() if n != "params" and getattr(self, n) is not d and getattr(self, n)]
        return f"Options({', '.join([*given, *self.params])})"

    @property
    def not_remembered(self) -> tuple[str, ...]:
        """Names of the options whose value is a callable, a Series or a schema class: to be given again."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["client"], values["params"], values["extra_params"]
        values |= self.params
        names = [name for name, value in values.items() if is_per_row(value)]
        if self.output_schema is not None and not is_plain_schema(self.output_schema):
            names.append("output_schema")
        for name in ("prompt_col", "images_col", "documents_col"):
            if not _is_json_label(getattr(self, name)):
                names.append(name)
        return tuple(sorted(set(names)))

    def to_json(self) -> dict[str, Any]:
        """Return the plain options as JSON's own types; `client` and what is `not_remembered` are left out."""
        made: dict[str, Any] = {}
        left_out = {"client", "params", "extra_params", *self.not_remembered}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name in left_out or (value is f.default and f.name not in _REQUEST_OPTIONS):
                continue
            if f.name in ("prompt_col", "images_col", "documents_col"):
                value = {"label": _label_to_json(value)}
            made[f.name] = _to_json(value)
        if params := {k: _to_json(v) for k, v in self.params.items() if k not in left_out}:
            made["params"] = params
        if self.extra_params:
            made["extra_params"] = _to_json(self.extra_params)
        return made

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], **again: Any) -> Options:
        """Return the options that `to_json` wrote, with those in `again` given anew."""
        kwargs = dict(stored)
        params = kwargs.pop("params", {})
        for name in ("prompt_col", "images_col", "documents_col"):
            if name in kwargs:
                kwargs[name] = _label_from_json(kwargs[name]["label"])
        if "prompt" in again or again.get("prompt_col") is not None:
            kwargs.pop("prompt", None)
            kwargs.pop("prompt_col", None)
        return parse_options({**kwargs, **params, **again})


def parse_options(kwargs: Mapping[str, Any], *, prompt_col: Hashable = None) -> Options:
    """
    Check the keywords of a call and return them frozen, defaults and environment filled in.

    Parameters
    ----------
    kwargs
        Keywords as the user gave them: options and Messages parameters.
    prompt_col
        The positional argument, which may also stand in `kwargs`.

    Raises
    ------
    UnknownOptionError
        A `TypeError`: a keyword is neither an option nor a Messages parameter of a batch.
    InputError
        A value is not what the option takes.

    Examples
    --------
    >>> parse_options({"max_tokens": 64}, prompt_col="review").max_tokens
    64
    """
    given = dict(kwargs)
    if prompt_col is not None:
        if given.get("prompt_col") is not None:
            raise InputError("prompt_col is given twice: as the first argument and as a keyword.")
        given["prompt_col"] = prompt_col
    option_names = [f.name for f in dataclasses.fields(Options) if f.name != "params"]
    given["betas"] = _texts(given.get("betas") or (), "betas")
    others = [name for name in given if name not in option_names]
    check_names(others, option_names, beta=bool(given["betas"]))

    values: dict[str, Any] = {}
    for name in option_names:
        if name in given and not (given[name] is None and name in _NONE_IS_DEFAULT):
            check = _CHECKS.get(name)
            value = given[name]
            values[name] = value if check is None or value is None else check(value, name)
    if "model" not in values and (model := os.environ.get("PANDAS_BATCH_MODEL")):
        values["model"] = check_parameter("model", model)
    if values.get("max_cost_usd") is None and (cost := os.environ.get("PANDAS_BATCH_MAX_COST_USD")):
        values["max_cost_usd"] = _environment_amount(cost)
    params = {
        name: value if is_per_row(value) else check_parameter(name, value)
        for name in others
        if (value := given[name]) is not None
    }
    options = Options(**values, params=MappingProxyType(params))
    _check_together(options)
    return options


def is_per_row(value: Any) -> bool:
    """Return whether an option's value is one value per row: a Series, or a callable that makes one."""
    import pandas as pd

    return isinstance(value, pd.Series) or (callable(value) and not isinstance(value, type | Prompt))


def is_plain_schema(schema: Any) -> bool:
    """Return whether an output schema is plain JSON, which a store can remember."""
    if isinstance(schema, Mapping):
        return all(is_plain_schema(value) for value in schema.values())
    if isinstance(schema, list | tuple):
        return all(is_plain_schema(value) for value in schema)
    return schema is None or isinstance(schema, str | int | float)


def _check_together(options: Options) -> None:
    if options.prompt is not None and options.prompt_col is not None:
        raise InputError("prompt= and prompt_col= are both given; a row has one prompt.", hint="leave one of them out")
    if options.output_schema is not None:
        config = options.params.get("output_config")
        if isinstance(config, Mapping) and config.get("format") is not None:
            raise InputError("output_schema= and output_config['format'] both say what the answer looks like.")
    if options.cache_system and options.system is None:
        raise InputError("cache_system=True has no system prompt to cache.", hint='system="...", cache_system=True')
    if options.warm_cache and not options.cache_system:
        raise InputError("warm_cache=True has nothing to warm.", hint="cache_system=True, warm_cache=True")
    clash = sorted(set(options.extra_params) & {*_REQUEST_OPTIONS, *options.params})
    if clash:
        raise InputError(f"extra_params sets {clash[0]!r}, which is also an option.", hint=f"{clash[0]}=...")


def _one_of(*choices: str) -> Callable[[Any, str], str]:
    def check(value: Any, name: str) -> str:
        if not isinstance(value, str) or value not in choices:
            shown = repr(clip(value, 40)) if isinstance(value, str) else kind_of(value)
            raise InputError(f"{name} is {shown}; it has to be one of {', '.join(map(repr, choices))}.")
        return str(value)

    return check


def _yes_or_no(value: Any, name: str) -> bool:
    import numpy as np

    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} is {kind_of(value)}; it has to be True or False.")
    return bool(value)


def _amount(*, zero: bool, unit: str) -> Callable[[Any, str], float]:
    def check(value: Any, name: str) -> float:
        import numpy as np

        if isinstance(value, np.number):
            value = value.item()
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        if number is None or not (0 <= number < float("inf")) or (number == 0 and not zero):
            raise InputError(
                f"{name} is {kind_of(value)}; it has to be a number of {unit} {'from' if zero else 'above'} 0."
            )
        return float(number)

    return check


def _environment_amount(text: str) -> float:
    try:
        return _amount(zero=True, unit="US dollars")(float(text), "PANDAS_BATCH_MAX_COST_USD")
    except ValueError:
        raise InputError(
            f"The environment's PANDAS_BATCH_MAX_COST_USD is {clip(text, 40)!r}; it has to be a number from 0."
        ) from None


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not is_sendable_text(value):
        raise InputError(f"{name} is {kind_of(value)}; it has to be text.")
    return str(value)


def _name(value: Any, name: str) -> str:
    text = _text(value, name)
    if not text.strip() or not text.isprintable() or len(text) > 200:
        raise InputError(f"{name} is {clip(text, 60)!r}; it has to be 1 to 200 printable characters.")
    return text


def _texts(value: Any, name: str) -> tuple[str, ...]:
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, Collection) or isinstance(values, Mapping):
        raise InputError(f"{name} is {kind_of(value)}; it has to be a list of texts.")
    for item in values:
        if not isinstance(item, str) or not item.strip() or not item.isascii() or not item.isprintable() or "," in item:
            shown = repr(clip(item, 60)) if isinstance(item, str) else kind_of(item)
            raise InputError(
                f"{name} holds {shown}, which is not a header's value.", hint=f'{name}=["output-300k-2026-03-24"]'
            )
    return tuple(dict.fromkeys(item.strip() for item in values))


def _columns(value: Any, name: str) -> str | tuple[str, ...]:
    if isinstance(value, str) and value in ("core", "all"):
        return value
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        shown = repr(clip(value, 40)) if isinstance(value, str) else kind_of(value)
        raise InputError(
            f'{name} is {shown}; it has to be "core", "all", or a list of names.', hint='columns=["output", "error"]'
        )
    unknown = [item for item in value if item not in ALL_COLUMNS]
    if unknown:
        shown = repr(clip(unknown[0], 40)) if isinstance(unknown[0], str) else kind_of(unknown[0])
        raise InputError(
            f"{name} names {shown}, which is not one of the columns that are added.",
            hint=f"known: {', '.join(ALL_COLUMNS)}",
        )
    return tuple(dict.fromkeys(value))


def _few_shot(value: Any, name: str) -> tuple[tuple[Any, Any], ...]:
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


def _prompt(value: Any, name: str) -> Any:
    if not isinstance(value, str) and not is_per_row(value):
        raise InputError(
            f"{name} is {kind_of(value)}; it has to be a template or a callable.", hint='prompt="Classify: {title}"'
        )
    return value


def _label(value: Any, name: str) -> Hashable:
    if not isinstance(value, Hashable):
        raise InputError(f"{name} is {kind_of(value)}; it has to be the name of a column.", hint=f'{name}="..."')
    return value


def _prices(value: Any, name: str) -> dict[str, tuple[float, float]]:
    hint = 'prices={"my-model": (1.0, 5.0)}  # USD per million input and output tokens, without the batch discount'
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {kind_of(value)}; it has to be a dict of model to (input, output).", hint=hint)
    made = {}
    for model, pair in value.items():
        check_parameter("model", model)
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(f"{name}[{clip(model, 60)!r}] is not a pair (input, output).", hint=hint)
        amount = _amount(zero=True, unit="US dollars")
        made[str(model)] = (
            amount(pair[0], f"{name}[{clip(model, 60)!r}]"),
            amount(pair[1], f"{name}[{clip(model, 60)!r}]"),
        )
    return made


def _store(value: Any, name: str) -> str:
    if not isinstance(value, str | Path) or not str(value).strip():
        raise InputError(f"{name} is {kind_of(value)}; it has to be a path.", hint='store="~/.pandas_batch"')
    return str(value)


def _extra_params(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {kind_of(value)}; it has to be a dict.", hint='extra_params={"name": value}')
    if "messages" in value:
        raise InputError(
            "extra_params sets 'messages', which are made from the rows.", hint="prompt_col=, prompt= or few_shot="
        )
    return MappingProxyType(plain(value, name))


def _request_option(value: Any, name: str) -> Any:
    return value if is_per_row(value) else check_parameter(name, value)


_NONE_IS_DEFAULT = frozenset(
    {"model", "max_tokens", "few_shot", "extra_params", "columns", "prefix", "samples", "lost_answer_grace", "progress"}
)
_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "prompt_col": _label,
    "prompt": _prompt,
    "few_shot": _few_shot,
    "system": _request_option,
    "model": _request_option,
    "max_tokens": _request_option,
    "images_col": _label,
    "documents_col": _label,
    "schema_prefix": _text,
    "cache_system": _yes_or_no,
    "warm_cache": _yes_or_no,
    "samples": lambda value, name: whole_number(value, name, at_most=MAX_SAMPLES),
    "extra_params": _extra_params,
    "prefix": _text,
    "overwrite": _yes_or_no,
    "columns": _columns,
    "on_missing": _one_of("skip", "raise"),
    "on_unsendable": _one_of("raise", "skip"),
    "dedupe": _yes_or_no,
    "reuse": _yes_or_no,
    "max_cost_usd": _amount(zero=True, unit="US dollars"),
    "prices": _prices,
    "preflight": _yes_or_no,
    "name": _name,
    "store": _store,
    "lost_answer_grace": _amount(zero=True, unit="seconds"),
    "poll_interval": _amount(zero=False, unit="seconds"),
    "timeout": _amount(zero=True, unit="seconds"),
    "progress": _one_of("auto", "widget", "text", "off"),
    "nested": _yes_or_no,
}


def _is_json_label(label: Any) -> bool:
    if isinstance(label, tuple):
        return all(_is_json_label(part) for part in label)
    return label is None or type(label) in (str, int, float, bool)


def _label_to_json(label: Any) -> Any:
    return [_label_to_json(part) for part in label] if isinstance(label, tuple) else label


def _label_from_json(label: Any) -> Any:
    return tuple(_label_from_json(part) for part in label) if isinstance(label, list) else label


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value
