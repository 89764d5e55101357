"""Bugs to be planted in a process of the crash laboratory: a harness that does not see them proves nothing."""

from __future__ import annotations

import time
from typing import Any


def _save_after_the_post() -> None:
    """Record a POST only after its answer, as everybody does who has not been bitten."""
    from pandas_batch.store.batches import Batches

    honest = Batches.transition

    def transition(self: Any, key: int, *, expect: Any, to: str, **changes: Any) -> bool:
        if to in ("posting", "unknown"):
            return True
        # The table of states knows this one step, of a batch that was looked for; without it nothing would be bound.
        return honest(self, key, expect={*expect, "intent"} if to == "bound" else expect, to=to, **changes)

    Batches.transition = transition
    # The second line of defense would find the batch before it is posted again.
    Batches.was_recorded_here = lambda self, key: True


def _no_grace() -> None:
    """Post again as soon as the list does not show the batch."""
    from pandas_batch.engine import reconciling

    reconciling.MIN_EMPTY_SCANS = 1
    honest = reconciling.Reconciler.__init__

    def build(self: Any, place: Any) -> None:
        from dataclasses import replace

        honest(self, replace(place, lost_answer_grace_s=0.0))

    reconciling.Reconciler.__init__ = build


def _trust_short_files() -> None:
    """Believe whatever a download brings."""
    from pandas_batch.engine import collecting

    collecting.Collector._accounts_for_all = lambda *_: True


def _adopt_without_proof() -> None:
    """Take the first batch of the right size for ours."""
    from pandas_batch.engine import collecting, reconciling

    def settle(self: Any, batch: Any, candidate: Any) -> bool:
        from pandas_batch.server_values import times_of

        return self._place.store.batches.transition(
            batch.key,
            expect={"unknown", "posting"},
            to="bound",
            batch_id=candidate["id"],
            proved=True,
            **times_of(candidate),
        )

    reconciling.Reconciler._settle = settle
    # A stranger's results hold no line of ours, which is seen too.
    collecting.Collector._has_a_line = lambda *_: True


def _no_lock_while_planning() -> None:
    """Look for a run that is there already, and record a new one, with nothing held in between."""
    from contextlib import nullcontext

    from pandas_batch.store import Store

    Store.preparing = lambda self, timeout_s=None: nullcontext()


def _interrupts_start_over() -> None:
    """Leave no loose ends at an interrupt: what has not ended is to be posted afresh."""
    from pandas_batch.run.waiting import Waiter
    from pandas_batch.store.batches import Batches

    honest = Waiter._interrupted

    def interrupted(self: Any, engine: Any, finish: Any, interrupt: BaseException) -> None:
        honest(self, engine, finish, interrupt)
        for batch in self._run.batch_records():
            if batch.state in ("posting", "unknown", "bound"):
                self._run.store.batches.update(batch.key, state="intent", batch_id=None)

    Waiter._interrupted = interrupted
    # The second line of defense would find the batch before it is posted again.
    Batches.was_recorded_here = lambda self, key: True


def _interrupts_tidy_up_first() -> None:
    """Give the prompt back when the threads have come to rest, or have been given the time to."""
    from pandas_batch.run.waiting import Waiter

    honest = Waiter._interrupted

    def interrupted(self: Any, engine: Any, finish: Any, interrupt: BaseException) -> None:
        honest(self, engine, finish, interrupt)
        time.sleep(1.5)

    Waiter._interrupted = interrupted


PLANTED = {
    "interrupts start over": _interrupts_start_over,
    "interrupts tidy up first": _interrupts_tidy_up_first,
    "no lock while planning": _no_lock_while_planning,
    "save after the post": _save_after_the_post,
    "no grace": _no_grace,
    "trust short files": _trust_short_files,
    "adopt without proof": _adopt_without_proof,
}
