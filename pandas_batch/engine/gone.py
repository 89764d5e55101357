"""Batches that were given up: nothing is given up for good, so whoever comes back to a run looks for them anew."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .collecting import look_again
from .posting import EngineContext

if TYPE_CHECKING:
    from pandas_batch.clock import Clock
    from pandas_batch.store import BatchRecord, Store
    from pandas_batch.wire.wire import Wire

PATIENCE_S = 10.0
"""How long whoever waits for a run waits for this look; without a network the run is read as it is."""


def gone_batches(store: Store, run_id: str) -> list[BatchRecord]:
    """Return the batches of a run that were given up and of which the server has not said that they are archived."""
    return [b for b in store.batches.of_run(run_id) if b.state == "gone" and b.archived_at is None]


def look_for_gone(store: Store, run_id: str, *, wire: Callable[[], Wire], clock: Clock) -> bool:
    """
    Look for the batches of a run that were given up, and take those up again that are there.

    Returns
    -------
    bool
        Whether each could be asked for. Nothing is raised, and nobody waits longer than `PATIENCE_S`.
    """
    gone = gone_batches(store, run_id)
    if not gone:
        return True
    asked: list[int] = []

    def look() -> None:
        with contextlib.suppress(Exception):
            place = EngineContext(store=store, wire=wire(), clock=clock)
            for batch in gone:
                look_again(place, batch)
                asked.append(batch.key)

    thread = threading.Thread(target=look, name=f"pandas_batch gone {run_id}", daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return len(asked) == len(gone)
