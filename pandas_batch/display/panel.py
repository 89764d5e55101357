"""The status panel of a run, live in a notebook: HTML pieces split by how often they change, and two buttons."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ipywidgets

from pandas_batch.types import RunStatus

from . import fragments
from .clicks import LiveButton, may_have_subshells, probe
from .stylesheet import style_element

if TYPE_CHECKING:
    from .display import Actions, FinishOffer

CONFIRM_S = 6.0
"""How long `Confirm cancel` stays before it is `Cancel` again."""
OFFER_S = 20.0
"""How long the price of `Finish now` can be confirmed: it has to be read first."""

_CHECK_S = 5.0
_PROBE_AFTER_S = 1.0
_PROBE_UNTIL_S = 4.0

_ABOVE = ("said", "note", "facts", "bar", "times")
_PIECES = ("head", "said", "facts", "bar", "answers", "failed_title", "failures", "batches", "foot")
_FOLDS = (
    ("answers", '<span class="pdb-title">First answers</span>', True),
    ("failures", '<span class="pdb-quiet">Failed rows</span>', True),
    ("batches", f'<span class="pdb-title">{fragments.MORE}</span>', False),
)
"""What can be folded away: the piece, its title, and whether it is open at first."""
_BELOW = {"batches": ("batches", "foot")}


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
        self._offer: FinishOffer | None = None
        self._offer_until_s = 0.0
        self._finish_asked = self._is_pricing = False
        self._polled_before: Any = None
        self._probe: LiveButton | None = None
        self._blocked_since_s: float | None = None
        self._clicks_arrive = True
        self.wake: Callable[[], None] | None = None
        """Called when a click has changed something that must be drawn again later."""

        names = (*_PIECES, "over", "times", "note")
        # One layout and one style for all texts: each would be a message of its own, and Jupyter drops what comes
        # faster than a thousand a second. A text that is empty is hidden by the style sheet.
        rules = ipywidgets.HTML(style_element(live=True), _dom_classes=("pdb-hidden",))
        self._shared = {"layout": rules.layout, "style": rules.style}
        self._html = {"style": rules, "live": ipywidgets.HTML(fragments.live_region(), **self._shared)}
        self._html |= {name: ipywidgets.HTML(**self._shared) for name in names}
        self._folds = {name: self._fold(name, title, is_open=is_open) for name, title, is_open in _FOLDS}
        self._cancel = LiveButton(description="Cancel", tooltip="Ask the server to stop what it has not answered yet")
        self._check = LiveButton(description="Check now", tooltip="Ask the server for the state of the batches now")
        self._finish = LiveButton(
            description="Finish now", tooltip="Ask what has no answer yet one by one, now; the price is shown first"
        )
        self._cancel.on_click(self._on_cancel)
        self._check.on_click(self._on_check)
        self._finish.on_click(self._on_finish)
        self._buttons = ipywidgets.HBox([self._check, self._finish, self._cancel], _dom_classes=("pdb-buttons",))
        # Beside the state, and so in sight and in one place however many lines follow.
        self._top = ipywidgets.HBox([self._html["head"], self._buttons], _dom_classes=("pdb-top",))
        self.key = secrets.token_hex(4)
        """Tells this panel from others on a page: the account beside it looks whether this one lives."""
        self._classes = ("pdb", "pdb-live", f"pdb-of-{self.key}")
        self.box = ipywidgets.VBox(self._children(), _dom_classes=self._classes)
        if blocking:
            self.set_blocking(True)
        self._draw_buttons()

    def _fold(self, name: str, title: str, *, is_open: bool) -> tuple[Any, Any]:
        """Return a line that folds what stands below it; it is never written again, and so it stays as it was left."""
        opened = " open" if is_open else ""
        html = f'<details class="pdb-fold"{opened}><summary>{title}</summary></details>'
        line = ipywidgets.HTML(html, **self._shared)
        title_row = [line, self._html["failed_title"]] if name == "failures" else [line]
        row = ipywidgets.HBox(title_row, _dom_classes=("pdb-foldrow",), layout={"display": "none"})
        parts = [self._html[part] for part in _BELOW.get(name, (name,))]
        return row, ipywidgets.VBox(parts, _dom_classes=("pdb-folded",), layout={"display": "none"})

    def _children(self) -> list[Any]:
        folds = [widget for pair in self._folds.values() for widget in pair]
        above = [self._html[name] for name in _ABOVE]
        return [self._html["style"], self._html["live"], self._html["over"], self._top, *above, *folds]

    # ---------------------------------------------------------------- drawing

    def update(self, status: RunStatus, *, clock_only: bool = False) -> None:
        """Draw `status`; with `clock_only` just the times, where a change of the rest may wait."""
        with self._lock:
            if not clock_only or self._status is None:
                self._status = status
            # What is drawn already, with another time: a change of the rest waits for a whole drawing.
            drawn = replace(
                self._status, now=status.now, last_poll_at=status.last_poll_at, next_poll_at=status.next_poll_at
            )
            self._set("times", "" if drawn.is_final else fragments.times(drawn))
            self._set("facts", "" if drawn.is_final else fragments.facts(drawn))
            self._set("said", "" if drawn.is_final else fragments.said(drawn))
            if not clock_only:
                self._draw(status)
                if status.last_poll_at != self._polled_before:
                    self._polled_before = status.last_poll_at
                    self._checking_until_s = 0.0
            self.tick()

    def _draw(self, status: RunStatus) -> None:
        # A run that is over has no parts that change: it is what the account is.
        self._set("over", fragments.account(status) if status.is_final else "")
        for name in _PIECES:
            self._set(name, "" if status.is_final else getattr(fragments, name)(status))
        for name, (row, body) in self._folds.items():
            shown = None if self._html[name].value or (name == "batches" and self._html["foot"].value) else "none"
            _write(row.layout, "display", shown)
            _write(body.layout, "display", shown)
        _write(self.box, "_dom_classes", (*self._classes, *fragments.spoken(status)))
        _write(self._top.layout, "display", "none" if status.is_final else None)

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
            times_s = [t for t in (self._armed_until_s, self._checking_until_s, self._offer_until_s) if t > now_s]
            if self._blocked_since_s is not None and not self._clicks_arrive:
                times_s += [self._blocked_since_s + s for s in (_PROBE_AFTER_S, _PROBE_UNTIL_S)]
            times_s = [t for t in times_s if t > now_s]
            return min(times_s) - now_s if times_s else None

    def _set(self, name: str, html: str) -> None:
        widget = self._html[name]
        if widget.value != html:
            widget.value = html

    # ---------------------------------------------------------------- buttons

    def _draw_buttons(self) -> None:
        status, now_s = self._status, self._now_s()
        over = status is not None and status.is_final
        deaf = self._is_deaf()
        shown = self._actions is not None and not over and not deaf
        _write(self._buttons.layout, "display", None if shown else "none")
        if self._offer is not None and now_s >= self._offer_until_s:
            self._offer = None
        note = self._note() if deaf else fragments.offer(self._offer) if self._offer is not None else ""
        self._set("note", note if not over and self._actions is not None else "")
        canceling = status is not None and status.state == "canceling"
        if self._cancel_asked or canceling:
            label, disabled, style = "Canceling…", True, ""
        elif now_s < self._armed_until_s:
            label, disabled, style = "Confirm cancel", False, "danger"
        else:
            label, disabled, style = "Cancel", False, ""
        can = self._cancel_asked or canceling or status is None or status.can_cancel
        can = can and (status is None or status.state != "preparing")
        check_shown = status is None or status.state not in ("preparing", "blocked")
        # Each is a message of its own: no label stands for an instant on a button that does something else.
        _write(self._cancel, "disabled", disabled)
        _write(self._cancel, "description", label)
        _write(self._cancel, "button_style", style)
        _write(self._cancel.layout, "display", None if can else "none")
        _write(self._check.layout, "display", None if check_shown else "none")
        _write(self._check, "disabled", now_s < self._checking_until_s)
        self._draw_finish()

    def _draw_finish(self) -> None:
        status = self._status
        is_finishing = self._finish_asked or (status is not None and status.is_finishing)
        label, disabled, style = "Finish now", self._is_pricing, ""
        if is_finishing:
            label, disabled = "Finishing…", True
        elif self._offer is not None and self._offer.price:
            label, style = f"Confirm: at most {self._offer.price}", "danger"
        can = status is not None and status.can_cancel and status.state in ("submitting", "in_progress")
        can = can and not self._cancel_asked and self._actions is not None and self._actions.finish is not None
        _write(self._finish, "disabled", disabled)
        _write(self._finish, "description", label)
        _write(self._finish, "button_style", style)
        _write(self._finish.layout, "display", None if can or is_finishing else "none")

    def _on_finish(self, _: object) -> None:
        with self._lock:
            actions = self._actions
            if actions is None or actions.offer_finish is None or actions.finish is None:
                return
            if self._finish_asked or self._is_pricing:
                return
            offer = self._offer if self._now_s() < self._offer_until_s else None
            is_confirmed = offer is not None and bool(offer.price)
            self._finish_asked, self._is_pricing = is_confirmed, not is_confirmed
            self._offer = None
            self._draw_buttons()
        if offer is not None and is_confirmed:
            actions.finish(offer, self._told)
        else:
            actions.offer_finish(self._told)
        self._wake()

    def _told(self, offer: FinishOffer | None) -> None:
        """Show what finishing now would take, or why it has ended without having finished."""
        with self._lock:
            self._finish_asked = self._is_pricing = False
            self._offer, self._offer_until_s = offer, self._now_s() + OFFER_S
            self._draw_buttons()
        self._wake()

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
