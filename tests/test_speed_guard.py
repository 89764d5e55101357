"""A guard on speed: the CPU time of a run against that of the plain loop over rows, both measured here and now."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
N_ROWS = 20_000
LEAST_RATIO = 5.0

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks" / "whole_run.py").exists(), reason="the benchmarks are not part of this installation"
)


def test_a_run_takes_a_fifth_of_the_cpu_of_the_plain_loop() -> None:
    """Over 20,000 short rows the client spends at least 5 times less CPU than iterrows, create, results and merge.

    Absolute times say nothing on a machine of which nothing is known; the two take turns, and a ratio of CPU times
    is the same on a slow machine and on a busy one. The median is taken, so that one bad moment decides nothing.
    """
    code = f"from benchmarks.guard import ratios; print(*ratios('short', {N_ROWS}, 3))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    ratios = [float(text) for text in done.stdout.split()]
    assert statistics.median(ratios) >= LEAST_RATIO, f"CPU ratios {ratios}: a run has become slower"
