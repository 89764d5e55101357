"""A gateway between a client and the simulator: it passes calls on, and may answer itself or change what comes back."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import anthropic

from pandas_batch.simulator import Simulator

_NOT_PASSED_ON = ("host", "connection", "content-length", "transfer-encoding", "accept-encoding", "expect")


@dataclass
class Answer:
    """What goes back to the client."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Change = Callable[[str, str, Answer], Answer | None]


class Gateway:
    """
    A server in front of the simulator.

    Parameters
    ----------
    api
        Where calls are passed on to.
    change
        Called with method, path and the simulator's answer; what it returns goes back in its place.
    stop
        Called with method and path before anything is passed on; what it returns is the answer, and the simulator
        hears nothing.
    """

    def __init__(
        self, api: Simulator, *, change: Change | None = None, stop: Callable[[str, str], Answer | None] | None = None
    ) -> None:
        self.change, self.stop = change, stop
        there = urlsplit(api.base_url)
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            # Head and body are two writes: put together by the system, the second waits 40 ms for word of the first.
            disable_nagle_algorithm = True
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                answer = gateway.stop(self.command, self.path) if gateway.stop else None
                if answer is None:
                    link = http.client.HTTPConnection(str(there.hostname), there.port, timeout=30)
                    sent = {k: v for k, v in self.headers.items() if k.lower() not in _NOT_PASSED_ON}
                    link.request(self.command, self.path, body or None, sent)
                    try:
                        came = link.getresponse()
                    except (OSError, http.client.HTTPException):
                        self.close_connection = True  # what dies behind us dies before us too
                        return
                    headers = {k: v for k, v in came.getheaders() if k.lower() not in _NOT_PASSED_ON}
                    answer = Answer(came.status, came.read(), headers)
                    link.close()
                    changed = gateway.change(self.command, self.path, answer) if gateway.change else None
                    answer = changed or answer
                self.send_response_only(answer.status)  # the time is the simulator's to tell
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_DELETE = _pass_on

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def client(self) -> anthropic.Anthropic:
        """Return a client of the SDK that speaks through this gateway."""
        return anthropic.Anthropic(api_key="sk-ant-test", base_url=self.base_url, max_retries=0)

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def is_list(method: str, path: str) -> bool:
    """Return whether a call asks for the list of batches."""
    return method == "GET" and path.partition("?")[0].endswith("/batches")


def is_create(method: str, path: str) -> bool:
    """Return whether a call makes a batch."""
    return method == "POST" and path.endswith("/batches")


def with_items(answer: Answer, edit: Callable[[dict[str, Any]], object]) -> Answer:
    """Return an answer whose listed batches went through `edit`, which changes them in place or returns another."""
    page = json.loads(answer.body)
    page["data"] = [edit(item) or item for item in page["data"]]
    return Answer(answer.status, json.dumps(page).encode(), {"content-type": "application/json"})
