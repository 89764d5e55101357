"""Find a batch whose create answer was lost, and prove that it is ours before a row of it is believed.

The API has no idempotency key and lets nothing be written on a batch but the custom_ids of its requests, which
can be read only from the results of an ended batch. So a lost create is *looked for* among the batches newer
than the newest one seen before the POST, of the right size and not ours already; and *proved* by the nonce in
the custom_ids of its results. While a candidate is unproved, nothing is posted again.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pandas_batch.errors import RunNotFoundError, UnreadableAnswerError, clip
from pandas_batch.failpoints import reached
from pandas_batch.results.result_lines import id_of
from pandas_batch.server_values import times_of
from pandas_batch.store.states import WITHOUT_ID
from pandas_batch.wire.backoff import backoff_s
from pandas_batch.wire.listing import candidates_flow, newer_batches_flow

from .posting import EngineContext, Step, split_in_halves

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord

CLOCK_MARGIN_S = 300.0
"""How far a server's `Date` may lie from the `created_at` it writes, when that has to stand in for a watermark."""

LONGEST_POST_S = 3600.0
"""How long after its beginning a POST may still have been under way when its process died."""

MIN_EMPTY_SCANS = 3

OVERLOADED_GRACE_S = 60.0
"""How long a batch is looked for that the API was too overloaded to take, by its own word."""

FOREIGN_PATIENCE_S = 600.0
"""How long something else than the API may answer in its place before the run stops and says what does."""


class Reconciler:
    """Looks for the lost batches of one run; remembers between steps how often it has looked."""

    def __init__(self, place: EngineContext) -> None:
        self._place = place
        self._n_failures = 0
        self._n_empty_scans: dict[int, int] = {}
        self._n_looks: dict[int, int] = {}
        self._foreign_since_s: float | None = None

    def step(self, batch: BatchRecord) -> Step:
        """
        Look once for `batch` (state ``unknown``, or ``posting`` left behind by a process that died).

        Returns
        -------
        Step
            With ``due_in_s=0`` when its state has changed: ``bound`` where it was found and proved, ``intent``
            where it certainly does not exist and may be posted.
        """
        if batch.state == "posting":
            batch = self._died_posting(batch)
        looked, server_at = self._look(batch)
        return looked or self._wait_or_post_again(self._place.store.batches.get(batch.key), server_at)

    def step_before_posting_again(self, batch: BatchRecord) -> Step | None:
        """
        Look once more for `batch`, which may have been posted: as far as is recorded, or by whoever recorded it.

        Since it was decided to post it again hours may have gone by; and what another process recorded may have been
        posted since, where a copy of the store was put back.

        Returns
        -------
        Step
            None where nothing was found and it may be posted.
        """
        looked, _ = self._look(batch)
        return looked

    def _look(self, batch: BatchRecord) -> tuple[Step | None, datetime | None]:
        """Look for `batch` once; return what that led to (None: nothing was found), and the server's time."""
        from pandas_batch.wire.failures import is_auth, is_foreign, is_transient

        server_at: datetime | None = None
        try:
            newer, server_at, hidden = newer_batches(self._place, batch)
            candidates = candidates_for(self._place, batch, newer)
            for candidate in candidates:
                if candidate.get("processing_status") == "ended" and self._settle(batch, candidate):
                    return Step(due_in_s=0.0), server_at
            tried = set(self._place.store.batches.get(batch.key).tried_ids)
            if hidden is not None and all(str(candidate["id"]) in tried for candidate in candidates):
                # What cannot be read may be the batch that is looked for.
                raise hidden
            self._foreign_since_s = None
        except Exception as error:
            self._n_failures += 1
            if is_auth(error):
                message = (
                    "A batch whose create answer was lost cannot be looked for: listing batches was refused. "
                    "It is not posted again."
                )
                error.add_note(message)
                return Step(due_in_s=None, error=error, message=message), server_at
            is_not_the_apis = isinstance(error, UnreadableAnswerError) or is_foreign(error)
            if is_not_the_apis and not self._is_foreign_for_long():
                said = clip(error.what if isinstance(error, UnreadableAnswerError) else str(error))
                message = f"A lost batch cannot be looked for at the moment. {said}"
                return Step(due_in_s=backoff_s(self._n_failures, first_s=2.0), message=message), server_at
            if is_not_the_apis or not is_transient(error):
                message = f"A lost batch could not be looked for, and is not posted again: {clip(str(error))}"
                error.add_note(
                    "A batch whose create answer was lost could not be looked for: listing batches failed. "
                    "It is not posted again."
                )
                return Step(due_in_s=None, error=error, message=message), server_at
            message = "The answer to a create was lost, and the server is not answering; trying again."
            return Step(due_in_s=backoff_s(self._n_failures, first_s=2.0), message=message), server_at
        self._n_failures = 0
        current = self._place.store.batches.get(batch.key)
        if current.state != batch.state:
            return Step(due_in_s=0.0), server_at
        open_candidates = [c for c in candidates if str(c["id"]) not in current.tried_ids]
        return (self._wait_for_proof(current, open_candidates) if open_candidates else None), server_at

    def _is_foreign_for_long(self) -> bool:
        now_s = self._place.clock.monotonic_s()
        if self._foreign_since_s is None:
            self._foreign_since_s = now_s
        return now_s - self._foreign_since_s >= FOREIGN_PATIENCE_S

    def _died_posting(self, batch: BatchRecord) -> BatchRecord:
        """Take over a batch whose poster died: when that was nobody knows, so the latest is supposed."""
        lost_after_s = LONGEST_POST_S
        if batch.posted_at is not None:
            since_s = (self._place.clock.now() - batch.posted_at).total_seconds()
            lost_after_s = since_s if 0 <= since_s < LONGEST_POST_S else LONGEST_POST_S
        changes: dict[str, Any] = {"doubt": "lost", "lost_after_s": lost_after_s}
        self._place.store.batches.transition(batch.key, expect={"posting"}, to="unknown", **changes)
        return replace(batch, state="unknown", **changes)

    # ---------------------------------------------------------------- proving

    def _settle(self, batch: BatchRecord, candidate: dict[str, Any]) -> bool:
        """Read whose batch an ended candidate is; bind it to its owner. Return whether that is `batch`."""
        from pandas_batch.wire.failures import is_not_found

        store = self._place.store
        candidate_id = str(candidate["id"])
        try:
            nonce = read_nonce(self._place, candidate_id)
        except Exception as error:
            if not candidate.get("archived_at"):
                if not is_not_found(error):
                    raise
                # A 404 passes, and what it hides may be the batch that is looked for: it stays a candidate.
                return False
            nonce = None
        reached("owner proved")
        owner = None if nonce is None else store.batches.of_nonce(nonce)
        if owner is not None and owner.state in WITHOUT_ID:
            store.batches.transition(
                owner.key,
                expect=WITHOUT_ID,
                to="bound",
                batch_id=candidate_id,
                proved=True,
                error="",
                doubt="",
                candidate_id=None,
                **times_of(candidate),
            )
            reached("batch bound")
            return owner.key == batch.key
        store.batches.add_tried_id(batch.key, candidate_id)
        return False

    def _wait_for_proof(self, batch: BatchRecord, candidates: list[dict[str, Any]]) -> Step:
        if batch.state == "intent":
            self._place.store.batches.transition(batch.key, expect={"intent"}, to="unknown")
        if len(candidates) == 1 and batch.candidate_id != candidates[0]["id"]:
            self._place.store.batches.update(
                batch.key, candidate_id=str(candidates[0]["id"]), **times_of(candidates[0])
            )
        self._n_empty_scans.pop(batch.key, None)
        n_looks = self._n_looks[batch.key] = self._n_looks.get(batch.key, 0) + 1
        return Step(
            due_in_s=backoff_s(n_looks, first_s=2.0, most_s=30.0),
            message="A batch of the right size was found; it is taken as ours only when its results prove it.",
        )

    def _wait_or_post_again(self, batch: BatchRecord, server_at: datetime | None) -> Step:
        place = self._place
        if batch.posted_at is None:
            # Recorded by an earlier process, and a batch of its size stood on the server that proved to be another's:
            # nothing says that it was ever posted, so there is no lost answer to wait for.
            place.store.batches.transition(batch.key, expect={"unknown"}, to="intent", candidate_id=None, counts={})
            return Step(due_in_s=0.0)
        n_scans = self._n_empty_scans[batch.key] = self._n_empty_scans.get(batch.key, 0) + 1
        # The server's clock on both sides where it is known: the machine's may have been set meanwhile.
        if server_at is not None and batch.server_posted_at is not None:
            waited_s = (server_at - batch.server_posted_at).total_seconds()
        else:
            waited_s = (place.clock.now() - batch.posted_at).total_seconds()
        grace_s = place.lost_answer_grace_s
        if batch.doubt == "overloaded":
            grace_s = min(grace_s, OVERLOADED_GRACE_S)
        left_s = grace_s - (waited_s - (batch.lost_after_s or 0.0))
        if left_s <= 0 and n_scans >= MIN_EMPTY_SCANS:
            if batch.doubt == "too_large" and batch.n_requests > 1 and not batch.cancel_asked:
                # Whoever found it too large will do so again; it was looked for, and was not let through.
                return split_in_halves(place.store, batch, expect={"unknown"})
            changes = {} if batch.first_posted_at is not None else _first_post_of(batch)
            if place.store.batches.transition(
                batch.key, expect={"unknown", "posting"}, to="intent", candidate_id=None, **changes
            ):
                self._n_empty_scans.pop(batch.key, None)
            return Step(due_in_s=0.0)
        after = (
            "It was canceled, and is not posted again."
            if batch.cancel_asked
            else f"If it does not show up within {grace_s:,.0f} s, it is posted again."
        )
        said = batch.error or ""
        what = {
            "overloaded": "The API is overloaded. Looking whether it took the batch all the same.",
            "not_the_api": f"Something that is not the API answered a create. Looking for the batch. {said}",
            "too_large": f"Something that is not the API found a batch too large. Looking for it. {said}",
        }.get(batch.doubt, "The answer to a create was lost. Looking for the batch.")
        return Step(
            due_in_s=min(backoff_s(n_scans, first_s=1.0, most_s=15.0), max(left_s, 1.0)), message=f"{what} {after}"
        )


def newer_batches(
    place: EngineContext, batch: BatchRecord
) -> tuple[list[dict[str, Any]], datetime | None, UnreadableAnswerError | None]:
    """Return the batches created after `batch` was (first) posted, as they are listed."""
    watermark_id, not_before, started_at = _watermark_of(batch)
    if started_at is None:
        # Nothing says that it was ever posted: it cannot have been before its run was recorded. Where that run was
        # deleted, and others wait for the batch, the whole list is read.
        with suppress(RunNotFoundError):
            started_at = place.store.runs.get(batch.run_id).created_at
    if watermark_id is None:
        not_before = None if started_at is None else started_at - timedelta(seconds=CLOCK_MARGIN_S)
    return place.wire.drive(
        newer_batches_flow(watermark_id, not_before, check=lambda page: place.check_workspace(batch, page.workspace_id))
    )


def candidates_for(place: EngineContext, batch: BatchRecord, newer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those of the listed batches that may be `batch`: of its size, not known already, not disproved."""
    excluded = place.store.batches.ids() | set(place.store.batches.get(batch.key).tried_ids)
    return place.wire.drive(candidates_flow(newer, n_requests=batch.n_requests, excluded=excluded))


def _first_post_of(batch: BatchRecord) -> dict[str, Any]:
    """Return the fields that keep when `batch` was posted first, before it is posted again."""
    return {
        "first_posted_at": batch.posted_at,
        "first_server_posted_at": batch.server_posted_at,
        "first_watermark_id": batch.watermark_id,
        "first_watermark_at": batch.watermark_at,
    }


def _watermark_of(batch: BatchRecord) -> tuple[str | None, datetime | None, datetime | None]:
    """Return the newest batch before the first POST of `batch`, when it was made, and when that POST began."""
    # Of two clocks the one that is behind: what a gateway calls the time may not be the API's.
    if batch.first_posted_at is not None:
        times = [at for at in (batch.first_server_posted_at, batch.first_posted_at) if at is not None]
        return batch.first_watermark_id, batch.first_watermark_at, min(times)
    times = [at for at in (batch.server_posted_at, batch.posted_at) if at is not None]
    return batch.watermark_id, batch.watermark_at, min(times, default=None)


class _Seen(Exception):
    """A custom_id has been read."""

    def __init__(self, custom_id: str) -> None:
        self.custom_id = custom_id


def read_nonce(place: EngineContext, batch_id: str) -> str | None:
    """
    Return the nonce in the first readable custom_id of a batch's results; None when the batch is not ours.

    No more is downloaded than the lines up to that one.
    """
    from pandas_batch.custom_ids import parse_custom_id

    rest = b""

    def until_custom_id(block: bytes) -> None:
        nonlocal rest
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if (custom_id := id_of(line)) is not None:
                raise _Seen(custom_id)

    try:
        place.wire.results(batch_id, until_custom_id)
        custom_id = id_of(rest)
    except _Seen as seen:
        custom_id = seen.custom_id
    if custom_id is None:
        # Results without a single readable line prove nothing either way.
        raise UnreadableAnswerError(f"The results of batch {batch_id} came broken.")
    parsed = parse_custom_id(custom_id)
    return None if parsed is None else parsed.nonce
