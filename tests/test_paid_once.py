"""Cancel, retry and loss, where they meet: what was canceled is not posted, what was paid is not paid again."""

from __future__ import annotations

import time
import warnings

import anthropic
import pandas as pd
import pytest
from rowlab import all_outcomes, ask, plan_outcomes, until_batches

from pandas_batch import NotEndedError, simulator
from pandas_batch.run import recording
from pandas_batch.run.driving import _engines
from pandas_batch.run.library import load
from pandas_batch.run.recovering import recover_run
from pandas_batch.run.run import Run
from pandas_batch.run.starting import Call, _record, attach_run, parse
from pandas_batch.simulator.faults import BadResults, ErrorAnswer, LostAnswer, RowFault, revoked_key, spend_cap
from pandas_batch.wire.wire import Wire

FRAME = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(12)]})


def settled(run: Run) -> Run:
    """Wait for `run`, and let it say what it has to say of its rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.result()
    return run


def test_a_canceled_batch_that_is_looked_for_is_not_posted_again(api, clock):
    """A cancel while a create's answer is lost holds: when the server never had the batch, nothing is posted."""
    api.faults.add(LostAnswer("reset", committed=False))
    with clock.held():
        run = ask(FRAME, api, clock)
        until_batches(run, "unknown")
        told = run.cancel()
    assert "1 is still looked for" in told
    out = run.result()
    assert set(out["status"]) == {"canceled"}
    assert api.batches == []
    assert set(ask(FRAME, api, clock).result()["status"]) == {"canceled"}
    assert api.calls("create") == 1


def test_a_canceled_batch_that_is_found_after_all_brings_its_answers(api, clock):
    """A cancel while a create's answer is lost loses nothing: what the server answered comes home."""
    api.faults.add(LostAnswer("reset", committed=True))
    with clock.held():
        run = ask(FRAME, api, clock)
        until_batches(run, "unknown")
        run.cancel()
    assert run.result()["status"].eq("succeeded").all()
    assert api.calls("create") == 1


def test_the_grace_begins_when_the_connection_died(api, clock):
    """An upload that took longer than the grace before it was lost is still looked for a whole grace long."""

    class SlowWire(Wire):
        def create(self, body, *, betas=()):
            created = super().create(body, betas=betas)
            if created.outcome == "unknown":
                clock.advance(900)
            return created

    api.faults.add(LostAnswer("reset", committed=True, late_s=900 + 300))
    original = Run._wire_of_options
    Run._wire_of_options = lambda self: SlowWire(self._options.client, clock=self._clock)
    try:
        run = _bare(ask, api, clock)
        assert run.result()["status"].eq("succeeded").all()
    finally:
        Run._wire_of_options = original
    assert api.calls("create") == 1


def _bare(start, api, clock):
    """Start a run whose wire comes from `Run` itself: recorded first, then opened as after a restart."""
    call = Call(FRAME, parse({"client": api.client(), "progress": "off", "preflight": False}, "prompt"), clock=clock)
    store = call.open_store()
    record = _record(call, store, None)
    return Run(store, record.id, call.options, target=call.target, clock=clock)


def test_an_outage_does_not_make_a_short_file_believable(api, clock):
    """However often a download failed before, the first short one is not taken for the whole."""
    api.faults.add(ErrorAnswer("results", 500, times=6))
    api.faults.add(BadResults("missing", n_rows=2))
    assert ask(FRAME, api, clock).result()["status"].eq("succeeded").all()


def test_a_candidate_that_comes_broken_is_asked_again(api, clock):
    """A lost batch whose results come empty at first is looked at again, and no run stops over it."""
    api.faults.add(LostAnswer("reset", committed=True))
    api.faults.add(BadResults("empty"))
    assert ask(FRAME, api, clock).result()["status"].eq("succeeded").all()
    assert api.calls("create") == 1


def test_many_batches_are_recovered(api, clock, monkeypatch, tmp_path):
    """A lost store is made again from more batches than are polled one by one, and its failures can be retried."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 2)
    api.faults.add(RowFault("overloaded", marker="prompt 3"))
    ask(FRAME, api, clock, store=str(tmp_path / "lost")).result()
    api.faults.clear()
    n_posted = api.calls("create")
    options = parse({"client": api.client(), "progress": "off", "store": str(tmp_path / "new")}, "prompt")
    call = Call(FRAME, options, clock=clock)
    run = recover_run(call, call.open_store())
    out = run.result()
    assert out["status"].value_counts().to_dict() == {"succeeded": 11, "errored": 1}
    assert api.calls("create") == n_posted
    again = run.retry_failed()
    assert again.result()["status"].eq("succeeded").all()
    assert api.calls("create") == n_posted + 1


def test_another_retry_pays_for_what_is_left_alone(api, clock):
    """A second, different retry of a run asks only for what the first has left, and repeated it is the same."""
    plan_outcomes(api)
    frame = all_outcomes()
    run = settled(ask(frame, api, clock))
    api.faults.clear()
    plain = settled(run.retry_failed())
    before = plain.result()
    n_rows = len(api.billed)
    more = run.retry_failed(errors="all", max_tokens=77)
    assert more.record.parent_id == plain.id
    after = more.result()
    paid_before = before["status"].eq("succeeded") & before["stop_reason"].eq("end_turn")
    assert after.loc[paid_before.to_numpy(), "output"].equals(before.loc[paid_before.to_numpy(), "output"])
    n_left = len(api.billed) - n_rows
    assert n_left == more.record.n_requests - more.record.n_reused
    for retry in (
        run.retry_failed(),
        run.retry_failed(errors="all", max_tokens=77),
        plain.retry_failed(errors="all", max_tokens=77),
    ):
        assert retry.id == more.id
    assert len(api.billed) == n_rows + n_left


def test_rows_canceled_before_they_were_posted_can_be_retried(clock, monkeypatch):
    """After a cancel, `retry_failed` asks for what was never posted as well, once."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 4)
    with simulator.serve(clock=clock.time_s, seconds_per_batch=5) as api:
        api.faults.add(ErrorAnswer("create", 429, skip=1, retry_after="200", times=2))
        with clock.held():
            run = ask(FRAME, api, clock)
            until_batches(run, "bound", "intent", "intent")
            run.cancel()
        out = run.result()
        assert out["status"].eq("canceled").sum() >= 8
        api.faults.clear()
        whole = run.retry_failed().result()
        assert whole["status"].eq("succeeded").all()
        assert len({bill.custom_id for bill in api.billed}) == len(api.billed) == 12


def test_samples_with_failures_are_retried_one_by_one(api, clock):
    """Of several samples per row only the failed ones are asked again, and every list keeps its length."""
    api.faults.add(RowFault("overloaded", share=0.4))
    run = ask(FRAME, api, clock, samples=3)
    n_failed = sum(status != "succeeded" for row in run.result()["status"] for status in row)
    assert 0 < n_failed < 36
    api.faults.clear()
    out = run.retry_failed().result()
    assert [len(row) for row in out["output"]] == [3] * 12
    assert all(status == "succeeded" for row in out["status"] for status in row)
    assert len(api.billed) == 36


@pytest.mark.parametrize("dedupe", [True, False])
def test_equal_rows_of_an_edited_frame_keep_their_answers(api, clock, dedupe):
    """Equal rows, removed, doubled and turned around after the submit, get answers of their own prompt only."""
    frame = pd.DataFrame({"prompt": ["a", "b", "a", "c", "a"]})
    run = ask(frame, api, clock, dedupe=dedupe)
    whole = run.result()
    assert len(api.billed) == (3 if dedupe else 5)
    edited = pd.concat([frame.iloc[::-1], frame.iloc[[0, 0]], pd.DataFrame({"prompt": ["new"]})])
    out = edited.claude_batch.merge(run)
    assert out["status"].tolist() == ["succeeded"] * 7 + ["unsent"]
    assert [prompt in text for prompt, text in zip(out["prompt"][:-1], out["output"][:-1], strict=True)] == [True] * 7
    assert float(out["cost_usd"].sum()) == pytest.approx(float(whole["cost_usd"].sum()))


def test_a_cancel_from_a_second_kernel_is_meant_no_less(clock):
    """Where another kernel drives a run and holds its leases, a cancel reaches the server all the same."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=3600) as api:
        with clock.held():
            first = ask(FRAME, api, clock)
            until_batches(first, "bound")
            engine = _engines.pop((str(first.store.path), first.id))  # what another process has is not seen here
            second = ask(FRAME, api, clock)
            assert second.engine is not engine
            assert "1 of 1 batches is being canceled" in second.cancel()
            assert api.calls("cancel") == 1
        assert second.result()["status"].eq("canceled").all()
        assert first.result()["status"].eq("canceled").all()
        assert engine.join(10)


def test_a_run_that_was_refused_is_canceled_all_the_same(clock, monkeypatch):
    """After a refusal what runs at the server is followed only: a cancel reaches it, and posts nothing before."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 4)
    with simulator.serve(clock=clock.time_s, seconds_per_batch=36_000) as api:
        api.faults.add(spend_cap(skip=1))
        with clock.held():
            run = ask(FRAME, api, clock)
            assert run.engine.wait(20)
            api.faults.clear()
            assert run.status == "blocked"
            assert "3 of 3 batches are being canceled" in run.cancel()
        assert api.calls("cancel") == 1
        assert run.result()["status"].eq("canceled").all()
        assert len(api.batches) == 1


def test_a_run_that_cannot_be_canceled_is_not_deleted(clock):
    """Where the key is not accepted any more a run goes on at the server: it is not forgotten here."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=3600) as api:
        with clock.held():
            run = ask(FRAME, api, clock)
            until_batches(run, "bound")
            api.faults.add(revoked_key())
        with pytest.raises(NotEndedError) as told:
            run.delete()
        assert "The key is not accepted" in str(told.value)
        api.faults.clear()
        # A cancel that was asked for is not forgotten: it reaches the server as soon as that can be.
        assert ask(FRAME, api, clock).result()["status"].eq("canceled").all()
        assert api.billed == []


def test_a_cancel_after_an_interrupt_posts_nothing_first(clock, monkeypatch):
    """Where posting was stopped, a cancel withdraws what was not posted; it does not begin by going on."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 4)
    with simulator.serve(clock=clock.time_s, seconds_per_batch=36_000) as api:
        api.faults.add(ErrorAnswer("create", 429, skip=1, retry_after="200", times=None))
        with clock.held():
            run = ask(FRAME, api, clock)
            while api.calls("create") < 3:
                time.sleep(0.002)
            until_batches(run, "bound", "intent", "intent")
            run.engine.stop_posting()
            api.faults.clear()
            clock.advance(1000)
            assert "3 of 3 batches are being canceled" in run.cancel()
        assert api.calls("create") == 3
        assert len(api.batches) == 1
        assert run.result()["status"].eq("canceled").all()


def test_what_is_paid_comes_home_though_the_rest_is_refused(clock, monkeypatch):
    """With a spend limit reached in the middle, the same line brings what was posted, and then says so."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 4)
    with simulator.serve(clock=clock.time_s, seconds_per_batch=600) as api:
        api.faults.add(spend_cap(skip=1))
        with pytest.raises(anthropic.APIError):
            ask(FRAME, api, clock).result()
        clock.advance(700)
        run = ask(FRAME, api, clock)
        with pytest.raises(anthropic.APIError):
            run.result()
        assert run.counts == {"succeeded": 4, "pending": 8}
        api.faults.clear()
        assert ask(FRAME, api, clock).result()["status"].eq("succeeded").all()
        assert len(api.billed) == 12


def test_what_a_canceled_batch_has_answered_all_the_same_is_not_paid_again(api, clock):
    """A new run waits for the batch that another has canceled: what that answered is reused, the rest asked here."""
    api.seconds_per_batch = 1000.0
    with clock.held():
        first = ask(FRAME, api, clock)
        first.wait_submitted()
        clock.advance(500.0)
        first.cancel()
        wider = pd.concat([FRAME, pd.DataFrame({"prompt": ["one more"]})], ignore_index=True)
        second = ask(wider, api, clock)
    assert second.result()["status"].eq("succeeded").all()
    canceled = int(first.result()["status"].eq("canceled").sum())
    assert 0 < canceled < len(FRAME)
    assert [batch.n_requests for batch in reversed(api.batches)] == [len(FRAME), 1, canceled]
    assert len(api.billed) == len(wider)
    assert first.paid_usd + second.paid_usd == pytest.approx(float(api.billed_usd))
    assert set(first.counts) == {"succeeded", "canceled"}


def test_a_run_that_was_canceled_itself_asks_nothing_that_another_canceled(api, clock):
    """A cancel is meant, also by a run that has posted nothing of its own yet waits for another's batch."""
    api.seconds_per_batch = 1000.0
    with clock.held():
        first = ask(FRAME, api, clock)
        first.wait_submitted()
        second = ask(FRAME.iloc[::-1].iloc[1:], api, clock)
        second.cancel()
        first.cancel()
    assert set(second.result()["status"]) == {"canceled"}
    assert load(second.id).is_settled()
    assert api.calls("create") == 1


def test_a_budget_holds_for_what_another_run_has_canceled(api, clock):
    """What was left to another's batch, and is asked here in the end, counts in the bound and against the budget."""
    api.seconds_per_batch = 1000.0
    with clock.held():
        first = ask(FRAME, api, clock)
        first.wait_submitted()
        wider = pd.concat([FRAME, pd.DataFrame({"prompt": ["one more"]})], ignore_index=True)
        second = ask(wider, api, clock, max_cost_usd=0.004)
        first.cancel()
    with pytest.warns(UserWarning, match="another run has canceled, were not asked again"):
        out = second.result()
    assert out["status"].value_counts().to_dict() == {"canceled": len(FRAME), "succeeded": 1}
    assert load(second.id).is_settled()


def test_asked_to_go_on_while_it_stops_a_run_never_ends_in_silence(clock, monkeypatch):
    """Whoever asks an engine to go on in the instant in which it stops waits for what comes of that, error or not."""
    monkeypatch.setattr(recording, "MAX_BATCH_REQUESTS", 4)
    with simulator.serve(clock=clock.time_s, seconds_per_batch=600) as api:
        api.faults.add(spend_cap(skip=1))
        with clock.held():
            run = ask(FRAME, api, clock)
        engine, n_asked = run.engine, 0

        def go_on(status):
            nonlocal n_asked
            if engine.error is not None and n_asked < 3:
                n_asked += 1
                engine.go_on()

        run.observe(go_on)
        with pytest.raises(anthropic.APIError):
            run.result()
        assert n_asked == 3
        api.faults.clear()
        assert ask(FRAME, api, clock).result()["status"].eq("succeeded").all()
        assert len(api.billed) == 12


def test_a_retry_of_a_part_asks_nothing_besides_that_was_canceled_before(api, clock):
    """A retry asks for what it was told to: canceled rows that it holds from its parent stay as they are."""
    api.seconds_per_batch = 1000.0
    with clock.held():
        first = ask(FRAME, api, clock)
        first.wait_submitted()
        second = ask(FRAME.iloc[::-1], api, clock)
        second.cancel()
        first.cancel()
    assert set(second.result()["status"]) == {"canceled"}
    part = attach_run(FRAME[:2], second, {})
    assert part.retry_failed().result()["status"].eq("succeeded").all()
    assert len(api.billed) == 2
