"""Each place gets the display that it can show, and none is told more than it can bear."""

from __future__ import annotations

import gc
import io
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import comm
import pytest
from comm.base_comm import BaseComm
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from warm_python import command as warm

from pandas_batch.display import notebook_display, progress
from pandas_batch.display.display import Actions, Display
from pandas_batch.display.notebook_display import KEPT_S, NotebookDisplay
from pandas_batch.display.pace import GAP_S, Pace
from pandas_batch.display.progress import LineDisplay, TqdmDisplay, open_display
from pandas_batch.errors import InputError
from pandas_batch.types import RunStatus

from .conftest import FakeClock
from .panel_states import panel_states
from .run_statuses import run_status

DAY_S = 86_400
N_MESSAGES_A_DAY = 5_000
WIDGET = "application/vnd.jupyter.widget-view+json"


class KeptOutputs(DisplayPublisher):
    """Keeps what a cell would show: (data, display id, whether it replaces)."""

    shown: list[tuple[dict[str, Any], str | None, bool]]

    def publish(
        self, data: Any, metadata: Any = None, *, transient: Any = None, update: bool = False, **_: Any
    ) -> None:
        self.shown.append((data, (transient or {}).get("display_id"), update))


class CountedComm(BaseComm):
    """A comm that counts what goes to the browser."""

    n_sent = 0

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any) -> None:
        CountedComm.n_sent += 1


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An IPython shell that keeps what is displayed in `shell.display_pub.shown`."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(display_pub_class=KeptOutputs)
    shell.history_manager.enabled = False
    shell.display_pub.shown = []
    yield shell
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


@pytest.fixture
def n_sent(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many messages have gone to widgets."""
    CountedComm.n_sent = 0
    monkeypatch.setattr(comm, "create_comm", CountedComm)
    return lambda: CountedComm.n_sent


def told(shell: Any) -> list[str]:
    """Return what each message to the notebook was: a panel, an account, or nothing in place of something."""
    return ["panel" if WIDGET in data else "account" if data else "nothing" for data, *_ in shell.display_pub.shown]


def notebook_display_on(clock: FakeClock, **options: Any) -> NotebookDisplay:
    return NotebookDisplay(Actions(lambda: None, lambda: None), clock=clock, tick=False, **options)


# -------------------------------------------------------------------- pace


@given(st.lists(st.tuples(st.floats(0.001, 300), st.sampled_from(["", "change", "state"])), max_size=60))
def test_never_more_than_two_drawings_a_second_and_the_last_change_is_drawn(steps: list[tuple[float, str]]) -> None:
    """Whatever happens when: drawings are half a second apart, and nothing that was noted is left undrawn."""
    pace, now_s, drawings = Pace(0.0), 0.0, [0.0]
    pending = False
    for step_s, what in [*steps, *[(200.0, "")] * 3]:
        due_s = now_s + pace.due_in_s(now_s)
        target_s = now_s + step_s
        while due_s <= target_s:
            now_s = max(due_s, now_s)
            drawings.append(now_s)
            if pace.drawn(now_s):
                pending = False
            due_s = now_s + pace.due_in_s(now_s)
        now_s = target_s
        if what:
            pace.changed(urgent=what == "state")
            pending = True
    assert not pending
    gaps = [b - a for a, b in pairwise(drawings)]
    assert all(gap >= GAP_S - 1e-6 for gap in gaps)


@pytest.mark.parametrize(("age_s", "wait_s"), [(0, 1), (30, 1), (100, 5), (599, 5), (700, 60), (80_000, 60)])
def test_the_clock_slows_down(age_s: float, wait_s: float) -> None:
    """Each second in the first minute, each five up to ten minutes, then each minute."""
    pace = Pace(0.0)
    pace.drawn(age_s)
    assert pace.due_in_s(age_s) == pytest.approx(wait_s)


def test_a_change_of_state_does_not_wait_for_the_clock() -> None:
    """After hours a change is still drawn within half a second."""
    pace = Pace(0.0)
    pace.drawn(50_000.0)
    pace.changed(urgent=True)
    assert pace.due_in_s(50_000.0) == pytest.approx(GAP_S)
    pace.drawn(50_000.5)
    pace.changed()
    assert pace.due_in_s(50_001.0) == 0


# -------------------------------------------------------------------- in a kernel


def day(poll_s: float, n_batches: int) -> Iterator[RunStatus]:
    """Yield what the engine tells in a day: a status at each poll, the batches ending one after the other."""
    first = run_status(0)
    waiting, ended = first.batches[0], run_status(3).batches[0]
    for i in range(int(DAY_S / poll_s)):
        seconds = i * poll_s
        n_ended = int(n_batches * seconds / DAY_S)
        now = first.started_at + timedelta(seconds=seconds)
        yield replace(
            first,
            now=now,
            last_poll_at=now,
            next_poll_at=now + timedelta(seconds=poll_s),
            batches=(ended,) * n_ended + (waiting,) * (n_batches - n_ended),
            n_rows_answered=n_ended * 10,
            cost_usd=n_ended * 0.01,
        )


@pytest.mark.parametrize(
    ("poll_s", "n_batches", "widgets"),
    [
        *((60.0, 3, True), (60.0, 3, False), (2.0, 3, True), (20.0, 200, True)),
        pytest.param(20.0, 2000, True, marks=pytest.mark.full),
    ],
)
def test_a_day_fits_in_few_messages(
    shell: Any, n_sent: Callable[[], int], clock: FakeClock, poll_s: float, n_batches: int, widgets: bool
) -> None:
    """24 hours send fewer than 5,000 messages, even when polled all the time or with hundreds of batches."""
    display = notebook_display_on(clock, widgets=widgets)
    for status in day(poll_s, n_batches):
        display.update(status)
        left_s = poll_s
        while left_s > 0:
            wait_s = min(display.step() or left_s, left_s)
            clock.advance(wait_s)
            left_s -= wait_s
    display.finish(run_status(3))
    n_messages = n_sent() + len(shell.display_pub.shown)
    assert 1_400 < n_messages < N_MESSAGES_A_DAY


def test_the_last_state_is_drawn_at_once(shell: Any, clock: FakeClock) -> None:
    """The end is not held back by the pace: when `update` returns, the account is all that is left."""
    display = notebook_display_on(clock)
    display.update(run_status(0))
    display.update(run_status(3))
    assert told(shell)[-2:] == ["account", "nothing"]
    account = shell.display_pub.shown[-2][0]
    assert "Finished" in account["text/html"]
    assert account["text/plain"].startswith("run_k3v9m2xq")
    assert display.step() is None


def test_a_panel_has_its_account_beside_it_from_the_start(shell: Any, clock: FakeClock) -> None:
    """Both are shown once; in the end the account is brought up to date, and then the panel goes."""
    display = notebook_display_on(clock)
    display.update(run_status(0))
    display.update(run_status(1))
    display.finish(run_status(3))
    assert told(shell) == ["panel", "account", "account", "nothing"]
    panel_id, account_id, account_again, panel_again = (display_id for _, display_id, _ in shell.display_pub.shown)
    assert [is_update for *_, is_update in shell.display_pub.shown] == [False, False, True, True]
    assert (panel_again, account_again) == (panel_id, account_id)
    assert None is not panel_id != account_id is not None


def test_the_account_beside_the_panel_is_kept_up_to_date(shell: Any, clock: FakeClock) -> None:
    """Each change is in it at once, and without any it is never older than two minutes, as autosaves are."""
    display = notebook_display_on(clock)
    display.update(run_status(0))
    display.step()
    clock.advance(1)
    display.update(run_status(1))
    display.step()
    assert "399" in shell.display_pub.shown[-1][0]["text/html"]
    kept_s = clock.monotonic_s()
    ages_s = []
    for _ in range(3600):
        n_shown, now_s = len(shell.display_pub.shown), clock.monotonic_s()
        wait_s = display.step() or 0
        if len(shell.display_pub.shown) > n_shown:
            ages_s.append(now_s - kept_s)
            kept_s = now_s
        clock.advance(wait_s)
    assert 1 <= ages_s[0] <= 3
    assert max(ages_s) <= KEPT_S + 60
    assert set(told(shell)[2:]) == {"account"}


def test_the_waiting_cell_sends_the_account_again(shell: Any, clock: FakeClock) -> None:
    """nbclient hears only the cell that runs: waiting in a later one sends the account once more, and only once."""
    display = notebook_display_on(clock)
    display.update(run_status(0))
    display.finish(run_status(3))
    end = ["account", "nothing"]
    assert told(shell) == ["panel", "account", *end]
    display.finish(run_status(3))
    assert told(shell) == ["panel", "account", *end]
    shell.execution_count += 1
    display.finish(run_status(3))
    display.finish(replace(run_status(3), now=clock.now()))
    assert told(shell) == ["panel", "account", *end, *end]
    display.resend()
    assert told(shell) == ["panel", "account", *end, *end, *end]


def test_after_an_interrupt_the_panel_lives(shell: Any, clock: FakeClock) -> None:
    """An interrupt ends the waiting and not the run: the panel goes on, its buttons come back."""
    display = notebook_display_on(clock, blocking=True)
    display.update(run_status(0))
    assert display._panel._buttons.layout.display == "none"
    display.interrupted(run_status(0))
    assert display._panel._buttons.layout.display is None
    clock.advance(10)
    display.update(run_status(1, seconds=10))
    display.step()
    assert "399" in display._panel._html["facts"].value


def test_a_blocked_run_that_goes_on_is_live_again(shell: Any, clock: FakeClock) -> None:
    """After a refusal the account stands there alone; when the run goes on, the panel comes back beside it."""
    display = notebook_display_on(clock)
    display.update(run_status(-1))
    display.update(run_status(-1, "blocked", message="max_tokens is too large"))
    assert told(shell)[-2:] == ["account", "nothing"]
    display.update(run_status(0))
    assert told(shell)[-1] == "panel"
    display.finish(run_status(3))
    assert told(shell)[-2:] == ["account", "nothing"]


def test_every_view_becomes_the_account(shell: Any, clock: FakeClock) -> None:
    """A run shown in several cells leaves its account in each; one cell shows it once."""
    display = notebook_display_on(clock)
    assert not display.show()
    display.update(run_status(0))
    assert display.show()
    assert told(shell) == ["panel", "account"]
    shell.execution_count += 1
    assert display.show()
    display.finish(run_status(3))
    assert told(shell)[2:] == ["panel", "account", *["account", "nothing"] * 2]
    assert len({display_id for _, display_id, _ in shell.display_pub.shown}) == 4
    shell.execution_count += 1
    assert display.show()
    assert told(shell)[-1] == "account"


def test_a_kernel_that_ends_leaves_an_account(shell: Any, clock: FakeClock) -> None:
    """When Python exits before the run does, the notebook keeps what was known, and how to pick the run up."""
    display = notebook_display_on(clock)
    display.update(run_status(1))
    notebook_display._leave_accounts()
    assert told(shell)[-2:] == ["account", "nothing"]
    html = shell.display_pub.shown[-2][0]["text/html"]
    assert "what is on the server goes on. Pick the run up again: <code>run = pandas_batch.load(" in html


def test_a_forgotten_display_is_not_kept(clock: FakeClock) -> None:
    """The list of open displays keeps none alive."""
    display: Any = NotebookDisplay(None, clock=clock, tick=False, widgets=False)
    n_open = len(notebook_display._open_displays)
    del display
    gc.collect()
    assert len(notebook_display._open_displays) < n_open


def test_a_display_that_fails_says_so_once_and_stops(
    shell: Any, clock: FakeClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while drawing in the thread ends the drawing, not the run."""
    display = notebook_display_on(clock)
    display.update(run_status(0))
    clock.advance(5)
    monkeypatch.setattr(display, "_draw", lambda **_: 1 / 0)
    display._go()
    assert [record.message for record in caplog.records] == [
        "The display of a run failed (ZeroDivisionError); the run goes on."
    ]


# -------------------------------------------------------------------- elsewhere


def test_a_place_without_terminal_gets_a_line_per_change_of_state(
    clock: FakeClock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change of state is a line at once, whatever logging is configured; what ended, at most a line a minute."""
    monkeypatch.setattr(logging, "disabled", True, raising=False)
    display = LineDisplay(clock)

    def lines() -> list[str]:
        return [line for line in capsys.readouterr().err.splitlines() if not line.startswith("  ")]

    display.update(run_status(-1))
    for _ in range(100):
        display.update(run_status(0))
    first, second = lines()
    assert "submitting" in first
    assert run_status(0).run_id in first
    assert "in progress" in second
    display.update(run_status(1))
    assert lines() == []
    clock.advance(61)
    display.update(run_status(1))
    assert len(lines()) == 1
    display.update(run_status(3))
    display.finish(run_status(3))
    assert ["finished" in line for line in lines()] == [True]


def test_a_long_wait_gives_a_sign_of_life(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing changes for hours, a line every five minutes says so; stdout stays the script's own."""
    display = LineDisplay(clock)
    for _ in range(60):
        display.update(run_status(0))
        clock.advance(60)
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 12


def test_a_terminal_gets_one_bar_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar counts batches, and says rows, failures and cost behind it; it is on stderr."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    display = TqdmDisplay()
    for n_ended in (-1, 0, 1, 3):
        display.update(run_status(n_ended))
    display.finish(run_status(3))
    bar, *account = stderr.getvalue().split("\n")
    last = bar.split("\r")[-1]
    assert last.strip().startswith("reviews: 3/3 batches |")
    assert "collected, 1,195/1,204 rows, 9 failed, $1.35" in last
    # What failed is worth more than a bar: the account stays in the terminal, once.
    assert sum("worth asking again: no: change the prompt" in line for line in account) == 1


def test_what_went_well_is_told_by_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without a failure leaves one line in a terminal."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    display = TqdmDisplay()
    for name in ("one", "one at the end"):
        display.update(panel_states()[name])
    assert stderr.getvalue().count("\n") == 1


@pytest.mark.parametrize("name", ["running", "many", "some failed", "good", "one"])
def test_forty_columns_are_enough(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """In a narrow terminal batches, time, rows and failures are all there, and nothing is cut off."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("COLUMNS", "40")
    status = panel_states()[name]
    display = TqdmDisplay()
    display.update(status)
    display.interrupted(status)
    line = stderr.getvalue().split("\n")[0].split("\r")[-1].rstrip()
    assert len(line) <= 40, line
    assert f"{status.n_batches_ended}/{len(status.batches)} " in line
    assert f"/{status.n_rows}" in line
    assert (f"{status.n_failed} failed" in line) == bool(status.n_failed)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("mode", "kernel", "widgets", "tty", "kind"),
    [
        ("auto", True, True, False, "panel"),
        ("widget", True, True, False, "panel"),
        ("auto", True, False, False, "html"),
        ("auto", False, True, True, "TqdmDisplay"),
        ("widget", False, True, True, "TqdmDisplay"),
        ("auto", False, True, False, "LineDisplay"),
        ("text", True, True, False, "TqdmDisplay"),
        ("off", True, True, True, "Display"),
    ],
)
def test_the_ladder(
    monkeypatch: pytest.MonkeyPatch, shell: Any, mode: Any, kernel: bool, widgets: bool, tty: bool, kind: str
) -> None:
    """A kernel with widgets, a kernel without, a terminal, a log, nothing: in that order, unless asked otherwise."""
    if kernel:
        shell.kernel = object()
    monkeypatch.setattr(progress, "has_widgets", lambda: widgets)
    monkeypatch.setattr(sys, "stderr", Terminal() if tty else io.StringIO())
    display = open_display(mode, Actions(lambda: None, lambda: None))
    name = type(display).__name__
    if isinstance(display, NotebookDisplay):
        name = "html" if display._panel is None else "panel"
    assert name == kind


def test_an_unknown_mode_is_refused() -> None:
    """A misspelled `progress` is the caller's mistake, and the message has the right words."""
    with pytest.raises(InputError) as caught:
        open_display("widgets")
    assert str(caught.value).startswith("progress='widgets' is not known.")


def test_the_silent_display_takes_everything() -> None:
    """``progress="off"`` has every method, and does nothing."""
    display = Display()
    for tell in (display.update, display.finish, display.interrupted):
        tell(run_status(1))
    display.set_blocking(True)
    display.resend()
    assert not display.show()


def test_without_widgets_html_is_replaced_in_place(shell: Any, clock: FakeClock) -> None:
    """A kernel without ipywidgets sees the run go on in one output."""
    display = notebook_display_on(clock, widgets=False)
    display.update(run_status(0))
    clock.advance(1)
    display.update(run_status(1))
    display.step()
    display.finish(run_status(3))
    assert [update for *_, update in shell.display_pub.shown] == [False, True, True]
    assert all("text/html" in data and "text/plain" in data for data, *_ in shell.display_pub.shown)
    assert "Finished" in shell.display_pub.shown[-1][0]["text/html"]


def test_importing_the_ladder_imports_no_widgets() -> None:
    """``import pandas_batch`` stays cheap: widgets, tqdm and IPython come at first use."""
    code = "import pandas_batch.display.progress, sys; print({'ipywidgets', 'tqdm', 'IPython'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


# -------------------------------------------------------------------- in a real kernel, without a browser


def executed(tmp_path: Path, *cells: str) -> Any:
    """Run a notebook as ``jupyter execute`` does; return it as saved."""
    import nbformat

    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from run_statuses import PlayedRun"
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in (head, *map(textwrap.dedent, cells))]
    path = tmp_path / "executed.ipynb"
    nbformat.write(notebook, path)
    code = (
        "import nbformat, sys; from nbclient import NotebookClient; from traitlets.config import Config;"
        "nb = nbformat.read(sys.argv[1], 4); sockets = Config(KernelManager={'transport': 'ipc'});"
        "NotebookClient(nb, timeout=60, kernel_name='python3', config=sockets).execute();"
        "nbformat.write(nb, sys.argv[1])"
    )
    # In a process of its own: nbclient leaves sockets and loops to the garbage collector. A chosen port may be taken
    # before the kernel binds it, a name in this folder not.
    subprocess.run(warm("-c", code, path), check=True, capture_output=True, cwd=tmp_path)
    return json.loads(path.read_text())


def test_nbclient_saves_the_account(tmp_path: Path) -> None:
    """After ``jupyter execute`` the file holds static HTML in the cell that showed the panel, and no dead widget."""
    saved = executed(tmp_path, "run = PlayedRun(seconds=1.5)", "run.wait()", "print(len(run.log), 'clicks')")
    shown = saved["cells"][1]["outputs"]
    assert [sorted(output["data"]) for output in shown] == [[], ["text/html", "text/plain"]]
    assert "Finished" in "".join(shown[1]["data"]["text/html"])
    assert saved["cells"][3]["outputs"][0]["text"] == ["0 clicks\n"]


def test_nothing_is_printed_by_a_run(tmp_path: Path) -> None:
    """While a run goes on the outputs of other cells are their own."""
    saved = executed(tmp_path, "run = PlayedRun(seconds=1.5)", "import time; time.sleep(1.8)", "run.wait()")
    assert saved["cells"][2]["outputs"] == []
    assert {output["output_type"] for output in saved["cells"][1]["outputs"]} == {"display_data"}
