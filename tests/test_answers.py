"""Raw result lines to columns: any order, any chunks, any damage; nothing raises and no good row is lost."""

from __future__ import annotations

import json
import os
import random
import stat
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandas_batch.results import result_file
from pandas_batch.results.answer_texts import joined_texts, text_of
from pandas_batch.results.answers import (
    ANSWER_SCHEMA,
    Decoded,
    decode_results,
    decode_to_file,
    read_answers,
    result_of_line,
)
from pandas_batch.results.pricing import add_costs, cost_of_message
from pandas_batch.results.result_lines import (
    Block,
    CacheCreation,
    Usage,
    has_all_tokens,
    iter_lines,
    read_line,
    reason_of,
)
from pandas_batch.simulator import Simulator

PREFIX = b"pb1_abcdefghijkl_"
AT = datetime(2026, 11, 20, tzinfo=UTC)
FIXTURES = Path(__file__).parents[2] / "shared" / "fixtures"


def id_of(position: int, prefix: bytes = PREFIX) -> str:
    return f"{prefix.decode()}{position:05d}_{'Ab-_' * 6}"


def line(position: int, result: Any, **options: Any) -> bytes:
    options = {"ensure_ascii": False, "separators": (",", ":")} | options
    return json.dumps({"custom_id": id_of(position), "result": result}, **options).encode("utf-8", "surrogatepass")


def answer(*content: Any, **changes: Any) -> dict[str, Any]:
    blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in content]
    usage = {
        "input_tokens": 11,
        "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3},
        "output_tokens": 13,
        "output_tokens_details": {"thinking_tokens": 4},
        "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0},
        "service_tier": "batch",
        "inference_geo": "global",
    }
    message = {
        "model": "claude-haiku-4-5-20251001",
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": blocks,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": usage,
    }
    return {"type": "succeeded", "message": message | changes}


def errored(kind: Any = "invalid_request_error", message: Any = "max_tokens: too large") -> dict[str, Any]:
    inner = {"type": kind, "message": message, "details": {"error_visibility": "user_facing"}}
    return {"type": "errored", "error": {"type": "error", "error": inner, "request_id": None}}


THINKING = {"type": "thinking", "thinking": 'Hm \\ "', "signature": "c2ln"}
TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "get", "input": {"text": "no", "custom_id": id_of(0)}}

ALL_OUTCOMES = [
    answer("plain"),
    answer('naïve "quoted"\n\tüber \\ 日本 🎉\u2028\u2029\x85 / \x00'),
    answer(""),
    answer(),
    answer(THINKING, "after ", TOOL_USE, "thought"),
    answer(THINKING),
    answer(TOOL_USE, stop_reason="tool_use"),
    answer("cut", stop_reason="max_tokens"),
    answer(stop_reason="refusal"),
    answer("of an older API", usage={"input_tokens": 1, "output_tokens": 2}),
    answer("no usage", usage=None),
    errored(),
    errored("overloaded_error", "Overloaded"),
    {"type": "canceled"},
    {"type": "expired"},
]


def decode(lines: Sequence[bytes], n_requests: int | None = None, **options: Any) -> Decoded:
    return decode_results(
        [b"\n".join(lines) + b"\n"],
        prefix=PREFIX,
        n_requests=len(lines) if n_requests is None else n_requests,
        **options,
    )


def outputs(decoded: Decoded) -> list[str | None]:
    return decoded.table["output"].to_pylist()


def rows(table: pa.Table) -> list[dict[str, Any]]:
    return table.to_pylist()


def pieces(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    start = 0
    for end in ends:
        yield data[start:end]
        start = end


# --------------------------------------------------------------------- what a row says


def test_every_outcome_becomes_its_row() -> None:
    """Each outcome of the API stands in the row of its request, with what the API told and nothing else."""
    decoded = decode([line(i, result) for i, result in enumerate(ALL_OUTCOMES)])
    assert decoded.complete
    assert decoded.table.column_names == [name for name in ANSWER_SCHEMA.names if not name.startswith("cost")]
    table = decoded.table.to_pydict()
    assert table["status"] == ["succeeded"] * 11 + ["errored"] * 2 + ["canceled", "expired"]
    assert table["output"] == [
        "plain",
        'naïve "quoted"\n\tüber \\ 日本 🎉\u2028\u2029\x85 / \x00',
        "",
        None,
        "after thought",
        None,
        None,
        "cut",
        None,
        "of an older API",
        "no usage",
        *[None] * 4,
    ]
    assert table["has_content"] == [True, True, False, False, True, True, True, True, False, True, True, *[False] * 4]
    assert table["stop_reason"][6:9] == ["tool_use", "max_tokens", "refusal"]
    assert table["error_type"][10:14] == [None, "invalid_request_error", "overloaded_error", None]
    assert table["error_message"][10:14] == [None, "max_tokens: too large", "Overloaded", None]
    told = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"]
    told += ["thinking_tokens", "web_search_requests"]
    assert [table[name][0] for name in told] == [11, 13, 7, 5, 3, 4, 1]
    assert [table[name][9] for name in told] == [1, 2, None, None, None, None, None]
    for name in told:
        assert table[name][10:] == [None] * 5
    assert table["model"][:11] == ["claude-haiku-4-5-20251001"] * 11
    assert table["model"][11:] == [None] * 4
    assert (table["service_tier"][0], table["inference_geo"][0], table["message_id"][0]) == ("batch", "global", "msg_1")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(TEXTS, max_size=3), min_size=1, max_size=12), st.booleans(), st.booleans())
def test_any_text_comes_back_as_it_was(contents: list[list[str]], escaped: bool, spaced: bool) -> None:
    """Every text comes back unchanged, however the server escapes it and spaces its JSON."""
    options = {"ensure_ascii": escaped, "separators": (", ", ": ") if spaced else (",", ":")}
    decoded = decode([line(i, answer(*content), **options) for i, content in enumerate(contents)])
    assert outputs(decoded) == ["".join(content) if content else None for content in contents]
    assert decoded.complete


@pytest.mark.parametrize("n", [15, 16, 17, 40])
def test_texts_with_many_escapes(n: int) -> None:
    """Few escapes and many take different ways to the same text."""
    texts = ["é" + '\n\t"/\b\f\r'[i % 7] * n + "\\" * (i % 3) for i in range(20)]
    assert outputs(decode([line(i, answer(text)) for i, text in enumerate(texts)])) == texts


def test_a_column_is_as_long_as_the_batch() -> None:
    """A batch of many slices keeps each row at its place, and finds the ones that are missing."""
    lines = [line(i, answer(f"answer {i}")) for i in range(9000) if i % 1000 != 7]
    random.Random(1).shuffle(lines)
    decoded = decode(lines, n_requests=9000)
    assert outputs(decoded) == [None if i % 1000 == 7 else f"answer {i}" for i in range(9000)]
    assert decoded.missing.tolist() == list(range(7, 9000, 1000))
    assert {row["status"] for row in rows(decoded.table.take(decoded.missing))} == {"missing"}
    assert not decoded.complete


# --------------------------------------------------------------------- order, chunks, line ends


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(len(ALL_OUTCOMES))), st.lists(st.integers(0, 10**6), max_size=30))
def test_neither_order_nor_chunks_change_the_table(order: list[int], cuts: list[int]) -> None:
    """Whatever order the server writes in, and wherever the stream is cut, the same table comes out."""
    expected = decode([line(i, result) for i, result in enumerate(ALL_OUTCOMES)])
    data = b"\n".join(line(i, ALL_OUTCOMES[i]) for i in order)
    got = decode_results(pieces(data, cuts), prefix=PREFIX, n_requests=len(order))
    assert rows(got.table) == rows(expected.table)
    assert got.complete


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 10**6), max_size=20))
def test_lines_do_not_depend_on_chunks(data: bytes, cuts: list[int]) -> None:
    """A stream has the same lines wherever it is cut, and only line feeds end one."""
    whole = list(iter_lines([data]))
    assert list(iter_lines(pieces(data, cuts))) == whole
    blanks = b" \t\r\n\xef\xbb\xbf"
    # Bytes of half a byte order mark are no mark, and are kept; the comparison leaves them aside on both sides.
    kept = [one.strip(blanks) for one in data.split(b"\n")]
    assert [text for one in whole if (text := one.strip(blanks))] == [text for text in kept if text]


def test_a_long_line_in_small_chunks_takes_linear_time() -> None:
    """A line of 16 MB in chunks of 64 bytes is put together once, not once for each chunk."""
    data = line(0, answer("x" * 16_000_000))
    (whole,) = iter_lines(data[i : i + 64] for i in range(0, len(data), 64))
    assert whole == data


@pytest.mark.parametrize(
    "dress",
    [
        lambda lines: b"\n".join(lines),
        lambda lines: b"\n".join(lines) + b"\n",
        lambda lines: b"\r\n".join(lines) + b"\r\n",
        lambda lines: b"\xef\xbb\xbf" + b"\n".join(lines),
        lambda lines: b"\n\n  \n" + b"\n\r\n\n".join(lines) + b"\n\n\n",
        lambda lines: b"\n".join(b"  " + one.replace(b'":', b'"\r:\t', 1) + b" \r" for one in lines),
        lambda lines: b"\n".join(json.dumps(json.loads(one)).encode() for one in lines),
        lambda lines: (
            b"\n".join(json.dumps(json.loads(one)).encode() for one in lines[:2]) + b"\n" + b"\n".join(lines[2:])
        ),
        lambda lines: b"\n".join(json.dumps(dict(reversed(json.loads(one).items()))).encode() for one in lines),
        lambda lines: b"\n".join([*lines, *lines, lines[0]]),
        lambda lines: b"\n".join([*lines, *(one + b"\r" for one in lines)]),
    ],
    ids=[
        "no last newline",
        "newline",
        "CRLF",
        "BOM",
        "blank lines",
        "CR inside",
        "spaced",
        "mixed",
        "turned",
        "doubled",
        "doubled with CR",
    ],
)
def test_dress_of_lines_does_not_matter(dress: Any) -> None:
    """Line ends, blank lines, a byte order mark, spaces, key order and identical doubles change nothing."""
    lines = [line(i, result) for i, result in enumerate(ALL_OUTCOMES)]
    got = decode_results([dress(lines)], prefix=PREFIX, n_requests=len(lines))
    assert rows(got.table) == rows(decode(lines).table)
    assert got.complete
    assert not got.conflicts
    assert not got.unreadable


# --------------------------------------------------------------------- damage

DEEP = b"[" * 100_000 + b"]" * 100_000

DAMAGED_LINES = {
    "cut": line(1, answer("second"))[:-20],
    "cut in the text": line(1, answer("second"))[:150],
    "cut after the id": line(1, answer("second"))[:70],
    "no result": json.dumps({"custom_id": id_of(1)}).encode(),
    "result is null": line(1, None),
    "result is a list": line(1, [1]),
    "result without a type": line(1, {"message": {}}),
    "type is a number": line(1, {"type": 3}),
    "unknown type": line(1, {"type": "postponed"}),
    "type made to look like ours": line(1, {"type": "\0invalid"}),
    "status word of ours": line(1, {"type": "missing"}),
    "succeeded without a message": line(1, {"type": "succeeded"}),
    "message is a text": line(1, {"type": "succeeded", "message": "yes"}),
    "message is empty": line(1, {"type": "succeeded", "message": {}}),
    "content is a text": line(1, answer(content="yes")),
    "nested too deeply": line(1, answer("x"))[:-1] + b',"more":' + DEEP + b"}",
    "nested too deeply in the result": line(1, {"type": "expired"})[:-2] + b',"more":' + DEEP + b"}}",
    "broken UTF-8 in a word": line(1, {"type": "exp\xff"}, ensure_ascii=True).replace(b"\\u00ff", b"\xff"),
    "not JSON": b'{"custom_id":"' + id_of(1).encode() + b'",,,}',
}


@pytest.mark.parametrize("name", DAMAGED_LINES)
def test_a_damaged_line_is_its_own_rows_story(name: str) -> None:
    """A line that cannot be read makes its row invalid, with a reason; its neighbours are untouched."""
    lines = [line(0, answer("first")), DAMAGED_LINES[name], line(2, answer("third"))]
    decoded = decode(lines)
    assert outputs(decoded) == ["first", None, "third"]
    row = rows(decoded.table)[1]
    assert row["status"] == "invalid"
    assert row["error_type"] == "unreadable_answer"
    assert row["error_message"]
    assert row["input_tokens"] is None
    assert decoded.unreadable == [(1, row["error_message"])]
    assert not decoded.complete
    assert not len(decoded.missing)
    result = result_of_line(DAMAGED_LINES[name], at=AT)
    assert (result.status, result.cost_usd, result.custom_id) == ("invalid", None, id_of(1))
    assert not result.ok


@pytest.mark.parametrize(
    "junk",
    [
        b"null",
        b"[1]",
        b"3",
        b'"text"',
        b"{}",
        b'{"type":"error","error":{"type":"api_error","message":"internal"}}',
        b"<html><body>Sign in</body></html>",
        b"\xff\xfe\x00",
        b"{" * 50_000,
        DEEP,
        b'{"custom_id":5}',
        b'{"custom_id":null,"result":{"type":"expired"}}',
        b"9" * 10_000,
    ],
    ids=lambda junk: junk[:24].decode("latin-1"),
)
def test_junk_lines_are_counted_and_cost_no_row(junk: bytes) -> None:
    """A line that is nobody's is reported; it neither raises nor takes a row with it."""
    lines = [line(0, answer("first")), junk, line(1, answer("second")), junk]
    decoded = decode(lines, n_requests=2)
    assert outputs(decoded) == ["first", "second"]
    assert decoded.n_junk == 2
    assert decoded.n_lines == 4
    assert [position for position, _ in decoded.unreadable] == [None, None]
    assert all(reason for _, reason in decoded.unreadable)
    assert decoded.complete
    assert result_of_line(junk, at=AT).status == "invalid"


def test_lines_glued_together_move_no_row() -> None:
    """Where a line feed is lost, the two rows of that line are told, and no other answer changes place."""
    glued = line(0, answer("first")) + line(1, answer("second"))
    decoded = decode([glued, line(2, answer("third")), line(3, answer("fourth"))], n_requests=4)
    assert outputs(decoded) == [None, None, "third", "fourth"]
    assert decoded.table["status"].to_pylist() == ["invalid", "missing", "succeeded", "succeeded"]
    assert not decoded.complete


def test_values_that_break_other_libraries() -> None:
    """Lone surrogates, NULs, huge and negative and fractional counts, and odd types are made harmless."""
    usage = {"input_tokens": 2**63, "output_tokens": -1, "cache_read_input_tokens": 1.5}
    usage |= {"cache_creation_input_tokens": "9", "service_tier": 3, "server_tool_use": [], "cache_creation": "x"}
    huge = line(1, answer("x", usage={"input_tokens": 1, "output_tokens": 7})).replace(
        b":1,", b":" + b"9" * 6000 + b","
    )
    lines = [
        line(0, answer("a\ud83d", "b\udc00c", id="msg_\ud83d", model="claude-\x00"), ensure_ascii=True),
        huge,
        line(2, answer("odd", usage=usage)),
        line(3, answer({"type": "text", "text": None}, {"type": "text"}, {"type": 3, "text": "no"}, 5, None, "yes")),
        line(4, errored(3, ["x"])),
        line(5, {"type": "errored", "error": "broken"}),
        line(6, answer("bytes that are no UTF-8: \xff")).replace("\xff".encode(), b"\xff"),
        line(7, answer("escaped\n and no UTF-8: \xff")).replace("\xff".encode(), b"\xff"),
        line(8, answer("raw control characters: #")).replace(b"#", b"\x01\t"),
        line(9, answer("NaN", usage={"input_tokens": float("nan"), "output_tokens": 1})),
        line(10, answer("fine")),
    ]
    table = decode(lines).table
    got = table.to_pydict()
    assert got["status"] == ["succeeded"] * 4 + ["errored"] * 2 + ["succeeded"] * 5
    assert got["output"][:4] == ["a\ufffdb\ufffdc", "x", "odd", "yes"]
    assert got["output"][6:] == [
        "bytes that are no UTF-8: \ufffd",
        "escaped\n and no UTF-8: \ufffd",
        "raw control characters: \x01\t",
        "NaN",
        "fine",
    ]
    assert (got["message_id"][0], got["model"][0]) == ("msg_\ufffd", "claude-\x00")
    assert got["input_tokens"][1:3] == [None, None]
    assert got["output_tokens"][1:3] == [7, None]
    assert got["cache_read_tokens"][2] is got["cache_write_tokens"][2] is got["service_tier"][2] is None
    assert (got["error_type"][4], got["error_message"][4]) == (None, None)
    table.validate(full=True)
    table.to_pandas()


def test_unsigned_counts_do_not_hide_their_neighbours() -> None:
    """A count beyond 63 bits, null or missing is null alone, in the fast way as in the slow one."""
    usages = [{"input_tokens": value, "output_tokens": 1} for value in (2**63, 2**64 - 1, None, 0, 2**63 - 1)]
    table = decode([line(i, answer("x", usage=usage)) for i, usage in enumerate(usages)]).table
    assert table["input_tokens"].to_pylist() == [None, None, None, 0, 2**63 - 1]
    assert table["output_tokens"].to_pylist() == [1] * 5


def test_cache_writes_are_summed_where_no_total_is_told() -> None:
    """Cache writes told only by how long they live still count."""
    told = {"cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3}}
    usages = [told, {"cache_creation": {"ephemeral_1h_input_tokens": 3}}, {"cache_creation": {}}, {}]
    table = decode([line(i, answer("x", usage=usage)) for i, usage in enumerate(usages)]).table
    assert table["cache_write_tokens"].to_pylist() == [5, 3, None, None]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_never_raises_and_never_costs_a_good_row(data: st.DataObject) -> None:
    """Whatever is done to some lines, every other row comes out as it would have alone."""
    results = data.draw(st.lists(st.sampled_from(ALL_OUTCOMES), min_size=1, max_size=8))
    good = [line(i, result) for i, result in enumerate(results)]
    damaged = data.draw(st.sets(st.integers(0, len(good) - 1)))
    lines = [mutated(data, one) if i in damaged else one for i, one in enumerate(good)]
    lines += data.draw(st.lists(st.binary(max_size=40), max_size=2))
    order = data.draw(st.permutations(range(len(lines))))
    blob = b"\n".join(lines[i] for i in order)
    got = decode_results(
        pieces(blob, data.draw(st.lists(st.integers(0, 10**6), max_size=5))),
        prefix=PREFIX,
        n_requests=len(good),
        custom_ids=[id_of(i).encode() for i in range(len(good))],
    )
    got.table.validate(full=True)
    expected, found = rows(decode(good).table), rows(got.table)
    for i in range(len(good)):
        if i not in damaged:
            assert found[i] == expected[i]
    for one in iter_lines([blob]):
        result_of_line(one, at=AT)
    assert not got.complete or all(row["status"] in {"succeeded", "errored", "canceled", "expired"} for row in found)


def mutated(data: st.DataObject, one: bytes) -> bytes:
    for _ in range(data.draw(st.integers(1, 3))):
        at, n = data.draw(st.integers(0, len(one))), data.draw(st.integers(0, 30))
        one = one[:at] + data.draw(st.binary(max_size=10)) + one[at + n :]
    return one


# --------------------------------------------------------------------- whose line it is


def test_lines_of_others_are_told_and_left_out() -> None:
    """Unknown custom_ids are reported, cut short and only the first of them, and stand in no row."""
    others = ["not-ours", "x" * 500, id_of(2), id_of(99_999), id_of(0, b"pb1_zzzzzzzzzzzz_"), id_of(0)[:-1], "ü", ""]
    others += [id_of(0)[:17] + "0000x" + id_of(0)[22:], id_of(0)[:22] + "-" + id_of(0)[23:]]
    foreign = [json.dumps({"custom_id": other, "result": answer("theirs")}).encode() for other in others * 3]
    decoded = decode([line(1, answer("ours")), *foreign, line(0, answer("ours too"))], n_requests=2)
    assert outputs(decoded) == ["ours too", "ours"]
    assert decoded.n_unknown_ids == 30
    assert decoded.unknown_ids[:2] == ["not-ours", "x" * 64]
    assert len(decoded.unknown_ids) == 20
    assert decoded.complete


def test_an_id_is_compared_whole_where_the_sent_ones_are_known() -> None:
    """With the ids at hand, an id of the right position and the wrong fingerprint is nobody's."""
    sent = [id_of(i).encode() for i in range(2)]
    forged = json.dumps({"custom_id": id_of(1)[:-1] + "X", "result": answer("forged")}).encode()
    decoded = decode([line(0, answer("ours")), forged], custom_ids=sent)
    assert outputs(decoded) == ["ours", None]
    assert decoded.unknown_ids == [id_of(1)[:-1] + "X"]
    assert decoded.missing.tolist() == [1]
    assert outputs(decode([line(0, answer("ours")), forged])) == ["ours", "forged"]


def test_differing_lines_are_a_conflict_and_the_first_is_kept() -> None:
    """Two different answers for one row are told; a broken copy beside a good one is not worth a word."""
    good, other = line(1, answer("good", id="msg_1")), line(1, answer("other", id="msg_2"))
    fine = line(0, answer("fine"))
    decoded = decode([good, fine, other, good], n_requests=2)
    assert outputs(decoded) == ["fine", "good"]
    assert decoded.conflicts == [1]
    assert not decoded.complete
    for lines in ([good[:-30], fine, good], [good, good[:-30], fine]):
        decoded = decode(lines, n_requests=2)
        assert outputs(decoded) == ["fine", "good"]
        assert decoded.complete
    both_broken = decode([good[:-30], fine, good[:-40]], n_requests=2)
    assert both_broken.table["status"].to_pylist() == ["succeeded", "invalid"]
    assert not both_broken.complete


def test_the_same_answer_written_differently_is_no_conflict() -> None:
    """Lines that differ in spaces or key order only say the same."""
    one = line(0, answer("same"))
    spaced = json.dumps(dict(reversed(json.loads(one).items()))).encode()
    assert decode([one, spaced], n_requests=1).complete


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n\r\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("n_requests", [0, 3])
def test_an_empty_file_is_a_batch_of_missing_rows(data: bytes, n_requests: int) -> None:
    """Without lines, every row is missing, and there is still a table."""
    decoded = decode_results([data], prefix=PREFIX, n_requests=n_requests)
    assert decoded.table["status"].to_pylist() == ["missing"] * n_requests
    assert decoded.missing.tolist() == list(range(n_requests))
    assert decoded.n_lines == 0
    assert decoded.complete is (n_requests == 0)


# --------------------------------------------------------------------- files


@pytest.fixture
def results_file(tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    many = ALL_OUTCOMES * 600
    path.write_bytes(b"\n".join(line(i, many[i]) for i in range(len(many))) + b"\n" + b"junk\n")
    return path


@pytest.mark.parametrize("name", ANSWER_SCHEMA.names)
def test_answers_of_another_version_have_the_columns_of_this_one(results_file: Path, tmp_path: Path, name: str) -> None:
    """What a stored file lacks is null, a flag is yes, what it has besides is left out, and the rest is as it was."""
    n = 600 * len(ALL_OUTCOMES)
    table = decode_to_file(results_file, tmp_path / "a.arrow", prefix=PREFIX, n_requests=n, at=AT).table
    other = table.drop_columns([name]).append_column("of_tomorrow", pa.nulls(n, pa.string()))
    with pa.ipc.new_file(tmp_path / "other.arrow", other.schema) as writer:
        writer.write_table(other.unify_dictionaries())
    read = read_answers(tmp_path / "other.arrow")
    assert pa.concat_tables([read, table]).schema == ANSWER_SCHEMA
    lacked = True if pa.types.is_boolean(ANSWER_SCHEMA.field(name).type) else None
    assert set(read[name].to_pylist()) == {lacked}
    assert rows(read.drop_columns([name])) == rows(table.drop_columns([name]))


def test_straight_to_a_file_is_the_same_as_by_way_of_memory(results_file: Path, tmp_path: Path) -> None:
    """The way that never holds the texts gives the same rows and prices as the way through memory."""
    n = 600 * len(ALL_OUTCOMES)
    straight = decode_to_file(results_file, tmp_path / "a.arrow", prefix=PREFIX, n_requests=n, at=AT)
    decoded = decode_results(results_file, prefix=PREFIX, n_requests=n)
    table = add_costs(decoded.table, at=AT)
    assert straight.table.schema == table.schema == ANSWER_SCHEMA
    assert rows(straight.table) == rows(table)
    assert straight.complete
    assert straight.n_junk == 1
    assert sum(row["cost_usd"] or 0 for row in rows(straight.table)) > 0


@pytest.mark.parametrize("beside_bytes", [0, 1 << 40], ids=["looked at beside the decoding", "looked at after it"])
def test_one_bad_byte_in_a_large_file_changes_its_own_text_only(
    beside_bytes: int, results_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all is UTF-8 but the last text of a file, the other rows, their faults and prices are what they were."""
    monkeypatch.setattr(result_file, "_BESIDE_BYTES", beside_bytes)
    n = 600 * len(ALL_OUTCOMES)
    sound = results_file.read_bytes() + line(n, answer("the last ?")) + b"\n" + line(n + 1, {"type": "odd"}) + b"\n"
    results_file.write_bytes(sound)
    told = [decode_to_file(results_file, tmp_path / "a.arrow", prefix=PREFIX, n_requests=n + 2, at=AT)]
    results_file.write_bytes(sound.replace(b"last ?", b"last \xc3"))
    told.append(decode_to_file(results_file, tmp_path / "b.arrow", prefix=PREFIX, n_requests=n + 2, at=AT))
    whole, damaged = (rows(decoded.table) for decoded in told)
    assert (whole[n]["output"], damaged[n]["output"]) == ("the last ?", "the last \ufffd")
    assert damaged[:n] + damaged[n + 1 :] == whole[:n] + whole[n + 1 :]
    assert damaged[n] | {"output": ""} == whole[n] | {"output": ""}
    assert told[0].unreadable == told[1].unreadable


def test_answers_are_mapped_not_read(results_file: Path, tmp_path: Path) -> None:
    """Reading answers back takes no memory for them: their buffers lie in the mapped file."""
    decode_to_file(results_file, tmp_path / "a.arrow", prefix=PREFIX, n_requests=600 * len(ALL_OUTCOMES), at=AT)
    before = pa.total_allocated_bytes()
    table = read_answers(tmp_path / "a.arrow")
    assert pa.total_allocated_bytes() - before < 10_000
    assert table["output"].nbytes > 100_000


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177])
@pytest.mark.parametrize("exists", [False, True])
def test_answers_are_private_whatever_the_umask(tmp_path: Path, umask: int, exists: bool) -> None:
    """Only the owner can read answers, also where a readable file stood before."""
    path = tmp_path / "a.arrow"
    if exists:
        path.write_bytes(b"old" * 100_000)
        path.chmod(0o644)
    before = os.umask(umask)
    try:
        decode_to_file([line(0, answer("x"))], path, prefix=PREFIX, n_requests=1, at=AT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_answers(path)["output"].to_pylist() == ["x"]


def test_long_answers_are_held_a_few_at_a_time(tmp_path: Path) -> None:
    """What decoding holds does not grow with the batch where the answers are long, and every row comes home."""
    n, text = 2_000, "né" * 16_000
    source, target = tmp_path / "results.jsonl", tmp_path / "answers.arrow"
    with source.open("wb") as file:
        for i in range(n):
            file.write(line(i, errored() if i % 100 == 7 else answer(f"{i} {text}")) + b"\n")
    n_bytes = source.stat().st_size
    # The price list is loaded once, which is slow while memory is traced.
    assert result_of_line(line(0, answer(text)), at=AT).cost_usd
    tracemalloc.start()
    decoded = decode_to_file(source, target, prefix=PREFIX, n_requests=n, at=AT)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 0.5 * n_bytes
    assert outputs(decoded) == [None if i % 100 == 7 else f"{i} {text}" for i in range(n)]


def test_a_missing_file_is_an_oserror(tmp_path: Path) -> None:
    """Real trouble with files is not swallowed."""
    with pytest.raises(OSError, match="nowhere"):
        decode_results(tmp_path / "nowhere.jsonl", prefix=PREFIX, n_requests=1)


def test_a_stream_that_breaks_off_raises_its_own_error() -> None:
    """An error of the source is the caller's to handle."""

    def broken() -> Iterator[bytes]:
        yield line(0, answer("x"))
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        decode_results(broken(), prefix=PREFIX, n_requests=1)


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"type": "overloaded_error", "message": "busy"}, "overloaded_error: busy"),
        ({"type": "error", "error": {"type": "api_error", "message": "no"}}, "api_error: no"),
        ({"type": "error", "message": "no"}, "no"),
        ({"type": "error", "error": "all is lost"}, "all is lost"),
        ({"message": "no"}, "no"),
        ("all is lost", "all is lost"),
        ({}, "errored"),
        (None, "errored"),
    ],
)
def test_an_error_keeps_its_words_however_deep_it_stands(told: Any, error: str) -> None:
    """The API nests errors twice; what a gateway tells in a flatter shape is kept as well."""
    raw = line(0, {"type": "errored", "error": told})
    row = rows(decode([raw]).table)[0]
    assert ": ".join(part for part in (row["error_type"], row["error_message"]) if part) == error.replace("errored", "")
    assert result_of_line(raw).error == error


UNREADABLE = [None, -1, -7, 1.5, "9", True, 2**63, {}]


@pytest.mark.parametrize("value", UNREADABLE, ids=repr)
@pytest.mark.parametrize(
    "name", ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"]
)
def test_tokens_are_a_whole_sum_or_none(name: str, value: Any) -> None:
    """Where one of the counts cannot be read neither tokens nor cost are known: half a sum reads as a whole one."""
    usage = answer("x")["message"]["usage"] | {name: value, "cache_creation": None}
    raw = line(0, answer("x", usage=usage))
    row = rows(add_costs(decode([raw]).table, at=AT))[0]
    assert not row["has_all_tokens"]
    assert row["cost_usd"] is None
    result = result_of_line(raw, at=AT)
    assert result.tokens is None
    assert result.cost_usd is None


@pytest.mark.parametrize("name", ["input_tokens", "output_tokens"])
def test_counts_that_each_answer_has_are_not_taken_for_nothing(name: str) -> None:
    """An absent count of input or output is not 0; absent counts of the cache are, for old answers lack them."""
    usage = {"input_tokens": 11, "output_tokens": 13}
    whole = rows(add_costs(decode([line(0, answer("x", usage=usage))]).table, at=AT))[0]
    assert whole["has_all_tokens"]
    assert whole["cost_usd"] is not None
    del usage[name]
    assert not rows(decode([line(0, answer("x", usage=usage))]).table)[0]["has_all_tokens"]


@pytest.mark.parametrize(
    ("iterations", "is_whole"),
    [
        (None, True),
        ([], True),
        ([{"type": "message", "input_tokens": 11, "output_tokens": 13}], True),
        ([{"type": "message", "input_tokens": 11, "output_tokens": 13, "cache_read_input_tokens": 7}], True),
        ([{"type": "message", "input_tokens": 11, "output_tokens": 13, "cache_creation_input_tokens": 5}], True),
        ([{"type": "message", "input_tokens": 11, "output_tokens": 13, "cache_creation_input_tokens": 500}], False),
        ([{"type": "message", "input_tokens": 11, "output_tokens": 13, "cache_read_input_tokens": "5"}], False),
        ([{"type": "message", "input_tokens": 5, "output_tokens": 6}] * 2, False),
        ([{"type": "message", "input_tokens": 11, "output_tokens": 13}, {"type": "compaction"}], False),
        ([{"type": "advisor_message", "input_tokens": 11, "output_tokens": 13}], False),
        (["message"], False),
        ("message", False),
        ({}, False),
    ],
)
def test_turns_beside_the_answer_leave_the_cost_unknown(iterations: Any, is_whole: bool) -> None:
    """What turns of the server were billed is not in the counts: the cost of the last turn is not told as the whole."""
    usage = answer("x")["message"]["usage"] | {"iterations": iterations}
    raw = line(0, answer("x", usage=usage))
    row = rows(add_costs(decode([raw]).table, at=AT))[0]
    assert (row["cost_usd"] is not None) is is_whole
    assert (result_of_line(raw, at=AT).cost_usd is not None) is is_whole


@pytest.mark.parametrize(
    "told",
    [
        {"cache_creation_input_tokens": 500, "cache_creation": {"ephemeral_5m_input_tokens": 100}},
        {"cache_creation": [5]},
        {"server_tool_use": [1]},
        {"server_tool_use": "three"},
        {"service_tier": 5},
    ],
)
def test_a_bill_that_is_told_in_another_shape_is_not_known(told: dict[str, Any]) -> None:
    """What stands where a part of the bill is expected, or disagrees with its total, leaves the cost open."""
    if "cache_creation_input_tokens" in told:
        told = told | {"cache_creation": told["cache_creation"] | {"ephemeral_1h_input_tokens": 100}}
    raw = line(0, answer("x", usage={"input_tokens": 11, "output_tokens": 13} | told))
    assert rows(add_costs(decode([raw]).table, at=AT))[0]["cost_usd"] is None
    assert result_of_line(raw, at=AT).cost_usd is None


@pytest.mark.parametrize(("tier", "factor"), [("batch", 1), (None, 1), ("standard", 2), ("priority", 2), ("new", None)])
def test_another_tier_has_no_discount(tier: Any, factor: int | None) -> None:
    """Half of every price is for what a batch answered; in a tier that is not known the cost is not known."""
    usage = {"input_tokens": 1000, "output_tokens": 100, "service_tier": tier}
    raw = line(0, answer("x", usage=usage))
    row = rows(add_costs(decode([raw]).table, at=AT))[0]
    cost = None if factor is None else pytest.approx(factor * (1000 * 0.5 + 100 * 2.5) / 1e6)
    assert row["cost_usd"] == cost
    assert result_of_line(raw, at=AT).cost_usd == cost


@pytest.mark.parametrize("model", [None, ""])
def test_an_answer_without_a_model_costs_what_was_asked(tmp_path: Path, model: Any) -> None:
    """Where an answer does not say who gave it, the price is that of the model that its request asked."""
    lines = [line(i, answer("x", model=model if i else "claude-haiku-4-5")) for i in range(3)]
    asked = {1: "claude-haiku-4-5", 2: "claude-opus-4-8"}
    decoded = decode_to_file(
        [b"\n".join(lines)], tmp_path / "a", prefix=PREFIX, n_requests=3, at=AT, models_asked=asked.get
    )
    first, second, third = decoded.table["cost_usd"].to_pylist()
    assert first == second
    assert third > second
    assert result_of_line(lines[1], at=AT, model_asked=lambda _: "claude-haiku-4-5").cost_usd == first


def test_lines_that_are_not_utf8_are_counted() -> None:
    """What became U+FFFD is known, so that it can be told."""
    lines = [line(i, answer("\xff")) for i in range(3)]
    lines[1] = lines[1].replace("\xff".encode(), b"\xff")
    decoded = decode(lines)
    assert decoded.n_not_utf8 == 1
    assert outputs(decoded) == ["\xff", "\ufffd", "\xff"]
    assert decode([line(0, answer("\ufffd"))]).n_not_utf8 == 0


def test_the_last_text_of_an_answer_can_be_found_again() -> None:
    """Of an answer with several texts it is known where the last one begins, whatever stands around it."""
    told = ["Let me look.", {"type": "server_tool_use", "id": "1", "name": "web_search"}, "ünd: ", '{"a": 1}']
    lines = [line(0, answer(*told)), line(1, answer("one")), line(2, answer("\xff", "two"))]
    for broken in (False, True):
        if broken:
            lines[2] = lines[2].replace("\xff".encode(), b"\xff\xff")
        table = decode(lines).table
        lasts = [
            None if begin is None else text.encode()[begin:].decode()
            for text, begin in zip(table["output"].to_pylist(), table["last_text_from"].to_pylist(), strict=True)
        ]
        assert lasts == ['{"a": 1}', None, "two"]


# --------------------------------------------------------------------- one line for the client layer


@pytest.mark.parametrize("i", range(len(ALL_OUTCOMES)))
def test_one_line_says_what_its_row_says(i: int) -> None:
    """The client layer and the columns tell the same of every outcome."""
    raw = line(0, ALL_OUTCOMES[i])
    result = result_of_line(raw, at=AT)
    row = rows(add_costs(decode([raw]).table, at=AT))[0]
    assert result.custom_id == id_of(0)
    assert result.status == row["status"]
    assert result.output == (row["output"] or "")
    assert result.cost_usd == row["cost_usd"]
    assert (result.stop_reason, result.model) == (row["stop_reason"], row["model"])
    parts = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
    if result.ok:
        assert (result.input_tokens, result.output_tokens) == (row["input_tokens"], row["output_tokens"])
        assert result.tokens == (sum(row[name] or 0 for name in parts) if row["has_all_tokens"] else None)
    else:
        assert (result.input_tokens, result.output_tokens, result.tokens) == (0, 0, 0)
    if row["error_type"]:
        assert result.error == f"{row['error_type']}: {row['error_message']}"
    else:
        assert result.error == (None if result.ok else row["status"])
    if result.ok:
        assert result.message == json.loads(raw)["result"]["message"]


# --------------------------------------------------------------------- the world outside


@pytest.mark.skipif(not FIXTURES.exists(), reason="the recordings are not on this machine")
@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*/*results*.jsonl")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_recordings_are_read_whole(path: Path) -> None:
    """Every line ever recorded of the real API is read: text, tokens, model, id, as a plain reading has them."""
    lines = [one for one in path.read_bytes().split(b"\n") if one.strip()]
    assert lines
    for raw in lines:
        told = json.loads(raw)
        result = result_of_line(raw, at=AT)
        assert result.status == told["result"]["type"]
        assert result.custom_id == told["custom_id"]
        message = told["result"]["message"]
        assert result.output == "".join(block["text"] for block in message["content"] if block["type"] == "text")
        assert result.input_tokens == message["usage"]["input_tokens"]
        assert result.output_tokens == message["usage"]["output_tokens"]
        assert result.message == message
        assert result.cost_usd == float(cost_of_message(message, at=AT) or 0) > 0
    ours = [line(i, json.loads(raw)["result"]) for i, raw in enumerate(lines)]
    assert outputs(decode(ours)) == [result_of_line(raw, at=AT).output for raw in lines]


@pytest.mark.skipif(not FIXTURES.exists(), reason="the recordings are not on this machine")
def test_a_recording_resaved_by_another_language_is_read() -> None:
    """A recording whose nulls became empty objects on the way still gives its answers."""
    saved = json.loads((FIXTURES / "ellmer" / "state-capitals-anthropic.json").read_text())
    results = saved["results"]
    decoded = decode([line(i, result) for i, result in enumerate(results)])
    assert decoded.complete
    assert all(outputs(decoded))
    assert decoded.table["thinking_tokens"].null_count == 0


def test_results_of_the_official_client_come_home(api: Simulator, clock: Any) -> None:
    """What the SDK downloads as raw bytes decodes into the rows that were sent, in their order."""
    client = api.client()
    prompts = [f'line\n{i} "é" \\ 🎉' for i in range(40)]
    batch = client.messages.batches.create(
        requests=[
            {
                "custom_id": id_of(i),
                "params": {
                    "model": "claude-haiku-4-5",
                    "max_tokens": 64,
                    "messages": [{"role": "user", "content": prompt}],
                },
            }
            for i, prompt in enumerate(prompts)
        ]
    )
    clock.advance(3600)
    assert client.messages.batches.retrieve(batch.id).processing_status == "ended"
    with client.messages.batches.with_streaming_response.results(batch.id) as response:
        decoded = decode_results(response.http_response.iter_bytes(), prefix=PREFIX, n_requests=len(prompts))
    assert decoded.complete
    assert outputs(decoded) == prompts
    assert np.all(add_costs(decoded.table, at=AT)["cost_usd"].to_numpy() > 0)


RAW_TEXTS = st.one_of(
    st.text(max_size=12).map(lambda text: json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.text(alphabet='\\"n/u\x00é\n', max_size=8).map(lambda text: json.dumps(text).encode()),
    st.sampled_from([b"", b"null", b'"', b'"\xff"', b'"\xfe\\\\"', b'"\\/"', b'"\\"', b'"\\\\\\""']),
)
CONTENTS = st.lists(
    st.lists(st.tuples(st.sampled_from(["text", "text", "thinking"]), RAW_TEXTS), max_size=3), max_size=6
)


@given(CONTENTS)
def test_texts_unescaped_all_at_once_are_what_each_would_be(contents: list[list[tuple[str, bytes]]]) -> None:
    """The texts of a slice of answers are the same, read all at once or alone."""
    blocks = [[Block(type=kind, text=msgspec.Raw(raw)) for kind, raw in content] for content in contents]
    try:
        alone = [text_of(content) for content in blocks]
    except ValueError:
        return  # no JSON: a line that the decoder has refused before
    data, n_bytes = joined_texts(blocks)
    ends = np.cumsum(n_bytes.clip(min=0))
    together = [
        None if n < 0 else bytes(data[end - n : end]) for end, n in zip(ends.tolist(), n_bytes.tolist(), strict=True)
    ]
    # Bytes that are no UTF-8 are mended later where all are read at once.
    assert [_mended(text) for text in together] == [_mended(text) for text in alone]


def _mended(text: bytes | None) -> str | None:
    return None if text is None else text.decode("utf-8", "replace")


def test_only_a_known_type_makes_a_result() -> None:
    """A word that the API does not have, or none, is no result, whatever else the line holds."""
    message: dict[str, Any] = {"content": []}
    for kind in ("tomorrow", "succeede", "", "zzz"):
        for odd in ({}, {"usage": {"input_tokens": "many"}}):
            told = {"custom_id": "a", "result": {"type": kind, "message": message | odd}}
            assert reason_of(read_line(json.dumps(told).encode()).result) == (
                f"the result is of an unknown type, {kind!r}"
            )


def test_an_impossible_total_is_not_taken_for_none() -> None:
    """The parts of the cache writes stand in for a total that was not sent, and never for one that makes no sense."""
    parts = CacheCreation(ephemeral_5m_input_tokens=1)
    assert has_all_tokens(Usage(input_tokens=1, output_tokens=1, cache_creation=parts))
    for total in (-1, -(2**62) - 1, -(2**63)):
        usage = Usage(input_tokens=1, output_tokens=1, cache_creation_input_tokens=total, cache_creation=parts)
        assert not has_all_tokens(usage)
