"""Every damage that the simulator does to a download of results, seen through the real SDK."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import pytest
from simulator_lab import N_ROWS, requests

from pandas_batch.simulator import BadResults


@pytest.fixture
def ended(api, once, clock):
    """The id of a batch that has ended, and the lines of its results."""
    batch = once.messages.batches.create(requests=requests())
    clock.advance(3)
    lines = list(next(one for one in api.batches if one.id == batch.id).result_lines())
    return batch.id, [line for line in lines if line]


def download(client: anthropic.Anthropic, batch_id: str) -> bytes:
    with client.messages.batches.with_streaming_response.results(batch_id) as response:
        return b"".join(response.iter_bytes())


def whole(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def test_a_download_without_faults_is_whole(once, ended):
    """The measure of all that follows."""
    assert download(once, ended[0]) == whole(ended[1])


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("at_byte", [0, 1, 700, -1])
def test_a_cut_under_framing_raises(api, once, ended, framing, reset, at_byte):
    """A body that ends before its framing says so raises while it is read; the next download is whole."""
    api.faults.add(BadResults("cut", at_byte=at_byte, framing=framing, reset=reset))
    with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
        download(once, ended[0])
    assert download(once, ended[0]) == whole(ended[1])


def test_every_cut_is_at_its_byte(api, once, ended):
    """A polite cut gives just so many bytes and no error: only the caller can notice that rows are missing."""
    body = whole(ended[1])
    for at_byte in range(0, len(body), 97):
        for framing in ("chunked", "length", "close"):
            api.faults.add(BadResults("cut", at_byte=at_byte, framing=framing, polite=True))
            assert download(once, ended[0]) == body[:at_byte]
    api.faults.add(BadResults("cut", at_byte=-5, polite=True))
    assert download(once, ended[0]) == body[:-5]
    api.faults.add(BadResults("cut", at_byte=100, framing="close"))
    assert download(once, ended[0]) == body[:100]


def test_a_cut_at_a_row_is_silent_in_the_sdk(api, once, ended):
    """Three of six rows, no error: the reason why rows are counted."""
    api.faults.add(BadResults("cut", n_rows=3, polite=True))
    assert len(list(once.messages.batches.results(ended[0]))) == 3


def test_lines_may_be_missing_doubled_or_strange(api, once, ended):
    """Each damage to the lines is what it says, and the rest of the lines is untouched."""
    batch_id, lines = ended

    def damaged(damage: Any, **options: Any) -> list[bytes]:
        api.faults.add(BadResults(damage, **options))
        return download(once, batch_id).split(b"\n")[:-1]

    missing = damaged("missing", n_rows=2)
    assert len(missing) == N_ROWS - 2
    assert set(missing) < set(lines)
    assert sorted(damaged("doubled", n_rows=2)) == sorted([*lines, lines[0], lines[3]])
    doubled = damaged("doubled_differently")
    assert doubled[:-1] == lines
    assert json.loads(doubled[-1]) == {"custom_id": json.loads(lines[0])["custom_id"], "result": {"type": "canceled"}}
    unknown = damaged("unknown_id", n_rows=3)
    assert [json.loads(line)["custom_id"] for line in unknown if line not in lines] == [
        "nobody-0",
        "nobody-1",
        "nobody-2",
    ]
    assert damaged("junk", text="[1]") == [lines[0], b"[1]", *lines[1:]]
    assert damaged("blank", n_rows=2) == [lines[0], b"", b"", *lines[1:]]
    assert damaged("crlf") == [line + b"\r" for line in lines]
    assert damaged("bom") == [b"\xef\xbb\xbf" + lines[0], *lines[1:]]
    assert damaged("empty") == []
    assert damaged("gzip") == lines


def test_damages_add_up(api, once, ended):
    """Several faults can strike one download."""
    api.faults.add(BadResults("doubled"))
    api.faults.add(BadResults("crlf"))
    assert download(once, ended[0]).count(b"\r\n") == N_ROWS + 1


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_a_stall_outlasts_the_read_timeout(api, ended, framing):
    """A stream that falls silent raises the client's timeout, after what had been sent."""
    api.faults.add(BadResults("stall", at_byte=300, pause_s=60, framing=framing))
    client = api.client(max_retries=0, timeout=0.7)
    seen = bytearray()

    def read() -> None:
        with client.messages.batches.with_streaming_response.results(ended[0]) as response:
            for block in response.iter_bytes():
                seen.extend(block)

    with pytest.raises(httpx2.ReadTimeout):
        read()
    assert bytes(seen) == whole(ended[1])[:300]


def test_a_slow_stream_is_whole(api, once, ended):
    """A slow server takes its time and sends everything."""
    api.faults.add(BadResults("slow", at_byte=500, pause_s=0.001))
    assert download(once, ended[0]) == whole(ended[1])
