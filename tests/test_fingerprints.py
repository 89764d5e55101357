"""Fingerprints stay equal over releases."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandas_batch.requests.fingerprints import (
    canonical_json,
    fingerprint_json,
    fingerprint_texts,
    frame_digest,
    identity,
    normalized_base_url,
)
from pandas_batch.requests.options import parse_options
from pandas_batch.requests.plan import plan_requests

BASE_URL = "https://api.anthropic.com"
API_VERSION = "2026-10-21"
PARAMS = {"model": "claude-haiku-4-5", "max_tokens": 64, "messages": [{"role": "user"}]}

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def digest_of(params: dict[str, object] = PARAMS, *, betas: tuple[str, ...] = (), url: str = BASE_URL) -> bytes:
    return frame_digest(params, betas=betas, api_version=API_VERSION, base_url=url)


def test_the_golden_fingerprints_never_change() -> None:
    """A fingerprint is the key under which paid answers are kept: it is the same in every release."""
    assert digest_of().hex() == "e6509536f215d4e9f9bde99dcfe2f58c237a7aec60832483832d2bf7890307cb"
    texts = pa.array(["hello", "naïve 🙂\n", None], pa.large_string())
    assert [row.tobytes().hex() for row in fingerprint_texts(digest_of(), texts)] == [
        "05c302d32a19455a7eacfb8aeaa4110c",
        "55ec8499e2cca5e048c87a00b8e2c9fc",
        "183cea11a519cb978319407d48a2c355",
    ]
    assert (
        fingerprint_json(digest_of(), [{"type": "text", "text": "hello"}]).hex() == "fca184b1ed600543872dc33135918246"
    )
    fingerprints = fingerprint_texts(digest_of(), texts)
    assert identity("nightly", fingerprints, np.zeros(3, np.uint16)) == "0888e1e2446608bd9cdc145a61b01d69"


@pytest.mark.parametrize(
    "other",
    [
        {"params": PARAMS | {"max_tokens": 65}},
        {"params": PARAMS | {"system": "Be brief."}},
        {"betas": ("output-300k-2026-03-24",)},
        {"url": "http://127.0.0.1:8765"},
    ],
)
def test_whatever_decides_the_answer_changes_the_digest(other: dict[str, object]) -> None:
    """Another parameter, beta header or base URL is another request."""
    assert digest_of(**other) != digest_of()


def test_the_spelling_of_the_same_request_does_not_matter() -> None:
    """Order of keys and of betas, and the spelling of the base URL, make no other request."""
    backwards = dict(reversed(PARAMS.items()))
    assert digest_of(backwards) == digest_of()
    assert digest_of(betas=("a", "b")) == digest_of(betas=("b", "a", "b"))
    assert digest_of(url="HTTPS://API.anthropic.com:443/") == digest_of()


@pytest.mark.parametrize(
    ("given_url", "normalized"),
    [
        ("https://API.Anthropic.com/", "https://api.anthropic.com"),
        ("http://localhost:80/v1/", "http://localhost/v1"),
        ("http://[::1]:8765", "http://[::1]:8765"),
        ("https://gateway.example/Path", "https://gateway.example/Path"),
    ],
)
def test_base_urls_are_written_in_one_way(given_url: str, normalized: str) -> None:
    """Scheme, host and default port do not tell two servers apart; the path does."""
    assert normalized_base_url(given_url) == normalized


@given(
    st.lists(st.one_of(TEXTS, st.none()), max_size=20), st.integers(0, 5), st.sampled_from(["string", "large_string"])
)
def test_a_text_has_the_same_fingerprint_in_every_arrow_layout(texts: list[str | None], skip: int, kind: str) -> None:
    """Width of the offsets, slices and chunks do not change a fingerprint, and neither do its neighbours."""
    digest = digest_of()
    made = pa.array(texts, getattr(pa, kind)()).slice(min(skip, len(texts)))
    alone = [fingerprint_texts(digest, pa.array([text], pa.large_string()))[0].tobytes() for text in made.to_pylist()]
    assert [row.tobytes() for row in fingerprint_texts(digest, made)] == alone
    chunked = pa.chunked_array([made, made])
    assert [row.tobytes() for row in fingerprint_texts(digest, chunked)] == alone * 2


@given(TEXTS, TEXTS)
def test_different_texts_have_different_fingerprints(a: str, b: str) -> None:
    """Two prompts share a fingerprint only where they are the same text."""
    two = fingerprint_texts(digest_of(), pa.array([a, b], pa.large_string()))
    assert (two[0].tobytes() == two[1].tobytes()) == (a == b)


def test_a_text_is_not_the_json_of_it() -> None:
    """A prompt that reads like JSON is another request than the blocks it describes."""
    content = [{"type": "text", "text": "hi"}]
    as_text = fingerprint_texts(digest_of(), pa.array([canonical_json(content).decode()]))[0].tobytes()
    assert as_text != fingerprint_json(digest_of(), content)


def test_identity_is_name_order_draws_and_salt() -> None:
    """The same rows in the same order under the same name are the same run, and nothing else is."""
    rows = np.arange(48, dtype=np.uint8).reshape(3, 16)
    draws = np.zeros(3, np.uint16)
    same = identity(None, rows, draws)
    assert identity(None, rows.copy(), draws.astype(int)) == same
    others = [
        identity("named", rows, draws),
        identity(None, rows[::-1], draws),
        identity(None, rows[:2], draws[:2]),
        identity(None, rows, draws + 1),
        identity(None, rows, draws, salt="reuse=False"),
    ]
    assert len({same, *others}) == 6


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8cfc000000301010018dd8db00000000049454e44ae426082"
)
PLANS: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({}, "ca7f17543e4954695674e41aab33c0a0"),
    "options": (
        {"system": "S", "max_tokens": 9, "model": "m", "stop_sequences": ["X"], "metadata": {"user_id": "u"}},
        "32dd6a286c1599db5a57d8648d183224",
    ),
    "template": ({"prompt": "{p} {n}", "prompt_col": None}, "db0429c873ef221c0fd3efe22240cd78"),
    "few_shot": ({"few_shot": [("q", "a")]}, "75aed672a39e1e3388860606aeb528cc"),
    "blocks": ({"prompt_col": "blocks"}, "201ca4bada398c441030d11464497ca4"),
    "turns": ({"prompt_col": "turns"}, "0d1a8e40c312a65cce6e9a2ff3dfde5e"),
    "cache_system": ({"system": "S", "cache_system": True}, "080d3092245d73373d8edcf5452d465d"),
    "image": ({"images_col": "image"}, "84f716a9aceed6cdb0e7cf050de6dd47"),
    "url": ({"images_col": "url"}, "64a88df7dc5f69f15d30c5925f99b5a5"),
    "document": ({"documents_col": "document"}, "83a74875af3fd94cd5a014d8a5f2b59e"),
    "names with types": (
        {"output_schema": {"mood": Literal["good", "bad"], "score": float, "words": list[str]}},
        "f99a2c03abf22e6332385e8092efbeb5",
    ),
    "JSON schema": (
        {"output_schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "a359aac8adbc8b20dceeb5ba63a3a63a",
    ),
    "betas": ({"betas": ["output-300k-2026-03-24"]}, "370995415211ebd7011803635bf9a864"),
}
ROW = pd.DataFrame(
    {
        "p": ["Grüße"],
        "n": [7],
        "blocks": [[{"type": "text", "text": "hi"}]],
        "turns": [[{"role": "user", "content": c} for c in "ab"]],
        "image": [PIXEL],
        "url": ["https://example.com/a.png"],
        "document": [b"note"],
    }
)


@pytest.mark.parametrize("name", PLANS)
def test_the_golden_fingerprints_of_rows_never_change(name: str) -> None:
    """What a row's request hashes to is the same in every release, whatever it is made of."""
    kwargs, golden = PLANS[name]
    made = plan_requests(ROW, parse_options({"prompt_col": "p", **kwargs}), base_url=BASE_URL, api_version=API_VERSION)
    assert made.fingerprints[0].tobytes().hex() == golden
