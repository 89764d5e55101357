"""Which step each batch of a run is due for: post it, look for it, collect it, or leave it alone for now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pandas_batch.store.states import RECORDED, UNDECIDED

from .collecting import Collector
from .pauses import POLL_SHARE
from .polling import Poller
from .posting import EngineContext, Poster, Step
from .reconciling import Reconciler
from .room import QueueRoom, words_of_room
from .settling import settle_if_left
from .uploads import Uploads

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord

INSTANT_S = 0.001
"""What is due within this is due now: a shorter wait may be none at all for a clock."""

N_AT_ONCE = 3
"""
How many batches are posted at once, and how many fetched.

What one of them learns about the queue the others need not find out; and of more than three, each has less of the
network and of the processor than it needs.
"""

_LOOK_S = 1.0
_POLL_SHARE_FOR_ROOM = 0.04
"""The longest pause between two polls, as a share of the time passed, while a batch waits for the end of another."""

TakeStep = Callable[["BatchRecord"], Step]


class Scheduler:
    """
    The steps of one run's batches, and when each is due.

    Parameters
    ----------
    place
        Where they are taken.
    warm_key
        The batch that writes the prompt cache: while it is at hand the others wait for it.
    on_sent
        Called, from another thread, when the next batch may be sent.
    """

    def __init__(
        self,
        place: EngineContext,
        *,
        poll_interval_s: float | None = None,
        prices: Mapping[str, tuple[float, float]] | None = None,
        warm_key: int | None = None,
        on_sent: Callable[[], object] = lambda: None,
    ) -> None:
        self.wire = place.wire
        self.poller = Poller(place, poll_interval_s=poll_interval_s)
        self._place = place
        self._uploads = Uploads(place.clock, on_sent=on_sent)
        self._poster = Poster(place, self._uploads)
        self._reconciler = Reconciler(place)
        self._collector = Collector(place, prices=prices)
        self._prices = prices
        self._warm_key = warm_key
        self._due_s: dict[int, float] = {}
        self._n_ours = 0
        self._begun: dict[int, str] = {}
        self.room = QueueRoom()

    def due(
        self, mine: Sequence[BatchRecord], *, posts_stopped: bool, at_once: bool
    ) -> tuple[list[tuple[BatchRecord, TakeStep]], list[float]]:
        """
        Choose what to do now, and take it for begun: `taken` says when it is done.

        Parameters
        ----------
        mine
            The open batches whose leases are held.
        posts_stopped
            Nothing is posted.
        at_once
            What waits for its time is done now.

        Returns
        -------
        list
            The batches to take a step with, and the step.
        list
            The seconds until the others are due.
        """
        now_s = self._now_s()
        self._n_ours = sum(batch.state == "bound" for batch in mine)
        # The cache is written by the first batch alone; the others wait for it and read.
        warming = self._warm_key if any(batch.key == self._warm_key for batch in mine) else None
        steps: list[tuple[BatchRecord, TakeStep]] = []
        dues: list[float] = []
        for batch in mine:
            if batch.key in self._begun:
                continue
            self._place.check_server(batch)
            step = self._step_of(batch, posts_stopped=posts_stopped or warming not in (None, batch.key))
            if step is None:
                continue
            due_in_s = self._due_s.get(batch.key, 0.0) - now_s
            if at_once:
                due_in_s = 0.0
            kind = "post" if step in (self._post, self._again) else batch.state
            is_try = kind == "post" and self.room.is_known_full
            if is_try:
                due_in_s = max(due_in_s, self.room.due_in_s(now_s, at_once=at_once))
            if due_in_s > INSTANT_S:
                dues.append(due_in_s)
            elif list(self._begun.values()).count(kind) < (1 if is_try else N_AT_ONCE):
                if kind == "post":
                    free_in_s = self._uploads.free_in_s()
                    if free_in_s > 0:
                        dues.append(free_in_s)
                        continue
                    self._uploads.begin(batch.key)
                if is_try:
                    self.room.tries(batch.key)
                self._begun[batch.key] = kind
                steps.append((batch, step))
            # What finds no place is looked at again as soon as one of those under way is done.
        return steps, dues

    @property
    def poll_share(self) -> float:
        """The longest pause until the next poll, as a share of the time that has passed."""
        return _POLL_SHARE_FOR_ROOM if self.room.is_known_full else POLL_SHARE

    def _step_of(self, batch: BatchRecord, *, posts_stopped: bool) -> TakeStep | None:
        if batch.state in RECORDED and batch.cancel_asked:
            return self._withdraw  # looked for in vain: it is canceled, not due once more
        if batch.state in RECORDED:
            if posts_stopped:
                return None
            return self._post if batch.state == "intent" else self._again
        if batch.state in UNDECIDED:
            return self._reconciler.step
        if batch.state == "live":
            return self._settle
        return self._collector.step if batch.state == "ended" else None

    def taken(self, batch: BatchRecord, done: Step) -> float:
        """Note when the next step of `batch` is due, and return in how many seconds."""
        self._begun.pop(batch.key, None)
        self._uploads.end(batch.key)
        due_in_s, now_s = done.due_in_s or 0.0, self._now_s()
        self._due_s[batch.key] = now_s + due_in_s
        if done.limited:
            return self.room.refused(batch.key, asked_s=done.asked_s, n_ours=self._n_ours, now_s=now_s)
        if done.is_in:
            self.room.accepted(batch.key, now_s)
        else:
            self.room.failed(batch.key)
        return due_in_s

    def one_has_ended(self) -> None:
        """Let a batch that waits for room be tried at once: another has ended."""
        self.room.one_has_ended(self._now_s())

    def words_of_waiting(self, batches: Sequence[BatchRecord]) -> str:
        """Return what there is to say where batches of the run wait for room; "" where none does."""
        is_waiting = self.room.is_known_full and any(batch.state in RECORDED for batch in batches)
        return words_of_room(batches) if is_waiting else ""

    def pop_warnings(self) -> list[str]:
        """Return what the steps since the last call have to tell the user."""
        told, warnings = self._collector.warnings, []
        while told:  # one by one: others may be adding to them
            warnings.append(told.popleft())
        return warnings

    def _again(self, batch: BatchRecord) -> Step:
        """Post a batch once more that was refused when the run was driven before: the user has come back."""
        if not self._place.store.batches.transition(batch.key, expect={"refused"}, to="intent"):
            return Step(due_in_s=0.0)
        return self._post(self._place.store.batches.get(batch.key))

    def _post(self, batch: BatchRecord) -> Step:
        if batch.first_posted_at is not None or not self._place.store.batches.was_recorded_here(batch.key):
            found = self._reconciler.step_before_posting_again(batch)
            if found is not None:
                return found
        return self._poster.step(batch)

    def _settle(self, batch: BatchRecord) -> Step:
        """Collect what was asked live, once nobody asks any more."""
        is_home = settle_if_left(self._place.store, batch, clock=self._place.clock, prices=self._prices)
        if is_home:
            return Step(due_in_s=0.0)
        return Step(due_in_s=_LOOK_S, message="Rows of this run are being asked live by another cell or kernel.")

    def _withdraw(self, batch: BatchRecord) -> Step:
        self._place.store.batches.transition(batch.key, expect=RECORDED, to="withdrawn")
        return Step(due_in_s=0.0)

    def _now_s(self) -> float:
        # Wall time: a laptop that slept for hours has slept through its polls too.
        return self._place.clock.now().timestamp()
