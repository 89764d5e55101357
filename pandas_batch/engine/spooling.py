"""The body of a create on disk: the bytes there are the bytes on the wire, one request on each line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_batch.custom_ids import N_CHARS

if TYPE_CHECKING:
    from pandas_batch.store import SpoolWriter

_HEAD = b'{"requests":[\n'
_TAIL = b"\n]}"
_LINE_START = b'{"custom_id":"'
_LINE_PARAMS = b'","params":'
LINE_OVERHEAD = len(_LINE_START) + N_CHARS + len(_LINE_PARAMS) + len(b"}") + len(b",\n")
"""Bytes of a request on the wire beyond its params."""
BODY_OVERHEAD = len(_HEAD) + len(_TAIL)


class SpoolBody:
    """
    The body of one create, written line by line: the bytes on disk are the bytes on the wire.

    One request stands on each line, so that the requests of failed rows can be taken up again without parsing
    the others (a JSON string never holds a raw newline).
    """

    def __init__(self, spool: SpoolWriter) -> None:
        self._spool = spool
        self._spool.write(_HEAD)
        self.n_requests = 0

    @property
    def n_bytes(self) -> int:
        """Bytes of the body so far, its end included."""
        return int(self._spool.n_bytes) + len(_TAIL)

    def write_line(self, custom_id: bytes, params: bytes) -> None:
        """Add one request."""
        self.write_lines(np.array([custom_id]), b"", [params], b"")

    def write_lines(self, custom_ids: np.ndarray, before: bytes, middles: Sequence[bytes], after: bytes) -> None:
        """
        Add requests.

        Parameters
        ----------
        custom_ids
            One for each (dtype S47).
        before, middles, after
            The params of each are one of `middles` between the same bytes.
        """
        n = len(custom_ids)
        # What stands between two middles differs by the custom_id only, so all of it is made at once.
        end = after + b"},\n"
        template = b"%b%b%b%b%b" % (end, _LINE_START, bytes(N_CHARS), _LINE_PARAMS, before)
        between = np.empty((n, len(template)), np.uint8)
        between[:] = np.frombuffer(template, np.uint8)
        id_at = len(end) + len(_LINE_START)
        between[:, id_at : id_at + N_CHARS] = custom_ids.view(np.uint8).reshape(n, N_CHARS)
        parts: list[bytes] = [b""] * (2 * n)
        parts[0::2] = between.view(f"S{len(template)}").ravel().tolist()
        parts[1::2] = middles
        parts[0] = (b",\n" if self.n_requests else b"") + parts[0][len(end) :]
        parts.append(after + b"}")
        self._spool.write(b"".join(parts))
        self.n_requests += n

    def close(self) -> Any:
        """End the body, make it durable, and return the store's spool."""
        self._spool.write(_TAIL)
        self._spool.close()
        return self._spool


def spool_lines(spool: Any) -> Any:
    """Yield the request lines of a spool, without the commas between them."""
    for raw in spool:
        line = raw.rstrip(b"\n")
        if line in (b'{"requests":[', b"]}"):
            continue
        yield line[:-1] if line.endswith(b",") else line


def params_of_line(line: bytes) -> bytes:
    """
    Return the params of a request line, as they go on the wire.

    Examples
    --------
    >>> params_of_line(b'{"custom_id":"' + b"x" * 47 + b'","params":{"model":"m"}}')
    b'{"model":"m"}'
    """
    return line[len(_LINE_START) + N_CHARS + len(_LINE_PARAMS) : -1]


def custom_id_of_line(line: bytes) -> bytes:
    """Return the custom_id of a request line."""
    return line[len(_LINE_START) : len(_LINE_START) + N_CHARS]
