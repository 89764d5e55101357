"""The options of a call, for whoever types one: their types for checkers and editors, one line and a default each.

What an option takes is checked in `requests/option_checks.py`; a test holds this table to
that and to `docs/reference/options.md`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from .types import Prompt

    PerRow: TypeAlias = pd.Series | np.ndarray | Callable[[pd.DataFrame], Any]

_Call = TypeVar("_Call", bound=Callable[..., Any])
_MARK = "**options\n            See the README."


class CallOptions(TypedDict, total=False):
    """Every option and every Messages parameter of a batch. A ``PerRow`` is a Series, an array or a function."""

    prompt: str | PerRow | None
    system: str | Prompt | Sequence[Mapping[str, Any]] | PerRow | None
    few_shot: Sequence[tuple[Any, Any]] | None
    model: str | PerRow | None
    max_tokens: int | PerRow | None
    images_col: Hashable
    documents_col: Hashable
    output_schema: Any
    schema_prefix: str | None
    cache_system: bool | None
    warm_cache: bool | None
    samples: int | None
    extra_params: Mapping[str, Any] | None
    betas: Sequence[str] | None
    prefix: str | None
    overwrite: bool | None
    columns: Literal["core", "all"] | Sequence[str] | None
    on_missing: Literal["skip", "raise"] | None
    on_unsendable: Literal["skip", "raise"] | None
    dedupe: bool | None
    reuse: bool | None
    max_cost_usd: float | None
    prices: Mapping[str, tuple[float, float]] | None
    preflight: bool | None
    name: str | None
    client: Any
    store: Any
    lost_answer_grace: float | None
    poll_interval: float | None
    timeout: float | None
    progress: Literal["auto", "widget", "text", "off"] | None
    retries: int | None
    on_done: Callable[[Any], object] | None
    nested: bool | None
    # The Messages parameters, those of the beta endpoint too.
    billing_policy: Any
    cache_control: Mapping[str, Any] | PerRow | None
    compaction: Any
    container: Any
    context_management: Mapping[str, Any] | PerRow | None
    diagnostics: Any
    inference_geo: str | PerRow | None
    mcp_servers: Sequence[Any] | PerRow | None
    metadata: Mapping[str, Any] | PerRow | None
    output_config: Mapping[str, Any] | PerRow | None
    service_tier: str | PerRow | None
    stop_sequences: Sequence[str] | PerRow | None
    thinking: Mapping[str, Any] | PerRow | None
    tool_choice: Mapping[str, Any] | PerRow | None
    tools: Sequence[Any] | PerRow | None


@dataclass(frozen=True)
class CallOption:
    """
    One option.

    Attributes
    ----------
    section
        Where it stands in the table of `docs/reference/options.md`.
    line
        What it does, in one line.
    default
        What it is where it is not given; of ``model`` and ``max_tokens`` None, and `line` says what that is.
    """

    section: str
    line: str
    default: Any = None


_ASKED, _BACK, _ROWS = "what is asked", "what comes back", "rows that cannot be asked"
_MONEY, _RUN, _WAITING = "money", "the run", "waiting"
_PARAMETER = "Messages parameters"

CALL_OPTIONS: Mapping[str, CallOption] = {
    "prompt": CallOption(_ASKED, 'instead of prompt_col: a template, "Classify: {title}", or a function of the frame'),
    "system": CallOption(_ASKED, "system prompt: text, a Prompt, or a list of text blocks"),
    "few_shot": CallOption(_ASKED, "[(user, assistant), ...], put before the prompt", ()),
    "model": CallOption(_ASKED, "claude-haiku-4-5-20251001, or PANDAS_BATCH_MODEL of the environment"),
    "max_tokens": CallOption(_ASKED, "1024; the most that one row's answer may hold, which bounds the bill"),
    "images_col": CallOption(_ASKED, "column of images to send along: URL, path, bytes, or lists of them"),
    "documents_col": CallOption(_ASKED, "column of PDFs or text files to send along"),
    "output_schema": CallOption(_ASKED, "pydantic model, JSON schema, {name: type} or labels: typed columns"),
    "schema_prefix": CallOption(_ASKED, "prefix of those columns, where it is another than prefix="),
    "cache_system": CallOption(_ASKED, "mark the system prompt for the prompt cache, for an hour", False),
    "warm_cache": CallOption(_ASKED, "with it: send one row first, so that the others find the cache filled", False),
    "samples": CallOption(_ASKED, "answers per row; above 1 they come as lists", 1),
    "extra_params": CallOption(_ASKED, "parameters that are passed on unchecked"),
    "betas": CallOption(_ASKED, "beta headers", ()),
    "prefix": CallOption(_BACK, "put before the names of the added columns", ""),
    "overwrite": CallOption(_BACK, "replace columns of those names", False),
    "columns": CallOption(_BACK, '"core", "all", or a list of names', "core"),
    "on_missing": CallOption(_ROWS, 'rows without a prompt: "skip" or "raise"', "skip"),
    "on_unsendable": CallOption(_ROWS, 'rows whose prompt cannot be sent: "raise" or "skip"', "raise"),
    "dedupe": CallOption(_MONEY, "send identical requests once", True),
    "reuse": CallOption(_MONEY, "take answers that the store has, or that are on their way", True),
    "max_cost_usd": CallOption(_MONEY, "refuse to send what could cost more, or has no known bound"),
    "prices": CallOption(_MONEY, '{"model": (input, output)} in USD per million tokens, undiscounted'),
    "preflight": CallOption(_MONEY, "check one row of each kind with two free calls before the first batch", True),
    "name": CallOption(_RUN, "a name to load the run by; part of what makes it the same run"),
    "client": CallOption(_RUN, "a client of your own; else one is built from the environment"),
    "store": CallOption(_RUN, "folder of the store; else PANDAS_BATCH_HOME, or the nearest .pandas_batch/"),
    "lost_answer_grace": CallOption(_RUN, "seconds to look for a batch whose create answer was lost", 600.0),
    "poll_interval": CallOption(_WAITING, "seconds between two looks; None: from 2 growing to 60"),
    "timeout": CallOption(_WAITING, "seconds to wait; then WaitTimeout, and the run goes on"),
    "progress": CallOption(_WAITING, '"auto", "widget", "text" or "off"', "auto"),
    "retries": CallOption(_WAITING, "how often the run asks by itself for rows that are worth asking again", 0),
    "on_done": CallOption(_WAITING, "a function that gets the run when it is done, or cannot go on"),
    "nested": CallOption(_WAITING, "let tasks of the notebook's own event loop go on meanwhile", False),
    "billing_policy": CallOption(_PARAMETER, "with betas"),
    "cache_control": CallOption(_PARAMETER, "a breakpoint of the prompt cache"),
    "compaction": CallOption(_PARAMETER, "with betas"),
    "container": CallOption(_PARAMETER, "container of the code execution tool"),
    "context_management": CallOption(_PARAMETER, "with betas"),
    "diagnostics": CallOption(_PARAMETER, "what the API tells of the request besides"),
    "inference_geo": CallOption(_PARAMETER, "where the model runs"),
    "mcp_servers": CallOption(_PARAMETER, "with betas"),
    "metadata": CallOption(_PARAMETER, "about the request, such as user_id"),
    "output_config": CallOption(_PARAMETER, "effort and format of the answer"),
    "service_tier": CallOption(_PARAMETER, "as the API takes it"),
    "stop_sequences": CallOption(_PARAMETER, "texts at which the answer ends"),
    "thinking": CallOption(_PARAMETER, "whether and how much the model thinks"),
    "tool_choice": CallOption(_PARAMETER, "how tools are used"),
    "tools": CallOption(_PARAMETER, "tools that the model may call"),
}


def with_options(call: _Call) -> _Call:
    """Give a call that takes ``**options`` the signature, and the docstring, that name each of them."""
    plain = inspect.signature(call)
    types = CallOptions.__annotations__
    named = [one for one in plain.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    named += [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=getattr(types[name], "__forward_arg__", types[name]),
        )
        for name, option in CALL_OPTIONS.items()
    ]
    call.__signature__ = plain.replace(parameters=named)  # type: ignore[attr-defined]  # a function has it
    if call.__doc__:  # none with python -OO
        call.__doc__ = call.__doc__.replace(_MARK, _told())
    return call


def _told() -> str:
    lines = ["**options"]
    section = ""
    for name, option in CALL_OPTIONS.items():
        if option.section != section:
            section = option.section
            lines.append(f"            {section[0].upper()}{section[1:]}:")
        lines.append(f"              {name}={option.default!r}: {option.line}.")
    return "\n".join(lines)
