"""API keys where no key belongs: what is a parameter of a request is written to the store, and sent with every row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pandas_batch.errors import KEY, InputError

HOW_TO_GIVE_A_KEY = "client=anthropic.Anthropic(api_key=...)   # or the environment's ANTHROPIC_API_KEY, and no client="

_NAMES = frozenset(
    {
        "accesstoken",
        "anthropicapikey",
        "anthropicauthtoken",
        "anthropickey",
        "apikey",
        "apitoken",
        "authorization",
        "authtoken",
        "bearer",
        "bearertoken",
        "claudeapikey",
        "key",
        "secret",
        "secretkey",
        "token",
        "xapikey",
    }
)
# A description may speak of keys, and MCP servers have tokens of their own, which are fields of the API.
_MAY_NAME_KEYS = frozenset({"tools", "messages", "system", "mcp_servers", "output_config", "output_format"})


def names_a_key(name: str) -> bool:
    """
    Return whether a name stands for a key, however it is spelt.

    Examples
    --------
    >>> [names_a_key(name) for name in ("api_key", "x-api-key", "apiKey", "Authorization", "max_tokens")]
    [True, True, True, True, False]
    """
    return re.sub(r"[^a-z]", "", name.lower()) in _NAMES


def refuse_keys(name: str, value: Any, where: str = "") -> None:
    """
    Refuse a key in a parameter of a request. The message never repeats it.

    Parameters
    ----------
    name, value
        The parameter.
    where
        How the message calls it; empty: by its name.

    Raises
    ------
    InputError
        The name stands for a key, or something in the value is one.

    Examples
    --------
    >>> refuse_keys("metadata", {"user_id": "u-1"})
    """
    where = where or name
    if names_a_key(name) or _holds_key(name, by_name=False) or _holds_key(value, by_name=name not in _MAY_NAME_KEYS):
        raise InputError(
            f"{where} holds what looks like a key: it would be written to the store and sent with every row.",
            hint=HOW_TO_GIVE_A_KEY,
        )


def _holds_key(value: Any, *, by_name: bool) -> bool:
    if isinstance(value, str):
        return KEY.search(value) is not None
    if isinstance(value, Mapping):
        return any(
            (by_name and isinstance(name, str) and isinstance(item, str) and names_a_key(name))
            or (isinstance(name, str) and KEY.search(name) is not None)
            or _holds_key(item, by_name=by_name)
            for name, item in value.items()
        )
    return isinstance(value, list | tuple) and any(_holds_key(item, by_name=by_name) for item in value)
