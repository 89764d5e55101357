"""Where files stand until a commit refers to them, and how what a dead process left behind is swept away."""

from __future__ import annotations

import os
import secrets
import time
import weakref
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from .files import make_private_folder, remove_folder
from .locks import Lease, take_lease, try_lock

_OLD_S = 86_400.0


class Staging:
    """
    A folder under ``tmp/`` of this process alone, held by a lease: whoever can take that may remove it.

    Parameters
    ----------
    store_path
        The store.
    """

    def __init__(self, store_path: Path) -> None:
        self._store_path = store_path
        self._lease: Lease | None = None
        self._folder: Path | None = None
        self._n_names = 0

    def new_path(self, kind: str) -> Path:
        """Return a path that nobody else uses."""
        folder = self._folder
        if self._lease is None or self._lease.closed or folder is None or not folder.is_dir():
            folder = self._open()
        self._n_names += 1
        return folder / f"{kind}-{self._n_names}-{secrets.token_hex(4)}"

    @property
    def folder(self) -> Path:
        """The folder itself."""
        return self._open() if self._folder is None else self._folder

    def _open(self) -> Path:
        # In a forked child the lease is closed, and the folder the parent's.
        name = f"{os.getpid()}-{secrets.token_hex(6)}"
        lease = take_lease(self._store_path / "locks", _lease_name(name))
        folder = self._store_path / "tmp" / name
        make_private_folder(folder)
        self._lease, self._folder = lease, folder
        weakref.finalize(self, _leave, folder, lease, os.getpid())
        return folder


def _leave(folder: Path, lease: Lease | None, pid: int) -> None:
    if os.getpid() == pid:  # a forked child ends without touching what is its parent's
        remove_folder(folder)
        if lease is not None:
            lease.close()


def _lease_name(folder_name: str) -> str:
    return f"staging-{folder_name}"


POSTED = "posted"
"""Name of a file in the folder of a batch that was posted, or was about to be: the time of each POST."""


def sweep(store_path: Path, run_ids: Collection[str], batch_keys: Collection[int]) -> list[str]:
    """
    Remove what no commit refers to; return the names of folders of batches that were posted and that none refers to.

    That is: staging folders of dead processes, and folders whose process died between putting them in place and
    its commit, or between a commit that deleted them and their removal. The caller holds the recording lock, so
    that no folder is on its way to a commit.
    """
    for folder in _folders(store_path / "tmp"):
        lease = take_lease(store_path / "locks", _lease_name(folder.name))
        if lease is not None:
            with lease:
                remove_folder(folder)
    # Where the log of the database was lost, or an older copy put back, what was paid for is the last thing to remove.
    known = {str(key) for key in batch_keys}
    unrecorded = []
    for folder in _folders(store_path / "batches"):
        if folder.name in known:
            continue
        if (folder / POSTED).exists() or any(folder.glob("results*")) or any(folder.glob("answers*")):
            unrecorded.append(folder.name)
        else:
            remove_folder(folder)
    for folder in _folders(store_path / "runs"):
        if folder.name not in run_ids and not unrecorded:
            remove_folder(folder)
    _sweep_locks(store_path / "locks")
    return sorted(unrecorded)


def _sweep_locks(folder: Path) -> None:
    # A killed process leaves its lease files; empty as they are, they would gather over the years. Young ones
    # are let be: taking them, if only for a moment, could stand in the way of their next user.
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            if time.time() - os.stat(folder / name).st_mtime < _OLD_S:
                continue
        handle = try_lock(folder / name)
        if handle is not None:
            Lease(name, folder / name, handle).close()


def _folders(parent: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False)]
