"""Rows that are asked again because the user says so, whatever became of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes

import pandas_batch
from pandas_batch import simulator
from pandas_batch.errors import BudgetError, InputError
from pandas_batch.run.chosen_rows import positions_of
from pandas_batch.run.starting import attach_run


@given(st.data())
def test_a_mask_and_its_labels_choose_the_same_rows(data):
    """Bools in any form choose by place, labels every row that has them."""
    n = data.draw(st.integers(0, 6))
    index = pd.Index(data.draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n)), dtype=object)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=bool)
    wanted = np.flatnonzero(mask).tolist()
    for form in (mask, pd.Series(mask, index=index), pd.array(mask, dtype="boolean"), *([mask.tolist()] if n else [])):
        assert positions_of(form, index).tolist() == wanted
    labels = sorted({*index[mask]})
    for chosen in (labels, pd.Index(labels, dtype=object), pd.Series(0, index=labels), pd.DataFrame(index=labels)):
        assert positions_of(chosen, index).tolist() == np.flatnonzero(index.isin(labels)).tolist()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("a", "is str"),
        (5, "is int"),
        ([True], "mask of 1 rows; the frame has 3"),
        (["a", "x", "y"], "'x' and 1 more"),
        (pd.Series([True, False], index=["a", "a"]), "repeated labels"),
        ([["a"]], "no label"),
    ],
)
def test_what_chooses_no_rows_is_refused(rows: Any, reason: str) -> None:
    """A text, a mask of another length, and labels that the frame lacks are told before anything is sent."""
    with pytest.raises(InputError) as caught:
        positions_of(rows, pd.Index(["a", "b", "c"]))
    assert reason in str(caught.value)


@cut_on_purpose
def test_rows_of_every_outcome_are_asked_again(api, clock):
    """Each chosen row that has a request is asked again, once per request; the others keep their answers."""
    plan_outcomes(api)
    frame = all_outcomes()
    run = ask(frame, api, clock)
    before = run.result()
    api.faults.clear()
    api.answer = lambda params: "again"
    mask = np.arange(len(frame)) % 2 == 0
    again = run.retry_failed(rows=mask)
    out = again.result()
    has_request = before["status"].ne("skipped").to_numpy()
    chosen_prompts = set(frame["prompt"].to_numpy()[mask & has_request])
    is_new = frame["prompt"].isin(chosen_prompts).to_numpy()
    assert (out["output"][is_new] == "again").all()
    pd.testing.assert_frame_equal(out[~is_new], before[~is_new])
    assert run.retry_failed(rows=mask).id == again.id
    assert again.paid_usd == pytest.approx(out["cost_usd"][is_new].sum())
    assert ask(frame, api, clock).id == again.id  # the newest of the identity is what the line gives


def test_with_another_prompt_and_from_a_later_session(api, clock, monkeypatch):
    """`system=` changes what the chosen rows are asked; a handle without the frame says how to give it."""
    api.answer = lambda params: simulator.Reply(str(params.get("system")))
    frame = pd.DataFrame({"prompt": ["x", "y", "z"]}, index=["a", "b", "c"])
    run = ask(frame, api, clock, system="one", samples=2)
    run.result()
    # As it is when the batch has been made small, which the store does in its own time.
    monkeypatch.setattr("pandas_batch.run.retrying.spool_lines", lambda spool: iter(()))
    loaded = pandas_batch.load(run.id, client=api.client())
    n_created = api.calls("create")
    with pytest.raises(InputError, match="not in the store any more") as caught:
        loaded.retry_failed(rows=["b"])
    assert f'attach("{run.id}")' in str(caught.value)
    assert api.calls("create") == n_created
    attached = attach_run(frame.iloc[::-1], run, {})
    with pytest.raises(BudgetError):
        attached.retry_failed(rows=["b"], system="two", max_cost_usd=0)
    out = attached.retry_failed(rows=["b"], system="two").result()
    assert out["output"].to_dict() == {"a": ["one"] * 2, "b": ["two"] * 2, "c": ["one"] * 2}


def test_nothing_to_ask_sends_nothing(api, clock):
    """No rows, or rows without a request: the run itself comes back, with a word."""
    run = ask(pd.DataFrame({"prompt": ["x", None]}), api, clock)
    run.result()
    n_created = api.calls("create")
    for rows in ([], [1], [False, False]):
        with pytest.warns(UserWarning, match="no chosen row has a request"):
            assert run.retry_failed(rows=rows) is run
    assert api.calls("create") == n_created


def test_a_mask_with_gaps_chooses_what_is_true() -> None:
    """What a comparison of texts gives where a text is missing chooses no row."""
    mask = pd.Series([True, None, False], dtype=object)
    assert positions_of(mask, mask.index).tolist() == [0]
    assert positions_of([True, np.nan, False], pd.Index(["a", "b", "c"])).tolist() == [0]


TWO = pd.DataFrame({"prompt": ["one", "two"]})


def by_system(params: dict[str, Any]) -> str:
    return f"[{params.get('system')}] {params['messages'][-1]['content']}"


def test_an_answer_is_found_by_what_was_asked_in_fact(clock) -> None:
    """What a retry of a changed retry asks is filed under the changed request: no plain request finds its answer."""
    with simulator.serve(clock=clock.time_s, answer=by_system) as api:
        first = ask(TWO, api, clock)
        first.result()
        changed = first.retry_failed(rows=[0], system="CAPS")
        assert changed.result()["output"].tolist() == ["[CAPS] one", "[None] two"]
        assert changed.engine is None or changed.engine.join(20)  # made small meanwhile
        again = changed.retry_failed(rows=[0])
        assert again.result()["output"].tolist() == ["[CAPS] one", "[None] two"]
        other = ask(pd.DataFrame({"prompt": ["one", "new"]}), api, clock).result()
        assert other["output"].tolist() == ["[None] one", "[None] new"]


@pytest.mark.parametrize("given", [{}, {"system": "CAPS"}], ids=["as it was", "changed"])
def test_a_chosen_row_that_was_canceled_is_asked_and_not_taken_from_before(clock, given: dict[str, Any]) -> None:
    """The answer that the user did not want is no answer to the row that was asked again, however that ended."""
    with simulator.serve(clock=clock.time_s, answer=by_system, seconds_per_batch=3600) as api:
        first = ask(TWO, api, clock)
        first.result()
        with clock.held():
            run = first.retry_failed(rows=[0], **given)
            run.wait_submitted(20)
            run.cancel()
        run.wait()
        assert run.result()["status"].tolist()[0] == "canceled"
        n_billed = len(api.billed)
        out = run.retry_failed().result()
        assert out["output"].tolist()[0] == f"[{given.get('system')}] one"
        assert len(api.billed) == n_billed + 1
