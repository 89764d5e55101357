"""From the params of one request to the answer of a model that is not there.

The text comes from the caller (`answer`), or is an echo of the prompt, or a value that fits the schema asked for.
Everything around it (ids, usage, stop reasons, thinking, tools, the cut at ``max_tokens``) is made here, in the
shapes that recordings of the real API show.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from .models import Model
from .schema_values import value_for
from .tokens import CacheUse, text_tokens
from .validation import ApiError

__all__ = ["Answer", "OncePerRow", "Reply", "last_user_text", "make_message", "seeded"]


@dataclass(frozen=True, slots=True)
class Reply:
    """
    An answer given in full, where a text is not enough.

    Parameters
    ----------
    text
        The text of the answer.
    stop_reason
        Why the model stopped, such as ``"refusal"``, ``"max_tokens"`` or ``"pause_turn"``.
    content
        Content blocks in place of `text`.
    usage
        Fields of ``usage`` to override.
    error
        ``(type, message)``: the row errors in place of an answer.

    Examples
    --------
    >>> Reply("No.", stop_reason="refusal").stop_reason
    'refusal'
    """

    text: str = ""
    stop_reason: str = "end_turn"
    content: list[dict[str, Any]] | None = None
    usage: dict[str, Any] | None = None
    error: tuple[str, str] | None = None


Answer = str | Callable[[dict[str, Any]], "str | dict[str, Any] | Reply"] | None
"""A fixed text, a function of the params, or None for an echo of the prompt."""


class OncePerRow:
    """
    Calls an answer function once for each row, however many ways a row is tried.

    The function may count its calls or take its answers from a list; what it raised is its answer too.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Any]) -> None:
        self._answer = answer
        self._given: list[Any] = []

    def next_row(self) -> None:
        """Begin a row."""
        self._given = []

    def __call__(self, params: dict[str, Any]) -> Any:
        """Return the answer to this row, asking for it the first time."""
        if not self._given:
            try:
                self._given.append(self._answer(params))
            except Exception as error:
                # It is the caller's function: what it raised belongs where the caller looks for the row.
                self._given.append(Reply(error=("api_error", f"answer() raised {type(error).__name__}: {error}")))
        return self._given[0]


def seeded(*parts: object) -> random.Random:
    """Return a source of chance that these parts decide: the same parts, the same chances."""
    return random.Random("/".join(map(str, parts)))  # noqa: S311 - repeatable on purpose, and nothing is secret


def last_user_text(params: dict[str, Any]) -> str:
    """
    Return the text of the last user message.

    Examples
    --------
    >>> last_user_text({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]})
    'Hi'
    """
    for message in reversed(params["messages"]):
        if message["role"] == "user":
            content = message["content"]
            if isinstance(content, str):
                return content
            return "\n".join(str(block.get("text", "")) for block in content if block.get("type") == "text")
    return ""


def _schema_of(params: dict[str, Any]) -> dict[str, Any] | None:
    config = params.get("output_config")
    format_ = config.get("format") if isinstance(config, dict) else None
    return format_.get("schema") if isinstance(format_, dict) else None


def _ask(answer: Answer, params: dict[str, Any], draw: int) -> Reply:
    given: Any = answer
    if answer is None:
        schema = _schema_of(params)
        given = last_user_text(params) if schema is None else value_for(schema, seeded(draw))
    elif callable(answer):
        given = OncePerRow(answer)(params)
    if isinstance(given, Reply):
        return given
    if isinstance(given, str) and not (answer is None and _schema_of(params)):
        return Reply(given)
    return Reply(msgspec.json.encode(given).decode())


def message_id(draw: int, kind: str = "msg_01") -> str:
    """Return an id in the server's form: a prefix and 22 letters or digits."""
    return f"{kind}{draw:022x}"


def _thinks(params: dict[str, Any], model: Model) -> bool:
    kind = (params.get("thinking") or {}).get("type")
    return model.thinking == "always" or kind in ("enabled", "adaptive")


def _tool_call(params: dict[str, Any], draw: int) -> dict[str, Any] | None:
    choice = params.get("tool_choice") or {}
    if choice.get("type") not in ("any", "tool"):
        return None
    tools = [tool for tool in params.get("tools") or [] if "input_schema" in tool]
    if choice["type"] == "tool":
        tools = [tool for tool in tools if tool.get("name") == choice.get("name")]
    if not tools:
        raise ApiError("invalid_request_error", f"tool_choice: Tool '{choice.get('name')}' not found in provided tools")
    return {
        "type": "tool_use",
        "id": message_id(draw, "toolu_01"),
        "name": tools[0]["name"],
        "input": value_for(tools[0]["input_schema"], seeded(draw)),
    }


def make_message(
    answer: Answer, params: dict[str, Any], model: Model, cache: CacheUse, draw: int, *, service_tier: str = "batch"
) -> dict[str, Any]:
    """
    Make the message that answers one checked request.

    Parameters
    ----------
    answer
        Where the text comes from.
    params
        The request.
    model
        Its model.
    cache
        How its input tokens split.
    draw
        A random integer of this row; the same draw gives the same message.
    service_tier
        ``"batch"`` or ``"standard"``.

    Raises
    ------
    ApiError
        Where the answer function asked for an error, or the request cannot be answered.
    """
    reply = _ask(answer, params, draw)
    if reply.error is not None:
        raise ApiError(*reply.error)
    content = reply.content
    stop_reason, stop_sequence = reply.stop_reason, None
    n_thinking = 0
    budget: int = params["max_tokens"]
    if content is None:
        text = reply.text
        for sequence in params.get("stop_sequences") or ():
            if sequence and sequence in text:
                text, stop_reason, stop_sequence = text.split(sequence, 1)[0], "stop_sequence", sequence
        content = []
        if _thinks(params, model):
            n_thinking = min(budget, 16 + draw % 48)
            content.append({"type": "thinking", "thinking": "", "signature": message_id(draw, "sig_")})
        call = _tool_call(params, draw) if params.get("tool_choice") else None
        if call is not None:
            content.append(call)
            stop_reason, text = "tool_use", ""
            n_text = 8 + text_tokens(msgspec.json.encode(call["input"]).decode(), model)
        else:
            n_text = text_tokens(text, model)
        room = budget - n_thinking
        if n_text > room:
            # The cut is on a whole number of bytes per token, so that the tokens left are just those paid for.
            kept = text.encode("utf-8", "surrogatepass")[: room * model.decibytes_per_token // 10]
            text, n_text, stop_reason, stop_sequence = kept.decode("utf-8", "ignore"), room, "max_tokens", None
        if text:
            content.append({"type": "text", "text": text})
    else:
        n_text = text_tokens(msgspec.json.encode(content).decode(), model)
    usage: dict[str, Any] = {
        "input_tokens": cache.uncached,
        "cache_creation_input_tokens": cache.written_5m + cache.written_1h,
        "cache_read_input_tokens": cache.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": cache.written_5m,
            "ephemeral_1h_input_tokens": cache.written_1h,
        },
        "output_tokens": max(1, n_text + n_thinking) if stop_reason != "refusal" or content else 0,
    }
    if model.thinking == "always" or model.thinking == "adaptive":
        usage["output_tokens_details"] = {"thinking_tokens": n_thinking}
    if any(str(tool.get("type", "")).startswith("web_search") for tool in params.get("tools") or ()):
        usage["server_tool_use"] = {"web_search_requests": 1, "web_fetch_requests": 0}
    usage["service_tier"] = service_tier
    geo = params.get("inference_geo") or "global"
    usage["inference_geo"] = geo if model.tells_geo else "not_available"
    if reply.usage:
        usage.update(reply.usage)
    refused = {"type": "refusal", "category": None, "explanation": None} if stop_reason == "refusal" else None
    return {
        "model": model.id,
        "id": message_id(draw),
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "stop_details": refused,
        "usage": usage,
    }
