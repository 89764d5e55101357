"""What is shown of a call from its first instant: rows are read and written down before there is a run to speak of."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from pandas_batch import exiting
from pandas_batch.amounts import rows
from pandas_batch.types import RunStatus

if TYPE_CHECKING:
    import pandas as pd

    from pandas_batch.clock import Clock
    from pandas_batch.display.display import Actions, FinishOffer, Told
    from pandas_batch.requests.options import Options

_TELL_EVERY_S = 0.5


class Preparation:
    """
    A call that is being prepared, and its display, which becomes that of the run; gone where the call is refused.

    Parameters
    ----------
    frame, options
        The call.
    blocking
        Whether the caller waits.
    """

    def __init__(self, frame: pd.DataFrame, options: Options, *, blocking: bool, clock: Clock) -> None:
        self.display: Any = None
        self._clock = clock
        self._options = options
        self._n_rows = len(frame)
        self._blocking = blocking
        self._began_at = clock.now()
        self._told_s = clock.monotonic_s()
        self._actions: Actions | None = None
        self._over = threading.Event()
        self.is_told = False

    def __enter__(self) -> Self:
        # In a daemon thread a call may be here when the process ends.
        exiting.remember(self)
        if self._options.progress != "off":
            from pandas_batch.display.display import Actions
            from pandas_batch.display.guarded import GuardedDisplay
            from pandas_batch.display.progress import open_display

            actions = Actions(
                cancel=lambda: self._actions and self._actions.cancel(),
                check_now=lambda: self._actions and self._actions.check_now(),
                offer_finish=self._offer_finish,
                finish=self._finish,
            )
            mode, status = cast("Any", self._options.progress), self._status(0)
            self.display = GuardedDisplay(lambda: open_display(mode, actions, status=status, blocking=self._blocking))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        exiting.forget(self)
        if error is not None and self.display is not None:
            self.display.withdraw()

    # ---------------------------------------------------------------- at the end of the process

    @property
    def is_waited_for(self) -> bool:
        """Whether a thread of the user's waits for it: it is prepared in one."""
        return False

    def may_still_send(self) -> bool:
        """Return whether a run is about to come of it."""
        return not self._over.is_set()

    def last_words(self) -> str:
        """Return what became of it, where no run did."""
        return (
            f"pandas_batch: the process ended while {rows(self._n_rows)} were being prepared; nothing of this call was "
            "sent, nothing was billed. To send it: run the same line again"
        )

    def stop(self) -> None:
        """Nothing can be stopped: it is in a thread of the user's."""

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the run is made, or refused."""
        return self._over.wait(timeout_s)

    # ---------------------------------------------------------------- its display

    def belongs_to(self, actions: Actions) -> Any:
        """Return the display, whose buttons are from now on those of a run."""
        self._actions = actions
        return self.display

    def _offer_finish(self, told: Told) -> None:
        if self._actions is not None and self._actions.offer_finish is not None:
            self._actions.offer_finish(told)

    def _finish(self, offer: FinishOffer, told: Told) -> None:
        if self._actions is not None and self._actions.finish is not None:
            self._actions.finish(offer, told)

    def rows_done(self, n_done: int, n: int) -> None:
        """Tell the display that so many of `n` requests are written down."""
        now_s = self._clock.monotonic_s()
        if self.display is not None and n and now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            self.display.update(self._status(n_done * self._n_rows // n))

    def _status(self, n_rows_prepared: int) -> RunStatus:
        model = self._options.model
        return RunStatus(
            run_id="",
            name=self._options.name,
            model=model if isinstance(model, str) else "",
            base_url="",
            store_path="",
            state="preparing",
            now=self._clock.now(),
            started_at=self._began_at,
            n_rows=self._n_rows,
            n_rows_prepared=n_rows_prepared,
        )
