"""Memory that is given back: what is kept stays whole, and what is given up is given up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pandas_batch.engine.memory import give_back_cache, give_back_memory

MANY, FEW = 10_000, 9_999


def is_in_memory(path: Path) -> bool:
    """Return whether the system can read the file without its medium (Linux)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def written(path: Path) -> Path:
    with path.open("wb") as file:
        file.write(b"x" * 1_000_000)
        file.flush()
        os.fsync(file.fileno())
    return path


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system does not tell what it holds in memory")
def test_a_file_that_was_sent_leaves_memory_and_stays_whole(tmp_path: Path) -> None:
    """The file of a large batch is given up by the cache, that of a small one is not, and both keep every byte."""
    large, small, by_hand = (written(tmp_path / name) for name in ("large", "small", "by hand"))
    fd = os.open(by_hand, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    assert is_in_memory(large)
    give_back_cache(large, MANY)
    give_back_cache(small, FEW)
    assert is_in_memory(large) == is_in_memory(by_hand)  # a file system in memory has nowhere else to put it
    assert is_in_memory(small)
    assert large.read_bytes() == small.read_bytes() == b"x" * 1_000_000


def test_advice_about_a_file_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """Another process may have put the file away meanwhile: a hint never stops a run."""
    give_back_cache(tmp_path / "gone", MANY)
    give_back_memory(MANY)
