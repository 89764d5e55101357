"""Rows that a user chose of a frame, as a mask or by their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pandas_batch.errors import InputError, clip

_HINT = 'rows=out["output"].str.len() < 5   # a mask as long as the frame, or a list of labels'


def positions_of(rows: Any, index: pd.Index) -> np.ndarray:
    """
    Return the positions of the chosen rows, in the order of the frame.

    Parameters
    ----------
    rows
        A mask (bools, one per row; a Series goes by its labels), labels, or a frame or Series of the rows.
    index
        Of the frame.

    Raises
    ------
    InputError
        It is neither, is too short or too long, or a label is not in the frame.

    Examples
    --------
    >>> positions_of([False, True], pd.Index(["a", "b"])).tolist(), positions_of(["a"], pd.Index(["a", "b"])).tolist()
    ([1], [0])
    """
    if isinstance(rows, pd.DataFrame):
        rows = rows.index
    if isinstance(rows, pd.Series):
        if not _is_mask(rows):
            rows = rows.index
        elif not rows.index.equals(index):
            if not rows.index.is_unique:
                raise InputError("rows= is a mask with another index than the frame, and repeated labels.", hint=_HINT)
            rows = rows.index[rows.fillna(False).astype(bool)]
    if isinstance(rows, str | bytes | dict) or not hasattr(rows, "__iter__"):
        raise InputError(f"rows= is {type(rows).__name__}; it has to be a mask or a list of labels.", hint=_HINT)
    values = rows if isinstance(rows, pd.Index | pd.Series | np.ndarray) else pd.Series(list(rows), dtype=object)
    if _is_mask(values):
        mask = pd.Series(values).astype("boolean").fillna(False).to_numpy(dtype=bool)
        if len(mask) != len(index):
            raise InputError(f"rows= is a mask of {len(mask):,} rows; the frame has {len(index):,}.", hint=_HINT)
        return np.flatnonzero(mask)
    labels = list(values)
    try:
        absent = [label for label in labels if label not in index]
        chosen = np.zeros(len(index), bool) if not labels else np.asarray(index.isin(labels))
    except (TypeError, ValueError):
        raise InputError("rows= holds what can be no label of a row.", hint=_HINT) from None
    if absent:
        more = f" and {len(absent) - 1:,} more" if len(absent) > 1 else ""
        raise InputError(f"rows= names {clip(repr(absent[0]), 60)}{more}, which is no label of the frame.", hint=_HINT)
    return np.flatnonzero(chosen)


def _is_mask(values: Any) -> bool:
    if pd.api.types.is_bool_dtype(values):
        return True
    plain = list(values) if values.dtype == object else []
    is_bool = [isinstance(value, bool | np.bool_) for value in plain]
    # What a comparison of texts gives where a text is missing.
    missing = [pd.api.types.is_scalar(value) and pd.isna(value) for value in plain]
    return any(is_bool) and all(known or gap for known, gap in zip(is_bool, missing, strict=True))
