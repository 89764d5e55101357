"""The endpoints: what each call does to the batches and what it answers."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from .batches import Batch, BatchFacts
from .blobs import Blob
from .http import Request, Response
from .intake import parse_create_body
from .models import catalogue, find_model
from .plan import FaultPlan
from .rendering import LiveMessage, answer_live, settle
from .replies import Answer
from .routing import Caller
from .tokens import PromptCache, count_input_tokens
from .validation import ApiError, check_params, invalid

__all__ = ["Limits", "Service"]

RETRY_AFTER_S = 10


@dataclass(slots=True)
class Limits:
    """What one batch may hold, and what the server queues."""

    max_requests: int = 100_000
    max_bytes: int = 256_000_000
    max_queued: int = 500_000


def json_response(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer with a JSON body."""
    return Response(status, (msgspec.json.encode(data),), headers=headers or {})


class Service:
    """
    The batches and the rules.

    Parameters
    ----------
    answer
        Where the texts of answers come from.
    seconds_per_batch
        How long a batch takes, or a function of its number of requests.
    seconds_to_cancel
        How long a canceled batch takes to end.
    seconds_per_message
        How long a message that is asked live takes, in real seconds, or a function of its params.
    seed
        Decides every chance.
    now_s
        The server's clock, in Unix seconds.
    folder
        Where batches are kept; with `durable` they survive the process.
    """

    def __init__(
        self,
        *,
        answer: Answer,
        seconds_per_batch: float | Callable[[int], float],
        seconds_to_cancel: float,
        seconds_per_message: float | Callable[[dict[str, Any]], float],
        seed: int,
        now_s: Callable[[], float],
        folder: Path,
        durable: bool,
        limits: Limits,
        faults: FaultPlan,
    ) -> None:
        self.answer = answer
        self.seconds_per_batch = seconds_per_batch
        self.seconds_to_cancel = seconds_to_cancel
        self.seconds_per_message = seconds_per_message
        self.seed = seed
        self.now_s = now_s
        self.folder = folder
        self.durable = durable
        self.limits = limits
        self.faults = faults
        self.base_url = ""
        self._lock = threading.Lock()
        self._cache = PromptCache()
        self._batches: dict[str, Batch] = {batch.id: batch for batch in Batch.load_all(folder)} if durable else {}
        self._n_made = max((batch.facts.sequence for batch in self._batches.values()), default=0)
        self.deleted: list[Batch] = []
        self.messages: list[LiveMessage] = self._load_messages() if durable else []
        self._numbers = itertools.count(len(self.messages))

    # ---- for the endpoints and for inspection

    def batches(self, workspace_id: str | None = None, *, listed: bool = False) -> list[Batch]:
        """Return the batches there are at this moment, newest first."""
        now_s = self.now_s()
        with self._lock:
            there = [
                batch
                for batch in self._batches.values()
                if (batch.facts.listed_at if listed else batch.created_at) <= now_s
                and workspace_id in (None, batch.facts.workspace_id)
            ]
        return sorted(there, key=lambda batch: (batch.created_at, batch.facts.sequence), reverse=True)

    def settled(self, batch: Batch) -> Batch:
        """Return the batch; where it has ended, its results and counts are settled."""
        if batch.phase(self.now_s()) == "ended":
            with batch.lock:
                if batch.facts.counts is None:
                    settle(
                        batch,
                        answer=self.answer,
                        cache=self._cache,
                        faults=self.faults.for_rows(batch.id),
                        seed=self.seed,
                        spool=self.folder / f"{batch.id}.results.part",
                    )
                    if self.durable:
                        batch.save(self.folder)
        return batch

    def add_batch(self, body: Blob, n_requests: int, caller: Caller, *, at_s: float, decoy: bool = False) -> Batch:
        """Keep a checked create as a batch that was created at `at_s`."""
        seconds = self.seconds_per_batch
        with self._lock:
            self._n_made += 1
            facts = BatchFacts(
                id=self._new_id(at_s),
                sequence=self._n_made,
                n_requests=n_requests,
                created_at=at_s,
                workspace_id=caller.workspace_id,
                api_version=caller.api_version,
                betas=list(caller.betas),
                seconds=float(seconds(n_requests) if callable(seconds) else seconds),
                seconds_to_cancel=self.seconds_to_cancel,
                listed_at=at_s + self.faults.list_lag_s(),
                decoy=decoy,
            )
            batch = Batch(facts, body)
            if self.durable:
                batch.save(self.folder)
            elif body.path is not None:
                body.move_to(self.folder / f"{facts.id}.requests.json")
            self._batches[facts.id] = batch
        return batch

    def _new_id(self, at_s: float) -> str:
        # The moment is part of it: two servers with one seed do not give the same ids to different batches.
        digest = hashlib.blake2b(f"{self.seed}/{self._n_made}/{at_s}".encode(), digest_size=16).hexdigest()
        return "msgbatch_01" + digest[:22]

    def _find(self, batch_id: str, caller: Caller) -> Batch:
        batch = self._batches.get(batch_id)
        if batch is None or batch.created_at > self.now_s() or batch.facts.workspace_id != caller.workspace_id:
            raise ApiError("not_found_error", f"Message Batch {batch_id} not found.")
        return batch

    def _shown(self, batch: Batch, now_s: float) -> dict[str, Any]:
        return self.settled(batch).to_json(now_s, self.faults.results_base_url(self.base_url))

    # ---- the calls

    def call(self, endpoint: str, object_id: str, request: Request, caller: Caller, *, at_s: float) -> Response:
        """
        Do what a request asks and return the answer.

        Raises
        ------
        ApiError
            Where the server refuses.
        """
        if endpoint == "create":
            return self.create(request, caller, at_s=at_s)
        if endpoint == "list":
            return self.list_batches(request.query, caller)
        if endpoint == "retrieve":
            batch = self._find(object_id, caller)
            now_s = self.now_s()
            ended = batch.phase(now_s) == "ended"
            return json_response(
                self._shown(batch, now_s), headers={} if ended else {"retry-after": str(RETRY_AFTER_S)}
            )
        if endpoint == "cancel":
            return self.cancel(self._find(object_id, caller))
        if endpoint == "delete":
            return self.delete(self._find(object_id, caller))
        if endpoint == "results":
            return self.results(self._find(object_id, caller))
        if endpoint == "count_tokens":
            params = _decoded(request)
            model = check_params(params, version=caller.api_version, betas=caller.betas, batch=False, counting=True)
            return json_response({"input_tokens": count_input_tokens(params, model)})
        if endpoint == "messages":
            return self.message(request, caller)
        if endpoint == "models":
            return self.models(request.query)
        if endpoint == "model":
            found = find_model(object_id)
            if found is None:
                raise ApiError("not_found_error", f"model: {object_id}")
            return json_response(found.to_json())
        raise ApiError("not_found_error", "Not found")

    def create(self, request: Request, caller: Caller, *, at_s: float) -> Response:
        """Create a batch."""
        if request.body.n_bytes > self.limits.max_bytes:
            # Such a body never reaches the API: the proxy before it answers, and not in the API's full form.
            return json_response(
                {"error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}}, 413
            )
        n_requests = len(parse_create_body(request.body, self.limits.max_requests))
        now_s = self.now_s()
        queued = sum(batch.n_requests for batch in self.batches() if batch.phase(now_s) != "ended")
        if queued + n_requests > self.limits.max_queued:
            raise ApiError("rate_limit_error", "Too many batch requests are in the processing queue.")
        batch = self.add_batch(request.take_body(), n_requests, caller, at_s=at_s)
        if batch.facts.seconds == 0 and at_s <= self.now_s():
            # One that takes no time has ended before its create is answered, and the answer says so.
            return json_response(self._shown(batch, self.now_s()))
        return json_response(batch.to_json(min(at_s, batch.stops_at - 1e-6), self.base_url))

    def list_batches(self, query: dict[str, str], caller: Caller) -> Response:
        """List batches, newest first, a page at a time."""
        limit = _limit(query, 20)
        there = self.batches(caller.workspace_id, listed=True)
        ids = [batch.id for batch in there]
        start, stop, more = 0, limit, len(there) > limit
        if "after_id" in query:
            start = self._cursor(ids, query["after_id"]) + 1
            stop, more = start + limit, len(there) > start + limit
        elif "before_id" in query:
            stop = self._cursor(ids, query["before_id"])
            start, more = max(0, stop - limit), stop > limit
        now_s = self.now_s()
        page = [self._shown(batch, now_s) for batch in there[start:stop]]
        return json_response(
            {
                "data": page,
                "has_more": more,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
            }
        )

    @staticmethod
    def _cursor(ids: list[str], batch_id: str) -> int:
        if batch_id not in ids:
            raise ApiError("not_found_error", f"Message Batch {batch_id} not found.")
        return ids.index(batch_id)

    def cancel(self, batch: Batch) -> Response:
        """Ask for a batch to be canceled; asking again changes nothing."""
        now_s = self.now_s()
        if batch.phase(now_s) == "ended":
            raise invalid(f"Message Batch {batch.id} has already ended and cannot be canceled.")
        with batch.lock:
            if batch.facts.cancel_at is None:
                batch.facts.cancel_at = now_s
                if self.durable:
                    batch.save(self.folder)
        shown = batch.to_json(min(now_s, batch.stops_at - 1e-6), self.base_url)
        return json_response({**shown, "processing_status": "canceling"})

    def delete(self, batch: Batch) -> Response:
        """Delete a batch that has ended."""
        if batch.phase(self.now_s()) != "ended":
            raise invalid("In progress batches cannot be deleted. Consider canceling the batch instead.")
        self.remove(batch)
        return json_response({"id": batch.id, "type": "message_batch_deleted"})

    def remove(self, batch: Batch) -> None:
        """Take a batch away; what it cost stays known."""
        self.settled(batch)
        kept = Batch(batch.facts, Blob(), Blob(b"".join(batch.results.blocks()) if batch.results else b""))
        with self._lock:
            self._batches.pop(batch.id, None)
            self.deleted.append(kept)
        batch.forget(self.folder if self.durable else None)

    def results(self, batch: Batch) -> Response:
        """Return the results of a batch that has ended, until they are archived."""
        now_s = self.now_s()
        shown = self._shown(batch, now_s)
        if shown["results_url"] is None or batch.results is None:
            raise ApiError("not_found_error", f"Message Batch {batch.id} has no available results.")
        return Response(
            200,
            batch.results.blocks(),
            "application/x-jsonl",
            {"content-disposition": f"attachment; filename*=utf-8''{batch.id}_results.jsonl"},
        )

    def message(self, request: Request, caller: Caller) -> Response:
        """Answer one message: its params are checked at once, and it is billed at the standard price."""
        params, at_s = _decoded(request), self.now_s()
        try:
            message = answer_live(
                params,
                answer=self.answer,
                cache=self._cache,
                faults=self.faults.for_message(),
                api_version=caller.api_version,
                betas=caller.betas,
                at_s=at_s,
                seed=f"{self.seed}/live/{next(self._numbers)}",
            )
        except ApiError as error:
            if isinstance(params, dict):
                self._keep_message(LiveMessage(params, {}, (error.kind, error.message), at_s))
            raise
        self._keep_message(LiveMessage(params, message, None, at_s))
        response = json_response(message)
        seconds = self.seconds_per_message
        response.delay_s = float(seconds(params) if callable(seconds) else seconds)
        return response

    def _keep_message(self, message: LiveMessage) -> None:
        with self._lock:
            self.messages.append(message)
            if self.durable:
                with (self.folder / "messages.jsonl").open("ab") as file:
                    file.write(msgspec.json.encode(message) + b"\n")

    def _load_messages(self) -> list[LiveMessage]:
        path = self.folder / "messages.jsonl"
        # A line without its end is of a server that was killed while it wrote: nobody has had that answer.
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [msgspec.json.decode(line, type=LiveMessage) for line in lines]

    @staticmethod
    def models(query: dict[str, str]) -> Response:
        """List the models, newest first."""
        limit = _limit(query, 20)
        there = [model.to_json() for model in catalogue()]
        ids = [model["id"] for model in there]
        start = ids.index(query["after_id"]) + 1 if query.get("after_id") in ids else 0
        page = there[start : start + limit]
        return json_response(
            {
                "data": page,
                "has_more": start + limit < len(there),
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
            }
        )


def _decoded(request: Request) -> Any:
    try:
        return msgspec.json.decode(request.body.view())
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid(f"The request body is not valid JSON: {error}") from None


def _limit(query: dict[str, str], default: int) -> int:
    try:
        limit = int(query.get("limit", default))
    except ValueError:
        raise invalid("limit: Input should be a valid integer, unable to parse string as an integer") from None
    if not 1 <= limit <= 1000:
        bound = "greater than or equal to 1" if limit < 1 else "less than or equal to 1000"
        raise invalid(f"limit: Input should be {bound}")
    return limit
