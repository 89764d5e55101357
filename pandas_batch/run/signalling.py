"""A signal when a run is done: the bell of the terminal, and a function of the user's."""

from __future__ import annotations

import contextvars
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from pandas_batch.exiting import say

ENVIRONMENT = "PANDAS_BATCH_DONE"
"""Where it is ``bell``, a terminal rings when a run is done."""


def is_bell_wanted() -> bool:
    """Return whether the environment asks for the bell."""
    return os.environ.get(ENVIRONMENT, "").strip() == "bell"


def signal_done(run: Any, on_done: Callable[[Any], object] | None) -> None:
    """
    Ring where that is wanted, and call `on_done` with the run, in a thread of its own that the process waits for.

    In the thread of the run itself a call that waits for the run would wait for itself.
    """
    if is_bell_wanted() and sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write("\a")
        sys.stderr.flush()
    if on_done is None:
        return

    def call() -> None:
        try:
            on_done(run)
        except Exception as error:
            say(
                f"pandas_batch: on_done= of run {run.id} failed ({type(error).__name__}); the run is not touched by it."
            )

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(call,), name=f"pandas_batch on_done {run.id}", daemon=False).start()
