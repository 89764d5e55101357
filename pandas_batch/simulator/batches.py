"""A batch as the server keeps it: what was sent, when, and from these what it is now.

Nothing here runs in the background. The state of a batch is computed, whenever somebody asks, from its requests, the
moment of its creation (and of a cancel) and the clock; so a restart, a killed process and a clock that jumps by days
all give the state that a server which had been up all the time would give.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from .blobs import Blob
from .intake import BatchItem

__all__ = ["Batch", "BatchFacts"]

EXPIRES_AFTER_S = 24 * 3600.0
ARCHIVED_AFTER_S = 29 * 24 * 3600.0

COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


class _Row(msgspec.Struct, gc=False):
    custom_id: str
    params: msgspec.Raw


class _Rows(msgspec.Struct):
    requests: list[_Row]


_decode_rows = msgspec.json.Decoder(_Rows).decode


def iso(at_s: float | None) -> str | None:
    """
    Return a time as the API writes it.

    Examples
    --------
    >>> iso(0.5)
    '1970-01-01T00:00:00.500000+00:00'
    """
    return None if at_s is None else datetime.fromtimestamp(at_s, UTC).isoformat(timespec="microseconds")


@dataclass(slots=True)
class BatchFacts:
    """All that is remembered of a batch beside its requests; times in Unix seconds."""

    id: str
    sequence: int
    n_requests: int
    created_at: float
    workspace_id: str
    api_version: str
    betas: list[str]
    seconds: float
    seconds_to_cancel: float
    listed_at: float
    decoy: bool = False
    cancel_at: float | None = None
    counts: dict[str, int] | None = None


@dataclass(slots=True)
class Batch:
    """
    One batch.

    Attributes
    ----------
    facts
        What is remembered of it.
    body
        The create as it was sent.
    results
        The lines of its results, once somebody asked for its end.
    """

    facts: BatchFacts
    body: Blob
    results: Blob | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def id(self) -> str:
        """The id that the API gave it."""
        return self.facts.id

    @property
    def n_requests(self) -> int:
        """How many requests it holds."""
        return self.facts.n_requests

    @property
    def created_at(self) -> float:
        """When it was created, in Unix seconds."""
        return self.facts.created_at

    @property
    def decoy(self) -> bool:
        """Whether it stands for another user's batch."""
        return self.facts.decoy

    @property
    def stops_at(self) -> float:
        """When processing ends: done, expired or canceled, whichever comes first (Unix seconds)."""
        facts = self.facts
        stop = facts.created_at + min(facts.seconds, EXPIRES_AFTER_S)
        return stop if facts.cancel_at is None else min(stop, facts.cancel_at + facts.seconds_to_cancel)

    def n_processed(self) -> int:
        """Return how many requests are processed by the time it ends."""
        facts = self.facts
        until = facts.created_at + EXPIRES_AFTER_S
        if facts.cancel_at is not None:
            until = min(until, facts.cancel_at)
        if until >= facts.created_at + facts.seconds:
            return facts.n_requests
        # Unix seconds are exact to less than a microsecond: half of a batch is half, whatever the last bits say.
        elapsed_s = max(0.0, until - facts.created_at + 1e-6)
        return min(facts.n_requests, int(facts.n_requests * elapsed_s / facts.seconds))

    def items(self) -> list[Any]:
        """Return its requests in order; the params of each are raw JSON."""
        view = self.body.view()
        try:
            return list(_decode_rows(view).requests)
        except msgspec.ValidationError:
            # Only a create without a field that is required anywhere else comes here.
            data = msgspec.json.decode(view)
            return [
                BatchItem(one["custom_id"], msgspec.Raw(msgspec.json.encode(one["params"]))) for one in data["requests"]
            ]

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Its requests, decoded."""
        return [{"custom_id": one.custom_id, "params": msgspec.json.decode(one.params)} for one in self.items()]

    @property
    def custom_ids(self) -> list[str]:
        """The custom_ids of its requests, in order."""
        return [one.custom_id for one in self.items()]

    @property
    def outcomes(self) -> dict[str, dict[str, Any]]:
        """What its rows came to, by custom_id; empty before its end."""
        rows = (msgspec.json.decode(line) for line in self.result_lines())
        return {row["custom_id"]: row["result"] for row in rows}

    def result_lines(self) -> Iterator[bytes]:
        """Yield the lines of its results as they were first made, without newlines."""
        if self.results is not None:
            rest = b""
            for block in self.results.blocks():
                *lines, rest = (rest + block).split(b"\n")
                yield from lines

    def phase(self, now_s: float) -> str:
        """Return ``"in_progress"``, ``"canceling"`` or ``"ended"``."""
        if now_s >= self.stops_at:
            return "ended"
        return "in_progress" if self.facts.cancel_at is None or now_s < self.facts.cancel_at else "canceling"

    def to_json(self, now_s: float, base_url: str) -> dict[str, Any]:
        """Return the batch as the API shows it at this moment; counts must be settled when it has ended."""
        facts = self.facts
        phase = self.phase(now_s)
        ended = phase == "ended"
        archived_at = facts.created_at + ARCHIVED_AFTER_S
        archived = ended and now_s >= archived_at
        counts = dict.fromkeys(COUNTS, 0)
        if ended:
            counts |= facts.counts or {}
        else:
            # The published rule: nothing leaves `processing` before the whole batch has ended.
            counts["processing"] = facts.n_requests
        return {
            "id": facts.id,
            "type": "message_batch",
            "processing_status": phase,
            "request_counts": counts,
            "ended_at": iso(self.stops_at) if ended else None,
            "created_at": iso(facts.created_at),
            "expires_at": iso(facts.created_at + EXPIRES_AFTER_S),
            "archived_at": iso(archived_at) if archived else None,
            "cancel_initiated_at": iso(facts.cancel_at),
            "results_url": f"{base_url}/v1/messages/batches/{facts.id}/results" if ended and not archived else None,
        }

    # ---- on disk

    def save(self, folder: Path) -> None:
        """Write it down, the requests first, so that facts are never there without them."""
        if self.body.path != folder / f"{self.id}.requests.json":
            self.body.move_to(folder / f"{self.id}.requests.json")
        if self.results is not None and self.results.path != folder / f"{self.id}.results.jsonl":
            self.results.move_to(folder / f"{self.id}.results.jsonl")
        Blob(msgspec.json.encode(asdict(self.facts))).move_to(folder / f"{self.id}.batch.json")

    def forget(self, folder: Path | None) -> None:
        """Remove it, the facts first."""
        if folder is not None:
            (folder / f"{self.id}.batch.json").unlink(missing_ok=True)
        self.body.discard()
        if self.results is not None:
            self.results.discard()

    @classmethod
    def load_all(cls, folder: Path) -> list[Batch]:
        """Return the batches written down in a folder, oldest first."""
        batches = []
        for path in folder.glob("*.batch.json"):
            facts = msgspec.json.decode(path.read_bytes(), type=BatchFacts)
            results = folder / f"{facts.id}.results.jsonl"
            settled = Blob(path=results) if facts.counts is not None and results.exists() else None
            batches.append(cls(facts, Blob(path=folder / f"{facts.id}.requests.json"), settled))
        return sorted(batches, key=lambda batch: batch.facts.sequence)
