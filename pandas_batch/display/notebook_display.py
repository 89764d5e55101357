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

from .account import static_html, text_account
from .pace import Pace
from .progress import Actions, Display

_logger = logging.getLogger("pandas_batch")


class Account:
    """What stays in the notebook: a status as static HTML and as text."""

    def __init__(self, status: RunStatus) -> None:
        self._status = status

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> dict[str, str]:
        return {"text/plain": text_account(self._status), "text/html": static_html(self._status)}


class NotebookDisplay(Display):
    """
    Draws in the outputs of cells, from a thread of its own, at a pace that slows down with time.

    Without ipywidgets the HTML itself is replaced in place, so the picture is live as long as the page is not
    loaded anew. The thread runs in a copy of the context of the cell that opened the display: what
    it writes belongs to that cell on every kernel.
    """

    def __init__(
        self, actions: Actions | None, *, clock: Clock, blocking: bool = False, widgets: bool = True, tick: bool = True
    ) -> None:
        self._clock = clock
        self._panel: Any = None
        if widgets:
            from .panel import Panel

            self._panel = Panel(actions, blocking=blocking, monotonic_s=clock.monotonic_s)
            self._panel.wake = self._wake_up
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._handles: list[Any] = []
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

    # ---------------------------------------------------------------- what the run tells

    def update(self, status: RunStatus) -> None:
        """Take a new status; a final one is drawn before this returns, any other one soon."""
        if status.is_final:
            self.finish(status)
            return
        with self._lock:
            before, self._status = self._status, status
            if self._pace is None or self._is_over:
                self._begin()
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
            if not self._handles:
                self._show_new(Account(status))
            else:
                self._replace(status)
        self._wake_up()

    def interrupted(self, status: RunStatus) -> None:
        """Draw where the run stands; it goes on, so the panel stays live and its buttons come back."""
        self.set_blocking(False)
        self.update(status)

    def resend(self) -> None:
        """Send the account once more, from the cell that runs now."""
        if self._is_over and self._status is not None:
            with self._lock:
                self._replace(self._status)

    def set_blocking(self, blocking: bool) -> None:
        """Say whether the kernel's main thread is blocked from now on."""
        if self._panel is not None and not self._is_over:
            self._panel.set_blocking(blocking)
            self._wake_up()

    def show(self) -> bool:
        """Show one more view of the run in the cell that runs now, unless it has one already."""
        with self._lock:
            if self._status is None:
                return False
            if self._shown_in is not None and self._shown_in == _execution_count():
                return True
            self._show_new(Account(self._status) if self._is_over else self._picture())
            return True

    # ---------------------------------------------------------------- drawing

    def _begin(self) -> None:
        """Draw for the first time, or again after an end that was none (a blocked run that goes on)."""
        was_over, self._is_over = self._is_over, False
        self._pace = Pace(self._clock.monotonic_s())
        self._draw(whole=True)
        if self._handles and was_over:
            for handle in self._handles:
                handle.update(self._picture())
        elif not self._handles:
            self._show_new(self._picture())
        if self._ticks and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(
                target=self._context.copy().run, args=(self._go,), name="pandas-batch-display", daemon=True
            )
            self._thread.start()

    def _picture(self) -> Any:
        if self._panel is not None:
            return self._panel
        return Account(self._status) if self._status is not None else None

    def _show_new(self, picture: Any) -> None:
        from IPython.display import display

        self._shown_in = _execution_count()
        handle = display(picture, display_id=True)  # type: ignore[no-untyped-call]
        if handle is not None:
            self._handles.append(handle)

    def _draw(self, *, whole: bool) -> None:
        if self._status is None:
            return
        status = replace(self._status, now=max(self._clock.now(), self._status.now))
        if self._panel is not None:
            self._panel.update(status, clock_only=not whole)
        else:
            for handle in self._handles:
                handle.update(Account(status))
        if whole:
            self._drawn = self._status

    def _replace(self, status: RunStatus) -> None:
        for handle in self._handles:
            handle.update(Account(status))

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
            self._context.copy().run(self._replace, account)


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
