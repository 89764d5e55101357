"""What a run is shown by, while it is driven, and the signal when it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pandas_batch.types import RunStatus

from .preparing import Preparation
from .signalling import is_bell_wanted, signal_done

if TYPE_CHECKING:
    from pandas_batch.display.display import Actions
    from pandas_batch.engine.engine import Observer
    from pandas_batch.requests.options import Options


class RunDisplay:
    """
    The display of one handle on a run, opened when the run is first shown.

    Parameters
    ----------
    run
        The handle, as `on_done` is to get it.
    options
        Which display, and which signal.
    snapshot
        Returns the status of the run now.
    actions
        What the buttons of a panel do.
    """

    def __init__(
        self,
        run: Any,
        options: Options,
        *,
        snapshot: Callable[[], RunStatus],
        actions: Actions,
    ) -> None:
        self._run = run
        self._options = options
        self._snapshot = snapshot
        self._actions = actions
        self._display: Any = None
        self._is_signaled = False
        self._signaling = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether there is a display."""
        return self._display is not None

    @property
    def is_seen(self) -> bool:
        """Whether somebody looks: a status is made from the store and all answers, which is not done for nobody."""
        return self._options.progress != "off"

    @property
    def observer(self) -> Observer | None:
        """What is to hear of each change, or None where that is nobody."""
        wants_signal = self._options.on_done is not None or is_bell_wanted()
        return self._on_status if (self.is_open and self.is_seen) or wants_signal else None

    def open(self, preparation: Preparation | None, *, blocking: bool) -> bool:
        """Open the display, or go on with that of the run's `preparation`; return whether it was that."""
        from pandas_batch.display.guarded import GuardedDisplay
        from pandas_batch.display.progress import open_display

        self._is_signaled = False
        prepared = None if preparation is None else preparation.belongs_to(self._actions)
        if prepared is not None:
            self._display = prepared
            return True
        mode, status = cast("Any", self._options.progress), self._snapshot() if self.is_seen else None
        self._display = GuardedDisplay(lambda: open_display(mode, self._actions, status=status, blocking=blocking))
        return False

    def update(self) -> None:
        """Show the status as it is now."""
        if self._display is not None:
            self._display.update(self._snapshot())

    def finish(self) -> None:
        """Show the last status, or where the run stands that has stopped and is not over."""
        if self._display is None or not self.is_seen:
            return
        status = self._snapshot()
        if status.is_final:
            self._display.finish(status)
        else:
            # What stopped the run did not stop what the server works on: it is watched, and can be canceled.
            self._display.interrupted(status)

    def interrupted(self) -> None:
        """Show where the run stands; the waiting was interrupted, the run goes on."""
        if self._display is not None:
            self._display.interrupted(self._snapshot())

    def set_blocking(self, blocking: bool) -> None:
        """Say whether the main thread is blocked from now on, or free again."""
        if self._display is not None:
            self._display.set_blocking(blocking)

    def show_again(self) -> bool:
        """Show one more view here; return whether there is one."""
        return self._display is not None and bool(self._display.show())

    def leave(self) -> None:
        """Forget the display: it is that of the process which this one was copied from."""
        self._display = None

    def signal(self) -> None:
        """Say once that the run is done."""
        # The thread of the run and the one that waits may both come to its end.
        with self._signaling:
            is_first, self._is_signaled = not self._is_signaled, True
        if is_first:
            signal_done(self._run, self._options.on_done)

    def _on_status(self, status: RunStatus) -> None:
        if self._display is not None and self.is_seen:
            self._display.update(status)
        if status.is_final:
            self.signal()
