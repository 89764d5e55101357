"""The list of batches is read to its end, or it is an error: what is hidden in it may be paid for already."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from gateway import Answer, Gateway, is_list
from hypothesis import given
from hypothesis import strategies as st
from rowlab import ask, until_batches

from pandas_batch import BatchClient
from pandas_batch.errors import UnreadableAnswerError
from pandas_batch.run import recording
from pandas_batch.server_values import time_of
from pandas_batch.simulator import Simulator
from pandas_batch.simulator.faults import LostAnswer
from pandas_batch.wire import listing
from pandas_batch.wire.endpoints import Page
from pandas_batch.wire.flows import Flow
from pandas_batch.wire.listing import each_page_flow, find_listed_flow, newer_batches_flow

FRAME = pd.DataFrame({"prompt": ["a", "b", "c"]})


def edited(edit: Callable[[dict[str, Any]], object]) -> Callable[[str, str, Answer], Answer | None]:
    """Return what a gateway does that edits each page of the list."""

    def change(method: str, path: str, answer: Answer) -> Answer | None:
        if not is_list(method, path):
            return None
        page = json.loads(answer.body)
        edit(page)
        return Answer(answer.status, json.dumps(page).encode(), {"content-type": "application/json"})

    return change


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda page: page.pop(name)


def as_null(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda page: page.update({name: None})


LEAVING_OUT = [
    pytest.param(edit(name), id=f"{edit.__name__} {name}")
    for edit in (without, as_null)
    for name in ("last_id", "has_more", "first_id")
]


def make_batches(api: Simulator, n: int) -> None:
    """Make batches of two requests, as another program with the same key would."""
    for _ in range(n):
        api.add_decoy(2)


@pytest.mark.parametrize("edit", LEAVING_OUT)
def test_a_list_that_says_little_of_its_pages_is_read_to_its_end(api, clock, monkeypatch, edit):
    """A gateway that leaves out where a page ends, or whether more follow, hides no batch that is paid for."""
    monkeypatch.setattr(listing, "_PAGE", 2)
    api.faults.add(LostAnswer("reset"))
    with Gateway(api, change=edited(edit)) as gate:
        with clock.held():
            run = ask(FRAME, api, clock, client=gate.client())
            until_batches(run, "unknown")
            make_batches(api, 5)
        assert run.result()["status"].eq("succeeded").all()
    assert (api.calls("create"), len(api.batches)) == (1, 6)


class FirstPageOnly(Gateway):
    """A gateway that gives the first page whatever is asked for, until it `is_mended`."""

    def __init__(self, api: Simulator) -> None:
        self.is_mended = False
        first: list[Answer] = []

        def change(method: str, path: str, answer: Answer) -> Answer | None:
            if self.is_mended or not is_list(method, path) or "limit=1&" in path + "&":
                return None
            if "after_id" not in path:
                first[:] = [answer]
            return first[0]

        super().__init__(api, change=change)


def test_a_list_that_does_not_go_on_ends_and_nothing_is_posted_again(api, clock, monkeypatch):
    """A gateway that always gives the first page ends no search, and hangs nothing: the batch may stand further on."""
    monkeypatch.setattr(listing, "_PAGE", 2)
    api.faults.add(LostAnswer("reset"))
    with FirstPageOnly(api) as gate:
        with clock.held():
            run = ask(FRAME, api, clock, client=gate.client())
            until_batches(run, "unknown")
            make_batches(api, 5)
        with pytest.raises(UnreadableAnswerError, match="does not go on"):
            run.wait(timeout=4000)
        assert (run.status, len(api.batches)) == ("blocked", 6)
        gate.is_mended = True
        assert ask(FRAME, api, clock, client=gate.client()).result()["status"].eq("succeeded").all()
    assert len(api.batches) == 6


def test_batches_are_polled_beside_a_list_that_does_not_go_on(api, clock, monkeypatch):
    """What the list does not show is asked for by its id: a run of many batches ends."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 1)
    monkeypatch.setattr(listing, "_LARGEST_PAGE", 2)
    make_batches(api, 3)
    with FirstPageOnly(api) as gate:
        frame = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(5)]})
        out = ask(frame, api, clock, client=gate.client()).result()
    assert out["status"].eq("succeeded").all()


def test_the_client_lists_to_the_end_or_says_that_it_cannot(api):
    """`client.list` is whole up to its limit; a gateway that gives a page twice is told of, not asked for ever."""
    make_batches(api, 3)
    with Gateway(api, change=edited(without("last_id"))) as gate, BatchClient(client=gate.client()) as client:
        assert {job.batch_id for job in client.list(10)} == {batch.id for batch in api.batches}

    def more(page: dict[str, Any]) -> None:
        page["has_more"] = True

    with Gateway(api, change=edited(more)) as gate, BatchClient(client=gate.client()) as client:
        assert len(client.list(3)) == 3
        with pytest.raises(UnreadableAnswerError, match="does not go on"):
            client.list(4)


def read_in_pages(batches: list[dict[str, Any]], n_on_page: int, flow: Flow[Any]) -> Any:
    """Return what `flow` makes of a list of these batches, so many on a page."""

    def read(after_id: str | None) -> Flow[Page]:
        start = 0 if after_id is None else 1 + [batch["id"] for batch in batches].index(after_id)
        page = batches[start : start + n_on_page]
        has_more = start + n_on_page < len(batches)
        return Page(batches=page, has_more=has_more, last_id=page[-1]["id"] if page else None)
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(each_page_flow, "__kwdefaults__", {"read": read})
        with pytest.raises(StopIteration) as ended:
            next(flow)
    return ended.value.value


@given(st.booleans(), st.integers(2, 6), st.integers(0, 8))
def test_a_batch_is_found_in_a_list_sorted_either_way(is_reversed: bool, n_on_page: int, wanted: int) -> None:
    """What is older than the batch ends the search only in a list that is newest first, as the API's is."""
    batches = [{"id": f"msgbatch_{n}", "created_at": f"2026-11-23T08:00:0{n}Z"} for n in range(9)]
    batches = batches[::-1] if is_reversed else batches
    flow = find_listed_flow(f"msgbatch_{wanted}", time_of(f"2026-11-23T08:00:0{wanted}Z"))
    found = read_in_pages(batches, n_on_page, flow)
    assert found is not None
    assert found["id"] == f"msgbatch_{wanted}"


@given(st.integers(0, 12), st.integers(1, 4), st.integers(0, 13), st.booleans())
def test_what_is_newer_than_the_mark_is_found_whatever_the_pages(
    n_batches: int, n_on_page: int, at: int, has_mark: bool
) -> None:
    """However the list is cut into pages, the batches before the mark are those that come back, newest first."""
    batches = [{"id": f"msgbatch_{n}"} for n in reversed(range(n_batches))]

    mark = batches[at]["id"] if has_mark and at < n_batches else None
    newer, _, _ = read_in_pages(batches, n_on_page, newer_batches_flow(mark, None))
    assert newer == (batches[:at] if mark is not None else batches)
