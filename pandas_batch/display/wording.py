"""How times and states are said; the panel, the static account and the text say them alike."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from pandas_batch.types import BatchStatus, RunStatus


class Word(NamedTuple):
    """A state in one word or two, with a glyph and a tone, so that no state is told by its color alone."""

    glyph: str
    text: str
    tone: str
    """``run``, ``ok``, ``bad``, ``off`` or ``wait``."""


_RUN_WORDS = {
    "preparing": Word("○", "Preparing", "wait"),
    "submitting": Word("↑", "Submitting", "run"),
    "in_progress": Word("◐", "In progress", "run"),
    "canceling": Word("⊘", "Canceling", "off"),
    "ended": Word("↓", "Fetching answers", "run"),
    "blocked": Word("■", "Blocked", "bad"),
}

_BATCH_WORDS = {
    "waiting": Word("○", "waiting", "wait"),
    "posting": Word("↑", "posting", "run"),
    "unproved": Word("?", "looking for it", "run"),
    "in_progress": Word("◐", "in progress", "run"),
    "canceling": Word("⊘", "canceling", "off"),
    "ended": Word("↓", "ended", "run"),
    "collected": Word("✓", "collected", "ok"),
    "canceled": Word("⊘", "canceled", "off"),
    "withdrawn": Word("⊘", "withdrawn", "off"),
    "blocked": Word("■", "refused", "bad"),
    "gone": Word("▲", "gone", "bad"),
}

BAD_ROWS = ("errored", "expired", "missing", "invalid")


def run_word(status: RunStatus) -> Word:
    """
    Return the state of a run in words.

    Examples
    --------
    >>> from pandas_batch.types import RunStatus
    >>> from datetime import UTC, datetime
    >>> at = datetime(2026, 11, 23, tzinfo=UTC)
    >>> run_word(RunStatus(run_id="r", name=None, model="m", base_url="", store_path="", state="collected",
    ...                    now=at, started_at=at, counts={"succeeded": 2, "expired": 1})).text
    'Finished, some rows failed'
    """
    if status.state != "collected":
        return _RUN_WORDS.get(status.state, Word("○", status.state.replace("_", " ").capitalize(), "wait"))
    counts = status.counts
    n_canceled = counts.get("canceled", 0)
    if n_canceled and not counts.get("succeeded"):
        return Word("⊘", "Canceled", "off")
    if status.n_failed > n_canceled or any(counts.get(name) for name in BAD_ROWS):
        if not counts.get("succeeded") and not n_canceled:
            only = "the row failed" if status.n_rows == 1 else "all rows failed"
            return Word("▲", f"Finished, {only if status.n_failed >= status.n_rows else 'no row was answered'}", "bad")
        return Word("▲", f"{'Partly canceled' if n_canceled else 'Finished'}, some rows failed", "bad")
    if n_canceled:
        return Word("⊘", "Finished, partly canceled", "off")
    return Word("✓", "Finished", "ok")


def n_rows_succeeded(status: RunStatus) -> int:
    """Return how many rows have an answer: a row that failed is done, but it has none."""
    return status.counts.get("succeeded", 0) if status.counts else status.n_rows_answered


def batch_word(batch: BatchStatus) -> Word:
    """
    Return the state of a batch in words; what was canceled of it is never passed over.

    Examples
    --------
    >>> from pandas_batch.types import BatchStatus
    >>> batch_word(BatchStatus(batch_id="b", state="collected", n_requests=100, succeeded=60, canceled=40)).text
    'collected, 40 canceled'
    """
    if batch.state == "collected" and batch.canceled:
        part = f"collected, {batch.canceled:,} canceled" if batch.canceled < batch.n_requests else "canceled"
        return Word("⊘", part, "off")
    return _BATCH_WORDS.get(batch.state, Word("○", batch.state.replace("_", " "), "wait"))


def clock_time(at: datetime) -> str:
    """Return the time of day in the zone of this machine, with the zone's name: a kernel may run far away."""
    return f"{at.astimezone():%H:%M:%S %Z}".strip()


def day_and_time(at: datetime) -> str:
    """Return date and time in the zone of this machine."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}".strip()


def sentence(status: RunStatus) -> str:
    """Return what happens now, in one sentence; what the engine says comes first."""
    if status.message:
        return status.message
    if status.state == "preparing":
        return "Nothing has been sent yet."
    if status.state == "submitting":
        n_posted = sum(b.batch_id is not None for b in status.batches)
        return f"{n_posted:,} of {len(status.batches):,} batches are on the server."
    if status.state == "in_progress" and not status.n_batches_ended:
        return "The server tells a batch's counts when the whole batch has ended: most within an hour, all within 24."
    if status.state == "canceling":
        return "The cancel is on its way; what was answered before it is kept, and billed."
    if status.state == "ended":
        return "All batches have ended; their answers are being fetched."
    if status.state == "blocked":
        return "The server refused a batch. Correct what it says and run the same line again."
    if status.is_from_store:
        return "From the store: nothing was sent, $0.00 was paid now."
    return ""


def elapsed_s(status: RunStatus) -> float:
    """Return how long the run has been going on, or took."""
    return ((status.finished_at or status.now) - status.started_at).total_seconds()


def saved_by_batching_usd(status: RunStatus) -> float | None:
    """Return what the batch discount spared on the answers so far; None where a price is unknown."""
    if status.cost_usd is None or status.cost_usd_standard is None:
        return None
    return status.cost_usd_standard - status.cost_usd
