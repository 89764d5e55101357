"""``run.finish_now()``: cancel what has not begun, keep what was answered, ask the rest through the Messages API.

Nothing of it has to be remembered: whatever was killed when, the batches are canceled or not, the live answers are
there or not, and the same call goes on from what it finds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pandas_batch.amounts import rows, usd
from pandas_batch.display.live_progress import LiveProgress
from pandas_batch.engine.posting import EngineContext
from pandas_batch.engine.settling import settle_left_behind
from pandas_batch.errors import BudgetError, InputError, outside_level
from pandas_batch.estimates.bill import Estimate, check_budget
from pandas_batch.estimates.retry_bill import estimate_bodies
from pandas_batch.exiting import leave_if_ending
from pandas_batch.results.row_status import CODE
from pandas_batch.store.states import SETTLED
from pandas_batch.types import MAX_BATCH_REQUESTS

from .extending import extended
from .finishes import Finish, finishing
from .live_batch import ask_live, at_standard_price, lost_words, wait_for
from .others_asking import new_live_nonce
from .retrying import (
    Again,
    budget_of,
    finishing_lease,
    is_of_part,
    nobody_else_asks_again,
    requests_again,
    retries_since,
)
from .worth_asking import worth_asking

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord

    from .driving import DrivenRun
    from .waiting import Waiter

_TICK_S = 0.25
_SHOW_EVERY_S = 0.5


def finish_in_cell(run: DrivenRun, waiter: Waiter, max_cost_usd: float | None) -> None:
    """Bring the run to its end now, while the caller waits; see `pandas_batch.run.run.Run.finish_now`."""

    def progress_of(finish: Finish, n: int) -> FinishProgress:
        bar = LiveProgress(run.options.progress, f"finishing {run.id}", n, clock=run.clock)
        return FinishProgress(run, finish, bar)

    for words in finish_run(run, waiter, max_cost_usd, progress_of):
        warnings.warn(words, UserWarning, stacklevel=outside_level())


def what_is_left(run: DrivenRun) -> tuple[list[Again], Estimate]:
    """Return the requests that a finish now would ask at most, and what they would cost at the standard price."""
    again = requests_again(run, _unanswered(run))
    bodies = [one.params for one in again]
    return again, at_standard_price(estimate_bodies(bodies, options=run.options, wire=None, at=run.clock.now()))


class FinishProgress:
    """
    Tells how far a finish is: in the status of the run, and, where somebody waits for it, in a bar or lines of its own.

    Parameters
    ----------
    run, finish
        What is finished.
    bar
        Shows it as well; None where the panel alone does.
    """

    def __init__(self, run: DrivenRun, finish: Finish, bar: LiveProgress | None = None) -> None:
        self._run, self._finish, self._bar = run, finish, bar
        self._shown_s = -math.inf

    def tell(self, text: str, words: str) -> None:
        """Tell `text` to whoever waits, and `words` in the status."""
        if self._bar is not None:
            self._bar.tell(text)
        self._show(words)

    def update(self, n_done: int, n: int) -> None:
        """Tell that so many of the requests are done."""
        if self._bar is not None:
            self._bar.update(n_done)
        now_s = self._run.clock.monotonic_s()
        if now_s - self._shown_s >= _SHOW_EVERY_S:
            self._shown_s = now_s
            self._show(f"Finishing now: {n_done:,} of {rows(n)} answered through the Messages API.")

    def trouble(self, text: str) -> None:
        """Tell why nothing moves."""
        if self._bar is not None:
            self._bar.trouble(text)
        self._show(f"Finishing now: {text}")

    def _show(self, words: str) -> None:
        self._finish.words = words
        self._run.display.update()

    def close(self) -> None:
        """Show no bar any more."""
        if self._bar is not None:
            self._bar.close()


def finish_run(
    run: DrivenRun,
    waiter: Waiter,
    max_cost_usd: float | None,
    progress_of: Callable[[Finish, int], FinishProgress],
) -> list[str]:
    """Cancel the run's batches, ask what they do not answer, and return what the user has to be warned of."""
    budget_usd, from_environment = budget_of(run, max_cost_usd)
    refuse_beside_a_retry(run)
    waiter.look_for_gone()
    settle_left_behind(run.store, clock=run.clock, prices=run.options.prices)
    again, told = what_is_left(run)
    if not again:
        return []
    for batch in run.batch_records():
        EngineContext(store=run.store, wire=run.wire(), clock=run.clock).check_server(batch)
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
    with finishing(run.place) as finish:
        progress = progress_of(finish, len(again))
        # Held while it lasts: another run that waits for these rows would ask what is canceled itself.
        lease = run.store.lease(finishing_lease(run.id))
        try:
            progress.tell(
                f"Run {run.id}: canceling its batches; what they do not answer, at most {rows(len(again))}, is asked "
                f"now through the Messages API at the standard price: at most {usd(told.cost_usd_max)}.",
                "Finishing now: the batches are being canceled; what they have answered is kept.",
            )
            _cancel(run, waiter)
            _ask_rest(run, waiter, finish, progress)
        finally:
            if lease is not None:
                lease.close()
            progress.close()
    words = finish.warnings
    if n_left := _n_left_to_others(run):
        words.append(
            f"Run {run.id}: {n_left:,} requests of rows that this frame does not have were in the canceled batches, "
            f'and were not asked.\n  To ask them in a batch: pandas_batch.load("{run.id}").retry_failed()'
        )
    if run.is_settled():
        run.display.signal()
    return words


def refuse_beside_a_retry(run: DrivenRun) -> None:
    """Refuse where a retry of the run is under way: what it asks would be asked, and paid, a second time."""
    for later in retries_since(run.store, run.record):
        own = [batch for batch in run.store.batches.of_run(later.id) if batch.run_id == later.id]
        if any(batch.state not in SETTLED for batch in own):
            raise InputError(
                f"Run {run.id} was retried, and run {later.id} asks its rows just now.",
                "Nothing was asked by this call; what is on the server goes on, and is billed.",
                f'pandas_batch.load("{later.id}").finish_now()',
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
                leave_if_ending()
                if engine.wait(_TICK_S) and _open_batches(run):
                    waiter.raise_for(engine)
                    engine = run.canceled_by(force=False) or engine
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(
            f"Run {run.id}: its batches are being canceled; what they have answered is kept, nothing was asked live.\n"
            f"  To go on: {run.expression}.finish_now()"
        )
        raise


def _ask_rest(run: DrivenRun, waiter: Waiter, finish: Finish, progress: FinishProgress) -> None:
    again = requests_again(run, _unanswered(run))
    n_before = 0
    asked: set[int] = set()
    while again and not finish.is_stopped:
        part = again[:MAX_BATCH_REQUESTS]
        n_asked = _ask(run, part, finish, progress, n_before)
        if n_asked is None:
            _cancel(run, waiter)
        else:
            n_before += n_asked
            asked |= {one.request for one in part}
        # What has failed now has failed; what another has asked meanwhile is looked at again.
        again = [one for one in requests_again(run, _unanswered(run)) if one.request not in asked]


def _ask(run: DrivenRun, again: Sequence[Again], finish: Finish, progress: FinishProgress, n_before: int) -> int | None:
    """
    Ask some requests live, and return how many there were; those answered meanwhile are not asked.

    None where the run has posted batches of its own again: then nothing was asked.
    """
    with nobody_else_asks_again(run, again):
        # A retry by hand may have been faster than the lease that tells others of this.
        refuse_beside_a_retry(run)
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
    n = n_before + len(again)
    asker = ask_live(
        run,
        keys[0],
        lease,
        wire=run.wire(),
        on_answer=lambda n_done: progress.update(n_before + n_done, n),
        on_trouble=progress.trouble,
    )
    finish.when_stopped(asker.stop)
    wait_for(asker, run, timeout=run.options.timeout, again=f"{run.expression}.finish_now()", on_end=lambda: None)
    if said := lost_words(asker):
        finish.warnings.append(f"Run {run.id}: {said}")
    return asker.n_done
