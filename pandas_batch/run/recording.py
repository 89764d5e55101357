"""From a frame to a run that is written down: which requests it needs, which of them are there already.

When `record` returns, everything that will be sent is durable, under the ids it will be sent with.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_batch.custom_ids import new_nonce
from pandas_batch.engine.spooling import BODY_OVERHEAD, LINE_OVERHEAD, SpoolBody
from pandas_batch.errors import InputError, StoreError
from pandas_batch.failpoints import reached
from pandas_batch.types import MAX_BATCH_REQUESTS

from .others_asking import nobody_else_asks

if TYPE_CHECKING:
    from pandas_batch.clock import Clock
    from pandas_batch.requests.options import Options
    from pandas_batch.requests.plan import RequestPlan, Slice
    from pandas_batch.store import NewBatch, RunRecord, Store

BATCH_BYTES = 200_000_000
"""Where a body is cut: below the API's 256 MB, with room for gateways that count differently."""

_FIRST_FREE_DRAW = 1_000
_DRAWS = 60_000
_N_DRAWS = 1 << 16
"""How many draws of one request a custom_id can tell apart."""


@dataclass(frozen=True)
class Needs:
    """
    The distinct requests of a plan.

    Attributes
    ----------
    rows
        int64: the row that each request is encoded from.
    fingerprints, draws
        uint8 (n, 16) and uint16 (n,): the address of each answer. Draws count from 0 where nothing asks for more.
    request_of_row
        int32: the (first) request of each row, -1 where the row is not sent.
    identity
        What makes the same call the same run.
    """

    rows: np.ndarray
    fingerprints: np.ndarray
    draws: np.ndarray
    request_of_row: np.ndarray
    identity: str

    @property
    def n_requests(self) -> int:
        """Number of requests."""
        return len(self.rows)


@dataclass(frozen=True)
class Found:
    """Where the store has answers, or requests in flight: batch key and position by request, -1 for neither."""

    keys: np.ndarray
    positions: np.ndarray

    @property
    def missing(self) -> np.ndarray:
        """Return the requests that have to be sent."""
        return np.flatnonzero(self.keys < 0)

    @property
    def n_reused(self) -> int:
        """Number of requests that need not be sent."""
        return int((self.keys >= 0).sum())


def needs_of(plan: RequestPlan, options: Options) -> Needs:
    """Return the distinct requests that `plan` needs, in the order of their first rows."""
    from pandas_batch.requests.fingerprints import identity

    rows = np.flatnonzero(plan.sendable)
    # Copies of columns are what planning a million rows takes: none is made where all rows are meant.
    of_rows = plan.fingerprints if len(rows) == plan.n_rows else plan.fingerprints[rows]
    first, codes = distinct(of_rows)
    draws = np.zeros(len(first), dtype=np.uint16)
    if not options.dedupe:
        occurrence = pd.Series(codes).groupby(codes).cumcount().to_numpy()
        most = _N_DRAWS // options.samples
        if occurrence.max(initial=-1) >= most:
            samples = f" and samples={options.samples}" if options.samples > 1 else ""
            raise InputError(f"dedupe=False{samples} with more than {most:,} equal rows.", hint="dedupe=True")
        first, codes, draws = np.arange(len(rows)), np.arange(len(rows)), occurrence.astype(np.uint16)
    request_of_row = np.full(plan.n_rows, -1, dtype=np.int32)
    request_of_row[rows] = codes * options.samples
    if options.samples > 1:
        n = options.samples
        draws = (np.repeat(draws.astype(np.int64) * n, n) + np.tile(np.arange(n), len(first))).astype(np.uint16)
        first = np.repeat(first, n)
    draw_of_row = np.zeros(plan.n_rows, dtype=np.uint16)
    draw_of_row[rows] = draws[request_of_row[rows]] if len(rows) else 0
    salt = "" if options.reuse else "reuse=False"
    if not options.reuse and options.name is None:
        salt = f"reuse=False {secrets.token_hex(16)}"
    if options.samples > 1:
        salt += f" samples={options.samples}"
    is_each_row = options.samples == 1 and len(first) == len(rows)
    return Needs(
        rows=rows if is_each_row else rows[first],
        fingerprints=of_rows if is_each_row else np.ascontiguousarray(of_rows[first]),
        draws=draws,
        request_of_row=request_of_row,
        identity=identity(options.name, plan.fingerprints, draw_of_row, salt=salt),
    )


def distinct(fingerprints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Return where each distinct fingerprint stands first, and for each row which of them it has.

    Examples
    --------
    >>> a, b = np.zeros((1, 16), np.uint8), np.ones((1, 16), np.uint8)
    >>> first, codes = distinct(np.vstack([b, a, b]))
    >>> first.tolist(), codes.tolist()
    ([0, 1], [0, 1, 0])
    """
    halves = halves_of(fingerprints)
    codes, known = pd.factorize(halves[:, 0])
    if len(known) == len(codes):
        return np.arange(len(codes)), codes
    first = np.full(codes.max(initial=-1) + 1, -1, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    if not np.array_equal(halves[first[codes], 1], halves[:, 1]):
        # Two fingerprints share their first half by chance or by design: look at all of it.
        whole, _ = pd.factorize(np.array([row.tobytes() for row in halves], dtype=object))
        codes = whole
        first = np.full(codes.max(initial=-1) + 1, -1, dtype=np.int64)
        first[codes[::-1]] = np.arange(len(codes))[::-1]
    return first, codes.astype(np.int64, copy=False)


def halves_of(fingerprints: np.ndarray) -> np.ndarray:
    """Return fingerprints as uint64 (n, 2), which are compared and sorted at once."""
    halves: np.ndarray = np.ascontiguousarray(fingerprints).view(np.uint64).reshape(-1, 2)
    return halves


def find_existing(store: Store, needs: Needs, options: Options, *, base_url: str) -> Found:
    """Return which of the requests the store has an answer for, or in flight."""
    nothing = np.full(needs.n_requests, -1, dtype=np.int64)
    if not options.reuse or needs.n_requests == 0:
        return Found(nothing, np.full(needs.n_requests, -1, dtype=np.int32))
    keys, positions = store.batches.find_answers(needs.fingerprints, needs.draws, base_url=base_url)
    return Found(keys, positions)


def n_bytes_of(plan: RequestPlan, rows: np.ndarray) -> int:
    """Return about how many bytes the bodies for `rows` have."""
    return int(plan.wire_bytes[rows].sum()) + len(rows) * LINE_OVERHEAD + BODY_OVERHEAD


def n_batches_of(n_requests: int, n_bytes: int) -> int:
    """Return into how many batches so much goes, at least."""
    if n_requests == 0:
        return 0
    return max(-(-n_requests // MAX_BATCH_REQUESTS), -(-n_bytes // BATCH_BYTES))


def record(
    store: Store,
    plan: RequestPlan,
    needs: Needs,
    options: Options,
    *,
    index: pd.Index | None,
    base_url: str,
    api_version: str,
    now: datetime,
    clock: Clock,
    cost_usd_max: float | None,
    estimate: Mapping[str, Any] | None = None,
    on_rows: Callable[[int, int], object] | None = None,
) -> tuple[RunRecord, bool]:
    """
    Write a run down, or find the one that this call already is.

    Parameters
    ----------
    estimate
        What the call was estimated to send, in JSON's own types: the bill is held against it afterwards.
    on_rows
        Called with how many of how many requests are written, now and then.

    Returns
    -------
    run
        The record, durable.
    is_new
        False where the same call has been made before, here or in another kernel.
    """
    from pandas_batch.store import RunRecord

    with nobody_else_asks(
        store,
        needs.fingerprints,
        needs.draws,
        base_url=base_url,
        clock=clock,
        prices=options.prices,
        is_silent=options.progress == "off",
    ):
        existing = store.runs.newest_of_identity(needs.identity)
        if existing is not None:
            return existing, False
        found = find_existing(store, needs, options, base_url=base_url)
        missing = found.missing
        draws = needs.draws
        if not options.reuse:
            draws = drawn_apart(draws)
        of_missing: Any = missing if len(missing) < needs.n_requests else slice(None)  # a slice copies nothing
        rows, fingerprints = needs.rows[of_missing], needs.fingerprints[of_missing]
        _need_room(store, plan, rows)
        batches, keys_of_missing, positions_of_missing = spooled(
            store, plan, rows, fingerprints, draws[of_missing], options, base_url, on_rows=on_rows
        )
        reached("run planned")
        reused, keys, positions = found.keys >= 0, found.keys, found.positions
        keys[of_missing], positions[of_missing] = keys_of_missing, positions_of_missing
        n_reused = int(reused.sum())
        run = RunRecord(
            id=new_run_id(now),
            name=options.name,
            identity=needs.identity,
            created_at=now,
            base_url=base_url,
            model=", ".join(plan.models) or str(options.model),
            n_rows=plan.n_rows,
            n_requests=needs.n_requests,
            n_reused=n_reused,
            n_skipped=int((~plan.sendable).sum()),
            options=options.to_json() | {"not_remembered": list(options.not_remembered)},
            cost_usd_max=cost_usd_max,
            api_version=api_version,
            estimate=dict(estimate or {}),
        )
        recorded = store.runs.add(
            run,
            rows=rows_table(needs.request_of_row, plan.reasons),
            requests=requests_table(needs.fingerprints, draws, keys, positions, reused),
            batches=batches,
            index=index,
        )
    reached("run recorded")
    return recorded, True


def drawn_apart(draws: np.ndarray) -> np.ndarray:
    """Return draws that nobody else asks for: their answers neither replace nor serve those of other runs."""
    first = _FIRST_FREE_DRAW + secrets.randbelow(_DRAWS)
    return (draws.astype(np.int64) % _FIRST_FREE_DRAW + first).astype(np.uint16)


def new_run_id(now: datetime) -> str:
    """Return an id that sorts by time and cannot collide."""
    return f"run_{now:%y%m%d_%H%M%S}_{secrets.token_hex(3)}"


def _need_room(store: Store, plan: RequestPlan, rows: np.ndarray) -> None:
    """Refuse before paying when the disk has no room for the requests and their answers."""
    n_bytes = n_bytes_of(plan, rows)
    expected = 2 * n_bytes + 4 * int(plan.max_tokens[rows].clip(max=1024).sum())
    free = store.free_bytes()
    if free < expected:
        from pandas_batch.amounts import file_size

        raise StoreError(
            f"The store at {store.path} has {file_size(free)} free; this run may need {file_size(expected)}.",
            "Nothing was sent, nothing was billed.",
            'df.claude_batch.submit(..., store="/a/larger/disk/.pandas_batch")',
        )


def spooled(
    store: Store,
    plan: RequestPlan,
    rows: np.ndarray,
    fingerprints: np.ndarray,
    draws: np.ndarray,
    options: Options,
    base_url: str,
    *,
    live_nonce: str | None = None,
    on_rows: Callable[[int, int], object] | None = None,
) -> tuple[list[NewBatch], np.ndarray, np.ndarray]:
    """
    Write the bodies of new batches; return them, and each request's batch (as -1, -2, ...) and position.

    With `live_nonce`, they become the one live batch of that nonce, whatever their size.
    """
    from pandas_batch.custom_ids import custom_ids
    from pandas_batch.store import NewBatch

    keys = np.empty(len(rows), dtype=np.int64)
    positions = np.empty(len(rows), dtype=np.int32)
    batches: list[NewBatch] = []
    body: SpoolBody | None = None
    nonce, start = "", 0

    def close(stop: int) -> None:
        if body is not None:
            batches.append(
                NewBatch(
                    nonce=nonce,
                    fingerprints=fingerprints[start:stop],
                    draws=draws[start:stop],
                    spool=body.close(),
                    base_url=base_url,
                    betas=options.betas,
                    is_live=live_nonce is not None,
                )
            )

    n_done = 0
    for made in _slices(plan, rows):
        parts = _cut(made, body, warm=options.warm_cache and not batches and body is None)
        # What is asked one by one has no size that a server could find too large.
        for part in parts if live_nonce is None else [_Part(made.middles, opens=False)]:
            if part.opens or body is None:
                close(n_done)
                body, nonce, start = SpoolBody(store.files.new_spool()), live_nonce or new_nonce(), n_done
            stop = n_done + len(part.middles)
            ids = custom_ids(nonce, fingerprints[n_done:stop], draws[n_done:stop], start=n_done - start)
            body.write_lines(ids, made.before, part.middles, made.after)
            keys[n_done:stop] = -(len(batches) + 1)
            positions[n_done:stop] = np.arange(n_done - start, stop - start)
            n_done = stop
        if on_rows is not None:
            on_rows(n_done, len(rows))
    close(n_done)
    return batches, keys, positions


def _slices(plan: RequestPlan, rows: np.ndarray) -> Iterator[Slice]:
    """Yield the encoded params of `rows`; a row that stands several times in a row is encoded once."""
    if len(rows) == 0:
        return
    changes = np.flatnonzero(np.diff(rows, prepend=rows[0] - 1))
    if len(changes) == len(rows):
        yield from plan.slices(rows)
        return
    times = iter(np.diff(changes, append=len(rows)).tolist())
    for made in plan.slices(rows[changes]):
        yield replace(made, middles=[middle for middle in made.middles for _ in range(next(times))])


@dataclass(frozen=True)
class _Part:
    middles: Sequence[bytes]
    opens: bool


def _cut(made: Slice, body: SpoolBody | None, *, warm: bool) -> Iterator[_Part]:
    """Cut a slice where a batch is full; `warm` puts the very first request into a batch of its own."""
    n_requests = 0 if body is None else body.n_requests
    n_bytes = BODY_OVERHEAD if body is None else body.n_bytes
    middles = made.middles
    if warm:
        yield _Part(middles[:1], opens=True)
        middles, n_requests = middles[1:], MAX_BATCH_REQUESTS
    n_equal = len(made.before) + len(made.after) + LINE_OVERHEAD
    n_bytes_after = n_bytes + sum(map(len, middles)) + len(middles) * n_equal
    if n_requests + len(middles) <= MAX_BATCH_REQUESTS and n_bytes_after <= BATCH_BYTES:
        yield _Part(middles, opens=False)
        return
    part: list[bytes] = []
    opens = False
    for middle in middles:
        size = len(middle) + n_equal
        if n_requests + 1 > MAX_BATCH_REQUESTS or n_bytes + size > BATCH_BYTES:
            if part:
                yield _Part(part, opens=opens)
            part, opens, n_requests, n_bytes = [], True, 0, BODY_OVERHEAD
        part.append(middle)
        n_requests += 1
        n_bytes += size
    if part:
        yield _Part(part, opens=opens)


def rows_table(request_of_row: np.ndarray, reasons: dict[int, str]) -> Any:
    """Return the rows of a run as the store takes them."""
    import pyarrow as pa

    if reasons:
        texts = [None] * len(request_of_row)
        reason = pa.array([reasons.get(i) for i in range(len(texts))], type=pa.large_string())
    else:
        reason = pa.nulls(len(request_of_row), pa.large_string())
    return pa.table({"request": pa.array(request_of_row), "reason": reason})


def requests_table(
    fingerprints: np.ndarray, draws: np.ndarray, keys: np.ndarray, positions: np.ndarray, reused: np.ndarray
) -> Any:
    """Return the requests of a run as the store takes them."""
    import pyarrow as pa

    n = len(fingerprints)
    address = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), n, [None, pa.py_buffer(np.ascontiguousarray(fingerprints))]
    )
    return pa.table(
        {
            "fingerprint": address,
            "draw": pa.array(draws, type=pa.uint16()),
            "batch_key": pa.array(keys, type=pa.int64()),
            "position": pa.array(positions, type=pa.int32()),
            "reused": pa.array(reused, type=pa.bool_()),
        }
    )
