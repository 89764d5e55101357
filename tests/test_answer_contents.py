"""More of an answer than its text: read from the raw lines when asked for, and from nothing else."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes

from pandas_batch import simulator
from pandas_batch.content_blocks import column_beside_output
from pandas_batch.errors import InputError
from pandas_batch.results.answer_contents import PICK, content_of, read_contents
from pandas_batch.results.answers import decode_results
from pandas_batch.saving import save

NAMES = ["thinking", "tool_calls", "citations", "content"]
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"city": "Rome", "days": [1, {}]}}
CITED = {"type": "text", "text": "Sunny.", "citations": [{"type": "page_location", "cited_text": "sun"}]}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
HIDDEN = {"type": "redacted_thinking", "data": "x"}
CONTENTS: dict[str, list[dict[str, Any]]] = {
    "whole": [THOUGHT, CITED, HIDDEN, {**THOUGHT, "thinking": "Yes."}, CALL],
    "text": [{"type": "text", "text": "Hello."}],
    "nothing": [],
    "file": [{"type": "text", "text": "Here."}, {"type": "container_upload", "file_id": "file_1"}],
    "search": [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "Found."},
    ],
    "only thought": [THOUGHT],
}


def answer(params: dict[str, Any]) -> simulator.Reply:
    asked = params["messages"][-1]["content"]
    return simulator.Reply(content=CONTENTS[asked.partition("#")[0]])


@pytest.fixture
def told(api):
    api.answer = answer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield api


def test_each_column_holds_its_part(told, clock):
    """Thinking as text, calls and citations as lists, all blocks as they came; missing where there is none."""
    out = ask(pd.DataFrame({"prompt": list(CONTENTS)}, index=list(CONTENTS)), told, clock, columns=NAMES).result()
    assert out.loc["whole", "thinking"] == "Hm.\n\nYes."
    assert out.loc["whole", "tool_calls"] == [{name: CALL[name] for name in ("id", "name", "input")}]
    assert out.loc["whole", "citations"] == CITED["citations"]
    assert out["content"].to_dict() == CONTENTS
    assert out[NAMES[:3]].notna().sum().to_dict() == {"thinking": 2, "tool_calls": 1, "citations": 1}


@cut_on_purpose
def test_rows_of_every_outcome_have_them_or_none(api, clock):
    """Whatever became of a row, its content is that of its own answer; asked for later it costs nothing more."""
    plan_outcomes(api)
    frame = all_outcomes()
    run = ask(frame, api, clock)
    plain = run.result()
    created, fetched = api.calls("create"), api.calls("results")
    names = ["output", "content"]
    for out in (run.result(columns=names), frame.claude_batch.merge(run, columns=names)):
        pd.testing.assert_series_equal(out["output"], plain["output"])
        texts = [
            None if blocks is None else "".join(b["text"] for b in blocks if b["type"] == "text") or None
            for blocks in out["content"]
        ]
        assert texts == [text if isinstance(text, str) and text else None for text in out["output"]]
        assert out["content"][~plain["status"].isin(["succeeded"])].isna().all()
    assert (api.calls("create"), api.calls("results")) == (created, fetched)
    assert run.result().columns.tolist() == plain.columns.tolist()


def test_samples_duplicates_reuse_and_retries(told, clock):
    """Lists per row with samples, its own objects for each row that shares a request, the same from another run."""
    frame = pd.DataFrame({"prompt": ["whole", "text", "whole", None]})
    out = ask(frame, told, clock, samples=2, columns=["tool_calls"]).result()
    assert [len(calls) for calls in out["tool_calls"]] == [2] * 4
    assert out["tool_calls"][1] == [None, None] == out["tool_calls"][3]
    assert out["tool_calls"][0][1][0]["name"] == "look"
    shared = ask(frame, told, clock, columns=["content"], name="b").result()["content"]
    assert shared[0] == shared[2]
    assert shared[0] is not shared[2]
    n_created = told.calls("create")
    again = ask(frame.iloc[:2], told, clock, columns=["content"], name="c").result()["content"]
    assert again.tolist() == shared[:2].tolist()
    assert told.calls("create") == n_created
    fault = told.faults.add(simulator.RowFault("overloaded", marker="#late"))
    late = ask(pd.DataFrame({"prompt": ["whole", "whole#late"]}), told, clock, columns=["content"])
    assert late.result()["content"].isna().tolist() == [False, True]
    told.faults.remove(fault)
    assert late.retry_failed().result()["content"].notna().all()


def test_a_frame_with_such_columns_goes_round_through_files(told, clock, tmp_path):
    """Pickle, JSON and Parquet give back what is recognised as ours; Arrow and our own Parquet hold JSON text."""
    frame = pd.DataFrame({"prompt": list(CONTENTS)})
    run = ask(frame, told, clock, columns=["output", *NAMES])
    out = run.result()
    for back in (
        pd.read_json(__import__("io").StringIO(out.to_json())),
        pd.read_pickle(out.to_pickle(tmp_path / "a.pkl") or tmp_path / "a.pkl"),
        out,
    ):
        again = ask(back, told, clock, columns=["output", *NAMES]).result()
        pd.testing.assert_frame_equal(again[["output", *NAMES]], out[["output", *NAMES]])
    table = run.to_arrow()
    assert json.loads(table["tool_calls"][0].as_py())[0]["input"] == CALL["input"]
    save(out, tmp_path / "out.parquet")
    saved = pq.read_table(tmp_path / "out.parquet")
    assert json.loads(saved["content"][0].as_py()) == CONTENTS["whole"]
    assert told.calls("create") == 1


def test_a_column_of_the_users_own_is_not_replaced(told, clock):
    """`result(columns=...)` refuses a name that the frame has; a choice that is none is refused as in the call."""
    frame = pd.DataFrame({"prompt": ["whole"], "content": ["mine"]})
    run = ask(frame, told, clock)
    run.result()
    with pytest.raises(InputError, match="column 'content' of its own"):
        run.result(columns=["content"])
    with pytest.raises(InputError, match="not one of the columns"):
        run.result(columns=["contents"])
    assert frame.claude_batch.merge(run, columns=["content"], prefix="c_")["c_content"][0] == CONTENTS["whole"]


@pytest.mark.parametrize(
    ("name", "column"), [("whole", "tool_calls"), ("file", "content"), ("only thought", "thinking")]
)
def test_the_warning_names_the_column_to_ask_for(api, clock, name, column):
    """Where the output does not hold an answer one warning names its column, and none where it was asked for."""
    api.answer = answer
    frame = pd.DataFrame({"prompt": [name, "text", "search", "nothing"]})
    with pytest.warns(UserWarning, match=f'1 row answered .*"{column}"'):
        ask(frame, api, clock).result()
    ask(frame, api, clock, columns=["output", column]).result()
    ask(frame, api, clock, columns=["content"]).result()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BLOCKS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["text", "thinking", "tool_use", "redacted_thinking", "new"]) | JSON,
        "text": JSON,
        "thinking": JSON,
        "citations": JSON,
        "input": JSON,
    },
)


@given(st.lists(BLOCKS | JSON, max_size=4) | JSON)
def test_odd_content_never_raises(content):
    """Of whatever stands in place of content each column takes what it can, and never raises."""
    line = json.dumps({"result": {"message": {"content": content}}}).encode()
    read = content_of(line)
    assert (read is None) != isinstance(content, list)
    if read is not None:
        assert json.dumps(read, sort_keys=True) == json.dumps(content, sort_keys=True)
        for pick in PICK.values():
            json.dumps(pick(read))


@given(st.binary(max_size=80) | st.just(b"[" * 100_000) | st.just(b'{"result":' * 100_000) | st.just(b"1" * 10_000))
def test_odd_lines_never_raise(line):
    """Bytes that are no JSON, too deep, or too long a number are no content."""
    assert content_of(line) is None


def test_lone_surrogates_and_broken_bytes_become_replacement_characters() -> None:
    """What no file can hold is replaced, in names and in values, as it is in the output."""
    line = b'{"result":{"message":{"content":[{"type":"tool_use","input":{"\\ud83d":"a\\udc00"}},{"text":"\xff"}]}}}'
    read = content_of(line)
    assert read == [{"type": "tool_use", "input": {"\ufffd": "a\ufffd"}}, {"text": "\ufffd"}]


def test_of_lines_that_differ_the_same_one_counts_as_in_the_table() -> None:
    """Where several lines answer a request, content and output are of the same one."""
    custom_id = "pb1_abcdefghijkl_00000_" + "A" * 24
    broken = b'{"custom_id":"' + custom_id.encode() + b'","result":{"type":"succeeded","message":{"content":7}}}\n'
    lines = [broken] + [
        json.dumps(
            {
                "custom_id": custom_id,
                "result": {"type": "succeeded", "message": {"content": [{"type": "text", "text": text}]}},
            }
        ).encode()
        + b"\n"
        for text in ("first", "second")
    ]
    shape: dict[str, Any] = {"prefix": b"pb1_abcdefghijkl_", "n_requests": 1}
    assert decode_results(lines, **shape).table["output"].to_pylist() == ["first"]
    assert read_contents(lines, [0, 0], **shape) == [[{"type": "text", "text": "first"}]] * 2
    assert read_contents([], [0], **shape) == [None]


@given(st.lists(st.sampled_from(["text", "thinking", "tool_use", "server_tool_use", "new", ""])), st.booleans())
def test_text_alone_needs_no_other_column(kinds, has_text):
    """A column is named just where there is a block that the output does not stand for."""
    column = column_beside_output(kinds, has_text=has_text)
    assert column in (None, "thinking", "tool_calls", "content")
    if set(kinds) <= {"text"} or (has_text and set(kinds) <= {"text", "thinking", "server_tool_use"}):
        assert column is None
    elif not has_text:
        assert column is not None
