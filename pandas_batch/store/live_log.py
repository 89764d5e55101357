"""What is known of a batch whose requests are asked one by one: which were asked, and the answers that came.

Both stand in files that only grow, in the folder of the batch: the number of a request before it is asked, its answer,
as a line of results, when it is here. Whatever is killed when, a line that is whole is an answer, and what was asked
and has no line may have been billed.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from .failures import explained
from .files import open_private, sync_fd

ASKED = "live.asked"
ANSWERED = "live.jsonl"

_NUMBER_BYTES = 4


class LiveLog:
    """
    The two files of one such batch, open to be written by several threads of one process.

    Parameters
    ----------
    folder
        The batch's.
    store_path
        Named where the disk is full.
    """

    def __init__(self, folder: Path, store_path: Path) -> None:
        self._store_path = store_path
        self._lock = threading.Lock()
        with explained(store_path):
            self._asked = _appended(folder / ASKED)
            self._answered = _appended(folder / ANSWERED)

    def ask(self, position: int) -> None:
        """Record durably that the request at `position` is about to be asked."""
        self._add(self._asked, position.to_bytes(_NUMBER_BYTES, "big"))

    def answer(self, line: bytes) -> None:
        """Record durably an answer, as a line of results without its end."""
        self._add(self._answered, line + b"\n")

    def _add(self, file: io.FileIO, data: bytes) -> None:
        with explained(self._store_path):
            with self._lock:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
            # Not under the lock: what others have written meanwhile goes to the medium with it.
            sync_fd(file.fileno())

    def close(self) -> None:
        """Close both files."""
        self._asked.close()
        self._answered.close()


def _appended(path: Path) -> io.FileIO:
    file = io.FileIO(path, "r+", opener=lambda name, _flags: open_private(name))
    file.seek(0, os.SEEK_END)
    return file


def asked_positions(folder: Path) -> Collection[int]:
    """Return the positions of the requests of a batch that were asked, or were about to be."""
    try:
        data = (folder / ASKED).read_bytes()
    except FileNotFoundError:
        return frozenset()
    ends = range(_NUMBER_BYTES, len(data) + 1, _NUMBER_BYTES)
    return frozenset(int.from_bytes(data[end - _NUMBER_BYTES : end], "big") for end in ends)


def answered_lines(folder: Path) -> Iterator[bytes]:
    """Yield the answers that came whole; a line whose writer was killed in the middle of it is none."""
    try:
        with open(folder / ANSWERED, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]
    except FileNotFoundError:
        return
