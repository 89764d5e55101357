"""The log of a run: a line for each thing that happens, where somebody has asked for it, and no text of anybody's."""

from __future__ import annotations

import logging
import re

import anthropic
import pandas as pd
import pytest
from rowlab import ask
from test_trial import tried

from pandas_batch import simulator
from pandas_batch.amounts import usd

FRAME = pd.DataFrame({"prompt": ["secret one", "secret two", "secret three", None]})


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what our logger wrote, level first, with the ids left out."""
    return [
        f"{record.levelname} " + re.sub(r"(run|msgbatch)_\w+", r"\1", record.getMessage())
        for record in caplog.records
        if record.name == "pandas_batch"
    ]


def test_a_run_is_told_from_start_to_home(api, clock, caplog: pytest.LogCaptureFixture) -> None:
    """Start, post, end, answers and the bill are one line each at INFO, and hold neither prompt nor answer."""
    caplog.set_level(logging.INFO, "pandas_batch")
    run = ask(FRAME, api, clock)
    run.result()
    assert run.engine is None or run.engine.join(20)
    assert lines(caplog) == [
        "INFO run run: 3 requests in 1 batches, 3 of them to be sent",
        "INFO run run: batch msgbatch posted, 3 requests",
        "INFO run run: batch msgbatch ended: 3 succeeded",
        "INFO run run: the answers of batch msgbatch are here",
        f"INFO run run: collected, paid {usd(run.paid_usd)}",
    ]
    assert "secret" not in caplog.text
    caplog.clear()
    ask(FRAME, api, clock).result()
    assert lines(caplog) == []


def test_what_went_wrong_is_a_warning(api, clock, caplog: pytest.LogCaptureFixture) -> None:
    """Rows that failed, a lost answer and a refused batch are told at WARNING, whatever INFO would say."""
    caplog.set_level(logging.WARNING, "pandas_batch")
    api.faults.add(simulator.LostAnswer("reset"))
    api.faults.add(simulator.RowFault("overloaded", marker="two", times=1))
    run = ask(FRAME, api, clock)
    run.result()
    assert run.engine is None or run.engine.join(20)
    unanswered, failed = lines(caplog)
    assert "was not answered; it is looked for" in unanswered
    assert failed == "WARNING run run: 1 of 3 requests failed or were canceled"
    caplog.clear()
    api.faults.add(simulator.ErrorAnswer("create", 403, message="'secret four' is not allowed"))
    refused = ask(FRAME.assign(prompt=["a", "b", "c", "d"]), api, clock)
    with pytest.raises(anthropic.PermissionDeniedError):
        refused.result()
    assert refused.engine is None or refused.engine.join(20)
    told = lines(caplog)
    assert "was refused (" in told[0]
    assert "secret four" not in caplog.text
    assert told[-1] == "WARNING run run stopped: PermissionDeniedError"


def test_whoever_configures_no_logging_sees_none(api, clock, capfd: pytest.CaptureFixture[str]) -> None:
    """The logger has a handler that says nothing: Python's own last resort prints no warning of ours."""
    ours = logging.getLogger("pandas_batch")
    assert any(isinstance(handler, logging.NullHandler) for handler in ours.handlers)


def test_what_is_asked_one_by_one_is_told_too(api, clock, caplog: pytest.LogCaptureFixture) -> None:
    """A trial is two lines at INFO, and a WARNING where a row has no answer; neither holds a text."""
    caplog.set_level(logging.INFO, "pandas_batch")
    tried(FRAME, api, clock)
    assert lines(caplog) == [
        "INFO run run: asking 3 requests now, one by one",
        "INFO run run: asked one by one: 3 succeeded",
    ]
    caplog.clear()
    api.faults.add(simulator.ErrorAnswer("messages", 400, message="'secret four' is not allowed", times=1))
    tried(FRAME.assign(prompt=["secret a", "secret b", None, None]), api, clock)
    assert lines(caplog)[1] == "WARNING run run: asked one by one: 1 errored, 1 succeeded"
    assert "secret" not in caplog.text
