"""A results file as bytes in reach: where each line stands, and which request of the batch it answers."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .result_lines import MISSING, id_of, read_line, read_lines, reason_of, strip_line

if TYPE_CHECKING:
    from .result_lines import Line

_N_POSITION_DIGITS = 5
_N_TAIL_CHARS = 24
_PLACES = 10 ** np.arange(_N_POSITION_DIGITS - 1, -1, -1)
_ID_START = b'{"custom_id":"'
_SCANNED_BYTES = 1 << 20
_BESIDE_BYTES = 2 << 20
_MAX_SHOWN = 20
_MAX_SHOWN_CHARS = 64

_NOT_OURS = -1

Source = str | os.PathLike[str] | Iterable[bytes]
"""Raw results: the path of a file, or its bytes in pieces of any size."""


@contextlib.contextmanager
def mapped(source: Source) -> Iterator[mmap.mmap | bytes]:
    """Bring raw results into reach without holding them in memory."""
    with _opened(source) as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield b""
            return
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            yield data
        finally:
            # A memoryview that an exception's traceback still holds keeps the map; it then closes with it.
            with contextlib.suppress(BufferError):
                data.close()


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Any]:
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            yield file
        return
    # Unlinked from the start and readable by its owner only: a killed process leaves no answers behind.
    with tempfile.TemporaryFile() as file:
        for block in source:
            file.write(block)
        file.flush()
        yield file


@contextlib.contextmanager
def checking_utf8(data: mmap.mmap | bytes) -> Iterator[Callable[[], bool]]:
    """
    Look whether `data` is UTF-8, beside what the block does; yield a function that waits for the answer.

    The texts of a file that is UTF-8 from end to end are so too, escapes or not. To look at all of it at once leaves
    the interpreter to whoever decodes; a look at each slice of texts took an eighth of the time of decoding.
    """
    if len(data) < _BESIDE_BYTES:
        # To begin a thread takes longer.
        yield lambda: _is_utf8(data)
        return
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(_is_utf8(data)), name="pandas_batch utf-8", daemon=True)
    thread.start()

    def is_utf8() -> bool:
        thread.join()
        return found == [True]

    try:
        yield is_utf8
    finally:
        thread.join()


def _is_utf8(data: mmap.mmap | bytes) -> bool:
    import pyarrow as pa

    ends = pa.py_buffer(np.array([0, len(data)], np.int64))
    whole = pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(data)])
    try:
        whole.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


@dataclass
class Found:
    """
    What a results file holds, by position of the request.

    Attributes
    ----------
    starts, ends
        Byte offsets of the line that answers each position; -1 where there is none.
    chosen, chosen_lines
        Lines that had to be read already, because several differ for one position, and their bytes.
    n_lines
        Number of lines that are not blank.
    unknown_ids, n_unknown_ids
        The first custom_ids that are not of this batch, cut short, and how many there are.
    junk, n_junk
        Why the first lines without any custom_id cannot be read, and how many there are.
    conflicts
        Positions with lines that say different things.
    """

    starts: np.ndarray
    ends: np.ndarray
    chosen: dict[int, Line] = field(default_factory=dict)
    chosen_lines: dict[int, bytes] = field(default_factory=dict)
    n_lines: int = 0
    unknown_ids: list[str] = field(default_factory=list)
    n_unknown_ids: int = 0
    junk: list[str] = field(default_factory=list)
    n_junk: int = 0
    conflicts: list[int] = field(default_factory=list)


def locate(
    data: mmap.mmap | bytes, *, prefix: bytes, n_requests: int, custom_ids: Sequence[bytes] | np.ndarray | None = None
) -> Found:
    """
    Find the line of each request without reading more than its id.

    Lines come in any order. Identical doubles count once; where lines of one position differ, one that can be
    read wins over one that cannot, and the first over the later.
    """
    found = Found(starts=np.full(n_requests, -1, np.int64), ends=np.full(n_requests, -1, np.int64))
    finder = _PositionFinder(prefix, n_requests, custom_ids)
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    for first, last in _bounds(data):
        at = finder.of_heads(data, first, last)
        for i in np.flatnonzero(at == _NOT_OURS).tolist():
            at[i] = _position_of_odd_line(data[first[i] : last[i]], finder, found)
        found.n_lines += len(at)
        known = at >= 0
        starts.append(first[known])
        ends.append(last[known])
        positions.append(at[known])
    if positions:
        _choose(data, found, np.concatenate(starts), np.concatenate(ends), np.concatenate(positions))
    return found


def _bounds(data: mmap.mmap | bytes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield where lines begin and end, some megabytes at a time; empty lines are left out."""
    all_bytes = np.frombuffer(data, np.uint8)
    start = 0
    for begin in range(0, len(all_bytes), _SCANNED_BYTES):
        ends = np.flatnonzero(all_bytes[begin : begin + _SCANNED_BYTES] == ord("\n")) + begin
        if len(ends):
            starts = np.concatenate(([start], ends[:-1] + 1))
            start = int(ends[-1]) + 1
            filled = ends > starts
            yield starts[filled], ends[filled]
    if start < len(all_bytes):
        yield np.array([start]), np.array([len(all_bytes)])


class _PositionFinder:
    """Reads positions out of custom_ids of one batch, whole columns at once."""

    def __init__(self, prefix: bytes, n_requests: int, custom_ids: Sequence[bytes] | np.ndarray | None) -> None:
        self.prefix = prefix
        self.n_requests = n_requests
        self.n_id = len(prefix) + _N_POSITION_DIGITS + 1 + _N_TAIL_CHARS
        self.ids = None if custom_ids is None else np.asarray(custom_ids, f"S{self.n_id}")
        fields = [("start", f"S{len(_ID_START)}"), ("id", f"S{self.n_id}"), ("end", "S1")]
        self._head = np.dtype(fields)

    def of_heads(self, data: mmap.mmap | bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return the position of each line that begins as the API writes it, else `_NOT_OURS`."""
        n_head = self._head.itemsize
        positions = np.full(len(starts), _NOT_OURS, np.int64)
        long_enough = np.flatnonzero(ends - starts >= n_head)
        if not len(long_enough):
            return positions
        # The heads of lines as items of one array, which overlap until they are picked.
        every_head = np.ndarray((len(data) - n_head + 1,), f"V{n_head}", data, strides=(1,))
        heads = every_head[starts[long_enough]].view(self._head)
        usual = (heads["start"] == _ID_START) & (heads["end"] == b'"')
        positions[long_enough] = np.where(usual, self.of_ids(heads["id"]), _NOT_OURS)
        return positions

    def of_ids(self, ids: np.ndarray) -> np.ndarray:
        """Return the positions of custom_ids, each of the right length."""
        n = len(self.prefix)
        letters = np.ascontiguousarray(ids).view(np.uint8).reshape(-1, self.n_id)
        digits = letters[:, n : n + _N_POSITION_DIGITS].astype(np.int64) - ord("0")
        positions: np.ndarray = digits @ _PLACES
        if self.ids is None:
            ours = (letters[:, :n] == np.frombuffer(self.prefix, np.uint8)).all(axis=1)
            ours &= ((digits >= 0) & (digits <= 9)).all(axis=1)
            ours &= letters[:, n + _N_POSITION_DIGITS] == ord("_")
            ours &= positions < self.n_requests
            return np.where(ours, positions, _NOT_OURS)
        positions[(positions < 0) | (positions >= min(self.n_requests, len(self.ids)))] = _NOT_OURS
        if not len(self.ids):
            return positions
        # Whatever stood where the digits are: only the id that was sent at that very position is equal.
        return np.where(self.ids[np.maximum(positions, 0)] == ids, positions, _NOT_OURS)

    def of_id(self, custom_id: bytes) -> int:
        """Return the position of one custom_id."""
        if len(custom_id) != self.n_id:
            return _NOT_OURS
        return int(self.of_ids(np.frombuffer(custom_id, f"S{self.n_id}"))[0])


def _position_of_odd_line(line: bytes, finder: _PositionFinder, found: Found) -> int:
    """Return the position of a line that does not begin as usual; note what it is where it has none."""
    stripped = strip_line(line)
    if not stripped:
        found.n_lines -= 1
        return _NOT_OURS
    custom_id = id_of(stripped)
    if custom_id is None:
        found.n_junk += 1
        if len(found.junk) < _MAX_SHOWN:
            found.junk.append(reason_of(read_line(stripped).result) or "the line has no custom_id")
        return _NOT_OURS
    position = finder.of_id(custom_id.encode("utf-8", "replace"))
    if position == _NOT_OURS:
        found.n_unknown_ids += 1
        if len(found.unknown_ids) < _MAX_SHOWN:
            found.unknown_ids.append(custom_id[:_MAX_SHOWN_CHARS])
    return position


def _choose(data: mmap.mmap | bytes, found: Found, starts: np.ndarray, ends: np.ndarray, positions: np.ndarray) -> None:
    # Backwards, so that the first of several stays.
    found.starts[positions[::-1]] = starts[::-1]
    found.ends[positions[::-1]] = ends[::-1]
    n_of = np.bincount(positions)
    doubled = np.flatnonzero(n_of > 1)
    if not len(doubled):
        return
    order = np.argsort(positions, kind="stable")
    begins = np.searchsorted(positions[order], doubled)
    for position, begin, n in zip(doubled.tolist(), begins.tolist(), n_of[doubled].tolist(), strict=True):
        lines = dict.fromkeys(strip_line(data[starts[i] : ends[i]]) for i in order[begin : begin + n])
        if len(lines) > 1:
            _choose_one(found, position, list(lines))


def _choose_one(found: Found, position: int, lines: Sequence[bytes]) -> None:
    read = [read_line(line) for line in lines]
    sound = [line for line in read if not reason_of(line.result)]
    found.chosen[position] = (sound or read)[0]
    found.chosen_lines[position] = lines[read.index(found.chosen[position])]
    if any(line != sound[0] for line in sound[1:]):
        found.conflicts.append(position)


def lines_of(data: mmap.mmap | bytes, found: Found, begin: int, end: int) -> list[Line]:
    """Read the lines of positions `begin` to `end`, in that order; `MISSING` where there is none."""
    view = memoryview(data)
    starts = found.starts[begin:end].tolist()
    ends = found.ends[begin:end].tolist()
    present = [view[start:stop] for start, stop in zip(starts, ends, strict=True) if start >= 0]
    read = read_lines(present)
    if len(present) < len(starts):
        answered = iter(read)
        read = [next(answered) if start >= 0 else MISSING for start in starts]
    if found.chosen:
        read = [found.chosen.get(begin + i, line) for i, line in enumerate(read)]
    return read
