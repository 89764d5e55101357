"""Locks between threads and processes that die with whoever holds them."""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .files import open_private

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,79}")
_LONGEST_PAUSE_S = 0.02

_held: weakref.WeakSet[io.FileIO] = weakref.WeakSet()


def _let_go_in_child() -> None:
    # A lock belongs to the open file, which a forked child shares: kept open there, it would outlive its holder.
    for handle in list(_held):
        with suppress(OSError):
            handle.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


def lock_name(name: str) -> str:
    """Return a file name for any text, so that a name is never a path."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    return "x-" + hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def try_lock(path: Path) -> io.FileIO | None:
    """
    Take the exclusive lock of `path`, or return None where anybody else has it, another thread included.

    The lock is the open file: closing the returned object (which happens inside the interpreter, where no
    KeyboardInterrupt can fall in between) or the death of the process lets it go.
    """
    while True:
        handle = io.FileIO(path, "r+", opener=lambda name, _flags: open_private(name))
        try:
            _held.add(handle)
            if not _lock(handle.fileno()):
                handle.close()
                return None
            if _is_at(handle, path):
                return handle
            # its last holder removed the file between our opening and our locking it
            handle.close()
        except BaseException:
            handle.close()
            raise


def wait_lock(path: Path, timeout_s: float | None = None) -> io.FileIO:
    """
    Wait for the exclusive lock of `path`; interruptible in every thread and on every system.

    Raises
    ------
    TimeoutError
        When `timeout_s` seconds have passed.
    """
    started_s = time.monotonic()
    pause_s = 0.0005
    while True:
        handle = try_lock(path)
        if handle is not None:
            return handle
        if timeout_s is not None and time.monotonic() - started_s > timeout_s:
            raise TimeoutError(f"{path.name} is locked by another program")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _is_at(handle: io.FileIO, path: Path) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(handle.fileno()), there)


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class Lease:
    """
    The right to work on something, held until `close` or until the process dies.

    Attributes
    ----------
    name
        What is held.
    """

    def __init__(self, name: str, path: Path, handle: io.FileIO) -> None:
        self.name = name
        self._path = path
        self._handle = handle

    @property
    def closed(self) -> bool:
        """Whether the lease was given back (in a forked child it never was the child's)."""
        return self._handle.closed

    def close(self) -> None:
        """Give the lease back; again is harmless."""
        if self._handle.closed:
            return
        # Unlinked while locked: whoever waits on this file finds it gone and opens the next one.
        with suppress(OSError):
            if os.name != "nt" and _is_at(self._handle, self._path):
                os.unlink(self._path)
        self._handle.close()

    def __del__(self) -> None:
        # At the interpreter's end `suppress` itself may be gone; the lock goes with its file anyway.
        try:  # noqa: SIM105 - said above
            self.close()
        except Exception:  # noqa: S110 - nobody is left to tell
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Lease({self.name!r}, {'closed' if self.closed else 'held'})"


def take_lease(folder: Path, name: str) -> Lease | None:
    """Take the lease `name` under `folder`, or return None where anybody else has it."""
    path = folder / lock_name(name)
    handle = try_lock(path)
    return None if handle is None else Lease(name, path, handle)
