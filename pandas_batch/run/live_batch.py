"""What `trial` and `finish_now` share: the standard price, the asking, the wait, and what is said of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pandas_batch.amounts import usd
from pandas_batch.engine.asking import Asker
from pandas_batch.errors import WaitTimeout
from pandas_batch.exiting import say

if TYPE_CHECKING:
    from pandas_batch.estimates.bill import Estimate
    from pandas_batch.store import Lease
    from pandas_batch.wire.wire import Wire

    from .driving import DrivenRun

_TICK_S = 0.25


def at_standard_price(estimate: Estimate) -> Estimate:
    """Return `estimate` as one of requests that are asked live: without the discount of batches."""
    return replace(estimate, cost_usd_max=estimate.cost_usd_standard, cost_usd_min=None, cost_usd_expected=None)


def wait_for(asker: Asker, run: DrivenRun, *, timeout: float | None, again: str, on_end: Callable[[], None]) -> None:
    """
    Wait until everything is asked, or nothing can go on.

    Raises
    ------
    KeyboardInterrupt
        Nothing more is asked; what is under way is paid for, and kept when it comes.
    WaitTimeout
        The time is over; it goes on.
    Exception
        What stopped it, with a note where the money is.
    """
    clock = run.clock
    deadline_s = None if timeout is None else clock.monotonic_s() + timeout
    try:
        while not asker.wait(_TICK_S):
            if deadline_s is not None and clock.monotonic_s() >= deadline_s:
                raise WaitTimeout(
                    f"Run {run.id}: not every row was answered within timeout={timeout:g} s.",
                    "What came is kept, and the rest goes on being asked as long as this process lives.",
                    again,
                    run=run,
                )
    except KeyboardInterrupt as interrupt:
        asker.stop()
        note = (
            f"Run {run.id}: {asker.n_done:,} rows were answered and are kept; nothing more is asked. What is under way "
            f"is billed, and kept when it comes.\n  To go on: {again}"
        )
        interrupt.add_note(note)
        if "IPython" in sys.modules:
            # IPython shows no notes of a KeyboardInterrupt.
            say(note)
        raise
    finally:
        on_end()
    if asker.error is not None:
        error = asker.error
        about_us = f"Run {run.id}: "
        error.__notes__ = [told for told in getattr(error, "__notes__", ()) if not told.startswith(about_us)]
        error.add_note(
            f"{about_us}{asker.n_done:,} rows were answered before (billed so far {usd(run.paid_usd)}) and are kept in "
            f"{run.store.path}; no other row was asked.\n  When the cause is gone: {again}"
        )
        raise error


def lost_words(asker: Asker) -> str:
    """Return what the user has to know of requests whose answers were lost; "" where none was."""
    words = []
    if asker.n_lost:
        words.append(f"{_lost(asker.n_lost)}, twice; what was not heard may have been billed, its cost is not known.")
    if asker.n_asked_twice:
        words.append(
            f"{_lost(asker.n_asked_twice)} once, and asked for again; it may have been billed twice, and its cost is "
            "told once."
        )
    return " ".join(words)


def _lost(n: int) -> str:
    return "The answer of 1 row was lost on its way" if n == 1 else f"The answers of {n:,} rows were lost on their way"


def ask_live(
    run: DrivenRun,
    key: int,
    lease: Lease,
    *,
    wire: Wire,
    on_answer: Callable[[int], Any],
    on_trouble: Callable[[str], Any],
) -> Asker:
    """Return what asks the requests of a recorded live batch, at work."""
    asker = Asker(
        run.store,
        key,
        lease,
        wire=wire,
        clock=run.clock,
        prices=run.options.prices,
        on_answer=on_answer,
        on_trouble=on_trouble,
        # What does not fit the schema is marked with it: it is no answer for other runs.
        keep=lambda: run.requests_to_keep(key),
    )
    asker.start()
    return asker
