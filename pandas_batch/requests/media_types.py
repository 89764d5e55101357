"""What a file is by its first bytes, and the size of an image by its header."""

from __future__ import annotations

import struct

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"PK\x03\x04", "a zip archive (an office document?)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xd0\xcf\x11\xe0", "an old office document"),
)
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


def media_type_of(data: bytes) -> str:
    r"""
    Return the media type that `data` has by its first bytes, or words for what else it seems to be.

    Examples
    --------
    >>> media_type_of(b"\x89PNG\r\n\x1a\n...")
    'image/png'
    >>> media_type_of("naïve".encode())
    'text/plain'
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return "image/heic" if data[8:12] in (b"heic", b"heix", b"mif1", b"heif") else "a video or an AVIF image"
    for signature, media_type in _SIGNATURES:
        # "BM" may also begin a text.
        if data.startswith(signature) and not (media_type == "image/bmp" and b"\x00" not in data[:32]):
            return media_type
    if b"%PDF-" in data[:1024]:
        return "application/pdf"
    if not data:
        return "nothing (0 bytes)"
    if b"\x00" not in data:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            return "neither an image, a PDF nor UTF-8 text"
        return "text/plain"
    return "neither an image, a PDF nor text"


def image_size(data: bytes, media_type: str) -> tuple[int, int] | None:
    """
    Return (width, height) in pixels, or None where the header does not say.

    Parameters
    ----------
    data
        The image, or enough of its beginning.
    media_type
        ``image/png``, ``image/jpeg``, ``image/gif`` or ``image/webp``.
    """
    try:
        if media_type == "image/png":
            width, height = struct.unpack_from(">II", data, 16)
        elif media_type == "image/gif":
            width, height = struct.unpack_from("<HH", data, 6)
        elif media_type == "image/jpeg":
            return _jpeg_size(data)
        else:
            return _webp_size(data)
    except struct.error:
        return None
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        elif 0xD0 <= marker <= 0xD8 or marker == 0x01:  # markers without a length
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    form = data[12:16]
    if form == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if form == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
