"""What there is to show of a run at one instant, drawn from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_batch.errors import clip
from pandas_batch.results.row_status import FAILED
from pandas_batch.run.worth_asking import retry_line
from pandas_batch.store.states import TO_SEND
from pandas_batch.types import BatchStatus, FailedRow, RunStatus

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
    ) -> None:
        self._target = target
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
        record = self._store.run(self._run_id)
        batches = self._store.batches_of_run(self._run_id)
        seen = tuple((batch.key, batch.state, batch.batch_id) for batch in batches)
        made = self._answers
        if seen != self._seen or made is None:
            of_run = RunAnswers(self._store, record, batches, schema=self._schema, prices=self._prices)
            made = self._answers = (of_run, self._target.answers(of_run))
            self._failed = None  # looked up when there is somebody to show it to
            self._seen = seen
        return record, batches, made[1]

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
            FailedRow(label=label, position=int(position), status=first_of(status), error=clip(first_of(error), 200))
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
    ) -> RunStatus:
        """Return the status of the run now; with `goes_on`, although all is home, it is about to ask rows again."""
        record, batches, answers = self._refresh()
        state = state_of(batches, is_blocked=is_blocked)
        if goes_on and state == "collected":
            state = "submitting"
        counts, totals = self._counts_of(answers), self._totals_of(answers)
        n_answered = sum(
            counts.get(s, 0) for s in ("succeeded", "errored", "expired", "canceled", "missing", "invalid")
        )
        ends = [batch.ended_at for batch in batches if batch.ended_at is not None]
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
            batches=tuple(batch_status(batch, run_id=record.id) for batch in batches),
            n_failed=_n_failed(answers, counts),
            retry=retry_line(answers, self.expression) if state == "collected" else "",
            expression=self.expression,
            is_from_store=self.is_from_store and state == "collected",
            failed=self._first_failed(),
            cost_usd=totals.cost_usd,
            paid_usd=totals.paid_usd,
            cost_usd_standard=totals.cost_usd_standard,
            saved_by_reuse_usd=totals.saved_by_reuse_usd,
            cost_usd_max=record.cost_usd_max,
            n_requests=len(answers.keys),
            n_reused=answers.n_reused,
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


def batch_status(batch: BatchRecord, *, run_id: str) -> BatchStatus:
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
    )


def first_of(value: Any) -> str:
    """Return a cell as text; of a list of samples the first that says something."""
    if isinstance(value, list):
        return next((str(v) for v in value if isinstance(v, str)), "")
    return value if isinstance(value, str) else ""
