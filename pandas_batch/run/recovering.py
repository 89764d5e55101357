"""Fetch answers without a store: our batches are known by their custom_ids, and each id by its fingerprint."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_batch.custom_ids import FINGERPRINT_BYTES, parse_custom_id
from pandas_batch.engine.collecting import look_again
from pandas_batch.engine.posting import EngineContext
from pandas_batch.engine.reconciling import read_nonce
from pandas_batch.engine.spooling import SpoolBody
from pandas_batch.errors import FrameMismatchError
from pandas_batch.results.result_lines import id_of, iter_lines
from pandas_batch.results.row_status import NOT_OF_THIS_RUN
from pandas_batch.server_values import n_requests_of, time_of
from pandas_batch.store.unrecorded import Unread
from pandas_batch.wire.endpoints import Page
from pandas_batch.wire.failures import is_not_found
from pandas_batch.wire.listing import each_page_flow, large_page_flow

from .recording import new_run_id, requests_table, rows_table
from .run import Run

if TYPE_CHECKING:
    from pandas_batch.store import NewBatch, Store

    from .starting import Call

_NO_FINGERPRINTS = np.zeros((0, FINGERPRINT_BYTES), dtype=np.uint8)
_NO_DRAWS = np.zeros(0, dtype=np.uint16)


@dataclass(frozen=True)
class _Ours:
    """A batch of ours on the server, and what its custom_ids say was asked in it."""

    batch_id: str
    nonce: str
    fingerprints: np.ndarray
    draws: np.ndarray


def recover_run(call: Call, store: Store) -> Run:
    """
    Record a run out of what the server still has for the rows of `call`, at work on downloading it.

    Raises
    ------
    FrameMismatchError
        No ended batch on the server holds a row of the frame.
    """
    wanted = {
        (row.tobytes(), int(draw)): request
        for request, (row, draw) in enumerate(zip(call.needs.fingerprints, call.needs.draws, strict=True))
    }
    place = EngineContext(store=store, wire=call.wire(), clock=call.clock)
    n_waiting = 0
    unread: list[Unread] = []
    nonces: set[str] = set()
    found: dict[int, tuple[int, int]] = {}
    ours: list[_Ours] = []
    known_ids = store.batches.nonces_of_ids()
    for listed in _listed(place):
        if not isinstance(listed.get("processing_status"), str):
            listed = place.wire.retrieve(str(listed["id"])).batch
        is_waiting = listed.get("processing_status") != "ended"
        n_waiting += is_waiting
        if str(listed["id"]) in known_ids:
            nonces.add(known_ids[str(listed["id"])])
            continue
        if is_waiting:
            unread.append(_unread(listed))
            continue
        batch = _read(place, listed)
        if batch is None:
            unread.append(_unread(listed))
            continue
        if not batch.nonce:
            continue
        nonces.add(batch.nonce)
        n_before = len(found)
        for position, (row, draw) in enumerate(zip(batch.fingerprints, batch.draws, strict=True)):
            request = wanted.get((row.tobytes(), int(draw)))
            if request is not None and request not in found:
                found[request] = (-(len(ours) + 1), position)
        if len(found) > n_before:
            ours.append(batch)
    found = found | {request: where for request, where in _known_here(place, call).items() if request not in found}
    if not found:
        store.runs.settle_unrecorded(nonces, unread, call.clock.now())
        more = f" {n_waiting} batches there have not ended yet and cannot be read." if n_waiting else ""
        raise FrameMismatchError(
            f"No batch on the server holds a row of this frame.{more}",
            "Nothing was sent, nothing was billed.",
            "Give recover() exactly the options of the lost submit: model, system, max_tokens and so on.",
        )
    run = _record(call, store, ours, found)
    store.runs.settle_unrecorded(nonces, unread, call.clock.now())
    run.show(blocking=True)
    return run


def _unread(listed: dict[str, Any]) -> Unread:
    return Unread(time_of(listed.get("created_at")), n_requests_of(listed))


def _known_here(place: EngineContext, call: Call) -> dict[int, tuple[int, int]]:
    """Return where the rows stand in batches that this store knows: those given up are looked for once more."""
    store, needs = place.store, call.needs
    for batch in store.batches.where(state="gone"):
        if batch.base_url == call.base_url:
            look_again(place, batch)
    keys, positions = store.batches.find_answers(needs.fingerprints, needs.draws, base_url=call.base_url)
    return {r: (int(keys[r]), int(positions[r])) for r in range(len(keys)) if keys[r] >= 0}


def _listed(place: EngineContext) -> list[dict[str, Any]]:
    """Return every batch of the workspace."""
    found: list[dict[str, Any]] = []

    def visit(page: Page) -> bool:
        found.extend(page.batches)
        return False

    place.wire.drive(each_page_flow(visit, read=large_page_flow))
    return found


def _read(place: EngineContext, listed: dict[str, Any]) -> _Ours | None:
    """Return what an ended batch holds (nothing, without a nonce, where it is not ours), or None where it is unread."""
    batch_id = str(listed["id"])
    if listed.get("archived_at"):
        return None
    try:
        nonce = read_nonce(place, batch_id)
        if nonce is None:
            return _Ours(batch_id, "", _NO_FINGERPRINTS, _NO_DRAWS)
        blocks: list[bytes] = []
        place.wire.results(batch_id, blocks.append)
    except Exception as error:
        if is_not_found(error):
            return None
        raise
    n_requests = n_requests_of(listed)
    if n_requests is None:
        parsed_ids = [parse_custom_id(id_of(line) or "") for line in iter_lines(blocks)]
        n_requests = 1 + max((parsed.position for parsed in parsed_ids if parsed is not None), default=-1)
    fingerprints = np.zeros((n_requests, FINGERPRINT_BYTES), dtype=np.uint8)
    draws = np.zeros(n_requests, dtype=np.uint16)
    for line in iter_lines(blocks):
        parsed = parse_custom_id(id_of(line) or "")
        if parsed is not None and parsed.nonce == nonce and parsed.position < n_requests:
            fingerprints[parsed.position] = np.frombuffer(parsed.fingerprint, np.uint8)
            draws[parsed.position] = parsed.draw
    return _Ours(batch_id, nonce, fingerprints, draws)


def _record(call: Call, store: Store, ours: list[_Ours], found: dict[int, tuple[int, int]]) -> Run:
    from pandas_batch.store import RunRecord

    needs, now = call.needs, call.clock.now()
    order = np.array(sorted(found), dtype=np.int64)
    place_of_request = np.full(needs.n_requests, NOT_OF_THIS_RUN, dtype=np.int32)
    place_of_request[order] = np.arange(len(order))
    request_of_row = needs.request_of_row.copy()
    sent = request_of_row >= 0
    request_of_row[sent] = place_of_request[request_of_row[sent]]
    keys, positions = (np.array(values) for values in zip(*(found[r] for r in order.tolist()), strict=True))
    is_whole = len(order) == needs.n_requests
    with store.preparing():
        record = store.runs.add(
            RunRecord(
                id=new_run_id(now),
                name=call.options.name,
                # With all rows found the same submit is this run; with some, it has to send the others itself.
                identity=needs.identity if is_whole else f"recovered {secrets.token_hex(16)}",
                created_at=now,
                base_url=call.base_url,
                model=", ".join(call.plan.models),
                n_rows=call.plan.n_rows,
                n_requests=len(order),
                n_reused=len(order),
                n_skipped=int((~call.plan.sendable).sum()),
                options=call.options.to_json() | {"not_remembered": list(call.options.not_remembered)},
                cost_usd_max=0.0,
                api_version=call.api_version,
            ),
            rows=rows_table(request_of_row, call.plan.reasons),
            requests=requests_table(
                needs.fingerprints[order],
                needs.draws[order],
                keys.astype(np.int64),
                positions.astype(np.int32),
                np.ones(len(order), dtype=bool),
            ),
            batches=[_adopted(call, store, batch) for batch in ours],
            index=call.index,
        )
    return call.run_of(store, record)


def _adopted(call: Call, store: Store, batch: _Ours) -> NewBatch:
    """Return the batch as the store takes it, with the bodies that the frame still tells (a retry needs them)."""
    from pandas_batch.custom_ids import custom_ids
    from pandas_batch.store import NewBatch

    rows = {row.tobytes(): int(at) for row, at in zip(call.needs.fingerprints, call.needs.rows, strict=True)}
    at = [rows.get(row.tobytes()) for row in batch.fingerprints]
    known = [position for position in at if position is not None]
    params = [one for part in call.plan.encode(np.array(known, dtype=np.int64)) for one in part] if known else []
    bodies = iter(params)
    body = SpoolBody(store.files.new_spool())
    ids = custom_ids(batch.nonce, batch.fingerprints, batch.draws)
    body.write_lines(ids, b"", [b"{}" if position is None else next(bodies) for position in at], b"")
    return NewBatch(
        nonce=batch.nonce,
        fingerprints=batch.fingerprints,
        draws=batch.draws,
        spool=body.close(),
        base_url=call.base_url,
        betas=call.options.betas,
        batch_id=batch.batch_id,
    )
