"""A run as the package sees it: what is recorded of it, what it is now, and the engine that drives it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Self

from pandas_batch import exiting
from pandas_batch.clock import SYSTEM_CLOCK, Clock
from pandas_batch.display.display import Actions, FinishOffer, Told
from pandas_batch.engine.engine import Engine, Observer
from pandas_batch.engine.posting import refused_words
from pandas_batch.engine.surplus import surplus_of, surplus_words
from pandas_batch.errors import RunNotFoundError
from pandas_batch.run.run_answers import RunAnswers
from pandas_batch.store.states import SETTLED
from pandas_batch.types import BatchJob, RunStatus

from .finishes import Finish, finish_of
from .preparing import Preparation
from .showing import RunDisplay
from .status import StatusMaker, account_of
from .stopping import stop_of
from .target_frame import TargetFrame

if TYPE_CHECKING:
    from pandas_batch.requests.options import Options
    from pandas_batch.requests.schema import OutputSchema
    from pandas_batch.store import BatchRecord, RunRecord, Store
    from pandas_batch.wire.wire import Wire

_engines: weakref.WeakValueDictionary[tuple[str, str], Engine] = weakref.WeakValueDictionary()
_engines_lock = threading.Lock()


def _after_fork_in_child() -> None:
    # Engines are threads of the parent; another of its threads may have held the lock.
    global _engines_lock
    _engines_lock = threading.Lock()
    _engines.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class DrivenRun:
    """
    A recorded run, driven and shown. `pandas_batch.run.run.Run` is the handle of it that users have.

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
        target: TargetFrame | None = None,
        schema: OutputSchema | None = None,
        wire: Callable[[], Wire] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        record = store.runs.get(run_id)
        self.id = record.id
        self.name = record.name
        self._store = store
        self._options = options
        self._target = target or TargetFrame(None)
        self._schema = schema
        self._clock = clock
        self._make_wire = wire or self._wire_of_options
        self._status = StatusMaker(
            store,
            run_id,
            target=self._target,
            schema=schema,
            prices=options.prices,
            lost_answer_grace_s=options.lost_answer_grace,
            budget_usd=options.max_cost_usd,
        )
        self._retries_refused = False
        self._driver: Engine | None = None
        self._made: Engine | None = None
        self._own_observers: list[tuple[Observer, Observer]] = []
        self.is_error_raised = False
        actions = Actions(
            cancel=self._cancel_from_panel,
            check_now=self._check_from_panel,
            offer_finish=self._offer_finish,
            finish=self._finish_as_offered,
        )
        self.display = RunDisplay(self, options, snapshot=self.snapshot, actions=actions)
        self._status.is_from_store = bool(self.batch_records()) and self.is_settled()

    # ---------------------------------------------------------------- what it stands on

    @property
    def store(self) -> Store:
        """The store that holds it."""
        return self._store

    @property
    def record(self) -> RunRecord:
        """What was written down when it was made."""
        return self._store.runs.get(self.id)

    @property
    def options(self) -> Options:
        """The options of the call that this handle was made by."""
        return self._options

    @property
    def target(self) -> TargetFrame:
        """The frame that it is merged onto, and which of its requests each row of that has."""
        return self._target

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

    @property
    def expression(self) -> str:
        """What to type for this run, bound to the rows that it is bound to."""
        return self._status.expression

    def bind(self, target: TargetFrame) -> None:
        """Answer for the rows of another frame from now on."""
        is_from_store, self._target = self._status.is_from_store, target
        self._status = StatusMaker(
            self._store, self.id, target=target, schema=self._schema, prices=self._options.prices
        )
        self._status.is_from_store = is_from_store

    def sibling(self, run_id: str) -> Self:
        """Return another run of the same rows, bound as this one is, at work."""
        other = type(self)(
            self._store,
            run_id,
            self._options,
            target=self._target,
            schema=self._schema,
            wire=self._make_wire,
            clock=self._clock,
        )
        other.show(blocking=False)
        return other

    # ---------------------------------------------------------------- what it is now

    def batch_records(self) -> list[BatchRecord]:
        """Return what the store holds of the batches that its requests are in, in their order."""
        return self._store.batches.of_run(self.id)

    @property
    def _engine(self) -> Engine | None:
        shared = _engines.get(self.place)
        if shared is not None:
            return shared
        return self._driver if self._driver is not None and self._driver.is_of_this_process else None

    def snapshot(self) -> RunStatus:
        """Return everything there is to show of the run now, as one frozen record."""
        engine = self._engine
        alive = engine is not None and engine.is_alive
        besides = surplus_words(surplus_of(self.batch_records(), self.id))
        goes_on = self._retry_is_due()
        finish = self.finish_at_work
        error = engine.error if engine is not None else None
        records = self.batch_records()
        is_refused = error is not None or any(batch.state == "refused" for batch in records)
        stop = stop_of(error, records, engine.message if engine is not None else "") if is_refused else None
        message = besides or self._refusal()
        if finish is not None:
            message = finish.words
        elif engine is not None and engine.message:
            message = engine.message
        return self._status.make(
            now=self._clock.now(),
            is_blocked=error is not None and finish is None,
            message=message,
            last_poll_at=engine.last_poll_at if engine is not None else None,
            next_poll_at=engine.next_poll_at if engine is not None else None,
            can_cancel=alive or finish is not None,
            goes_on=goes_on,
            is_finishing=finish is not None,
            stop=stop,
        )

    @property
    def place(self) -> tuple[str, str]:
        """The path of its store and its id: what it is known by in this process."""
        return str(self._store.path), self.id

    @property
    def finish_at_work(self) -> Finish | None:
        """The `finish_now` that is at work on it in this process, or None."""
        return finish_of(self.place)

    def _refusal(self) -> str:
        """Return what the server said when it refused a batch of the run; "" where it refused none."""
        refused = [batch.error or "" for batch in self.batch_records() if batch.state == "refused"]
        return refused_words(refused[0]) if refused else ""

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
        """What this run added to the bill, in USD; answers of other runs that it reuses are not in it."""
        return self._status.totals().paid_usd

    @property
    def n_failed(self) -> int:
        """How many rows had a prompt and have no usable answer."""
        return self._status.n_failed()

    @property
    def batches(self) -> list[BatchJob]:
        """The batches on the server that hold the run's requests, as far as their ids are known."""
        return [
            BatchJob(
                batch_id=batch.batch_id,
                status=_processing_status(batch),
                request_counts=dict(batch.counts),
                created_at=batch.created_at,
                ended_at=batch.ended_at,
                expires_at=batch.expires_at,
                cancel_initiated_at=batch.cancel_initiated_at,
                archived_at=batch.archived_at,
            )
            for batch in self.batch_records()
            if batch.batch_id is not None
        ]

    def __repr__(self) -> str:
        from pandas_batch.display.account import text_line

        try:
            return f"<Run {text_line(self.snapshot())}>"
        except RunNotFoundError:
            return f"<Run {self.id}: not in the store any more>"

    # ---------------------------------------------------------------- driving

    def _wire_of_options(self) -> Wire:
        from pandas_batch.wire.wire import Wire

        return Wire(self._options.client, clock=self._clock)

    def _drive(self, observer: Observer | None = None, *, cancel: bool | None = None) -> Engine:
        """
        Return the engine at work on this run, started where none is; `observer` misses nothing of it.

        With `cancel` (whether by force) it cancels the run before it takes another step.
        """
        place = self.place
        if observer is not None:
            observer = self._for_own_rows(observer)
        with _engines_lock:
            engine = _engines.get(place)
            if engine is not None and engine.is_alive and (cancel is not None or engine.go_on()):
                if cancel is not None:
                    engine.request_cancel(force=cancel)
                if observer is not None:
                    engine.observe(observer)
            else:
                if engine is not None:
                    exiting.forget(engine)
                engine = _engines[place] = self._new_engine()
                if observer is not None:
                    engine.observe(observer)
                if cancel is not None:
                    engine.request_cancel(force=cancel)
                engine.start()
            self._driver, self.is_error_raised = engine, False
            return engine

    def _for_own_rows(self, observer: Observer) -> Observer:
        """Return `observer` as one that is shown the rows of this run's own frame, whoever drives the run."""
        for known, made in self._own_observers:
            if known == observer:
                return made

        def own(status: RunStatus) -> None:
            observer(status if self._made is self._engine else self.snapshot())

        self._own_observers.append((observer, own))
        return own

    def _new_engine(self) -> Engine:
        self._made = Engine(
            self._store,
            self.id,
            wire=self._make_wire,
            describe=lambda driven: self.snapshot(),
            clock=self._clock,
            poll_interval_s=self._options.poll_interval,
            lost_answer_grace_s=self._options.lost_answer_grace,
            prices=self._options.prices,
            warm_first=self._options.warm_cache,
            keep=self.requests_to_keep,
            extend=self._extend,
            close_account=self._close_account,
        )
        return self._made

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
        return lambda: engine.forget(self._for_own_rows(observer))

    def is_settled(self) -> bool:
        """Return whether nothing is left to do for this run."""
        is_home = all(batch.state in SETTLED for batch in self.batch_records())
        return is_home and not self._retry_is_due()

    def _retry_is_due(self) -> bool:
        """Return whether the run is about to ask rows again by itself."""
        return not self._retries_refused and self._is_retry_due()

    def _is_retry_due(self) -> bool:
        """Return whether rows are worth asking again, and it was not done often enough; see `Run`."""
        return False

    def _retry_once(self) -> str:
        """Add a batch of rows that are asked again, and return why that was not done, or ""; see `Run`."""
        return ""

    def _extend(self) -> bool:
        """Let the run ask again by itself where that is due; return whether there may be more to do."""
        if not self._retry_is_due():
            return False
        refusal = self._retry_once()
        if refusal:
            self._retries_refused = True
            if self._engine is not None:
                self._engine.warnings.append(refusal)
        return not refusal

    def _close_account(self) -> None:
        """Record what became of the run, as the list of runs says it: from what is remembered of the call."""
        if self._options.prices is not None or self._schema is not None:
            # What a later process reads may be worth another price, or fit a schema whose class is not known there.
            return
        batches = self._store.runs.settled_batches(self.id)
        if batches is not None:
            self._store.runs.set_accounts({self.id: (batches, account_of(self.answers_of_run()))})

    def go_on(self, *, blocking: bool = False) -> Engine | None:
        """Return the engine to wait for, or None where nothing is left to do."""
        if self.is_settled():
            return None
        self._leave_to_parent()
        driver = self._driver
        if driver is not None and driver.error is not None and not self.is_error_raised:
            # What stopped the run before anybody waited is raised before it is tried again.
            return driver
        if not self.display.is_open or driver is None or not driver.is_alive or not driver.go_on():
            self.show(blocking=blocking)
        else:
            self.is_error_raised = False
            if blocking:
                self.display.set_blocking(True)
        return self._driver

    def _leave_to_parent(self) -> None:
        """In a forked child: the engine and the display are the parent's, and stand still here."""
        if self._driver is not None and not self._driver.is_of_this_process:
            self._driver = None
            self.display.leave()

    def canceled_by(self, *, force: bool) -> Engine | None:
        """Return the engine asked to cancel the run, started anew if it had stopped; None if all is collected."""
        if self.is_settled():
            return None
        self._leave_to_parent()
        # Here, before any engine hears of it: whatever becomes of that, nothing of the run is posted from now on.
        self._store.batches.ask_cancel(self.id)
        if not self.display.is_open:
            self.show(blocking=False, cancel=force)
        else:
            self._drive(self.display.observer, cancel=force)
        return self._driver

    def requests_to_keep(self, key: int) -> Collection[int]:
        """Return the positions in a batch whose requests are kept, as a retry may need them."""
        if self.record.retry_digest is not None:
            # It may hold what no frame says again: the request with something changed.
            return range(self._store.batches.get(key).n_requests)
        return self.answers_of_run().retriable_positions(key)

    def answers(self) -> RunAnswers:
        """Return the answers for the rows of its frame, as they are in the store now."""
        return self._status.answers()

    def answers_of_run(self) -> RunAnswers:
        """Return the answers for every row of the run, also where its frame is a part of these."""
        return self._status.answers_of_run()

    # ---------------------------------------------------------------- the notebook

    def show(self, *, blocking: bool, cancel: bool | None = None, preparation: Preparation | None = None) -> None:
        """
        Open the display that the options ask for, and drive the run; with `cancel`, to its cancel.

        What has shown the `preparation` of the run goes on as its display.
        """
        is_prepared = self.display.open(preparation, blocking=blocking)
        if self.is_settled():
            self.display.finish()
            self.display.signal()
            return
        if is_prepared:
            self.display.update()
        self._drive(self.display.observer, cancel=cancel)

    def _cancel_from_panel(self) -> None:
        engine = self._engine
        self._store.batches.ask_cancel(self.id)
        if engine is not None:
            engine.request_cancel()

    def _offer_finish(self, told: Told) -> None:
        """Tell what it takes to finish the run now; see `Run`."""

    def _finish_as_offered(self, offer: FinishOffer, told: Told) -> None:
        """Finish the run within what was offered; see `Run`."""

    def _check_from_panel(self) -> None:
        engine = self._engine
        if engine is not None:
            engine.check_now()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> dict[str, str]:
        from pandas_batch.display.account import static_html, text_account

        status = self.snapshot()
        return {"text/plain": text_account(status), "text/html": static_html(status)}

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if not self.display.is_open and not self.is_settled():
            self.show(blocking=False)
        if not self.display.show_again():
            display(self._repr_mimebundle_(), raw=True)


def _processing_status(batch: BatchRecord) -> str:
    """Return the state of a batch in the API's words."""
    is_canceled = batch.cancel_initiated_at is not None
    if batch.state in ("ended", "collected", "gone"):
        return "canceled" if is_canceled and not batch.counts.get("succeeded") else "ended"
    return "canceling" if is_canceled else "in_progress"
