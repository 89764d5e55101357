"""What is known of the answers of a run: read from the store batch by batch, counted, priced, and as wide as asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_batch.results.row_status import (
    CODE,
    FAILED,
    NOT_OF_THIS_RUN,
    NOT_SENT,
    exact_sum,
    is_any,
    status_codes,
)
from pandas_batch.stop_reasons import CUT, PAUSED
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
        Turns outputs into typed columns as soon as all batches are collected, or when a partial result is wanted; what
        does not fit is ``invalid``.
    prices
        Prices of the call: they also price answers that were collected when no price was known.
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
        rows = store.runs.rows_of(run.id)
        self.request_of_row: np.ndarray = rows.column("request").to_numpy()
        self._reasons = rows.column("reason")
        self._own_reasons: Mapping[int, str] | None = None
        self.counted_elsewhere: np.ndarray | None = None
        self.n_samples = int(run.options.get("samples", 1))
        requests = store.runs.requests_of(run.id)
        self.keys: np.ndarray = requests.column("batch_key").to_numpy()
        self.positions: np.ndarray = requests.column("position").to_numpy()
        self.reused: np.ndarray = requests.column("reused").to_numpy(zero_copy_only=False)
        self.batches = {batch.key: batch for batch in batches}
        self._stay_with_parts()
        self._tables: dict[int, pa.Table] = {}
        self._own_tables: dict[int, pa.Table] = {}
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
        alone._own_reasons, alone.counted_elsewhere = reasons, counted_elsewhere
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
        if self.counted_elsewhere is None or not self.counted_elsewhere.any():
            return None
        told = np.zeros(len(self.keys), dtype=bool)
        of_row = self.request_of_row[self.counted_elsewhere & (self.request_of_row >= 0)]
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
        """Return the answers of a batch, each with the parts that came before it; None while it is not collected."""
        batch = self.batches.get(key)
        if batch is None or batch.state != "collected":
            return None
        if key not in self._tables:
            table = self._own_table(key)
            if batch.continued:
                from .continuing import joined_parts

                table = joined_parts(table, batch.continued, self._own_table)
            self._tables[key] = table
        return self._tables[key]

    def _stay_with_parts(self) -> None:
        """Let answers that paused, and whose next part is not here, be what they are so far: paid, and readable."""
        for batch in self.batches.values():
            if batch.continued and batch.state != "collected":
                if not self.keys.flags.writeable:
                    self.keys, self.positions, self.reused = self.keys.copy(), self.positions.copy(), self.reused.copy()
                for position, parts in batch.continued.items():
                    mine = (self.keys == batch.key) & (self.positions == int(position))
                    key, part = parts[-1]
                    self.keys[mine], self.positions[mine] = key, part
                    self.reused[mine] = self.batches[key].run_id != self._run.id

    def _own_table(self, key: int) -> pa.Table:
        """Return the mapped answers of a collected batch as they are stored."""
        if key not in self._own_tables:
            from pandas_batch.engine.rebuilding import answers_of

            batch = self.batches[key]
            self._own_tables[key] = self._priced(answers_of(self._store, batch, prices=self._prices), batch)
        return self._own_tables[key]

    def _priced(self, table: pa.Table, batch: BatchRecord) -> pa.Table:
        from pandas_batch.results.pricing import add_costs, unpriced_models

        if not self._prices or not unpriced_models(table):
            return table
        return add_costs(table, at=batch.created_at, prices=self._prices, batch=not batch.is_live)

    def contents_of(self, key: int, positions: Sequence[int]) -> list[list[Any] | None]:
        """Return the content blocks of some answers of a collected batch, as they came, those of all their parts."""
        contents = self.last_contents_of(key, positions)
        for at, position in enumerate(positions):
            earlier: list[Any] = []
            for part_key, part in self.batches[key].continued.get(str(position), ()):
                earlier += self.last_contents_of(part_key, [part])[0] or []
            if earlier:
                contents[at] = earlier + (contents[at] or [])
        return contents

    def last_contents_of(self, key: int, positions: Sequence[int]) -> list[list[Any] | None]:
        """Return the content blocks that some requests of a collected batch were answered with, as they came."""
        from pandas_batch.engine.rebuilding import contents_of

        return contents_of(self._store, self.batches[key], positions)

    def custom_ids_of(self, key: int) -> np.ndarray:
        """Return the custom_ids of a batch by position (dtype S47)."""
        return self._store.batches.custom_ids_of(key)

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
        codes[self.requests_with("stop_reason", PAUSED) & (codes == CODE["succeeded"])] = CODE["paused"]
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
            if self.batches[key].continued:
                for place in np.flatnonzero(is_missing).tolist():
                    # What came before was paid.
                    usd[place] += self._cost_of_parts(key, int(positions[place]), "cost_usd")
                    standard_usd[place] += self._cost_of_parts(key, int(positions[place]), "cost_usd_standard")
            if self._told_requests is not None:
                told = self._told_requests[mine]
                usd[told] = standard_usd[told] = 0.0
            if np.isnan(usd).any():
                known = False
            reused = self.reused[mine]
            cost += exact_sum(usd)
            standard += exact_sum(standard_usd)
            paid += exact_sum(usd[~reused]) + self._paid_besides(key, mine)
            if reused.any() or not self._is_each_once:
                spared = self._rows_per_request[mine] - np.where(reused, 0, 1)
                saved += exact_sum(usd * np.maximum(spared, 0))
        if not known:
            return Totals(None, None, None, None)
        return Totals(*(round(usd, 12) for usd in (cost, standard, paid, saved)))

    def _cost_of_parts(self, key: int, position: int, name: str) -> float:
        """Return what the parts of an answer cost that came before its last one."""
        parts = self.batches[key].continued.get(str(position), ())
        return sum(self._own_table(part_key).column(name)[part].as_py() or 0.0 for part_key, part in parts)

    def _paid_besides(self, key: int, mine: Places) -> float:
        """Return what the parts of answers that go on in a batch make this run's bill longer, or shorter, in USD."""
        besides_usd = 0.0
        continued = self.batches[key].continued
        if continued:
            for position, reused in zip(self.positions[mine].tolist(), self.reused[mine].tolist(), strict=True):
                for part_key, part in continued.get(str(position), ()):
                    cost_usd = self._own_table(part_key).column("cost_usd")[part].as_py()
                    is_own = self.batches[part_key].run_id == self._run.id
                    # The whole answer counts as paid where its last part does.
                    besides_usd += (cost_usd or 0.0) * (int(is_own) - int(not reused))
        return besides_usd

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
            self._store.batches.set_succeeded(key, usable)
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
