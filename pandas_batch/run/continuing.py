"""Answers that paused and went on in another request: their parts, read as one answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "thinking_tokens",
    "web_search_requests",
)
_PRICES = ("cost_usd", "cost_usd_standard")
_WHOLE = ("has_all_tokens", "has_whole_bill")


def joined_parts(
    table: pa.Table, continued: Mapping[str, Sequence[Sequence[int]]], table_of: Callable[[int], pa.Table]
) -> pa.Table:
    """
    Return the answers of a batch with the parts that came before them: one text, and what all of it cost.

    Parameters
    ----------
    table
        The answers of the batch (`pandas_batch.results.answer_columns.ANSWER_SCHEMA`).
    continued
        As in `pandas_batch.store.records.BatchRecord`.
    table_of
        Returns the answers of another batch, as they are stored.
    """
    import pyarrow as pa

    positions = sorted(map(int, continued))
    joined = {position: _joined(table, position, continued[str(position)], table_of) for position in positions}
    for name in dict.fromkeys(name for answer in joined.values() for name in answer):
        at = table.schema.get_field_index(name)
        values = table.column(at).to_pylist()
        for position in positions:
            values[position] = joined[position].get(name, values[position])
        kind = table.schema.field(at).type
        is_words = pa.types.is_dictionary(kind)
        column = pa.array(values, kind.value_type if is_words else kind)
        table = table.set_column(at, table.schema.field(at), column.cast(kind) if is_words else column)
    return table


def _joined(
    table: pa.Table, position: int, places: Sequence[Sequence[int]], table_of: Callable[[int], pa.Table]
) -> dict[str, Any]:
    """Return the values of one answer that its earlier parts change."""
    parts = [table_of(key).slice(part, 1).to_pylist()[0] for key, part in places]
    last = table.slice(position, 1).to_pylist()[0]
    every = [*parts, last]
    changed: dict[str, Any] = {name: _sum(every, name) for name in (*_COUNTS, *_PRICES) if name in last}
    changed |= {name: all(part[name] for part in every) for name in _WHOLE if name in last}
    texts = [part["output"] for part in every]
    # Half an answer would read as a whole one where the row has failed: it stands in `content`, and a retry goes on.
    if last["status"] == "succeeded" and any(text is not None for text in texts):
        earlier = "".join(text or "" for text in texts[:-1])
        changed["output"] = earlier + (texts[-1] or "")
        if "last_text_from" in last and texts[-1]:
            changed["last_text_from"] = len(earlier.encode()) + (last["last_text_from"] or 0)
    changed["has_content"] = any(part["has_content"] for part in every)
    return changed


def _sum(parts: Sequence[Mapping[str, Any]], name: str) -> Any:
    """Return the sum of what every part tells; None where one tells nothing."""
    values = [part[name] for part in parts]
    return None if any(value is None for value in values) else sum(values)
