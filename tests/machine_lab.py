"""A machine of runs: one user, a store and a server, all that may happen to them, and the laws that hold always.

A real simulator and a real store; time is the machine's own.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import anthropic
import pandas as pd
from conftest import FakeClock
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pandas_batch
from pandas_batch import NotEndedError, failpoints, simulator
from pandas_batch.engine.collecting import MAX_DOWNLOADS
from pandas_batch.errors import FrameMismatchError, InputError, ResultsGoneError, UnreadableAnswerError
from pandas_batch.run import recording
from pandas_batch.run.driving import _engines
from pandas_batch.run.run import Run
from pandas_batch.run.starting import attach_run, parse, start_run
from pandas_batch.simulator.faults import BadResults, ErrorAnswer, ListLag, LostAnswer, RowFault
from pandas_batch.store import Store
from pandas_batch.store import store as store_room

BATCH_ROWS = 3
ENDED = {"succeeded", "errored", "expired", "canceled", "missing", "skipped", "unsent", "invalid"}


def answer_to(prompt: str) -> str:
    """Return the one right answer."""
    return hashlib.sha256(prompt.encode()).hexdigest()


class Killed(BaseException):
    """The kernel is dead: raised in its engine at a named instant."""


class Runs(RuleBasedStateMachine):
    """One user with a notebook, a store and a server, and everything that may happen to them."""

    n_steps = 0
    """Scheduler of all machines so far."""

    broken: ClassVar[list[str]] = []
    """The laws that were seen broken."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.api = simulator.serve(
            answer=lambda params: answer_to(params["messages"][-1]["content"]),
            clock=self.clock.time_s,
            seconds_per_batch=30,
        )
        self.client = self.api.client()
        self.limit = recording.MAX_BATCH_REQUESTS
        recording.MAX_BATCH_REQUESTS = BATCH_ROWS
        self.kernels: list[Run] = []
        self.known: dict[str, list[str]] = {}
        self.frame = pd.DataFrame({"prompt": ["p0", "p1", "p2", "p1"]})
        self.n_new = 0
        self.n_damages = 0
        self.forgotten: Counter[str] = Counter()

    def teardown(self) -> None:
        failpoints.on_reached = None
        recording.MAX_BATCH_REQUESTS = self.limit
        try:
            self.api.faults.clear()
            for run in {run.id: run for run in self.kernels}.values():
                self.finish(run)
                self.check_answers(run)
            self.clock.advance(2 * 3600)  # what the server commits late is there by now, and has ended
            self.check_money()
        finally:
            self.leave()
            self.api.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------ what the user has in hand

    def leave(self) -> None:
        """Let its engines come to their end, and forget all handles, as a kernel that stops does."""
        for place, engine in list(_engines.items()):
            if engine.store.path == self.folder:  # those of other tests may not end for a long time
                engine.stop_posting()
                assert engine.join(20), "an engine that is to stop does not end"
                _engines.pop(place, None)
        self.kernels.clear()
        opened = store_room._instances.pop(self.folder, None)
        if opened is not None:
            opened._database.close()

    def ask(self, frame: pd.DataFrame, **options: Any) -> Run:
        given = {"client": self.client, "store": str(self.folder), "progress": "off", "preflight": False, **options}
        run = start_run(frame, parse(given, "prompt"), blocking=True, clock=self.clock)
        self.kernels.append(run)
        self.known[run.id] = frame["prompt"].tolist()
        return run

    def finish(self, run: Run) -> pd.DataFrame | None:
        """Bring a run to its end, however often it stops on the way."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(30):
                try:
                    return run.result()
                except (anthropic.APIError, UnreadableAnswerError, Killed):
                    continue
                except ResultsGoneError:
                    return None
        raise AssertionError(f"{run!r} does not end")

    @contextmanager
    def law(self, name: str) -> Iterator[None]:
        """Note the law `name` as broken where what stands in here does not hold."""
        try:
            yield
        except AssertionError:
            Runs.broken.append(name)
            raise

    @property
    def newest(self) -> Run:
        return self.kernels[-1]

    # ------------------------------------------------------------ what may happen

    @initialize()
    def first(self) -> None:
        self.ask(self.frame)

    @rule()
    def submit_again(self) -> None:
        """The same line: the same run, or its newest retry."""
        before = {run.record.identity: run.id for run in self.kernels}
        run = self.ask(self.frame)
        assert before.get(run.record.identity) is None or run.id in self.known

    @rule()
    def result(self) -> None:
        """Wait for the end."""
        self.finish(self.newest)

    @rule(seconds=st.sampled_from([1.0, 40.0, 3600.0, 25 * 3600.0]))
    def jump(self, seconds: float) -> None:
        """The clock goes on, or a laptop sleeps."""
        self.clock.advance(seconds)

    @rule(n=st.integers(1, 4))
    def extend(self, n: int) -> None:
        """More rows."""
        new = [f"p{self.n_new + i + 10}" for i in range(n)]
        self.n_new += n
        self.frame = pd.concat([self.frame, pd.DataFrame({"prompt": new})], ignore_index=True)

    @rule(how=st.sampled_from(["sort", "filter", "change", "reverse"]))
    def edit(self, how: str) -> None:
        """Other rows, or the same in another order."""
        frame = self.frame
        if how == "sort":
            frame = frame.sort_values("prompt", kind="stable")
        elif how == "reverse":
            frame = frame.iloc[::-1]
        elif how == "filter" and len(frame) > 3:
            frame = frame.iloc[1:]
        elif how == "change":
            self.n_new += 1
            frame = frame.assign(prompt=[*frame["prompt"].iloc[:-1], f"changed {self.n_new}"])
        self.frame = frame

    @rule()
    def attach(self) -> None:
        """The frame as it is now gets the answers of its own rows."""
        run = self.newest
        try:
            attached = attach_run(self.frame, run, {})
        except FrameMismatchError:
            assert not set(self.frame["prompt"]) & set(self.known[run.id])
            return
        out = attached.result(partial=True)
        held = set(self.known[run.id])
        with self.law("an answer stands beside its own prompt"):
            for prompt, status, text in zip(out["prompt"], out["status"], out["output"], strict=True):
                assert (status == "unsent") == (prompt not in held)
                if status == "succeeded":
                    assert text == answer_to(prompt)

    @rule()
    def second_kernel(self) -> None:
        """Another handle on the newest run."""
        loaded = pandas_batch.load(self.newest.id, store=str(self.folder))
        assert sum(loaded.counts.values()) == len(self.known[loaded.id])

    @rule(point=st.sampled_from(failpoints.POINTS), faults=st.booleans())
    def kill(self, point: str, faults: bool) -> None:
        """The kernel dies at a named instant of a new run (or of none), and a new one opens the store."""
        if faults:
            self.api.faults.add(LostAnswer("reset", committed=self.n_new % 2 == 0))
        self.extend(1)

        def die(reached: str) -> None:
            if reached == point:
                raise Killed

        failpoints.on_reached = die
        try:
            run = self.ask(self.frame)
            if run.engine is not None:
                run.engine.join(20)
        except Killed:
            pass
        finally:
            failpoints.on_reached = None
        self.leave()
        self.ask(self.frame)

    @rule()
    def cancel(self) -> None:
        """Cancel what the newest run has posted; nothing of it is posted any more."""
        run, n_before = self.newest, self.api.calls("cancel")
        with self.clock.held():
            run.cancel()
            mine = [batch for batch in run.store.batches_of_run(run.id) if batch.run_id == run.id]
        with self.law("a cancel is meant"):
            for batch in mine:
                assert batch.state not in ("intent", "refused") or batch.cancel_asked
                was_asked = batch.cancel_initiated_at is not None or self.api.calls("cancel") > n_before
                assert batch.state != "bound" or was_asked

    @rule(errors=st.sampled_from(["transient", "all"]))
    def retry(self, errors: str) -> None:
        """Ask again for what failed."""
        run = self.newest
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # where nothing is to be asked again, it says so
                again = run.retry_failed(errors=errors)
        except InputError:
            return  # it, or its newest retry, is still under way
        with self.law("only what has ended is asked again"):
            assert run.is_settled()
        self.known[again.id] = self.known[run.id]
        self.kernels.append(again)

    @precondition(lambda self: len(self.kernels) > 0)
    @rule(server=st.booleans())
    def delete(self, server: bool) -> None:
        """Remove the newest run; what it paid alone may be paid again by whoever asks again."""
        run = self.newest
        try:
            run.delete(server=server)
        except (NotEndedError, UnreadableAnswerError, anthropic.APIError):
            return  # nothing was deleted, as the next invariants see
        known = Store.open(str(self.folder)).batch_ids()
        self.forgotten.update({bill.custom_id[23:] for bill in self.api.billed if bill.batch_id not in known})
        self.kernels = [other for other in self.kernels if other.id != run.id]
        self.known.pop(run.id)
        self.ask(self.frame)

    @rule(share=st.sampled_from([0.3, 1.0]), outcome=st.sampled_from(["overloaded", "errored", "expired"]))
    def rows_will_fail(self, share: float, outcome: str) -> None:
        """Rows of the next batch do not get their answer."""
        self.api.faults.add(RowFault(outcome, share=share, times=1))

    @rule(how=st.sampled_from(["reset", "html", "cut", "redirect_307"]), committed=st.booleans(), late=st.booleans())
    def creates_will_be_lost(self, how: str, committed: bool, late: bool) -> None:
        """The answer to the next create is lost."""
        self.api.faults.add(LostAnswer(how, committed=committed, late_s=200.0 if late and committed else 0.0))

    @rule(damage=st.sampled_from(["cut", "missing", "doubled", "junk", "empty"]))
    def results_will_be_damaged(self, damage: str) -> None:
        """The next download is not what it should be; never so often that it would have to be believed."""
        if self.n_damages < MAX_DOWNLOADS - 1:
            self.n_damages += 1
            self.api.faults.add(BadResults(damage, n_rows=1, polite=True))

    @rule(
        endpoint=st.sampled_from(["create", "list", "retrieve", "results", "cancel"]),
        status=st.sampled_from([429, 529]),
    )
    def server_will_fail(self, endpoint: str, status: int) -> None:
        """The server has a bad moment."""
        self.api.faults.add(ErrorAnswer(endpoint, status, times=2))

    @rule(
        endpoint=st.sampled_from(["create", "list", "retrieve", "results", "cancel"]),
        status=st.sampled_from([200, 302, 400, 401, 403, 404, 413, 429, 502]),
        committed=st.booleans(),
        times=st.integers(1, 4),
    )
    def something_answers_for_the_api(self, endpoint: str, status: int, committed: bool, times: int) -> None:
        """A proxy lets calls through, or not, and answers itself."""
        page = {"body": "<html>Sign in to go on</html>", "content_type": "text/html"}
        self.api.faults.add(ErrorAnswer(endpoint, status, committed=committed, times=times, **page))

    @rule(seconds=st.sampled_from([5.0, 120.0]))
    def the_list_lags(self, seconds: float) -> None:
        """What was made shows up in the list only after a while."""
        self.api.faults.add(ListLag(seconds, times=3))

    @rule()
    def cancel_in_another_process(self) -> None:
        """Another process cancels the newest run in the store: from then on nobody posts a batch of it."""
        run, place = self.newest, self.folder
        with self.clock.held():
            mine = store_room._instances.pop(place)
            try:
                Store.open(str(place)).ask_cancel(run.id)
                store_room._instances.pop(place)._database.close()
            finally:
                store_room._instances[place] = mine
            posted = {b.key: b.attempts for b in run.store.batches_of_run(run.id) if b.run_id == run.id}
        self.finish(run)
        with self.law("a cancel is meant"):
            assert all(run.store.batch(key).attempts == n for key, n in posted.items())

    @rule()
    def others_come(self) -> None:
        """Somebody else's batch of the same size."""
        self.api.add_decoy(BATCH_ROWS)

    # ------------------------------------------------------------ what holds always

    @invariant()
    def counts_sum(self) -> None:
        Runs.n_steps += 1
        for run in self.kernels[-2:]:
            assert sum(run.counts.values()) == len(self.known[run.id])

    @invariant()
    def answers_belong(self) -> None:
        if self.kernels:
            self.check_answers(self.newest)

    @invariant()
    def nothing_is_paid_twice(self) -> None:
        self.check_money()

    def check_answers(self, run: Run) -> None:
        out = run.result(partial=True)
        with self.law("an answer stands beside its own prompt"):
            for prompt, status, text, cost in zip(
                self.known[run.id], out["status"], out["output"], out["cost_usd"], strict=True
            ):
                assert status in ENDED | {"pending"}
                assert (text == answer_to(prompt)) if status == "succeeded" else pd.isna(text)
                assert status == "pending" or not pd.isna(cost)

    def check_money(self) -> None:
        """No (fingerprint, draw) is billed twice; what the runs say they paid is what was billed.

        What was deleted may be asked for again, and is paid again then: that is what deleting means.
        """
        bought = Counter(bill.custom_id[23:] for bill in self.api.billed if bill.cost_usd)
        twice = {tail: n for tail, n in bought.items() if n > 1 + self.forgotten[tail]}
        with self.law("nothing is paid twice"):
            assert not twice, twice
        if self.forgotten:
            return
        if not self.kernels:
            return
        store = Store.open(str(self.folder))
        records = store.runs()
        batches = {batch.key: batch for record in records for batch in store.batches_of_run(record.id)}
        if all(batch.state in ("collected", "withdrawn") for batch in batches.values()):
            paid = sum(
                Decimal(str(Run(store, record.id, self.newest.options, clock=self.clock).paid_usd))
                for record in records
            )
            with self.law("what runs say they paid is what was billed"):
                assert paid == self.api.billed_usd
