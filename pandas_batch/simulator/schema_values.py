"""Values that fit a JSON schema, for answers to requests with structured outputs and for tool inputs."""

from __future__ import annotations

import random
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
        return [_make(schema.get("items", {}), root, rng, depth + 1) for _ in range(n_items)]
    if kind == "integer":
        return rng.randint(0, 9)
    if kind == "number":
        return rng.randint(0, 99) / 10
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    return _FORMATS.get(str(schema.get("format")), rng.choice(_WORDS))


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
