"""What makes two requests the same request: fingerprints, and the identity of a run.

A fingerprint covers everything that decides the answer: the canonical params, the beta headers, the API
version and the base URL (a simulator's answer never stands in for the real API's). It has to stay equal
over releases and upgrades of this package and of its dependencies, so it is made by the standard library
only, and the tests hold golden values. Whoever has to change it raises `FINGERPRINT_VERSION`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from pandas_batch.custom_ids import FINGERPRINT_BYTES

if TYPE_CHECKING:
    import pyarrow as pa

FINGERPRINT_VERSION = 1

_DEFAULT_PORTS = {"https": 443, "http": 80}


def canonical_json(value: Any) -> bytes:
    """
    Return `value` as JSON that is the same for equal values: keys sorted, no spaces, UTF-8.

    Examples
    --------
    >>> canonical_json({"b": 1, "a": [True]})
    b'{"a":[true],"b":1}'
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


@lru_cache(maxsize=64)
def normalized_base_url(base_url: str) -> str:
    """
    Return `base_url` in one spelling: lower-case scheme and host, no default port, no trailing slash.

    Examples
    --------
    >>> normalized_base_url("HTTPS://API.Anthropic.com:443/")
    'https://api.anthropic.com'
    """
    parts = urlsplit(base_url)
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    scheme = parts.scheme.lower()
    port = parts.port
    where = host if port is None or port == _DEFAULT_PORTS.get(scheme) else f"{host}:{port}"
    return f"{scheme}://{where}{parts.path.rstrip('/')}"


def frame_digest(
    params_without_last_content: Mapping[str, Any],
    *,
    betas: Iterable[str] = (),
    api_version: str,
    base_url: str,
) -> bytes:
    """
    Return 32 bytes for everything that requests of one kind share; the key of their fingerprints.

    Parameters
    ----------
    params_without_last_content
        The params of a request, less the content of its last user message.
    betas
        Beta headers; their order does not matter.
    api_version
        The ``anthropic-version`` header.
    base_url
        Where the requests go.
    """
    shared = {
        "api_version": api_version,
        "base_url": normalized_base_url(base_url),
        "betas": sorted(set(betas)),
        "params": params_without_last_content,
        "version": FINGERPRINT_VERSION,
    }
    return hashlib.blake2b(canonical_json(shared), digest_size=32).digest()


def fingerprint_strings(digest: bytes, texts: Iterable[bytes | memoryview]) -> np.ndarray:
    """Return the fingerprints, shape (n, 16) uint8, of requests whose prompts are these UTF-8 texts."""
    made = bytearray()
    fresh = hashlib.blake2b(b"t", digest_size=FINGERPRINT_BYTES, key=digest).copy
    for text in texts:
        hasher = fresh()
        hasher.update(text)
        made += hasher.digest()
    return np.frombuffer(made, np.uint8).reshape(-1, FINGERPRINT_BYTES)


def fingerprint_texts(digest: bytes, texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """
    Return the fingerprints, shape (n, 16) uint8, of requests whose prompts are `texts`.

    The texts are hashed where they lie in the Arrow buffers. A null is hashed as the empty text: callers
    know which rows have a prompt.

    Parameters
    ----------
    digest
        The `frame_digest` of the requests.
    texts
        Arrow ``string`` or ``large_string`` array.
    """
    chunks = texts.chunks if hasattr(texts, "chunks") else [texts]
    parts = [fingerprint_strings(digest, utf8_views(chunk)) for chunk in chunks]
    return np.concatenate(parts) if parts else np.empty((0, FINGERPRINT_BYTES), np.uint8)


def utf8_views(texts: pa.Array) -> Iterator[memoryview]:
    """Yield the UTF-8 bytes of each text of a ``string`` or ``large_string`` array, without a copy."""
    import pyarrow as pa

    if len(texts) == 0:
        return
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets_buffer, data = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, width, count=len(texts) + 1, offset=texts.offset * width().itemsize)
    view = memoryview(data) if data is not None else memoryview(b"")
    # One at a time: a list of them would wake the garbage collector every few hundred texts.
    for begin, end in itertools.pairwise(offsets.tolist()):
        yield view[begin:end]


def fingerprint_json(digest: bytes, content: Any) -> bytes:
    """Return the fingerprint, 16 bytes, of a request whose content is JSON rather than one text."""
    hasher = hashlib.blake2b(b"j", digest_size=FINGERPRINT_BYTES, key=digest)
    hasher.update(canonical_json(content))
    return hasher.digest()


def identity(name: str | None, fingerprints: np.ndarray, draws: np.ndarray, salt: str = "") -> str:
    """
    Return what makes a run the same run: its name and its ordered requests, as 32 hex digits.

    Parameters
    ----------
    name
        The run's name, or None.
    fingerprints
        Array of shape (n_rows, 16), uint8; zeros where a row is not sent.
    draws
        Array of n_rows draws.
    salt
        Anything else that keeps two runs apart.
    """
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(canonical_json({"name": name, "n_rows": len(fingerprints), "salt": salt, "version": 1}))
    hasher.update(np.ascontiguousarray(fingerprints, np.uint8).data)
    hasher.update(np.asarray(draws).astype(">u2").data)
    return hasher.hexdigest()
