"""Rows to requests: every row checked, and written as exactly the bytes the API expects."""

from __future__ import annotations

import enum
import json
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pandas_batch.errors import ColumnNotFoundError, InputError, PromptError
from pandas_batch.requests.options import parse_options
from pandas_batch.requests.plan import RequestPlan, plan_requests, preview_requests
from pandas_batch.requests.texts import escaped

WHERE = {"base_url": "https://api.anthropic.com", "api_version": "2026-10-21"}
SURROGATE = "\ud83d"


def plan(frame: pd.DataFrame, prompt_col: Any = None, **kwargs: Any) -> RequestPlan:
    return plan_requests(frame, parse_options(kwargs, prompt_col=prompt_col), **WHERE)


def params_of(plan: RequestPlan, positions: Any = None) -> list[dict[str, Any]]:
    at = np.flatnonzero(plan.sendable) if positions is None else np.array(positions)
    return [json.loads(body) for part in plan.encode(at) for body in part]


def prompts_of(plan: RequestPlan) -> list[Any]:
    return [params["messages"][-1]["content"] for params in params_of(plan)]


STRING_DTYPES = [
    object,
    # Before pandas 3, "str" makes the text "None" of None.
    *(["str"] if int(pd.__version__.partition(".")[0]) >= 3 else []),
    "string",
    pd.StringDtype("python"),
    pd.StringDtype("pyarrow"),
    pd.ArrowDtype(pa.string()),
    pd.ArrowDtype(pa.large_string()),
    pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string())),
    "category",
]


@pytest.mark.parametrize("dtype", STRING_DTYPES, ids=str)
def test_every_dtype_that_holds_text_gives_the_same_requests(dtype: Any) -> None:
    """The bytes and the fingerprints depend on the texts, not on how pandas keeps them."""
    values = ["plain", "", None, " \n\t", 'quote " \\ \x00 \x1f', "naïve 🙂 \u2028", "plain"]
    reference = plan(pd.DataFrame({"p": pd.Series(values, dtype=object)}), "p")
    frame = pd.DataFrame({"p": pd.Series(values, dtype=object, index=list("aabbccd")).astype(dtype)})
    made = plan(frame, "p")
    assert made.sendable.tolist() == [True, False, False, False, True, True, True]
    assert (made.fingerprints == reference.fingerprints).all()
    assert not made.fingerprints[~made.sendable].any()
    assert (made.text_bytes == reference.text_bytes).all()
    assert prompts_of(made) == [values[0], values[4], values[5], values[6]]
    assert params_of(made, [5, 0])[0]["messages"][0]["content"] == values[5]
    assert not made.reasons


@pytest.mark.parametrize("dtype", STRING_DTYPES, ids=str)
def test_a_column_of_nothing_is_a_column_of_missing_prompts(dtype: Any) -> None:
    """No rows, or rows without a prompt, are no error."""
    empty = pd.DataFrame({"p": pd.Series([], dtype=object).astype(dtype)})
    assert plan(empty, "p").n_rows == 0
    assert list(plan(empty, "p").encode(np.array([], int))) == []
    nothing = pd.DataFrame({"p": pd.Series([None, None], dtype=object).astype(dtype)})
    assert not plan(nothing, "p").sendable.any()


def test_texts_in_many_arrow_chunks_are_read_in_any_order() -> None:
    """A concatenated column has several chunks; any order of rows comes out of it right."""
    words = [f"w{i}" for i in range(50)]
    chunks = pa.chunked_array([words[:7], [], words[7:30], words[30:]], pa.string())
    frame = pd.DataFrame({"p": pd.Series(chunks, dtype=pd.ArrowDtype(pa.string()))})
    made = plan(frame, "p")
    order = np.random.default_rng(0).permutation(50)
    assert [p["messages"][0]["content"] for p in params_of(made, order)] == [words[i] for i in order]
    assert (made.fingerprints == plan(pd.DataFrame({"p": words}), "p").fingerprints).all()


INDEXES = [
    pd.RangeIndex(3),
    pd.Index(["a", "a", None]),
    pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2)]),
    pd.DatetimeIndex(["2026-01-01", "2026-01-01", pd.NaT], tz="Europe/Berlin"),
    pd.IntervalIndex.from_breaks([0, 1, 2, 3]),
    pd.Index([np.nan, np.nan, 1.0]),
]


@pytest.mark.parametrize("index", INDEXES, ids=lambda index: type(index).__name__)
def test_the_index_never_matters(index: pd.Index) -> None:
    """Labels never leave this machine: any index gives the same requests."""
    frame = pd.DataFrame({"p": ["x", "y", "z"]}, index=index)
    bare = plan(pd.DataFrame({"p": ["x", "y", "z"]}), "p")
    made = plan(frame, "p", max_tokens=pd.Series([1, 2, 3], index=index), system=lambda df: df["p"])
    assert made.max_tokens.tolist() == [1, 2, 3]
    assert params_of(plan(frame, "p")) == params_of(bare)


def test_a_request_is_what_the_sdk_would_send() -> None:
    """The bytes are the JSON of the Messages parameters, with nothing added."""
    options = {
        "system": "Be brief.",
        "model": "claude-sonnet-5",
        "max_tokens": 16,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "few_shot": [("2+2?", "4")],
        "extra_params": {"zzz": 1},
    }
    assert params_of(plan(pd.DataFrame({"p": ["hi"]}), "p", **options)) == [
        {
            "model": "claude-sonnet-5",
            "max_tokens": 16,
            "system": "Be brief.",
            "stop_sequences": ["END"],
            "metadata": {"user_id": "u"},
            "zzz": 1,
            "messages": [
                {"role": "user", "content": "2+2?"},
                {"role": "assistant", "content": "4"},
                {"role": "user", "content": "hi"},
            ],
        }
    ]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8))
def test_every_text_arrives_as_it_was(texts: list[str]) -> None:
    """Whatever Unicode a cell holds is what the request says."""
    for dtype in (object, "string"):
        made = plan(pd.DataFrame({"p": pd.Series(texts, dtype=dtype)}), "p")
        assert prompts_of(made) == [text for text in texts if text and not text.isspace()]


def test_slices_are_small_and_hold_the_rows_asked_for() -> None:
    """Encoding goes in small slices, in the order that was asked for."""
    made = plan(pd.DataFrame({"p": [f"r{i}" for i in range(2500)]}), "p")
    order = np.arange(2500)[::-1]
    sizes = [len(part) for part in made.encode(order)]
    assert sizes == [1024, 1024, 452]
    assert [p["messages"][0]["content"] for p in params_of(made, order)] == [f"r{i}" for i in order]


class Shouted(str):
    def __str__(self) -> str:
        return "not me"


def test_texts_of_other_classes_are_texts() -> None:
    """numpy's text, enums and other subclasses of str are sent as what they hold."""
    model = enum.Enum("Model", {"FAST": "claude-haiku-4-5"}, type=str)
    frame = pd.DataFrame({"p": pd.Series([np.str_("a"), Shouted("b"), "c"], dtype=object)})
    made = plan(frame, "p", model=model.FAST, system=Shouted("S"), few_shot=[(np.str_("q"), Shouted("r"))])
    assert prompts_of(made) == ["a", "b", "c"]
    (first, *_) = params_of(made)
    assert (first["model"], first["system"], first["messages"][1]["content"]) == ("claude-haiku-4-5", "S", "r")
    by_row = plan(frame, "p", model=lambda df: pd.Series([model.FAST] * 3, dtype=object))
    assert by_row.models == ("claude-haiku-4-5",)


@pytest.mark.parametrize("system", ["", " \n", None, [], pd.Series([None, " ", np.nan], dtype=object)])
def test_a_system_prompt_that_says_nothing_is_not_sent(system: Any) -> None:
    """The API refuses an empty system prompt, so an empty one is none."""
    made = plan(pd.DataFrame({"p": ["a", "b", "c"]}), "p", system=system)
    assert all("system" not in params for params in params_of(made))
    assert (made.fingerprints == plan(pd.DataFrame({"p": ["a", "b", "c"]}), "p").fingerprints).all()


# --------------------------------------------------------------------------- values per row


def test_a_series_with_the_same_index_is_taken_by_position_else_by_label() -> None:
    """The one rule for per-row values."""
    frame = pd.DataFrame({"p": ["x", "y", "z"]}, index=["a", "b", "a"])
    same = pd.Series([1, 2, 3], index=frame.index)
    assert plan(frame, "p", max_tokens=same).max_tokens.tolist() == [1, 2, 3]
    labels = pd.Series([20, 10, 99], index=["b", "a", "unused"])
    assert plan(frame, "p", max_tokens=labels).max_tokens.tolist() == [10, 20, 10]
    with pytest.raises(InputError, match="no value for 2 rows"):
        plan(frame, "p", max_tokens=pd.Series([1], index=["b"]))
    with pytest.raises(InputError, match="repeated labels"):
        plan(frame, "p", max_tokens=pd.Series([1, 2, 3], index=["a", "a", "b"]))


def test_rows_with_the_same_options_share_a_group() -> None:
    """Models, limits and systems of each row are its own; a shape per distinct set is offered for preflight."""
    frame = pd.DataFrame(
        {"p": ["a", None, "c", "d", "e"], "m": ["m1", "m2", "m1", "m2", "m1"], "s": ["S", None, None, "S", "S"]}
    )
    made = plan(frame, "p", model=lambda df: df["m"], system=lambda df: df["s"], max_tokens=pd.Series([5, 5, 6, 6, 5]))
    assert [made.models[code] for code in made.model_of_row] == frame["m"].tolist()
    assert made.max_tokens.tolist() == [5, 5, 6, 6, 5]
    assert [(p["model"], p.get("system"), p["max_tokens"]) for p in params_of(made)] == [
        ("m1", "S", 5),
        ("m1", None, 6),
        ("m2", "S", 6),
        ("m1", "S", 5),
    ]
    assert made.samples_of_shapes() == [0, 2, 3]
    assert len({row.tobytes() for row in made.fingerprints[made.sendable]}) == 4


def test_a_value_per_row_and_for_all_make_the_same_request() -> None:
    """A row's fingerprint does not tell whether its options were given for all rows or for each."""
    frame = pd.DataFrame({"p": [f"r{i}" for i in range(20)]})
    for_all = plan(frame, "p", system="S", max_tokens=7, metadata={"user_id": "u"})
    for_each = plan(
        frame,
        "p",
        system=lambda df: pd.Series("S", index=df.index),
        max_tokens=pd.Series(np.int16(7), index=frame.index),
        metadata=lambda df: pd.Series([{"user_id": "u"}] * len(df)),
    )
    assert (for_all.fingerprints == for_each.fingerprints).all()
    assert params_of(for_all) == params_of(for_each)
    distinct = plan(frame, "p", system=lambda df: df["p"])
    alone = [plan(frame.iloc[[i]], "p", system=f"r{i}").fingerprints[0].tobytes() for i in range(20)]
    assert [row.tobytes() for row in distinct.fingerprints] == alone


def test_a_bad_value_of_one_row_names_the_row() -> None:
    """NA, a wrong type and a bad number are refused before anything is sent, naming row and option."""
    frame = pd.DataFrame({"p": ["x", "y"]}, index=["a", "b"])
    for kwargs in (
        {"max_tokens": pd.Series([1.0, np.nan], index=frame.index)},
        {"max_tokens": pd.Series([1, 0], index=frame.index)},
        {"model": pd.Series(["m", None], index=frame.index)},
        {"metadata": lambda df: pd.Series([{"user_id": "u"}, {"user_id": np.nan}], index=df.index)},
        {"metadata": lambda df: pd.Series([{"user_id": "u"}, {"user": "v"}], index=df.index)},
        {"stop_sequences": lambda df: pd.Series([["a"], None], index=df.index)},
        {"system": pd.Series(["S", 5], index=frame.index, dtype=object)},
    ):
        with pytest.raises(InputError, match=r"In row 1 \('b'\): "):
            plan(frame, "p", **kwargs)


def test_a_callable_gets_the_frame_and_cannot_change_it() -> None:
    """A callable that writes into its frame leaves the user's own as it was; its error comes through with a note."""
    frame = pd.DataFrame({"p": ["x"], "n": [1]})

    def spoil(df: pd.DataFrame) -> pd.Series:
        df["n"] = 99
        return df["n"]

    assert plan(frame, "p", max_tokens=spoil).max_tokens.tolist() == [99]
    assert frame["n"].tolist() == [1]
    with pytest.raises(ZeroDivisionError) as caught:
        plan(frame, "p", max_tokens=lambda df: 1 / 0)
    assert "max_tokens=" in caught.value.__notes__[0]
    with pytest.raises(InputError, match="has to return a Series"):
        plan(frame, "p", max_tokens=lambda df: [1])


def test_a_prompt_may_be_made_by_a_callable_or_given_as_a_series() -> None:
    """prompt= takes the same three forms as every other option."""
    frame = pd.DataFrame({"a": ["x", "y"]}, index=["k", "l"])
    assert prompts_of(plan(frame, prompt=lambda df: df["a"] + "!")) == ["x!", "y!"]
    assert prompts_of(plan(frame, prompt=pd.Series(["2", "1"], index=["l", "k"]))) == ["1", "2"]
    assert prompts_of(plan(frame, prompt="{a}?")) == ["x?", "y?"]


# --------------------------------------------------------------------------- rows that cannot be sent

CELLS: list[Any] = ["ok", 5, None, SURROGATE, 2.5, b"x", float("nan"), pd.NaT, pd.Timestamp(0), "x" * 999]
MIXED = pd.DataFrame({"p": pd.Series(CELLS, dtype=object, index=list("abcdefghij"))})


def test_rows_that_cannot_be_sent_are_named_by_default() -> None:
    """The error carries the rows as a frame: label, position, reason."""
    with pytest.raises(PromptError, match="5 of 10 rows of column 'p' cannot be sent") as caught:
        plan(MIXED, "p")
    assert caught.value.rows.index.tolist() == ["b", "d", "e", "f", "i"]
    assert caught.value.rows["position"].tolist() == [1, 3, 4, 5, 8]
    assert caught.value.rows["reason"].tolist()[0] == "the prompt is int, not text"
    assert "df.astype({" in str(caught.value)


def test_rows_that_cannot_be_sent_can_be_left_out() -> None:
    """With skip one bad row costs the others nothing, and keeps its reason; a missing prompt has none."""
    made = plan(MIXED, "p", on_unsendable="skip")
    assert made.sendable.tolist() == [True, *[False] * 8, True]
    assert sorted(made.reasons) == [1, 3, 4, 5, 8]
    assert prompts_of(made) == ["ok", "x" * 999]


def test_missing_prompts_can_be_an_error() -> None:
    """on_missing="raise" names the rows without a prompt."""
    with pytest.raises(PromptError, match="have no prompt") as caught:
        plan(MIXED, "p", on_unsendable="skip", on_missing="raise")
    assert caught.value.rows["position"].tolist() == [2, 6, 7]


@pytest.mark.parametrize("values", [[1, 2], [True, False], pd.to_datetime(["2026-01-01"] * 2), pd.Categorical([1, 2])])
def test_a_column_that_is_not_text_says_how_to_make_it_text(values: Any) -> None:
    """Numbers are not silently turned into prompts."""
    with pytest.raises(PromptError, match="not text"):
        plan(pd.DataFrame({"p": values}), "p")


def test_a_float_column_of_gaps_is_missing_not_wrong() -> None:
    """An all-NaN column, as pandas reads an empty one, is a column without prompts."""
    assert not plan(pd.DataFrame({"p": [np.nan, np.nan]}), "p").sendable.any()


def test_a_request_over_the_limit_is_that_rows_error() -> None:
    """Size is measured in encoded bytes, escapes included; its neighbours go."""
    frame = pd.DataFrame({"p": ["short", "x" * 900, "\x00" * 200]})
    options = parse_options({"prompt_col": "p", "on_unsendable": "skip"})
    made = plan_requests(frame, options, **WHERE, max_request_bytes=1000)
    bodies = [body for part in plan(frame, "p").encode(np.arange(3)) for body in part]
    assert [len(body) > 1000 for body in bodies] == [False, False, True]
    assert made.sendable.tolist() == [True, True, False]
    exact = plan_requests(frame, options, **WHERE, max_request_bytes=len(bodies[2]))
    assert exact.sendable.all()
    one_less = plan_requests(frame, options, **WHERE, max_request_bytes=len(bodies[2]) - 1)
    assert one_less.sendable.tolist() == [True, True, False]
    assert "a request may have" in made.reasons[2]


def test_invalid_utf8_in_an_arrow_column_is_found() -> None:
    """Arrow does not check what it is given; a request of broken bytes would cost the whole batch."""
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 2, 4], pa.int32()).buffers()[1], pa.py_buffer(b"ok\xff\xfe")]
    )
    frame = pd.DataFrame({"p": pd.Series(pa.chunked_array([broken]), dtype=pd.ArrowDtype(pa.string()))})
    made = plan(frame, "p", on_unsendable="skip")
    assert made.sendable.tolist() == [True, False]
    assert prompts_of(made) == ["ok"]
    assert list(made.reasons) == [1]
    # It is there, it only cannot be sent: on_missing does not speak of it.
    assert plan(frame, "p", on_unsendable="skip", on_missing="raise").reasons == made.reasons


def test_wrong_columns_are_named() -> None:
    """A column that is not there, or there twice, is an error that says which."""
    frame = pd.DataFrame([["x", "y"]], columns=["review", "review"])
    with pytest.raises(InputError, match="2 columns"):
        plan(frame, "review")
    with pytest.raises(ColumnNotFoundError, match="prompt_col='review'"):
        plan(pd.DataFrame({"review": ["x"]}), "reviews")
    with pytest.raises(KeyError):
        plan(pd.DataFrame({"review": ["x"]}), "review", images_col="img")
    with pytest.raises(InputError, match=r"submit\('review'\)"):
        plan(pd.DataFrame({"n": [1], "review": ["x"]}))


def test_no_message_quotes_a_prompt() -> None:
    """Errors and reasons name rows and columns, never what a row says."""
    secret = "TOP-SECRET"
    cells: list[Any] = [
        secret + SURROGATE,
        [secret],
        [{"type": "text", "text": secret}, 5],
        [{"role": secret, "content": secret}],
        [{"type": "text", "text": np.nan, "x": secret}],
        [{"type": "text", "tekst": secret}],
        {"role": "user", "content": [secret]},
        secret.encode(),
    ]
    frame = pd.DataFrame({"p": pd.Series(cells, dtype=object)})
    made = plan(frame, "p", on_unsendable="skip")
    assert len(made.reasons) == len(cells)
    assert secret not in repr(made) + str(made.reasons)
    with pytest.raises(PromptError) as caught:
        plan(frame, "p")
    assert secret not in str(caught.value)


# --------------------------------------------------------------------------- blocks, turns, caching


def blocks(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]


@pytest.mark.parametrize("kind", [dict, list])
def test_cells_nested_without_end_are_told(kind: type) -> None:
    """A block that is nested deeper than can be sent is the row's reason, and never an error of Python's stack."""
    deep: Any = "x"
    for _ in range(5000):
        deep = {"a": deep} if kind is dict else [deep]
    frame = pd.DataFrame({"p": [[{"type": "text", "text": "x", "cache_control": deep}], "y"]})
    made = plan(frame, "p", on_unsendable="skip")
    assert list(made.reasons) == [0]
    assert "nested deeper" in made.reasons[0]


def test_blocks_and_turns_are_sent_as_they_are() -> None:
    """A cell may hold a text, a block, blocks, a message, or a conversation, side by side."""
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": blocks("b")},
        {"role": "user", "content": "c"},
    ]
    cells: list[Any] = ["text", blocks("x"), blocks("x")[0], turns, np.array(turns, object), tuple(turns), []]
    frame = pd.DataFrame({"p": pd.Series(cells, dtype=object)})
    made = plan(frame, "p", few_shot=[("q", "r")])
    messages = [params["messages"] for params in params_of(made)]
    shots = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]
    assert all(m[:2] == shots for m in messages)
    assert [m[2:] for m in messages] == [
        [{"role": "user", "content": "text"}],
        [{"role": "user", "content": blocks("x")}],
        [{"role": "user", "content": blocks("x")}],
        turns,
        turns,
        turns,
    ]
    assert not made.sendable[6]
    assert len({row.tobytes() for row in made.fingerprints[made.sendable]}) == 3


def test_lists_of_structs_in_an_arrow_column_lose_the_fields_that_arrow_added() -> None:
    """Parquet gives every struct all fields; the ones a block does not have are not sent as null."""
    kind = pa.list_(pa.struct([("type", pa.string()), ("text", pa.string()), ("cache_control", pa.string())]))
    column = pd.Series([blocks("x"), None], dtype=pd.ArrowDtype(kind))
    assert prompts_of(plan(pd.DataFrame({"p": column}), "p")) == [blocks("x")]


def test_the_fields_of_a_schema_keep_their_order_on_the_wire() -> None:
    """Models write fields in the order of the schema: reasoning has to come before the verdict."""
    frame = pd.DataFrame({"p": ["x"]})
    (params,) = params_of(plan(frame, "p", output_schema={"reasoning": str, "answer": bool}))
    assert list(params["output_config"]["format"]["schema"]["properties"]) == ["reasoning", "answer"]
    kinds = {"reasoning": {"type": "string"}, "answer": {"type": "boolean"}}
    there = plan(frame, "p", output_schema={"type": "object", "properties": kinds})
    back = plan(frame, "p", output_schema={"type": "object", "properties": dict(reversed(kinds.items()))})
    assert (there.fingerprints != back.fingerprints).any()


def test_a_schema_joins_the_rest_of_output_config() -> None:
    """effort and a schema go together; two formats do not."""
    frame = pd.DataFrame({"p": ["x", "y"]})
    kwargs: dict[str, Any] = {"output_schema": {"a": int}}
    (params, _) = params_of(plan(frame, "p", **kwargs, output_config={"effort": "low"}))
    assert params["output_config"]["effort"] == "low"
    assert params["output_config"]["format"]["type"] == "json_schema"
    per_row = pd.Series([{"effort": "low"}, {"format": {"type": "json_schema", "schema": {"type": "object"}}}])
    with pytest.raises(InputError, match="both say"):
        plan(frame, "p", **kwargs, output_config=per_row)


def test_cache_system_marks_the_end_of_the_system_prompt() -> None:
    """One mark, for an hour, on the last block; rows without a system prompt have none."""
    mark = {"type": "ephemeral", "ttl": "1h"}
    frame = pd.DataFrame({"p": ["x"]})
    assert params_of(plan(frame, "p", system="S", cache_system=True))[0]["system"] == [
        {"type": "text", "text": "S", "cache_control": mark}
    ]
    two = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    made = params_of(plan(frame, "p", system=two, cache_system=True))[0]["system"]
    assert made == [two[0], two[1] | {"cache_control": mark}]
    per_row = params_of(plan(frame, "p", system=pd.Series([None], dtype=object), cache_system=True))
    assert "system" not in per_row[0]


# --------------------------------------------------------------------------- what it costs


def test_text_bytes_follow_the_text() -> None:
    """The estimate's bytes grow with the prompt and the constant part, and are 0 for rows that are not sent."""
    frame = pd.DataFrame({"p": ["x", "x" * 101, None]})
    made = plan(frame, "p")
    assert made.text_bytes[1] - made.text_bytes[0] == 100
    assert made.text_bytes[2] == 0
    longer = plan(frame, "p", system="y" * 500)
    assert longer.text_bytes[0] - made.text_bytes[0] >= 500


def test_preview_shows_the_requests_themselves() -> None:
    """A preview is what would go on the wire, under ids of no batch, for sendable rows only."""
    frame = pd.DataFrame({"p": [None, "a", "b"]})
    made = plan(frame, "p")
    shown = preview_requests(made, 5)
    assert [request["params"] for request in shown] == params_of(made)
    assert all(request["custom_id"].startswith("pb1_preview00000_") for request in shown)
    assert preview_requests(made, 0) == []


def test_encoding_is_flat() -> None:
    """Encoding prompts of 1 KB needs the memory of a slice, not of a copy; how fast it is, the guard of speed says."""
    n = 20_000
    frame = pd.DataFrame(
        {"p": pd.Series([f"{i:07d}" + "lorem ipsum " * 85 for i in range(n)], dtype="string[pyarrow]")}
    )
    made = plan(frame, "p", system="S")
    assert sum(len(body) for part in made.encode(np.arange(n)) for body in part) > 20_000_000
    tracemalloc.start()
    for part in made.encode(np.arange(n)):
        del part
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 5_000_000


TEXT_CELLS = st.text(max_size=8)
BLOCK_CELLS = st.dictionaries(
    st.sampled_from(["type", "text", "role", "content", "source"]),
    st.one_of(
        st.sampled_from(["text", "user", "image", "base64", ""]),
        st.none(),
        st.integers(),
        st.lists(st.none(), max_size=1),
    ),
    max_size=3,
)
CELLS_OF_ALL_KINDS = st.one_of(
    TEXT_CELLS,
    st.none(),
    st.just(float("nan")),
    st.just(pd.NA),
    st.just(pd.NaT),
    st.integers(),
    st.floats(),
    st.binary(max_size=3),
    st.booleans(),
    st.datetimes(),
    st.frozensets(st.integers(), max_size=2),
    st.lists(BLOCK_CELLS, max_size=3),
    st.lists(TEXT_CELLS, max_size=2),
    BLOCK_CELLS,
    st.just(object()),
    st.just(np.array([[1, 2]])),
)


@given(st.lists(CELLS_OF_ALL_KINDS, min_size=1, max_size=12))
def test_whatever_a_column_holds_every_row_has_a_story(cells: list[Any]) -> None:
    """Each row is sent, or missing, or has a reason; no cell of any kind harms another row."""
    column = np.empty(len(cells), object)
    column[:] = [*cells]
    made = plan(pd.DataFrame({"p": pd.Series(column, dtype=object)}), "p", on_unsendable="skip")
    bodies = params_of(made)
    assert len(bodies) == made.sendable.sum()
    assert not made.sendable[list(made.reasons)].any()
    assert made.fingerprints[made.sendable].any(axis=1).all()
    for row, cell in enumerate(cells):
        alone = np.empty(1, object)
        alone[0] = cell
        other = plan(pd.DataFrame({"p": pd.Series(alone, dtype=object)}), "p", on_unsendable="skip")
        assert other.sendable[0] == made.sendable[row]
        assert (other.fingerprints[0] == made.fingerprints[row]).all()
        assert other.reasons.get(0) == made.reasons.get(row)
        if isinstance(cell, str):
            sendable_text = cell.strip() and cell.encode("utf-8", "replace").decode() == cell
            assert made.sendable[row] == bool(sendable_text)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=8))
@example(['"', "\\", '\\"\n', "\x00", "\x7f", ""])
def test_texts_escaped_all_at_once_are_what_each_would_be(texts: list[str]) -> None:
    """Escaping a slice of texts in one pass gives the same JSON as encoding each alone."""
    joined = b"\xff".join([text.encode() for text in texts])
    assert escaped(joined, len(texts)) == [msgspec.json.encode(text)[1:-1] for text in texts]


@pytest.mark.parametrize("label", ["n", 7, ("a", "b"), 2.5])
def test_the_lines_to_type_fit_labels_of_any_kind(label: Any) -> None:
    """What a message says to type runs as it stands, also where columns and rows have numbers or tuples for names."""
    index = pd.MultiIndex.from_product([["x"], [1, 2]])
    df = pd.DataFrame({label: [1, 2], "text": ["a", "b"]}, index=index)
    with pytest.raises(PromptError) as told:
        plan(df, prompt_col=label)
    assert "row 0 (('x', 1))" in told.value.what
    code = next(line for line in told.value.hint.splitlines() if "df." in line)
    assert plan(eval(code, {"df": df}), prompt_col=label).n_rows == 2
    with pytest.raises(ColumnNotFoundError) as told:
        plan(df, prompt_col="zzz")
    assert told.value.hint == f"the frame has {label!r}, 'text'"


def test_an_array_is_one_value_per_row_and_a_list_is_not() -> None:
    """An array as long as the frame goes by position, whatever the labels; of another length it is refused."""
    frame = pd.DataFrame({"p": ["a", "b", "c"]}, index=["x", "x", "y"])
    given = {
        "max_tokens": np.array([1, 2, 3]),
        "system": np.array(["s", "t", "u"]),
        "prompt": np.array(["k", "l", "m"]),
    }
    requests = [request["params"] for request in frame.claude_batch.preview(**given)]
    assert [(one["max_tokens"], one["system"], one["messages"][-1]["content"]) for one in requests] == [
        (1, "s", "k"),
        (2, "t", "l"),
        (3, "u", "m"),
    ]
    made = frame.claude_batch.preview("p", max_tokens=lambda df: np.arange(1, len(df) + 1))
    assert [request["params"]["max_tokens"] for request in made] == [1, 2, 3]
    with pytest.raises(InputError, match="has 2 values; the frame has 3 rows"):
        frame.claude_batch.preview("p", max_tokens=np.array([1, 2]))
    (stops,) = frame.iloc[:1].claude_batch.preview("p", stop_sequences=["!", "?"])
    assert stops["params"]["stop_sequences"] == ["!", "?"]


def test_an_option_computed_from_a_missing_prompt_may_have_no_value() -> None:
    """A row that is not sent hinders no other: what is computed from its prompt is not asked for."""
    frame = pd.DataFrame({"p": ["short", None, "a longer one"]})
    made = plan(frame, "p", max_tokens=lambda f: f["p"].str.len() * 2 + 64)
    bodies = [body for part in made.encode(np.flatnonzero(made.sendable)) for body in part]
    assert [f'"max_tokens":{n}'.encode() in body for n, body in zip((74, 88), bodies, strict=True)] == [True, True]
    with pytest.raises(InputError, match="max_tokens has no value"):
        plan(frame, "p", max_tokens=pd.Series([9, 9, None], index=frame.index))
