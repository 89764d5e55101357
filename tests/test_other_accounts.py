"""Another key, another workspace, another server: nothing is concluded from what cannot be seen there."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pandas as pd
import pytest
from rowlab import ask

import pandas_batch
from pandas_batch import failpoints, simulator
from pandas_batch.errors import InputError
from pandas_batch.run.run import Run
from pandas_batch.simulator.faults import ErrorAnswer, LostAnswer

FRAME = pd.DataFrame({"prompt": ["a", "b", "c"]})


@pytest.fixture
def api(clock) -> Iterator[simulator.Simulator]:
    """A server with two workspaces."""
    workspaces = {"first": "wrkspc_first", "second": "wrkspc_second"}
    with simulator.serve(clock=clock.time_s, workspaces=workspaces) as running:
        yield running


class Killed(BaseException):
    """The kernel is dead."""


def with_key(api: simulator.Simulator, key: str) -> anthropic.Anthropic:
    """Return a client with the key of one of the workspaces."""
    return anthropic.Anthropic(api_key=key, base_url=api.base_url)


def killed_at(point: str, api: simulator.Simulator, clock, monkeypatch) -> Run:
    """Return a run of the first workspace whose kernel has died at a named instant."""

    def die(reached: str) -> None:
        if reached == point:
            raise Killed

    monkeypatch.setattr(failpoints, "on_reached", die)
    run = ask(FRAME, api, clock, client=with_key(api, "first"))
    assert run.engine.join(20)
    assert isinstance(run.engine.error, Killed)
    monkeypatch.setattr(failpoints, "on_reached", None)
    return run


@pytest.mark.parametrize("point", ["create answered", "loss recorded", "batch bound", "end recorded"])
def test_what_another_workspace_shows_ends_nothing(api, clock, monkeypatch, point):
    """With a key of another workspace a batch is neither given up, posted again, nor believed gone; that is told."""
    api.faults.add(LostAnswer("reset", committed=True, times=int(point == "loss recorded")))
    killed_at(point, api, clock, monkeypatch)
    for _ in range(2):
        with pytest.raises(InputError) as told:
            ask(FRAME, api, clock, client=with_key(api, "second")).result()
        assert "wrkspc_first" in str(told.value)
        assert "wrkspc_second" in str(told.value)
        clock.advance(7200)
    assert ask(FRAME, api, clock, client=with_key(api, "first")).result()["status"].eq("succeeded").all()
    assert api.calls("create") == 1
    assert len(api.billed) == 3


def test_what_was_refused_may_be_posted_in_another_workspace(api, clock):
    """A batch that certainly does not exist may go to any workspace: a spend limit is left behind so."""
    api.faults.add(ErrorAnswer("create", 400))
    with pytest.raises(anthropic.BadRequestError):
        ask(FRAME, api, clock, client=with_key(api, "first")).result()
    assert ask(FRAME, api, clock, client=with_key(api, "second")).result()["status"].eq("succeeded").all()
    assert api.calls("create") == 2
    assert len(api.billed) == 3


def test_a_batch_is_deleted_with_a_key_of_its_own_workspace(api, clock):
    """Where a batch cannot be seen it is not taken for deleted: the run stays, and that is told."""
    store = str(ask(FRAME, api, clock, client=with_key(api, "first")).wait().store.path)
    (run_id,) = pandas_batch.runs(store).index
    with pytest.raises(InputError) as told:
        pandas_batch.load(run_id, store=store, client=with_key(api, "second"), clock=clock).delete(server=True)
    assert "wrkspc_first" in str(told.value)
    assert len(api.batches) == len(pandas_batch.runs(store)) == 1
    pandas_batch.load(run_id, store=store, client=with_key(api, "first"), clock=clock).delete(server=True)
    assert len(api.batches) == len(pandas_batch.runs(store)) == 0


def test_a_run_is_loaded_with_a_client_of_its_own_server(api, clock, monkeypatch):
    """A client that speaks to another server is told so, and its 404s end nothing."""
    run = killed_at("batch bound", api, clock, monkeypatch)
    store = str(run.store.path)
    with simulator.serve(clock=clock.time_s) as other:
        with pytest.raises(InputError) as told:
            pandas_batch.load(run.id, store=store, client=other.client(), clock=clock).result()
        assert other.calls("retrieve") == other.calls("list") == 0
    assert api.base_url in str(told.value)
    assert other.base_url in str(told.value)
    mine = pandas_batch.load(run.id, store=store, client=with_key(api, "first"), clock=clock)
    assert mine.result()["status"].eq("succeeded").all()


def test_an_outage_of_the_list_does_not_stop_the_search_for_a_missing_batch(api, clock):
    """While it is found out whether a batch is gone, a server that does not answer is waited for."""
    api.faults.add(ErrorAnswer("retrieve", 404, times=30))
    api.faults.add(ErrorAnswer("list", 529, skip=2, times=3))
    assert ask(FRAME, api, clock).result()["status"].eq("succeeded").all()
