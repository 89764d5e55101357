"""Ask what has become of the batches that are posted: seldom while they are far from their end, often about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pandas_batch.errors import StoreError, UnreadableAnswerError, clip
from pandas_batch.failpoints import reached
from pandas_batch.server_values import times_of
from pandas_batch.wire.backoff import backoff_s
from pandas_batch.wire.listing import each_page_flow, find_listed_flow, is_older, large_page_flow

from .pauses import POLL_SHARE, marks_of, poll_pause_s
from .posting import EngineContext, Step

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord
    from pandas_batch.wire.endpoints import Page

FIRST_POLL_S = 2.0
MOST_POLL_S = 60.0
MOST_RETRY_AFTER_S = 300.0

GONE_AFTER = timedelta(minutes=10)
"""A 404 on a batch that is known is a passing fault until it has lasted this long and the list lacks it too."""

FOREIGN_PATIENCE_S = 600.0
"""How long something else than the API may answer the polls before the run stops and says what does."""

_FEW = 3
_LONGEST_UPLOAD = timedelta(minutes=10)


class Poller:
    """Asks for the state of all posted batches of a run: one list call, or one call each when they are few."""

    def __init__(self, place: EngineContext, *, poll_interval_s: float | None = None) -> None:
        self._place = place
        self._poll_interval_s = poll_interval_s
        self._due_s: dict[int, float] = {}
        self._not_before_s = 0.0
        self._durations: list[tuple[int, float]] | None = None
        self._n_failures = 0
        self._foreign_since_s: float | None = None
        self._can_list = True

    def posted(self, key: int) -> None:
        """Note that batch `key` has just been posted; one that an earlier process posted is looked at at once."""
        self._due_s[key] = self._now_s() + min(FIRST_POLL_S, self._poll_interval_s or FIRST_POLL_S)

    def at_once(self) -> None:
        """Let the next look come now, whatever was planned."""
        self._due_s.clear()
        self._not_before_s = 0.0

    def due_in_s(self, batches: Sequence[BatchRecord]) -> float:
        """Return the seconds until the next look at `batches` (state ``bound``), 0 where it is due."""
        due_s = min((self._due_s.get(batch.key, 0.0) for batch in batches), default=0.0)
        return max(0.0, max(due_s, self._not_before_s) - self._now_s())

    def poll(self, batches: Sequence[BatchRecord], *, share: float = POLL_SHARE) -> Step:
        """
        Look at `batches` (state ``bound``) once, record which have ended, and plan the next look.

        Parameters
        ----------
        batches
            All that are under way.
        share
            The longest pause until the next look, as a share of the time that has passed since the post.

        Returns
        -------
        Step
            With the seconds until the next look, 0 when a batch has ended.
        """
        from pandas_batch.wire.failures import is_auth, is_foreign, is_transient, retry_after_s

        try:
            found, asked_for_s = self._look(batches)
            have_ended = [self._record(batch, found.get(batch.key)) for batch in batches]
        except StoreError:
            raise
        except Exception as error:
            self._n_failures += 1
            if is_auth(error):
                return Step(due_in_s=None, error=error, message="The key is not accepted any more.")
            is_passing = is_foreign(error) and not self._is_foreign_for_long()
            if not is_transient(error) and not is_passing:
                return Step(
                    due_in_s=None,
                    error=error,
                    message=f"The state of the batches could not be read: {clip(str(error))}",
                )
            pause_s = backoff_s(self._n_failures, first_s=2.0, most_s=MOST_POLL_S)
            told_s = retry_after_s(error)
            if told_s is not None:
                pause_s = max(pause_s, min(told_s, MOST_RETRY_AFTER_S))
            self._due_s = dict.fromkeys((batch.key for batch in batches), self._now_s() + pause_s)
            what = "The server cannot be reached"
            if is_passing or isinstance(error, UnreadableAnswerError):
                what = "Something that is not the API answers"
            return Step(due_in_s=pause_s, message=f"{what}; the batches go on at the server. Trying again.")
        self._n_failures, self._foreign_since_s = 0, None
        if any(have_ended):
            self._durations = None
        self._plan(batches, asked_for_s, share=share)
        return Step(due_in_s=0.0 if any(have_ended) else self.due_in_s(batches))

    def _is_foreign_for_long(self) -> bool:
        now_s = self._place.clock.monotonic_s()
        if self._foreign_since_s is None:
            self._foreign_since_s = now_s
        return now_s - self._foreign_since_s >= FOREIGN_PATIENCE_S

    def _look(self, batches: Sequence[BatchRecord]) -> tuple[dict[int, dict[str, Any]], float | None]:
        """Return the batch objects by key (absent where the server says 404), and the pause it asks for."""
        from pandas_batch.wire.failures import is_not_found, is_transient

        wire = self._place.wire
        found: dict[int, dict[str, Any]] = {}
        asked_for_s: float | None = None
        rest = {str(batch.batch_id): batch for batch in batches}
        if len(batches) > _FEW and self._can_list:
            oldest_at = _oldest(batches)

            def visit(page: Page) -> bool:
                for listed in page.batches:
                    if isinstance(listed.get("processing_status"), str):
                        batch = rest.pop(str(listed["id"]), None)
                        if batch is not None:
                            found[batch.key] = listed
                return not rest or is_older(page, oldest_at)

            try:
                wire.drive(each_page_flow(visit, read=large_page_flow))
            except UnreadableAnswerError:
                pass  # each batch can still be asked for by its id
            except Exception as error:
                if is_transient(error):
                    raise
                # A key that may not list can still ask for each batch by its id.
                self._can_list = False
        for batch_id, batch in rest.items():
            try:
                polled = wire.retrieve(batch_id)
            except Exception as error:
                if not is_not_found(error):
                    raise
                continue
            found[batch.key] = polled.batch
            asked_for_s = max(asked_for_s or 0.0, polled.retry_after_s or 0.0) or None
        return found, asked_for_s

    def _record(self, batch: BatchRecord, listed: dict[str, Any] | None) -> bool:
        store = self._place.store
        if listed is None:
            return self._record_absence(batch)
        changes = times_of(listed)
        if batch.cancel_initiated_at is not None:
            changes["cancel_initiated_at"] = changes["cancel_initiated_at"] or batch.cancel_initiated_at
        if batch.created_at is not None:
            changes["created_at"] = changes["created_at"] or batch.created_at
        if batch.not_found_since is not None:
            changes["not_found_since"] = None
        if listed.get("processing_status") == "ended":
            ended = store.batches.transition(batch.key, expect={"bound"}, to="ended", **changes)
            reached("end recorded")
            return ended
        if changes["counts"] != batch.counts or changes["cancel_initiated_at"] != batch.cancel_initiated_at:
            store.batches.transition(batch.key, expect={"bound"}, to="bound", **changes)
        elif batch.not_found_since is not None:
            store.batches.transition(batch.key, expect={"bound"}, to="bound", not_found_since=None)
        return False

    def _record_absence(self, batch: BatchRecord) -> bool:
        """Believe that the server lacks a batch when retrieve and list have both lacked it for a while."""
        if self._can_list:
            self._place.check_workspace(batch, self._place.wire.list(limit=1).workspace_id)
        now = self._place.clock.now()
        if batch.not_found_since is None:
            self._place.store.batches.transition(batch.key, expect={"bound"}, to="bound", not_found_since=now)
            return False
        if now - batch.not_found_since < GONE_AFTER or not self._can_list:
            return False
        if self._place.wire.drive(find_listed_flow(str(batch.batch_id), batch.created_at)) is not None:
            return False
        return self._place.store.batches.transition(
            batch.key, expect={"bound", "ended"}, to="gone", error="The server no longer knows this batch."
        )

    def _plan(self, batches: Sequence[BatchRecord], asked_for_s: float | None, *, share: float) -> None:
        now_s = self._now_s()
        if self._poll_interval_s is not None:
            self._due_s = dict.fromkeys((batch.key for batch in batches), now_s + self._poll_interval_s)
            return
        if self._durations is None:
            self._durations = self._place.store.batches.durations(self._place.wire.base_url)
        self._not_before_s = now_s + min(asked_for_s or 0.0, MOST_POLL_S)
        for batch in batches:
            marks_s = marks_of(self._durations, batch.n_requests)
            elapsed_s = now_s - _since_s(batch, now_s)
            pause_s = poll_pause_s(elapsed_s, marks_s, first_s=FIRST_POLL_S, most_s=MOST_POLL_S, share=share)
            self._due_s[batch.key] = now_s + pause_s

    def _now_s(self) -> float:
        # Wall time: a laptop that slept for hours has slept through its polls too.
        return self._place.clock.now().timestamp()


def _since_s(batch: BatchRecord, now_s: float) -> float:
    """Return when a batch began to be worked on, by our clock; the server's may be wrong by hours."""
    made_at, posted_at = batch.created_at, batch.posted_at
    if posted_at is not None and (made_at is None or not posted_at <= made_at <= posted_at + _LONGEST_UPLOAD):
        made_at = posted_at
    return now_s if made_at is None else made_at.timestamp()


def _oldest(batches: Sequence[BatchRecord]) -> datetime | None:
    """Return when the oldest batch was made; None where that is not known of each (one that was recovered)."""
    made = [batch.created_at for batch in batches]
    known = [created_at for created_at in made if created_at is not None]
    return min(known) if known and len(known) == len(made) else None
