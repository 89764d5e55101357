"""Room in the server's queue, as far as a run knows: whether there is any is found out by one batch at a time.

Each try uploads all of a batch, so tries are few. Where batches of the run hold the queue themselves, the next one is
tried at once when one of them ends, and by the clock alone only rarely.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_batch.store.states import WITHOUT_ID
from pandas_batch.wire.backoff import backoff_s

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pandas_batch.store import BatchRecord

_FIRST_S = 5.0
_MOST_S = 300.0
"""The longest pause between two tries where nothing tells that there is room again."""

_FIRST_BEHIND_OURS_S = 10.0
_GROWTH_BEHIND_OURS = 4.0
_MOST_BEHIND_OURS_S = 4 * 3600.0
"""The same where batches of ours are in the queue, whose ends tell it."""


class QueueRoom:
    """
    What the creates of one run have shown of the server's queue.

    Examples
    --------
    >>> room = QueueRoom()
    >>> room.is_known_full
    False
    >>> room.refused(7, asked_s=30.0, n_ours=0, now_s=0.0)
    30.0
    >>> room.is_known_full, room.due_in_s(10.0)
    (True, 20.0)
    """

    def __init__(self) -> None:
        self.is_known_full = False
        self._n_refused = 0
        self._due_s = 0.0
        self._not_before_s = 0.0
        self._tried: int | None = None

    def due_in_s(self, now_s: float, *, at_once: bool = False) -> float:
        """Return the seconds until the next try; `at_once` as soon as the server allows."""
        return (self._not_before_s if at_once else self._due_s) - now_s

    def tries(self, key: int) -> None:
        """Note that batch `key` is posted to find out whether there is room."""
        self._tried = key

    def refused(self, key: int, *, asked_s: float | None, n_ours: int, now_s: float) -> float:
        """
        Note that there was no room for batch `key`; return the seconds until the next try.

        Parameters
        ----------
        key
            The batch.
        asked_s
            How long the server asked to wait, or None.
        n_ours
            How many batches of the run are in the queue.
        now_s
            The time.
        """
        if asked_s is not None:
            self._not_before_s = max(self._not_before_s, now_s + asked_s)
        if self.is_known_full and self._tried != key:
            # It was under way beside the one that was refused first, which has set the pause.
            self._due_s = max(self._due_s, self._not_before_s)
            return self._due_s - now_s
        self._tried = None
        self.is_known_full = True
        self._n_refused += 1
        if n_ours:
            pause_s = backoff_s(
                self._n_refused,
                first_s=_FIRST_BEHIND_OURS_S,
                most_s=_MOST_BEHIND_OURS_S,
                growth=_GROWTH_BEHIND_OURS,
            )
        else:
            pause_s = backoff_s(self._n_refused, first_s=_FIRST_S, most_s=_MOST_S)
        if asked_s is not None:
            # The first time the server knows best; where that was not true, it is the least.
            pause_s = max(asked_s, pause_s) if self._n_refused > 1 else max(asked_s, backoff_s(1))
        self._due_s = max(now_s + pause_s, self._not_before_s)
        return self._due_s - now_s

    def accepted(self, key: int, now_s: float) -> None:
        """Note that batch `key` is in: if it was the one that tried, the next may at once."""
        if self._tried != key:
            return
        self._tried = None
        # Not from the start: whoever fills a queue once will meet its end again.
        self._n_refused = max(1, self._n_refused - 1)
        self._due_s = now_s

    def failed(self, key: int) -> None:
        """Note that the try of batch `key` has shown nothing: another one tries when it is due."""
        if self._tried == key:
            self._tried = None

    def one_has_ended(self, now_s: float) -> None:
        """Note that a batch of the run has ended: there is room, unless the server has asked for patience."""
        self._due_s = min(self._due_s, max(now_s, self._not_before_s))


def words_of_room(batches: Iterable[BatchRecord]) -> str:
    """Return what to say of a run that waits for room."""
    sent = [batch.state not in WITHOUT_ID for batch in batches if not batch.is_live and batch.state != "withdrawn"]
    return f"Waiting for room in the queue: {sum(sent):,} of {len(sent):,} batches are in."
