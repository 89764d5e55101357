"""The requests of each batch as one mapped file, sorted for lookup, and the search over many of them.

A segment is immutable: 64 bytes of header, then, each from a multiple of 64 on and little-endian, the
fingerprints (n, 16) and draws (n,) by position, the sorted keys (n,) and the positions in their order (n,).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pandas_batch.custom_ids import FINGERPRINT_BYTES

from .failures import missing, not_whole
from .files import private_writer

_MAGIC = b"pbseg\x001\n"
_HEADER = struct.Struct("<8sQ48x")
_ALIGNMENT = 64

# A few million stored rows per search: fast for a thousand small segments, flat in memory for large ones.
_ROWS_PER_SEARCH = 4_000_000

# An odd constant (2**64 / golden ratio): spreads the draws of one fingerprint over all keys.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Segment:
    """
    The requests of one batch, mapped from its file.

    Attributes
    ----------
    fingerprints, draws
        By position.
    keys, order
        Sorted keys, and the position that each stands for.
    """

    fingerprints: np.ndarray
    draws: np.ndarray
    keys: np.ndarray
    order: np.ndarray

    @property
    def n_requests(self) -> int:
        """Number of requests in the batch."""
        return len(self.draws)


@dataclass(frozen=True)
class Candidate:
    """A batch in which an answer may be found; of two that hold it, the later in the sequence counts."""

    key: int
    path: Path
    succeeded: np.ndarray | None
    """By position; None: in flight, every position counts."""
    segment: Segment | None = None
    """Those of its requests that may be wanted, where they are known without its file."""


def lookup_keys(fingerprints: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return one integer per request; equal requests have equal keys, others practically never."""
    first: np.ndarray = np.ascontiguousarray(fingerprints).view("<u8").reshape(-1, 2)[:, 0]
    keys: np.ndarray = first ^ (draws.astype(np.uint64) * _SPREAD)
    return keys


def checked_requests(fingerprints: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both in the shape and type that a segment holds."""
    fingerprints = np.ascontiguousarray(fingerprints, dtype=np.uint8)
    draws = np.ascontiguousarray(draws, dtype="<u2")
    if fingerprints.ndim != 2 or fingerprints.shape != (len(draws), FINGERPRINT_BYTES):
        raise ValueError(f"fingerprints {fingerprints.shape} and draws {draws.shape} do not belong together")
    return fingerprints, draws


def segment_of(n_requests: int, requests: Sequence[tuple[int, bytes, int]]) -> Segment:
    """Return some of a batch's requests, each a position, fingerprint and draw, as a segment of all of its length."""
    fingerprints, draws = np.zeros((n_requests, FINGERPRINT_BYTES), np.uint8), np.zeros(n_requests, "<u2")
    places = np.array([position for position, _, _ in requests], dtype="<i4")
    fingerprints[places] = np.frombuffer(b"".join(said for _, said, _ in requests), np.uint8).reshape(len(places), -1)
    draws[places] = [draw for _, _, draw in requests]
    keys = lookup_keys(fingerprints[places], draws[places])
    order = np.argsort(keys)
    return Segment(fingerprints, draws, keys[order], places[order])


def write_segment(path: Path, fingerprints: np.ndarray, draws: np.ndarray) -> None:
    """Write the segment of a batch; the caller syncs the file."""
    fingerprints, draws = checked_requests(fingerprints, draws)
    keys = lookup_keys(fingerprints, draws)
    order = np.argsort(keys).astype("<i4")
    with private_writer(path) as out:
        out.write(_HEADER.pack(_MAGIC, len(draws)))
        for part in (fingerprints, draws, keys[order].astype("<u8", copy=False), order):
            out.write(part.data)
            out.write(bytes(-part.nbytes % _ALIGNMENT))


def read_segment(path: Path) -> Segment:
    """
    Map a segment.

    Raises
    ------
    StoreError
        Where the file is not a whole segment.
    OSError
        Where it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            n_bytes = file.seek(0, 2)
            if n_bytes < _HEADER.size:
                raise not_whole(path)
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise missing(path) from error
    magic, n = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise not_whole(path)
    parts = []
    start = _HEADER.size
    for dtype, width in (("u1", FINGERPRINT_BYTES), ("<u2", 1), ("<u8", 1), ("<i4", 1)):
        size = n * width * np.dtype(dtype).itemsize
        if start + size > n_bytes:
            raise not_whole(path)
        parts.append(np.frombuffer(data, dtype=dtype, count=n * width, offset=start))
        start += size + -size % _ALIGNMENT
    return Segment(parts[0].reshape(n, FINGERPRINT_BYTES), *parts[1:])


def find_requests(
    fingerprints: np.ndarray, draws: np.ndarray, candidates: Sequence[Candidate]
) -> tuple[np.ndarray, np.ndarray]:
    """
    Look requests up in many segments.

    All stored keys are searched in the sorted new ones, a few million at a time: the stored ones come sorted,
    which keeps the search in the processor's cache, and a thousand small segments cost one search.

    Returns
    -------
    batch_keys, positions
        int64 and int32, one per request asked for; -1 where none has it.
    """
    fingerprints, draws = checked_requests(fingerprints, draws)
    batch_keys = np.full(len(draws), -1, dtype=np.int64)
    positions = np.full(len(draws), -1, dtype=np.int32)
    if not len(draws) or not candidates:
        return batch_keys, positions
    asked = lookup_keys(fingerprints, draws)
    by_key = np.argsort(asked)
    sorted_keys = asked[by_key]
    first_of_run = np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]])
    starts = np.flatnonzero(first_of_run)
    lengths = np.diff(starts, append=len(asked))
    distinct = sorted_keys[starts]
    full_asked = fingerprints.view("<u8").reshape(-1, 2)
    for group in _groups(candidates):
        stored = np.concatenate([keys for _, _, keys, _ in group])
        at = np.searchsorted(distinct, stored)
        at[at == len(distinct)] = 0
        hits = np.flatnonzero(distinct[at] == stored)
        if not len(hits):
            continue
        ends = np.cumsum([len(keys) for _, _, keys, _ in group])
        borders = np.searchsorted(hits, ends)
        begin, offset = 0, 0
        for (key, segment, keys, order), end in zip(group, borders, strict=True):
            if end > begin:
                there = order[hits[begin:end] - offset]
                runs = at[hits[begin:end]]
                # equal requests asked for more than once stand side by side in by_key
                if (lengths[runs] > 1).any():
                    there = np.repeat(there, lengths[runs])
                    spans = lengths[runs]
                    within = np.arange(len(there)) - np.repeat(np.cumsum(spans) - spans, spans)
                    rows = by_key[np.repeat(starts[runs], spans) + within]
                else:
                    rows = by_key[starts[runs]]
                # the keys are 64 bits of 144: only the whole request decides
                same = ((segment.fingerprints.view("<u8").reshape(-1, 2)[there] == full_asked[rows]).all(axis=1)) & (
                    segment.draws[there] == draws[rows]
                )
                batch_keys[rows[same]] = key
                positions[rows[same]] = there[same]
            begin, offset = int(end), offset + len(keys)
    return batch_keys, positions


_Loaded = tuple[int, Segment, np.ndarray, np.ndarray]


def _groups(candidates: Iterable[Candidate]) -> Iterator[list[_Loaded]]:
    group: list[_Loaded] = []
    n_rows = 0
    for candidate in candidates:
        segment = read_segment(candidate.path) if candidate.segment is None else candidate.segment
        keys, order = segment.keys, segment.order
        if candidate.succeeded is not None and not candidate.succeeded.all():
            kept = candidate.succeeded[order]
            keys, order = keys[kept], order[kept]
        if not len(keys):
            continue
        group.append((candidate.key, segment, keys, order))
        n_rows += len(keys)
        if n_rows >= _ROWS_PER_SEARCH:
            yield group
            group, n_rows = [], 0
    if group:
        yield group
