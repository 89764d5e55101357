"""The runs of the store: recorded whole, found again, changed, deleted."""

from __future__ import annotations

import difflib
import os
import secrets
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd

from pandas_batch.errors import NOTHING_SENT, InputError, RunNotFoundError, StoreError, clip

from . import queries
from .batches import Batches
from .failures import NOTHING_RECORDED, explained
from .files import commit_file, commit_folders, remove_folder, sync_file
from .labels import ONLY_COUNTS, kind_of, read_index, write_index
from .opened import RUN_ID, Opened
from .records import Account, BatchRecord, NewBatch, RunRecord, new_record
from .tables import REQUEST_COLUMNS, read_table, with_column, write_table
from .unrecorded import Unread, Unrecorded, names_of, read_unrecorded

if TYPE_CHECKING:
    import pyarrow as pa


class Runs:
    """Runs: recorded whole with their batches, found again, changed, deleted."""

    def __init__(self, opened: Opened, batches: Batches) -> None:
        self._opened = opened
        self._batches = batches

    def add(
        self,
        run: RunRecord,
        rows: pa.Table,
        requests: pa.Table,
        batches: Sequence[NewBatch] = (),
        *,
        index: pd.Index | None = None,
    ) -> RunRecord:
        """
        Record a run with everything it needs to be posted, collected and merged: all of it, or nothing.

        Parameters
        ----------
        run
            The run; its ``batch_keys``, ``schema_version`` and ``index_kind`` are filled in here.
        rows
            One row per row of the frame: ``request`` (its place in `requests`, -1: not sent) and ``reason``.
        requests
            One row per unique request: ``fingerprint``, ``draw``, ``batch_key``, ``position``, ``reused``.
            Keys of new batches are given as ``-(i + 1)``, `i` being the place in `batches`.
        batches
            The batches that this run will post.
        index
            The frame's labels.

        Returns
        -------
        RunRecord
            The run as recorded.

        Raises
        ------
        StoreError
            Where it cannot be made durable; then nothing was recorded.
        """
        self._opened.run_folder(run.id)
        self._refuse_if_older(batches)
        _check_columns(rows, ("request", "reason"))
        _check_columns(requests, REQUEST_COLUMNS)
        with explained(self._opened.path, NOTHING_RECORDED), self._opened.recording():
            if self._select("WHERE id = ?", (run.id,)):
                for batch in batches:
                    batch.spool.discard()
                raise StoreError(f"The run {run.id} is recorded already.", NOTHING_RECORDED)
            keys = self._batches.take_keys(len(batches))
            requests, used = _with_real_keys(requests, keys)
            run = replace(
                run,
                batch_keys=tuple(dict.fromkeys([*keys, *used])),
                schema_version=self._opened.schema_version,
                index_kind=None if index is None else kind_of(index),
            )
            records = {key: (new_record(key, run.id, batch), batch) for key, batch in zip(keys, batches, strict=True)}
            placed: list[Path] = []
            try:
                folders = self._batches.write_folders(keys, batches, placed)
                commit_folders(folders | self._write_run(run, rows, requests, index, placed))
                self._opened.database.write(lambda c: _insert_all(c, run, records))
            except BaseException:
                self._batches.take_back(keys, run.id, placed, batches)
                raise
        self._opened.recorded_here |= dict.fromkeys(keys, os.getpid())
        return run

    def _refuse_if_older(self, batches: Sequence[NewBatch]) -> None:
        """Let nothing be sent where the database has forgotten batches: what is new to it may be paid for already."""
        if not self._opened.unrecorded or all(batch.batch_id is not None for batch in batches):
            return
        unrecorded = self.unrecorded_batches()
        unseen = [folder for folder in unrecorded if not folder.was_looked_for]
        new = [batch for batch in batches if batch.batch_id is None]
        shared = [
            folder
            for folder in unrecorded
            if any(folder.holds_one_of(batch.fingerprints, batch.draws) for batch in new)
        ]
        if not unseen and not shared:
            return
        for batch in batches:
            batch.spool.discard()
        if unseen:
            raise StoreError(
                self._forgotten(unseen),
                NOTHING_SENT + " What was posted before may be paid for already.",
                "pandas_batch.recover(df, ...)   # with the options of the lost call: fetches their answers\n"
                'or put the whole store back, store.db-wal included; or name another: store="folder"',
            )
        raise StoreError(
            f"Rows of this call were posted before, in batches that the database of the store at {self._opened.path} "
            f"knows nothing of and that are not collected yet (folders batches/{names_of(shared)}).",
            NOTHING_SENT + " Those rows may be paid for already.",
            "pandas_batch.recover(df, ...)   # with these options, when the batches have ended: fetches their answers\n"
            "or pay for all rows of this call anew: reuse=False",
        )

    def forgotten(self) -> str:
        """Return what the folders of the store hold that its database does not know, in words; "" where nothing."""
        unseen = [folder for folder in self.unrecorded_batches() if not folder.was_looked_for]
        return self._forgotten(unseen) if unseen else ""

    def _forgotten(self, unseen: Sequence[Unrecorded]) -> str:
        return (
            f"The database of the store at {self._opened.path} knows nothing of batches that were posted (folders "
            f"batches/{names_of(unseen)}): its log was not copied with it, or an older copy was put back."
        )

    def unrecorded_batches(self) -> list[Unrecorded]:
        """Return the batches that were posted and that the database does not know; one known again is let go."""
        found: list[Unrecorded] = []
        for batch in read_unrecorded(self._opened.batch_folder(int(name)) for name in self._opened.unrecorded):
            if batch.nonce is not None and self._batches.of_nonce(batch.nonce) is not None:
                remove_folder(batch.folder)
            else:
                found.append(batch)
        self._opened.unrecorded = [batch.folder.name for batch in found]
        return found

    def settle_unrecorded(self, nonces: Collection[str], unread: Sequence[Unread], now: datetime) -> None:
        """
        Let go of posted batches that the server never got, its whole list having been read; note it of the others.

        Parameters
        ----------
        nonces
            Those of all batches of ours in the list.
        unread
            The batches in it whose custom_ids cannot be read.
        now
            The time.
        """
        unrecorded = self.unrecorded_batches()
        # Another key lists another workspace: only where something of this store is listed does absence prove anything.
        known = {batch.nonce for batch in unrecorded}
        is_ours = any(nonce in known or self._batches.of_nonce(nonce) is not None for nonce in nonces)
        with explained(self._opened.path):
            for batch in unrecorded:
                if is_ours and batch.nonce not in nonces and batch.is_nowhere(unread, now):
                    remove_folder(batch.folder)
                else:
                    batch.note_looked_for()
        self.unrecorded_batches()

    def _write_run(
        self, run: RunRecord, rows: pa.Table, requests: pa.Table, index: pd.Index | None, placed: list[Path]
    ) -> dict[Path, Path]:
        final = self._opened.run_folder(run.id)
        remove_folder(final)  # of a process that died before its commit
        part = self._opened.new_folder("run")
        placed.append(part)
        write_table(part / "rows.arrow", rows)
        write_table(part / "requests.arrow", requests)
        if index is not None and run.index_kind != ONLY_COUNTS:
            write_index(part / "index.arrow", index)
        for file in part.iterdir():
            sync_file(file)
        placed.append(final)
        return {part: final}

    def get(self, run_id: str) -> RunRecord:
        """Return a run by its id; `RunNotFoundError` where there is none."""
        found = self._select("WHERE id = ?", (run_id,))
        if not found:
            self._no_run(run_id)
        return found[0]

    def find(self, id_or_name: str) -> RunRecord:
        """
        Return the run of that id, else the newest of that name, else the one whose id begins so.

        Raises
        ------
        RunNotFoundError
            Where there is none; it names those that are spelled alike.
        """
        if not isinstance(id_or_name, str):
            raise InputError(
                f"A run is named by its id or its name; {clip(repr(id_or_name), 40)} is neither.",
                hint="pandas_batch.runs()   # lists those of this store",
            )
        found = self._select("WHERE id = ?", (id_or_name,)) or self._select("WHERE name = ?", (id_or_name,))
        if not found and len(id_or_name) >= 4 and RUN_ID.fullmatch(id_or_name):
            begun = self._select("WHERE substr(id, 1, ?) = ?", (len(id_or_name), id_or_name))
            found = begun if len(begun) == 1 else []
        if not found:
            self._no_run(id_or_name)
        return found[0]

    def _select(self, where: str = "", values: Sequence[Any] = ()) -> list[RunRecord]:
        return self._opened.database.read(lambda c: queries.select_runs(c, where, values))

    def _no_run(self, wanted: str) -> NoReturn:
        known = [text for run in self.all() for text in (run.name, run.id) if text]
        # Ids of one day look alike: only what is nearly the same is a slip.
        cutoff = 0.9 if wanted.startswith("run_") else 0.6
        close = list(dict.fromkeys(difflib.get_close_matches(wanted, known, n=6, cutoff=cutoff)))[:3]
        if forgotten := self.forgotten():
            raise RunNotFoundError(
                f"There is no run {wanted!r} in the store at {self._opened.path}.",
                f"{forgotten} What was posted before may be paid for already.",
                "pandas_batch.recover(df, ...)   # with the options of the lost call: fetches their answers",
            )
        raise RunNotFoundError(
            f"There is no run {wanted!r} in the store at {self._opened.path}.",
            NOTHING_SENT,
            f"Did you mean {' or '.join(map(repr, close))}?" if close else "pandas_batch.runs() lists those it holds.",
        )

    def all(self) -> list[RunRecord]:
        """Return all runs, newest first."""
        return self._select()

    def overview(self) -> tuple[list[tuple[Any, ...]], list[tuple[str, str, bool]]]:
        """
        Return what is listed of each run, newest first, and the state of each batch of those without an account.

        Returns
        -------
        list
            Of each run: `queries.LISTED`; the number of its batches is there only with its account.
        list
            Of each batch that another run needs: the run's id, the state, whether the server was asked for a cancel.
        """
        return self._opened.database.read(queries.overview)

    def version(self) -> tuple[int, int, int]:
        """Return what is another after every change of the database, whoever makes it."""
        return self._opened.database.version()

    def settled_batches(self, run_id: str) -> tuple[BatchRecord, ...] | None:
        """Return the batches that hold a run's requests, where nothing is left to do for any of them; else None."""
        return self._opened.database.read(lambda c: queries.settled_batches(c, run_id))

    def set_accounts(self, accounts: Mapping[str, tuple[tuple[BatchRecord, ...], Account]]) -> None:
        """
        Record what became of runs, that nobody has to count it again.

        Parameters
        ----------
        accounts
            By run id: its batches as `settled_batches` gave them before it was counted, and its account. Where they
            have changed since, nothing is recorded; where they change later, the account is forgotten with that.
        """

        def record(connection: sqlite3.Connection) -> None:
            for run_id, (batches, account) in accounts.items():
                queries.set_account(connection, run_id, batches, account)

        self._opened.database.write(record)

    def newest_options(self, n_runs: int, *, base_url: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Return id and plain options of the newest runs that ask at `base_url`, newest first."""
        return self._opened.database.read(lambda c: queries.newest_options(c, n_runs, base_url))

    def newest_of_identity(self, identity: str) -> RunRecord | None:
        """Return the newest run of an identity, or None."""
        found = self._select("WHERE identity = ?", (identity,))
        return found[0] if found else None

    def rows_of(self, run_id: str) -> pa.Table:
        """Return the rows table of a run, mapped from its file."""
        with explained(self._opened.path):
            return read_table(self._opened.run_folder(run_id) / "rows.arrow")

    def extend(
        self, run: RunRecord, requests: pa.Table, batches: Sequence[NewBatch], **changes: Any
    ) -> list[int] | None:
        """
        Add batches to a run: all of them with its new table of requests, or nothing.

        Parameters
        ----------
        run
            The run as it was read.
        requests
            Its requests, as `add` takes them.
        batches
            The new batches.
        **changes
            Other fields of the run to change with it.

        Returns
        -------
        list of int or None
            Keys of the new batches; None where another has extended the run since `run` was read.
        """
        self._refuse_if_older(batches)
        _check_columns(requests, REQUEST_COLUMNS)
        with explained(self._opened.path, NOTHING_RECORDED), self._opened.recording():
            if self.get(run.id).n_extensions != run.n_extensions:
                for batch in batches:
                    batch.spool.discard()
                return None
            keys = self._batches.take_keys(len(batches))
            requests, used = _with_real_keys(requests, keys)
            records = {key: (new_record(key, run.id, batch), batch) for key, batch in zip(keys, batches, strict=True)}
            # Under a name of its own: which table holds is decided by the commit, and by nothing before it.
            table = self._requests_path(run.id, run.n_extensions + 1)
            placed: list[Path] = []
            done = False
            try:
                folders = self._batches.write_folders(keys, batches, placed)
                part = table.with_name(f"requests.{secrets.token_hex(4)}.part")
                write_table(part, requests)
                commit_file(part, table)
                commit_folders(folders)
                done = self._opened.database.write(
                    lambda c: queries.extend_run(c, run.id, run.n_extensions, records, [*keys, *used], changes)
                )
            finally:
                if not done:
                    self._batches.take_back(keys, None, placed, batches)
            if not done:
                return None
            self._opened.recorded_here |= dict.fromkeys(keys, os.getpid())
        return keys

    def _requests_path(self, run_id: str, n_extensions: int) -> Path:
        name = f"requests.{n_extensions}.arrow" if n_extensions else "requests.arrow"
        return self._opened.run_folder(run_id) / name

    def requests_of(self, run_id: str) -> pa.Table:
        """Return the requests table of a run; where a batch was split, with the places in its successors."""
        path = self._requests_path(run_id, self.get(run_id).n_extensions)
        with explained(self._opened.path):
            table = read_table(path)
        keys = table.column("batch_key").to_numpy()
        positions = table.column("position").to_numpy()
        moved_keys, moved = self._batches.resolve(keys, positions)
        if moved_keys is keys:
            return table
        return with_column(with_column(table, "batch_key", moved_keys), "position", moved)

    def index_of(self, run_id: str) -> pd.Index | None:
        """Return the labels of a run's frame, or None where they were not given."""
        file = self._opened.run_folder(run_id) / "index.arrow"
        with explained(self._opened.path):
            if file.exists():
                return read_index(file)
        run = self.get(run_id)
        return pd.RangeIndex(run.n_rows) if run.index_kind == ONLY_COUNTS else None

    def set_index(self, run_id: str, index: pd.Index) -> None:
        """Keep other labels for the rows of a run: those of the frame that it was asked for last."""
        run, kind = self.get(run_id), kind_of(index)
        stored = self.index_of(run_id)
        if len(index) != run.n_rows or (stored is not None and stored.identical(index)):
            return
        folder = self._opened.run_folder(run_id)
        with explained(self._opened.path), self._opened.recording():
            part = folder / f"index.{secrets.token_hex(4)}.part"
            write_index(part, index)
            sync_file(part)
            commit_file(part, folder / "index.arrow")
            self._opened.database.write(lambda c: queries.update_index_kind(c, run_id, kind))

    def delete(self, run_id: str) -> list[int]:
        """
        Remove a run, and the batches that no other run needs, down to the last byte.

        Returns
        -------
        list of int
            Keys of the batches that are gone.
        """
        with explained(self._opened.path), self._opened.recording():
            keys = self._opened.database.write(lambda c: queries.delete_run(c, run_id))
            if keys is None:
                self._no_run(run_id)
            self.finish_deletions()
        return keys

    def finish_deletions(self) -> None:
        """Remove what deletions have given up, also those of a process that died meanwhile."""
        folders = self._opened.database.read(queries.doomed)
        if not folders:
            return
        for folder in folders:
            remove_folder(self._opened.path / folder)
        # Copies made before a migration still hold what is to be forgotten, and so may the log and free pages.
        remove_folder(self._opened.path / "backups")
        if self._opened.database.scrub():
            self._opened.database.write(lambda c: queries.forget_doomed(c, folders))


def _insert_all(
    connection: sqlite3.Connection, run: RunRecord, batches: Mapping[int, tuple[BatchRecord, NewBatch]]
) -> None:
    for batch, new in batches.values():
        queries.insert_batch(connection, batch, new)
    queries.insert_run(connection, run)


def _check_columns(table: pa.Table, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise ValueError(f"the table lacks {missing}; it has {table.column_names}")


def _with_real_keys(requests: pa.Table, keys: Sequence[int]) -> tuple[pa.Table, list[int]]:
    given = requests.column("batch_key").to_numpy()
    if keys and len(given):
        new = given < 0
        if new.any():
            given = given.copy()
            given[new] = np.asarray(keys, dtype=np.int64)[-given[new] - 1]
            requests = with_column(requests, "batch_key", given)
    return requests, np.unique(given).tolist()
