"""What an error of the SDK means for a batch: was it made, may the call be repeated, what time was it there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pandas_batch.errors import UnreadableAnswerError

from .flows import date_of, wait_asked_s

Outcome = Literal["created", "refused", "retry", "too_large", "unknown"]

_REFUSED = frozenset({400, 401, 402, 403, 404, 422})
_SPEND_CAPS = frozenset({"enforced_spend_limit_reached", "contract_spend_limit_reached", "ramp_limit_exceeded"})


def create_outcome(error: Exception) -> Outcome:
    """Return what is known of a create that failed with `error`; ``unknown`` wherever there is a doubt."""
    import anthropic

    status_code = _status_code(error)
    if status_code is not None:
        if status_code == 413:
            return "too_large"
        if status_code == 429:
            return "refused" if is_spend_cap(error) else "retry"
        return "refused" if status_code in _REFUSED else "unknown"
    if never_sent(error):
        return "retry"
    # Credentials that cannot be had fail before anything is sent.
    return "refused" if isinstance(error, anthropic.CredentialsError) else "unknown"


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
    """Return whether the server says that there is no such thing."""
    return _status_code(error) == 404


def is_auth(error: BaseException | None) -> bool:
    """Return whether the credentials are missing, wrong, or not allowed to do this."""
    import anthropic

    return _status_code(error) in (401, 403) or isinstance(error, anthropic.CredentialsError)


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
