"""Images and documents: from wherever they are to content blocks, looked at before anything is sent."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandas_batch.errors import InputError, PromptError
from pandas_batch.requests import media
from pandas_batch.requests.media_types import image_size, media_type_of
from pandas_batch.requests.options import parse_options
from pandas_batch.requests.plan import RequestPlan, plan_requests

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

PDF = b"%PDF-1.7\n1 0 obj <<>> endobj\ntrailer <<>>\n%%EOF"


def picture(kind: str = "PNG", size: tuple[int, int] = (30, 20), color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind)
    return buffer.getvalue()


def plan(cells: list[Any], *, col: str = "images_col", prompts: list[Any] | None = None, **kwargs: Any) -> RequestPlan:
    column = np.empty(len(cells), object)
    for i, cell in enumerate(cells):
        column[i] = cell
    frame = pd.DataFrame({"p": prompts or ["What is this?"] * len(cells), "m": pd.Series(column, dtype=object)})
    options = parse_options({"prompt_col": "p", col: "m", "on_unsendable": "skip", **kwargs})
    return plan_requests(frame, options, base_url="https://api.anthropic.com", api_version="2026-10-21")


def contents_of(plan: RequestPlan) -> list[Any]:
    at = np.flatnonzero(plan.sendable)
    return [json.loads(body)["messages"][-1]["content"] for part in plan.encode(at) for body in part]


def image_block(data: bytes, media_type: str = "image/png") -> dict[str, Any]:
    encoded = base64.b64encode(data).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": encoded}}


QUESTION = {"type": "text", "text": "What is this?"}


def test_the_same_image_from_everywhere_is_the_same_request(tmp_path: Path) -> None:
    """Path, bytes, base64, data URL, block and open image: the caller's bytes count, not where they came from."""
    data = picture()
    path = tmp_path / "räd ⚑.png"
    path.write_bytes(data)
    encoded = base64.b64encode(data).decode()
    cells = [
        data,
        bytearray(data),
        memoryview(data),
        path,
        str(path),
        f"data:image/png;base64,{encoded}",
        encoded,
        "\n".join(encoded[i : i + 76] for i in range(0, len(encoded), 76)),
        image_block(data),
        [data],
        (str(path),),
        np.array([data], object),
    ]
    made = plan(cells)
    assert not made.reasons
    assert contents_of(made) == [[image_block(data), QUESTION]] * len(cells)
    assert len({row.tobytes() for row in made.fingerprints}) == 1
    # A block written into the prompt itself is the same request too.
    written = plan([None], prompts=[[image_block(data), QUESTION]])
    assert (written.fingerprints == made.fingerprints[0]).all()
    # Its data is no text, and its tokens are bounded.
    large = plan([None], prompts=[[image_block(data + bytes(9_000)), QUESTION]])
    assert large.text_bytes[0] == written.text_bytes[0] < large.wire_bytes[0] - 9_000
    assert written.media_tokens[0] >= made.media_tokens[0] > 0


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, [], (), "", "  ", [None, []]])
def test_rows_without_an_attachment_are_plain(nothing: Any) -> None:
    """NA and [] mean none: such a row is the request it would be without the option."""
    made = plan([nothing])
    assert contents_of(made) == ["What is this?"]
    bare = plan_requests(
        pd.DataFrame({"p": ["What is this?"]}),
        parse_options({"prompt_col": "p"}),
        base_url="https://api.anthropic.com",
        api_version="2026-10-21",
    )
    assert (made.fingerprints == bare.fingerprints).all()


@pytest.mark.parametrize(
    ("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("GIF", "image/gif"), ("WEBP", "image/webp")]
)
def test_media_type_and_size_come_from_the_bytes(kind: str, media_type: str, tmp_path: Path) -> None:
    """A file's name may lie; its first bytes say what it is, and how large."""
    data = picture(kind, (321, 45))
    path = tmp_path / "wrong.txt"
    path.write_bytes(data)
    assert media_type_of(data) == media_type
    assert image_size(data, media_type) == (321, 45)
    made = plan([path])
    assert contents_of(made)[0][0]["source"]["media_type"] == media_type
    assert made.media_tokens[0] == 321 * 45 // 750 + 1
    assert not made.unbounded_input


def test_lossless_and_extended_webp_tell_their_size() -> None:
    """WebP has three headers."""
    for options in ({"lossless": True}, {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00"}):
        buffer = io.BytesIO()
        Image.new("RGB", (33, 44)).save(buffer, "WEBP", **options)
        assert image_size(buffer.getvalue(), "image/webp") == (33, 44)


@given(st.binary(max_size=64), st.sampled_from(["image/png", "image/jpeg", "image/gif", "image/webp"]))
def test_a_broken_header_never_raises(data: bytes, media_type: str) -> None:
    """Whatever the bytes, looking at them is safe."""
    media_type_of(data)
    image_size(data, media_type)
    image_size(b"\xff\xd8" + data, "image/jpeg")


def test_open_images_are_known_by_their_pixels() -> None:
    """A PIL image is sent as PNG; its fingerprint is of the pixels, so that a new PNG writer pays nothing again."""
    red, again, blue = (
        Image.new("RGB", (4, 4), "red"),
        Image.new("RGB", (4, 4), "red"),
        Image.new("RGB", (4, 4), "blue"),
    )
    cmyk = Image.new("CMYK", (4, 4))
    made = plan([red, again, blue, cmyk])
    assert not made.reasons
    prints = [row.tobytes() for row in made.fingerprints]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert all(block[0]["source"]["media_type"] == "image/png" for block in contents_of(made))


def test_documents_are_pdf_or_text(tmp_path: Path) -> None:
    """A PDF goes as base64, a text as text, without its byte order mark."""
    note = tmp_path / "note.md"
    note.write_text("﻿Größe", encoding="utf-8")
    made = plan([PDF, note, b"plain", None], col="documents_col")
    pdf, text, plain, nothing = contents_of(made)
    assert pdf[0]["source"] == {
        "type": "base64",
        "media_type": "application/pdf",
        "data": base64.b64encode(PDF).decode(),
    }
    assert text[0] == {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Größe"}}
    assert plain == [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
        QUESTION,
    ]
    assert nothing == "What is this?"
    assert made.text_bytes[2] - made.text_bytes[3] == len(b"plain")
    assert made.unbounded_input


def test_what_is_elsewhere_is_named_and_not_bounded() -> None:
    """URLs and file ids are sent as such; their tokens cannot be bounded from here."""
    made = plan(["https://example.com/a.png", "file_011CNha8iCJcU1wXNR6q4V8w", picture()])
    assert made.unbounded_input
    assert [content[0]["source"] for content in contents_of(made)[:2]] == [
        {"type": "url", "url": "https://example.com/a.png"},
        {"type": "file", "file_id": "file_011CNha8iCJcU1wXNR6q4V8w"},
    ]
    assert not plan([picture()]).unbounded_input


def test_images_come_before_documents_before_the_prompt() -> None:
    """Media stand before the text, as the documentation advises, also before blocks and in the last turn."""
    frame = pd.DataFrame({"i": [picture()] * 3, "d": [b"doc"] * 3})
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    frame["p"] = pd.Series(["text", [QUESTION], turns], dtype=object)
    options = parse_options({"prompt_col": "p", "images_col": "i", "documents_col": "d"})
    made = plan_requests(frame, options, base_url="https://x", api_version="v")
    kinds = [[block["type"] for block in content] for content in contents_of(made)]
    assert kinds == [["image", "document", "text"]] * 3
    (last,) = [json.loads(body) for part in made.encode(np.array([2])) for body in part]
    assert last["messages"][:2] == turns[:2]
    assert last["messages"][2]["content"][2] == {"type": "text", "text": "c"}
    prefilled = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "The"}]
    (params,) = [
        json.loads(body) for part in plan([picture()], prompts=[prefilled]).encode(np.array([0])) for body in part
    ]
    assert [block["type"] for block in params["messages"][0]["content"]] == ["image", "text"]
    assert params["messages"][1] == prefilled[1]


def big_noise(n_bytes: int) -> bytes:
    return picture() + b"\0" * n_bytes


BAD: list[tuple[str, Any, str]] = [
    ("images_col", "/nowhere/photo.png", "/nowhere/photo.png cannot be read: No such file or directory"),
    ("images_col", "photo.png", "photo.png cannot be read"),
    ("images_col", os.sep, "is not a file"),
    ("images_col", "a\0b", "cannot be read"),
    ("images_col", b"", "nothing (0 bytes)"),
    ("images_col", b"\x00\x01", "neither an image, a PDF nor text"),
    ("images_col", PDF, "application/pdf; documents_col takes it"),
    ("images_col", b"text", "text/plain; documents_col takes it"),
    ("images_col", b"II*\x00....", "image/tiff"),
    ("images_col", b"\0\0\0\x18ftypheic", "image/heic"),
    ("images_col", big_noise(8_000_000), "an image may have 10.5 MB"),
    ("images_col", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 9000, 10), "9000 x 10 pixels"),
    ("images_col", [picture("PNG", (2001, 4))] + [picture()] * 20, "21 images"),
    ("images_col", [picture()] * 601, "601 attachments"),
    ("images_col", "data:image/png;base64,!!!!", "base64 that cannot be decoded"),
    ("images_col", "https://x y/z.png", "no URL has"),
    ("images_col", 5, "images_col holds int"),
    ("images_col", "two\nlines", "a text that is no path cannot be read"),
    ("images_col", "long " * 99, "a text that is no path cannot be read"),
    ("images_col", {"a": 1}, "no plain image block"),
    ("images_col", np.zeros((2, 2)), "images_col holds ndarray"),
    ("documents_col", picture(), "image/png; images_col takes it"),
    ("documents_col", b"PK\x03\x04....", "a zip archive"),
    ("documents_col", b"caf\xe9", "neither an image, a PDF nor UTF-8 text"),
    ("documents_col", b" \n", "no text"),
    ("documents_col", PDF + b"\0" * 25_000_000, "upload_files"),
    ("documents_col", [PDF + b"\0" * 13_000_000, PDF + b"\1" * 13_000_000], "upload_files"),
]


@pytest.mark.parametrize(("col", "cell", "reason"), BAD, ids=[f"{col}-{reason[:30]}" for col, _, reason in BAD])
def test_what_cannot_be_sent_is_the_rows_reason(col: str, cell: Any, reason: str) -> None:
    """A missing, unreadable, wrong or oversized file is found before anything is sent; other rows are not harmed."""
    good: Any = picture() if col == "images_col" else b"fine"
    made = plan([good, cell], col=col)
    assert made.sendable.tolist() == [True, False]
    assert reason in made.reasons[1]
    with pytest.raises(PromptError, match="row 1"):
        plan([good, cell], col=col, on_unsendable="raise")


def test_the_column_and_the_row_of_a_bad_cell_are_named() -> None:
    """What is wrong with an attachment is said of its own column, and not of that of the prompts."""
    frame = pd.DataFrame({"q": ["a", "b"], "photo": [None, "/nowhere.png"], "paper": [5, None]}, index=["r1", "r2"])
    options = parse_options({"prompt_col": "q", "images_col": "photo", "documents_col": "paper"})
    with pytest.raises(PromptError) as caught:
        plan_requests(frame, options, base_url="https://api.anthropic.com", api_version="2026-10-21")
    assert "row 0 ('r1'): in column 'paper', " in caught.value.what
    assert "row 1 ('r2'): in column 'photo', /nowhere.png" in caught.value.what
    assert "'q'" not in caught.value.what


def test_few_images_may_be_larger_than_many() -> None:
    """The smaller limit of pixels holds only for requests with more than 20 images."""
    wide = picture("PNG", (2001, 4))
    made = plan([[wide] * 20, [wide] * 21])
    assert made.sendable.tolist() == [True, False]


def test_a_row_without_a_prompt_is_skipped_before_its_files_are_read() -> None:
    """A missing prompt is no error, whatever its attachment."""
    made = plan(["/nowhere.png"], prompts=[None])
    assert not made.reasons
    assert not made.sendable.any()


def test_what_is_the_same_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand rows over two files read two files, and equal contents are one attachment."""
    for name in ("a.png", "copy.png"):
        (tmp_path / name).write_bytes(picture())
    reads: list[Path] = []
    read_bytes = Path.read_bytes

    def counted(self: Path) -> bytes:
        reads.append(self)
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", counted)
    made = plan([str(tmp_path / "a.png"), tmp_path / "copy.png"] * 500)
    assert len(reads) == 2
    assert len({row.tobytes() for row in made.fingerprints}) == 1


def test_bytes_beyond_the_memory_are_read_again_and_have_to_be_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are not held in memory; one that changes while requests are written stops the run before it is posted."""
    monkeypatch.setattr(media, "_HELD_BYTES", 0)
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    made = plan([path])
    assert contents_of(made)[0][0] == image_block(picture())
    path.write_bytes(picture(color="blue"))
    with pytest.raises(InputError, match="changed while"):
        contents_of(made)
    path.unlink()
    with pytest.raises(InputError, match="could be read a moment ago"):
        contents_of(made)


def test_uploading_sends_each_content_once(tmp_path: Path) -> None:
    """upload_files gives an id per path, uploads equal files once, and uploads nothing when one is missing."""
    for name, data in (("a.pdf", PDF), ("copy.pdf", PDF), ("b.pdf", PDF + b"b")):
        (tmp_path / name).write_bytes(data)
    uploads: list[bytes] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert (request.method, request.url.path) == ("POST", "/v1/files")
        uploads.append(request.read())
        about = {"id": f"file_{len(uploads):08d}", "type": "file", "filename": "x", "mime_type": "application/pdf"}
        return httpx2.Response(200, json={**about, "size_bytes": 1, "created_at": "2026-11-23T08:00:00Z"})

    http = anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(answer))
    with anthropic.Anthropic(api_key="test", base_url="http://127.0.0.1:1", http_client=http) as client:
        paths = [tmp_path / "a.pdf", str(tmp_path / "copy.pdf"), tmp_path / "b.pdf", tmp_path / "a.pdf"]
        ids = media.upload_files(client, paths)
        assert ids == ["file_00000001", "file_00000001", "file_00000002", "file_00000001"]
        assert [b'filename="a.pdf"' in uploads[0], PDF in uploads[0], b'filename="b.pdf"' in uploads[1]] == [True] * 3
        with pytest.raises(InputError, match="Nothing was uploaded"):
            media.upload_files(client, [tmp_path / "b.pdf", tmp_path / "missing.pdf"])
    assert len(uploads) == 2
    assert plan(ids, col="documents_col").sendable.all()


def test_large_attachments_are_written_in_small_slices() -> None:
    """Rows of large images are not in memory at once: each is written by itself."""
    large = [picture() + bytes([i]) * 3_000_000 for i in range(12)]
    made = plan([*large, None])
    sizes = [sum(map(len, part)) for part in made.encode(np.arange(13))]
    assert max(sizes) < 5_000_000
    assert abs(sum(sizes) - made.wire_bytes.sum()) < 2_000
    assert len(sizes) == 13, "one that is larger than a slice stands alone"


def test_the_size_of_a_request_counts_its_attachments() -> None:
    """The limit of one request holds for text and attachments together."""
    frame = pd.DataFrame({"p": ["x", "x"], "m": pd.Series([picture(), None], dtype=object)})
    options = parse_options({"prompt_col": "p", "images_col": "m", "on_unsendable": "skip"})
    made = plan_requests(frame, options, base_url="https://x", api_version="v", max_request_bytes=150)
    assert made.sendable.tolist() == [False, True]


def test_the_hint_for_a_missing_prompt_names_no_column_of_files() -> None:
    """A line that is advised asks the question of a text column, and brings the attachments along."""
    frame = pd.DataFrame({"photo": ["kettle.png"], "question": ["What is it?"]})
    with pytest.raises(InputError) as caught:
        plan_requests(frame, parse_options({"images_col": "photo"}), base_url="http://x", api_version="1")
    assert caught.value.hint == "df.claude_batch.submit('question', images_col='photo')"
    with pytest.raises(InputError) as caught:
        plan_requests(frame[["photo"]], parse_options({"images_col": "photo"}), base_url="http://x", api_version="1")
    assert caught.value.hint == "df.claude_batch.submit(\"column of prompts\", images_col='photo')"
