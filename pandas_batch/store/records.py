"""What the store says about a run and about a batch, and how that stands in the database."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from .states import BatchState

if TYPE_CHECKING:
    import numpy as np

    from .spools import SpoolWriter

DOUBTS = ("lost", "overloaded", "not_the_api", "too_large")
"""Why it is unknown whether a create was heard: its answer never came, the API was overloaded, something else than the
API answered, or something else than the API found it too large."""


class Account(NamedTuple):
    """What became of a run: rows answered and failed, what the answers cost and what was billed; None: unknown."""

    n_answered: int
    n_failed: int
    cost_usd: float | None
    paid_usd: float | None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """
    A run as it was recorded.

    Attributes
    ----------
    id
        Unique; also the name of its folder, hence letters, digits, ``_`` and ``-`` only.
    name
        The user's name for it, any text.
    identity
        Equal for two runs of the same name and the same requests in the same order.
    created_at
        Aware UTC datetime.
    n_rows, n_requests, n_reused, n_skipped
        Rows of the frame; unique requests; those of them that another run pays; rows that were not sent.
    options
        The plain options, as JSON can hold them.
    batch_keys
        Every batch that holds one of its requests, its own first; set by the store.
    schema_version
        Format of the store it was read from.
    cost_usd_max
        Upper bound of its cost before the first POST; None where unknown.
    index_kind
        Class name of the stored index, `pandas_batch.store.labels.ONLY_COUNTS`, or None.
    api_version
        The ``anthropic-version`` that its fingerprints were made for.
    estimate
        What it was expected to cost, as `pandas_batch.estimates.estimate.Estimate` writes it; empty where nobody asked.
    retry_digest
        What makes two retries of a run the same one; None where the run is no retry.
    n_extensions
        How often batches were added to the run after it was recorded; each time its requests were written anew.
    n_retried
        How many of these were retries that the run has made by itself.
    asks_no_more
        Whether nothing of it is asked again by itself: it was canceled, or that was refused.
    """

    id: str
    identity: str
    created_at: datetime
    base_url: str
    model: str
    n_rows: int
    n_requests: int
    name: str | None = None
    n_reused: int = 0
    n_skipped: int = 0
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    parent_id: str | None = None
    batch_keys: tuple[int, ...] = ()
    schema_version: int = 1
    cost_usd_max: float | None = None
    index_kind: str | None = None
    api_version: str = ""
    estimate: Mapping[str, Any] = field(default_factory=dict, repr=False)
    retry_digest: str | None = None
    n_extensions: int = 0
    n_retried: int = 0
    asks_no_more: bool = False


@dataclass(frozen=True, kw_only=True)
class BatchRecord:
    """
    A batch as the store knows it; all times are aware UTC datetimes.

    Attributes
    ----------
    key
        Number of the batch in this store; never used twice.
    run_id
        The run that made it (which may have been deleted since, while others still need the batch).
    nonce
        What its custom_ids begin with, after ``pb1_``.
    proved
        Whether ``batch_id`` is certainly ours: known from the answer to our own POST, or shown by custom_ids.
    watermark_id, watermark_at
        Newest batch of the server before our POST, or the server's time where that could not be had.
    tried_ids
        Candidates for a lost batch that proved to be another's.
    split_into
        Keys of the batches that replaced this one, in the order of its requests.
    cancel_asked
        Whether the user has canceled it, whatever the server knows of it: it is never posted from then on.
    candidate_id
        The batch on the server that may be this one; only its results can prove it.
    doubt
        Why nobody knows whether the server has it: one of `DOUBTS`, or "".
    lost_after_s
        How long after its POST began the connection was lost: the grace begins there.
    first_posted_at, first_server_posted_at, first_watermark_id, first_watermark_at
        As the fields without ``first``, of the first POST, where the batch was looked for in vain and is to be posted
        again; otherwise None.
    surplus
        Batches of the server that were made of the same requests besides, with what they cost in USD (None: unknown).
    surplus_settled
        Whether the last look for such batches has been taken.
    is_live
        Whether its requests are asked one by one through the Messages API, at the standard price; it is never posted.
    continued
        For each position (as text) whose request goes on from where an answer paused: where the parts of the answer
        so far are, as pairs of batch key and position.
    """

    key: int
    run_id: str
    nonce: str
    base_url: str
    betas: tuple[str, ...] = ()
    n_requests: int
    n_bytes: int
    state: BatchState = "intent"
    batch_id: str | None = None
    proved: bool = False
    attempts: int = 0
    posted_at: datetime | None = None
    server_posted_at: datetime | None = None
    watermark_id: str | None = None
    watermark_at: datetime | None = None
    workspace_id: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    cancel_initiated_at: datetime | None = None
    archived_at: datetime | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    not_found_since: datetime | None = None
    tried_ids: tuple[str, ...] = ()
    split_into: tuple[int, ...] = ()
    cancel_asked: bool = False
    candidate_id: str | None = None
    doubt: str = ""
    lost_after_s: float | None = None
    first_posted_at: datetime | None = None
    first_server_posted_at: datetime | None = None
    first_watermark_id: str | None = None
    first_watermark_at: datetime | None = None
    surplus: Mapping[str, float | None] = field(default_factory=dict)
    surplus_settled: bool = False
    is_live: bool = False
    continued: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NewBatch:
    """
    A batch to be recorded.

    Attributes
    ----------
    nonce
        Twelve characters of ``a-z0-9``, new.
    fingerprints, draws
        Of its requests, by position: shape (n, 16) uint8 and shape (n,) uint16.
    spool
        The body of its POST, written and closed.
    batch_id
        Given for a batch that is on the server already and was found again: it is recorded as ``bound``.
    is_live
        Whether its requests are to be asked one by one: it is recorded as ``live``. Its maker holds `live_lease`.
    continued
        Of requests that go on from where an answer paused: the parts so far, by position.
    """

    nonce: str
    fingerprints: np.ndarray
    draws: np.ndarray
    spool: SpoolWriter
    base_url: str
    betas: tuple[str, ...] = ()
    batch_id: str | None = None
    is_live: bool = False
    continued: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)


def live_lease(nonce: str) -> str:
    """Return the name of the lease that whoever asks the requests of a live batch holds, from before it is recorded."""
    return f"live-{nonce}"


def new_record(key: int, run_id: str, batch: NewBatch) -> BatchRecord:
    """Return the record of a batch that nobody has posted yet."""
    return BatchRecord(
        key=key,
        run_id=run_id,
        nonce=batch.nonce,
        base_url=batch.base_url,
        betas=tuple(batch.betas),
        n_requests=len(batch.draws),
        n_bytes=batch.spool.n_bytes,
        state="live" if batch.is_live else "intent" if batch.batch_id is None else "bound",
        batch_id=batch.batch_id,
        proved=batch.batch_id is not None,
        is_live=batch.is_live,
        continued={str(at): [list(part) for part in parts] for at, parts in batch.continued.items()},
    )


# --- between records and rows

_TIMES = frozenset(
    {"created_at", "posted_at", "server_posted_at", "watermark_at", "expires_at", "ended_at"}
    | {"first_posted_at", "first_server_posted_at", "first_watermark_at"}
    | {"cancel_initiated_at", "archived_at", "not_found_since"}
)
_JSON = frozenset({"options", "estimate", "counts", "surplus", "continued"})
_TUPLES = frozenset({"betas", "tried_ids", "split_into"})
_FLAGS = frozenset({"proved", "cancel_asked", "surplus_settled", "is_live", "asks_no_more"})

RUN_COLUMNS = tuple(f.name for f in fields(RunRecord) if f.name not in ("batch_keys", "schema_version"))
BATCH_COLUMNS = tuple(f.name for f in fields(BatchRecord))


def to_cell(column: str, value: Any) -> Any:
    """Return `value` as it stands in the database's `column`."""
    if column in _TIMES:
        return None if value is None else _time_text(column, value)
    if column in _JSON:
        return json.dumps(dict(value or {}), allow_nan=True, sort_keys=True)
    if column in _TUPLES:
        return json.dumps(list(value or ()))
    if column in _FLAGS:
        return int(bool(value))
    return value


def _time_text(column: str, value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError(f"{column} needs a time zone: {value!r}")
    return value.astimezone(UTC).isoformat()


def from_cell(column: str, cell: Any) -> Any:
    """Return what `to_cell` was given."""
    if column in _TIMES:
        return None if cell is None else datetime.fromisoformat(cell)
    if column in _JSON:
        return json.loads(cell)
    if column in _TUPLES:
        return tuple(json.loads(cell))
    if column in _FLAGS:
        return bool(cell)
    return cell


def row_of(record: RunRecord | BatchRecord, columns: Collection[str]) -> dict[str, Any]:
    """Return the record as cells."""
    return {name: to_cell(name, getattr(record, name)) for name in columns}


def run_from(row: tuple[Any, ...], batch_keys: tuple[int, ...], schema_version: int) -> RunRecord:
    """Return the run that a row of `RUN_COLUMNS` stands for."""
    values = {name: from_cell(name, cell) for name, cell in zip(RUN_COLUMNS, row, strict=True)}
    return RunRecord(**values, batch_keys=batch_keys, schema_version=schema_version)


# A run looks at its batches far more often than they change.
@lru_cache(maxsize=1024)
def batch_from(row: tuple[Any, ...]) -> BatchRecord:
    """Return the batch that a row of `BATCH_COLUMNS` stands for."""
    return BatchRecord(**{name: from_cell(name, cell) for name, cell in zip(BATCH_COLUMNS, row, strict=True)})


def assignments(
    changes: Mapping[str, Any], columns: Collection[str], *, fixed: Collection[str]
) -> tuple[str, dict[str, Any]]:
    """
    Return the SET clause and its values for `changes` of one row.

    Raises
    ------
    TypeError
        A name that is no column, or one that never changes.
    """
    wrong = [name for name in changes if name not in columns or name in fixed]
    if wrong:
        raise TypeError(f"{wrong[0]!r} cannot be changed; there are {', '.join(sorted(set(columns) - set(fixed)))}")
    clause = ", ".join(f"{name} = :{name}" for name in changes)
    return clause, {name: to_cell(name, value) for name, value in changes.items()}


FIXED_BATCH_COLUMNS = frozenset({"key", "run_id", "nonce", "base_url", "n_requests", "is_live", "continued"})
