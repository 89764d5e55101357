"""``run.finish_now()``: what the batches answer is kept at their price, the rest is asked live, nothing is lost."""

from __future__ import annotations

import threading
import time
from typing import Any

import anthropic
import pandas as pd
import pytest
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes

import pandas_batch
from pandas_batch import simulator
from pandas_batch.engine.asking import Asker
from pandas_batch.errors import BudgetError, InputError, WorseRunError
from pandas_batch.run import finishing
from pandas_batch.run.library import load
from pandas_batch.run.repeating import retry_once
from pandas_batch.run.run import Run
from pandas_batch.run.starting import attach_run


def frame_of(n: int = 20) -> pd.DataFrame:
    return pd.DataFrame({"prompt": [f"row {number:03d}" for number in range(n)]}, index=range(100, 100 + n))


def late(
    api: simulator.Simulator,
    clock: Any,
    frame: pd.DataFrame,
    *,
    answered: float = 0.5,
    seconds: float = 1000.0,
    **options: Any,
) -> Run:
    """Return a posted run whose batch is answered by so much."""
    api.seconds_per_batch = seconds
    with clock.held():
        run = ask(frame, api, clock, columns="all", **options)
        run.wait_submitted()
        clock.advance(seconds * answered)
    return run


def held(api: simulator.Simulator, clock: Any, frame: pd.DataFrame, **options: Any) -> Run:
    """Return the same with nothing answered, so slow that nothing is while it is being canceled."""
    return late(api, clock, frame, answered=0.0, seconds=80_000.0, **options)


def test_the_answered_rows_have_the_batch_price_and_the_others_the_standard_price(api, clock):
    run = late(api, clock, frame_of())
    out = run.finish_now()
    assert out["status"].tolist() == ["succeeded"] * 20
    assert out["output"].tolist() == frame_of()["prompt"].tolist()
    live = out["batch_id"].isna()
    assert 0 < live.sum() < 20
    assert len(api.billed) == 20
    assert sum(bill.is_live for bill in api.billed) == live.sum()
    of_live = float(sum(bill.cost_usd for bill in api.billed if bill.is_live))
    assert out.loc[live, "cost_usd"].sum() == pytest.approx(of_live)
    assert run.cost_usd == run.paid_usd == pytest.approx(float(api.billed_usd))
    assert (run.status, run.counts) == ("collected", {"succeeded": 20})
    assert load(run.id).cost_usd == run.cost_usd


def test_a_run_that_is_home_is_returned_as_it_is(api, clock):
    run = ask(frame_of(), api, clock)
    first = run.result()
    pd.testing.assert_frame_equal(run.finish_now(), first)
    assert (api.messages, api.calls("cancel")) == ([], 0)


@cut_on_purpose
def test_every_outcome_of_the_batch_is_met(api, clock):
    plan_outcomes(api)
    frame = all_outcomes()
    run = ask(frame, api, clock)
    run.wait()
    for fault in list(api.faults):
        api.faults.remove(fault)
    out = run.finish_now()
    # What was refused for good, what was cut and what was declined are answers; the rest is asked now.
    assert out["status"].tolist().count("errored") == 2
    assert len(api.messages) == 6
    assert {one.params["messages"][0]["content"].split()[2] for one in api.messages} == {
        "overloaded",
        "expired",
        "canceled",
    }


def test_the_budget_is_held_against_the_standard_price_before_anything_is_canceled(api, clock):
    run = held(api, clock, frame_of(), max_tokens=2000)
    with pytest.raises(BudgetError, match="may cost"):
        run.finish_now(max_cost_usd=20 * 2000 * 5e-6 * 0.9)
    assert (api.calls("cancel"), api.messages) == (0, [])
    assert run.finish_now(max_cost_usd=20 * 2000 * 5e-6 * 1.1)["status"].tolist() == ["succeeded"] * 20


def test_the_budget_of_the_run_holds_where_none_is_given(api, clock):
    run = held(api, clock, frame_of(), max_tokens=2000, max_cost_usd=20 * 2000 * 2.5e-6 * 1.1)
    with pytest.raises(BudgetError):
        run.finish_now()
    assert api.calls("cancel") == 0


@pytest.mark.parametrize("bad", [-1, "1", float("nan")])
def test_a_budget_that_is_none_is_refused(api, clock, bad):
    run = held(api, clock, frame_of(3))
    with pytest.raises(InputError, match="max_cost_usd"):
        run.finish_now(max_cost_usd=bad)
    assert api.calls("cancel") == 0
    run.cancel()


def test_what_was_not_posted_yet_is_asked_live_and_never_posted(api, clock):
    api.faults.add(simulator.ErrorAnswer("create", 429, retry_after="100000", times=None))
    with clock.held():
        run = ask(frame_of(), api, clock)
        out = run.finish_now()
    assert out["status"].tolist() == ["succeeded"] * 20
    assert (len(api.batches), len(api.billed)) == (0, 20)


def test_rows_that_wait_for_another_run_s_batch_are_asked_live_and_that_batch_goes_on(api, clock):
    first = held(api, clock, frame_of())
    with clock.held():
        second = ask(frame_of(8), api, clock, name="other")
        assert second.record.n_reused == 8
        out = second.finish_now()
        assert out["status"].tolist() == ["succeeded"] * 8
        assert (api.calls("cancel"), len(api.messages)) == (0, 8)
        assert second.status == "collected"
    assert first.result()["status"].tolist() == ["succeeded"] * 20


def test_a_run_of_retries_that_is_finished_asks_no_more_by_itself(api, clock):
    api.faults.add(simulator.RowFault("overloaded", asked="live", times=None, marker="row 003"))
    run = held(api, clock, frame_of(), retries=2)
    out = run.finish_now()
    assert out["status"].value_counts().to_dict() == {"succeeded": 19, "errored": 1}
    assert len(api.batches) == 1
    api.faults.clear()
    assert run.finish_now()["status"].tolist() == ["succeeded"] * 20


def test_a_stop_half_way_is_told_and_the_same_call_goes_on(api, clock):
    run = held(api, clock, frame_of(40))
    fault = api.faults.add(simulator.ErrorAnswer("messages", 402, skip=10, times=None))
    with pytest.raises(anthropic.APIStatusError) as caught:
        run.finish_now()
    assert any("finish_now()" in note for note in caught.value.__notes__)
    n_answered = len(api.billed)
    assert 0 < n_answered < 40
    api.faults.remove(fault)
    again = load(run.id, client=api.client(max_retries=0), clock=clock)
    assert again.counts["succeeded"] == n_answered
    out = again.finish_now()
    assert out["status"].tolist() == ["succeeded"] * 40
    assert len(api.billed) == 40
    assert again.paid_usd == pytest.approx(float(api.billed_usd))


def test_the_same_line_after_a_stop_shows_what_is_there(api, clock):
    run = held(api, clock, frame_of(40))
    api.faults.add(simulator.ErrorAnswer("messages", 402, skip=10, times=None))
    with pytest.raises(anthropic.APIStatusError):
        run.finish_now()
    out = ask(frame_of(40), api, clock, columns="all").result()
    assert set(out["status"]) == {"succeeded", "canceled"}
    assert len(api.batches) == 1


def test_interrupted_while_it_asks_it_keeps_what_came(api, clock):
    run = held(api, clock, frame_of(40))

    def wait(self: Asker, timeout_s: float) -> bool:
        while self.n_done < 5:
            self.future.done()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Asker, "wait", wait)
        with pytest.raises(KeyboardInterrupt):
            run.finish_now()
    assert run.finish_now()["status"].tolist() == ["succeeded"] * 40
    assert len(api.messages) == len(api.billed) == 40


def test_two_calls_at_once_ask_no_row_twice(api, clock):
    run = held(api, clock, frame_of(40))
    others = [load(run.id, client=api.client(max_retries=0), clock=clock) for _ in range(2)]
    outs: list[pd.DataFrame] = []
    threads = [threading.Thread(target=lambda one=one: outs.append(one.finish_now())) for one in (run, *others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [out["status"].tolist() for out in outs] == [["succeeded"] * 40] * 3
    assert len(api.messages) == len(api.billed) == 40


def test_a_create_whose_answer_was_lost_is_found_and_its_answers_kept(api, clock):
    api.faults.add(simulator.LostAnswer("reset"))
    api.faults.add(simulator.ListLag(30.0))
    api.seconds_per_batch = 5.0
    with clock.held():
        run = ask(frame_of(), api, clock)
    out = run.finish_now()
    assert out["status"].tolist() == ["succeeded"] * 20
    assert len({str(bill.custom_id) or str(bill.usage) for bill in api.billed}) >= 1
    assert len(api.billed) == 20


def test_the_labels_and_columns_of_the_frame_come_back(api, clock):
    frame = frame_of().assign(other=range(20))
    out = late(api, clock, frame).finish_now()
    assert out.index.tolist() == frame.index.tolist()
    assert out["other"].tolist() == list(range(20))


def test_a_schema_and_samples_hold_for_rows_asked_live(api, clock):
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
    out = held(api, clock, frame_of(6), output_schema=schema, samples=2).finish_now()
    assert all(len(moods) == 2 and set(moods) <= {"good", "bad"} for moods in out["mood"])
    assert len(api.messages) == 12


def test_the_price_is_told_before(api, clock, capsys):
    run = held(api, clock, frame_of(), progress="auto")
    run.finish_now()
    told = capsys.readouterr().err
    assert "at most 20 rows, is asked now through the Messages API at the standard price: at most $" in told


def test_a_batch_that_ends_while_it_is_canceled_costs_nothing_more(api, clock):
    run = late(api, clock, frame_of(), answered=0.0)
    with clock.held():
        clock.advance(2000.0)
    out = run.finish_now()
    assert out["batch_id"].notna().all()
    assert api.messages == []
    assert pandas_batch.load(run.id).paid_usd == pytest.approx(float(api.billed_usd))


def test_a_cancel_stops_the_asking_and_what_came_is_kept(api, clock):
    run = held(api, clock, frame_of(60))
    other = load(run.id, client=api.client(max_retries=0), clock=clock)
    asked = threading.Event()

    def answer(params: dict[str, Any]) -> str:
        if len(api.messages) >= 10 and not asked.is_set():
            asked.set()
            other.store.batches.ask_cancel(run.id)
        return "yes"

    api.answer = answer
    out = run.finish_now()
    n_answered = int((out["status"] == "succeeded").sum())
    assert 10 <= n_answered < 60
    assert out["status"].value_counts()["canceled"] == 60 - n_answered
    assert len(api.billed) == n_answered
    assert run.finish_now()["status"].tolist() == ["succeeded"] * 60


def test_what_the_run_s_own_retry_posts_meanwhile_is_canceled_and_paid_once(api, clock, monkeypatch):
    api.faults.add(simulator.RowFault("overloaded", share=0.5, asked="batch", times=1))
    run = ask(frame_of(), api, clock).wait()
    api.seconds_per_batch = 1000.0
    cancel = finishing._cancel

    def too_early(run: Any, waiter: Any) -> None:
        cancel(run, waiter)
        if len(api.batches) == 1:
            with clock.held():
                other = ask(frame_of(), api, clock, retries=1)
                retry_once(other)
                other.wait_submitted()

    monkeypatch.setattr(finishing, "_cancel", too_early)
    out = run.finish_now()
    assert out["status"].tolist() == ["succeeded"] * 20
    run.wait()
    assert len(api.batches) == 2
    assert len(api.billed) == 20
    assert run.paid_usd == pytest.approx(float(api.billed_usd))


def test_the_cost_of_a_run_is_not_known_where_a_live_answer_was_lost(api, clock):
    run = held(api, clock, frame_of(3))
    fault = api.faults.add(simulator.LostAnswer("reset", endpoint="messages", times=None))
    with pytest.warns(UserWarning, match="3 rows were lost on their way, twice"):
        out = run.finish_now()
    assert out["status"].tolist() == ["missing"] * 3
    assert (run.cost_usd, run.paid_usd, load(run.id).cost_usd, load(run.id).paid_usd) == (None,) * 4
    with pytest.raises(WorseRunError, match="an unknown amount, as a price is missing or an answer was lost"):
        run.check(max_failed=1, max_cost_usd=1)
    api.faults.remove(fault)
    assert "cost unknown" in str(run)


def test_a_run_that_waits_for_the_canceled_batch_leaves_the_rows_to_who_finishes_now(api, clock, monkeypatch):
    """Between the cancel and the live requests another run of the same rows posts nothing: they are paid once."""
    api.seconds_per_batch = 1000.0
    with clock.held():
        first = ask(frame_of(6), api, clock)
        first.wait_submitted()
        second = ask(frame_of(6).iloc[::-1], api, clock)
    honest = finishing._ask_rest

    def slowly(*given: Any) -> None:
        time.sleep(1.0)  # the other run's own thread has all the time it wants
        honest(*given)

    monkeypatch.setattr(finishing, "_ask_rest", slowly)
    assert first.finish_now()["status"].eq("succeeded").all()
    assert second.result()["status"].eq("succeeded").all()
    assert len(api.billed) == 6
    assert api.calls("create") == 1


def test_a_budget_that_does_not_do_says_what_goes_on(api, clock):
    """Refused for its price, a finish has canceled nothing, and says that what is on the server is billed."""
    run = held(api, clock, frame_of())
    with pytest.raises(BudgetError) as caught:
        run.finish_now(max_cost_usd=1e-6)
    assert "Nothing was sent" not in str(caught.value)
    assert "go on, and are billed" in str(caught.value)
    assert "finish_now(max_cost_usd=" in caught.value.hint
    run.cancel()


@pytest.mark.parametrize("samples", [1, 2])
def test_a_part_pays_for_its_rows_alone(api, clock, samples):
    """Bound to two rows of twenty, only these are asked live; the others are named, and the budget is for the two."""
    frame = frame_of()
    run = held(api, clock, frame, samples=samples)
    whole = run.options.max_cost_usd
    part = attach_run(frame.iloc[[3, 7]], run.id, {"client": api.client(), "progress": "off"}, clock=clock)
    with pytest.raises(BudgetError, match=f"{2 * samples} requests"):
        part.finish_now(max_cost_usd=0.000001)
    assert api.calls("cancel") == 0
    with pytest.warns(UserWarning, match=f"{18 * samples} requests of rows that this frame does not have"):
        out = part.finish_now()
    assert out.index.tolist() == [103, 107]
    assert out["output"].explode().tolist() == [text for text in ("row 003", "row 007") for _ in range(samples)]
    assert (len(api.messages), len(api.billed), whole) == (2 * samples, 2 * samples, None)
    assert part.paid_usd == pytest.approx(float(api.billed_usd))
    left = load(run.id, client=api.client(), clock=clock).retry_failed().result()
    assert left["status"].explode().eq("succeeded").all()
    assert len(api.billed) == 20 * samples


def test_beside_a_retry_under_way_it_asks_nothing_and_names_the_retry(api, clock):
    """What a retry asks just now would be paid twice; the retry itself can be finished, and its rows are paid once."""
    api.faults.add(simulator.RowFault("expired", share=0.5, asked="batch", times=1))
    run = ask(frame_of(), api, clock).wait()
    n_failed = run.n_failed
    api.faults.clear()
    api.seconds_per_batch = 80_000.0
    with clock.held():
        retry = run.retry_failed().wait_submitted()
        with pytest.raises(InputError, match=f"run {retry.id} asks its rows just now") as caught:
            run.finish_now()
        assert f'pandas_batch.load("{retry.id}").finish_now()' in str(caught.value)
        assert (api.calls("cancel"), api.messages) == (0, [])
    assert retry.finish_now()["status"].tolist() == ["succeeded"] * 20
    assert len(api.billed) == 20
    assert len(api.messages) == n_failed > 0


def test_a_retry_from_elsewhere_leaves_the_rows_to_who_finishes_now(api, clock, monkeypatch):
    """Between the cancel and the live requests a retry in another kernel is refused: the rows are paid once."""
    run = held(api, clock, frame_of())
    honest, said = finishing._ask_rest, []

    def retried_first(*given: Any) -> None:
        with pytest.raises(InputError, match="is being finished now") as caught:
            load(run.id, client=api.client(), clock=clock).retry_failed()
        said.append(str(caught.value))
        honest(*given)

    monkeypatch.setattr(finishing, "_ask_rest", retried_first)
    assert run.finish_now()["status"].tolist() == ["succeeded"] * 20
    assert "Nothing was sent by this call" in said[0]
    assert (len(api.billed), api.calls("create")) == (20, 1)


def test_a_retry_that_was_faster_than_the_finish_keeps_its_rows(api, clock, monkeypatch):
    """One that was recorded before the lease was seen is met under the lock: its rows are not asked live as well."""
    run = held(api, clock, frame_of())
    honest, retries = finishing._cancel, []

    def retried_after(*given: Any) -> None:
        honest(*given)
        with pytest.MonkeyPatch.context() as blind, clock.held():
            blind.setattr("pandas_batch.run.retrying._refuse_beside_a_finish", lambda run: None)
            retries.append(load(run.id, client=api.client(), clock=clock).retry_failed().wait_submitted())

    monkeypatch.setattr(finishing, "_cancel", retried_after)
    with pytest.raises(InputError, match="asks its rows just now"):
        run.finish_now()
    assert retries[0].result()["status"].tolist() == ["succeeded"] * 20
    assert (len(api.billed), api.messages) == (20, [])
