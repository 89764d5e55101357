"""A display that cannot stop the run that it shows: where it fails it is dropped, in a line on stderr."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pandas_batch.exiting import say
from pandas_batch.types import RunStatus

from .display import Display

T = TypeVar("T")


class GuardedDisplay(Display):
    """
    Passes everything on to another display, until that raises.

    Parameters
    ----------
    make
        Makes the display.

    Examples
    --------
    >>> GuardedDisplay(Display).show()
    False
    """

    def __init__(self, make: Callable[[], Display]) -> None:
        self._inner: Display | None = None
        self._inner = self._try(make, None)

    def _try(self, call: Callable[[], T], otherwise: T) -> T:
        try:
            return call()
        except Exception as error:
            self._inner = None
            say(f"pandas_batch: the display failed and was dropped ({type(error).__name__}); the run goes on without.")
            return otherwise

    def update(self, status: RunStatus) -> None:
        """Take a new status."""
        inner = self._inner
        if inner is not None:
            self._try(lambda: inner.update(status), None)

    def finish(self, status: RunStatus) -> None:
        """Show the last status."""
        inner = self._inner
        if inner is not None:
            self._try(lambda: inner.finish(status), None)

    def interrupted(self, status: RunStatus) -> None:
        """Show where the run stands."""
        inner = self._inner
        if inner is not None:
            self._try(lambda: inner.interrupted(status), None)

    def withdraw(self) -> None:
        """Take back what was shown."""
        inner = self._inner
        if inner is not None:
            self._try(inner.withdraw, None)

    def resend(self) -> None:
        """Send the last account once more."""
        inner = self._inner
        if inner is not None:
            self._try(inner.resend, None)

    def set_blocking(self, blocking: bool) -> None:
        """Say whether the main thread is blocked."""
        inner = self._inner
        if inner is not None:
            self._try(lambda: inner.set_blocking(blocking), None)

    def show(self) -> bool:
        """Show one more view here; return whether there is one."""
        inner = self._inner
        return inner is not None and self._try(inner.show, False)
