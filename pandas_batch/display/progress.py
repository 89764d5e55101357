"""
Which display a run gets, and the displays that need no notebook.

The ladder: a kernel with ipywidgets gets the panel; a kernel without it HTML that is replaced in place; a terminal one
tqdm bar; all else plain lines on stderr. Nothing is ever printed to stdout.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from typing import Any, Literal

from pandas_batch.amounts import usd
from pandas_batch.clock import SYSTEM_CLOCK, Clock
from pandas_batch.errors import InputError, clip
from pandas_batch.exiting import say
from pandas_batch.types import RunStatus

from .account import text_account, text_line
from .display import Actions, Display
from .outlook import time_left
from .wording import day_and_time, n_rows_succeeded

Mode = Literal["auto", "widget", "text", "off"]

NARROW_COLUMNS = 70
"""A terminal with fewer columns has no room for a bar beside the figures."""
_WIDE = "{desc}: {n_fmt}/{total_fmt} batches |{bar}| {elapsed}{postfix}"
_NARROW = "{desc} {n_fmt}/{total_fmt} {elapsed}{postfix}"

LINE_INTERVAL_S = 60.0
SIGN_OF_LIFE_S = 300.0
PREPARING_S = 2.0
"""A call that is prepared within this time has no line for it."""


class TqdmDisplay(Display):
    """One bar on stderr: batches ended, and behind it rows, failures and cost."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._rows_bar: Any = None
        self._is_narrow = self._has_told = False

    def update(self, status: RunStatus) -> None:
        """Move the bar; a final status closes it."""
        if status.state == "preparing":
            self._update_preparing(status)
            return
        from tqdm import tqdm

        n_batches = len(status.batches)
        self.withdraw()
        if self._bar is None:
            self._is_narrow = 0 < shutil.get_terminal_size().columns < NARROW_COLUMNS
            says_size = _says_size(sys.stderr)
            n_columns, n_rows = (None, None) if says_size else shutil.get_terminal_size()
            self._bar = tqdm(
                total=n_batches or None,
                desc=clip(status.name or status.run_id, 6 if self._is_narrow else 40),
                unit="batch",
                file=sys.stderr,
                # tqdm takes a size of 0, which a terminal inside a program may have, for no room at all.
                ncols=n_columns,
                nrows=n_rows,
                dynamic_ncols=says_size,
                bar_format=_NARROW if self._is_narrow else _WIDE,
            )
        bar = self._bar
        if bar.disable:
            return
        bar.total = n_batches or None
        bar.n = status.n_batches_ended
        bar.set_postfix_str(_few_words(status) if self._is_narrow else _postfix(status), refresh=True)
        if status.is_final:
            bar.close()
            if not self._has_told and (status.n_failed or status.state == "blocked" or status.message):
                # What went well is shown by the bar; else the account stays in the terminal.
                self._has_told = True
                say(text_account(status))

    def _update_preparing(self, status: RunStatus) -> None:
        """Show how many rows are prepared, where that takes long enough to be noticed."""
        if self._rows_bar is None:
            if not status.n_rows_prepared:
                return
            from tqdm import tqdm

            title = f"{clip(status.name or 'rows', 30)}: preparing"
            self._rows_bar = tqdm(total=status.n_rows, desc=title, unit="row", file=sys.stderr, leave=False)
        self._rows_bar.update(status.n_rows_prepared - self._rows_bar.n)

    def withdraw(self) -> None:
        """Take back the bar of the rows."""
        if self._rows_bar is not None:
            self._rows_bar.close()
            self._rows_bar = None

    def interrupted(self, status: RunStatus) -> None:
        """Close the bar's line: the prompt comes back."""
        self.update(status)
        if self._bar is not None:
            self._bar.close()


def _says_size(stream: Any) -> bool:
    try:
        return min(os.get_terminal_size(stream.fileno())) > 0
    except (OSError, ValueError, AttributeError):  # no terminal: tqdm has a way of its own for that
        return True


def _few_words(status: RunStatus) -> str:
    """Return rows and failures, and money where there is room, for a terminal of 40 columns."""
    failed = f" {status.n_failed} failed" if status.n_failed else ""
    cost = f" {usd(status.cost_usd)}" if status.is_final and not failed and status.cost_usd is not None else ""
    return f"{n_rows_succeeded(status)}/{status.n_rows}{failed}{cost}"


def _postfix(status: RunStatus) -> str:
    parts = [status.state.replace("_", " "), f"{n_rows_succeeded(status):,}/{status.n_rows:,} rows"]
    if status.n_failed:
        parts.append(f"{status.n_failed:,} failed")
    if status.n_rows_answered and status.cost_usd is not None:
        parts.append(usd(status.cost_usd))
    return ", ".join(parts)


class LineDisplay(Display):
    """
    Plain lines on stderr, whatever logging is configured: a script under cron or in CI leaves a sign of life.

    A line for each change of state at once; for what has ended and for what the run says, at most one a minute; one
    in any case every five minutes; the account at the end.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._state: str | None = None
        self._told: tuple[object, ...] | None = None
        self._told_s = 0.0

    def update(self, status: RunStatus) -> None:
        """Write a line where there is something to say."""
        if status.state == "preparing" and (status.now - status.started_at).total_seconds() < PREPARING_S:
            return
        told = (status.state, status.n_batches_ended, status.message)
        if status.is_final or (status.state == "blocked" and self._state != "blocked"):
            if self._told == told:
                return
            text = text_account(status)
        else:
            silent_s = self._clock.monotonic_s() - self._told_s
            pause_s = 0.0 if status.state != self._state else LINE_INTERVAL_S if told != self._told else SIGN_OF_LIFE_S
            if silent_s < pause_s:
                return
            left = f", {time_left(status).left} left" if status.state == "in_progress" else ""
            text = text_line(status) + left + (f". {clip(status.message)}" if status.message else "")
        self._state, self._told, self._told_s = status.state, told, self._clock.monotonic_s()
        say(f"pandas_batch {day_and_time(status.now)}: {text}")


def open_display(
    mode: Mode = "auto",
    actions: Actions | None = None,
    status: RunStatus | None = None,
    *,
    blocking: bool = False,
    clock: Clock = SYSTEM_CLOCK,
) -> Display:
    """
    Return the display that suits the place Python runs in.

    Parameters
    ----------
    mode
        ``"auto"``; ``"widget"`` (the panel where there is a kernel, else as ``"auto"``); ``"text"`` (a tqdm bar
        on stderr); ``"off"``.
    actions
        What the panel's buttons do.
    status
        Shown at once; without it the first `Display.update` shows.
    blocking
        Whether the caller is going to block the main thread: see `Display.set_blocking`.
    clock
        The clock that paces the drawing.

    Returns
    -------
    Display
        Takes statuses from any thread.

    Raises
    ------
    InputError
        `mode` is none of the four.

    Examples
    --------
    >>> open_display("off").show()
    False
    """
    if mode not in ("auto", "widget", "text", "off"):
        raise InputError(f"progress={mode!r} is not known.", hint='progress="auto"  # or "widget", "text", "off"')
    is_early = status is not None and status.state == "preparing"
    display = _choose(mode, actions, blocking=blocking, clock=clock, is_early=is_early)
    if status is not None:
        display.update(status)
    return display


def _choose(mode: Mode, actions: Actions | None, *, blocking: bool, clock: Clock, is_early: bool) -> Display:
    if mode == "off":
        return Display()
    if mode == "text":
        return TqdmDisplay()
    if in_kernel():
        from .notebook_display import NotebookDisplay

        return NotebookDisplay(actions, clock=clock, blocking=blocking, widgets=has_widgets(), early=is_early)
    if sys.stderr is not None and sys.stderr.isatty():
        return TqdmDisplay()
    return LineDisplay(clock)


def in_kernel() -> bool:
    """Return whether this process is a Jupyter kernel; imports nothing to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def has_widgets() -> bool:
    """Return whether ipywidgets can be imported."""
    try:
        return importlib.util.find_spec("ipywidgets") is not None
    except (ImportError, ValueError):
        return False
