"""Which folder is the store, and whether it may be used: ours, private, on a local file system or not."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from pandas_batch.errors import NOTHING_SENT, StoreError, outside_level

from .files import FOLDER_MODE, close_to_others, make_private_folder, sync_folder, write_durably

# a variable, so that the type checker follows each branch on every system
_PLATFORM: str = sys.platform

FOLDER_NAME = ".pandas_batch"
DATABASE_NAME = "store.db"

# Everything else (nfs, cifs, 9p, fuse...) gets the safe journal mode: WAL needs memory shared between all its users
# (https://www.sqlite.org/wal.html#noshm).
_LOCAL_FILE_SYSTEMS = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "ramfs", "overlay", "f2fs", "jfs", "reiserfs", "bcachefs"}
) | {"ntfs3", "exfat", "vfat"}
_OURS = frozenset(
    {".gitignore", ".gitignore.part", DATABASE_NAME, "preparing.lock", "recording.lock"}
    | {"locks", "tmp", "runs", "batches", "backups"}
)


def find_store(path: str | os.PathLike[str] | None = None) -> Path:
    """
    Return where the store is, or is to be made: nothing is made here.

    `path`, else ``PANDAS_BATCH_HOME``, else the nearest ``.pandas_batch/`` of this user from the working
    directory upwards, else ``.pandas_batch/`` in the working directory.
    """
    given = path if path is not None else os.environ.get("PANDAS_BATCH_HOME") or None
    if given is not None:
        return _absolute(Path(given).expanduser())
    here = Path.cwd()
    for folder in (here, *here.parents):
        candidate = folder / FOLDER_NAME
        # A folder that somebody else planted upwards (in /tmp, say) must not catch our prompts.
        if candidate.is_dir() and not candidate.is_symlink() and _is_mine(candidate):
            return _absolute(candidate)
    return _absolute(here / FOLDER_NAME)


def _absolute(path: Path) -> Path:
    # Links above the store are followed, the store itself must not be one (see `enter_store`).
    path = Path(os.path.abspath(path))
    return path.parent.resolve() / path.name


def _is_mine(path: Path) -> bool:
    return not hasattr(os, "geteuid") or path.stat().st_uid == os.geteuid()


def enter_store(path: Path) -> None:
    """
    Make the store's folder, or check the one that is there.

    Raises
    ------
    StoreError
        Where it is a symlink, a file, another user's, or a folder that holds other things.
    OSError
        Where it cannot be made or read.
    """
    if path.is_symlink():
        raise StoreError(
            f"The store {path} is a symbolic link.",
            NOTHING_SENT,
            f'Name the folder it stands for: store="{os.path.realpath(path)}".',
        )
    if path.exists() and not path.is_dir():
        raise StoreError(
            f"The store {path} is a file, not a folder.",
            NOTHING_SENT,
            f'Name a folder: store="{path.parent / FOLDER_NAME}".',
        )
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _warn_if_open_to_all(path.parent)
        make_private_folder(path)
        sync_folder(path.parent)
    if not _is_mine(path):
        raise StoreError(
            f"The store {path} belongs to another user (uid {path.stat().st_uid}).",
            NOTHING_SENT,
            'Name a folder of your own: store="~/batches", or set PANDAS_BATCH_HOME.',
        )
    if not (path / DATABASE_NAME).exists():
        # another process may be making its store.db, with the files that go with that, at this very moment
        strangers = sorted(name for name in set(os.listdir(path)) - _OURS if not name.startswith(DATABASE_NAME))
        if strangers:
            raise StoreError(
                f"The folder {path} is not a store and holds other things ({strangers[0]!r}).",
                NOTHING_SENT,
                f'Name a folder that is empty or does not exist yet: store="{path / FOLDER_NAME}".',
            )
    close_to_others(path, FOLDER_MODE)
    for name in ("locks", "tmp", "runs", "batches"):
        make_private_folder(path / name)


def settle_store(path: Path) -> None:
    """
    Make sure that the store is never committed to git, and that it has not lost its database.

    The caller holds the recording lock.

    Raises
    ------
    StoreError
        Where there are batches and no database that knows them.
    """
    if not (path / ".gitignore").exists():
        write_durably(path / ".gitignore", b"*\n")
    if not (path / DATABASE_NAME).exists() and any((path / "batches").glob("*")):
        raise StoreError(
            f"The store {path} has lost its {DATABASE_NAME}.",
            NOTHING_SENT,
            "Restore that file from a backup, or move the folder away and fetch the answers again from the server: "
            "pandas_batch.recover(df, ...).",
        )


def _warn_if_open_to_all(folder: Path) -> None:
    mode = folder.stat().st_mode
    if os.name != "nt" and mode & 0o002 and not mode & 0o1000:
        warnings.warn(
            f"Everybody may rename and replace things in {folder}, the store in it included.",
            UserWarning,
            stacklevel=outside_level(),
        )


def is_local(path: Path) -> bool:
    """Whether SQLite's write-ahead log may be used there; when in doubt, no."""
    try:
        if _PLATFORM.startswith("linux"):
            return file_system_of(path, Path("/proc/self/mountinfo").read_text()) in _LOCAL_FILE_SYSTEMS
        if _PLATFORM == "darwin":
            return _is_local_on_darwin(path)
        if _PLATFORM == "win32":
            return _is_local_on_windows(path)
    except (OSError, ValueError, AttributeError):
        return False
    return False


def file_system_of(path: Path, mountinfo: str) -> str:
    r"""
    Return the type of the file system that holds `path`, from the text of ``/proc/self/mountinfo``.

    Examples
    --------
    >>> file_system_of(Path("/home/ann/x"), "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /home rw - nfs4 srv:/h rw\n")
    'nfs4'
    """
    real = os.path.realpath(path)
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        # the kernel writes spaces in names as octal escapes
        mount = fields[4].encode().decode("unicode_escape").encode("latin-1").decode("utf-8", "surrogateescape")
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= best:  # of two mounts on one point the later covers the earlier
            best, kind = len(mount), after.split()[0]
    return kind


def _is_local_on_darwin(path: Path) -> bool:
    import ctypes

    # struct statfs with 64 bit inodes: f_flags stands at byte 64 (sys/mount.h), MNT_LOCAL is 0x1000
    libc = ctypes.CDLL(None, use_errno=True)
    statfs = getattr(libc, "statfs$INODE64", None) or libc.statfs
    found = ctypes.create_string_buffer(4096)
    if statfs(os.fsencode(path), found) != 0:
        return False
    return bool(int.from_bytes(found.raw[64:68], sys.byteorder) & 0x1000)


def _is_local_on_windows(path: Path) -> bool:
    import ctypes

    drive = os.path.splitdrive(os.path.realpath(path))[0]
    fixed_or_removable = (2, 3, 6)
    # typeshed has `windll` on Windows alone
    kind = ctypes.windll.kernel32.GetDriveTypeW(drive + "\\")  # type: ignore[attr-defined,unused-ignore]
    return not drive.startswith("\\\\") and kind in fixed_or_removable
