"""Bytes that may be large: kept in memory while small, in a file when not.

A create of 100,000 rows is a hundred megabytes and more. Read into a file and mapped, it costs the process (often the
very process under test) next to no memory.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["Blob", "BlobWriter", "View"]

BLOCK_BYTES = 1 << 20

View = bytes | mmap.mmap
"""What reads like bytes wherever it goes here: slicing, re, msgspec, memoryview."""


class Blob:
    """
    Finished bytes, in memory or in a file.

    Parameters
    ----------
    data
        The bytes, or
    path
        the file that holds them.
    """

    def __init__(self, data: bytes = b"", path: Path | None = None) -> None:
        self._data = data
        self.path = path
        self.n_bytes = path.stat().st_size if path else len(data)

    def view(self) -> View:
        """Return the bytes, or the mapped file."""
        if self.path is None or self.n_bytes == 0:
            return self._data
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start` to `stop` in blocks of at most a megabyte."""
        stop = self.n_bytes if stop is None else min(stop, self.n_bytes)
        if self.path is None:
            for at in range(start, stop, BLOCK_BYTES):
                yield self._data[at : min(at + BLOCK_BYTES, stop)]
            return
        with self.path.open("rb", buffering=0) as file:
            file.seek(start)
            while start < stop:
                block = file.read(min(BLOCK_BYTES, stop - start))
                if not block:
                    return
                start += len(block)
                yield block

    def move_to(self, path: Path) -> None:
        """Put the bytes into that file; it is there whole or not at all."""
        if self.path is None:
            part = path.with_name(path.name + ".part")
            part.write_bytes(self._data)
            self._data = b""
        else:
            part = self.path
        part.replace(path)
        self.path = path

    def discard(self) -> None:
        """Forget the bytes and remove the file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self._data, self.path, self.n_bytes = b"", None, 0


class BlobWriter:
    """
    Collects bytes and turns to a file when they are many.

    Parameters
    ----------
    path
        The file to turn to; not made while the bytes fit in a megabyte.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    def write(self, block: bytes | bytearray | memoryview) -> None:
        """Add a block."""
        if self._file is None and len(self._memory) + len(block) > BLOCK_BYTES:
            descriptor = os.open(self._path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            self._file = os.fdopen(descriptor, "wb", buffering=0)
            self._file.write(self._memory)
            self._memory = bytearray()
        if self._file is None:
            self._memory += block
        else:
            self._file.write(block)

    def finish(self) -> Blob:
        """Return what was written."""
        if self._file is None:
            return Blob(bytes(self._memory))
        self._file.close()
        return Blob(path=self._path)

    def abandon(self) -> None:
        """Drop what was written: the sender went away."""
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)
