"""Ask again for the rows of a run that failed: a new run with the identity of its parent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_batch.answers.row_status import CUT, FAILED
from pandas_batch.errors import InputError, RunNotFoundError
from pandas_batch.types import MAX_BATCH_REQUESTS, ROW_STATUSES

from .posting import new_nonce
from .preparing import BATCH_BYTES, new_run_id
from .spooling import SpoolBody, custom_id_of_line, params_of_line, spool_lines

if TYPE_CHECKING:
    from pandas_batch.store import NewBatch, RunRecord, Store

    from .run import Run

TRANSIENT_ERRORS = frozenset({"api_error", "overloaded_error", "rate_limit_error", "timeout_error"})
"""Errors of a row after which the same request may well succeed
(https://platform.claude.com/docs/en/api/errors)."""

_ALWAYS = frozenset({"expired", "canceled", "missing"})


def retry_run(run: Run, *, errors: str, overrides: Mapping[str, Any]) -> Run:
    """Return a run at work that asks again for the failed rows of `run`, or `run` where there are none."""
    from pandas_batch.requests.parameters import check_parameter

    if errors not in ("transient", "all"):
        raise InputError(f"errors={errors!r} is neither 'transient' nor 'all'.", hint='run.retry_failed(errors="all")')
    given = {name: check_parameter(name, value) for name, value in overrides.items()}
    if not run.is_settled():
        raise InputError(
            f"Run {run.id} has not ended; what failed is not known yet.", hint="run.wait(); run.retry_failed()"
        )
    store, parent = run.store, run.record
    asked = _digest(errors, given)
    with store.preparing():
        later = _retries_since(store, parent)
        if any(record.extra.get("retry") == asked for record in later):
            # The same retry made twice (a cell run again, a second kernel) is the same retry.
            return run.sibling(later[0].id)
        if not later:
            recorded = _record(run, parent, errors, given, asked)
            return run if recorded is None else run.sibling(recorded.id)
    # Another retry: of what the retries made since have left, whose answers are paid for.
    return retry_run(run.sibling(later[0].id), errors=errors, overrides=overrides)


def _digest(errors: str, given: Mapping[str, Any]) -> str:
    """Return what makes two retries of a run the same one; no prompt can be read from it."""
    import msgspec

    return hashlib.blake2b(msgspec.json.encode([errors, given], order="sorted"), digest_size=16).hexdigest()


def _retries_since(store: Store, parent: RunRecord) -> list[RunRecord]:
    """Return the retries of a run, and theirs, newest first."""
    later: list[RunRecord] = []
    record = store.newest_of_identity(parent.identity)
    while record is not None and record.id != parent.id:
        later.append(record)
        if record.parent_id is None:
            return []
        try:
            record = store.run(record.parent_id)
        except RunNotFoundError:
            return []
    return later


def _record(run: Run, parent: RunRecord, errors: str, given: Mapping[str, Any], asked: str) -> RunRecord | None:
    """Write the retry down; None where there is nothing to ask again."""
    store = run.store
    requests = _requests_to_retry(run, errors)
    if len(requests) == 0:
        return None
    table = store.requests_table_of(run.id)
    keys = table.column("batch_key").to_numpy().copy()
    positions = table.column("position").to_numpy().copy()
    draws = table.column("draw").to_numpy().copy()
    reused = np.ones(len(keys), dtype=bool)
    bodies = _bodies(run, requests)
    batches = _write(run, bodies, given, keys, positions, draws, reused)
    record = replace(
        parent,
        id=new_run_id(run.clock.now()),
        created_at=run.clock.now(),
        parent_id=parent.id,
        n_reused=int(reused.sum()),
        state="preparing",
        finished_at=None,
        cost_usd_max=None,
        extra=dict(parent.extra) | {"retry": asked},
    )
    requests_table = table.set_column(2, "batch_key", _array(keys, "int64"))
    requests_table = requests_table.set_column(3, "position", _array(positions, "int32"))
    requests_table = requests_table.set_column(4, "reused", _array(reused, "bool"))
    return store.add_run(
        record, rows=store.rows_of(run.id), requests=requests_table, batches=batches, index=store.index_of(run.id)
    )


def _array(values: np.ndarray, kind: str) -> Any:
    import pyarrow as pa

    return pa.chunked_array(
        [pa.array(values, type={"int64": pa.int64(), "int32": pa.int32(), "bool": pa.bool_()}[kind])]
    )


def _requests_to_retry(run: Run, errors: str) -> np.ndarray:
    """Return the requests of the run that are worth asking again, in their order."""
    answers = run.answers()
    codes = answers.codes_of_requests()
    failed = np.isin(codes, [ROW_STATUSES.index(status) for status in FAILED])
    if errors == "all":
        cut = np.zeros(len(codes), dtype=bool)
        for reason in CUT:
            cut |= answers.requests_with("stop_reason", reason)
        return np.flatnonzero(failed | (cut & (codes == ROW_STATUSES.index("succeeded"))))
    worth = np.isin(codes, [ROW_STATUSES.index(status) for status in _ALWAYS])
    for kind in TRANSIENT_ERRORS:
        worth |= answers.requests_with("error_type", kind) & (codes == ROW_STATUSES.index("errored"))
    return np.flatnonzero(worth)


def _bodies(run: Run, requests: np.ndarray) -> list[tuple[int, bytes]]:
    """Return the params of `requests`, from the spools they were posted from."""
    from pandas_batch.requests.fingerprints import parse_custom_id

    answers = run.answers()
    keys, positions = answers.keys[requests], answers.positions[requests]
    bodies: list[tuple[int, bytes]] = []
    for key in np.unique(keys).tolist():
        wanted = dict(zip(positions[keys == key].tolist(), requests[keys == key].tolist(), strict=True))
        with run.store.open_spool(key) as spool:
            for line in spool_lines(spool):
                parsed = parse_custom_id(custom_id_of_line(line).decode())
                if parsed is not None and parsed.position in wanted:
                    bodies.append((wanted.pop(parsed.position), params_of_line(line)))
        if wanted:
            raise InputError(
                f"{len(wanted):,} of the failed requests of run {run.id} are not in the store any more.",
                hint="df.claude_batch.submit(..., name=...)   # asks, and pays, for all rows in a run of its own",
            )
    return sorted(bodies)


def _write(
    run: Run,
    bodies: list[tuple[int, bytes]],
    given: Mapping[str, Any],
    keys: np.ndarray,
    positions: np.ndarray,
    draws: np.ndarray,
    reused: np.ndarray,
) -> list[NewBatch]:
    """Write the bodies of the retry's batches, and the new places of their requests into the arrays."""
    import msgspec

    from pandas_batch.requests.fingerprints import custom_ids
    from pandas_batch.store import NewBatch

    table = run.store.requests_table_of(run.id)
    stored = np.frombuffer(table.column("fingerprint").combine_chunks().buffers()[1], np.uint8)
    stored = stored[: 16 * table.num_rows].reshape(-1, 16)
    encode = msgspec.json.Encoder(order="sorted").encode
    record = run.record
    betas = tuple(record.options.get("betas", ()))
    batches: list[NewBatch] = []
    start = 0
    while start < len(bodies):
        body, nonce = SpoolBody(run.store), new_nonce()
        addresses = []
        stop = start
        while stop < len(bodies) and stop - start < MAX_BATCH_REQUESTS and body.n_bytes < BATCH_BYTES:
            request, params = bodies[stop]
            address = stored[request].copy()
            if given:
                changed = msgspec.json.decode(params) | dict(given)
                params = encode(changed)
                address = _fingerprint_of(changed, betas, run)
            addresses.append(address)
            position = stop - start
            custom_id = custom_ids(nonce, address[None, :], draws[request : request + 1], start=position)[0]
            body.write_line(custom_id, params)
            keys[request], positions[request], reused[request] = -(len(batches) + 1), position, False
            stop += 1
        chosen = [request for request, _ in bodies[start:stop]]
        batches.append(
            NewBatch(
                nonce=nonce,
                fingerprints=np.vstack(addresses),
                draws=draws[chosen],
                spool=body.close(),
                base_url=record.base_url,
                betas=betas,
            )
        )
        start = stop
    return batches


def _fingerprint_of(params: Mapping[str, Any], betas: tuple[str, ...], run: Run) -> np.ndarray:
    """Return the fingerprint of a request that the caller has changed."""
    from pandas_batch.requests.fingerprints import fingerprint_json, fingerprint_strings, frame_digest

    record = run.record
    messages = [dict(message) for message in params["messages"]]
    content = messages[-1].pop("content")
    digest = frame_digest(
        {**params, "messages": messages},
        betas=betas,
        api_version=str(record.extra["api_version"]),
        base_url=record.base_url,
    )
    if isinstance(content, str):
        return np.asarray(fingerprint_strings(digest, [content.encode()])[0])
    return np.frombuffer(fingerprint_json(digest, content), np.uint8)
