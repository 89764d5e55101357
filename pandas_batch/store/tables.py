"""Arrow tables as private files with a checksum at their end, mapped back in a fraction of a millisecond."""

from __future__ import annotations

import os
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from .failures import missing, not_whole
from .files import private_writer

REQUEST_COLUMNS = ("fingerprint", "draw", "batch_key", "position", "reused")


_CHECKSUM_BYTES = 4


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table and its checksum to a fresh private file; the caller syncs it."""
    with private_writer(path) as out:
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
        out.flush()
        with pa.memory_map(str(path)) as written:
            checksum = zlib.crc32(written.read_buffer())
        out.write(checksum.to_bytes(_CHECKSUM_BYTES, "big"))


def read_table(path: Path) -> pa.Table:
    """
    Map a table from its file.

    Raises
    ------
    StoreError
        Where the file is not a whole table.
    OSError
        Where it cannot be read.
    """
    try:
        stat = os.stat(path)
        if not _is_whole(path, stat.st_ino, stat.st_size, stat.st_mtime_ns):
            raise not_whole(path)
        # As a buffer: of a file, even a mapped one, Arrow reads every part in another thread.
        with pa.memory_map(str(path)) as source:
            table = source.read_buffer().slice(0, stat.st_size - _CHECKSUM_BYTES)
            with pa.ipc.open_file(table) as reader:
                return reader.read_all()
    except pa.ArrowInvalid as error:
        raise not_whole(path) from error
    except FileNotFoundError as error:
        raise missing(path) from error


@lru_cache(maxsize=4096)
def _is_whole(path: Path, inode: int, n_bytes: int, modified_ns: int) -> bool:
    # Each version of a file is read for this once in a process.
    if n_bytes <= _CHECKSUM_BYTES:
        return False
    with pa.memory_map(str(path)) as source:
        content = source.read_buffer()
        table, checksum = content.slice(0, n_bytes - _CHECKSUM_BYTES), content.slice(n_bytes - _CHECKSUM_BYTES)
        return zlib.crc32(table) == int.from_bytes(checksum.to_pybytes(), "big")


def requests_table(
    fingerprints: np.ndarray, draws: np.ndarray, batch_keys: np.ndarray, positions: np.ndarray, reused: np.ndarray
) -> pa.Table:
    """Return the table of a run's unique requests, made without a Python object per row."""
    fingerprints = np.ascontiguousarray(fingerprints, dtype=np.uint8)
    n, width = fingerprints.shape
    column = pa.Array.from_buffers(pa.binary(width), n, [None, pa.py_buffer(fingerprints)])
    return pa.table(
        {
            "fingerprint": column,
            "draw": pa.array(np.asarray(draws, dtype=np.uint16)),
            "batch_key": pa.array(np.asarray(batch_keys, dtype=np.int64)),
            "position": pa.array(np.asarray(positions, dtype=np.int32)),
            "reused": pa.array(np.asarray(reused, dtype=bool)),
        }
    )


def rows_table(requests: np.ndarray, reasons: dict[int, str] | None = None) -> pa.Table:
    """
    Return the table of a run's rows.

    Parameters
    ----------
    requests
        By row: place of its request in the table of requests, -1 where it is not sent.
    reasons
        By row number: why a row cannot be sent.
    """
    n = len(requests)
    if reasons:
        texts = np.full(n, None, dtype=object)
        for row, reason in reasons.items():
            texts[row] = reason
        reason_column = pa.array(texts, type=pa.string())
    else:
        reason_column = pa.nulls(n, pa.string())
    return pa.table({"request": pa.array(np.asarray(requests, dtype=np.int32)), "reason": reason_column})


def fingerprints_of(table: pa.Table) -> np.ndarray:
    """Return the fingerprints of a requests table as (n, 16) uint8, without copying one chunk."""
    column = table.column("fingerprint")
    width = column.type.byte_width
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype=np.uint8, count=len(chunk) * width, offset=chunk.offset * width)
        for chunk in column.chunks
        if len(chunk)
    ]
    if len(parts) == 1:
        return parts[0].reshape(-1, width)
    return np.concatenate([*parts, np.empty(0, np.uint8)]).reshape(-1, width)


def with_column(table: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    """Return the table with one of its columns replaced."""
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, type=table.schema.field(at).type))
