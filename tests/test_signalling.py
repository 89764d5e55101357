"""Whoever waits elsewhere hears when a run is done: by a function of theirs, or by the bell of the terminal."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

import pandas_batch
from pandas_batch import simulator


@pytest.fixture
def server() -> Iterator[simulator.Simulator]:
    """Run a server whose batches take no time."""
    with simulator.serve(seconds_per_batch=0) as running:
        yield running


class Told:
    """What was called with which run, and from where."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.statuses: list[str] = []
        self.heard = threading.Event()

    def __call__(self, run: Any) -> None:
        self.runs.append(run.id)
        # A call that waits for the run must not wait for itself.
        self.statuses.append(",".join(run.result()["status"]) if run.status == "collected" else run.status)
        self.heard.set()


@pytest.mark.parametrize("progress", ["off", "text"])
def test_the_function_gets_the_run_once(server: simulator.Simulator, progress: Any) -> None:
    """It is called when the answers are home, may take the result, and is no part of what makes the run the same."""
    told = Told()
    frame = pd.DataFrame({"review": ["a", "b"]})
    run = frame.claude_batch.start("review", client=server.client(), progress=progress, on_done=told)
    run.wait()
    assert told.heard.wait(20)
    assert (told.runs, told.statuses) == ([run.id], ["succeeded,succeeded"])
    assert frame.claude_batch.start("review", client=server.client(), progress="off").id == run.id
    assert "on_done" not in run.record.options
    assert pandas_batch.load(run.id).status == "collected"


def test_a_run_that_cannot_go_on_is_told_of(server: simulator.Simulator) -> None:
    """Where the server refuses it and nothing runs there, the function gets the run as it is: blocked."""
    server.faults.add(simulator.revoked_key())
    told = Told()
    frame = pd.DataFrame({"review": ["a"]})
    run = frame.claude_batch.start("review", client=server.client(), progress="off", preflight=False, on_done=told)
    assert told.heard.wait(20)
    assert (told.runs, told.statuses) == ([run.id], ["blocked"])


def test_a_function_that_fails_does_no_harm(server: simulator.Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Its error is one line, which names it; the frame comes all the same."""
    done = threading.Event()

    def fail(run: Any) -> None:
        done.set()
        raise ValueError("secret words")

    out = pd.DataFrame({"review": ["a"]}).claude_batch.submit(
        "review", client=server.client(), progress="off", on_done=fail
    )
    assert done.wait(20)
    assert out["status"].tolist() == ["succeeded"]
    for thread in threading.enumerate():
        if "on_done" in thread.name:
            thread.join(10)
    said = capsys.readouterr().err
    assert "failed (ValueError); the run is not touched by it." in said
    assert "secret words" not in said


@pytest.mark.parametrize(("wanted", "is_terminal", "n_bells"), [("bell", True, 1), ("bell", False, 0), ("", True, 0)])
def test_the_bell_rings_where_it_is_wanted(
    server: simulator.Simulator, monkeypatch: pytest.MonkeyPatch, wanted: str, is_terminal: bool, n_bells: int
) -> None:
    """In a terminal, once, and only where the environment says so."""

    class Stderr(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    stderr = Stderr()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("PANDAS_BATCH_DONE", wanted)
    pd.DataFrame({"review": ["a"]}).claude_batch.submit("review", client=server.client(), progress="off")
    assert stderr.getvalue().count("\a") == n_bells
