"""Batches that were posted, and of which the database knows nothing: its log was lost, or an older copy put back.

What they hold may be paid for. Until `recover` has read the whole list of the server, nothing new is sent from
such a store; after that, nothing that one of them holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from pandas_batch.custom_ids import parse_custom_id
from pandas_batch.errors import StoreError

from .files import write_durably
from .segments import Candidate, find_requests, read_segment
from .spools import open_compressed
from .staging import POSTED

LOOKED_FOR = "looked_for"
"""Name of an empty file in the folder of such a batch: the whole list of the server has been read since."""

_BODIES = ("spool.json", "spool.kept.zst", "results.jsonl", "results.jsonl.zst")
_READ_BYTES = 1 << 16

# Twice the time that a lost answer is looked for, and room for a list that lags and clocks that differ.
_APPEARS_WITHIN = timedelta(hours=1)
_CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True)
class Unread:
    """A batch on the server whose custom_ids cannot be read, now or any more."""

    created_at: datetime | None
    n_requests: int | None


@dataclass(frozen=True)
class Unrecorded:
    """
    A folder of a batch that was posted, or was about to be, and that the database does not know.

    Attributes
    ----------
    nonce
        What its custom_ids hold; None where no file of it can be read.
    posted
        When it was posted, each time; empty where that is not known.
    was_looked_for
        Whether the whole list of the server has been read since.
    """

    folder: Path
    nonce: str | None
    posted: tuple[datetime, ...]
    was_looked_for: bool

    def holds_one_of(self, fingerprints: np.ndarray, draws: np.ndarray) -> bool:
        """Return whether it was to send one of these requests; True where that cannot be read."""
        try:
            keys, _ = find_requests(fingerprints, draws, [Candidate(0, self.folder / "requests.seg", None)])
        except (StoreError, OSError):
            return True
        return bool((keys >= 0).any())

    def is_nowhere(self, unread: Iterable[Unread], now: datetime) -> bool:
        """Return whether a server whose list lacks its nonce never got it: not so where one unread may be it."""
        if self.nonce is None or not self.posted or any(self.folder.glob("results*")):
            return False
        if any(self.folder.glob("live.*")):  # what was asked one by one stands in no list
            return False
        if now - max(self.posted) < _APPEARS_WITHIN:
            return False
        try:
            n_requests = read_segment(self.folder / "requests.seg").n_requests
        except (StoreError, OSError):
            return False
        earliest = min(self.posted) - _CLOCKS_DIFFER
        return not any(
            other.n_requests in (None, n_requests) and (other.created_at is None or other.created_at >= earliest)
            for other in unread
        )

    def note_looked_for(self) -> None:
        """Record that the whole list of the server was read."""
        write_durably(self.folder / LOOKED_FOR, b"")


def read_unrecorded(folders: Iterable[Path]) -> Iterator[Unrecorded]:
    """Yield what the folders say; one that another process has let go meanwhile is left out."""
    for folder in folders:
        if folder.is_dir():
            yield Unrecorded(folder, _nonce_of(folder), _posted(folder), (folder / LOOKED_FOR).exists())


def names_of(batches: Collection[Unrecorded], most: int = 5) -> str:
    """Return the names of the folders as a message shows them."""
    names = sorted(batch.folder.name for batch in batches)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _posted(folder: Path) -> tuple[datetime, ...]:
    try:
        return tuple(datetime.fromisoformat(line) for line in (folder / POSTED).read_text("ascii").split())
    except (OSError, ValueError):
        return ()


def _nonce_of(folder: Path) -> str | None:
    for name in _BODIES:
        try:
            with open_compressed(folder / name) if name.endswith(".zst") else (folder / name).open("rb") as file:
                head = file.read(_READ_BYTES)
        except (OSError, ValueError):
            continue
        at = head.find(b'"pb1_')
        end = head.find(b'"', at + 1)
        parsed = parse_custom_id(head[at + 1 : end].decode("ascii", "replace")) if at >= 0 else None
        if parsed is not None:
            return parsed.nonce
    return None
