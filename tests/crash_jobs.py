"""The processes of the crash laboratory: they make a run, or go on with it, and die where their job says so.

``python crash_jobs.py`` is a fork server: each line it reads is a list of jobs as JSON; it forks a child for each
(imports are paid once), lets them go at one instant, kills them when the jobs say so, and prints how they ended.
The simulator lives in the test's process; its clock is advanced by whoever waits, so that minutes of grace take
milliseconds.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import signal
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import planted_bugs

N_ROWS = 12
BATCH_ROWS = 5
BATCH_SIZES = (BATCH_ROWS, N_ROWS - 1 - 2 * BATCH_ROWS)
"""Sizes of the batches of a run: two of its rows are one request."""
HANGS_AFTER_S = 120.0
INTERRUPTED = 3
"""Exit status of a child that an interrupt has ended."""


@dataclass
class Job:
    """
    What one child does, and when it dies.

    Attributes
    ----------
    first_row
        Where its rows begin among the rows of the seed: frames may overlap.
    hold_at
        A point at which it stands still, driving, until `until_file` is there; then it dies.
    begin_with
        A file that it waits for before it begins.
    call
        What it does: ``"submit"``, ``"trial"`` (of all its rows) or ``"finish"`` (start, and finish now).
    """

    store: str
    base_url: str
    out: str
    seed: int = 0
    n_rows: int = N_ROWS
    first_row: int = 0
    hold_at: str | None = None
    until_file: str | None = None
    begin_with: str | None = None
    point: str | None = None
    nth: int = 1
    kill_after_s: float | None = None
    interrupt_after_s: float | None = None
    planted: str | None = None
    grace_s: float = 600.0
    call: str = "submit"


def prompts(job: Job) -> list[str]:
    """Return the rows of a job: the same for the same seed, two of them equal."""
    made = [f"row {job.first_row + i} of {job.seed}" for i in range(job.n_rows)]
    made[-1] = made[0]
    return made


def expected(prompt: str) -> str:
    """Return the one right answer to a prompt."""
    return hashlib.sha256(prompt.encode()).hexdigest()


def answer(params: dict[str, Any]) -> str:
    """Answer as the simulator does in the laboratory."""
    return expected(params["messages"][-1]["content"])


def do(job: Job) -> None:
    """Make the run of the job, or go on with it; leave what came of it in the file `job.out`."""
    import anthropic
    import pandas as pd
    from played_time import PlayedTime

    from pandas_batch import failpoints
    from pandas_batch.run import recording
    from pandas_batch.run.starting import parse, start_run
    from pandas_batch.run.trial import trial_rows

    class LabClock(PlayedTime):
        """The server's clock: whoever waits moves it for all."""

        def __init__(self) -> None:
            super().__init__()
            self._offset_s = 0.0
            self._advance(0.0)

        def _advance(self, seconds: float) -> None:
            body = json.dumps({"advance_s": seconds}).encode()
            request = urllib.request.Request(f"{job.base_url}/simulator/clock", data=body, method="POST")
            with urllib.request.urlopen(request, timeout=10) as reply:
                self._offset_s = json.load(reply)["now_s"] - time.time()

        def now(self) -> datetime:
            return datetime.fromtimestamp(time.time() + self._offset_s, UTC)

        def monotonic_s(self) -> float:
            return time.monotonic() + self._offset_s

        def wait(self, seconds: float, wake: threading.Event | None = None) -> bool:
            if self.is_woken(wake, 0.001):
                return True
            self._advance(seconds)
            return False

    recording.MAX_BATCH_REQUESTS = BATCH_ROWS
    if job.planted is not None:
        planted_bugs.PLANTED[job.planted]()
    if job.point is not None:
        n_reached = 0

        def die(point: str) -> None:
            nonlocal n_reached
            n_reached += point == job.point
            if n_reached == job.nth:
                os.kill(os.getpid(), signal.SIGKILL)

        failpoints.on_reached = die
    if job.hold_at is not None:
        failpoints.on_reached = lambda point: hold(job) if point == job.hold_at else None
    if job.begin_with is not None:
        wait_for(Path(job.begin_with))
    frame = pd.DataFrame({"prompt": prompts(job)})
    options = {
        "client": anthropic.Anthropic(api_key="lab", base_url=job.base_url),
        "store": job.store,
        "progress": "off",
        "preflight": False,
        "lost_answer_grace": job.grace_s,
    }
    if job.call == "trial":
        out = trial_rows(frame, parse(options, "prompt"), job.n_rows, clock=LabClock())
        leave(
            job, {"output": out["output"].tolist(), "status": out["status"].tolist(), "cost_usd": sum(out["cost_usd"])}
        )
        return
    run = start_run(frame, parse(options, "prompt"), blocking=job.call == "submit", clock=LabClock())
    Path(f"{job.out}.attached").touch()
    out = run.finish_now() if job.call == "finish" else run.result()
    engine = run.engine
    if engine is not None:
        engine.join(20)
    told = {
        "output": [None if pd.isna(text) else text for text in out["output"]],
        "status": out["status"].tolist(),
        "paid_usd": run.paid_usd,
        "cost_usd": float(out["cost_usd"].sum()),
        "run": run.id,
        "ended_s": time.monotonic(),
    }
    leave(job, told)


def leave(job: Job, told: dict[str, Any]) -> None:
    """Leave what came of a job in its file."""
    part = Path(f"{job.out}.part")
    part.write_text(json.dumps(told))
    part.rename(job.out)


def wait_for(path: Path) -> None:
    """Return when a file is there."""
    deadline_s = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{path.name} never came")
        time.sleep(0.002)


def hold(job: Job) -> None:
    """Stand still with every lease in hand until another has come, watched for a while, and then die."""
    Path(f"{job.out}.held").touch()
    wait_for(Path(str(job.until_file)))
    time.sleep(0.3)
    # Another thread may hold too, and its death must not leave half a file.
    part = Path(f"{job.out}.{threading.get_ident()}")
    part.write_text(json.dumps({"died_s": time.monotonic()}))
    part.rename(job.out)
    os.kill(os.getpid(), signal.SIGKILL)


PRELOADED = (
    *("anthropic", "pandas", "pyarrow.dataset", "httpcore2", "h11", "truststore", "genai_prices.data"),
    *(
        f"pandas_batch.{name}"
        for name in (
            "accessor",
            "results.answers",
            "estimates.bill",
            "engine.collecting",
            "engine.polling",
            "estimates.estimate",
            "display.progress",
        )
    ),
    *(
        f"pandas_batch.{name}"
        for name in (
            "run.recovering",
            "requests.plan",
            "run.retrying",
            "run.starting",
            "run.trial",
            "run.finishing",
            "store",
            "run.summary",
        )
    ),
)
"""What a run imports at first use, imported once by the fork server."""


def serve_forks() -> None:
    """Fork one child per job read from standard input; print its exit status."""
    import importlib

    for name in PRELOADED:
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        jobs = [Job(**job) for job in json.loads(line)]
        gate, opener = os.pipe()
        pids = [_fork(job, gate, opener) for job in jobs]
        os.close(gate)
        os.close(opener)  # all begin now
        began_s = time.monotonic()
        signals = sorted(
            (after_s, pid, sign)
            for job, pid in zip(jobs, pids, strict=True)
            for after_s, sign in ((job.kill_after_s, signal.SIGKILL), (job.interrupt_after_s, signal.SIGINT))
            if after_s is not None
        )
        signaled_s = {}
        for after_s, pid, sign in signals:
            time.sleep(max(0.0, began_s + after_s - time.monotonic()))
            signaled_s[pid] = time.monotonic()
            os.kill(pid, sign)
        ended = []
        for pid in pids:
            _, status = os.waitpid(pid, 0)
            ended.append(
                {
                    "killed": os.WIFSIGNALED(status),
                    "code": os.waitstatus_to_exitcode(status),
                    "signaled_s": signaled_s.get(pid),
                }
            )
        print(json.dumps(ended), flush=True)


def _fork(job: Job, gate: int, opener: int) -> int:
    """Fork a child that does `job` as soon as the gate opens; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.close(opener)
        os.read(gate, 1)
        # A child that hangs says where, and ends: the laboratory waits for it.
        faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
        do(job)
        status = 0
    except KeyboardInterrupt:
        # The prompt is back where the exception has left the call; the clock of both processes is one.
        at_prompt_s = time.monotonic()
        Path(f"{job.out}.interrupted").write_text(json.dumps({"at_prompt_s": at_prompt_s}))
        status = INTERRUPTED
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(status)


if __name__ == "__main__":
    serve_forks()
