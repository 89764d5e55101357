"""Where a run's batches are, in one sentence: for whoever stops waiting, and for the end of a script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pandas_batch.errors import NOTHING_SENT, clip
from pandas_batch.store.states import RECORDED, SETTLED, TO_SEND, UNDECIDED

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord


def where_they_are(batches: Sequence[BatchRecord]) -> str:
    """Return what of a run is on the server and what is not."""
    batches = [batch for batch in batches if not batch.is_live]
    n = len(batches)
    n_there = sum(batch.batch_id is not None for batch in batches)
    n_open = sum(batch.state == "bound" for batch in batches)
    n_unknown = sum(batch.batch_id is None and batch.state in UNDECIDED for batch in batches)
    n_unsent = sum(batch.state in RECORDED for batch in batches)
    n_withdrawn = sum(batch.state == "withdrawn" for batch in batches)
    if not n_there and not n_unknown:
        return NOTHING_SENT
    parts = []
    if n_there:
        goes_on = f" and {_verb(n_there, 'goes', 'go')} on there" if n_open == n_there else ""
        some = f", of which {n_open:,} {_verb(n_open, 'goes', 'go')} on" if 0 < n_open < n_there else ""
        parts.append(f"{n_there:,} of {n:,} batches {_verb(n_there, 'is', 'are')} on the server{goes_on}{some}")
    if n_unknown:
        parts.append(
            f"of {n_unknown:,} it is not known whether the server has {_verb(n_unknown, 'it', 'them')}: that is looked "
            "for before anything is sent again"
        )
    if n_unsent:
        parts.append(f"{n_unsent:,} {_verb(n_unsent, 'was', 'were')} not sent")
    if n_withdrawn:
        parts.append(f"{n_withdrawn:,} {_verb(n_withdrawn, 'was', 'were')} canceled before anything was sent")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _verb(n: int, one: str, many: str) -> str:
    return one if n == 1 else many


def words_at_the_end(
    run_id: str, batches: Sequence[BatchRecord], *, error: BaseException | None, message: str, again: str
) -> str:
    """
    Return the line with which a script ends whose run is not collected; nothing where it is.

    Parameters
    ----------
    run_id, batches
        The run.
    error, message
        What stopped it, or what it was about.
    again
        The line that takes it up again.
    """
    if not any(batch.state in TO_SEND or batch.state in ("refused", "bound", "ended") for batch in batches):
        return ""
    if all(batch.cancel_initiated_at is not None for batch in batches if batch.state not in SETTLED):
        # Said when it was canceled.
        return ""
    why = ""
    if any(batch.state in TO_SEND or batch.state == "refused" for batch in batches):
        stopped = next((batch.error for batch in batches if batch.state == "refused" and batch.error), "")
        told = f"{type(error).__name__}: {error}" if error is not None else stopped or message
        why = f" ({clip(told.strip().rstrip('.'))})" if told else ""
    where = where_they_are(batches).rstrip(".")
    return f"pandas_batch: run {run_id}: {where}{why}. To come back, run the same line again, or: {again}"
