"""Values that fit a JSON schema, for answers to requests with structured outputs and for tool inputs."""

from __future__ import annotations

import math
import random
import re
from typing import Any

__all__ = ["value_for"]

_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven")
_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "P1D",
    "email": "ada@example.com",
    "hostname": "example.com",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}
_MAX_DEPTH = 12
# What structured outputs take no schema with; the SDK writes "{minimum: 1, maximum: 5}" into the description.
_BOUNDS = "minimum|maximum|exclusiveMinimum|exclusiveMaximum|multipleOf|minLength|maxLength|minItems|maxItems"
_IN_WORDS = re.compile(r"\{[a-zA-Z]+: .*\}", re.DOTALL)
_BOUND = re.compile(rf"(?:^\{{|, )({_BOUNDS}): (-?\d+(?:\.\d+)?)(?=, [a-zA-Z]+: |\}}$)")


def value_for(schema: Any, rng: random.Random) -> Any:
    """
    Make a value that fits a schema of the subset which structured outputs take.

    Parameters
    ----------
    schema
        A JSON schema; ``$ref`` into its own ``$defs`` is followed.
    rng
        The source of chance; the same state gives the same value.

    Examples
    --------
    >>> value_for({"enum": ["yes"]}, random.Random(0))
    'yes'
    """
    return _make(schema, schema, rng, 0)


def _make(schema: Any, root: Any, rng: random.Random, depth: int) -> Any:
    if not isinstance(schema, dict):
        return None
    if "$ref" in schema:
        return _make(_resolve(str(schema["$ref"]), root), root, rng, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _make(_branch(schema[key], rng, depth), root, rng, depth + 1)
    if schema.get("allOf"):
        merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            inner = _resolve(str(part["$ref"]), root) if "$ref" in part else part
            properties = {**merged.get("properties", {}), **inner.get("properties", {})}
            required = [*merged.get("required", []), *inner.get("required", [])]
            merged = {**merged, **inner}
            if properties:
                merged |= {"properties": properties, "required": required}
        return _make(merged, root, rng, depth + 1)
    schema = _told_in_words(schema) | schema
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = _branch([{"type": one} for one in kind], rng, depth)["type"]
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return _of_type(kind, schema, root, rng, depth)


def _of_type(kind: str, schema: dict[str, Any], root: Any, rng: random.Random, depth: int) -> Any:
    if kind == "object":
        required = set(schema.get("required", ()))
        return {
            name: _make(part, root, rng, depth + 1)
            for name, part in schema.get("properties", {}).items()
            if name in required or (depth < _MAX_DEPTH and rng.random() < 0.5)
        }
    if kind == "array":
        n_items = max(int(schema.get("minItems", 0)), 0 if depth >= _MAX_DEPTH else rng.randint(0, 2))
        n_items = min(n_items, int(schema.get("maxItems", n_items)))
        return [_make(schema.get("items", {}), root, rng, depth + 1) for _ in range(n_items)]
    if kind == "integer":
        return _whole_number(schema, rng)
    if kind == "number":
        return _number(schema, rng)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    return _FORMATS.get(str(schema.get("format")), _text(schema, rng.choice(_WORDS)))


def _told_in_words(schema: dict[str, Any]) -> dict[str, float]:
    """Return the bounds that the SDK has moved into the description, where a model reads them."""
    last = str(schema.get("description", "")).rpartition("\n\n")[2]
    if not _IN_WORDS.fullmatch(last):
        return {}
    return {name: float(number) if "." in number else int(number) for name, number in _BOUND.findall(last)}


def _bounds(schema: dict[str, Any], width: float) -> tuple[float, float]:
    """Return between what a number has to be; `width` is how far it goes where the schema leaves an end open."""
    lows = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
    highs = [schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema]
    low = max(lows) if lows else min([0, *(high - width for high in highs)])
    high = min(highs) if highs else max(width, low + width)
    return low, high


def _whole_number(schema: dict[str, Any], rng: random.Random) -> int:
    step = math.ceil(schema.get("multipleOf", 1)) or 1
    low, high = _bounds(schema, 9 * step)
    first, last = math.ceil(low / step), math.floor(high / step)
    first += first * step <= schema.get("exclusiveMinimum", -math.inf)
    last -= last * step >= schema.get("exclusiveMaximum", math.inf)
    return rng.randint(first, max(first, last)) * step


def _number(schema: dict[str, Any], rng: random.Random) -> float:
    step = schema.get("multipleOf", 0)
    if step:
        low, high = _bounds(schema, 9 * step)
        first, last = math.ceil(low / step), math.floor(high / step)
        first += first * step <= schema.get("exclusiveMinimum", -math.inf)
        last -= last * step >= schema.get("exclusiveMaximum", math.inf)
        return float(rng.randint(first, max(first, last)) * step)
    low, high = _bounds(schema, 9.9)
    tenths = rng.randint(0, 99)
    if (low, high) == (0, 9.9):
        return tenths / 10
    # Never an end itself, which may be excluded.
    return low if low == high else low + (high - low) * (tenths + 1) / 101


def _text(schema: dict[str, Any], word: str) -> str:
    """Return a word that is as long as the schema wants; a pattern is not looked at."""
    n_least = int(schema.get("minLength", 0))
    long_enough = word * (n_least // len(word) + 1) if n_least > len(word) else word
    return long_enough[: int(schema.get("maxLength", max(n_least, len(word))))]


def _branch(branches: list[Any], rng: random.Random, depth: int) -> Any:
    if depth >= _MAX_DEPTH:
        # A recursive schema has a way out among its branches; deep down it is taken.
        plain = [one for one in branches if one.get("type") in ("null", "string", "integer", "number", "boolean")]
        return plain[0] if plain else branches[0]
    return rng.choice(branches)


def _resolve(ref: str, root: Any) -> Any:
    node = root
    for part in ref.removeprefix("#").strip("/").split("/"):
        node = node.get(part.replace("~1", "/").replace("~0", "~"), {}) if part and isinstance(node, dict) else node
    return node
