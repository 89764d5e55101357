"""The parameters of one request: made plain, and checked before anything is sent.

The server checks params only after the batch has ended, and answers with a whole batch of errored rows.
So names are checked here, against the SDK's own description of a Messages request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from pandas_batch.call_arguments import nearest
from pandas_batch.errors import KEY, InputError, UnknownOptionError, clip
from pandas_batch.types import Prompt, System, system_param

from .keys import HOW_TO_GIVE_A_KEY, names_a_key, refuse_keys
from .names_elsewhere import line_for
from .plain_values import exact_text, is_sendable_text, kind_of, plain, quoted, shown
from .sdk_types import misshapen

SAMPLING = ("temperature", "top_p", "top_k")
_NOT_IN_BATCHES = {
    "stream": ("a batch is not streamed, its answers are read when it has ended", "leave it out"),
    "speed": ("fast mode is not offered for batches", "leave it out"),
    "fallbacks": ("every row would be refused", 'model="..." takes one model, or a Series of them'),
    "fallback_credit_token": ("batches have no fallbacks", "leave it out"),
    "thread": ("batches have no threads", "prompt_col= may name a column of whole conversations"),
    "extra_headers": ("a batch has one set of headers", "betas=[...], or client=Anthropic(default_headers={...})"),
    "extra_query": ("its rows have no queries of their own", "client=Anthropic(default_query={...})"),
    "extra_body": ("its rows have no bodies of their own", "extra_params={...} is sent unchecked in each row"),
    "messages": ("the messages are made from the rows", "prompt_col=, prompt= or few_shot="),
}
_OF_CLIENT = {name: _NOT_IN_BATCHES[name][1] for name in ("extra_headers", "extra_query", "stream")} | {
    "extra_body": 'extra_params={"name": value}   # the fields themselves',
    "base_url": line_for("base_url") or "",
    "betas": 'betas=["..."]   # an option of the call',
    "default_headers": "client=anthropic.Anthropic(default_headers={...})",
    "default_query": "client=anthropic.Anthropic(default_query={...})",
    "http_client": "client=anthropic.Anthropic(http_client=...)",
    "max_retries": line_for("max_retries") or "",
    "timeout": "timeout=3600   # an option of the call: seconds to wait",
}
"""Options of the SDK's calls and clients, which no request has, and what does here what they mean."""
_HEADERS = {"workspace_id": "anthropic-workspace-id", "user_profile_id": "anthropic-user-profile-id"}
"""What the SDK takes as a parameter and sends as a header, and its name there."""
_MOST_TOKENS = 2**31 - 1
_CLOSE = 0.84
"""Of names that are less alike than this one is rarely a slip for the other."""
_EXAMPLES = {
    "metadata": '{"user_id": "..."}',
    "output_config": '{"effort": "low"}',
    "stop_sequences": '["END"]',
    "thinking": '{"type": "enabled", "budget_tokens": 2048}',
    "tool_choice": '{"type": "auto"}',
    "tools": '[{"name": "...", "input_schema": {...}}]',
}


@lru_cache(maxsize=2)
def parameter_hints(beta: bool) -> Mapping[str, Any]:
    """Return the Messages parameters the SDK knows, by name (those of its beta endpoint with `beta`)."""
    import typing

    if beta:
        from anthropic.types.beta.message_create_params import MessageCreateParamsNonStreaming as BetaParams

        return typing.get_type_hints(BetaParams, include_extras=True)
    from anthropic.types.message_create_params import MessageCreateParamsNonStreaming as Params

    return typing.get_type_hints(Params, include_extras=True)


def check_names(names: Iterable[str], known_options: Iterable[str], *, beta: bool) -> None:
    """
    Refuse a parameter that is neither an option nor a Messages parameter of a batch.

    Raises
    ------
    UnknownOptionError
        A `TypeError`, with the closest known name.
    InputError
        For a parameter that exists but cannot be used in a batch.
    """
    wanted = list(names)
    # The SDK takes most of a second to import: not for a call that names no parameter of it.
    hints = parameter_hints(beta) if wanted else {}
    for name in wanted:
        if names_a_key(name):
            raise UnknownOptionError(
                f"{clip(name, 40)}= cannot be given here, and is not kept.", hint=HOW_TO_GIVE_A_KEY
            )
        if name in _HEADERS:
            raise _is_header(name)
        if name in SAMPLING:
            raise UnknownOptionError(
                f"{name}= is gone: the Messages API refuses temperature, top_p and top_k since 2026-10-21.",
                hint=f'for an older model: extra_params={{"{name}": ...}} and '
                'client=Anthropic(default_headers={"anthropic-version": "2023-06-01"})',
            )
        if name in _NOT_IN_BATCHES:
            reason, way_out = _NOT_IN_BATCHES[name]
            raise UnknownOptionError(f"{name}= cannot be used in a batch: {reason}.", hint=way_out)
        if name not in hints or name == "betas":
            known = sorted({*known_options, *(set(hints) - _NOT_IN_BATCHES.keys() - _HEADERS.keys())})
            if (line := line_for(name)) is not None:
                hint = line
            elif (meant := nearest(name, known, _CLOSE)) is not None:
                hint = f"did you mean {meant}=?"
            elif not beta and name in parameter_hints(True):
                hint = f'{name}= is a beta parameter: give its header too, betas=["..."]'
            else:
                hint = f'extra_params={{"{name}": ...}} sends it unchecked'
            raise UnknownOptionError(f"{name}= is neither an option nor a parameter of the Messages API.", hint=hint)


def _is_header(name: str) -> UnknownOptionError:
    return UnknownOptionError(
        f"{name} is a header of the API and no field of a request.",
        hint=f'client=anthropic.Anthropic(default_headers={{"{_HEADERS[name]}": "..."}})',
    )


def check_unchecked_names(params: Mapping[str, Any], known_options: Iterable[str], where: str = "extra_params") -> None:
    """
    Refuse what is no parameter of a request among those that are sent unchecked: keys, headers, options of the client.

    Raises
    ------
    InputError
        The message never repeats a key.
    """
    options = frozenset(known_options)
    for name, value in params.items():
        refuse_keys(name, value, f"{where}[{quoted(name, 40)}]")
        if name in _HEADERS:
            raise _is_header(name)
        if name in _OF_CLIENT:
            raise InputError(
                f"{where} sets {name!r}, which is no field of a request: every row would be refused.",
                hint=_OF_CLIENT[name],
            )
        if name in options:
            raise InputError(f"{where} sets {name!r}, which is an option of the call.", hint=f"{name}=...")


def whole_number(value: Any, name: str, *, at_least: int = 1, at_most: int | None = None) -> int:
    """Return `value` as an int, refusing everything that is not a whole number in range."""
    import numpy as np

    wanted = f"a whole number of at least {at_least}" if at_most is None else f"a whole number, {at_least} to {at_most}"
    if isinstance(value, np.integer) or (isinstance(value, float | np.floating) and float(value).is_integer()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least or (at_most and value > at_most):
        raise InputError(f"{name} is {shown(value)}; it has to be {wanted}.")
    return value


def check_model(value: Any) -> str:
    """Return a model's name, or refuse what cannot be one."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or not is_sendable_text(value):
        raise InputError(
            f"model is {shown(value)}; it has to be a model's name.", hint='model="claude-haiku-4-5-20251001"'
        )
    if KEY.search(value):
        raise InputError("model is a key, which is not shown.", hint=HOW_TO_GIVE_A_KEY)
    return exact_text(value)


def check_max_tokens(value: Any) -> int:
    """Return `max_tokens`, or refuse what cannot be one."""
    if not isinstance(value, bool) and isinstance(value, int) and value == 0:
        raise InputError(
            "max_tokens is 0, which batches refuse (it only warms the prompt cache).",
            hint="cache_system=True, warm_cache=True  # warms the cache with one row",
        )
    try:
        made = whole_number(value, "max_tokens")
    except InputError as error:
        raise InputError(error.what, error.state, "max_tokens=1024") from None
    if made > _MOST_TOKENS:
        raise InputError(f"max_tokens is {shown(made)}, which is more than any model writes.", hint="max_tokens=1024")
    return made


def check_system(value: Any) -> str | list[dict[str, Any]] | None:
    """Return a system prompt as the API takes it: text, text blocks, or None where there is nothing to say."""
    if value is None or isinstance(value, str | Prompt):
        made = plain(system_param(value), "system")
        # The API refuses text without a character in it.
        return made if isinstance(made, str) and made.strip() else None
    if isinstance(value, list | tuple):
        blocks: System = plain(value, "system")
        for i, block in enumerate(blocks if isinstance(blocks, list) else ()):
            is_text = isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str)
            if not is_text or not block["text"].strip():
                raise InputError(
                    f"system[{i}] is {'a text block with nothing in it' if is_text else 'not a text block'}.",
                    hint='system=[{"type": "text", "text": "..."}], or plain text',
                )
        return system_param(blocks)
    raise InputError(
        f"system is {kind_of(value)}; it has to be text, a Prompt, or a list of text blocks.",
        hint='system="Answer with one word."',
    )


def check_parameter(name: str, value: Any, *, beta: bool = False) -> Any:
    """
    Return one per-request option as it goes on the wire.

    Parameters
    ----------
    name
        ``model``, ``max_tokens``, ``system``, or any other Messages parameter.
    value
        Its value, for all rows or for one.
    beta
        Whether the SDK's beta types say what it may be.
    """
    if name == "model":
        return check_model(value)
    if name == "max_tokens":
        return check_max_tokens(value)
    if name == "system":
        checked: Any = check_system(value)
    else:
        try:
            checked = plain(value, name)
        except InputError as error:
            raise InputError(error.what, error.state, error.hint or _way_out(name)) from None
        refuse_keys(name, checked)
    if checked is None or (name == "system" and isinstance(checked, str)):
        return checked
    hint = parameter_hints(beta).get(name)
    if hint is None:
        return checked
    if problem := misshapen(checked, hint, name):
        raise InputError(problem if problem.endswith("?") else f"{problem}.", hint=_way_out(name))
    return checked


def _way_out(name: str) -> str:
    """Return the lines to type where the value of a parameter is wrong."""
    if name == "system":
        return ""
    example = f"{name}={_EXAMPLES[name]}\n" if name in _EXAMPLES else ""
    return f'{example}extra_params={{"{name}": ...}} sends it unchecked'
