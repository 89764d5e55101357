"""
Scripts that end, each in its own way, for real.

``python exit_scripts.py`` is a fork server: for each line that it reads, a job as JSON, it forks a child (imports are
paid once). The child is the script: it submits, and ends through the interpreter's own end, as a program does.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import anthropic
import crash_jobs
import pandas as pd

from pandas_batch import exiting
from pandas_batch.engine import compacting
from pandas_batch.run import run

Job = dict[str, Any]


def frame_of(job: Job) -> pd.DataFrame:
    return pd.DataFrame({"q": [f"{job['name']} {i} " + "x" * job["n_bytes_each"] for i in range(job["n_rows"])]})


def options_of(job: Job) -> dict[str, Any]:
    client = anthropic.Anthropic(api_key="script", base_url=job["base_url"], max_retries=0)
    return {"client": client, "store": job["store"], "progress": "off", "preflight": False, "poll_interval": 0.05}


def start(job: Job) -> run.Run:
    return frame_of(job).claude_batch.start("q", **options_of(job))


def submit(job: Job) -> pd.DataFrame:
    return frame_of(job).claude_batch.submit("q", **options_of(job))


def told(out: pd.DataFrame) -> None:
    """Print how many rows were answered."""
    print("answered", int(out["status"].eq("succeeded").sum()), flush=True)


def in_a_child(call: Callable[[], object]) -> None:
    """Call in a forked child that ends as a program does, and wait for it."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        print("child", os.waitstatus_to_exitcode(status), flush=True)
        return
    call()
    sys.exit(0)


def answers_of(job: Job) -> int:
    """Submit in another process, and return how many rows were answered."""
    return int(submit(job)["status"].eq("succeeded").sum())


def end(job: Job) -> None:
    start(job)


def leave(job: Job) -> None:
    start(job)
    sys.exit(3)


def fail(job: Job) -> None:
    start(job)
    raise LookupError("the script's own")


def be_terminated(job: Job) -> None:
    start(job).wait_submitted(20)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)


def leave_at_once(job: Job) -> None:
    start(job)
    os._exit(5)


def ask_at_exit(job: Job) -> None:
    bound: list[run.Run] = []
    atexit.register(lambda: told(bound[0].result()))
    bound.append(start(job))


def ask_in_a_thread(job: Job) -> None:
    bound = start(job)
    threading.Thread(target=lambda: told(bound.result())).start()


def start_in_a_daemon(job: Job) -> None:
    """End while a daemon thread still prepares what it was asked."""
    threading.Thread(target=start, args=(job,), daemon=True).start()
    while not exiting._at_work:
        time.sleep(0.0005)


def ask_in_an_executor(job: Job) -> None:
    concurrent.futures.ThreadPoolExecutor(2).submit(lambda: told(submit(job)))


def ask_in_a_fork(job: Job) -> None:
    bound = start(job)
    in_a_child(lambda: told(bound.result()))


def submit_in_a_fork(job: Job) -> None:
    start(job)
    in_a_child(lambda: told(submit(job)))


def start_in_a_fork(job: Job) -> None:
    in_a_child(lambda: start(job))


def start_in_a_process(job: Job) -> None:
    child = multiprocessing.get_context("fork").Process(target=end, args=(job,))
    child.start()
    child.join()
    print("child", child.exitcode, flush=True)


def ask_in_a_pool(job: Job) -> None:
    start(job)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        print("answered", pool.submit(answers_of, job).result(), flush=True)


def end_while_compacting(job: Job) -> None:
    compacting.PAUSE_S = 0.0
    importlib.import_module("pandas_batch.engine.engine").PAUSE_S = 0.0
    told(submit(job))
    time.sleep(job["after_s"])


def end_after_answers(job: Job) -> None:
    told(submit(job))
    time.sleep(job["after_s"])


def end_while_polling(job: Job) -> None:
    start(job).wait_submitted(20)
    time.sleep(job["after_s"])


def end_while_unsent(job: Job) -> None:
    exiting.PATIENCE_S = 1.0
    start(job)


WAYS: dict[str, Callable[[Job], None]] = {
    way.__name__: way
    for way in (
        end,
        leave,
        fail,
        be_terminated,
        leave_at_once,
        ask_at_exit,
        ask_in_a_thread,
        start_in_a_daemon,
        ask_in_an_executor,
        ask_in_a_fork,
        submit_in_a_fork,
        start_in_a_fork,
        start_in_a_process,
        ask_in_a_pool,
        end_while_compacting,
        end_after_answers,
        end_while_polling,
        end_while_unsent,
    )
}


def main() -> None:
    """Fork a child for each job, and tell how it ended; the child leaves this function, and ends."""
    for name in (*crash_jobs.PRELOADED, "pandas_batch.display.progress", "pandas_batch.engine.engine"):
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        began_s = time.monotonic()
        child = os.fork()
        if not child:
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
            WAYS[job["way"]](job)
            return
        _, status = os.waitpid(child, 0)
        ended = {"code": os.waitstatus_to_exitcode(status), "took_s": time.monotonic() - began_s}
        os.write(1, json.dumps(ended).encode() + b"\n")


if __name__ == "__main__":
    main()
