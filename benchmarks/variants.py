"""The ways to ask about every row of a frame that are measured against each other; each runs in a fresh process.

``python -m benchmarks.variants VARIANT LOAD ROWS URL STORE`` does the work once and prints its figures as JSON.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.loads import MAX_TOKENS, MODEL, frame

MAX_BATCH_REQUESTS = 100_000


def private_mb() -> float:
    """Return the private memory of this process, in MB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


def give_back_freed_memory() -> None:
    """Leave nothing in the allocators that the work to be measured could use for free."""
    import ctypes
    import gc

    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class Clock:
    """CPU seconds by phase."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._last_s = time.process_time()

    def lap(self, phase: str) -> None:
        now_s = time.process_time()
        self.phases[phase] = self.phases.get(phase, 0.0) + now_s - self._last_s
        self._last_s = now_s


def naive(df: pd.DataFrame, client: Any, clock: Clock) -> pd.DataFrame:
    """Write the loop that everybody writes first."""
    requests = []
    for i, row in df.iterrows():
        params = {
            "model": MODEL,
            "max_tokens": MAX_TOKENS,
            "messages": [{"role": "user", "content": row["prompt"]}],
        }
        requests.append({"custom_id": f"r{i:07d}", "params": params})
    batches = [
        client.messages.batches.create(requests=requests[start : start + MAX_BATCH_REQUESTS])
        for start in range(0, len(requests), MAX_BATCH_REQUESTS)
    ]
    del requests
    for batch in batches:
        while client.messages.batches.retrieve(batch.id).processing_status != "ended":
            time.sleep(0.2)
    clock.lap("submit")
    rows = {}
    for batch in batches:
        for entry in client.messages.batches.results(batch.id):
            row: dict[str, Any] = {"status": entry.result.type}
            if entry.result.type == "succeeded":
                message = entry.result.message
                row["output"] = "".join(block.text for block in message.content if block.type == "text")
                row["stop_reason"] = message.stop_reason
                row["input_tokens"] = message.usage.input_tokens
                row["output_tokens"] = message.usage.output_tokens
            elif entry.result.type == "errored":
                row["error"] = entry.result.error.error.message
            rows[int(entry.custom_id[1:])] = row
    clock.lap("results")
    merged = df.merge(pd.DataFrame.from_dict(rows, orient="index"), left_index=True, right_index=True, how="left")
    clock.lap("merge")
    return merged


def ours(df: pd.DataFrame, client: Any, clock: Clock, store: str) -> pd.DataFrame:
    """Make the one call, with all that it keeps safe."""
    from pandas_batch import failpoints

    def reached(point: str) -> None:
        phase = {"batch bound": "submit", "batch collected": "results"}.get(point)
        if phase is not None:
            with lock:
                clock.lap(phase)

    lock = threading.Lock()
    failpoints.on_reached = reached
    merged = df.claude_batch.submit("prompt", **options(client, store))
    clock.lap("merge")
    failpoints.on_reached = None
    return merged


def options(client: Any, store: str) -> dict[str, Any]:
    return {
        "client": client,
        "store": store,
        "model": MODEL,
        "max_tokens": MAX_TOKENS,
        "progress": "off",
        "poll_interval": 0.2,
    }


def checks(merged: pd.DataFrame) -> dict[str, int]:
    """Return what must be equal whoever made it."""
    done = merged["status"] == "succeeded"
    return {
        "succeeded": int(done.sum()),
        "errored": int((merged["status"] == "errored").sum()),
        "letters": int(merged.loc[done, "output"].str.len().sum()),
    }


def measure(variant: str, load: str, n_rows: int, url: str, store: str) -> dict[str, Any]:
    started_s = time.process_time()
    import anthropic

    import pandas_batch  # noqa: F401 - registers the accessor

    client = anthropic.Anthropic(api_key="none", base_url=url, max_retries=0)
    if not variant.endswith(" cold"):
        # Both are warmed: what is imported and built at first use, the store itself too, is told apart, as "cold".
        warm_up = pd.DataFrame({"prompt": ["warm-up"]})
        naive(warm_up, client, Clock())
        ours(warm_up, client, Clock(), f"{store}/store")
    df, store = frame(load, n_rows), f"{store}/store"
    give_back_freed_memory()
    begin, before_mb = time.monotonic(), private_mb()
    before_hwm_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    import_s = time.process_time() - started_s
    clock = Clock()
    work = variant.removesuffix(" cold")
    merged = naive(df, client, clock) if work == "naive" else ours(df, client, clock, store)
    end = time.monotonic()
    after_hwm_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {
        "cpu_s": sum(clock.phases.values()),
        "phases": clock.phases,
        "wall_s": end - begin,
        "begin": begin,
        "end": end,
        "before_mb": before_mb,
        "before_hwm_mb": before_hwm_kb / 1024,
        "hwm_mb": after_hwm_kb / 1024,
        "before_work_s": import_s,
        "checks": checks(merged),
    }
    if work == "ours":
        figures |= again(df, client, store)
    return figures


def again(df: pd.DataFrame, client: Any, store: str) -> dict[str, float]:
    """Measure the same line once more, and the run taken up again by its id."""
    import pandas_batch

    run_id = pandas_batch.runs(store).index[0]
    run = pandas_batch.load(run_id, store=store)
    if run.engine is not None:
        run.engine.join()
    figures = {}
    clock = Clock()
    df.claude_batch.submit("prompt", **options(client, store))
    clock.lap("s")
    figures["rerun_s"] = clock.phases["s"]
    run = pandas_batch.load(run_id, store=store)
    clock = Clock()
    run.result()
    clock.lap("s")
    figures["reopen_s"] = clock.phases["s"]
    clock = Clock()
    run.result()
    clock.lap("s")
    figures["merge_s"] = clock.phases["s"]
    return figures


if __name__ == "__main__":
    variant, load, n_rows, url, store = sys.argv[1:]
    print(json.dumps(measure(variant, load, int(n_rows), url, store)))
