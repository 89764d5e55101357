"""Time and memory of decoding and pricing 100,000 results, CPU seconds of a fresh process each.

    python benchmarks/decode.py [--rows 100000] [--repeat 3]

Two files are made in a temporary folder: ``med`` has answers of about 1 KB (86% of them not ASCII, a third with an
emoji, half with line feeds and quotes), ``short`` answers of 20 bytes; one line in a hundred is errored, one in two
hundred expired, and the order is shuffled. Memory is what the process holds privately at its peak, above what it
held before; mapped files are not in it, the operating system can take those pages back.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

PREFIX = b"pb1_abcdefghijkl_"
AT = datetime(2026, 11, 20, tzinfo=UTC)
WORDS = (
    "the",
    "quick",
    "réponse",
    "über",
    "naïve",
    "日本",
    "data",
    "frame",
    "answers",
    "batch",
    "price",
    "señor",
    "every",
)


def make_results(path: Path, kind: str, n_rows: int) -> None:
    rng = random.Random(1)
    texts = [_text(rng, kind) for _ in range(500)]
    order = list(range(n_rows))
    rng.shuffle(order)
    with path.open("wb") as file:
        for i in order:
            custom_id = f"{PREFIX.decode()}{i:05d}_{'A' * 24}"
            line = {"custom_id": custom_id, "result": _result(rng, texts)}
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def _text(rng: random.Random, kind: str) -> str:
    if kind == "short":
        return "positive, more or so"
    text = ""
    while len(text.encode()) < 1000:
        text += rng.choice(WORDS) + " "
    if rng.random() < 0.14:
        text = text.encode("ascii", "ignore").decode()
    if rng.random() < 0.3:
        text = text[:500] + "🎉" + text[500:]
    if rng.random() < 0.5:
        text = text[:100] + "\n\n" + text[100:300] + '"quoted"\n' + text[300:]
    return text


def _result(rng: random.Random, texts: list[str]) -> dict[str, Any]:
    chance = rng.random()
    if chance < 0.01:
        error = {"type": "invalid_request_error", "message": "max_tokens: too large"}
        return {"type": "errored", "error": {"type": "error", "error": error, "request_id": None}}
    if chance < 0.015:
        return {"type": "expired"}
    usage = {
        "input_tokens": rng.randrange(50, 900),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": rng.randrange(1, 400),
        "service_tier": "batch",
        "inference_geo": "not_available",
    }
    message = {
        "model": "claude-haiku-4-5-20251001",
        "id": f"msg_{rng.getrandbits(96):024x}",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": rng.choice(texts)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": usage,
    }
    return {"type": "succeeded", "message": message}


def private_mb() -> float:
    """Return the private memory of this process, in MB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


class PeakMemory:
    """The most private memory seen while the block runs, above that at its start."""

    def __enter__(self) -> PeakMemory:
        self.before_mb = self.peak_mb = private_mb()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.peak_mb = max(self.peak_mb, private_mb())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def added_mb(self) -> float:
        return self.peak_mb - self.before_mb


def measure(what: str, path: Path, n_rows: int, *, with_memory: bool) -> dict[str, float]:
    """Do one piece of work in this process and return its CPU seconds or its memory."""
    from pandas_batch.results.answers import decode_results, decode_to_file, read_answers
    from pandas_batch.results.pricing import add_costs, rates

    rates("claude-haiku-4-5-20251001", at=AT)  # the price list is loaded once per process, in 0.2 s
    answers = path.with_suffix(".arrow")
    options = {"prefix": PREFIX, "n_requests": n_rows}
    work: Callable[[], Any]
    if what == "to file, priced":
        work = partial(decode_to_file, path, answers, at=AT, **options)
    elif what == "to memory":
        work = partial(decode_results, path, **options)
    elif what == "pricing":
        table = decode_results(path, **options).table
        work = partial(add_costs, table, at=AT)
    else:
        decode_to_file(path, answers, at=AT, **options)
        work = partial(read_answers, answers)
    if with_memory:
        with PeakMemory() as peak:
            work()
        return {"mb": peak.added_mb}
    start_s = time.process_time()
    work()
    return {"s": time.process_time() - start_s}


def in_fresh_process(what: str, path: Path, n_rows: int, *, with_memory: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", what, "--file", str(path), "--rows", str(n_rows)]
    done = subprocess.run(command + ["--memory"] * with_memory, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def report(n_rows: int, n_repeat: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("med", "short"):
            path = Path(folder) / f"{kind}.jsonl"
            make_results(path, kind, n_rows)
            yield f"{kind}: {n_rows:,} rows, {path.stat().st_size / 1e6:.0f} MB"
            for what in ("to file, priced", "to memory", "pricing", "read back"):
                seconds = [in_fresh_process(what, path, n_rows, with_memory=False)["s"] for _ in range(n_repeat)]
                memory = in_fresh_process(what, path, n_rows, with_memory=True)["mb"]
                best = min(seconds)
                yield f"  {what:16} {best:6.3f} s CPU  {best / n_rows * 1e6:5.2f} us/row  +{memory:.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.file, given.rows, with_memory=given.memory)))
        return
    for line in report(given.rows, given.repeat):
        print(line, flush=True)


if __name__ == "__main__":
    main()
