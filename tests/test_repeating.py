"""``retries=n``: what is worth asking again goes into a new batch of the same run, at most so often, paid once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from rowlab import all_outcomes, ask, cut_on_purpose, lose_rows, plan_outcomes
from test_trial import tried

import pandas_batch
from pandas_batch import failpoints, simulator
from pandas_batch.errors import InputError
from pandas_batch.run import driving, others_asking
from pandas_batch.run.library import load
from pandas_batch.run.repeating import retry_once
from pandas_batch.run.run import Run


def frame_of(n: int = 12) -> pd.DataFrame:
    return pd.DataFrame({"prompt": [f"row {number:03d}" for number in range(n)]})


def test_what_was_overloaded_is_asked_again_in_the_same_run(api, clock):
    api.faults.add(simulator.RowFault("overloaded", share=0.5, times=1))
    api.faults.add(simulator.RowFault("api_error", share=0.5, skip=1, times=1))
    run = ask(frame_of(40), api, clock, retries=3)
    out = run.result()
    assert out["status"].tolist() == ["succeeded"] * 40
    assert (len(run.batches), run.record.n_retried) == (3, 2)
    assert api.batches[-1].n_requests == 40
    assert len(api.billed) == 40
    assert run.paid_usd == run.cost_usd == pytest.approx(float(api.billed_usd))
    assert len(pandas_batch.runs()) == 1


@cut_on_purpose
def test_it_asks_what_retry_failed_would_ask_at_most_so_often(api, clock):
    plan_outcomes(api)
    frame = all_outcomes()
    run = ask(frame, api, clock, retries=2)
    out = run.result()
    assert [batch.n_requests for batch in reversed(api.batches)] == [16, 6, 6]
    assert run.record.n_retried == 2
    plain = ask(frame, api, clock, name="without").result()
    pd.testing.assert_series_equal(out["status"], plain["status"])
    assert len({bill.custom_id for bill in api.billed}) == len(api.billed)


def test_without_retries_nothing_is_asked_again(api, clock):
    api.faults.add(simulator.RowFault("overloaded", times=1))
    run = ask(frame_of(), api, clock)
    assert run.result()["status"].tolist() == ["errored"] * 12
    assert len(api.batches) == 1


def test_another_number_of_retries_is_the_same_run_which_goes_on(api, clock):
    api.faults.add(simulator.RowFault("overloaded", times=1))
    first = ask(frame_of(), api, clock)
    first.wait()
    second = ask(frame_of(), api, clock, retries=1)
    assert second.id == first.id
    assert second.result()["status"].tolist() == ["succeeded"] * 12
    assert load(first.id).counts == {"succeeded": 12}


def test_rows_without_a_result_are_asked_again_and_count_in_the_bound(api, clock):
    fault = simulator.BadResults("missing", n_rows=3, times=4)
    api.faults.add(fault)
    run = ask(frame_of(), api, clock, retries=1)
    bound_usd = run.record.cost_usd_max
    assert run.result()["status"].tolist() == ["succeeded"] * 12
    assert (len(api.batches), len(api.billed)) == (2, 15)
    assert bound_usd is not None
    assert run.record.cost_usd_max is not None
    assert float(api.billed_usd) <= run.record.cost_usd_max


def test_the_budget_counts_the_retries(api, clock):
    lose_rows(api, 11)
    estimate = frame_of().claude_batch.estimate("prompt", client=api.client(), max_tokens=4000)
    assert estimate.cost_usd_max is not None
    run = ask(frame_of(), api, clock, retries=3, max_tokens=4000, max_cost_usd=estimate.cost_usd_max * 1.01)
    with pytest.warns(UserWarning, match=r"were not asked again by themselves: .* above max_cost_usd"):
        out = run.result()
    assert out["status"].tolist().count("missing") == 11
    assert len(api.batches) == 1


def test_what_is_canceled_is_not_asked_again(api, clock):
    api.seconds_per_batch = 1000.0
    with clock.held():
        run = ask(frame_of(), api, clock, retries=3)
        run.wait_submitted()
        run.cancel()
    assert run.result()["status"].tolist() == ["canceled"] * 12
    assert len(api.batches) == 1


def test_a_run_that_asks_again_is_not_told_as_finished_before(api, clock):
    api.faults.add(simulator.RowFault("overloaded", times=1))
    run = ask(frame_of(), api, clock, retries=1)
    finals = []
    run.observe(lambda status: finals.append((status.is_final, status.n_failed)))
    run.wait()
    run.engine.join(20)
    assert [n_failed for is_final, n_failed in finals if is_final] in ([], [0], [0, 0])


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is killed on purpose
@pytest.mark.parametrize("point", failpoints.POINTS[3:])
@pytest.mark.parametrize("after", [0, 1])
def test_stopped_at_any_instant_it_goes_on_and_pays_nothing_twice(api, clock, monkeypatch, point, after):
    api.faults.add(simulator.RowFault("overloaded", share=0.5, times=1))
    n_reached = 0

    def stop(name: str) -> None:
        nonlocal n_reached
        if name == point:
            n_reached += 1
            if n_reached == after + 1:
                raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(failpoints, "on_reached", stop)
        run = ask(frame_of(30), api, clock, retries=2)
        engine = run.engine
        if engine is not None:
            engine.wait(20)
            engine.join(20)
    again = ask(frame_of(30), api, clock, retries=2)
    assert again.id == run.id
    assert again.result()["status"].tolist() == ["succeeded"] * 30
    assert len({bill.custom_id[23:] for bill in api.billed}) == len(api.billed) == 30
    assert again.record.n_retried == 1


def test_two_handles_on_a_run_retry_once(api, clock):
    api.faults.add(simulator.RowFault("overloaded", times=1))
    run = ask(frame_of(), api, clock, retries=1)
    other = Run.of(run.store, run.record, client=api.client(), clock=clock)
    run.wait()
    other.wait()
    assert other.options.retries == 1
    assert len(api.batches) == 2


@pytest.mark.parametrize("bad", [-1, 11, 1.5, "2", True])
def test_a_number_that_is_none_is_refused(api, clock, bad):
    with pytest.raises(InputError, match="retries"):
        ask(frame_of(), api, clock, retries=bad)


@contextmanager
def a_trial_asks_it_just_now(api: Any, clock: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While this is open the one row of `frame_of(1)` is asked live; it is answered when somebody waits for that."""
    is_asked, may_answer = threading.Event(), threading.Event()

    def answer(params: dict[str, Any]) -> str:
        is_asked.set()
        may_answer.wait(20)
        return "yes"

    def looked(*args: Any, **kwargs: Any) -> bool:
        may_answer.set()
        return settle(*args, **kwargs)

    settle = others_asking.settle_if_left
    monkeypatch.setattr(others_asking, "settle_if_left", looked)
    api.answer = answer
    trial = threading.Thread(target=lambda: tried(frame_of(1), api, clock, n=1), daemon=True)
    trial.start()
    assert is_asked.wait(20)
    yield
    may_answer.set()
    trial.join(20)


def test_rows_that_a_trial_is_asking_just_now_are_waited_for_and_not_posted(api, clock, monkeypatch):
    api.faults.add(simulator.RowFault("overloaded", asked="batch", times=1))
    run = ask(frame_of(1), api, clock).wait()
    record = replace(run.record, options={**run.record.options, "retries": 1})
    again = Run.of(run.store, record, client=api.client(), clock=clock)
    with a_trial_asks_it_just_now(api, clock, monkeypatch):
        told = retry_once(again)
    assert (told, again.result()["status"].tolist()) == ("", ["succeeded"])
    assert (len(api.batches), len(api.billed)) == (1, 1)


def test_a_budget_counts_every_batch_that_had_no_result_for_a_row(clock) -> None:
    """Rows that come back without a result, again and again, may have been billed each time: the budget holds."""
    with simulator.serve(clock=clock.time_s, answer="x " * 200) as api:
        for times in range(3):
            lost = simulator.BadResults("missing", n_rows=39 - times, times=4, skip=4 * times, polite=True)
            api.faults.add(lost)
        frame = frame_of(40)
        bound_usd = 2.1 * frame.claude_batch.estimate("prompt", max_tokens=100, client=api.client()).cost_usd_max
        run = ask(frame, api, clock, retries=3, max_cost_usd=bound_usd, max_tokens=100)
        with pytest.warns(UserWarning, match="were not asked again by themselves"):
            run.result()
        assert float(api.billed_usd) <= bound_usd
        assert api.calls("create") == 2


def test_a_run_whose_retries_were_refused_is_read_without_a_key(clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a budget refused is recorded: the run is home for whoever opens it, and failed rows can be asked again."""
    with simulator.serve(clock=clock.time_s) as api:
        api.faults.add(simulator.BadResults("missing", n_rows=6, times=4, polite=True))
        frame = frame_of(12)
        bound_usd = 1.0001 * frame.claude_batch.estimate("prompt", client=api.client()).cost_usd_max
        run = ask(frame, api, clock, retries=2, max_cost_usd=bound_usd)
        with pytest.warns(UserWarning, match="were not asked again by themselves"):
            run.result()
        assert run.engine is None or run.engine.join(20)
        driving._engines.clear()  # as in the next process
        monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
        opened = load(run.id, store=str(run.store.path))
        assert opened.status == "collected"
        assert opened.result()["status"].value_counts().to_dict() == {"succeeded": 6, "missing": 6}


def test_a_retry_waits_for_rows_that_a_trial_is_asking_just_now(api, clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """`retry_failed` asks no row that is being asked live: its answer is waited for, and paid once."""
    api.faults.add(simulator.RowFault("overloaded", asked="batch", times=1))
    run = ask(frame_of(1), api, clock).wait()
    with a_trial_asks_it_just_now(api, clock, monkeypatch):
        again = run.retry_failed()
    assert again.result()["status"].tolist() == ["succeeded"]
    assert (len(api.batches), len(api.billed)) == (1, 1)
