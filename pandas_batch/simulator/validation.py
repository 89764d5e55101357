"""What the server refuses in the params of one request, and in which words.

Params are checked while their row is processed and cost that row only; what refuses a whole create is in `intake`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from .models import Model, find_model

__all__ = ["ApiError", "check_params", "invalid"]

API_VERSIONS = ("2023-01-01", "2023-06-01", "2026-10-21")
NO_SAMPLING_SINCE = "2026-10-21"

_BLOCK_TYPES = frozenset(
    (
        "bash_code_execution_tool_result",
        "code_execution_tool_result",
        "container_upload",
        "document",
        "image",
        "redacted_thinking",
        "search_result",
        "server_tool_use",
        "text",
        "text_editor_code_execution_tool_result",
        "thinking",
        "tool_reference",
        "tool_result",
        "tool_search_tool_result",
        "tool_use",
        "web_fetch_tool_result",
        "web_search_tool_result",
    )
)
_COUNTED_FIELDS = frozenset(
    ("cache_control", "messages", "model", "output_config", "system", "thinking", "tool_choice", "tools")
)
_FIELDS = _COUNTED_FIELDS | {
    "container",
    "diagnostics",
    "inference_geo",
    "max_tokens",
    "metadata",
    "service_tier",
    "stop_sequences",
    "stream",
    "temperature",
    "top_k",
    "top_p",
}
_BETA_FIELDS = frozenset(("context_management", "mcp_servers"))
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class ApiError(Exception):
    """
    A refusal, of a call or of one row.

    Attributes
    ----------
    kind
        The API's error type, such as ``"invalid_request_error"``.
    message
        Its text.
    status
        The HTTP status, where a whole call is refused.
    """

    def __init__(self, kind: str, message: str, *, status: int = 0, details: dict[str, Any] | None = None) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message
        self.status = status or _STATUS.get(kind, 500)
        self.details = details

    def body(self, request_id: str | None) -> bytes:
        """Return the JSON that the HTTP answer carries."""
        error: dict[str, Any] = {"type": self.kind, "message": self.message}
        if self.details:
            error["details"] = self.details
        return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})


def invalid(message: str) -> ApiError:
    """Return an ``invalid_request_error``."""
    return ApiError("invalid_request_error", message)


def check_params(
    params: Any,
    *,
    version: str,
    betas: Collection[str] = (),
    batch: bool = True,
    counting: bool = False,
) -> Model:
    """
    Check the params of one request and return its model.

    Parameters
    ----------
    params
        The decoded params.
    version
        The ``anthropic-version`` the request came under.
    betas
        The beta headers it came with.
    batch
        Whether it is a row of a batch (some fields are refused there only).
    counting
        Whether tokens are only counted, which takes fewer fields.

    Raises
    ------
    ApiError
        What the server would say.
    """
    if not isinstance(params, dict):
        raise invalid("params: Input should be a valid dictionary or object to extract fields from")
    known = _COUNTED_FIELDS if counting else _FIELDS
    if not known.issuperset(params):
        for name in params:
            if name not in known and not (betas and name in _BETA_FIELDS):
                raise invalid(f"{name}: Extra inputs are not permitted")
    for name in ("model", "messages") if counting else ("model", "max_tokens", "messages"):
        if name not in params:
            raise invalid(f"{name}: Field required")
    model = _check_model(params["model"], batch=batch, live=not batch and not counting)
    if not counting:
        _check_max_tokens(params["max_tokens"], model, betas, batch=batch)
    if len(params) > (2 if counting else 3):
        _check_options(params, model, version, betas, batch=batch)
    _check_messages(params["messages"], model, version)
    return model


def _check_model(name: object, *, batch: bool, live: bool) -> Model:
    if not isinstance(name, str):
        raise invalid("model: Input should be a valid string")
    model = find_model(name)
    if model is None or model.lifecycle == "retired":
        raise ApiError("not_found_error", f"model: {name}")
    if batch and not model.batch:
        raise invalid(f"model: {name} is not supported in the Message Batches API")
    if live and not model.live:
        raise invalid(f"model: {name} is not supported in the Messages API")
    return model


def _check_max_tokens(value: object, model: Model, betas: Collection[str], *, batch: bool) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid("max_tokens: Input should be a valid integer")
    if value < 1 and (batch or value < 0):
        raise invalid("max_tokens: must be greater than or equal to 1")
    limit = 300_000 if "output-300k-2026-03-24" in betas else model.max_tokens
    if value > limit:
        raise invalid(
            f"max_tokens: {value} > {limit}, which is the maximum allowed number of output tokens for {model.id}"
        )


def _check_options(params: dict[str, Any], model: Model, version: str, betas: Collection[str], *, batch: bool) -> None:
    if params.get("stream") and batch:
        raise invalid('"stream=True" is not supported in the Message Batches API')
    if version >= NO_SAMPLING_SINCE:
        for name in ("temperature", "top_p", "top_k"):
            if name in params:
                raise invalid(f"{name}: not supported since anthropic-version {NO_SAMPLING_SINCE}")
    thinking = params.get("thinking")
    if thinking is not None:
        _check_thinking(thinking, params, model, betas)
    choice = params.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") in ("any", "tool") and not model.forced_tools:
        raise invalid(f"tool_choice: forced tool use is not supported for {model.id}")
    if isinstance(choice, dict) and choice.get("type") in ("any", "tool"):
        _check_forced_tool(choice, params)
    _check_stop_sequences(params.get("stop_sequences"))
    _check_system(params.get("system", ""))
    schema = (params.get("output_config") or {}).get("format")
    if schema is not None:
        _check_format(schema)
    _check_tool_names(params.get("tools"))
    _check_cache_marks(params)


def _check_forced_tool(choice: dict[str, Any], params: dict[str, Any]) -> None:
    tools = params.get("tools")
    if not tools:
        raise invalid("tool_choice: may only be specified while providing tools")
    names = [tool.get("name") for tool in tools if isinstance(tool, dict)]
    if choice["type"] == "tool" and choice.get("name") not in names and all(names):
        raise invalid(f"Tool '{choice.get('name')}' not found in provided tools")
    thinking = params.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")


def _check_tool_names(tools: object) -> None:
    names = [tool.get("name") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    known = [name for name in names if name]
    if len(set(known)) < len(known):
        raise invalid("tools: Tool names must be unique.")


def _check_stop_sequences(sequences: object) -> None:
    for position, sequence in enumerate(sequences if isinstance(sequences, list) else ()):
        if not isinstance(sequence, str):
            raise invalid(f"stop_sequences.{position}: Input should be a valid string")
        if not sequence.strip():
            raise invalid("stop_sequences: each stop sequence must contain non-whitespace")


def _check_thinking(thinking: Any, params: dict[str, Any], model: Model, betas: Collection[str]) -> None:
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("enabled", "disabled", "adaptive", "between_tools"):
        raise invalid("thinking.type: Input should be 'enabled', 'disabled' or 'adaptive'")
    if kind == "enabled":
        if model.thinking != "optional":
            raise invalid(
                '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and '
                '"output_config.effort"'
            )
        budget = thinking.get("budget_tokens", 0)
        if budget < 1024:
            raise invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        interleaved = bool(params.get("tools")) and any(beta.startswith("interleaved-thinking-") for beta in betas)
        if budget >= params.get("max_tokens", budget + 1) and not interleaved:
            raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if kind == "adaptive" and model.thinking == "optional" and not model.tells_geo:
        raise invalid(f"adaptive thinking is not supported on this model: {model.id}")
    if kind == "disabled" and model.thinking == "always":
        raise invalid(f"thinking.type: 'disabled' is not supported for {model.id}")


def _check_system(system: object) -> None:
    if isinstance(system, str):
        return
    if not isinstance(system, list):
        raise invalid("system: Input should be a valid string")
    for position, block in enumerate(system):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise invalid(f"system.{position}: Input tag does not match any of the expected tags: 'text'")
        if not block.get("text"):
            raise invalid("system: text content blocks must be non-empty")


def _check_messages(messages: object, model: Model, version: str) -> None:
    if not isinstance(messages, list):
        raise invalid("messages: Input should be a valid list")
    if not messages:
        raise invalid("messages: at least one message is required")
    for position, message in enumerate(messages):
        where = f"messages.{position}"
        if not isinstance(message, dict):
            raise invalid(f"{where}: Input should be a valid dictionary or object to extract fields from")
        role = message.get("role")
        if role == "system":
            raise invalid(
                'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, '
                'not "system" as an input message role.'
            )
        if role not in ("user", "assistant"):
            raise invalid(f"{where}.role: Input should be 'user' or 'assistant'")
        for name in message:
            if name not in ("role", "content"):
                raise invalid(f"{where}.{name}: Extra inputs are not permitted")
        last = position == len(messages) - 1
        _check_content(message.get("content"), where, role, last=last, version=version)
    if messages[-1]["role"] == "assistant" and not model.prefill and not _goes_on(messages[-1]["content"]):
        raise invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )


def _goes_on(content: object) -> bool:
    """Return whether an assistant's last message is an answer that paused in the loop of a server's tool."""
    blocks = content if isinstance(content, list) else []
    return any(isinstance(block, dict) and block.get("type") == "server_tool_use" for block in blocks)


def _check_content(content: object, where: str, role: str, *, last: bool, version: str) -> None:
    if isinstance(content, str):
        if not content and not (last and role == "assistant"):
            raise invalid(f"{where}: {role} messages must have non-empty content")
        if content and not content.strip():
            raise invalid("messages: text content blocks must contain non-whitespace text")
        return
    if not isinstance(content, list):
        raise invalid(f"{where}.content: Input should be a valid string")
    if not content:
        raise invalid(f"{where}: {role} messages must have non-empty content")
    for position, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in _BLOCK_TYPES:
            raise invalid(
                f"{where}.content.{position}: Input tag '{kind}' found using 'type' does not match any of the "
                f"expected tags: {', '.join(repr(name) for name in sorted(_BLOCK_TYPES))}"
            )
        if kind == "text" and not block.get("text"):
            raise invalid("messages: text content blocks must be non-empty")
        if version >= NO_SAMPLING_SINCE:
            if kind == "document" and role == "assistant":
                raise invalid(f"{where}.content.{position}: document blocks are not allowed in assistant messages")
            if kind == "text" and role == "user" and block.get("citations"):
                raise invalid(f"{where}.content.{position}.citations: must be empty in user messages")


def _check_cache_marks(params: dict[str, Any]) -> None:
    """Refuse marks of unknown life, more than four, and one of an hour after one of five minutes."""
    blocks: list[Any] = [*(params.get("tools") or [])]
    if isinstance(params.get("system"), list):
        blocks += params["system"]
    for message in params["messages"] if isinstance(params["messages"], list) else []:
        if isinstance(message, dict) and isinstance(message.get("content"), list):
            for block in message["content"]:
                inner = block.get("content") if isinstance(block, dict) else None
                blocks += [*(inner if isinstance(inner, list) else []), block]
    marks = [
        block["cache_control"] for block in [*blocks, params] if isinstance(block, dict) and block.get("cache_control")
    ]
    lives = [str(mark.get("ttl") or "5m") if isinstance(mark, dict) else "" for mark in marks]
    for life in lives:
        if life not in ("5m", "1h"):
            raise invalid("cache_control.ephemeral.ttl: Input should be '5m' or '1h'")
    if len(marks) > 4:
        raise invalid(f"A maximum of 4 blocks with cache_control may be provided. Found {len(marks)}.")
    if lives != sorted(lives):
        raise invalid(
            "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. "
            "Note that blocks are processed in the following order: `tools`, `system`, `messages`."
        )


_UNSUPPORTED_KEYWORDS = {
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength"),
    "array": ("maxItems", "uniqueItems"),
    "object": ("minProperties", "maxProperties", "patternProperties"),
}


def _check_format(format_: Any) -> None:
    if not isinstance(format_, dict) or format_.get("type") != "json_schema":
        raise invalid("output_config.format.type: Input should be 'json_schema'")
    if not isinstance(format_.get("schema"), dict):
        raise invalid("output_config.format.schema: Field required")
    _check_schema(format_["schema"])


def _check_schema(schema: Any) -> None:
    where = "output_config.format.schema"
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    bad = [name for name in _UNSUPPORTED_KEYWORDS.get(kind, ()) if name in schema] if isinstance(kind, str) else []
    if bad:
        raise invalid(f"{where}: For '{kind}' type, properties {', '.join(bad)} are not supported")
    if kind == "object" and schema.get("additionalProperties") is not False:
        raise invalid(f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    for key in ("properties", "$defs", "definitions"):
        inner = schema.get(key)
        for part in inner.values() if isinstance(inner, dict) else ():
            _check_schema(part)
    for key in ("anyOf", "allOf", "oneOf", "prefixItems"):
        for part in schema.get(key) or ():
            _check_schema(part)
    _check_schema(schema.get("items"))
