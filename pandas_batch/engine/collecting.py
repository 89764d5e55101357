"""Collect the answers of ended batches: download, decode, price, commit.

Results go to disk raw before anything is made of them, and are fetched again until they account for every
request that was sent; what is really absent becomes status ``missing``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pandas_batch.errors import ResultsGoneError, UnreadableAnswerError, clip
from pandas_batch.failpoints import reached
from pandas_batch.results.row_status import CODE, status_codes
from pandas_batch.server_values import times_of
from pandas_batch.wire.backoff import backoff_s

from .memory import give_back_cache, give_back_memory
from .polling import FOREIGN_PATIENCE_S, GONE_AFTER
from .posting import EngineContext, Step
from .processor_turn import ProcessorTurn

if TYPE_CHECKING:
    from pandas_batch.results.answers import Decoded
    from pandas_batch.store import BatchRecord

MAX_DOWNLOADS = 4
"""How often results that do not account for every request are fetched before they are believed."""

_STILL_THERE = "The server keeps the answers of this batch for 29 days: nothing is lost, nothing is paid again."


class Collector:
    """Downloads and decodes the results of ended batches."""

    def __init__(self, place: EngineContext, *, prices: Mapping[str, tuple[float, float]] | None = None) -> None:
        self._place = place
        self._prices = prices
        self._n_failures: dict[int, int] = {}
        self._n_short: dict[int, int] = {}
        self._not_found_since_s: dict[int, float] = {}
        self._foreign_since_s: dict[int, float] = {}
        self._paths: dict[int, str] = {}
        self.warnings: deque[str] = deque()

    def step(self, batch: BatchRecord) -> Step:
        """
        Collect the answers of `batch` (state ``ended``), if that can be done now.

        Returns
        -------
        Step
            With ``due_in_s=0`` when the batch is ``collected``.
        """
        from pandas_batch.engine.rebuilding import checked, decode_batch, is_whole
        from pandas_batch.store.failures import explained, store_error
        from pandas_batch.wire.failures import is_auth, is_foreign, is_not_found, is_transient

        store = self._place.store
        n_failures = self._n_failures.get(batch.key, 0)
        raw_path, part_path = store.files.results_path(batch.key), store.files.results_part_path(batch.key)
        answers_path = store.files.answers_path(batch.key)
        answers_part = answers_path.with_suffix(".part")
        try:
            with ProcessorTurn(self._place.clock) as turn:
                if not is_whole(raw_path):
                    with store.files.new_results_part(batch.key) as part:
                        path = self._paths.get(batch.key)
                        self._place.wire.results(str(batch.batch_id), turn.paced(part.write), path=path)
                    reached("results downloaded")
                    source = part_path
                else:
                    source = raw_path
                turn.take()
                at = batch.created_at or self._place.clock.now()
                decoded = decode_batch(store, batch, source, answers_part, at=at, prices=self._prices)
        except Exception as error:
            n_failures = self._n_failures[batch.key] = n_failures + 1
            if is_not_found(error):
                return self._results_not_found(batch)
            if is_auth(error):
                return Step(due_in_s=None, error=error, message="The key is not accepted any more.")
            if isinstance(error, OSError):
                raise store_error(error, store.path, _STILL_THERE) from error
            now_s = self._place.clock.monotonic_s()
            is_passing = is_foreign(error) and (
                now_s - self._foreign_since_s.setdefault(batch.key, now_s) < FOREIGN_PATIENCE_S
            )
            if is_foreign(error) and not is_passing:
                message = f"The results of batch {batch.batch_id} could not be fetched: {clip(str(error))}"
                return Step(due_in_s=None, error=error, message=message)
            if not is_transient(error) and not is_passing:
                raise
            return Step(
                due_in_s=backoff_s(n_failures, first_s=2.0), message="A download broke off; it is fetched again whole."
            )
        reached("results decoded")
        if source == part_path:
            # Counted apart from downloads that failed: an outage is no reason to believe the first short file.
            n_short = self._n_short.get(batch.key, 0) + 1
            if n_short >= MAX_DOWNLOADS and not self._has_a_line(batch, decoded):
                # An answer of somebody else; were it believed, a retry would pay for every row again.
                not_ours = UnreadableAnswerError(
                    f"The results of batch {batch.batch_id} hold no line of it, in {n_short} downloads.",
                    f"Its {batch.n_requests:,} requests were sent, and those answered were billed; nothing is asked "
                    "again.",
                    f'pandas_batch.load("{batch.run_id}").result()   # looks again; the server keeps them for 29 days',
                )
                return Step(due_in_s=None, error=not_ours, message=not_ours.what)
            if not self._accounts_for_all(batch, decoded) and n_short < MAX_DOWNLOADS:
                self._n_short[batch.key] = n_short
                return Step(
                    due_in_s=backoff_s(n_short, first_s=2.0),
                    message="The results do not account for every row; they are fetched again.",
                )
        self._warn(batch, decoded)
        # The raw results first: with them, answers can always be made anew.
        with explained(store.path, _STILL_THERE):
            finals = checked(part_path, raw_path) if source == part_path else {}
            finals |= checked(answers_part, answers_path)
        store.files.commit(finals)
        reached("results committed")
        store.batches.set_collected(batch.key, status_codes(decoded.table.column("status")) == CODE["succeeded"])
        del decoded
        # The next batch is decoded before the run waits again.
        give_back_memory(batch.n_requests)
        give_back_cache(raw_path, batch.n_requests)
        reached("batch collected")
        return Step(due_in_s=0.0)

    def _has_a_line(self, batch: BatchRecord, decoded: Decoded) -> bool:
        return len(decoded.missing) < batch.n_requests

    def _accounts_for_all(self, batch: BatchRecord, decoded: Decoded) -> bool:
        n_expected = sum(batch.counts.values()) if batch.counts else batch.n_requests
        return decoded.complete and n_expected <= decoded.n_lines

    def _results_not_found(self, batch: BatchRecord) -> Step:
        """
        Believe in a 404 on the results only when the server says that they are archived, or has no such batch.

        A gateway may serve them where the batch's ``results_url`` says: on the client's own origin that is tried.
        """
        from pandas_batch.wire.endpoints import own_path

        wire, batch_id = self._place.wire, str(batch.batch_id)
        now_s = self._place.clock.monotonic_s()
        lasted_s = now_s - self._not_found_since_s.setdefault(batch.key, now_s)
        archived_at, n_failures = batch.archived_at, self._n_failures[batch.key]
        looked = self._described(batch_id)
        if looked is not None:
            archived_at = times_of(looked)["archived_at"] or archived_at
            path = own_path(looked.get("results_url"), wire.base_url)
            if path is not None and batch.key not in self._paths and archived_at is None:
                self._paths[batch.key] = path
                return Step(due_in_s=0.0, message="The results are fetched from where the batch says they are.")
            self._paths.pop(batch.key, None)
        if archived_at is None and (looked == {} or lasted_s < GONE_AFTER.total_seconds()):
            return Step(due_in_s=backoff_s(n_failures, first_s=2.0), message="The results are not there yet.")
        if archived_at is None and looked is None:
            # Retrieve lacks it too: the poller asks the list before it is believed.
            self._place.store.batches.transition(
                batch.key, expect={"ended"}, to="bound", not_found_since=batch.ended_at
            )
            return Step(due_in_s=0.0, message="The server does not know the batch; asking again.")
        if archived_at is None:
            minutes = f"{lasted_s / 60:.0f} minutes" if lasted_s >= 90 else f"{lasted_s:.0f} s"
            error = UnreadableAnswerError(
                f"Batch {batch_id} has ended and is not archived, but its results have been answered with 404 for "
                f"{minutes}.",
                f"Its {batch.n_requests:,} requests were sent, and those answered were billed; nothing is asked again.",
                f'pandas_batch.load("{batch.run_id}").result()   # looks again; the server keeps results for 29 days',
            )
            return Step(due_in_s=None, error=error, message=error.what)
        self._place.store.batches.transition(
            batch.key,
            expect={"ended"},
            to="gone",
            archived_at=archived_at,
            error="The server no longer has the results.",
        )
        return Step(due_in_s=0.0)

    def _described(self, batch_id: str) -> dict[str, Any] | None:
        """Return the batch as the server describes it; None where it has none, {} where it cannot be asked."""
        from pandas_batch.wire.failures import is_not_found

        try:
            return self._place.wire.retrieve(batch_id).batch
        except Exception as error:
            if is_not_found(error):
                return None
            return {}

    def _warn(self, batch: BatchRecord, decoded: Decoded) -> None:
        if decoded.unknown_ids:
            self.warnings.append(
                f"Batch {batch.batch_id}: {decoded.n_unknown_ids:,} results bear ids that were never sent; "
                "they are kept in the raw results and belong to no row."
            )
        if decoded.n_not_utf8:
            self.warnings.append(
                f"Batch {batch.batch_id}: {decoded.n_not_utf8:,} rows hold bytes that are not UTF-8; in their texts "
                "these are U+FFFD, the raw results keep them as they came."
            )
        if decoded.conflicts:
            self.warnings.append(
                f"Batch {batch.batch_id}: {len(decoded.conflicts):,} rows came with two differing results; "
                "the first of each is kept, both stand in the raw results."
            )


def look_again(place: EngineContext, batch: BatchRecord) -> bool:
    """
    Look whether a batch that was given up is there after all; take it up again where it is.

    Returns
    -------
    bool
        Whether it is.

    Raises
    ------
    Exception
        Nobody could be asked.
    """
    from pandas_batch.wire.failures import is_not_found

    place.check_server(batch)
    try:
        polled = place.wire.retrieve(str(batch.batch_id))
    except Exception as error:
        if is_not_found(error):
            return False
        raise
    place.check_workspace(batch, polled.workspace_id)
    times = times_of(polled.batch)
    if times["archived_at"] is not None:
        place.store.batches.transition(batch.key, expect={"gone"}, to="gone", archived_at=times["archived_at"])
        return False
    return place.store.batches.transition(
        batch.key, expect={"gone"}, to="bound", not_found_since=None, error="", **times
    )


def gone_error(batch: BatchRecord, run: str = "run") -> ResultsGoneError:
    """Return the error that says since when the results of `batch` cannot be had any more; `run` is what to type."""
    made = "" if batch.created_at is None else f", created {batch.created_at:%Y-%m-%d %H:%M} UTC"
    gone = "" if batch.archived_at is None else f", results removed {batch.archived_at:%Y-%m-%d %H:%M} UTC"
    return ResultsGoneError(
        f"The results of batch {batch.batch_id} are gone{made}{gone}: {batch.error or 'the server has them no more.'}",
        f"Its {batch.n_requests:,} requests were sent, and those answered were billed; results can be had for "
        "29 days after a batch was created. Nothing else of the run is lost.",
        f"{run}.result(partial=True)   # what was collected\n"
        f"{run}.retry_failed()   # asks, and pays, for the lost rows again",
    )
