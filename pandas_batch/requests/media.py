"""Images and documents as content blocks: from a URL, a path, bytes, base64, a PIL image, or an uploaded file.

Every attachment is looked at before anything is sent. Its bytes are not kept: a file is read again when its
request is written, and has to be the same file then.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_batch.amounts import file_size
from pandas_batch.call_arguments import in_words
from pandas_batch.errors import InputError, clip

from .media_types import image_size, media_type_of
from .plain_values import kind_of
from .texts import is_missing

if TYPE_CHECKING:
    import anthropic

# https://platform.claude.com/docs/en/build-with-claude/vision#general-limits; the API's own message gives
# the limit as 10485760 bytes of base64.
MAX_IMAGE_BASE64_BYTES = 10 * 1024 * 1024
MAX_IMAGE_PIXELS = 8000
MAX_IMAGE_PIXELS_OF_MANY = 2000
MANY_IMAGES = 20
# https://platform.claude.com/docs/en/build-with-claude/pdf-support#check-pdf-requirements
MAX_PDF_REQUEST_BYTES = 32_000_000
MAX_ATTACHMENTS = 600
_NOTHING_UPLOADED = "Nothing was uploaded."
# An image costs at most this many input tokens on any model: larger ones are scaled down by the server.
MAX_IMAGE_TOKENS = 5_000
_PIXELS_PER_TOKEN = 750

_HELD_BYTES = 64 * 1024 * 1024
_MAX_PATH_CHARS = 255
_FILE_ID = re.compile(r"file_[A-Za-z0-9]{8,}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w=.+-]+)*;base64,", re.IGNORECASE)
_IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_DOCUMENT_TYPES = ("application/pdf", "text/plain")


class Unsendable(Exception):
    """An attachment that cannot be sent; the message is the reason."""


@dataclass(frozen=True)
class Attachment:
    """
    One image or document of a request.

    Attributes
    ----------
    kind
        ``image`` or ``document``.
    source
        What stands for it in a fingerprint: the digest of the caller's bytes, a URL, or a file id.
    n_wire_bytes
        Length of its block on the wire.
    n_text_bytes
        UTF-8 length, for a text document; else 0.
    max_tokens
        Upper bound of its input tokens, or None where it is unknown here.
    """

    kind: str
    source: Mapping[str, Any]
    n_wire_bytes: int
    n_text_bytes: int = 0
    max_tokens: int | None = None
    long_side: int = 0
    path: str | None = field(default=None, repr=False)
    held: bytes | None = field(default=None, repr=False)

    def for_fingerprint(self) -> dict[str, Any]:
        """Return the block as it counts in a fingerprint."""
        return {"type": self.kind, "source": dict(self.source)}

    def block(self) -> bytes:
        """
        Return the content block as JSON bytes, reading the file again where its bytes were not kept.

        Raises
        ------
        InputError
            The file has changed, or is gone, since it was looked at.
        """
        import msgspec

        if self.source["type"] in ("url", "file"):
            return msgspec.json.encode({"source": dict(self.source), "type": self.kind})
        data = self.held if self.held is not None else self._read_again()
        if self.source["media_type"] == "text/plain":
            text = data.decode("utf-8-sig")
            source = {"data": text, "media_type": "text/plain", "type": "text"}
            return msgspec.json.encode({"source": source, "type": self.kind})
        encoded = base64.b64encode(data)
        media_type = self.source["media_type"].encode("ascii")
        return b'{"source":{"data":"%b","media_type":"%b","type":"base64"},"type":"%b"}' % (
            encoded,
            media_type,
            self.kind.encode("ascii"),
        )

    def _read_again(self) -> bytes:
        path = str(self.path)
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{clip(path, 120)} could be read a moment ago, not now: {error.strerror}.") from None
        if digest_of(data) != self.source["digest"]:
            raise InputError(f"{clip(path, 120)} changed while its request was being written.", hint="submit again")
        return data


def digest_of(data: bytes) -> str:
    """Return the digest by which a fingerprint knows the caller's bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class MediaReader:
    """
    Reads the cells of an attachment column; what is the same file, or the same bytes, is read once.

    Parameters
    ----------
    column
        Name of the option, for messages: ``images_col`` or ``documents_col``.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._kind = "image" if column == "images_col" else "document"
        self._types = _IMAGE_TYPES if self._kind == "image" else _DOCUMENT_TYPES
        self._by_file: dict[tuple[Any, ...], Attachment] = {}
        self._by_digest: dict[str, Attachment] = {}
        self._n_held = 0

    def read_cell(self, value: Any) -> list[Attachment]:
        """
        Return the attachments of one cell: none for NA and ``[]``.

        Raises
        ------
        Unsendable
            One of them cannot be sent.
        """
        if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == object:
            value = value.tolist()
        if isinstance(value, list | tuple):
            return [attachment for item in value for attachment in self.read_cell(item)]
        if not isinstance(value, bytes | bytearray | memoryview) and is_missing(value):
            return []
        return [self._read(value)]

    def _read(self, value: Any) -> Attachment:
        if isinstance(value, bytes | bytearray | memoryview):
            return self._of_bytes(bytes(value))
        if isinstance(value, os.PathLike):
            return self._of_path(os.fspath(value))
        if isinstance(value, str):
            return self._of_text(value.strip())
        if isinstance(value, Mapping):
            return self._of_block(value)
        if type(value).__module__.partition(".")[0] == "PIL" or _is_pil_image(value):
            return self._of_pil(value)
        raise Unsendable(f"{self._column} holds {type(value).__name__}; it takes URLs, paths, bytes, or lists of those")

    def _of_text(self, text: str) -> Attachment:
        if text[:8].lower() == "https://" or text[:7].lower() == "http://":
            return self._of_source({"type": "url", "url": text})
        if match := _DATA_URL.match(text):
            return self._of_bytes(self._decoded(text[match.end() :]))
        if _FILE_ID.fullmatch(text):
            return self._of_source({"type": "file", "file_id": text})
        # Base64 has no dot, a file name nearly always has one; a file that exists is a file.
        compact = "".join(text.splitlines())
        if len(compact) >= 64 and _BASE64.fullmatch(compact) and not _exists(text):
            return self._of_bytes(self._decoded(compact))
        return self._of_path(text)

    def _decoded(self, text: str) -> bytes:
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise Unsendable(f"{self._column} holds base64 that cannot be decoded") from None

    def _of_block(self, block: Mapping[str, Any]) -> Attachment:
        source = block.get("source")
        if block.get("type") == self._kind and isinstance(source, Mapping) and set(block) == {"type", "source"}:
            if source.get("type") == "base64" and isinstance(source.get("data"), str):
                return self._of_bytes(self._decoded(source["data"]))
            if source.get("type") == "url" and isinstance(source.get("url"), str):
                return self._of_source({"type": "url", "url": source["url"]})
            if source.get("type") == "file" and isinstance(source.get("file_id"), str):
                return self._of_source({"type": "file", "file_id": source["file_id"]})
        raise Unsendable(
            f"{self._column} holds a dict that is no plain {self._kind} block; put it in the prompt itself"
        )

    def _of_source(self, source: dict[str, str]) -> Attachment:
        n_bytes = len(next(text for key, text in source.items() if key != "type").encode("utf-8", "replace"))
        if any("\ud800" <= char <= "\udfff" or char.isspace() for char in source.get("url", "")):
            raise Unsendable(f"{self._column} holds a URL with characters that no URL has")
        return Attachment(kind=self._kind, source=source, n_wire_bytes=n_bytes * 2 + 80)

    def _of_path(self, path: str | bytes) -> Attachment:
        where = os.path.expanduser(os.fsdecode(path))
        # What is too long for a path is no path, and not for a message either.
        shown = clip(where, 120) if len(where) <= _MAX_PATH_CHARS and "\n" not in where else "a text that is no path"
        try:
            status = os.stat(where)
            key = (os.path.realpath(where), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if (known := self._by_file.get(key)) is not None:
                return known
            if not os.path.isfile(where):
                raise Unsendable(f"{shown} is not a file")
            data = Path(where).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
            raise Unsendable(f"{shown} cannot be read: {reason}") from None
        attachment = self._of_bytes(data, path=where)
        self._by_file[key] = attachment
        return attachment

    def _of_bytes(self, data: bytes, *, path: str | None = None) -> Attachment:
        digest = digest_of(data)
        if (known := self._by_digest.get(digest)) is not None:
            return known
        attachment = self._checked(data, {"type": "content", "digest": digest}, path)
        self._by_digest[digest] = attachment
        return attachment

    def _of_pil(self, image: Any) -> Attachment:
        import io

        # The pixels count, not their PNG: how PNG is written may change with the library's version.
        pixels = hashlib.blake2b(repr((image.mode, image.size)).encode(), digest_size=16)
        pixels.update(image.tobytes())
        digest = pixels.hexdigest()
        if (known := self._by_digest.get(digest)) is not None:
            return known
        buffer = io.BytesIO()
        try:
            supported = image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else image.convert("RGB")
            supported.save(buffer, format="PNG")
        except (OSError, ValueError):
            raise Unsendable(
                f"{self._column} holds an image of mode {clip(image.mode, 20)}, no PNG can be made of it"
            ) from None
        attachment = self._checked(buffer.getvalue(), {"type": "pixels", "digest": digest}, None)
        self._by_digest[digest] = attachment
        return attachment

    def _checked(self, data: bytes, source: dict[str, Any], path: str | None) -> Attachment:
        media_type = media_type_of(data)
        named = clip(path, 120) if path else f"a value of {self._column}"
        if media_type not in self._types:
            raise Unsendable(f"{named} is {media_type}; {_what_to_do(self._kind, media_type)}")
        source |= {"media_type": media_type}
        n_text_bytes, side, tokens = 0, 0, None
        if media_type == "text/plain":
            text = data.decode("utf-8-sig")
            if not text.strip():
                raise Unsendable(f"{named} has no text in it")
            import msgspec

            n_text_bytes, tokens = len(data), 0
            n_wire_bytes = len(msgspec.json.encode(text)) + 80
        else:
            n_wire_bytes = (len(data) + 2) // 3 * 4 + 80
        if self._kind == "image":
            width, height = image_size(data, media_type) or (0, 0)
            side = max(width, height)
            if n_wire_bytes - 80 > MAX_IMAGE_BASE64_BYTES:
                raise Unsendable(
                    f"{named} has {file_size(n_wire_bytes - 80)} as base64, an image may have "
                    f"{file_size(MAX_IMAGE_BASE64_BYTES)}; scale it down, or send it as a URL"
                )
            if side > MAX_IMAGE_PIXELS:
                raise Unsendable(f"{named} is {width} x {height} pixels, a side may have {MAX_IMAGE_PIXELS}")
            tokens = MAX_IMAGE_TOKENS if not side else min(width * height // _PIXELS_PER_TOKEN + 1, MAX_IMAGE_TOKENS)
        elif n_wire_bytes > MAX_PDF_REQUEST_BYTES:
            raise Unsendable(
                f"{named} has {file_size(n_wire_bytes)} on the wire, a request with documents may have "
                f"{file_size(MAX_PDF_REQUEST_BYTES)}; pandas_batch.upload_files() takes larger ones"
            )
        keep = path is None or self._n_held + len(data) <= _HELD_BYTES
        self._n_held += len(data) if keep else 0
        return Attachment(
            kind=self._kind,
            source=source,
            n_wire_bytes=n_wire_bytes,
            n_text_bytes=n_text_bytes,
            max_tokens=tokens,
            long_side=side,
            path=path,
            held=data if keep else None,
        )


def check_together(attachments: Sequence[Attachment]) -> None:
    """
    Refuse attachments that are fine alone and too many, or too large, in one request.

    Raises
    ------
    Unsendable
        With the reason.
    """
    if len(attachments) > MAX_ATTACHMENTS:
        raise Unsendable(f"the row has {len(attachments)} attachments, a request may have {MAX_ATTACHMENTS}")
    images = [attachment for attachment in attachments if attachment.kind == "image"]
    largest = max((image.long_side for image in images), default=0)
    if len(images) > MANY_IMAGES and largest > MAX_IMAGE_PIXELS_OF_MANY:
        raise Unsendable(
            f"the row has {len(images)} images, one of them {largest} pixels on its long side; "
            f"of more than {MANY_IMAGES} images each side may have {MAX_IMAGE_PIXELS_OF_MANY}"
        )
    n_bytes = sum(attachment.n_wire_bytes for attachment in attachments)
    if n_bytes > MAX_PDF_REQUEST_BYTES and len(images) < len(attachments):
        raise Unsendable(
            f"the row's attachments have {file_size(n_bytes)} on the wire, a request with documents may have "
            f"{file_size(MAX_PDF_REQUEST_BYTES)}; pandas_batch.upload_files() takes larger ones"
        )


@in_words
def upload_files(client: anthropic.Anthropic, paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """
    Upload files with the Files API and return their ids, to be used as values of an attachment column.

    Each distinct content is uploaded once. The files stay in the workspace until they are deleted
    (``client.files.delete(file_id)``).

    Parameters
    ----------
    client
        An ``anthropic.Anthropic`` client.
    paths
        Paths of the files, for example ``df["path"]``.

    Returns
    -------
    list of str
        A file id for each path, in their order.

    Raises
    ------
    InputError
        A file is missing or cannot be read; nothing was uploaded then.

    Examples
    --------
    >>> df["file"] = upload_files(client, df["path"])  # doctest: +SKIP
    >>> df.claude_batch.submit("question", documents_col="file")  # doctest: +SKIP
    """
    line = 'pandas_batch.upload_files(client, df["path"])'
    if not hasattr(getattr(client, "files", None), "upload"):
        raise InputError(
            f"client is {kind_of(client)}; it has to be an anthropic.Anthropic, and comes first.",
            _NOTHING_UPLOADED,
            line,
        )
    if isinstance(paths, str | bytes | os.PathLike | Mapping) or not isinstance(paths, Iterable):
        raise InputError(f"paths is {kind_of(paths)}; it has to be a list of paths.", _NOTHING_UPLOADED, line)
    wanted = []
    for at, path in enumerate(paths):
        if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
            raise InputError(f"paths[{at}] is {kind_of(path)}, and no path.", _NOTHING_UPLOADED, line)
        wanted.append(os.path.expanduser(os.fspath(path)))
    digests = {}
    for path in dict.fromkeys(wanted):
        try:
            digests[path] = digest_of(Path(path).read_bytes())
        except OSError as error:
            raise InputError(
                f"{clip(path, 120)} cannot be read: {error.strerror}.",
                _NOTHING_UPLOADED,
                'df[df["path"].map(os.path.isfile)]   # the rows whose file is there',
            ) from None
        except ValueError:  # a zero byte in it
            raise InputError(f"{clip(path, 120)} is no path of a file.", _NOTHING_UPLOADED, line) from None
    ids: dict[str, str] = {}
    for path, digest in digests.items():
        if digest not in ids:
            ids[digest] = client.files.upload(file=Path(path)).id
    return [ids[digests[path]] for path in wanted]


def _what_to_do(kind: str, media_type: str) -> str:
    if kind == "image":
        if media_type in _DOCUMENT_TYPES:
            return "documents_col takes it"
        return "images_col takes PNG, JPEG, GIF and WebP"
    return "images_col takes it" if media_type in _IMAGE_TYPES else "documents_col takes PDF and UTF-8 text"


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)
    except (OSError, ValueError):
        return False


def _is_pil_image(value: Any) -> bool:
    return any(cls.__module__ == "PIL.Image" for cls in type(value).__mro__)
