"""Whether a value has the shape that the SDK's TypedDicts describe, said in words.

The types that anthropic ships are the only machine-readable description of a Messages request that is always
at hand; a type checker reads them before a program runs, this does it for values that a notebook makes.
"""

from __future__ import annotations

import collections.abc
import difflib
import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from .plain_values import quoted, shown

_SEQUENCES = (collections.abc.Sequence, collections.abc.Iterable, list, tuple)
_MAX_SHOWN = 8


def misshapen(value: Any, hint: Any, where: str) -> str:
    """
    Return in what `value` differs from a type hint, naming the place, or ``""`` where it does not.

    Examples
    --------
    >>> misshapen({"x": 1}, dict[str, str], "metadata")
    "metadata['x'] is 1; it has to be text"
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired) or _name(origin) in (
        "Required",
        "NotRequired",
    ):
        return misshapen(value, args[0], where)
    if origin is typing.Union or origin is types.UnionType:
        return _misshapen_union(value, args, where)
    if origin is typing.Literal or _name(origin) == "Literal":
        if any(value == arg and type(value) is type(arg) for arg in args):
            return ""
        return f"{where} is {shown(value)}; known {'is' if len(args) == 1 else 'are'} {_listed(args)}"
    if is_typed_dict(hint):
        return _misshapen_dict(value, hint, where)
    if origin is dict or origin is collections.abc.Mapping:
        if not isinstance(value, Mapping):
            return f"{where} is {shown(value)}; it has to be a dict"
        problems = (misshapen(item, args[1], f"{where}[{quoted(str(key), 40)}]") for key, item in value.items())
        return next(filter(None, problems), "")
    if origin in _SEQUENCES or (_name(origin) == "SequenceNotStr" and args):
        if not isinstance(value, list | tuple):
            return f"{where} is {shown(value)}; it has to be a list"
        problems = (misshapen(item, args[0], f"{where}[{i}]") for i, item in enumerate(value))
        return next(filter(None, problems), "")
    return _misshapen_scalar(value, hint, where)


def is_typed_dict(hint: Any) -> bool:
    """Return whether a type hint is a TypedDict."""
    return isinstance(hint, type) and issubclass(hint, dict) and hasattr(hint, "__total__")


@lru_cache(maxsize=512)
def fields_of(typed_dict: Any) -> Mapping[str, Any]:
    """Return the fields of a TypedDict with their hints, ``Required`` and all."""
    return typing.get_type_hints(typed_dict, include_extras=True)


def _misshapen_scalar(value: Any, hint: Any, where: str) -> str:
    if hint is type(None) or hint is None:
        return "" if value is None else f"{where} is {shown(value)}; it has to be None"
    wanted: dict[Any, tuple[Any, str]] = {
        str: (str, "text"),
        bool: (bool, "True or False"),
        int: (int, "a whole number"),
        float: ((int, float), "a number"),
    }
    if hint not in wanted:
        return ""
    kind, words = wanted[hint]
    fits = isinstance(value, kind) and (hint is bool or not isinstance(value, bool))
    return "" if fits else f"{where} is {shown(value)}; it has to be {words}"


def _misshapen_union(value: Any, variants: tuple[Any, ...], where: str) -> str:
    problems = [misshapen(value, variant, where) for variant in variants]
    if not all(problems):
        return ""
    if isinstance(value, Mapping):
        named = {variant: _type_names(variant) for variant in variants if is_typed_dict(variant)}
        kind = value.get("type")
        of_kind = [variant for variant, names in named.items() if isinstance(kind, str) and kind in names]
        if of_kind:
            return misshapen(value, of_kind[0], where)
        known = sorted({name for names in named.values() for name in names})
        untyped = [variant for variant, names in named.items() if not names or "type" not in variant.__required_keys__]
        if kind is None and untyped:
            return misshapen(value, untyped[0], where)
        if known:
            close = difflib.get_close_matches(str(kind), known, n=1, cutoff=0.6)
            meant = f"did you mean {close[0]!r}?" if close else f"known are {_listed(known)}"
            return f"{where}['type'] is {shown(kind)}; {meant}"
    if isinstance(value, list):
        inside = [p for p in problems if "it has to be" not in p or p.startswith(f"{where}[")]
        return inside[0] if inside else problems[0]
    return next((problem for problem in problems if "has to be None" not in problem), problems[0])


def _type_names(typed_dict: Any) -> tuple[str, ...]:
    hint = fields_of(typed_dict).get("type")
    while hint is not None and typing.get_origin(hint) not in (None, typing.Literal):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        hint = inner[0] if inner else None
    return tuple(arg for arg in typing.get_args(hint) if isinstance(arg, str)) if hint is not None else ()


def _misshapen_dict(value: Any, typed_dict: Any, where: str) -> str:
    if not isinstance(value, Mapping):
        return f"{where} is {shown(value)}; it has to be a dict"
    fields = fields_of(typed_dict)
    takes_more = (getattr(typed_dict, "__pydantic_config__", None) or {}).get("extra") == "allow"
    for key, item in value.items():
        if key in fields:
            if problem := misshapen(item, fields[key], f"{where}[{key!r}]"):
                return problem
        elif not takes_more:
            close = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            meant = f"did you mean {close[0]!r}?" if close else f"known are {_listed(fields)}"
            return f"{where} has no {quoted(str(key), 40)}; {meant}"
    missing = [key for key, hint in fields.items() if _name(typing.get_origin(hint)) == "Required" and key not in value]
    return f"{where} lacks {missing[0]!r}" if missing else ""


def _name(origin: Any) -> str:
    return getattr(origin, "__name__", None) or getattr(origin, "_name", None) or ""


def _listed(values: Any) -> str:
    listed = [repr(value) for value in values]
    return ", ".join(listed[:_MAX_SHOWN]) + (", ..." if len(listed) > _MAX_SHOWN else "")
