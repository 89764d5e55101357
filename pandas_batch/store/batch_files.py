"""The files of a batch: the body of its POST, its results while they come and whole, its decoded answers."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from pandas_batch.errors import StoreError

from .failures import KEPT, NOTHING_RECORDED, explained
from .files import commit_files, private_writer
from .live_log import LiveLog, answered_lines, asked_positions
from .opened import Opened
from .spools import SpoolWriter, open_compressed, request_lines

SPOOL = "spool.json"
SPOOL_KEPT = "spool.kept.zst"
REQUESTS = "requests.seg"
RESULTS = "results.jsonl"
RESULTS_PACKED = "results.jsonl.zst"
RESULTS_PART = "results.part"
ANSWERS = "answers.arrow"


class BatchFiles:
    """Where the files of a batch are, and how they are read and written whole."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def new_spool(self, state: str = NOTHING_RECORDED) -> SpoolWriter:
        """Return a writer for the body of a batch to come; an error of it tells `state`. It goes with this process."""
        with explained(self._opened.path, state):
            path = self._opened.staging.new_path("spool")
        return SpoolWriter(path, self._opened.path, state)

    def spool_path(self, key: int) -> Path:
        """Return the file that is the body of the POST, as long as the batch is not compacted."""
        return self._opened.batch_folder(key) / SPOOL

    def results_part_path(self, key: int) -> Path:
        """Return where results are written while they come; see `new_results_part`."""
        return self._opened.batch_folder(key) / RESULTS_PART

    def results_path(self, key: int) -> Path:
        """Return where the raw results are, whole, before they are compressed; to read them: `open_results`."""
        return self._opened.batch_folder(key) / RESULTS

    def answers_path(self, key: int) -> Path:
        """Return where the decoded answers are."""
        return self._opened.batch_folder(key) / ANSWERS

    def live_log(self, key: int) -> LiveLog:
        """Return the files in which is recorded what is asked live of a batch, and what is answered."""
        return LiveLog(self._opened.batch_folder(key), self._opened.path)

    def live_answers(self, key: int) -> Iterator[bytes]:
        """Yield the answers to a live batch that came whole, as lines of results."""
        with explained(self._opened.path):
            yield from answered_lines(self._opened.batch_folder(key))

    def live_asked(self, key: int) -> Collection[int]:
        """Return the positions of a live batch that were asked, or were about to be."""
        with explained(self._opened.path):
            return asked_positions(self._opened.batch_folder(key))

    def new_results_part(self, key: int) -> io.BufferedWriter:
        """Return a writer on an empty, private `results_part_path`."""
        with explained(self._opened.path):
            return private_writer(self.results_part_path(key))

    def commit(self, finals: Mapping[Path, Path]) -> None:
        """Give finished files their final names, in their order and durably: each is whole there, or not there."""
        with explained(self._opened.path):
            commit_files(finals)

    def has_results(self, key: int) -> bool:
        """Whether the raw results of a batch are here."""
        folder = self._opened.batch_folder(key)
        return (folder / RESULTS).exists() or (folder / RESULTS_PACKED).exists()

    def open_results(self, key: int) -> BinaryIO:
        """Return the raw results of a batch as they came, compressed on disk or not."""
        folder = self._opened.batch_folder(key)
        return self._open_either(folder / RESULTS, folder / RESULTS_PACKED, key, "results")

    def open_spool(self, key: int) -> BinaryIO:
        """Return the body of a batch, or after `compact` the lines of the requests that did not succeed."""
        folder = self._opened.batch_folder(key)
        return self._open_either(folder / SPOOL, folder / SPOOL_KEPT, key, "requests")

    def spooled_requests(self, key: int) -> Iterator[tuple[int, bytes]]:
        """Yield (position, request as JSON) of every request of a batch that is still here."""
        with self.open_spool(key) as file:
            yield from request_lines(file)

    def _open_either(self, raw: Path, packed: Path, key: int, what: str) -> BinaryIO:
        with explained(self._opened.path):
            with suppress(FileNotFoundError):
                return open(raw, "rb")
            with suppress(FileNotFoundError):
                return open_compressed(packed)
        raise StoreError(f"The {what} of batch {key} are not in the store at {self._opened.path}.", KEPT)
