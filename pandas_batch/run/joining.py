"""The answers of a run as columns, in the order of a frame's rows.

Position is all that is joined on: row -> request -> (batch, position in the batch). Nothing is looked up row by
row, and where rows and answers stand in the same order no text is copied at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_batch.columns import COLUMN, names_made_as
from pandas_batch.requests.text_dtype import text_array
from pandas_batch.results.answer_contents import PICK
from pandas_batch.results.row_status import (
    CODE,
    NOT_OF_THIS_RUN,
    is_any,
)
from pandas_batch.types import ROW_STATUSES

if TYPE_CHECKING:
    import pyarrow as pa

    from .run_answers import RunAnswers

TOKEN_PARTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
_WORDS = {
    "expired": "expired: the batch ended after 24 hours before this request was processed",
    "canceled": "canceled: the batch was canceled before this request was processed",
    "missing": "missing: the server has no result for this request",
    "paused": "paused: the model had not finished yet; a retry lets it go on from where it stopped",
}


def columns_of(
    answers: RunAnswers,
    names: Sequence[str],
    *,
    rows: np.ndarray | None = None,
    schema_prefix: str = "",
) -> tuple[dict[str, Any], np.ndarray]:
    """
    Return the named columns for the rows, and the status code of each answer.

    Parameters
    ----------
    answers
        Of the run, for the rows of a frame.
    names
        Of `pandas_batch.columns.COLUMN`.
    rows
        Positions of the rows wanted; None is all.
    schema_prefix
        Before the names of the columns that the schema makes.

    Returns
    -------
    columns
        Column name to array, one value per row (a list of values where the run has several samples).
    codes
        int8, index into `ROW_STATUSES`, of shape (rows x samples,).
    """
    of_row, reasons, told = answers.request_of_row, answers.reasons(), answers.counted_elsewhere
    if rows is not None:
        of_row = of_row[rows]
        told = None if told is None else told[rows]
        reasons = {i: reasons[row] for i, row in enumerate(rows.tolist()) if row in reasons}
    if answers.n_samples > 1:
        spread = of_row[:, None] + np.where(of_row[:, None] >= 0, np.arange(answers.n_samples)[None, :], 0)
        of_answer = spread.reshape(-1)
    else:
        of_answer = of_row
    told = None if told is None else np.repeat(told, answers.n_samples)
    gathered = Gathered(answers, of_answer, names, told)
    columns = gathered.columns(names, reasons, answers.n_samples)
    places = np.where(of_answer >= 0, of_answer, -1)
    for field, values in answers.typed.items():
        columns[f"{schema_prefix}{field}"] = pd.Series(values).array.take(places, allow_fill=True)
    if answers.n_samples > 1:
        columns = {name: lists_of(values, len(of_row), answers.n_samples) for name, values in columns.items()}
    return columns, gathered.codes


class Gathered:
    """
    The answers of some rows, brought into the order of the rows.

    Of rows that share a request the first bears its tokens and cost, if no row elsewhere does (`counted_elsewhere`).
    """

    def __init__(
        self,
        answers: RunAnswers,
        of_answer: np.ndarray,
        names: Sequence[str],
        counted_elsewhere: np.ndarray | None = None,
    ) -> None:
        self._answers = answers
        self._of_answer = of_answer
        sent = of_answer >= 0
        self._n = len(of_answer)
        self.codes = np.full(self._n, CODE["skipped"], dtype=np.int8)
        self.codes[of_answer == NOT_OF_THIS_RUN] = CODE["unsent"]
        request_codes = answers.codes_of_requests()
        self.codes[sent] = request_codes[of_answer[sent]]
        self._unanswered = ~is_any(self.codes, ("succeeded", "invalid", "paused"))
        table, places = answers.global_positions(of_answer[sent])
        self._places = np.full(self._n, -1, dtype=np.int64)
        self._places[sent] = places
        self._shared = _seen_before(of_answer, len(answers.keys))
        if counted_elsewhere is not None and counted_elsewhere.any():
            self._shared = counted_elsewhere if self._shared is None else self._shared | counted_elsewhere
        needed = set(names) & names_made_as("stored text", "stored count")
        if "tokens" in names:
            needed |= set(TOKEN_PARTS)
            if table is not None and "has_all_tokens" in table.column_names:
                needed.add("has_all_tokens")
        if "cost_usd" in names:
            needed.add("cost_usd")
        self._table = None if table is None else self._in_order(table, sorted(needed))
        self._raw = table

    def _in_order(self, table: pa.Table, names: list[str]) -> pa.Table:
        import pyarrow as pa

        chosen = table.select(names)
        if table.num_rows == self._n and np.array_equal(self._places, np.arange(self._n)):
            return chosen
        return chosen.take(pa.array(self._places, mask=self._places < 0))

    def columns(self, names: Sequence[str], reasons: Mapping[int, str], n_samples: int) -> dict[str, Any]:
        """Return the named columns as pandas arrays."""
        self._reasons, self._n_samples = reasons, n_samples
        return {name: MAKERS[COLUMN[name].made_as](self, name) for name in names}

    def statuses(self, _: str) -> Any:
        """Return what became of each row."""
        return text_array(words_of_codes(self.codes))

    def errors(self, _: str) -> Any:
        """Return why rows have no usable answer."""
        return text_array(self._errors(self._reasons, self._n_samples))

    def are_reused(self, _: str) -> Any:
        """Return whether each answer was bought by another run."""
        reused = np.zeros(self._n, dtype=bool)
        sent = self._of_answer >= 0
        reused[sent] = self._answers.reused[self._of_answer[sent]]
        return pd.arrays.BooleanArray(reused, np.zeros(self._n, dtype=bool))

    def texts(self, name: str) -> Any:
        """Return a column of texts as it is stored."""
        import pyarrow as pa

        if self._table is None:
            return text_array(pa.nulls(self._n, pa.large_string()))
        column = self._table.column(name)
        return text_array(column if column.type == pa.large_string() else column.cast(pa.large_string()))

    def _numbers(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return int64 values and where there are none."""
        if self._table is None:
            return np.zeros(self._n, dtype=np.int64), np.ones(self._n, dtype=bool)
        column = self._table.column(name)
        values = np.asarray(column.fill_null(0) if column.null_count else column, dtype=np.int64)
        if column.null_count == 0:
            return values, self._unanswered
        return values, np.asarray(column.is_null(), dtype=bool) | self._unanswered

    def integers(self, name: str) -> Any:
        """Return a column of token counts as it is stored."""
        values, missing = self._numbers(name)
        return self._bought(values, missing)

    def _bought(self, values: np.ndarray, missing: np.ndarray) -> Any:
        # Of the rows that share a request only the first carries its tokens: columns sum to what was bought.
        nothing = missing if self._shared is None else self._shared | missing
        return pd.arrays.IntegerArray(np.where(nothing, 0, values), missing.copy())

    def tokens(self, _: str) -> Any:
        """Return all tokens of each answer."""
        total, missing = self._numbers("input_tokens")
        total = np.where(missing, 0, total)
        for name in TOKEN_PARTS[1:]:
            values, unknown = self._numbers(name)
            total += np.where(unknown, 0, values)
            if name == "output_tokens":
                missing = missing | unknown
        if self._table is not None and "has_all_tokens" in self._table.column_names:
            # Half a sum would look like a whole one.
            missing = missing | ~np.asarray(self._table.column("has_all_tokens").fill_null(False), dtype=bool)
        total[missing] = 0
        return self._bought(total, missing)

    def costs(self, _: str) -> Any:
        """Return what each answer cost, in USD."""
        free = is_any(self.codes, ("errored", "expired", "canceled", "skipped", "unsent"))
        usd = np.full(self._n, np.nan)
        if self._table is not None:
            usd = self._table.column("cost_usd").to_numpy().copy()
        # What came before the last part of such an answer was paid.
        usd[free & np.isnan(usd)] = 0.0
        if self._shared is not None:
            usd[self._shared & ~self._unanswered] = 0.0
        return usd

    def _errors(self, reasons: Mapping[int, str], n_samples: int) -> Any:
        """Return "<type>: <message>" where a row has no usable answer; null elsewhere."""
        import pyarrow as pa

        words: list[str] = []
        of_row = np.full(self._n, -1, np.int32)
        for status, text in _WORDS.items():
            rows = self.codes == CODE[status]
            if rows.any():
                of_row[rows] = len(words)
                words.append(text)
        refused = np.flatnonzero(is_any(self.codes, ("errored", "invalid")))
        if len(refused):
            told = self._server_words(refused)
            of_row[refused] = np.asarray(told.indices) + len(words)
            words += told.dictionary.to_pylist()
        known: dict[str, int] = {}
        for row, text in self._own_words(reasons, n_samples):
            of_row[row] = known.setdefault(text, len(words) + len(known))
        words += known
        if not words:
            return pa.nulls(self._n, pa.large_string())
        indices = pa.array(of_row, mask=of_row < 0)
        return pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.large_string())).cast(pa.large_string())

    def _own_words(self, reasons: Mapping[int, str], n_samples: int) -> Iterator[tuple[int, str]]:
        """Yield what was found here, not by the server: rows that could not be sent, outputs that do not fit."""
        for row, reason in reasons.items():
            for position in range(row * n_samples, (row + 1) * n_samples):
                if self.codes[position] == CODE["skipped"]:
                    yield position, f"unsendable: {reason}"
        if self._answers.invalid:
            for position in np.flatnonzero(self.codes == CODE["invalid"]).tolist():
                misfit = self._answers.invalid.get(int(self._of_answer[position]))
                if misfit is not None:
                    yield position, f"invalid: {misfit}"

    def _server_words(self, positions: np.ndarray) -> pa.DictionaryArray:
        """Return what the server said of the rows at `positions`: type and message, or what there is of them."""
        import pyarrow as pa
        import pyarrow.compute as pc

        status = words_of_codes(self.codes[positions])
        if self._raw is None:
            return status.dictionary_encode()
        table = self._raw.select(["error_type", "error_message"]).take(self._places[positions]).combine_chunks()
        kind, message = (column.cast(pa.large_string()).combine_chunks() for column in table.columns)
        kind = pc.if_else(pc.fill_null(pc.equal(kind, ""), True), status, kind)
        both = pc.binary_join_element_wise(kind, message, pa.scalar(": ", pa.large_string()))
        return pc.if_else(pc.fill_null(pc.equal(message, ""), True), kind, both).dictionary_encode()

    def _places_in_batches(self) -> Iterator[tuple[int, int, int]]:
        """Yield each row that was sent, the key of its batch, and its position there."""
        sent = np.flatnonzero(self._of_answer >= 0)
        requests = self._of_answer[sent]
        keys, positions = self._answers.keys[requests], self._answers.positions[requests]
        yield from zip(sent.tolist(), keys.tolist(), positions.tolist(), strict=True)

    def batch_ids(self, _: str) -> Any:
        """Return the batch of each request."""
        import pyarrow as pa

        ids = {key: batch.batch_id if batch.proved else None for key, batch in self._answers.batches.items()}
        values: list[str | None] = [None] * self._n
        for row, key, _position in self._places_in_batches():
            values[row] = ids.get(key)
        return text_array(pa.array(values, type=pa.large_string()))

    def custom_ids(self, _: str) -> Any:
        """Return the id of each request in its batch."""
        import pyarrow as pa

        by_key: dict[int, np.ndarray] = {}
        values: list[str | None] = [None] * self._n
        for row, key, position in self._places_in_batches():
            if key not in by_key:
                by_key[key] = self._answers.custom_ids_of(key)
            values[row] = by_key[key][position].decode()
        return text_array(pa.array(values, type=pa.large_string()))

    @cached_property
    def _contents(self) -> list[list[Any] | None]:
        """The content blocks of each answer, from the raw results."""
        contents: list[list[Any] | None] = [None] * self._n
        of_key: dict[int, tuple[list[int], list[int]]] = {}
        for row, key, position in self._places_in_batches():
            if not self._unanswered[row]:
                rows, positions = of_key.setdefault(key, ([], []))
                rows.append(row)
                positions.append(position)
        for key, (rows, positions) in of_key.items():
            for row, content in zip(rows, self._answers.contents_of(key, positions), strict=True):
                contents[row] = content
        return contents

    def content_texts(self, name: str) -> Any:
        """Return a column of texts that only the raw results hold."""
        import pyarrow as pa

        values = [None if content is None else PICK[name](content) for content in self._contents]
        return text_array(pa.array(values, type=pa.large_string()))

    def content_lists(self, name: str) -> Any:
        """Return a column of lists that only the raw results hold."""
        values = np.full(self._n, None, dtype=object)
        for row, content in enumerate(self._contents):
            values[row] = None if content is None else PICK[name](content)
        return pd.Series(values, dtype=object).array


MAKERS: Mapping[str, Callable[[Gathered, str], Any]] = MappingProxyType(
    {
        "stored text": Gathered.texts,
        "stored count": Gathered.integers,
        "status": Gathered.statuses,
        "error": Gathered.errors,
        "tokens": Gathered.tokens,
        "cost": Gathered.costs,
        "reused": Gathered.are_reused,
        "custom_id": Gathered.custom_ids,
        "batch_id": Gathered.batch_ids,
        "content text": Gathered.content_texts,
        "content list": Gathered.content_lists,
    }
)
"""What makes a column, by the word that `pandas_batch.columns` names its maker with."""


def _seen_before(of_answer: np.ndarray, n_requests: int) -> np.ndarray | None:
    """Return for each row whether one before it has the same request; None where no two have."""
    sent = np.flatnonzero(of_answer >= 0)
    of_sent = of_answer[sent]
    if (of_sent[1:] > of_sent[:-1]).all():
        return None
    first = np.full(n_requests, -1, np.int64)
    first[of_sent[::-1]] = sent[::-1]
    seen = np.zeros(len(of_answer), bool)
    seen[sent] = first[of_sent] != sent
    return seen


def words_of_codes(codes: np.ndarray) -> Any:
    """Return the status words of codes, as Arrow text."""
    import pyarrow as pa

    vocabulary = pa.array(ROW_STATUSES, type=pa.large_string())
    return pa.DictionaryArray.from_arrays(pa.array(codes), vocabulary).cast(pa.large_string())


def lists_of(values: Any, n_rows: int, n_samples: int) -> np.ndarray:
    """Return the samples of each row as a list."""
    flat = values.tolist() if hasattr(values, "tolist") else list(values)
    made = np.empty(n_rows, dtype=object)
    for row in range(n_rows):
        made[row] = flat[row * n_samples : (row + 1) * n_samples]
    return made
