"""One batch of a `run`: posted, looked for where its create answer was lost, polled until it has ended."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from typing import Any

from pandas_batch.clock import Clock
from pandas_batch.errors import (
    InputError,
    LostAnswerError,
    ResultsGoneError,
    UnreadableAnswerError,
    WaitTimeout,
    clip,
)
from pandas_batch.requests.plain_values import shown
from pandas_batch.server_values import time_of
from pandas_batch.types import BatchJob, BatchResult
from pandas_batch.wire.backoff import backoff_s
from pandas_batch.wire.downloads import results_flow
from pandas_batch.wire.drivers import collect
from pandas_batch.wire.endpoints import Created, Page, create_flow, list_flow, retrieve_flow
from pandas_batch.wire.failures import is_not_found, is_spend_cap, is_transient, retry_after_s, server_time
from pandas_batch.wire.flows import Flow, Pause
from pandas_batch.wire.listing import candidates_flow, find_listed_flow, newer_batches_flow

from .bodies import Requests

FIRST_POLL_S = 2.0
SLOWEST_POLL_S = 60.0
NOT_FOUND_PATIENCE_S = 600.0
CONNECT_PATIENCE_S = 600.0
RATE_LIMIT_PATIENCE_S = 24 * 3600.0
WATERMARK_MARGIN_S = 60.0
"""How far the server's clock may disagree with its batches' times."""
MIN_EMPTY_LOOKS = 3
MAX_FOREIGN_ANSWERS = 3
"""How often a create is made where something else than the API answers, before the call stops and says what did."""
OVERLOADED_GRACE_S = 60.0
LIST_NEEDED = (
    "The list of batches was asked for, without which a lost answer could not be found again. Nothing was sent."
)
POST_AGAIN = "client.run(requests, timeout=None)"
"""What to type where nothing of a call has come to the server."""
ID_PREFIX = "msgbatch_"
"""How the API's ids begin; a gateway may have others, which only it knows."""


class Watched:
    """
    A batch on the server that is polled until it has ended.

    Attributes
    ----------
    job
        As last seen, or None.
    due_s
        When the next step is due, on the clock's monotonic scale.
    results
        Its results, where finding it out has already fetched them.
    """

    def __init__(self, batch_id: str | None, clock: Clock, poll_interval_s: float | None) -> None:
        self.batch_id = batch_id
        self.job: BatchJob | None = None
        self.results: list[BatchResult] | None = None
        self.due_s = clock.monotonic_s()
        self._clock = clock
        self._poll_interval_s = poll_interval_s
        self._n_polls = 0
        self._n_failures = 0
        self._not_found_since_s: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self.job is not None and self.job.is_complete

    def step(self) -> Flow[None]:
        """Do what is due, and set when the next thing is."""
        return self._poll()

    def _due_in(self, seconds: float) -> None:
        self.due_s = self._clock.monotonic_s() + seconds

    def _poll(self) -> Flow[None]:
        batch_id = self.batch_id or ""
        try:
            polled = yield from retrieve_flow(batch_id)
        except Exception as error:
            if is_not_found(error):
                if self.job is None and not batch_id.startswith(ID_PREFIX):
                    raise no_batch_id(batch_id) from None
                yield from self._not_found(batch_id, error)
                return
            if not is_transient(error):
                raise
            self._n_failures += 1
            self._due_in(max(backoff_s(self._n_failures, first_s=FIRST_POLL_S), retry_after_s(error) or 0.0))
            return
        self._seen(polled.batch, retry_after=polled.retry_after_s)

    def _seen(self, batch: dict[str, Any], *, retry_after: float | None = None) -> None:
        self._n_failures = 0
        self._not_found_since_s = None
        self.job = BatchJob.from_api(batch)
        if self._poll_interval_s is not None:
            # The user's word weighs more than the server's wish; only a refusal (429) is obeyed against it.
            self._due_in(self._poll_interval_s)
            return
        growing_s = min(SLOWEST_POLL_S, FIRST_POLL_S * 1.5 ** min(self._n_polls, 16))
        self._n_polls += 1
        self._due_in(max(growing_s * (0.9 + secrets.randbelow(201) / 1000), retry_after or 0.0))

    def _not_found(self, batch_id: str, error: Exception) -> Flow[None]:
        """Believe a 404 only after ten minutes, and when the list lacks the batch too."""
        now_s = self._clock.monotonic_s()
        if self._not_found_since_s is None:
            self._not_found_since_s = now_s
        if now_s - self._not_found_since_s >= NOT_FOUND_PATIENCE_S:
            try:
                listed = yield from find_listed_flow(batch_id, self.job.created_at if self.job else None)
            except Exception as list_error:
                if not is_transient(list_error):
                    raise
                self._due_in(SLOWEST_POLL_S)
                return
            if listed is None:
                raise ResultsGoneError(
                    f"The server does not know batch {batch_id!r}, and does not list it either.",
                    "It was deleted, or belongs to another workspace than this key. What it cost is spent.",
                    "client.list()   # with the key that made it",
                ) from error
            self._seen(listed)
            return
        self._n_failures += 1
        self._due_in(backoff_s(self._n_failures, first_s=FIRST_POLL_S, most_s=30.0))


def no_batch_id(given: Any) -> InputError:
    """Return what is said where something is given for a batch that is no id of one."""
    return InputError(
        f"batch_id is {shown(given)}, which is no batch id.",
        hint='client.list()   # shows those that are there; an id looks like "msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d"',
    )


def post_flow(
    requests: Requests,
    clock: Clock,
    *,
    patience_s: float,
    rate_limit_patience_s: float | None = None,
    deadline_s: float = math.inf,
) -> Flow[Created]:
    """
    POST a create; again only where it is certain that the server did not take it.

    Parameters
    ----------
    requests, clock
        What to send, and what tells the time.
    patience_s
        How long a server that cannot be reached is tried.
    rate_limit_patience_s
        How long one that is reached, and says 429, is tried (a full queue may take hours); None: as long.
    deadline_s
        When no further try may begin, on the clock's monotonic scale.
    """
    start_s = clock.monotonic_s()
    n_failures = 0
    while True:
        created: Created = yield from create_flow(requests.body())
        if created.outcome != "retry":
            return created
        n_failures += 1
        pause_s = max(backoff_s(n_failures), created.retry_after_s or 0.0)
        most_s = patience_s
        if created.status_code == 429 and rate_limit_patience_s is not None:
            most_s = rate_limit_patience_s
        now_s = clock.monotonic_s()
        if now_s + pause_s - start_s > most_s:
            return created
        if now_s + pause_s > deadline_s:
            raise never_posted(len(requests), created.error) from created.error
        yield Pause(pause_s)


class Posted(Watched):
    """
    A batch that a `run` makes. Where its create answer is lost, it is looked for before anything is posted again.

    Parameters
    ----------
    requests
        What it carries.
    grace_s
        How long to look before posting again.
    owned
        Ids of the batches that this client is known to have made: what one of them is, no other is.
    deadline_s
        When whoever waits for it gives up, on the clock's monotonic scale; None: never.

    Attributes
    ----------
    is_lost
        Whether it may be on the server without an id having come back.
    """

    def __init__(
        self,
        requests: Requests,
        clock: Clock,
        *,
        poll_interval_s: float | None,
        grace_s: float,
        owned: set[str],
        deadline_s: float | None = None,
    ) -> None:
        super().__init__(None, clock, poll_interval_s)
        self.requests = requests
        self.posted_at: datetime | None = None
        self.is_lost = False
        self._custom_ids = frozenset(requests.custom_ids)
        self._grace_s = grace_s
        self._owned = owned
        self._watermark_id: str | None = None
        self._watermark_at: datetime | None = None
        self._posted_s = 0.0
        self._disproved: set[str] = set()
        self._n_empty_looks = 0
        self._n_looks = 0
        self._n_foreign = 0
        self._doubt = ""
        self._hidden: UnreadableAnswerError | None = None
        self._deadline_s = math.inf if deadline_s is None else deadline_s

    def step(self) -> Flow[None]:
        """Poll; or, while the batch is not known, look for it."""
        return self._poll() if self.batch_id is not None else self._look()

    def post(self) -> Flow[list[Posted]]:
        """Post; return the halves to post instead where the server found the whole too large."""
        if self.posted_at is None:
            # Only before the first POST: what a lost one made must stay newer than the mark.
            yield from self._mark()
        self.posted_at = self._clock.now()
        was_lost, self.is_lost = self.is_lost, True
        try:
            created = yield from post_flow(
                self.requests,
                self._clock,
                patience_s=CONNECT_PATIENCE_S,
                rate_limit_patience_s=RATE_LIMIT_PATIENCE_S,
                deadline_s=self._deadline_s,
            )
        except WaitTimeout:
            self.is_lost = was_lost
            raise
        self.is_lost = created.outcome == "unknown"
        if created.outcome == "created" and created.batch is not None:
            self.batch_id = str(created.batch["id"])
            self._owned.add(self.batch_id)
            self._seen(created.batch, retry_after=created.retry_after_s)
            return []
        if created.outcome == "unknown":
            self._posted_s = self._clock.monotonic_s()
            self._n_empty_looks = 0
            self._doubt = created.doubt
            self._due_in(backoff_s(1))
            if created.doubt in ("not_the_api", "too_large"):
                self._n_foreign += 1
                if self._n_foreign >= MAX_FOREIGN_ANSWERS:
                    raise foreign_answers(created, self._n_foreign)
            return []
        if created.outcome == "too_large" and len(self.requests) > 1:
            return [
                Posted(
                    half,
                    self._clock,
                    poll_interval_s=self._poll_interval_s,
                    grace_s=self._grace_s,
                    owned=self._owned,
                    deadline_s=self._deadline_s,
                )
                for half in self.requests.halves()
            ]
        raise refusal(created, len(self.requests))

    def _mark(self) -> Flow[None]:
        """Note the newest batch: what is newer afterwards may be the one whose answer got lost."""
        until_s = self._clock.monotonic_s() + CONNECT_PATIENCE_S
        n_failures = 0
        while True:
            try:
                page: Page = yield from list_flow(limit=1)
            except Exception as error:
                n_failures += 1
                pause_s = max(backoff_s(n_failures), retry_after_s(error) or 0.0)
                told_at = server_time(error)
                # A key or a gateway that knows no list: as long as nothing is lost, none is needed.
                is_refused = not is_transient(error) and getattr(error, "status_code", 401) != 401
                if (is_refused or n_failures > MIN_EMPTY_LOOKS) and told_at is not None:
                    # The server's own clock has to do, less a margin; what a gateway calls the time may be ahead.
                    self._watermark_id = None
                    self._watermark_at = min(told_at, self._clock.now()) - timedelta(seconds=WATERMARK_MARGIN_S)
                    return
                if not is_transient(error) or self._clock.monotonic_s() > until_s:
                    error.add_note(LIST_NEEDED)
                    raise
                if self._clock.monotonic_s() + pause_s > self._deadline_s:
                    raise never_posted(len(self.requests), error) from error
                yield Pause(pause_s)
                continue
            self._watermark_id = page.batches[0]["id"] if page.batches else None
            self._watermark_at = time_of(page.batches[0].get("created_at")) if page.batches else None
            return

    def _look(self) -> Flow[None]:
        try:
            candidates = yield from self._candidates()
            for candidate in candidates:
                if candidate.get("processing_status") == "ended":
                    yield from self._prove(candidate)
                    if self.batch_id is not None:
                        return
            is_open = any(candidate["id"] not in self._disproved for candidate in candidates)
            if self._hidden is not None and not is_open:
                # What cannot be read may be the batch that is looked for.
                raise self._hidden
        except Exception as error:
            if not is_transient(error):
                error.add_note(
                    "A create answer was lost, and its batch cannot be looked for: listing batches was refused."
                )
                raise
            self._n_failures += 1
            self._due_in(max(backoff_s(self._n_failures), retry_after_s(error) or 0.0))
            return
        self._n_failures = 0
        self._n_looks += 1
        if is_open:
            # One that still runs may be ours: nothing is posted again while it is not disproved.
            self._n_empty_looks = 0
            self._due_in(backoff_s(self._n_looks, first_s=FIRST_POLL_S, most_s=30.0))
            return
        self._n_empty_looks += 1
        grace_s = min(self._grace_s, OVERLOADED_GRACE_S) if self._doubt == "overloaded" else self._grace_s
        left_s = self._posted_s + grace_s - self._clock.monotonic_s()
        if left_s <= 0 and self._n_empty_looks >= MIN_EMPTY_LOOKS:
            halves = yield from self.post()
            if halves:
                raise LostAnswerError(
                    f"A create of {len(self.requests):,} requests was lost, and is too large when posted again.",
                    "No batch of that size is on the server; nothing is known to be billed for it.",
                    "client.run(requests)",
                    n_requests=len(self.requests),
                    posted_at=self.posted_at,
                )
            return
        self._due_in(min(backoff_s(self._n_empty_looks, most_s=15.0), max(left_s, 1.0)))

    def _candidates(self) -> Flow[list[dict[str, Any]]]:
        """Return the batches newer than the watermark, of our size, that nobody is known to own."""
        newer, _, self._hidden = yield from newer_batches_flow(self._watermark_id, self._watermark_at)
        return (
            yield from candidates_flow(newer, n_requests=len(self.requests), excluded=self._owned | self._disproved)
        )

    def _prove(self, candidate: dict[str, Any]) -> Flow[None]:
        """Take an ended candidate as ours if its results hold our ids and no other."""
        job = BatchJob.from_api(candidate)
        try:
            results: list[BatchResult] = yield from collect(
                results_flow(
                    job.batch_id,
                    self._clock,
                    n_requests=len(self.requests),
                    at=job.created_at,
                    model_asked=self.requests.model_of,
                ),
                enough=lambda result: result.custom_id not in self._custom_ids,
            )
        except Exception as error:
            if not is_not_found(error) or candidate.get("archived_at"):
                raise
            # A 404 passes, and what it hides may be the batch that is looked for: it stays a candidate.
            return
        is_ours = bool(results) and all(result.custom_id in self._custom_ids for result in results)
        if is_ours and job.batch_id not in self._owned:
            self._owned.add(job.batch_id)
            self.batch_id, self.job, self.results = job.batch_id, job, results
        else:
            self._disproved.add(job.batch_id)


def foreign_answers(created: Created, n: int) -> UnreadableAnswerError:
    """Return the error that says what answers creates in the API's place."""
    said = created.error.what if isinstance(created.error, UnreadableAnswerError) else str(created.error)
    return UnreadableAnswerError(
        f"Each of the last {n} creates was answered by something that is not the API. {said}",
        "Whether it let one of them through is not known: client.list() shows it as soon as the API can be reached.",
        "Open the base URL in a browser, or ask who runs the network.",
    )


def never_posted(n_requests: int, error: Exception | None) -> WaitTimeout:
    """Return the error of a batch whose POST was not taken before whoever waits for it gave up."""
    why = clip(str(error).partition("\n")[0] or type(error).__name__, 300)
    return WaitTimeout(
        f"A batch of {n_requests:,} requests could not be posted before the timeout: {why}",
        "That made no batch of them, and nothing was billed for it.",
        POST_AGAIN,
    )


def refusal(created: Created, n_requests: int) -> Exception:
    """Return the error of a create that certainly made no batch, with a note saying so."""
    error = created.error or LostAnswerError("A create failed without a word.", n_requests=n_requests)
    why = " A spend limit is reached; it is lifted by its owner, or by the next month." if is_spend_cap(error) else ""
    error.add_note(f"No batch was made of these {n_requests:,} requests, nothing was billed for them.{why}")
    return error


def until_ended(
    parts: Collection[Watched], clock: Clock, *, timeout_s: float | None, start_s: float | None = None
) -> Flow[None]:
    """Step through `parts` as they fall due until all have ended; raise `WaitTimeout` `timeout_s` after `start_s`."""
    start_s = clock.monotonic_s() if start_s is None else start_s
    while True:
        for part in parts:
            if not part.has_ended and part.due_s <= clock.monotonic_s():
                yield from part.step()
        open_parts = [part for part in parts if not part.has_ended]
        if not open_parts:
            return
        now_s = clock.monotonic_s()
        pause_s = max(min(part.due_s for part in open_parts) - now_s, 0.0)
        if timeout_s is not None:
            left_s = start_s + timeout_s - now_s
            if left_s <= 0:
                raise _timeout(parts, timeout_s)
            pause_s = min(pause_s, left_s)
        if pause_s > 0:
            yield Pause(pause_s)


def _timeout(parts: Collection[Watched], timeout_s: float) -> WaitTimeout:
    open_parts = [part for part in parts if not part.has_ended]
    jobs = [part.job for part in parts if part.job is not None]
    n_unknown = sum(part.batch_id is None for part in open_parts)
    unknown = f" {n_unknown} create answers were lost, and their batches not found yet." if n_unknown else ""
    return WaitTimeout(
        f"{len(open_parts)} of {len(parts)} batches had not ended after {timeout_s:,.0f} s.",
        f"Nothing was canceled: they go on, and are billed as they go.{unknown}",
        "\n".join(lines_to_go_on(parts)),
        run=jobs[0] if len(jobs) == 1 else tuple(jobs),
    )


def lines_to_go_on(parts: Collection[Watched]) -> Iterator[str]:
    """Yield the line to type for each batch that is known."""
    return (f'client.wait("{part.batch_id}")' for part in parts if part.batch_id is not None)
