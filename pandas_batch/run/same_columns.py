"""Whether a column of a frame is one that a run wrote there, whatever a file did to it meanwhile."""

from __future__ import annotations

import ast
import contextlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd

from pandas_batch.formulas import without_mark
from pandas_batch.requests.text_dtype import text_dtype

_NOTHING_YET = frozenset({"pending", "unsent"})
_MISSING_AS_TEXT = frozenset({"", "nan", "NaN", "NaT", "None", "<NA>", "null"})
_EXCEL_TEXT_LENGTH = 32_767
_MAX_NEST_LENGTH = 1_000_000
# JSON of pandas keeps ten decimals, other files seven digits or more.
_REL_TOLERANCE = 1e-6
_ABS_TOLERANCE = 1e-10
_PER_SECOND = (1, 10**3, 10**6, 10**9)


def first_difference(there: pd.Series, ours: Any, *, may_be_counted_elsewhere: np.ndarray | None = None) -> int | None:
    """
    Return the first place where a column does not hold what a run wrote into it; None where there is none.

    A place where nothing stands now is none: a partial result had nothing yet, and files lose some values.

    Parameters
    ----------
    there
        The column of the frame.
    ours
        What the run would write there, one value per row.
    may_be_counted_elsewhere
        For tokens and costs, bool per row: whether other rows share its request. The first of those bears them, and
        which is the first differs from one part of a frame to the next.

    Examples
    --------
    >>> first_difference(pd.Series([1.0, None, 3.0]), pd.array([1, 2, 4], dtype="Int64"))
    2
    >>> first_difference(pd.Series(["['a', 'b']"]), [["a", "b"]]) is None
    True
    """
    there, wanted = there.reset_index(drop=True), pd.Series(ours)
    if len(there) != len(wanted):
        return 0
    unsure = ~there.isna().to_numpy(dtype=bool)
    if may_be_counted_elsewhere is not None:
        numbers = pd.to_numeric(there, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        unsure &= numbers != 0
        unsure &= ~(may_be_counted_elsewhere & (pd.to_numeric(wanted).to_numpy(dtype=float, na_value=np.nan) == 0))
    unsure &= ~_surely_same(there, wanted)
    for place in np.flatnonzero(unsure).tolist():
        if not _is_same(there.iloc[place], wanted.iloc[place]):
            return int(place)
    return None


def _surely_same(there: pd.Series, wanted: pd.Series) -> np.ndarray:
    """Return which values are equal at first sight: whole columns at once, because nearly all of them are."""
    nothing = np.zeros(len(there), dtype=bool)
    kinds = there.dtype, wanted.dtype
    if any(isinstance(kind, pd.CategoricalDtype) for kind in kinds):
        return nothing
    if wanted.dtype == text_dtype() and pd.api.types.is_string_dtype(there):
        try:
            return np.asarray(there.astype(text_dtype()) == wanted, dtype=bool)
        except (TypeError, ValueError):
            return nothing
    if all(pd.api.types.is_numeric_dtype(kind) for kind in kinds):
        left, right = (column.to_numpy(dtype=float, na_value=np.nan) for column in (there, wanted))
        close: np.ndarray = np.isclose(left, right, rtol=_REL_TOLERANCE, atol=_ABS_TOLERANCE)
        return close
    return nothing


def _is_same(there: Any, ours: Any) -> bool:
    """Return whether a value may be what a file made of ours."""
    original, there, ours = ours, _plain(there), _plain(ours)
    if there is None or (isinstance(there, str) and there in _NOTHING_YET):
        return True
    if ours is None:
        return there in _MISSING_AS_TEXT if isinstance(there, str) else there in ([], {})
    if isinstance(ours, list | dict):
        return _is_same_nest(there, ours, original)
    if isinstance(there, datetime) or isinstance(ours, datetime):
        return _is_same_time(there, ours)
    if isinstance(there, str) and isinstance(ours, str):
        return _is_same_text(there, ours)
    if isinstance(there, list | dict):
        return False
    return _is_same_number(there, ours)


def _plain(value: Any) -> Any:
    """Return a value as one of JSON's own types, or a time in UTC; what is missing is None."""
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        # A file with one schema for all rows has every key in each of them.
        items = {str(key): _plain(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None}
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value.item() if isinstance(value, np.generic) else value


def _is_same_nest(there: Any, ours: list[Any] | dict[str, Any], original: Any) -> bool:
    if isinstance(there, str):
        # The spelling of Python, of an array, or of JSON.
        if there in (str(original), str(ours), str(np.array(ours, dtype=object))):
            return True
        there = _plain(_read(there))
    if isinstance(there, list) and isinstance(ours, dict) and all(isinstance(p, list) and len(p) == 2 for p in there):
        there = _plain({str(key): value for key, value in there})  # what Arrow makes of a map
    if isinstance(there, list) and isinstance(ours, list):
        return len(there) == len(ours) and all(map(_is_same, there, ours))
    if isinstance(there, dict) and isinstance(ours, dict):
        return there.keys() == ours.keys() and all(_is_same(there[key], ours[key]) for key in ours)
    return False


def _read(text: str) -> Any:
    """Return what a text spells in JSON or in Python; None where it is neither, or very long."""
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return read(text) if len(text) <= _MAX_NEST_LENGTH else None
    return None


def _is_same_text(there: str, ours: str) -> bool:
    if there == ours:
        return True
    there, ours = (text.replace("\r\n", "\n").replace("\r", "\n") for text in (there, ours))
    if there != ours:
        there = without_mark(there)  # how a .csv says that it is no formula
    return there == ours or (len(there) >= _EXCEL_TEXT_LENGTH - 1 and ours.startswith(there))


def _is_same_number(there: Any, ours: Any) -> bool:
    if isinstance(there, bool) and isinstance(ours, str):
        return ours.strip().lower() == str(there).lower()
    if isinstance(ours, bool) and isinstance(there, str) and there.strip().lower() in ("true", "false"):
        return there.strip().lower() == str(ours).lower()
    try:
        numbers = float(there), float(ours)
    except (TypeError, ValueError, OverflowError):
        return False
    return math.isclose(*numbers, rel_tol=_REL_TOLERANCE, abs_tol=_ABS_TOLERANCE)


def _is_same_time(there: Any, ours: Any) -> bool:
    """Return whether two values are one moment, one of them perhaps as text or as a count since 1970."""
    if isinstance(there, int | float) or isinstance(ours, int | float):
        number, at = (there, ours) if isinstance(ours, datetime) else (ours, there)
        if not isinstance(at, datetime) or isinstance(number, bool):
            return False
        since = (at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
        return any(abs(number - since * factor) <= factor / 1000 for factor in _PER_SECOND)
    times = pd.to_datetime(pd.Series([there, ours], dtype=object), errors="coerce", utc=True, format="mixed")
    return bool(times.notna().all() and abs((times[0] - times[1]).total_seconds()) <= 1e-3)
