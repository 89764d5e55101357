"""A machine of runs: one user, a store and a server, all that may happen to them, and the laws that hold always.

A real simulator and a real store; time is the machine's own.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import anthropic
import msgspec
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
from pandas_batch.run.trial import trial_rows
from pandas_batch.simulator.faults import BadResults, ErrorAnswer, ListLag, LostAnswer, RowFault
from pandas_batch.store import Store
from pandas_batch.store import store as store_room
from pandas_batch.store.states import SETTLED

T = TypeVar("T")

BATCH_ROWS = 3
ENDED = {"succeeded", "errored", "expired", "canceled", "missing", "skipped", "unsent", "invalid", "paused"}


def answer_to(prompt: str) -> str:
    """Return the one right answer."""
    return hashlib.sha256(prompt.encode()).hexdigest()


def is_answer_to(prompt: str, text: str) -> bool:
    """Return whether a text is the right answer: as often as it was interrupted, and once more."""
    answer = answer_to(prompt)
    return bool(text) and text == answer * (len(text) // len(answer))


def question_of(params: dict[str, Any]) -> tuple[str, int]:
    """Return what a request asks: its prompt, and how many parts of an answer it goes on from."""
    prompt, *later = params["messages"]
    said = later[-1]["content"] if later else []
    return prompt["content"], sum(block["type"] == "server_tool_use" for block in said)


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
            answer=lambda params: answer_to(params["messages"][0]["content"]),
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
        self.forgotten: Counter[tuple[str, int]] = Counter()
        self.is_anything_forgotten = False
        self.asked: dict[tuple[str, str], tuple[str, int]] = {}

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
            opened._opened.database.close()

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

    def warned(self, call: Callable[[], T]) -> T:
        """Make a call that may warn."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()

    def under_way(self, *, apart_from: Run | None = None) -> set[tuple[str, int]]:
        """Return what is asked in batches of the store that have not come home."""
        store = Store.open(str(self.folder))
        asked: set[tuple[str, int]] = set()
        for record in store.runs.all():
            for batch in store.batches.of_run(record.id):
                is_apart = apart_from is not None and batch.run_id == apart_from.id
                if batch.state not in SETTLED and not is_apart:
                    lines = [msgspec.json.decode(line) for _, line in store.files.spooled_requests(batch.key)]
                    asked |= {question_of(line["params"]) for line in lines}
        return asked

    def remember_requests(self) -> None:
        """Keep what the server was asked: of a batch that is deleted there, it keeps the bills alone."""
        for batch in self.api.batches:
            for one in batch.requests:
                self.asked[batch.id, one["custom_id"]] = question_of(one["params"])

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

    @rule(n=st.integers(1, 2))
    def submit_with_retries(self, n: int) -> None:
        """The same line, which is to ask again by itself for what fails."""
        self.ask(self.frame, retries=n)

    @rule(n=st.integers(1, 3))
    def trial(self, n: int) -> None:
        """A few rows now; what is under way in a batch is asked all the same, once."""
        under_way = self.under_way()
        given = {"client": self.client, "store": str(self.folder), "progress": "off"}
        try:
            out = self.warned(lambda: trial_rows(self.frame, parse(given, "prompt"), n, clock=self.clock))
        except (anthropic.APIError, UnreadableAnswerError, ResultsGoneError):
            return
        self.forgotten.update({(prompt, 0) for prompt in out["prompt"]} & under_way)
        with self.law("an answer stands beside its own prompt"):
            for prompt, status, text in zip(out["prompt"], out["status"], out["output"], strict=True):
                assert status in ENDED
                assert status != "succeeded" or is_answer_to(prompt, text)

    @rule()
    def finish_now(self) -> None:
        """What the newest run lacks is asked live, once its own batches have ended."""
        run = self.newest
        under_way = self.under_way(apart_from=run)
        try:
            self.warned(run.finish_now)
        except (anthropic.APIError, UnreadableAnswerError, ResultsGoneError, InputError):
            return
        self.forgotten.update({question_of(one.params) for one in self.api.messages} & under_way)
        with self.law("finish_now finishes"):
            assert run.is_settled()
            assert "pending" not in run.counts

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
                    assert is_answer_to(prompt, text)

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
            mine = [batch for batch in run.store.batches.of_run(run.id) if batch.run_id == run.id]
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
        self.remember_requests()
        under_way = self.under_way()
        try:
            run.delete(server=server)
        except (NotEndedError, UnreadableAnswerError, anthropic.APIError):
            return  # nothing was deleted, as the next invariants see
        known = Store.open(str(self.folder)).batches.ids()
        self.forgotten.update({asked for (batch_id, _), asked in self.asked.items() if batch_id not in known})
        self.forgotten.update({question_of(one.params) for one in self.api.messages})
        self.forgotten.update(under_way)  # also what the server makes late, of a create that was lost
        self.is_anything_forgotten = True
        self.kernels = [other for other in self.kernels if other.id != run.id]
        self.known.pop(run.id)
        self.ask(self.frame)

    @rule(share=st.sampled_from([0.3, 1.0]), outcome=st.sampled_from(["overloaded", "errored", "expired", "paused"]))
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
                Store.open(str(place)).batches.ask_cancel(run.id)
                store_room._instances.pop(place)._opened.database.close()
            finally:
                store_room._instances[place] = mine
            posted = {b.key: b.attempts for b in run.store.batches.of_run(run.id) if b.run_id == run.id}
        self.finish(run)
        with self.law("a cancel is meant"):
            assert all(run.store.batches.get(key).attempts == n for key, n in posted.items())

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
                is_here = status in ("succeeded", "paused")
                assert is_answer_to(prompt, text) if is_here else pd.isna(text)
                assert status == "pending" or not pd.isna(cost)

    def check_money(self) -> None:
        """No question is billed twice; what the runs say they paid is what was billed.

        What was deleted may be asked for again, and is paid again then: that is what deleting means.
        """
        self.remember_requests()
        bills = [bill for bill in self.api.billed if bill.cost_usd and not bill.is_live]
        # A batch that came late and was deleted there before it was looked at is known by its bills alone.
        known = [bill for bill in bills if (bill.batch_id, bill.custom_id) in self.asked]
        assert len(known) == len(bills) or self.is_anything_forgotten
        bought = Counter(self.asked[bill.batch_id, bill.custom_id] for bill in known)
        bought.update(question_of(one.params) for one in self.api.messages if one.error is None)
        twice = {question: n for question, n in bought.items() if n > 1 + self.forgotten[question]}
        with self.law("nothing is paid twice"):
            assert not twice, twice
        if self.is_anything_forgotten:
            return
        if not self.kernels:
            return
        store = Store.open(str(self.folder))
        records = store.runs.all()
        batches = {batch.key: batch for record in records for batch in store.batches.of_run(record.id)}
        if all(batch.state in ("collected", "withdrawn") for batch in batches.values()):
            paid = sum(
                Decimal(str(Run(store, record.id, self.newest.options, clock=self.clock).paid_usd))
                for record in records
            )
            with self.law("what runs say they paid is what was billed"):
                assert paid == self.api.billed_usd
