"""Raw result lines to columns: one row for each request of a batch, in the order of the requests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa

from .pricing import add_costs, cost_of_message
from .result_file import Found, Source, lines_of, locate, mapped
from .result_lines import (
    INVALID_TYPE,
    MISSING_TYPE,
    UNKNOWN,
    CacheCreation,
    Error,
    ErrorResponse,
    Line,
    Message,
    OutputDetails,
    ServerToolUse,
    Usage,
    iter_lines,
    read_line,
    reason_of,
    text_of,
)
from .types import BatchResult

__all__ = [
    "ANSWER_SCHEMA",
    "Decoded",
    "decode_results",
    "decode_to_file",
    "iter_lines",
    "read_answers",
    "result_of_line",
    "write_answers",
]

STATUSES = ("succeeded", "errored", "expired", "canceled", "missing", "invalid")

_WORDS = pa.dictionary(pa.int32(), pa.string())

ANSWER_SCHEMA = pa.schema(
    [
        ("status", pa.dictionary(pa.int8(), pa.string())),
        ("output", pa.large_string()),
        ("has_content", pa.bool_()),
        ("stop_reason", _WORDS),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cache_read_tokens", pa.int64()),
        ("cache_write_tokens", pa.int64()),
        ("cache_write_1h_tokens", pa.int64()),
        ("thinking_tokens", pa.int64()),
        ("web_search_requests", pa.int64()),
        ("model", _WORDS),
        ("service_tier", _WORDS),
        ("inference_geo", _WORDS),
        ("message_id", pa.large_string()),
        ("error_type", _WORDS),
        ("error_message", pa.large_string()),
        ("cost_usd", pa.float64()),
        ("cost_usd_standard", pa.float64()),
    ]
)
"""One row per position of a batch. Token counts are null where the server did not tell them; ``has_content`` is
whether the answer holds anything but empty text (a refusal without it is not billed)."""

_PRICES = ("cost_usd", "cost_usd_standard")
_UNPRICED_SCHEMA = pa.schema([f for f in ANSWER_SCHEMA if f.name not in _PRICES])

_STATUS_CODES = {name: code for code, name in enumerate(STATUSES)} | {MISSING_TYPE: 4, INVALID_TYPE: 5}
_STATUS_ARRAY = pa.array(STATUSES, pa.string())

# A slice of lines and their objects stays within the processor's cache: larger ones are half as fast.
_READ_ROWS = 256
_BATCH_ROWS = 16_384

_NO_MESSAGE = Message(content=[])
_NO_USAGE = Usage()
_NO_CACHE_CREATION = CacheCreation()
_NO_OUTPUT_DETAILS = OutputDetails()
_NO_SERVER_TOOL_USE = ServerToolUse()
_NO_ERROR = Error()
_NO_ERROR_RESPONSE = ErrorResponse(error=_NO_ERROR)


@dataclass
class Decoded:
    """
    The results of a batch, decoded.

    Attributes
    ----------
    table
        `ANSWER_SCHEMA` without the two prices (with them after `decode_to_file`), a row for each request.
    n_lines
        Number of lines that are not blank.
    missing
        Positions that no line answers.
    unknown_ids, n_unknown_ids
        The first custom_ids that are not of this batch, cut to 64 characters, and how many there are.
    conflicts
        Positions whose lines say different things; the first is kept.
    unreadable
        Position (None where no custom_id could be found) and reason of lines that cannot be read; of those
        without a position the first only, `n_junk` counts them all.
    """

    table: pa.Table
    n_lines: int
    missing: np.ndarray
    unknown_ids: list[str] = field(default_factory=list)
    n_unknown_ids: int = 0
    conflicts: list[int] = field(default_factory=list)
    unreadable: list[tuple[int | None, str]] = field(default_factory=list)
    n_junk: int = 0

    @property
    def complete(self) -> bool:
        """Whether each request has one answer that can be read; if not, fetching again may help."""
        return not (len(self.missing) or self.conflicts or any(position is not None for position, _ in self.unreadable))


def decode_results(
    source: Source, *, prefix: bytes, n_requests: int, custom_ids: Sequence[bytes] | None = None
) -> Decoded:
    """
    Decode the raw results of a batch into a table in memory.

    Nothing that the lines hold raises: what is wrong with them stands in the table and in `Decoded`.

    Parameters
    ----------
    source
        Path of the raw results, or their bytes in pieces of any size.
    prefix
        What all custom_ids of the batch begin with.
    n_requests
        Number of requests in the batch.
    custom_ids
        The custom_ids as sent, by position. Given, each id must be exactly the one sent for its position.

    Returns
    -------
    Decoded
        The table has a row for each request, in the order of the requests.

    Raises
    ------
    OSError
        Where the file cannot be read.

    Examples
    --------
    >>> lines = [b'{"custom_id":"pb1_abcdefghijkl_00001_' + b"A" * 24 + b'","result":{"type":"expired"}}']
    >>> decoded = decode_results(lines, prefix=b"pb1_abcdefghijkl_", n_requests=2)
    >>> decoded.table["status"].to_pylist(), decoded.complete
    (['missing', 'expired'], False)
    """
    with mapped(source) as data:
        found = locate(data, prefix=prefix, n_requests=n_requests, custom_ids=custom_ids)
        unreadable: list[tuple[int | None, str]] = []
        batches = list(_record_batches(data, found, n_requests, unreadable))
    return _decoded(pa.Table.from_batches(batches, _UNPRICED_SCHEMA), found, unreadable)


def decode_to_file(
    source: Source,
    path: str | os.PathLike[str],
    *,
    prefix: bytes,
    n_requests: int,
    at: datetime,
    prices: Mapping[str, tuple[float, float]] | None = None,
    custom_ids: Sequence[bytes] | None = None,
) -> Decoded:
    """
    Decode, price and write the results of a batch without ever holding its texts in memory.

    Parameters
    ----------
    source, prefix, n_requests, custom_ids
        As in `decode_results`.
    path
        Where the answers go (Arrow IPC, mode 0600); the caller makes them durable and renames them.
    at, prices
        As in `pandas_batch.pricing.add_costs`.

    Returns
    -------
    Decoded
        Its table is mapped from `path`, prices included.

    Raises
    ------
    OSError
        Where a file cannot be read or written.
    """
    unreadable: list[tuple[int | None, str]] = []
    with mapped(source) as data, _private_file(path) as file:
        found = locate(data, prefix=prefix, n_requests=n_requests, custom_ids=custom_ids)
        with _writer(file) as writer:
            for batch in _record_batches(data, found, n_requests, unreadable):
                priced = add_costs(pa.Table.from_batches([batch]), at=at, prices=prices)
                writer.write_table(priced.select(ANSWER_SCHEMA.names))
    return _decoded(read_answers(path), found, unreadable)


def _decoded(table: pa.Table, found: Found, unreadable: list[tuple[int | None, str]]) -> Decoded:
    absent = found.starts < 0
    return Decoded(
        table=table,
        n_lines=found.n_lines,
        missing=np.flatnonzero(absent),
        unknown_ids=found.unknown_ids,
        n_unknown_ids=found.n_unknown_ids,
        conflicts=found.conflicts,
        unreadable=[*unreadable, *((None, reason) for reason in found.junk)],
        n_junk=found.n_junk,
    )


def _record_batches(
    data: Any, found: Found, n_requests: int, unreadable: list[tuple[int | None, str]]
) -> Iterator[pa.RecordBatch]:
    words = {name: _Words() for name in ("stop_reason", "model", "service_tier", "inference_geo", "error_type")}
    for begin in range(0, n_requests, _BATCH_ROWS):
        end = min(begin + _BATCH_ROWS, n_requests)
        columns = _Columns(words)
        for first in range(begin, end, _READ_ROWS):
            lines = lines_of(data, found, first, min(first + _READ_ROWS, end))
            columns.add(lines)
            if INVALID_TYPE in {line.result.type for line in lines}:
                unreadable += [
                    (first + i, reason_of(line)) for i, line in enumerate(lines) if line.result.type == INVALID_TYPE
                ]
        yield columns.to_record_batch()


class _Words(dict[str | None, int]):
    """Codes of the words of a column, given out at first sight; None has no code."""

    def __init__(self) -> None:
        super().__init__({None: UNKNOWN})
        self.array = pa.array([], pa.string())

    def __missing__(self, word: str) -> int:
        code = self[word] = len(self) - 1
        return code

    def to_array(self, codes: list[int]) -> pa.DictionaryArray:
        if len(self.array) < len(self) - 1:
            self.array = pa.array(list(self)[1:], pa.string())
        numbers = np.array(codes, np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32(), mask=numbers < 0), self.array)


class _Columns:
    """The columns of some thousand rows, gathered slice by slice."""

    def __init__(self, words: Mapping[str, _Words]) -> None:
        self.words = words
        self.codes: dict[str, list[int]] = {name: [] for name in words}
        self.counts: dict[str, list[int | None]] = {
            name: [] for name in ANSWER_SCHEMA.names if name.endswith(("_tokens", "_requests"))
        }
        self.statuses: list[int] = []
        self.texts: list[bytes] = []
        self.n_text_bytes: list[int] = []
        self.has_content: list[bool] = []
        self.message_ids: list[str | None] = []
        self.error_messages: list[str | None] = []

    def add(self, lines: Sequence[Line]) -> None:
        """Append rows."""
        results = [line.result for line in lines]
        self.statuses += [_STATUS_CODES[result.type] for result in results]
        messages = [
            result.message if result.type == "succeeded" and result.message else _NO_MESSAGE for result in results
        ]
        usages = [message.usage or _NO_USAGE for message in messages]
        writes = [usage.cache_creation or _NO_CACHE_CREATION for usage in usages]
        errors = [
            _NO_ERROR if result.type == "succeeded" else (result.error or _NO_ERROR_RESPONSE).error or _NO_ERROR
            for result in results
        ]
        counts = self.counts
        counts["input_tokens"] += [usage.input_tokens for usage in usages]
        counts["output_tokens"] += [usage.output_tokens for usage in usages]
        counts["cache_read_tokens"] += [usage.cache_read_input_tokens for usage in usages]
        counts["cache_write_tokens"] += [usage.cache_creation_input_tokens for usage in usages]
        counts["cache_write_1h_tokens"] += [write.ephemeral_1h_input_tokens for write in writes]
        counts["thinking_tokens"] += [
            (usage.output_tokens_details or _NO_OUTPUT_DETAILS).thinking_tokens for usage in usages
        ]
        counts["web_search_requests"] += [
            (usage.server_tool_use or _NO_SERVER_TOOL_USE).web_search_requests for usage in usages
        ]
        words, codes = self.words, self.codes
        codes["stop_reason"] += [words["stop_reason"][message.stop_reason] for message in messages]
        codes["model"] += [words["model"][message.model] for message in messages]
        codes["service_tier"] += [words["service_tier"][usage.service_tier] for usage in usages]
        codes["inference_geo"] += [words["inference_geo"][usage.inference_geo] for usage in usages]
        codes["error_type"] += [words["error_type"][error.type] for error in errors]
        self.message_ids += [message.id for message in messages]
        self.error_messages += [error.message for error in errors]
        self._add_texts(messages)

    def _add_texts(self, messages: Sequence[Message]) -> None:
        contents = [message.content or () for message in messages]
        texts = [text_of(content) for content in contents]
        self.n_text_bytes += [-1 if text is None else len(text) for text in texts]
        self.texts.append(b"".join([text for text in texts if text]))
        self.has_content += [
            bool(text) or any(block.type != "text" for block in content)
            for text, content in zip(texts, contents, strict=True)
        ]

    def to_record_batch(self) -> pa.RecordBatch:
        """Return the rows gathered so far."""
        columns: dict[str, pa.Array] = {name: _counts(values) for name, values in self.counts.items()}
        columns |= {name: self.words[name].to_array(codes) for name, codes in self.codes.items()}
        columns["status"] = pa.DictionaryArray.from_arrays(np.array(self.statuses, np.int8), _STATUS_ARRAY)
        columns["output"] = _texts(b"".join(self.texts), np.array(self.n_text_bytes, np.int64))
        columns["has_content"] = pa.array(self.has_content, pa.bool_())
        columns["message_id"] = pa.array(self.message_ids, pa.large_string())
        columns["error_message"] = pa.array(self.error_messages, pa.large_string())
        return pa.record_batch([columns[name] for name in _UNPRICED_SCHEMA.names], schema=_UNPRICED_SCHEMA)


def _counts(values: list[int | None]) -> pa.Array:
    try:
        numbers = np.fromiter(values, np.int64, len(values))
    except (TypeError, OverflowError):  # null, or more than 63 bits
        numbers = np.array([UNKNOWN if value is None or value >= 2**63 or value < 0 else value for value in values])
    told = numbers >= 0
    return pa.array(numbers, pa.int64(), mask=None if told.all() else ~told)


def _texts(data: bytes, n_bytes: np.ndarray) -> pa.Array:
    absent = n_bytes < 0
    offsets = np.zeros(len(n_bytes) + 1, np.int64)
    np.cumsum(np.maximum(n_bytes, 0), out=offsets[1:])
    validity = pa.py_buffer(np.packbits(~absent, bitorder="little")) if absent.any() else None
    buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(data)]
    array = pa.Array.from_buffers(pa.large_string(), len(n_bytes), buffers, int(absent.sum()))
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:  # bytes that are no UTF-8
        ends = list(accumulate(np.maximum(n_bytes, 0).tolist()))
        begins = [0, *ends[:-1]]
        return pa.array(
            [
                None if absent_ else data[begin:end].decode("utf-8", "replace")
                for begin, end, absent_ in zip(begins, ends, absent.tolist(), strict=True)
            ],
            pa.large_string(),
        )
    return array


@contextlib.contextmanager
def _private_file(path: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
    if not isinstance(path, (str, os.PathLike)):
        yield path
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    with open(descriptor, "wb") as file:
        if hasattr(os, "fchmod"):  # an existing file keeps its mode, and the umask may have taken from a new one's
            os.fchmod(file.fileno(), 0o600)
        yield file


def _writer(file: BinaryIO) -> Any:
    # The words of later rows are not known when the first rows are written.
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    return pa.ipc.new_file(file, ANSWER_SCHEMA, options=options)


def write_answers(table: pa.Table, path: str | os.PathLike[str] | BinaryIO) -> None:
    """
    Write answers as Arrow IPC, uncompressed so that they can be mapped back.

    Parameters
    ----------
    table
        A table of `ANSWER_SCHEMA`.
    path
        A path (the file is made with mode 0600) or a binary file; neither is fsynced here.

    Raises
    ------
    OSError
        Where the file cannot be written.
    """
    with _private_file(path) as file, _writer(file) as writer:
        writer.write_table(table.select(ANSWER_SCHEMA.names).cast(ANSWER_SCHEMA))


def read_answers(path: str | os.PathLike[str]) -> pa.Table:
    """
    Map answers back from a file; milliseconds, whatever their size.

    Raises
    ------
    OSError
        Where the file cannot be read.
    """
    with pa.memory_map(os.fspath(path)) as file:
        return pa.ipc.open_file(file).read_all()


def result_of_line(
    line: bytes, *, at: datetime | None = None, prices: Mapping[str, tuple[float, float]] | None = None
) -> BatchResult:
    r"""
    Read one result line for the client layer.

    Parameters
    ----------
    line
        A line as `iter_lines` yields it.
    at, prices
        As in `pandas_batch.pricing.cost_of_message`.

    Returns
    -------
    BatchResult
        A line that cannot be read has the status ``invalid`` and says why.

    Examples
    --------
    >>> result_of_line(b'{"custom_id":"a","result":{"type":"expired"}}').status
    'expired'
    """
    read = read_line(line)
    result = read.result
    if result.type != "succeeded" or result.message is None:
        invalid = result.type == INVALID_TYPE
        error = (result.error and result.error.error) or _NO_ERROR
        told = ": ".join(part for part in (error.type, error.message) if part)
        return BatchResult(
            custom_id=read.custom_id,
            status="invalid" if invalid else result.type,
            error=told or result.type,
            cost_usd=None if invalid else 0.0,
        )
    message = result.message
    usage = message.usage or _NO_USAGE
    counts = [
        usage.input_tokens,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
        usage.output_tokens,
    ]
    n_input, n_read, n_write, n_output = (max(count or 0, 0) for count in counts)
    raw = _message_dict(line)
    cost = cost_of_message(raw, at=at, prices=prices)
    return BatchResult(
        custom_id=read.custom_id,
        output=(text_of(message.content or ()) or b"").decode("utf-8", "replace"),
        tokens=n_input + n_read + n_write + n_output,
        input_tokens=n_input,
        output_tokens=n_output,
        cost_usd=None if cost is None else float(cost),
        stop_reason=message.stop_reason,
        model=message.model,
        message=raw,
    )


def _message_dict(line: bytes) -> dict[str, Any]:
    try:
        message = msgspec.json.decode(line)["result"]["message"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return {}
    return message if isinstance(message, dict) else {}


def results_of(blocks: Iterable[bytes], *, at: datetime | None = None) -> Iterator[BatchResult]:
    """Read results as they arrive, in the server's order and in constant memory."""
    return (result_of_line(line, at=at) for line in iter_lines(blocks))
