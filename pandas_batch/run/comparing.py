"""Two runs of the same rows, side by side: the gate that keeps a prompt change from costing more or answering worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, get_origin

import numpy as np
import pandas as pd

from pandas_batch.amounts import number, usd
from pandas_batch.errors import FrameMismatchError, InputError, clip
from pandas_batch.requests.plain_values import kind_of, shown

from .comparison import COMPARING_SPENDS_NOTHING, Comparison, Side, ratio_of

Metric = Callable[[pd.DataFrame], float]
_RUNS_HINT = "pandas_batch.compare_runs(run_a, run_b)   # runs, or their ids or names: pandas_batch.runs() lists them"
_METRIC_HINT = "compare_runs(a, b, metric=lambda df: (df['output'] == df['label']).mean())"
_COLUMNS = ("output", "status")
_MOST = 1e300


class RunLike(Protocol):
    """What a comparison reads of a run."""

    @property
    def id(self) -> str:
        """Name of the run in its store."""

    @property
    def name(self) -> str | None:
        """What the user called it."""

    def cost_of_rows(self, positions: np.ndarray) -> float | None:
        """Return what the answers of some rows of its result cost; None where a price is unknown."""

    def result(self) -> pd.DataFrame:
        """Return the frame with the run's columns."""


def compare_runs(
    a: RunLike,
    b: RunLike,
    metric: Metric | None = None,
    max_cost_ratio: float | None = None,
    *,
    max_metric_drop: float = 0.0,
    max_more_failures: int = 0,
) -> Comparison:
    """Compare run `b` with the baseline `a` over the rows they share, as `pandas_batch.compare_runs` says."""
    _need(max_cost_ratio is None or _is_number(max_cost_ratio, above=0.0), "max_cost_ratio", max_cost_ratio)
    _need(_is_number(max_metric_drop), "max_metric_drop", max_metric_drop)
    _need(_is_number(max_more_failures), "max_more_failures", max_more_failures)
    if metric is not None and (not callable(metric) or isinstance(metric, type) or get_origin(metric) is not None):
        raise InputError("metric is not a function.", COMPARING_SPENDS_NOTHING, _METRIC_HINT)
    if metric is None and max_metric_drop:
        raise InputError(
            f"max_metric_drop={max_metric_drop:g} has no metric= that it could hold.",
            COMPARING_SPENDS_NOTHING,
            _METRIC_HINT,
        )
    for name, run in (("a", a), ("b", b)):
        if not (hasattr(run, "cost_of_rows") and hasattr(run, "result")):
            raise InputError(
                f"{name} of compare_runs() is {kind_of(run)}, and no run.", COMPARING_SPENDS_NOTHING, _RUNS_HINT
            )
    frames = a.result(), b.result()
    places = _pair(*frames, _label(a), _label(b))
    prefixes = _prefix(frames[0], a), _prefix(frames[1], b)
    paired = frames[0].iloc[places[0]], frames[1].iloc[places[1]]
    side_a, side_b = (
        _side(
            run,
            shared,
            prefix,
            n_rows=len(frame),
            cost_usd=run.cost_of_rows(at),
            metric=None if metric is None else _measure(metric, _without_prefix(shared, prefix), run),
        )
        for run, frame, prefix, shared, at in zip((a, b), frames, prefixes, paired, places, strict=True)
    )
    outputs = [frame[f"{prefix}output"] for frame, prefix in zip(paired, prefixes, strict=True)]
    answered = [
        _succeeded(frame[f"{prefix}status"]).to_numpy(bool) for frame, prefix in zip(paired, prefixes, strict=True)
    ]
    both = answered[0] & answered[1]
    same = np.fromiter(map(_is_same, outputs[0].array, outputs[1].array), bool, len(both))
    at = np.flatnonzero(both & ~same)
    return Comparison(
        a=side_a,
        b=side_b,
        n_paired=len(both),
        n_both_succeeded=int(both.sum()),
        n_agree=int((both & same).sum()),
        differing=pd.DataFrame(
            {"output_a": outputs[0].array[at], "output_b": outputs[1].array[at]}, index=outputs[0].index[at]
        ),
        reasons=_reasons(side_a, side_b, max_cost_ratio, max_metric_drop, max_more_failures),
    )


def _reasons(
    a: Side,
    b: Side,
    max_cost_ratio: float | None,
    max_metric_drop: float,
    max_more_failures: int,
) -> tuple[str, ...]:
    reasons = []
    if max_cost_ratio is not None:
        ratio = ratio_of(a.cost_usd_per_row, b.cost_usd_per_row)
        if ratio is None:
            reasons.append("the cost per answered row is unknown, so max_cost_ratio cannot be kept")
        elif ratio > max_cost_ratio * (1 + 1e-9):
            reasons.append(
                f"an answered row costs {usd(b.cost_usd_per_row)}, {ratio:.2f} times {usd(a.cost_usd_per_row)} "
                f"(max_cost_ratio={max_cost_ratio:g})"
            )
    if a.metric is not None and b.metric is not None:
        if math.isnan(b.metric) or math.isnan(a.metric):
            reasons.append("the metric is NaN")
        elif b.metric < a.metric - max_metric_drop - 1e-12:
            reasons.append(
                f"the metric fell from {a.metric:.4g} to {b.metric:.4g} (max_metric_drop={max_metric_drop:g})"
            )
    if b.n_failed > a.n_failed + max_more_failures:
        reasons.append(
            f"{number(b.n_failed)} rows failed, {number(a.n_failed)} before (max_more_failures={max_more_failures:g})"
        )
    return tuple(reasons)


def _need(is_right: bool, name: str, value: Any) -> None:
    if not is_right:
        what = f"{name} is {shown(value)}; it has to be a number {'above' if 'ratio' in name else 'from'} 0."
        raise InputError(what, COMPARING_SPENDS_NOTHING, "compare_runs(a, b, max_cost_ratio=1.1)")


def _is_number(value: Any, above: float | None = None) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return False
    if not -_MOST < float(min(value, _MOST)) < _MOST:
        return False
    return bool(value > above if above is not None else value >= 0)


def _label(run: RunLike) -> str:
    return clip(run.name or run.id, 60)


def _prefix(frame: pd.DataFrame, run: RunLike) -> str:
    """Return the prefix of the run's columns: its own, or else that of the last columns that look like a run's."""
    own = getattr(getattr(run, "options", None), "prefix", None)
    found = [name.removesuffix("status") for name in frame.columns if isinstance(name, str) and name.endswith("status")]
    for prefix in [own] if isinstance(own, str) else found[::-1]:
        if all(f"{prefix}{column}" in frame.columns for column in _COLUMNS):
            return prefix
    raise InputError(
        f"The result of {_label(run)} has no columns {', '.join(_COLUMNS)}.",
        COMPARING_SPENDS_NOTHING,
        'columns="core" (the default) has them: df.claude_batch.attach(run, columns="core")',
    )


def _without_prefix(frame: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """Return the frame with the run's columns under their plain names, so that one metric fits both runs."""
    if not prefix:
        return frame
    plain = {name: name.removeprefix(prefix) for name in frame.columns if isinstance(name, str)}
    plain = {name: short for name, short in plain.items() if name != short and short}
    return frame.drop(columns=[short for short in plain.values() if short in frame.columns]).rename(columns=plain)


def _pair(a: pd.DataFrame, b: pd.DataFrame, label_a: str, label_b: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the rows that both frames hold, in the order of `a`."""
    if a.index.equals(b.index):
        return np.arange(len(a)), np.arange(len(b))
    if not a.index.is_unique or not b.index.is_unique:
        raise FrameMismatchError(
            f"The rows of {label_a} and {label_b} cannot be paired: their labels differ, and some repeat.",
            COMPARING_SPENDS_NOTHING,
            "run both on the same frame, or on frames with unique labels (df.reset_index(drop=True))",
        )
    at = b.index.get_indexer(a.index)
    if not (at >= 0).any():
        raise FrameMismatchError(
            f"{label_a} and {label_b} have no row label in common.",
            COMPARING_SPENDS_NOTHING,
            "run both on the same frame",
        )
    return np.flatnonzero(at >= 0), at[at >= 0]


def _side(
    run: RunLike, frame: pd.DataFrame, prefix: str, *, n_rows: int, cost_usd: float | None, metric: float | None
) -> Side:
    status = frame[f"{prefix}status"]
    return Side(
        label=_label(run),
        n_rows=n_rows,
        n_succeeded=int(_succeeded(status).sum()),
        n_failed=int(_failed(frame, prefix).sum()),
        cost_usd=cost_usd,
        tokens=_total(frame, f"{prefix}tokens"),
        metric=metric,
    )


def _succeeded(status: pd.Series) -> pd.Series:
    # With samples > 1 a cell holds one status per sample.
    return status.map(lambda one: all(s == "succeeded" for s in _each(one))).astype(bool)


def _failed(frame: pd.DataFrame, prefix: str) -> pd.Series:
    fine = {"succeeded", "skipped", "unsent"}
    failed = frame[f"{prefix}status"].map(lambda one: any(s not in fine for s in _each(one))).astype(bool)
    if f"{prefix}error" in frame.columns:
        # A row that could not be sent is skipped too, and has its reason here.
        failed |= frame[f"{prefix}error"].map(lambda one: any(not pd.isna(e) for e in _each(one))).astype(bool)
    return failed


def _each(cell: Any) -> Sequence[Any]:
    return list(cell) if isinstance(cell, list | tuple | np.ndarray) else [cell]


def _total(frame: pd.DataFrame, name: str) -> int | None:
    if name not in frame.columns:
        return None
    return int(sum(value for cell in frame[name].array for value in _each(cell) if not pd.isna(value)))


def _is_same(a: Any, b: Any) -> bool:
    if pd.api.types.is_scalar(a) and pd.api.types.is_scalar(b):
        return bool(a == b) if not (pd.isna(a) or pd.isna(b)) else bool(pd.isna(a) and pd.isna(b))
    return [None if pd.isna(x) else x for x in _each(a)] == [None if pd.isna(x) else x for x in _each(b)]


def _measure(metric: Metric, frame: pd.DataFrame, run: RunLike) -> float:
    try:
        value: Any = metric(frame)
    except KeyError as error:
        name = error.args[0] if error.args else None
        if not isinstance(name, str) or name in frame.columns:
            raise
        raise InputError(
            f"The result of {_label(run)} has no column {clip(repr(name), 60)}, which metric reads.",
            COMPARING_SPENDS_NOTHING,
            f'df.claude_batch.attach("{run.id}")   # on its frame: a run by its name has the added columns alone',
        ) from None
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise InputError(
            f"metric returned {clip(type(value).__name__, 40)} for {_label(run)}; it has to return one number.",
            COMPARING_SPENDS_NOTHING,
            _METRIC_HINT,
        )
    return float(value)
