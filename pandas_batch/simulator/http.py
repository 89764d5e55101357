"""HTTP/1.1 over blocking sockets, one thread to a connection.

`http.server` would do for most of this, but not for its purpose: a fault server must be able to reset a connection,
to stop in the middle of a chunk, to promise more bytes than it sends, and to take in 256 MB without copying them
about. With the socket in hand each of those is a few lines, and nothing beyond the standard library is needed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from .blobs import BLOCK_BYTES, Blob, BlobWriter

__all__ = ["Connection", "Listener", "Request", "Response"]

_MAX_HEAD_BYTES = 1 << 16


@dataclass(slots=True)
class Request:
    """One request as it came over the wire; header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Blob

    def take_body(self) -> Blob:
        """Return the body for keeps; otherwise it is gone once the request is answered."""
        body, self.body = self.body, Blob()
        return body


@dataclass(slots=True)
class Response:
    """
    One answer.

    Attributes
    ----------
    blocks
        The body, in the pieces in which it is to leave.
    framing
        ``"chunked"``, ``"length"`` (then `n_promised` is the Content-Length) or ``"close"`` (the end of the
        connection is the end of the body).
    cut
        None, or how the connection ends after the blocks, which are then not the whole body: ``"close"`` or
        ``"reset"``.
    delay_s
        How long the answer takes, in real seconds.
    """

    status: int = 200
    blocks: Iterable[bytes] = ()
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    framing: str = "chunked"
    n_promised: int = 0
    cut: str | None = None
    delay_s: float = 0.0


class HangUpError(Exception):
    """The connection is over, by the client's will or by a fault's."""


class Connection:
    """
    One client's connection.

    Parameters
    ----------
    sock
        The accepted socket, blocking.
    closing
        Set when the server stops, so that a stall ends at once.
    new_spool
        Returns a path for a body that is too large for memory.
    """

    def __init__(self, sock: socket.socket, closing: threading.Event, new_spool: Callable[[], Path]) -> None:
        self._sock = sock
        self._closing = closing
        self._new_spool = new_spool
        self._buffer = bytearray()

    def requests(self) -> Iterator[Request]:
        """Yield the requests of this connection, until it ends."""
        while True:
            try:
                head = self._read_head()
                if head is None:
                    return
                request = self._read_request(head)
            except (HangUpError, OSError, ValueError):
                return
            try:
                yield request
            finally:
                request.body.discard()
            if request.headers.get("connection", "").lower() == "close":
                return

    def send(self, response: Response, default_headers: dict[str, str]) -> None:
        """
        Send an answer.

        Raises
        ------
        HangUpError
            When the connection cannot carry another answer after this one.
        """
        framing = response.framing
        lines = [f"HTTP/1.1 {response.status} {_reason(response.status)}"]
        headers = {**default_headers, **response.headers}
        if response.content_type:
            headers["content-type"] = response.content_type
        if framing == "chunked":
            headers["transfer-encoding"] = "chunked"
        elif framing == "length":
            headers["content-length"] = str(response.n_promised)
        else:
            headers["connection"] = "close"
        lines += [f"{name}: {value}" for name, value in headers.items()]
        pending = bytearray("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        for block in response.blocks:
            if not block:
                # An empty block says: what came before is to be on the wire now.
                self._send(pending)
                pending = bytearray()
                continue
            if framing == "chunked":
                pending += b"%x\r\n" % len(block)
            if len(block) < BLOCK_BYTES // 4:
                pending += block
            else:
                self._send(pending)
                self._send(block)
                pending = bytearray()
            if framing == "chunked":
                pending += b"\r\n"
        if response.cut is None:
            if framing == "chunked":
                pending += b"0\r\n\r\n"
            self._send(pending)
            if framing != "close":
                return
        else:
            self._send(pending)
        if response.cut == "reset":
            self.reset()
        raise HangUpError

    def reset(self) -> NoReturn:
        """End the connection with a TCP reset."""
        with contextlib.suppress(OSError):
            # Linger for zero seconds: close() then sends RST instead of FIN.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()
        raise HangUpError

    def hang_up(self) -> NoReturn:
        """End the connection without another byte."""
        raise HangUpError

    def stall(self, seconds: float) -> None:
        """Say nothing for so long (real seconds), or until the server stops."""
        self._closing.wait(seconds)

    def _send(self, block: bytes | bytearray) -> None:
        try:
            self._sock.sendall(block)
        except OSError:
            raise HangUpError from None

    def _recv(self) -> None:
        block = self._sock.recv(1 << 16)
        if not block:
            raise HangUpError
        self._buffer += block

    def _read_head(self) -> bytes | None:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                return None
            self._recv()
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        return head

    def _read_request(self, head: bytes) -> Request:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts = urlsplit(target)
        writer = BlobWriter(self._new_spool())
        try:
            if headers.get("transfer-encoding", "").lower() == "chunked":
                self._read_chunked(writer)
            else:
                self._read_sized(writer, int(headers.get("content-length") or 0))
        except BaseException:
            writer.abandon()
            raise
        return Request(method, unquote(parts.path), dict(parse_qsl(parts.query)), headers, writer.finish())

    def _read_sized(self, writer: BlobWriter, n_bytes: int) -> None:
        if n_bytes < 0:
            raise ValueError("content-length")
        there = min(n_bytes, len(self._buffer))
        writer.write(self._buffer[:there])
        del self._buffer[:there]
        left = n_bytes - there
        if not left:
            return
        window = memoryview(bytearray(min(left, BLOCK_BYTES)))
        while left:
            n = self._sock.recv_into(window[: min(left, BLOCK_BYTES)])
            if not n:
                raise HangUpError
            writer.write(window[:n])
            left -= n

    def _read_chunked(self, writer: BlobWriter) -> None:
        while True:
            n_bytes = int(self._read_line().split(b";")[0], 16)
            if n_bytes == 0:
                while self._read_line():
                    pass
                return
            self._read_sized(writer, n_bytes)
            self._read_line()

    def _read_line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._recv()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded" if status == 529 else "Unknown"


class Listener:
    """
    A listening socket on loopback and the threads that serve its connections.

    Parameters
    ----------
    port
        The port; 0 lets the system choose.
    serve
        Called in a thread of its own with each connection.
    new_spool
        Returns a path for a body that is too large for memory.
    """

    def __init__(self, port: int, serve: Callable[[Connection], None], new_spool: Callable[[], Path]) -> None:
        self._serve = serve
        self._new_spool = new_spool
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, socket.socket] = {}
        self._sock = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._sock.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name=f"simulator-{self.port}", daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Stop listening, end every connection and wait for its thread."""
        self._closing.set()
        # On Linux closing a socket does not wake a thread that waits in accept() on it; shutting it down does.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._accepting.join()
        with self._lock:
            still_open = dict(self._open)
        for sock in still_open.values():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in still_open:
            if thread is not threading.current_thread():
                thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._run, args=(sock,), name=f"simulator-{self.port}-client", daemon=True)
            with self._lock:
                self._open[thread] = sock
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        try:
            with contextlib.suppress(HangUpError):
                self._serve(Connection(sock, self._closing, self._new_spool))
        finally:
            sock.close()
            with self._lock:
                self._open.pop(threading.current_thread(), None)
