"""What can be learned of requests before they are sent: their traits, and the token counts the server gives away.

Counting is free, has a rate limit of its own, and takes less than the Messages API does: it refuses server tools,
MCP servers, and images or documents that are a URL or a file
(https://platform.claude.com/docs/en/build-with-claude/token-counting). Such requests are not asked about.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pandas_batch.requests.spending import MARK

from .forecast import Traits

if TYPE_CHECKING:
    from pandas_batch.requests.plan import RequestPlan
    from pandas_batch.wire.wire import Wire

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_COUNTED_BYTES = 8_000_000
"""A larger request is not uploaded for the sake of a count (the endpoint's own limit is 32 MB)."""

_MAX_SEEN_BYTES = 32_000_000
_MAX_UPLOADED_BYTES = 16_000_000
_MAX_REMEMBERED = 10_000
_N_AT_ONCE = 4

# Quotes inside a JSON text are escaped, so none of these can be found in a prompt.
_IMAGE = b'"type":"image"'
_PDF = b'"media_type":"application/pdf"'
_AWAY = re.compile(rb'"type":"(?:url|file)"')
_SERVER_TOOL = re.compile(
    rb'"type":"(?:(?:web_search|web_fetch|code_execution|tool_search_tool_\w+|advisor)_\d{8}|mcp_toolset)"|"mcp_servers":\['
)
_EXTRAS = re.compile(rb'"tools":\[\{|"format":\{')
_DATA = re.compile(rb'"data":"[A-Za-z0-9+/=]{64,}"')
_WIDE_BYTES = bytes(range(0x80, 0x100))
_LETTERS = b" abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Seen:
    """
    What was read from the bytes of some requests, one entry per request.

    Attributes
    ----------
    positions
        Rows of the plan.
    traits
        For the forecast of their tokens.
    n_bytes
        Size of their params on the wire.
    n_marks
        Cache breakpoints.
    is_away, has_server_tools
        Whether part of the input is fetched by the server, or added by tools that run there.
    """

    positions: np.ndarray
    traits: Traits
    n_bytes: np.ndarray
    n_marks: np.ndarray
    is_away: np.ndarray
    has_server_tools: np.ndarray

    @property
    def is_countable(self) -> np.ndarray:
        """Whether the server would count the request."""
        countable: np.ndarray = ~(self.is_away | self.has_server_tools) & (self.n_bytes <= MAX_COUNTED_BYTES)
        return countable


def look_at(plan: RequestPlan, positions: np.ndarray, *, max_bytes: int = _MAX_SEEN_BYTES) -> Seen:
    """
    Read the traits of the requests at `positions`, in their order, until `max_bytes` have been written.

    At least one request is read; the caller puts those that matter most first.
    """
    rows: list[tuple[int, ...]] = []
    n_read = 0
    # Slice by slice, which attachments make short: never are many large requests written at once.
    for bodies in plan.encode(positions):
        for body in bodies:
            n_read += len(body)
            rows.append((len(body), *_traits_of(body)))
        if n_read >= max_bytes:
            break
    at = np.asarray(positions[: len(rows)], np.int64)
    return _seen(rows, at, image_tokens=plan.media_tokens[at])


def look_at_bodies(bodies: Sequence[bytes]) -> Seen:
    """Read the traits of requests from their params as JSON; the positions are their places in `bodies`."""
    rows = [(len(body), *_traits_of(body)) for body in bodies]
    return _seen(rows, np.arange(len(rows)), image_tokens=np.zeros(len(rows), np.int64))


def _seen(rows: Sequence[tuple[int, ...]], positions: np.ndarray, *, image_tokens: np.ndarray) -> Seen:
    columns = np.array(rows, np.int64).reshape(len(rows), -1).T
    n_bytes, letters, signs, wide, images, pdfs, extras, n_marks, is_away, has_server_tools = columns
    unmeasured = np.where(image_tokens > 0, 0, images)
    return Seen(
        positions=positions,
        traits=Traits(
            *(column.astype(float) for column in (letters, signs, wide, image_tokens, unmeasured, pdfs, extras))
        ),
        n_bytes=n_bytes,
        n_marks=n_marks,
        is_away=is_away.astype(bool),
        has_server_tools=has_server_tools.astype(bool),
    )


def traits_of(body: bytes) -> Traits:
    """Return the traits of one request, or of a part of one."""
    letters, signs, wide, images, pdfs, extras = _traits_of(body)[:6]
    return Traits(*(np.array([value], float) for value in (letters, signs, wide, 0, images, pdfs, extras)))


def _traits_of(body: bytes) -> tuple[int, ...]:
    images, pdfs = body.count(_IMAGE), body.count(_PDF)
    text = _DATA.sub(b"", body) if images or pdfs else body
    n_wide = 0 if text.isascii() else len(text) - len(text.translate(None, _WIDE_BYTES))
    letters = len(text) - len(text.translate(None, _LETTERS))
    return (
        letters,
        len(text) - n_wide - letters,
        n_wide,
        images,
        pdfs,
        _EXTRAS.search(body) is not None,
        body.count(MARK),
        _AWAY.search(body) is not None,
        _SERVER_TOOL.search(body) is not None,
    )


def ask_all(
    questions: Mapping[K, Callable[[], V]],
    *,
    limit_s: float,
    go_on: Callable[[Exception], bool] = lambda _: True,
) -> dict[K, V | Exception]:
    """
    Ask several questions at once and return the answers (or errors) that came within `limit_s` seconds.

    Parameters
    ----------
    questions
        Functions by key; they are called in threads.
    limit_s
        Seconds for all of them together. A question that hangs is left behind: it holds up neither the caller nor
        the end of the process.
    go_on
        Says of an error whether the questions not asked yet are worth asking.
    """
    answers: dict[K, V | Exception] = {}
    waiting = list(questions.items())
    changed = threading.Condition()
    n_open = min(_N_AT_ONCE, len(waiting))

    def work() -> None:
        nonlocal n_open
        while True:
            with changed:
                if not waiting:
                    n_open -= 1
                    changed.notify_all()
                    return
                key, question = waiting.pop(0)
            try:
                answer: V | Exception = question()
            except Exception as error:
                answer = error
            with changed:
                answers[key] = answer
                if isinstance(answer, Exception) and not go_on(answer):
                    waiting.clear()

    for _ in range(n_open):
        threading.Thread(target=work, name="pandas_batch ask", daemon=True).start()
    until = time.monotonic() + limit_s
    with changed:
        try:
            changed.wait_for(lambda: n_open == 0, timeout=max(until - time.monotonic(), 0.0))
        finally:
            # Also where an interrupt ends the wait: nothing more is asked.
            waiting.clear()
        return dict(answers)


@dataclass(frozen=True)
class Counts:
    """
    What came of counting.

    Attributes
    ----------
    tokens
        Position to input tokens.
    errors
        Position to what was raised.
    n_unanswered
        Requests that were not asked about any more, or not answered in time.
    """

    tokens: dict[int, int] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    n_unanswered: int = 0


_remembered: dict[tuple[str, bytes], int] = {}


def count_requests(
    plan: RequestPlan,
    positions: Sequence[int] | Iterable[int],
    wire: Wire,
    *,
    betas: Sequence[str] = (),
    limit_s: float,
) -> Counts:
    """
    Count the input tokens of the requests at `positions`; each is asked about once per process.

    The first error that does not speak of a request (no such endpoint, a rate limit, a server that is down) ends
    the asking.
    """
    positions = [int(position) for position in positions]
    keys = {position: (wire.base_url, plan.fingerprints[position].tobytes()) for position in positions}
    tokens = {position: _remembered[key] for position, key in keys.items() if key in _remembered}
    questions: dict[int, Callable[[], int]] = {
        position: _count(plan, position, wire, betas) for position in positions if position not in tokens
    }
    errors: dict[int, Exception] = {}
    for position, answer in ask_all(questions, limit_s=limit_s, go_on=speaks_of_request).items():
        if isinstance(answer, Exception):
            errors[position] = answer
        else:
            tokens[position] = answer
            _remember(keys[position], answer)
    return Counts(tokens, errors, len(positions) - len(tokens) - len(errors))


def count_prefix(params: Mapping[str, Any], wire: Wire, *, betas: Sequence[str] = (), limit_s: float) -> int | None:
    """
    Count what comes before the messages of a request: tools, schema and system prompt.

    It is the difference of two counts, with and without them; None where they could not be had.
    """
    whole = prefix_of(params) | {"model": params["model"], "messages": [{"role": "user", "content": "."}]}
    bare = {"model": params["model"], "messages": whole["messages"]}
    tokens: list[int] = []
    for asked in (whole, bare):
        key = (wire.base_url, hashlib.blake2b(json.dumps([asked, *betas]).encode(), digest_size=16).digest())
        if key not in _remembered:
            answer = ask_all({"": _question(asked, wire, betas)}, limit_s=limit_s / 2).get("")
            if not isinstance(answer, int):
                return None
            _remember(key, answer)
        tokens.append(_remembered[key])
    return max(tokens[0] - tokens[1], 0)


def prefix_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params that come before the messages in the eyes of the prompt cache."""
    return {name: params[name] for name in ("tools", "tool_choice", "system", "output_config") if name in params}


def _remember(key: tuple[str, bytes], tokens: int) -> None:
    if len(_remembered) >= _MAX_REMEMBERED:
        _remembered.clear()
    _remembered[key] = tokens


def forget() -> None:
    """Forget all counts: the next ones are asked for again."""
    _remembered.clear()


def _count(plan: RequestPlan, position: int, wire: Wire, betas: Sequence[str]) -> Callable[[], int]:
    # Written only when it is asked about: a sample of requests with attachments is large.
    return lambda: wire.count_tokens(params_of(plan, position), betas=betas)


def few_enough(positions: Iterable[int], n_bytes: Mapping[int, int]) -> list[int]:
    """Return those of the requests that may be uploaded for the sake of counts: the smallest, and at least one."""
    by_size = sorted(positions, key=n_bytes.__getitem__)
    uploaded = np.cumsum([n_bytes[position] for position in by_size])
    return by_size[: max(1, int((uploaded <= _MAX_UPLOADED_BYTES).sum()))]


def count_bodies(
    bodies: Sequence[bytes], places: Sequence[int], wire: Wire, *, betas: Sequence[str] = (), limit_s: float
) -> dict[int, int]:
    """Return the input tokens of the requests at `places` among `bodies`, of those that could be counted in time."""
    import msgspec

    questions = {place: _question(msgspec.json.decode(bodies[place]), wire, betas) for place in places}
    answers = ask_all(questions, limit_s=limit_s, go_on=speaks_of_request)
    return {place: answer for place, answer in answers.items() if isinstance(answer, int)}


def _question(params: Mapping[str, Any], wire: Wire, betas: Sequence[str]) -> Callable[[], int]:
    return lambda: wire.count_tokens(params, betas=betas)


def params_of(plan: RequestPlan, position: int) -> dict[str, Any]:
    """Return the params of one request, as they go on the wire."""
    import msgspec

    bodies = next(iter(plan.encode(np.array([position], np.int64))))
    params: dict[str, Any] = msgspec.json.decode(bodies[0])
    return params


def speaks_of_request(error: Exception) -> bool:
    """Return whether the server refused what was asked about, rather than to be asked."""
    return status_code_of(error) in (400, 413, 422)


def status_code_of(error: Exception) -> int | None:
    """Return the HTTP status of an SDK error, or None where no answer of the API came."""
    code = getattr(error, "status_code", None)
    return code if isinstance(code, int) else None
