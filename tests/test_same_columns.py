"""A result that was saved and loaded again is known for one, whatever the file did to its columns."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rowlab import ask

from pandas_batch import InputError, simulator
from pandas_batch.clock import Clock
from pandas_batch.requests.schema import OutputSchema
from pandas_batch.requests.text_dtype import text_array
from pandas_batch.run.same_columns import first_difference

SCHEMA = OutputSchema.of(
    {
        "type": "object",
        "properties": {
            "note": {"type": "string"},
            "n": {"type": "integer"},
            "score": {"type": "number"},
            "sure": {"type": "boolean"},
            "mood": {"enum": ["glad", "sad"]},
            "stars": {"enum": [1, 2]},
            "day": {"type": "string", "format": "date"},
            "at": {"type": "string", "format": "date-time"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "author": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}},
        },
    }
)
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=12),
    st.sampled_from(
        ["", "1", "007", "1.50", "1e5", "NA", "null", "None", "True", "inf", "a\nb", "['x']", "2026-01-02"]
    ),
)
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "note": TEXTS,
        "n": st.integers(-(2**40), 2**40),
        "score": st.floats(-1e6, 1e6),
        "sure": st.booleans(),
        "mood": st.sampled_from(["glad", "sad"]),
        "stars": st.sampled_from([1, 2]),
        "day": st.dates(pd.Timestamp("1950-01-01").date(), pd.Timestamp("2100-01-01").date()).map(str),
        "at": st.datetimes(pd.Timestamp("1980-01-01"), pd.Timestamp("2100-01-01")).map(
            lambda at: at.replace(microsecond=0).isoformat() + "Z"
        ),
        "tags": st.lists(TEXTS, max_size=3),
        "author": st.fixed_dictionaries({}, optional={"name": TEXTS, "age": st.integers(0, 99)}),
    },
)


def columns_of(answers: list[dict[str, Any] | None]) -> pd.DataFrame:
    columns, invalid = SCHEMA.to_columns([None if answer is None else json.dumps(answer) for answer in answers])
    assert not invalid
    texts = [None if answer is None else answer.get("note", "x") for answer in answers]
    added = {
        "output": text_array(pa.array(texts, pa.large_string())),
        "tokens": pd.array([None if answer is None else 12 for answer in answers], dtype="Int64"),
        "cost_usd": np.array([0.0 if answer is None else 0.0000185123456 for answer in answers]),
        "reused": pd.array([answer is None for answer in answers], dtype="boolean"),
    }
    return pd.DataFrame({**columns, **added})


def through_csv(frame: pd.DataFrame, **options: Any) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(frame.to_csv(index=False)), **options)


def through_parquet(frame: pd.DataFrame) -> pd.DataFrame:
    file = io.BytesIO()
    frame.to_parquet(file)
    return pd.read_parquet(io.BytesIO(file.getvalue()))


def through_json(frame: pd.DataFrame, **options: Any) -> pd.DataFrame:
    return pd.read_json(io.StringIO(frame.to_json(**options)), orient=options.get("orient"))


def through_sql(frame: pd.DataFrame) -> pd.DataFrame:
    plain = frame.assign(**{name: frame[name].map(json.dumps, na_action="ignore") for name in ("tags", "author")})
    with closing(sqlite3.connect(":memory:")) as connection:
        plain.to_sql("t", connection, index=False)
        return pd.read_sql("SELECT * FROM t", connection)


FILES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "csv": through_csv,
    "csv without NA": lambda frame: through_csv(frame, keep_default_na=False),
    "csv as text": lambda frame: through_csv(frame, dtype=str),
    "json": lambda frame: through_json(frame, date_format="epoch"),
    "json records": lambda frame: through_json(frame, orient="records", date_format="iso"),
    "parquet": through_parquet,
    "sql": through_sql,
    "pickle": lambda frame: frame.copy(),
    "objects": lambda frame: frame.astype(object),
    "parquet, then csv": lambda frame: through_csv(through_parquet(frame)),
}


@pytest.mark.filterwarnings("ignore:.*date format")  # pandas guesses at a column of odd texts
@settings(max_examples=60)
@given(answers=st.lists(st.none() | ANSWERS, min_size=1, max_size=5), file=st.sampled_from(sorted(FILES)))
def test_what_a_file_makes_of_a_column_is_no_difference(answers: list[dict[str, Any] | None], file: str) -> None:
    """For any answers and any file every column that came back is still known."""
    ours = columns_of(answers)
    try:
        there = FILES[file](ours)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OverflowError):
        return  # what pandas itself cannot write or read
    assert len(there) == len(ours)
    different = [name for name in there.columns if first_difference(there[name], ours[name].array) is not None]
    assert not different, {name: (there[name].tolist(), ours[name].tolist()) for name in different}


DIFFERENT = [
    (pd.array([1, 2], dtype="Int64"), [1, 3]),
    (np.array([0.5, 0.25]), [0.5, 0.2501]),
    (np.array([0.5, np.nan]), [0.5, 0.1]),
    (pd.array(["a", "b"], dtype="str"), ["a", "c"]),
    (pd.array(["a", None], dtype="str"), ["a", "mine"]),
    (pd.array(["a", "1"], dtype="str"), ["a", 2]),
    (pd.Categorical(["a", "b"]), ["a", "c"]),
    (pd.array([True, False], dtype="boolean"), [True, True]),
    ([["a"], ["b"]], [["a"], ["b", "c"]]),
    ([["a"], ["b"]], ["['a']", "['x']"]),
    ([{"a": 1}, {"a": 1}], [{"a": 1}, {"a": 2}]),
    (pd.to_datetime(["2026-01-01", "2026-01-02"]), ["2026-01-01", "2026-01-03"]),
]


@pytest.mark.parametrize(("ours", "there"), DIFFERENT, ids=range(len(DIFFERENT)))
def test_what_no_file_does_is_a_difference(ours: Any, there: list[Any]) -> None:
    """Another value is found, in the place where it stands."""
    column = pd.Series(there)
    assert first_difference(column, ours) == 1
    assert first_difference(column.astype(object), ours) == 1


def test_what_had_no_answer_yet_is_no_difference() -> None:
    """A frame with a partial result, or with rows that another run did not hold, goes on."""
    there = pd.Series(["pending", "unsent", None, "succeeded"])
    assert first_difference(there, pd.array(["succeeded"] * 4, dtype="str")) is None


@pytest.mark.parametrize("file", ["csv", "json", "parquet", "xlsx", "pickle"])
def test_the_same_line_over_a_saved_result_goes_on(
    api: simulator.Simulator, clock: Clock, file: str, tmp_path: Path
) -> None:
    """Through any file the columns are taken for ours, replaced, and nothing is sent again."""
    api.faults.add(simulator.RowFault("errored", marker="bad"))
    frame = pd.DataFrame({"prompt": ["1", "bad", None, "NA", "two words", "two words"]})
    out = ask(frame, api, clock, columns="all").result()
    path = tmp_path / f"out.{file}"
    if file == "xlsx":
        pytest.importorskip("openpyxl", reason="the extra for spreadsheets is not installed")
    writer = {"xlsx": "to_excel"}.get(file, f"to_{file}")
    reader = {"xlsx": pd.read_excel}.get(file) or getattr(pd, f"read_{file}")
    getattr(out, writer)(path, **({"index": False} if file in ("csv", "xlsx") else {}))
    back = reader(path).assign(prompt=frame["prompt"].tolist())
    again = ask(back, api, clock, columns="all")
    pd.testing.assert_frame_equal(again.result()[out.columns], out)
    assert len(api.batches) == 1


def test_parts_and_more_of_a_result_go_on(api: simulator.Simulator, clock: Clock) -> None:
    """A result that was filtered, sorted, or has new rows is gone on with; only new rows are asked for."""
    api.faults.add(simulator.RowFault("overloaded", marker="bad"))
    frame = pd.DataFrame({"prompt": ["a", "b", "a", "bad", None]})
    out = ask(frame, api, clock).result()
    n_billed = len(api.billed)
    for part in (out.iloc[[1]], out.iloc[::-1], out.iloc[2:4], pd.concat([out, out]).reset_index(drop=True)):
        merged = part.claude_batch.merge(ask(frame, api, clock))
        assert merged.columns.tolist() == out.columns.tolist()
    api.faults.clear()
    only = ask(out.iloc[[0, 2, 1]], api, clock).result()
    assert only["output"].tolist() == ["a", "a", "b"]
    assert len(api.billed) == n_billed
    assert ask(out[out["status"] == "errored"], api, clock).result()["status"].tolist() == ["succeeded"]
    assert len(api.billed) == n_billed + 1
    grown = pd.concat([out.head(3), pd.DataFrame({"prompt": ["new"]})], ignore_index=True)
    assert ask(grown, api, clock).result()["output"].tolist() == ["a", "b", "a", "new"]
    assert len(api.billed) == n_billed + 2


def test_a_result_from_before_a_retry_goes_on(api: simulator.Simulator, clock: Clock) -> None:
    """The frame still holds what the first run wrote; the same line writes what the retry brought."""
    api.faults.add(simulator.RowFault("overloaded", marker="bad"))
    run = ask(pd.DataFrame({"prompt": ["bad", "b"]}), api, clock)
    out = run.result()
    api.faults.clear()
    run.retry_failed().wait()
    assert ask(out, api, clock).result()["status"].tolist() == ["succeeded", "succeeded"]


def test_the_column_that_differs_is_named(api: simulator.Simulator, clock: Clock) -> None:
    """A column that is not ours is not replaced: it, its row and the run are named, and no value of it."""
    out = ask(pd.DataFrame({"prompt": ["a", "b"]}, index=["x", "y"]), api, clock).result()
    for frame in (out, out.iloc[[1]]):
        mine = frame.assign(cost_usd=[9.5] * len(frame))
        with pytest.raises(InputError, match="has a column 'cost_usd' that is not what run run_") as told:
            ask(mine, api, clock)
        assert f"first in row {frame.index[0]}" in str(told.value)
        assert "9.5" not in str(told.value)
        assert "claude_batch.merge(" in str(told.value)
        assert ask(mine, api, clock, overwrite=True).result()["cost_usd"].max() < 1
    with pytest.raises(InputError, match="The frame already has a column 'output', which this call would add"):
        ask(pd.DataFrame({"prompt": ["never asked"], "output": ["mine"]}), api, clock)


def test_a_text_that_was_marked_as_none_of_a_spreadsheets_formulas_is_the_same() -> None:
    """What `collect` writes as '=1+1 into a file is the answer =1+1; another quote is another text."""
    assert first_difference(pd.Series(["'=1+1", "'-a", "b"]), ["=1+1", "-a", "b"]) is None
    assert first_difference(pd.Series(["''=1+1", "'=1+1"]), ["'=1+1", "'=1+1"]) is None
    assert first_difference(pd.Series(["'b"]), ["b"]) == 0
