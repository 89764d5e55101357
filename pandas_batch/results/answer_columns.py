"""The columns of answers: their schema, and how read lines become arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pandas_batch.content_blocks import TEXT_BLOCKS, column_beside_output

from .answer_texts import joined_texts, text_of
from .result_lines import (
    INVALID_TYPE,
    MISSING_TYPE,
    UNKNOWN,
    Block,
    CacheCreation,
    Line,
    Message,
    OutputDetails,
    Result,
    ServerToolUse,
    Usage,
    error_of,
    has_all_tokens,
    has_whole_bill,
    reason_of,
)

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
        ("last_text_from", pa.int64()),
        ("beside_output", _WORDS),
        ("has_all_tokens", pa.bool_()),
        ("has_whole_bill", pa.bool_()),
        ("cost_usd", pa.float64()),
        ("cost_usd_standard", pa.float64()),
    ]
)
"""One row per position of a batch. Token counts are null where the server did not tell them; ``has_content`` is
whether the answer holds anything but empty text (a refusal without it is not billed). ``last_text_from`` is the byte of
``output`` at which the last of several text blocks begins; ``beside_output`` the column of a result that holds what
``output`` does not; ``has_all_tokens`` and ``has_whole_bill`` are whether its
usage could be read."""

_PRICES = ("cost_usd", "cost_usd_standard")
UNPRICED_SCHEMA = pa.schema([field for field in ANSWER_SCHEMA if field.name not in _PRICES])

_STATUS_CODES = {name: code for code, name in enumerate(STATUSES)} | {MISSING_TYPE: 4, INVALID_TYPE: 5}
_STATUS_ARRAY = pa.array(STATUSES, pa.string())

# Arrow's own allocator begins with huge pages for each new thread, and a run has threads of its own: for a thousand
# rows their first touch took as long as all decoding.
_POOL = pa.system_memory_pool()

_NO_MESSAGE = Message(content=[])
_NO_USAGE = Usage()
_NO_CACHE_CREATION = CacheCreation()
_NO_OUTPUT_DETAILS = OutputDetails()
_NO_SERVER_TOOL_USE = ServerToolUse()


class Words(dict[str | None, int]):
    """Codes of the words of a column, given out at first sight; None has no code."""

    def __init__(self) -> None:
        super().__init__({None: UNKNOWN})
        self._array = pa.array([], pa.string())

    def __missing__(self, word: str) -> int:
        code = self[word] = len(self) - 1
        return code

    def to_array(self, codes: Sequence[int] | np.ndarray) -> pa.DictionaryArray:
        """Return a column of words from their codes."""
        if len(self._array) < len(self) - 1:
            self._array = pa.array(list(self)[1:], pa.string(), memory_pool=_POOL)
        numbers = np.array(codes, np.int32)
        return pa.DictionaryArray.from_arrays(
            pa.array(numbers, pa.int32(), mask=numbers < 0, memory_pool=_POOL), self._array
        )


class Vocabulary:
    """The words of all columns of a table; they stay the same from one of its parts to the next."""

    def __init__(self) -> None:
        self.stop_reason = Words()
        self.model = Words()
        self.service_tier = Words()
        self.inference_geo = Words()
        self.error_type = Words()
        self.beside_output = Words()


class Columns:
    """The columns of some thousand rows, gathered slice by slice."""

    def __init__(self, vocabulary: Vocabulary, models_asked: Callable[[int], str | None] = lambda _: None) -> None:
        self._vocabulary = vocabulary
        self._models_asked = models_asked
        self._all_tokens: list[bool] = []
        self._whole_bill: list[bool] = []
        self._statuses: list[int] = []
        self._input: list[int | None] = []
        self._output: list[int | None] = []
        self._read: list[int | None] = []
        self._write: list[int | None] = []
        self._write_1h: list[int | None] = []
        self._thinking: list[int | None] = []
        self._searches: list[int | None] = []
        self._stop_reasons: list[int] = []
        self._models: list[int] = []
        self._tiers: list[int] = []
        self._geos: list[int] = []
        self._message_ids: list[str | None] = []
        self._texts: list[bytes | bytearray] = []
        self._n_text_bytes: list[np.ndarray] = []
        # Few rows have these, so only those are kept, by row.
        self._errors: dict[int, Result] = {}
        self._without_text: list[int] = []
        self._last_text_from: dict[int, int] = {}
        self._beside_output: dict[int, str] = {}

    def add(self, lines: Sequence[Line], position: int = 0) -> None:
        """Append rows, of which the first stands at `position` of its batch."""
        results = [line.result for line in lines]
        codes = [_STATUS_CODES[result.type] for result in results]
        messages = [result.message or _NO_MESSAGE for result in results]
        if any(codes):
            first = len(self._statuses)
            for i, code in enumerate(codes):
                if code:
                    self._errors[first + i] = results[i]
                    messages[i] = _NO_MESSAGE
        self._add_texts([message.content or () for message in messages])
        self._statuses += codes
        self._add_usages([message.usage or _NO_USAGE for message in messages])
        self._message_ids += [message.id for message in messages]
        word = self._vocabulary.stop_reason
        self._stop_reasons += [word[message.stop_reason] for message in messages]
        word = self._vocabulary.model
        self._models += [word[message.model] for message in messages]
        for i, message in enumerate(messages):
            if not message.model and not codes[i]:
                # What was asked for is what was billed, where an answer does not say who gave it.
                self._models[i - len(messages)] = word[self._models_asked(position + i)]

    def _add_usages(self, usages: Sequence[Usage]) -> None:
        all_tokens = [has_all_tokens(usage) for usage in usages]
        self._all_tokens += all_tokens
        self._whole_bill += [told and has_whole_bill(usage) for told, usage in zip(all_tokens, usages, strict=True)]
        self._input += [usage.input_tokens for usage in usages]
        self._output += [usage.output_tokens for usage in usages]
        self._read += [usage.cache_read_input_tokens for usage in usages]
        self._write += [
            _n_written(usage) if (n := usage.cache_creation_input_tokens) is None or n < 0 else n for usage in usages
        ]
        self._write_1h += [(usage.cache_creation or _NO_CACHE_CREATION).ephemeral_1h_input_tokens for usage in usages]
        self._thinking += [(usage.output_tokens_details or _NO_OUTPUT_DETAILS).thinking_tokens for usage in usages]
        self._searches += [(usage.server_tool_use or _NO_SERVER_TOOL_USE).web_search_requests for usage in usages]
        word = self._vocabulary.service_tier
        self._tiers += [word[usage.service_tier or None] for usage in usages]
        word = self._vocabulary.inference_geo
        self._geos += [word[usage.inference_geo] for usage in usages]

    def _add_texts(self, contents: Sequence[Sequence[Block]]) -> None:
        data, n_bytes = joined_texts(contents)
        first = len(self._statuses)
        for i in np.flatnonzero(n_bytes <= 0).tolist():
            if any(block.type not in TEXT_BLOCKS for block in contents[i]):
                self._without_text.append(first + i)
                self._note_beside(first + i, contents[i], has_text=False)
        for i, content in enumerate(contents):
            if len(content) > 1:
                if (n_last := _n_last_bytes(content)) is not None:
                    self._last_text_from[first + i] = int(n_bytes[i]) - n_last
                if n_bytes[i] > 0:
                    self._note_beside(first + i, content, has_text=True)
        self._n_text_bytes.append(n_bytes)
        self._texts.append(data)

    def _note_beside(self, row: int, content: Sequence[Block], *, has_text: bool) -> None:
        column = column_beside_output([block.type for block in content], has_text=has_text)
        if column is not None:
            self._beside_output[row] = column

    def unreadable(self) -> list[tuple[int, str]]:
        """Return row and reason of each line that could not be read."""
        invalid = [(row, result) for row, result in self._errors.items() if result.type == INVALID_TYPE]
        return [(row, reason_of(result)) for row, result in invalid]

    def n_text_bytes(self) -> int:
        """Return the length of all texts so far, as UTF-8."""
        return sum(map(len, self._texts))

    def to_record_batch(self, *, repair: bool) -> pa.RecordBatch:
        """
        Return the rows gathered so far, as `UNPRICED_SCHEMA`.

        Parameters
        ----------
        repair
            Whether the lines were not all UTF-8: what of a text is none becomes U+FFFD.
        """
        vocabulary = self._vocabulary
        n_text_bytes = np.concatenate(self._n_text_bytes)
        data = b"".join(self._texts)
        has_content = n_text_bytes > 0
        has_content[self._without_text] = True
        error_types, error_messages = self._errors_to_arrays()
        columns = {
            "status": pa.DictionaryArray.from_arrays(np.array(self._statuses, np.int8), _STATUS_ARRAY),
            "output": _texts_to_array(data, n_text_bytes, repair=repair),
            "has_content": pa.array(has_content, memory_pool=_POOL),
            "stop_reason": vocabulary.stop_reason.to_array(self._stop_reasons),
            "input_tokens": _counts_to_array(self._input),
            "output_tokens": _counts_to_array(self._output),
            "cache_read_tokens": _counts_to_array(self._read),
            "cache_write_tokens": _counts_to_array(self._write),
            "cache_write_1h_tokens": _counts_to_array(self._write_1h),
            "thinking_tokens": _counts_to_array(self._thinking),
            "web_search_requests": _counts_to_array(self._searches),
            "model": vocabulary.model.to_array(self._models),
            "service_tier": vocabulary.service_tier.to_array(self._tiers),
            "inference_geo": vocabulary.inference_geo.to_array(self._geos),
            "message_id": pa.array(self._message_ids, pa.large_string(), memory_pool=_POOL),
            "last_text_from": self._last_texts_to_array(data, n_text_bytes, repair=repair),
            "beside_output": self._beside_to_array(),
            "has_all_tokens": pa.array(self._all_tokens, pa.bool_(), memory_pool=_POOL),
            "has_whole_bill": pa.array(self._whole_bill, pa.bool_(), memory_pool=_POOL),
            "error_type": error_types,
            "error_message": error_messages,
        }
        return pa.record_batch([columns[name] for name in UNPRICED_SCHEMA.names], schema=UNPRICED_SCHEMA)

    def _last_texts_to_array(self, data: bytes, n_bytes: np.ndarray, *, repair: bool) -> pa.Array:
        begins: list[int | None] = [None] * len(n_bytes)
        if not self._last_text_from:
            return pa.array(begins, pa.int64())
        ends = np.cumsum(np.maximum(n_bytes, 0))
        for row, begin in self._last_text_from.items():
            if repair:  # which has another length than what it stands for
                first = int(ends[row]) - int(n_bytes[row])
                begin = len(data[first : first + begin].decode("utf-8", "replace").encode())
            begins[row] = begin
        return pa.array(begins, pa.int64(), memory_pool=_POOL)

    def _beside_to_array(self) -> pa.Array:
        word = self._vocabulary.beside_output
        codes = np.full(len(self._statuses), UNKNOWN, np.int32)
        for row, column in self._beside_output.items():
            codes[row] = word[column]
        return word.to_array(codes)

    def _errors_to_arrays(self) -> tuple[pa.Array, pa.Array]:
        codes = np.full(len(self._statuses), UNKNOWN, np.int32)
        messages: list[str | None] = [None] * len(self._statuses)
        for row, result in self._errors.items():
            error = error_of(result)
            if error is not None:
                codes[row] = self._vocabulary.error_type[error.type]
                messages[row] = error.message
        return self._vocabulary.error_type.to_array(codes), pa.array(messages, pa.large_string(), memory_pool=_POOL)


def _n_last_bytes(content: Sequence[Block]) -> int | None:
    """Return the length of the last text block of an answer that has several; None where it has not."""
    texts = [block for block in content if block.type in TEXT_BLOCKS]
    last = text_of(texts[-1:]) if len(texts) > 1 else None
    return None if last is None else len(last)


def _n_written(usage: Usage) -> int:
    """Return the cache writes of a usage that tells no total."""
    parts = usage.cache_creation or _NO_CACHE_CREATION
    told = [n for n in (parts.ephemeral_5m_input_tokens, parts.ephemeral_1h_input_tokens) if n is not None and n >= 0]
    return sum(told) if told else UNKNOWN


def _counts_to_array(values: list[int | None]) -> pa.Array:
    try:
        numbers = np.fromiter(values, np.int64, len(values))
    except (TypeError, OverflowError):  # null, or more than 63 bits
        numbers = np.array([value if value is not None and 0 <= value < 2**63 else UNKNOWN for value in values])
    known = numbers >= 0
    return pa.array(numbers, pa.int64(), mask=None if known.all() else ~known, memory_pool=_POOL)


def _texts_to_array(data: bytes, n_bytes: np.ndarray, *, repair: bool) -> pa.Array:
    absent = n_bytes < 0
    offsets = np.zeros(len(n_bytes) + 1, np.int64)
    np.cumsum(np.maximum(n_bytes, 0), out=offsets[1:])
    if repair:
        return pa.array(_repaired(data, offsets, absent), pa.large_string(), memory_pool=_POOL)
    validity = pa.py_buffer(np.packbits(~absent, bitorder="little")) if absent.any() else None
    buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(n_bytes), buffers, int(absent.sum()))


def _repaired(data: bytes, offsets: np.ndarray, absent: np.ndarray) -> Iterator[str | None]:
    """Yield texts with U+FFFD for bytes that are no UTF-8."""
    for is_absent, (begin, end) in zip(absent.tolist(), pairwise(offsets.tolist()), strict=True):
        yield None if is_absent else data[begin:end].decode("utf-8", "replace")
