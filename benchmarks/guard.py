"""CPU ratios of the plain loop over ours, in one process, for the guard in the tests."""

from __future__ import annotations

import tempfile
from contextlib import redirect_stderr
from io import StringIO

import anthropic

import pandas_batch  # noqa: F401 - registers the accessor
from benchmarks.loads import frame
from benchmarks.server import serving
from benchmarks.variants import Clock, naive, ours


def ratios(load: str, n_rows: int, n_repeat: int) -> list[float]:
    """Return the CPU time of the loop, divided by ours, of each repeat; the server is another process."""
    found = []
    with serving(load) as url, tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):
        client = anthropic.Anthropic(api_key="none", base_url=url)
        for i in range(n_repeat + 1):
            # The first round is of few rows: it warms both up.
            df = frame(load, n_rows if i else 10)
            seconds = []
            for variant in (naive, ours):
                clock = Clock()
                if variant is naive:
                    naive(df, client, clock)
                else:
                    ours(df, client, clock, f"{folder}/{i}")
                seconds.append(sum(clock.phases.values()))
            if i:
                found.append(seconds[0] / seconds[1])
    return found
