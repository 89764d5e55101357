"""Structured answers: what the user asks for as the API takes it, and answers as typed columns."""

from __future__ import annotations

import contextlib
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_batch.errors import InputError, clip
from pandas_batch.stop_reasons import WHY_MISFIT

from .json_schema import check_askable, misfits, resolved, with_single_types
from .labels import with_plain_labels
from .option_checks import is_plain_schema
from .plain_values import exact_text, is_sendable_text, kind_of, plain, quoted, shown
from .text_dtype import text_dtype

if TYPE_CHECKING:
    import pydantic

_SCHEMA_WORDS = frozenset({"type", "properties", "$ref", "$defs", "anyOf", "oneOf", "allOf", "$schema"})
_INT64_MAX = 2**63 - 1
_HINT = 'output_schema={"sentiment": Literal["pos", "neg"], "score": float}, a pydantic model, or a JSON schema'


class OutputSchema:
    """
    The shape of an answer. Made with `OutputSchema.of`.

    Attributes
    ----------
    canonical
        The JSON schema as the user gave it, before the SDK adapts it: what a fingerprint covers.
    columns
        Name of each field, in their order.

    Examples
    --------
    >>> schema = OutputSchema.of({"score": float})
    >>> columns, invalid = schema.to_columns(['{"score": 0.5}', "no idea", None])
    >>> columns["score"].tolist(), sorted(invalid)
    ([0.5, <NA>, <NA>], [1])
    """

    def __init__(
        self,
        canonical: dict[str, Any],
        read: Callable[[str], Mapping[str, Any]],
        made_of: Callable[[str], Any] | None = None,
    ) -> None:
        self.canonical = canonical
        self._read = read
        self._made_of = made_of
        top = resolved(canonical, canonical)
        self._fields = {str(name): dict(field) for name, field in top["properties"].items()}
        self._kinds = {name: self._kind(field) for name, field in self._fields.items()}
        self._whole = [name for name, kind in self._kinds.items() if kind == "integer"]
        self.columns = tuple(self._fields)

    @classmethod
    def of(cls, schema: Any) -> OutputSchema:
        """
        Read a pydantic model (dataclass, TypedDict), a JSON schema, a dict of names to types, or a list of labels.

        Raises
        ------
        InputError
            It is none of these, or a part of it would be lost on its way to the model.
        """
        try:
            return cls._of_any(schema)
        except RecursionError:
            raise _too_deep() from None

    @classmethod
    def _of_any(cls, schema: Any) -> OutputSchema:
        schema = with_plain_labels(schema)
        if isinstance(schema, Mapping):
            if not schema:
                raise InputError("output_schema is empty.", hint=_HINT)
            if all(isinstance(key, str) for key in schema) and _is_json_schema(schema):
                return cls._of_json(plain(dict(schema), "output_schema"))
            return cls._of_type(_model_of(schema), from_names=True)
        if isinstance(schema, list | tuple):
            choice = cls._of_json(_choice_of(schema))
            choice._made_of = lambda text: choice._read(text)["label"]
            return choice
        is_value = isinstance(schema, str | int | float | complex) or hasattr(schema, "model_dump")
        # Of a frame or an iterator, nothing that is in it may stand in a message.
        is_value |= hasattr(schema, "__iter__") and typing.get_origin(schema) is None
        if is_value and not isinstance(schema, type):
            raise InputError(f"output_schema is {kind_of(schema)}, not a type.", hint=_HINT)
        return cls._of_type(schema, from_names=False)

    @classmethod
    def _of_json(cls, schema: dict[str, Any]) -> OutputSchema:
        check_askable(schema)

        def read(text: str) -> Mapping[str, Any]:
            value = json.loads(text, parse_constant=_refuse_constant)
            if problem := misfits(value, schema, schema):
                raise ValueError(problem)
            if not isinstance(value, dict):
                raise ValueError("the answer is not an object")
            return value

        return cls(schema, read)

    @classmethod
    def _of_type(cls, kind: Any, *, from_names: bool) -> OutputSchema:
        import pydantic

        try:
            adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(kind)
            schema = adapter.json_schema()
            _refuse_slow_patterns(adapter.core_schema)
        except (pydantic.errors.PydanticUserError, TypeError, NameError) as error:
            raise InputError(
                f"output_schema is {clip(repr(kind), 60)}, of which no JSON schema can be made "
                f"({clip(str(error).splitlines()[0], 100)}).",
                hint=_HINT,
            ) from None
        if from_names:
            schema.pop("title", None)
            for field in schema.get("properties", {}).values():
                field.pop("title", None)
        check_askable(schema)

        def read(text: str) -> Mapping[str, Any]:
            answer = adapter.validate_json(text)
            read_fields: Mapping[str, Any] = adapter.dump_python(answer, mode="json", by_alias=True, warnings=False)
            return read_fields

        return cls(schema, read, None if from_names else adapter.validate_json)

    @property
    def text(self) -> str:
        """The JSON schema as it stands in fingerprints: as text, because the order of its fields counts."""
        return json.dumps(self.canonical)

    def output_config(self) -> dict[str, Any]:
        """Return the part of ``output_config`` that asks for this schema."""
        import anthropic

        try:
            schema = anthropic.transform_schema(with_single_types(self.canonical))
        except RecursionError:
            raise _too_deep() from None
        except (ValueError, AssertionError, AttributeError, TypeError) as error:
            raise InputError(f"The SDK refuses the output_schema: {clip(str(error), 120)}", hint=_HINT) from None
        return {"format": {"type": "json_schema", "schema": schema}}

    def to_columns(
        self,
        outputs: Sequence[str | None],
        stop_reasons: Sequence[str | None] | None = None,
        last_texts_from: Sequence[int | None] = (),
    ) -> tuple[dict[str, pd.Series], dict[int, str]]:
        """
        Return the answers as typed columns, and why rows do not fit.

        Parameters
        ----------
        outputs
            The text of each answer; None where there is none (its fields are NA, and it is not invalid).
        stop_reasons
            Why each answer ended: a cut or refused answer is not one that is wrong.
        last_texts_from
            At which byte of its text the last text block of each answer begins, None where it has no other. What the
            whole text is not may stand there alone: after the search of a tool, for example.

        Returns
        -------
        dict of str to pandas.Series
            One Series per field, with a RangeIndex.
        dict of int to str
            Position to reason; the fields of these rows are NA.
        """
        rows: list[Mapping[str, Any] | None] = [None] * len(outputs)
        invalid: dict[int, str] = {}
        for i, output in enumerate(outputs):
            if not isinstance(output, str):
                continue
            try:
                rows[i] = self._checked(output)
            except Exception as error:  # a validator of the user's own may raise anything
                begin = last_texts_from[i] if last_texts_from else None
                if begin is not None:
                    with contextlib.suppress(Exception):
                        rows[i] = self._checked(output.encode()[begin:].decode())
                        continue
                invalid[i] = _misfit(error, stop_reasons[i] if stop_reasons is not None else None)
        columns = {}
        for name, field in self._fields.items():
            default = field.get("default")
            values = [None if row is None else row.get(name, default) for row in rows]
            columns[name] = _column(values, self._kinds[name])
        return columns, invalid

    def parsed(self, output: str, stop_reason: str | None = None, last_text: str | None = None) -> tuple[Any, str]:
        """
        Return what one answer says, and why it does not fit ("" where it does).

        What a class describes is an instance of it; of labels it is the label; otherwise a dict.

        Examples
        --------
        >>> OutputSchema.of(["yes", "no"]).parsed('{"label": "yes"}')
        ('yes', '')
        """
        why: Exception | None = None
        for text in (output, last_text):
            if text is None:
                continue
            try:
                row = self._checked(text)
                return (row if self._made_of is None else self._made_of(text)), ""
            except Exception as error:  # a validator of the user's own may raise anything
                why = why or error
        return None, _misfit(why or ValueError("there is no answer"), stop_reason)

    def _checked(self, output: str) -> Mapping[str, Any]:
        # A mark of the byte order in front is no part of JSON, and no reason to throw a paid answer away.
        row = self._read(output.removeprefix("\ufeff"))
        self._check_range(row)
        return row

    def _check_range(self, row: Mapping[str, Any]) -> None:
        for name in self._whole:
            value = row.get(name)
            if isinstance(value, int) and not -_INT64_MAX <= value <= _INT64_MAX:
                raise ValueError(f"{clip(name, 40)}: does not fit in 64 bits")

    def _kind(self, field: Mapping[str, Any]) -> Any:
        """Return what a column of a field is: a name, or the list of its categories."""
        field = resolved(field, self.canonical)
        variants = [v for key in ("anyOf", "oneOf") for v in field.get(key) or ()]
        if variants:
            kinds = [self._kind(variant) for variant in variants]
            kinds = [kind for kind in kinds if kind != "null"]
            return kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else "object"
        if len(field.get("allOf") or ()) == 1:
            return self._kind(field["allOf"][0])
        if "enum" in field or "const" in field:
            values = field["enum"] if "enum" in field else [field["const"]]
            return [value for value in values if value is not None]
        types = field.get("type")
        names = [name for name in (types if isinstance(types, list) else [types]) if name != "null"]
        if len(names) != 1:
            return "object" if names else "null"
        if names[0] == "string" and field.get("format") in ("date", "date-time"):
            return field["format"]
        return names[0]


def _choice_of(labels: Sequence[Any]) -> dict[str, Any]:
    """Return the JSON schema of a choice of one of some labels, in their order."""
    hint = 'output_schema=["positive", "negative", "mixed"]'
    if not labels:
        raise InputError("output_schema is a list without labels.", hint=hint)
    seen = set()
    for label in labels:
        if not isinstance(label, str) or not label.strip() or not is_sendable_text(label):
            raise InputError(f"output_schema holds {shown(label)}; a label is text that is not blank.", hint=hint)
        if label in seen:
            raise InputError(f"output_schema has the label {quoted(label, 40)} twice.", hint=hint)
        seen.add(label)
    field = {"type": "string", "enum": [exact_text(label) for label in labels]}
    return {"type": "object", "properties": {"label": field}, "required": ["label"], "additionalProperties": False}


def _too_deep() -> InputError:
    return InputError("output_schema is nested too deep.", hint="fewer levels: a list of flat objects, for example")


def _refuse_slow_patterns(core_schema: Any) -> None:
    """Refuse patterns that pydantic would hand to Python's own engine, which may never come to an end."""
    waiting, seen = [core_schema], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            if isinstance(part.get("pattern"), re.Pattern) or part.get("regex_engine") == "python-re":
                raise InputError(
                    "output_schema has a pattern for Python's own regular expressions, which may never come to an end.",
                    hint='pydantic.Field(pattern="...")   # as text, and without regex_engine="python-re"',
                )
            waiting += part.values()
        elif isinstance(part, list | tuple):
            waiting += part


def _is_json_schema(schema: Mapping[str, Any]) -> bool:
    if not is_plain_schema(schema):
        return False
    if not _SCHEMA_WORDS & schema.keys():
        raise InputError("output_schema is a dict of neither types nor a JSON schema.", hint=_way_out(schema))
    return True


def _model_of(fields: Mapping[str, Any]) -> type[pydantic.BaseModel]:
    """Return a model with fields of these names, whatever the names are."""
    import pydantic

    definitions: dict[str, Any] = {}
    for i, (name, kind) in enumerate(fields.items()):
        if not isinstance(name, str) or not name.strip() or not is_sendable_text(name):
            raise InputError(f"output_schema has a field named {clip(repr(name), 40)}; names are text.")
        if isinstance(kind, str | int | float) or kind is None:
            raise InputError(f"output_schema[{quoted(name, 40)}] is {kind_of(kind)}, not a type.", hint=_HINT)
        # Field names that Python or pydantic keep for themselves are fine as aliases.
        definitions[f"field_{i}"] = (kind, pydantic.Field(alias=name))
    try:
        return pydantic.create_model("Answer", **definitions)
    except (pydantic.errors.PydanticUserError, TypeError, NameError) as error:
        raise InputError(f"output_schema: {clip(str(error).splitlines()[0], 120)}", hint=_HINT) from None


def _way_out(fields: Mapping[str, Any]) -> str:
    """Return the line to type where a dict holds texts: labels with what they mean, or names of types."""
    named = {"str", "int", "float", "bool", "list", "dict", "text", "string", "number", "integer", "boolean"}
    if all(isinstance(kind, str) and kind.lower() not in named for kind in fields.values()):
        return "output_schema=list(labels)   # the labels alone; what they mean is said in system="
    return _HINT


def _misfit(error: Exception, stop_reason: Any) -> str:
    cut = WHY_MISFIT.get(stop_reason) if isinstance(stop_reason, str) else None
    return cut or f"the answer does not fit output_schema: {_reason(error)}"


def _reason(error: Exception) -> str:
    """Say what is wrong with an answer without quoting it."""
    if isinstance(error, json.JSONDecodeError):
        return "it is not JSON"
    details = getattr(error, "errors", None)
    if callable(details):
        problems = details(include_url=False, include_input=False, include_context=False)
        first = problems[0]
        if first["type"] == "json_invalid":
            return "it is not JSON"
        # The name of a field that is too much comes from the answer, and an answer may quote its prompt.
        loc = first["loc"][:-1] if first["type"] == "extra_forbidden" else first["loc"]
        where = ".".join(str(part) for part in loc) or "answer"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return clip(f"{where}: {first['msg']}{more}", 160)
    return clip(str(error) or type(error).__name__, 160)


def _column(values: list[Any], kind: Any) -> pd.Series:
    if isinstance(kind, list):
        return pd.Series(pd.Categorical(values, categories=list(dict.fromkeys(kind))))
    if kind in _DTYPES or kind == "string":
        column: pd.Series = pd.Series(values, dtype=_DTYPES.get(kind) or text_dtype())
        return column
    if kind in ("date", "date-time"):
        return _dates(values, aware=kind == "date-time")
    objects = np.empty(len(values), object)
    objects[:] = values
    return pd.Series(objects, dtype=object)


_DTYPES: dict[str, Any] = {"integer": "Int64", "number": "Float64", "boolean": "boolean"}


def _dates(values: list[Any], *, aware: bool) -> pd.Series:
    """Return ISO dates as datetimes; a time without a zone is taken as UTC."""
    # Not pandas' own parser: before pandas 3 it knows nanoseconds only, and loses the years 1 to 1677.
    made = np.full(len(values), "NaT", "datetime64[us]")
    for i, value in enumerate(values):
        if value is not None:
            at = datetime.fromisoformat(value)
            made[i] = at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo is not None else at
    dates: pd.Series[Any] = pd.Series(made)
    if not aware:
        return dates
    in_utc: pd.Series = dates.dt.tz_localize("UTC")
    return in_utc


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which JSON does not have")
