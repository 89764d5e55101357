"""One SQLite file: durable commits, short transactions, many threads and processes, nothing across a fork."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pandas_batch.errors import NOTHING_SENT, StoreError

from .failures import KEPT, corrupt, is_busy, store_error
from .files import FILE_MODE, close_to_others, make_private_folder, open_private, sync_folder
from .migrations import APPLICATION_ID, MIGRATIONS

T = TypeVar("T")

# SQLite waits inside C, where Ctrl-C does not reach it: short there, the long patience is in Python.
_BUSY_IN_SQLITE_MS = 200
_PATIENCE_S = 60.0

_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class _Held:
    """The connection of a database, if one is open, and the lock without which nobody touches it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connections: list[sqlite3.Connection] = []


_CLOSING_PATIENCE_S = 5.0


_forking = threading.Lock()
_stopped: list[threading.Lock] = []
_FORK_PATIENCE_S = 10.0


def _before_fork() -> None:
    # SQLite's bookkeeping of file locks must not be copied into a child while a connection is open
    # (https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork).
    _forking.acquire()
    for database in list(_databases):
        # A signal handler that forks in the middle of our own transaction would wait for itself.
        if database._lock.acquire(timeout=_FORK_PATIENCE_S):
            _stopped.append(database._lock)
            database._close_connection()


def _after_fork_in_parent() -> None:
    while _stopped:
        _stopped.pop().release()
    _forking.release()


def _after_fork_in_child() -> None:
    global _forking
    _stopped.clear()
    _forking = threading.Lock()
    for database in list(_databases):
        database._held.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class Database:
    """
    A SQLite file of ours, opened (made, migrated) and kept open.

    Work is passed in as a function of the connection: it runs inside one transaction, may be run again where
    another process was in the way, and leaves nothing behind when anything at all is raised in it.

    Parameters
    ----------
    path
        The file. Whoever opens it holds the store's recording lock.
    local
        Whether the file system is local: decides between the write-ahead log and the rollback journal, both
        in the setting that keeps an acknowledged commit through a power cut.
    """

    def __init__(self, path: Path, *, local: bool) -> None:
        self.path = path
        self.local = local
        # What a finalizer has to know: it must not refer to `self`.
        self._held = _Held()
        self._state = NOTHING_SENT
        self._n_connected = 0
        if not path.exists():
            os.close(open_private(path))
            sync_folder(path.parent)
        for neighbor in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            if neighbor.exists():
                close_to_others(neighbor, FILE_MODE)
        self._inode = _inode_of(path)
        weakref.finalize(self, _close_at_end, self._held)
        with self._lock:
            self._prepare(self._connected())
        # From here on something may have been sent.
        self._state = KEPT
        _databases.add(self)

    @property
    def _lock(self) -> threading.Lock:
        return self._held.lock

    # --- use

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on one consistent view of the data."""
        return self._transact("BEGIN", work)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` as the only writer; its changes are on the medium when this returns."""
        return self._transact("BEGIN IMMEDIATE", work)

    def _transact(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        started_s = time.monotonic()
        while True:
            with self._lock:
                connection = self._connected()
                try:
                    connection.execute(begin)
                    result = work(connection)
                    connection.execute("COMMIT")
                    return result
                except sqlite3.IntegrityError:
                    _roll_back(connection)
                    raise
                except sqlite3.Error as error:
                    _roll_back(connection)
                    if not is_busy(error) or time.monotonic() - started_s > _PATIENCE_S:
                        raise store_error(error, self.path.parent) from error
                except BaseException:
                    _roll_back(connection)
                    raise
            time.sleep(0.01)

    def scrub(self) -> bool:
        """Rewrite the file without what was deleted; return whether the log could be emptied as well."""
        with self._lock:
            connection = self._connected()
            try:
                connection.execute("VACUUM")
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.Error as error:
                if is_busy(error):
                    return False
                raise store_error(error, self.path.parent) from error
            return not busy

    def version(self) -> tuple[int, int, int]:
        """Return what is another after every change of the data, whoever makes it, and may be after none."""
        with self._lock:
            connection = self._connected()
            try:
                (of_others,) = connection.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error as error:
                raise store_error(error, self.path.parent) from error
            return self._n_connected, of_others, connection.total_changes

    def is_current(self) -> bool:
        """Whether the file at our path still is the one we opened."""
        return _inode_of(self.path) == self._inode

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock:
            self._close_connection()

    # --- the connection

    def _connected(self) -> sqlite3.Connection:
        if not self.is_current():
            self._close_connection()
            raise StoreError(
                f"The store at {self.path.parent} was removed or replaced while it was in use.",
                "This step was not recorded.",
                "Put the folder back, or restart the kernel and run the same line again.",
            )
        if self._held.connections:
            connection = self._held.connections[0]
            # an interrupt that fell into the rollback of the previous one
            _roll_back(connection)
            return connection
        try:
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_IN_SQLITE_MS / 1000, isolation_level=None, check_same_thread=False
            )
            self._held.connections.append(connection)
            self._n_connected += 1
            self._configure(connection)
        except sqlite3.Error as error:
            self._close_connection()
            raise store_error(error, self.path.parent, self._state) from error
        except BaseException:
            self._close_connection()
            raise
        return connection

    def _configure(self, connection: sqlite3.Connection) -> None:
        if self.local:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        else:
            if _is_in_wal_mode(self.path):
                # A store that was moved here: exclusive locking is the one way to read a log without shared memory.
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            mode = connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
            connection.execute("PRAGMA locking_mode = NORMAL")
        # EXTRA also syncs the folder after the journal's end, without which a power cut brings the old state back.
        connection.execute("PRAGMA synchronous = FULL" if mode == "wal" else "PRAGMA synchronous = EXTRA")
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA trusted_schema = OFF")

    def _close_connection(self) -> None:
        _close_all(self._held.connections)

    # --- versions

    def _prepare(self, connection: sqlite3.Connection) -> None:
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            if version == 0 and application == 0:
                tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if tables:
                    raise _stranger(self.path)
            elif application != APPLICATION_ID:
                raise _stranger(self.path)
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"The store at {self.path.parent} has format {version}; "
                    f"this version of pandas_batch knows formats up to {len(MIGRATIONS)}.",
                    NOTHING_SENT,
                    "pip install --upgrade pandas-batch",
                )
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise corrupt(self.path.parent, verdict.splitlines()[-1], NOTHING_SENT)
            if version < len(MIGRATIONS):
                self._migrate(connection, version)
        except sqlite3.Error as error:
            raise store_error(error, self.path.parent, NOTHING_SENT) from error

    def _migrate(self, connection: sqlite3.Connection, version: int) -> None:
        if version:
            self._back_up(connection, version)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise

    def _back_up(self, connection: sqlite3.Connection, version: int) -> None:
        folder = self.path.parent / "backups"
        make_private_folder(folder)
        target = folder / f"store-v{version}.db"
        os.close(open_private(target, truncate=True))
        copy = sqlite3.connect(target)
        try:
            connection.backup(copy)
        finally:
            copy.close()
        sync_folder(folder)


def _inode_of(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _is_in_wal_mode(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(20)[18:] == b"\x02\x02"  # https://www.sqlite.org/fileformat2.html#file_format_version_numbers


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with suppress(sqlite3.Error):  # SQLite has rolled back by itself after the gravest errors
            connection.execute("ROLLBACK")


def _close_all(connections: list[sqlite3.Connection]) -> None:
    while connections:
        with suppress(sqlite3.Error):
            connections.pop().close()


def _close_at_end(held: _Held) -> None:
    # Closed under a thread that is inside SQLite, the process dies of it; left open, nothing is lost.
    if held.lock.acquire(timeout=_CLOSING_PATIENCE_S):
        try:
            _close_all(held.connections)
        finally:
            held.lock.release()


def _stranger(path: Path) -> StoreError:
    return StoreError(
        f"The file {path} is another program's database.",
        NOTHING_SENT,
        'Name another folder: store="~/batches", or set PANDAS_BATCH_HOME.',
    )
