"""A run as a picture: rows, tokens, cost against the estimate, lengths of answers, times of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_batch.amounts import about, duration, short, usd
from pandas_batch.errors import InputError, clip
from pandas_batch.requests.plain_values import kind_of
from pandas_batch.results.row_status import FAILED

from .call_values import RUN_IS_AS_IT_WAS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_batch.run.run_answers import RunAnswers
    from pandas_batch.types import RunStatus

# Read on white as on black (at least 4.5 to 1 on either), and distinguished by hatches where there is no color.
_INK = "#767676"
_OK, _BAD, _OFF, _BLUE = "#3f8f46", "#cf5148", "#8a8a8a", "#4c84b8"
_HATCH = {_BAD: "////", _OFF: "....", _OK: "", _BLUE: ""}
_N_BATCHES = 60


def plot_run(status: RunStatus, answers: RunAnswers, ax: Any = None) -> Any:
    """
    Draw a run; return the axes.

    Parameters
    ----------
    status, answers
        Of the run.
    ax
        Axes that take the rows by status alone; None: a new figure with all five.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("run.plot() needs matplotlib: pip install 'pandas-batch[plot]'") from error

    if ax is not None:
        if not callable(getattr(ax, "barh", None)):
            raise InputError(
                f"ax is {kind_of(ax)}; it has to be axes of matplotlib.",
                RUN_IS_AS_IT_WAS,
                "run.plot()   # or: figure, ax = plt.subplots(); run.plot(ax)",
            )
        _rows(ax, status)
        ax.set_title(_title(status), color=_INK)
        return ax
    figure, axes = plt.subplots(1, 5, figsize=(15, 2.9), layout="constrained", width_ratios=[1.25, 0.8, 1.1, 1.1, 1.1])
    figure.patch.set_alpha(0.0)
    figure.suptitle(_title(status), color=_INK, fontsize=11, x=0.01, ha="left")
    _rows(axes[0], status)
    _tokens(axes[1], status)
    _cost(axes[2], status)
    _lengths(axes[3], answers)
    _times(axes[4], status)
    return axes


def _title(status: RunStatus) -> str:
    cost = "cost unknown" if status.cost_usd is None else usd(status.cost_usd)
    # A name may hold what matplotlib would set as a formula.
    name = clip(status.name or status.run_id, 60).replace("$", r"\$")
    return f"{name}: {status.n_rows:,} {'row' if status.n_rows == 1 else 'rows'}, {cost}".replace(" $", r" \$")


def _bars(
    ax: Any, title: str, names: Sequence[str], values: Sequence[float], colors: Sequence[str], labels: Any
) -> None:
    """Draw bars that lie, the first above, each with its value."""
    places = np.arange(len(names))[::-1]
    for place, value, color in zip(places, values, colors, strict=True):
        ax.barh(place, value, color=color, hatch=_HATCH[color], edgecolor="#ffffff88", linewidth=0, height=0.62)
    most = max([*values, 1e-12])
    for place, value, label in zip(places, values, labels, strict=True):
        ax.text(value + 0.02 * most, place, label.replace("$", r"\$"), va="center", color=_INK, fontsize=9)
    ax.set_yticks(places, [str(name).replace("$", r"\$") for name in names])
    ax.set_xlim(0, 1.45 * most)
    ax.set_ylim(-0.6, max(len(names), 2) - 0.4)
    ax.set_xticks([])
    _plain(ax, title)


def _plain(ax: Any, title: str) -> None:
    ax.set_title(title, color=_INK, fontsize=10, loc="left")
    ax.set_facecolor("none")
    ax.tick_params(colors=_INK, labelsize=9, length=0)
    ax.xaxis.label.set_color(_INK)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(_INK)


def _nothing(ax: Any, title: str, why: str) -> None:
    _plain(ax, title)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines["bottom"].set_visible(False)
    ax.text(0.0, 0.5, why, color=_INK, fontsize=9, va="center", transform=ax.transAxes)


def _rows(ax: Any, status: RunStatus) -> None:
    names = list(status.counts)
    if not names:
        _nothing(ax, "rows", "none")
        return
    colors = [_OK if name == "succeeded" else _BAD if name in FAILED else _OFF for name in names]
    values = [status.counts[name] for name in names]
    _bars(ax, "rows", names, values, colors, [f"{n:,}" for n in values])


def _tokens(ax: Any, status: RunStatus) -> None:
    if status.tokens_in is None or status.tokens_out is None:
        _nothing(ax, "tokens", "none yet")
        return
    values = [status.tokens_in, status.tokens_out]
    _bars(ax, "tokens", ["in", "out"], values, [_BLUE, _BLUE], [short(n) for n in values])


def _cost(ax: Any, status: RunStatus) -> None:
    shown = [
        ("billed" if status.is_final else "so far", status.paid_usd, _OK),
        ("expected", status.cost_usd_expected, _BLUE),
        ("not batched", status.cost_usd_standard, _OFF),
        ("at most", status.cost_usd_max, _OFF),
    ]
    known = [(name, value, color) for name, value, color in shown if value is not None]
    if not known:
        _nothing(ax, "cost", "no price is known")
        return
    names, values, colors = zip(*known, strict=True)
    _bars(ax, "cost against the estimate", names, values, colors, [usd(value) for value in values])


def _lengths(ax: Any, answers: RunAnswers) -> None:
    title = "length of answers (tokens)"
    found = [
        table.column("output_tokens").to_numpy(zero_copy_only=False)[positions]
        for table, positions, _ in answers.over_tables()
    ]
    lengths = np.concatenate(found).astype(float) if found else np.zeros(0)
    lengths = lengths[~np.isnan(lengths)]
    if not len(lengths):
        _nothing(ax, title, "none yet")
        return
    ax.hist(lengths, bins=min(24, max(1, len(np.unique(lengths)))), color=_BLUE, rwidth=0.9)
    median = float(np.median(lengths))
    ax.axvline(median, color=_INK, linewidth=1, linestyle="--")
    ax.annotate(
        f"median {median:,.0f}",
        (median, 1),
        xycoords=("data", "axes fraction"),
        color=_INK,
        fontsize=9,
        xytext=(3, -8),
        textcoords="offset points",
    )
    _plain(ax, title)
    ax.yaxis.set_major_locator(_few_whole_numbers())
    ax.xaxis.set_major_locator(_few_whole_numbers())


def _few_whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4, integer=True)


def _times(ax: Any, status: RunStatus) -> None:
    took = [batch.took_s for batch in status.batches if batch.took_s is not None]
    if not took:
        _nothing(ax, "time of batches", "none has ended yet")
        return
    if len(took) <= 5:
        names = [str(at) for at in range(1, len(took) + 1)]
        _bars(ax, "time of batches", names, took, [_BLUE] * len(took), [duration(one) for one in took])
        return
    shown = sorted(took)[-_N_BATCHES:]
    ax.bar(np.arange(len(shown)), shown, color=_BLUE, width=0.8)
    _plain(ax, f"time of {len(took):,} batches, the longest {about(max(took))}")
    ax.set_xticks([])
    ax.set_yticks([0, max(shown)], ["0", duration(max(shown))])
