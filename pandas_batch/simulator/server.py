"""The server that ties it together: sockets, faults, endpoints, and what a test may look at."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from .admin import answer_admin
from .batches import Batch, iso
from .blobs import Blob
from .damage import damaged
from .faults import ErrorAnswer, Fault, LostAnswer, Outage
from .http import Connection, Listener, Request, Response
from .lost_answers import error_response, lose
from .plan import FaultPlan
from .rendering import Bill, LiveMessage, bill_of, bills_of
from .replies import Answer
from .routing import Caller, caller_of, route
from .service import Limits, Service
from .validation import API_VERSIONS, ApiError, invalid

if TYPE_CHECKING:
    import anthropic

__all__ = ["LoggedRequest", "Simulator", "serve"]

_ORGANIZATION = "00000000-0000-4000-8000-000000000001"
_WORKSPACE = "wrkspc_01Simulator"
_SECRET_HEADERS = ("authorization", "x-api-key", "cookie", "proxy-authorization")


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """
    One request that the server heard.

    Attributes
    ----------
    method, path, query, headers
        As sent; headers in lower case, without those that hold a key.
    endpoint
        Its short name, such as ``"create"``; empty when there is no such endpoint.
    n_bytes
        Size of its body.
    at_s
        When, by the server's clock, in Unix seconds.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    endpoint: str
    n_bytes: int
    at_s: float


class Simulator:
    """
    A running server; `serve` makes one.

    Attributes
    ----------
    faults
        What goes wrong, see `pandas_batch.simulator.faults`; changes hold from the next call on.
    requests
        Every request heard so far, as `LoggedRequest`.
    base_url
        Its address.
    """

    def __init__(
        self,
        answer: Answer = None,
        *,
        seconds_per_batch: float | Callable[[int], float] = 2.0,
        seconds_to_cancel: float = 1.0,
        seconds_per_message: float | Callable[[dict[str, Any]], float] = 0.0,
        port: int = 0,
        path: str | Path | None = None,
        seed: int = 0,
        clock: Callable[[], float] | Any | None = None,
        faults: FaultPlan | list[Fault] | None = None,
        workspaces: Mapping[str, str] | None = None,
        max_requests: int = 100_000,
        max_bytes: int = 256_000_000,
        max_queued: int = 500_000,
    ) -> None:
        read_clock = time.time if clock is None else clock if callable(clock) else clock.time_s
        self._read_clock: Callable[[], float] = read_clock
        self._durable = path is not None
        self._folder = Path(path) if path is not None else Path(tempfile.mkdtemp(prefix="simulator-"))
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in self._folder.glob("*.part"):
            # A server that was killed while it read or wrote; whole files have other names.
            left_over.unlink()
        self._clock_path = self._folder / "clock.json"
        self._ahead_s = 0.0
        if self._durable and self._clock_path.exists():
            self._ahead_s = float(msgspec.json.decode(self._clock_path.read_bytes()))
        self.faults = faults if isinstance(faults, FaultPlan) else FaultPlan(*(faults or ()))
        self._workspaces = dict(workspaces or {})
        self.requests: list[LoggedRequest] = []
        self._service = Service(
            answer=answer,
            seconds_per_batch=seconds_per_batch,
            seconds_to_cancel=seconds_to_cancel,
            seconds_per_message=seconds_per_message,
            seed=seed,
            now_s=self.now_s,
            folder=self._folder,
            durable=self._durable,
            limits=Limits(max_requests, max_bytes, max_queued),
            faults=self.faults,
        )
        self._numbers = itertools.count(1)
        self._clients: list[Any] = []
        self._listener: Listener | None = None
        self._port = port
        try:
            self._listen()
        except OSError:
            self.close()
            raise

    def _listen(self) -> None:
        self._listener = Listener(self._port, self._serve, self._new_spool)
        self._port = self._listener.port
        self.base_url = f"http://127.0.0.1:{self._port}"
        self._service.base_url = self.base_url

    # ---- for the caller

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def answer(self) -> Answer:
        """Where the texts come from; a new one holds for every batch that is not settled yet."""
        return self._service.answer

    @answer.setter
    def answer(self, answer: Answer) -> None:
        self._service.answer = answer

    @property
    def seconds_per_batch(self) -> float | Callable[[int], float]:
        """How long a batch takes; a new value holds for the batches created from now on."""
        return self._service.seconds_per_batch

    @seconds_per_batch.setter
    def seconds_per_batch(self, seconds: float | Callable[[int], float]) -> None:
        self._service.seconds_per_batch = seconds

    @property
    def seconds_per_message(self) -> float | Callable[[dict[str, Any]], float]:
        """How long a message that is asked live takes, in real seconds."""
        return self._service.seconds_per_message

    @seconds_per_message.setter
    def seconds_per_message(self, seconds: float | Callable[[dict[str, Any]], float]) -> None:
        self._service.seconds_per_message = seconds

    def client(self, **options: Any) -> anthropic.Anthropic:
        """Return a client of the official SDK that talks to this server; it is closed with the server."""
        import anthropic

        client = anthropic.Anthropic(**{"api_key": "simulator", "base_url": self.base_url, **options})
        self._clients.append(client)
        return client

    def async_client(self, **options: Any) -> anthropic.AsyncAnthropic:
        """Return the same for asyncio. It keeps no connection open between calls, so that no loop has to close it."""
        import anthropic
        import httpx2

        if "http_client" not in options:
            limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=0)
            options["http_client"] = anthropic.DefaultAsyncHttpxClient(limits=limits)
        return anthropic.AsyncAnthropic(**{"api_key": "simulator", "base_url": self.base_url, **options})

    @property
    def batches(self) -> list[Batch]:
        """The batches there are now, newest first; those that have ended are settled."""
        return [self._service.settled(batch) for batch in self._service.batches()]

    @property
    def billed(self) -> list[Bill]:
        """
        One bill for each answer, decoys left out; deleted batches stay billed.

        Messages that were asked live come last, at the standard price; their bills say ``is_live``.
        """
        there = [batch for batch in (*self._service.deleted, *self.batches) if not batch.decoy]
        live = [bill_of(one.message) for one in self.messages if one.error is None]
        return [bill for batch in there for bill in bills_of(batch)] + [bill for bill in live if bill is not None]

    @property
    def messages(self) -> list[LiveMessage]:
        """The requests of the Messages API that were answered or refused so far, in the order they were heard."""
        return list(self._service.messages)

    @property
    def billed_usd(self) -> Decimal:
        """The sum of all bills in USD."""
        return sum((bill.cost_usd for bill in self.billed), Decimal(0))

    def calls(self, endpoint: str) -> int:
        """Return how many requests an endpoint has heard, such as ``"create"``."""
        return sum(one.endpoint == endpoint for one in self.requests)

    def add_decoy(self, n_requests: int, at: float | None = None, *, workspace_id: str | None = None) -> str:
        """
        Add a batch of somebody else's and return its id.

        Parameters
        ----------
        n_requests
            How many requests it holds.
        at
            When it was created, in Unix seconds; now, where left out.
        workspace_id
            Its workspace; the usual one, where left out.
        """
        params = {
            "model": "claude-haiku-4-5",
            "max_tokens": 16,
            "messages": [{"role": "user", "content": "Not yours."}],
        }
        body = msgspec.json.encode(
            {"requests": [{"custom_id": f"decoy-{number}", "params": params} for number in range(n_requests)]}
        )
        caller = Caller(workspace_id or _WORKSPACE, API_VERSIONS[-1], ())
        at_s = self.now_s() if at is None else at
        return self._service.add_batch(Blob(body), n_requests, caller, at_s=at_s, decoy=True).id

    def remove(self, batch_id: str) -> None:
        """Take a batch away, in whatever state, as if somebody had deleted it."""
        for batch in self._service.batches():
            if batch.id == batch_id:
                self._service.remove(batch)

    def now_s(self) -> float:
        """Return the server's time, in Unix seconds."""
        return self._read_clock() + self._ahead_s

    def advance(self, seconds: float) -> None:
        """Move the server's clock forward; with a path, for good."""
        self._ahead_s += seconds
        if self._durable:
            Blob(msgspec.json.encode(self._ahead_s)).move_to(self._clock_path)

    @contextlib.contextmanager
    def unreachable(self) -> Iterator[None]:
        """Refuse every connection for the length of the block, as a server that is down does."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        try:
            yield
        finally:
            self._listen()

    def close(self) -> None:
        """Stop. Every connection ends, every thread is waited for."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for client in self._clients:
            client.close()
        self._clients.clear()
        if not self._durable:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Simulator {self.base_url}, {len(self._service.batches())} batches>"

    # ---- one request

    def _new_spool(self) -> Path:
        return self._folder / f"incoming-{next(self._numbers)}.part"

    def _serve(self, connection: Connection) -> None:
        for request in connection.requests():
            endpoint, object_id = route(request.method, request.path)
            shown = {name: value for name, value in request.headers.items() if name not in _SECRET_HEADERS}
            self.requests.append(
                LoggedRequest(
                    request.method, request.path, request.query, shown, endpoint, request.body.n_bytes, self.now_s()
                )
            )
            headers = {
                "date": formatdate(self.now_s(), usegmt=True),
                "request-id": f"req_01{next(self._numbers):022d}",
                "anthropic-organization-id": _ORGANIZATION,
                "anthropic-ratelimit-requests-limit": "4000",
                "anthropic-ratelimit-requests-remaining": "3999",
                "anthropic-ratelimit-requests-reset": str(iso(self.now_s())),
            }
            if request.path.startswith("/simulator/"):
                connection.send(answer_admin(self, request), headers)
                continue
            self._answer(connection, request, endpoint, object_id, headers)

    def _answer(
        self, connection: Connection, request: Request, endpoint: str, object_id: str, headers: dict[str, str]
    ) -> None:
        delay_s = self.faults.delay_s(endpoint, object_id)
        if delay_s:
            connection.stall(delay_s)
        fault = self.faults.for_call(endpoint, object_id, self.now_s())
        if isinstance(fault, Outage):
            if fault.how == "reset":
                connection.reset()
            connection.send(error_response(ErrorAnswer("*", int(fault.how)), headers["request-id"]), headers)
            return
        if fault is not None and not fault.committed:
            response = Response()
        else:
            late_s = fault.late_s if isinstance(fault, LostAnswer) else 0.0
            response = self._do(request, endpoint, object_id, headers, late_s)
        if isinstance(fault, ErrorAnswer):
            response = error_response(fault, headers["request-id"])
        elif isinstance(fault, LostAnswer):
            response = lose(fault, response, request, connection)
        elif endpoint == "results" and response.status == 200:
            response = damaged(response, self.faults.for_download(object_id), connection)
        if response.delay_s:
            connection.stall(response.delay_s)
        connection.send(response, headers)

    def _do(self, request: Request, endpoint: str, object_id: str, headers: dict[str, str], late_s: float) -> Response:
        try:
            caller = caller_of(request.headers, self._workspaces, _WORKSPACE)
            headers["anthropic-workspace-id"] = caller.workspace_id
            return self._service.call(endpoint, object_id, request, caller, at_s=self.now_s() + late_s)
        except ApiError as error:
            return Response(error.status, (error.body(headers["request-id"]),))
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            failure = invalid(f"Input should be valid ({type(error).__name__})")
            return Response(failure.status, (failure.body(headers["request-id"]),))


def serve(answer: Answer = None, **options: Any) -> Simulator:
    """
    Start a server on loopback that speaks the Message Batches API.

    Parameters
    ----------
    answer
        What the model says: a text for every row, or a function of a request's params that returns a text, a dict
        (sent as JSON) or a `Reply`; it is called in a thread of the server, when the end of a batch is first asked
        for. Left out, the answer is the prompt itself, or, where a schema is asked for, a value that fits it.
    seconds_per_batch
        How long a batch takes, in seconds of `clock`; or a function of its number of requests. A batch that takes
        longer than 24 hours expires.
    seconds_to_cancel
        How long a canceled batch takes to end.
    seconds_per_message
        How long a message that is asked live (``client.messages.create``) takes, in real seconds; or a function of its
        params. It is billed when it is heard.
    port
        The port; 0 lets the system choose a free one.
    path
        A folder. With it, and a fixed port, batches survive a restart of the server, even ``kill -9``.
    seed
        Decides every chance: order of results, ids, shares of faults, values for schemas.
    clock
        A function that returns Unix seconds (or an object with a method ``time_s``), to jump over hours in a test.
    faults
        A list of faults to begin with.
    workspaces
        ``{api key: workspace id}``; a key that is not in it belongs to one usual workspace. The key ``"invalid"`` is
        refused.
    max_requests, max_bytes, max_queued
        Limits of one batch, and of the requests in all batches that have not ended.

    Returns
    -------
    Simulator
        Running; a context manager that stops it.

    Examples
    --------
    >>> from pandas_batch import simulator
    >>> with simulator.serve(answer=lambda params: "positive", seconds_per_batch=0) as api:
    ...     client = api.client()
    ...     batch = client.messages.batches.create(
    ...         requests=[
    ...             {
    ...                 "custom_id": "row-0",
    ...                 "params": {
    ...                     "model": "claude-haiku-4-5",
    ...                     "max_tokens": 16,
    ...                     "messages": [{"role": "user", "content": "I like it."}],
    ...                 },
    ...             }
    ...         ]
    ...     )
    ...     [row.result.message.content[0].text for row in client.messages.batches.results(batch.id)]
    ['positive']
    """
    return Simulator(answer, **options)
