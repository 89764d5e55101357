"""Batches that were posted again although the first POST had made one too: found, reported, never merged.

The server may commit a create later than any grace. Nobody can undo that, but it can be seen: whoever posted a batch
again looks, once it is collected, for another one with the same nonce. Both ids are shown then, with what the one that
nobody needs was billed.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from pandas_batch.amounts import usd
from pandas_batch.custom_ids import prefix_of
from pandas_batch.store.states import SETTLED

from .posting import EngineContext
from .reconciling import candidates_for, newer_batches, read_nonce

if TYPE_CHECKING:
    from pandas_batch.clock import Clock
    from pandas_batch.store import BatchRecord, Store
    from pandas_batch.wire.wire import Wire

LOOK_UNTIL = timedelta(hours=24)
"""Looks go on, one each time the run is opened, until one is this much younger than the POST: a batch's whole life."""

PATIENCE_S = 5.0
"""How long whoever waits for a run waits for the look as well; what it finds later is reported the next time."""

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Surplus:
    """
    A batch that the server made although it had been given up, and billed.

    Attributes
    ----------
    batch_id
        Its id on the server.
    cost_usd
        What its answers cost; None where that is unknown.
    merged_id
        The batch whose answers the run has; None where the run was canceled.
    n_requests
        How many requests it holds.
    """

    batch_id: str
    cost_usd: float | None
    merged_id: str | None
    n_requests: int


def surplus_of(batches: Iterable[BatchRecord], run_id: str) -> list[Surplus]:
    """Return what is known to have been billed besides for the batches that a run has posted itself."""
    return [
        Surplus(batch_id=batch_id, cost_usd=cost_usd, merged_id=batch.batch_id, n_requests=batch.n_requests)
        for batch in batches
        if batch.run_id == run_id
        for batch_id, cost_usd in batch.surplus.items()
    ]


def surplus_words(found: Iterable[Surplus]) -> str:
    """Return what the user has to know of them; "" where there are none."""
    told = []
    for surplus in found:
        cost = "at a price that is not known" if surplus.cost_usd is None else usd(surplus.cost_usd)
        instead = "had been canceled" if surplus.merged_id is None else f"had been posted again as {surplus.merged_id}"
        told.append(
            f"Batch {surplus.batch_id} was made by the server after it had been given up as lost, when its "
            f"{surplus.n_requests:,} requests {instead}. It is billed besides ({cost}); its answers belong to no row."
        )
    return " ".join(told)


def is_look_due(batches: Iterable[BatchRecord], run_id: str) -> bool:
    """Return whether a surplus batch may exist that nobody has looked for to the end."""
    return any(_is_due(batch, run_id) for batch in batches)


def _is_due(batch: BatchRecord, run_id: str) -> bool:
    is_open = batch.first_posted_at is not None and not batch.surplus_settled
    return is_open and batch.run_id == run_id and batch.state in SETTLED


def look_for_surplus(
    store: Store,
    run_id: str,
    *,
    wire: Callable[[], Wire],
    clock: Clock,
    prices: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """
    Look whether the server has made a batch of a run twice, where that can be; record what is found.

    Neither waits longer than `PATIENCE_S` nor raises: a run that is collected needs neither key nor network.
    """
    due = [batch for batch in store.batches.of_run(run_id) if _is_due(batch, run_id)]
    if not due:
        return

    def look() -> None:
        with contextlib.suppress(Exception):
            place = EngineContext(store=store, wire=wire(), clock=clock)
            for batch in due:
                _look_for(place, batch, prices)

    thread = threading.Thread(target=look, name=f"pandas_batch surplus {run_id}", daemon=True)
    thread.start()
    thread.join(PATIENCE_S)


def _look_for(place: EngineContext, batch: BatchRecord, prices: Mapping[str, tuple[float, float]] | None) -> None:
    place.check_server(batch)
    newer, server_at, hidden = newer_batches(place, batch)
    known = batch.surplus
    is_last = hidden is None
    for listed in candidates_for(place, batch, newer):
        batch_id = str(listed["id"])
        if batch_id in known:
            continue
        if listed.get("processing_status") != "ended":
            is_last = False
        elif listed.get("archived_at") or read_nonce(place, batch_id) != batch.nonce:
            place.store.batches.add_tried_id(batch.key, batch_id)
        else:
            # Recorded at once: it is reported even if its price never is.
            place.store.batches.add_surplus(batch.key, {batch_id: None})
    for batch_id, cost_usd in place.store.batches.get(batch.key).surplus.items():
        if cost_usd is None:
            place.store.batches.add_surplus(batch.key, {batch_id: _cost_usd(place, batch, batch_id, prices)})
    began_at = batch.server_posted_at if server_at is not None else None
    began_at, now = (began_at, server_at) if began_at is not None else (batch.posted_at, place.clock.now())
    if is_last and began_at is not None and now is not None and now - began_at >= LOOK_UNTIL:
        place.store.batches.update(batch.key, surplus_settled=True)


def _cost_usd(
    place: EngineContext, batch: BatchRecord, batch_id: str, prices: Mapping[str, tuple[float, float]] | None
) -> float | None:
    """Return what the answers in `batch_id` cost; None where a row or a price is not known."""
    from pandas_batch.results.answers import decode_results
    from pandas_batch.results.pricing import add_costs
    from pandas_batch.results.row_status import exact_sum

    with tempfile.TemporaryFile() as file:
        place.wire.results(batch_id, file)
        file.seek(0)
        blocks = iter(partial(file.read, _BLOCK_BYTES), b"")
        decoded = decode_results(
            blocks,
            prefix=prefix_of(batch.nonce),
            n_requests=batch.n_requests,
            custom_ids=place.store.batches.custom_ids_of(batch.key),
        )
    costs: Any = add_costs(decoded.table, at=batch.created_at, prices=prices).column("cost_usd")
    return exact_sum(costs.to_numpy()) if decoded.complete and not costs.null_count else None
