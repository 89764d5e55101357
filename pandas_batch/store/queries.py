"""The SQL of the store; each function runs inside a transaction of its caller."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .records import (
    BATCH_COLUMNS,
    FIXED_BATCH_COLUMNS,
    RUN_COLUMNS,
    Account,
    BatchRecord,
    NewBatch,
    RunRecord,
    assignments,
    batch_from,
    from_cell,
    row_of,
    run_from,
)
from .segments import Candidate, segment_of
from .states import CANCELABLE, IN_FLIGHT, RECORDED, SETTLED

_RUNS = ", ".join(RUN_COLUMNS)
_FEW_RUNS = 500
_BATCHES = ", ".join(BATCH_COLUMNS)

# Every text below is ours: names of columns come from the records, values are always bound.
# ruff: noqa: S608


def take_batch_keys(connection: sqlite3.Connection, n: int, floor: int) -> list[int]:
    """Return `n` keys from `floor` on that were never used and never will be, whatever becomes of the caller."""
    (next_key,) = connection.execute("SELECT value FROM counters WHERE name = 'next_batch_key'").fetchone()
    first = max(next_key, floor)
    connection.execute("UPDATE counters SET value = ? WHERE name = 'next_batch_key'", (first + n,))
    return list(range(first, first + n))


def _insert(connection: sqlite3.Connection, table: str, cells: Mapping[str, Any]) -> None:
    names = ", ".join(cells)
    marks = ", ".join(f":{name}" for name in cells)
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", dict(cells))


def insert_run(connection: sqlite3.Connection, run: RunRecord) -> None:
    """Record a run and which batches it needs."""
    _insert(connection, "runs", row_of(run, RUN_COLUMNS))
    link_batches(connection, run.id, run.batch_keys, first_place=0)


def link_batches(connection: sqlite3.Connection, run_id: str, keys: Iterable[int], *, first_place: int) -> None:
    """Record that a run needs batches, and those that hold the first parts of their answers."""
    connection.executemany(
        "INSERT OR IGNORE INTO run_batches (run_id, place, batch_key) VALUES (?, ?, ?)",
        [(run_id, first_place + at, key) for at, key in enumerate(_with_parts(connection, keys))],
    )


def _with_parts(connection: sqlite3.Connection, keys: Iterable[int]) -> list[int]:
    """Return `keys`, and those of the batches in which answers began that go on in them."""
    found = dict.fromkeys(keys)
    continued = connection.execute("SELECT key, continued FROM batches WHERE continued != '{}'").fetchall()
    for key, cell in continued:
        if key in found:
            found |= dict.fromkeys(part for parts in from_cell("continued", cell).values() for part, _ in parts)
    return list(found)


def insert_batch(connection: sqlite3.Connection, batch: BatchRecord, new: NewBatch) -> None:
    """Record a batch."""
    _insert(connection, "batches", row_of(batch, BATCH_COLUMNS))
    insert_small_requests(connection, batch.key, new.fingerprints, new.draws)


def select_runs(connection: sqlite3.Connection, where: str = "", values: Sequence[Any] = ()) -> list[RunRecord]:
    """Return runs, newest first."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    rows = connection.execute(f"SELECT {_RUNS} FROM runs {where} ORDER BY number DESC", values).fetchall()
    if not rows:
        return []
    wanted = [row[0] for row in rows]
    keys: dict[str, list[int]] = {run_id: [] for run_id in wanted}
    only = f"AND run_batches.run_id IN ({_marks(wanted)})" if len(wanted) <= _FEW_RUNS else ""
    for run_id, key in connection.execute(
        f"""
        SELECT run_batches.run_id, batch_key FROM run_batches JOIN batches ON key = batch_key
        WHERE state != 'split' {only} ORDER BY run_batches.run_id, place, batch_key
        """,
        wanted if only else (),
    ):
        if run_id in keys:
            keys[run_id].append(key)
    return [run_from(row, tuple(keys[row[0]]), version) for row in rows]


def newest_options(connection: sqlite3.Connection, n_runs: int, base_url: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return id and options of the newest runs at `base_url`, newest first."""
    rows = connection.execute(
        "SELECT id, options FROM runs WHERE base_url = ? ORDER BY number DESC LIMIT ?", (base_url, n_runs)
    )
    return [(run_id, from_cell("options", cell)) for run_id, cell in rows]


LISTED = (
    *("id", "name", "model", "n_rows", "n_answered", "n_failed", "cost_usd", "paid_usd", "n_requests", "n_reused"),
    *("n_settled", "created_at", "base_url", "parent_id"),
)
"""What is listed of a run: columns of an index of their own, as the options of ten thousand runs take long to skip."""


def overview(connection: sqlite3.Connection) -> tuple[list[tuple[Any, ...]], list[tuple[str, str, bool]]]:
    """Return what is listed of each run, newest first, and the state of each batch of those without an account."""
    runs = connection.execute(
        f"SELECT {', '.join(LISTED)} FROM runs INDEXED BY runs_listed ORDER BY number DESC"
    ).fetchall()
    states = connection.execute(
        """
        SELECT run_batches.run_id, state, cancel_initiated_at IS NOT NULL FROM
        (SELECT id FROM runs INDEXED BY runs_listed WHERE n_settled IS NULL)
        CROSS JOIN run_batches ON run_batches.run_id = id CROSS JOIN batches ON key = batch_key WHERE state != 'split'
        """
    ).fetchall()
    return runs, states


def settled_batches(connection: sqlite3.Connection, run_id: str) -> tuple[BatchRecord, ...] | None:
    """Return the batches that hold a run's requests, where nothing is left to do for any of them; else None."""
    keys = "SELECT batch_key FROM run_batches WHERE run_id = ?"
    found = select_batches(connection, f"WHERE key IN ({keys}) AND state != 'split'", (run_id,))
    return tuple(found) if found and all(batch.state in SETTLED for batch in found) else None


def set_account(
    connection: sqlite3.Connection, run_id: str, batches: tuple[BatchRecord, ...], account: Account
) -> None:
    """Record what became of a run, where its batches still are as `settled_batches` has told them."""
    if settled_batches(connection, run_id) == batches:
        connection.execute(
            "UPDATE runs SET n_settled = ?, n_answered = ?, n_failed = ?, cost_usd = ?, paid_usd = ? "
            "WHERE id = ? AND n_settled IS NULL",
            (len(batches), *account, run_id),
        )


def _forget_accounts(connection: sqlite3.Connection, key: int) -> None:
    """Let what became of the runs that need a batch be counted anew: the batch has changed."""
    connection.execute(
        "UPDATE runs SET n_settled = NULL, n_answered = NULL, n_failed = NULL, cost_usd = NULL, paid_usd = NULL "
        "WHERE n_settled IS NOT NULL AND id IN (SELECT run_id FROM run_batches WHERE batch_key = ?)",
        (key,),
    )


def select_batches(connection: sqlite3.Connection, where: str = "", values: Sequence[Any] = ()) -> list[BatchRecord]:
    """Return batches in the order of their keys."""
    rows = connection.execute(f"SELECT {_BATCHES} FROM batches {where} ORDER BY key", values)
    return [batch_from(row) for row in rows]


def batches_by_key(connection: sqlite3.Connection, keys: Collection[int]) -> dict[int, BatchRecord]:
    """Return the batches of those keys that exist."""
    found: dict[int, BatchRecord] = {}
    wanted = list(keys)
    for start in range(0, len(wanted), 500):
        some = wanted[start : start + 500]
        for batch in select_batches(connection, f"WHERE key IN ({_marks(some)})", some):
            found[batch.key] = batch
    return found


def batches_in(connection: sqlite3.Connection, states: Collection[str]) -> list[BatchRecord]:
    """Return the batches in one of `states`."""
    return select_batches(connection, f"WHERE state IN ({_marks(states)})", list(states))


_N_DURATIONS = 64


def durations(connection: sqlite3.Connection, base_url: str, *, not_of: str = "") -> list[tuple[int, float]]:
    """
    Return the sizes of the newest batches that came to their own end, and the seconds that each took.

    Those of the run `not_of` are left out.
    """
    rows = connection.execute(
        """
        SELECT n_requests, created_at, ended_at FROM batches
        WHERE base_url = ? AND ended_at IS NOT NULL AND created_at IS NOT NULL AND cancel_initiated_at IS NULL
        AND NOT is_live AND run_id != ? ORDER BY key DESC LIMIT ?
        """,
        (base_url, not_of, _N_DURATIONS),
    )
    return [
        (n, (from_cell("ended_at", ended_at) - from_cell("created_at", created_at)).total_seconds())
        for n, created_at, ended_at in rows
    ]


def batches_made_by(connection: sqlite3.Connection, run_ids: Sequence[str]) -> list[BatchRecord]:
    """Return the batches that runs need and have made themselves."""
    where = f"""
        WHERE key IN (SELECT batch_key FROM run_batches WHERE run_batches.run_id IN ({_marks(run_ids)}))
        AND batches.run_id IN ({_marks(run_ids)})
    """
    return select_batches(connection, where, (*run_ids, *run_ids)) if run_ids else []


def link_successors(connection: sqlite3.Connection, key: int, successors: Iterable[int]) -> None:
    """Let every run that needs a batch need its successors too; the batch stays, for what refers to it."""
    for run_id, place in connection.execute(
        "SELECT run_id, place FROM run_batches WHERE batch_key = ?", (key,)
    ).fetchall():
        connection.executemany(
            "INSERT INTO run_batches (run_id, place, batch_key) VALUES (?, ?, ?)",
            [(run_id, place, successor) for successor in successors],
        )


def split_batches(connection: sqlite3.Connection) -> dict[int, tuple[tuple[int, ...], np.ndarray]]:
    """Return the successors of every batch that was split, with their numbers of requests, in the order of keys."""
    found = select_batches(connection, "WHERE state = 'split'")
    wanted = {key for batch in found for key in batch.split_into}
    parts = batches_by_key(connection, wanted) if wanted else {}
    return {
        batch.key: (batch.split_into, np.array([parts[key].n_requests for key in batch.split_into], dtype=np.int64))
        for batch in found
    }


def extend_run(
    connection: sqlite3.Connection,
    run_id: str,
    n_before: int,
    batches: Mapping[int, tuple[BatchRecord, NewBatch]],
    keys: Sequence[int],
    changes: Mapping[str, Any],
) -> bool:
    """Add batches to a run that was extended `n_before` times, and let it need `keys`; return whether it was so."""
    clause, values = assignments(changes, RUN_COLUMNS, fixed=("number", "id", "identity"))
    done = connection.execute(
        f"UPDATE runs SET {clause}, n_extensions = n_extensions + 1 WHERE id = :run_id AND n_extensions = :n_before"
        if clause
        else "UPDATE runs SET n_extensions = n_extensions + 1 WHERE id = :run_id AND n_extensions = :n_before",
        values | {"run_id": run_id, "n_before": n_before},
    )
    if done.rowcount != 1:
        return False
    connection.execute("UPDATE runs SET n_settled = NULL WHERE id = ?", (run_id,))
    for batch, new in batches.values():
        insert_batch(connection, batch, new)
    (place,) = connection.execute(
        "SELECT COALESCE(MAX(place), -1) FROM run_batches WHERE run_id = ?", (run_id,)
    ).fetchone()
    link_batches(connection, run_id, keys, first_place=place + 1)
    # What another run has posted, and this one does not wait for any more, is no business of it.
    needed = set(_with_parts(connection, keys))
    others = connection.execute(
        "SELECT batch_key FROM run_batches JOIN batches ON key = batch_key "
        "WHERE run_batches.run_id = ? AND batches.run_id != ? AND state != 'split'",
        (run_id, run_id),
    ).fetchall()
    connection.executemany(
        "DELETE FROM run_batches WHERE run_id = ? AND batch_key = ?",
        [(run_id, key) for (key,) in others if key not in needed],
    )
    return True


def update_index_kind(connection: sqlite3.Connection, run_id: str, kind: str) -> None:
    """Say what kind of labels a run has now."""
    connection.execute("UPDATE runs SET index_kind = ? WHERE id = ?", (kind, run_id))


def update_batch(
    connection: sqlite3.Connection, key: int, changes: Mapping[str, Any], expect: Collection[str] | None = None
) -> bool:
    """
    Change a batch, where its state is one of `expect`; return whether it was so.

    A batch that was canceled is never moved to ``posting``, whoever canceled it and when.
    """
    clause, values = assignments(changes, BATCH_COLUMNS, fixed=FIXED_BATCH_COLUMNS)
    condition = " AND cancel_asked = 0" if changes.get("state") == "posting" else ""
    if expect is not None:
        names = {f"expected_{at}": state for at, state in enumerate(expect)}
        condition += f" AND state IN ({', '.join(f':{name}' for name in names)})"
        values |= names
    done = connection.execute(f"UPDATE batches SET {clause} WHERE key = :key{condition}", values | {"key": key})
    if done.rowcount != 1:
        return False
    _forget_accounts(connection, key)
    return True


def free_batch_id(connection: sqlite3.Connection, key: int, batch_id: str, *, proved: bool) -> bool:
    """
    Make sure that no other batch holds `batch_id`; return False where one rightly does.

    A provisional adoption gives way to proof: the batch that had adopted the id is looked for again.
    """
    others = select_batches(connection, "WHERE batch_id = ? AND key != ?", (batch_id, key))
    if not others:
        return True
    other = others[0]
    if other.proved or not proved:
        return False
    add_tried_id(connection, other.key, batch_id)
    return update_batch(connection, other.key, {"state": "unknown", "batch_id": None, "counts": {}})


def add_tried_id(connection: sqlite3.Connection, key: int, batch_id: str) -> None:
    """Record that a batch of the server is not this one; it is no candidate for it any more."""
    for batch in select_batches(connection, "WHERE key = ?", (key,)):
        changes: dict[str, Any] = {"tried_ids": tuple(dict.fromkeys((*batch.tried_ids, batch_id)))}
        if batch.candidate_id == batch_id:
            changes["candidate_id"] = None
        update_batch(connection, key, changes)


def add_surplus(connection: sqlite3.Connection, key: int, found: Mapping[str, float | None]) -> None:
    """Record batches of the server that were made of the same requests besides."""
    for batch in select_batches(connection, "WHERE key = ?", (key,)):
        update_batch(connection, key, {"surplus": dict(batch.surplus) | dict(found)})


def ask_cancel(connection: sqlite3.Connection, run_id: str, *, live: bool = True) -> None:
    """Withdraw what a run has recorded and not posted, and mark the rest of its own batches (also live) as canceled."""
    states = CANCELABLE if live else IN_FLIGHT
    connection.execute("UPDATE runs SET asks_no_more = 1 WHERE id = ?", (run_id,))
    connection.execute(
        f"UPDATE batches SET state = 'withdrawn', cancel_asked = 1 WHERE run_id = ? AND state IN ({_marks(RECORDED)})",
        (run_id, *RECORDED),
    )
    connection.execute(
        f"UPDATE batches SET cancel_asked = 1 WHERE run_id = ? AND state IN ({_marks(states)})",
        (run_id, *states),
    )


def set_succeeded(connection: sqlite3.Connection, key: int, mask: np.ndarray) -> None:
    """Record which positions of a batch have an answer that may be used again."""
    connection.execute(
        "INSERT OR REPLACE INTO succeeded VALUES (?, ?, ?)", (key, len(mask), np.packbits(mask).tobytes())
    )


def succeeded(connection: sqlite3.Connection, key: int) -> np.ndarray | None:
    """Return what `set_succeeded` was given, or None."""
    row = connection.execute("SELECT n_requests, bits FROM succeeded WHERE batch_key = ?", (key,)).fetchone()
    return None if row is None else _mask(*row)


def _mask(n: int, bits: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=n).astype(bool)


SMALL = 64
"""Requests of batches up to this size are found by the database: to open a file for each takes longer."""

_IS_USABLE = f"""
    (bits IS NOT NULL OR (? AND state IN ({", ".join("?" * len(IN_FLIGHT))})))
"""


def candidates(
    connection: sqlite3.Connection,
    base_url: str,
    folder: Path,
    name: str,
    *,
    in_flight: bool,
    above: int,
) -> list[Candidate]:
    """
    Return the batches of more than `above` requests in which answers may be found, the preferred ones last.

    First those in flight (left out without `in_flight`), then those with answers; of each the newest last. One that is
    being canceled may be answered, and billed, all the same: it counts.
    """
    rows = connection.execute(
        f"""
        SELECT batches.key, succeeded.n_requests, succeeded.bits FROM batches
        LEFT JOIN succeeded ON succeeded.batch_key = batches.key
        WHERE base_url = ? AND batches.n_requests > ? AND {_IS_USABLE}
        ORDER BY bits IS NOT NULL, batches.key
        """,
        (base_url, above, int(in_flight), *IN_FLIGHT),
    )
    return [Candidate(key, folder / str(key) / name, None if bits is None else _mask(n, bits)) for key, n, bits in rows]


def small_candidates(
    connection: sqlite3.Connection,
    base_url: str,
    folder: Path,
    name: str,
    wanted: Collection[bytes],
    *,
    in_flight: bool,
) -> list[Candidate]:
    """Return the batches of at most `SMALL` requests in which answers to some of the fingerprints `wanted` may be."""
    found: dict[int, tuple[int, bytes | None, list[tuple[int, bytes, int]]]] = {}
    for some in _some_at_a_time(list(wanted)):
        for key, n_requests, bits, position, fingerprint, draw in connection.execute(
            f"""
            SELECT batches.key, batches.n_requests, bits, position, fingerprint, draw FROM small_requests
            JOIN batches ON batches.key = small_requests.batch_key
            LEFT JOIN succeeded ON succeeded.batch_key = batches.key
            WHERE fingerprint IN ({_marks(some)}) AND +base_url = ? AND {_IS_USABLE}
            """,
            (*some, base_url, int(in_flight), *IN_FLIGHT),
        ):
            found.setdefault(key, (n_requests, bits, []))[2].append((position, fingerprint, draw))
    return [
        Candidate(key, folder / str(key) / name, None if bits is None else _mask(n, bits), segment_of(n, requests))
        for key, (n, bits, requests) in found.items()
    ]


def insert_small_requests(
    connection: sqlite3.Connection, key: int, fingerprints: np.ndarray, draws: np.ndarray
) -> None:
    """Record the requests of a batch where it is small."""
    if len(draws) <= SMALL:
        connection.executemany(
            "INSERT INTO small_requests (fingerprint, draw, batch_key, position) VALUES (?, ?, ?, ?)",
            [
                (fingerprint.tobytes(), draw, key, at)
                for at, (fingerprint, draw) in enumerate(zip(fingerprints, draws.tolist(), strict=True))
            ],
        )


def live_candidates(connection: sqlite3.Connection, base_url: str, folder: Path, name: str) -> list[Candidate]:
    """Return the batches whose requests are being asked one by one."""
    rows = connection.execute(
        "SELECT key FROM batches WHERE +base_url = ? AND state = 'live' ORDER BY key", (base_url,)
    ).fetchall()
    return [Candidate(key, folder / str(key) / name, None) for (key,) in rows]


def delete_run(connection: sqlite3.Connection, run_id: str) -> list[int] | None:
    """Delete a run and the batches that only it needs; return their keys, or None where there is no such run."""
    if connection.execute("DELETE FROM runs WHERE id = ?", (run_id,)).rowcount == 0:
        return None
    keys = [
        key
        for (key,) in connection.execute(
            """
            SELECT batch_key FROM run_batches WHERE run_id = ? AND batch_key NOT IN
            (SELECT batch_key FROM run_batches WHERE run_id != ?) ORDER BY batch_key
            """,
            (run_id, run_id),
        )
    ]
    connection.execute("DELETE FROM run_batches WHERE run_id = ?", (run_id,))
    for table, column in (("batches", "key"), ("succeeded", "batch_key"), ("small_requests", "batch_key")):
        connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(key,) for key in keys])
    connection.executemany(
        "INSERT OR IGNORE INTO doomed VALUES (?)", [(f"runs/{run_id}",), *((f"batches/{key}",) for key in keys)]
    )
    return keys


def doomed(connection: sqlite3.Connection) -> list[str]:
    """Return the folders that a deletion has given up, as long as they, or bytes of their records, may be there."""
    return [folder for (folder,) in connection.execute("SELECT folder FROM doomed")]


def forget_doomed(connection: sqlite3.Connection, folders: Iterable[str]) -> None:
    """Record that nothing is left of those folders."""
    connection.executemany("DELETE FROM doomed WHERE folder = ?", [(folder,) for folder in folders])


def referenced(connection: sqlite3.Connection) -> tuple[set[str], set[int]]:
    """Return the ids of all runs and the keys of all batches."""
    runs = {run_id for (run_id,) in connection.execute("SELECT id FROM runs")}
    return runs, {key for (key,) in connection.execute("SELECT key FROM batches")}


def _some_at_a_time(values: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(values), 500):
        yield values[start : start + 500]


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values))
