"""How times and states are said; the panel, the static account and the text say them alike."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from pandas_batch.amounts import duration, rows, usd
from pandas_batch.types import BatchStatus, RunStatus


class Word(NamedTuple):
    """A state in one word or two, with a glyph and a tone, so that no state is known by its color alone."""

    glyph: str
    text: str
    tone: str
    """``run``, ``ok``, ``bad``, ``warn``, ``off`` or ``wait``."""


_RUN_WORDS = {
    "preparing": Word("○", "Preparing", "wait"),
    "submitting": Word("↑", "Submitting", "run"),
    "in_progress": Word("◐", "In progress", "run"),
    "canceling": Word("⊘", "Canceling", "off"),
    "ended": Word("↓", "Fetching answers", "run"),
    "blocked": Word("■", "Stopped", "bad"),
}

_SILENT = ("cannot be reached", "not answering", "could not be reached", "not the API", "overloaded", "was lost")
"""What the engine says while nothing can be heard of the batches, or of a create."""

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

BAD_ROWS = ("errored", "expired", "missing", "invalid", "paused")


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
    if status.state == "blocked" and status.stop is not None:
        return Word("■", f"Stopped: {status.stop.why}", "bad")
    if is_troubled(status):
        return Word("!", f"{_RUN_WORDS[status.state].text}, with trouble", "warn")
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


def is_troubled(status: RunStatus) -> bool:
    """Return whether the run goes on, but something keeps it from hearing of its batches."""
    return status.state in ("submitting", "in_progress", "canceling", "ended") and any(
        words in status.message for words in _SILENT
    )


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
    if status.state == "blocked" and status.stop is not None:
        return stopped_words(status)
    if status.message:
        return status.message
    if status.state == "preparing":
        return "Nothing has been sent yet."
    if status.state == "submitting":
        n_posted = sum(b.batch_id is not None for b in status.batches)
        return f"{n_posted:,} of {len(status.batches):,} batches {_is(n_posted)} on the server."
    if status.state == "canceling":
        return "The cancel is on its way; what was answered before it is kept, and billed."
    if status.state == "ended":
        return "All batches have ended; their answers are being fetched."
    if status.state == "blocked":
        return f"{where_it_stands(status)} When the cause is gone, run the same line again."
    if status.is_from_store:
        return "From the store: nothing was sent, $0.00 paid now."
    return ""


def stopped_words(status: RunStatus) -> str:
    """Return what has become of the batches of a run that was stopped, the server's own words, and what to do."""
    stop = status.stop
    if stop is None:
        return where_it_stands(status)
    said = f" “{stop.said}”" if stop.said else ""
    return " ".join(part for part in (where_it_stands(status) + said, stop.advice, stop.where) if part)


def where_it_stands(status: RunStatus) -> str:
    """
    Return what is on the server and may be billed, and what is not, of a run that does not go on.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> at = datetime(2026, 11, 23, tzinfo=UTC)
    >>> batches = (BatchStatus(batch_id="b", state="in_progress", n_requests=20),
    ...            *[BatchStatus(batch_id=None, state="blocked", n_requests=20)] * 2)
    >>> where_it_stands(RunStatus(run_id="r", name=None, model="m", base_url="", store_path="", state="blocked",
    ...                           now=at, started_at=at, batches=batches, under_way_usd_max=0.0053))
    '1 of 3 batches is on the server and goes on (billed at most $0.0053). 2 were refused: not sent, not billed.'
    """
    own = [batch for batch in status.batches if not batch.reused]
    n = {state: sum(batch.state == state for batch in own) for state in {batch.state for batch in own}}
    n_goes_on = n.get("in_progress", 0) + n.get("canceling", 0)
    n_home = n.get("ended", 0) + n.get("collected", 0)
    said = []
    if n_goes_on:
        bound = usd(status.under_way_usd_max)
        billed = "its cost has no known bound" if status.under_way_usd_max is None else f"billed at most {bound}"
        said.append(f"{n_goes_on:,}{_of(own)} {_is(n_goes_on)} on the server and {_goes(n_goes_on)} on ({billed}).")
    if n_home:
        said.append(f"{n_home:,}{'' if said else _of(own)} {_has(n_home)} ended: {usd(status.paid_usd)} paid.")
    if n_refused := n.get("blocked", 0):
        said.append(f"{n_refused:,}{'' if said else _of(own)} {_was(n_refused)} refused: not sent, not billed.")
    if n_waiting := n.get("waiting", 0) + n.get("posting", 0):
        said.append(f"{n_waiting:,}{'' if said else _of(own)} {_was(n_waiting)} not sent, not billed.")
    if n_lost := n.get("unproved", 0):
        it = "it is" if n_lost == 1 else "they are"
        said.append(f"{n_lost:,} may be on the server: {it} looked for before anything is sent again.")
    return " ".join(said) or "Nothing was sent, nothing was billed."


def _of(batches: list[BatchStatus]) -> str:
    return f" of {len(batches):,} {'batch' if len(batches) == 1 else 'batches'}"


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def _was(n: int) -> str:
    return "was" if n == 1 else "were"


def _has(n: int) -> str:
    return "has" if n == 1 else "have"


def _goes(n: int) -> str:
    return "goes" if n == 1 else "go"


def batch_message(number: int, batch: BatchStatus, now: datetime) -> str:
    """Return what is to be said of one batch, with the time by which it is settled; "" where there is nothing."""
    if not batch.message:
        return ""
    until = ""
    if batch.until is not None:
        until = f"; looked for until {clock_time(batch.until)}, then sent again" if batch.until > now else ""
    return f"Batch {number:,}: {batch.message}{until}."


def day_words(at: datetime, now: datetime) -> str:
    """Return a day and a time of day as one says it: today, tomorrow, or the date."""
    local, today = at.astimezone(), now.astimezone().date()
    days = (local.date() - today).days
    day = "today" if days == 0 else "tomorrow" if days == 1 else f"{local:%Y-%m-%d}"
    return f"{day} {local:%H:%M}"


def preparing_words(status: RunStatus) -> str:
    """Return how far a run is that is being prepared, and how fast."""
    n, spent_s = status.n_rows_prepared, elapsed_s(status)
    if not n:
        return f"reading {rows(status.n_rows)}, {duration(spent_s)}"
    pace = f", {round(n / spent_s, -2 if n / spent_s >= 1_000 else 0):,.0f} a second" if spent_s >= 0.5 else ""
    return f"{n:,} of {rows(status.n_rows)} prepared{pace}, {duration(spent_s)}"


def elapsed_s(status: RunStatus) -> float:
    """Return how long the run has been going on, or took."""
    return ((status.finished_at or status.now) - status.started_at).total_seconds()


def saved_by_batching_usd(status: RunStatus) -> float | None:
    """Return what the batch discount spared on the answers so far; None where a price is unknown."""
    if status.cost_usd is None or status.cost_usd_standard is None:
        return None
    return status.cost_usd_standard - status.cost_usd
