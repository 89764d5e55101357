"""A create that the server commits after any patience: posted again, and then both batches are shown."""

from __future__ import annotations

import asyncio
import time
import warnings
from datetime import timedelta

import anthropic
import pandas as pd
import pytest
from rowlab import ask, until_batches
from step_lab import place_at
from store_lab import CREATED_AT, add_run, bind

import pandas_batch
from pandas_batch import simulator
from pandas_batch.amounts import usd
from pandas_batch.display.account import text_account
from pandas_batch.engine.surplus import look_for_surplus
from pandas_batch.simulator.faults import BadResults, ErrorAnswer, LostAnswer, Outage, spend_cap

FRAME = pd.DataFrame({"prompt": ["a", "b", "c"]})
DAY_S = 86400.0


def told_by(run) -> tuple[pd.DataFrame, list[str]]:
    """Return the result of a run, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = run.result()
    return out, [str(warning.message) for warning in caught]


def late(api, late_s: float = 2000.0) -> None:
    """Let the next create be committed only so long after its connection died."""
    api.faults.add(LostAnswer("reset", committed=True, late_s=late_s))


def test_a_batch_committed_after_the_grace_is_told_when_the_run_is_opened_later(api, clock):
    """Both ids are shown, with what the one that nobody needs has cost; no answer of it is merged."""
    late(api)
    run = ask(FRAME, api, clock)
    out, told = told_by(run)
    assert out["status"].eq("succeeded").all()
    assert told == []
    assert "made besides by the server" not in run.summary()
    clock.advance(DAY_S / 2)
    later = ask(FRAME, api, clock)
    again, told = told_by(later)
    merged, besides = (batch.id for batch in sorted(api.batches, key=lambda batch: batch.id != run.batches[0].batch_id))
    assert again.equals(out)
    (words,) = told
    assert besides in words
    assert merged in words
    cost_usd = float(sum(bill.cost_usd for bill in api.billed if bill.batch_id == besides))
    assert f"billed besides ({usd(cost_usd)})" in words
    summary = later.summary()
    assert summary["made besides by the server"] == besides
    assert summary["billed besides (USD)"] == pytest.approx(cost_usd, abs=1e-12)
    assert summary["paid by this run (USD)"] + cost_usd == pytest.approx(float(api.billed_usd), abs=1e-12)
    assert besides in later.snapshot().message
    assert besides in text_account(later.snapshot())
    assert told_by(later)[1] == []
    assert api.calls("create") == 2


def test_it_is_told_at_once_where_it_has_ended_when_the_run_comes_home(clock):
    """Where the first batch has ended before the second is home, the very first wait tells of it."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=30) as api:
        late(api, 650.0)
        api.faults.add(ErrorAnswer("results", 500, times=6))  # the answers of the second come late
        run = ask(FRAME, api, clock)
        out, told = told_by(run)
        assert out["status"].eq("succeeded").all()
        assert len(api.batches) == 2
        assert [text for text in told if "billed besides" in text] == told != []


def test_others_are_looked_at_once_and_the_last_look_is_the_last(api, clock):
    """Batches of others are disproved once; a day after the POST a run is looked at for the last time."""
    api.faults.add(LostAnswer("reset", committed=False))
    out, _ = told_by(ask(FRAME, api, clock))
    api.add_decoy(3)
    clock.advance(DAY_S / 2)
    for _ in range(2):
        before = api.calls("results")
        again, told = told_by(ask(FRAME, api, clock))
        assert again.equals(out)
        assert told == []
    assert api.calls("results") == before
    clock.advance(DAY_S)
    told_by(ask(FRAME, api, clock))
    n_lists = api.calls("list")
    told_by(ask(FRAME, api, clock))
    assert api.calls("list") == n_lists


@pytest.mark.parametrize("fault", ["unreachable", "no key", "broken"])
def test_a_look_that_fails_fails_nothing(api, clock, fault):
    """Without network or key, or with a server that is down, the finished run comes back as it was."""
    late(api)
    run = ask(FRAME, api, clock)
    out, _ = told_by(run)
    clock.advance(DAY_S / 2)
    if fault == "no key":
        again, told = told_by(pandas_batch.load(run.id, store=str(run.store.path), clock=clock))
        assert again["output"].tolist() == out["output"].tolist()
    elif fault == "unreachable":
        with api.unreachable():
            again, told = told_by(ask(FRAME, api, clock))
        assert again.equals(out)
    else:
        api.faults.add(Outage(from_s=clock.time_s(), until_s=clock.time_s() + 60, how=503))
        again, told = told_by(ask(FRAME, api, clock))
        assert again.equals(out)
    assert told == []
    clock.advance(3600)
    assert len(told_by(ask(FRAME, api, clock))[1]) == 1


def test_a_price_that_cannot_be_told_is_told_the_next_time(api, clock):
    """What was found is said although its results come broken; its price follows."""
    late(api)
    told_by(ask(FRAME, api, clock))
    clock.advance(DAY_S / 2)
    api.faults.add(BadResults("missing", n_rows=1, skip=1))  # the first download is the proof
    assert "a price that is not known" in told_by(ask(FRAME, api, clock))[1][0]
    assert "billed besides ($" in told_by(ask(FRAME, api, clock))[1][0]


def test_a_canceled_batch_that_was_made_after_all_is_told(api, clock):
    """What was canceled while it was looked for, given up and then committed, is billed, and told to be."""
    late(api)
    with clock.held():
        run = ask(FRAME, api, clock)
        while run.store.batches.of_run(run.id)[0].state != "unknown":
            time.sleep(0.002)
        run.cancel()
    out, told = told_by(run)
    assert out["status"].eq("canceled").all()
    assert told == []
    clock.advance(DAY_S / 2)
    (words,) = told_by(ask(FRAME, api, clock))[1]
    assert api.batches[0].id in words
    assert "had been canceled" in words
    assert api.calls("create") == 1


def test_it_is_deleted_with_its_run(api, clock):
    """What nobody needs is deleted on the server with the rest."""
    late(api)
    told_by(ask(FRAME, api, clock))
    clock.advance(DAY_S / 2)
    run = ask(FRAME, api, clock)
    told_by(run)
    run.delete(server=True)
    assert api.batches == []


def test_a_loaded_run_tells_it_too(api, clock):
    """`pandas_batch.load` looks as the same line does, from a loop as well."""
    late(api)
    run = ask(FRAME, api, clock)
    told_by(run)
    clock.advance(DAY_S / 2)
    loaded = pandas_batch.load(run.id, store=str(run.store.path), client=api.client(), clock=clock)
    with pytest.warns(UserWarning, match="billed besides"):
        asyncio.run(loaded.result_async())


# -------------------------------------------------------------------- what is seen in time is not paid twice


def test_what_was_committed_before_the_second_post_is_found(api, clock):
    """Where the second POST has to wait, the batch is looked for once more before it, and nothing is paid twice."""
    late(api, 650.0)
    api.faults.add(ErrorAnswer("create", 429, retry_after="200"))
    out, told = told_by(ask(FRAME, api, clock))
    assert out["status"].eq("succeeded").all()
    assert told == []
    assert len(api.billed) == 3
    assert api.calls("create") == 2


def test_what_was_committed_before_a_refused_post_is_repeated_is_found(api, clock):
    """Where the second POST was refused, and the user comes back a day later, the first batch is found instead."""
    late(api)
    api.faults.add(spend_cap())
    with pytest.raises(anthropic.APIError):
        ask(FRAME, api, clock).result()
    api.faults.clear()
    clock.advance(DAY_S)
    assert told_by(ask(FRAME, api, clock))[0]["status"].eq("succeeded").all()
    assert len(api.billed) == 3


@pytest.mark.parametrize("n_times", [1, 3])
def test_results_that_are_not_there_yet_disprove_nothing(api, clock, n_times):
    """A 404 on the results of a candidate may pass: it is asked again, and not taken for a stranger."""
    api.faults.add(LostAnswer("reset", committed=True))
    api.faults.add(ErrorAnswer("results", 404, times=n_times))
    assert told_by(ask(FRAME, api, clock))[0]["status"].eq("succeeded").all()
    assert api.calls("create") == 1


def test_nothing_is_posted_again_while_a_candidate_cannot_be_read(api, clock):
    """A batch of the right size whose results are not given out may be ours, however long that lasts."""
    api.faults.add(LostAnswer("reset", committed=False))
    api.faults.add(ErrorAnswer("results", 404, times=None))
    with clock.held():
        run = ask(FRAME, api, clock)
        until_batches(run, "unknown")
        api.add_decoy(3)
    with pytest.raises(pandas_batch.WaitTimeout, match="taken as ours only when its results prove it"):
        run.wait(timeout=7200)
    assert api.calls("create") == 1
    api.faults.clear()
    assert run.result()["status"].eq("succeeded").all()
    assert (api.calls("create"), len(api.billed)) == (2, 3)


@pytest.mark.parametrize(("server_s", "ours_s", "last"), [(DAY_S, 60, True), (60, DAY_S, False), (None, DAY_S, True)])
def test_the_day_of_looks_is_measured_by_the_servers_clock(api, clock, tmp_path, server_s, ours_s, last):
    """Where the server's time of the post is known its clock says when the last look was; else ours does."""
    place = place_at(tmp_path, api, clock)
    (key,) = add_run(place.store, "r", n=2).batch_keys
    bind(place.store, key, api.add_decoy(2, at=clock.time_s() - 90_000))
    place.store.batches.update(
        key,
        state="collected",
        first_posted_at=CREATED_AT,
        posted_at=clock.now() - timedelta(seconds=ours_s),
        server_posted_at=None if server_s is None else clock.now() - timedelta(seconds=server_s),
    )
    look_for_surplus(place.store, "r", wire=lambda: place.wire, clock=clock)
    assert place.store.batches.get(key).surplus_settled is last
