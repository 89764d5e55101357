"""The answers of a run as columns, in the order of a frame's rows.

Position is all that is joined on: row -> request -> (batch, position in the batch). Nothing is looked up row by
row, and where rows and answers stand in the same order no text is copied at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
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
    FAILED,
    NOT_OF_THIS_RUN,
    NOT_SENT,
    exact_sum,
    is_any,
    status_codes,
)
from pandas_batch.stop_reasons import CUT
from pandas_batch.store.states import SETTLED
from pandas_batch.types import ROW_STATUSES

from .key_slices import Places, is_all, places_of

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from pandas_batch.requests.schema import OutputSchema
    from pandas_batch.results.pricing import Totals
    from pandas_batch.results.rates import Prices
    from pandas_batch.store import BatchRecord, RunRecord, Store


TOKEN_PARTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
_WORDS = {
    "expired": "expired: the batch ended after 24 hours before this request was processed",
    "canceled": "canceled: the batch was canceled before this request was processed",
    "missing": "missing: the server has no result for this request",
}


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
        Turns outputs into typed columns as soon as all batches are home, or when a partial result is wanted; what
        does not fit is ``invalid``.
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
        self._own_reasons: Mapping[int, str] | None = None
        self._counted_elsewhere: np.ndarray | None = None
        self.n_samples = int(run.options.get("samples", 1))
        requests = store.requests_table_of(run.id)
        self.keys: np.ndarray = requests.column("batch_key").to_numpy()
        self.positions: np.ndarray = requests.column("position").to_numpy()
        self.reused: np.ndarray = requests.column("reused").to_numpy(zero_copy_only=False)
        self.batches = {batch.key: batch for batch in batches}
        self._tables: dict[int, pa.Table] = {}
        self._any_schema = schema
        self._schema = schema if all(batch.state in SETTLED for batch in batches) else None
        self._codes: np.ndarray | None = None
        self.typed: dict[str, Any] = {}
        self.invalid: dict[int, str] = {}

    @cached_property
    def _of_key(self) -> dict[int, Places]:
        return places_of(self.keys)

    @cached_property
    def _rows_per_request(self) -> np.ndarray:
        n_rows = np.bincount(self.request_of_row[self.request_of_row >= 0], minlength=len(self.keys))
        return n_rows if self.n_samples == 1 else np.repeat(n_rows[:: self.n_samples], self.n_samples)

    @cached_property
    def _is_each_once(self) -> bool:
        return bool((self._rows_per_request == 1).all())

    def of_rows(
        self,
        request_of_row: np.ndarray,
        reasons: Mapping[int, str] = MappingProxyType({}),
        counted_elsewhere: np.ndarray | None = None,
    ) -> RunAnswers:
        """
        Return the answers of some rows alone: everything it then says is about those, and the work is theirs.

        Parameters
        ----------
        request_of_row
            The request of each row, `NOT_SENT` or `NOT_OF_THIS_RUN`.
        reasons
            Why rows cannot be sent, by position.
        counted_elsewhere
            bool per row: whether a row outside these bears the tokens and cost of its request.
        """
        sent = request_of_row >= 0
        firsts, places = np.unique(request_of_row[sent], return_inverse=True)
        alone = copy(self)
        for derived in ("_rows_per_request", "_is_each_once", "_told_requests"):
            vars(alone).pop(derived, None)
        alone._own_reasons, alone._counted_elsewhere = reasons, counted_elsewhere
        alone.request_of_row = request_of_row
        alone._codes, alone.typed, alone.invalid = None, {}, {}
        if len(firsts) * self.n_samples == len(self.keys):
            return alone
        vars(alone).pop("_of_key", None)
        chosen = (firsts[:, None] + np.arange(self.n_samples)).reshape(-1)
        alone.keys, alone.positions, alone.reused = self.keys[chosen], self.positions[chosen], self.reused[chosen]
        alone.request_of_row = request_of_row.copy()
        alone.request_of_row[sent] = places * self.n_samples
        return alone

    @property
    def n_rows(self) -> int:
        """How many rows these are the answers of."""
        return len(self.request_of_row)

    @property
    def n_reused(self) -> int:
        """How many of the requests have an answer of another run."""
        return int(self.reused.sum())

    @cached_property
    def _told_requests(self) -> np.ndarray | None:
        """Which requests a row outside bears the tokens and cost of; None where that is none."""
        if self._counted_elsewhere is None or not self._counted_elsewhere.any():
            return None
        told = np.zeros(len(self.keys), dtype=bool)
        of_row = self.request_of_row[self._counted_elsewhere & (self.request_of_row >= 0)]
        told[(of_row[:, None] + np.arange(self.n_samples)).reshape(-1)] = True
        return told

    def shared_rows(self, request_of_row: np.ndarray) -> np.ndarray:
        """Return for each of some rows whether others share its request, be it among them or among those of here."""
        shared = np.zeros(len(request_of_row), dtype=bool)
        sent = request_of_row >= 0
        of_sent = request_of_row[sent]
        shared[sent] = (self._rows_per_request[of_sent] > 1) | (np.bincount(of_sent, minlength=1)[of_sent] > 1)
        return shared

    # ---------------------------------------------------------------- the answers, batch by batch

    def _table(self, key: int) -> pa.Table | None:
        """Return the mapped answers of a batch, None while it is not collected."""
        batch = self.batches.get(key)
        if batch is None or batch.state != "collected":
            return None
        if key not in self._tables:
            from pandas_batch.engine.rebuilding import answers_of

            self._tables[key] = self._priced(answers_of(self._store, batch, prices=self._prices), batch)
        return self._tables[key]

    def _priced(self, table: pa.Table, batch: BatchRecord) -> pa.Table:
        from pandas_batch.results.pricing import add_costs, unpriced_models

        if not self._prices or not unpriced_models(table):
            return table
        return add_costs(table, at=batch.created_at, prices=self._prices, batch=not batch.is_live)

    def contents_of(self, key: int, positions: Sequence[int]) -> list[list[Any] | None]:
        """Return the content blocks of some answers of a collected batch, as they came."""
        from pandas_batch.engine.rebuilding import contents_of

        return contents_of(self._store, self.batches[key], positions)

    def custom_ids_of(self, key: int) -> np.ndarray:
        """Return the custom_ids of a batch by position (dtype S47)."""
        return self._store.custom_ids_of(key)

    def codes_of_requests(self) -> np.ndarray:
        """Return the status code of each request (int8, index into `ROW_STATUSES`)."""
        if self._codes is None:
            codes = self._stored_codes()
            if self._schema is not None:
                self._apply_schema(self._schema, codes)
            # Last: the run's own thread asks too, and what does not fit must never pass for succeeded.
            self._codes = codes
        return self._codes

    def read_typed(self) -> None:
        """Parse the answers that are here by now: a partial result has the columns of a whole one."""
        codes = self.codes_of_requests()
        if self._any_schema is not None and not self.typed:
            codes = codes.copy()
            self._apply_schema(self._any_schema, codes)
            self._codes = codes

    def _apply_schema(self, schema: OutputSchema, codes: np.ndarray) -> None:
        """Parse every output once, in the order of the requests."""
        every = np.arange(len(self.keys))
        table, places = self.global_positions(every)
        outputs: list[str | None] = [None] * len(every)
        reasons: list[str | None] = [None] * len(every)
        begins: list[int | None] = []
        if table is not None:
            import pyarrow as pa

            indices = pa.array(places, mask=places < 0)
            reasons = table.column("stop_reason").cast("string").take(indices).to_pylist()
            taken = table.column("output").take(indices).to_pylist()
            if "last_text_from" in table.column_names:
                begins = table.column("last_text_from").take(indices).to_pylist()
            usable = (codes == CODE["succeeded"]).tolist()
            # An answer without any text fits no schema, unless it is the call of a tool that was asked for besides.
            outputs = [
                (text if text is not None or reason == "tool_use" else "") if ok else None
                for text, ok, reason in zip(taken, usable, reasons, strict=True)
            ]
        typed, self.invalid = schema.to_columns(
            outputs, reasons, *([begins] if any(begin is not None for begin in begins) else [])
        )
        for request in self.invalid:
            codes[request] = CODE["invalid"]
        self.typed = typed

    def _stored_codes(self) -> np.ndarray:
        codes = np.full(len(self.keys), CODE["pending"], dtype=np.int8)
        for key, mine in self._of_key.items():
            batch = self.batches.get(key)
            table = self._table(key)
            if table is not None:
                codes[mine] = status_codes(table.column("status"))[self.positions[mine]]
            elif batch is not None and batch.state == "gone":
                codes[mine] = CODE["missing"]
            elif batch is not None and batch.state == "withdrawn":
                codes[mine] = CODE["canceled"]
        return codes

    def counts(self) -> dict[str, int]:
        """Return how many rows have which status; the numbers sum to the length of the frame."""
        codes = self.codes_of_requests()[:: self.n_samples] if self.n_samples > 1 else self.codes_of_requests()
        weights = None if self._is_each_once else self._rows_per_request[:: self.n_samples]
        per_code = np.bincount(codes, weights=weights, minlength=len(ROW_STATUSES)).astype(np.int64)
        per_code[CODE["skipped"]] += int((self.request_of_row == NOT_SENT).sum())
        per_code[CODE["unsent"]] += int((self.request_of_row == NOT_OF_THIS_RUN).sum())
        return {status: int(per_code[code]) for status, code in CODE.items() if per_code[code]}

    def totals(self) -> Totals:
        """Return what the answers so far cost, what this run paid, and what was spared."""
        from pandas_batch.results.pricing import Totals

        cost = standard = paid = saved = 0.0
        known = True
        for key, mine in self._of_key.items():
            table = self._table(key)
            if table is None:
                continue
            positions = self.positions[mine]
            usd, standard_usd = (table.column(name).to_numpy()[positions] for name in ("cost_usd", "cost_usd_standard"))
            codes = status_codes(table.column("status"))[positions]
            # A row that a batch has no result for has no known cost, and no known bill either; where a live answer
            # was lost, there may be a bill.
            is_missing = codes == CODE["missing"]
            usd[is_missing] = standard_usd[is_missing] = np.nan if self.batches[key].is_live else 0.0
            if self._told_requests is not None:
                told = self._told_requests[mine]
                usd[told] = standard_usd[told] = 0.0
            if np.isnan(usd).any():
                known = False
            reused = self.reused[mine]
            cost += exact_sum(usd)
            standard += exact_sum(standard_usd)
            paid += exact_sum(usd[~reused])
            if reused.any() or not self._is_each_once:
                spared = self._rows_per_request[mine] - np.where(reused, 0, 1)
                saved += exact_sum(usd * np.maximum(spared, 0))
        if not known:
            return Totals(None, None, None, None)
        return Totals(*(round(usd, 12) for usd in (cost, standard, paid, saved)))

    def unsendable_positions(self) -> np.ndarray:
        """Return the positions of the rows whose prompt could not be sent."""
        if self._own_reasons is not None:
            return np.array(sorted(self._own_reasons), dtype=np.int64)
        import pyarrow.compute as pc

        return np.flatnonzero(pc.is_valid(self._reasons).to_numpy())

    def reasons(self) -> dict[int, str]:
        """Return by position why rows could not be sent."""
        if self._own_reasons is not None:
            return dict(self._own_reasons)
        return {row: self._reasons[row].as_py() for row in self.unsendable_positions().tolist()}

    def failed_positions(self) -> np.ndarray:
        """Return the positions of the rows that had a prompt and have no usable answer."""
        failed: Any = is_any(self.codes_of_requests(), FAILED)
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

    def over_tables(self, *, live: bool = True) -> Iterator[tuple[pa.Table, np.ndarray, Places]]:
        """
        Yield each collected batch, the positions in it that are ours, and the places of their requests.

        Without `live`, what was asked one by one is left out.
        """
        for key, mine in self._of_key.items():
            table = self._table(key)
            if table is not None and (live or not self.batches[key].is_live):
                yield table, self.positions[mine], mine

    def weights_of(self, mine: Places) -> np.ndarray | None:
        """Return how many rows share each of some requests; None where each has one row."""
        return None if self._is_each_once else self._rows_per_request[mine]

    def requests_with(self, name: str, value: str) -> np.ndarray:
        """Return for each request whether its answer has `value` in a column of few words."""
        import pyarrow.compute as pc

        found = np.zeros(len(self.keys), dtype=bool)
        for table, positions, mine in self.over_tables():
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
        usable = status_codes(table.column("status")) == CODE["succeeded"]
        mine = self._of_key.get(key, slice(0))
        invalid = self.codes_of_requests()[mine] == CODE["invalid"]
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
            for table, positions, mine in self.over_tables()
        )

    def bought_at(self) -> Iterator[tuple[pa.Table, datetime | None, bool]]:
        """Yield the distinct answers, batch by batch, the date of their prices, and whether they have the discount."""
        for key, mine in self._of_key.items():
            table = self._table(key)
            if table is not None:
                batch = self.batches[key]
                yield table.take(self.positions[mine]), batch.created_at, not batch.is_live

    def unpriced_models(self) -> list[str]:
        """Return the models of answers whose price is not known."""
        from pandas_batch.results.pricing import unpriced_models

        return sorted({model for table, _, _ in self.over_tables() for model in unpriced_models(table)})

    # ---------------------------------------------------------------- columns

    def columns(
        self,
        names: Sequence[str],
        *,
        rows: np.ndarray | None = None,
        schema_prefix: str = "",
    ) -> tuple[dict[str, Any], np.ndarray]:
        """
        Return the named columns for the rows, and the status code of each answer.

        Parameters
        ----------
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
        of_row, reasons, told = self.request_of_row, self.reasons(), self._counted_elsewhere
        if rows is not None:
            of_row = of_row[rows]
            told = None if told is None else told[rows]
            reasons = {i: reasons[row] for i, row in enumerate(rows.tolist()) if row in reasons}
        if self.n_samples > 1:
            spread = of_row[:, None] + np.where(of_row[:, None] >= 0, np.arange(self.n_samples)[None, :], 0)
            of_answer = spread.reshape(-1)
        else:
            of_answer = of_row
        told = None if told is None else np.repeat(told, self.n_samples)
        gathered = Gathered(self, of_answer, names, told)
        columns = gathered.columns(names, reasons, self.n_samples)
        places = np.where(of_answer >= 0, of_answer, -1)
        for field, values in self.typed.items():
            columns[f"{schema_prefix}{field}"] = pd.Series(values).array.take(places, allow_fill=True)
        if self.n_samples > 1:
            columns = {name: lists_of(values, len(of_row), self.n_samples) for name, values in columns.items()}
        return columns, gathered.codes

    def global_positions(self, needed: np.ndarray) -> tuple[pa.Table | None, np.ndarray]:
        """Return one table over all collected batches, and for each needed request its place in it (-1: none)."""
        import pyarrow as pa

        keys, positions = self.keys, self.positions
        if not is_all(needed, len(keys)):
            keys, positions = keys[needed], positions[needed]
        tables = []
        places = np.full(len(needed), -1, dtype=np.int64)
        n = 0
        for key, mine in places_of(keys).items():
            table = self._table(key)
            if table is not None:
                places[mine] = positions[mine]
                places[mine] += n
                tables.append(table)
                n += table.num_rows
        return (pa.concat_tables(tables) if tables else None), places


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
        self._unanswered = ~is_any(self.codes, ("succeeded", "invalid"))
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
        usd[free] = 0.0
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
