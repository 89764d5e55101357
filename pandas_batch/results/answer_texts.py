"""The texts of answers: joined and unescaped a slice at a time, without a Python string for each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from pandas_batch.content_blocks import TEXT_BLOCKS

from .result_lines import Block, without_surrogates

_text_decoder = msgspec.json.Decoder(str)


def joined_texts(contents: Sequence[Sequence[Block]]) -> tuple[bytes | bytearray, np.ndarray]:
    r"""
    Return the texts of answers one after the other, as UTF-8, and the length of each.

    The text of an answer is all its text blocks joined. Bytes that are no UTF-8 stay as they are.

    Returns
    -------
    data
        All texts.
    n_bytes
        int64, one per answer; -1 where there is no text.

    Examples
    --------
    >>> first, last = (Block(type="text", text=msgspec.Raw(text)) for text in (b'"one\\ntwo"', b'"x"'))
    >>> data, n_bytes = joined_texts([[first], [], [last]])
    >>> data, n_bytes.tolist()
    (bytearray(b'one\ntwox'), [7, -1, 1])
    """
    quoted: list[Any] = []
    absent: list[int] = []
    for content in contents:
        if len(content) == 1 and content[0].type in TEXT_BLOCKS:  # nearly all; a call for each would double the time
            quoted.append(content[0].text)
        else:
            texts = [block.text for block in content if block.type in TEXT_BLOCKS]
            if len(texts) > 1:
                return _one_by_one(contents)
            if not texts:
                absent.append(len(quoted))
            quoted.append(texts[0] if texts else _EMPTY)
    unescaped = _unescaped_all(quoted)
    if unescaped is None:
        return _one_by_one(contents)
    data, n_bytes = unescaped
    n_bytes[absent] = -1
    return data, n_bytes


_EMPTY = b'""'
_DROPPED = 0xFF  # never part of UTF-8


def _unescaped_all(quoted: Sequence[Any]) -> tuple[bytes | bytearray, np.ndarray] | None:
    """Return the texts of JSON strings and their lengths, all at once; None where one of them takes a closer look."""
    if not quoted:
        return b"", np.zeros(0, np.int64)
    joined = bytearray().join(quoted)
    n_bytes = np.fromiter(map(len, quoted), np.int64, len(quoted))
    if n_bytes.min() < len(_EMPTY) or joined.find(_DROPPED) >= 0:
        return None
    letters = np.frombuffer(joined, np.uint8)
    ends = np.cumsum(n_bytes)
    quotes = np.concatenate((ends - n_bytes, ends - 1))
    if (letters[quotes] != ord('"')).any():
        return None
    n_bytes -= len(_EMPTY)
    escapes = _escapes(np.flatnonzero(letters == ord("\\")))
    if len(escapes):
        meant = _MEANT[letters[escapes + 1]]
        if not meant.all():
            return None
        letters[escapes + 1] = meant
        letters[escapes] = _DROPPED
        n_bytes -= np.diff(np.searchsorted(escapes, ends), prepend=0)
    letters[quotes] = _DROPPED
    return joined.replace(bytes([_DROPPED]), b""), n_bytes


def _escapes(backslashes: np.ndarray) -> np.ndarray:
    """Return which of the backslashes begin an escape: of those side by side the first, the third, ..."""
    begins = np.diff(backslashes, prepend=-2) != 1
    if begins.all():
        return backslashes
    places = np.arange(len(backslashes))
    first = np.maximum.accumulate(np.where(begins, places, 0))
    escapes: np.ndarray = backslashes[(places - first) % 2 == 0]
    return escapes


def _one_by_one(contents: Iterable[Sequence[Block]]) -> tuple[bytes, np.ndarray]:
    texts = [text_of(content) for content in contents]
    n_bytes = np.array([-1 if text is None else len(text) for text in texts], np.int64)
    return b"".join([text for text in texts if text]), n_bytes


def text_of(content: Iterable[Block]) -> bytes | None:
    """Return the text of one answer, as UTF-8; None where there is none."""
    parts = [_utf8_of(bytes(block.text)) for block in content if block.type in TEXT_BLOCKS]
    told = [part for part in parts if part is not None]
    return b"".join(told) if told else None


def _utf8_of(quoted: bytes) -> bytes | None:
    if not quoted.startswith(b'"'):
        return None
    return _unescaped(quoted) if quoted.find(b"\\") >= 0 else quoted[1:-1]


_ESCAPED = {
    ord(letter): text
    for letter, text in (
        ("n", b"\n"),
        ('"', b'"'),
        ("t", b"\t"),
        ("r", b"\r"),
        ("/", b"/"),
        ("b", b"\b"),
        ("f", b"\f"),
    )
}
_MEANT = np.zeros(256, np.uint8)
_MEANT[[ord("\\"), *_ESCAPED]] = [ord("\\"), *(text[0] for text in _ESCAPED.values())]
_FEW_ESCAPES = 16


def _unescaped(quoted: bytes) -> bytes:
    # A way over a Python string is fast for ASCII only. Other texts are cut at the backslashes where these are few;
    # a doubled backslash leaves an empty piece and \u a letter that is not in the table.
    if not quoted.isascii():
        first, *pieces = quoted[1:-1].split(b"\\")
        if len(pieces) <= _FEW_ESCAPES:
            parts = [first]
            try:
                for piece in pieces:
                    parts += (_ESCAPED[piece[0]], piece[1:])
                return b"".join(parts)
            except (IndexError, KeyError):
                pass
    try:
        return _text_decoder.decode(quoted).encode()
    except ValueError:  # an escaped lone surrogate, or bytes that are no UTF-8
        return without_surrogates(json.loads(quoted.decode("utf-8", "replace"), strict=False)).encode()
