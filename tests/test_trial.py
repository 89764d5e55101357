"""``trial``: a few rows now, at the standard price; a submit of the same line does not pay them again."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rowlab import OUTCOMES, all_outcomes, ask, cut_on_purpose, plan_outcomes

import pandas_batch
from pandas_batch import simulator
from pandas_batch.clock import Clock
from pandas_batch.engine.asking import Asker
from pandas_batch.errors import BudgetError, InputError, UnreadableAnswerError, WaitTimeout
from pandas_batch.run.starting import parse
from pandas_batch.run.trial import MOST_ROWS, rows_to_try, trial_rows
from pandas_batch.simulator import models
from pandas_batch.store import Store

HAIKU = "claude-haiku-4-5-20251001"


def reviews(n: int = 10) -> pd.DataFrame:
    return pd.DataFrame({"prompt": [f"review {number}" for number in range(n)]}, index=[f"r{i}" for i in range(n)])


def tried(frame: pd.DataFrame, api: simulator.Simulator, clock: Clock, n: Any = 5, **options: Any) -> pd.DataFrame:
    """Return a trial of the test's clock."""
    given = {"client": api.client(max_retries=0), "progress": "off", **options}
    return trial_rows(frame, parse(given, "prompt"), n, clock=clock)


# -------------------------------------------------------------------- which rows


@given(n_rows=st.integers(0, 300), n=st.integers(1, MOST_ROWS))
def test_rows_are_spread_from_the_first_to_the_last(n_rows, n):
    rows = rows_to_try(pd.RangeIndex(n_rows), n)
    assert len(rows) == min(n, n_rows)
    assert (np.diff(rows) > 0).all()
    if n_rows and n > 1:
        assert (rows[0], rows[-1]) == (0, n_rows - 1)
        gaps = np.diff(rows)
        assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_labels_come_back_in_the_order_of_the_frame(api, clock):
    out = tried(reviews(), api, clock, n=["r7", "r2", "r7"])
    assert out.index.tolist() == ["r2", "r7"]
    assert out["output"].tolist() == ["review 2", "review 7"]
    assert len(api.messages) == 2


@pytest.mark.parametrize("n", [0, -1, 51, 10**9, True, 2.5, "r1", None, [], ["nobody"], [["r1"]], object()])
def test_a_number_or_labels_that_mean_no_rows_are_refused(api, clock, n):
    with pytest.raises(InputError) as caught:
        tried(reviews(), api, clock, n=n)
    assert caught.value.hint
    assert api.requests == []


def test_more_than_fifty_rows_of_a_label_are_refused(api, clock):
    frame = pd.DataFrame({"prompt": [f"p {i}" for i in range(60)]}, index=["same"] * 60)
    with pytest.raises(InputError, match="60 rows"):
        tried(frame, api, clock, n=["same"])


def test_more_rows_than_there_are_means_all(api, clock):
    assert len(tried(reviews(3), api, clock, n=50)) == 3
    assert len(tried(reviews(0), api, clock, n=5)) == 0


# -------------------------------------------------------------------- answers and money


def test_a_submit_of_the_same_line_does_not_pay_the_trial_again(api, clock):
    frame = reviews(20)
    out = tried(frame, api, clock, n=5)
    assert out["status"].tolist() == ["succeeded"] * 5
    assert out["output"].tolist() == [frame["prompt"][label] for label in out.index]
    run = ask(frame, api, clock)
    whole = run.result()
    assert whole["status"].tolist() == ["succeeded"] * 20
    assert [bill.is_live for bill in api.billed].count(True) == 5
    assert len(api.billed) == 20
    assert whole.loc[out.index, "cost_usd"].tolist() == out["cost_usd"].tolist()
    assert run.cost_usd == pytest.approx(float(api.billed_usd))
    assert run.paid_usd == pytest.approx(float(sum(bill.cost_usd for bill in api.billed if not bill.is_live)))


def test_the_cost_is_the_standard_price_and_equals_the_server_s_bill(api, clock):
    out = tried(reviews(), api, clock, columns="all")
    assert out["cost_usd"].sum() == pytest.approx(float(api.billed_usd), rel=1e-12)
    expected = (out["input_tokens"] + 5 * out["output_tokens"]) / 1e6
    assert out["cost_usd"].tolist() == pytest.approx(expected.tolist())
    assert out["batch_id"].isna().all()


def test_the_standard_price_holds_where_the_answer_does_not_tell_its_tier(api, clock):
    api.answer = lambda params: simulator.Reply("yes", usage={"service_tier": None})
    out = tried(reviews(), api, clock)
    expected = (out["input_tokens"] + 5 * out["output_tokens"]) / 1e6
    assert out["cost_usd"].tolist() == pytest.approx(expected.tolist())


def test_the_same_trial_again_asks_nothing(api, clock):
    first = tried(reviews(), api, clock)
    second = tried(reviews(), api, clock)
    pd.testing.assert_frame_equal(first, second)
    assert len(api.messages) == 5
    assert len(pandas_batch.runs()) == 1


def test_answers_of_batches_are_not_paid_again_by_a_trial(api, clock):
    ask(reviews(), api, clock).wait()
    out = tried(reviews(), api, clock, columns="all")
    assert (api.messages, out["reused"].tolist()) == ([], [True] * 5)
    assert out["batch_id"].notna().all()


def test_a_row_in_flight_in_a_batch_is_asked_live_once(api, clock):
    with clock.held():
        run = ask(reviews(), api, clock)
        run.wait_submitted()
        tried(reviews(), api, clock, n=3)
        tried(reviews(), api, clock, n=3)
        assert len(api.messages) == 3
    assert run.result()["status"].tolist() == ["succeeded"] * 10


@cut_on_purpose
def test_every_outcome_that_a_message_can_have(api, clock):
    plan_outcomes(api)
    frame = all_outcomes(1)
    out = tried(frame, api, clock, n=50)
    by_prompt = dict(zip(OUTCOMES, out["status"].tolist(), strict=False))
    assert by_prompt == {
        **dict.fromkeys(OUTCOMES, "succeeded"),
        "errored": "errored",
        "overloaded": "errored",
    }
    assert out["status"].tolist()[-3:] == ["skipped", "skipped", "succeeded"]
    assert out["error"].iloc[1].startswith("invalid_request_error: ")
    assert out["error"].iloc[2].startswith("overloaded_error: ")
    assert out["cost_usd"].sum() == pytest.approx(float(api.billed_usd))
    # What the API refused is asked again by the next trial, what it answered is not.
    n_before = len(api.messages)
    api.faults.clear()
    again = tried(frame, api, clock, n=50)
    assert len(api.messages) == n_before + 2
    assert again["status"].tolist()[:8] == ["succeeded"] * 8


def test_a_failure_of_the_trial_is_sent_by_the_submit(api, clock):
    api.faults.add(simulator.RowFault("errored", asked="live", marker="review 0"))
    assert tried(reviews(), api, clock, n=2)["status"].tolist() == ["errored", "succeeded"]
    assert ask(reviews(), api, clock).result()["status"].tolist() == ["succeeded"] * 10
    assert len(api.billed) == 10


def test_a_schema_makes_the_columns_of_a_trial_too(api, clock):
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
    out = tried(reviews(), api, clock, output_schema=schema)
    assert set(out["mood"]) <= {"good", "bad"}


def test_samples_and_equal_rows_are_those_of_a_submit(api, clock):
    frame = pd.DataFrame({"prompt": ["a", "b", "a"]})
    out = tried(frame, api, clock, n=3, samples=2)
    assert [len(texts) for texts in out["output"]] == [2, 2, 2]
    assert len(api.messages) == 4
    ask(frame, api, clock, samples=2).wait()
    assert api.calls("create") == 0


def test_options_per_row_are_those_of_the_whole_frame(api, clock):
    frame = reviews()
    tried(frame, api, clock, system=lambda df: df["prompt"].str.len().astype(str) + f" of {len(frame)}")
    assert all(one.params["system"].endswith("of 10") for one in api.messages)


def test_an_async_client_does_too(api, clock):
    out = tried(reviews(), api, clock, client=api.async_client(max_retries=0))
    assert out["status"].tolist() == ["succeeded"] * 5

    async def in_a_loop() -> pd.DataFrame:
        return tried(reviews(), api, clock, n=2, client=api.async_client(max_retries=0), system="loop")

    assert asyncio.run(in_a_loop())["status"].tolist() == ["succeeded"] * 2


def test_a_series_has_trials_too(api):
    out = reviews()["prompt"].claude_batch.trial(n=2, client=api.client(), progress="off")
    assert out["output"].tolist() == ["review 0", "review 9"]


def test_columns_that_others_wrote_are_refused_before_anything_is_asked(api, clock):
    with pytest.raises(InputError, match="output"):
        tried(reviews().assign(output="mine"), api, clock)
    assert api.messages == []


# -------------------------------------------------------------------- budget and offers


def test_a_budget_holds_against_the_standard_price(api, clock, monkeypatch):
    estimate = reviews().claude_batch.estimate("prompt", client=api.client(), max_tokens=1000)
    assert estimate.cost_usd_max is not None
    between_usd = estimate.cost_usd_max / 10 * 5 * 1.5
    with pytest.raises(BudgetError):
        tried(reviews(), api, clock, max_tokens=1000, max_cost_usd=between_usd)
    monkeypatch.setenv("PANDAS_BATCH_MAX_COST_USD", str(between_usd))
    with pytest.raises(BudgetError, match="PANDAS_BATCH_MAX_COST_USD"):
        tried(reviews(), api, clock, max_tokens=1000)
    assert api.messages == []
    monkeypatch.setenv("PANDAS_BATCH_MAX_COST_USD", str(between_usd * 1.5))
    assert len(tried(reviews(), api, clock, max_tokens=1000)) == 5


def test_a_budget_without_a_price_is_refused_and_no_budget_gives_no_cost(api, clock, monkeypatch):
    monkeypatch.setitem(models.MODELS, "mine", replace(models.MODELS[HAIKU], id="mine"))
    with pytest.raises(BudgetError, match="no price"):
        tried(reviews(), api, clock, model="mine", max_cost_usd=1.0)
    assert api.messages == []
    with pytest.warns(UserWarning, match="No price is known"):
        assert tried(reviews(), api, clock, model="mine")["cost_usd"].isna().all()


def test_a_model_that_only_batches_is_told_of_in_words(api, clock, monkeypatch):
    monkeypatch.setitem(models.MODELS, HAIKU, replace(models.MODELS[HAIKU], live=False))
    with pytest.raises(InputError, match="does not answer through the Messages API") as caught:
        tried(reviews(), api, clock)
    assert "submit" in caught.value.hint
    assert api.billed == []
    assert ask(reviews(), api, clock).result()["status"].tolist() == ["succeeded"] * 10


def test_a_server_without_messages_is_told_of_in_words(api, clock):
    api.faults.add(simulator.ErrorAnswer("messages", 404, body="<h1>no such page</h1>", times=None))
    with pytest.raises(InputError, match="does not offer the Messages API"):
        tried(reviews(), api, clock)


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_key_stops_the_trial_with_the_api_s_own_error(api, clock, status):
    api.faults.add(simulator.ErrorAnswer("messages", status, times=None))
    with pytest.raises(anthropic.APIStatusError) as caught:
        tried(reviews(50), api, clock, n=50)
    assert caught.value.status_code == status
    assert any("no other row was asked" in note for note in caught.value.__notes__)
    assert api.calls("messages") <= 16


def test_a_portal_is_no_answer(api, clock):
    api.faults.add(simulator.LostAnswer("html", endpoint="messages", committed=False, times=None))
    with pytest.raises(UnreadableAnswerError):
        tried(reviews(), api, clock)


# -------------------------------------------------------------------- rate limits and losses


def test_a_rate_limit_is_obeyed_with_its_pause(api, clock):
    fault = api.faults.add(simulator.ErrorAnswer("messages", 429, retry_after="17", times=3))
    out = tried(reviews(), api, clock)
    assert out["status"].tolist() == ["succeeded"] * 5
    assert fault.hits == 3
    assert sum(clock.waited_s) >= 17


def test_why_nothing_moves_is_told_now_and_then(api, clock, capsys):
    api.faults.add(simulator.ErrorAnswer("messages", 529, times=4))
    api.faults.add(simulator.ErrorAnswer("messages", 429, retry_after="17", skip=4, times=3))
    tried(reviews(), api, clock, progress="auto")
    told = [line for line in capsys.readouterr().err.splitlines() if "trying again" in line]
    assert told
    assert len(told) <= 1 + sum(clock.waited_s) / 10
    assert told[0].startswith("trial: The API is overloaded or has an internal error; trying again in ")


def test_an_overloaded_api_is_asked_again_and_nothing_is_paid_twice(api, clock):
    api.faults.add(simulator.ErrorAnswer("messages", 529, times=4))
    api.faults.add(simulator.ErrorAnswer("messages", 500, times=2))
    assert tried(reviews(), api, clock)["status"].tolist() == ["succeeded"] * 5
    assert len(api.billed) == 5


@pytest.mark.parametrize("how", ["reset", "close", "cut"])
def test_a_lost_answer_is_asked_once_more(api, clock, how):
    api.faults.add(simulator.LostAnswer(how, endpoint="messages"))
    with pytest.warns(UserWarning, match="1 row was lost on its way once.*may have been billed twice"):
        out = tried(reviews(), api, clock)
    assert out["status"].tolist() == ["succeeded"] * 5
    assert len(api.billed) == 6


def test_an_answer_lost_twice_is_told_and_its_cost_is_not_known(api, clock):
    api.faults.add(simulator.LostAnswer("reset", endpoint="messages", times=None))
    with pytest.warns(UserWarning, match="may have been billed"):
        out = tried(reviews(), api, clock, n=1)
    assert (out["status"].tolist(), out["cost_usd"].isna().tolist()) == (["missing"], [True])
    assert len(api.messages) == 2


def test_a_server_that_cannot_be_reached_stops_in_words_and_the_trial_can_go_on(api, clock):
    with api.unreachable(), pytest.raises(anthropic.APIConnectionError):
        tried(reviews(), api, clock)
    # Nothing was sent, but that is not known of what was about to be.
    assert tried(reviews(), api, clock)["status"].tolist() == ["succeeded"] * 5


# -------------------------------------------------------------------- interrupted, twice at once


@pytest.fixture
def held(api: simulator.Simulator) -> Iterator[threading.Event]:
    """The answers to rows 5 and on wait for this."""
    go_on = threading.Event()

    def answer(params: dict[str, Any]) -> str:
        text = str(params["messages"][0]["content"])
        if int(text.rsplit(" ", 1)[1]) >= 5:
            go_on.wait(20)
        return text

    api.answer = answer
    yield go_on
    go_on.set()


def test_an_interrupted_trial_keeps_what_came_and_asks_nothing_more(api, clock, held):
    def wait(self: Asker, timeout_s: float) -> bool:
        while self.n_done < 5:
            self.future.done()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Asker, "wait", wait)
        with pytest.raises(KeyboardInterrupt) as caught:
            tried(reviews(50), api, clock, n=50)
    assert "nothing more is asked" in caught.value.__notes__[0]
    n_asked = len(api.messages)
    assert n_asked < 30
    held.set()
    again = tried(reviews(50), api, clock, n=50)
    assert again["status"].tolist() == ["succeeded"] * 50
    # What was under way was waited for: no row was asked twice.
    assert len(api.messages) == 50


def test_a_timeout_carries_the_run_and_what_came_later_is_kept(api, held):
    frame = reviews(6)
    with pytest.raises(WaitTimeout) as caught:
        frame.claude_batch.trial("prompt", n=6, client=api.client(), progress="off", timeout=0.3)
    held.set()
    out = frame.claude_batch.trial("prompt", n=6, client=api.client(), progress="off")
    assert out["status"].tolist() == ["succeeded"] * 6
    assert len(api.messages) == 6
    assert caught.value.run.id


def test_two_trials_at_once_ask_no_row_twice(api, held):
    frame, outs = reviews(10), []

    def one() -> None:
        outs.append(frame.claude_batch.trial("prompt", n=10, client=api.client(), progress="off"))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(api.messages) < 5:
        pass
    held.set()
    for thread in threads:
        thread.join()
    assert [out["status"].tolist() for out in outs] == [["succeeded"] * 10] * 3
    assert len(api.messages) == len(api.billed) == 10


def test_a_submit_waits_for_rows_that_are_being_tried(api, held):
    frame = reviews(10)
    trial = threading.Thread(
        target=lambda: frame.claude_batch.trial("prompt", n=10, client=api.client(), progress="off")
    )
    trial.start()
    while len(api.messages) < 5:
        pass
    timer = threading.Timer(0.3, held.set)
    timer.start()
    out = frame.claude_batch.submit("prompt", client=api.client(), progress="off", preflight=False)
    trial.join()
    timer.join()
    assert out["status"].tolist() == ["succeeded"] * 10
    assert (len(api.billed), api.calls("create")) == (10, 0)


# -------------------------------------------------------------------- what is told


def test_the_price_is_told_before_and_the_account_after(api, clock, capsys):
    tried(reviews(100), api, clock, progress="auto")
    told = capsys.readouterr().err
    assert "Asking 5 requests now, through the Messages API at the standard price: at most $" in told
    assert "5 of 5 rows answered" in told
    assert "All 100 rows in a batch, at this length: $" in told


def test_what_all_rows_would_cost_is_what_they_then_cost(api, clock, capsys):
    frame = pd.DataFrame({"prompt": [f"review {number:04d}" for number in range(200)]})
    tried(frame, api, clock, progress="auto")
    told = capsys.readouterr().err
    run = ask(frame.assign(prompt=frame["prompt"] + "x"), api, clock)
    run.wait()
    expected_usd = float(told.split("at this length: $")[1].split(",")[0])
    assert expected_usd == pytest.approx(run.cost_usd, rel=0.1)


def test_nothing_is_told_where_progress_is_off(api, clock, capsys):
    tried(reviews(), api, clock)
    assert capsys.readouterr() == ("", "")


def test_a_trial_is_a_run_without_a_name(api, clock):
    run = ask(reviews(), api, clock, name="mine")
    run.wait()
    tried(reviews(), api, clock, name="mine", system="another")
    assert pandas_batch.load("mine").id == run.id
    assert pandas_batch.runs()["rows"].tolist() == [5, 10]


def test_the_files_of_a_trial_are_private_and_go_with_its_run(api, clock):
    tried(reviews(), api, clock)
    store = Store.find()
    assert store is not None

    def files_now() -> list[Path]:
        return [path for path in (store.path / "batches").rglob("*") if path.is_file()]

    until_s = time.monotonic() + 20
    while any(path.name.startswith("live.") for path in files_now()) and time.monotonic() < until_s:
        time.sleep(0.002)
    files = files_now()
    assert files
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600} or os.name == "nt"
    assert not [path for path in files if path.name.startswith("live.")]
    pandas_batch.load(pandas_batch.runs().index[0]).delete()
    assert not [path for path in (store.path / "batches").rglob("*") if path.is_file()]
