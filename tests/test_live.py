"""The check of the real API, tried on the simulator: it settles its questions, and says what contradicts us."""

from __future__ import annotations

import io

import pytest

from pandas_batch import live, simulator
from pandas_batch.simulator.faults import BadResults, ErrorAnswer, ListLag
from pandas_batch.wire.wire import Wire


def check(api: simulator.Simulator, clock, *, other: str | None = None, **options) -> live.Report:
    """Run the check against a simulator."""
    with Wire(api.client(), clock=clock) as wire:
        second = Wire(api.client(api_key=other), clock=clock) if other else None
        return live.LiveCheck(wire, other=second, clock=clock, **options).run()


@pytest.fixture
def slow_api(clock):
    """A server with two workspaces, whose batches take a minute."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=60, workspaces={"other": "wrkspc_other"}) as api:
        api.add_decoy(2)
        clock.advance(10)
        yield api


def test_every_question_is_settled(slow_api, clock):
    """On a server that does as we assume, every question is settled, nothing is contradicted, nothing is left there."""
    report = check(slow_api, clock, other="other")
    assert [f.question for f in report.findings if f.holds is not True] == []
    assert len(report.findings) == 10
    assert "No assumption was contradicted." in report.markdown()
    assert len([batch for batch in slow_api.batches if not batch.decoy]) == 0
    assert slow_api.calls("create") == 1
    assert float(slow_api.billed_usd) <= live.most_cost_usd(live.MODEL)


def test_without_a_second_key_that_question_stays_open(slow_api, clock):
    """What cannot be asked is said to be not settled, and is no contradiction."""
    report = check(slow_api, clock)
    (open_one,) = [finding for finding in report.findings if finding.holds is None]
    assert "workspace" in open_one.question
    assert live.SECOND_KEY in open_one.seen


@pytest.mark.parametrize(
    ("fault", "assumption"),
    [
        (ListLag(7.0), "a new batch is listed at once"),
        (ListLag(300.0), "a new batch is listed at once"),
        (BadResults("gzip", times=None), "results come as they are"),
        (BadResults("missing", n_rows=1, times=None), "2 line ends"),
        (ErrorAnswer("retrieve", 403, skip=13, times=None), "HTTP 404"),
    ],
)
def test_a_contradiction_is_named(slow_api, clock, fault, assumption):
    """Where the server does otherwise, the report names the assumption that does not hold."""
    slow_api.faults.add(fault)
    report = check(slow_api, clock)
    assert [finding.assumption for finding in report.contradicted] == [assumption]
    assert assumption in report.markdown().rpartition("Contradicted: ")[2]


def test_a_batch_that_does_not_end_is_told(slow_api, clock):
    """When patience ends first, the batch is named and the rest stays open."""
    report = check(slow_api, clock, patience_s=20)
    assert any("has not ended" in finding.seen for finding in report.findings if finding.holds is None)


def live_main(api, clock, monkeypatch, *arguments: str, typed: str = "") -> int:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "simulator")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", api.base_url)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    return live.main(arguments, clock=clock)


@pytest.mark.parametrize("typed", ["", "\n", "n\n"])
def test_nothing_is_spent_without_a_yes(slow_api, clock, monkeypatch, capsys, typed):
    """Without a typed yes nothing is sent, and the price stood in the question."""
    assert live_main(slow_api, clock, monkeypatch, typed=typed) == 2
    assert slow_api.requests == []
    assert "$0.0000" in capsys.readouterr().out


def test_the_command_prints_its_report(slow_api, clock, monkeypatch, capsys):
    """With a yes the report is printed, and its verdict is the exit status."""
    assert live_main(slow_api, clock, monkeypatch, typed="y\n") == 0
    assert "| Is a new batch listed at once? |" in capsys.readouterr().out
    slow_api.faults.add(ListLag(7.0))
    assert live_main(slow_api, clock, monkeypatch, "--yes") == 1


def test_an_unpriced_model_is_refused(slow_api, clock, monkeypatch):
    """A model of unknown price is not asked."""
    assert live_main(slow_api, clock, monkeypatch, "--yes", "--model", "claude-unheard-of") == 2
    assert slow_api.requests == []


def test_without_a_key_nothing_happens(clock, capsys):
    """Without credentials the command says what is missing."""
    assert live.main(["--yes"], clock=clock) == 2
    assert "ANTHROPIC_API_KEY" in capsys.readouterr().err
