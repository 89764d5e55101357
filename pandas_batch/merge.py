"""The answers of a run as columns, in the order of a frame's rows.

Position is all that is joined on: row -> request -> (batch, position in the batch). Nothing is looked up row by
row, and where rows and answers stand in the same order no text is copied at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .types import ROW_STATUSES

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from .rates import Prices
    from .schema import OutputSchema
    from .store import BatchRecord, RunRecord, Store

_CODE = {status: code for code, status in enumerate(ROW_STATUSES)}
_TEXT_COLUMNS = {"output", "stop_reason", "model", "message_id"}
_TOKEN_COLUMNS = {"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "thinking_tokens"}
_TOKEN_PARTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")

FAILED = ("errored", "expired", "canceled", "missing", "invalid")
"""Status of a row that was asked and has no usable answer."""

CUT = ("max_tokens", "refusal", "pause_turn", "model_context_window_exceeded")
"""Stop reasons of a succeeded row whose answer is not a whole one."""

NOT_SENT = -1
"""In place of a request: the row has no prompt, or none that can be sent."""
NOT_OF_THIS_RUN = -2
"""In place of a request: the run never held this row."""

_WORDS = {
    "expired": "expired: the batch ended after 24 hours before this request was processed",
    "canceled": "canceled: the batch was canceled before this request was processed",
    "missing": "missing: the server has no result for this request",
}


@dataclass(frozen=True)
class Totals:
    """Sums over the answers of a run, in US dollars; None where any part is unknown."""

    cost_usd: float | None
    cost_usd_standard: float | None
    paid_usd: float | None
    saved_by_reuse_usd: float | None


class RunAnswers:
    """
    What is known of the answers of one run now.

    Parameters
    ----------
    store, run
        Where the run is recorded, and its record.
    batches
        The batches that hold its requests, none of them split.
    schema
        Turns outputs into typed columns as soon as all batches are home; what does not fit is ``invalid``.
    prices
        Prices of the call: they also price answers that were brought home when no price was known.
    """

    def __init__(
        self,
        store: Store,
        run: RunRecord,
        batches: Sequence[BatchRecord],
        *,
        schema: OutputSchema | None = None,
        prices: Prices | None = None,
    ) -> None:
        self._store = store
        self._run = run
        self._prices = prices
        rows = store.rows_of(run.id)
        self.request_of_row: np.ndarray = rows.column("request").to_numpy()
        self._reasons = rows.column("reason")
        self.n_samples = int(run.options.get("samples", 1))
        requests = store.requests_table_of(run.id)
        self.keys: np.ndarray = requests.column("batch_key").to_numpy()
        self.positions: np.ndarray = requests.column("position").to_numpy()
        self.reused: np.ndarray = requests.column("reused").to_numpy(zero_copy_only=False)
        self._batches = {batch.key: batch for batch in batches}
        self._tables: dict[int, pa.Table] = {}
        self._schema = schema if all(batch.state in ("collected", "gone", "withdrawn") for batch in batches) else None
        self._codes: np.ndarray | None = None
        self.typed: dict[str, Any] = {}
        self.invalid: dict[int, str] = {}
        sent = self.request_of_row[self.request_of_row >= 0]
        self._rows_per_request = np.bincount(sent, minlength=len(self.keys))
        if self.n_samples > 1:
            first = self._rows_per_request[:: self.n_samples]
            self._rows_per_request = np.repeat(first, self.n_samples)

    # ---------------------------------------------------------------- the answers, batch by batch

    def _table(self, key: int) -> pa.Table | None:
        """Return the mapped answers of a batch, None while it is not collected."""
        batch = self._batches.get(key)
        if batch is None or batch.state != "collected":
            return None
        if key not in self._tables:
            from .answers import read_answers

            self._tables[key] = self._priced(read_answers(self._store.answers_path(key)), batch)
        return self._tables[key]

    def _priced(self, table: pa.Table, batch: BatchRecord) -> pa.Table:
        from .pricing import add_costs, unpriced_models

        if not self._prices or not unpriced_models(table):
            return table
        return add_costs(table, at=batch.created_at, prices=self._prices)

    def codes_of_requests(self) -> np.ndarray:
        """Return the status code of each request (int8, index into `ROW_STATUSES`)."""
        if self._codes is None:
            self._codes = self._stored_codes()
            if self._schema is not None:
                self._apply_schema(self._schema, self._codes)
        return self._codes

    def _apply_schema(self, schema: OutputSchema, codes: np.ndarray) -> None:
        """Parse every output once, in the order of the requests."""
        every = np.arange(len(self.keys))
        table, places = self._global_positions(every)
        outputs: list[str | None] = [None] * len(every)
        reasons: list[str | None] = [None] * len(every)
        if table is not None:
            import pyarrow as pa

            indices = pa.array(places, mask=places < 0)
            reasons = table.column("stop_reason").cast("string").take(indices).to_pylist()
            taken = table.column("output").take(indices).to_pylist()
            usable = (codes == _CODE["succeeded"]).tolist()
            # An answer without any text fits no schema, unless it is the call of a tool that was asked for besides.
            outputs = [
                (text if text is not None or reason == "tool_use" else "") if ok else None
                for text, ok, reason in zip(taken, usable, reasons, strict=True)
            ]
        self.typed, self.invalid = schema.to_columns(outputs, reasons)
        for request in self.invalid:
            codes[request] = _CODE["invalid"]

    def _stored_codes(self) -> np.ndarray:
        codes = np.full(len(self.keys), _CODE["pending"], dtype=np.int8)
        for key in np.unique(self.keys).tolist():
            mine = self.keys == key
            batch = self._batches.get(key)
            table = self._table(key)
            if table is not None:
                codes[mine] = _status_codes(table.column("status"))[self.positions[mine]]
            elif batch is not None and batch.state == "gone":
                codes[mine] = _CODE["missing"]
            elif batch is not None and batch.state == "withdrawn":
                codes[mine] = _CODE["canceled"]
        return codes

    def counts(self) -> dict[str, int]:
        """Return how many rows have which status; the numbers sum to the length of the frame."""
        codes = self.codes_of_requests()[:: self.n_samples] if self.n_samples > 1 else self.codes_of_requests()
        weights = self._rows_per_request[:: self.n_samples] if self.n_samples > 1 else self._rows_per_request
        per_code = np.bincount(codes, weights=weights, minlength=len(ROW_STATUSES)).astype(np.int64)
        per_code[_CODE["skipped"]] += int((self.request_of_row == NOT_SENT).sum())
        per_code[_CODE["unsent"]] += int((self.request_of_row == NOT_OF_THIS_RUN).sum())
        return {status: int(per_code[code]) for status, code in _CODE.items() if per_code[code]}

    def totals(self) -> Totals:
        """Return what the answers so far cost, what this run paid, and what was spared."""
        cost = standard = paid = saved = 0.0
        known = True
        for key in np.unique(self.keys).tolist():
            table = self._table(key)
            if table is None:
                continue
            mine = self.keys == key
            positions = self.positions[mine]
            usd = table.column("cost_usd").to_numpy()[positions]
            standard_usd = table.column("cost_usd_standard").to_numpy()[positions]
            codes = _status_codes(table.column("status"))[positions]
            # A row that the server never answered for has no known cost, and no known bill either.
            usd = np.where(codes == _CODE["missing"], 0.0, usd)
            standard_usd = np.where(codes == _CODE["missing"], 0.0, standard_usd)
            if np.isnan(usd).any():
                known = False
            reused = self.reused[mine]
            cost += _exact_sum(usd)
            standard += _exact_sum(standard_usd)
            paid += _exact_sum(usd[~reused])
            spared = self._rows_per_request[mine] - np.where(reused, 0, 1)
            saved += _exact_sum(usd * np.maximum(spared, 0))
        if not known:
            return Totals(None, None, None, None)
        return Totals(*(round(usd, 12) for usd in (cost, standard, paid, saved)))

    def unsendable_positions(self) -> np.ndarray:
        """Return the positions of the rows whose prompt could not be sent."""
        import pyarrow.compute as pc

        return np.flatnonzero(pc.is_valid(self._reasons).to_numpy())

    def reasons(self) -> dict[int, str]:
        """Return by position why rows could not be sent."""
        return {row: self._reasons[row].as_py() for row in self.unsendable_positions().tolist()}

    def failed_positions(self) -> np.ndarray:
        """Return the positions of the rows that had a prompt and have no usable answer."""
        failed: Any = np.isin(self.codes_of_requests(), [_CODE[status] for status in FAILED])
        if self.n_samples > 1:
            failed = failed.reshape(-1, self.n_samples).any(axis=1)
            of_row = self.request_of_row // self.n_samples
        else:
            of_row = self.request_of_row
        of_rows = np.zeros(len(of_row), dtype=bool)
        sent = self.request_of_row >= 0
        of_rows[sent] = failed[of_row[sent]]
        of_rows[self.unsendable_positions()] = True
        return np.flatnonzero(of_rows)

    # ---------------------------------------------------------------- sums over the requests

    def _over_tables(self) -> Iterator[tuple[pa.Table, np.ndarray, np.ndarray]]:
        """Yield each collected batch, the positions in it that are ours, and their requests."""
        for key in np.unique(self.keys).tolist():
            table = self._table(key)
            if table is not None:
                mine = np.flatnonzero(self.keys == key)
                yield table, self.positions[mine], mine

    def count_values(self, name: str) -> dict[str, int]:
        """Return how many rows have which value in a column of few words (``stop_reason``, ``service_tier``)."""
        counted: dict[str, int] = {}
        for table, positions, mine in self._over_tables():
            column = table.column(name).unify_dictionaries()
            words = column.chunk(0).dictionary.to_pylist() if column.num_chunks else []
            codes = np.concatenate([chunk.indices.fill_null(len(words)).to_numpy() for chunk in column.chunks])
            weights = np.bincount(codes[positions], weights=self._rows_per_request[mine], minlength=len(words) + 1)
            for word, weight in zip(words, weights.tolist(), strict=False):
                if word and weight:
                    counted[word] = counted.get(word, 0) + int(weight)
        return counted

    def requests_with(self, name: str, value: str) -> np.ndarray:
        """Return for each request whether its answer has `value` in a column of few words."""
        import pyarrow.compute as pc

        found = np.zeros(len(self.keys), dtype=bool)
        for table, positions, mine in self._over_tables():
            equal = pc.equal(table.column(name).cast("string"), value).fill_null(False)
            found[mine] = np.asarray(equal)[positions]
        return found

    def retriable_positions(self, key: int) -> list[int]:
        """
        Return the positions of a batch whose requests a retry may need: those without a whole, usable answer.

        An answer that does not fit the schema is marked, so that no other run takes it for one that does.
        """
        table = self._table(key)
        if table is None:
            return []
        usable = _status_codes(table.column("status")) == _CODE["succeeded"]
        mine = self.keys == key
        invalid = self.codes_of_requests()[mine] == _CODE["invalid"]
        if invalid.any():
            usable[self.positions[mine][invalid]] = False
            self._store.set_succeeded(key, usable)
        import pyarrow as pa
        import pyarrow.compute as pc

        cut = pc.is_in(table.column("stop_reason").cast("string"), pa.array(CUT))
        return np.flatnonzero(~(usable & ~np.asarray(cut))).tolist()

    def sum_tokens(self, name: str, *, bought_only: bool = False) -> int:
        """Return the sum of a column of token counts over the distinct answers, or over those this run has bought."""
        import pyarrow.compute as pc

        return sum(
            pc.sum(table.column(name).take(positions[~self.reused[mine]] if bought_only else positions)).as_py() or 0
            for table, positions, mine in self._over_tables()
        )

    def bought_at(self) -> Iterator[tuple[pa.Table, datetime | None]]:
        """Yield the distinct answers, batch by batch, and when each batch was made: the date of its prices."""
        for key in np.unique(self.keys).tolist():
            table = self._table(key)
            if table is not None:
                yield table.take(self.positions[self.keys == key]), self._batches[key].created_at

    def unpriced_models(self) -> list[str]:
        """Return the models of answers whose price is not known."""
        from .pricing import unpriced_models

        return sorted({model for table, _, _ in self._over_tables() for model in unpriced_models(table)})

    # ---------------------------------------------------------------- columns

    def columns(
        self,
        names: Sequence[str],
        *,
        rows: np.ndarray | None = None,
        request_of_row: np.ndarray | None = None,
        reasons: Mapping[int, str] = MappingProxyType({}),
        schema_prefix: str = "",
    ) -> tuple[dict[str, Any], np.ndarray]:
        """
        Return the named columns for the rows of a frame, and the status code of each answer.

        Parameters
        ----------
        names
            Of `pandas_batch.options.ALL_COLUMNS`.
        rows
            Positions of the rows wanted; None is all.
        request_of_row
            For another frame than the submitted one: its rows' requests, `NOT_SENT` or `NOT_OF_THIS_RUN`.
        reasons
            For that other frame: why rows of it cannot be sent.
        schema_prefix
            Before the names of the columns that the schema makes.

        Returns
        -------
        columns
            Column name to array, one value per row (a list of values where the run has several samples).
        codes
            int8, index into `ROW_STATUSES`, of shape (rows x samples,).
        """
        of_row = self.request_of_row if request_of_row is None else request_of_row
        if request_of_row is None:
            reasons = self.reasons()
        if rows is not None:
            of_row = of_row[rows]
            reasons = {i: reasons[row] for i, row in enumerate(rows.tolist()) if row in reasons}
        if self.n_samples > 1:
            spread = of_row[:, None] + np.where(of_row[:, None] >= 0, np.arange(self.n_samples)[None, :], 0)
            of_answer = spread.reshape(-1)
        else:
            of_answer = of_row
        gathered = _Gathered(self, of_answer, names)
        columns = gathered.columns(names, reasons, self.n_samples)
        places = np.where(of_answer >= 0, of_answer, -1)
        for field, values in self.typed.items():
            columns[f"{schema_prefix}{field}"] = pd.Series(values).array.take(places, allow_fill=True)
        if self.n_samples > 1:
            columns = {name: _lists(values, len(of_row), self.n_samples) for name, values in columns.items()}
        return columns, gathered.codes

    def _global_positions(self, needed: np.ndarray) -> tuple[pa.Table | None, np.ndarray]:
        """Return one table over all collected batches, and for each needed request its place in it (-1: none)."""
        import pyarrow as pa

        offsets: dict[int, int] = {}
        tables = []
        n = 0
        for key in dict.fromkeys(np.unique(self.keys[needed]).tolist()):
            table = self._table(key)
            if table is not None:
                offsets[key] = n
                tables.append(table)
                n += table.num_rows
        places = np.full(len(needed), -1, dtype=np.int64)
        for key, offset in offsets.items():
            mine = self.keys[needed] == key
            places[mine] = self.positions[needed[mine]] + offset
        return (pa.concat_tables(tables) if tables else None), places


class _Gathered:
    """The answers of some rows, brought into the order of the rows."""

    def __init__(self, answers: RunAnswers, of_answer: np.ndarray, names: Sequence[str]) -> None:
        self._answers = answers
        self._of_answer = of_answer
        sent = of_answer >= 0
        self._n = len(of_answer)
        self.codes = np.full(self._n, _CODE["skipped"], dtype=np.int8)
        self.codes[of_answer == NOT_OF_THIS_RUN] = _CODE["unsent"]
        request_codes = answers.codes_of_requests()
        self.codes[sent] = request_codes[of_answer[sent]]
        table, places = answers._global_positions(of_answer[sent])
        self._places = np.full(self._n, -1, dtype=np.int64)
        self._places[sent] = places
        first = np.zeros(self._n, dtype=bool)
        first[np.unique(of_answer, return_index=True)[1]] = True
        self._shared = sent & ~first
        needed = {n for n in names if n in _TEXT_COLUMNS | _TOKEN_COLUMNS}
        if "tokens" in names:
            needed |= set(_TOKEN_PARTS)
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
        made: dict[str, Any] = {}
        for name in names:
            if name == "status":
                made[name] = _text_array(_words_of_codes(self.codes))
            elif name == "error":
                made[name] = _text_array(self._errors(reasons, n_samples))
            elif name == "tokens":
                made[name] = self._tokens()
            elif name == "cost_usd":
                made[name] = self._cost()
            elif name in _TOKEN_COLUMNS:
                made[name] = self._integers(name)
            elif name in _TEXT_COLUMNS:
                made[name] = self._texts(name)
            elif name == "reused":
                reused = np.zeros(self._n, dtype=bool)
                sent = self._of_answer >= 0
                reused[sent] = self._answers.reused[self._of_answer[sent]]
                made[name] = reused
            else:
                made[name] = self._of_batch(name)
        return made

    def _texts(self, name: str) -> Any:
        import pyarrow as pa

        if self._table is None:
            return _text_array(pa.nulls(self._n, pa.large_string()))
        column = self._table.column(name)
        return _text_array(column if column.type == pa.large_string() else column.cast(pa.large_string()))

    def _numbers(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return int64 values and where there are none."""
        if self._table is None:
            return np.zeros(self._n, dtype=np.int64), np.ones(self._n, dtype=bool)
        column = self._table.column(name)
        missing = np.asarray(column.is_null(), dtype=bool)
        values = np.asarray(column.fill_null(0), dtype=np.int64)
        return values, np.logical_or(missing, ~self._answered())

    def _answered(self) -> np.ndarray:
        return np.isin(self.codes, [_CODE["succeeded"], _CODE["invalid"]])

    def _integers(self, name: str) -> Any:
        values, missing = self._numbers(name)
        # Of the rows that share a request only the first carries its tokens: columns sum to what was bought.
        return pd.arrays.IntegerArray(np.where(self._shared | missing, 0, values), missing)

    def _tokens(self) -> Any:
        total = np.zeros(self._n, dtype=np.int64)
        for name in _TOKEN_PARTS:
            values, missing = self._numbers(name)
            total += np.where(missing, 0, values)
        _, missing = self._numbers("input_tokens")
        return pd.arrays.IntegerArray(np.where(self._shared | missing, 0, total), missing)

    def _cost(self) -> Any:
        free = np.isin(self.codes, [_CODE[s] for s in ("errored", "expired", "canceled", "skipped", "unsent")])
        usd = np.full(self._n, np.nan)
        if self._table is not None:
            usd = self._table.column("cost_usd").to_numpy().copy()
        usd[free | (self._shared & self._answered())] = 0.0
        missing = np.isnan(usd)
        usd[missing] = 0.0
        return pd.arrays.FloatingArray(usd, missing)

    def _errors(self, reasons: Mapping[int, str], n_samples: int) -> Any:
        """Return "<type>: <message>" where a row has no usable answer; few rows do, so few are looked at."""
        import pyarrow as pa

        words: dict[int, str] = {}
        fine = np.isin(self.codes, [_CODE[s] for s in ("succeeded", "pending", "unsent")])
        for position in np.flatnonzero(~fine).tolist():
            status = ROW_STATUSES[self.codes[position]]
            request = int(self._of_answer[position])
            if request in self._answers.invalid:
                words[position] = f"invalid: {self._answers.invalid[request]}"
            elif status in ("errored", "invalid"):
                words[position] = self._server_words(position)
            elif status == "skipped":
                reason = reasons.get(position // n_samples)
                if reason is not None:
                    words[position] = f"unsendable: {reason}"
            else:
                words[position] = _WORDS[status]
        if not words:
            return pa.nulls(self._n, pa.large_string())
        distinct = list(dict.fromkeys(words.values()))
        code = {text: i for i, text in enumerate(distinct)}
        codes = np.zeros(self._n, dtype=np.int32)
        mask = np.ones(self._n, dtype=bool)
        for position, text in words.items():
            codes[position] = code[text]
            mask[position] = False
        dictionary = pa.DictionaryArray.from_arrays(
            pa.array(codes, mask=mask), pa.array(distinct, type=pa.large_string())
        )
        return dictionary.cast(pa.large_string())

    def _server_words(self, position: int) -> str:
        if self._raw is None:
            return "errored"
        place = int(self._places[position])
        kind = self._raw.column("error_type")[place].as_py() or ROW_STATUSES[self.codes[position]]
        message = self._raw.column("error_message")[place].as_py()
        return f"{kind}: {message}" if message else str(kind)

    def _of_batch(self, name: str) -> Any:
        import pyarrow as pa

        answers = self._answers
        values: list[str | None] = [None] * self._n
        sent = np.flatnonzero(self._of_answer >= 0)
        keys = answers.keys[self._of_answer[sent]]
        if name == "batch_id":
            ids = {key: batch.batch_id if batch.proved else None for key, batch in answers._batches.items()}
            for row, key in zip(sent.tolist(), keys.tolist(), strict=True):
                values[row] = ids.get(key)
        else:
            by_key = {key: answers._store.custom_ids_of(key) for key in np.unique(keys).tolist()}
            positions = answers.positions[self._of_answer[sent]]
            for row, key, position in zip(sent.tolist(), keys.tolist(), positions.tolist(), strict=True):
                values[row] = by_key[key][position].decode()
        return _text_array(pa.array(values, type=pa.large_string()))


def insert_columns(frame: pd.DataFrame, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return `frame` with `columns`; its index, order, dtypes, attrs, flags and subclass stay as they are."""
    merged = frame.copy(deep=False)
    further_levels = ("",) * (frame.columns.nlevels - 1)
    for name, values in columns.items():
        merged[(name, *further_levels) if further_levels else name] = values
    return merged


def _status_codes(column: Any) -> np.ndarray:
    parts = []
    for chunk in column.chunks:
        vocabulary = np.array([_CODE[word] for word in chunk.dictionary.to_pylist()] or [0], dtype=np.int8)
        parts.append(vocabulary[chunk.indices.to_numpy(zero_copy_only=False)])
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int8)


def _words_of_codes(codes: np.ndarray) -> Any:
    import pyarrow as pa

    vocabulary = pa.array(ROW_STATUSES, type=pa.large_string())
    return pa.DictionaryArray.from_arrays(pa.array(codes), vocabulary).cast(pa.large_string())


def _text_array(values: Any) -> Any:
    # The one public way from Arrow to a string array that copies no text.
    dtype: Any = pd.StringDtype("pyarrow")
    return dtype.__from_arrow__(values)


def _lists(values: Any, n_rows: int, n_samples: int) -> np.ndarray:
    flat = values.tolist() if hasattr(values, "tolist") else list(values)
    made = np.empty(n_rows, dtype=object)
    for row in range(n_rows):
        made[row] = flat[row * n_samples : (row + 1) * n_samples]
    return made


def _exact_sum(usd: np.ndarray) -> float:
    # Costs are whole multiples of a pico-dollar: summed as integers no cent is lost to rounding.
    return float(np.rint(np.nan_to_num(usd) * 1e12).astype(np.int64).sum()) / 1e12
