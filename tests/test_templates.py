"""Templates: plain fields over columns, and no way from a field to anything else."""

from __future__ import annotations

import datetime as dt
import decimal
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pandas_batch
from pandas_batch import simulator
from pandas_batch.errors import ColumnNotFoundError, InputError
from pandas_batch.requests.templates import parse_template


def fill(template: str, frame: pd.DataFrame) -> list[str | None]:
    """Return the template filled with each row, None where the prompt is missing."""
    texts = parse_template(template, frame.columns).texts(frame)
    filled: list[str | None] = [None] * len(frame)
    there = np.flatnonzero(~texts.missing)
    for row, text in zip(there.tolist(), texts.take(there), strict=True):
        filled[row] = text
    assert texts.n_bytes()[there].tolist() == [len(str(filled[row]).encode("utf-8", "replace")) for row in there]
    return filled


def test_fields_are_replaced_and_doubled_braces_are_braces() -> None:
    """A template reads like a format string: {column}, {{ and }}."""
    frame = pd.DataFrame({"title": ["A", "B"], "n": [1, 2]})
    assert fill("{{{title}}} {n}{n} }}{{", frame) == ["{A} 11 }{", "{B} 22 }{"]


def test_values_are_inserted_once_and_never_read_again() -> None:
    """A value that looks like a field is text."""
    frame = pd.DataFrame({"a": ["{b}", "{{b}}", "{a.__class__}"], "b": ["x", "y", "z"]})
    assert fill("{a}-{b}", frame) == ["{b}-x", "{{b}}-y", "{a.__class__}-z"]


def test_a_name_is_first_taken_literally() -> None:
    """A column may be called like an access, a position, a format, or have spaces."""
    names = ["a.b", "x[0]", "0", "n:d", "my title", "who?", "q!r"]
    frame = pd.DataFrame([[name.upper() for name in names]], columns=names)
    assert fill("|".join(f"{{{name}}}" for name in names), frame) == ["|".join(names).upper()]


ATTACKS = [
    "{c.__class__}",
    "{c.__init__.__globals__[os].environ[ANTHROPIC_API_KEY]}",
    "{c[0]}",
    "{c[__class__]}",
    "{c!r}",
    "{c!s:>10}",
    "{0}",
    "{}",
    "{:>10}",
    "{0.__class__}",
    "{c:{c}}",
    "{c:{n}}",
    "{c:>{n}}",
    "{c:>300000000}",
    "{n:300000000d}",
    "{f:.300000000f}",
    "{n:0300000000}",
    "{c:" + "x" * 65 + "}",
    "{self}",
    "{df}",
    "{__class__}",
    "{c.c}",
    "{ c }",
    "{c }",
    "{C}",
    "{c",
    "c}",
    "{c}}",
    "{{c}",
    "{",
    "}",
    "{c}{",
    "no field at all",
    "{{c}}",
    "",
    "{c\n}",
    '{"a": 1} {c}',
    "{c:\ud83d}",
    "{n:%}{n:s}",
]


@pytest.mark.parametrize("template", ATTACKS)
def test_everything_but_a_plain_field_is_refused(template: str) -> None:
    """No attribute, item, position, conversion, nested field or unbounded width gets through, nor a stray brace."""
    frame = pd.DataFrame({"c": ["secret"], "n": [1], "f": [0.5]})
    with pytest.raises(InputError) as caught:
        fill(template, frame)
    assert "secret" not in str(caught.value)


def test_an_unknown_field_is_named_with_the_closest_column() -> None:
    """The error is a KeyError too, and suggests what was probably meant."""
    with pytest.raises(ColumnNotFoundError, match=r"did you mean \{title\}\?"):
        fill("{titel}", pd.DataFrame({"title": ["x"]}))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_a_missing_field_makes_the_prompt_missing(missing: Any) -> None:
    """One NA among the fields and the row has no prompt; an empty text is a text."""
    frame = pd.DataFrame({"a": pd.Series(["x", missing, ""], dtype=object), "b": [1, 2, 3]})
    assert fill("{a}{b}", frame) == ["x1", None, "3"]
    assert fill("{a}", frame) == ["x", None, None]
    assert fill("{a}{b}", frame.astype({"a": "string"})) == ["x1", None, "3"]
    assert fill("{a}{b}", frame.fillna({"a": ""})) == ["x1", "2", "3"]


def test_scalars_are_written_as_python_writes_them() -> None:
    """Whole numbers stay whole in nullable columns, dates are dates, and float32 shows no noise."""
    moment = pd.Timestamp("2026-11-23 08:00")
    frame = pd.DataFrame(
        {
            "int": pd.Series([1, 2], dtype="int8"),
            "Int": pd.Series([1, None], dtype="Int64"),
            "float": [1.5, np.nan],
            "float32": pd.Series([0.1, 0.2], dtype="float32"),
            "bool": [True, False],
            "boolean": pd.Series([True, None], dtype="boolean"),
            "when": [moment, pd.NaT],
            "zone": pd.Series([moment, moment]).dt.tz_localize("Europe/Berlin"),
            "delta": [pd.Timedelta("1D"), pd.NaT],
            "date": [dt.date(2026, 11, 23), None],
            "decimal": [decimal.Decimal("1.10"), None],
            "category": pd.Categorical(["x", None]),
            "numbers": pd.Categorical([3, None]),
            "period": pd.PeriodIndex(["2026-11", "2026-12"], freq="M"),
            "pa_int": pd.Series([7, None], dtype="int64[pyarrow]"),
            "pa_text": pd.Series(["ü", None], dtype=pd.ArrowDtype(__import__("pyarrow").string())),
        }
    )
    for name in frame:
        first = frame[name].array[0]
        assert fill(f"{{{name}}}", frame)[0] == str(first), name
    assert fill("{Int}", frame) == ["1", None]
    assert fill("{float32}", frame) == ["0.1", "0.2"]
    assert fill("{zone}", frame)[0] == "2026-11-23 08:00:00+01:00"


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("{n:03d}", "007"),
        ("{n:,}", "7"),
        ("{f:.1f}", "2.0"),
        ("{f:d}", "2"),
        ("{gap:d}", "3"),
        ("{when:%d %B %Y}", "23 November 2026"),
        ("{t:>5}", "    x"),
        ("{t:.0}|", "|"),
        ("{c:>3}", "  y"),
    ],
)
def test_formats_are_those_of_python(field: str, written: str) -> None:
    """A format works as in Python; d also takes the whole floats that pandas makes of whole numbers with gaps."""
    frame = pd.DataFrame(
        {
            "n": [7],
            "f": [2.0],
            "gap": pd.Series([3.0]),
            "when": [pd.Timestamp("2026-11-23")],
            "t": ["x"],
            "c": pd.Categorical(["y"]),
        }
    )
    assert fill(field, frame) == [written]


def test_a_format_that_does_not_fit_names_the_row_and_not_the_value() -> None:
    """The error says which row and what kind of value, and never quotes a text."""
    frame = pd.DataFrame({"a": [1, "secret"]}, index=["p", "q"], dtype=object)
    with pytest.raises(InputError, match=r"row 1 \('q'\)") as caught:
        fill("{a:d}", frame)
    assert "secret" not in str(caught.value)


def test_a_lone_surrogate_in_a_field_is_the_rows_own_error() -> None:
    """A row whose field cannot be sent is named; its neighbours are not harmed."""
    frame = pd.DataFrame({"a": pd.Series(["ok", "\ud83d", None], dtype=object)})
    texts = parse_template("{a}!", frame.columns).texts(frame)
    assert list(texts.reasons) == [1]
    assert texts.missing.tolist() == [False, False, True]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.tuples(TEXTS, st.integers(-(2**62), 2**62), st.floats(allow_nan=False)), min_size=1, max_size=10))
def test_a_template_is_format_applied_to_each_row(rows: list[tuple[str, int, float]]) -> None:
    """For every frame the result is what str.format gives row by row."""
    frame = pd.DataFrame(rows, columns=["t", "i", "f"])
    wanted = [f"<{t}> {i} {f} {f:.3e}{{}}" for t, i, f in rows]
    assert fill("<{t}> {i} {f} {f:.3e}{{}}", frame) == wanted


def test_100_000_rows_take_a_fraction_of_a_second() -> None:
    """Filling three fields of 100,000 rows is vectorised: well under a second on any machine."""
    n = 100_000
    frame = pd.DataFrame({"a": "title " + pd.Series(np.arange(n)).astype(str), "b": np.arange(n), "c": "text"})
    start_s = time.process_time()
    texts = parse_template("Title: {a}\n{b} {c}", frame.columns).texts(frame)
    for at in range(0, n, 256):
        texts.take(np.arange(at, min(at + 256, n)))
    assert time.process_time() - start_s < 1


def test_mistakes_with_columns_are_told_so_that_the_next_line_is_right() -> None:
    """A template in place of a column, a level of the index, columns without names of text, lists in cells."""
    frame = pd.DataFrame({"t": ["a"]}, index=pd.Index(["x"], name="review"))
    wide = pd.DataFrame([["a"]], columns=pd.MultiIndex.from_tuples([("v", "x")]))
    lists = pd.DataFrame({"t": pd.Series([["a", "b"]], dtype=object)})
    for call, line in (
        (lambda: frame.claude_batch.preview("Classify {t}"), "prompt="),
        (lambda: frame.claude_batch.preview("review"), "reset_index"),
        (lambda: wide.claude_batch.preview(prompt="Classify {v}"), "set_axis"),
        (lambda: wide.set_axis([5], axis=1).claude_batch.preview(prompt="Classify {v}"), "rename(columns=str)"),
        (lambda: lists.claude_batch.preview("t"), "explode"),
    ):
        with pytest.raises(InputError) as raised:
            call()
        assert line in raised.value.hint


def test_an_index_named_like_an_added_column_is_told() -> None:
    """A result whose index cannot be made a column again by reset_index() comes with a warning, and comes."""
    named = pd.DataFrame({"t": ["a"]}, index=pd.Index([7], name="output"))
    with simulator.serve(seconds_per_batch=0) as api, pytest.warns(UserWarning, match="index is named 'output'"):
        out = named.claude_batch.submit("t", client=api.client(), progress="off", poll_interval=0.05)
    assert out["status"].tolist() == ["succeeded"]


@pytest.mark.parametrize("value", [None, 5, ["run"], 1.5])
def test_a_run_is_named_by_a_text(value: object) -> None:
    """Whatever else is given in place of an id or a name is told in words."""
    with pytest.raises(InputError, match="its id or its name"):
        pandas_batch.load(value)


def test_a_field_may_be_a_level_of_the_index() -> None:
    """A name is a column first, then a level of the index; a level that two share is none."""
    frame = pd.DataFrame(
        {"a": ["x", "y"]}, index=pd.MultiIndex.from_tuples([(1, "q"), (None, "r")], names=["day", "a"])
    )
    texts = parse_template("{day}: {a}", frame.columns, frame.index.names).texts(frame)
    assert texts.take(np.array([0])) == ["1.0: x"]
    assert texts.missing.tolist() == [False, True]
    out = pd.DataFrame({"n": [1]}, index=pd.Index(["k"], name="key")).claude_batch.preview(prompt="{key:>3} {n}")
    assert out[0]["params"]["messages"][-1]["content"] == "  k 1"
    with pytest.raises(ColumnNotFoundError):
        parse_template("{other}", frame.columns, frame.index.names)
