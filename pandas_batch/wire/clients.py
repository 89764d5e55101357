"""Which SDK client speaks for us: the user's own, or one built from the environment."""

from __future__ import annotations

import ipaddress
from typing import Any

from pandas_batch.errors import InputError

_WITHOUT_BATCHES = {"Bedrock": "Amazon Bedrock", "Vertex": "Google Vertex", "Foundry": "Microsoft Foundry"}
_CLIENT_HINT = "client=anthropic.Anthropic()"


def resolve_client(client: Any = None, *, api_key: str | None = None, asynchronous: bool = False) -> Any:
    """
    Return the SDK client to use: the given one, or one built from the environment.

    Parameters
    ----------
    client
        An ``anthropic.Anthropic``, ``AsyncAnthropic``, ``AnthropicAWS`` or ``AnthropicGoogleCloud``.
    api_key
        Used where no client is given; None or ``""`` leaves it to the environment.
    asynchronous
        Whether the client that is built is one for a running event loop. It keeps no connection open between two
        calls: there is nothing to close, and it may serve one loop after the other.

    Raises
    ------
    InputError
        If there are no credentials, the client has no Message Batches, or its key would travel unencrypted.

    Examples
    --------
    >>> resolve_client("https://example.com")
    Traceback (most recent call last):
    ...
    pandas_batch.errors.InputError: client= is a str, which is no client of the anthropic SDK.
      Nothing was sent, nothing was billed.
        client=anthropic.Anthropic()
    """
    import anthropic

    if api_key is not None and not isinstance(api_key, str):
        # The value itself is not shown, whatever it is.
        raise InputError(
            f"api_key is a {type(api_key).__name__}; it has to be text.",
            hint="leave it out, with ANTHROPIC_API_KEY in the environment",
        )
    if client is None:
        client = (anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic)(api_key=api_key or None)
        if asynchronous:
            client = client.copy(http_client=without_idle_connections())
    _refuse_wrong_kind(client)
    _refuse_open_transport(client)
    _refuse_unusable_key(client)
    if client.is_closed():
        raise InputError("The client is closed.", hint=_CLIENT_HINT)
    return client


def address_of(client: Any = None) -> tuple[str, str]:
    """
    Return the base URL and the API version that `client`, or one built from the environment, would speak to.

    No credentials are needed: what is in the store already can be had without a key.

    Examples
    --------
    >>> address_of()[0]
    'https://api.anthropic.com'
    """
    import anthropic

    if client is None:
        with anthropic.Anthropic() as built:
            return address_of(built)
    _refuse_wrong_kind(client)
    headers = {name.lower(): value for name, value in client.default_headers.items()}
    return str(client.base_url).rstrip("/"), str(headers.get("anthropic-version", ""))


def _refuse_wrong_kind(client: Any) -> None:
    import anthropic

    for cls in type(client).__mro__:
        for mark, name in _WITHOUT_BATCHES.items():
            if mark in cls.__name__ and cls.__module__.startswith("anthropic."):
                raise InputError(
                    f"client= is an {type(client).__name__}: {name} does not offer the Message Batches API.",
                    hint=f"{_CLIENT_HINT}   # or AnthropicAWS, AnthropicGoogleCloud",
                )
    if not isinstance(client, anthropic.Anthropic | anthropic.AsyncAnthropic):
        # The value itself is not shown: the usual mistake is to pass the key.
        raise InputError(
            f"client= is a {type(client).__name__}, which is no client of the anthropic SDK.", hint=_CLIENT_HINT
        )


def _refuse_open_transport(client: Any) -> None:
    url = client.base_url
    if url.userinfo:
        raise InputError(
            f"The base URL of the client (host {url.host}) carries a user name or a password, which would take the "
            "place of the API key and be shown wherever the address is.",
            hint='base_url="https://' + url.host + '"',
        )
    if url.scheme == "https" or (url.scheme == "http" and is_loopback(url.host)):
        return
    raise InputError(
        f"The base URL {str(url).rstrip('/')!r} is not encrypted: key and prompts could be read on the way.",
        hint=f'base_url="https://{url.host}"   # plain http only on this machine (127.0.0.1, localhost)',
    )


def is_loopback(host: str) -> bool:
    """
    Return whether `host` is this machine.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("127.0.0.1.nip.io")
    (True, True, True, False)
    """
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _refuse_unusable_key(client: Any) -> None:
    for name in ("api_key", "auth_token"):
        key = getattr(client, name, None)
        # Such a key would fail on the way into a header, in an error that quotes it.
        if isinstance(key, str) and (not key.isascii() or not key.isprintable() or " " in key):
            raise InputError(
                f"The {name} holds a line break, a blank or a letter that no key has (it is not shown here).",
                hint="Copy it again, without what stands around it.",
            )
    given = {header.lower() for header, value in client.default_headers.items() if isinstance(value, str)}
    if client.auth_headers or client.custom_auth is not None or given & {"authorization", "x-api-key"}:
        return
    if any(cls.__name__.endswith(("AnthropicAWS", "AnthropicGoogleCloud")) for cls in type(client).__mro__):
        return
    raise InputError(
        "No credentials for the Claude API were found.",
        hint='Set ANTHROPIC_API_KEY, or pass client=anthropic.Anthropic(api_key="...").\n'
        "Without a key, try it with the simulator: client=pandas_batch.simulator.serve().client()",
    )


def without_idle_connections() -> Any:
    """Return an asynchronous HTTP client with the SDK's defaults that closes each connection after its call."""
    import anthropic
    import httpx2

    most = anthropic.DEFAULT_CONNECTION_LIMITS.max_connections
    limits = httpx2.Limits(max_connections=most, max_keepalive_connections=0)
    return anthropic.DefaultAsyncHttpxClient(limits=limits)
