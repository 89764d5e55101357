"""Downloads of results that are not what they should be."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import replace

from .faults import BadResults
from .http import Connection, Response

__all__ = ["damaged"]


def damaged(response: Response, faults: list[BadResults], connection: Connection) -> Response:
    """Return the answer to a download after the faults have had their way with it."""
    for fault in faults:
        response = _damage(response, fault, connection)
    return response


def _damage(response: Response, fault: BadResults, connection: Connection) -> Response:
    body = b"".join(response.blocks)
    lines = [line + b"\n" for line in body.split(b"\n")[:-1]]
    if fault.damage in _LINES:
        body = b"".join(_LINES[fault.damage](lines, fault))
    framed = replace(response, blocks=(body,), framing=fault.framing, n_promised=len(body))
    if fault.damage == "cut":
        stop = _position(body, lines, fault)
        kept = body[:stop]
        if fault.polite:
            return replace(framed, blocks=(kept,), n_promised=len(kept))
        return replace(framed, blocks=(kept, b""), cut="reset" if fault.reset else "close")
    if fault.damage == "stall":
        stop = _position(body, lines, fault)
        return replace(framed, blocks=_with_pauses([body[:stop], body[stop:]], fault.pause_s, connection))
    if fault.damage == "gzip":
        packed = gzip.compress(body)
        headers = {**response.headers, "content-encoding": "gzip"}
        return replace(framed, blocks=(packed,), n_promised=len(packed), headers=headers)
    if fault.damage == "slow":
        size = fault.at_byte or 65536
        blocks = [body[at : at + size] for at in range(0, len(body), size)]
        return replace(framed, blocks=_with_pauses(blocks, fault.pause_s, connection))
    return framed


def _position(body: bytes, lines: list[bytes], fault: BadResults) -> int:
    if fault.n_rows is not None:
        return sum(len(line) for line in lines[: fault.n_rows])
    at = len(body) // 2 if fault.at_byte is None else fault.at_byte
    return max(0, len(body) + at) if at < 0 else at


def _with_pauses(blocks: list[bytes], pause_s: float, connection: Connection) -> Iterator[bytes]:
    for number, block in enumerate(blocks):
        if number:
            yield b""
            connection.stall(pause_s)
        if block:
            yield block


def _spread(lines: list[bytes], n: int) -> list[int]:
    """Return n positions spread over the lines."""
    return [number * len(lines) // n for number in range(min(n, len(lines)))]


def _missing(lines: list[bytes], fault: BadResults) -> list[bytes]:
    gone = set(_spread(lines, fault.n_rows or 1))
    return [line for number, line in enumerate(lines) if number not in gone]


def _doubled(lines: list[bytes], fault: BadResults) -> list[bytes]:
    return lines + [lines[number] for number in _spread(lines, fault.n_rows or 1)]


def _doubled_differently(lines: list[bytes], fault: BadResults) -> list[bytes]:
    again = []
    for number in _spread(lines, fault.n_rows or 1):
        head, _, _ = lines[number].partition(b',"result":')
        again.append(head + b',"result":{"type":"canceled"}}\n')
    return lines + again


def _unknown_id(lines: list[bytes], fault: BadResults) -> list[bytes]:
    strange = [
        b'{"custom_id":"nobody-%d","result":{"type":"expired"}}\n' % number for number in range(fault.n_rows or 1)
    ]
    return lines[:1] + strange + lines[1:]


def _put_in(lines: list[bytes], fault: BadResults, line: bytes) -> list[bytes]:
    return lines[:1] + [line] * (fault.n_rows or 1) + lines[1:]


_LINES: dict[str, Callable[[list[bytes], BadResults], list[bytes]]] = {
    "missing": _missing,
    "doubled": _doubled,
    "doubled_differently": _doubled_differently,
    "unknown_id": _unknown_id,
    "junk": lambda lines, fault: _put_in(lines, fault, fault.text.encode() + b"\n"),
    "blank": lambda lines, fault: _put_in(lines, fault, b"\n"),
    "crlf": lambda lines, fault: [line[:-1] + b"\r\n" for line in lines],
    "bom": lambda lines, fault: [b"\xef\xbb\xbf", *lines],
    "empty": lambda lines, fault: [],
}
