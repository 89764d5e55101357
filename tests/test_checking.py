"""`run.check()`: the last line of a job that nobody watches."""

from __future__ import annotations

import pandas as pd
import pytest
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes

from pandas_batch.errors import InputError, WaitTimeout, WorseRunError
from pandas_batch.run.library import load


@cut_on_purpose
def test_the_share_of_failed_rows_is_held_against_the_limit(api, clock):
    """Of the rows with a prompt at most the share may have failed; a row without one counts for nothing."""
    plan_outcomes(api)
    run = ask(all_outcomes(), api, clock).wait()
    n_asked, n_failed = sum(run.counts.values()) - run.counts["skipped"], len(run.failed)
    assert run.check(max_failed=n_failed / n_asked) is run
    with pytest.raises(WorseRunError) as caught:
        run.check(max_failed=(n_failed - 1) / n_asked)
    assert f"{n_failed} failed" in str(caught.value)
    assert "retry_failed" in str(caught.value)
    with pytest.raises(WorseRunError, match=r"at most 2\.0% may"):
        run.check()


def test_the_cost_is_held_against_the_limit(api, clock):
    """What the answers cost may be the limit itself; an unknown cost is above every limit."""
    run = ask(pd.DataFrame({"prompt": ["a", None]}), api, clock).wait()
    assert run.check(max_cost_usd=run.cost_usd) is run
    with pytest.raises(WorseRunError, match="at most"):
        run.check(max_cost_usd=run.cost_usd / 2)
    unknown = ask(pd.DataFrame({"prompt": ["a"]}), api, clock, prices={}, model="claude-haiku-4-5").wait()
    assert unknown.check(max_failed=0.0) is unknown


@pytest.mark.parametrize("limits", [{"max_failed": 2}, {"max_failed": True}, {"max_cost_usd": -1}], ids=str)
def test_a_limit_that_is_none_is_refused(api, clock, limits):
    """A share is from 0 to 1, a cost from 0."""
    run = ask(pd.DataFrame({"prompt": []}, dtype=str), api, clock)
    with pytest.raises(InputError):
        run.check(**limits)
    run.check()


def test_a_timeout_of_the_call_ends_a_check_and_is_not_kept_with_the_run(api, clock):
    """`timeout=` is of the call: a check obeys it, and whoever loads the run waits as long as it takes."""
    api.seconds_per_batch = 80_000.0  # a played clock is there in no time
    run = ask(pd.DataFrame({"prompt": ["a", "b"]}), api, clock, timeout=20)
    with pytest.raises(WaitTimeout) as caught:
        run.check()
    assert "load(" in caught.value.hint
    assert load(run.id, client=api.client(), clock=clock).result()["status"].eq("succeeded").all()
