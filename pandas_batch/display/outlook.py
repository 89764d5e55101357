"""What can be said of the time and the money to come: experience, never a promise."""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from pandas_batch.amounts import about, span
from pandas_batch.types import RunStatus

_USUAL = "most end within an hour, all within 24"


class TimeLeft(NamedTuple):
    """How long it may still take, and what that is taken from."""

    left: str
    because: str


def time_left(status: RunStatus) -> TimeLeft:
    """
    Return how long the batches may still take, from those of this run and of earlier ones that have ended.

    Examples
    --------
    >>> from datetime import UTC, datetime, timedelta
    >>> from pandas_batch.types import BatchStatus
    >>> at = datetime(2026, 11, 30, 14, 0, tzinfo=UTC)
    >>> batch = BatchStatus(batch_id="b", state="in_progress", n_requests=1, created_at=at)
    >>> status = RunStatus(run_id="r", name=None, model="m", base_url="", store_path="", state="in_progress",
    ...                    now=at + timedelta(minutes=4), started_at=at, batches=(batch,),
    ...                    durations_s=(540., 900., 1020.))
    >>> time_left(status)
    TimeLeft(left='about 11 min', because='3 earlier batches took 9 to 17 min')
    >>> from dataclasses import replace
    >>> time_left(replace(status, durations_s=())).because
    'most end within an hour, all within 24'
    """
    open_batches = [
        batch for batch in status.batches if not batch.has_ended and batch.state not in ("withdrawn", "gone")
    ]
    if status.state == "ended" or not open_batches:
        return TimeLeft("moments", "the answers are being fetched")
    if status.state == "canceling":
        return TimeLeft("minutes", "what is begun is still answered")
    own_s = [took_s for batch in status.batches if (took_s := batch.took_s) is not None]
    known_s = [*own_s, *status.durations_s]
    if not known_s:
        return TimeLeft("up to an hour", _USUAL)
    if own_s:
        of = f" of {len(status.batches):,}" if len(own_s) < len(status.batches) else ""
        who = f"{len(own_s):,}{of} {'batch' if len(status.batches) == 1 else 'batches'}"
    else:
        who = "an earlier batch" if len(known_s) == 1 else f"{len(known_s):,} earlier batches"
    shown_s = own_s or known_s
    because = f"{who} took {span(min(shown_s), max(shown_s))}"
    usual_s, longest_s = median(known_s), max(known_s)
    left_s = 0.0
    for batch in open_batches:
        age_s = 0.0 if batch.created_at is None else (status.now - batch.created_at).total_seconds()
        if age_s >= longest_s:
            return TimeLeft("any time now", f"longer than before: {because}")
        left_s = max(left_s, (usual_s if age_s < usual_s else longest_s) - age_s)
    return TimeLeft(about(left_s), because)


def expected_usd(status: RunStatus) -> float | None:
    """Return what the run may cost in the end, if the other rows are like those that are answered; None: unknown."""
    n_asked = status.n_rows - status.counts.get("skipped", 0) - status.counts.get("unsent", 0)
    if status.cost_usd is None or status.is_final or not status.n_rows_answered or status.n_rows_answered >= n_asked:
        return None
    return status.cost_usd * n_asked / status.n_rows_answered
