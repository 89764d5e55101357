"""Memory that a run needs no more goes back to the system, while it waits and between one batch and the next."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

_WORTH_IT = 10_000


def give_back_memory(n_requests: int) -> None:
    """
    Ask the allocators to give back what nobody uses any more, after work on `n_requests` requests.

    glibc keeps freed memory wherever something that is still in use lies above it, apart for each thread; after a
    million rows that are hundreds of megabytes (https://man7.org/linux/man-pages/man3/malloc_trim.3.html).
    """
    if n_requests < _WORTH_IT:
        return
    import pyarrow as pa

    trim = _malloc_trim()
    if trim is not None:
        trim(0)
    pa.default_memory_pool().release_unused()


def give_back_cache(path: Path, n_requests: int) -> None:
    """
    Tell the system that the file at `path`, of a batch of `n_requests`, will not be read again soon.

    A million rows are gigabytes that are written, read once and left alone. Kept in memory they push out of it what
    others read all the time, and on a virtual machine each new page of them is dear: 145 MB took 0.03 s of CPU to
    write into pages just given back, 0.40 s into new ones. Only what is on the medium already is given up.
    """
    if n_requests < _WORTH_IT or not hasattr(os, "posix_fadvise"):
        return
    with suppress(OSError):  # not all file systems take advice
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    found: Callable[[int], int] = trim
    return found
