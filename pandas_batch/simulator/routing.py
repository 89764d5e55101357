"""Which endpoint a request means, and who sends it."""

from __future__ import annotations

from dataclasses import dataclass

from .validation import API_VERSIONS, ApiError, invalid

__all__ = ["Caller", "caller_of", "route"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and under which version of the API."""

    workspace_id: str
    api_version: str
    betas: tuple[str, ...]


def route(method: str, path: str) -> tuple[str, str]:
    """
    Return the name of the endpoint and the id in the path.

    Examples
    --------
    >>> route("GET", "/v1/messages/batches/msgbatch_1/results")
    ('results', 'msgbatch_1')
    """
    parts = path.strip("/").split("/")
    if parts[:3] == ["v1", "messages", "batches"]:
        rest = parts[3:]
        name = {
            ("POST", 0): "create",
            ("GET", 0): "list",
            ("GET", 1): "retrieve",
            ("DELETE", 1): "delete",
        }.get((method, len(rest)), "")
        if len(rest) == 2:
            name = {("POST", "cancel"): "cancel", ("GET", "results"): "results"}.get((method, rest[1]), "")
        return name, rest[0] if rest else ""
    if parts[:2] == ["v1", "models"] and method == "GET" and len(parts) <= 3:
        return ("model", parts[2]) if len(parts) == 3 else ("models", "")
    name = {("POST", "v1/messages"): "messages", ("POST", "v1/messages/count_tokens"): "count_tokens"}.get(
        (method, "/".join(parts)), ""
    )
    return name, ""


def caller_of(headers: dict[str, str], workspaces: dict[str, str], default_workspace: str) -> Caller:
    """
    Say who calls.

    Raises
    ------
    ApiError
        Without a key (401), or with a version that is missing or unknown (400).
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    if not key:
        raise ApiError("authentication_error", "x-api-key header is required")
    if key == "invalid":
        raise ApiError("authentication_error", "API key is invalid.")
    version = headers.get("anthropic-version", "")
    if not version:
        raise invalid("anthropic-version: header is required")
    if version not in API_VERSIONS:
        raise invalid(f'anthropic-version: "{version}" is not a valid version')
    betas = tuple(beta.strip() for beta in headers.get("anthropic-beta", "").split(",") if beta.strip())
    return Caller(workspaces.get(key, default_workspace), version, betas)
