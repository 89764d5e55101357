"""How far the two paths are from what the machine can do at all: receive, parse and send the same bytes.

``python -m benchmarks.limits LOAD ROWS URL`` prints milliseconds as JSON, CPU and elapsed; ``limits`` does it in a
fresh process. What ``curl`` waits for is mostly the server's work: elapsed time is what the two are compared by.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Spans = tuple[float, float]
"""CPU and elapsed milliseconds, each the least of some repeats."""


def limits(load: str, n_rows: int, url: str) -> dict[str, Spans]:
    """Return how long our two paths and what bounds them take on the same bytes."""
    command = [sys.executable, "-m", "benchmarks.limits", load, str(n_rows), url]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, Spans] = json.loads(told.splitlines()[-1])
    return found


def least_ms(work: Callable[[], Any], n: int = 5, *, before: Callable[[], Any] = lambda: None) -> Spans:
    spans = []
    for _ in range(n):
        before()
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        work()
        spans.append(((time.process_time() - started_cpu_s) * 1e3, (time.monotonic() - started_s) * 1e3))
    return _least(spans)


def curl_ms(arguments: list[str], n: int = 9) -> Spans:
    spans = []
    for _ in range(n):
        started_s, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(["curl", "--silent", "--fail", *arguments], check=True, stdout=subprocess.DEVNULL)
        elapsed_s, after = time.monotonic() - started_s, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        spans.append((cpu_s * 1e3, elapsed_s * 1e3))
    return _least(spans)


def _least(spans: list[Spans]) -> Spans:
    cpu, elapsed = zip(*spans, strict=True)
    return min(cpu), min(elapsed)


def measure(load: str, n_rows: int, url: str, folder: Path) -> dict[str, Spans]:
    import anthropic
    import msgspec

    import pandas_batch
    from benchmarks.loads import frame
    from benchmarks.variants import options
    from pandas_batch.engine import compacting
    from pandas_batch.results.answers import decode_to_file
    from pandas_batch.store import Store
    from pandas_batch.wire.wire import Wire

    class IdOnly(msgspec.Struct, gc=False):
        custom_id: str

    compacting.PAUSE_S = 3600.0  # the files are looked at as they came
    client = anthropic.Anthropic(api_key="none", base_url=url, max_retries=0)
    frame(load, n_rows).claude_batch.submit("prompt", **options(client, str(folder)))
    store = Store.open(folder)
    run = store.runs.find(pandas_batch.runs(str(folder)).index[0])
    batch = store.batches.of_run(run.id)[0]
    wire, ids = Wire(client), store.batches.custom_ids_of(batch.key)
    came, made = folder / "came.jsonl", folder / "made.arrow"

    def download() -> None:
        with came.open("wb") as file:
            wire.results(str(batch.batch_id), file)

    def decode() -> None:
        prefix = f"pb1_{batch.nonce}_".encode()
        decode_to_file(came, made, prefix=prefix, n_requests=batch.n_requests, at=batch.created_at, custom_ids=ids)

    def remove(*files: Path) -> Callable[[], Any]:
        # New files each time, as in a run; and one set of them, lest each takes memory that the machine never used.
        return lambda: [file.unlink(missing_ok=True) for file in files]

    def both() -> None:
        download()
        decode()

    ours = {
        "download to disk": least_ms(download, before=remove(came)),
        "decode and price": least_ms(decode, before=remove(made)),
        "both": least_ms(both, before=remove(came, made)),
    }
    headers = [
        "--header",
        "x-api-key: none",
        "--header",
        f"anthropic-version: {client.default_headers['anthropic-version']}",
    ]
    results = f"{url}/v1/messages/batches/{batch.batch_id}/results"
    lines = came.read_bytes()
    upload = ["--request", "POST", "--header", "content-type: application/json", "--output", "/dev/null"]
    upload += ["--upload-file", str(store.files.spool_path(batch.key))]
    return ours | {
        "curl to nowhere": curl_ms([*headers, "--output", "/dev/null", results]),
        "parse the ids alone": least_ms(lambda: msgspec.json.Decoder(IdOnly).decode_lines(lines)),
        "curl uploads the body": curl_ms([*headers, *upload, f"{url}/v1/messages/batches"], n=1),
    }


if __name__ == "__main__":
    load, n_rows, url = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="bench-limits-"))
    try:
        print(json.dumps(measure(load, int(n_rows), url, folder)))
    finally:
        shutil.rmtree(folder)
