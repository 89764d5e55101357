"""The custom_ids of our requests: what they are made of, and what can be read from them.

``pb1_<nonce of the batch>_<position in it>_<fingerprint and draw>``: so a result says, without the store, whose it is,
which row of the batch it answers and what was asked. The API lets nothing else be written on a batch.
"""

from __future__ import annotations

import base64
import re
import secrets
import string
from dataclasses import dataclass

import numpy as np

N_CHARS = 47
"""Characters of every custom_id; the API allows 64 (https://docs.claude.com/en/api/creating-message-batches)."""
FINGERPRINT_BYTES = 16
MAX_POSITION = 99_999

_FORMAT = "pb1"
_NONCE_ALPHABET = string.ascii_lowercase + string.digits
_NONCE = re.compile(r"[a-z0-9]{12}")
_CUSTOM_ID = re.compile(_FORMAT + r"_([a-z0-9]{12})_([0-9]{5})_([A-Za-z0-9_-]{24})")


def new_nonce() -> str:
    """Return 12 random characters that no other batch will have (62 bits)."""
    return "".join(secrets.choice(_NONCE_ALPHABET) for _ in range(12))


def prefix_of(nonce: str) -> bytes:
    """
    Return what all custom_ids of a batch begin with.

    Examples
    --------
    >>> prefix_of("abcdefghij01")
    b'pb1_abcdefghij01_'
    """
    return f"{_FORMAT}_{nonce}_".encode("ascii")


@dataclass(frozen=True)
class ParsedId:
    """The parts of a custom_id that this package made."""

    nonce: str
    position: int
    fingerprint: bytes
    draw: int


def custom_ids(nonce: str, fingerprints: np.ndarray, draws: np.ndarray, start: int = 0) -> np.ndarray:
    """
    Return the custom_ids of rows `start`, `start` + 1, ... of one batch, each 47 ASCII characters (dtype S47).

    Parameters
    ----------
    nonce
        12 characters of ``a-z0-9``, unique per batch.
    fingerprints
        Array of shape (n, 16), uint8.
    draws
        Array of n integers, 0 to 65535.
    start
        Position of the first row in its batch.

    Examples
    --------
    >>> custom_ids("abcdefghij01", np.zeros((1, 16), np.uint8), np.array([2]), start=7)
    array([b'pb1_abcdefghij01_00007_AAAAAAAAAAAAAAAAAAAAAAAC'], dtype='|S47')
    """
    if not _NONCE.fullmatch(nonce):
        raise ValueError("nonce is not 12 characters of a-z0-9")
    n = len(fingerprints)
    if start < 0 or start + n - 1 > MAX_POSITION:
        raise ValueError(f"positions {start} to {start + n - 1} do not fit in five digits")
    payload = np.empty((n, FINGERPRINT_BYTES + 2), np.uint8)
    payload[:, :FINGERPRINT_BYTES] = fingerprints
    payload[:, FINGERPRINT_BYTES:] = np.asarray(draws).astype(">u2").reshape(n, 1).view(np.uint8)
    ids = np.empty((n, N_CHARS), np.uint8)
    ids[:, :17] = np.frombuffer(prefix_of(nonce), np.uint8)
    positions = np.arange(start, start + n)
    for column in range(21, 16, -1):
        ids[:, column] = positions % 10 + ord("0")
        positions //= 10
    ids[:, 22] = ord("_")
    # 18 bytes are exactly 24 base64 characters: one call encodes all rows.
    ids[:, 23:] = np.frombuffer(base64.urlsafe_b64encode(payload.tobytes()), np.uint8).reshape(n, 24)
    made: np.ndarray = ids.view(f"S{N_CHARS}").ravel()
    return made


def parse_custom_id(custom_id: str) -> ParsedId | None:
    """
    Return the parts of a custom_id, or None where this package did not make it.

    Examples
    --------
    >>> parse_custom_id("pb1_abcdefghij01_00007_AAAAAAAAAAAAAAAAAAAAAAAC").position
    7
    >>> parse_custom_id("task-001") is None
    True
    """
    match = _CUSTOM_ID.fullmatch(custom_id)
    if match is None:
        return None
    payload = base64.urlsafe_b64decode(match[3])
    return ParsedId(
        nonce=match[1],
        position=int(match[2]),
        fingerprint=payload[:FINGERPRINT_BYTES],
        draw=int.from_bytes(payload[FINGERPRINT_BYTES:], "big"),
    )
