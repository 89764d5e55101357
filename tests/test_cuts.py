"""Results of 200 rows cut at every byte: what is accepted is whole, what is not whole is fetched again.

The short form cuts at every 97th byte (other shapes of the file more coarsely) and at the last line ends, as the
collector decodes; ``make test-full`` at every byte. There a file is decoded without prices, which have no say in
whether it is accepted, and decoded as the collector does where it is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rowlab import OUTCOMES, ask, plan_outcomes

from pandas_batch import simulator
from pandas_batch.engine.collecting import Collector
from pandas_batch.engine.posting import EngineContext
from pandas_batch.results.answers import Decoded, decode_results, decode_to_file
from pandas_batch.simulator.faults import BadResults
from pandas_batch.store import BatchRecord
from pandas_batch.wire.wire import Wire

N_ROWS = 200
SHAPES: dict[str, Callable[[bytes], bytes]] = {
    "lf": lambda raw: raw,
    "crlf": lambda raw: raw.replace(b"\n", b"\r\n"),
    "bom, no last line end": lambda raw: b"\xef\xbb\xbf" + raw.rstrip(b"\n"),
}
Judge = Callable[[BatchRecord, Decoded], bool]


@dataclass
class Sample:
    """One collected batch of 200 rows of every outcome: its raw results, and how they are judged."""

    batch: BatchRecord
    custom_ids: Any
    raw: bytes
    judge: Judge
    folder: Path
    api: simulator.Simulator
    whole: list[tuple[object, ...]]

    def decode(self, data: bytes) -> Decoded:
        """Decode what a download left on disk, as the collector does."""
        part = self.folder / "results.part"
        part.write_bytes(data)
        return decode_to_file(part, self.folder / "answers.part", at=self.batch.created_at, **self.sent)

    @property
    def sent(self) -> dict[str, Any]:
        """What a decoder has to know of the batch."""
        return {
            "prefix": f"pb1_{self.batch.nonce}_".encode(),
            "n_requests": self.batch.n_requests,
            "custom_ids": self.custom_ids,
        }

    def n_losses_at_every_byte(self, data: bytes, cuts: Iterable[int]) -> tuple[int, int]:
        """Return at how many of `cuts` the file is accepted, and at how many of these a row is not what it should."""
        n_accepted = n_lost = 0
        view = memoryview(data)
        for cut in cuts:
            if self.judge(self.batch, decode_results([view[:cut]], **self.sent)):
                n_accepted += 1
                n_lost += rows_of(self.decode(data[:cut])) != self.whole
        return n_accepted, n_lost

    def n_silent_losses(self, data: bytes, cuts: Iterable[int], judge: Judge | None = None) -> int:
        """Return at how many of `cuts` the file is accepted although a row is not what it is in the whole."""
        n = 0
        for cut in cuts:
            decoded = self.decode(data[:cut])
            n += (judge or self.judge)(self.batch, decoded) and rows_of(decoded) != self.whole
        return n


def rows_of(decoded: Decoded) -> list[tuple[object, ...]]:
    """Return what a user would see of each row."""
    table = decoded.table.select(["status", "output", "output_tokens", "cost_usd", "error_message"])
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


@pytest.fixture
def sample(clock, tmp_path) -> Iterable[Sample]:
    chance = random.Random(7)
    prompts = [f"please be {chance.choice(OUTCOMES)} #{i} \u2028 {'ä' * (i % 4)}" for i in range(N_ROWS)]
    with simulator.serve(clock=clock.time_s, seconds_per_batch=5) as api:
        plan_outcomes(api)
        run = ask(pd.DataFrame({"prompt": prompts}), api, clock)
        run.wait()
        run.engine.join(10)
        (batch,) = run.store.batches.of_run(run.id)
        with run.store.files.open_results(batch.key) as file:
            raw = file.read()
        place = EngineContext(store=run.store, wire=run.wire(), clock=clock)
        judge = Collector(place)._accounts_for_all
        made = Sample(batch, run.store.batches.custom_ids_of(batch.key), raw, judge, tmp_path, api, [])
        decoded = made.decode(raw)
        assert judge(batch, decoded), "the whole file has to be accepted"
        made.whole = rows_of(decoded)
        yield made


def line_ends(data: bytes) -> list[int]:
    """Return where a cut leaves nothing but whole lines, and the bytes beside: the cuts that are hardest to see."""
    return [at + beside for at, byte in enumerate(data) if byte == 10 for beside in (0, 1, 2)]


@pytest.mark.parametrize(("shape", "step"), list(zip(SHAPES, (97, 997, 997), strict=True)))
def test_a_cut_file_is_accepted_only_whole(sample, shape, step):
    """Whatever byte a file ends at: it is accepted only where every row is what it is in the whole file."""
    data = SHAPES[shape](sample.raw)
    assert sample.n_silent_losses(data, [len(data)]) == 0
    assert sample.n_silent_losses(data, range(0, len(data), step)) == 0
    assert sample.n_silent_losses(data, line_ends(data)[-30:]) == 0


N_PARTS = 4


@pytest.mark.full
@pytest.mark.parametrize("part", range(N_PARTS))
@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_cut_at_every_byte(sample, shape, part, capsys):
    """The figure of RELIABILITY.md: 0 silent losses at every byte of a 200-row file; in parts, for several workers."""
    data = SHAPES[shape](sample.raw)
    cuts = range(part, len(data) + 1, N_PARTS)
    began_s = time.monotonic()
    n_accepted, n_lost = sample.n_losses_at_every_byte(data, cuts)
    took_s = time.monotonic() - began_s
    with capsys.disabled():
        print(
            f"\n{N_ROWS} rows, {shape}: cut at {len(cuts):,} of {len(data) + 1:,} bytes (part {part + 1} of {N_PARTS})"
            f" in {took_s:.0f} s, {n_accepted} accepted, {n_lost} silent losses"
        )
    assert n_lost == 0
    # Only what lacks nothing but its last line end, or ends at it, is whole.
    assert n_accepted <= 2


PLANTED: dict[str, Judge] = {
    "believe anything": lambda batch, decoded: True,
    "count lines alone": lambda batch, decoded: decoded.n_lines >= batch.n_requests,
}


@pytest.mark.parametrize("planted", PLANTED)
def test_the_cuts_catch_a_careless_judge(sample, planted):
    """A planted bug, believing any file or counting its lines alone, is seen to lose rows silently."""
    n_lost = sample.n_silent_losses(sample.raw, range(len(sample.raw) - 60, len(sample.raw)), PLANTED[planted])
    assert n_lost > 0


def fetch(sample: Sample, wire: Wire, fault: BadResults) -> bytes | None:
    """Download the results over HTTP with a fault; None where the download itself says that it broke."""
    blocks: list[bytes] = []
    sample.api.faults.clear()
    sample.api.faults.add(fault)
    try:
        wire.results(str(sample.batch.batch_id), blocks.append)
    except Exception:
        return None
    return b"".join(blocks)


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("polite", [True, False])
@pytest.mark.parametrize("step", [9973, pytest.param(499, marks=pytest.mark.full)])
def test_downloads_cut_on_the_wire(sample, clock, framing, polite, step):
    """Over real HTTP, however the body is framed and ended: a download breaks in words, or is judged by its rows."""
    n_broken = n_short = 0
    with Wire(sample.api.client(), clock=clock) as wire:
        for cut in range(step, len(sample.raw), step):
            fault = BadResults("cut", at_byte=cut, framing=framing, polite=polite)
            data = fetch(sample, wire, fault)
            if data is None:
                n_broken += 1
                continue
            n_short += 1
            assert sample.n_silent_losses(data, [len(data)]) == 0
            assert not sample.judge(sample.batch, sample.decode(data))
    n_cuts = n_broken + n_short
    # A body that ends with its connection cannot tell a cut from its end: that is why rows are counted.
    assert (n_broken, n_short) == ((0, n_cuts) if polite or framing == "close" else (n_cuts, 0))
