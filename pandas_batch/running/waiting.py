"""Wait for a run, blocking or awaited: with a tick that an interrupt gets through, a deadline, and what to say then."""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Self

from pandas_batch.errors import WaitTimeout

from .driving import DrivenRun
from .gone import look_for_gone
from .surplus import is_look_due, look_for_surplus

if TYPE_CHECKING:
    import pandas as pd

    from .engine import Engine

_TICK_S = 0.25


class AwaitedRun(DrivenRun, ABC):
    """A driven run that can be waited for; whoever waits is told of its errors and where its money is."""

    def wait(self, timeout: float | None = None) -> Self:
        """
        Block until every answer is home.

        Parameters
        ----------
        timeout
            Seconds; None waits as long as it takes (every batch ends within 24 hours).

        Returns
        -------
        Run
            This run.

        Raises
        ------
        WaitTimeout
            The time is over; the run goes on.
        KeyboardInterrupt
            The wait was interrupted. Nothing is canceled, nothing more is posted, what is posted goes on.
        """
        self.look_for_gone()
        engine = self._go_on(blocking=True)
        if engine is None:
            self._look_for_surplus()
            self._finish_display()
            return self
        deadline_s = None if timeout is None else self._clock.monotonic_s() + timeout
        try:
            # The wait has a tick: on some systems an untimed wait is deaf to the interrupt.
            while not engine.wait(_TICK_S):
                if deadline_s is not None and self._clock.monotonic_s() >= deadline_s:
                    raise self._timed_out(timeout)
        except KeyboardInterrupt as interrupt:
            self._interrupted(engine, interrupt)
            raise
        self._finish_display()
        self._raise_for(engine)
        return self

    def __await__(self) -> Generator[Any, None, pd.DataFrame]:
        return self.result_async().__await__()

    async def result_async(self, timeout: float | None = None) -> pd.DataFrame:
        """Return what `result` returns, without blocking the event loop."""
        await self._wait_async(timeout)
        return self.result()

    async def _wait_async(self, timeout: float | None = None) -> None:
        if any(batch.state == "gone" for batch in self._batches()):
            await asyncio.to_thread(self.look_for_gone)
        engine = self._go_on()
        if engine is not None:
            deadline_s = None if timeout is None else self._clock.monotonic_s() + timeout
            done = asyncio.wrap_future(engine.future)
            # Ticking, because a kernel's interrupt reaches a loop only when something wakes it; `asyncio.wait`
            # never cancels what it waits for, so an interrupt ends the waiting and not the run.
            while not done.done():
                await asyncio.wait({done}, timeout=_TICK_S)
                if not done.done() and deadline_s is not None and self._clock.monotonic_s() >= deadline_s:
                    raise self._timed_out(timeout)
            self._raise_for(engine)
        elif is_look_due(self._batches(), self.id):
            await asyncio.to_thread(self._look_for_surplus)
        self._finish_display()

    def look_for_gone(self) -> None:
        """Look, once for each handle on the run, whether batches that were given up are there after all."""
        if not self._looked_for_gone:
            self._looked_for_gone = True
            look_for_gone(self._store, self.id, wire=self._make_wire, clock=self._clock)

    def _look_for_surplus(self) -> None:
        """Look for what was billed besides, once for each handle on the run."""
        if not self._looked:
            self._looked = True
            look_for_surplus(self._store, self.id, wire=self._make_wire, clock=self._clock, prices=self._options.prices)

    def _timed_out(self, timeout: float | None) -> WaitTimeout:
        status = self.snapshot()
        if self._display is not None:
            self._display.set_blocking(False)
        n_there = sum(batch.batch_id is not None for batch in status.batches)
        n_all = len(status.batches)
        there = "It goes on, on the server and in the background; nothing is lost."
        if n_there < n_all:
            there = (
                f"{n_there} of {n_all} batches are known to be on the server and go on; the others are not, and this "
                "process goes on with them in the background."
            )
        why = f" {status.message}" if status.message else ""
        return WaitTimeout(
            f"Run {self.id} has not ended within timeout={timeout:g} s: {status.n_batches_ended} of {n_all} batches "
            f"have ended.{why}",
            there,
            f'run = pandas_batch.load("{self.id}"); run.result()',
            run=self,
        )

    def _interrupted(self, engine: Engine, interrupt: BaseException) -> None:
        engine.stop_posting()
        batches = self._batches()
        posted = [batch for batch in batches if batch.state in ("bound", "ended", "collected", "posting", "unknown")]
        note = (
            f"Run {self.id}: {len(posted)} of {len(batches)} batches are posted and go on; nothing was canceled.\n"
            "  Run the same line again to go on, or:\n"
            f'    run = pandas_batch.load("{self.id}"); run.result()   # or run.cancel()'
        )
        interrupt.add_note(note)
        if self._display is not None:
            self._display.interrupted(self.snapshot())
        if "IPython" in sys.modules:
            # IPython shows no notes of a KeyboardInterrupt.
            sys.stderr.write(note + "\n")

    def _raise_for(self, engine: Engine) -> None:
        if engine.error is not None and not self.is_settled():
            error = engine.error
            self._error_told = True
            # Raised again, it tells where the money is now; what others noted on it stays.
            about_us = f"Run {self.id}: "
            error.__notes__ = [note for note in getattr(error, "__notes__", ()) if not note.startswith(about_us)]
            error.add_note(self._money_note())
            raise error

    def _money_note(self) -> str:
        batches = self._batches()
        n_posted = sum(batch.batch_id is not None for batch in batches)
        paid = self.paid_usd
        billed = "unknown" if paid is None else f"${paid:,.4f}"
        return (
            f"Run {self.id}: {n_posted} of {len(batches)} batches are on the server, billed so far {billed}; "
            f"every answer that came is saved in {self._store.path}.\n"
            f'  When the cause is gone, run the same line again, or: pandas_batch.load("{self.id}").result()'
        )

    @abstractmethod
    def result(self, partial: bool = False) -> pd.DataFrame:
        """Return the answers; see `pandas_batch.running.run.Run.result`."""
