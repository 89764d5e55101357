"""Find a batch whose create answer was lost, and prove that it is ours before a row of it is believed.

The API has no idempotency key and lets nothing be written on a batch but the custom_ids of its requests, which
can be read only from the results of an ended batch. So a lost create is *looked for* among the batches newer
than the newest one seen before the POST, of the right size and not ours already; and *proved* by the nonce in
the custom_ids of its results. While a candidate is unproved, nothing is posted again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pandas_batch.answers.result_lines import id_of
from pandas_batch.errors import UnreadableAnswerError

from .failpoints import reached
from .posting import LOST_AFTER_S, Step, Workplace, backoff_s, times_of

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord

CLOCK_MARGIN_S = 300.0
"""How far a server's `Date` may lie from the `created_at` it writes, when that has to stand in for a watermark."""

LONGEST_POST_S = 3600.0
"""How long after its beginning a POST may still have been under way when its process died."""

FIRST_POST = "first_post"
"""Names, in a batch's `extra`, before what and when it was posted first, where it was to be posted again."""

MIN_EMPTY_SCANS = 3

NO_RESULTS_AFTER_S = 600.0
"""How long results that an ended candidate should have may be answered with 404 before they prove nothing."""

_WITHOUT_ID = frozenset({"intent", "posting", "unknown", "refused"})
"""States in which a batch may yet turn out to be on the server."""

_PAGE = 100


class Reconciler:
    """Looks for the lost batches of one run; remembers between steps how often it has looked."""

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._n_failures = 0
        self._n_empty_scans: dict[int, int] = {}
        self._n_looks: dict[int, int] = {}
        self._no_results_since_s: dict[str, float] = {}

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
        return looked or self._wait_or_post_again(batch, server_at)

    def step_before_posting_again(self, batch: BatchRecord) -> Step | None:
        """
        Look once more for `batch`, which is to be posted again: since that was decided, hours may have gone by.

        Returns
        -------
        Step
            None where nothing was found and it may be posted.
        """
        looked, _ = self._look(batch)
        return looked

    def _look(self, batch: BatchRecord) -> tuple[Step | None, datetime | None]:
        """Look for `batch` once; return what that led to (None: nothing was found), and the server's time."""
        from pandas_batch.wire.failures import is_auth, is_transient

        server_at: datetime | None = None
        try:
            newer, server_at = newer_batches(self._place, batch)
            candidates = candidates_for(self._place, batch, newer)
            for candidate in candidates:
                if candidate.get("processing_status") == "ended" and self._settle(batch, candidate):
                    return Step(due_in_s=0.0), server_at
        except Exception as error:
            self._n_failures += 1
            if is_auth(error):
                message = "The key was not accepted while a lost batch was looked for."
                return Step(due_in_s=None, error=error, message=message), server_at
            if not is_transient(error):
                return Step(due_in_s=None, error=error, message="A lost batch could not be looked for."), server_at
            message = "The answer to a create was lost, and the server is not answering; trying again."
            return Step(due_in_s=backoff_s(self._n_failures, first_s=2.0), message=message), server_at
        self._n_failures = 0
        current = self._place.store.batch(batch.key)
        if current.state != batch.state:
            return Step(due_in_s=0.0), server_at
        open_candidates = [c for c in candidates if str(c["id"]) not in current.tried_ids]
        return (self._wait_for_proof(current, open_candidates) if open_candidates else None), server_at

    def _died_posting(self, batch: BatchRecord) -> BatchRecord:
        """Take over a batch whose poster died: when that was nobody knows, so the latest is supposed."""
        lost_after_s = LONGEST_POST_S
        if batch.posted_at is not None:
            since_s = (self._place.clock.now() - batch.posted_at).total_seconds()
            lost_after_s = since_s if 0 <= since_s < LONGEST_POST_S else LONGEST_POST_S
        extra = dict(batch.extra) | {LOST_AFTER_S: lost_after_s}
        self._place.store.transition(batch.key, expect={"posting"}, to="unknown", extra=extra)
        return replace(batch, state="unknown", extra=extra)

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
                # A 404 may pass, and what it hides may be the batch that is looked for.
                now_s = self._place.clock.monotonic_s()
                if now_s - self._no_results_since_s.setdefault(candidate_id, now_s) < NO_RESULTS_AFTER_S:
                    return False
            nonce = None
        reached("owner proved")
        owner = None if nonce is None else store.batch_of_nonce(nonce)
        if owner is not None and owner.state in _WITHOUT_ID:
            store.transition(
                owner.key,
                expect=_WITHOUT_ID,
                to="bound",
                batch_id=candidate_id,
                proved=True,
                error="",
                **times_of(candidate),
            )
            reached("batch bound")
            return owner.key == batch.key
        current = store.batch(batch.key)
        extra = {name: value for name, value in current.extra.items() if value != candidate_id}
        store.update_batch(batch.key, tried_ids=(*current.tried_ids, candidate_id), extra=extra)
        return False

    def _wait_for_proof(self, batch: BatchRecord, candidates: list[dict[str, Any]]) -> Step:
        if batch.state == "intent":
            self._place.store.transition(batch.key, expect={"intent"}, to="unknown")
        if len(candidates) == 1 and batch.extra.get("candidate_id") != candidates[0]["id"]:
            self._place.store.update_batch(
                batch.key,
                extra=dict(batch.extra) | {"candidate_id": str(candidates[0]["id"])},
                **times_of(candidates[0]),
            )
        self._n_empty_scans.pop(batch.key, None)
        n_looks = self._n_looks[batch.key] = self._n_looks.get(batch.key, 0) + 1
        return Step(
            due_in_s=backoff_s(n_looks, first_s=2.0, most_s=30.0),
            message="A batch of the right size was found; it is taken as ours only when its results prove it.",
        )

    def _wait_or_post_again(self, batch: BatchRecord, server_at: datetime | None) -> Step:
        place = self._place
        n_scans = self._n_empty_scans[batch.key] = self._n_empty_scans.get(batch.key, 0) + 1
        # The server's clock on both sides where it is known: the machine's may have been set meanwhile.
        if server_at is not None and batch.server_posted_at is not None:
            waited_s = (server_at - batch.server_posted_at).total_seconds()
        elif batch.posted_at is not None:
            waited_s = (place.clock.now() - batch.posted_at).total_seconds()
        else:
            waited_s = 0.0
        left_s = place.lost_answer_grace_s - (waited_s - float(batch.extra.get(LOST_AFTER_S, 0.0)))
        if left_s <= 0 and n_scans >= MIN_EMPTY_SCANS:
            extra = {FIRST_POST: _post_of(batch)} | _without_candidate(batch.extra)
            if place.store.transition(batch.key, expect={"unknown", "posting"}, to="intent", extra=extra):
                self._n_empty_scans.pop(batch.key, None)
            return Step(due_in_s=0.0)
        return Step(
            due_in_s=min(backoff_s(n_scans, first_s=1.0, most_s=15.0), max(left_s, 1.0)),
            message=(
                "The answer to a create was lost. Looking for the batch; if it does not show up within "
                f"{place.lost_answer_grace_s:,.0f} s, it is posted again."
            ),
        )


def newer_batches(place: Workplace, batch: BatchRecord) -> tuple[list[dict[str, Any]], datetime | None]:
    """Return the batches created after `batch` was (first) posted, newest first, and the server's time."""
    post = batch.extra.get(FIRST_POST) or _post_of(batch)
    watermark_id = post["watermark_id"]
    if watermark_id is not None:
        not_before = _time_of(post["watermark_at"])
    else:
        started_at = _time_of(post["server_posted_at"]) or _time_of(post["posted_at"])
        not_before = None if started_at is None else started_at - timedelta(seconds=CLOCK_MARGIN_S)
    newer: list[dict[str, Any]] = []
    after_id: str | None = None
    while True:
        page = place.wire.list(limit=_PAGE, after_id=after_id)
        place.check_workspace(batch, page.workspace_id)
        for listed in page.batches:
            created_at = datetime.fromisoformat(listed["created_at"])
            if str(listed["id"]) == watermark_id or (not_before is not None and created_at < not_before):
                return newer, page.server_at
            newer.append(listed)
        after_id = page.last_id
        if not page.has_more or not after_id:
            return newer, page.server_at


def candidates_for(place: Workplace, batch: BatchRecord, newer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those of the listed batches that may be `batch`: of its size, not known already, not disproved."""
    known = place.store.batch_ids()
    tried = set(place.store.batch(batch.key).tried_ids)
    return [
        listed
        for listed in newer
        if sum((listed.get("request_counts") or {}).values()) == batch.n_requests
        and str(listed["id"]) not in known
        and str(listed["id"]) not in tried
    ]


def _post_of(batch: BatchRecord) -> dict[str, str | None]:
    """Return what tells when `batch` was posted, as JSON can hold it."""
    times = {name: getattr(batch, name) for name in ("watermark_at", "server_posted_at", "posted_at")}
    written = {name: None if at is None else at.astimezone(UTC).isoformat() for name, at in times.items()}
    return {"watermark_id": batch.watermark_id} | written


def _time_of(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _without_candidate(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in extra.items() if name != "candidate_id"}


class _Seen(Exception):
    """A custom_id has been read."""

    def __init__(self, custom_id: str) -> None:
        self.custom_id = custom_id


def read_nonce(place: Workplace, batch_id: str) -> str | None:
    """
    Return the nonce in the first readable custom_id of a batch's results; None when the batch is not ours.

    No more is downloaded than the lines up to that one.
    """
    from pandas_batch.requests.fingerprints import parse_custom_id

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
