"""The one rule for values per row: an option's value is plain, a Series, an array, or a callable ``df -> Series``."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pandas as pd

from pandas_batch.errors import ColumnNotFoundError, InputError, clip

from .plain_values import kind_of, quoted


def row_name(index: pd.Index, position: int) -> str:
    """
    Name a row for a message: its position and, where the index says more, its label.

    Examples
    --------
    >>> row_name(pd.Index(["a", "b"]), 1)
    "row 1 ('b')"
    >>> row_name(pd.RangeIndex(3), 1)
    'row 1'
    >>> row_name(pd.MultiIndex.from_product([["a"], [1, 2]]), 1)
    "row 1 (('a', 2))"
    """
    label = index[position]
    label = tuple(map(_as_python, label)) if isinstance(label, tuple) else _as_python(label)
    if isinstance(label, int) and label == position:
        return f"row {position}"
    return f"row {position} ({clip(repr(label), 40)})"


def _as_python(label: Any) -> Any:
    """Return a numpy scalar as Python's own, which is shown as the user wrote it."""
    return label.item() if isinstance(label, np.number | np.bool_) else label


def n_of(n: int, thing: str) -> str:
    """
    Count things in words.

    Examples
    --------
    >>> n_of(1, "row"), n_of(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{n:,} {thing}" + ("" if n == 1 else "s")


def column_of(frame: pd.DataFrame, label: Hashable, option: str) -> pd.Series:
    """
    Return the one column that `label` names.

    Raises
    ------
    ColumnNotFoundError
        There is none; the message names the closest.
    InputError
        There are several.
    """
    import difflib

    try:
        found = frame[label]
    except (KeyError, TypeError, ValueError):
        labels = {str(name): _as_python(name) for name in frame.columns}
        close = difflib.get_close_matches(str(label), labels, n=1, cutoff=0.5)
        known = ", ".join(_shown_label(name) for name in list(labels.values())[:10])
        known += ", ..." if len(labels) > 10 else ""
        if option == "prompt_col" and isinstance(label, str) and "{" in label:
            raise ColumnNotFoundError(
                "prompt_col is a template, not the name of a column.",
                hint='df.claude_batch.submit(prompt="Classify: {title}")   # a template is given as prompt=',
            ) from None
        if label in frame.index.names:
            raise ColumnNotFoundError(
                f"{option} names {clip(repr(label), 60)}, which is a level of the index and not a column.",
                hint=f"df.reset_index({label!r}).claude_batch.submit({label!r})"
                if label is not None
                else "df.reset_index()   # makes a column of the index",
            ) from None
        hint = f"{option}={labels[close[0]]!r}" if close else f"the frame has {known or 'no columns'}"
        raise ColumnNotFoundError(
            f"{option} names {clip(repr(label), 60)}, which is not a column.", hint=hint
        ) from None
    if not isinstance(found, pd.Series):
        raise InputError(
            f"{option} names {clip(repr(label), 60)}, which is {found.shape[1]} columns.",
            hint="give the columns names of their own: df.columns = [...]",
        )
    return found


def _shown_label(label: Hashable) -> str:
    """Show a column's label as it has to be typed: not everything that looks like a text is one."""
    return quoted(label, 30) if isinstance(label, str) else clip(repr(label), 40)


def series_of(value: pd.Series | np.ndarray | Callable[..., Any], frame: pd.DataFrame, option: str) -> pd.Series:
    """
    Return one value per row of `frame`, in its order.

    A Series with the identical index is taken by position, any other by label, which must then be unique
    and complete; an array goes by position, and is as long as the frame.
    """
    if isinstance(value, np.ndarray):
        return _series_of_array(value, frame, option)
    if not isinstance(value, pd.Series):
        try:
            value = value(frame.copy(deep=False))
        except Exception as error:
            error.add_note(f"raised by the callable given as {option}=. Nothing was sent, nothing was billed.")
            raise
        if not isinstance(value, pd.Series):
            if isinstance(value, np.ndarray) and value.ndim == 1:
                return _series_of_array(value, frame, option)
            raise InputError(
                f"The callable given as {option}= returned {kind_of(value)}; it has to return a Series.",
                hint=f"{option}=lambda df: pd.Series(..., index=df.index)",
            )
    if value.index is frame.index or value.index.equals(frame.index):
        return value
    by_position = f"{option}=series.set_axis(df.index)  # where its rows are in the frame's order"
    if not value.index.is_unique:
        raise InputError(
            f"The Series given as {option}= has another index than the frame, and repeated labels in it.",
            hint=by_position,
        )
    where = value.index.get_indexer(frame.index)
    absent = np.flatnonzero(where < 0)
    if len(absent):
        rows = ", ".join(row_name(frame.index, i) for i in absent[:3].tolist()) + (", ..." if len(absent) > 3 else "")
        raise InputError(
            f"The Series given as {option}= has no value for {n_of(len(absent), 'row')}: {rows}.", hint=by_position
        )
    return value.take(where)


def _series_of_array(values: np.ndarray, frame: pd.DataFrame, option: str) -> pd.Series:
    if len(values) != len(frame):
        raise InputError(
            f"The array given as {option}= has {n_of(len(values), 'value')}; the frame has {n_of(len(frame), 'row')}.",
            hint=f"{option}=pd.Series(values, index=df.index)   # one value per row",
        )
    return pd.Series(values.tolist() if values.dtype.kind == "U" else values, index=frame.index)
