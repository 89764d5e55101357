"""The status panel of a run, live in a notebook: HTML pieces split by how often they change, and two buttons."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets

from pandas_batch.types import RunStatus

from . import fragments
from .clicks import LiveButton, may_have_subshells, probe
from .stylesheet import style_element

if TYPE_CHECKING:
    from .display import Actions

CONFIRM_S = 6.0
"""How long `Confirm cancel` stays before it is `Cancel` again."""

_CHECK_S = 5.0
_PROBE_AFTER_S = 1.0
_PROBE_UNTIL_S = 4.0

_PIECES = ("head", "said", "facts", "batches", "errors", "foot")


class Panel:
    """
    The live panel: made once for a run, shown in as many places as one likes.

    A widget is written to only where its text has changed. The buttons do nothing but call `actions`, which
    must be callable from any thread: where a click is handled differs between kernels.

    Parameters
    ----------
    actions
        What the buttons do; None shows none.
    blocking
        Whether the cell that shows the panel blocks the kernel's main thread. The panel then finds out whether
        clicks get through, and says in words what to do where they do not.
    monotonic_s
        The clock.
    """

    def __init__(
        self,
        actions: Actions | None = None,
        *,
        blocking: bool = False,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._actions = actions
        self._now_s = monotonic_s
        self._lock = threading.RLock()
        self._status: RunStatus | None = None
        self._armed_until_s = self._checking_until_s = 0.0
        self._cancel_asked = False
        self._polled_before: Any = None
        self._probe: LiveButton | None = None
        self._blocked_since_s: float | None = None
        self._clicks_arrive = True
        self.wake: Callable[[], None] | None = None
        """Called when a click has changed something that must be drawn again later."""

        self._html = {name: ipywidgets.HTML() for name in ("style", *_PIECES, "times", "note")}
        self._html["style"].value = style_element()
        self._html["style"].layout.display = "none"
        self._cancel = LiveButton(description="Cancel", tooltip="Ask the server to stop what it has not answered yet")
        self._check = LiveButton(description="Check now", tooltip="Ask the server for the state of the batches now")
        self._cancel.on_click(self._on_cancel)
        self._check.on_click(self._on_check)
        self._buttons = ipywidgets.HBox([self._cancel, self._check])
        self._buttons.add_class("pdb-buttons")
        # Beside the state, and so in sight and in one place however many lines follow.
        self._top = ipywidgets.HBox([self._html["head"], self._buttons])
        self._top.add_class("pdb-top")
        self.box = ipywidgets.VBox(self._children())
        self.box.add_class("pdb")
        self.box.add_class("pdb-live")
        self.key = secrets.token_hex(4)
        """Tells this panel from others on a page: the account beside it looks whether this one lives."""
        self.box.add_class(f"pdb-of-{self.key}")
        if blocking:
            self.set_blocking(True)
        self._draw_buttons()

    def _children(self) -> list[Any]:
        below = ("said", "note", "facts", "times", "batches", "errors", "foot")
        return [self._html["style"], self._top, *(self._html[name] for name in below)]

    # ---------------------------------------------------------------- drawing

    def update(self, status: RunStatus, *, clock_only: bool = False) -> None:
        """Draw `status`; with `clock_only` just the times, where a change of the rest may wait."""
        with self._lock:
            if not clock_only or self._status is None:
                self._status = status
            self._set("times", fragments.times(status))
            if not clock_only:
                for name in _PIECES:
                    self._set(name, getattr(fragments, name)(status))
                if status.last_poll_at != self._polled_before:
                    self._polled_before = status.last_poll_at
                    self._checking_until_s = 0.0
            self.tick()

    def tick(self) -> None:
        """Let pass what has a time: the confirmation of a cancel, and the wait for a sign that clicks arrive."""
        with self._lock:
            now_s = self._now_s()
            if self._blocked_since_s is not None and not self._clicks_arrive:
                waited_s = now_s - self._blocked_since_s
                if self._probe is None and waited_s >= _PROBE_AFTER_S and may_have_subshells():
                    # Not at once: Lab makes its subshell after the first widget, and sends to the main one until then.
                    self._probe = probe(self._heard)
                    self.box.children = [*self._children(), self._probe]
            self._draw_buttons()

    def due_in_s(self) -> float | None:
        """Return in how many seconds `tick` has something to do, or None."""
        with self._lock:
            now_s = self._now_s()
            times_s = [t for t in (self._armed_until_s, self._checking_until_s) if t > now_s]
            if self._blocked_since_s is not None and not self._clicks_arrive:
                times_s += [self._blocked_since_s + s for s in (_PROBE_AFTER_S, _PROBE_UNTIL_S)]
            times_s = [t for t in times_s if t > now_s]
            return min(times_s) - now_s if times_s else None

    def _set(self, name: str, html: str) -> None:
        widget = self._html[name]
        if widget.value != html:
            widget.value = html
        shown = None if html else "none"
        if name != "style" and widget.layout.display != shown:
            widget.layout.display = shown

    # ---------------------------------------------------------------- buttons

    def _draw_buttons(self) -> None:
        status, now_s = self._status, self._now_s()
        over = status is not None and status.is_final
        deaf = self._is_deaf()
        shown = self._actions is not None and not over and not deaf
        _write(self._buttons.layout, "display", None if shown else "none")
        self._set("note", self._note() if deaf and not over and self._actions is not None else "")
        canceling = status is not None and status.state == "canceling"
        if self._cancel_asked or canceling:
            label, disabled, style = "Canceling…", True, ""
        elif now_s < self._armed_until_s:
            label, disabled, style = "Confirm cancel", False, "danger"
        else:
            label, disabled, style = "Cancel", False, ""
        can = self._cancel_asked or canceling or status is None or status.can_cancel
        # Each is a message of its own: no label stands for an instant on a button that does something else.
        _write(self._cancel, "disabled", disabled)
        _write(self._cancel, "description", label)
        _write(self._cancel, "button_style", style)
        _write(self._cancel.layout, "display", None if can else "none")
        _write(self._check, "disabled", now_s < self._checking_until_s)

    def _on_cancel(self, _: object) -> None:
        with self._lock:
            if self._cancel_asked or self._actions is None:
                return
            now_s = self._now_s()
            if now_s >= self._armed_until_s:
                self._armed_until_s = now_s + CONFIRM_S
                self._draw_buttons()
                self._wake()
                return
            self._armed_until_s = 0.0
            self._cancel_asked = True
            self._draw_buttons()
        self._actions.cancel()
        self._wake()

    def _on_check(self, _: object) -> None:
        with self._lock:
            if self._actions is None:
                return
            self._checking_until_s = self._now_s() + _CHECK_S
            self._draw_buttons()
        self._actions.check_now()
        self._wake()

    def _wake(self) -> None:
        if self.wake is not None:
            self.wake()

    # ---------------------------------------------------------------- while a cell blocks

    def set_blocking(self, blocking: bool) -> None:
        """Say whether the main thread is blocked from now on, as by ``submit()``, or free again."""
        with self._lock:
            self._blocked_since_s = self._now_s() if blocking else None
            self._clicks_arrive = not blocking
            if self._probe is not None:
                self._probe = None
                self.box.children = self._children()
            self._draw_buttons()

    def _heard(self) -> None:
        with self._lock:
            self._clicks_arrive = True
            self._draw_buttons()

    def _is_deaf(self) -> bool:
        if self._blocked_since_s is None or self._clicks_arrive:
            return False
        return not may_have_subshells() or self._now_s() >= self._blocked_since_s + _PROBE_UNTIL_S

    def _note(self) -> str:
        line = ""
        if self._status is not None and self._status.reattach:
            line = f": <code>{fragments.safe(self._status.reattach)}; run.cancel()</code>"
        return (
            '<div class="pdb-note">This cell is waiting, and meanwhile a click cannot reach Python. To cancel, stop '
            "the cell (■): the run goes on and the buttons come back here. Or then write"
            f"{line or ' <code>run.cancel()</code>'}</div>"
        )

    # ---------------------------------------------------------------- showing

    def close(self, status: RunStatus) -> None:
        """Draw the last state; views that are still open keep showing it."""
        self.update(status)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> dict[str, Any]:
        """Return the live view alone: what cannot show it shows nothing here, and the account that follows it."""
        return {**(self.box._repr_mimebundle_() or {}), "text/plain": "", "text/html": ""}


def _write(widget: Any, trait: str, value: Any) -> None:
    """Write a trait where it differs: every write is a message."""
    if getattr(widget, trait) != value:
        setattr(widget, trait, value)
