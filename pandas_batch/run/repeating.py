"""What a run asks again by itself, once its last batch has ended: in a new batch of the same run.

With ``retries=n`` that is what is worth asking again, at most so often. And always what another run had in flight when
this one was recorded, and has canceled since: what that batch answered is not paid again, and the rest was wanted here.

How often that was done is recorded with the batch it led to: killed at any instant, a run asks neither more often nor
twice. What failed was not billed, so that the bound of the run holds for its retries too; a row without a result may
have been, and counts once more.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pandas_batch import exiting
from pandas_batch.amounts import usd
from pandas_batch.engine.rebuilding import answers_of
from pandas_batch.engine.spooling import params_of_line
from pandas_batch.errors import InputError, StoreError
from pandas_batch.estimates.retry_bill import estimate_bodies
from pandas_batch.results.row_status import CODE, status_codes

from .extending import extended
from .retrying import Again, finishing_lease, nobody_else_asks_again, requests_again
from .worth_asking import worth_asking

_TICK_S = 0.25

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord

    from .driving import DrivenRun


def _may_be_due(run: DrivenRun) -> bool:
    """Return whether it is worth a look at the answers to see whether the run is to ask rows again by itself."""
    record = run.record
    # What was canceled was canceled on purpose.
    if record.asks_no_more:
        return False
    return run.options.retries > record.n_retried or any(
        _is_canceled_elsewhere(run, batch) for batch in run.batch_records()
    )


def is_due(run: DrivenRun) -> bool:
    """Return whether the run is to ask rows again by itself, now that all its batches have ended."""
    if not _may_be_due(run):
        return False
    if any(batch.state not in ("collected", "withdrawn") for batch in run.batch_records()):
        return False
    return bool(_worth(run).any())


def _is_canceled_elsewhere(run: DrivenRun, batch: BatchRecord) -> bool:
    # A retry also holds rows that were canceled before it was made and that it was not meant to ask; which of them it
    # waits for since cannot be known for certain, and doubt is never resolved towards paying.
    return batch.run_id != run.id and batch.cancel_asked and run.record.parent_id is None


def _canceled_elsewhere(run: DrivenRun) -> np.ndarray:
    """Return for each request whether it was left to a batch of another run, which that has canceled."""
    answers = run.answers_of_run()
    keys = [batch.key for batch in run.batch_records() if _is_canceled_elsewhere(run, batch)]
    canceled: np.ndarray = np.isin(answers.keys, keys) & (answers.codes_of_requests() == CODE["canceled"])
    return canceled


def _worth(run: DrivenRun) -> np.ndarray:
    """Return for each request whether the run is to ask it again by itself."""
    worth = _canceled_elsewhere(run)
    if run.options.retries > run.record.n_retried:
        worth |= worth_asking(run.answers_of_run(), "transient")
    return worth


def _wait_for_finishing(run: DrivenRun) -> None:
    """Wait until no run, whose canceled batches this one has waited for, asks their rows itself."""
    for run_id in {batch.run_id for batch in run.batch_records() if _is_canceled_elsewhere(run, batch)}:
        while (lease := run.store.lease(finishing_lease(run_id))) is None:
            exiting.leave_if_ending()
            run.clock.wait(_TICK_S, threading.Event())
        lease.close()


def retry_once(run: DrivenRun) -> str:
    """
    Add a batch of what is worth asking again, if that is due; return why it was not, or "".

    The caller looks at the run again: another kernel may have been faster.
    """
    if not is_due(run):
        return ""
    try:
        again = _again(run)
    except InputError as error:
        with run.store.preparing():
            return _refused(run, error.what)
    if not again:
        return ""
    _wait_for_finishing(run)
    with nobody_else_asks_again(run, again):
        # Another kernel may have been faster, or may have asked them while we waited.
        if not is_due(run):
            return ""
        record = run.record
        try:
            again = _again(run)
        except InputError as error:
            return _refused(run, error.what)
        bound_usd = _bound_usd(run, again, online=False)
        budget_usd = run.options.max_cost_usd
        if budget_usd is not None and np.isfinite(budget_usd):
            if bound_usd is None or bound_usd > budget_usd:
                bound_usd = _bound_usd(run, again, online=True)
            if bound_usd is None or bound_usd > budget_usd:
                most = "an amount that is not known" if bound_usd is None else usd(bound_usd)
                return _refused(
                    run,
                    f"Run {run.id}: {len(again):,} {'row' if len(again) == 1 else 'rows'} that failed, or that another "
                    f"run has canceled, were not asked again by themselves: with them the run could cost {most}, "
                    f"above max_cost_usd={budget_usd:.12g}.",
                )
        known = record.cost_usd_max is not None and bound_usd is not None
        changes = {
            "n_retried": record.n_retried + bool((_worth(run) & ~_canceled_elsewhere(run)).any()),
            "cost_usd_max": max(record.cost_usd_max or 0.0, bound_usd or 0.0) if known else None,
        }
        extended(run, record, again, changes=changes)
    return ""


def _refused(run: DrivenRun, why: str) -> str:
    """Record that the run asks no more by itself: whoever reads it has nothing to wait for, and needs no key."""
    store = run.store
    store.runs.extend(run.record, store.runs.requests_of(run.id), [], asks_no_more=True)
    return why


def _again(run: DrivenRun) -> list[Again]:
    """Return what is worth asking again as it is."""
    return requests_again(run, np.flatnonzero(_worth(run)))


def _bound_usd(run: DrivenRun, again: Sequence[Again], *, online: bool) -> float | None:
    """Return what the run may have cost in the end; None where that is not known."""
    paid_usd = run.answers_of_run().totals().paid_usd
    maybe_billed = _maybe_billed(run)
    if paid_usd is None or maybe_billed is None:
        return None
    bodies = [*(one.params for one in again), *maybe_billed]
    told = estimate_bodies(bodies, options=run.options, wire=run.wire() if online else None, at=run.clock.now())
    return None if told.cost_usd_max is None else paid_usd + told.cost_usd_max


def _maybe_billed(run: DrivenRun) -> list[bytes] | None:
    """
    Return the requests that a batch of the run had no result for, once for each such batch: it may have billed them.

    None where they cannot be had.
    """
    store = run.store
    bodies: list[bytes] = []
    for batch in store.batches.of_keys(run.record.batch_keys):
        if batch.run_id != run.id or batch.state != "collected":
            continue
        table = answers_of(store, batch, prices=run.options.prices)
        missing = set(np.flatnonzero(status_codes(table.column("status")) == CODE["missing"]).tolist())
        if not missing:
            continue
        try:
            found = [line for position, line in store.files.spooled_requests(batch.key) if position in missing]
        except StoreError:
            return None
        if len(found) < len(missing):
            return None
        bodies += [params_of_line(line) for line in found]
    return bodies
