"""What an error of the SDK means: only the API's own word refuses, and whatever may pass is asked again."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import pytest

from pandas_batch.engine.posting import _words
from pandas_batch.errors import InputError, UnreadableAnswerError
from pandas_batch.wire.failures import (
    Known,
    create_outcome,
    is_auth,
    is_forbidden,
    is_foreign,
    is_from_api,
    is_not_found,
    is_transient,
    never_sent,
)

REQUEST = httpx2.Request("POST", "https://api.example/v1/messages/batches")
STATUSES = range(400, 600)


def error(status: int, body: Any) -> anthropic.APIStatusError:
    return anthropic.APIStatusError("no", response=httpx2.Response(status, request=REQUEST), body=body)


def told(kind: Any = "invalid_request_error", message: Any = "no", **more: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, **more}


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_of_the_api_and_of_somebody_else(status: int) -> None:
    """Of the API a refusal is believed; of anybody else nothing is, and below 500 it is named as no API's."""
    refused = Known("refused") if status in (400, 401, 402, 403, 404, 422) else Known("unknown", "lost")
    expected = {413: Known("too_large"), 429: Known("retry"), 529: Known("unknown", "overloaded")}.get(status, refused)
    assert create_outcome(error(status, told())) == expected
    foreign = Known("unknown", "not_the_api" if status < 500 else "lost")
    assert create_outcome(error(status, "<html>")) == (Known("unknown", "too_large") if status == 413 else foreign)


@pytest.mark.parametrize("status", STATUSES)
def test_what_a_status_says_of_a_call(status: int) -> None:
    """Who answered decides whether a 401, 403 or 404 means anything; what passes is asked again, whoever says it."""
    api, other = error(status, told()), error(status, "<html>")
    assert (is_foreign(api), is_foreign(other)) == (False, status < 500)
    assert (is_auth(api), is_auth(other)) == (status in (401, 403), False)
    assert (is_forbidden(api), is_forbidden(other)) == (status == 403, False)
    assert (is_not_found(api), is_not_found(other)) == (status == 404, False)
    assert is_transient(api) == is_transient(other) == (status in (408, 409, 425, 429) or status >= 500)


@pytest.mark.parametrize(
    ("body", "is_ours"),
    [
        (told(), True),
        (told(request_id="r"), True),
        (told(kind="denied"), False),
        (told(kind=None), False),
        (told(message=None), False),
        (told(type="problem"), False),
        ({"error": {"type": "invalid_request_error", "message": "no"}}, False),
        ({"error": "invalid_request_error"}, False),
        ({}, False),
        ("text", False),
        (None, False),
        (["error"], False),
    ],
)
def test_the_error_object_of_the_api(body: Any, is_ours: bool) -> None:
    """Its three parts are there, each of its type, and the kind is one of errors."""
    assert is_from_api(error(400, body)) is is_ours
    assert not is_from_api(None)


@pytest.mark.parametrize(("status", "is_ours"), [(413, True), (400, False)])
def test_the_size_limit_in_front_of_the_api_has_a_shape_of_its_own(status: int, is_ours: bool) -> None:
    """Its 413 lacks the outer type, and no other status does."""
    assert is_from_api(error(status, {"error": {"type": "request_too_large", "message": "no"}})) is is_ours


@pytest.mark.parametrize("kind", [httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError])
def test_what_failed_while_connecting_was_never_sent(kind: type[Exception]) -> None:
    """It is tried again at once; what broke later is looked for."""
    late = anthropic.APIConnectionError(request=REQUEST)
    late.__cause__ = httpx2.ReadError("reset")
    assert (never_sent(late), create_outcome(late)) == (False, Known("unknown", "lost"))
    late.__cause__.__cause__ = kind("no")
    assert (never_sent(late), create_outcome(late)) == (True, Known("retry"))
    assert is_transient(late)


def test_other_errors() -> None:
    """An answer that cannot be read may pass; a mistake of ours does not, and has no status."""
    assert is_transient(UnreadableAnswerError("broken"))
    assert not is_transient(ValueError("x"))
    assert not any(of(None) for of in (is_transient, is_foreign, is_auth, is_forbidden, is_not_found, never_sent))
    ring = ValueError("a")
    ring.__cause__ = ring
    assert not never_sent(ring)


def test_the_words_of_an_error() -> None:
    """Ours say what is wrong; others are named by their kind; without one there are none."""
    assert (_words(None), _words(InputError("It is odd."))) == ("", "It is odd.")
    assert _words(ValueError("odd")) == "ValueError: odd"
