"""What an error of the SDK means for a batch: was it made, may the call be repeated, what time was it there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pandas_batch.errors import UnreadableAnswerError

from .flows import date_of, wait_asked_s

Outcome = Literal["created", "refused", "retry", "too_large", "unknown"]

Doubt = Literal["", "lost", "overloaded", "not_the_api", "too_large"]

_REFUSED = frozenset({400, 401, 402, 403, 404, 422})
_OVERLOADED = 529
_TOO_LARGE = 413
_SPEND_CAPS = frozenset({"enforced_spend_limit_reached", "contract_spend_limit_reached", "ramp_limit_exceeded"})


class Known(NamedTuple):
    """What is known of a create that failed, and, where that is nothing, why."""

    outcome: Outcome
    doubt: Doubt = ""


def create_outcome(error: Exception) -> Known:
    """
    Return what is known of a create that failed with `error`; ``unknown`` wherever there is a doubt.

    Only the API's own error object is a refusal: a proxy may have let the create through and have answered itself.
    """
    import anthropic

    status_code = _status_code(error)
    if status_code is None:
        if never_sent(error):
            return Known("retry")
        # Credentials that cannot be had fail before anything is sent.
        return Known("refused") if isinstance(error, anthropic.CredentialsError) else Known("unknown", "lost")
    if is_from_api(error):
        if status_code == _TOO_LARGE:
            return Known("too_large")
        if status_code == 429:
            return Known("refused" if is_spend_cap(error) else "retry")
        if status_code in _REFUSED:
            return Known("refused")
        return Known("unknown", "overloaded" if status_code == _OVERLOADED else "lost")
    if status_code == _TOO_LARGE:
        return Known("unknown", "too_large")
    # A gateway whose server is away says 502 to 504, and will have it back.
    return Known("unknown", "not_the_api" if status_code < 500 else "lost")


def is_from_api(error: BaseException | None) -> bool:
    """
    Return whether `error` is the API's own word: its error object, and not what a proxy answered in its place.

    https://platform.claude.com/docs/en/api/errors has the shape; the 413 of the network in front of the API lacks the
    outer ``type``.
    """
    body = getattr(error, "body", None)
    inner = body.get("error") if isinstance(body, dict) else None
    if not isinstance(inner, dict):
        return False
    kind, message = inner.get("type"), inner.get("message")
    if not isinstance(kind, str) or not isinstance(message, str):
        return False
    if kind == "request_too_large" and _status_code(error) == _TOO_LARGE:
        return True
    return body is not None and body.get("type") == "error" and kind.endswith("_error")


def is_foreign(error: BaseException | None) -> bool:
    """Return whether something else than the API refused a call: a filter, a portal, a gateway."""
    status_code = _status_code(error)
    return status_code is not None and 400 <= status_code < 500 and not is_from_api(error)


def never_sent(error: BaseException | None) -> bool:
    """Return whether no byte of the request can have reached the server: it failed while connecting."""
    import httpx2

    connecting = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
    return any(isinstance(cause, connecting) for cause in _causes(error))


def is_spend_cap(error: BaseException | None) -> bool:
    """Return whether a spend limit was reached, which no waiting lifts before the month ends."""
    return getattr(error, "error_code", None) in _SPEND_CAPS


def is_transient(error: BaseException | None) -> bool:
    """Return whether the same call may well succeed a little later."""
    import anthropic

    status_code = _status_code(error)
    if status_code is not None:
        return (status_code in (408, 409, 425, 429) and not is_spend_cap(error)) or status_code >= 500
    return isinstance(error, anthropic.APIConnectionError | UnreadableAnswerError)


def is_not_found(error: BaseException | None) -> bool:
    """Return whether the API says that there is no such thing; another's 404 tells nothing."""
    return _status_code(error) == 404 and is_from_api(error)


def is_auth(error: BaseException | None) -> bool:
    """Return whether the credentials are missing, wrong, or not allowed to do this, by the API's own word."""
    import anthropic

    is_refused = _status_code(error) in (401, 403) and is_from_api(error)
    return is_refused or isinstance(error, anthropic.CredentialsError)


def is_forbidden(error: BaseException | None) -> bool:
    """Return whether the API knows the key and does not let it do this."""
    return _status_code(error) == 403 and is_from_api(error)


def retry_after_s(error: BaseException | None) -> float | None:
    """Return the seconds the server asked to wait, capped; None where it asked nothing."""
    return wait_asked_s(lower_headers(getattr(error, "response", None)))


def server_time(error: BaseException | None) -> datetime | None:
    """Return the server's clock when it answered with `error`, or None where no answer came."""
    told = getattr(error, "server_at", None)
    return told if isinstance(told, datetime) else date_of(lower_headers(getattr(error, "response", None)))


def _status_code(error: BaseException | None) -> int | None:
    import anthropic

    return error.status_code if isinstance(error, anthropic.APIStatusError) else None


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__
    return causes


def lower_headers(response: Any) -> Mapping[str, str]:
    """Return the headers of an SDK response under lower-case names; empty without one."""
    return {} if response is None else {name.lower(): value for name, value in response.headers.items()}
