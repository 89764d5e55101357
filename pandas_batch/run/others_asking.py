"""Nobody asks a row twice: who is about to waits for whoever is asking it just now, and settles what the dead left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from pandas_batch.clock import Clock
from pandas_batch.custom_ids import new_nonce
from pandas_batch.engine.settling import settle_if_left, settle_left_behind
from pandas_batch.exiting import leave_if_ending, say
from pandas_batch.store.records import live_lease

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord, Lease, Store

Prices = Mapping[str, tuple[float, float]]

_LOOK_S = 0.1
_SILENCE_S = 2.0


def new_live_nonce(store: Store) -> tuple[str, Lease]:
    """Return the nonce of a live batch to come, and the lease that makes it ours before it is recorded."""
    while True:
        nonce = new_nonce()
        lease = store.lease(live_lease(nonce))
        if lease is not None:
            return nonce, lease


def being_asked(store: Store, fingerprints: np.ndarray, draws: np.ndarray, *, base_url: str) -> list[BatchRecord]:
    """Return the live batches that hold one of these requests, and whose asker is at work."""
    return store.batches.of_keys(store.batches.find_live(fingerprints, draws, base_url=base_url))


def wait_for_others(
    store: Store, batches: list[BatchRecord], *, clock: Clock, prices: Prices | None, is_silent: bool
) -> None:
    """Wait until nobody asks the requests of `batches` any more: their answers are then found, and not paid again."""
    until_s = clock.monotonic_s() + _SILENCE_S
    is_told = is_silent
    for batch in batches:
        while not settle_if_left(store, batch, clock=clock, prices=prices):
            if not is_told and clock.monotonic_s() >= until_s:
                is_told = True
                say("pandas_batch: some of these rows are being asked just now, by another cell or kernel; waiting.")
            clock.wait(_LOOK_S)
            leave_if_ending()


@contextmanager
def nobody_else_asks(
    store: Store,
    fingerprints: np.ndarray,
    draws: np.ndarray,
    *,
    base_url: str,
    clock: Clock,
    prices: Prices | None,
    is_silent: bool = False,
) -> Iterator[None]:
    """While this is open nobody prepares a run in this store, and none of these requests is being asked live."""
    while True:
        settle_left_behind(store, clock=clock, prices=prices)
        with store.preparing():
            others = being_asked(store, fingerprints, draws, base_url=base_url)
            if not others:
                yield
                return
        wait_for_others(store, others, clock=clock, prices=prices, is_silent=is_silent)
