"""What shows a run, as the run knows it: something that takes statuses, and buttons that ask for something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pandas_batch.types import RunStatus


@dataclass(frozen=True)
class FinishOffer:
    """
    What it takes to finish a run now, as it is shown before anybody confirms it.

    Attributes
    ----------
    words
        What is going to happen, or why it is not.
    hint
        A line to type instead, or "".
    price
        The most that it can cost, in words, such as ``$0.42``; "" where it cannot be confirmed by a button.
    max_cost_usd
        The same as a budget.
    """

    words: str
    hint: str = ""
    price: str = ""
    max_cost_usd: float | None = None


Told = Callable[[FinishOffer | None], object]


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
    offer_finish
        Asks what it takes to finish the run now; what it is given is called with the answer, from any thread.
        None: there is no such button.
    finish
        Finishes the run now, within what was offered; what it is given is called at its end, with None or with why not.
    """

    cancel: Callable[[], object]
    check_now: Callable[[], object]
    offer_finish: Callable[[Told], object] | None = None
    finish: Callable[[FinishOffer, Told], object] | None = None


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
