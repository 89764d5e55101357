"""Counting tokens, and which of them a prompt cache would have held.

The tokenizer is a fixed number of UTF-8 bytes per token: close enough for costs to look real, and the same function
answers `count_tokens` and fills `usage`, so the two always agree.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from .models import Model

__all__ = ["TOKENS_OF_PLAIN_REQUEST", "CacheUse", "PromptCache", "count_input_tokens", "text_tokens"]

_TOKENS_BEFORE_PROMPT = 4
_TOKENS_PER_MESSAGE = 3
TOKENS_OF_PLAIN_REQUEST = _TOKENS_BEFORE_PROMPT + _TOKENS_PER_MESSAGE
_TOKENS_PER_PDF_PAGE = 1600
_TOKENS_PER_UNSEEN_IMAGE = 1500
_MAX_IMAGE_TOKENS = 1600
_TOKENS_FOR_TOOLS = 340
_TTL_S = {"5m": 300.0, "1h": 3600.0}


def text_tokens(text: str, model: Model) -> int:
    """
    Return the number of tokens of a text.

    Examples
    --------
    >>> from pandas_batch.simulator.models import find_model
    >>> text_tokens("twelve chars", find_model("claude-haiku-4-5"))
    3
    """
    n_bytes = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-n_bytes * 10 // model.decibytes_per_token)


def _json_tokens(value: object, model: Model) -> int:
    return -(-len(msgspec.json.encode(value)) * 10 // model.decibytes_per_token)


def _image_tokens(source: dict[str, Any]) -> int:
    if source.get("type") != "base64":
        return _TOKENS_PER_UNSEEN_IMAGE
    import base64
    import binascii

    data = source.get("data", "")
    try:
        head = base64.b64decode(data[:64] + "=" * (-len(data[:64]) % 4))
    except (binascii.Error, TypeError, ValueError):
        return _TOKENS_PER_UNSEEN_IMAGE
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
        width, height = struct.unpack(">II", head[16:24])
        return int(min(_MAX_IMAGE_TOKENS, max(1, width * height // 750)))
    return min(_MAX_IMAGE_TOKENS, max(1, len(data) // 100))


def _document_tokens(source: dict[str, Any], model: Model) -> int:
    kind = source.get("type")
    if kind == "text":
        return text_tokens(str(source.get("data", "")), model)
    if kind == "content":
        content = source.get("content")
        return sum(block_tokens(block, model) for block in _blocks(content))
    # About 50 kB of PDF to a page; the bytes arrive as base64.
    return _TOKENS_PER_PDF_PAGE * max(1, len(str(source.get("data", ""))) // 70_000)


def _blocks(content: object) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content if isinstance(content, list) else []


def block_tokens(block: object, model: Model) -> int:
    """Return the number of tokens of one content block."""
    if not isinstance(block, dict):
        return 0
    kind = block.get("type")
    if kind == "text":
        return text_tokens(str(block.get("text", "")), model)
    source = block.get("source")
    if kind == "image" and isinstance(source, dict):
        return _image_tokens(source)
    if kind == "document" and isinstance(source, dict):
        return _document_tokens(source, model)
    if kind == "tool_result":
        return 4 + sum(block_tokens(inner, model) for inner in _blocks(block.get("content")))
    return _json_tokens(block, model)


@dataclass(slots=True)
class _Part:
    """A stretch of the prompt that a cache breakpoint may end."""

    n_tokens: int
    block: object
    ttl: str | None


def _parts(params: dict[str, Any], model: Model) -> Iterator[_Part]:
    yield _Part(_TOKENS_BEFORE_PROMPT, params.get("model"), None)
    schema = (params.get("output_config") or {}).get("format")
    if schema:
        yield _Part(_json_tokens(schema, model) + 12, schema, None)
    tools = params.get("tools") or []
    if tools:
        yield _Part(_TOKENS_FOR_TOOLS, None, None)
    for tool in tools:
        yield _Part(_json_tokens(tool, model), tool, _ttl(tool))
    for block in _blocks(params.get("system")):
        yield _Part(block_tokens(block, model), block, _ttl(block))
    for message in params.get("messages") or []:
        yield _Part(_TOKENS_PER_MESSAGE, message.get("role"), None)
        for block in _blocks(message.get("content")):
            yield _Part(block_tokens(block, model), block, _ttl(block))


def _ttl(block: object) -> str | None:
    control = block.get("cache_control") if isinstance(block, dict) else None
    return str(control.get("ttl", "5m")) if isinstance(control, dict) else None


def count_input_tokens(params: dict[str, Any], model: Model) -> int:
    """Return the number of input tokens of a request, cached or not."""
    return sum(part.n_tokens for part in _parts(params, model))


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How the input of one request splits; the four add up to its input tokens."""

    uncached: int
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0


class PromptCache:
    """
    What earlier requests left in the prompt cache.

    The first request with a marked prefix writes it, those after it read it until its time to live (counted from
    the last use) is over. A prefix shorter than the model's minimum is never cached.
    """

    def __init__(self) -> None:
        self._good_until: dict[bytes, float] = {}

    def use(self, params: dict[str, Any], model: Model, at_s: float) -> CacheUse:
        """Split the input tokens of a request that is processed at `at_s` (Unix seconds)."""
        parts = list(_parts(params, model))
        if isinstance(params.get("cache_control"), dict):
            parts[-1].ttl = _ttl(params)
        total = sum(part.n_tokens for part in parts)
        prefixes: list[tuple[bytes, int, str]] = []
        digest = hashlib.blake2b(digest_size=16)
        n_tokens = 0
        for part in parts:
            n_tokens += part.n_tokens
            block = part.block
            if isinstance(block, dict) and "cache_control" in block:
                block = {key: value for key, value in block.items() if key != "cache_control"}
            digest.update(msgspec.json.encode(block) + b"\0")
            if part.ttl in _TTL_S and n_tokens >= model.min_cached_tokens:
                prefixes.append((model.id.encode() + digest.digest(), n_tokens, part.ttl))
        if not prefixes:
            return CacheUse(total)
        n_read = max((n for key, n, _ in prefixes if self._good_until.get(key, 0.0) > at_s), default=0)
        written = {"5m": 0, "1h": 0}
        reached = n_read
        for key, n, ttl in prefixes:
            self._good_until[key] = max(self._good_until.get(key, 0.0), at_s + _TTL_S[ttl])
            if n > reached:
                written[ttl] += n - reached
                reached = n
        return CacheUse(total - reached, n_read, written["5m"], written["1h"])
