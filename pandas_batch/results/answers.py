"""Raw result lines to columns: one row for each request of a batch, in the order of the requests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa

from pandas_batch.types import BatchResult

from .answer_columns import ANSWER_SCHEMA, UNPRICED_SCHEMA, Columns, Vocabulary
from .answer_contents import thinking_of, tool_calls_of
from .answer_texts import text_of
from .pricing import add_costs, cost_of_message
from .result_file import Found, Source, checking_utf8, lines_of, locate, mapped
from .result_lines import ABSENT, INVALID_TYPE, Error, Usage, error_of, has_all_tokens, read_line

__all__ = [
    "ANSWER_SCHEMA",
    "Decoded",
    "decode_results",
    "decode_to_file",
    "read_answers",
    "result_of_line",
]

# A slice of lines and their objects stays within the processor's cache: larger ones are half as fast.
_READ_ROWS = 256
_BATCH_ROWS = 4_096
# Where answers are long, fewer rows are held at once.
_READ_BYTES = 2 << 20
_BATCH_TEXT_BYTES = 8 << 20

_NO_USAGE = Usage()
_NO_ERROR = Error()


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
    n_not_utf8
        Lines that hold bytes which are no UTF-8; in the texts these are U+FFFD.
    """

    table: pa.Table
    n_lines: int
    missing: np.ndarray
    unknown_ids: list[str] = field(default_factory=list)
    n_unknown_ids: int = 0
    conflicts: list[int] = field(default_factory=list)
    unreadable: list[tuple[int | None, str]] = field(default_factory=list)
    n_junk: int = 0
    n_not_utf8: int = 0

    @property
    def complete(self) -> bool:
        """Whether each request has one answer that can be read; if not, fetching again may help."""
        return not (len(self.missing) or self.conflicts or any(position is not None for position, _ in self.unreadable))


def decode_results(
    source: Source, *, prefix: bytes, n_requests: int, custom_ids: Sequence[bytes] | np.ndarray | None = None
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
    return _decode(
        source,
        lambda batches: pa.Table.from_batches(list(batches), UNPRICED_SCHEMA),
        prefix=prefix,
        n_requests=n_requests,
        custom_ids=custom_ids,
    )


def decode_to_file(
    source: Source,
    path: str | os.PathLike[str],
    *,
    prefix: bytes,
    n_requests: int,
    at: datetime,
    prices: Mapping[str, tuple[float, float]] | None = None,
    has_discount: bool = True,
    custom_ids: Sequence[bytes] | np.ndarray | None = None,
    models_asked: Callable[[int], str | None] = lambda _: None,
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
        As in `pandas_batch.results.pricing.add_costs`.
    has_discount
        Whether they are of a batch; what was asked live has the standard price.
    models_asked
        Returns the model that the request at a position asked, for answers that do not tell theirs.

    Returns
    -------
    Decoded
        Its table is mapped from `path`, prices included.

    Raises
    ------
    OSError
        Where a file cannot be read or written.
    """

    def write(batches: Iterator[pa.RecordBatch]) -> pa.Table:
        with _private_file(path) as file, _writer(file) as writer:
            for batch in batches:
                priced = add_costs(pa.Table.from_batches([batch]), at=at, prices=prices, batch=has_discount)
                writer.write_table(priced.select(ANSWER_SCHEMA.names))
        return read_answers(path)

    return _decode(
        source, write, prefix=prefix, n_requests=n_requests, custom_ids=custom_ids, models_asked=models_asked
    )


def _decode(
    source: Source,
    to_table: Callable[[Iterator[pa.RecordBatch]], pa.Table],
    *,
    prefix: bytes,
    n_requests: int,
    custom_ids: Sequence[bytes] | np.ndarray | None,
    models_asked: Callable[[int], str | None] = lambda _: None,
) -> Decoded:
    n_not_utf8 = 0
    unreadable: list[tuple[int | None, str]] = []
    with mapped(source) as data, checking_utf8(data) as is_utf8:
        found = locate(data, prefix=prefix, n_requests=n_requests, custom_ids=custom_ids)
        table = to_table(_record_batches(data, found, n_requests, unreadable, models_asked, repair=False))
        if not is_utf8():
            unreadable.clear()
            table = to_table(_record_batches(data, found, n_requests, unreadable, models_asked, repair=True))
            lines = zip(found.starts.tolist(), found.ends.tolist(), strict=True)
            n_not_utf8 = sum(not is_text(bytes(data[begin:end])) for begin, end in lines if begin >= 0)
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
        n_not_utf8=n_not_utf8,
    )


def _record_batches(
    data: Any,
    found: Found,
    n_requests: int,
    unreadable: list[tuple[int | None, str]],
    models_asked: Callable[[int], str | None],
    *,
    repair: bool,
) -> Iterator[pa.RecordBatch]:
    vocabulary = Vocabulary()
    columns, begin = Columns(vocabulary, models_asked), 0
    n_bytes = int((found.ends - found.starts).sum())
    n_read = min(max(_READ_BYTES * n_requests // max(n_bytes, 1), 1), _READ_ROWS)
    for first in range(0, n_requests, n_read):
        end = min(first + n_read, n_requests)
        columns.add(lines_of(data, found, first, end), first)
        if end == n_requests or end - begin >= _BATCH_ROWS or columns.n_text_bytes() >= _BATCH_TEXT_BYTES:
            unreadable += [(begin + row, reason) for row, reason in columns.unreadable()]
            yield columns.to_record_batch(repair=repair)
            columns, begin = Columns(vocabulary, models_asked), end


@contextlib.contextmanager
def _private_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    with open(descriptor, "wb") as file:
        if hasattr(os, "fchmod"):  # an existing file keeps its mode, and the umask may have taken from a new one's
            os.fchmod(file.fileno(), 0o600)
        yield file


def _writer(file: BinaryIO) -> Any:
    # The words of later rows are not known when the first rows are written.
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    return pa.ipc.new_file(file, ANSWER_SCHEMA, options=options)


def read_answers(path: str | os.PathLike[str]) -> pa.Table:
    """
    Map answers back from a file; milliseconds, whatever their size.

    The file may be of another version: what it lacks of `ANSWER_SCHEMA` is null, what it has besides is left out.

    Raises
    ------
    OSError
        Where the file cannot be read.
    """
    # As a buffer: of a file, even a mapped one, Arrow reads every part in another thread.
    with pa.memory_map(os.fspath(path)) as file:
        return _as_of_this_version(pa.ipc.open_file(file.read_buffer()).read_all())


def _as_of_this_version(table: pa.Table) -> pa.Table:
    if table.schema.names == ANSWER_SCHEMA.names:
        return table
    for at, column in enumerate(ANSWER_SCHEMA):
        if column.name not in table.schema.names:
            # A flag says what an older version took for granted.
            is_flag = pa.types.is_boolean(column.type)
            values = pa.repeat(pa.scalar(True), len(table)) if is_flag else pa.nulls(len(table), column.type)
            table = table.add_column(at, column, values)
    return table.select(ANSWER_SCHEMA.names)


def is_text(line: bytes) -> bool:
    """Return whether bytes are UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def result_of_line(
    line: bytes,
    *,
    at: datetime | None = None,
    prices: Mapping[str, tuple[float, float]] | None = None,
    model_asked: Callable[[str], str | None] = lambda _: None,
) -> BatchResult:
    r"""
    Read one result line for the client layer.

    Parameters
    ----------
    line
        A line, without its end.
    at, prices
        As in `pandas_batch.results.pricing.cost_of_message`.
    model_asked
        Returns the model that the request of an id asked: the price of an answer that does not tell its own.

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
        error = error_of(result) or _NO_ERROR
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
    is_whole = has_all_tokens(usage)
    raw = _message_dict(line)
    content = raw["content"] if isinstance(raw.get("content"), list) else []
    cost = cost_of_message(
        raw if raw.get("model") else raw | {"model": model_asked(read.custom_id)}, at=at, prices=prices
    )
    return BatchResult(
        custom_id=read.custom_id,
        output=(text_of(message.content or ()) or b"").decode("utf-8", "replace"),
        tokens=n_input + n_read + n_write + n_output if is_whole else None,
        input_tokens=_told(usage.input_tokens),
        output_tokens=_told(usage.output_tokens),
        cost_usd=None if cost is None else float(cost),
        stop_reason=message.stop_reason,
        model=message.model,
        message=raw,
        thinking=thinking_of(content),
        tool_calls=tool_calls_of(content) or (),
        cache_read_tokens=_told_or_none_used(usage.cache_read_input_tokens),
        cache_write_tokens=_told_or_none_used(usage.cache_creation_input_tokens),
    )


def _told(count: int | None) -> int | None:
    return count if count is not None and 0 <= count < 2**63 else None


def _told_or_none_used(count: int | None) -> int | None:
    # Old answers do not speak of the cache, which they did not use.
    return 0 if count in (None, ABSENT) else _told(count)


def _message_dict(line: bytes) -> dict[str, Any]:
    try:
        message = msgspec.json.decode(line)["result"]["message"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return {}
    return message if isinstance(message, dict) else {}
