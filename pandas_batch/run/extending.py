"""Ask requests of a run again in the run itself: new batches of it, and a table that points to them, in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .retrying import Again, in_table, without_answered, written

if TYPE_CHECKING:
    from pandas_batch.store import RunRecord

    from .driving import DrivenRun


def extended(
    run: DrivenRun,
    record: RunRecord,
    again: Sequence[Again],
    *,
    live_nonce: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> list[int] | None:
    """
    Add the requests `again` to a run, save those that are answered meanwhile, or (unless asked live) will be.

    Parameters
    ----------
    run, record
        The run as it was when `again` was chosen; the caller holds the store's `preparing`.
    again
        Of its requests.
    live_nonce
        Given, they become one live batch of that nonce.
    changes
        Fields of the run to change with it.

    Returns
    -------
    list of int or None
        Keys of the new batches; None where another has extended the run since.
    """
    table = run.store.runs.requests_of(run.id)
    keys = table.column("batch_key").to_numpy().copy()
    positions = table.column("position").to_numpy().copy()
    draws = table.column("draw").to_numpy().copy()
    reused = table.column("reused").to_numpy(zero_copy_only=False).copy()
    asked = [one.request for one in again]
    reused[asked] = True
    left = without_answered(run, list(again), keys, positions, draws, in_flight=live_nonce is None)
    batches = written(run, left, keys, positions, draws, reused, live_nonce=live_nonce)
    if not batches and np.array_equal(keys, table.column("batch_key").to_numpy()):
        return []
    return run.store.runs.extend(record, in_table(table, keys, positions, reused), batches, **(changes or {}))
