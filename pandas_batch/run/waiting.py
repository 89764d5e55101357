"""Wait for a run, blocking or awaited: with a tick that an interrupt gets through, a deadline, and what to say then."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from pandas_batch.amounts import usd
from pandas_batch.engine.gone import look_for_gone
from pandas_batch.engine.last_words import where_they_are
from pandas_batch.engine.surplus import is_look_due, look_for_surplus
from pandas_batch.errors import WaitTimeout, clip
from pandas_batch.store.states import AT_THE_SERVER, TO_SEND, UNDECIDED, WITHOUT_ID

from .call_values import check_value

if TYPE_CHECKING:
    from pandas_batch.engine.engine import Engine

    from .driving import DrivenRun
    from .finishes import Finish

_TICK_S = 0.25


class Waiter:
    """
    Waits for one run, for whoever has this handle on it; raises its errors, with where the money is.

    Parameters
    ----------
    run
        The run.
    """

    def __init__(self, run: DrivenRun) -> None:
        self._run = run
        self._looked_for_surplus = False
        self._looked_for_gone = False

    def wait(self, timeout: float | None) -> None:
        """Block until every answer is collected; see `pandas_batch.run.run.Run.wait`."""
        timeout = check_value("timeout", timeout)
        self.look_for_gone()
        engine, finish = self._run.go_on(blocking=True), self._finish_of_others()
        if engine is None and finish is None:
            self._look_for_surplus()
            self._run.display.finish()
            return
        deadline_s = None if timeout is None else self._run.clock.monotonic_s() + timeout
        try:
            with engine.waited_for() if engine is not None else nullcontext():
                # The wait has a tick: on some systems an untimed wait is deaf to the interrupt.
                while engine is not None and not engine.wait(_TICK_S):
                    if self._is_late(deadline_s):
                        raise self._timed_out(timeout)
            # A click may have begun it meanwhile: what the batches do not answer is asked now, and is waited for too.
            finish = finish or self._finish_of_others()
            while finish is not None and not finish.over.wait(_TICK_S):
                if self._is_late(deadline_s):
                    raise self._timed_out(timeout)
        except KeyboardInterrupt as interrupt:
            self._interrupted(engine, finish or self._finish_of_others(), interrupt)
            raise
        self._run.display.finish()
        if finish is not None and finish.error is not None:
            raise finish.error
        if engine is not None:
            self.raise_for(engine)

    def _is_late(self, deadline_s: float | None) -> bool:
        return deadline_s is not None and self._run.clock.monotonic_s() >= deadline_s

    def _finish_of_others(self) -> Finish | None:
        """Return the `finish_now` at work on the run, where it is not the caller's own."""
        finish = self._run.finish_at_work
        return None if finish is None or finish.is_of_this_thread else finish

    def wait_submitted(self, timeout: float | None) -> None:
        """Block until every batch has its id; see `pandas_batch.run.run.Run.wait_submitted`."""
        timeout = check_value("timeout", timeout)
        if self._is_submitted():
            return
        engine = self._run.go_on()
        if engine is None:
            return
        deadline_s = None if timeout is None else self._run.clock.monotonic_s() + timeout
        try:
            with engine.waited_for():
                while not self._is_submitted():
                    if engine.wait(_TICK_S if timeout is None else min(_TICK_S, max(timeout, 0.001))):
                        break
                    if self._is_late(deadline_s):
                        raise self._timed_out(timeout)
        except KeyboardInterrupt as interrupt:
            self._interrupted(engine, self._finish_of_others(), interrupt)
            raise
        if not self._is_submitted():
            self.raise_for(engine)

    def _is_submitted(self) -> bool:
        return not any(batch.state in WITHOUT_ID for batch in self._run.batch_records())

    async def wait_async(self, timeout: float | None) -> None:
        """Wait as `wait` does, without blocking the event loop."""
        timeout = check_value("timeout", timeout)
        if any(batch.state == "gone" for batch in self._run.batch_records()):
            await asyncio.to_thread(self.look_for_gone)
        engine, finish = self._run.go_on(), self._finish_of_others()
        deadline_s = None if timeout is None else self._run.clock.monotonic_s() + timeout
        if engine is not None:
            done = asyncio.wrap_future(engine.future)
            # Ticking, because a kernel's interrupt reaches a loop only when something wakes it; `asyncio.wait`
            # never cancels what it waits for, so an interrupt ends the waiting and not the run.
            with engine.waited_for():
                while not done.done():
                    await asyncio.wait({done}, timeout=_TICK_S)
                    if not done.done() and self._is_late(deadline_s):
                        raise self._timed_out(timeout)
        finish = finish or self._finish_of_others()
        while finish is not None and not finish.over.is_set():
            await asyncio.sleep(_TICK_S)
            if self._is_late(deadline_s):
                raise self._timed_out(timeout)
        if finish is not None and finish.error is not None:
            raise finish.error
        if engine is not None:
            self.raise_for(engine)
        elif is_look_due(self._run.batch_records(), self._run.id):
            await asyncio.to_thread(self._look_for_surplus)
        self._run.display.finish()

    def look_for_gone(self) -> None:
        """Look, once for each handle on the run, whether batches that were given up are there after all."""
        if not self._looked_for_gone:
            self._looked_for_gone = True
            look_for_gone(self._run.store, self._run.id, wire=self._run.wire, clock=self._run.clock)

    def _look_for_surplus(self) -> None:
        """Look for what was billed besides, once for each handle on the run."""
        if not self._looked_for_surplus:
            self._looked_for_surplus = True
            run = self._run
            look_for_surplus(run.store, run.id, wire=run.wire, clock=run.clock, prices=run.options.prices)

    def _timed_out(self, timeout: float | None) -> WaitTimeout:
        status = self._run.snapshot()
        self._run.display.set_blocking(False)
        return WaitTimeout(
            f"Run {self._run.id} has not ended within timeout={timeout:g} s: {status.n_batches_ended} of "
            f"{len(status.batches)} batches have ended.",
            where_they_are(self._run.batch_records()) + self._what_goes_on(),
            f'run = pandas_batch.load("{self._run.id}"); run.result()',
            run=self._run,
        )

    def _what_goes_on(self) -> str:
        engine, batches = self._run.engine, self._run.batch_records()
        if engine is None or not engine.is_alive or engine.posts_stopped:
            return ""
        said = f" {clip(engine.message)}" if engine.message else ""
        if any(batch.state in TO_SEND for batch in batches):
            return f"{said} This process goes on sending, as long as it lives."
        return f"{said} This process goes on fetching answers, as long as it lives."

    def _interrupted(self, engine: Engine | None, finish: Finish | None, interrupt: BaseException) -> None:
        if finish is not None:
            finish.stop()
        if engine is not None:
            engine.stop_posting()
            engine.is_told = True
        batches = [batch for batch in self._run.batch_records() if not batch.is_live]
        posted = [batch for batch in batches if batch.state in AT_THE_SERVER | UNDECIDED | {"collected"}]
        said = (
            f"{len(posted)} of {len(batches)} batches "
            f"{'is posted and goes on' if len(posted) == 1 else 'are posted and go on'}; nothing was canceled."
        )
        go_on = (
            "  Run the same line again to go on, or:\n"
            f'    run = pandas_batch.load("{self._run.id}"); run.result()   # or run.cancel()'
        )
        if finish is not None:
            said = "it was being finished, and no more rows are asked; what came is kept, what is under way is billed."
            go_on = f"  To go on: {self._run.expression}.finish_now()"
        note = f"Run {self._run.id}: {said}\n{go_on}"
        interrupt.add_note(note)
        self._run.display.interrupted()
        if "IPython" in sys.modules:
            # IPython shows no notes of a KeyboardInterrupt.
            sys.stderr.write(note + "\n")

    def raise_for(self, engine: Engine) -> None:
        """Raise what has stopped the run, if something has, with a note that tells where its money is."""
        if engine.error is not None and not self._run.is_settled():
            error = engine.error
            self._run.is_error_raised = engine.is_told = True
            # Raised again, it tells where the money is now; what others noted on it stays.
            about_us = f"Run {self._run.id}: "
            error.__notes__ = [note for note in getattr(error, "__notes__", ()) if not note.startswith(about_us)]
            error.add_note(self._money_note())
            raise error

    def _money_note(self) -> str:
        batches = [batch for batch in self._run.batch_records() if not batch.is_live]
        n_posted = sum(batch.batch_id is not None for batch in batches)
        n_under_way = sum(batch.state in AT_THE_SERVER for batch in batches)
        under_way = f" ({n_under_way} under way, billed as they end)" if n_under_way else ""
        n_unknown = sum(batch.batch_id is None and batch.state in UNDECIDED for batch in batches)
        if n_unknown:
            it = "it" if n_unknown == 1 else "them"
            under_way += f", of {n_unknown} it is not known whether the server has {it} and bills {it}"
        return (
            f"Run {self._run.id}: {n_posted} of {len(batches)} batches "
            f"{'is' if n_posted == 1 else 'are'} on the server{under_way}, "
            f"billed so far {usd(self._run.paid_usd)}; every answer that came is saved in {self._run.store.path}.\n"
            f'  When the cause is gone, run the same line again, or: pandas_batch.load("{self._run.id}").result()'
        )
