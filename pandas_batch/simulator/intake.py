"""What is checked when a batch is created: its custom_ids, not the params of its requests.

A violation refuses the whole create, at once, in the words that the real server was heard to use.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from .blobs import Blob, View
from .validation import ApiError, invalid

__all__ = ["BatchItem", "parse_create_body"]

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)


@dataclass(slots=True)
class BatchItem:
    """One request of a batch; its params stay bytes until the row is processed."""

    custom_id: str
    params: msgspec.Raw


class _StrictItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    custom_id: str
    params: msgspec.Raw


class _StrictBody(msgspec.Struct, forbid_unknown_fields=True):
    requests: list[_StrictItem]


_decode_body = msgspec.json.Decoder(_StrictBody).decode


def parse_create_body(blob: Blob, max_requests: int) -> list[Any]:
    """
    Split the body of a create into items with ``custom_id`` and raw ``params``.

    Raises
    ------
    ApiError
        As the server refuses the create, with the words it uses.
    """
    body = blob.view()
    _check_text(blob, body)
    try:
        items: list[Any] = list(_decode_body(body).requests)
    except (msgspec.DecodeError, RecursionError):
        items = _items_of_odd_body(body)
    if not items:
        raise invalid("requests: List should have at least 1 item after validation, not 0")
    if len(items) > max_requests:
        raise ApiError("request_too_large", "Request exceeds the maximum size")
    matches = _CUSTOM_ID.fullmatch
    seen: set[str] = set()
    for position, item in enumerate(items):
        custom_id = item.custom_id
        if not matches(custom_id):
            raise invalid(f"requests.{position}.custom_id: {_id_reason(custom_id)}")
        seen.add(custom_id)
    if len(seen) < len(items):
        raise invalid(
            f"requests: custom_id's must be unique within a batch. Duplicate custom_id found: {_first_double(items)}"
        )
    return items


def _check_text(blob: Blob, body: View) -> None:
    # Raw values are skipped, not decoded, so what only decoding would notice is looked for here.
    if re.search(rb"\\u[dD][89a-fA-F]", body):
        try:
            msgspec.json.decode(body)
        except msgspec.DecodeError:
            raise invalid("The request body is not valid JSON: no low surrogate in string") from None
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in blob.blocks():
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise invalid("The request body is not valid JSON: invalid UTF-8") from None


def _id_reason(custom_id: str) -> str:
    if not custom_id:
        return "String should have at least 1 character"
    if len(custom_id) > 64:
        return "String should have at most 64 characters"
    return "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"


def _first_double(items: list[Any]) -> str:
    seen: set[str] = set()
    for item in items:
        if item.custom_id in seen:
            return str(item.custom_id)
        seen.add(item.custom_id)
    return ""


def _items_of_odd_body(body: View) -> list[BatchItem]:
    """Go through a body that is not what a create should be, and say what is wrong with it."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid(f"The request body is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise invalid("Input should be a valid dictionary or object to extract fields from")
    for name in data:
        if name != "requests":
            raise invalid(f"{name}: Extra inputs are not permitted")
    if "requests" not in data:
        raise invalid("requests: Field required")
    if not isinstance(data["requests"], list):
        raise invalid("requests: Input should be a valid list")
    items = []
    for position, item in enumerate(data["requests"]):
        where = f"requests.{position}"
        if not isinstance(item, dict):
            raise invalid(f"{where}: Input should be a valid dictionary or object to extract fields from")
        for name in ("custom_id", "params"):
            if name not in item:
                raise invalid(f"{where}.{name}: Field required")
        for name in item:
            if name not in ("custom_id", "params"):
                raise invalid(f"{where}.{name}: Extra inputs are not permitted")
        if not isinstance(item["custom_id"], str):
            raise invalid(f"{where}.custom_id: Input should be a valid string")
        items.append(BatchItem(item["custom_id"], msgspec.Raw(msgspec.json.encode(item["params"]))))
    return items
