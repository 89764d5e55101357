"""A display that fails stops nothing: neither the preparing of a call, nor its driving, nor the end of a wait."""

from __future__ import annotations

import pandas as pd
import pytest
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes

from pandas_batch.display import progress
from pandas_batch.display.display import Display

FAILING = ("made", "update", "finish", "interrupted", "set_blocking", "show", "withdraw")


def failing_at(name: str, n_before: int) -> type[Display]:
    """Return a display that fails at a call of that name, after `n_before` that went well."""

    class Failing(Display):
        def __init__(self) -> None:
            self.n_calls = 0
            self.call("made")

        def call(self, called: str) -> None:
            if called == name:
                self.n_calls += 1
                if self.n_calls > n_before:
                    raise TypeError("a front end that is not as it should be")

    def method(called: str):
        def call(self: Failing, *arguments: object) -> bool:
            self.call(called)
            return False

        return call

    for called in FAILING[1:]:
        setattr(Failing, called, method(called))
    return Failing


@cut_on_purpose
@pytest.mark.parametrize("n_before", [0, 1, 2])
@pytest.mark.parametrize("name", FAILING)
def test_whatever_fails_of_a_display_the_answers_come_home(api, clock, monkeypatch, capsys, name, n_before):
    """At whichever call the display fails, the run goes on to its end, and the failure is one line on stderr."""
    plan_outcomes(api)
    plain = ask(all_outcomes(), api, clock, progress="off", name="plain").result()
    failing = failing_at(name, n_before)
    monkeypatch.setattr(progress, "_choose", lambda mode, actions, **given: failing())
    monkeypatch.setattr(progress, "in_kernel", lambda: True)
    run = ask(all_outcomes(), api, clock, progress="auto", system="another")
    out = run.result()
    pd.testing.assert_series_equal(out["status"], plain["status"])
    told = capsys.readouterr().err
    assert told.count("the display failed and was dropped (TypeError)") <= 2
    if name in ("made", "update") and n_before == 0:
        assert "the display failed and was dropped (TypeError); the run goes on without." in told
