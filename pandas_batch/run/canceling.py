"""Cancel what a run has posted, and say what that does to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_batch.store.states import UNDECIDED

if TYPE_CHECKING:
    from .driving import DrivenRun

_CANCEL_PATIENCE_S = 30.0


def cancel_run(run: DrivenRun, *, force: bool) -> str:
    """Cancel the batches that `run` posted, and return what was done; see `pandas_batch.run.run.Run.cancel`."""
    engine = run.canceled_by(force=force)
    if engine is None:
        return f"Run {run.id} has ended already; there is nothing to cancel."
    engine.wait_for_cancel(_CANCEL_PATIENCE_S)
    mine = [batch for batch in run.batch_records() if batch.run_id == run.id and not batch.is_live]
    n_canceling = sum(batch.cancel_initiated_at is not None or batch.state == "withdrawn" for batch in mine)
    told = (
        f"Run {run.id}: {n_canceling} of {len(mine)} batches {'is' if n_canceling == 1 else 'are'} being canceled."
        if mine
        else f"Run {run.id}:"
    )
    if any(batch.is_live and batch.state == "live" and batch.run_id == run.id for batch in run.batch_records()):
        told += " No more rows are asked live; what is under way is billed, and kept when it comes."
    n_posting = sum(batch.state == "posting" for batch in mine)
    if n_posting:
        are = "is" if n_posting == 1 else "are"
        they = "it is" if n_posting == 1 else "they are"
        told += (
            f" {n_posting} {are} on the way to the server: {they} canceled there as soon as the answer comes, and not "
            "posted again."
        )
    n_unknown = sum(batch.state in UNDECIDED for batch in mine) - n_posting
    if n_unknown == 1:
        told += " 1 is still looked for (its create answer was lost) and is not posted again."
    elif n_unknown:
        told += f" {n_unknown} are still looked for (their create answers were lost) and are not posted again."
    unproved = [batch.candidate_id for batch in mine if batch.candidate_id is not None]
    if unproved and not force:
        told += f" {unproved[0]} is not proved to be ours and was left alone ({run.expression}.cancel(force=True))."
    waiting = sorted({other for batch in mine for other in run.store.batches.runs_of(batch.key)} - {run.id})
    if waiting:
        told += f" Waiting for the same batches: {', '.join(waiting)}."
    return told
