"""What in a request lets its bill grow beyond its prompt and ``max_tokens``: cache marks, and what the server adds.

A budget is a promise about money. Whatever is not known to be bounded counts as unbounded here: a parameter or a beta
that came after this version may add turns of the model, or tools that run at the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pandas_batch.errors import clip

_BOUNDED_PARAMS = frozenset(
    {
        "billing_policy",
        "cache_control",
        "diagnostics",
        "inference_geo",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "service_tier",
        "stop_sequences",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
        "user_profile_id",
    }
)
"""Parameters that add nothing to the prompt, or nothing that cannot be counted, and no turn of the model."""

_ADDS = {
    "container": "container= lets the server run tools",
    "context_management": "context_management= may add turns of the model",
    "compaction": "compaction= may add turns of the model",
    "mcp_servers": "mcp_servers= let the server call tools",
    "fallbacks": "fallbacks= may add turns of other models",
}
SERVER_TOOLS = "server tools add what they find to the input"

# Tools whose calls the caller answers, in a request of its own; every other kind runs at the server
# (https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview).
_CLIENT_TOOL = re.compile(r"custom|(?:bash|text_editor|computer|memory)_\d{8}")

# Betas that change how an answer is made or shown, and add neither turns nor tools of the server
# (https://platform.claude.com/docs/en/api/beta-headers).
_BOUNDED_BETA = re.compile(
    r"(?:cache-diagnosis|computer-use|context-1m|dev-full-thinking|effort|extended-cache-ttl|files-api|"
    r"fine-grained-tool-streaming|interleaved-thinking|max-tokens-3-5-sonnet|message-batches|"
    r"mid-conversation-output-config|model-context-window-exceeded|output-128k|output-300k|pdfs|prompt-caching|"
    r"structured-outputs|task-budgets|thinking-binding-controls|thinking-display-updates|thinking-token-count|"
    r"token-counting|token-efficient-tools|user-profiles|user-profiles-billing)-\d{4}-\d{2}-\d{2}"
)

MARK = b'"cache_control":{'
"""A cache mark in the bytes of a request. Quotes inside a JSON text are escaped, so no prompt holds it."""


def open_ended(params: Mapping[str, Any]) -> list[str]:
    """
    Say what in the params of a request (less its messages) its cost cannot be bounded for, one phrase each.

    Examples
    --------
    >>> open_ended({"model": "m", "tools": [{"name": "t", "input_schema": {}}]})
    []
    >>> open_ended({"model": "m", "context_management": {"edits": []}})
    ['context_management= may add turns of the model']
    """
    found = []
    for name, value in params.items():
        if value is None or value == [] or value == {}:
            continue
        if name == "tools":
            if not isinstance(value, list) or not all(map(_is_client_tool, value)):
                found.append(SERVER_TOOLS)
        elif name not in _BOUNDED_PARAMS:
            found.append(_ADDS.get(name) or f"what {clip(name, 40)}= adds is not known here")
    return found


def open_ended_betas(betas: Iterable[str]) -> list[str]:
    """
    Say which betas may add turns or tools of the server, one phrase each.

    Examples
    --------
    >>> open_ended_betas(["output-300k-2026-03-24", "compact-2026-01-12"])
    ["the beta 'compact-2026-01-12' may add turns or tools of the server"]
    """
    return [
        f"the beta {clip(beta, 60)!r} may add turns or tools of the server"
        for beta in betas
        if not _BOUNDED_BETA.fullmatch(beta)
    ]


def _is_client_tool(tool: Any) -> bool:
    if not isinstance(tool, Mapping):
        return False
    kind = tool.get("type")
    return kind is None or (isinstance(kind, str) and _CLIENT_TOOL.fullmatch(kind) is not None)


def n_marks_in(value: Any) -> int:
    """
    Count the cache marks in a part of a request, however deep.

    Examples
    --------
    >>> n_marks_in([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}])
    1
    """
    if isinstance(value, Mapping):
        own = isinstance(value.get("cache_control"), Mapping)
        return int(own) + sum(n_marks_in(item) for item in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return sum(map(n_marks_in, value))
    return 0


def costs_more_for_place(inference_geo: Any) -> bool:
    """Return whether a request may be billed at the dearer rate of one place."""
    return inference_geo not in (None, "global")
