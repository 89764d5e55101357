"""One request but for its prompt: what rows have in common that share every option."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Group:
    """Rows that share every option: one request but for its prompt."""

    params: Mapping[str, Any]
    """The params on the wire, less the messages."""
    digest: bytes
    """Key of the fingerprints of its rows."""
    before: bytes
    after: bytes
    """The bytes of a request around the content of its last message."""
    before_messages: bytes
    after_messages: bytes
    """The bytes of a request around its last messages, where a row has several."""

    @property
    def n_constant_bytes(self) -> int:
        """Bytes of a request without its prompt."""
        return len(self.before) + len(self.after)

    def input_digest(self) -> bytes:
        """Return what requests have in common whose params differ in ``max_tokens`` alone."""
        limit = b'"max_tokens":%d,' % self.params["max_tokens"]
        return hashlib.blake2b(self.before.replace(limit, b"", 1) + self.after, digest_size=16).digest()
