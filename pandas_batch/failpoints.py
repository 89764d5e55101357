"""Named instants of a run, at which the crash tests stop the process; nothing happens there otherwise."""

from __future__ import annotations

from collections.abc import Callable

POINTS = (
    "run planned",
    "between two recorded batches",
    "run recorded",
    "watermark read",
    "posting recorded",
    "create answered",
    "batch bound",
    "loss recorded",
    "owner proved",
    "end recorded",
    "results downloaded",
    "results decoded",
    "results committed",
    "batch collected",
    "batch compacted",
)
"""The instants, in the order in which a batch meets them."""

LIVE_POINTS = (
    "live asking recorded",
    "live answered",
    "live answer recorded",
    "live results committed",
    "live batch collected",
)
"""The same of a batch whose requests are asked one by one."""

on_reached: Callable[[str], None] | None = None
"""Set by a test; called with the name of each instant."""


def reached(point: str) -> None:
    """Tell that the instant `point` has come."""
    if on_reached is not None:
        on_reached(point)
