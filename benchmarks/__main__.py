"""Print figures: ``python -m benchmarks [--quick] [--felt] [--million] [--peers FOLDER] [--plot FILE]``."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.felt import felt
from benchmarks.limits import limits
from benchmarks.server import serving
from benchmarks.whole_run import compare, one_run, report

PACKAGES = ("anthropic", "httpx2", "h11", "pandas", "numpy", "pyarrow", "msgspec")


def machine() -> str:
    """Return what the figures were taken on."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "")
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"{os.cpu_count()} cores {model}, {platform.system()}, Python {platform.python_version()}; "
        f"{', '.join(versions)}; load average {loads}"
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def import_ms() -> float:
    """Return what ``import pandas_batch`` takes beyond pandas, in a fresh process."""
    code = "import time, pandas; t = time.process_time(); import pandas_batch; print(time.process_time() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    return min(float(run.stdout) for run in runs) * 1e3


def poll_ms(n_batches: int = 100) -> float:
    """Return the CPU time of one look at `n_batches` open batches, in ms."""
    import anthropic

    from pandas_batch.wire.wire import Wire

    with serving("short", seconds_per_batch=3600) as url:
        client = anthropic.Anthropic(api_key="none", base_url=url)
        params = {"model": "claude-haiku-4-5", "max_tokens": 16, "messages": [{"role": "user", "content": "Hi"}]}
        for _ in range(n_batches):
            client.messages.batches.create(requests=[{"custom_id": "a", "params": params}])
        wire = Wire(client)
        spans = []
        for _ in range(10):
            started_s = time.process_time()
            assert len(wire.list(limit=1000).batches) == n_batches
            spans.append(time.process_time() - started_s)
    return statistics.median(spans) * 1e3


def table(*, quick: bool, million: bool) -> Iterator[str]:
    yield machine()
    yield ""
    sizes = [1_000, 10_000] if quick else [1_000, 10_000, 100_000]
    # The fewer the rows, the more a run is disturbed by whatever else the machine does for a moment.
    n_repeats = {1_000: 10, 10_000: 5, 100_000: 3}
    us_per_row: dict[int, float] = {}
    for load in ("med", "short"):
        for n_rows in sizes:
            best = compare(load, n_rows, 1 if quick else n_repeats[n_rows])
            yield from report(load, n_rows, best)
            if load == "med":
                us_per_row[n_rows] = best["ours"]["cpu_s"] / n_rows * 1e6
    if million:
        best = compare("med", 1_000_000, 1)
        yield from report("med", 1_000_000, best)
        us_per_row[1_000_000] = best["ours"]["cpu_s"]
    yield ""
    for n_rows in (10_000, 1_000_000):
        if n_rows in us_per_row and 100_000 in us_per_row:
            us, us_of_100k = us_per_row[n_rows], us_per_row[100_000]
            yield f"a row of {n_rows:,} over one of 100,000: {us:.1f} / {us_of_100k:.1f} us = {us / us_of_100k:.2f}"
    yield ""
    for load in ("med", "short"):
        with serving(load) as url:
            for name, (cpu_ms, elapsed_ms) in limits(load, sizes[-1], url).items():
                yield f"{load:5} {sizes[-1]:>9,} {name:22} {cpu_ms:8.1f} ms CPU {elapsed_ms:8.1f} ms elapsed"
    yield ""
    yield f"import pandas_batch, beyond pandas: {import_ms():.0f} ms CPU"
    yield f"a look at 100 open batches: {poll_ms():.1f} ms CPU"


def peers(n_rows: int, environments: Path, picture: Path | None) -> Iterator[str]:
    """Compare with other libraries on one server, each in its own environment under `environments`."""
    from benchmarks.peers import REQUIREMENTS, run_peer

    found: dict[str, dict[str, Any]] = {}
    with serving("med") as url:
        found["the plain loop"] = one_run("naive", "med", n_rows, url)
        found["pandas_batch"] = one_run("ours", "med", n_rows, url)
        for name in REQUIREMENTS:
            runs = [run_peer(name, "med", n_rows, url, environments) for _ in range(3)]
            found[name] = min(runs, key=lambda run: run.get("cpu_s", float("inf")))
    ours = found["pandas_batch"]
    for name, run in found.items():
        if "error" in run:
            yield f"{name:24} does not run: {run['error'][:90]}"
            continue
        back = f"{run['n_rows_back']:,} rows back" if "n_rows_back" in run else ""
        yield (
            f"{name:24} {run['cpu_s']:8.3f} s CPU {run['cpu_s'] / n_rows * 1e6:8.1f} us/row +{run['peak_mb']:7.1f} MB "
            f"{run['wall_s']:6.1f} s wall, {run['cpu_s'] / ours['cpu_s']:6.1f} times ours  {back}"
        )
    if picture is not None:
        from benchmarks.plot import draw

        draw(found, n_rows, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 10,000 rows, once each")
    parser.add_argument("--felt", action="store_true", help="what people feel: queue, pauses, network, history")
    parser.add_argument("--million", action="store_true", help="a million rows as well (takes 10 GB of memory)")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="other libraries too, installed under FOLDER")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the comparison with other libraries")
    given = parser.parse_args()
    if given.felt:
        for line in felt(quick=given.quick):
            print(line, flush=True)
        return
    if given.peers is None:
        for line in table(quick=given.quick, million=given.million):
            print(line, flush=True)
        return
    for line in peers(1_000 if given.quick else 10_000, given.peers, given.plot):
        print(line, flush=True)


if __name__ == "__main__":
    main()
