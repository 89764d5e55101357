"""What there is to show of a run at one instant, drawn from the store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_batch.engine.reconciling import OVERLOADED_GRACE_S
from pandas_batch.errors import clip
from pandas_batch.results.row_status import FAILED
from pandas_batch.run.worth_asking import retry_line
from pandas_batch.store.records import Account
from pandas_batch.store.states import TO_SEND
from pandas_batch.types import BatchStatus, FailedRow, FailureKind, FirstAnswer, RunStatus, Stop

from .failure_kinds import first_text, kinds_of
from .first_answers import first_answers, prompt_name_of
from .joining import columns_of
from .run_answers import RunAnswers

if TYPE_CHECKING:
    from pandas_batch.requests.schema import OutputSchema
    from pandas_batch.results.pricing import Totals
    from pandas_batch.results.rates import Prices
    from pandas_batch.store import BatchRecord, RunRecord, Store

    from .target_frame import TargetFrame

N_FAILED_SHOWN = 10

_BATCH_STATES = {"intent": "waiting", "refused": "blocked", "unknown": "unproved", "withdrawn": "canceled"}


def state_of(batches: Sequence[BatchRecord], *, is_blocked: bool) -> str:
    """
    Return the state of a run from the states of its batches.

    Examples
    --------
    >>> state_of([], is_blocked=False)
    'collected'
    """
    states = {batch.state for batch in batches}
    if is_blocked or "refused" in states:
        return "blocked"
    if states & TO_SEND:
        return "submitting"
    if any(batch.state == "bound" and batch.cancel_initiated_at is not None for batch in batches):
        return "canceling"
    if states & {"bound", "live"}:
        return "in_progress"
    if "ended" in states:
        return "ended"
    return "collected"


class StatusMaker:
    """Makes the status records of one run; counts again only when a batch has changed its state."""

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        target: TargetFrame,
        schema: OutputSchema | None = None,
        prices: Prices | None = None,
        lost_answer_grace_s: float = 600.0,
        budget_usd: float | None = None,
    ) -> None:
        self._target = target
        self._grace_s = lost_answer_grace_s
        self._budget_usd = None if budget_usd is None or math.isinf(budget_usd) else budget_usd
        self.is_from_store = False
        self._store = store
        self._schema = schema
        self._prices = prices
        self._run_id = run_id
        self._seen: tuple[Any, ...] = ()
        self._answers: tuple[RunAnswers, RunAnswers] | None = None
        # Of which answers they are stands beside them: two threads may ask at once.
        self._counts: tuple[RunAnswers, dict[str, int]] | None = None
        self._totals: tuple[RunAnswers, Totals] | None = None
        self._failed: tuple[FailedRow, ...] | None = None
        self._kinds: tuple[RunAnswers, tuple[FailureKind, ...]] | None = None
        self._tokens: tuple[RunAnswers, tuple[int, int]] | None = None
        self._first: tuple[FirstAnswer, ...] = ()
        self._durations_s: tuple[float, ...] | None = None

    @property
    def expression(self) -> str:
        """What to type for the run, bound to the same rows."""
        if self._target.is_part():
            return f'df.claude_batch.attach("{self._run_id}")'
        return f'pandas_batch.load("{self._run_id}")'

    def answers(self) -> RunAnswers:
        """Return the answers for the rows of the bound frame, as they are in the store now."""
        _, _, answers = self._refresh()
        return answers

    def answers_of_run(self) -> RunAnswers:
        """Return the answers for all rows of the run, also where it is bound to a part of them."""
        _, _, bound = self._refresh()
        return bound if self._answers is None else self._answers[0]

    def counts(self) -> dict[str, int]:
        """Return rows by status."""
        return self._counts_of(self.answers())

    def _counts_of(self, answers: RunAnswers) -> dict[str, int]:
        made = self._counts
        if made is None or made[0] is not answers:
            made = self._counts = (answers, answers.counts())
        return made[1]

    def totals(self) -> Totals:
        """Return what the answers cost."""
        return self._totals_of(self.answers())

    def _totals_of(self, answers: RunAnswers) -> Totals:
        made = self._totals
        if made is None or made[0] is not answers:
            made = self._totals = (answers, answers.totals())
        return made[1]

    def _refresh(self) -> tuple[RunRecord, list[BatchRecord], RunAnswers]:
        record = self._store.runs.get(self._run_id)
        batches = self._store.batches.of_run(self._run_id)
        seen = tuple((batch.key, batch.state, batch.batch_id) for batch in batches)
        made = self._answers
        if seen != self._seen or made is None:
            of_run = RunAnswers(self._store, record, batches, schema=self._schema, prices=self._prices)
            made = self._answers = (of_run, self._target.answers(of_run))
            self._failed = None  # looked up when there is somebody to show it to
            self._seen = seen
        return record, batches, made[1]

    def _kinds_of(self, answers: RunAnswers) -> tuple[FailureKind, ...]:
        made = self._kinds
        if made is None or made[0] is not answers:
            made = self._kinds = (answers, kinds_of(answers, self._target.index(self._store, self._run_id)))
        return made[1]

    def _tokens_of(self, answers: RunAnswers) -> tuple[int, int]:
        made = self._tokens
        if made is None or made[0] is not answers:
            parts = ("input_tokens", "cache_read_tokens", "cache_write_tokens")
            told = (sum(map(answers.sum_tokens, parts)), answers.sum_tokens("output_tokens"))
            made = self._tokens = (answers, told)
        return made[1]

    def _first_answers(self, answers: RunAnswers, record: RunRecord) -> tuple[FirstAnswer, ...]:
        """Return rows with answers, the same ones from the first time that there are any: nobody reads what moves."""
        if not self._first:
            self._first = first_answers(answers, self._target, self._store, record)
        return self._first

    def _experience_s(self, base_url: str) -> tuple[float, ...]:
        if self._durations_s is None:
            earlier = self._store.batches.durations(base_url, not_of=self._run_id)
            self._durations_s = tuple(max(0.0, seconds) for _, seconds in earlier)
        return self._durations_s

    def _first_failed(self) -> tuple[FailedRow, ...]:
        if self._failed is None:
            self._failed = self._look_up_failed()
        return self._failed

    def _look_up_failed(self) -> tuple[FailedRow, ...]:
        if self._answers is None:
            return ()
        answers = self._answers[1]
        positions = answers.failed_positions()[:N_FAILED_SHOWN]
        labels = self._labels(positions)
        columns, _ = columns_of(answers, ["status", "error"], rows=positions)
        return tuple(
            FailedRow(
                label=label, position=int(position), status=first_text(status), error=clip(first_text(error), 200)
            )
            for label, position, status, error in zip(
                labels, positions.tolist(), columns["status"], columns["error"], strict=True
            )
        )

    def _labels(self, positions: np.ndarray) -> list[str]:
        labels = self._target.index(self._store, self._run_id)[positions]
        return [clip(str(label), 60) for label in labels]

    def make(
        self,
        *,
        now: datetime,
        is_blocked: bool = False,
        message: str = "",
        last_poll_at: datetime | None = None,
        next_poll_at: datetime | None = None,
        can_cancel: bool = False,
        goes_on: bool = False,
        is_finishing: bool = False,
        stop: Stop | None = None,
    ) -> RunStatus:
        """
        Return the status of the run now.

        With `goes_on` it is about to ask rows again, and with `is_finishing` it asks them live, although all is
        collected.
        """
        record, batches, answers = self._refresh()
        state = state_of(batches, is_blocked=is_blocked)
        if state == "collected" and (goes_on or is_finishing):
            state = "in_progress" if is_finishing else "submitting"
        counts, totals = self._counts_of(answers), self._totals_of(answers)
        n_answered = sum(counts.get(s, 0) for s in ("succeeded", *FAILED))
        ends = [batch.ended_at for batch in batches if batch.ended_at is not None]
        has_answers = counts.get("succeeded", 0) > 0
        tokens = self._tokens_of(answers) if has_answers else (None, None)
        expiries = [b.expires_at for b in batches if b.expires_at is not None and b.state in ("bound", "unknown")]
        return RunStatus(
            run_id=record.id,
            name=record.name,
            model=record.model,
            base_url=record.base_url,
            store_path=str(self._store.path),
            state=state,
            message=message,
            now=now,
            started_at=record.created_at,
            expires_at=min(expiries, default=None),
            last_poll_at=last_poll_at,
            next_poll_at=next_poll_at,
            finished_at=max([record.created_at, *ends]) if state == "collected" else None,
            n_rows=answers.n_rows,
            n_rows_answered=n_answered,
            counts=counts,
            batches=tuple(batch_status(batch, run_id=record.id, grace_s=self._grace_s) for batch in batches),
            n_failed=_n_failed(answers, counts),
            retry=retry_line(answers, self.expression) if state == "collected" else "",
            expression=self.expression,
            is_from_store=self.is_from_store and state == "collected",
            failed=self._first_failed(),
            kinds=self._kinds_of(answers),
            stop=stop if state == "blocked" else None,
            under_way_usd_max=bound_of_under_way(record, batches),
            budget_usd=self._budget_usd,
            cost_usd_expected=record.estimate.get("cost_usd_expected"),
            tokens_in=tokens[0],
            tokens_out=tokens[1],
            durations_s=() if state == "collected" else self._experience_s(record.base_url),
            answers=self._first_answers(answers, record) if has_answers and state != "collected" else (),
            prompt_name=prompt_name_of(self._target, record),
            cost_usd=totals.cost_usd,
            paid_usd=totals.paid_usd,
            cost_usd_standard=totals.cost_usd_standard,
            saved_by_reuse_usd=totals.saved_by_reuse_usd,
            cost_usd_max=record.cost_usd_max,
            n_requests=len(answers.keys),
            n_reused=answers.n_reused,
            is_finishing=is_finishing,
            reattach=f'run = pandas_batch.load("{record.id}")',
            can_cancel=can_cancel
            and (state in ("submitting", "in_progress") or (state == "blocked" and _is_under_way(batches))),
        )

    def n_failed(self) -> int:
        """Return how many rows have no usable answer although they had a prompt."""
        answers = self.answers()
        return _n_failed(answers, self._counts_of(answers))


def _is_under_way(batches: Sequence[BatchRecord]) -> bool:
    return any(batch.state == "bound" and batch.cancel_initiated_at is None for batch in batches)


def _n_failed(answers: RunAnswers, counts: Mapping[str, int]) -> int:
    return len(answers.unsendable_positions()) + sum(counts.get(status, 0) for status in FAILED)


def account_of(answers: RunAnswers) -> Account:
    """Return what became of the rows that `answers` are of."""
    counts, totals = answers.counts(), answers.totals()
    return Account(counts.get("succeeded", 0), _n_failed(answers, counts), totals.cost_usd, totals.paid_usd)


def bound_of_under_way(record: RunRecord, batches: Sequence[BatchRecord]) -> float | None:
    """
    Return what the run's own batches that the server has, or may have, can still cost at most; None where unknown.

    The output is bounded request by request; the input of a part is at most that of the whole.
    """
    own = [batch for batch in batches if batch.run_id == record.id and not batch.is_live]
    n_under_way = sum(b.n_requests for b in own if b.state in ("bound", "unknown", "posting"))
    if not n_under_way:
        return 0.0
    bound_usd, estimate = record.cost_usd_max, record.estimate
    n_sent = record.n_requests - record.n_reused
    least_usd, n_low, n_high = (estimate.get(f) for f in ("cost_usd_min", "input_tokens_low", "input_tokens_high"))
    is_alike = isinstance(record.options.get("max_tokens"), int) and ", " not in record.model
    if bound_usd is None or estimate.get("uses_cache") or not (is_alike and n_sent and least_usd and n_low and n_high):
        return bound_usd
    input_usd = min(bound_usd, least_usd * n_high / n_low)
    return float(input_usd + (bound_usd - input_usd) * min(1.0, n_under_way / n_sent))


def batch_status(batch: BatchRecord, *, run_id: str, grace_s: float = 600.0) -> BatchStatus:
    """Return what a panel shows of one batch."""
    state = _BATCH_STATES.get(batch.state, batch.state)
    if batch.state == "bound":
        state = "canceling" if batch.cancel_initiated_at is not None else "in_progress"
    counts = batch.counts or {}
    return BatchStatus(
        batch_id="asked live" if batch.is_live else batch.batch_id,
        state=state,
        n_requests=batch.n_requests,
        processing=counts.get("processing", 0 if counts else batch.n_requests),
        succeeded=counts.get("succeeded", 0),
        errored=counts.get("errored", 0),
        canceled=counts.get("canceled", 0),
        expired=counts.get("expired", 0),
        created_at=batch.created_at,
        ended_at=batch.ended_at,
        expires_at=batch.expires_at,
        reused=batch.run_id != run_id,
        message=_message_of(batch),
        until=_looked_for_until(batch, grace_s),
    )


_DOUBTS = {
    "lost": "the answer to its create was lost",
    "overloaded": "the API was overloaded when it was created",
    "not_the_api": "something that is not the API answered its create",
    "too_large": "something that is not the API found it too large",
}


def _message_of(batch: BatchRecord) -> str:
    """Return what is to be said of one batch, whatever is said of the others meanwhile."""
    if batch.state == "unknown":
        said = _DOUBTS.get(batch.doubt, "nobody knows yet whether the server has it")
        return f"{said}; it was canceled, and is not posted again" if batch.cancel_asked else said
    if batch.state == "bound" and batch.cancel_asked and batch.cancel_initiated_at is None:
        return "the server has not taken the cancel yet"
    if batch.state == "bound" and batch.not_found_since is not None:
        return "the server does not show it at the moment"
    return ""


def _looked_for_until(batch: BatchRecord, grace_s: float) -> datetime | None:
    """Return when a batch whose create answer was lost is posted again, unless it shows up."""
    if batch.state != "unknown" or batch.posted_at is None or batch.cancel_asked:
        return None
    if batch.doubt == "overloaded":
        grace_s = min(grace_s, OVERLOADED_GRACE_S)
    return batch.posted_at + timedelta(seconds=grace_s + (batch.lost_after_s or 0.0))
