"""The batches of the store: their states, and the answers that can be used again."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pandas_batch.errors import StoreError
from pandas_batch.failpoints import reached

from . import queries
from .batch_files import REQUESTS, RESULTS, RESULTS_PACKED, RESULTS_PART, SPOOL, SPOOL_KEPT, BatchFiles
from .failures import KEPT, NOTHING_RECORDED, explained
from .files import commit_folders, open_private, remove_folder, sync_file, sync_folder
from .live_log import ANSWERED, ASKED
from .opened import Opened
from .records import BatchRecord, NewBatch, new_record
from .segments import Candidate, find_requests, read_segment, write_segment
from .spools import compress_file, keep_requests, remove_files
from .staging import POSTED
from .states import IN_FLIGHT, BatchState, check_transition

_NONCE = re.compile(r"[a-z0-9]{1,32}")


_FEW_ROWS = 2_000
"""Up to so many requests are looked for one by one; to look for more, all files are read."""


class Batches:
    """Batches: recorded before they are posted, changed by compare-and-swap, searched for answers."""

    def __init__(self, opened: Opened, files: BatchFiles) -> None:
        self._opened = opened
        self._files = files

    # --- records

    def get(self, key: int) -> BatchRecord:
        """Return a batch; `StoreError` where there is none of that key."""
        return self.of_keys([key])[0]

    def of_keys(self, keys: Collection[int]) -> list[BatchRecord]:
        """Return batches in the order of `keys`."""
        found = self._opened.database.read(lambda c: queries.batches_by_key(c, keys))
        missing = [key for key in keys if key not in found]
        if missing:
            raise StoreError(
                f"The store at {self._opened.path} has no batch {missing[0]}: its run was deleted.",
                KEPT,
                "pandas_batch.runs() lists the runs it holds.",
            )
        return [found[key] for key in keys]

    def where(self, *, state: BatchState | Collection[BatchState]) -> list[BatchRecord]:
        """Return the batches in a state, or in one of several, oldest first."""
        states = [state] if isinstance(state, str) else list(state)
        return self._opened.database.read(lambda c: queries.batches_in(c, states))

    def keys_of_others(self, run_id: str, *, state: BatchState) -> list[int]:
        """Return the keys of all batches in a state that another run than this has made."""
        rows = self._opened.database.read(
            lambda c: c.execute(
                "SELECT key FROM batches WHERE state = ? AND run_id != ? ORDER BY key", (state, run_id)
            ).fetchall()
        )
        return [key for (key,) in rows]

    def ids(self) -> set[str]:
        """Return every id of the server that a batch of this store is bound to."""
        rows = self._opened.database.read(
            lambda c: c.execute("SELECT batch_id FROM batches WHERE batch_id IS NOT NULL").fetchall()
        )
        return {batch_id for (batch_id,) in rows}

    def durations(self, base_url: str, *, not_of: str = "") -> list[tuple[int, float]]:
        """Return how large the newest ended batches of a server were, and how many seconds each took."""
        return self._opened.database.read(lambda c: queries.durations(c, base_url, not_of=not_of))

    def nonces_of_ids(self) -> dict[str, str]:
        """Return the nonce of every batch that is bound to an id of the server, by that id."""
        return dict(
            self._opened.database.read(
                lambda c: c.execute("SELECT batch_id, nonce FROM batches WHERE batch_id IS NOT NULL").fetchall()
            )
        )

    def runs_of(self, key: int) -> list[str]:
        """Return the ids of the runs that need a batch, oldest first."""
        rows = self._opened.database.read(
            lambda c: c.execute(
                "SELECT id FROM runs JOIN run_batches ON run_id = id WHERE batch_key = ? ORDER BY number", (key,)
            ).fetchall()
        )
        return [run_id for (run_id,) in rows]

    def of_run(self, run_id: str) -> list[BatchRecord]:
        """Return the batches that hold a run's requests, its own first; of split ones their parts."""

        def select(connection: Any) -> list[BatchRecord]:
            keys = [
                key
                for (key,) in connection.execute(
                    "SELECT batch_key FROM run_batches WHERE run_id = ? ORDER BY place", (run_id,)
                )
            ]
            found = queries.batches_by_key(connection, keys)
            return [found[key] for key in keys if key in found and found[key].state != "split"]

        return self._opened.database.read(select)

    def made_by(self, run_ids: Sequence[str]) -> list[BatchRecord]:
        """Return the batches that runs have made themselves, in the order of the runs."""
        place = {run_id: at for at, run_id in enumerate(run_ids)}
        found = self._opened.database.read(lambda c: queries.batches_made_by(c, run_ids))
        return sorted(found, key=lambda batch: (place[batch.run_id], batch.key))

    def of_nonce(self, nonce: str) -> BatchRecord | None:
        """Return the batch whose custom_ids hold `nonce`, or None."""
        row = self._opened.database.read(
            lambda c: c.execute("SELECT key FROM batches WHERE nonce = ?", (nonce,)).fetchone()
        )
        return None if row is None else self.get(row[0])

    def custom_ids_of(self, key: int) -> np.ndarray:
        """Return the custom_ids of a batch by position (dtype S47)."""
        from pandas_batch.custom_ids import custom_ids

        fingerprints, draws = self.requests_of(key)
        return custom_ids(self.get(key).nonce, fingerprints, draws)

    def transition(self, key: int, *, expect: Collection[BatchState], to: BatchState, **changes: Any) -> bool:
        """
        Move a batch from one of the states `expect` to the state `to`, changing other fields with it.

        Of any number of threads and processes that try at once, one succeeds. A ``batch_id`` is bound to one
        batch only: with ``proved=True`` it is taken from a batch that had adopted it provisionally (which is
        ``unknown`` again, the id among its ``tried_ids``), otherwise the transition fails.

        Returns
        -------
        bool
            Whether the batch was moved; the change is on the medium then.
        """
        check_transition(expect, to)
        expected = list(expect)
        return self._change(key, {**changes, "state": to}, expected)

    def update(self, key: int, **changes: Any) -> None:
        """Change fields of a batch whatever its state."""
        if changes and not self._change(key, changes, None):
            raise StoreError(
                f"Batch {key} of the store at {self._opened.path} could not be changed: it is gone, or its id taken."
            )

    def _change(self, key: int, changes: dict[str, Any], expect: Collection[str] | None) -> bool:
        def change(connection: Any) -> bool:
            if expect is not None:
                row = connection.execute("SELECT state FROM batches WHERE key = ?", (key,)).fetchone()
                if row is None or row[0] not in expect:
                    return False
            batch_id = changes.get("batch_id")
            if batch_id is not None and not queries.free_batch_id(
                connection, key, batch_id, proved=bool(changes.get("proved"))
            ):
                return False
            return queries.update_batch(connection, key, changes, expect)

        return self._opened.database.write(change)

    def mark_posting(self, key: int, at: datetime) -> None:
        """Leave a mark beside the body of a batch that it is about to be posted: the database may be put back."""
        with explained(self._opened.path):
            with os.fdopen(open_private(self._opened.batch_folder(key) / POSTED), "ab") as file:
                file.write(f"{at.isoformat()}\n".encode("ascii"))
            sync_folder(self._opened.batch_folder(key))

    def was_recorded_here(self, key: int) -> bool:
        """Return whether this process has recorded a batch: if not, others may have done more than stands here."""
        return self._opened.recorded_here.get(key) == os.getpid()

    def ask_cancel(self, run_id: str, *, live: bool = True) -> list[BatchRecord]:
        """
        Cancel a run's own batches here, in one step: none of them is posted from now on, by whatever process.

        Returns
        -------
        list of BatchRecord
            Those that the server may know of, as they are now.
        """

        def change(connection: Any) -> list[BatchRecord]:
            queries.ask_cancel(connection, run_id, live=live)
            return queries.select_batches(connection, "WHERE run_id = ? AND cancel_asked", (run_id,))

        return [batch for batch in self._opened.database.write(change) if batch.state in IN_FLIGHT]

    def add_tried_id(self, key: int, batch_id: str) -> None:
        """Record that a batch of the server proved to be another than batch `key`."""
        self._opened.database.write(lambda c: queries.add_tried_id(c, key, batch_id))

    def add_surplus(self, key: int, found: Mapping[str, float | None]) -> None:
        """Record batches of the server that were made of the same requests besides, and what they cost in USD."""
        self._opened.database.write(lambda c: queries.add_surplus(c, key, found))

    # --- splitting

    def split(self, key: int, children: Sequence[NewBatch], *, expect: Collection[BatchState]) -> list[int] | None:
        """
        Replace a batch that was too large by smaller ones that hold its requests in the same order.

        Every run that needs the batch needs them from now on; answers are looked up through `resolve`.

        Returns
        -------
        list of int or None
            Keys of the new batches; None where the state of the batch was none of `expect`.
        """
        check_transition(expect, "split")
        parent = self.get(key)
        if sum(len(child.draws) for child in children) != parent.n_requests:
            raise ValueError(f"{len(children)} parts do not hold the {parent.n_requests} requests of batch {key}")
        with explained(self._opened.path, NOTHING_RECORDED), self._opened.recording():
            keys = self.take_keys(len(children))
            placed: list[Path] = []
            done = False

            def record(connection: Any) -> bool:
                changes = {"state": "split", "split_into": keys}
                if not queries.update_batch(connection, key, changes, expect):
                    return False
                (parent,) = queries.select_batches(connection, "WHERE key = ?", (key,))
                start = 0
                for new, child in zip(keys, children, strict=True):
                    record = new_record(new, parent.run_id, child)
                    stop = start + record.n_requests
                    continued = {
                        str(int(at) - start): parts for at, parts in parent.continued.items() if start <= int(at) < stop
                    }
                    queries.insert_batch(
                        connection, replace(record, cancel_asked=parent.cancel_asked, continued=continued), child
                    )
                    start = stop
                queries.link_successors(connection, key, keys)
                return True

            try:
                commit_folders(self.write_folders(keys, children, placed))
                done = self._opened.database.write(record)
            finally:
                if not done:
                    self.take_back(keys, None, placed, children)
            if not done:
                return None
            self._opened.recorded_here |= dict.fromkeys(keys, os.getpid())
            remove_files([self._files.spool_path(key)])
        return keys

    def resolve(self, batch_keys: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where requests are now whose batches may have been split since; the same arrays where none was."""
        split = self._opened.database.read(queries.split_batches)
        for key, (children, sizes) in split.items():  # in the order of keys: parts of parts come later
            moved = batch_keys == key
            if not moved.any():
                continue
            batch_keys, positions = batch_keys.copy(), positions.copy()
            ends = np.cumsum(sizes)
            part = np.searchsorted(ends, positions[moved], side="right")
            batch_keys[moved] = np.asarray(children, dtype=np.int64)[part]
            positions[moved] -= (ends - sizes)[part].astype(positions.dtype)
        return batch_keys, positions

    # --- requests and answers

    def requests_of(self, key: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the fingerprints (n, 16) and draws (n,) of a batch by position, mapped from its file."""
        with explained(self._opened.path):
            segment = read_segment(self._opened.batch_folder(key) / REQUESTS)
        return segment.fingerprints, segment.draws

    def find_answers(
        self, fingerprints: np.ndarray, draws: np.ndarray, *, base_url: str, in_flight: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Look up requests that have an answer here, or (with `in_flight`) will have one in a batch.

        A position that succeeded comes before one in flight, and of both the newest batch. One that is
        being canceled may still be answered, and counts.

        Returns
        -------
        batch_keys, positions
            int64 and int32 arrays, one entry per request; -1 where there is none.
        """
        folder = self._opened.path / "batches"
        wanted = {row.tobytes() for row in fingerprints} if len(draws) <= _FEW_ROWS else None

        def select(connection: Any) -> list[Candidate]:
            above = 0 if wanted is None else queries.SMALL
            found = queries.candidates(connection, base_url, folder, REQUESTS, in_flight=in_flight, above=above)
            if wanted is not None:
                found += queries.small_candidates(connection, base_url, folder, REQUESTS, wanted, in_flight=in_flight)
                found.sort(key=lambda candidate: (candidate.succeeded is not None, candidate.key))
            return found

        found = self._opened.database.read(select)
        with explained(self._opened.path):
            return find_requests(fingerprints, draws, found)

    def find_live(self, fingerprints: np.ndarray, draws: np.ndarray, *, base_url: str) -> list[int]:
        """Return the keys of batches whose requests are being asked live, and that hold one of these."""
        folder = self._opened.path / "batches"
        found = self._opened.database.read(lambda c: queries.live_candidates(c, base_url, folder, REQUESTS))
        with explained(self._opened.path):
            keys, _ = find_requests(fingerprints, draws, found)
        return [int(key) for key in np.unique(keys[keys >= 0])]

    def set_collected(self, key: int, mask: np.ndarray, *, expect: str = "ended", **changes: Any) -> bool:
        """
        Move a batch from `expect` to ``collected``, and record which positions have an answer to be used again.

        Returns
        -------
        bool
            Whether it was moved; where another was faster, nothing is recorded.
        """
        mask = self._mask_of(key, mask)

        def change(connection: Any) -> bool:
            if not queries.update_batch(connection, key, {**changes, "state": "collected"}, [expect]):
                return False
            queries.set_succeeded(connection, key, mask)
            return True

        return self._opened.database.write(change)

    def set_succeeded(self, key: int, mask: np.ndarray) -> None:
        """Record anew which positions of a collected batch have an answer that may be used again."""
        mask = self._mask_of(key, mask)
        self._opened.database.write(lambda c: queries.set_succeeded(c, key, mask))

    def _mask_of(self, key: int, mask: np.ndarray) -> np.ndarray:
        mask = np.asarray(mask, dtype=bool)
        n_requests = self.get(key).n_requests
        if mask.shape != (n_requests,):
            raise ValueError(f"batch {key} has {n_requests} requests, the mask {mask.shape}")
        return mask

    def succeeded_of(self, key: int) -> np.ndarray | None:
        """Return what `set_succeeded` was given, or None."""
        return self._opened.database.read(lambda c: queries.succeeded(c, key))

    # --- files

    def compact(self, key: int, keep_requests: bool | Collection[int] = True) -> None:
        """
        Make a collected batch small: results compressed, of the requests only those that did not succeed.

        Parameters
        ----------
        key
            A batch that is no longer in flight.
        keep_requests
            Whether to keep the requests without an answer, which a retry needs; or the positions to keep.
        """
        if self.get(key).state in IN_FLIGHT:
            raise ValueError(f"batch {key} is in flight: its body may still be needed")
        folder = self._opened.batch_folder(key)
        with explained(self._opened.path):
            if (folder / RESULTS).exists():
                compress_file(folder / RESULTS, folder / RESULTS_PACKED)
            remove_files([folder / RESULTS_PART, folder / ANSWERED, folder / ASKED])
            if (folder / SPOOL).exists():
                self._reduce_spool(key, folder, keep=keep_requests)

    def _reduce_spool(self, key: int, folder: Path, *, keep: bool | Collection[int]) -> None:
        if isinstance(keep, bool):
            mask = self.succeeded_of(key)
            wanted = None if mask is None else np.flatnonzero(~mask)
        else:
            wanted, keep = np.asarray(sorted(keep), dtype=np.int64), True
        if keep and (wanted is None or len(wanted)):
            keep_requests(folder / SPOOL, folder / SPOOL_KEPT, wanted)
        else:
            remove_files([folder / SPOOL, folder / SPOOL_KEPT])

    # --- placing new batches, inside the recording lock

    def take_keys(self, n: int) -> list[int]:
        """Return keys of new batches: of none there is a folder."""
        if not n:
            return []
        keys: list[int] = []
        while not keys or any(os.path.lexists(self._opened.batch_folder(key)) for key in keys):
            if keys or self._opened.key_floor == 0:
                # Folders ahead of the counter stand there where an older copy of the database was put back.
                names = os.listdir(self._opened.path / "batches")
                self._opened.key_floor = 1 + max((int(name) for name in names if name.isdecimal()), default=0)
            keys = self._opened.database.write(lambda c: queries.take_batch_keys(c, n, self._opened.key_floor))
        return keys

    def write_folders(self, keys: Sequence[int], batches: Sequence[NewBatch], placed: list[Path]) -> dict[Path, Path]:
        """Write the folders of new batches; return where each is to go. What there may be soon stands in `placed`."""
        finals: dict[Path, Path] = {}
        for key, batch in zip(keys, batches, strict=True):
            if not _NONCE.fullmatch(batch.nonce):
                raise ValueError(f"nonce {batch.nonce!r} is not of a-z and 0-9")
            if not batch.spool.closed:
                raise ValueError("the spool of a new batch is still open")
            if finals:
                reached("between two recorded batches")
            part = self._opened.new_folder("batch")
            placed.append(part)
            write_segment(part / REQUESTS, batch.fingerprints, batch.draws)
            sync_file(part / REQUESTS)
            os.rename(batch.spool.path, part / SPOOL)
            finals[part] = self._opened.batch_folder(key)
            placed.append(finals[part])
        return finals

    def take_back(
        self, keys: Sequence[int], run_id: str | None, placed: list[Path], batches: Sequence[NewBatch]
    ) -> None:
        """Remove what was placed for a commit that did not happen."""

        def is_recorded(connection: Any) -> bool:
            known = queries.batches_by_key(connection, keys)
            return bool(known or (run_id and queries.select_runs(connection, "WHERE id = ?", (run_id,))))

        # An interrupt may have fallen between the commit and our knowing of it; when in doubt the sweep decides later.
        with suppress(StoreError, OSError):
            if not self._opened.database.read(is_recorded):
                for folder in placed:
                    remove_folder(folder)
                for batch in batches:
                    batch.spool.discard()
