"""What happens to a run, as lines of the logger ``pandas_batch``: for nights when nobody looks.

Start, posts, ends and what was collected are INFO; rows that failed, a lost batch and a run that stopped are WARNING.
No line holds a prompt, an answer or a key.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pandas_batch.amounts import usd
from pandas_batch.errors import clip
from pandas_batch.store.states import SETTLED, TO_SEND

if TYPE_CHECKING:
    from pandas_batch.store import BatchRecord

logger = logging.getLogger("pandas_batch")
# Without a handler of the user's, Python itself would print warnings: whoever configures no logging asks for none.
logger.addHandler(logging.NullHandler())


class Journal:
    """
    The log of one run that is driven in this process.

    Parameters
    ----------
    run_id
        The run.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._states: dict[int, str] = {}
        self._is_closed = False

    def note(self, batches: Sequence[BatchRecord]) -> None:
        """Write a line for each batch whose state is another than when it was noted last."""
        if not self._states and batches:
            n_to_send = sum(batch.n_requests for batch in batches if batch.state in TO_SEND)
            n_all = sum(batch.n_requests for batch in batches)
            logger.info(
                "run %s: %s requests in %d batches, %s of them to be sent",
                self._run_id,
                f"{n_all:,}",
                len(batches),
                f"{n_to_send:,}",
            )
        for batch in batches:
            before = self._states.get(batch.key)
            self._states[batch.key] = batch.state
            if before is not None and before != batch.state:
                self._changed(batch)

    def _changed(self, batch: BatchRecord) -> None:
        name = batch.batch_id or f"no. {batch.key}"
        if batch.state == "bound":
            logger.info("run %s: batch %s posted, %s requests", self._run_id, name, f"{batch.n_requests:,}")
        elif batch.state == "ended":
            counts = ", ".join(f"{number:,} {outcome}" for outcome, number in batch.counts.items() if number)
            logger.info("run %s: batch %s ended: %s", self._run_id, name, counts or "nothing answered")
        elif batch.state == "collected":
            logger.info("run %s: the answers of batch %s are here", self._run_id, name)
        elif batch.state == "unknown":
            logger.warning("run %s: the create of batch %s was not answered; it is looked for", self._run_id, name)
        elif batch.state == "refused":
            # What the server says may hold a prompt: its kind alone is logged.
            kind = (batch.error or "").partition(":")[0]
            logger.warning("run %s: batch %s was refused (%s)", self._run_id, name, clip(kind, 60))
        elif batch.state == "gone":
            logger.warning("run %s: the server no longer has batch %s", self._run_id, name)

    def close(
        self, batches: Sequence[BatchRecord], *, error: BaseException | None = None, paid_usd: float | None = None
    ) -> None:
        """Write the last line: what failed, why the run stopped, or that all is well."""
        if self._is_closed:
            return
        self.note(batches)
        self._is_closed = True
        if error is not None:
            logger.warning("run %s stopped: %s", self._run_id, type(error).__name__)
        elif all(batch.state in SETTLED for batch in batches):
            n_failed = sum(
                number
                for batch in batches
                for outcome, number in batch.counts.items()
                if outcome in ("errored", "expired", "canceled")
            )
            if n_failed:
                logger.warning(
                    "run %s: %s of %s requests failed or were canceled",
                    self._run_id,
                    f"{n_failed:,}",
                    f"{sum(batch.n_requests for batch in batches):,}",
                )
            logger.info("run %s: collected, paid %s", self._run_id, usd(paid_usd))


def asking_live(batch: BatchRecord) -> None:
    """Log that requests are asked one by one from now on."""
    logger.info("run %s: asking %s requests now, one by one", batch.run_id, f"{batch.n_requests:,}")


def asked_live(batch: BatchRecord, *, error: BaseException | None) -> None:
    """Log what came of requests that were asked one by one, and what stopped it."""
    if error is not None:
        logger.warning("run %s stopped: %s", batch.run_id, type(error).__name__)
    counts = ", ".join(f"{number:,} {outcome}" for outcome, number in batch.counts.items() if number)
    level = logging.INFO if batch.counts.get("succeeded", 0) == batch.n_requests else logging.WARNING
    logger.log(level, "run %s: asked one by one: %s", batch.run_id, counts or "nothing answered")
