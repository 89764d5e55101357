"""The list of runs: what became of a run is counted once, and again where anything of it changes."""

from __future__ import annotations

import sqlite3

import pandas as pd
import pytest
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes

import pandas_batch
from pandas_batch.run import library
from pandas_batch.run.run import Run

ACCOUNT = ["answered", "failed", "cost_usd", "paid_usd"]


def account_of(run: Run) -> list[object]:
    return [run.counts.get("succeeded", 0), run.n_failed, run.cost_usd, run.paid_usd]


def listed_account(run: Run) -> list[object]:
    return pandas_batch.runs(run.store.path).loc[run.id, ACCOUNT].tolist()


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the runs whose answers are counted for the list from now on."""
    counted: list[str] = []
    look_up = library._looked_up

    def counting(store, run_id):
        counted.append(run_id)
        return look_up(store, run_id)

    monkeypatch.setattr(library, "_looked_up", counting)
    return counted


def test_a_run_that_has_ended_is_not_counted_again(api, clock, unread):
    """What became of a run is recorded at its end; no answer of it is opened for the list."""
    plan_outcomes(api)
    run = ask(all_outcomes(), api, clock).wait()
    run.engine.join(30)
    assert listed_account(run) == account_of(run)
    assert run.n_failed > 0
    assert unread == []


def test_what_only_a_call_knows_is_counted_at_the_first_look(api, clock, unread):
    """Prices of a call, and a class of its schema, are worth nothing to a later process: the list counts once."""
    run = ask(pd.DataFrame({"prompt": ["a", "b"]}), api, clock, prices={"claude-haiku-4-5": (1.0, 5.0)}).wait()
    run.engine.join(30)
    first = listed_account(run)
    assert first == account_of(pandas_batch.load(run.id, store=run.store.path))
    assert unread == [run.id]
    assert listed_account(run) == first
    assert unread == [run.id]


def test_a_batch_that_changes_lets_its_runs_be_counted_anew(api, clock, unread):
    """Whatever is recorded of a batch after the end of a run, what was counted before does not stand against it."""
    run = ask(pd.DataFrame({"prompt": ["a", "b"]}), api, clock).wait()
    run.engine.join(30)
    run.store.batches.add_surplus(run.batch_records()[0].key, {"msgbatch_other": 0.5})
    assert listed_account(run) == account_of(run)
    assert unread == [run.id]
    run.store.batches.transition(run.batch_records()[0].key, expect={"collected"}, to="ended")
    listed = pandas_batch.runs(run.store.path)
    assert listed["status"].tolist() == ["ended"]
    assert listed[ACCOUNT].iloc[0].tolist() == [0, 0, 0.0, 0.0]


def test_what_was_counted_of_other_batches_is_not_recorded(api, clock, unread):
    """Between the count and its record a batch may change: then nothing is recorded."""
    run = ask(pd.DataFrame({"prompt": ["a"]}), api, clock).wait()
    run.engine.join(30)
    before = run.store.runs.settled_batches(run.id)
    run.store.batches.add_surplus(before[0].key, {"msgbatch_other": 0.5})
    run.store.runs.set_accounts({run.id: (before, library._looked_up(run.store, run.id)._replace(n_answered=7))})
    assert listed_account(run)[0] == 1
    assert unread == [run.id, run.id]


@cut_on_purpose
def test_rows_added_to_a_run_are_counted(api, clock):
    """A run that grows has the account of all its batches."""
    plan_outcomes(api)
    run = ask(all_outcomes(), api, clock).wait()
    run.engine.join(30)
    assert listed_account(run) == account_of(run)
    run.finish_now(max_cost_usd=1.0)
    assert listed_account(run) == account_of(run)


def test_the_list_is_made_once_until_something_changes(api, clock, monkeypatch):
    """A second look reads nothing; a change by any process, and one of the caller's frame, is no part of it."""
    run = ask(pd.DataFrame({"prompt": ["a"]}), api, clock, name="first").wait()
    run.engine.join(30)
    path = run.store.path
    first = pandas_batch.runs(path)
    first.loc[run.id, "model"] = "changed by the caller"
    with monkeypatch.context() as patched:
        patched.setattr(library, "_listed", None)
        assert pandas_batch.runs(path)["model"].tolist() == ["claude-haiku-4-5-20251001"]
    with sqlite3.connect(path / "store.db") as other:
        other.execute("UPDATE runs SET name = 'by another process'")
    other.close()
    assert pandas_batch.runs(path)["name"].tolist() == ["by another process"]


def test_a_run_that_could_not_be_read_is_read_again(api, clock, monkeypatch):
    """A failure of the disk leaves a line without figures; the next look has them."""
    run = ask(pd.DataFrame({"prompt": ["a", None]}), api, clock).wait()
    run.engine.join(30)
    run.store.batches.add_surplus(run.batch_records()[0].key, {})  # what was recorded at the end is forgotten
    with monkeypatch.context() as patched:
        patched.setattr(library.Run, "of", classmethod(lambda cls, *_: (_ for _ in ()).throw(OSError("gone"))))
        listed = pandas_batch.runs(run.store.path)
        assert listed[["answered", "failed", "cost_usd", "paid_usd"]].isna().all(axis=None)
        assert listed["rows"].tolist() == [2]
    assert library.Run is Run
    listed = pandas_batch.runs(run.store.path)
    assert listed["answered"].tolist() == [1]
    assert listed["paid_usd"].tolist() == [run.paid_usd]
