"""JSON Schema, as far as structured outputs go: what the API would silently empty, and whether a value fits.

A schema given as a plain dict brings no validator of its own, and its answers are checked here. The keywords
are those that the API takes, and those that the SDK moves into descriptions because the API does not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Any

from pandas_batch.errors import InputError, clip

from .plain_values import kind_of, quoted

_COMBINATIONS = ("anyOf", "oneOf", "allOf")
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    ),
}
_MAX_DEPTH = 100
_MOST_REPEATED = 1_000
_REPEATED = re.compile(r"\{(\d+)(?:,(\d*))?\}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> Callable[[str], bool]:
    """
    Return what tells whether a pattern is found in a text, in time that grows with its length alone.

    Python's own engine tries all ways of a pattern one after the other: ``^(a+)+$`` keeps it busy for years.

    Raises
    ------
    InputError
        The pattern needs more than such an engine has, or is none.
    """
    import pydantic
    import pydantic_core

    if _n_repeated(pattern) > _MOST_REPEATED:
        raise InputError(
            f"the pattern {quoted(pattern, 60)} repeats what is repeated, more than {_MOST_REPEATED:,} times in all: "
            "each answer would take seconds to check.",
            hint="smaller counts, or a maxLength in place of the outer one",
        )
    found = pydantic.StringConstraints(pattern=pattern)
    try:
        checked: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(
            Annotated[str, found], config=pydantic.ConfigDict(regex_engine="rust-regex")
        )
    except pydantic_core.SchemaError as error:
        why = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
        raise InputError(
            f"the pattern {quoted(pattern, 60)} cannot be checked: {clip(why.removeprefix('error: '), 120)}.",
            hint="a pattern without look-around and back-references, or a description in its place",
        ) from None

    def matches(text: str) -> bool:
        try:
            checked.validate_python(text)
        except pydantic.ValidationError:
            return False
        return True

    return matches


def _n_repeated(pattern: str) -> int:
    r"""
    Return how often the counts of a pattern that stand inside one another repeat a part of it; 1 where none does.

    Examples
    --------
    >>> [_n_repeated(pattern) for pattern in ("(a{1,50}){1,40}", "^.{1,5000}$", "(a{2}b{3,}){4}", r"(\\(a{9}[(]){9}")]
    [2000, 1, 12, 81]
    """
    within: list[int] = [1]  # of each group that is open: the most that a part of it is repeated
    last, most, at = 1, 1, 0
    while at < len(pattern):
        sign, at = pattern[at], at + 1
        if sign == "\\":
            last, at = 1, at + 1
        elif sign == "[":
            last, at = 1, _end_of_class(pattern, at)
        elif sign == "(":
            within.append(1)
        elif sign == ")" and len(within) > 1:
            last = within.pop()
            within[-1] = max(within[-1], last)
        elif sign == "{" and (count := _REPEATED.match(pattern, at - 1)) is not None:
            times = max(int(count[2] or count[1]), int(count[1]), 1)
            most = max(most, last * times) if last > 1 else most
            last, at = last * times, count.end()
            within[-1] = max(within[-1], last)
        elif sign not in "*+?":
            last = 1
    return most


def _end_of_class(pattern: str, at: int) -> int:
    """Return where a class of characters is over that began before `at`."""
    at += pattern.startswith("^", at)
    at += pattern.startswith("]", at)
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at + 1


_KEYWORDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _is_number),
    **dict.fromkeys(_COMBINATIONS, lambda value: isinstance(value, list) and bool(value)),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "pattern": lambda value: isinstance(value, str),
    "properties": lambda value: isinstance(value, Mapping),
    "required": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
}


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema that a ``$ref`` stands for, or the schema itself."""
    seen = set()
    while isinstance(ref := schema.get("$ref"), str):
        name = ref.removeprefix("#/$defs/")
        found = (root.get("$defs") or {}).get(name)
        if ref in seen or name == ref or not isinstance(found, Mapping):
            raise InputError(
                f"output_schema refers to {quoted(ref, 60)}, which is not in its '$defs'.",
                hint='"$ref": "#/$defs/Name" with {"$defs": {"Name": {...}}} beside it',
            )
        seen.add(ref)
        schema = found
    return schema


def with_single_types(schema: Any) -> Any:
    """
    Return `schema` with each list of types written as ``anyOf``, the form that the SDK knows.

    Examples
    --------
    >>> with_single_types({"type": ["string", "null"]})
    {'anyOf': [{'type': 'string'}, {'type': 'null'}]}
    """
    if isinstance(schema, list):
        return [with_single_types(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {key: with_single_types(value) if key != "enum" else value for key, value in schema.items()}
    types = made.get("type")
    if isinstance(types, list):
        rest = {key: value for key, value in made.items() if key not in ("type", "description", "title")}
        outer = {key: made[key] for key in ("description", "title") if key in made}
        variants = [{"type": name} if name == "null" else {"type": name, **rest} for name in types]
        return {**outer, "anyOf": variants} if len(variants) > 1 else {**outer, **variants[0]}
    return made


def check_askable(schema: Mapping[str, Any]) -> None:
    """
    Refuse a schema of which the SDK's transformation would silently lose a part, naming the field.

    Raises
    ------
    InputError
        The schema is no object, or a field of it would be emptied, is untyped, or refers to itself.
    """
    if "definitions" in schema:
        raise InputError("output_schema has 'definitions', which would be lost.", hint="call them '$defs'")
    top = resolved(schema, schema)
    if top.get("type") != "object":
        raise InputError(
            f"output_schema describes {clip(repr(top.get('type', 'no object')), 40)}; an answer has to be an object.",
            hint='output_schema={"items": list[str]} puts a list into a field',
        )
    _check_node(schema, schema, "output_schema", ())


def _check_node(schema: Any, root: Mapping[str, Any], where: str, refs: tuple[str, ...]) -> None:
    if not isinstance(schema, Mapping):
        raise InputError(f"{where} has no type.", hint="Any cannot be asked for: give the field a type")
    if isinstance(ref := schema.get("$ref"), str):
        if ref in refs:
            raise InputError(f"{where} refers to itself; the API takes no recursive schema.")
        _check_node(resolved(schema, root), root, where, (*refs, ref))
        return
    _check_keywords(schema, where)
    for keyword in _COMBINATIONS:
        for variant in schema.get(keyword) or ():
            _check_node(variant, root, where, refs)
    types = schema.get("type")
    types = types if isinstance(types, list) else [types]
    if "object" in types:
        properties = schema.get("properties")
        if not properties and not any(schema.get(keyword) for keyword in _COMBINATIONS):
            raise InputError(
                f"{where} is an object without named fields (a dict?): the API would get an empty one.",
                hint="name its fields with a model of its own, or use a list of {key, value} objects",
            )
        for name, field in (properties or {}).items():
            _check_node(field, root, f"{where}[{quoted(str(name), 40)}]", refs)
    if "array" in types:
        if schema.get("prefixItems"):
            raise InputError(
                f"{where} is a tuple: the API would lose the types of its items.", hint="list[int], for example"
            )
        if not schema.get("items"):
            raise InputError(f"{where} is a list without a type of items.", hint="list[str], for example")
        _check_node(schema["items"], root, f"{where}[]", refs)


def _check_keywords(schema: Mapping[str, Any], where: str) -> None:
    known = {"type", "enum", "const", *_COMBINATIONS}
    if not known & schema.keys():
        raise InputError(f"{where} has no type.", hint="Any cannot be asked for: give the field a type")
    types = schema.get("type")
    for name in types if isinstance(types, list) else [types]:
        if name is not None and name not in _TYPES:
            raise InputError(f"{where} has the type {clip(repr(name), 40)}; JSON has {', '.join(map(repr, _TYPES))}.")
    for keyword, fits in _KEYWORDS.items():
        if keyword in schema and not fits(schema[keyword]):
            raise InputError(f"{where} has a {keyword!r} that is {kind_of(schema[keyword])}.")
    if "pattern" in schema:
        try:
            _matcher(schema["pattern"])
        except InputError as error:
            raise InputError(f"{where}: {error.what}", hint=error.hint) from None
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is not None and not (isinstance(values, list) and values and all(map(_is_primitive, values))):
        raise InputError(f"{where} has an enum that is empty or holds more than texts, numbers, booleans and null.")


def _is_primitive(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def misfits(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], where: str = "", depth: int = 0) -> str:
    """
    Return why `value` does not fit `schema`, or ``""`` where it does.

    The reason names the place and what is wanted there, never the value.

    Examples
    --------
    >>> misfits({"n": "x"}, {"type": "object", "properties": {"n": {"type": "integer"}}}, {})
    'n: not of type integer'
    """
    return next(_problems(value, schema, root, where, depth), "")


def _problems(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], where: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        yield f"{where}: nested too deep"
        return
    schema = resolved(schema, root)
    at = where or "answer"
    types = schema.get("type")
    types = types if isinstance(types, list) else [types] if types else []
    if types and not any(_TYPES[name](value) for name in types):
        yield f"{at}: not of type {' or '.join(types)}"
        return
    if "enum" in schema and not any(_same(value, item) for item in schema["enum"]):
        yield f"{at}: not one of {clip(', '.join(map(repr, schema['enum'])), 100)}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{at}: not {clip(repr(schema['const']), 60)}"
    if isinstance(value, dict):
        yield from _object_problems(value, schema, root, where, depth)
    elif isinstance(value, list):
        yield from _array_problems(value, schema, root, where, depth)
    elif isinstance(value, str):
        yield from _string_problems(value, schema, at)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number_problems(value, schema, at)
    for variant in schema.get("allOf") or ():
        yield from _problems(value, variant, root, where, depth + 1)
    if variants := schema.get("anyOf"):
        found = [misfits(value, variant, root, where, depth + 1) for variant in variants]
        if all(found):
            yield found[0] if len(found) == 1 else f"{at}: fits none of its {len(found)} variants"
    if variants := schema.get("oneOf"):
        n_fits = sum(not misfits(value, variant, root, where, depth + 1) for variant in variants)
        if n_fits != 1:
            yield f"{at}: fits {n_fits} of its variants instead of one"


def _object_problems(
    value: dict[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], where: str, depth: int
) -> Iterator[str]:
    properties = schema.get("properties") or {}
    for name in schema.get("required") or ():
        if name not in value:
            yield f"{_under(where, name)}: missing"
    extra = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in properties:
            yield from _problems(item, properties[name], root, _under(where, name), depth + 1)
        elif extra is False:
            # Its name comes from the answer, and an answer may quote its prompt.
            yield f"{where or 'answer'}: a field that the schema does not have"
        elif isinstance(extra, Mapping):
            yield from _problems(item, extra, root, _under(where, name), depth + 1)


def _array_problems(
    value: list[Any], schema: Mapping[str, Any], root: Mapping[str, Any], where: str, depth: int
) -> Iterator[str]:
    at = where or "answer"
    if len(value) < schema.get("minItems", 0):
        yield f"{at}: fewer than {schema['minItems']} items"
    if len(value) > schema.get("maxItems", math.inf):
        yield f"{at}: more than {schema['maxItems']} items"
    if schema.get("uniqueItems") and any(_same(a, b) for i, a in enumerate(value) for b in value[:i]):
        yield f"{at}: repeated items"
    if isinstance(schema.get("items"), Mapping):
        for i, item in enumerate(value):
            yield from _problems(item, schema["items"], root, f"{where}[{i}]", depth + 1)


def _string_problems(value: str, schema: Mapping[str, Any], at: str) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield f"{at}: shorter than {schema['minLength']} characters"
    if len(value) > schema.get("maxLength", math.inf):
        yield f"{at}: longer than {schema['maxLength']} characters"
    if "pattern" in schema and not _matcher(schema["pattern"])(value):
        yield f"{at}: does not match its pattern"
    read = {"date": date.fromisoformat, "date-time": datetime.fromisoformat}.get(schema.get("format", ""))
    if read is not None:
        try:
            read(value)
        except ValueError:
            yield f"{at}: not a {schema['format']}"


def _number_problems(value: float, schema: Mapping[str, Any], at: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{at}: too large a number"
        return
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{at}: below {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"{at}: above {schema['maximum']}"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        yield f"{at}: not above {schema['exclusiveMinimum']}"
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        yield f"{at}: not below {schema['exclusiveMaximum']}"
    if "multipleOf" in schema and (_exact(value) / _exact(schema["multipleOf"])).denominator != 1:
        yield f"{at}: not a multiple of {schema['multipleOf']}"


def _exact(number: float) -> Fraction:
    """Return a number as it stands in JSON: 0.3 is three times 0.1, their nearest floats are not."""
    return Fraction(number if isinstance(number, int) else repr(number))


def _under(where: str, name: str) -> str:
    return f"{where}.{clip(name, 40)}" if where else clip(name, 40)


def _same(a: Any, b: Any) -> bool:
    """Return whether two JSON values are equal; true is not 1."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)
