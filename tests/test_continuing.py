"""Answers that pause (``pause_turn``): a retry lets them go on, and their parts are read as one answer."""

from __future__ import annotations

import warnings
from typing import Any

import anthropic
import pandas as pd
import pytest
from rowlab import ask, cut_on_purpose

from pandas_batch import simulator
from pandas_batch.run.library import load
from pandas_batch.run.run import Run

pytestmark = cut_on_purpose

COLUMNS = ["output", "status", "tokens", "cost_usd", "error", "stop_reason", "batch_id", "content"]
SEARCH = [{"type": "web_search_20250305", "name": "web_search"}]


class Pausing:
    """Answers in parts: each pauses after a search, until the last."""

    def __init__(self, n_parts: int = 2) -> None:
        self.n_parts = n_parts
        self.asked: list[dict[str, Any]] = []

    def __call__(self, params: dict[str, Any]) -> simulator.Reply:
        self.asked.append(params)
        prompt, *later = params["messages"]
        said = later[-1]["content"] if later else []
        n_before = sum(block["type"] == "server_tool_use" for block in said)
        text = {"type": "text", "text": f"{prompt['content']} part {n_before}. ", "citations": None}
        if n_before + 1 == self.n_parts or not prompt["content"].startswith("slow"):
            return simulator.Reply(content=[text])
        call = {"type": "server_tool_use", "id": f"srvtoolu_{n_before}", "name": "web_search", "input": {"query": "q"}}
        return simulator.Reply(content=[text, call], stop_reason="pause_turn")


FRAME = pd.DataFrame({"prompt": ["slow a", "quick b", "slow c", "quick d"]}, index=list("abcd"))


def paused(api: simulator.Simulator, clock: Any, *, n_parts: int = 2, **options: Any) -> tuple[Run, Pausing]:
    """Return a run of which half of the answers have paused."""
    api.answer = answer = Pausing(n_parts)
    run = ask(FRAME, api, clock, columns=COLUMNS, **{"tools": SEARCH, **options})
    run.wait()
    return run, answer


def test_a_paused_answer_says_so_and_is_billed(api, clock):
    run, _ = paused(api, clock)
    out = run.result()
    assert out["status"].tolist() == ["paused", "succeeded", "paused", "succeeded"]
    assert out["output"].tolist()[:2] == ["slow a part 0. ", "quick b part 0. "]
    assert out["stop_reason"].tolist()[0] == "pause_turn"
    assert out["error"].str.startswith("paused: ").fillna(False).tolist() == [True, False, True, False]
    assert out["cost_usd"].sum() == pytest.approx(float(api.billed_usd)) == run.paid_usd
    assert run.counts == {"succeeded": 2, "paused": 2}
    assert run.failed.index.tolist() == ["a", "c"]


def test_a_retry_lets_it_go_on_and_joins_the_parts(api, clock):
    run, answer = paused(api, clock)
    run.result()
    first_usd = run.paid_usd
    retry = run.retry_failed()
    out = retry.result()
    assert out["status"].tolist() == ["succeeded"] * 4
    assert out["output"].tolist() == [
        "slow a part 0. slow a part 1. ",
        "quick b part 0. ",
        "slow c part 0. slow c part 1. ",
        "quick d part 0. ",
    ]
    assert [block["type"] for block in out["content"].iloc[0]] == ["text", "server_tool_use", "text"]
    # What was said comes back as it came, and nothing else was asked.
    assert len(answer.asked) == 6
    assert [message["role"] for message in answer.asked[-1]["messages"]] == ["user", "assistant"]
    assert answer.asked[-1]["messages"][1]["content"] == out["content"].iloc[2][:2]
    assert answer.asked[-1]["tools"] == SEARCH
    # The whole answers cost what all their parts did; this run paid the second parts.
    assert out["cost_usd"].sum() == pytest.approx(float(api.billed_usd)) == retry.cost_usd
    assert retry.paid_usd == pytest.approx(float(api.billed_usd) - first_usd)
    counts = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert out["tokens"].sum() == sum(bill.usage[name] or 0 for bill in api.billed for name in counts)


def test_retries_go_on_by_themselves_as_often_as_allowed(api, clock):
    run, _ = paused(api, clock, n_parts=4, retries=3, tools=None)
    out = run.result()
    assert out["status"].tolist() == ["succeeded"] * 4
    assert out["output"].iloc[0] == "".join(f"slow a part {i}. " for i in range(4))
    assert run.paid_usd == run.cost_usd == pytest.approx(float(api.billed_usd))
    assert float(api.billed_usd) <= run.record.cost_usd_max
    short, _ = paused(api, clock, n_parts=4, retries=1, name="short", reuse=False)
    out = short.result()
    assert out["status"].tolist()[:2] == ["paused", "succeeded"]
    assert out["output"].iloc[0] == "slow a part 0. slow a part 1. "
    assert short.retry_failed(errors="all").wait().retry_failed().result()["status"].tolist() == ["succeeded"] * 4


def test_finish_now_lets_them_go_on_live(api, clock):
    run, _ = paused(api, clock)
    run.result()
    out = run.finish_now()
    assert out["status"].tolist() == ["succeeded"] * 4
    assert out["output"].iloc[0] == "slow a part 0. slow a part 1. "
    assert out["batch_id"].isna().tolist() == [True, False, True, False]
    assert run.paid_usd == run.cost_usd == pytest.approx(float(api.billed_usd))


@pytest.mark.parametrize("how", ["changed", "chosen"])
def test_with_something_changed_or_chosen_it_starts_over(api, clock, how):
    run, answer = paused(api, clock, n_parts=3)
    again = run.retry_failed()
    again.result()
    before = len(answer.asked)
    later = again.retry_failed(system="Be quick.") if how == "changed" else again.retry_failed(rows=["a", "c"])
    later.result()
    assert [len(asked["messages"]) for asked in answer.asked[before:]] == [1, 1]


def test_another_run_takes_the_paused_answer_and_what_it_became(api, clock):
    run, _ = paused(api, clock)
    run.retry_failed().result()
    n_billed = len(api.billed)
    other = ask(FRAME.iloc[:1], api, clock, tools=SEARCH, name="other")
    assert other.result()["status"].tolist() == ["paused"]
    assert other.retry_failed().result()["output"].tolist() == ["slow a part 0. slow a part 1. "]
    assert (len(api.billed), other.paid_usd) == (n_billed, 0.0)


def test_deleting_the_run_that_began_leaves_the_whole_answer_to_the_one_that_went_on(api, clock):
    api.answer = Pausing()
    run = ask(FRAME.iloc[::2], api, clock, tools=SEARCH).wait()  # every answer pauses: nothing else keeps its batch
    retry = run.retry_failed()
    whole = retry.result()
    run.delete()
    pd.testing.assert_frame_equal(load(retry.id).result(), whole.drop(columns="prompt"))


def test_a_batch_that_is_too_large_keeps_its_parts_when_it_is_split(api, clock):
    run, _ = paused(api, clock)
    run.result()
    api.faults.add(simulator.ErrorAnswer("create", 413, times=1))
    out = run.retry_failed().result()
    assert out["output"].tolist()[::2] == ["slow a part 0. slow a part 1. ", "slow c part 0. slow c part 1. "]


def test_compacted_answers_are_joined_too_and_a_schema_reads_the_whole(api, clock):
    def half(params: dict[str, Any]) -> simulator.Reply:
        *_, last = params["messages"]
        if last["role"] == "user":
            call = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
            return simulator.Reply(content=[{"type": "text", "text": '{"n": '}, call], stop_reason="pause_turn")
        return simulator.Reply(content=[{"type": "text", "text": "7}"}])

    api.answer = half
    run = ask(FRAME.iloc[:2], api, clock, tools=SEARCH, output_schema={"n": int})
    assert run.result()["status"].tolist() == ["paused"] * 2
    out = run.retry_failed().result()
    assert out["status"].tolist() == ["succeeded"] * 2
    assert out["n"].tolist() == [7, 7]


@pytest.mark.parametrize("retries", [0, 1])
def test_where_the_next_part_is_missing_what_came_before_stays_paid(api, clock, retries):
    """The bill never falls below what was paid for the parts that came, nor below nothing; the row says what it is."""
    run, _ = paused(api, clock, retries=retries, tools=None) if not retries else (None, None)
    first_usd = float(api.billed_usd)
    api.answer = Pausing()
    api.faults.add(simulator.BadResults("missing", n_rows=1, skip=1 if retries else 0, times=None))
    if run is None:
        run = ask(FRAME, api, clock, columns=COLUMNS, retries=retries)
        run.wait()
    else:
        run = run.retry_failed().wait()
    out = run.result()
    assert sorted(out["status"])[0] == "missing"
    assert run.paid_usd is None or 0 < run.paid_usd <= float(api.billed_usd)
    assert run.cost_usd is None or run.cost_usd >= (first_usd or 0.0)


def test_a_budget_counts_the_parts_of_answers_whose_next_part_is_missing(api, clock):
    """However often parts pause and get lost, the bill stays within the budget, and within the bound that is told."""
    api.answer = Pausing(n_parts=9)
    api.faults.add(simulator.BadResults("missing", n_rows=1, skip=1, times=None))
    frame = pd.DataFrame({"prompt": [f"slow {'word ' * 200}{i}" for i in range(4)]})
    run = ask(frame, api, clock, max_tokens=400, retries=8, max_cost_usd=0.012)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.result()
    assert float(api.billed_usd) <= 0.012
    assert float(api.billed_usd) <= run.record.cost_usd_max


def test_a_part_that_is_paid_stays_while_the_next_is_on_its_way_or_refused(api, clock):
    """Frame, account and bill hold what is paid, whatever becomes of the request that lets it go on."""
    run, _ = paused(api, clock, tools=None)
    first_usd = run.paid_usd
    api.faults.add(simulator.ErrorAnswer("create", 402, kind="billing_error", message="no credit", times=None))
    retry = run.retry_failed()
    with pytest.raises(anthropic.APIError):
        retry.result()
    out = retry.result(partial=True)
    assert out["status"].tolist() == ["paused", "succeeded"] * 2
    assert out["output"].tolist()[0] == "slow a part 0. "
    assert out["cost_usd"].sum() == pytest.approx(first_usd) == retry.cost_usd
    assert retry.paid_usd == 0.0
    retry.cancel()
    assert retry.result()["status"].tolist() == ["paused", "succeeded"] * 2
    api.faults.clear()
    assert retry.retry_failed().result()["output"].tolist()[0] == "slow a part 0. slow a part 1. "


@pytest.mark.parametrize("outcome", ["overloaded", "expired", "errored", "canceled"])
def test_columns_sum_to_the_run_where_the_next_part_failed(api, clock, outcome):
    """A row whose continuation failed costs what its parts did, in the frame as in the account, and has no output."""
    run, _ = paused(api, clock, tools=None)
    run.result()
    api.faults.add(simulator.RowFault(outcome, share=1.0))
    retry = run.retry_failed()
    out = retry.result()
    assert set(out["status"]) == {"succeeded", "errored" if outcome in ("overloaded", "errored") else outcome}
    assert (out["output"].isna() == (out["status"] != "succeeded")).all()
    assert out["cost_usd"].sum() == pytest.approx(retry.cost_usd) == float(api.billed_usd)
