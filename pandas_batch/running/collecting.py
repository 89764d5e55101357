"""Wait for posted batches and bring their answers home: poll, download, decode, price, commit.

Results go to disk raw before anything is made of them, and are fetched again until they account for every
request that was sent; what is really absent becomes status ``missing``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pandas_batch.answers.row_status import CODE, status_codes
from pandas_batch.errors import ResultsGoneError, StoreError

from .failpoints import reached
from .memory import give_back_cache, give_back_memory
from .posting import Step, Workplace, backoff_s, times_of
from .turns import Turn

if TYPE_CHECKING:
    from pandas_batch.answers.answers import Decoded
    from pandas_batch.store import BatchRecord

FIRST_POLL_S = 2.0
MOST_POLL_S = 60.0
MOST_RETRY_AFTER_S = 300.0
MAX_DOWNLOADS = 4
"""How often results that do not account for every request are fetched before they are believed."""

GONE_AFTER = timedelta(minutes=10)
"""A 404 on a batch that is known is a passing fault until it has lasted this long and the list lacks it too."""

_STILL_THERE = "The server keeps the answers of this batch for 29 days: nothing is lost, nothing is paid again."

_FEW = 3
_PAGE = 1000


class Poller:
    """Asks for the state of all posted batches of a run: one list call, or one call each when they are few."""

    def __init__(self, place: Workplace, *, poll_interval_s: float | None = None) -> None:
        self._place = place
        self._poll_interval_s = poll_interval_s
        self._n_polls = 0
        self._n_failures = 0

    def poll(self, batches: Sequence[BatchRecord]) -> Step:
        """
        Look at `batches` (state ``bound``) once and record which have ended.

        Returns
        -------
        Step
            With the seconds until the next poll, 0 when a batch has ended.
        """
        from pandas_batch.wire.failures import is_auth, is_transient, retry_after_s

        try:
            found, asked_for_s = self._look(batches)
            have_ended = [self._record(batch, found.get(batch.key)) for batch in batches]
        except StoreError:
            raise
        except Exception as error:
            self._n_failures += 1
            if is_auth(error):
                return Step(due_in_s=None, error=error, message="The key is not accepted any more.")
            if not is_transient(error):
                return Step(due_in_s=None, error=error, message="The server refuses to tell the state of the batches.")
            pause_s = backoff_s(self._n_failures, first_s=2.0, most_s=MOST_POLL_S)
            told_s = retry_after_s(error)
            if told_s is not None:
                pause_s = max(pause_s, min(told_s, MOST_RETRY_AFTER_S))
            return Step(
                due_in_s=pause_s, message="The server cannot be reached; the batches go on there. Trying again."
            )
        self._n_failures = 0
        if any(have_ended):
            return Step(due_in_s=0.0)
        return Step(due_in_s=self._next_s(asked_for_s))

    def _look(self, batches: Sequence[BatchRecord]) -> tuple[dict[int, dict[str, Any]], float | None]:
        """Return the batch objects by key (absent where the server says 404), and the pause it asks for."""
        from pandas_batch.wire.failures import is_not_found

        wire = self._place.wire
        found: dict[int, dict[str, Any]] = {}
        asked_for_s: float | None = None
        rest = {str(batch.batch_id): batch for batch in batches}
        if len(batches) > _FEW:
            for listed in self._listed(_oldest(batches)):
                batch = rest.pop(str(listed["id"]), None)
                if batch is not None:
                    found[batch.key] = listed
                if not rest:
                    break
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

    def _listed(self, not_before: datetime | None) -> Iterator[dict[str, Any]]:
        after_id: str | None = None
        while True:
            page = self._place.wire.list(limit=_PAGE, after_id=after_id)
            yield from page.batches
            after_id = page.last_id
            if not page.has_more or not after_id:
                return
            if not_before is not None and datetime.fromisoformat(page.batches[-1]["created_at"]) < not_before:
                return

    def _record(self, batch: BatchRecord, listed: dict[str, Any] | None) -> bool:
        store = self._place.store
        if listed is None:
            return self._record_absence(batch)
        changes = times_of(listed)
        if batch.not_found_since is not None:
            changes["not_found_since"] = None
        if listed.get("processing_status") == "ended":
            ended = store.transition(batch.key, expect={"bound"}, to="ended", **changes)
            reached("end recorded")
            return ended
        if changes["counts"] != batch.counts or changes["cancel_initiated_at"] != batch.cancel_initiated_at:
            store.update_batch(batch.key, **changes)
        elif batch.not_found_since is not None:
            store.update_batch(batch.key, not_found_since=None)
        return False

    def _record_absence(self, batch: BatchRecord) -> bool:
        self._place.check_workspace(batch, self._place.wire.list(limit=1).workspace_id)
        now = self._place.clock.now()
        if batch.not_found_since is None:
            self._place.store.update_batch(batch.key, not_found_since=now)
            return False
        if now - batch.not_found_since < GONE_AFTER:
            return False
        if any(str(listed["id"]) == batch.batch_id for listed in self._listed(batch.created_at)):
            return False
        return self._place.store.transition(
            batch.key, expect={"bound", "ended"}, to="gone", error="The server no longer knows this batch."
        )

    def _next_s(self, asked_for_s: float | None) -> float:
        if self._poll_interval_s is not None:
            return self._poll_interval_s
        self._n_polls += 1
        pause_s = backoff_s(self._n_polls, first_s=FIRST_POLL_S, most_s=MOST_POLL_S)
        return max(pause_s, min(asked_for_s or 0.0, MOST_POLL_S))


def _oldest(batches: Sequence[BatchRecord]) -> datetime | None:
    """Return when the oldest batch was made; None where that is not known of each (one that was recovered)."""
    made = [batch.created_at for batch in batches]
    known = [created_at for created_at in made if created_at is not None]
    return min(known) if known and len(known) == len(made) else None


class Collector:
    """Downloads and decodes the results of ended batches."""

    def __init__(self, place: Workplace, *, prices: Mapping[str, tuple[float, float]] | None = None) -> None:
        self._place = place
        self._prices = prices
        self._n_failures: dict[int, int] = {}
        self._n_short: dict[int, int] = {}
        self._not_found_since_s: dict[int, float] = {}
        self.warnings: list[str] = []

    def step(self, batch: BatchRecord) -> Step:
        """
        Bring the answers of `batch` (state ``ended``) home, if that can be done now.

        Returns
        -------
        Step
            With ``due_in_s=0`` when the batch is ``collected``.
        """
        from pandas_batch.answers.answers import decode_to_file
        from pandas_batch.store.failures import store_error
        from pandas_batch.wire.failures import is_auth, is_not_found, is_transient

        store = self._place.store
        n_failures = self._n_failures.get(batch.key, 0)
        raw_path, part_path = store.results_path(batch.key), store.results_part_path(batch.key)
        answers_path = store.answers_path(batch.key)
        answers_part = answers_path.with_suffix(".part")
        try:
            with Turn(self._place.clock) as turn:
                if not raw_path.exists():
                    with store.new_results_part(batch.key) as part:
                        self._place.wire.results(str(batch.batch_id), turn.paced(part.write))
                    reached("results downloaded")
                    source = part_path
                else:
                    source = raw_path
                turn.take()
                decoded = decode_to_file(
                    source,
                    answers_part,
                    prefix=f"pb1_{batch.nonce}_".encode(),
                    n_requests=batch.n_requests,
                    at=batch.created_at or self._place.clock.now(),
                    prices=self._prices,
                    custom_ids=store.custom_ids_of(batch.key),
                )
        except Exception as error:
            n_failures = self._n_failures[batch.key] = n_failures + 1
            if is_not_found(error):
                return self._results_not_found(batch)
            if is_auth(error):
                return Step(due_in_s=None, error=error, message="The key is not accepted any more.")
            if isinstance(error, OSError):
                raise store_error(error, store.path, _STILL_THERE) from error
            if not is_transient(error):
                raise
            return Step(
                due_in_s=backoff_s(n_failures, first_s=2.0), message="A download broke off; it is fetched again whole."
            )
        reached("results decoded")
        if source == part_path:
            # Counted apart from downloads that failed: an outage is no reason to believe the first short file.
            n_short = self._n_short.get(batch.key, 0) + 1
            if not self._accounts_for_all(batch, decoded) and n_short < MAX_DOWNLOADS:
                self._n_short[batch.key] = n_short
                return Step(
                    due_in_s=backoff_s(n_short, first_s=2.0),
                    message="The results do not account for every row; they are fetched again.",
                )
        self._warn(batch, decoded)
        # The raw results first: with them, answers can always be made anew.
        store.commit_files(({part_path: raw_path} if source == part_path else {}) | {answers_part: answers_path})
        reached("results committed")
        store.set_collected(batch.key, status_codes(decoded.table.column("status")) == CODE["succeeded"])
        del decoded
        # The next batch is decoded before the run waits again.
        give_back_memory(batch.n_requests)
        give_back_cache(raw_path, batch.n_requests)
        reached("batch collected")
        return Step(due_in_s=0.0)

    def _accounts_for_all(self, batch: BatchRecord, decoded: Decoded) -> bool:
        n_expected = sum(batch.counts.values()) if batch.counts else batch.n_requests
        return decoded.complete and n_expected <= decoded.n_lines

    def _results_not_found(self, batch: BatchRecord) -> Step:
        """Believe in a 404 on the results only when the server says why, or it has lasted."""
        now_s = self._place.clock.monotonic_s()
        since_s = self._not_found_since_s.setdefault(batch.key, now_s)
        archived_at = batch.archived_at
        lasted = now_s - since_s >= GONE_AFTER.total_seconds()
        if archived_at is None and lasted:
            self._place.check_workspace(batch, self._place.wire.list(limit=1).workspace_id)
            with suppress(Exception):  # the 404 below is what is to be told
                polled = self._place.wire.retrieve(str(batch.batch_id))
                archived_at = times_of(polled.batch)["archived_at"]
        if archived_at is None and not lasted:
            return Step(
                due_in_s=backoff_s(self._n_failures[batch.key], first_s=2.0), message="The results are not there yet."
            )
        self._place.store.transition(
            batch.key,
            expect={"ended"},
            to="gone",
            archived_at=archived_at,
            error="The server no longer has the results.",
        )
        return Step(due_in_s=0.0)

    def _warn(self, batch: BatchRecord, decoded: Decoded) -> None:
        if decoded.unknown_ids:
            self.warnings.append(
                f"Batch {batch.batch_id}: {decoded.n_unknown_ids:,} results bear ids that were never sent; "
                "they are kept in the raw results and belong to no row."
            )
        if decoded.conflicts:
            self.warnings.append(
                f"Batch {batch.batch_id}: {len(decoded.conflicts):,} rows came with two differing results; "
                "the first of each is kept, both stand in the raw results."
            )


def gone_error(batch: BatchRecord) -> ResultsGoneError:
    """Return the error that says since when the results of `batch` cannot be had any more."""
    made = "" if batch.created_at is None else f", created {batch.created_at:%Y-%m-%d %H:%M} UTC"
    gone = "" if batch.archived_at is None else f", results removed {batch.archived_at:%Y-%m-%d %H:%M} UTC"
    return ResultsGoneError(
        f"The results of batch {batch.batch_id} are gone{made}{gone}: {batch.error or 'the server has them no more.'}",
        f"Its {batch.n_requests:,} requests were sent, and those answered were billed; results can be had for "
        "29 days after a batch was created. Nothing else of the run is lost.",
        "run.result(partial=True)   # what was brought home\n"
        "run.retry_failed()          # asks, and pays, for the lost rows again",
    )
