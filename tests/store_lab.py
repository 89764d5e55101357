"""Builders for tests of the store, and a process to be killed: ``python store_lab.py STORE [DISK]``."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pandas_batch.errors import StoreError
from pandas_batch.store import NewBatch, RunRecord, Store, requests_table, rows_table
from pandas_batch.store import store as store_module

BASE_URL = "https://api.example"
CREATED_AT = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def prints(start: int, n: int) -> np.ndarray:
    """Return n distinct fingerprints, the same for the same numbers."""
    numbers = np.arange(start, start + n, dtype="<u8")
    both = np.column_stack([numbers * np.uint64(0x9E3779B97F4A7C15), numbers])
    return both.view(np.uint8).reshape(n, 16)


def body(nonce: str, n: int, text: str = "x") -> bytes:
    lines = [
        b'{"custom_id":"pb1_%s_%05d_aaaa_bbbb","params":{"t":"%s %d"}}' % (nonce.encode(), i, text.encode(), i)
        for i in range(n)
    ]
    return b'{"requests":[\n' + b",\n".join(lines) + b"\n]}"


def new_batch(store: Store, nonce: str, start: int, n: int, *, text: str = "x", draw: int = 0) -> NewBatch:
    with store.files.new_spool() as spool:
        spool.write(body(nonce, n, text))
    return NewBatch(
        nonce=nonce,
        fingerprints=prints(start, n),
        draws=np.full(n, draw, dtype=np.uint16),
        spool=spool,
        base_url=BASE_URL,
        betas=("some-beta",),
    )


def add_run(
    store: Store,
    run_id: str,
    *,
    n: int = 10,
    start: int = 0,
    n_batches: int = 1,
    text: str = "x",
    index: pd.Index | None = None,
    nonces: Sequence[str] | None = None,
    **fields: Any,
) -> RunRecord:
    """Record a run of n rows in equal batches; batch i of run "r" has the nonce "ri"."""
    size = n // n_batches
    nonces = nonces or [f"{''.join(filter(str.isalnum, run_id.lower()))}{i}" for i in range(n_batches)]
    batches = [new_batch(store, nonces[i], start + i * size, size, text=text) for i in range(n_batches)]
    requests = requests_table(
        prints(start, n),
        np.zeros(n, np.uint16),
        np.repeat(-1 - np.arange(n_batches), size),
        np.tile(np.arange(size), n_batches),
        np.zeros(n, bool),
    )
    values = {
        "id": run_id,
        "identity": f"identity of {start} {n}",
        "created_at": CREATED_AT,
        "base_url": BASE_URL,
        "model": "claude-haiku-4-5-20251001",
        "n_rows": n,
        "n_requests": n,
        **fields,
    }
    return store.runs.add(RunRecord(**values), rows_table(np.arange(n)), requests, batches, index=index)


def bind(store: Store, key: int, batch_id: str) -> None:
    assert store.batches.transition(key, expect=["intent"], to="posting", attempts=1, posted_at=CREATED_AT)
    assert store.batches.transition(key, expect=["posting"], to="bound", batch_id=batch_id, proved=True)


def collect(store: Store, key: int, succeeded: np.ndarray, results: bytes = b"{}\n") -> None:
    with store.files.new_results_part(key) as part:
        part.write(results)
    answers_part = store.files.answers_path(key).with_suffix(".part")
    answers_part.write_bytes(b"answers")
    store.files.commit(
        {store.files.results_part_path(key): store.files.results_path(key), answers_part: store.files.answers_path(key)}
    )
    if store.batches.get(key).state == "intent":
        bind(store, key, f"msgbatch_of_{key}")
    assert store.batches.transition(key, expect=["bound"], to="ended")
    assert store.batches.set_collected(key, succeeded)


def reopened(path: Path) -> Store:
    """Open a store as the next process would."""
    known = store_module._instances.pop(path.resolve(), None)
    if known is not None:
        known._opened.database.close()
    return Store.open(path)


def three_parts(error: StoreError) -> tuple[str, str, str]:
    assert error.what
    assert error.state
    assert error.hint
    return error.what, error.state, error.hint


# --- the process to be killed

_EXT4_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN (linux/fs.h): as if the power went
_WITHOUT_FLUSHING_THE_LOG = (2).to_bytes(4, sys.byteorder)


def _die_at(n_calls: int, power_of: Path | None) -> Callable[[str], None]:
    """
    Kill this process before its n-th call of a C function from now on: every write, rename, sync and commit.

    Returns what acknowledges a step, with the number of calls until then.
    """
    n_done = 0
    plug = None if power_of is None else os.open(power_of, os.O_RDONLY)

    def watch(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal n_done
        if event == "c_call":
            n_done += 1
            if n_done == n_calls:
                if plug is not None:
                    fcntl.ioctl(plug, _EXT4_SHUTDOWN, _WITHOUT_FLUSHING_THE_LOG)
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)
    return lambda step: print("acked", step, n_done, flush=True)


def _scenario(path: Path, run_id: str, n_calls: int, power_of: Path | None) -> None:
    store = Store.open(path)
    acknowledge = _die_at(n_calls, power_of)
    with store.preparing():
        run = add_run(store, run_id, n=20, n_batches=2, index=pd.Index([f"label {i}" for i in range(20)]))
    acknowledge("recorded")
    key = run.batch_keys[0]
    for state, target in (("intent", "posting"), ("posting", "bound")):
        store.batches.transition(key, expect=[state], to=target, error=target)
        acknowledge(target)
    collect(store, key, np.arange(10) != 3, b'{"custom_id":"a"}\n' * 10)
    acknowledge("collected")
    store.batches.compact(key)
    acknowledge("compacted")
    store.runs.delete(run_id)
    acknowledge("deleted")
    sys.setprofile(None)


def _import_all() -> None:
    """Do everything once: what is imported at first use would be imported, and counted as calls, in every child."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        _scenario(Path(folder) / "store", "warm", 0, None)
        store_module._instances.pop(Path(folder).resolve() / "store")._opened.database.close()


def main(path: Path, power_of: Path | None = None) -> None:
    _import_all()
    gc.freeze()
    for line in sys.stdin:
        run_id, n_calls = line.split()
        child = os.fork()
        if not child:
            try:
                _scenario(path, run_id, int(n_calls), power_of)
                os._exit(0)
            except BaseException as error:
                os.write(1, f"failed {type(error).__name__} {error}\n".encode())
                os._exit(1)
        _, status = os.waitpid(child, 0)
        os.write(1, f"done {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
