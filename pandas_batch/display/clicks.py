"""
A button whose clicks reach Python while a cell blocks the main thread.

JupyterLab sends widget messages to a subshell of the kernel, a thread of its own. ipykernel 7.4 sends them back to
the shell that last wrote to the widget, which is the main one, where they wait behind the running cell. That
return path belongs to ipykernel's own comm class; the comm that a widget uses can be given to it, and a
plain one of the `comm` package leaves a message where the browser sent it. Nothing is patched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ipywidgets
from comm.base_comm import BaseComm
from IPython import get_ipython


def _kernel() -> Any:
    return getattr(get_ipython(), "kernel", None)


def may_have_subshells() -> bool:
    """Return whether this kernel can hear a click while a cell blocks; whether it does, only a message tells."""
    try:
        return "kernel subshells" in _kernel().kernel_info.get("supported_features", ())
    except AttributeError:
        return False


class _PlainComm(BaseComm):
    """Speaks on the kernel's IOPub channel, as ipykernel's own comm does, and asks for no return path."""

    def publish_msg(
        self,
        msg_type: str,
        data: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        buffers: list[bytes] | None = None,
        **keys: Any,
    ) -> None:
        kernel = _kernel()
        if kernel is None:
            return
        try:
            parent = kernel.get_parent()
        except LookupError:  # ipykernel 7.0 in a thread that it did not start
            parent = {}
        kernel.session.send(
            kernel.iopub_socket,
            msg_type,
            {"data": data or {}, "comm_id": self.comm_id, **keys},
            metadata=metadata or {},
            parent=parent,
            ident=self.topic,
            buffers=buffers,
        )


class LiveButton(ipywidgets.Button):  # type: ignore[misc]  # ipywidgets has no types
    """A button of ipywidgets on a plain comm; where there is no ipykernel, a button like any other."""

    comm: Any

    def open(self) -> None:
        """Open the comm to the browser."""
        kernel = _kernel()
        if self.comm is None and hasattr(kernel, "session") and hasattr(kernel, "iopub_socket"):
            self.comm = _PlainComm(
                target_name="jupyter.widget",
                data={"state": self.get_state(), "buffer_paths": []},
                metadata={"version": ipywidgets.__protocol_version__},
            )
        else:
            super().open()


def probe(heard: Callable[[], None]) -> LiveButton:
    """
    Return an invisible button that reports, without being clicked, that messages arrive beside a blocked main thread.

    The browser tells a widget how many views of it there are when that is asked for; that message takes the way
    that a click takes.
    """
    button = LiveButton(disabled=True, layout=ipywidgets.Layout(display="none"))

    def counted(_: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            heard()

    button._view_count = 0
    button.observe(counted, "_view_count")
    return button
