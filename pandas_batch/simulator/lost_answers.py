"""Answers that fail: HTTP errors made to order, and good answers that are lost on their way."""

from __future__ import annotations

import msgspec

from .faults import ErrorAnswer, LostAnswer
from .http import Connection, Request, Response
from .validation import ApiError

__all__ = ["error_response", "lose"]

PORTAL_PAGE = (
    b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Accept the terms to go online.</body></html>"
)

_KINDS = {
    400: ("invalid_request_error", "The request was refused by the simulator."),
    401: ("authentication_error", "API key is invalid."),
    402: ("billing_error", "Your credit balance is too low to access the API."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not found"),
    408: ("timeout_error", "Request timed out"),
    409: ("invalid_request_error", "The resource was changed by another request."),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your rate limit."),
    500: ("api_error", "Internal server error"),
    503: ("api_error", "Service unavailable"),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}


def error_response(fault: ErrorAnswer, request_id: str) -> Response:
    """Return the HTTP error that a fault asks for, in the API's form."""
    kind, message = _KINDS.get(fault.status, ("api_error", "Internal server error"))
    details = {"error_code": fault.error_code} if fault.error_code else None
    error = ApiError(fault.kind or kind, fault.message or message, details=details)
    if fault.body is not None:
        return Response(fault.status, (fault.body.encode(),), fault.content_type)
    headers = {"retry-after": fault.retry_after} if fault.retry_after is not None else {}
    return Response(fault.status, (error.body(request_id),), headers=headers)


def lose(fault: LostAnswer, response: Response, request: Request, connection: Connection) -> Response:
    """Turn the answer into what the fault leaves of it; a connection that only dies does so here."""
    if fault.how == "reset":
        connection.reset()
    if fault.how == "stall":
        connection.stall(fault.stall_s)
    if fault.how in ("stall", "close"):
        connection.hang_up()
    if fault.how == "html":
        return Response(200, (PORTAL_PAGE,), "text/html; charset=utf-8")
    if fault.how == "empty_object":
        return Response(200, (b"{}",))
    if fault.how in ("redirect_302", "redirect_307"):
        return Response(int(fault.how[-3:]), (), "", {"location": fault.location or request.path})
    body = b"".join(response.blocks) or msgspec.json.encode({"id": "msgbatch_0", "type": "message_batch"})
    if fault.how == "bad_json":
        return Response(response.status, (body[: len(body) // 2],))
    return Response(response.status, (body[: len(body) // 2],), framing="length", n_promised=len(body), cut="close")
