"""Bodies as they are posted, results as they came, and what is left of both after the answers are here.

A spool is the body of a POST with one request per line, its custom_id first::

    {"requests":[
    {"custom_id":"pb1_<nonce>_00000_...","params":{...}},
    {"custom_id":"pb1_<nonce>_00001_...","params":{...}}
    ]}

Line ends may stand anywhere between requests; there are none inside JSON.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, cast

import numpy as np
import pyarrow as pa

from pandas_batch.exiting import leave_if_ending

from .failures import NOTHING_RECORDED, explained
from .files import commit_file, private_writer, sync_fd

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LINE_START = b'{"custom_id":"'
_LIST_END = re.compile(rb"\s*\]\s*\}$")  # a request ends with }}: its own and that of its params
_BLOCK_BYTES = 1 << 20


class SpoolWriter:
    """
    Bytes on their way to becoming the body of a batch.

    Attributes
    ----------
    path
        Where they are until the batch is recorded.
    n_bytes
        How many there are.
    """

    def __init__(self, path: Path, store_path: Path, state: str = NOTHING_RECORDED) -> None:
        self.path = path
        self.n_bytes = 0
        self._store_path = store_path
        self._state = state
        with explained(store_path, state):
            self._file = private_writer(path, exclusive=True)

    @property
    def closed(self) -> bool:
        """Whether the body is complete and durable."""
        return self._file.closed

    def write(self, data: bytes) -> int:
        """Add bytes; `StoreError` where the disk is full."""
        try:
            self._file.write(data)
        except OSError:
            self.discard()
            with explained(self._store_path, self._state):
                raise
        self.n_bytes += len(data)
        return len(data)

    def close(self) -> None:
        """Make the body durable."""
        if self._file.closed:
            return
        with explained(self._store_path, self._state):
            try:
                self._file.flush()
                sync_fd(self._file.fileno())
                self._file.close()
            except BaseException:
                self.discard()
                raise

    def discard(self) -> None:
        """Remove the body, as when planning fails."""
        _close_quietly(self._file)
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()


def _close_quietly(file: io.BufferedWriter) -> None:
    # A buffered writer tries to write what a full disk has just refused; its file descriptor is closed all the same.
    try:
        file.close()
    except OSError:
        return


def request_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    r"""
    Yield each request of a spool, whole or reduced, with its position.

    Examples
    --------
    >>> body = b'{"requests":[\n{"custom_id":"pb1_abc_00007_x","params":{}}\n]}'
    >>> list(request_lines(io.BytesIO(body)))
    [(7, b'{"custom_id":"pb1_abc_00007_x","params":{}}')]
    """
    for line in _lines(file):
        at = line.find(_LINE_START, 0, 64)  # the first request may follow {"requests":[ on its line
        if at < 0:
            continue
        text = line[at:].rstrip()
        # what closes the list may stand on the line of the last request
        text = text.removesuffix(b",") if text.endswith(b",") else _LIST_END.sub(b"", text)
        position = text[len(_LINE_START) : len(_LINE_START) + 64].split(b"_", 3)[2]
        yield int(position), text


def _lines(file: BinaryIO) -> Iterator[bytes]:
    rest: list[bytes] = []
    while block := file.read(_BLOCK_BYTES):
        first, *others = block.split(b"\n")
        rest.append(first)
        if others:
            yield b"".join(rest)
            yield from others[:-1]
            rest = [others[-1]]
    last = b"".join(rest)
    if last:
        yield last


def compress_file(source: Path, target: Path) -> None:
    """Write `source` compressed to `target`, durable before `source` is removed."""

    def copy(out: Callable[[bytes], object]) -> None:
        with open(source, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                leave_if_ending()
                out(block)

    _write_compressed(target, copy)
    source.unlink()


def keep_requests(source: Path, target: Path, positions: np.ndarray | None) -> None:
    """Write the requests at `positions` (None: all) of a spool to `target`, durable before `source` is removed."""
    wanted = None if positions is None else set(positions.tolist())

    def copy(out: Callable[[bytes], object]) -> None:
        with open(source, "rb") as file:
            for position, text in request_lines(file):
                leave_if_ending()
                if wanted is None or position in wanted:
                    out(text + b"\n")

    _write_compressed(target, copy)
    source.unlink()


def _write_compressed(target: Path, copy: Callable[[Callable[[bytes], object]], None]) -> None:
    part = target.with_name(target.name + ".part")
    with private_writer(part) as file, pa.CompressedOutputStream(pa.PythonFile(file, mode="w"), "zstd") as out:
        copy(out.write)
    commit_file(part, target)


def open_compressed(path: Path) -> BinaryIO:
    """Return the bytes of a compressed file, read as they are needed."""
    source = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    return cast("BinaryIO", io.BufferedReader(_Readable(source), _BLOCK_BYTES))


class _Readable(io.RawIOBase):
    # pyarrow's stream has no readinto of its own that io.BufferedReader would take
    def __init__(self, source: pa.CompressedInputStream) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files that may be gone already."""
    for path in paths:
        path.unlink(missing_ok=True)
