"""The store: opened once per folder and process, locked against others where it must be."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

from pandas_batch.errors import NOTHING_SENT, StoreError

from . import queries
from .batch_files import BatchFiles
from .batches import Batches
from .database import Database
from .failures import explained
from .files import free_bytes
from .folder import DATABASE_NAME, enter_store, find_store, is_local, settle_store
from .locks import Lease, take_lease, wait_lock
from .opened import Opened
from .runs import Runs
from .staging import sweep

_instances: dict[Path, Store] = {}
_opening = threading.Lock()


def _after_fork_in_child() -> None:
    global _opening
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Store:
    """
    Everything this machine knows about runs, in one private folder; made by `Store.open`.

    Every change is on the medium when its call returns, and happens whole or not at all, whatever is killed
    when. Any thread and any process may use the same store at the same time.

    Attributes
    ----------
    path
        The folder.
    schema_version
        Format of its database.
    runs, batches, files
        The runs; their batches; the files of a batch.
    """

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self._opened = Opened(path, database)
        self.schema_version = self._opened.schema_version
        self.files = BatchFiles(self._opened)
        self.batches = Batches(self._opened, self.files)
        self.runs = Runs(self._opened, self.batches)
        self._preparing: tuple[int, io.FileIO] | None = None

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    @classmethod
    def find(cls, path: str | Path | None = None) -> Store | None:
        """Return the store that `open` would open, or None where there is none yet."""
        return cls.open(path) if (find_store(path) / DATABASE_NAME).exists() else None

    @classmethod
    def open(cls, path: str | Path | None = None) -> Store:
        """
        Open the store, making it where there is none.

        Parameters
        ----------
        path
            The folder. None: ``PANDAS_BATCH_HOME``, else the nearest ``.pandas_batch/`` upwards, else
            ``.pandas_batch/`` in the working directory.

        Returns
        -------
        Store
            The same object for the same folder, as long as the folder is the same.

        Raises
        ------
        StoreError
            Where it cannot be written, is damaged, of a newer version, a link, a file, or another user's.
        """
        folder = find_store(path)
        with _opening:
            known = _instances.get(folder)
            if known is not None and known._opened.database.is_current():
                return known
            with explained(folder, NOTHING_SENT):
                enter_store(folder)
                with wait_lock(folder / "recording.lock"):
                    settle_store(folder)
                    database = Database(folder / DATABASE_NAME, local=is_local(folder))
                    store = cls(folder, database)
                    store._sweep()
            if known is not None:
                known._opened.database.close()
            _instances[folder] = store
            return store

    def _sweep(self) -> None:
        self.runs.finish_deletions()
        runs, batches = self._opened.database.read(queries.referenced)
        self._opened.unrecorded = sweep(self.path, runs, batches)

    # --- locks

    def preparing(self, timeout_s: float | None = None) -> io.FileIO:
        """
        Return a context manager: while it is open, no other thread or process prepares a run in this store.

        Parameters
        ----------
        timeout_s
            How long to wait for the others; None: as long as it takes.

        Raises
        ------
        StoreError
            Where this thread is preparing one already (it would wait for itself).
        """
        if self._preparing is not None:
            thread, handle = self._preparing
            if thread == threading.get_ident() and not handle.closed:
                raise StoreError(
                    "A run was started while another was being prepared by the same call.",
                    NOTHING_SENT,
                    "Take the inner submit() out of the prompt or option callable.",
                )
        with explained(self.path, NOTHING_SENT):
            # The open file is the lock: closing it on leaving the block is one step that no interrupt can split.
            handle = wait_lock(self.path / "preparing.lock", timeout_s)
        self._preparing = (threading.get_ident(), handle)
        return handle

    def lease(self, name: str) -> Lease | None:
        """
        Take the exclusive right to work on `name`, or return None where another thread or process has it.

        It ends with ``close()`` or with the process, however that dies. Do not let go of the object while working.
        """
        with explained(self.path):
            return take_lease(self.path / "locks", name)

    # --- room

    def free_bytes(self) -> int:
        """Return how many bytes this user may still write where the store is."""
        with explained(self.path):
            return free_bytes(self.path)

    def size_bytes(self) -> int:
        """Return how many bytes the store takes."""
        return sum(
            os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(self.path) for name in names
        )
