"""What earlier answers say about a bill: the expected cost, from the answers that the store holds."""

from __future__ import annotations

import pandas as pd
import pytest
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes
from test_trial import tried

from pandas_batch import simulator
from pandas_batch.estimates.bill import Estimate
from pandas_batch.run.starting import Call, parse
from pandas_batch.store import Store

FRAME = pd.DataFrame({"prompt": [f"row {number:03d} {'and more ' * (number % 7)}" for number in range(60)]})


def estimated(frame: pd.DataFrame, api: simulator.Simulator, clock, **options) -> Estimate:
    return Call(frame, parse({"client": api.client(), **options}, "prompt"), clock=clock).estimate()


def test_a_store_without_answers_expects_nothing(api, clock):
    """Where nothing was asked before, the line is not there."""
    estimate = estimated(FRAME, api, clock)
    assert (estimate.cost_usd_expected, estimate.n_answers) == (None, 0)
    assert "expected" not in repr(estimate)


def test_after_a_trial_the_bill_of_all_rows_is_expected_from_its_answers(api, clock):
    """The expectation of a trial is near the bill, far below the bound, and the estimate tells where it is from."""
    tried(FRAME, api, clock, n=6, max_tokens=2000)
    estimate = estimated(FRAME, api, clock, max_tokens=2000)
    assert estimate.n_answers == 6
    assert "expected, from 6 answers" in repr(estimate)
    assert "expected, from 6 answers" in estimate._repr_html_()
    n_before = len(api.billed)
    ask(FRAME, api, clock, max_tokens=2000).result()
    billed_usd = float(sum(bill.cost_usd for bill in api.billed[n_before:]))
    assert estimate.cost_usd_expected == pytest.approx(billed_usd, rel=0.3)
    assert estimate.cost_usd_expected < estimate.cost_usd_max / 20


def test_answers_to_the_same_prompt_come_before_those_of_the_same_model(api, clock):
    """With no answer to the same prompt those of its model and schema tell; another model tells nothing."""
    api.answer = lambda params: "long " * 200 if params.get("system") == "Be long." else "short"
    ask(FRAME[:10], api, clock, system="Be long.").result()
    long = estimated(FRAME[10:], api, clock)
    ask(FRAME[:3], api, clock).result()
    short = estimated(FRAME[10:], api, clock)
    assert (long.n_answers, short.n_answers) == (10, 3)
    assert short.cost_usd_expected < long.cost_usd_expected / 5
    assert estimated(FRAME[10:], api, clock, model="claude-sonnet-5-5").n_answers == 0


@cut_on_purpose
def test_only_answers_count(api, clock):
    """Rows that failed say nothing of the length of an answer."""
    plan_outcomes(api)
    out = ask(all_outcomes(), api, clock).result()
    assert estimated(FRAME, api, clock).n_answers == len({*out.loc[out["status"] == "succeeded", "prompt"]})


def test_damaged_answers_keep_nobody_from_an_estimate(api, clock):
    """An estimate reads what it can of the store, and is made without what is damaged."""
    run = ask(FRAME[:4], api, clock)
    run.result()
    store = Store.open()
    (key,) = run.record.batch_keys
    for path in (store.files.answers_path(key), store.files.results_path(key)):
        path.write_bytes(b"damaged")
    for left in store.files.results_path(key).parent.glob("results.jsonl*"):
        left.write_bytes(b"damaged")
    assert estimated(FRAME, api, clock).n_answers == 0
