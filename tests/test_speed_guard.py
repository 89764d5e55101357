"""A guard on speed: the CPU time of a run against that of the plain loop over rows, both measured here and now."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
N_ROWS = 5_000
N_FULL_ROWS = 20_000
LEAST_RATIO = 5.0

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks" / "whole_run.py").exists(), reason="the benchmarks are not part of this installation"
)


# A careless change: each line goes through an object of the SDK, as in its own `results()`.
SLOWED = """
import json
from anthropic.types.messages import MessageBatchIndividualResponse as Response
from pandas_batch.results import result_file
from pandas_batch.results import result_lines

def read_lines(lines):
    read = [Response.model_validate(json.loads(bytes(line))).model_dump() for line in lines]
    return [result_lines._sound_or_invalid(result_lines._line_of(line)) for line in read]

result_file.read_lines = read_lines
"""


def median_ratio(n_rows: int, n_repeat: int, before: str = "") -> float:
    """Return how many times less CPU ours takes, in a fresh process that runs `before` first."""
    code = f"{before}\nfrom benchmarks.guard import ratios; print(*ratios('short', {n_rows}, {n_repeat}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return statistics.median(float(text) for text in done.stdout.split())


@pytest.mark.parametrize("n_rows", [N_ROWS, pytest.param(N_FULL_ROWS, marks=pytest.mark.full)])
def test_a_run_takes_a_fifth_of_the_cpu_of_the_plain_loop(n_rows: int) -> None:
    """Over thousands of short rows a client spends at least 5 times less CPU than the plain loop.

    Absolute times say nothing on a machine of which nothing is known; the two take turns, and a ratio of CPU times
    is the same on a slow machine and on a busy one. The median is taken, so that one bad moment decides nothing.
    """
    assert median_ratio(n_rows, 3) >= LEAST_RATIO, "a run has become slower"


@pytest.mark.parametrize("n_rows", [N_ROWS, pytest.param(N_FULL_ROWS, marks=pytest.mark.full)])
def test_the_guard_sees_a_build_that_was_slowed(n_rows: int) -> None:
    """One careless change on the way of the results, and the ratio falls below what the guard asks for."""
    assert median_ratio(n_rows, 1, before=SLOWED) < LEAST_RATIO
