"""Compress what is collected: after a run has given its answers, never while somebody still waits for them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from pandas_batch.failpoints import reached

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord, Store

PAUSE_S = 2.0
"""How long answers are collected before they are compressed: until then the frame is made, with the whole processor."""


def compact_run(
    store: Store, run_id: str, *, hold: Callable[[int], bool], keep: Callable[[int], bool | Collection[int]]
) -> None:
    """
    Remove what is no longer needed of the batches that are collected.

    Parameters
    ----------
    store, run_id
        Whose batches.
    hold
        Takes the lease of a batch by its key, where nobody else has it.
    keep
        Tells, by the key of a batch, of which positions a retry may need the requests again.
    """
    for batch in store.batches.of_run(run_id):
        if batch.state == "collected" and batch.run_id == run_id and hold(batch.key):
            store.batches.compact(batch.key, keep_requests=keep(batch.key))
            reached("batch compacted")
    for batch in _left_behind(store, run_id):
        if hold(batch.key):
            # What a retry of that run may need is not known here: all its requests are kept.
            store.batches.compact(batch.key, keep_requests=range(batch.n_requests))


_looked_through: weakref.WeakSet[Store] = weakref.WeakSet()
"""Stores whose whole history was looked through by this process: once is enough, as it tidies up behind itself."""


def _left_behind(store: Store, run_id: str) -> list[BatchRecord]:
    """Return the batches of other runs whose process had ended before it could make them small."""
    if store in _looked_through:
        return []
    _looked_through.add(store)
    keys = [
        key for key in store.batches.keys_of_others(run_id, state="collected") if store.files.spool_path(key).exists()
    ]
    return store.batches.of_keys(keys)
