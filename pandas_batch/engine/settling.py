"""Collect a batch whose requests were asked one by one: what came, as results, through the same decode as any other.

Whoever asks does it in the end; where he was killed, whoever comes next does, once his lease is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pandas_batch.clock import Clock
from pandas_batch.failpoints import reached
from pandas_batch.results.row_status import CODE, status_codes
from pandas_batch.store.records import live_lease

from .rebuilding import checked, decode_batch
from .spooling import custom_id_of_line

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord, Store

Prices = Mapping[str, tuple[float, float]]

_NOT_ASKED = b'{"custom_id":"%b","result":{"type":"canceled"}}\n'
_COUNTED = ("succeeded", "errored", "canceled")


def settle_live(store: Store, batch: BatchRecord, *, clock: Clock, prices: Prices | None = None) -> None:
    """
    Move a batch from ``live`` to ``collected``; the caller holds its `live_lease`, and asks nothing more.

    A request that was never asked is ``canceled``; one that was asked and has no answer is ``missing``: it may have
    been billed.
    """
    from pandas_batch.custom_ids import parse_custom_id

    has_line = np.zeros(batch.n_requests, dtype=bool)
    with store.files.new_results_part(batch.key) as part:
        for line in store.files.live_answers(batch.key):
            parsed = parse_custom_id(custom_id_of_line(line).decode())
            if parsed is not None:
                has_line[parsed.position] = True
                part.write(line + b"\n")
        was_asked = np.zeros(batch.n_requests, dtype=bool)
        was_asked[list(store.files.live_asked(batch.key))] = True
        ids = store.batches.custom_ids_of(batch.key)
        for position in np.flatnonzero(~(has_line | was_asked)).tolist():
            part.write(_NOT_ASKED % ids[position])
    part_path, answers_path = store.files.results_part_path(batch.key), store.files.answers_path(batch.key)
    answers_part = answers_path.with_suffix(".part")
    at = batch.created_at or clock.now()
    decoded = decode_batch(store, batch, part_path, answers_part, at=at, prices=prices)
    codes = status_codes(decoded.table.column("status"))
    del decoded
    store.files.commit(checked(part_path, store.files.results_path(batch.key)) | checked(answers_part, answers_path))
    reached("live results committed")
    counts = {name: int((codes == CODE[name]).sum()) for name in _COUNTED}
    times = {"created_at": at, "ended_at": clock.now()}
    store.batches.set_collected(batch.key, codes == CODE["succeeded"], expect="live", counts=counts, **times)
    reached("live batch collected")


def settle_if_left(store: Store, batch: BatchRecord, *, clock: Clock, prices: Prices | None = None) -> bool:
    """Settle a live batch if nobody asks its requests any more; return whether that is so."""
    lease = store.lease(live_lease(batch.nonce))
    if lease is None:
        return False
    with lease:
        # Until we held it, its asker may have settled it.
        now = store.batches.get(batch.key)
        if now.state == "live":
            settle_live(store, now, clock=clock, prices=prices)
    return True


def settle_left_behind(store: Store, *, clock: Clock, prices: Prices | None = None) -> None:
    """Settle the live batches of this store that nobody asks any more."""
    for batch in store.batches.where(state="live"):
        settle_if_left(store, batch, clock=clock, prices=prices)
