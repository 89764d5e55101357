"""Answers as columns: the right answer beside each row, whatever the order, the index and the batches."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from rowlab import ask

from pandas_batch import simulator
from pandas_batch.requests.text_dtype import text_array, text_dtype
from pandas_batch.run import recording
from pandas_batch.run.run_answers import RunAnswers
from pandas_batch.run.target_frame import insert_columns
from pandas_batch.types import ROW_STATUSES

INDEXES = {
    "range": pd.RangeIndex(6),
    "duplicates": pd.Index(["a", "a", "b", "b", "a", "c"]),
    "multi": pd.MultiIndex.from_tuples(
        [("x", 1), ("x", 1), ("y", 2), ("y", None), (None, 1), ("z", 3)], names=["k", "n"]
    ),
    "nan": pd.Index([1.0, np.nan, np.nan, 2.0, 3.0, np.nan], name="f"),
    "tz": pd.date_range("2026-10-25", periods=6, freq="h", tz="Europe/Berlin"),
    "interval": pd.interval_range(0, 6),
    "categorical": pd.CategoricalIndex(list("aabbcc")),
    "mixed": pd.Index(["a", 1, None, 2.5, ("t", 1), True], dtype=object),
    "period": pd.period_range("2026-01", periods=6, freq="M"),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_any_index_comes_back_as_it_was(api, clock, kind):
    """Index, order, dtypes, attrs and all other columns stay; the frame that was passed in is untouched."""
    frame = pd.DataFrame(
        {
            "prompt": [f"p{i}" for i in range(6)],
            "i8": np.arange(6, dtype="int8"),
            "cat": pd.Categorical(list("xyxyxy")),
            "when": pd.date_range("2026-01-01", periods=6),
            "nullable": pd.array([1, None, 3, None, 5, 6], dtype="Int32"),
        },
        index=INDEXES[kind],
    )
    frame.attrs["source"] = "test"
    before = frame.copy(deep=True)
    out = ask(frame, api, clock).result()
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(out[list(frame.columns)], before)
    assert out.attrs == before.attrs
    assert all(prompt in text for prompt, text in zip(out["prompt"], out["output"], strict=True))
    again = ask(frame, api, clock)
    assert again.store.runs.index_of(again.id).equals(frame.index)


@pytest.mark.filterwarnings("ignore:Passing a BlockManager:DeprecationWarning")  # pandas 2.2 of any subclass
def test_subclass_and_flags_stay(api, clock):
    """A subclass of DataFrame and its flags come back."""

    class Mine(pd.DataFrame):
        @property
        def _constructor(self):
            return Mine

    frame = Mine({"prompt": ["a", "b"]}).set_flags(allows_duplicate_labels=False)
    out = ask(frame, api, clock).result()
    assert type(out) is Mine
    assert not out.flags.allows_duplicate_labels


def test_empty_and_promptless_frames_send_nothing(api, clock):
    """A frame without rows, and one without prompts, come back with the columns and no request."""
    for frame in (pd.DataFrame({"prompt": pd.Series([], dtype=str)}), pd.DataFrame({"prompt": [None, " ", np.nan]})):
        out = ask(frame, api, clock).result()
        assert len(out) == len(frame)
        assert set(out["status"]) <= {"skipped"}
        assert out["cost_usd"].sum() == 0
    assert api.calls("create") == 0


def test_arrow_backed_frames_work(api, clock):
    """Columns read with `dtype_backend="pyarrow"` are prompts like any others."""
    import pyarrow as pa

    frame = pd.DataFrame({"prompt": pd.array(["a", None, "b"], dtype=pd.ArrowDtype(pa.string()))})
    assert ask(frame, api, clock).result()["status"].tolist() == ["succeeded", "skipped", "succeeded"]


def test_all_columns_have_their_dtypes(api, clock):
    """`columns="all"` adds every documented column with its documented dtype."""
    out = ask(pd.DataFrame({"prompt": ["a", None]}), api, clock, columns="all").result()
    dtypes = {name: str(dtype) for name, dtype in out.dtypes.items() if name != "prompt"}
    tokens = ("input_tokens", "output_tokens", "tokens", "cache_read_tokens", "cache_write_tokens", "thinking_tokens")
    texts = ("output", "status", "stop_reason", "error", "model", "custom_id", "batch_id", "message_id")
    assert dtypes == {
        **dict.fromkeys(texts, str(text_dtype())),
        **dict.fromkeys(tokens, "Int64"),
        "cost_usd": "float64",
        "reused": "boolean",
    }
    assert len(out.loc[0, "custom_id"]) == 47
    assert out.loc[1, ["custom_id", "batch_id", "message_id"]].isna().all()


def test_no_text_is_copied_where_rows_and_answers_agree(api, clock):
    """With one answer per row in the order of the rows the texts are those of the file, not a copy of them."""
    import pyarrow as pa

    run = ask(pd.DataFrame({"prompt": [f"p{i}" for i in range(500)]}), api, clock)
    run.wait()
    before = pa.total_allocated_bytes()
    output = run.to_arrow().column("output")
    assert output.num_chunks >= 1
    assert pa.total_allocated_bytes() - before < 100_000


@settings(max_examples=15, deadline=None)
@given(
    prompts=st.lists(st.sampled_from(["a", "b", "c", "dd", None, " "]), max_size=12),
    size=st.integers(1, 5),
    seed=st.integers(0, 5),
    dedupe=st.booleans(),
)
def test_each_row_has_the_answer_to_its_prompt(prompts, size, seed, dedupe, tmp_path_factory):
    """For any rows, any cut into batches and any order of results: the answer beside a prompt is its own."""
    clock = FakeClock()
    frame = pd.DataFrame({"prompt": pd.Series(prompts, dtype=object)})
    with pytest.MonkeyPatch.context() as patch, simulator.serve(clock=clock.time_s, seed=seed) as api:
        patch.setattr(recording, "MAX_BATCH_REQUESTS", size)
        run = ask(frame, api, clock, dedupe=dedupe, store=str(tmp_path_factory.mktemp("store")))
        out = run.result()
        assert out.index.equals(frame.index)
        for prompt, text, status in zip(prompts, out["output"], out["status"], strict=True):
            assert status == ("succeeded" if prompt and prompt.strip() else "skipped")
            assert pd.isna(text) if status == "skipped" else text.endswith(prompt)
        assert out["cost_usd"].sum() == pytest.approx(float(api.billed_usd), abs=1e-12)
        assert sum(run.counts.values()) == len(frame)


def test_insert_columns_never_writes_in_place():
    """A column that is replaced is replaced in the new frame only."""
    frame = pd.DataFrame({"a": [1, 2]})
    out = insert_columns(frame, {"a": [3, 4], "b": [5, 6]})
    assert frame.to_dict("list") == {"a": [1, 2]}
    assert out.to_dict("list") == {"a": [3, 4], "b": [5, 6]}


class OwnFrame(pd.DataFrame):
    """A subclass, as GeoPandas has one, with an attribute that goes along."""

    _metadata = ("unit",)
    unit = None

    @property
    def _constructor(self):
        return OwnFrame


FRAMES = {
    "plain": pd.DataFrame({"q": ["a", "b", "c"], "n": [1, 2, 3]}),
    "labels that occur twice": pd.DataFrame({"q": ["a", "b", "c"]}, index=["x", "x", "y"]),
    "several levels of labels": pd.DataFrame(
        {"q": [1, 2, 3]}, index=pd.MultiIndex.from_tuples([(1, 2), (1, 2), (2, 1)])
    ),
    "dates": pd.DataFrame({"q": [1.0, np.nan, 3]}, index=pd.date_range("2026-01-01", periods=3, name="day")),
    "columns that occur twice": pd.DataFrame([[1, 2], [3, 4], [5, 6]], columns=["q", "q"]),
    "columns without text": pd.DataFrame([[1, 2], [3, 4], [5, 6]]),
    "columns with a name": pd.DataFrame({"q": [1, 2, 3]}).rename_axis(columns="what"),
    "columns of two levels": pd.DataFrame([[1, 2]] * 3, columns=pd.MultiIndex.from_product([["q"], ["r", "s"]])),
    "columns of a category": pd.DataFrame([[1, 2]] * 3, columns=pd.CategoricalIndex(["q", "r"])),
    "no columns": pd.DataFrame(index=[3, 1, 2]),
    "no rows": pd.DataFrame({"q": pd.Series([], dtype="str")}),
    "one column replaced": pd.DataFrame({"status": [1, 2, 3], "q": [1, 2, 3]}),
    "a subclass": OwnFrame({"q": [1, 2, 3]}),
    "no label twice": pd.DataFrame({"q": [1, 2, 3]}).set_flags(allows_duplicate_labels=False),
}


@pytest.mark.filterwarnings("ignore:Passing a BlockManager:DeprecationWarning")  # pandas 2.2 of any subclass
@pytest.mark.parametrize("name", FRAMES)
def test_columns_go_in_as_pandas_puts_them_in_one_by_one(name):
    """Whatever the frame is, the merged one is what assigning each column gives, and writing to it is seen nowhere."""
    frame = FRAMES[name].copy()
    frame.attrs = {"source": "survey"} if name == "dates" else {}
    if isinstance(frame, OwnFrame):
        frame.unit = "metre"
    before, n = frame.copy(), len(frame)
    lists = np.empty(n, object)
    lists[:] = [[1, "a"], [], None][:n]
    columns = {
        "status": text_array(pa.array(["succeeded", None, "errored"][:n], pa.large_string())),
        "tokens": pd.array([1, pd.NA, 3][:n], dtype="Int64"),
        "cost_usd": np.array([0.5, np.nan, 0.0][:n]),
        "reused": pd.array([True, False, True][:n], dtype="boolean"),
        "samples": lists,
        "score": pd.Series([1.5, 2.0, 3.0][:n]).array,
        "n_words": pd.Series([1, 2, 3][:n]).array,
    }
    expected = frame.copy(deep=False)
    for column, values in columns.items():
        expected[(column, "") if frame.columns.nlevels == 2 else column] = values
    out = insert_columns(frame, columns)
    pd.testing.assert_frame_equal(out, expected, check_flags=True)
    assert (type(out), out.attrs) == (type(expected), expected.attrs)
    assert getattr(out, "unit", None) == getattr(frame, "unit", None)
    assert out.columns.identical(expected.columns)
    for column in columns:
        out[column] = out[column].iloc[::-1].to_numpy()
    if frame.size:
        out.iloc[:, 0] = out.iloc[:, 0].iloc[::-1].to_numpy()
    pd.testing.assert_frame_equal(frame, before)


def test_codes_are_not_seen_before_the_schema_has_spoken(clock):
    """While outputs are still being parsed nobody can take one that does not fit the schema for succeeded."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    def answer(params):
        return '{"n": 1}' if params["messages"][-1]["content"] == "fits" else "no JSON"

    with simulator.serve(answer=answer, clock=clock.time_s) as api:
        run = ask(pd.DataFrame({"prompt": ["fits", "does not"]}), api, clock, output_schema=schema)
        assert run.result()["status"].tolist() == ["succeeded", "invalid"]
        published = []

        class Watched:
            def to_columns(self, outputs, reasons):
                published.append(answers._codes)
                return run.schema.to_columns(outputs, reasons)

        answers = RunAnswers(run.store, run.record, run.store.batches.of_run(run.id), schema=Watched())
        codes = answers.codes_of_requests()
    assert published == [None]
    assert [ROW_STATUSES[code] for code in codes.tolist()] == ["succeeded", "invalid"]
