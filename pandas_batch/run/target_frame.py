"""The frame that a run is merged onto, as it was when the run was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from pandas_batch.run.run_answers import RunAnswers
    from pandas_batch.store import Store


class TargetFrame:
    """
    A frame that a run is merged onto: the frame as it was, and which of the run's requests each row has.

    Parameters
    ----------
    frame
        The frame; None for the stored index alone.
    request_of_row
        int32 per row; None for the rows as they were submitted.
    reasons
        Why rows cannot be sent, by position, where `request_of_row` is given.
    counted_elsewhere
        bool per row, where the frame is a part of the one submitted: whether a row of another part bears the tokens
        and the cost of its request.
    """

    def __init__(
        self,
        frame: pd.DataFrame | None,
        request_of_row: np.ndarray | None = None,
        reasons: Mapping[int, str] | None = None,
        counted_elsewhere: np.ndarray | None = None,
    ) -> None:
        # Copy-on-write makes the shallow copy a snapshot (pandas 3); before that only a deep one is.
        deep = frame is not None and not _copies_on_write()
        self.frame = None if frame is None else frame.copy(deep=deep)
        self.request_of_row = request_of_row
        self.reasons: Mapping[int, str] = {} if reasons is None else reasons
        self.counted_elsewhere = counted_elsewhere

    def answers(self, of_run: RunAnswers) -> RunAnswers:
        """Return the answers for the rows of the frame, out of those of the run."""
        if self.request_of_row is None:
            return of_run
        return of_run.of_rows(self.request_of_row, self.reasons, self.counted_elsewhere)

    def index(self, store: Store, run_id: str) -> pd.Index:
        """Return the labels of the frame; of a run without one those that are stored."""
        if self.frame is not None:
            return self.frame.index
        stored = store.runs.index_of(run_id)
        return pd.RangeIndex(store.runs.get(run_id).n_rows) if stored is None else stored

    def is_part(self) -> bool:
        """Return whether the rows are other ones than those that were submitted."""
        return self.request_of_row is not None


def insert_columns(frame: pd.DataFrame, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return `frame` with `columns`; its index, order, dtypes, attrs, flags and subclass stay as they are."""
    if _is_plain(frame, columns):
        # All at once: one by one, pandas makes the labels of all columns anew for each.
        return pd.concat([frame, pd.DataFrame(dict(columns), index=frame.index, copy=False)], axis=1)
    # What is written into the result must not be seen in the run's own frame, nor in its next result.
    merged = frame.copy(deep=not _copies_on_write())
    further_levels = ("",) * (frame.columns.nlevels - 1)
    for name, values in columns.items():
        merged[(name, *further_levels) if further_levels else name] = values
    return merged


def _is_plain(frame: pd.DataFrame, columns: Mapping[str, Any]) -> bool:
    """Return whether `columns` beside `frame` lose nothing of it, and copy nothing."""
    labels = frame.columns
    return (
        type(frame) is pd.DataFrame
        and _copies_on_write()
        and not frame.attrs
        and type(labels) is pd.Index
        and labels.name is None
        and not any(name in labels for name in columns)
    )


def _copies_on_write() -> bool:
    if int(pd.__version__.split(".")[0]) >= 3:
        return True
    return bool(pd.get_option("mode.copy_on_write") is True)
