"""Answers of small batches are found in the database, and found as they would be in the files."""

from __future__ import annotations

import numpy as np
import pytest
from store_lab import BASE_URL, add_run, bind, collect, prints

import pandas_batch
from pandas_batch.store import Store, batches, queries


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(tmp_path / "store")


def found_both_ways(store: Store, monkeypatch, fingerprints, draws, **options):
    """Look requests up in the database, and in the files of all batches; return what both have found."""
    by_database = store.batches.find_answers(fingerprints, draws, base_url=BASE_URL, **options)
    with monkeypatch.context() as patched:
        patched.setattr(batches, "_FEW_ROWS", -1)
        by_files = store.batches.find_answers(fingerprints, draws, base_url=BASE_URL, **options)
    for one, other in zip(by_database, by_files, strict=True):
        assert one.tolist() == other.tolist()
    return by_database


@pytest.mark.parametrize("seed", range(12))
def test_database_and_files_find_the_same(store, monkeypatch, seed):
    """Whatever the sizes and states of the batches, both ways give each request the same batch and position."""
    monkeypatch.setattr(queries, "SMALL", 4)
    chance = np.random.default_rng(seed)
    for number in range(8):
        n_batches = int(chance.integers(1, 3))
        size = int(chance.integers(1, 9))
        run = add_run(store, f"run{number}", n=size * n_batches, start=int(chance.integers(0, 30)), n_batches=n_batches)
        for key in run.batch_keys:
            fate = chance.integers(0, 5)
            if fate >= 2:
                bind(store, key, f"msgbatch_{key}")
            if fate >= 3:
                collect(store, key, chance.random(size) < 0.6)
            elif fate == 1:
                store.batches.ask_cancel(f"run{number}")
                break
    wanted = np.concatenate([prints(int(start), 7) for start in chance.integers(0, 40, 6)])
    draws = (chance.random(len(wanted)) < 0.2).astype(np.uint16)
    for in_flight in (True, False):
        keys, _ = found_both_ways(store, monkeypatch, wanted, draws, in_flight=in_flight)
    assert (keys[draws == 1] == -1).all()


def test_an_answer_comes_before_a_batch_in_flight(store, monkeypatch):
    """Of a small and a large batch that hold a request, the one that has its answer counts, then the newer."""
    monkeypatch.setattr(queries, "SMALL", 4)
    for name, n in (("old", 3), ("large", 9), ("new", 2)):
        add_run(store, name, n=n)
    one = prints(0, 1), np.zeros(1, np.uint16)
    assert found_both_ways(store, monkeypatch, *one)[0].tolist() == [3]
    bind(store, 1, "msgbatch_1")
    collect(store, 1, np.array([True, False, True]))
    assert found_both_ways(store, monkeypatch, *one)[0].tolist() == [1]
    second = prints(1, 1), np.zeros(1, np.uint16)
    assert found_both_ways(store, monkeypatch, *second)[0].tolist() == [3]


def test_a_deleted_run_leaves_no_request_behind(store):
    """What a run asked is forgotten with it."""
    add_run(store, "r", n=5)
    store.runs.delete("r")
    assert store._opened.database.read(lambda c: c.execute("SELECT count(*) FROM small_requests").fetchone()) == (0,)
    assert store.batches.find_answers(prints(0, 5), np.zeros(5, np.uint16), base_url=BASE_URL)[0].tolist() == [-1] * 5


def test_no_file_is_opened_for_a_small_batch(store, monkeypatch):
    """One new row costs no look into the files of earlier small batches, however many there are."""
    for number in range(20):
        add_run(store, f"run{number}", n=3, start=10 * number)

    def refuse(path):
        raise AssertionError(f"{path.name} is opened")

    monkeypatch.setattr("pandas_batch.store.segments.read_segment", refuse)
    keys, positions = store.batches.find_answers(prints(51, 1), np.zeros(1, np.uint16), base_url=BASE_URL)
    assert (keys.tolist(), positions.tolist()) == ([6], [1])


def test_the_list_of_runs_takes_two_looks(store, monkeypatch):
    """`runs()` asks the database the same two questions whatever the number of runs."""
    for number in range(30):
        add_run(store, f"run{number}", n=2, start=10 * number, n_batches=2)
    bind(store, 60, "msgbatch_60")
    looks = []
    read = type(store._opened.database).read

    def counted(self, work):
        if self is store._opened.database:  # and not that of a run of another test, which may still be at work
            looks.append(work)
        return read(self, work)

    monkeypatch.setattr(type(store._opened.database), "read", counted)
    listed = pandas_batch.runs(str(store.path))
    assert len(looks) == 1
    assert listed.index.tolist() == [f"run{number}" for number in reversed(range(30))]
    assert set(listed["status"]) == {"submitting"}
    assert set(listed["batches"]) == {2}
