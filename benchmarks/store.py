"""CPU and wall seconds of the store at 100,000 and 1,000,000 rows: ``python benchmarks/store.py [FOLDER]``."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_batch.store import NewBatch, RunRecord, Store, requests_table, rows_table
from pandas_batch.store import store as store_module

BASE_URL = "https://api.example"
ROWS_PER_BATCH = 100_000


@contextmanager
def timed(what: str) -> Iterator[None]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    yield
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    print(f"  {what:<58} {cpu_s * 1e3:9.1f} ms CPU {wall_s * 1e3:9.1f} ms wall")


def prints(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 16), dtype=np.uint8)


def spooled(store: Store, nonce: str, n: int, n_bytes: int) -> Any:
    text = b'","params":{"x":"' + b"p" * n_bytes + b'"}}'
    with store.files.new_spool() as spool:
        spool.write(b'{"requests":[\n')
        for start in range(0, n, 256):
            rows = range(start, min(n, start + 256))
            spool.write(b",\n".join(b'{"custom_id":"pb1_%s_%05d_a' % (nonce.encode(), i) + text for i in rows))
            spool.write(b",\n" if rows.stop < n else b"\n]}")
    return spool


def add(store: Store, run_id: str, n: int, seed: int, size: int = ROWS_PER_BATCH, n_bytes: int = 20) -> RunRecord:
    found, draws = prints(n, seed), np.zeros(n, np.uint16)
    starts = range(0, n, size)
    batches = [
        NewBatch(
            nonce=f"{run_id}x{i}",
            fingerprints=found[start : start + size],
            draws=draws[start : start + size],
            spool=spooled(store, f"{run_id}x{i}", min(size, n - start), n_bytes),
            base_url=BASE_URL,
        )
        for i, start in enumerate(starts)
    ]
    requests = requests_table(found, draws, -1 - np.arange(n) // size, np.arange(n) % size, np.zeros(n, dtype=bool))
    run = RunRecord(
        id=run_id,
        identity=run_id,
        created_at=datetime.now(UTC),
        base_url=BASE_URL,
        model="claude-haiku-4-5-20251001",
        n_rows=n,
        n_requests=n,
    )
    with timed(f"add_run: {n:,} rows, {len(batches)} batches"):
        return store.runs.add(run, rows_table(np.arange(n)), requests, batches, index=pd.RangeIndex(n))


def quietly(work: Callable[[], Any]) -> Any:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        return work()


def collect(store: Store, run: RunRecord) -> None:
    for key in run.batch_keys:
        n = store.batches.get(key).n_requests
        store.batches.transition(key, expect=["intent"], to="ended")
        store.batches.set_collected(key, np.random.default_rng(key).random(n) < 0.985)


def at_scale(folder: Path, n: int) -> None:
    print(f"{n:,} rows")
    path = folder / f"store{n}"
    store = Store.open(path)
    with timed("spool: one POST body of 100,000 x 1 KB, fsynced"):
        spooled(store, "warm", 100_000, 1000).discard()
    run = add(store, "r1", n, seed=1)
    collect(store, run)
    store_module._instances.clear()
    with timed("open, run, rows_of, requests_table_of, index_of"):
        store = Store.open(path)
        store.runs.get("r1")
        store.runs.rows_of("r1")
        store.runs.requests_of("r1")
        store.runs.index_of("r1")
    draws = np.zeros(n, np.uint16)
    same, other = prints(n, seed=1), prints(n, seed=2)
    with timed("find_answers: all known"):
        keys, _ = store.batches.find_answers(same, draws, base_url=BASE_URL)
    print(f"    found {np.count_nonzero(keys >= 0):,}")
    with timed("find_answers: none known"):
        store.batches.find_answers(other, draws, base_url=BASE_URL)
    labels = pd.Index([f"customer {i}" for i in range(n)])
    from pandas_batch.store.labels import read_index, write_index

    with timed("write_index: strings"):
        write_index(folder / "index.arrow", labels)
    with timed("read_index: strings"):
        read_index(folder / "index.arrow")


def small_segments(folder: Path) -> None:
    print("1,000 batches of 100 rows")
    store = Store.open(folder / "small")
    run = add(store, "r1", 100_000, seed=1, size=100)
    collect(store, run)
    draws = np.zeros(1_000_000, np.uint16)
    asked = np.concatenate([prints(100_000, seed=1), prints(900_000, seed=3)])
    for _ in range(2):
        with timed("find_answers: 1,000,000 asked"):
            store.batches.find_answers(asked, draws, base_url=BASE_URL)
    with timed("runs() and batches(1,000)"):
        store.runs.all()
        store.batches.of_keys(run.batch_keys)


def ten_segments(folder: Path) -> None:
    print("10 batches of 100,000 rows, in flight")
    store = Store.open(folder / "ten")
    add(store, "r1", 1_000_000, seed=1)
    draws = np.zeros(1_000_000, np.uint16)
    asked = np.concatenate([prints(500_000, seed=1), prints(500_000, seed=3)])
    for _ in range(2):
        with timed("find_answers: 1,000,000 asked"):
            store.batches.find_answers(asked, draws, base_url=BASE_URL)


def transitions(folder: Path) -> None:
    print("transitions")
    store = Store.open(folder / "transitions")
    run = quietly(lambda: add(store, "r1", 1000, seed=1))
    key = run.batch_keys[0]
    spans = []
    for i in range(400):
        started_s = time.perf_counter()
        store.batches.transition(key, expect=["intent", "posting"], to="posting", attempts=i)
        spans.append((time.perf_counter() - started_s) * 1e3)
    print(f"  durable transition: p50 {np.percentile(spans, 50):.2f} ms, p99 {np.percentile(spans, 99):.2f} ms")
    with timed("100 x batch()"):
        for _ in range(100):
            store.batches.get(key)
    print(f"  journal: {store._opened.database.read(lambda c: c.execute('PRAGMA journal_mode').fetchone()[0])}")


def compaction(folder: Path) -> None:
    print("100,000 rows of 1 KB, results of 1.4 KB")
    store = Store.open(folder / "compaction")
    run = quietly(lambda: add(store, "r1", 100_000, seed=1, n_bytes=1000))
    key = run.batch_keys[0]
    words = np.array(["red", "green", "über", "house", "of", "the", "and", "answer", "42", "row"])
    dice = np.random.default_rng(0)
    texts = [" ".join(words[dice.integers(0, 10, 220)]) for _ in range(1000)]
    with store.files.new_results_part(key) as part:
        for i in range(100_000):
            part.write(b'{"custom_id":"pb1_r1x0_%05d","result":{"text":"%s"}}\n' % (i, texts[i % 1000].encode()))
    with timed("commit_files"):
        store.files.commit({store.files.results_part_path(key): store.files.results_path(key)})
    raw = store.files.results_path(key).stat().st_size
    answers = pa.table({"output": pa.array([texts[i % 1000] for i in range(100_000)], pa.large_string())})
    from pandas_batch.store.tables import write_table

    write_table(store.files.answers_path(key), answers)
    collect(store, run)
    with timed("compact"):
        store.batches.compact(key)
    size = store.size_bytes()
    print(f"  raw results {raw / 1e6:.1f} MB, whole store afterwards {size / 1e6:.1f} MB ({size / raw:.2f} x)")
    with timed("open_results().read()"), store.files.open_results(key) as file:
        file.read()
    with timed("delete_run"):
        store.runs.delete("r1")


def main() -> None:
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None))
    try:
        transitions(folder)
        at_scale(folder, 100_000)
        at_scale(folder, 1_000_000)
        ten_segments(folder)
        small_segments(folder)
        compaction(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
