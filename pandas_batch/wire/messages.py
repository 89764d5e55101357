"""One request through the Messages API, as a flow, and what is known after it.

https://platform.claude.com/docs/en/api/messages; the errors: https://platform.claude.com/docs/en/api/errors
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pandas_batch.errors import UnreadableAnswerError, clip

from .body import Body
from .failures import is_from_api, is_spend_cap, lower_headers, never_sent
from .flows import Call, Flow, Reply, wait_asked_s

MESSAGE_TIMEOUT_S = 600.0
"""An answer of 64,000 tokens takes minutes; cut short, it would be paid and lost."""

Outcome = Literal["answered", "refused", "limited", "busy", "lost", "foreign", "unreachable", "blocked"]

_BUSY = frozenset({408, 409, 425, 500, 503, 504, 529})
_BLOCKED = frozenset({401, 402, 403})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """
    What is known after one request of the Messages API.

    Attributes
    ----------
    outcome
        ``answered``: `content` is the message. ``refused``: this request is, with `content` the API's error object.
        ``limited``: the rate limit is reached. ``busy``: overloaded or failing, by the API's own word; nothing is
        billed, and a later request may succeed. ``lost``: it may have been answered, and billed. ``foreign``: something
        else than the API answered. ``unreachable``: nothing was sent. ``blocked``: no request of this key is answered.
    content
        JSON as it came.
    error
        What was raised, where there is no answer.
    retry_after_s
        Seconds the server asked to wait, capped; None where it asked nothing.
    status_code
        HTTP status, or None where no answer came.
    """

    outcome: Outcome
    content: bytes = b""
    error: Exception | None = None
    retry_after_s: float | None = None
    status_code: int | None = None


def message_flow(params: bytes, *, betas: Sequence[str] = ()) -> Flow[Asked]:
    """Ask once and say what is known afterwards; never raises what the server or the network did."""
    headers = {"anthropic-beta": ",".join(betas)} if betas else {}
    try:
        reply: Reply = yield Call(
            method="POST",
            path="/v1/messages",
            body=Body.from_chunks([params]),
            headers=headers,
            timeout_s=MESSAGE_TIMEOUT_S,
        )
    except Exception as error:
        return _failed(error)
    if _is_message(reply.content):
        return Asked(outcome="answered", content=reply.content, status_code=reply.status_code)
    said = clip(reply.content[:400].decode("utf-8", "replace").strip(), 200) or "nothing"
    foreign = UnreadableAnswerError(
        f"Something that is not the API answered (HTTP {reply.status_code}): {said}",
        "Whether the request came through is not known.",
        "A proxy or a login page may stand in between: open the base URL in a browser, or ask who runs the network.",
    )
    return Asked(outcome="foreign", error=foreign, status_code=reply.status_code)


def _is_message(content: bytes) -> bool:
    try:
        value: Any = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("type") == "message" and isinstance(value.get("content"), list)


def _failed(error: Exception) -> Asked:
    import anthropic

    response = getattr(error, "response", None)
    told: dict[str, Any] = {"error": error, "retry_after_s": wait_asked_s(lower_headers(response))}
    if not isinstance(error, anthropic.APIStatusError):
        if never_sent(error):
            return Asked(outcome="unreachable", **told)
        is_ours = isinstance(error, anthropic.APIConnectionError)
        # What is raised before anything is sent (credentials that cannot be had) stops every request.
        return Asked(outcome="lost" if is_ours else "blocked", **told)
    status_code = error.status_code
    told["status_code"] = status_code
    if not is_from_api(error):
        # A gateway whose server is away says 502 to 504: the request may have come through.
        return Asked(outcome="lost" if status_code >= 500 else "foreign", **told)
    if status_code in _BLOCKED or is_spend_cap(error):
        return Asked(outcome="blocked", **told)
    if status_code == 429:
        return Asked(outcome="limited", **told)
    if status_code in _BUSY or status_code > 500:
        return Asked(outcome="busy", content=_error_object(error), **told)
    return Asked(outcome="refused", content=_error_object(error), **told)


def _error_object(error: Any) -> bytes:
    """Return the API's error object, as a row of a batch has it."""
    inner = {name: error.body["error"].get(name) for name in ("type", "message")}
    return json.dumps({"type": "error", "error": inner, "request_id": error.request_id}).encode()
