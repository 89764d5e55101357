"""Runs and batches: recorded whole, changed by compare-and-swap, found again by the next process."""

from __future__ import annotations

import dataclasses
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import store_lab
from store_lab import BASE_URL, CREATED_AT, add_run, prints, reopened, three_parts

from pandas_batch.errors import RunNotFoundError, StoreError
from pandas_batch.store import (
    RunRecord,
    Store,
    fingerprints_of,
    queries,
    requests_table,
    rows_table,
)
from pandas_batch.store.batch_files import REQUESTS


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_a_run_comes_back_as_it_was_recorded(store: Store) -> None:
    """Every field, the rows, the requests and the labels, also for the next process."""
    index = pd.Index(["a", "b", "a", None], name="label")
    run = RunRecord(
        id="r-1_A",
        name="ein Name / with ☃",
        identity="i",
        created_at=datetime(2026, 11, 23, 8, 0, 0, 123456, tzinfo=UTC),
        base_url=BASE_URL,
        model="m",
        n_rows=4,
        n_requests=2,
        n_reused=1,
        n_skipped=1,
        options={"system": "be kind", "max_tokens": 5, "betas": ["x"]},
        parent_id="r-0",
        cost_usd_max=0.1,
        api_version="2026-10-21",
        estimate={"any": [1, None, {"thing": 2.5}]},
        retry_digest="0a",
    )
    old = add_run(store, "old", n=3)
    spooled = store_lab.new_batch(store, "fresh", 100, 1)
    requests = requests_table(
        np.concatenate([prints(100, 1), prints(1, 1)]),
        np.array([0, 7]),
        np.array([-1, old.batch_keys[0]]),
        np.array([0, 1]),
        np.array([False, True]),
    )
    rows = rows_table(np.array([0, 1, -1, 0]), {2: "not text"})
    recorded = store.runs.add(run, rows, requests, [spooled], index=index)
    for opened in (store, reopened(store.path)):
        found = opened.runs.get("r-1_A")
        assert found == recorded
        assert found == dataclasses.replace(run, batch_keys=(2, 1), index_kind=type(index).__name__)
        assert opened.runs.rows_of("r-1_A").to_pydict() == {
            "request": [0, 1, -1, 0],
            "reason": [None, None, "not text", None],
        }
        table = opened.runs.requests_of("r-1_A")
        assert table.column("batch_key").to_pylist() == [2, 1]
        assert table.column("draw").to_pylist() == [0, 7]
        assert table.column("reused").to_pylist() == [False, True]
        assert (fingerprints_of(table) == np.concatenate([prints(100, 1), prints(1, 1)])).all()
        pd.testing.assert_index_equal(opened.runs.index_of("r-1_A"), index)
        assert opened.runs.index_of("old") is None
    assert "be kind" not in repr(recorded)
    assert [r.id for r in store.runs.all()] == ["r-1_A", "old"]
    assert store.batches.runs_of(1) == ["old", "r-1_A"]


def test_a_run_without_requests_is_a_run(store: Store) -> None:
    """A frame whose rows are all skipped, or that has none, is recorded like any other."""
    run = RunRecord(id="r", identity="i", created_at=CREATED_AT, base_url=BASE_URL, model="m", n_rows=2, n_requests=0)
    nothing = requests_table(prints(0, 0), *(np.zeros(0, int) for _ in range(4)))
    store.runs.add(run, rows_table(np.array([-1, -1])), nothing, index=pd.RangeIndex(2))
    assert store.runs.get("r").batch_keys == ()
    assert store.runs.rows_of("r").num_rows == 2
    assert fingerprints_of(store.runs.requests_of("r")).shape == (0, 16)


def test_a_run_is_found_by_id_name_or_beginning(store: Store) -> None:
    """The newest of a name; an id before a name; the beginning of an id where it is one run's."""
    add_run(store, "abc-1", name="reviews")
    add_run(store, "abd-2", name="reviews")
    add_run(store, "xyz-3", name="abc-1")
    assert store.runs.find("reviews").id == "abd-2"
    assert store.runs.find("abc-1").id == "abc-1"
    assert store.runs.find("xyz-").id == "xyz-3"
    with pytest.raises(RunNotFoundError) as raised:
        store.runs.find("review")
    assert "'reviews'" in three_parts(raised.value)[2]
    with pytest.raises(RunNotFoundError) as raised:
        store.runs.get("nothing like it")
    assert "pandas_batch.runs()" in three_parts(raised.value)[2]
    with pytest.raises(RunNotFoundError):
        store.runs.delete("nothing")


def test_only_a_slip_in_an_id_is_taken_for_another_run(store: Store) -> None:
    """Ids of one day look alike: after a run was deleted no other one is suggested in its place."""
    for run_id in ("run_261130_200213_64ab87", "run_261130_200216_7d8086"):
        add_run(store, run_id)
    for wanted, told in (("run_261130_200218_881d72", "pandas_batch.runs()"), ("run_261130_200216_7d8068", "7d8086")):
        with pytest.raises(RunNotFoundError) as raised:
            store.runs.find(wanted)
        assert told in three_parts(raised.value)[2]


def test_the_newest_run_of_an_identity_is_the_one(store: Store) -> None:
    """A retry has the identity of its parent and comes back in its place."""
    assert store.runs.newest_of_identity("i") is None
    add_run(store, "first", identity="i")
    add_run(store, "second", identity="i", parent_id="first")
    assert store.runs.newest_of_identity("i").id == "second"


def test_a_run_is_recorded_once(store: Store) -> None:
    """The same id again is refused and leaves the first as it was."""
    add_run(store, "r", n=3)
    with pytest.raises(StoreError, match="recorded already"):
        add_run(store, "r", n=5, start=50)
    assert store.runs.get("r").n_rows == 3
    assert len(list((store.path / "batches").iterdir())) == 1
    assert not any(path.is_file() for path in (store.path / "tmp").rglob("*"))


@pytest.mark.parametrize("run_id", ["../x", "a/b", "", ".", "a b", "x" * 65, "ü", "a\0b", "a\n"])
def test_a_run_id_is_never_a_path(store: Store, run_id: str) -> None:
    """Ids are letters, digits, _ and -; names may be anything."""
    with pytest.raises(ValueError, match="run id"):
        add_run(store, run_id)
    with pytest.raises(ValueError, match="run id"):
        store.runs.rows_of(run_id)
    add_run(store, "fine", name=run_id)
    assert store.runs.get("fine").name == run_id


def test_a_nonce_is_never_a_path_and_a_spool_is_closed(store: Store) -> None:
    """What cannot be part of a custom_id, and a body that is not durable, are mistakes of the caller."""
    with pytest.raises(ValueError, match="nonce"):
        add_run(store, "r", nonces=["A_b"])
    batch = store_lab.new_batch(store, "ok", 0, 1)
    still_open = dataclasses.replace(batch, spool=store.files.new_spool())
    run = RunRecord(id="r", identity="i", created_at=CREATED_AT, base_url="u", model="m", n_rows=1, n_requests=1)
    requests = requests_table(prints(0, 1), *(np.array([value]) for value in (0, -1, 0, 0)))
    with pytest.raises(ValueError, match="still open"):
        store.runs.add(run, rows_table(np.array([0])), requests, [still_open])
    with pytest.raises(ValueError, match="lacks"):
        store.runs.add(run, requests, requests, [batch])
    assert store.runs.all() == []


# --- batches


def test_a_batch_goes_through_its_states_by_compare_and_swap(store: Store) -> None:
    """A transition from another state than the expected one does nothing; every field comes back."""
    (key,) = add_run(store, "r", n=2).batch_keys
    assert store.batches.get(key).state == "intent"
    assert store.batches.get(key).betas == ("some-beta",)
    assert not store.batches.transition(key, expect=["bound"], to="ended", attempts=9)
    assert store.batches.transition(
        key, expect=["intent"], to="posting", attempts=1, posted_at=CREATED_AT, watermark_id="w"
    )
    changes = {
        "batch_id": "msgbatch_1",
        "proved": True,
        "server_posted_at": CREATED_AT,
        "watermark_at": CREATED_AT,
        "workspace_id": "ws",
        "created_at": CREATED_AT,
        "expires_at": CREATED_AT,
        "ended_at": CREATED_AT,
        "cancel_initiated_at": CREATED_AT,
        "archived_at": CREATED_AT,
        "counts": {"processing": 2},
        "error": "none",
        "not_found_since": CREATED_AT,
        "tried_ids": ("a", "b"),
        "cancel_asked": True,
        "candidate_id": "msgbatch_2",
        "doubt": "overloaded",
        "lost_after_s": 1.5,
        "first_posted_at": CREATED_AT,
        "first_server_posted_at": CREATED_AT,
        "first_watermark_id": "v",
        "first_watermark_at": CREATED_AT,
        "surplus": {"msgbatch_3": None, "msgbatch_4": 0.5},
        "surplus_settled": True,
    }
    assert store.batches.transition(key, expect=["posting"], to="bound", **changes)
    found = reopened(store.path).batches.get(key)
    assert {name: getattr(found, name) for name in changes} == changes
    assert (found.state, found.attempts, found.watermark_id) == ("bound", 1, "w")
    store.batches.update(key, counts={"succeeded": 2}, error=None, proved=False)
    assert store.batches.get(key).counts == {"succeeded": 2}
    assert [batch.key for batch in store.batches.where(state="bound")] == [key]
    assert [batch.key for batch in store.batches.where(state=["bound", "ended"])] == [key]
    assert store.batches.where(state=["intent"]) == []
    assert store.batches.ids() == {"msgbatch_1"}
    for wrong in ({"nonce": "x"}, {"key": 5}, {"nonsense": 1}):
        with pytest.raises(TypeError):
            store.batches.update(key, **wrong)
    with pytest.raises(ValueError, match="does not go from 'bound' to 'nonsense'"):
        store.batches.transition(key, expect=["bound"], to="nonsense")
    with pytest.raises(StoreError, match="no batch 99"):
        store.batches.get(99)
    assert not store.batches.transition(99, expect=["posting"], to="bound")


def test_an_id_of_the_server_is_bound_once_and_proof_beats_adoption(store: Store) -> None:
    """Whoever adopted an id without proof gives it back to the batch that proves it; never the other way."""
    lost, ours, third = add_run(store, "r", n=3, n_batches=3).batch_keys
    for key in (lost, ours, third):
        store.batches.transition(key, expect=["intent"], to="posting")
    assert store.batches.transition(lost, expect=["posting"], to="bound", batch_id="b1", proved=False)
    assert not store.batches.transition(third, expect=["posting"], to="bound", batch_id="b1", proved=False)
    assert store.batches.transition(ours, expect=["posting"], to="bound", batch_id="b1", proved=True)
    assert store.batches.get(ours).batch_id == "b1"
    released = store.batches.get(lost)
    assert (released.state, released.batch_id, released.tried_ids) == ("unknown", None, ("b1",))
    assert not store.batches.transition(third, expect=["posting"], to="bound", batch_id="b1", proved=True)
    assert store.batches.get(third).state == "posting"
    with pytest.raises(StoreError):
        store.batches.update(third, batch_id="b1")
    assert store.batches.ids() == {"b1"}


def test_a_split_batch_is_replaced_for_every_run_that_needs_it(store: Store) -> None:
    """Runs, places of requests and lookups follow the parts, parts of parts too."""
    (key,) = add_run(store, "r", n=10).batch_keys
    requests = requests_table(prints(4, 2), *(np.array(v) for v in ([0, 0], [key, key], [4, 9], [1, 1])))
    reader = RunRecord(id="s", identity="s", created_at=CREATED_AT, base_url="u", model="m", n_rows=2, n_requests=2)
    store.runs.add(reader, rows_table(np.arange(2)), requests)
    store.batches.transition(key, expect=["intent"], to="posting")
    parts = [store_lab.new_batch(store, "p0", 0, 4), store_lab.new_batch(store, "p1", 4, 6)]
    with pytest.raises(ValueError, match="10 requests"):
        store.batches.split(key, parts[:1], expect=["posting"])
    assert store.batches.split(key, parts, expect=["unknown"]) is None
    parts = [store_lab.new_batch(store, "p0", 0, 4), store_lab.new_batch(store, "p1", 4, 6)]
    first, second = store.batches.split(key, parts, expect=["posting"])
    assert store.batches.get(key).state == "split"
    assert store.batches.get(key).split_into == (first, second)
    assert not store.files.spool_path(key).exists()
    halves = [store_lab.new_batch(store, "h0", 4, 3), store_lab.new_batch(store, "h1", 7, 3)]
    store.batches.transition(second, expect=["intent"], to="posting")
    third, fourth = store.batches.split(second, halves, expect=["posting"])
    for opened in (store, reopened(store.path)):
        assert opened.runs.get("r").batch_keys == (first, third, fourth)
        assert set(opened.runs.get("s").batch_keys) == {first, third, fourth}
        table = opened.runs.requests_of("r")
        assert table.column("batch_key").to_pylist() == [first] * 4 + [third] * 3 + [fourth] * 3
        assert table.column("position").to_pylist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2]
        assert opened.runs.requests_of("s").column("batch_key").to_pylist() == [third, fourth]
        keys, positions = opened.batches.find_answers(prints(0, 10), np.zeros(10, np.uint16), base_url=BASE_URL)
        assert keys.tolist() == table.column("batch_key").to_pylist()
        assert positions.tolist() == table.column("position").to_pylist()
    assert store.runs.delete("r") == []
    assert sorted(store.runs.delete("s")) == sorted([key, first, second, third, fourth])
    assert list((store.path / "batches").iterdir()) == []


def test_a_key_is_never_used_twice(store: Store) -> None:
    """Not after a deletion, and not over folders that an older copy of the database does not know."""
    (first,) = add_run(store, "a").batch_keys
    store.runs.delete("a")
    (second,) = add_run(store, "b").batch_keys
    assert second > first
    paid = store.path / "batches" / "50"
    paid.mkdir()
    (paid / "results.jsonl").write_text("paid for")
    with pytest.raises(StoreError, match="recover"):
        add_run(reopened(store.path), "c")
    assert (paid / "results.jsonl").exists()


def test_a_cancel_holds_whatever_another_process_writes(store: Store) -> None:
    """Of two that change a batch at once, neither undoes what the other wrote: a canceled batch is never posted."""
    run = add_run(store, "r", n=4, n_batches=4)
    other = reopened(store.path)
    intent, posting, unknown, bound = run.batch_keys
    for key in (posting, unknown, bound):
        assert store.batches.transition(key, expect=["intent"], to="posting")
    assert store.batches.transition(unknown, expect=["posting"], to="unknown", doubt="lost")
    assert store.batches.transition(bound, expect=["posting"], to="bound", batch_id="msgbatch_1", proved=True)
    read_before = [store.batches.get(key) for key in run.batch_keys]
    told = other.batches.ask_cancel("r")
    assert [batch.key for batch in told] == [posting, unknown, bound]
    assert not store.batches.transition(intent, expect=["intent"], to="posting")
    for batch in read_before[1:3]:
        if batch.state == "posting":
            assert store.batches.transition(batch.key, expect=["posting"], to="unknown", lost_after_s=1.0)
        assert store.batches.transition(batch.key, expect=["unknown"], to="intent", first_posted_at=CREATED_AT)
        assert not store.batches.transition(batch.key, expect=["intent"], to="posting")
    store.batches.update(bound, counts={"processing": 1})
    assert all(other.batches.get(key).cancel_asked for key in run.batch_keys)


def test_what_several_find_out_about_a_batch_adds_up(store: Store) -> None:
    """Candidates that were disproved and batches made besides are added to what stands there, not written over it."""
    (key,) = add_run(store, "r", n=2).batch_keys
    other = reopened(store.path)
    store.batches.get(key)
    store.batches.add_tried_id(key, "a")
    other.batches.add_tried_id(key, "b")
    store.batches.add_tried_id(key, "a")
    store.batches.add_surplus(key, {"c": None})
    other.batches.add_surplus(key, {"d": 0.5})
    other.batches.add_surplus(key, {"c": 0.25})
    assert store.batches.get(key).tried_ids == ("a", "b")
    assert store.batches.get(key).surplus == {"c": 0.25, "d": 0.5}


def test_the_halves_of_a_canceled_batch_are_canceled(store: Store) -> None:
    """A batch that is found too large after its cancel is split into batches that nobody posts."""
    (key,) = add_run(store, "r", n=2).batch_keys
    assert store.batches.transition(key, expect=["intent"], to="posting")
    store.batches.ask_cancel("r")
    halves = [store_lab.new_batch(store, f"half{i}", 50 + i, 1) for i in range(2)]
    keys = store.batches.split(key, halves, expect=["posting"])
    assert keys is not None
    assert not any(store.batches.transition(half, expect=["intent"], to="posting") for half in keys)


def test_a_late_cancel_of_what_was_posted_leaves_what_is_asked_live_since(store: Store) -> None:
    """What an engine hears late cancels posted batches alone; what the user asks for, live ones too."""
    posted, live = add_run(store, "r", n=2, n_batches=2).batch_keys
    store.batches.update(live, state="live")
    store.batches.ask_cancel("r", live=False)
    assert [store.batches.get(key).cancel_asked for key in (posted, live)] == [True, False]
    store.batches.ask_cancel("r")
    assert store.batches.get(live).cancel_asked


# --- what a commit leaves


def files_in(store: Store) -> list[str]:
    """Return the names of all files of runs and batches, those on their way there included."""
    folders = [store.path / name for name in ("batches", "runs", "tmp")]
    return sorted(str(path.relative_to(store.path)) for folder in folders for path in folder.rglob("*"))


def test_what_is_not_recorded_leaves_no_file(store: Store) -> None:
    """A run, halves or an extension whose commit fails, or comes too late, takes its folders and bodies with it."""
    run = add_run(store, "r", n=4, nonces=["taken"])
    (key,) = run.batch_keys
    before = files_in(store)
    requests = store.runs.requests_of("r")
    with pytest.raises(sqlite3.IntegrityError):
        add_run(store, "s", n=2, start=50, nonces=["taken"])
    assert files_in(store) == before
    with pytest.raises(sqlite3.IntegrityError):
        store.runs.extend(run, requests, [store_lab.new_batch(store, "taken", 60, 2)])
    tables = [name for name in files_in(store) if name not in before]
    assert [Path(name).name for name in tables] == ["requests.1.arrow"]  # that no commit has made the table of the run
    halves = [store_lab.new_batch(store, f"half{i}", 2 * i, 2) for i in range(2)]
    assert store.batches.split(key, halves, expect=["unknown"]) is None
    assert files_in(store) == sorted([*before, *tables])
    assert [run.id for run in store.runs.all()] == ["r"]


def test_an_interrupt_after_the_commit_takes_nothing_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Halves that the database holds keep their folders, also where whoever wrote them never came to know."""
    (key,) = add_run(store, "r", n=4).batch_keys
    store.batches.transition(key, expect=["intent"], to="posting")
    halves = [store_lab.new_batch(store, f"half{i}", 2 * i, 2) for i in range(2)]
    write, database = store._opened.database.write, store._opened.database

    def write_and_stop(change: Any) -> Any:
        done = write(change)
        if store.batches.get(key).state == "split":
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(database, "write", write_and_stop)
    with pytest.raises(KeyboardInterrupt):
        store.batches.split(key, halves, expect=["posting"])
    for child in store.batches.get(key).split_into:
        assert (store.batches.requests_of(child)[0] == prints(2 * (child - key - 1), 2)).all()


def test_a_run_that_is_extended_needs_its_own_batches_first(store: Store) -> None:
    """What it comes to need of other runs stands behind its own batches, and who comes too late changes nothing."""
    (old,) = add_run(store, "old", n=2).batch_keys
    run = add_run(store, "r", n=2, start=10)
    requests = requests_table(
        np.concatenate([prints(10, 2), prints(0, 1)]),
        *(np.array(column) for column in ([0, 0, 0], [*run.batch_keys * 2, old], [0, 1, 0], [False, False, True])),
    )
    assert store.runs.extend(run, requests, [], n_retried=1) == []
    extended = store.runs.get("r")
    assert (extended.batch_keys, extended.n_extensions) == ((*run.batch_keys, old), 1)
    assert [batch.key for batch in store.batches.of_run("r")] == [*run.batch_keys, old]
    assert store.runs.extend(run, requests, [], n_retried=2) is None
    # The same, where the other has extended it between the look and the commit.
    late = store._opened.database.write(lambda c: queries.extend_run(c, "r", 0, {}, [], {"n_retried": 2}))
    assert late is False
    assert store.runs.get("r") == extended


def test_other_labels_take_the_place_of_the_first_ones(store: Store) -> None:
    """A run shows the labels of the frame it was asked for last, if it has as many rows; the same stay as they are."""
    labels = pd.Index([*"abc"])
    add_run(store, "r", n=3)
    store.runs.set_index("r", labels)
    pd.testing.assert_index_equal(store.runs.index_of("r"), labels)
    (written,) = (store.path / "runs" / "r").glob("index*")
    number = written.stat().st_ino
    store.runs.set_index("r", labels)
    store.runs.set_index("r", pd.Index([*"abcd"]))
    assert (written.stat().st_ino, store.runs.get("r").index_kind) == (number, "Index")
    store.runs.set_index("r", labels[::-1])
    pd.testing.assert_index_equal(store.runs.index_of("r"), labels[::-1])


# --- lookups


@pytest.mark.parametrize("n_asked", [150, 3000])
def test_large_and_small_batches_are_found_whatever_is_asked(store: Store, n_asked: int) -> None:
    """Few requests or thousands, in a batch as large as small ones may be, smaller, or larger: each is found."""
    sizes = (5, queries.SMALL, queries.SMALL + 1)
    keys, positions = [], []
    for n in sizes:
        keys += add_run(store, f"r{n}", n=n, start=len(positions)).batch_keys * n
        positions += range(n)
    found = store.batches.find_answers(prints(0, n_asked), np.zeros(n_asked, np.uint16), base_url=BASE_URL)
    n_none = n_asked - sum(sizes)
    assert [array.tolist() for array in found] == [keys + [-1] * n_none, positions + [-1] * n_none]


def test_few_requests_are_found_in_small_batches_without_a_look_at_their_files(store: Store) -> None:
    """A store of many small batches is searched in its database alone."""
    (key,) = add_run(store, "r", n=5).batch_keys
    (store.path / "batches" / str(key) / REQUESTS).unlink()
    keys, _ = store.batches.find_answers(prints(0, 5), np.zeros(5, np.uint16), base_url=BASE_URL)
    assert keys.tolist() == [key] * 5


def test_what_another_process_has_recorded_is_known_to_be_anothers(store: Store) -> None:
    """Only who has recorded a batch itself knows that nobody has posted it."""
    (key,) = add_run(store, "r").batch_keys
    assert store.batches.was_recorded_here(key)
    assert not reopened(store.path).batches.was_recorded_here(key)


def test_a_candidate_that_is_disproved_is_none_any_more(store: Store) -> None:
    """The candidate that was tried is given up, and no other one."""
    (key,) = add_run(store, "r").batch_keys
    store.batches.update(key, candidate_id="b")
    store.batches.add_tried_id(key, "a")
    assert store.batches.get(key).candidate_id == "b"
    store.batches.add_tried_id(key, "b")
    assert store.batches.get(key).candidate_id is None
