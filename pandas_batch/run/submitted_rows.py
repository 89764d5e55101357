"""Which request each row of a submitted frame has, and which one a row that is met again has, by fingerprint."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pandas_batch.custom_ids import FINGERPRINT_BYTES
from pandas_batch.results.row_status import NOT_OF_THIS_RUN

from .recording import distinct, halves_of

if TYPE_CHECKING:
    from pandas_batch.store import RunRecord, Store


class SubmittedRows:
    """
    The rows of a run as they were submitted.

    What takes a look at all of them is done once and kept: a frame in a thousand parts comes a thousand times.

    Parameters
    ----------
    store, run
        Where the run is recorded, and its record.
    """

    def __init__(self, store: Store, run: RunRecord) -> None:
        table = store.runs.requests_of(run.id)
        self._n_samples = int(run.options.get("samples", 1))
        stored = np.frombuffer(table.column("fingerprint").combine_chunks().buffers()[1], np.uint8)
        stored = stored[: FINGERPRINT_BYTES * table.num_rows].reshape(-1, FINGERPRINT_BYTES)
        self._fingerprints = stored[:: self._n_samples]
        self._request_of_row: np.ndarray = store.runs.rows_of(run.id).column("request").to_numpy()

    # --- rows whose place is known

    def requests_from(self, first_row: int, n_rows: int) -> np.ndarray:
        """Return the requests of the `n_rows` rows from `first_row` on."""
        return self._request_of_row[first_row : first_row + n_rows]

    def are_unchanged(self, request_of_row: np.ndarray, sendable: np.ndarray, fingerprints: np.ndarray) -> bool:
        """Return whether rows of these requests are the `sendable` ones, and have these `fingerprints`."""
        sent = np.flatnonzero(request_of_row >= 0)
        found = self._fingerprints[request_of_row[sent] // self._n_samples]
        return np.array_equal(sent, sendable) and np.array_equal(found, fingerprints)

    def have(self, request_of_row: np.ndarray, fingerprints: np.ndarray) -> bool:
        """Return whether rows of these requests have these `fingerprints`."""
        return np.array_equal(self._fingerprints[request_of_row // self._n_samples], fingerprints)

    def told_before(self, request_of_row: np.ndarray, first_row: int) -> np.ndarray:
        """Return for each of the rows from `first_row` on whether one before them all has the same request."""
        sent = request_of_row >= 0
        told = np.zeros(len(request_of_row), bool)
        told[sent] = self._first_rows[request_of_row[sent] // self._n_samples] < first_row
        return told

    @cached_property
    def _first_rows(self) -> np.ndarray:
        first = np.full(len(self._fingerprints), -1, np.int64)
        rows = np.flatnonzero(self._request_of_row >= 0)[::-1]
        first[self._request_of_row[rows] // self._n_samples] = rows
        return first

    # --- rows that may stand anywhere

    def requests_of(self, fingerprints: np.ndarray) -> np.ndarray:
        """
        Return the request of each row, by its fingerprint: the k-th of equal rows gets the k-th of equal requests.

        Returns
        -------
        ndarray
            int32; `NOT_OF_THIS_RUN` where there is none.
        """
        found = np.full(len(fingerprints), NOT_OF_THIS_RUN, dtype=np.int32)
        if not len(fingerprints) or not len(self._fingerprints):
            return found
        order, firsts, rests = self._sorted
        wanted = halves_of(fingerprints)
        begins = np.searchsorted(firsts, wanted[:, 0], side="left")
        ends = np.searchsorted(firsts, wanted[:, 0], side="right")
        # Of fingerprints that share their first half those with the same second half stand side by side.
        for i in self._mixed(begins, ends).tolist():
            begin, end = int(begins[i]), int(ends[i])
            begins[i] = begin + np.searchsorted(rests[begin:end], wanted[i, 1], side="left")
            ends[i] = begin + np.searchsorted(rests[begin:end], wanted[i, 1], side="right")
        known = begins < ends
        known[known] = rests[begins[known]] == wanted[known, 1]
        _, codes = distinct(fingerprints)
        occurrence = pd.Series(codes).groupby(codes).cumcount().to_numpy()
        places = begins + np.minimum(occurrence, np.maximum(ends - begins - 1, 0))
        found[known] = order[places[known]] * self._n_samples
        return found

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The requests in the order of their fingerprints, equal ones in their own; and both halves of those."""
        halves = halves_of(self._fingerprints)
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        return order, halves[order, 0], halves[order, 1]

    def _mixed(self, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        rests = self._sorted[2]
        mixed: np.ndarray = ends - begins > 1
        mixed[mixed] = rests[begins[mixed]] != rests[ends[mixed] - 1]
        return np.flatnonzero(mixed)
