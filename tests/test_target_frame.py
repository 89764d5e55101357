"""A run that is bound to a frame answers for that frame: its rows, its labels, its money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes

import pandas_batch
from pandas_batch import simulator
from pandas_batch.clock import Clock
from pandas_batch.display.account import static_html, text_account
from pandas_batch.results.row_status import FAILED
from pandas_batch.run.run import Run
from pandas_batch.run.starting import attach_run
from pandas_batch.types import RunStatus

N_ROWS = len(all_outcomes())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Run]]:
    """Runs over rows of every outcome, with one and with two answers per row."""
    with simulator.serve(seconds_per_batch=0) as api, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pandas_batch.run.recording.MAX_BATCH_REQUESTS", 5)
        plan_outcomes(api)
        made = {}
        for samples in (1, 2):
            store = str(tmp_path_factory.mktemp(f"store{samples}"))
            line = {"client": api.client(), "progress": "off", "preflight": False, "poll_interval": 0.01}
            made[samples] = all_outcomes().claude_batch.start("prompt", samples=samples, store=store, **line).wait()
        yield made


def attached(run: Run, frame: pd.DataFrame) -> Run:
    return attach_run(frame, run, {"progress": "off"})


def has_failed(frame: pd.DataFrame) -> np.ndarray:
    def any_of(cell: Any) -> bool:
        return any(one in FAILED for one in (cell if isinstance(cell, list) else [cell]))

    return frame["status"].map(any_of).to_numpy(dtype=bool)


def total(column: pd.Series) -> float:
    return float(sum(value for cell in column for value in (cell if isinstance(cell, list) else [cell])))


@cut_on_purpose
@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.integers(0, N_ROWS - 1), min_size=1, max_size=25), samples=st.sampled_from([1, 2]))
def test_whatever_rows_it_is_bound_to_it_answers_for_those(runs: dict[int, Run], rows: list[int], samples: int) -> None:
    """For rows left out, moved or doubled: counts, failed and cost are those of the frame's own result."""
    frame = all_outcomes().iloc[rows]
    frame = frame.set_axis([f"new {i}" for i in range(len(rows))])
    frame.loc[f"new {len(rows) - 1}", "prompt"] = None if len(rows) > 1 else frame["prompt"].iloc[0]
    if not frame["prompt"].str.strip().fillna("").ne("").any():
        return
    part = attached(runs[samples], frame)
    out = part.result(partial=True)
    assert sum(part.counts.values()) == len(frame) == part.snapshot().n_rows
    assert part.cost_usd == pytest.approx(total(out["cost_usd"]), abs=1e-12)
    failed = has_failed(out)
    assert part.failed.index.tolist() == out.index[failed].tolist()
    assert part.failed["position"].tolist() == np.flatnonzero(failed).tolist()
    assert part.failed["error"].tolist() == out["error"][failed].tolist()
    told = part.summary()
    assert (told["rows"], told["cost (USD)"]) == (len(frame), part.cost_usd)
    shown = part.snapshot()
    assert (shown.n_failed, dict(shown.counts)) == (failed.sum(), part.counts)
    assert [row.label for row in shown.failed] == out.index[failed].tolist()[:10]
    if samples == 1:
        assert part.counts == dict(Counter(out["status"]))


def test_a_row_of_no_run_is_unsent_in_the_account_too(api: simulator.Simulator, clock: Clock) -> None:
    """Rows that the run never held are counted as unsent, cost nothing and have not failed."""
    run = ask(pd.DataFrame({"prompt": ["a", "b"]}), api, clock)
    run.result()
    part = attached(run, pd.DataFrame({"prompt": ["b", "new", None]}))
    assert part.counts == {"succeeded": 1, "unsent": 1, "skipped": 1}
    assert part.cost_usd == part.result()["cost_usd"].sum() == run.result()["cost_usd"][1]
    assert part.failed.empty


def test_a_part_is_retried_and_paid_for_alone(api: simulator.Simulator, clock: Clock) -> None:
    """A retry asks for the rows it is bound to; the same again asks for nothing; the whole asks for the rest."""
    frame = pd.DataFrame({"prompt": [f"q{i}" for i in range(10)]})
    api.faults.add(simulator.RowFault("overloaded"))
    run = ask(frame, api, clock)
    run.result()
    api.faults.clear()
    part = attached(run, frame.iloc[[7, 2]])
    again = part.retry_failed()
    assert again.result()["status"].tolist() == ["succeeded"] * 2
    assert (len(api.billed), again.counts, again.failed.empty) == (2, {"succeeded": 2}, True)
    assert again.paid_usd == pytest.approx(float(api.billed_usd), abs=1e-12)
    assert attached(run, frame.iloc[[2, 7]]).retry_failed().id == again.id
    assert len(api.billed) == 2
    whole = ask(frame, api, clock)
    assert whole.result()["status"].eq("succeeded").tolist() == [i in (2, 7) for i in range(10)]
    assert run.retry_failed().result()["status"].eq("succeeded").all()
    assert len(api.billed) == 10


def test_a_frame_in_another_order_makes_no_other_retry(api: simulator.Simulator, clock: Clock) -> None:
    """All rows in another order are the whole: what failed again in its retry is not asked for a second time."""
    frame = pd.DataFrame({"prompt": ["a", "b", "a"]})
    api.faults.add(simulator.RowFault("overloaded"))
    run = ask(frame, api, clock)
    run.result()
    again = run.retry_failed()
    again.result()
    assert attached(run, frame.iloc[::-1]).retry_failed().id == again.id
    assert len(api.batches) == 2


def test_labels_are_those_of_the_newest_call(api: simulator.Simulator, clock: Clock) -> None:
    """The same texts under other labels are the same run, and its failed rows have the labels of the last frame."""
    api.faults.add(simulator.RowFault("errored", marker="bad"))
    frame = pd.DataFrame({"prompt": ["bad 1", "good", "bad 2"]})
    ask(frame, api, clock).result()
    for labels in (["x", "y", "z"], [2, 1, 0], pd.MultiIndex.from_tuples([(1, "a"), (1, "b"), (2, "a")]), range(3)):
        named = frame.set_axis(labels)
        run = ask(named, api, clock)
        pd.testing.assert_index_equal(run.failed.index, named.index[[0, 2]])
        loaded = pandas_batch.load(run.id, client=api.client())
        pd.testing.assert_index_equal(loaded.result().index, named.index)
        assert [row.label for row in loaded.snapshot().failed] == [str(label) for label in named.index[[0, 2]]]
    assert len(api.batches) == 1


def test_two_handles_on_one_engine_show_their_own_rows(api: simulator.Simulator, clock: Clock) -> None:
    """While a run goes on, whoever watches it by a part of its rows sees that part, and the whole sees the whole."""
    frame = pd.DataFrame({"prompt": [f"q{i}" for i in range(4)]})
    seen: dict[str, list[RunStatus]] = {"whole": [], "part": []}
    with clock.held():
        run = ask(frame, api, clock)
        run.observe(seen["whole"].append)
        part = attached(run, frame.head(1))
        forget = part.observe(seen["part"].append)
    run.wait()
    assert run.engine is not None
    assert run.engine.join(20)
    assert {status.n_rows for status in seen["whole"]} == {4}
    assert {status.n_rows for status in seen["part"]} == {1}
    forget()


def test_a_comparison_is_of_the_rows_that_both_hold(api: simulator.Simulator, clock: Clock) -> None:
    """A dear prompt on a few rows is compared with what these rows cost before, however many others there were."""
    api.answer = lambda params: "ok " * (60 if params.get("system") == "long" else 1 + len(str(params["messages"])) % 7)
    frame = pd.DataFrame({"prompt": [f"q{i}" for i in range(40)]})
    base = ask(frame, api, clock, system="short")
    base.result()
    new = ask(frame.head(4), api, clock, system="long")
    new.result()
    for old in (base, attached(base, frame.head(4)), attached(base, frame.iloc[5::-1])):
        compared = pandas_batch.compare_runs(old, new, max_cost_ratio=1.2)
        assert not compared.ok
        assert compared.a.cost_usd == pytest.approx(base.result()["cost_usd"].head(4).sum(), abs=1e-12)
        assert (compared.a.n_succeeded, compared.b.n_succeeded, compared.n_paired) == (4, 4, 4)


def test_the_advice_names_the_run_and_asks_for_something(api: simulator.Simulator, clock: Clock) -> None:
    """The line under a run is of that run and its rows, and is only there where it would ask for something."""
    frame = pd.DataFrame({"prompt": ["bad", "worse", "fine"]})
    fault = api.faults.add(simulator.RowFault("overloaded", marker="bad"))
    api.faults.add(simulator.RowFault("errored", marker="worse"))
    run = ask(frame, api, clock)
    run.result()

    def advice(of: Run) -> list[str]:
        status = of.snapshot()
        text = text_account(status) + static_html(status).replace("&quot;", '"')
        assert text.count("retry_failed") == (2 if status.retry else 0)
        assert text.count(status.retry) >= 2
        return [status.retry]

    assert advice(run) == [f'pandas_batch.load("{run.id}").retry_failed()']
    assert advice(attached(run, frame.head(2))) == [f'df.claude_batch.attach("{run.id}").retry_failed()']
    (line,) = advice(attached(run, frame.iloc[[1]]))
    assert line.startswith(f'df.claude_batch.attach("{run.id}").retry_failed(errors="all")')
    assert advice(attached(run, frame.iloc[[2]])) == [""]
    del fault
    n_posted = len(api.batches)
    with pytest.warns(UserWarning, match="there is nothing to ask again, and nothing was sent; 1 row failed"):
        attached(run, frame.iloc[[1]]).retry_failed()
    assert len(api.batches) == n_posted


def test_a_run_from_the_store_says_that_nothing_was_paid(api: simulator.Simulator, clock: Clock) -> None:
    """Coming back to a finished run looks like no second bill; the handle that paid for it does not say so."""
    frame = pd.DataFrame({"prompt": ["a"]})
    first = ask(frame, api, clock)
    first.result()
    words = "rom the store: nothing was sent, $0.00 paid now"
    assert words not in text_account(first.snapshot())
    for again in (ask(frame, api, clock), pandas_batch.load(first.id), attached(first, frame)):
        assert words in text_account(again.snapshot())
        assert words in static_html(again.snapshot())


def test_what_failed_is_told_as_it_is(api: simulator.Simulator, clock: Clock) -> None:
    """All rows, the one row, or some of them: the first word about a run is true."""
    api.faults.add(simulator.RowFault("errored", marker="bad"))
    said = {}
    for name, prompts in {"all": ["bad 1", "bad 2"], "one": ["bad 1"], "some": ["bad", "fine"], "none": ["x"]}.items():
        run = ask(pd.DataFrame({"prompt": prompts}), api, clock)
        run.result()
        said[name] = text_account(run.snapshot()).splitlines()[0]
    assert "finished, all rows failed" in said["all"]
    assert "finished, the row failed" in said["one"]
    assert "finished, some rows failed" in said["some"]
    assert "failed" not in said["none"]
