"""The endpoints of the Message Batches API, as flows, and how their answers are read.

https://platform.claude.com/docs/en/api/creating-message-batches and its siblings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from pandas_batch.errors import InputError, UnreadableAnswerError, clip
from pandas_batch.exiting import leave_if_ending

from .body import Body
from .failures import Doubt, Outcome, create_outcome, lower_headers
from .flows import Call, Flow, Read, Reply, date_of, wait_asked_s

Sink = BinaryIO | Callable[[bytes], Any]

_BATCHES = "/v1/messages/batches"
_SANE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_LONGEST_URL = 2_000
_PORTS = {"http": 80, "https": 443}
READ_TIMEOUT_S = 60.0
CREATE_TIMEOUT_S = 600.0
"""A create that moves 200 MB may think for minutes; cutting it short makes a lost answer out of a slow one."""


@dataclass(frozen=True, kw_only=True)
class Created:
    """
    What is known after the one POST of a create.

    Attributes
    ----------
    outcome
        ``created``: `batch` is there. ``refused``: no batch was made, and the same POST would be refused again.
        ``retry``: no batch was made, a later POST may succeed. ``too_large``: no batch was made, halve it.
        ``unknown``: a batch may have been made, and may be billed; look before posting again.
    doubt
        Why it is unknown: ``lost``, ``overloaded`` (the API's own 529), ``not_the_api`` (something else answered) or
        ``too_large`` (as something else says); "" otherwise.
    batch
        The batch object of the API, where created.
    error
        What was raised or found, where not created.
    retry_after_s
        Seconds the server asked to wait, capped; None where it asked nothing.
    status_code
        HTTP status, or None where no answer came.
    server_at, workspace_id, request_id
        From the headers of the answer, or None.
    """

    outcome: Outcome
    doubt: Doubt = ""
    batch: dict[str, Any] | None = None
    error: Exception | None = None
    retry_after_s: float | None = None
    status_code: int | None = None
    server_at: datetime | None = None
    workspace_id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Polled:
    """A batch as the server describes it now."""

    batch: dict[str, Any]
    retry_after_s: float | None = None
    server_at: datetime | None = None
    workspace_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """
    One page of the list of batches, newest first.

    Attributes
    ----------
    batches
        As they came: each has an ``id``, anything else a gateway may have left out.
    unreadable_at
        For each item of the page without even an id, how many of `batches` stand before it.
    """

    batches: list[dict[str, Any]] = field(default_factory=list)
    unreadable_at: tuple[int, ...] = ()
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None
    server_at: datetime | None = None
    workspace_id: str | None = None

    @property
    def n_unreadable(self) -> int:
        """How many items have no id."""
        return len(self.unreadable_at)


# -------------------------------------------------------------------- the endpoints, as flows


def create_flow(body: Body, *, betas: Sequence[str] = ()) -> Flow[Created]:
    """POST a create exactly once and say what is known afterwards; never raises what the server or network did."""
    try:
        reply: Reply = yield Call(
            method="POST", path=_BATCHES, body=body, headers=_beta_header(betas), timeout_s=CREATE_TIMEOUT_S
        )
    except Exception as error:
        response = getattr(error, "response", None)
        headers = lower_headers(response)
        outcome, doubt = create_outcome(error)
        if doubt in ("not_the_api", "too_large") and response is not None:
            content = getattr(response, "content", b"") or b""
            error = _unreadable(Reply(status_code=response.status_code, headers=headers, content=content))
        return Created(
            outcome=outcome,
            doubt=doubt,
            error=error,
            retry_after_s=wait_asked_s(headers),
            status_code=getattr(response, "status_code", None),
            server_at=date_of(headers),
            workspace_id=headers.get("anthropic-workspace-id"),
            request_id=headers.get("request-id"),
        )
    told: dict[str, Any] = {
        "status_code": reply.status_code,
        "server_at": reply.server_at,
        "workspace_id": reply.workspace_id,
        "request_id": reply.request_id,
    }
    try:
        batch = _batch_of(reply)
    except UnreadableAnswerError as error:
        return Created(outcome="unknown", doubt="not_the_api", error=error, **told)
    return Created(outcome="created", batch=batch, **told)


def retrieve_flow(batch_id: str) -> Flow[Polled]:
    """GET one batch."""
    reply: Reply = yield from _get(f"{_BATCHES}/{_checked(batch_id)}")
    return Polled(
        batch=_batch_of(reply),
        retry_after_s=wait_asked_s(reply.headers),
        server_at=reply.server_at,
        workspace_id=reply.workspace_id,
    )


def list_flow(*, limit: int = 100, before_id: str | None = None, after_id: str | None = None) -> Flow[Page]:
    """GET one page of batches: those made after `before_id`, or before `after_id`."""
    query = {"limit": limit, "before_id": before_id, "after_id": after_id}
    reply: Reply = yield from _get(_BATCHES, query={name: value for name, value in query.items() if value is not None})
    page = _object_of(reply)
    data = page.get("data")
    if not isinstance(data, list):
        raise _unreadable(reply)
    batches: list[dict[str, Any]] = []
    unreadable_at: list[int] = []
    for item in data:
        if isinstance(item, dict) and _is_id(item.get("id")):
            batches.append(item)
        else:
            unreadable_at.append(len(batches))
    if data and not batches:
        raise _unreadable(reply)
    has_more, last_id = page.get("has_more"), page.get("last_id")
    if not isinstance(has_more, bool):
        # A gateway that leaves it out has not said that this is all.
        has_more = len(data) >= limit
    return Page(
        batches=batches,
        unreadable_at=tuple(unreadable_at),
        has_more=has_more,
        first_id=page.get("first_id"),
        last_id=last_id if _is_id(last_id) else (batches[-1]["id"] if batches else None),
        server_at=reply.server_at,
        workspace_id=reply.workspace_id,
    )


def open_results_flow(batch_id: str, *, path: str | None = None) -> Flow[bytes]:
    """
    Open the stream of a batch's results and return its first block; `Read` brings the others, ``b""`` the end.

    Parameters
    ----------
    batch_id
        The batch.
    path
        Another path on the client's own origin than the documented one; see `own_path`.
    """
    # On our own base URL: the key never goes to a host that an answer names.
    call = Call(
        method="GET",
        path=f"{_BATCHES}/{_checked(batch_id)}/results" if path is None else path,
        headers={"accept": "application/x-jsonl, application/binary"},
        timeout_s=READ_TIMEOUT_S,
        stream=True,
    )
    reply: Reply = yield from _safely(call)
    block: bytes = yield Read()
    start = block.lstrip(b"\xef\xbb\xbf\r\n\t ")
    if start.startswith(b"<") or "html" in reply.headers.get("content-type", ""):
        raise _unreadable(Reply(status_code=reply.status_code, headers=reply.headers, content=block))
    return block


def own_path(results_url: Any, base_url: str) -> str | None:
    """
    Return where on the client's own origin a batch's ``results_url`` lies; None where it lies elsewhere.

    Examples
    --------
    >>> own_path("https://api.anthropic.com/v2/results/1?a=b", "https://api.anthropic.com")
    'https://api.anthropic.com/v2/results/1?a=b'
    >>> own_path("https://example.org/results", "https://api.anthropic.com") is None
    True
    """
    if not isinstance(results_url, str) or len(results_url) > _LONGEST_URL or not results_url.isascii():
        return None
    try:
        theirs, ours = urlsplit(results_url), urlsplit(base_url)
        is_ours = not theirs.netloc or (
            (theirs.scheme, theirs.hostname, theirs.port or _PORTS.get(theirs.scheme))
            == (ours.scheme, ours.hostname, ours.port or _PORTS.get(ours.scheme))
        )
    except ValueError:
        return None
    if not is_ours or not theirs.path.startswith("/") or theirs.username or "\\" in results_url:
        return None
    if theirs.scheme and not theirs.netloc:
        return None
    # Absolute, lest the path of the base URL is put before it a second time.
    query = f"?{theirs.query}" if theirs.query else ""
    return f"{ours.scheme}://{ours.netloc.rpartition('@')[2]}{theirs.path}{query}"


def results_flow(batch_id: str, sink: Sink, *, path: str | None = None) -> Flow[None]:
    """Stream the raw results of a batch to `sink`; whether they are complete is for the caller to see."""
    write = sink if callable(sink) else sink.write
    block = yield from open_results_flow(batch_id, path=path)
    while block:
        leave_if_ending()
        write(block)
        block = yield Read()


def cancel_flow(batch_id: str) -> Flow[dict[str, Any]]:
    """Ask for a batch to be canceled; what is under way in it may still finish."""
    reply: Reply = yield from _safely(Call(method="POST", path=f"{_BATCHES}/{_checked(batch_id)}/cancel"))
    return _batch_of(reply)


def delete_flow(batch_id: str) -> Flow[dict[str, Any]]:
    """Delete an ended batch and its results from the server."""
    reply: Reply = yield from _safely(Call(method="DELETE", path=f"{_BATCHES}/{_checked(batch_id)}"))
    return _object_of(reply)


def model_flow(model: str) -> Flow[dict[str, Any]]:
    """GET the description of a model: limits, capabilities, retirement."""
    reply: Reply = yield from _get(f"/v1/models/{quote(model, safe='')}")
    return _object_of(reply)


def models_flow() -> Flow[list[str]]:
    """GET the ids of the models that the key may use, newest first."""
    reply: Reply = yield from _get("/v1/models", query={"limit": 1000})
    models = _object_of(reply).get("data")
    if not isinstance(models, list):
        raise _unreadable(reply)
    return [model["id"] for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]


def count_tokens_flow(params: Mapping[str, Any], *, betas: Sequence[str] = ()) -> Flow[int]:
    """Return the server's estimate of the input tokens of one request (free of charge)."""
    from anthropic.types import message_count_tokens_params

    names = message_count_tokens_params.MessageCountTokensParams.__annotations__
    body = Body.from_json({name: value for name, value in params.items() if name in names})
    reply: Reply = yield from _safely(
        Call(method="POST", path="/v1/messages/count_tokens", body=body, headers=_beta_header(betas))
    )
    counted = _object_of(reply).get("input_tokens")
    if not isinstance(counted, int):
        raise _unreadable(reply)
    return counted


def _get(path: str, *, query: Mapping[str, Any] | None = None) -> Flow[Reply]:
    return _safely(Call(method="GET", path=path, query=query or {}, timeout_s=READ_TIMEOUT_S))


def _safely(call: Call) -> Flow[Reply]:
    """Make `call`, with a redirect taken for what it is: an answer of somebody else."""
    try:
        reply: Reply = yield call
    except Exception as error:
        response = getattr(error, "response", None)
        if response is not None and 300 <= response.status_code < 400:
            raise _unreadable(Reply(status_code=response.status_code, headers=lower_headers(response))) from None
        raise
    return reply


def _beta_header(betas: Sequence[str]) -> dict[str, str]:
    return {"anthropic-beta": ",".join(betas)} if betas else {}


def _checked(batch_id: str) -> str:
    if not isinstance(batch_id, str) or not _SANE_ID.fullmatch(batch_id):
        raise InputError(
            f"batch_id is {clip(repr(batch_id), 80)}, which is no batch id.",
            hint='It looks like "msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d".',
        )
    return batch_id


# -------------------------------------------------------------------- reading answers


def _object_of(reply: Reply) -> dict[str, Any]:
    try:
        value = json.loads(reply.content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _unreadable(reply)
    return value


def _batch_of(reply: Reply) -> dict[str, Any]:
    batch = _object_of(reply)
    if not _is_batch(batch):
        raise _unreadable(reply)
    return batch


def _is_batch(value: Any) -> bool:
    """Return whether `value` looks like a batch (a portal's JSON may well have an ``id`` too)."""
    return isinstance(value, dict) and _is_id(value.get("id")) and isinstance(value.get("processing_status"), str)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _SANE_ID.fullmatch(value) is not None


def _unreadable(reply: Reply) -> UnreadableAnswerError:
    said = clip(reply.content[:400].decode("utf-8", "replace").strip(), 200) or "nothing"
    kind = clip(reply.headers.get("content-type", "no content type"), 60)
    where = f" to {clip(reply.headers['location'].split('?')[0], 80)}" if "location" in reply.headers else ""
    return UnreadableAnswerError(
        f"Something that is not the API answered (HTTP {reply.status_code}{where}, {kind}): {said}",
        "Nothing is known to have changed on the server.",
        "A proxy or a login page may stand in between: open the base URL in a browser, or ask who runs the network.",
        server_at=reply.server_at,
    )
