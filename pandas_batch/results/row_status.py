"""What can have become of a row, as codes that whole columns are computed with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pandas_batch.types import ROW_STATUSES

CODE = {status: code for code, status in enumerate(ROW_STATUSES)}

FAILED = ("errored", "expired", "canceled", "missing", "invalid", "paused")
"""Status of a row that was asked and has no usable answer."""

NOT_SENT = -1
"""In place of a request: the row has no prompt, or none that can be sent."""
NOT_OF_THIS_RUN = -2
"""In place of a request: the run never held this row."""


def is_any(codes: np.ndarray, statuses: Iterable[str]) -> np.ndarray:
    """
    Return for each code whether it stands for one of `statuses`.

    Examples
    --------
    >>> is_any(np.array([CODE["errored"], CODE["pending"]], np.int8), FAILED).tolist()
    [True, False]
    """
    table = np.zeros(len(ROW_STATUSES), bool)
    table[[CODE[status] for status in statuses]] = True
    found: np.ndarray = table[codes]
    return found


def status_codes(column: Any) -> np.ndarray:
    """Return the codes (int8, index into `ROW_STATUSES`) of a column of status words."""
    parts = []
    for chunk in column.chunks:
        vocabulary = np.array([CODE[word] for word in chunk.dictionary.to_pylist()] or [0], dtype=np.int8)
        parts.append(vocabulary[chunk.indices.to_numpy(zero_copy_only=False)])
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int8)


def exact_sum(usd: np.ndarray) -> float:
    """Return the sum of costs in US dollars; an unknown one counts as nothing."""
    # Costs are whole multiples of a pico-dollar: summed as integers no cent is lost to rounding.
    picos = np.rint(usd * 1e12)
    picos[np.isnan(picos)] = 0.0
    return float(picos.astype(np.int64).sum()) / 1e12
