"""The options of a call, checked and frozen: what `submit`, `start`, `preview` and `estimate` all take."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pandas_batch.columns import names_of_choice
from pandas_batch.errors import InputError
from pandas_batch.types import DEFAULT_MAX_TOKENS, DEFAULT_MODEL

from .option_checks import CHECKS, EXAMPLES, check_environment_amount, is_plain_schema
from .option_checks import is_per_row as is_per_row
from .parameters import check_names, check_parameter

_REQUEST_OPTIONS = ("model", "max_tokens", "system")
_ENDLESS = "inf"
_NO_OPTIONS = ("params", "budget_from_environment")
"""Fields of `Options` that no keyword sets."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Options:
    """
    Every option of a call, checked. Made by `parse_options`; docs/reference/options.md says what each means.

    Attributes
    ----------
    params
        Further parameters of the Messages API: plain values, Series, or callables ``df -> Series``.
    extra_params
        Parameters that are sent unchecked.
    budget_from_environment
        Whether ``max_cost_usd`` is the environment's, and was not given.
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
    retries: int = 0
    on_done: Callable[[Any], object] | None = None
    budget_from_environment: bool = False

    def __repr__(self) -> str:
        # Values may be prompts, and a client holds a key: only names are shown.
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        values = {n: getattr(self, n) for n, d in defaults.items() if n != "params" and getattr(self, n) is not d}
        given = [n for n, value in values.items() if is_per_row(value) or value]
        return f"Options({', '.join([*given, *self.params])})"

    @property
    def not_remembered(self) -> tuple[str, ...]:
        """Names of the options whose value is a callable, a Series or a schema class: to be given again."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        # What is called when a run is done is no part of what was asked.
        del values["client"], values["params"], values["extra_params"], values["on_done"]
        values |= self.params
        names = [name for name, value in values.items() if is_per_row(value)]
        if self.output_schema is not None and not is_plain_schema(self.output_schema):
            names.append("output_schema")
        for name in ("prompt_col", "images_col", "documents_col"):
            if not _is_json_label(getattr(self, name)):
                names.append(name)
        return tuple(sorted(set(names)))

    def given(self, name: str) -> Any:
        """Return the value of an option or Messages parameter, by the name it was given under."""
        return self.params[name] if name in self.params else getattr(self, name)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns that are added, without their prefix."""
        return names_of_choice(self.columns)

    def to_json(self) -> dict[str, Any]:
        """
        Return the plain options as JSON's own types; `client`, `on_done` and what is `not_remembered` are left out.

        Of an output schema, be it a class, the JSON schema stands there as text: the order of its fields is the order
        in which the model writes them, and a part of every fingerprint.
        """
        made: dict[str, Any] = {}
        left_out = {"client", "on_done", "timeout", "params", "extra_params", "output_schema", *self.not_remembered}
        if self.output_schema is not None:
            from .schema import OutputSchema

            made["schema_json"] = OutputSchema.of(self.output_schema).text
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name in left_out or (value is f.default and f.name not in _REQUEST_OPTIONS):
                continue
            if f.name in ("prompt_col", "images_col", "documents_col"):
                value = {"label": _label_to_json(value)}
            made[f.name] = _to_json(value)
        if made.get("max_cost_usd") == math.inf:
            made["max_cost_usd"] = _ENDLESS  # a number that JSON does not have
        if params := {k: _to_json(v) for k, v in self.params.items() if k not in left_out}:
            made["params"] = params
        if self.extra_params:
            made["extra_params"] = _to_json(self.extra_params)
        return made

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], **again: Any) -> Options:
        """
        Return the options that `to_json` wrote, with those in `again` given anew.

        Only what is given anew is checked: what was accepted once, by whatever version and in whatever environment,
        is paid for and has to be readable. Options that this version does not know are left out.
        """
        kwargs = dict(stored)
        from_environment = kwargs.pop("budget_from_environment", False) and again.get("max_cost_usd") is None
        if kwargs.get("max_cost_usd") == _ENDLESS:
            kwargs["max_cost_usd"] = math.inf
        if schema := kwargs.pop("schema_json", None):
            kwargs["output_schema"] = json.loads(schema)
        params = kwargs.pop("params", {})
        for name in ("prompt_col", "images_col", "documents_col"):
            if name in kwargs:
                kwargs[name] = _label_from_json(kwargs[name]["label"])
        if "prompt" in again or again.get("prompt_col") is not None:
            kwargs.pop("prompt", None)
            kwargs.pop("prompt_col", None)
        again = {name: value for name, value in again.items() if value is not None}
        betas = check_option("betas", again.get("betas", kwargs.get("betas") or ()))
        check_names([name for name in again if name not in _option_names()], _option_names(), beta=bool(betas))
        values = {name: _kept(name, value) for name, value in kwargs.items() if name in _option_names()}
        params = {name: value for name, value in params.items() if name not in _option_names()}
        for name, value in again.items():
            if name in _option_names():
                values[name] = check_option(name, value)
            else:
                params[name] = value if is_per_row(value) else check_parameter(name, value, beta=bool(betas))
        if values.get("prompt") is not None and values.get("prompt_col") is not None:
            raise _two_prompts()
        values = {name: value for name, value in values.items() if value is not None}
        read = cls(**values, params=MappingProxyType(params), budget_from_environment=from_environment)
        if read.max_cost_usd is not None:
            return read
        with contextlib.suppress(InputError):  # reported where something is to be spent
            budget_usd = budget_of_environment()
            return dataclasses.replace(read, max_cost_usd=budget_usd, budget_from_environment=budget_usd is not None)
        return read


def _option_names() -> list[str]:
    return [f.name for f in dataclasses.fields(Options) if f.name not in _NO_OPTIONS]


def _kept(name: str, value: Any) -> Any:
    """Return a stored value in the form that it was kept in, also where no call could give it any more."""
    try:
        return check_option(name, value)
    except (InputError, TypeError, ValueError):
        return tuple(value) if isinstance(value, list) else value


def budget_of_environment() -> float | None:
    """Return the budget that the environment sets; None where it sets none."""
    cost = os.environ.get("PANDAS_BATCH_MAX_COST_USD")
    return check_environment_amount(cost) if cost else None


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
    option_names = _option_names()
    given["betas"] = check_option("betas", () if given.get("betas") is None else given["betas"])
    others = [name for name in given if name not in option_names]
    check_names(others, option_names, beta=bool(given["betas"]))

    values: dict[str, Any] = {}
    for name in option_names:
        if given.get(name) is not None:  # None is the default of every option
            values[name] = check_option(name, given[name])
    if "model" not in values and (model := os.environ.get("PANDAS_BATCH_MODEL")):
        values["model"] = check_parameter("model", model)
    if values.get("max_cost_usd") is None and (budget_usd := budget_of_environment()) is not None:
        values["max_cost_usd"] = budget_usd
        values["budget_from_environment"] = True
    params = {
        name: value if is_per_row(value) else check_parameter(name, value, beta=bool(given["betas"]))
        for name in others
        if (value := given[name]) is not None
    }
    options = Options(**values, params=MappingProxyType(params))
    _check_together(options)
    return options


def check_option(name: str, value: Any) -> Any:
    """Return the value of an option as it is kept; `InputError` where it is not what the option takes."""
    check = CHECKS.get(name)
    if check is None:
        return value
    try:
        return check(value, name)
    except InputError as error:
        hint = error.hint or EXAMPLES.get(name, "")
        is_array = getattr(value, "ndim", 0) == 1
        is_column = is_array or (isinstance(value, list | tuple) and name != "system")
        if is_column and name in _REQUEST_OPTIONS:
            hint = f"{name}=pd.Series(values, index=df.index)  # a value per row"
        raise InputError(error.what, error.state, hint) from None


def _check_together(options: Options) -> None:
    if options.prompt is not None and options.prompt_col is not None:
        raise _two_prompts()
    if options.output_schema is not None:
        config = options.params.get("output_config")
        if isinstance(config, Mapping) and config.get("format") is not None:
            raise InputError(
                "output_schema= and output_config['format'] both say what the answer looks like.",
                hint="leave one of them out",
            )
    if options.cache_system and options.system is None:
        raise InputError("cache_system=True has no system prompt to cache.", hint='system="...", cache_system=True')
    if options.warm_cache and not options.cache_system:
        raise InputError("warm_cache=True has nothing to warm.", hint="cache_system=True, warm_cache=True")
    of_call = {f.name for f in dataclasses.fields(Options)}
    clash = sorted(set(options.extra_params) & {*of_call, *options.params})
    if clash:
        raise InputError(f"extra_params sets {clash[0]!r}, which is also an option.", hint=f"{clash[0]}=...")


def _two_prompts() -> InputError:
    return InputError("prompt= and prompt_col= are both given; a row has one prompt.", hint="leave one of them out")


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
