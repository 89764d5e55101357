"""Runs: what a user sees of them from the call to the answers, and again after that."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from rowlab import all_outcomes, ask, cut_on_purpose, lose_rows, plan_outcomes, until

import pandas_batch
from pandas_batch import FrameMismatchError, InputError, ResultsGoneError, RunNotFoundError, WaitTimeout
from pandas_batch.run.run import Run
from pandas_batch.simulator.faults import ErrorAnswer, RowFault
from pandas_batch.simulator.replies import Reply
from pandas_batch.store import Store


def settled(run: Run) -> Run:
    """Wait until the run's thread has put everything away too."""
    run.wait()
    assert run.engine is None or run.engine.join(20)
    return run


def reopened(run: Run) -> Run:
    """Return the run as another kernel finds it: from the store alone."""
    return pandas_batch.load(run.id)


@cut_on_purpose
def test_every_outcome_has_its_status_cost_and_story(api, clock):
    """A row never disappears and never raises: what became of it stands in its columns."""
    plan_outcomes(api)
    frame = all_outcomes()
    out = ask(frame, api, clock).result()
    assert out.index.equals(frame.index)
    by_prompt = out.assign(prompt=frame["prompt"]).set_index("n")
    assert out["status"].value_counts().to_dict() == {
        "succeeded": 9,
        "errored": 4,
        "expired": 2,
        "canceled": 2,
        "skipped": 2,
    }
    failed = by_prompt[by_prompt["status"].isin(["errored", "expired", "canceled"])]
    assert (failed["cost_usd"] == 0).all()
    assert failed["tokens"].isna().all()
    assert failed["error"].str.contains(": ").all()
    fine = by_prompt[by_prompt["status"] == "succeeded"]
    assert fine["error"].isna().all()
    skipped = by_prompt[by_prompt["status"] == "skipped"]
    assert skipped["error"].isna().all()
    assert (skipped["cost_usd"] == 0).all()
    assert fine.loc[fine["prompt"].str.contains("no_text"), "output"].isna().all()
    assert set(fine.loc[fine["prompt"].str.contains("truncated"), "stop_reason"]) == {"max_tokens"}


@cut_on_purpose
def test_columns_sum_to_the_bill(api, clock):
    """The cost column and `paid_usd` are what the server billed, to the last digit; shared rows are counted once."""
    plan_outcomes(api)
    run = ask(all_outcomes(5), api, clock)
    out = run.result()
    billed = api.billed_usd
    assert Decimal(repr(round(float(out["cost_usd"].sum()), 12))) == billed.normalize() or np.isclose(
        float(out["cost_usd"].sum()), float(billed), rtol=0, atol=1e-12
    )
    assert run.paid_usd == pytest.approx(float(billed), abs=1e-12)
    assert run.cost_usd == run.paid_usd
    usage = [bill.usage for bill in api.billed]
    assert int(out["output_tokens"].sum()) == sum(one["output_tokens"] for one in usage)


@cut_on_purpose
def test_counts_sum_to_the_frame(api, clock):
    """`counts` accounts for every row, before the end and after it."""
    plan_outcomes(api)
    frame = all_outcomes()
    run = ask(frame, api, clock)
    assert sum(run.counts.values()) == len(frame)
    run.result()
    assert sum(run.counts.values()) == len(frame)
    assert run.status == "collected"


def test_missing_rows_become_missing(api, clock):
    """What the server never answers for is fetched again, then told; the other rows are delivered."""
    lose_rows(api, 3)
    run = ask(all_outcomes(), api, clock)
    out = run.result()
    assert (out["status"] == "missing").sum() in (3, 4)  # a shared request is missing for both its rows
    assert out.loc[out["status"] == "missing", "cost_usd"].isna().all()
    assert api.calls("results") > 1


@cut_on_purpose
def test_same_line_is_the_same_run(api, clock):
    """The same submit again gives an equal frame, failures and costs included, and sends nothing."""
    plan_outcomes(api)
    frame = all_outcomes()
    first = settled(ask(frame, api, clock))
    out = first.result()
    n_calls = len(api.requests)
    again = ask(frame, api, clock)
    pd.testing.assert_frame_equal(again.result(), out)
    assert again.id == first.id
    assert len(api.requests) == n_calls


def test_finished_run_needs_no_key(api, clock, monkeypatch):
    """A finished run comes back without credentials and without a network."""
    frame = all_outcomes()
    monkeypatch.setenv("ANTHROPIC_BASE_URL", api.base_url)
    out = settled(ask(frame, api, clock)).result()
    api.close()
    again = frame.claude_batch.submit("prompt", progress="off")
    pd.testing.assert_frame_equal(again, out)


def test_columns_of_the_same_run_are_replaced(api, clock):
    """`df = submit(df)` run again works; any other clash is refused before anything is sent."""
    frame = all_outcomes()
    out = ask(frame, api, clock).result()
    again = ask(out, api, clock).result()
    pd.testing.assert_frame_equal(again, out)
    with pytest.raises(InputError) as told:
        ask(frame.assign(output="mine"), api, clock)
    assert "prefix=" in str(told.value)
    assert "overwrite=True" in str(told.value)
    mine = ask(frame.assign(output="mine"), api, clock, overwrite=True).result()
    assert not (mine["output"] == "mine").any()


def test_edited_frame_pays_only_for_the_edit(api, clock):
    """Rows of another run that were answered are not paid again; new ones are."""
    frame = pd.DataFrame({"prompt": [f"p{i}" for i in range(10)]})
    settled(ask(frame, api, clock))
    longer = pd.DataFrame({"prompt": [*frame["prompt"][::-1], "new"]})
    run = ask(longer, api, clock)
    out = run.result()
    assert [batch.n_requests for batch in api.batches] == [1, 10]
    assert out["output"].notna().all()
    assert run.paid_usd < run.cost_usd
    assert ask(longer, api, clock, columns="all").result()["reused"].tolist() == [True] * 10 + [False]


def test_reuse_false_pays_again_and_its_name_brings_it_back(api, clock, capsys):
    """Without a name each call is a new run and says so; with one the same line is the same run."""
    frame = pd.DataFrame({"prompt": ["a", "b"]})
    settled(ask(frame, api, clock))
    settled(ask(frame, api, clock, reuse=False))
    assert "new run" in capsys.readouterr().err
    first = settled(ask(frame, api, clock, reuse=False, name="again"))
    second = settled(ask(frame, api, clock, reuse=False, name="again"))
    assert first.id == second.id
    assert len(api.batches) == 3


def test_equal_rows_that_no_id_can_tell_apart_are_refused(api, clock):
    """A custom_id has 65,536 draws of one request: rows beyond that would share answers that were asked twice."""
    frame = pd.DataFrame({"prompt": ["same"] * 22_000})
    with pytest.raises(InputError, match="dedupe=False and samples=3 with more than 21,845 equal rows"):
        ask(frame, api, clock, dedupe=False, samples=3)
    assert api.calls("create") == 0


def test_dedupe_false_asks_each_row(api, clock):
    """`dedupe=False` sends equal rows one by one, each with its own bill."""
    frame = pd.DataFrame({"prompt": ["same", "same", "other"]})
    out = ask(frame, api, clock, dedupe=False).result()
    assert api.batches[0].n_requests == 3
    assert (out["tokens"] > 0).all()


def test_samples_are_lists(api, clock):
    """`samples=3` gives three answers per row as lists that explode together."""
    frame = pd.DataFrame({"prompt": ["a", None, "b"]}, index=list("xyz"))
    out = ask(frame, api, clock, samples=3).result()
    assert api.batches[0].n_requests == 6
    assert [len(value) for value in out["output"]] == [3, 3, 3]
    exploded = out.explode(["output", "status", "cost_usd"])
    assert exploded["status"].tolist() == ["succeeded"] * 3 + ["skipped"] * 3 + ["succeeded"] * 3


def test_another_number_of_samples_is_another_run(api, clock):
    """`samples=2` after one answer per row is no coming back: it is a new run, and pays for the second answers only."""
    frame = pd.DataFrame({"prompt": ["a", "b"]})
    one = settled(ask(frame, api, clock))
    two = settled(ask(frame, api, clock, samples=2))
    assert two.id != one.id
    assert [len(value) for value in two.result()["output"]] == [2, 2]
    assert [batch.n_requests for batch in api.batches] == [2, 2]
    assert settled(ask(frame, api, clock)).id == one.id


def test_attach_finds_every_sample_of_a_row(api, clock):
    """With several answers per row a frame in another order gets all of them, each row its own."""
    frame = pd.DataFrame({"prompt": [f"p{i}" for i in range(4)]})
    out = settled(ask(frame, api, clock, samples=3, name="three")).result()
    some = frame.iloc[[3, 1]].claude_batch.attach("three", client=api.client(), progress="off").result()
    assert some["output"].tolist() == [["p3"] * 3, ["p1"] * 3] == out["output"].iloc[[3, 1]].tolist()


def test_attach_finds_rows_wherever_they_stand(api, clock):
    """A filtered, sorted, extended frame gets exactly the answers of its rows; a strange row is unsent."""
    frame = pd.DataFrame({"prompt": [f"p{i}" for i in range(20)]})
    out = settled(ask(frame, api, clock)).result()
    run = reopened(ask(frame, api, clock))
    other = pd.concat([frame.sample(12, random_state=1), pd.DataFrame({"prompt": ["strange"]}, index=[99])])
    merged = other.claude_batch.attach(run.id, client=api.client(), progress="off").result()
    assert merged["output"].tolist()[:-1] == out.loc[other.index[:-1], "output"].tolist()
    assert merged["status"].tolist()[-1] == "unsent"
    pd.testing.assert_frame_equal(other.claude_batch.merge(run.id, client=api.client()), merged)


def test_attach_refuses_a_frame_of_strangers(api, clock):
    """Where no row belongs to the run nothing is merged."""
    run = settled(ask(pd.DataFrame({"prompt": ["a"]}), api, clock))
    with pytest.raises(FrameMismatchError, match=run.id):
        pd.DataFrame({"prompt": ["b"]}).claude_batch.attach(run.id, client=api.client())


def test_load_gives_the_columns_on_the_stored_index(api, clock):
    """A run loaded without a frame has its added columns on the index that was submitted."""
    frame = all_outcomes()
    out = settled(ask(frame, api, clock, name="mine")).result()
    loaded = pandas_batch.load("mine").result()
    assert loaded.index.equals(frame.index)
    pd.testing.assert_frame_equal(loaded, out[loaded.columns])
    with pytest.raises(RunNotFoundError, match="mine"):
        pandas_batch.load("mien")
    listed = pandas_batch.runs()
    assert listed["name"].tolist() == ["mine"]
    assert listed["status"].tolist() == ["collected"]


@cut_on_purpose
def test_failed_lists_the_rows_with_reasons(api, clock):
    """`failed` holds every row that had a prompt and has no usable answer, and no other."""
    plan_outcomes(api)
    frame = all_outcomes()
    run = ask(frame, api, clock)
    out = run.result()
    expected = out["status"].isin(["errored", "expired", "canceled"])
    assert run.failed["position"].tolist() == np.flatnonzero(expected).tolist()
    assert run.failed.index.equals(out.index[expected])
    assert run.failed["error"].notna().all()


@cut_on_purpose
def test_retry_asks_only_what_is_worth_it(api, clock):
    """`retry_failed` sends expired, canceled and overloaded rows, and gives back the whole frame."""
    plan_outcomes(api)
    frame = all_outcomes()
    run = settled(ask(frame, api, clock))
    before = run.result()
    api.faults.clear()
    retry = settled(run.retry_failed())
    after = retry.result()
    worth = before["status"].isin(["expired", "canceled"]) | before["error"].str.startswith("overloaded").fillna(False)
    assert api.batches[0].n_requests == worth.sum()
    assert (after.loc[worth.to_numpy(), "status"] == "succeeded").all()
    kept = ~worth.to_numpy()
    pd.testing.assert_frame_equal(after[kept], before[kept])
    assert retry.paid_usd < retry.cost_usd
    assert ask(frame, api, clock).id == retry.id, "the newest run of an identity comes back"
    assert run.retry_failed().id == retry.id, "the same retry made twice is the same retry"


def test_retry_all_with_a_change(api, clock):
    """`errors="all"` asks the others too, with changed options where given."""
    plan_outcomes(api)
    run = settled(ask(all_outcomes(), api, clock))
    api.faults.clear()
    out = settled(run.retry_failed(errors="all", max_tokens=77)).result()
    assert set(out["status"]) == {"succeeded", "skipped"}
    assert "max_tokens" not in set(out["stop_reason"].dropna())


def test_retry_of_nothing_is_the_run_itself(api, clock):
    """Where nothing failed nothing is asked, and that is said."""
    run = settled(ask(pd.DataFrame({"prompt": ["a"]}), api, clock))
    with pytest.warns(UserWarning, match="nothing to ask again, and nothing was sent; no row failed"):
        assert run.retry_failed() is run
    assert len(api.batches) == 1


def test_cancel_keeps_what_finished(api, clock):
    """A cancel stops the batch; answers that were there already are kept and their cost told."""
    frame = pd.DataFrame({"prompt": [f"p{i}" for i in range(50)]})
    with clock.held():
        run = ask(frame, api, clock)
        until(run, "in_progress")
        told = run.cancel()
    out = run.result()
    assert "1 of 1" in told
    assert set(out["status"]) <= {"succeeded", "canceled"}
    assert (out["status"] == "canceled").any()
    assert out["cost_usd"].sum() == pytest.approx(float(api.billed_usd), abs=1e-12)


def test_delete_removes_the_run_here_and_there(api, clock):
    """A deleted run is gone from the store, and from the server when asked."""
    run = settled(ask(pd.DataFrame({"prompt": ["canary-prompt"]}), api, clock))
    store = run.store
    run.delete(server=True)
    assert api.batches == []
    with pytest.raises(RunNotFoundError):
        pandas_batch.load(run.id)
    for path in store.path.rglob("*"):
        assert not path.is_file() or b"canary-prompt" not in path.read_bytes()


def test_delete_spares_what_another_run_needs(api, clock):
    """Deleting a run leaves the answers that another run points at."""
    frame = pd.DataFrame({"prompt": ["a", "b"]})
    first = settled(ask(frame, api, clock))
    second = settled(ask(pd.DataFrame({"prompt": ["b", "a", "c"]}), api, clock))
    first.delete(server=True)
    assert reopened(second).result()["status"].tolist() == ["succeeded"] * 3


def test_timeout_carries_the_run(api, clock):
    """A wait that ends early says so and the run goes on."""
    with clock.held():
        run = ask(pd.DataFrame({"prompt": ["a"]}), api, clock)
        with pytest.raises(WaitTimeout) as told:
            run.wait(timeout=0)
    assert told.value.run is run
    assert run.id in str(told.value)
    assert run.result()["status"].tolist() == ["succeeded"]


def test_await_gives_the_same_frame(api, clock):
    """`await run` and `asubmit` give what `result` gives."""
    frame = all_outcomes()
    run = ask(frame, api, clock)

    async def wait() -> pd.DataFrame:
        return await run

    pd.testing.assert_frame_equal(asyncio.run(wait()), run.result())


def test_results_gone_after_29_days(api, clock):
    """Results that the server no longer has are told with their dates; what came home stays."""
    with clock.held():
        run = ask(pd.DataFrame({"prompt": ["a"]}), api, clock)
        until(run, "in_progress")
        clock.advance(30 * 86400)
    with pytest.raises(ResultsGoneError) as told:
        run.result()
    assert "2026-11-23" in str(told.value)
    assert run.result(partial=True)["status"].tolist() == ["missing"]


def test_refused_create_blocks_and_the_same_line_resumes(api, clock):
    """A refused create is raised with the state of the money; the same line goes on when its cause is gone."""
    import anthropic

    frame = pd.DataFrame({"prompt": ["a"]})
    api.faults.add(ErrorAnswer("create", 402, times=1))
    run = ask(frame, api, clock)
    with pytest.raises(anthropic.APIStatusError) as told:
        run.result()
    assert any(run.id in note for note in told.value.__notes__)
    assert run.status == "blocked"
    again = ask(frame, api, clock)
    assert again.id == run.id
    assert again.result()["status"].tolist() == ["succeeded"]
    assert len(api.batches) == 1


def test_observer_that_raises_is_dropped(api, clock):
    """A display that fails is warned about and never stops the run."""
    seen = threading.Event()

    def broken(status) -> None:
        seen.set()
        raise ValueError("no screen")

    frame = pd.DataFrame({"prompt": ["a"]})
    with clock.held():
        run = ask(frame, api, clock)
        run.observe(broken)
    with pytest.warns(UserWarning, match="was dropped"):
        assert run.result()["status"].tolist() == ["succeeded"]
    assert seen.is_set()


def test_warnings_count_what_was_cut(api, clock):
    """One warning after a run counts the succeeded rows that are not whole, and points at the caller."""
    api.faults.add(RowFault("truncated"))
    run = ask(pd.DataFrame({"prompt": ["a", "b"]}), api, clock)
    with pytest.warns(UserWarning, match="2 were cut at max_tokens") as caught:
        run.result()
    assert caught[0].filename == __file__


def test_answers_outside_the_batch_tier_are_told(api, clock):
    """What the server says it answered at the full price is counted in a warning; whole batch answers say nothing."""
    run = ask(pd.DataFrame({"prompt": ["a", "b"]}), api, clock)
    run.result()
    api.answer = lambda params: Reply("yes", usage={"service_tier": "standard"})
    run = ask(pd.DataFrame({"prompt": ["c", "d", "e"]}), api, clock)
    with pytest.warns(UserWarning, match="outside the batch tier \\(3 as 'standard'\\)"):
        run.result()


def test_to_jsonl_is_what_the_server_sent(api, clock, tmp_path):
    """The raw results come out as they came in."""
    run = settled(ask(all_outcomes(), api, clock))
    written = run.to_jsonl(tmp_path / "raw.jsonl").read_bytes()
    assert (
        written == b"".join(line.rstrip(b"\n") + b"\n" for line in api.batches[0].result_lines())
        or len(written.splitlines()) == api.batches[0].n_requests
    )


def test_store_is_compacted_after_the_run(api, clock):
    """Of a finished batch no request of an answered row stays on disk, and the results are compressed."""
    run = settled(ask(pd.DataFrame({"prompt": [f"secret {i}" for i in range(100)]}), api, clock))
    key = run.record.batch_keys[0]
    store = Store.open()
    assert not store.files.spool_path(key).exists()
    assert not store.files.results_path(key).exists()
    assert store.files.has_results(key)


def test_recover_brings_answers_home_without_a_store(api, clock, tmp_path, monkeypatch):
    """With the store lost, the frame alone finds its answers on the server; nothing is paid."""
    frame = pd.DataFrame({"prompt": [f"p{i}" for i in range(30)]})
    out = settled(ask(frame, api, clock)).result()
    api.add_decoy(30)
    clock.advance(3600)
    monkeypatch.setenv("PANDAS_BATCH_HOME", str(tmp_path / "new"))
    home = pandas_batch.recover(
        frame.iloc[::-1], prompt_col="prompt", client=api.client(), progress="off", preflight=False, clock=clock
    )
    pd.testing.assert_frame_equal(home.iloc[::-1], out)
    n_batches = len(api.batches)
    ask(frame.iloc[::-1], api, clock).result()
    assert len(api.batches) == n_batches


def test_batches_of_a_run_speak_as_the_api_does(api, clock):
    """Each batch on the server has a state that the API knows, before its end and after it."""
    with clock.held():
        run = ask(pd.DataFrame({"prompt": ["a", "b"]}), api, clock)
        until(run, "in_progress")
        assert [job.status for job in run.batches] == ["in_progress"]
    run.result()
    (job,) = run.batches
    assert (job.batch_id, job.status, job.is_complete) == (api.batches[0].id, "ended", True)


def test_a_deleted_run_still_has_a_repr(api, clock):
    """Debuggers and tracebacks show what a variable holds: its handle outlives the run."""
    run = settled(ask(pd.DataFrame({"prompt": ["a"]}), api, clock))
    run.delete()
    assert repr(run) == f"<Run {run.id}: not in the store any more>"
