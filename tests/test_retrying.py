"""A retry with other parameters sends, and is known by, exactly what a submit with these parameters would send."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import datetime
from typing import Any, Literal

import pandas as pd
import pytest
from retry_lab import CASES, TEXTS, ZEAL_FIRST, Verdict, failed_run, settled
from rowlab import ask, lose_rows

import pandas_batch
from pandas_batch import BudgetError, InputError, UnknownOptionError
from pandas_batch.simulator import Reply
from pandas_batch.simulator.faults import RowFault


@pytest.mark.parametrize("changed", [{"max_tokens": 77}, {"system": "Be long."}, {"model": "claude-opus-4-8"}], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_a_submit_takes_the_answers_of_a_retry_with_the_same_changes(
    api: Any, clock: Any, case: str, changed: dict[str, Any]
) -> None:
    """Whatever the rows hold, what a changed retry has bought is not bought again by a submit of the same options."""
    frame, options = CASES[case]
    failed = failed_run(frame, api, clock, **options)
    retry = settled(failed.retry_failed(**changed))
    n_posted = api.calls("create")
    again = settled(ask(frame, api, clock, **(options | changed)))
    assert api.calls("create") == n_posted
    assert again.id != retry.id
    pd.testing.assert_frame_equal(again.result(), retry.result())


@pytest.mark.parametrize("changed", [{"max_tokens": 77}, {"system": "Be long."}, {"output_config": {"effort": "high"}}])
@pytest.mark.parametrize("case", CASES)
def test_a_changed_retry_sends_what_a_submit_would_send(
    api: Any, clock: Any, case: str, changed: dict[str, Any]
) -> None:
    """The requests are the same to the byte: a schema stays in them, with its fields in their order."""
    frame, options = CASES[case]
    failed = failed_run(frame, api, clock, **options)
    asked: list[str] = []
    api.answer = lambda params: asked.append(json.dumps(params)) or "noted"
    settled(failed.retry_failed(**changed))
    by_retry = sorted(asked)
    asked.clear()
    settled(ask(frame, api, clock, reuse=False, name="by submit", **(options | changed)))
    assert sorted(asked) == by_retry != []


def test_a_parameter_that_is_none_is_left_out(api: Any, clock: Any) -> None:
    """None takes a parameter away, as it does in a submit."""
    failed = failed_run(TEXTS, api, clock, system="Be brief.", stop_sequences=["END"])
    asked: list[dict[str, Any]] = []
    api.answer = lambda params: asked.append(params) or "noted"
    settled(failed.retry_failed(system=None, stop_sequences=None))
    assert asked
    assert all(params.keys() == {"model", "max_tokens", "messages"} for params in asked)


def test_a_retry_takes_what_another_run_has_bought(api: Any, clock: Any) -> None:
    """Rows that were answered elsewhere since are not paid again, with changes or without."""
    failed = failed_run(TEXTS, api, clock)
    settled(ask(TEXTS.iloc[:1], api, clock))
    settled(ask(TEXTS.iloc[1:2], api, clock, max_tokens=77))
    assert settled(failed.retry_failed()).record.n_reused == 1
    assert api.batches[0].n_requests == 2
    other = failed_run(TEXTS, api, clock, name="other", max_tokens=78)
    retry = settled(other.retry_failed(max_tokens=77))
    assert api.batches[0].n_requests == 2
    assert retry.result()["status"].eq("succeeded").all()
    assert retry.paid_usd < retry.cost_usd


@pytest.mark.parametrize(
    ("kind", "is_worth_it"),
    [
        ("api_error", True),
        ("overloaded_error", True),
        ("rate_limit_error", True),
        ("timeout_error", True),
        ("invalid_request_error", False),
        ("permission_error", False),
    ],
)
def test_only_errors_that_pass_are_asked_again(api: Any, clock: Any, kind: str, is_worth_it: bool) -> None:
    """What failed by the server's fault is worth the same request again; what the request is to blame for is not."""
    api.answer = lambda params: Reply(error=(kind, "no"))
    failed = settled(ask(TEXTS, api, clock))
    assert failed.result()["error"].tolist() == [f"{kind}: no"] * 3
    api.answer = None
    words = nullcontext() if is_worth_it else pytest.warns(UserWarning, match="3 rows failed, and would probably fail")
    with words:
        assert set(settled(failed.retry_failed()).result()["status"]) == {"succeeded" if is_worth_it else "errored"}
    words = pytest.warns(UserWarning, match="no row failed") if is_worth_it else nullcontext()
    with words:
        assert set(settled(failed.retry_failed(errors="all")).result()["status"]) == {"succeeded"}
    assert len(api.batches) == 2


def test_rows_without_an_answer_are_asked_again(api: Any, clock: Any) -> None:
    """A row that the server never answered for is worth asking again, and it alone is."""
    lose_rows(api, 1)
    lost = settled(ask(TEXTS, api, clock))
    assert sorted(lost.result()["status"]) == ["missing", "succeeded", "succeeded"]
    api.faults.clear()
    assert set(settled(lost.retry_failed()).result()["status"]) == {"succeeded"}
    assert api.batches[0].n_requests == 1


def test_a_cut_answer_is_asked_again_with_all(api: Any, clock: Any) -> None:
    """`errors="all"` asks for a cut answer anew, and does not take it for one that is there already."""
    api.faults.add(RowFault("truncated", share=1.0))
    cut = settled(ask(TEXTS, api, clock))
    api.faults.clear()
    again = settled(cut.retry_failed(errors="all"))
    assert set(cut.result()["stop_reason"]) == {"max_tokens"}
    assert set(again.result()["stop_reason"]) == {"end_turn"}


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        ({"max_token": 77}, UnknownOptionError, "did you mean max_tokens=?"),
        ({"prompt_col": "other"}, InputError, "cannot change prompt_col=: it sends the same prompts again"),
        ({"progress": "off"}, InputError, "df.claude_batch.attach(run.id, progress=...).retry_failed()"),
        ({"output_schema": {"a": str}}, InputError, "cannot change output_schema="),
        ({"temperature": 0.5}, UnknownOptionError, "temperature= is gone"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, InputError, "both say what the answer"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_a_retry_cannot_change_is_refused(
    api: Any, clock: Any, overrides: dict[str, Any], error: type[Exception], said: str
) -> None:
    """A name or a value that would have every row refused is told before anything is sent."""
    failed = failed_run(TEXTS, api, clock, output_schema=ZEAL_FIRST)
    n_posted = api.calls("create")
    with pytest.raises(error) as told:
        failed.retry_failed(**overrides)
    assert said in str(told.value)
    assert api.calls("create") == n_posted


def test_a_run_of_a_json_schema_is_found_by_the_options_it_remembers(api: Any, clock: Any) -> None:
    """The order in which a schema names its fields is remembered: `attach` finds every row, `load` keeps the order."""
    run = settled(ask(TEXTS, api, clock, output_schema=ZEAL_FIRST, name="zeal first"))
    attached = TEXTS.claude_batch.attach("zeal first", client=api.client(), progress="off")
    pd.testing.assert_frame_equal(attached.result(), run.result())
    loaded = pandas_batch.load("zeal first")
    pd.testing.assert_frame_equal(loaded.result(), run.result().drop(columns="prompt"))


@pytest.mark.parametrize("schema", [Verdict, {"zeal": Literal["high", "low"], "when": datetime, "n": int}])
def test_a_loaded_run_has_the_columns_of_its_schema_class(api: Any, clock: Any, schema: Any) -> None:
    """The class itself is not remembered, the JSON schema that was made of it is: the same columns, the same dtypes."""
    run = settled(ask(TEXTS, api, clock, output_schema=schema, name="class"))
    loaded = pandas_batch.load("class")
    pd.testing.assert_frame_equal(loaded.result(), run.result().drop(columns="prompt"))
    pd.testing.assert_frame_equal(TEXTS.claude_batch.merge(loaded, client=api.client()), run.result())


ABOVE = r"This may cost \$0\.0[2-9]\d*, above (?:max_cost_usd|the environment's PANDAS_BATCH_MAX_COST_USD)=0\.01 "


def test_a_retry_keeps_to_the_budget_of_its_run(api: Any, clock: Any) -> None:
    """What a retry could cost is held against the budget before anything is recorded; a higher one lets it go."""
    failed = failed_run(TEXTS, api, clock, max_cost_usd=0.01, max_tokens=16)
    n_posted, n_runs = api.calls("create"), len(failed.store.runs.all())
    with pytest.raises(BudgetError, match=ABOVE) as told:
        failed.retry_failed(max_tokens=4096)
    assert "Nothing was sent, nothing was billed." in str(told.value)
    loaded = pandas_batch.load(failed.id, store=str(failed.store.path), client=api.client())
    with pytest.raises(BudgetError, match=ABOVE):
        loaded.retry_failed(max_tokens=4096)
    with pytest.raises(BudgetError, match="no price is known for claude-unknown"):
        failed.retry_failed(model="claude-unknown")
    with pytest.raises(InputError, match="max_cost_usd is -1"):
        failed.retry_failed(max_cost_usd=-1)
    assert (api.calls("create"), len(failed.store.runs.all())) == (n_posted, n_runs)
    again = settled(failed.retry_failed(max_tokens=4096, max_cost_usd=0.10))
    assert again.counts == {"succeeded": 3}
    assert 0 < again.paid_usd < 0.10


def test_a_retry_within_the_budget_asks_for_no_other(api: Any, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that a budget has let through once are let through again; the environment's counts where none was given."""
    monkeypatch.setenv("PANDAS_BATCH_MAX_COST_USD", "0.01")
    failed = failed_run(TEXTS, api, clock, max_tokens=16)
    with pytest.raises(BudgetError, match=ABOVE):
        failed.retry_failed(max_tokens=4096)
    assert settled(failed.retry_failed()).counts == {"succeeded": 3}


def test_a_budget_set_after_the_run_is_named_as_the_environments(api: Any, clock: Any, monkeypatch: Any) -> None:
    """A retry without max_cost_usd names the variable that refuses it; with one, that option."""
    failed = failed_run(TEXTS, api, clock, max_tokens=16)
    monkeypatch.setenv("PANDAS_BATCH_MAX_COST_USD", "0.01")
    with pytest.raises(BudgetError, match=r"above the environment's PANDAS_BATCH_MAX_COST_USD=0\.01 "):
        failed.retry_failed(max_tokens=4096)
    with pytest.raises(BudgetError, match=r"above max_cost_usd=0\.01 "):
        failed.retry_failed(max_tokens=4096, max_cost_usd=0.01)
