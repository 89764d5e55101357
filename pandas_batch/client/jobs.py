"""What the client layer does, as flows: submit, status, results, wait, run, cancel, list, delete."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pandas_batch.clock import Clock
from pandas_batch.errors import (
    InputError,
    LostAnswerError,
    NotEndedError,
    ResultsGoneError,
    UnreadableAnswerError,
    WaitTimeout,
)
from pandas_batch.requests.options import check_option
from pandas_batch.requests.parameters import whole_number
from pandas_batch.types import BatchJob, BatchRequest, BatchResult, System
from pandas_batch.wire.backoff import backoff_s
from pandas_batch.wire.downloads import results_flow
from pandas_batch.wire.drivers import collect
from pandas_batch.wire.endpoints import Page, Polled, cancel_flow, delete_flow, list_flow, retrieve_flow
from pandas_batch.wire.failures import is_not_found, is_transient, retry_after_s
from pandas_batch.wire.flows import Flow, Pause
from pandas_batch.wire.listing import each_page_flow

from .bodies import Requests, encode_requests, refuse_single_giants, refuse_too_large
from .parts import ID_PREFIX, POST_AGAIN, Posted, Watched, lines_to_go_on, no_batch_id, post_flow, refusal, until_ended

if TYPE_CHECKING:
    from pandas_batch.requests.schema import OutputSchema

SUBMIT_PATIENCE_S = 30.0
_N_TRIES = 4
_N_TRIES_NOT_FOUND = 3
_MOST_LISTED = 1000
"""The API's largest page."""


class Jobs:
    """
    The flows of one client.

    Parameters
    ----------
    model, system, max_tokens
        Stand in for what a request leaves out.
    output_schema
        What every answer has to fit, where a call gives no other.
    grace_s
        How long `run` looks for a batch whose create answer was lost.
    clock
        What tells the time.
    """

    def __init__(
        self, *, model: str, system: System, max_tokens: int, output_schema: Any, grace_s: float, clock: Clock
    ) -> None:
        self._model = model
        self._system = system
        self._max_tokens = max_tokens
        self._schema = _schema_of(output_schema)
        self._grace_s = check_option("lost_answer_grace", grace_s)
        self._clock = clock
        self._owned: set[str] = set()

    def submit(
        self, requests: Iterable[BatchRequest | Mapping[str, Any]], *, system: System, output_schema: Any = None
    ) -> Flow[BatchJob]:
        """Make one batch."""
        encoded = self._encode(requests, system, self._schema_for(output_schema))
        if not encoded.lines:
            raise InputError("There are no requests.", hint='client.submit([BatchRequest("task-1", "...")])')
        refuse_too_large(encoded)
        created = yield from post_flow(encoded, self._clock, patience_s=SUBMIT_PATIENCE_S)
        if created.outcome == "created" and created.batch is not None:
            job = BatchJob.from_api(created.batch)
            self._owned.add(job.batch_id)
            return job
        if created.outcome == "unknown":
            posted_at = (created.server_at or self._clock.now()).astimezone(UTC)
            what = f"was lost ({type(created.error).__name__}{_status(created.status_code)})"
            if isinstance(created.error, UnreadableAnswerError):
                what = f"is not the API's. {created.error.what}"
            raise LostAnswerError(
                f"The answer to a create of {len(encoded):,} requests {what.rstrip('.')}.",
                "The batch may exist, and is billed then. It was posted once, and is not posted again by itself.",
                f"[job for job in client.list(100) if job.n_requests == {len(encoded)}]"
                f"   # made about {posted_at:%Y-%m-%d %H:%M:%S} UTC? then client.wait(its batch_id)",
                n_requests=len(encoded),
                posted_at=posted_at,
            ) from created.error
        raise refusal(created, len(encoded))

    def status(self, batch_id: str | BatchJob) -> Flow[BatchJob]:
        """Look at a batch."""
        name = _id_of(batch_id)
        polled: Polled = yield from _patiently(lambda: retrieve_flow(name), name)
        return BatchJob.from_api(polled.batch)

    def iter_results(self, batch_id: str | BatchJob, *, output_schema: Any = None) -> Flow[None]:
        """Emit the results of an ended batch."""
        schema = self._schema_for(output_schema)
        job = yield from self.status(batch_id)
        yield from self._results_of(job, schema)

    def results(self, batch_id: str | BatchJob, *, output_schema: Any = None) -> Flow[list[BatchResult]]:
        """Return the results of an ended batch."""
        return (yield from collect(self.iter_results(batch_id, output_schema=output_schema)))

    def wait(
        self, batch_id: str | BatchJob, *, poll_interval: float | None, timeout: float | None, output_schema: Any = None
    ) -> Flow[list[BatchResult]]:
        """Poll a batch until it has ended and return its results."""
        _check_times(poll_interval, timeout)
        schema = self._schema_for(output_schema)
        part = Watched(_id_of(batch_id), self._clock, poll_interval)
        try:
            yield from until_ended([part], self._clock, timeout_s=timeout)
            if part.job is None:
                return []
            return (yield from collect(self._results_of(part.job, schema)))
        except BaseException as error:
            _note_what_goes_on(error, [part])
            raise

    def run(
        self,
        requests: Iterable[BatchRequest | Mapping[str, Any]],
        *,
        system: System,
        output_schema: Any = None,
        poll_interval: float | None,
        timeout: float | None,
    ) -> Flow[list[BatchResult]]:
        """Post requests in as many batches as they need, wait, and return the results in the order of the requests."""
        _check_times(poll_interval, timeout)
        schema = self._schema_for(output_schema)
        encoded = self._encode(requests, system, schema)
        refuse_single_giants(encoded)
        start_s = self._clock.monotonic_s()
        parts = [
            Posted(
                chunk,
                self._clock,
                poll_interval_s=poll_interval,
                grace_s=self._grace_s,
                owned=self._owned,
                deadline_s=None if timeout is None else start_s + timeout,
            )
            for chunk in encoded.split()
        ]
        try:
            position = 0
            while position < len(parts):
                halves = yield from parts[position].post()
                if halves:
                    parts[position : position + 1] = halves
                else:
                    position += 1
            yield from until_ended(parts, self._clock, timeout_s=timeout, start_s=start_s)
            by_id: dict[str, BatchResult] = {}
            for part in parts:
                for result in part.results or (yield from self._results_of_part(part)):
                    by_id[result.custom_id] = result
        except BaseException as error:
            _note_what_goes_on(error, parts)
            raise
        return [_parsed(by_id.get(custom_id) or _missing(custom_id), schema) for custom_id in encoded.custom_ids]

    def cancel(self, batch_id: str | BatchJob) -> Flow[bool]:
        """Ask for a batch to be canceled."""
        name = _id_of(batch_id)
        try:
            batch = yield from _patiently(lambda: cancel_flow(name), name)
        except Exception as error:
            if getattr(error, "status_code", None) not in (400, 409):
                raise
            job = yield from self.status(batch_id)
            if not job.is_complete:
                raise
            return False
        job = BatchJob.from_api(batch)
        return job.status == "canceling" or job.cancel_initiated_at is not None

    def newest(self, limit: int) -> Flow[list[BatchJob]]:
        """Return the newest batches."""
        try:
            limit = whole_number(limit, "limit")
        except InputError as error:
            raise InputError(error.what, error.state, "client.list(20)") from None
        jobs: list[BatchJob] = []

        def read(after_id: str | None) -> Flow[Page]:
            n = min(limit - len(jobs), _MOST_LISTED)
            return _patiently(lambda: list_flow(limit=n, after_id=after_id))

        def visit(page: Page) -> bool:
            jobs.extend(BatchJob.from_api(batch) for batch in page.batches)
            return len(jobs) >= limit

        yield from each_page_flow(visit, read=read)
        return jobs[:limit]

    def delete(self, batch_id: str | BatchJob) -> Flow[None]:
        """Delete an ended batch from the server."""
        name = _id_of(batch_id)
        try:
            yield from _patiently(lambda: delete_flow(name), name)
        except Exception as error:
            if getattr(error, "status_code", None) not in (400, 409):
                raise
            job = yield from self.status(batch_id)
            if job.is_complete:
                raise
            raise NotEndedError(
                f"Batch {name} is {job.status} and cannot be deleted before it has ended.",
                "Nothing was deleted.",
                f'client.cancel("{name}")   # ends it early',
            ) from error

    # ---------------------------------------------------------------- parts of these

    def _schema_for(self, output_schema: Any) -> OutputSchema | None:
        return self._schema if output_schema is None else _schema_of(output_schema)

    def _encode(
        self, requests: Iterable[BatchRequest | Mapping[str, Any]], system: System, schema: OutputSchema | None
    ) -> Any:
        return encode_requests(
            requests,
            model=self._model,
            system=self._system if system is None else system,
            max_tokens=self._max_tokens,
            schema=schema,
        )

    def _results_of_part(self, part: Posted) -> Flow[list[BatchResult]]:
        job = part.job
        if job is None:
            return []
        return (yield from collect(self._results_of(job, None, asked=part.requests)))

    def _results_of(self, job: BatchJob, schema: OutputSchema | None, *, asked: Requests | None = None) -> Flow[None]:
        if not job.is_complete:
            raise NotEndedError(
                f"Batch {job.batch_id} is {job.status}: {job.request_counts.get('processing', 0):,} of "
                f"{job.n_requests:,} requests are being processed.",
                "Results can be had when the whole batch has ended, at the latest 24 hours after it was made.",
                f'client.wait("{job.batch_id}")',
            )
        if job.archived_at is not None:
            raise ResultsGoneError(
                f"The results of batch {job.batch_id} were removed from the server on {job.archived_at:%Y-%m-%d}.",
                "They are kept for 29 days. What the batch cost is spent.",
            )
        if asked is None:
            yield from results_flow(
                job.batch_id,
                self._clock,
                n_requests=job.n_requests,
                at=job.created_at,
                finished=lambda result: _parsed(result, schema),
            )
            return
        yield from results_flow(
            job.batch_id,
            self._clock,
            n_requests=len(asked),
            custom_ids=frozenset(asked.custom_ids),
            at=job.created_at,
            model_asked=asked.model_of,
        )


_NOT_THERE = (
    "The server knows no batch of this id: it was deleted, belongs to another workspace than this key, or is misspelt. "
    "client.list() shows those that are there."
)


def _id_of(batch: Any) -> str:
    """Return the id of a batch that was given as its id, as a `BatchJob`, or as the SDK's own object."""
    name = batch if isinstance(batch, str) else getattr(batch, "batch_id", None) or getattr(batch, "id", None)
    if isinstance(name, str) and (isinstance(batch, str) or name.startswith(ID_PREFIX)):
        return name.strip()
    raise no_batch_id(batch)


def _patiently(call: Any, batch_id: str = ID_PREFIX) -> Flow[Any]:
    """Make a call that may be repeated, a few times."""
    n_failures = 0
    while True:
        try:
            return (yield from call())
        except Exception as error:
            n_failures += 1
            if is_not_found(error):
                if not batch_id.startswith(ID_PREFIX):
                    raise no_batch_id(batch_id) from None
                # Seen for minutes after a create that had succeeded, and just after the end.
                if n_failures >= _N_TRIES_NOT_FOUND:
                    error.add_note(_NOT_THERE)
                    raise
            elif not is_transient(error) or n_failures >= _N_TRIES:
                raise
            yield Pause(max(backoff_s(n_failures), retry_after_s(error) or 0.0))


def _schema_of(output_schema: Any) -> OutputSchema | None:
    if output_schema is None:
        return None
    from pandas_batch.requests.schema import OutputSchema

    return OutputSchema.of(output_schema)


def _parsed(result: BatchResult, schema: OutputSchema | None) -> BatchResult:
    """Return a result with what its answer says; one whose answer does not fit is ``invalid``."""
    if schema is None or not result.succeeded:
        return result
    from pandas_batch.results.answer_contents import texts_of

    texts = texts_of((result.message or {}).get("content") or ())
    last = texts[-1] if len(texts) > 1 and isinstance(texts[-1], str) else None
    if not texts and result.tool_calls:
        # The call of a tool that was asked for besides.
        return result
    parsed, why = schema.parsed(result.output, result.stop_reason, last)
    if why:
        return replace(result, status="invalid", error=f"invalid: {why}")
    return replace(result, parsed=parsed)


def _missing(custom_id: str) -> BatchResult:
    return BatchResult(
        custom_id,
        status="missing",
        cost_usd=None,
        error="missing: the server's results hold no line for it, also after fetching them again",
    )


def _check_times(poll_interval: float | None, timeout: float | None) -> None:
    if poll_interval is not None:
        check_option("poll_interval", poll_interval)
    if timeout is not None and not (isinstance(timeout, float) and timeout == math.inf):
        check_option("timeout", timeout)


def _note_what_goes_on(error: BaseException, parts: list[Any]) -> None:
    """Say on an error, or an interrupt, which batches it leaves under way."""
    lines = list(lines_to_go_on(parts))
    lost = [part for part in parts if part.batch_id is None and getattr(part, "is_lost", False)]
    notes = []
    if lines:
        notes.append("These batches were posted, go on, and are billed as they go: " + ", ".join(lines))
    if lost:
        posted_at: datetime = lost[0].posted_at
        notes.append(
            f"{len(lost)} batch(es) may have been made without this program hearing of it; "
            f"client.list() shows those made after {posted_at:%Y-%m-%d %H:%M:%S} UTC."
        )
    if notes and isinstance(error, WaitTimeout) and error.hint == POST_AGAIN:
        # All requests posted again would be paid for twice, as far as they are there.
        error.hint = "\n".join(lines) or "client.list()   # shows whether one of them is there"
    for note in notes:
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def _status(status_code: int | None) -> str:
    return "" if status_code is None else f", HTTP {status_code}"
