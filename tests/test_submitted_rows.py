"""Rows find their requests again, by place or by fingerprint, and of equal rows one bears the cost."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rowlab import ask

import pandas_batch
from pandas_batch import simulator
from pandas_batch.requests.schema import OutputSchema
from pandas_batch.results.row_status import NOT_OF_THIS_RUN, NOT_SENT
from pandas_batch.run import recording
from pandas_batch.run.recording import rows_table
from pandas_batch.run.starting import attach_run
from pandas_batch.run.submitted_rows import SubmittedRows
from pandas_batch.store.tables import requests_table

HALVES = st.tuples(st.integers(0, 3), st.integers(0, 2))


def rows_of(stored: np.ndarray, request_of_row: list[int], n_samples: int = 1) -> SubmittedRows:
    n = len(stored) * n_samples
    draws = np.tile(np.arange(n_samples), len(stored))
    table = requests_table(np.repeat(stored, n_samples, axis=0), draws, np.zeros(n), np.arange(n), np.zeros(n))
    rows = rows_table(np.array(request_of_row, np.int32), {})
    store: Any = SimpleNamespace(runs=SimpleNamespace(requests_of=lambda run_id: table, rows_of=lambda run_id: rows))
    run: Any = SimpleNamespace(id="run", options={"samples": n_samples})
    return SubmittedRows(store, run)


def fingerprints(halves: list[tuple[int, int]]) -> np.ndarray:
    return np.array(halves, np.uint64).reshape(-1, 2).view(np.uint8).reshape(-1, 16)


@settings(max_examples=300, deadline=None)
@given(stored=st.lists(HALVES, max_size=12), wanted=st.lists(HALVES, max_size=14), n_samples=st.integers(1, 3))
def test_equal_rows_pair_with_equal_requests_in_order(
    stored: list[tuple[int, int]], wanted: list[tuple[int, int]], n_samples: int
) -> None:
    """The k-th of equal rows gets the k-th of equal requests, the last where there are no more, none where none is."""
    rows = rows_of(fingerprints(stored), [], n_samples)
    seen: dict[tuple[int, int], int] = {}
    for value, got in zip(wanted, rows.requests_of(fingerprints(wanted)).tolist(), strict=True):
        places = [i for i, other in enumerate(stored) if other == value]
        k = seen.get(value, 0)
        seen[value] = k + 1
        assert got == (places[min(k, len(places) - 1)] * n_samples if places else NOT_OF_THIS_RUN)


@given(
    requests=st.lists(st.integers(-1, 6), max_size=20), n_samples=st.integers(1, 2), cuts=st.sets(st.integers(0, 20))
)
def test_each_request_is_borne_by_one_row_of_all_parts(requests: list[int], n_samples: int, cuts: set[int]) -> None:
    """However the rows are cut into parts, the first of those that share a request has none before it."""
    of_row = [request * n_samples if request >= 0 else NOT_SENT for request in requests]
    rows = rows_of(fingerprints([(i, i) for i in range(7)]), of_row, n_samples)
    borders = [0, *sorted(cut for cut in cuts if 0 < cut < len(of_row)), len(of_row)]
    for begin, end in pairwise(borders):
        part = rows.requests_from(begin, end - begin)
        assert part.tolist() == of_row[begin:end]
        told = rows.told_before(part, begin).tolist()
        assert told == [request >= 0 and request in of_row[:begin] for request in of_row[begin:end]]


def test_rows_that_changed_are_not_taken_by_their_place() -> None:
    """A place counts only where the same rows are sendable and each says what it said."""
    rows = rows_of(fingerprints([(1, 1), (2, 2)]), [0, NOT_SENT, 1])
    same = fingerprints([(1, 1), (2, 2)])
    of_row = rows.requests_from(0, 3)
    assert rows.are_unchanged(of_row, np.array([0, 2]), same)
    assert not rows.are_unchanged(of_row, np.array([0, 1]), same)
    assert not rows.are_unchanged(of_row, np.array([0, 2]), fingerprints([(1, 1), (2, 3)]))
    assert not rows.are_unchanged(of_row, np.array([0, 1, 2]), fingerprints([(1, 1), (5, 5), (2, 2)]))


def test_a_part_that_has_grown_is_taken_by_what_it_says(api: simulator.Simulator, clock: Any, tmp_path: Any) -> None:
    """A row more than there were, blank and so of no fingerprint, moves no answer and is told as what it is."""
    frame = pd.DataFrame({"prompt": ["a", "b"]})
    run = ask(frame, api, clock, store=str(tmp_path))
    whole = run.result()
    grown = pd.DataFrame({"prompt": ["a", "b", " "]})
    rows = SubmittedRows(run.store, run.record)
    out = attach_run(grown, run, {}, rows=rows, first_row=0, clock=clock).result(partial=True)
    assert out["status"].tolist() == ["succeeded", "succeeded", "skipped"]
    assert out["output"].tolist()[:2] == whole["output"].tolist()


FAILING = ["[errored]", "[expired]", "[canceled]"]
OUTCOMES = ["good", *FAILING, "good", "", "[errored]", "more", "good", None, "more", "last"]


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5, 12])
def test_parts_of_a_frame_are_the_frame(
    api: simulator.Simulator, clock: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, size: int, samples: int
) -> None:
    """The parts of a frame, each attached where it stands, are together what the whole is: columns, sums and bill."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 4)
    frame = pd.DataFrame({"prompt": OUTCOMES})
    for marker in FAILING:
        api.faults.add(simulator.RowFault(marker[1:-1], marker=marker))
    run = ask(frame, api, clock, samples=samples, store=str(tmp_path))
    whole = run.result()
    opened = pandas_batch.load(run.id, store=str(tmp_path))
    rows = SubmittedRows(opened.store, opened.record)
    parts, accounts = [], []
    for begin in range(0, len(frame), size):
        attached = attach_run(frame.iloc[begin : begin + size], opened, {}, rows=rows, first_row=begin, clock=clock)
        accounts.append(attached)
        parts.append(attached.result(partial=True))
    together = pd.concat(parts)
    pd.testing.assert_frame_equal(together, whole)
    assert sum((Counter(part.counts) for part in accounts), Counter()) == Counter(run.counts)
    assert sum(part.cost_usd for part in accounts) == pytest.approx(run.cost_usd, abs=1e-12)
    pd.testing.assert_frame_equal(
        pd.concat([part.failed for part in accounts]).drop(columns="position"), run.failed.drop(columns="position")
    )
    if samples == 1:
        assert together["cost_usd"].sum() == pytest.approx(float(api.billed_usd), abs=1e-12)


def test_a_part_reads_the_answers_of_its_own_rows_only(
    api: simulator.Simulator, clock: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame in many parts does not have all its answers parsed for each of them."""
    frame = pd.DataFrame({"prompt": [f"{i % 15}" for i in range(20)]})
    run = ask(frame, api, clock, output_schema={"label": str, "score": float}, store=str(tmp_path))
    whole = run.result()
    assert run.engine is not None
    assert run.engine.join(20)  # what it still reads, to put the batches away, is not to be counted
    opened = pandas_batch.load(run.id, store=str(tmp_path))
    rows = SubmittedRows(opened.store, opened.record)
    n_parsed: list[int] = []
    parse = OutputSchema.to_columns

    def counting(self: Any, outputs: Any, *reasons: Any) -> Any:
        n_parsed.append(len(outputs))
        return parse(self, outputs, *reasons)

    monkeypatch.setattr(OutputSchema, "to_columns", counting)
    parts = []
    for begin in range(0, 20, 4):
        attached = attach_run(frame.iloc[begin : begin + 4], opened, {}, rows=rows, first_row=begin, clock=clock)
        parts.append(attached.result(partial=True))
    pd.testing.assert_frame_equal(pd.concat(parts), whole)
    assert sum(n_parsed) <= 20
