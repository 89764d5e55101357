"""The whole run, ours against the loop over rows that everybody writes first, on one server, interleaved.

    python -m benchmarks.whole_run [--loads med short] [--rows 1000 10000 100000] [--repeat 3] [--json FILE]

Each run is a fresh process, both variants warmed by one row. CPU seconds are those of the client process; the best of
the repeats counts. Memory is what the process holds privately at its peak, above what it held with the frame loaded;
it is watched from outside. Mapped files are not in it, the operating system can take those pages back.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.server import serving

VARIANTS = ("naive", "ours")


class Watch:
    """Samples the private memory of another process, with times on the clock that all processes share."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._samples: list[tuple[float, float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._done.wait(0.01):
            try:
                text = self._status.read_text()
            except OSError:
                return
            at = text.find("RssAnon:")
            if at >= 0:
                self._samples.append((time.monotonic(), int(text[at + 8 :].split(None, 1)[0]) / 1024))

    def peak_mb(self, begin: float, end: float) -> float:
        self._done.set()
        self._thread.join()
        return max((mb for at, mb in self._samples if begin <= at <= end), default=float("nan"))


def one_run(variant: str, load: str, n_rows: int, url: str, folder: str | None = None) -> dict[str, Any]:
    """Return the figures of one run in a fresh process."""
    store = tempfile.mkdtemp(prefix="bench-store-", dir=folder)
    try:
        command = [sys.executable, "-m", "benchmarks.variants", variant, load, str(n_rows), url, store]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            watch = Watch(process.pid)
            told = process.stdout.read()
        if process.returncode:
            raise SystemExit(f"{variant} {load} {n_rows}: exit {process.returncode}")
    finally:
        shutil.rmtree(store)
    figures: dict[str, Any] = json.loads(told.splitlines()[-1])
    figures["peak_mb"] = watch.peak_mb(figures["begin"], figures["end"]) - figures["before_mb"]
    return figures


def best_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run that took the least CPU, with the least of each other figure."""
    best = min(runs, key=lambda run: run["cpu_s"])
    lowest = {
        key: min(run[key] for run in runs) for key in ("peak_mb", "rerun_s", "reopen_s", "merge_s") if key in best
    }
    return best | lowest | {"all_cpu_s": [round(run["cpu_s"], 4) for run in runs]}


def compare(load: str, n_rows: int, n_repeat: int, variants: tuple[str, ...] = VARIANTS) -> dict[str, dict[str, Any]]:
    """Return the best figures of each variant; they take turns on one server."""
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    with serving(load) as url:
        for _ in range(n_repeat):
            for variant in variants:
                runs[variant].append(one_run(variant, load, n_rows, url))
    told = [run["checks"] for of_variant in runs.values() for run in of_variant]
    if any(other != told[0] for other in told):
        raise SystemExit(f"{load} {n_rows}: the variants brought different answers: {told}")
    return {variant: best_of(of_variant) for variant, of_variant in runs.items()}


def report(load: str, n_rows: int, best: dict[str, dict[str, Any]]) -> Iterator[str]:
    for variant, run in best.items():
        phases = "  ".join(f"{name} {seconds:.3f}" for name, seconds in run["phases"].items())
        yield (
            f"{load:5} {n_rows:>9,} {variant:10} {run['cpu_s']:8.3f} s CPU {run['cpu_s'] / n_rows * 1e6:7.1f} us/row "
            f"{run['wall_s']:7.1f} s wall  +{run['peak_mb']:6.1f} MB   ({phases})"
        )
    if len(best) == 2:
        first, second = best.values()
        ratios = [first[name] / second[name] for name in ("cpu_s", "peak_mb")]
        medians = [statistics.median(run["all_cpu_s"]) for run in best.values()]
        yield (
            f"{'':16}CPU ratio {ratios[0]:.2f}, of the medians {medians[0] / medians[1]:.2f} "
            f"({len(first['all_cpu_s'])} runs each), memory ratio {ratios[1]:.0f}"
        )
    for run in best.values():
        if "rerun_s" in run:
            yield f"{'':16}again {run['rerun_s']:.3f} s, opened {run['reopen_s']:.3f} s, merge {run['merge_s']:.4f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loads", nargs="+", default=["med", "short"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--json", type=Path, help="add the figures to this file, one line for each comparison")
    given = parser.parse_args()
    for load in given.loads:
        for n_rows in given.rows:
            best = compare(load, n_rows, given.repeat, tuple(given.variants))
            for line in report(load, n_rows, best):
                print(line, flush=True)
            if given.json:
                with given.json.open("a") as file:
                    file.write(
                        json.dumps({"load": load, "rows": n_rows, "best": best, "loadavg": os.getloadavg()}) + "\n"
                    )


if __name__ == "__main__":
    main()
