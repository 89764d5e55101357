"""The button `Finish now` of the panel: what it would cost, and `finish_now` in a thread of its own once confirmed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pandas_batch.amounts import rows, usd
from pandas_batch.display.display import FinishOffer, Told
from pandas_batch.errors import PandasBatchError, clip
from pandas_batch.exiting import ProcessEnding, say

from .finishing import FinishProgress, finish_run, refuse_beside_a_retry, what_is_left
from .retrying import budget_of

if TYPE_CHECKING:
    from .driving import DrivenRun
    from .waiting import Waiter

_ABOVE = 1e-9
"""A bound that was shown is no less than the same bound made again, whatever its last digit."""


def offer_finish(run: DrivenRun, told: Told) -> None:
    """Tell from another thread what it takes to finish a run now; a click must not wait for it."""
    _in_thread(run, lambda: _offer_of(run), told)


def _offer_of(run: DrivenRun) -> FinishOffer:
    """Return what it takes; asks nobody, and changes nothing."""
    refuse_beside_a_retry(run)
    again, estimate = what_is_left(run)
    line = f"{run.expression}.finish_now()"
    if not again:
        return FinishOffer("Every row has an answer, or none to wait for: there is nothing to ask now.")
    what = (
        f"What has not begun is canceled, and at most {rows(len(again))} are asked now through the Messages API, at "
        "the standard price"
    )
    at_most_usd = estimate.cost_usd_max
    if at_most_usd is None:
        return FinishOffer(f"{what}, for which no bound is known. In a cell:", line)
    budget_usd, _ = budget_of(run, None)
    if budget_usd is not None and at_most_usd > budget_usd:
        line = f"{run.expression}.finish_now(max_cost_usd={at_most_usd + 0.005:.2f})"
        return FinishOffer(
            f"{what}: at most {usd(at_most_usd)}, which is above the budget of {usd(budget_usd)}. In a cell:", line
        )
    return FinishOffer(
        f"{what}: at most {usd(at_most_usd)}.", price=usd(at_most_usd), max_cost_usd=at_most_usd * (1 + _ABOVE)
    )


def finish_as_offered(run: DrivenRun, waiter: Waiter, offer: FinishOffer, told: Told) -> None:
    """Finish a run now within the price that was confirmed; a cell that waits for the run waits for this as well."""

    def finished() -> None:
        for words in finish_run(run, waiter, offer.max_cost_usd, lambda finish, n: FinishProgress(run, finish)):
            say(words)
        if run.is_settled():
            run.display.finish()

    _in_thread(run, finished, told)


def _in_thread(run: DrivenRun, call: Callable[[], FinishOffer | None], told: Told) -> None:
    def work() -> None:
        try:
            told(call())
        except ProcessEnding:
            return
        except Exception as error:
            told(_why_not(run, error))

    threading.Thread(target=work, name="pandas-batch-finish", daemon=True).start()


def _why_not(run: DrivenRun, error: Exception) -> FinishOffer:
    hint = f"{run.expression}.finish_now()"
    if isinstance(error, PandasBatchError):
        return FinishOffer(f"{clip(error.what, 300)} {clip(error.state, 300)}", error.hint or hint)
    return FinishOffer(f"It could not be finished ({type(error).__name__}). In a cell:", hint)
