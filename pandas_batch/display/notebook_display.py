"""A run's display in a kernel: live by widgets or by HTML, and in the end static HTML that a saved notebook keeps."""

from __future__ import annotations

import atexit
import contextvars
import logging
import threading
import weakref
from dataclasses import replace
from typing import Any

from pandas_batch.clock import Clock
from pandas_batch.types import RunStatus

from .account import kept_html, static_html, text_account
from .display import Actions, Display
from .pace import Pace, clock_interval_s

_logger = logging.getLogger("pandas_batch")


KEPT_S = 120.0
"""The account beside a live panel is drawn anew at least this often, as JupyterLab saves a notebook by itself."""


class Account:
    """What stays in the notebook: a status as static HTML and as text; `key` names the live panel it stands beside."""

    def __init__(self, status: RunStatus, key: str | None = None) -> None:
        self._status = status
        self._key = key

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> dict[str, str]:
        html = static_html(self._status) if self._key is None else kept_html(self._status, self._key)
        return {"text/plain": text_account(self._status), "text/html": html}


class View:
    """
    One place in a notebook that shows a run: a live panel, and after it the account for when there is no panel.

    A widget is nothing without its kernel: a notebook that was saved in the middle of a run would be left with an error
    message in its place. So the account is an output of its own from the start, hidden while the panel lives.
    In the end only the account is left. Without a panel the account is all there is.

    Parameters
    ----------
    status
        The run as it is now.
    panel
        The live panel; None shows the account alone.
    is_early
        Whether there is to be a panel later, above the account.
    """

    def __init__(self, status: RunStatus, panel: Any = None, *, is_early: bool = False) -> None:
        self._key = panel.key if panel is not None else None
        self._live = _shown(panel if panel is not None else _Nothing()) if panel is not None or is_early else None
        self._account = _shown(Account(status, self._key))

    def keep(self, status: RunStatus) -> None:
        """Bring the account up to date."""
        if self._account is not None:
            self._account.update(Account(status, self._key))

    def close(self, status: RunStatus) -> None:
        """Leave the account, and it alone; in this order something can be read at every instant."""
        self.keep(status)
        if self._live is not None:
            self._live.update({}, raw=True)

    def remove(self) -> None:
        """Leave nothing."""
        for shown in (self._live, self._account):
            if shown is not None:
                shown.update({}, raw=True)

    def open(self, status: RunStatus, panel: Any) -> None:
        """Show the live panel where there is to be one, or was."""
        if self._live is not None and panel is not None:
            self._key = panel.key
        self.keep(status)
        if self._live is not None and panel is not None:
            self._live.update(panel)


class _Nothing:
    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> dict[str, str]:
        return {"text/plain": "", "text/html": ""}


def _shown(thing: Any) -> Any:
    from IPython.display import display

    return display(thing, display_id=True)


class NotebookDisplay(Display):
    """
    Draws in the outputs of cells, from a thread of its own, at a pace that slows down with time.

    Without ipywidgets the HTML itself is replaced in place, so the picture is live as long as the page is not
    loaded anew. The thread runs in a copy of the context of the cell that opened the display: what
    it writes belongs to that cell on every kernel.
    """

    def __init__(
        self,
        actions: Actions | None,
        *,
        clock: Clock,
        blocking: bool = False,
        widgets: bool = True,
        tick: bool = True,
        early: bool = False,
    ) -> None:
        self._clock = clock
        self._panel: Any = None
        self._actions = actions
        self._is_blocking = blocking
        self._has_widgets = widgets
        if widgets and not early:
            self._make_panel()
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._views: list[View] = []
        self._began_s = self._keep_at_s = 0.0
        self._shown_in: Any = None
        self._status: RunStatus | None = None
        self._drawn: RunStatus | None = None
        self._pace: Pace | None = None
        self._is_over = False
        self._ended_by: Any = None
        self._thread: threading.Thread | None = None
        self._ticks = tick
        self._context = contextvars.copy_context()
        _open_displays.add(self)

    def _make_panel(self) -> None:
        # Widgets take half a second to import: while rows are prepared, HTML is shown.
        from .panel import Panel

        self._panel = Panel(self._actions, blocking=self._is_blocking, monotonic_s=self._clock.monotonic_s)
        self._panel.wake = self._wake_up

    # ---------------------------------------------------------------- what the run tells

    def update(self, status: RunStatus) -> None:
        """Take a new status; a final one is drawn before this returns, any other one soon."""
        if status.is_final:
            self.finish(status)
            return
        with self._lock:
            before, self._status = self._status, status
            if self._pace is None or self._is_over:
                self._begin(status)
                return
            if self._has_widgets and self._panel is None and status.state != "preparing":
                self._make_panel()
                self._draw(whole=True)
                for view in self._views:
                    view.open(status, self._panel)
                self._wake_up()
                return
            if before is None or _without_clock(status) != _without_clock(before):
                self._pace.changed(urgent=before is None or before.state != status.state)
        self._wake_up()

    def finish(self, status: RunStatus) -> None:
        """Replace the live view by the account; again from another cell, since nbclient hears only the running one."""
        with self._lock:
            teller = _teller()
            drawn = self._drawn if self._is_over and self._ended_by == teller else None
            if drawn is not None and replace(status, now=drawn.now) == drawn:
                return
            self._is_over, self._ended_by = True, teller
            self._status = self._drawn = status
            if self._panel is not None:
                self._panel.set_blocking(False)
                self._panel.close(status)
            if self._views:
                self._close_views(status)
            else:
                self._show_new(status)
        self._wake_up()

    def interrupted(self, status: RunStatus) -> None:
        """Draw where the run stands; it goes on, so the panel stays live and its buttons come back."""
        self.set_blocking(False)
        self.update(status)

    def resend(self) -> None:
        """Send the account once more, from the cell that runs now."""
        if self._is_over and self._status is not None:
            with self._lock:
                self._close_views(self._status)

    def set_blocking(self, blocking: bool) -> None:
        """Say whether the kernel's main thread is blocked from now on."""
        self._is_blocking = blocking
        if self._panel is not None and not self._is_over:
            self._panel.set_blocking(blocking)
            self._wake_up()

    def withdraw(self) -> None:
        """Take back what was shown."""
        with self._lock:
            self._is_over = True
            for view in self._views:
                view.remove()
            self._views.clear()
        self._wake_up()

    def show(self) -> bool:
        """Show one more view of the run in the cell that runs now, unless it has one already."""
        with self._lock:
            if self._status is None:
                return False
            if self._shown_in is not None and self._shown_in == _execution_count():
                return True
            self._show_new(self._status)
            return True

    # ---------------------------------------------------------------- drawing

    def _begin(self, status: RunStatus) -> None:
        """Draw for the first time, or again after an end that was none (a blocked run that goes on)."""
        was_over, self._is_over = self._is_over, False
        self._began_s = self._clock.monotonic_s()
        self._pace = Pace(self._began_s)
        self._draw(whole=True)
        if not self._views:
            self._show_new(status)
        elif was_over:
            for view in self._views:
                view.open(status, self._panel)
        if self._ticks and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(
                target=self._context.copy().run, args=(self._go,), name="pandas-batch-display", daemon=True
            )
            self._thread.start()

    def _show_new(self, status: RunStatus) -> None:
        self._shown_in = _execution_count()
        is_early = self._has_widgets and self._panel is None and status.state == "preparing"
        self._views.append(View(status, None if self._is_over else self._panel, is_early=is_early))

    def _draw(self, *, whole: bool) -> None:
        if self._status is None:
            return
        status = replace(self._status, now=max(self._clock.now(), self._status.now))
        now_s = self._clock.monotonic_s()
        if self._panel is not None:
            self._panel.update(status, clock_only=not whole)
        if whole or self._panel is None or now_s >= self._keep_at_s:
            age_s = now_s - self._began_s
            self._keep_at_s = now_s + min(KEPT_S, max(age_s, clock_interval_s(age_s)))
            for view in self._views:
                view.keep(status)
        if whole:
            self._drawn = self._status

    def _close_views(self, status: RunStatus) -> None:
        for view in self._views:
            view.close(status)

    # ---------------------------------------------------------------- the thread

    def _wake_up(self) -> None:
        self._wake.set()

    def step(self) -> float | None:
        """Draw what is due; return in how many seconds to come again, or None when it is over."""
        with self._lock:
            if self._is_over or self._pace is None:
                return None
            now_s = self._clock.monotonic_s()
            if self._pace.due_in_s(now_s) <= 0:
                self._draw(whole=self._pace.drawn(now_s))
            elif self._panel is not None:
                self._panel.tick()
            waits_s = [self._pace.due_in_s(now_s)]
            if self._panel is not None and (panel_due_s := self._panel.due_in_s()) is not None:
                waits_s.append(panel_due_s)
            return max(0.02, min(waits_s))

    def _go(self) -> None:
        while True:
            try:
                wait_s = self.step()
            except Exception as error:
                # A display must never stop a run, and a thread has nobody to raise to.
                _logger.warning("The display of a run failed (%s); the run goes on.", type(error).__name__)
                return
            if wait_s is None:
                return
            self._clock.wait(wait_s, self._wake)
            self._wake.clear()

    def leave(self) -> None:
        """Leave an account behind: the kernel ends, and a view without its kernel says nothing."""
        with self._lock:
            if self._is_over or self._status is None or _execution_count() is None:
                return
            self._is_over = True
            account = replace(self._status, now=max(self._clock.now(), self._status.now))
            # The exiting main thread has lost the cell it spoke for.
            self._context.copy().run(self._close_views, account)


_open_displays: weakref.WeakSet[NotebookDisplay] = weakref.WeakSet()


@atexit.register
def _leave_accounts() -> None:
    for display in list(_open_displays):
        try:
            display.leave()
        except Exception as error:
            _logger.debug("No account was left (%s).", type(error).__name__)


def _without_clock(status: RunStatus) -> RunStatus:
    """Return `status` without what changes at each poll: such a change waits for the clock's next move."""
    at = status.started_at
    return replace(status, now=at, last_poll_at=at if status.last_poll_at else None, next_poll_at=None)


def _execution_count() -> Any:
    from IPython import get_ipython

    return getattr(get_ipython(), "execution_count", None)


def _teller() -> tuple[Any, int]:
    """Return what tells apart the cell that a message is sent from: a thread belongs to the cell that started it."""
    return _execution_count(), threading.get_ident()
