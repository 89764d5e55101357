"""Failed rows are grouped by their cause, each with what helps; every line that is advised does what it says."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

import pandas_batch
from pandas_batch import simulator
from pandas_batch.display.account import static_html, text_account
from pandas_batch.run.worth_asking import advice_on

from .conftest import FakeClock as Clock


def start(api: simulator.Simulator, clock: Clock, prompts: list[str], **options: Any) -> Any:
    from pandas_batch.requests.options import parse_options
    from pandas_batch.run.starting import start_run

    frame = pd.DataFrame({"prompt": prompts}, index=[f"r{i}" for i in range(len(prompts))])
    given = {"client": api.client(), "progress": "off", "preflight": False} | options
    return start_run(frame, parse_options(given, prompt_col="prompt"), blocking=False, clock=clock)


def test_rows_that_failed_alike_are_one_kind(api: simulator.Simulator, clock: Clock) -> None:
    """The most frequent kind comes first, with its number of rows, its first labels, and whether asking again helps."""
    api.faults.add(simulator.RowFault("errored", marker="busy", kind="overloaded_error", message="Overloaded"))
    api.faults.add(simulator.RowFault("errored", marker="wrong", kind="invalid_request_error", message="No."))
    run = start(api, clock, ["fine", "busy 1", "wrong 1", "busy 2", "busy 3", "busy 4", "wrong 2"])
    run.wait()
    first, second = run.snapshot().kinds
    assert (first.error, first.n_rows, first.advice, first.examples) == (
        "overloaded_error: Overloaded",
        4,
        "yes",
        ("r1", "r3", "r4"),
    )
    assert (second.n_rows, second.advice, second.examples) == (2, "no: change the prompt", ("r2", "r6"))


@pytest.mark.parametrize("kind", ["overloaded_error", "invalid_request_error"])
def test_the_line_that_is_advised_asks_again_for_what_failed(api: simulator.Simulator, clock: Clock, kind: str) -> None:
    """Typed as it stands, the line of the account names this run, and sends the rows that failed and no other."""
    api.faults.add(simulator.RowFault("errored", marker="bad", kind=kind, message="x", times=1))
    run = start(api, clock, ["good", "bad"])
    run.wait()
    other = start(api, clock, ["another run"])
    other.wait()
    status = run.snapshot()
    for shown in (text_account(status), static_html(status).replace("&quot;", '"')):
        assert status.retry in shown
    assert run.id in status.retry
    assert f'pandas_batch.load("{run.id}").failed' in static_html(status).replace("&quot;", '"')
    assert pandas_batch.load(run.id, clock=clock).failed.index.tolist() == ["r1"]
    loaded = re.match(r'pandas_batch\.load\("(\w+)"\)\.retry_failed\((.*?)\)', status.retry)
    assert loaded is not None
    again = pandas_batch.load(loaded[1], client=api.client(), clock=clock)
    retried = eval(f"again.retry_failed({loaded[2]})", {"again": again})
    assert retried.result()["status"].tolist() == ["succeeded"] * 2
    assert len(api.billed) == 3


def test_where_nothing_failed_nothing_is_advised(api: simulator.Simulator, clock: Clock) -> None:
    """A run that went well advises no line, and neither does one whose rows had no prompt."""
    run = start(api, clock, ["good", ""])
    run.wait()
    assert run.snapshot().retry == ""
    assert "retry_failed" not in static_html(run.snapshot()) + text_account(run.snapshot())


@pytest.mark.parametrize(
    ("status", "error", "advice"),
    [
        ("expired", "expired: after 24 hours", "yes"),
        ("missing", "missing: the server has no result", "yes"),
        ("errored", "rate_limit_error: slow down", "yes"),
        ("errored", "billing_error: none left", "no: buy credit first"),
        ("errored", "new_error: x", "no: change what is asked"),
        ("invalid", "invalid: cut at max_tokens", "no: raise max_tokens"),
        ("invalid", "invalid: not JSON", "no: change prompt or schema"),
        ("skipped", "not a text", "no: correct the row"),
    ],
)
def test_each_cause_has_its_advice(status: str, error: str, advice: str) -> None:
    """What helps depends on what was said."""
    assert advice_on(status, error) == advice


def test_a_stopped_run_says_who_stopped_it_and_what_is_out_there(api: simulator.Simulator, clock: Clock) -> None:
    """A spend limit in the middle: the server's words, what is on the server with its bound, what was not sent."""
    api.faults.add(simulator.spend_cap(skip=1))
    run = start(api, clock, ["a", "b"], warm_cache=True, cache_system=True, system="s", name="<spend>")
    with pytest.raises(Exception, match="usage limits"):
        run.wait()
    status = run.snapshot()
    assert status.stop is not None
    assert status.stop.why == "the spend limit of your organization is reached"
    assert status.stop.said.startswith("You have reached your API usage limits.")
    html, text = static_html(status), text_account(status)
    for shown in (html, text):
        assert "You have reached your API usage limits." in shown
        assert "1 was refused: not sent, not billed." in shown
        assert "what was sent is not paid twice" in shown
        assert "Settings → Limits" in shown
    assert "&lt;spend&gt;" in html
    # From the store alone, without the error at hand, it says the same.
    later = pandas_batch.load(run.id, clock=clock).snapshot()
    assert later.stop is not None
    assert later.stop.why == status.stop.why
