"""The bytes of a request, without the need to hold them all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 256 * 1024


class Body:
    """
    The bytes of a request: they can be read again from the start, and their number is known beforehand.

    (A generator or an open file would be sent empty, and silently, when the SDK sends it a second time.)

    Parameters
    ----------
    start
        Returns a new iterator over the blocks each time it is called.
    n_bytes
        Sum of the lengths of the blocks.

    Examples
    --------
    >>> body = Body.from_chunks([b'{"a":', b"1}"])
    >>> body.n_bytes, b"".join(body), b"".join(body)
    (7, b'{"a":1}', b'{"a":1}')
    """

    def __init__(self, start: Callable[[], Iterator[bytes]], n_bytes: int) -> None:
        self._start = start
        self.n_bytes = n_bytes

    def __iter__(self) -> Iterator[bytes]:
        return self._start()

    def watched(self, on_block: Callable[[], object], on_end: Callable[[], object]) -> Body:
        """Return the same body, which tells whenever a block of it has gone, and when all of it has."""

        def blocks() -> Iterator[bytes]:
            for block in self._start():
                yield block
                on_block()
            on_end()

        return type(self)(blocks, self.n_bytes)

    def __repr__(self) -> str:
        return f"<Body of {self.n_bytes:,} bytes>"

    @classmethod
    def from_path(cls, path: Path | str) -> Body:
        """Send a file as it is."""
        path = Path(path)

        def blocks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block

        return cls(blocks, path.stat().st_size)

    @classmethod
    def from_chunks(cls, chunks: list[bytes]) -> Body:
        """Send blocks that are in memory, without joining them."""
        return cls(lambda: iter(chunks), sum(map(len, chunks)))

    @classmethod
    def from_json(cls, value: Any) -> Body:
        """Send a small value as JSON."""
        return cls.from_chunks([json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()])
