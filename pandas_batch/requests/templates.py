"""Prompt templates over columns: ``"Classify: {title}"``, parsed once, filled for a few hundred rows at a time.

A template is text with plain ``{column}`` and ``{column:format}`` fields and nothing else. There is no way from
a field to an attribute, an item or another template: values are inserted once and never read again.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pandas_batch.errors import ColumnNotFoundError, InputError, clip

from .per_row import column_of, row_name
from .plain_values import is_sendable_text, kind_of, quoted
from .texts import NOT_UNICODE, ArrowTexts, Texts, is_missing, text_column

MAX_FORMAT_CHARS = 64
MAX_FORMAT_WIDTH = 1000
_WHOLE_NUMBER_TYPES = frozenset("bcdoxX")
_ESCAPE_HINT = 'a brace that is meant as text is doubled: "{{" and "}}"'


@dataclass(frozen=True)
class Field:
    """A place of a template: a column and how its values are written."""

    column: str
    spec: str = ""


@dataclass(frozen=True)
class Template:
    """
    A parsed template: `literals` has one text more than there are `fields` between them.

    Examples
    --------
    >>> parse_template("Title: {title}!", ["title"]).literals
    ('Title: ', '!')
    """

    literals: tuple[str, ...]
    fields: tuple[Field, ...]

    def texts(self, frame: pd.DataFrame) -> TemplateTexts:
        """Return the template filled with each row of `frame`."""
        columns = {field: _field_values(frame, field) for field in dict.fromkeys(self.fields)}
        return TemplateTexts(self.literals, [columns[field] for field in self.fields], len(frame))


def parse_template(text: str, columns: Sequence[Any] | pd.Index, levels: Sequence[Any] = ()) -> Template:
    """
    Parse a template over the named columns, and over the levels of the index that are named as no column is.

    Raises
    ------
    ColumnNotFoundError
        A field names no column; the message names the closest.
    InputError
        A field is not plain (attributes, items, positions, conversions, nested fields), a format is too wide,
        or a brace is not closed.
    """
    names = {name for name in (*columns, *levels) if isinstance(name, str)}
    if not is_sendable_text(text):
        raise InputError("The template of prompt= holds a lone surrogate, which is not text that can be sent.")
    literals, fields, literal = [], [], ""
    at = 0
    while at < len(text):
        char = text[at]
        if char in "{}" and text[at : at + 2] == char * 2:
            literal += char
            at += 2
        elif char == "}":
            raise InputError(
                f"The template of prompt= closes a brace that was not opened, at character {at}.", hint=_ESCAPE_HINT
            )
        elif char == "{":
            end = text.find("}", at)
            if end < 0:
                raise InputError(
                    f"The template of prompt= opens a brace that is not closed, at character {at}.", hint=_ESCAPE_HINT
                )
            literals.append(literal)
            literal = ""
            fields.append(_field(text[at + 1 : end], names, columns, at))
            at = end + 1
        else:
            end = min((i for i in (text.find("{", at), text.find("}", at)) if i >= 0), default=len(text))
            literal += text[at:end]
            at = end
    if not fields:
        raise InputError(
            "The template of prompt= has no {column} in it: every row would get the same prompt.",
            hint=_hint_without_fields(text, columns),
        )
    return Template((*literals, literal), tuple(fields))


def _hint_without_fields(text: str, columns: Sequence[Any] | pd.Index) -> str:
    names = [name for name in columns if isinstance(name, str)]
    if text in names:
        return f"prompt_col={text!r} takes the column as it is"
    return f'prompt="... {{{clip(names[0], 40)}}}"' if names else 'prompt="Classify: {title}"'


def _field(inside: str, names: set[str], columns: Sequence[Any] | pd.Index, at: int) -> Field:
    """Read the text between two braces; a name is first taken literally."""
    if inside in names:
        return Field(inside)
    colons = [i for i, char in enumerate(inside) if char == ":"]
    for colon in reversed(colons):
        if inside[:colon] in names:
            return Field(inside[:colon], _checked_spec(inside[colon + 1 :], inside[:colon]))
    raise _refusal(inside, names, columns, at)


def _refusal(inside: str, names: set[str], columns: Sequence[Any] | pd.Index, at: int) -> InputError:
    shown = clip(f"{{{inside}}}", 60)
    name = inside.partition(":")[0]
    looks_like_text = not name.strip() or "\n" in inside or '"' in name or "{" in name
    if looks_like_text:
        # It may be a piece of the prompt, which no message shows.
        return InputError(
            f"The template of prompt= opens a brace at character {at} that names no column.", hint=_ESCAPE_HINT
        )
    if name.isdigit():
        labels = [label for label in columns if not isinstance(label, str) and str(label) == name]
        hint = (
            f'df.rename(columns=str)  # makes texts of the names; "{shown}" is one then'
            if labels
            else 'prompt="{title}"'
        )
        return InputError(f"The template of prompt= has {shown}: fields go by name, not by position.", hint=hint)
    bare = re.split(r"[.\[!]", name, maxsplit=1)[0]
    if bare != name and bare in names:
        return InputError(
            f"The template of prompt= has {shown}: attributes, items and conversions of a field are refused.",
            hint=f'make a column of it: df.assign(part=df[{quoted(bare, 40)}]...), then "{{part}}"',
        )
    if len(columns) and not names:
        return ColumnNotFoundError(
            f"The template of prompt= has {shown}, and the frame's columns have no names of text.",
            hint='df.set_axis(["_".join(map(str, name)) for name in df.columns], axis=1)   # one text for each column'
            if isinstance(columns[0], tuple)
            else "df.rename(columns=str)   # makes texts of the names",
        )
    close = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.6)
    known = ", ".join(quoted(other, 30) for other in sorted(names)[:10])
    return ColumnNotFoundError(
        f"The template of prompt= has {shown}, which names no column.",
        hint=f"did you mean {{{close[0]}}}?" if close else f"the frame has {known or 'no columns'}; {_ESCAPE_HINT}",
    )


def _checked_spec(spec: str, column: str) -> str:
    shown = clip(spec, 40)
    if "{" in spec:
        raise InputError(
            f"The format of {{{clip(column, 40)}}} holds another field, which is refused.",
            hint=f'"{{{clip(column, 40)}:>10}}"',
        )
    if len(spec) > MAX_FORMAT_CHARS or any(int(n) > MAX_FORMAT_WIDTH for n in re.findall(r"\d+", spec)):
        raise InputError(
            f"The format {shown!r} of {{{clip(column, 40)}}} is too wide.",
            hint=f"a width is at most {MAX_FORMAT_WIDTH}, a format at most {MAX_FORMAT_CHARS} characters",
        )
    return spec


class FieldValues:
    """The values of one field as text, and the rows that have none."""

    def __init__(self, texts: ArrowTexts | None, written: np.ndarray | None, reasons: dict[int, str]) -> None:
        self._texts = texts
        self._written = written
        self.reasons = reasons
        if texts is not None:
            self.null = texts.null
            self.blank = texts.missing
            self.n_bytes = texts.n_bytes()
        else:
            values = [] if written is None else written.tolist()
            self.null = np.array([value is None for value in values], bool)
            self.blank = np.array([value is None or not value or value.isspace() for value in values], bool)
            self.n_bytes = np.array([_utf8_length(value) for value in values], np.int64)

    def take(self, positions: np.ndarray) -> list[str]:
        """Return the texts at `positions`."""
        if self._texts is not None:
            return self._texts.take(positions)
        taken: list[str] = [] if self._written is None else self._written[positions].tolist()
        return taken


def _utf8_length(text: str | None) -> int:
    if text is None:
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _field_values(frame: pd.DataFrame, field: Field) -> FieldValues:
    if field.column not in frame.columns and list(frame.index.names).count(field.column) == 1:
        values = pd.Series(frame.index.get_level_values(field.column))
    else:
        values = column_of(frame, field.column, "prompt")
    if not field.spec and isinstance(values.dtype, pd.StringDtype | pd.ArrowDtype):
        texts = text_column(values)
        if isinstance(texts, ArrowTexts):
            return FieldValues(texts, None, texts.reasons)
    if isinstance(values.dtype, pd.CategoricalDtype):
        categories = _written(pd.Series(values.dtype.categories), field, None)
        codes = values.cat.codes.to_numpy()
        written = np.empty(len(codes), object)
        written[codes >= 0] = categories[codes[codes >= 0]]
    else:
        written = _written(values, field, frame.index)
    reasons = {i: NOT_UNICODE for i, text in enumerate(written) if text is not None and not is_sendable_text(text)}
    return FieldValues(None, written, reasons)


def _written(values: pd.Series, field: Field, index: pd.Index | None) -> np.ndarray:
    """Return each value as Python's ``format`` writes it, None where it is missing."""
    write = _writer(field.spec)
    written = np.empty(len(values), object)
    # Python's own scalars are written several times faster than numpy's, and the same.
    dtype = values.dtype
    fast = isinstance(dtype, np.dtype) and (dtype.kind in "biu" or dtype == np.float64)
    scalars = values.to_numpy().tolist() if fast else values.array
    for i, value in enumerate(scalars):
        if not is_missing_value(value):
            try:
                written[i] = write(value)
            except (ValueError, TypeError, AttributeError, OverflowError):
                where = "a category" if index is None else row_name(index, i)
                raise InputError(
                    f"The format {quoted(field.spec, 40)} of {{{clip(field.column, 40)}}} does not fit {where}, "
                    f"which holds {kind_of(value) if isinstance(value, str) else type(value).__name__}.",
                    hint=f'"{{{clip(field.column, 40)}}}" writes it without a format',
                ) from None
    return written


def is_missing_value(value: Any) -> bool:
    """Return whether a value is NA; blank text is not."""
    return not isinstance(value, str) and is_missing(value)


def _writer(spec: str) -> Callable[[Any], str]:
    if not spec:
        return str
    if spec[-1] in _WHOLE_NUMBER_TYPES and "%" not in spec:
        # pandas keeps whole numbers as floats where a column has gaps; "d" is meant for them too.
        def write(value: Any) -> str:
            whole = isinstance(value, float | np.floating) and float(value).is_integer()
            return format(int(value) if whole else value, spec)

        return write
    return lambda value: format(value, spec)


class TemplateTexts(Texts):
    """A template filled with the rows of a frame, a few rows at a time."""

    def __init__(self, literals: Sequence[str], fields: Sequence[FieldValues], n_rows: int) -> None:
        self._literals = literals
        self._fields = fields
        self.structured: dict[int, Any] = {}
        self.missing = np.zeros(n_rows, bool)
        self.reasons: dict[int, str] = {}
        blank = np.full(n_rows, not "".join(literals).strip())
        self._n_bytes = np.full(n_rows, sum(len(text.encode("utf-8")) for text in literals), np.int64)
        for field in fields:
            self.missing |= field.null
            blank &= field.blank
            self._n_bytes += field.n_bytes
            self.reasons |= field.reasons
        self.missing |= blank
        self.reasons = {row: reason for row, reason in self.reasons.items() if not self.missing[row]}
        self._n_bytes[self.missing] = 0

    def take(self, positions: np.ndarray) -> list[str]:
        """Return the texts at `positions`."""
        parts: list[Any] = []
        for literal, field in zip(self._literals, self._fields, strict=False):
            if literal:
                parts.append(itertools.repeat(literal))
            parts.append(field.take(positions))
        if self._literals[-1]:
            parts.append(itertools.repeat(self._literals[-1]))
        return ["".join(row) for row in zip(*parts, strict=False)]

    def n_bytes(self) -> np.ndarray:
        """Return the UTF-8 length of every text."""
        return self._n_bytes
