"""What all parts of the store stand on: the folder, the database, the staging folder, who records when."""

from __future__ import annotations

import io
import re
from pathlib import Path

from .database import Database
from .locks import wait_lock
from .staging import Staging

RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

# Recording takes milliseconds; whoever holds its lock for minutes is a process that was stopped.
_RECORDING_PATIENCE_S = 120.0


class Opened:
    """An opened folder and its database: where everything lies, and who may write."""

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self.database = database
        self.staging = Staging(path)
        self.unrecorded: list[str] = []  # folders of batches that were posted, and of which the database knows nothing
        self.recorded_here: dict[int, int] = {}  # keys of batches, and the process that recorded them
        self.key_floor = 0  # no key of a new batch is below it; 0: the folders were not looked at yet
        self.schema_version: int = database.read(lambda c: c.execute("PRAGMA user_version").fetchone()[0])

    def recording(self) -> io.FileIO:
        """Return a context manager: nobody else has folders on their way to a commit while it is open."""
        return wait_lock(self.path / "recording.lock", _RECORDING_PATIENCE_S)

    def new_folder(self, kind: str) -> Path:
        """Make a private folder that goes with this process unless it is given a name."""
        path = self.staging.new_path(kind)
        path.mkdir(mode=0o700)
        path.chmod(0o700)
        return path

    def run_folder(self, run_id: str) -> Path:
        """Return where the files of a run are."""
        if not RUN_ID.fullmatch(run_id):
            raise ValueError(f"run id {run_id!r} is not of letters, digits, _ and -")
        return self.path / "runs" / run_id

    def batch_folder(self, key: int) -> Path:
        """Return where the files of a batch are."""
        return self.path / "batches" / str(int(key))
