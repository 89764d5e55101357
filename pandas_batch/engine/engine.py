"""Drive the batches of a run to their end, in one daemon thread, and tell observers what happens.

The engine knows no widget and no frame. Each batch takes one step after the other (post, look for a lost batch,
collect) under a lease of its own, so that two kernels on one store never do the same thing twice; what another
process is already driving is only watched. Steps of different batches, and the polls, go on side by side, each in
a thread: no batch waits for the call of another. Everything that matters is in the store before the next step of
a batch begins: any thread may die at any instant.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, cast

from pandas_batch import exiting
from pandas_batch.clock import Clock, tick_s
from pandas_batch.errors import PandasBatchError, StoreError
from pandas_batch.server_values import times_of
from pandas_batch.store.states import AT_THE_SERVER, SETTLED, TO_SEND, WITHOUT_ID
from pandas_batch.types import RunStatus
from pandas_batch.wire.backoff import backoff_s

from .compacting import PAUSE_S, compact_run
from .crew import Crew
from .journal import Journal, logger
from .last_words import words_at_the_end
from .memory import give_back_memory
from .posting import EngineContext, Step
from .scheduling import INSTANT_S, Scheduler
from .surplus import look_for_surplus

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord, Lease, Store
    from pandas_batch.wire.wire import Wire

Observer = Callable[[RunStatus], None]

_WATCH_S = 1.0
_POLL = "poll"
_LAST_ROUNDS = 2
"""How often what has ended is still collected when the run cannot go on: it is paid for."""


class Engine:
    """
    Drives one run.

    Parameters
    ----------
    store, run_id
        What to drive.
    wire
        Called when the network is first needed: a finished run needs neither key nor network.
    describe
        Makes the status record that observers get.
    keep
        Returns, by the key of a batch that is collected, of which positions a retry may need the requests again.
    extend
        Called when all batches are collected: it may add others, and returns whether to look again.
    close_account
        Called when nothing more will come of the run: records what became of it.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        wire: Callable[[], Wire],
        describe: Callable[[Engine], RunStatus],
        clock: Clock,
        poll_interval_s: float | None = None,
        lost_answer_grace_s: float = 600.0,
        prices: Mapping[str, tuple[float, float]] | None = None,
        warm_first: bool = False,
        keep: Callable[[int], bool | Collection[int]] = lambda key: True,
        extend: Callable[[], bool] = lambda: False,
        close_account: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = store
        self.run_id = run_id
        self.clock = clock
        self.message = ""
        self.error: BaseException | None = None
        self.last_poll_at: datetime | None = None
        self.next_poll_at: datetime | None = None
        self.posts_stopped = False
        self.warnings: list[str] = []
        self._make_wire = wire
        self._describe = describe
        self._poll_interval_s = poll_interval_s
        self._lost_answer_grace_s = lost_answer_grace_s
        self._prices = prices
        self._keep = keep
        self._extend = extend
        self._close_account = close_account
        self._warm_key = store.runs.get(run_id).batch_keys[0] if warm_first else None
        self._wake = threading.Event()
        self.future: Future[None] = Future()
        self._is_over = threading.Event()
        self._cancel: bool | None = None
        self._canceling: bool | None = None
        self._posts_to_cancel = False
        self._cancel_done = threading.Event()
        self._cancel_due_s = 0.0
        self._n_cancel_failures = 0
        self._messages: dict[int, str] = {}
        self._poll_message = ""
        self._stopped_keys: set[int] = set()  # batches for which nothing can be done before somebody goes on
        self._is_deaf = False  # the server does not tell us what becomes of the batches
        self._turn = threading.Lock()
        self._has_left = False
        self._check_now = False
        self._observers: list[Observer] = []
        self._observers_lock = threading.Lock()
        self._leases: dict[int, Lease] = {}
        self._journal = Journal(run_id)
        self._crew = Crew(clock, self._wake)
        self._stepping: dict[int, BatchRecord] = {}
        self._thread: threading.Thread | None = None
        self._steps: Scheduler | None = None
        self._pid = os.getpid()
        self._n_waiting = 0
        self.is_told = False

    # ---------------------------------------------------------------- from other threads

    def start(self) -> None:
        """Begin to drive the run, in a thread that keeps this cell's context (its prints and widgets stay here)."""
        run, name = contextvars.copy_context().run, f"pandas_batch {self.run_id}"
        self._thread = threading.Thread(target=run, args=(self._run,), name=name, daemon=True)
        exiting.remember(self)
        try:
            exiting.leave_if_ending()
            self._thread.start()
        except (RuntimeError, exiting.ProcessEnding):
            # From here on nothing can be driven, and whoever waits gets the error.
            self._run_no_more()
            self._settle()
            self._is_over.set()

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was made here: of a forked process only the parent has the thread."""
        return self._pid == os.getpid()

    @property
    def is_alive(self) -> bool:
        """Whether the engine is still at work: it can be asked to go on, to cancel, to look."""
        return self.is_of_this_process and self._thread is not None and not self._has_left

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """While this is open, somebody waits for the run."""
        self._n_waiting += 1
        try:
            yield
        finally:
            self._n_waiting -= 1

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for the run."""
        return self._n_waiting > 0

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every answer is collected or nothing can go on; return whether that is so."""
        try:
            self.future.result(timeout_s)
        except FutureTimeout:
            return False
        return True

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the thread has put everything away too, at once; return whether it has."""
        self._wake.set()
        return self._is_over.wait(timeout_s)

    def observe(self, observer: Observer) -> None:
        """Call `observer` with each new status, in the engine's thread."""
        with self._observers_lock:
            if observer not in self._observers:
                self._observers.append(observer)

    def forget(self, observer: Observer) -> None:
        """Call `observer` no more."""
        with self._observers_lock:
            if observer in self._observers:
                self._observers.remove(observer)

    def go_on(self) -> bool:
        """
        Post again where posting was stopped, also by an error; return False where the engine has come to its end.

        An engine that met an error follows what is on the server, and whoever waits has got the error.
        """
        self.is_told = False
        with self._turn:
            if self._has_left:
                return False
            if self.error is not None:
                self.error, self.message = None, ""
                if self.future.done():
                    self.future = Future()
                self._stopped_keys.clear()
                self.posts_stopped = self._is_deaf = False
            elif self.posts_stopped:
                self.posts_stopped = False
            else:
                return True
        self._wake.set()
        return True

    def check_now(self) -> None:
        """Poll at once."""
        self._check_now = True
        self._wake.set()

    def stop_posting(self) -> None:
        """Let what is posted go on, and post nothing more."""
        self.posts_stopped = True
        self._wake.set()

    def request_cancel(self, *, force: bool = False) -> None:
        """Ask for a cancel of the run's own batches, before anything else is done."""
        with self._turn:
            self._cancel_done.clear()
            self._cancel = force
            if self._has_left:
                self._cancel_done.set()
            elif self.error is not None:
                # What could not be posted is not wanted any more: what runs is waited for, to its end.
                self.error, self.message = None, ""
                self._stopped_keys.clear()
                self._is_deaf = False
                if self.future.done():
                    self.future = Future()
        self._wake.set()

    def wait_for_cancel(self, timeout_s: float) -> bool:
        """Wait until the cancel has been asked of the server, or nobody will; return whether that is so."""
        return self._cancel_done.wait(timeout_s)

    # ---------------------------------------------------------------- at the end of the process

    def may_still_send(self) -> bool:
        """Return whether batches of this run are still to be posted, and will be."""
        if not self.is_alive or self.posts_stopped or self.error is not None:
            return False
        return any(batch.state in TO_SEND for batch in self.store.batches.of_run(self.run_id))

    def last_words(self) -> str:
        """Return where the run is and how to come back to it; nothing where all of it is collected."""
        batches = self.store.batches.of_run(self.run_id)
        again = f'pandas_batch.load("{self.run_id}").result()'
        return words_at_the_end(self.run_id, batches, error=self.error, message=self.message, again=again)

    def stop(self) -> None:
        """End after the step that is being taken."""
        self._wake.set()

    def _run_no_more(self) -> None:
        self.error = self.error or PandasBatchError(
            f"Run {self.run_id} is not driven any more: this Python process is ending.",
            "What is on the server goes on there; nothing is lost.",
            f'pandas_batch.load("{self.run_id}").result()   # in another process',
        )

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            self._drive()
        except exiting.ProcessEnding:
            self._run_no_more()
        except BaseException as error:
            self.error = error
            self.message = "The run stopped: " + (error.what if isinstance(error, StoreError) else type(error).__name__)
        finally:
            # Nobody lets go of a lease, or says how things stand, while a step is being taken.
            self._crew.wait()
            self._leave()
            self._settle()
            if self.error is not None:
                # The store itself may be what cannot be used.
                with suppress(Exception):
                    self._journal.note(self.store.batches.of_run(self.run_id))
                self._journal.close([], error=self.error)
            for lease in self._leases.values():
                lease.close()
            self._leases.clear()
            if self.error is None:
                exiting.forget(self)
            self._is_over.set()

    def _leave(self, unless: Callable[[], bool] = lambda: False) -> bool:
        """Let nobody ask this engine to go on from now on; stay, and return False, where `unless` says so."""
        with self._turn:
            if not self._has_left and unless():
                return False
            self._has_left = True
            self._cancel_done.set()
            return True

    def _settle(self, *, of_error: bool = False) -> None:
        """Tell everybody who waits that this is the end; `of_error`: unless the engine was asked to go on meanwhile."""
        if self.future.done():
            return
        self.next_poll_at = None
        try:
            self._tell()
        except Exception as error:
            # Whoever waits gets the error, and is never left waiting.
            self.error = self.error or error
        finally:
            with self._turn:
                if (self.error is not None or not of_error) and not self.future.done():
                    self.future.set_result(None)

    def _has_stopped(self) -> bool:
        """Stop posting where an error was met; return whether that is so, and nobody has asked to go on since."""
        with self._turn:
            if self.error is not None:
                self.posts_stopped = True
            return self.error is not None

    def _drive(self) -> None:
        started_s, n_last_rounds = self.clock.monotonic_s(), 0
        while True:
            self._wake.clear()
            exiting.leave_if_ending()
            if self.error is not None:
                self._crew.wait()
            self._take_back()
            with self._turn:
                force, self._cancel = self._cancel, None
            if force is not None:
                self._canceling = force
                self._cancel_batches(force=force)
                self._posts_to_cancel = self._is_posting()
            if self._canceling is not None and not self._is_posting():
                if self._posts_to_cancel:
                    # What was on its way to the server is there now, or never will be.
                    self._cancel_batches(force=self._canceling)
                self._canceling, self._posts_to_cancel = None, False
                with self._turn:
                    # One that came meanwhile, perhaps by force, is still to be done.
                    if self._cancel is None:
                        self._cancel_done.set()
            batches = self.store.batches.of_run(self.run_id)
            self._journal.note(batches)
            open_batches = [b for b in batches if b.state not in SETTLED]
            if not open_batches and self._crew:
                self._crew.wait()
                continue
            if not open_batches and not self.posts_stopped and self._extend():
                continue
            if not open_batches:
                self.message = ""
                self._leave()
                paid_usd = self._describe(self).paid_usd if logger.isEnabledFor(logging.INFO) else None
                self._journal.close(batches, paid_usd=paid_usd)
                look_for_surplus(self.store, self.run_id, wire=self._wire, clock=self.clock, prices=self._prices)
                self._settle()
                self.clock.wait(PAUSE_S, self._wake)
                # Also where the process is ending. After the pause, the answers that whoever waited has read are there;
                # what fails to be recorded is counted when it is asked for.
                with suppress(Exception):
                    self._close_account()
                exiting.leave_if_ending()
                compact_run(self.store, self.run_id, hold=self._hold, keep=self._keep)
                return
            due_in_s = self._begin_all(open_batches)
            if self.error is not None:
                self._crew.wait()
                self._take_back()
            if self.error is None:
                self.message = self._worst_message(open_batches) or self._words_of_waiting() or self._poll_message
            if self._has_stopped():
                if self._can_follow():
                    # What is on the server is paid for. What has ended is collected before whoever waits gets the
                    # error, lest the bill reads too low; the rest is followed.
                    if not self.future.done() and n_last_rounds < _LAST_ROUNDS:
                        n_last_rounds += 1
                        self._check_now = True
                        continue
                    self._settle(of_error=True)
                else:
                    n_last_rounds += 1
                    is_last = n_last_rounds > _LAST_ROUNDS or not self._has_ended()
                    if is_last and self._leave(unless=lambda: self.error is None or self._cancel is not None):
                        return
                    continue
            else:
                n_last_rounds = 0
            self._tell()
            if due_in_s is None and self._crew:
                due_in_s = tick_s(self.clock.monotonic_s() - started_s)
            if due_in_s is None:
                if self._leave(unless=lambda: not (self.posts_stopped or self.error) or self._cancel is not None):
                    return
                due_in_s = _WATCH_S
            if due_in_s > 0:
                most_s = tick_s(self.clock.monotonic_s() - started_s)
                self.clock.wait(max(INSTANT_S, min(due_in_s, most_s)), self._wake)

    def _is_posting(self) -> bool:
        return any(batch.state in WITHOUT_ID for batch in self._stepping.values())

    def _can_follow(self) -> bool:
        """Return whether batches of ours are under way that can be polled although the run has met an error."""
        return not self._is_deaf and any(
            b.state in AT_THE_SERVER and b.key in self._leases and b.key not in self._stopped_keys
            for b in self.store.batches.of_run(self.run_id)
        )

    def _has_ended(self) -> bool:
        return any(b.state == "ended" and b.key in self._leases for b in self.store.batches.of_run(self.run_id))

    def _begin_all(self, open_batches: list[BatchRecord]) -> float | None:
        """Begin every step that is due; return the seconds until the next one, None when nothing will ever be."""
        mine = []
        for batch in open_batches:
            was_mine = batch.key in self._leases
            if self._hold(batch.key):
                # Until we held it, another may have changed it.
                mine.append(batch if was_mine else self.store.batches.get(batch.key))
        dues: list[float] = [] if len(mine) == len(open_batches) else [_WATCH_S]
        mine = [batch for batch in mine if batch.key not in self._stopped_keys]
        tools = self._steps or self._make_steps()
        # Alone, a batch keeps nobody waiting, and another thread would only have to begin with cold caches.
        is_alone = len(open_batches) == 1 and not self._crew
        steps, later_s = tools.due(mine, posts_stopped=self.posts_stopped, at_once=self._check_now)
        dues += later_s
        for batch, step in steps:
            if is_alone:
                due_in_s = self._stepped(batch, step(batch))
                dues += [] if due_in_s is None else [due_in_s]
            else:
                self._stepping[batch.key] = batch
                self._crew.begin(batch.key, partial(step, batch))
        bound = [batch for batch in mine if batch.state == "bound" and batch.key not in self._stepping]
        if any(batch.cancel_asked and batch.cancel_initiated_at is None for batch in bound):
            if self._cancel_due_s <= self._now_s():
                self._cancel_batches(force=False)
            dues.append(max(0.0, self._cancel_due_s - self._now_s()))
        if bound and _POLL not in self._crew.under_way:
            dues.append(self._poll(bound, is_alone=is_alone))
        self._check_now = False
        self.warnings += tools.pop_warnings()
        return min(dues) if dues else None

    def _take_back(self) -> None:
        """Take note of what the steps and the poll that have been taken led to."""
        for name, future in self._crew.finished():
            if name == _POLL:
                self._polled(future.result())
            else:
                self._stepped(self._stepping.pop(cast("int", name)), future.result())

    def _stepped(self, batch: BatchRecord, done: Step) -> float | None:
        """Take note of what a step led to; return when the next one is due, None where there is none."""
        tools = self._steps or self._make_steps()
        if done.message or done.limited or batch.state not in WITHOUT_ID:
            self._messages[batch.key] = done.message
        due_in_s = tools.taken(batch, done)
        give_back_memory(batch.n_requests)
        self._stop(done)
        if batch.state in WITHOUT_ID and done.due_in_s == 0.0:
            tools.poller.posted(batch.key)
        if done.error is None:
            return due_in_s
        self._stopped_keys.add(batch.key)
        return None

    def _worst_message(self, batches: Iterable[BatchRecord]) -> str:
        """Return what there is to say: of a batch that is not on the server rather than of the polls of the others."""
        for batch in batches:
            if batch.state == "bound" and batch.cancel_initiated_at is None and not batch.cancel_asked:
                self._messages.pop(batch.key, None)
        return next((self._messages[batch.key] for batch in batches if self._messages.get(batch.key)), "")

    def _words_of_waiting(self) -> str:
        return self._steps.words_of_waiting(self.store.batches.of_run(self.run_id)) if self._steps is not None else ""

    def _poll(self, bound: list[BatchRecord], *, is_alone: bool) -> float:
        """Poll the posted batches if that is due; return the seconds until the next poll."""
        tools = self._steps or self._make_steps()
        if self._check_now or tools.poller.due_in_s(bound) <= INSTANT_S:
            poll = partial(tools.poller.poll, bound, share=tools.poll_share)
            if not is_alone:
                self._crew.begin(_POLL, poll)
                return _WATCH_S
            polled = poll()
            self._polled(polled)
            if polled.due_in_s == 0.0:
                return 0.0
        due_in_s = tools.poller.due_in_s(bound)
        self.next_poll_at = self.clock.now() + timedelta(seconds=due_in_s)
        return due_in_s

    def _polled(self, polled: Step) -> None:
        """Take note of what a poll led to."""
        self.last_poll_at = self.clock.now()
        self._poll_message = polled.message
        self._is_deaf = polled.error is not None
        self._stop(polled)
        if polled.due_in_s == 0.0 and self._steps is not None:
            self._steps.one_has_ended()

    def _stop(self, step: Step) -> None:
        if self.error is None and step.error is not None:
            self.error = step.error
            self.message = step.message
            self.posts_stopped = True

    def _make_steps(self) -> Scheduler:
        place = EngineContext(
            store=self.store, wire=self._make_wire(), clock=self.clock, lost_answer_grace_s=self._lost_answer_grace_s
        )
        self._steps = Scheduler(
            place,
            poll_interval_s=self._poll_interval_s,
            prices=self._prices,
            warm_key=self._warm_key,
            on_sent=self._wake.set,
        )
        return self._steps

    def _wire(self) -> Wire:
        return (self._steps or self._make_steps()).wire

    def _hold(self, key: int) -> bool:
        """Hold the lease of a batch: only its holder takes steps for it."""
        if key not in self._leases:
            lease = self.store.lease(f"batch-{key}")
            if lease is None:
                return False
            self._leases[key] = lease
        return True

    def _now_s(self) -> float:
        # Wall time: a laptop that slept for hours has slept through its polls too.
        return self.clock.now().timestamp()

    # ---------------------------------------------------------------- cancel, tell

    def _cancel_batches(self, *, force: bool) -> None:
        """Ask the server to cancel the batches that this run posted, and withdraw those not posted yet."""
        has_failed = False
        # Without the leases too: where another kernel drives the run, this one's cancel counts as much.
        # What is asked live was stopped when the cancel was asked for: what is asked since is meant (`finish_now`).
        for batch in self.store.batches.ask_cancel(self.run_id, live=False):
            batch_id = batch.batch_id or (batch.candidate_id if force else None)
            if batch_id is None or batch.state == "ended" or batch.cancel_initiated_at is not None:
                continue
            wire = self._wire()
            try:
                canceled = wire.cancel(str(batch_id))
            except Exception as error:
                # A batch that has just ended cannot be canceled: its answers are wanted, not an error.
                has_failed = True
                self._messages[batch.key] = f"The cancel of {batch_id} was not accepted ({type(error).__name__})."
            else:
                self._messages.pop(batch.key, None)
                times = times_of(canceled)
                times["cancel_initiated_at"] = times["cancel_initiated_at"] or self.clock.now()
                self.store.batches.transition(batch.key, expect={"bound"}, to="bound", **times)
        self._n_cancel_failures = self._n_cancel_failures + 1 if has_failed else 0
        self._cancel_due_s = self._now_s() + (backoff_s(self._n_cancel_failures) if has_failed else 0.0)
        if self._steps is not None:
            self._steps.poller.at_once()

    def _tell(self) -> None:
        with self._observers_lock:
            observers = list(self._observers)
        if not observers or exiting.is_ending():
            return
        status = self._describe(self)
        for observer in observers:
            try:
                observer(status)
            except Exception as error:
                self.forget(observer)
                # Shown later, where the user waits: turned into an error here it would stop the run.
                self.warnings.append(
                    f"A display of run {self.run_id} failed and was dropped ({type(error).__name__}); the run went on."
                )
