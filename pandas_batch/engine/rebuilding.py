"""The answers of a batch on disk: decoded from raw results, checked when they are read, made anew where damaged.

The raw results are what was paid for; decoded answers are derived from them, and can always be made again. Both carry
a checksum: raw results that are not as they came are fetched again from the server.
"""

from __future__ import annotations

import errno
import mmap
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pandas_batch.custom_ids import prefix_of
from pandas_batch.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

    from pandas_batch.results.answers import Decoded
    from pandas_batch.store import BatchRecord, Store

_BLOCK_BYTES = 1 << 22


def decode_batch(
    store: Store,
    batch: BatchRecord,
    source: Any,
    target: Path,
    *,
    at: datetime,
    prices: Mapping[str, tuple[float, float]] | None = None,
) -> Decoded:
    """Decode the raw results of a batch into the file `target`; `at` is the time whose prices hold."""
    from pandas_batch.results.answers import decode_to_file

    return decode_to_file(
        source,
        target,
        prefix=prefix_of(batch.nonce),
        n_requests=batch.n_requests,
        at=at,
        prices=prices,
        has_discount=not batch.is_live,
        custom_ids=store.batches.custom_ids_of(batch.key),
        models_asked=_models_asked(store, batch.key),
    )


def answers_of(
    store: Store, batch: BatchRecord, *, prices: Mapping[str, tuple[float, float]] | None = None
) -> pa.Table:
    """
    Return the answers of a collected batch, mapped from their file; made anew where that is lost or damaged.

    Raises
    ------
    StoreError
        The raw results are lost or damaged too; who drives the run next fetches them again.
    """
    import pyarrow as pa

    from pandas_batch.results.answers import read_answers

    path = store.files.answers_path(batch.key)
    try:
        if is_whole(path):
            return read_answers(path)
    except (OSError, pa.ArrowException, ValueError):
        pass  # the checksum is whole and the file is not: it is made anew as any other damaged one
    return _made_anew(store, batch, path, prices)


def contents_of(store: Store, batch: BatchRecord, positions: Sequence[int]) -> list[list[Any] | None]:
    """Return the content blocks of some answers of a collected batch, from its raw results."""
    from pandas_batch.results.answer_contents import read_contents

    blocks = raw_blocks(store, batch)
    contents = read_contents(
        blocks,
        positions,
        prefix=prefix_of(batch.nonce),
        n_requests=batch.n_requests,
        custom_ids=store.batches.custom_ids_of(batch.key),
    )
    deque(blocks, maxlen=0)
    return contents


def raw_blocks(store: Store, batch: BatchRecord) -> Iterator[bytes]:
    """
    Yield the raw results of a collected batch as they came.

    Raises
    ------
    StoreError
        They are damaged, which may be seen at their end only. The next look at the run fetches them again.
    """
    path = store.files.results_path(batch.key)
    try:
        with store.files.open_results(batch.key) as raw:
            source = _Summed(raw)
            yield from source.blocks()
        # A store of before the checksums has none.
        if _written_crc32(path) not in (None, source.crc32):
            raise ValueError("the raw results are not as they came")
    except (OSError, EOFError, ValueError, StoreError) as error:
        if batch.batch_id is None:
            raise StoreError(
                f"The raw results of run {batch.run_id} that came one by one ({path}) are damaged.",
                "The answers themselves are kept; no server keeps these, and nothing is asked again.",
                f'pandas_batch.load("{batch.run_id}").result()   # without columns of contents',
            ) from error
        if not _is_of_the_machine(error):
            store.batches.transition(batch.key, expect={"collected"}, to="ended")
        raise StoreError(
            f"The raw results of batch {batch.batch_id} ({path}) are damaged.",
            "They were paid for and are at the server for 29 days after the batch was made; nothing is asked again.",
            f'pandas_batch.load("{batch.run_id}").result()   # fetches them again',
        ) from error


def _made_anew(
    store: Store, batch: BatchRecord, path: Path, prices: Mapping[str, tuple[float, float]] | None
) -> pa.Table:
    import pyarrow as pa

    from pandas_batch.results.answers import read_answers

    part, raw_path = path.with_suffix(".anew"), store.files.results_path(batch.key)
    try:
        with store.files.open_results(batch.key) as raw:
            source = _Summed(raw)
            decoded = decode_batch(
                store, batch, source.blocks(), part, at=batch.created_at or datetime.now(UTC), prices=prices
            )
        if source.crc32 != _written_crc32(raw_path):
            raise ValueError("the raw results are not as they came")
        n_known = batch.n_requests - len(decoded.missing)
        if n_known < sum(batch.counts.values()) or (batch.counts and decoded.unreadable):
            raise ValueError("the raw results do not account for every request")
        del decoded
        store.files.commit(checked(part, path))
        return read_answers(path)
    except (OSError, EOFError, pa.ArrowException, ValueError, StoreError) as error:
        if batch.batch_id is not None and not _is_of_the_machine(error):
            store.batches.transition(batch.key, expect={"collected"}, to="ended")
        if batch.batch_id is None:
            raise StoreError(
                f"The answers of run {batch.run_id} that came one by one ({path}) are damaged, and what they were "
                "made from is too.",
                "They were paid for, and no server keeps them; nothing is asked again.",
                'df.claude_batch.submit(..., name="again", reuse=False)   # asks for all rows, and pays for them',
            ) from error
        raise StoreError(
            f"The answers of batch {batch.batch_id} ({path}) are damaged, and so are its raw results beside them.",
            "They were paid for and are at the server for 29 days after the batch was made; nothing is asked again.",
            f'pandas_batch.load("{batch.run_id}").result()   # fetches them again\n'
            'or pandas_batch.recover(df, ..., store="another folder")   # with the options of the lost call',
        ) from error


def _is_of_the_machine(error: BaseException) -> bool:
    """Return whether an error says something of the machine, as of its limits, and nothing of a file."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    return isinstance(cause, OSError) and cause.errno not in (None, errno.ENOENT)


class _Summed:
    """A file that is read once, block by block, and the checksum of what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.crc32 = b"%08x" % 0

    def blocks(self) -> Iterator[bytes]:
        crc32 = 0
        while block := self._file.read(_BLOCK_BYTES):
            crc32 = zlib.crc32(block, crc32)
            yield block
        self.crc32 = b"%08x" % crc32


def checked(part: Path, final: Path) -> dict[Path, Path]:
    """Write the checksum of a finished file, and return what is to be committed: the checksum's file, then its own."""
    from pandas_batch.store.files import private_writer

    checksum_part = part.with_suffix(part.suffix + ".crc32")
    with private_writer(checksum_part) as file:
        file.write(b"%08x" % _crc32(part))
    return {checksum_part: _checksum_path(final), part: final}


def is_whole(path: Path) -> bool:
    """Return whether a file is there as it was written; each version of it is read for that once in a process."""
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return False
    return _is_whole(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _is_whole(path: Path, inode: int, n_bytes: int, modified_ns: int) -> bool:
    return _written_crc32(path) == b"%08x" % _crc32(path)


def _written_crc32(path: Path) -> bytes | None:
    try:
        return _checksum_path(path).read_bytes()
    except FileNotFoundError:
        return None


def _checksum_path(path: Path) -> Path:
    return path.with_suffix(path.suffix + ".crc32")


def _crc32(path: Path) -> int:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return zlib.crc32(mapped)


def _models_asked(store: Store, key: int) -> Callable[[int], str | None]:
    """Return what gives the model that each request of a batch asked; the requests are read at the first question."""
    import msgspec

    @cache
    def models() -> dict[int, str]:
        try:
            requests = [(at, msgspec.json.decode(line)) for at, line in store.files.spooled_requests(key)]
        except (StoreError, OSError, ValueError):  # a batch that was recovered has none
            return {}
        return {at: str(request["params"].get("model", "")) for at, request in requests}

    return lambda position: models().get(position) or None
