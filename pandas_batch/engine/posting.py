"""Bring one recorded batch onto the server, exactly once.

Each function here takes one step and returns at once with what is due next; nobody sleeps. The order of the
writes is the whole point: what will be sent is durable before the first byte leaves, and a create whose
answer was lost is looked for (`pandas_batch.engine.reconciling`), never repeated blindly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from pandas_batch.clock import Clock
from pandas_batch.errors import (
    InputError,
    LostAnswerError,
    PandasBatchError,
    StoreError,
    UnreadableAnswerError,
    clip,
)
from pandas_batch.failpoints import reached
from pandas_batch.server_values import time_of, times_of
from pandas_batch.wire.backoff import backoff_s

from .memory import give_back_cache
from .spooling import SpoolBody, params_of_line, spool_lines
from .uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Collection

    from pandas_batch.store import BatchRecord, BatchState, NewBatch, Store
    from pandas_batch.wire.wire import Created, Wire

CONNECT_PATIENCE_S = 600.0
"""How long a server that cannot even be reached is tried before the run stops in words."""

MAX_FOREIGN_ANSWERS = 3
"""How often a batch is posted where something else than the API answers, before the run stops and says what did."""

_NOT_SPLIT = (
    "The server refused the batch as too large, so nothing of it was billed; what else the run has posted goes on and "
    "is kept."
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """
    What one step of a batch led to.

    Attributes
    ----------
    due_in_s
        Seconds until the next step is worth taking; 0 is at once, None means nothing is left to do here.
    message
        One sentence for the panel, or "".
    error
        What stops the run until the user does something; None while it can go on by itself.
    limited
        Whether the account's limit was reached: when to try again is for `pandas_batch.engine.room` to say.
    asked_s
        How long the server asked to wait then, or None.
    is_in
        Whether the server has taken a batch.
    """

    due_in_s: float | None
    message: str = ""
    error: BaseException | None = None
    limited: bool = False
    asked_s: float | None = None
    is_in: bool = False


@dataclass(frozen=True, kw_only=True)
class EngineContext:
    """What every step needs: the store, the server, the time."""

    store: Store
    wire: Wire
    clock: Clock
    lost_answer_grace_s: float = 600.0

    def check_server(self, batch: BatchRecord) -> None:
        """
        Refuse to go on with `batch` at another server than the one that it was made for.

        Raises
        ------
        InputError
            The client speaks to another base URL.
        """
        if batch.base_url != self.wire.base_url:
            raise InputError(
                f"Run {batch.run_id} was made at {batch.base_url}, and this client speaks to {self.wire.base_url}.",
                "Nothing was sent, nothing was billed; its batches go on where they are.",
                f'pandas_batch.load("{batch.run_id}", client=...)   # one with that base_url',
            )

    def check_workspace(self, batch: BatchRecord, workspace_id: str | None) -> None:
        """
        Refuse to conclude anything about `batch` from what another workspace shows: there it can never be seen.

        Raises
        ------
        InputError
            The key belongs to another workspace than the one that the batch was posted in.
        """
        if None in (batch.workspace_id, workspace_id) or batch.workspace_id == workspace_id:
            return
        raise InputError(
            f"The batch {batch.batch_id or batch.nonce} was posted in the workspace {batch.workspace_id}, and this key "
            f"belongs to {workspace_id}: a batch is seen with keys of its own workspace only.",
            "Nothing was sent, nothing was billed; the batch goes on where it is, and nothing is lost.",
            "Use a key of that workspace and run the same line again.",
        )


class Poster:
    """Posts the batches of one run; remembers between steps how often a thing has failed."""

    def __init__(self, place: EngineContext, uploads: Uploads | None = None) -> None:
        self._place = place
        self._uploads = uploads or Uploads(place.clock, on_sent=lambda: None)
        self._n_failures: dict[int, int] = {}
        self._n_list_failures: dict[int, int] = {}
        self._n_foreign: dict[int, int] = {}
        self._unreachable_since: float | None = None

    def step(self, batch: BatchRecord) -> Step:
        """
        Post `batch` (in state ``intent``), whose lease the caller holds.

        Returns
        -------
        Step
            With ``due_in_s=0`` when the batch has changed its state (``bound``, ``unknown`` or ``split``), with
            an error when the create was refused (state ``refused``).
        """
        try:
            marked = self._with_watermark(batch)
            if isinstance(marked, Step):
                return marked
            return self._post(marked)
        finally:
            self._uploads.end(batch.key)

    # ---------------------------------------------------------------- before the POST

    def _with_watermark(self, batch: BatchRecord) -> BatchRecord | Step:
        """Read the newest batch on the server: what is newer afterwards may be the one whose answer got lost."""
        from pandas_batch.wire.failures import (
            is_auth,
            is_forbidden,
            is_foreign,
            is_transient,
            never_sent,
            server_time,
        )

        place = self._place
        watermark_id: str | None = None
        watermark_at: datetime | None = None
        server_at: datetime | None = None
        workspace_id: str | None = None
        try:
            page = place.wire.list(limit=1)
        except Exception as error:
            n_failures = self._n_list_failures[batch.key] = self._n_list_failures.get(batch.key, 0) + 1
            if is_auth(error) and not is_forbidden(error):
                return self._blocked(error, "the key was not accepted")
            if never_sent(error):
                return self._unreachable(error, n_failures)
            if (is_transient(error) or is_foreign(error)) and n_failures <= 3:
                return Step(due_in_s=backoff_s(n_failures), message="The server is not answering; trying again.")
            # A gateway without a list, or one that stays broken: the server's own clock, less a margin, has to
            # stand in for the newest batch. Without even that nothing could be found again, so nothing is sent.
            server_at = server_time(error)
            if server_at is None:
                if not is_transient(error):
                    return self._blocked(
                        error,
                        "listing batches was refused, and without it a lost answer could not be found again",
                    )
                return Step(due_in_s=backoff_s(n_failures), message="The server is not answering; trying again.")
        else:
            # What became of creates is counted apart: a list that answers says nothing about them.
            self._n_list_failures.pop(batch.key, None)
            server_at, workspace_id = page.server_at, page.workspace_id
            if page.batches and not page.n_unreadable:
                watermark_id = str(page.batches[0]["id"])
                watermark_at = time_of(page.batches[0].get("created_at"))
        reached("watermark read")
        changes: dict[str, Any] = {
            "watermark_id": watermark_id,
            "watermark_at": watermark_at,
            "server_posted_at": server_at,
            "workspace_id": workspace_id,
            "posted_at": place.clock.now(),
            "attempts": batch.attempts + 1,
        }
        place.store.batches.mark_posting(batch.key, changes["posted_at"])
        if not place.store.batches.transition(batch.key, expect={"intent"}, to="posting", **changes):
            return Step(due_in_s=0.0)
        reached("posting recorded")
        return replace(batch, state="posting", **changes)

    # ---------------------------------------------------------------- the POST, once

    def _post(self, batch: BatchRecord) -> Step:
        from pandas_batch.wire.wire import Body

        place = self._place
        began_s = place.clock.monotonic_s()
        moves, end = partial(self._uploads.moves, batch.key), partial(self._uploads.end, batch.key)
        body = Body.from_path(place.store.files.spool_path(batch.key)).watched(moves, end)
        created = place.wire.create(body, betas=batch.betas)
        reached("create answered")
        if created.outcome == "created":
            return self._bind(batch, created)
        if created.outcome == "unknown":
            place.store.batches.transition(
                batch.key,
                expect={"posting"},
                to="unknown",
                error=_words(created.error),
                doubt=created.doubt,
                lost_after_s=place.clock.monotonic_s() - began_s,
            )
            reached("loss recorded")
            return self._doubtful(batch, created)
        self._n_foreign.pop(batch.key, None)
        if created.outcome == "too_large":
            return self._too_large(batch, created)
        if created.outcome == "retry":
            place.store.batches.transition(batch.key, expect={"posting"}, to="intent", error=_words(created.error))
            if created.status_code is None:
                n_failures = self._n_failures[batch.key] = self._n_failures.get(batch.key, 0) + 1
                return self._unreachable(created.error, n_failures)
            self._unreachable_since = None
            return Step(due_in_s=0.0, limited=True, asked_s=created.retry_after_s)
        place.store.batches.transition(batch.key, expect={"posting"}, to="refused", error=_words(created.error))
        return Step(due_in_s=None, error=created.error, message=refused_words(_words(created.error)))

    def _doubtful(self, batch: BatchRecord, created: Created) -> Step:
        """Look for the batch; where something else than the API has answered again and again, stop and say what."""
        # What is found too large is cut in halves, and does not come here again and again; one request cannot be.
        if created.doubt == "not_the_api" or (created.doubt == "too_large" and batch.n_requests < 2):
            n_foreign = self._n_foreign[batch.key] = self._n_foreign.get(batch.key, 0) + 1
            if n_foreign >= MAX_FOREIGN_ANSWERS:
                self._n_foreign.pop(batch.key)
                said = created.error.what if isinstance(created.error, PandasBatchError) else _words(created.error)
                error = UnreadableAnswerError(
                    f"Each of the last {n_foreign} creates was answered by something that is not the API. {said}",
                    "Whether it let one of them through is not known; if so, the next call finds that batch, and "
                    "nothing is posted again before it was looked for.",
                    "Open the base URL in a browser, or ask who runs the network; then run the same line again.",
                )
                return Step(due_in_s=None, error=error, message=f"Posting stopped: {error.what}")
        return Step(due_in_s=0.0, message=doubt_words(created.doubt, _words(created.error)))

    def _bind(self, batch: BatchRecord, created: Created) -> Step:
        if created.batch is None:
            raise PandasBatchError("A created batch came without its description.")
        batch_id = str(created.batch["id"])
        # One that has ended by the time its create is answered need not be polled (the simulator's may take no time).
        has_ended = created.batch.get("processing_status") == "ended"
        try:
            bound = self._place.store.batches.transition(
                batch.key,
                expect={"posting", "unknown"},
                to="ended" if has_ended else "bound",
                batch_id=batch_id,
                proved=True,
                workspace_id=created.workspace_id or batch.workspace_id,
                error="",
                doubt="",
                **times_of(created.batch),
            )
        except StoreError as error:
            raise StoreError(
                f"Batch {batch_id} was created ({batch.n_requests:,} requests) and could not be recorded: {error.what}",
                "It is on the server and will be billed. Keep this id; as soon as the store can be written again, "
                "the same line finds the batch by itself and pays for nothing twice.",
                error.hint,
            ) from error
        give_back_cache(self._place.store.files.spool_path(batch.key), batch.n_requests)
        reached("batch bound")
        if not bound and self._place.store.batches.get(batch.key).batch_id is None:
            raise LostAnswerError(
                f"Batch {batch_id} was created, but its record changed meanwhile.",
                "Nothing else was sent.",
                n_requests=batch.n_requests,
                posted_at=batch.posted_at,
            )
        self._n_failures.pop(batch.key, None)
        self._unreachable_since = None
        return Step(due_in_s=0.0, is_in=True)

    def _too_large(self, batch: BatchRecord, created: Created) -> Step:
        if batch.n_requests < 2:
            self._place.store.batches.transition(
                batch.key, expect={"posting"}, to="refused", error=_words(created.error)
            )
            return Step(due_in_s=None, error=created.error, message="One request alone is too large for the server.")
        return split_in_halves(self._place.store, batch, expect={"posting"})

    # ---------------------------------------------------------------- what cannot go on by itself

    def _blocked(self, error: BaseException, why: str) -> Step:
        return Step(due_in_s=None, error=error, message=f"Posting stopped: {why}.")

    def _unreachable(self, error: BaseException | None, n_failures: int) -> Step:
        now_s = self._place.clock.monotonic_s()
        if self._unreachable_since is None:
            self._unreachable_since = now_s
        if now_s - self._unreachable_since >= CONNECT_PATIENCE_S:
            return Step(due_in_s=None, error=error, message="The server could not be reached.")
        return Step(due_in_s=backoff_s(n_failures), message="The server cannot be reached; trying again.")


def split_in_halves(store: Store, batch: BatchRecord, *, expect: Collection[BatchState]) -> Step:
    """Replace a batch that certainly was not made by its halves, where its state is one of `expect`."""
    store.batches.split(batch.key, split_spool(store, batch), expect=expect)
    return Step(due_in_s=0.0, message="The server found a batch too large; it goes in two halves.")


def split_spool(store: Store, batch: BatchRecord) -> list[NewBatch]:
    """Write the requests of `batch` as two new batches, under ids of their own."""
    from pandas_batch.custom_ids import custom_ids, new_nonce
    from pandas_batch.store import NewBatch

    fingerprints, draws = store.batches.requests_of(batch.key)
    middle = batch.n_requests // 2
    halves = []
    with store.files.open_spool(batch.key) as spool:
        lines = spool_lines(spool)
        for start, stop in ((0, middle), (middle, batch.n_requests)):
            nonce = new_nonce()
            ids = custom_ids(nonce, fingerprints[start:stop], draws[start:stop])
            writer = SpoolBody(store.files.new_spool(_NOT_SPLIT))
            for custom_id in ids:
                writer.write_line(custom_id, params_of_line(next(lines)))
            halves.append(
                NewBatch(
                    nonce=nonce,
                    fingerprints=fingerprints[start:stop],
                    draws=draws[start:stop],
                    spool=writer.close(),
                    base_url=batch.base_url,
                    betas=batch.betas,
                )
            )
    return halves


# -------------------------------------------------------------------- words


def refused_words(said: str) -> str:
    """Return the sentence about a create that the server refused, in the server's own words."""
    return f"The server refused a batch: {said}" if said else "The server refused a batch."


def doubt_words(doubt: str, said: str) -> str:
    """Return the sentence about a create of which nobody knows whether it was heard."""
    if doubt == "overloaded":
        return "The API is overloaded; the batch is posted again if it turns out that it was not taken."
    if doubt in ("not_the_api", "too_large"):
        return f"Something that is not the API answered a create; looking whether it came through. {said}"
    return "The answer to a create was lost; looking for the batch."


def _words(error: BaseException | None) -> str:
    if error is None:
        return ""
    return clip(error.what if isinstance(error, PandasBatchError) else f"{type(error).__name__}: {error}")
