"""The panel's `Finish now`: its price is asked of nobody, and what is confirmed is done beside a cell that waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes
from test_finishing import frame_of, held

from pandas_batch import simulator
from pandas_batch.display.display import FinishOffer
from pandas_batch.errors import WaitTimeout
from pandas_batch.run.run import Run

PATIENCE_S = 30.0


class Heard:
    """What the panel is told, from whichever thread."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self._offer: FinishOffer | None = None

    def __call__(self, offer: FinishOffer | None) -> None:
        self._offer = offer
        self._told.set()

    def offer(self) -> FinishOffer | None:
        assert self._told.wait(PATIENCE_S)
        return self._offer


def price_of(run: Run) -> FinishOffer:
    heard = Heard()
    run._offer_finish(heard)
    offer = heard.offer()
    assert offer is not None
    return offer


def confirm(run: Run, offer: FinishOffer | None = None) -> Heard:
    heard = Heard()
    run._finish_as_offered(offer or price_of(run), heard)
    return heard


def when_it_finishes(run: Run, then: Callable[[], object]) -> threading.Thread:
    """Do something as soon as the run is being finished."""

    def look() -> None:
        until = threading.Event()
        while run.finish_at_work is None:
            until.wait(0.001)
        then()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    return thread


def test_the_price_is_that_of_the_rows_without_an_answer_and_asks_nobody(api, clock):
    """At most what finish_now would bound: rows times the standard price; no request leaves."""
    run = held(api, clock, frame_of(), max_tokens=2000)
    offer = price_of(run)
    assert "at most 20 rows are asked now through the Messages API" in offer.words
    assert offer.max_cost_usd == pytest.approx(20 * 2000 * 5e-6, rel=0.05)
    assert offer.price.startswith("$0.2")
    assert [api.calls(endpoint) for endpoint in ("cancel", "messages", "count_tokens")] == [0, 0, 0]
    run.cancel()


def test_what_is_confirmed_is_done_and_costs_at_most_that(api, clock):
    """The batches are canceled, the rest is asked, and the bill is within the price on the button."""
    run = held(api, clock, frame_of(), max_tokens=2000)
    offer = price_of(run)
    assert confirm(run, offer).offer() is None
    assert run.counts == {"succeeded": 20}
    assert (api.calls("cancel"), len(api.billed)) == (1, 20)
    assert float(api.billed_usd) <= (offer.max_cost_usd or 0.0)


@cut_on_purpose
def test_every_outcome_of_a_batch_is_met(api, clock):
    """Of a run that has ended the button would ask what is worth asking, as finish_now does."""
    plan_outcomes(api)
    run = ask(all_outcomes(), api, clock).wait()
    for fault in list(api.faults):
        api.faults.remove(fault)
    assert "at most 6 rows are asked" in price_of(run).words
    assert confirm(run).offer() is None
    assert len(api.messages) == 6


def test_with_nothing_to_ask_it_says_so(api, clock):
    """A run whose rows all have answers has no price to confirm."""
    run = ask(frame_of(3), api, clock).wait()
    offer = price_of(run)
    assert (offer.price, offer.max_cost_usd) == ("", None)
    assert "nothing to ask" in offer.words


def test_above_the_budget_of_the_run_it_is_a_line_to_type(api, clock):
    """A click raises no budget: the line names the sum that would."""
    run = held(api, clock, frame_of(), max_tokens=2000, max_cost_usd=20 * 2000 * 2.5e-6 * 1.1)
    offer = price_of(run)
    assert offer.price == ""
    assert "above the budget of $0.11" in offer.words
    assert f"{run.expression}.finish_now(max_cost_usd=0.2" in offer.hint
    run.cancel()


def test_without_a_price_it_is_a_line_to_type(api, clock):
    """What has no known bound cannot be confirmed by one click."""
    run = held(api, clock, frame_of(3), model="claude-of-tomorrow")
    offer = price_of(run)
    assert (offer.price, offer.hint) == ("", f"{run.expression}.finish_now()")
    assert "no bound is known" in offer.words
    run.cancel()


def test_a_cell_that_waits_for_the_run_waits_for_the_finish_too(api, clock):
    """result() in the cell below the panel returns what was asked live, not the rows as they were canceled."""
    run = held(api, clock, frame_of())
    heard = confirm(run)
    out = run.result()
    assert out["status"].tolist() == ["succeeded"] * 20
    assert out["batch_id"].isna().all()
    assert heard.offer() is None
    assert len(api.billed) == 20


def test_an_awaited_run_waits_for_the_finish_too(api, clock):
    """So does await run."""
    run = held(api, clock, frame_of())
    confirm(run)
    assert asyncio.run(_awaited(run))["status"].tolist() == ["succeeded"] * 20


async def _awaited(run: Run) -> Any:
    return await run


def test_the_status_says_that_it_finishes_and_how_far_it_is(api, clock):
    """From the cancel to the last answer the run is not over: the panel stays, with a word on what happens."""
    run = held(api, clock, frame_of())
    seen: list[Any] = []

    def answer(params: dict[str, Any]) -> str:
        seen.append(run.snapshot())
        return "yes"

    api.answer = answer
    assert confirm(run).offer() is None
    assert {(status.state, status.is_finishing, status.is_final) for status in seen} == {("in_progress", True, False)}
    assert all(status.message.startswith("Finishing now: ") for status in seen)
    assert (run.snapshot().is_finishing, run.status) == (False, "collected")


def test_a_finish_that_is_refused_is_told_in_the_panel_and_raised_where_somebody_waits(api, clock):
    """The batches are canceled by then: a result without the rest would look like all there is."""
    run = held(api, clock, frame_of())
    api.faults.add(simulator.ErrorAnswer("messages", 402, times=None))
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            run.wait()
        except BaseException as error:
            errors.append(error)

    waiting = when_it_finishes(run, wait)
    offer = confirm(run).offer()
    waiting.join(PATIENCE_S)
    assert offer is not None
    assert offer.price == ""
    assert "finish_now()" in offer.hint
    assert len(errors) == 1
    assert any("finish_now()" in note for note in getattr(errors[0], "__notes__", ()))
    api.faults.clear()
    assert run.finish_now()["status"].tolist() == ["succeeded"] * 20


def test_the_deadline_of_a_wait_holds_while_it_finishes(api, clock):
    """WaitTimeout comes when the time is over, and the finish goes on."""
    run = held(api, clock, frame_of())
    go = threading.Event()
    api.answer = lambda params: go.wait(PATIENCE_S) and "yes"
    heard = confirm(run)
    while run.finish_at_work is None or len(api.messages) == 0:
        go.wait(0.001)
    with pytest.raises(WaitTimeout):
        run.wait(timeout=0.0)
    go.set()
    assert heard.offer() is None
    assert run.counts == {"succeeded": 20}


def test_a_second_finish_goes_on_when_the_first_is_over(api, clock):
    """A line in a cell while the button's finish is at work asks no row twice."""
    run = held(api, clock, frame_of(40))
    heard = confirm(run)
    assert run.finish_now()["status"].tolist() == ["succeeded"] * 40
    assert heard.offer() is None
    assert len(api.messages) == len(api.billed) == 40
