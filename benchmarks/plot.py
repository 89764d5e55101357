"""The figures as a picture: microseconds of the client's processor per row, and memory, library by library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def draw(figures: Mapping[str, Mapping[str, Any]], n_rows: int, path: Path) -> None:
    """Draw bars of ``cpu_s`` and ``peak_mb`` by name, the least last, and write them to `path`."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    known = {name: found for name, found in figures.items() if "error" not in found}
    names = sorted(known, key=lambda name: -known[name]["cpu_s"])
    picture, both = pyplot.subplots(1, 2, figsize=(9, 0.55 * len(names) + 1.2), layout="constrained")
    columns = (
        ("CPU microseconds per row", [known[name]["cpu_s"] / n_rows * 1e6 for name in names]),
        ("memory at the peak, MB", [known[name]["peak_mb"] for name in names]),
    )
    for axes, (title, values) in zip(both, columns, strict=True):
        colors = ["#c15f3c" if name == "pandas_batch" else "#b8b5ad" for name in names]
        bars = axes.barh(names, values, color=colors)
        axes.bar_label(bars, fmt="%.3g", padding=3)
        axes.set_xlim(right=max(values) * 1.15)
        axes.set_xticks([])
        axes.set_title(f"{title}, {n_rows:,} rows", loc="left", fontsize=10)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    picture.savefig(path, dpi=110)
