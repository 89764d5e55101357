"""Ask the requests of one recorded batch one by one through the Messages API, several at once, in threads of our own.

What is asked is recorded before, each answer when it comes; in the end the batch is collected like any other. A
request that the API has refused, or could not take, was not billed and may be asked again; one whose answer was lost
is asked a second time at most.
"""

from __future__ import annotations

import contextvars
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from pandas_batch import exiting
from pandas_batch.amounts import duration
from pandas_batch.clock import Clock
from pandas_batch.errors import InputError, UnreadableAnswerError, clip
from pandas_batch.failpoints import reached
from pandas_batch.wire.backoff import backoff_s

from .journal import asked_live, asking_live
from .settling import settle_live
from .spooling import params_of_line

if TYPE_CHECKING:
    from pandas_batch.store import Lease, Store
    from pandas_batch.wire.messages import Asked
    from pandas_batch.wire.wire import Wire

N_AT_ONCE = 16
"""How many requests are under way at once, as long as the rate limit allows."""

MAX_TRIES = 8
"""How often a request is asked that the API could not take, before its row has that error: for about two minutes."""

MAX_LOST = 2
MAX_FOREIGN = 3

_LONGEST_PAUSE_S = 60.0
_TICK_S = 0.5
_NO_SUCH_OFFER = re.compile(r"not (?:supported|available) (?:in|through|by|with) the messages api", re.IGNORECASE)


_TROUBLES = {
    "limited": "The API asks for fewer requests at a time (rate limit)",
    "busy": "The API is overloaded or has an internal error",
    "unreachable": "The server cannot be reached",
    "lost": "An answer was lost on its way",
}
_NO_ANSWER = "Something else than the API answered"


class Asker:
    """
    Asks what a live batch holds.

    Parameters
    ----------
    store, key
        The batch, in state ``live``.
    lease
        Its `pandas_batch.store.records.live_lease`, held from before it was recorded; released when it is collected.
    wire
        Where to ask.
    prices
        Prices of the call.
    on_answer
        Called, in a thread of the asker, with the number of requests done so far.
    on_trouble
        Called, in a thread of the asker, with why it waits, in a sentence.
    keep
        Returns, when the batch is collected, of which positions a retry may need the requests again.
    """

    def __init__(
        self,
        store: Store,
        key: int,
        lease: Lease,
        *,
        wire: Wire,
        clock: Clock,
        prices: Mapping[str, tuple[float, float]] | None = None,
        on_answer: Callable[[int], None] = lambda n_done: None,
        on_trouble: Callable[[str], None] = lambda text: None,
        keep: Callable[[], Collection[int]],
    ) -> None:
        self.error: BaseException | None = None
        self.n_done = 0
        self.n_lost = 0
        self.n_asked_twice = 0
        self.is_told = False
        self._store = store
        self._batch = store.batches.get(key)
        self._lease = lease
        self._wire = wire
        self._clock = clock
        self._prices = prices
        self._on_answer = on_answer
        self._on_trouble = on_trouble
        self._keep = keep
        self._log = store.files.live_log(key)
        self._requests: Iterator[tuple[int, bytes]] = store.files.spooled_requests(key)
        self._taking = threading.Lock()
        self._room = threading.Condition()
        self._n_under_way = 0
        self._most_at_once = N_AT_ONCE
        self._pause_until_s = 0.0
        self._n_foreign = 0
        self._stopping = threading.Event()
        self._over = threading.Event()
        self._n_waiting = 0
        self.future: Future[None] = Future()

    # ---------------------------------------------------------------- from other threads

    def start(self) -> None:
        """Begin to ask."""
        run = contextvars.copy_context().run
        thread = threading.Thread(target=run, args=(self._run,), name="pandas_batch asker", daemon=True)
        exiting.remember(self)
        try:
            exiting.leave_if_ending()
            thread.start()
        except (RuntimeError, exiting.ProcessEnding):
            self._close()
            raise

    def wait(self, timeout_s: float) -> bool:
        """Wait until the batch is collected; return whether it is."""
        try:
            self.future.result(timeout_s)
        except FutureTimeout:
            return False
        return True

    def stop(self) -> None:
        """Ask nothing more; what is under way is waited for, it is paid for."""
        self._stopping.set()
        with self._room:
            self._room.notify_all()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until all of it has ended; return whether it has."""
        return self._over.wait(timeout_s)

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for it."""
        return not self._stopping.is_set()

    def may_still_send(self) -> bool:
        """Return False: nothing is asked that nobody waits for."""
        return False

    def last_words(self) -> str:
        """Return nothing: whoever waited has got the error."""
        return ""

    # ---------------------------------------------------------------- the threads

    def _run(self) -> None:
        try:
            now = self._clock.now()
            # What is on the medium as posted is never swept away with a database that was put back.
            self._store.batches.mark_posting(self._batch.key, now)
            self._store.batches.update(self._batch.key, posted_at=now, created_at=now)
            asking_live(self._batch)
            self._ask_all()
        except BaseException as error:
            self._fail(error)
        kept: Collection[int] | None = None
        try:
            self._log.close()
            settle_live(self._store, self._store.batches.get(self._batch.key), clock=self._clock, prices=self._prices)
            kept = self._keep()
        except BaseException as error:
            self._fail(error)
        self._lease.close()
        asked_live(self._store.batches.get(self._batch.key), error=self.error)
        self.future.set_result(None)
        if kept is not None:
            self._compact(kept)
        self._close()

    def _compact(self, kept: Collection[int]) -> None:
        """Make the batch small, after whoever waits has its answers; where that fails, another does it later."""
        ending = exiting.ProcessEnding
        with suppress(Exception, ending), self._store.lease(f"batch-{self._batch.key}") or nullcontext() as lease:
            if lease is not None and not exiting.is_ending():
                self._store.batches.compact(self._batch.key, keep_requests=kept)

    def _close(self) -> None:
        self._log.close()
        self._lease.close()
        exiting.forget(self)
        self._over.set()
        if not self.future.done():
            self.future.set_result(None)

    def _ask_all(self) -> None:
        threads = []
        for number in range(min(N_AT_ONCE, self._batch.n_requests)):
            context = contextvars.copy_context()
            threads.append(
                threading.Thread(
                    target=context.run, args=(self._work,), name=f"pandas_batch asker {number}", daemon=True
                )
            )
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        try:
            while self._enter():
                try:
                    if self._store.batches.get(self._batch.key).cancel_asked:
                        # By whatever process: what is not asked yet is not wanted any more.
                        self.stop()
                        return
                    with self._taking:
                        request = next(self._requests, None)
                    if request is None:
                        return
                    self._ask(*request)
                finally:
                    self._leave()
        except BaseException as error:
            self._fail(error)

    def _enter(self) -> bool:
        """Wait for room; return whether to go on."""
        with self._room:
            while self._n_under_way >= self._most_at_once and not self._stopping.is_set():
                self._room.wait(_TICK_S)
            if self._stopping.is_set():
                return False
            self._n_under_way += 1
        return self._pause() or self._leave()

    def _leave(self) -> bool:
        with self._room:
            self._n_under_way -= 1
            self._room.notify()
        return False

    def _pause(self, seconds: float = 0.0) -> bool:
        """Wait as long as the rate limit asks for, and at least `seconds`; return whether to go on."""
        until_s = self._clock.monotonic_s() + seconds
        while not self._stopping.is_set():
            left_s = max(until_s, self._pause_until_s) - self._clock.monotonic_s()
            if left_s <= 0:
                return True
            self._clock.wait(min(left_s, _TICK_S), self._stopping)
        return False

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
        self.stop()

    # ---------------------------------------------------------------- one request

    def _ask(self, position: int, line: bytes) -> None:
        params = params_of_line(line)
        self._log.ask(position)
        reached("live asking recorded")
        n_lost = 0
        for n_tries in range(1, MAX_TRIES + 1):
            exiting.leave_if_ending()
            asked = self._wire.ask(params, betas=self._batch.betas)
            if asked.outcome == "answered":
                reached("live answered")
                self._answered(line, b'{"type":"succeeded","message":%b}', asked, n_lost=n_lost)
                return
            if asked.outcome == "refused":
                self._stop_on_offer(asked, params)
                self._answered(line, b'{"type":"errored","error":%b}', asked, n_lost=n_lost)
                return
            if asked.outcome == "lost":
                n_lost += 1
            is_last = n_tries == MAX_TRIES
            if asked.outcome in ("limited", "busy") and is_last:
                self._answered(line, b'{"type":"errored","error":%b}', asked, n_lost=n_lost)
                return
            if not n_lost and asked.outcome != "foreign" and (asked.outcome == "blocked" or is_last):
                # It certainly was not billed.
                self._log.answer(_line_of(line, b'{"type":"canceled"}'))
            self._stop_on_failure(asked, is_last=is_last)
            if n_lost >= MAX_LOST:
                self.n_lost += 1
                return  # it may have been billed twice, and is not asked a third time
            pause_s = backoff_s(n_tries, most_s=_LONGEST_PAUSE_S)
            if asked.retry_after_s is not None:
                pause_s = max(asked.retry_after_s, 0.05)
            if asked.outcome == "limited":
                self._limit(pause_s)
            self._on_trouble(f"{_TROUBLES.get(asked.outcome, _NO_ANSWER)}; trying again in {duration(pause_s)}.")
            if not self._pause(pause_s):
                if not n_lost and asked.outcome != "foreign":
                    self._log.answer(_line_of(line, b'{"type":"canceled"}'))
                return

    def _answered(self, line: bytes, result: bytes, asked: Asked, *, n_lost: int) -> None:
        # A line end in JSON can only stand between two of its tokens.
        content = asked.content.replace(b"\n", b" ").replace(b"\r", b" ")
        self._log.answer(_line_of(line, result % content))
        reached("live answer recorded")
        with self._room:
            self.n_done += 1
            self.n_asked_twice += n_lost > 0
            if asked.outcome == "answered":
                self._n_foreign = 0
                self._most_at_once = min(self._most_at_once + 1, N_AT_ONCE)
            n_done = self.n_done
        self._on_answer(n_done)

    def _limit(self, pause_s: float) -> None:
        with self._room:
            self._pause_until_s = max(self._pause_until_s, self._clock.monotonic_s() + pause_s)
            self._most_at_once = max(1, self._most_at_once // 2)

    def _stop_on_failure(self, asked: Asked, *, is_last: bool) -> None:
        """Raise where asking the other requests would meet the same."""
        if asked.error is None:
            return
        if asked.outcome == "foreign":
            self._n_foreign += 1
            if asked.status_code in (404, 405):
                raise self._no_messages(asked)
            if self._n_foreign >= MAX_FOREIGN:
                raise (
                    asked.error
                    if isinstance(asked.error, UnreadableAnswerError)
                    else UnreadableAnswerError(
                        f"Something that is not the API answered (HTTP {asked.status_code}).",
                        "What came before is kept; whether a request came through is not known.",
                        "Open the base URL in a browser, or ask who runs the network; then run the same line again.",
                    )
                )
        if asked.outcome == "blocked" or (asked.outcome == "unreachable" and is_last):
            raise asked.error

    def _stop_on_offer(self, asked: Asked, params: bytes) -> None:
        """Raise where the model, or the server, answers no messages at all."""
        import msgspec

        said = str(msgspec.json.decode(asked.content)["error"].get("message") or "")
        model = str(msgspec.json.decode(params).get("model", ""))
        if asked.status_code == 404 and model not in said:
            raise self._no_messages(asked)
        if (asked.status_code == 404 and model in said) or _NO_SUCH_OFFER.search(said):
            raise InputError(
                f"model={clip(repr(model), 60)} does not answer through the Messages API: {clip(said)}",
                "Nothing was billed for it; what was answered before is kept.",
                "df.claude_batch.submit(...)   # in a batch, if it takes those; or another model=",
            )

    def _no_messages(self, asked: Asked) -> InputError:
        return InputError(
            f"The server at {self._wire.base_url} does not offer the Messages API (HTTP {asked.status_code}).",
            "Nothing was billed.",
            "df.claude_batch.submit(...)   # through batches; or client= one that answers messages",
        )


def _line_of(request: bytes, result: bytes) -> bytes:
    """Return the line of results that answers a request line."""
    return b'%b","result":%b}' % (request[: request.index(b'","params":')], result)
