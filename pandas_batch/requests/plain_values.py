"""What a value of the user's is in JSON, whether it can be sent as it is, and how a message shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pandas_batch.errors import KEY, InputError, clip
from pandas_batch.types import Prompt

MAX_DEPTH = 60
_WORD_CHARS = 40
_MOST_SHOWN = 10**30
_MAX_WHERE = 80


def kind_of(value: Any) -> str:
    """
    Name the kind of a value for a message, without showing a text.

    Examples
    --------
    >>> kind_of("secret"), kind_of(3.5), kind_of([1])
    ('a str', '3.5', 'a list')
    """
    if isinstance(value, int) and abs(value) >= _MOST_SHOWN:
        return "a number of very many digits"
    if value is None or isinstance(value, bool | int | float) or _is_numpy_scalar(value):
        return clip(str(value), 40)
    if callable(value) and not isinstance(value, type):
        return "a callable"
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" or name == "ndarray" else f"a {name}"


def shown(value: Any) -> str:
    """
    Show an option's value for a message: numbers and short words as they are, of all else the kind.

    For values of options only. What stands in a cell may be a prompt, however short: `kind_of` it.

    Examples
    --------
    >>> shown("many"), shown("You are a helpful assistant."), shown([])
    ("'many'", 'a str', 'an empty list')
    """
    if isinstance(value, str) and KEY.search(value):
        return "a key, which is not shown"
    if isinstance(value, str) and len(value) <= _WORD_CHARS and len(value.split()) <= 1:
        return quoted(value)
    if isinstance(value, list | tuple | dict) and not value:
        return f"an empty {type(value).__name__}"
    return kind_of(value)


def quoted(text: str, n_chars: int = 60) -> str:
    r"""
    Return a text in quotes, clipped and on one line.

    Examples
    --------
    >>> quoted("two\nlines")
    "'two\\nlines'"
    """
    return f"'{clip(text, n_chars)}'"


def _is_numpy_scalar(value: Any) -> bool:

    return isinstance(value, np.number | np.bool_)


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """
    Return `value` in JSON's own types (numpy scalars converted), or refuse it naming `where` it stands.

    Raises
    ------
    InputError
        For NaN, infinity, NA, text that is not Unicode, and every type that JSON does not have.
    """
    if value is None or type(value) in (bool, int):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        if not is_sendable_text(value):
            raise InputError(f"{where} holds a lone surrogate, which is not text that can be sent.")
        return exact_text(value)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        if not math.isfinite(number):
            raise InputError(f"{where} is {number}, which JSON does not have.")
        return number
    if depth > MAX_DEPTH:
        where = where if len(where) < _MAX_WHERE else f"{where[:_MAX_WHERE]}..."
        raise InputError(f"{where} is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or not is_sendable_text(key):
                raise InputError(f"{where} has a key that is {kind_of(key)}; keys are text.")
        return {str(key): plain(item, f"{where}[{quoted(key, 40)}]", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        return [plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Prompt):
        return plain(value.render(), where, depth)
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return plain(value.model_dump(mode="json", exclude_none=True), where, depth + 1)
    hint = ""
    if type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "index"):
        hint = f"for a value per row give the whole parameter: {where.partition('[')[0]}=lambda df: ..."
    raise InputError(f"{where} holds {kind_of(value)}, which JSON does not have.", hint=hint)


def exact_text(text: str) -> str:
    """
    Return a text as exactly `str`: subclasses (numpy's, enums) say something else, or cannot be encoded.

    Examples
    --------
    >>> import enum
    >>> exact_text(enum.Enum("Model", {"FAST": "claude-haiku-4-5"}, type=str).FAST)
    'claude-haiku-4-5'
    """
    return text if type(text) is str else str.__str__(text)


def is_sendable_text(text: str) -> bool:
    r"""
    Return whether `text` can be UTF-8: a lone surrogate cannot.

    Examples
    --------
    >>> is_sendable_text("\ud83d")
    False
    """
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
