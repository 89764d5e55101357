"""What drives a run and shows it: engine, waiting, interrupts, display. `Run` is built on it."""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Self, cast

import pandas as pd

from pandas_batch.answers.merge import RunAnswers
from pandas_batch.clock import SYSTEM_CLOCK, Clock
from pandas_batch.errors import WaitTimeout
from pandas_batch.types import BatchJob, RunStatus

from .bound import Bound
from .engine import Engine, Observer
from .status import StatusMaker

if TYPE_CHECKING:
    from pandas_batch.requests.options import Options
    from pandas_batch.requests.schema import OutputSchema
    from pandas_batch.store import BatchRecord, RunRecord, Store
    from pandas_batch.wire.wire import Wire

_TICK_S = 0.25

_engines: weakref.WeakValueDictionary[tuple[str, str], Engine] = weakref.WeakValueDictionary()
_engines_lock = threading.Lock()


class DrivenRun(ABC):
    """
    A recorded run, as something that is driven, waited for and shown; its answers are `pandas_batch.running.run.Run`'s.

    Attributes
    ----------
    id, name
        Of the run.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        options: Options,
        *,
        bound: Bound | None = None,
        schema: OutputSchema | None = None,
        wire: Callable[[], Wire] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        record = store.run(run_id)
        self.id = record.id
        self.name = record.name
        self._store = store
        self._options = options
        self._bound = bound or Bound(None)
        self._schema = schema
        self._clock = clock
        self._make_wire = wire or self._wire_of_options
        self._status = StatusMaker(store, run_id, schema=schema, prices=options.prices)
        self._warned = False
        self._driver: Engine | None = None
        self._error_told = False
        self._display: Any = None

    # ---------------------------------------------------------------- what it stands on

    @property
    def store(self) -> Store:
        """The store that holds it."""
        return self._store

    @property
    def record(self) -> RunRecord:
        """What was written down when it was made."""
        return self._store.run(self.id)

    @property
    def options(self) -> Options:
        """The options of the call that this handle was made by."""
        return self._options

    @property
    def schema(self) -> OutputSchema | None:
        """What turns its outputs into typed columns, or None."""
        return self._schema

    @property
    def clock(self) -> Clock:
        """The clock that it waits by."""
        return self._clock

    @property
    def engine(self) -> Engine | None:
        """What drives it in this process, or None."""
        return self._engine

    def wire(self) -> Wire:
        """Return its connection to the server."""
        return self._make_wire()

    def sibling(self, run_id: str) -> Self:
        """Return another run of the same rows, bound as this one is, at work."""
        other = type(self)(
            self._store,
            run_id,
            self._options,
            bound=self._bound,
            schema=self._schema,
            wire=self._make_wire,
            clock=self._clock,
        )
        other.show(blocking=False)
        return other

    # ---------------------------------------------------------------- what it is now

    def _batches(self) -> list[BatchRecord]:
        return self._store.batches_of_run(self.id)

    @property
    def _engine(self) -> Engine | None:
        shared = _engines.get((str(self._store.path), self.id))
        return shared if shared is not None else self._driver

    def snapshot(self) -> RunStatus:
        """Return everything there is to show of the run now, as one frozen record."""
        engine = self._engine
        alive = engine is not None and engine.is_alive
        if engine is None:
            return self._status.make(now=self._clock.now())
        return self._status.make(
            now=self._clock.now(),
            is_blocked=engine.error is not None,
            message=engine.message,
            last_poll_at=engine.last_poll_at,
            next_poll_at=engine.next_poll_at,
            can_cancel=alive,
        )

    @property
    def status(self) -> str:
        """``submitting``, ``blocked``, ``in_progress``, ``canceling``, ``ended`` or ``collected``."""
        return self.snapshot().state

    @property
    def counts(self) -> dict[str, int]:
        """Row status to number of rows; the numbers sum to the length of the frame."""
        return dict(self._status.counts())

    @property
    def cost_usd(self) -> float | None:
        """What the answers so far cost, in USD; None where a price is unknown."""
        return self._status.totals().cost_usd

    @property
    def paid_usd(self) -> float | None:
        """What this run added to the bill, in USD: answers of other runs that it reuses are not in it."""
        return self._status.totals().paid_usd

    @property
    def batches(self) -> list[BatchJob]:
        """The batches on the server that hold the run's requests."""
        return [
            BatchJob(
                batch_id=batch.batch_id or "",
                status="in_progress" if batch.state == "bound" else batch.state,
                request_counts=dict(batch.counts),
                created_at=batch.created_at,
                ended_at=batch.ended_at,
                expires_at=batch.expires_at,
                cancel_initiated_at=batch.cancel_initiated_at,
                archived_at=batch.archived_at,
            )
            for batch in self._batches()
        ]

    def __repr__(self) -> str:
        from pandas_batch.display.account import text_line

        return f"<Run {text_line(self.snapshot())}>"

    # ---------------------------------------------------------------- driving

    def _wire_of_options(self) -> Wire:
        from pandas_batch.wire.wire import Wire

        return Wire(self._options.client, clock=self._clock)

    def _drive(self, observer: Observer | None = None) -> Engine:
        """Return the engine at work on this run, started where none is; `observer` misses nothing of it."""
        place = (str(self._store.path), self.id)
        with _engines_lock:
            engine = _engines.get(place)
            if engine is not None and engine.is_alive:
                engine.go_on()
                if observer is not None:
                    engine.observe(observer)
            else:
                engine = _engines[place] = self._new_engine()
                if observer is not None:
                    engine.observe(observer)
                engine.start()
            self._driver, self._error_told = engine, False
            return engine

    def _new_engine(self) -> Engine:
        return Engine(
            self._store,
            self.id,
            wire=self._make_wire,
            describe=lambda driven: self.snapshot(),
            clock=self._clock,
            poll_interval_s=self._options.poll_interval,
            lost_answer_grace_s=self._options.lost_answer_grace,
            prices=self._options.prices,
            warm_first=self._options.warm_cache,
            keep=lambda key: self.answers().retriable_positions(key),
        )

    def observe(self, observer: Observer) -> Callable[[], None]:
        """
        Call `observer` with a frozen `RunStatus` whenever something has changed, from the run's own thread.

        An observer that raises is dropped with a warning; it can never stop the run.

        Returns
        -------
        Callable
            Ends the observation.
        """
        engine = self._drive(observer)
        return lambda: engine.forget(observer)

    def is_settled(self) -> bool:
        """Return whether nothing is left to do for this run."""
        return all(batch.state in ("collected", "gone", "withdrawn") for batch in self._batches())

    def _go_on(self, *, blocking: bool = False) -> Engine | None:
        """Return the engine to wait for, or None where nothing is left to do."""
        if self.is_settled():
            return None
        driver = self._driver
        if driver is not None and driver.error is not None and not self._error_told:
            # What stopped the run before anybody waited is told before it is tried again.
            return driver
        if self._display is None or driver is None or not driver.is_alive:
            self.show(blocking=blocking)
        else:
            driver.go_on()
            if blocking:
                self._display.set_blocking(True)
        return self._driver

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
        engine = self._go_on(blocking=True)
        if engine is None:
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
        self._finish_display()

    def _timed_out(self, timeout: float | None) -> WaitTimeout:
        status = self.snapshot()
        if self._display is not None:
            self._display.set_blocking(False)
        return WaitTimeout(
            f"Run {self.id} has not ended within timeout={timeout:g} s: {status.n_batches_ended} of "
            f"{len(status.batches)} batches have ended.",
            "It goes on, on the server and in the background; nothing is lost.",
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

    def answers(self) -> RunAnswers:
        """Return the answers as they are in the store now."""
        return self._status.answers()

    @abstractmethod
    def result(self, partial: bool = False) -> pd.DataFrame:
        """Return the answers; see `pandas_batch.running.run.Run.result`."""

    # ---------------------------------------------------------------- the notebook

    def show(self, *, blocking: bool) -> None:
        """Open the display that the options ask for, and drive the run."""
        from pandas_batch.display.progress import Actions, open_display

        self._display = open_display(
            cast("Any", self._options.progress),
            Actions(cancel=self._cancel_from_panel, check_now=self._check_from_panel),
            status=self.snapshot(),
            blocking=blocking,
        )
        if self.is_settled():
            self._finish_display()
            return
        self._drive(self._display.update if self._options.progress != "off" else None)

    def _cancel_from_panel(self) -> None:
        engine = self._engine
        if engine is not None:
            engine.request_cancel()

    def _check_from_panel(self) -> None:
        engine = self._engine
        if engine is not None:
            engine.check_now()

    def _finish_display(self) -> None:
        if self._display is not None:
            self._display.finish(self.snapshot())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> dict[str, str]:
        from pandas_batch.display.account import static_html, text_account

        status = self.snapshot()
        return {"text/plain": text_account(status), "text/html": static_html(status)}

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if self._display is None and not self.is_settled():
            self.show(blocking=False)
        if self._display is None or not self._display.show():
            display(self._repr_mimebundle_(), raw=True)  # type: ignore[no-untyped-call]
