"""What the operating system and SQLite say when a store cannot be used, in words that help."""

from __future__ import annotations

import errno
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pandas_batch.errors import NOTHING_SENT, StoreError

KEPT = "What the store had recorded before is kept; this step was not recorded."

_FULL = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} if hasattr(errno, "EDQUOT") else {errno.ENOSPC, errno.EFBIG}
)
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_ELSEWHERE = 'Name a folder of your own: store="~/batches", or set PANDAS_BATCH_HOME.'


def is_busy(error: BaseException) -> bool:
    """Whether another connection was in the way, so that the same step may work a moment later."""
    return isinstance(error, sqlite3.OperationalError) and _primary_code(error) in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


def _primary_code(error: sqlite3.Error) -> int:
    # the low byte is the class of the failure, the rest its detail (https://www.sqlite.org/rescode.html)
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def store_error(error: BaseException, path: Path, state: str = KEPT) -> StoreError:
    """Return the `StoreError` that says what `error` means for the store at `path`."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(error, path, state)
    if isinstance(error, OSError):
        return _of_system(error, path, state)
    return StoreError(f"The store at {path} failed: {type(error).__name__}: {error}", state)


def _of_sqlite(error: sqlite3.Error, path: Path, state: str) -> StoreError:
    code = _primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return disk_full(path, state)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return corrupt(path, str(error), state)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return unwritable(path, str(error), state)
    if is_busy(error):
        return _locked(path, state)
    if code == sqlite3.SQLITE_IOERR:
        return StoreError(
            f"The disk failed under the store at {path}: {error}.",
            state,
            "Check the free space, quota and health of the disk, then run the same line again.",
        )
    return StoreError(f"The store at {path} failed: {type(error).__name__}: {error}", state)


def _locked(path: Path, state: str) -> StoreError:
    return StoreError(
        f"Another program has kept the store at {path} locked for too long.",
        state,
        "Find it (another notebook, a backup, a database viewer), close it, and run the same line again.",
    )


def _of_system(error: OSError, path: Path, state: str) -> StoreError:
    if isinstance(error, TimeoutError) and error.errno is None:
        return _locked(path, state)
    if error.errno in _FULL:
        return disk_full(path, state)
    if error.errno in _DENIED:
        return unwritable(path, error.strerror or str(error), state)
    if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EEXIST):
        return StoreError(f"{error.filename or path} is not a folder, so the store cannot use it.", state, _ELSEWHERE)
    if error.errno in (errno.ENOLCK, getattr(errno, "ENOTSUP", -1), errno.ENOSYS):
        return StoreError(f"The file system of {path} has no locks, which the store needs.", state, _ELSEWHERE)
    return StoreError(
        f"The store at {path} failed: {error.strerror or error}.",
        state,
        "Check the disk, then run the same line again.",
    )


def disk_full(path: Path, state: str = KEPT) -> StoreError:
    """Return the error for a disk, quota or file size limit that is used up."""
    return StoreError(
        f"There is no room left on the disk of the store at {path}.",
        state,
        "Free some space, or delete runs you no longer need: pandas_batch.load(name).delete(). Then run the same line.",
    )


def corrupt(path: Path, detail: str, state: str = KEPT) -> StoreError:
    """Return the error for a file that is not what was written."""
    return StoreError(
        f"The store at {path} is damaged: {detail}.",
        state,
        "Restore the folder from a backup, or move it away and fetch the answers again from the server: "
        "pandas_batch.recover(df, ...).",
    )


def not_whole(file: Path) -> StoreError:
    """Return the error for a cut or foreign file of a run or a batch."""
    return corrupt(file.parents[2], f"{'/'.join(file.parts[-3:])} is not whole")


def missing(file: Path) -> StoreError:
    """Return the error for a file of a run or a batch that is not there."""
    return corrupt(file.parents[2], f"{'/'.join(file.parts[-3:])} is missing")


def unwritable(path: Path, detail: str, state: str = KEPT) -> StoreError:
    """Return the error for a store that this user may not write."""
    return StoreError(f"The store at {path} cannot be written: {detail}.", state, _ELSEWHERE)


@contextmanager
def explained(path: Path, state: str = KEPT) -> Iterator[None]:
    """Turn failures of the file system and of SQLite into `StoreError`; an interrupt stays an interrupt."""
    handled_before = sys.exception()
    try:
        yield
    except (OSError, sqlite3.OperationalError, sqlite3.DatabaseError) as error:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise
        interrupt = _interrupt_behind(error, handled_before)
        if interrupt is not None:
            raise interrupt from None
        raise store_error(error, path, state) from error


def _interrupt_behind(error: BaseException, handled_before: BaseException | None) -> KeyboardInterrupt | None:
    """
    Return the interrupt in whose clean-up `error` came up, or None.

    Clean-up that an interrupt has overtaken may fail where nothing is wrong: `shutil.rmtree` of Python 3.11 closes
    a folder twice then.
    """
    behind = error.__context__
    while behind is not None and behind is not handled_before:
        if isinstance(behind, KeyboardInterrupt):
            return behind
        behind = behind.__context__
    return None


NOTHING_RECORDED = f"The run was not recorded. {NOTHING_SENT}"
