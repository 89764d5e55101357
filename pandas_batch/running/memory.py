"""Memory that a run has freed goes back to the system, while it waits and between one batch and the next."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache

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
