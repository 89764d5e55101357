"""What people feel of a run: its queue, its pauses, its network and its history; mostly in time that is only played."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pandas as pd

import pandas_batch
from benchmarks.played import Link, PlayedClock
from pandas_batch import simulator
from pandas_batch.engine.polling import Poller
from pandas_batch.run import recording
from pandas_batch.run.starting import parse, start_run
from pandas_batch.wire import body
from pandas_batch.wire.endpoints import Created, Polled
from pandas_batch.wire.wire import Wire

UP_BYTES_PER_S = DOWN_BYTES_PER_S = 12e6
ROUND_TRIP_S = 0.05
BODY_BYTES, RESULT_BYTES = 120e6, 145.5e6
"""Of 100,000 rows of 1 KB."""


def felt(*, quick: bool) -> Iterator[str]:
    """Yield the lines of the second table."""
    yield from queue()
    yield ""
    yield from pauses(200 if quick else 2_000)
    yield ""
    yield from network()
    yield ""
    yield from history((100,) if quick else (100, 1_000))


@contextmanager
def patched(owner: Any, **values: Any) -> Iterator[None]:
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def ask(frame: pd.DataFrame, api: simulator.Simulator, clock: PlayedClock, store: str) -> Any:
    given = {"client": api.client(), "progress": "off", "preflight": False, "store": store}
    return start_run(frame, parse(given, "prompt"), blocking=True, clock=clock)


# ---------------------------------------------------------------- the server's queue


def queue() -> Iterator[str]:
    """Ten batches, room for two: how often each is uploaded, and how much time is lost."""
    for seconds in (60, 600, 3600):
        for asked_s in (None, 20.0):
            n_uploads, lost = _through_a_queue(seconds, asked_s)
            asks = "" if asked_s is None else f", retry-after {asked_s:.0f} s"
            yield (
                f"queue: ten batches of {seconds:,} s, room for two{asks}: {n_uploads / 10:.1f} uploads a batch, "
                f"{lost:.1%} of the time lost"
            )


def _through_a_queue(seconds: float, asked_s: float | None) -> tuple[int, float]:
    """Return the number of uploads, and the share of the time that was lost."""
    frame = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(20)]})
    clock, lock = PlayedClock(), threading.Lock()
    taken: list[float] = []
    n_uploads = 0
    create = Wire.create

    def limited(self: Wire, sent: Any, *, betas: Any = ()) -> Created:
        nonlocal n_uploads
        with lock:
            n_uploads += 1
            is_full = sum(clock.monotonic_s() < at_s + seconds for at_s in taken) >= 2
            if not is_full:
                taken.append(clock.monotonic_s())
        for _ in sent:
            pass
        if is_full:
            return Created(outcome="retry", status_code=429, retry_after_s=asked_s)
        return create(self, sent, betas=betas)

    with (
        tempfile.TemporaryDirectory() as folder,
        simulator.serve(clock=clock.time_s, seconds_per_batch=seconds) as api,
        patched(recording, MAX_BATCH_REQUESTS=2),
        patched(Wire, create=limited),
    ):
        began_s = clock.monotonic_s()
        run = ask(frame, api, clock, folder)
        run.result()
        took_s = max(batch.stops_at for batch in api.batches) - began_s
        run.engine.join(60)
    return n_uploads, took_s / (5 * seconds) - 1


# ---------------------------------------------------------------- from the end of a batch to its answers


def pauses(n_batches: int) -> Iterator[str]:
    """How long after the end of a batch the poll comes that sees it."""
    for name, typical_s in (("1 min", 60.0), ("10 min", 600.0), ("1 h", 3600.0)):
        for what, asked_s, experience in (
            ("one batch, nothing known", 10.0, 0),
            ("one batch, 20 earlier ones", 10.0, 20),
            ("four batches or more, nothing known", 0.0, 0),
            ("four batches or more, 20 earlier ones", 0.0, 20),
        ):
            chance = random.Random(1)
            lags_s = sorted(_lag_s(chance, typical_s, asked_s, experience) for _ in range(n_batches))
            yield (
                f"from the end to the poll that sees it, {name:6} {what:38}: "
                f"median {statistics.median(lags_s):5.1f} s, 95 % {lags_s[int(0.95 * n_batches)]:5.1f} s"
            )


def _lag_s(chance: random.Random, typical_s: float, asked_s: float, n_earlier: int) -> float:
    def took_s() -> float:
        return typical_s * chance.uniform(0.7, 1.3)

    clock = PlayedClock()
    began_s, end_s = clock.monotonic_s(), clock.monotonic_s() + took_s()

    def retrieve(batch_id: str) -> Polled:
        status = "ended" if clock.monotonic_s() >= end_s else "in_progress"
        return Polled(batch={"id": batch_id, "processing_status": status}, retry_after_s=asked_s or None)

    durations = [(1000, took_s()) for _ in range(n_earlier)]
    store = SimpleNamespace(transition=lambda key, **changes: True, durations=lambda base_url: durations)
    place: Any = SimpleNamespace(clock=clock, store=store, wire=SimpleNamespace(retrieve=retrieve, base_url=""))
    poller = Poller(place)
    batch: Any = SimpleNamespace(
        key=1,
        batch_id="msgbatch_1",
        n_requests=1000,
        created_at=clock.now(),
        posted_at=clock.now(),
        cancel_initiated_at=None,
        not_found_since=None,
        counts={},
    )
    poller.posted(1)
    while True:
        clock.wait(max(0.001, poller.due_in_s([batch])))
        if poller.poll([batch]).due_in_s == 0.0 and clock.monotonic_s() >= end_s:
            return clock.monotonic_s() - max(end_s, began_s)


# ---------------------------------------------------------------- the network


def network() -> Iterator[str]:
    """200,000 rows over 12 MB/s and 50 ms; and ten batches of which one call is slow."""
    for n_batches, name in ((2, "200,000 rows in 2 batches"), (8, "the same in 8 batches")):
        elapsed_s, both_s = _over_a_link(n_batches)
        yield f"network: {name} over 12 MB/s and 50 ms: {elapsed_s:.1f} s, {both_s:.1f} s of it in both directions"
    for what in ("create", "results"):
        call = "create of 4 s" if what == "create" else "download of 8 s"
        yield f"one {call} among ten batches: the others are home {_with_a_slow_call(what):.1f} s later"


def _over_a_link(n_batches: int) -> tuple[float, float]:
    clock = PlayedClock()
    up, down = Link(clock, UP_BYTES_PER_S), Link(clock, DOWN_BYTES_PER_S)
    create, results = Wire.create, Wire.results

    def slow_create(self: Wire, sent: Any, *, betas: Any = ()) -> Created:
        clock.wait(ROUND_TRIP_S)
        n_blocks = -(-sent.n_bytes // 8)
        for _ in zip(sent, up.carry(BODY_BYTES * 2 / n_batches, n_blocks), strict=False):
            pass
        return create(self, sent, betas=betas)

    def slow_results(self: Wire, batch_id: str, sink: Any, *, path: str | None = None) -> None:
        clock.wait(ROUND_TRIP_S)
        for _ in down.carry(RESULT_BYTES * 2 / n_batches):
            pass
        results(self, batch_id, sink, path=path)

    return _timed_run(clock, n_batches, create=slow_create, results=slow_results, links=(up, down))


def _timed_run(clock: PlayedClock, n_batches: int, *, links: tuple[Link, Link], **calls: Any) -> tuple[float, float]:
    frame = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(n_batches)]})
    with (
        tempfile.TemporaryDirectory() as folder,
        simulator.serve(clock=clock.time_s, seconds_per_batch=1) as api,
        patched(recording, MAX_BATCH_REQUESTS=1),
        patched(body, _BLOCK_BYTES=8),
        patched(Wire, **calls),
    ):
        began_s = clock.monotonic_s()
        run = ask(frame, api, clock, folder)
        run.result()
        elapsed_s = max(end_s for link in links for _, end_s in link.busy) - began_s
        run.engine.join(60)
    steps = [began_s + step / 10 for step in range(int(elapsed_s * 10))]
    both_s = sum(all(any(a <= at_s < b for a, b in link.busy) for link in links) for at_s in steps) / 10
    return elapsed_s, both_s


def _with_a_slow_call(name: str) -> float:
    """Return how much later the last of nine other batches is home where one call is slow."""

    def home_s(slow_s: float) -> float:
        clock, lock = PlayedClock(), threading.Lock()
        calls = {"create": Wire.create, "results": Wire.results}
        n_calls: Counter[str] = Counter()
        homes_s: list[float] = []

        def slowly(kind: str, *args: Any, **options: Any) -> Any:
            with lock:
                n_calls[kind] += 1
                is_slow = kind == name and n_calls[kind] == 2
            clock.wait(slow_s if is_slow else 0.05)
            came = calls[kind](*args, **options)
            if kind == "results":
                homes_s.append(clock.monotonic_s() - began_s)
            return came

        def create(self: Wire, *args: Any, **options: Any) -> Any:
            return slowly("create", self, *args, **options)

        def results(self: Wire, *args: Any, **options: Any) -> Any:
            return slowly("results", self, *args, **options)

        frame = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(10)]})
        with (
            tempfile.TemporaryDirectory() as folder,
            simulator.serve(clock=clock.time_s, seconds_per_batch=30) as api,
            patched(recording, MAX_BATCH_REQUESTS=1),
            patched(Wire, create=create, results=results),
        ):
            began_s = clock.monotonic_s()
            run = ask(frame, api, clock, folder)
            run.result()
            run.engine.join(60)
        return sorted(homes_s)[8]

    return max(0.0, home_s(4.0 if name == "create" else 8.0) - home_s(0.05))


# ---------------------------------------------------------------- a long history


def history(sizes: tuple[int, ...]) -> Iterator[str]:
    """One new row, an estimate of one row and `runs()` in stores of so many runs of one row."""
    with tempfile.TemporaryDirectory() as folder, simulator.serve(seconds_per_batch=0) as api:
        given = {"client": api.client(), "progress": "off", "preflight": False, "store": folder}
        n_runs = 0

        def row() -> pd.DataFrame:
            return pd.DataFrame({"prompt": [str(uuid.uuid4())]})

        for size in sizes:
            while n_runs < size:
                row().claude_batch.submit("prompt", **given)
                n_runs += 1
            time.sleep(3)  # what came last is made small
            spans = {
                "one new row": _best_ms(lambda: row().claude_batch.submit("prompt", **given)),
                "estimate of one row": _best_ms(lambda: row().claude_batch.estimate("prompt", **given)),
                "runs()": _best_ms(lambda: pandas_batch.runs(folder), before=lambda: changed(row, given)),
                "runs() in a new process": _first_list_ms(folder),
            }
            n_runs += 14
            said = ", ".join(f"{name} {wall_ms:.0f} ms ({cpu_ms:.0f} CPU)" for name, (wall_ms, cpu_ms) in spans.items())
            yield f"a store of {size:,} runs: {said}"


def changed(row: Callable[[], pd.DataFrame], given: dict[str, Any]) -> None:
    """Let the store be another than at the last look."""
    row().claude_batch.submit("prompt", **given)
    time.sleep(2.5)  # what became of it is recorded


_FIRST_LIST = """
import sys, time
import pandas_batch
wall_s, cpu_s = time.perf_counter(), time.process_time()
pandas_batch.runs(sys.argv[1])
print(time.perf_counter() - wall_s, time.process_time() - cpu_s)
"""


def _first_list_ms(folder: str) -> tuple[float, float]:
    """Return what the first list of a process takes, its imports and the opening of the store included."""
    ran = subprocess.run([sys.executable, "-c", _FIRST_LIST, folder], capture_output=True, text=True, check=True)
    wall_s, cpu_s = map(float, ran.stdout.split())
    return wall_s * 1e3, cpu_s * 1e3


def _best_ms(
    work: Callable[[], object], n: int = 7, *, before: Callable[[], object] = lambda: None
) -> tuple[float, float]:
    walls, cpus = [], []
    for _ in range(n):
        before()
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall_s)
        cpus.append(time.process_time() - cpu_s)
    return min(walls) * 1e3, min(cpus) * 1e3


if __name__ == "__main__":
    print(json.dumps(list(felt(quick=True)), indent=1))
