"""Prompts that are more than one text: content blocks, several turns, and attachments before the prompt."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_batch.errors import InputError

from .media import MAX_IMAGE_TOKENS, Attachment, digest_of
from .plain_values import MAX_DEPTH, kind_of, plain

if TYPE_CHECKING:
    from .group import Group

_ROLES = ("user", "assistant", "system")


@dataclass(frozen=True)
class Content:
    """
    The prompt of one row that is more than one text.

    Attributes
    ----------
    value
        Content blocks, or whole messages; None where the row's text is the prompt and attachments come before it.
    is_messages
        Whether `value` is messages.
    attachments
        Images and documents that stand before the prompt.
    """

    value: list[dict[str, Any]] | None = None
    is_messages: bool = False
    attachments: tuple[Attachment, ...] = ()

    @property
    def n_text_bytes(self) -> int:
        """UTF-8 bytes of everything textual, less the row's own text."""
        own = sum(attachment.n_text_bytes for attachment in self.attachments)
        return own + (len(_encoded(_without_data(self.value))) if self.value is not None else 0)

    @property
    def n_wire_bytes(self) -> int:
        """Bytes on the wire, less the row's own text."""
        own = sum(attachment.n_wire_bytes for attachment in self.attachments)
        return own + (len(_encoded(self.value)) if self.value is not None else 0)

    @property
    def max_media_tokens(self) -> int:
        """Upper bound of the input tokens of its images, as far as it is known here."""
        own = sum(attachment.max_tokens or 0 for attachment in self.attachments)
        return own + MAX_IMAGE_TOKENS * _n_inline_images(self.value)

    @property
    def is_unbounded(self) -> bool:
        """Whether its input tokens cannot be bounded from here: URLs, uploaded files, PDFs."""
        return any(a.max_tokens is None for a in self.attachments) or _has_far_source(self.value)

    def fingerprint_content(self, text: str | None) -> Any:
        """Return what stands for the prompt in a fingerprint: media as the caller's bytes."""
        ahead = [attachment.for_fingerprint() for attachment in self.attachments]
        if self.value is None:
            return [*ahead, {"type": "text", "text": text}]
        if not self.is_messages:
            return [*ahead, *map(digested, self.value)]
        messages = [digested(message) for message in self.value]
        if ahead:
            asked = messages[_last_question(messages)]
            asked["content"] = [*ahead, *_as_blocks(asked["content"])]
        return {"messages": messages}

    def encode(self, group: Group, text: str | None) -> bytes:
        """Return the params of the request as JSON bytes."""
        ahead = [attachment.block() for attachment in self.attachments]
        if self.value is None:
            blocks = [*ahead, _encoded({"text": text, "type": "text"})]
            return b"%b[%b]%b" % (group.before, b",".join(blocks), group.after)
        if not self.is_messages:
            return b"%b[%b]%b" % (group.before, b",".join([*ahead, *map(_encoded, self.value)]), group.after)
        messages = [*map(_encoded, self.value)]
        if ahead:
            at = _last_question(self.value)
            blocks = [*ahead, *map(_encoded, _as_blocks(self.value[at]["content"]))]
            messages[at] = b'{"content":[%b],"role":"user"}' % b",".join(blocks)
        return group.before_messages + b",".join(messages) + group.after_messages


def read_content(value: Any, where: str = "the prompt") -> Content | None:
    """
    Read a cell that is not text: content blocks, or messages.

    Returns
    -------
    Content or None
        None where it is empty.

    Raises
    ------
    InputError
        With the reason, which never quotes the prompt.
    """
    items = [value] if isinstance(value, Mapping) else list(value)
    if not items:
        return None
    kind = _kind(items, where)
    checked = [plain(_with_base64(item), f"{where}[{i}]") for i, item in enumerate(items)]
    if kind == "type":
        check_blocks(checked, where)
        return Content(checked)
    for i, message in enumerate(checked):
        _check_message(message, f"{where}[{i}]")
    if all(message["role"] != "user" for message in checked):
        raise InputError(f"{where} has no message of the user")
    only = checked[0]
    if len(checked) == 1 and set(only) == {"role", "content"}:
        # One message is the same request as its content.
        return Content(_as_blocks(only["content"]))
    return Content(checked, is_messages=True)


def _as_blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"text": content, "type": "text"}] if isinstance(content, str) else content


def _last_question(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return where attachments go: the API takes none in what the assistant said."""
    return max(i for i, message in enumerate(messages) if message["role"] == "user")


def _kind(items: Sequence[Any], where: str) -> str:
    """Return which key makes the items what they are: ``role`` (messages) or ``type`` (content blocks)."""
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise InputError(f"{where}[{i}] is {kind_of(item)}, neither a content block nor a message")
    for key in ("role", "type"):
        if all(key in item for item in items):
            return key
    raise InputError(f"{where} is a list of neither content blocks (each with 'type') nor messages (each with 'role')")


def check_blocks(blocks: Any, where: str) -> None:
    """
    Refuse content that the API would refuse for its shape.

    Raises
    ------
    InputError
        With the reason.
    """
    if not isinstance(blocks, list) or not blocks:
        raise InputError(f"{where} is {kind_of(blocks) if blocks else 'empty'}; content is text or a list of blocks")
    for i, block in enumerate(blocks):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise InputError(f"{where}[{i}] is no content block: it has no 'type'")
        if block["type"] == "text":
            text = block.get("text")
            if not isinstance(text, str):
                raise InputError(f"{where}[{i}] is a text block without a 'text'")
            if not text.strip():
                raise InputError(f"{where}[{i}] is a text block with nothing in it")


def _check_message(message: dict[str, Any], where: str) -> None:
    if message.get("role") not in _ROLES:
        raise InputError(f"{where} has no role of {', '.join(map(repr, _ROLES))}")
    content = message.get("content")
    if isinstance(content, str):
        if not content.strip():
            raise InputError(f"{where} has no content")
        return
    check_blocks(content, f"{where}['content']")


def few_shot_messages(pairs: Sequence[tuple[Any, Any]]) -> list[dict[str, Any]]:
    """
    Return the messages of example pairs.

    Examples
    --------
    >>> [message["role"] for message in few_shot_messages([("2+2?", "4")])]
    ['user', 'assistant']
    """
    messages = []
    for i, (user, assistant) in enumerate(pairs):
        for role, content in (("user", user), ("assistant", assistant)):
            if not isinstance(content, str):
                check_blocks(content, f"few_shot[{i}]")
            messages.append({"role": role, "content": content})
    return messages


def _with_base64(value: Any, depth: int = 0) -> Any:
    """Return a block with bytes in its base64 sources written as base64; what is too deep to be sent stays as it is."""
    if depth > MAX_DEPTH:
        return value
    if isinstance(value, Mapping):
        if value.get("type") == "base64" and isinstance(value.get("data"), bytes | bytearray):
            return {**value, "data": base64.b64encode(value["data"]).decode("ascii")}
        return {key: _with_base64(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1):
        return [_with_base64(item, depth + 1) for item in value]
    return value


def _transformed(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Return a copy of `value` with every base64 source in it changed."""
    if isinstance(value, dict):
        if value.get("type") == "base64" and isinstance(value.get("data"), str):
            return change(value)
        return {key: _transformed(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_transformed(item, change) for item in value]
    return value


def digested(value: dict[str, Any]) -> dict[str, Any]:
    """Return a block or message with its base64 sources as they count in a fingerprint: the caller's bytes."""

    def change(source: dict[str, Any]) -> dict[str, Any]:
        try:
            data = base64.b64decode(source["data"], validate=True)
        except (binascii.Error, ValueError):
            return source
        return {**{k: v for k, v in source.items() if k != "data"}, "type": "content", "digest": digest_of(data)}

    changed: dict[str, Any] = _transformed(value, change)
    return changed


def _without_data(value: Any) -> Any:
    return _transformed(value, lambda source: {"type": "base64"})


def _has_far_source(value: Any) -> bool:
    """Return whether a block's source is elsewhere, or a PDF, whose tokens do not follow from its bytes."""
    if isinstance(value, dict):
        if value.get("type") in ("url", "file") and ("url" in value or "file_id" in value):
            return True
        if value.get("type") == "base64" and value.get("media_type") == "application/pdf":
            return True
        return any(_has_far_source(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_far_source(item) for item in value)
    return False


def _n_inline_images(value: Any) -> int:
    if isinstance(value, dict):
        is_image = value.get("type") == "base64" and str(value.get("media_type")).startswith("image/")
        return int(is_image) + sum(_n_inline_images(item) for item in value.values())
    if isinstance(value, list):
        return sum(_n_inline_images(item) for item in value)
    return 0


def _encoded(value: Any) -> bytes:
    import msgspec

    return msgspec.json.encode(value)
