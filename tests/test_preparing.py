"""A call is seen from its first instant, says how fast it prepares its rows, and leaves nothing where it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pandas as pd
import pytest

import pandas_batch
from pandas_batch import simulator
from pandas_batch.display.account import static_html, text_line
from pandas_batch.display.progress import LineDisplay, TqdmDisplay
from pandas_batch.requests import plan
from pandas_batch.run import preparing

from .panel_states import panel_states
from .test_progress import shell, told  # noqa: F401  # a fixture


@pytest.fixture
def server() -> Iterator[simulator.Simulator]:
    """Run a server whose batches take no time."""
    with simulator.serve(seconds_per_batch=0) as running:
        yield running


def in_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package take this process for a kernel, as far as its displays go."""
    monkeypatch.setattr("pandas_batch.display.progress.in_kernel", lambda: True)


def words(data: dict[str, Any]) -> str:
    return str(data.get("text/plain", ""))


def test_the_first_sign_comes_before_any_row_is_read(
    monkeypatch: pytest.MonkeyPatch,
    shell: Any,  # noqa: F811 - a fixture, imported by its name
    server: simulator.Simulator,
) -> None:
    """However many rows there are, the cell says that they are being prepared before the first of them is looked at."""
    in_a_kernel(monkeypatch)
    seen: list[str] = []
    read = plan.plan_requests

    def plan_requests(*args: Any, **kwargs: Any) -> Any:
        seen.extend(words(data) for data, *_ in shell.display_pub.shown)
        return read(*args, **kwargs)

    monkeypatch.setattr(plan, "plan_requests", plan_requests)
    frame = pd.DataFrame({"review": ["a", "b"]})
    frame.claude_batch.start("review", client=server.client(), name="early").wait()
    assert [one for one in seen if one] == ["early: reading 2 rows, 0 s; nothing was sent yet"]


def test_the_display_of_a_preparation_becomes_that_of_its_run(
    monkeypatch: pytest.MonkeyPatch,
    shell: Any,  # noqa: F811 - a fixture, imported by its name
    server: simulator.Simulator,
) -> None:
    """The account takes the place of what was shown first; there are two outputs, as for every run."""
    in_a_kernel(monkeypatch)
    frame = pd.DataFrame({"review": ["a", "b"]})
    run = frame.claude_batch.start("review", client=server.client(), name="early")
    run.wait()
    shown = shell.display_pub.shown
    assert len({display_id for _, display_id, _ in shown}) == 2
    assert told(shell)[-2:] == ["account", "nothing"]
    assert "finished, 2 of 2 rows answered" in words(shown[-2][0])


def test_a_refused_call_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
    shell: Any,  # noqa: F811 - a fixture, imported by its name
    server: simulator.Simulator,
) -> None:
    """Where the call is wrong its error is all there is: no panel stays that says it was being prepared."""
    in_a_kernel(monkeypatch)
    with pytest.raises(pandas_batch.InputError):
        pd.DataFrame({"review": ["a"]}).claude_batch.start("revue", client=server.client())
    assert [data for data, *_ in shell.display_pub.shown[-2:]] == [{}, {}]


def test_rows_are_told_while_they_are_written(server: simulator.Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of many rows tells how many are prepared, never more than there are, and never fewer than before."""
    counted: list[int] = []
    monkeypatch.setattr(preparing.Preparation, "rows_done", lambda self, n_done, n: counted.append(n_done * 100 // n))
    frame = pd.DataFrame({"review": [f"row {i}" for i in range(9_000)]})
    frame.claude_batch.start("review", client=server.client(), progress="off").wait()
    assert counted == sorted(counted)
    assert counted[-1] == 100


def test_a_preparation_says_its_rows_a_second() -> None:
    """In HTML and in text: rows prepared of all, and rows a second; nothing is claimed to be at the server."""
    status = panel_states()["preparing"]
    assert "182,000 of 500,000 rows prepared, 44,400 a second" in text_line(status)
    html = static_html(status)
    assert "182,000 of 500,000 rows prepared, 44,400 a second" in html
    assert 'aria-label="Rows prepared"' in html
    assert "Nothing has been sent yet." in html
    assert "batches" not in html.partition("</style>")[2]


def test_a_log_and_a_terminal_hear_of_a_long_preparation_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """What is prepared within two seconds has no line; a bar of rows gives way to that of the batches."""
    states = panel_states()
    long, running = states["preparing"], states["running"]
    short = type(long)(**{**vars(long), "now": long.started_at + timedelta(seconds=1)})
    lines = LineDisplay()
    lines.update(short)
    assert capsys.readouterr().err == ""
    lines.update(long)
    assert "182,000 of 500,000 rows prepared" in capsys.readouterr().err
    bar = TqdmDisplay()
    bar.update(long)
    bar.update(running)
    bar.interrupted(running)
    said = capsys.readouterr().err
    assert "preparing" in said
    assert "3/5 batches" in said.split("\r")[-1]
