"""What shows a run, as the run knows it: something that takes statuses, and buttons that ask for something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pandas_batch.types import RunStatus


@dataclass(frozen=True)
class Actions:
    """
    What the buttons of a panel do; called from any thread, and must return at once.

    Attributes
    ----------
    cancel
        Asks for the run's batches to be canceled.
    check_now
        Asks for a poll now.
    """

    cancel: Callable[[], object]
    check_now: Callable[[], object]


class Display:
    """Shows a run somewhere; this one nowhere. A run tells it everything, from whichever thread it is in."""

    def update(self, status: RunStatus) -> None:
        """Take a new status; what is too soon after the last is shown later, a final one at once."""

    def finish(self, status: RunStatus) -> None:
        """Show the last status, and no more after it. May be called again from the cell that waited."""
        self.update(status)

    def interrupted(self, status: RunStatus) -> None:
        """Show where the run stands; the waiting was interrupted, the run goes on."""
        self.set_blocking(False)
        self.update(status)

    def withdraw(self) -> None:
        """Take back what was shown: the call was refused, and says so itself."""

    def resend(self) -> None:
        """Send the last account once more from the cell that runs now, which is the only one that nbclient hears."""

    def set_blocking(self, blocking: bool) -> None:
        """Say whether the main thread is blocked from now on (clicks may not arrive), or free again."""

    def show(self) -> bool:
        """Show one more view here; return whether there is one (False: use the run's mimebundle)."""
        return False
