"""``run.finish_now()``: cancel what has not begun, keep what was answered, ask the rest through the Messages API.

Nothing of it has to be remembered: whatever was killed when, the batches are canceled or not, the live answers are
there or not, and the same call goes on from what it finds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pandas_batch.amounts import usd
from pandas_batch.display.live_progress import LiveProgress
from pandas_batch.engine.posting import EngineContext
from pandas_batch.engine.settling import settle_left_behind
from pandas_batch.errors import BudgetError, outside_level
from pandas_batch.estimates.bill import check_budget
from pandas_batch.estimates.retry_bill import estimate_bodies
from pandas_batch.results.row_status import CODE
from pandas_batch.store.states import SETTLED
from pandas_batch.types import MAX_BATCH_REQUESTS

from .extending import extended
from .live_batch import ask_live, at_standard_price, lost_words, wait_for
from .others_asking import new_live_nonce
from .repeating import finishing_lease
from .retrying import Again, budget_of, is_of_part, nobody_else_asks_again, requests_again
from .worth_asking import worth_asking

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord

    from .driving import DrivenRun
    from .waiting import Waiter

_TICK_S = 0.25


def finish_run(run: DrivenRun, waiter: Waiter, max_cost_usd: float | None) -> None:
    """Bring the run to its end now; see `pandas_batch.run.run.Run.finish_now`."""
    budget_usd, from_environment = budget_of(run, max_cost_usd)
    waiter.look_for_gone()
    settle_left_behind(run.store, clock=run.clock, prices=run.options.prices)
    again = requests_again(run, _unanswered(run))
    if not again:
        return
    for batch in run.batch_records():
        EngineContext(store=run.store, wire=run.wire(), clock=run.clock).check_server(batch)
    told = at_standard_price(
        estimate_bodies([one.params for one in again], options=run.options, wire=None, at=run.clock.now())
    )
    if budget_usd is not None and told.cost_usd_max is not None and told.cost_usd_max > budget_usd:
        bodies = [one.params for one in again]
        counted = estimate_bodies(bodies, options=run.options, wire=run.wire(), at=run.clock.now())
        told = at_standard_price(counted)
    try:
        check_budget(told, budget_usd, from_environment=from_environment)
    except BudgetError as error:
        enough = f"{math.ceil((told.cost_usd_max or 0.0) * 100) / 100:.2f}"
        raise BudgetError(
            error.what,
            "Nothing was canceled, and nothing was asked; batches that are on the server go on, and are billed.",
            f"{run.expression}.finish_now(max_cost_usd={enough})" if told.cost_usd_max is not None else error.hint,
        ) from None
    progress = LiveProgress(run.options.progress, f"finishing {run.id}", len(again), clock=run.clock)
    progress.tell(
        f"Run {run.id}: canceling its batches; what they do not answer, at most {len(again):,} rows, is asked now "
        f"through the Messages API at the standard price: at most {usd(told.cost_usd_max)}."
    )
    # Held while it lasts: another run that waits for these rows would ask what is canceled itself.
    lease = run.store.lease(finishing_lease(run.id))
    try:
        _cancel(run, waiter)
        _ask_rest(run, waiter, progress)
    finally:
        if lease is not None:
            lease.close()
        progress.close()
    if n_left := _n_left_to_others(run):
        warnings.warn(
            f"Run {run.id}: {n_left:,} requests of rows that this frame does not have were in the canceled batches, "
            f'and were not asked.\n  To ask them in a batch: pandas_batch.load("{run.id}").retry_failed()',
            UserWarning,
            stacklevel=outside_level(),
        )


def _unanswered(run: DrivenRun) -> np.ndarray:
    """Return the requests of the rows that the run is bound to which have no answer, and may get one."""
    return np.flatnonzero(_is_unanswered(run) & is_of_part(run))


def _n_left_to_others(run: DrivenRun) -> int:
    """Return how many requests of other rows of the run have no answer, and may get one."""
    return int((_is_unanswered(run) & ~is_of_part(run)).sum())


def _is_unanswered(run: DrivenRun) -> np.ndarray:
    answers = run.answers_of_run()
    unanswered: np.ndarray = worth_asking(answers, "transient") | (answers.codes_of_requests() == CODE["pending"])
    return unanswered


def _open_batches(run: DrivenRun) -> list[BatchRecord]:
    """Return the batches that this run has posted, or is to post, and that are not collected."""
    return [
        batch
        for batch in run.batch_records()
        if batch.run_id == run.id and batch.state not in SETTLED and not batch.is_live
    ]


def _cancel(run: DrivenRun, waiter: Waiter) -> None:
    """Cancel the run's own batches, and wait until what they have answered is here."""
    if not _open_batches(run):
        return
    engine = run.canceled_by(force=False)
    if engine is None:
        return
    try:
        with engine.waited_for():
            while _open_batches(run):
                if engine.wait(_TICK_S) and _open_batches(run):
                    waiter.raise_for(engine)
                    engine = run.canceled_by(force=False) or engine
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(
            f"Run {run.id}: its batches are being canceled; what they have answered is kept, nothing was asked live.\n"
            f"  To go on: {run.expression}.finish_now()"
        )
        raise


def _ask_rest(run: DrivenRun, waiter: Waiter, progress: LiveProgress) -> None:
    again = requests_again(run, _unanswered(run))
    n_before = 0
    asked: set[int] = set()
    while again:
        part = again[:MAX_BATCH_REQUESTS]
        n_asked = _ask(run, part, progress, n_before)
        if n_asked is None:
            _cancel(run, waiter)
        else:
            n_before += n_asked
            asked |= {one.request for one in part}
        # What has failed now has failed; what another has asked meanwhile is looked at again.
        again = [one for one in requests_again(run, _unanswered(run)) if one.request not in asked]


def _ask(run: DrivenRun, again: Sequence[Again], progress: LiveProgress, n_before: int) -> int | None:
    """
    Ask some requests live, and return how many there were; those answered meanwhile are not asked.

    None where the run has posted batches of its own again: then nothing was asked.
    """
    with nobody_else_asks_again(run, again):
        if _open_batches(run):
            # The retries of the run were faster: what they have posted is canceled first, or it would be paid twice.
            return None
        # Another call of the same may have asked them while we waited.
        record, left = run.record, set(_unanswered(run).tolist())
        nonce, lease = new_live_nonce(run.store)
        try:
            keys = extended(run, record, [one for one in again if one.request in left], live_nonce=nonce)
        except BaseException:
            lease.close()
            raise
    if not keys:
        lease.close()
        return 0
    asker = ask_live(
        run,
        keys[0],
        lease,
        wire=run.wire(),
        on_answer=lambda n: progress.update(n_before + n),
        on_trouble=progress.trouble,
    )
    wait_for(asker, run, timeout=run.options.timeout, again=f"{run.expression}.finish_now()", on_end=lambda: None)
    if said := lost_words(asker):
        warnings.warn(f"Run {run.id}: {said}", UserWarning, stacklevel=outside_level())
    return asker.n_done
