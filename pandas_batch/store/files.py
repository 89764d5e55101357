"""Private files: made 0600 in folders 0700 whatever the umask, durable when a call says so, never through a symlink."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600

# File systems without permission bits (FAT, some mounts of another system) refuse chmod; they have nothing to protect.
_NO_PERMISSION_BITS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})

_OPEN_FLAGS = (
    os.O_RDWR
    | os.O_CREAT
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOINHERIT", 0)
)


def make_private_folder(path: Path) -> None:
    """Make a folder 0700 where there is none; a symlink or a file in its place raises `NotADirectoryError`."""
    try:
        os.mkdir(path, FOLDER_MODE)
    except FileExistsError:
        if path.is_symlink() or not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
        return
    _set_mode(path, FOLDER_MODE)


def open_private(path: str | os.PathLike[str], *, exclusive: bool = False, truncate: bool = False) -> int:
    """Open (or make) a file for reading and writing, 0600 whatever the umask, and return its descriptor."""
    flags = _OPEN_FLAGS | (os.O_EXCL if exclusive else 0) | (os.O_TRUNC if truncate else 0)
    fd = os.open(path, flags, FILE_MODE)
    try:
        _set_mode(fd, FILE_MODE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def private_writer(path: Path, *, exclusive: bool = False) -> io.BufferedWriter:
    """Return a buffered writer on a fresh private file."""
    raw = io.FileIO(path, "w", opener=lambda name, _flags: open_private(name, exclusive=exclusive, truncate=True))
    return io.BufferedWriter(raw, 1 << 18)


def _set_mode(target: int | Path, mode: int) -> None:
    if isinstance(target, int) and not hasattr(os, "fchmod"):
        return
    try:
        if isinstance(target, int):
            os.fchmod(target, mode)
        else:
            os.chmod(target, mode)
    except OSError as error:
        if error.errno not in _NO_PERMISSION_BITS:
            raise


def close_to_others(path: Path, mode: int) -> None:
    """Take away what `mode` does not grant from a file or folder of ours, as after a copy by another tool."""
    if os.name != "nt" and (path.stat().st_mode & 0o777) != mode:
        _set_mode(path, mode)


def sync_fd(fd: int) -> None:
    """Bring a file's bytes to the medium; macOS needs more than fsync for that."""
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):  # not every file system there knows F_FULLFSYNC
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def sync_file(path: Path) -> None:
    """Bring a closed file's bytes to the medium."""
    fd = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        sync_fd(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Bring a folder's entries to the medium (Windows does that by itself)."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        sync_fd(fd)
    finally:
        os.close(fd)


def commit_file(part: Path, final: Path) -> None:
    """Give a finished file its final name: whole and durable there when this returns, or not there at all."""
    commit_files({part: final})


def commit_files(finals: Mapping[Path, Path]) -> None:
    """
    Give finished files their final names, in their order: whole and durable there when this returns.

    After a crash in between, each is whole under its final name or not there at all.
    """
    for part in finals:
        fd = os.open(part, os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0))
        try:
            _set_mode(fd, FILE_MODE)
            sync_fd(fd)
        finally:
            os.close(fd)
    for part, final in finals.items():
        os.replace(part, final)
    for folder in dict.fromkeys(final.parent for final in finals.values()):
        sync_folder(folder)


def commit_folders(finals: Mapping[Path, Path]) -> None:
    """
    Give folders of synced files their final names, durable when this returns.

    Until then a power cut may leave a folder that is not whole: nothing may rely on one before.
    """
    for part, final in finals.items():
        os.rename(part, final)
    # After all the names: a file system that keeps a journal then brings all of it to the medium with the first.
    for folder in dict.fromkeys([*finals.values(), *(final.parent for final in finals.values())]):
        sync_folder(folder)


def write_durably(path: Path, data: bytes) -> None:
    """Write a small file whole, through a neighbor of its name."""
    part = path.with_name(path.name + ".part")
    with private_writer(part) as out:
        out.write(data)
    commit_file(part, path)


def remove_folder(path: Path) -> None:
    """Remove a folder with what is in it; it may be gone already, or be removed by another at the same time."""
    shutil.rmtree(path, ignore_errors=True)


def free_bytes(path: Path) -> int:
    """Return how many bytes this user may still write on the file system of `path`."""
    return shutil.disk_usage(path).free
