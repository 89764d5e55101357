"""From a call to a run: what is refused before anything is sent, what it costs to come back, whose answer is whose."""

from __future__ import annotations

from typing import Any, Literal

import anthropic
import pandas as pd
import pytest
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes

import pandas_batch
from pandas_batch import BudgetError, InputError, simulator
from pandas_batch.simulator.faults import ErrorAnswer

from .conftest import FakeClock

REVIEWS = pd.DataFrame({"prompt": [f"Review {i}: it works." for i in range(10)]})


def nothing_was_sent(api: simulator.Simulator) -> bool:
    """Return whether no batch was made, and no run written down that would make one later."""
    return api.calls("create") == 0 and pandas_batch.runs().empty


# ---------------------------------------------------------------- the budget


def test_a_budget_stops_before_anything_is_sent(api: simulator.Simulator, clock: FakeClock) -> None:
    """The upper bound is what counts: a bill that may be higher than `max_cost_usd` is not begun."""
    bound = REVIEWS.claude_batch.estimate("prompt", client=api.client()).cost_usd_max
    assert bound is not None
    with pytest.raises(BudgetError, match=r"above max_cost_usd="):
        ask(REVIEWS, api, clock, max_cost_usd=bound * 0.99)
    assert nothing_was_sent(api)
    run = ask(REVIEWS, api, clock, max_cost_usd=bound).wait()
    assert run.cost_usd is not None
    assert run.cost_usd <= bound


def test_the_budget_may_come_from_the_environment(
    api: simulator.Simulator, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`PANDAS_BATCH_MAX_COST_USD` holds for every call that gives none of its own; what is no amount is refused."""
    monkeypatch.setenv("PANDAS_BATCH_MAX_COST_USD", "0.001")
    with pytest.raises(BudgetError, match=r"above the environment's PANDAS_BATCH_MAX_COST_USD=0\.001"):
        ask(REVIEWS, api, clock)
    monkeypatch.setenv("PANDAS_BATCH_MAX_COST_USD", "much")
    with pytest.raises(InputError, match="PANDAS_BATCH_MAX_COST_USD"):
        ask(REVIEWS, api, clock)
    assert nothing_was_sent(api)
    monkeypatch.setenv("PANDAS_BATCH_MAX_COST_USD", "0.001")
    assert ask(REVIEWS, api, clock, max_cost_usd=5.0).wait().counts == {"succeeded": 10}
    # What is paid already needs no budget.
    assert ask(REVIEWS, api, clock).wait().counts == {"succeeded": 10}


def test_a_budget_covers_all_batches_of_a_run(
    api: simulator.Simulator, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that go out in several batches have one bill, and one budget."""
    for room in ("run.recording", "engine.posting", "run.retrying"):
        monkeypatch.setattr(f"pandas_batch.{room}.MAX_BATCH_REQUESTS", 3, raising=False)
    estimate = REVIEWS.claude_batch.estimate("prompt", client=api.client())
    assert estimate.batches == 4
    assert estimate.cost_usd_max is not None
    with pytest.raises(BudgetError):
        ask(REVIEWS, api, clock, max_cost_usd=estimate.cost_usd_max / 2)
    assert nothing_was_sent(api)


@pytest.mark.parametrize(
    ("column", "options", "why"),
    [
        ({}, {"model": "claude-nobody-knows"}, r"no price is known for claude-nobody-knows"),
        ({"photo": "https://example.com/a.png"}, {"images_col": "photo"}, "cannot be bounded"),
    ],
    ids=["price", "URL"],
)
def test_a_budget_stops_what_has_no_bound(
    api: simulator.Simulator, clock: FakeClock, column: dict[str, str], options: dict[str, Any], why: str
) -> None:
    """Where the price or the size of the input is not known there is no bound, and nothing is sent on a guess."""
    with pytest.raises(BudgetError, match=why):
        ask(REVIEWS.assign(**column), api, clock, max_cost_usd=100.0, **options)
    assert nothing_was_sent(api)


# ---------------------------------------------------------------- preflight


@pytest.mark.parametrize("budget", [{}, {"max_cost_usd": 1.0}], ids=["no budget", "budget"])
def test_a_misspelt_model_is_named_as_such(api: simulator.Simulator, clock: FakeClock, budget: dict[str, Any]) -> None:
    """With a budget too, where its price is not known either: the name is what is wrong."""
    with pytest.raises(InputError, match=r"claude-haiku-45") as raised:
        ask(REVIEWS, api, clock, model="claude-haiku-45", preflight=True, **budget)
    assert not isinstance(raised.value, BudgetError)
    assert "claude-haiku-4-5" in raised.value.hint
    assert nothing_was_sent(api)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_tokens": 100_000}, InputError, "above the limit of claude-haiku"),
        ({"model": "claude-mythos-preview"}, InputError, "was retired on 2026-06-30"),
        (
            {"model": "claude-opus-5-5", "max_tokens": 4096, "thinking": {"type": "enabled", "budget_tokens": 2048}},
            anthropic.BadRequestError,
            "thinking",
        ),
    ],
    ids=["max_tokens", "retired", "malformed"],
)
def test_what_would_fail_every_row_stops_the_call(
    api: simulator.Simulator, clock: FakeClock, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """A limit, a retired model, a malformed parameter: found in a second, before a batch is waited for."""
    with pytest.raises(error, match=words):
        ask(REVIEWS, api, clock, preflight=True, **options)
    assert nothing_was_sent(api)


def test_one_row_of_each_kind_is_looked_at(api: simulator.Simulator, clock: FakeClock) -> None:
    """Where options differ by row, the one wrong row among them is found."""
    limits = pd.Series([64] * 9 + [99_999])
    with pytest.raises(InputError, match=r"max_tokens=99999 .* \(in 1 rows?\)"):
        ask(REVIEWS, api, clock, preflight=True, max_tokens=limits)
    assert nothing_was_sent(api)


def test_a_finished_run_asks_nothing(api: simulator.Simulator, clock: FakeClock) -> None:
    """The same line again is not checked, not counted, not estimated: the server hears nothing."""
    first = ask(REVIEWS, api, clock, preflight=True, max_cost_usd=1.0)
    out = first.result()
    assert first.engine is None or first.engine.join(20)
    n_requests = len(api.requests)
    api.faults.add(ErrorAnswer("*", 500, times=None))
    pd.testing.assert_frame_equal(ask(REVIEWS, api, clock, preflight=True, max_cost_usd=1.0).result(), out)
    assert len(api.requests) == n_requests


# ---------------------------------------------------------------- columns


def test_fields_of_a_schema_may_not_take_our_names(api: simulator.Simulator, clock: FakeClock) -> None:
    """A field called like a column of ours is refused, naming `schema_prefix=`, which then helps."""
    schema = {"status": Literal["new", "used"], "price": float}
    with pytest.raises(InputError, match=r"'status'") as raised:
        ask(REVIEWS, api, clock, output_schema=schema)
    assert raised.value.hint == 'schema_prefix="answer_"'
    assert nothing_was_sent(api)
    out = ask(REVIEWS, api, clock, output_schema=schema, schema_prefix="answer_").result()
    assert set(out["answer_status"].dropna()) <= {"new", "used"}
    assert set(out["status"]) == {"succeeded"}


def test_columns_of_the_user_are_not_written_over(api: simulator.Simulator, clock: FakeClock) -> None:
    """Typed columns clash like all others; the same run's own columns do not."""
    schema = {"price": float}
    with pytest.raises(InputError, match="'price'"):
        ask(REVIEWS.assign(price=1.0), api, clock, output_schema=schema)
    assert nothing_was_sent(api)
    out = ask(REVIEWS, api, clock, output_schema=schema).result()
    pd.testing.assert_frame_equal(ask(out, api, clock, output_schema=schema).result(), out)
    assert api.calls("create") == 1


# ---------------------------------------------------------------- coming back


def test_coming_back_to_failures_says_how_to_retry(
    api: simulator.Simulator, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same line over a run with failed rows prints their number and the line that asks again; else nothing."""
    plan_outcomes(api)
    frame = all_outcomes()
    first = ask(frame, api, clock).wait()
    assert capsys.readouterr().err == ""
    ask(frame, api, clock)
    told = capsys.readouterr().err
    assert f"Run {first.id} was made before; 8 of its 19 rows failed." in told
    assert f'pandas_batch.load("{first.id}").retry_failed()' in told


def test_attach_asks_for_what_is_not_remembered(api: simulator.Simulator, clock: FakeClock) -> None:
    """A Series, a callable or a class is given again by name; plain options are remembered with the run."""
    system = pd.Series([f"Rule {i % 2}" for i in range(10)])
    run = ask(REVIEWS, api, clock, system=system, output_schema={"n": int}, prefix="a_", name="by row")
    out = run.result()
    with pytest.raises(InputError, match=r"output_schema, system as a callable, Series or class"):
        REVIEWS.claude_batch.attach("by row", client=api.client())
    some = REVIEWS.iloc[[7, 2]]
    again = some.claude_batch.attach("by row", client=api.client(), system=system, output_schema={"n": int})
    pd.testing.assert_frame_equal(again.result(), out.iloc[[7, 2]])
    # Another rule for a row is another request: the run never held it.
    other = some.claude_batch.attach(
        "by row", client=api.client(), system=system.replace("Rule 0", "Rule 3"), output_schema={"n": int}
    )
    assert other.result()["a_status"].tolist() == ["succeeded", "unsent"]


@cut_on_purpose
def test_merge_brings_every_outcome_to_its_row(api: simulator.Simulator, clock: FakeClock) -> None:
    """A frame in another order, with rows of its own, gets each answer where it belongs; what is new is ``unsent``."""
    plan_outcomes(api)
    frame = all_outcomes()
    run = ask(frame, api, clock)
    out = run.result()
    mixed = frame.iloc[::-1]
    # Rows that share a request carry its cost once, on the first of them; none of that is compared here.
    columns = ["n", "prompt", "output", "status", "error"]
    pd.testing.assert_frame_equal(mixed.claude_batch.merge(run)[columns], out.iloc[::-1][columns])
    longer = pd.concat([mixed, pd.DataFrame({"n": [99], "prompt": ["new"]}, index=["new"])])
    assert longer.claude_batch.merge(run)["status"].tolist() == [*out["status"].tolist()[::-1], "unsent"]
    assert api.calls("create") == 1


def test_tolerances_reach_the_comparison(api: simulator.Simulator, clock: FakeClock) -> None:
    """`compare_runs` takes what the metric may fall by and how many more rows may fail, from the package's front."""
    a = ask(REVIEWS, api, clock, name="a").wait()
    api.faults.add(simulator.RowFault("errored", marker="Review 3"))
    b = ask(REVIEWS, api, clock, system="Another.", name="b").wait()

    def share(frame: pd.DataFrame) -> float:
        return float((frame["status"] == "succeeded").mean())

    assert len(pandas_batch.compare_runs("a", "b", metric=share).reasons) == 2
    assert len(pandas_batch.compare_runs(a, b, metric=share, max_metric_drop=0.1).reasons) == 1
    assert pandas_batch.compare_runs(a, b, metric=share, max_metric_drop=0.1, max_more_failures=1).ok


def test_a_name_that_another_prompt_has_is_said_before_anything_is_sent(api, clock):
    """Another system under the same name is told of; other rows, the same line, or nothing to send are not."""
    frame = pd.DataFrame({"prompt": ["a", "b"]})
    ask(frame, api, clock, name="nightly", system="one").result()
    ask(frame, api, clock, name="nightly", system="one").result()
    ask(pd.DataFrame({"prompt": ["c"]}), api, clock, name="nightly", system="one").result()
    with pytest.warns(UserWarning, match="'nightly' is that of run .* another system:") as told:
        ask(frame, api, clock, name="nightly", system="two").result()
    assert len(told) == 1
    with pytest.raises(UserWarning):
        ask(frame, api, clock, name="nightly", system="three")
    assert api.calls("create") == 3
