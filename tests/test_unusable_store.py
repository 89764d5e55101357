"""A store that cannot be used is told before anything is sent; after a POST, the batch id is in the message.

Disks are full and folders closed for real: in a process of its own (`user_process`), by a limit on the size of files,
on a small file system, or as a user who may not write.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rowlab import ask
from warm_python import command as warm

from pandas_batch import simulator
from pandas_batch.errors import StoreError
from pandas_batch.store import Store
from pandas_batch.store import store as store_room
from pandas_batch.store.folder import DATABASE_NAME

FRAME = pd.DataFrame({"prompt": [f"p{i}" for i in range(5)]})
NOBODY = 65534
NOTHING_SPENT = "Nothing was sent, nothing was billed."


def refused(api, clock, store) -> str:
    """Submit, and return what the refusal says; nothing was asked of the server that costs."""
    with pytest.raises(StoreError) as told:
        ask(FRAME, api, clock, store=str(store))
    assert api.calls("create") == 0
    text = str(told.value)
    assert NOTHING_SPENT in text
    assert str(store) in text
    return text


def test_a_store_that_is_a_file(api, clock, tmp_path):
    """A file where the folder should be is told before anything is sent, with a way out."""
    (tmp_path / "store").write_text("a file stands where the folder should be")
    assert "store=" in refused(api, clock, tmp_path / "store")


def test_a_store_of_a_newer_version(api, clock, tmp_path):
    """A store that a newer release has written is left alone, and said so."""
    folder = tmp_path / "store"
    store = Store.open(folder)
    database = folder / DATABASE_NAME
    store._opened.database.close()
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    os.utime(folder)
    store_room._instances.pop(folder, None)
    assert "newer" in refused(api, clock, folder)


def test_a_damaged_store(api, clock, tmp_path):
    """A database of junk is told as damage, with what to do."""
    folder = tmp_path / "store"
    store = Store.open(folder)
    database = folder / DATABASE_NAME
    store._opened.database.close()
    store_room._instances.pop(folder, None)
    database.write_bytes(b"this is no database at all " * 400)
    for beside in folder.glob(f"{database.name}-*"):
        beside.unlink()
    assert "recover" in refused(api, clock, folder)


# -------------------------------------------------------------------- full disks and closed folders, for real

pytest.importorskip("resource", reason="this system has no limits on the size of files")


@pytest.fixture
def server() -> Iterator[simulator.Simulator]:
    """A server on the time of all processes, whose batches end just after their create was answered."""
    with simulator.serve(seconds_per_batch=0.01) as running:
        yield running


@pytest.fixture(scope="module")
def users() -> Iterator[subprocess.Popen[str]]:
    """What makes a process for each user."""
    program = warm(Path(__file__).parent / "user_process.py")
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


Told = Callable[..., tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture
def told_to_user(server: simulator.Simulator, users: subprocess.Popen[str]) -> Told:
    """Submit twice in a process of its own, the second time without what was in the way; return what came of each."""

    def told(
        store: Path,
        *,
        limit: int | None = None,
        limit_at: str | None = None,
        uid: int | None = None,
        n_rows: int = 5,
        n_bytes_each: int = 0,
        remove: tuple[Path, ...] = (),
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        job = {
            "base_url": server.base_url,
            "store": str(store),
            "limit": limit,
            "limit_at": limit_at,
            "uid": uid,
            "n_rows": n_rows,
            "n_bytes_each": n_bytes_each,
            "remove": [str(path) for path in remove],
        }
        print(json.dumps(job), file=users.stdin, flush=True)
        answer = json.loads(users.stdout.readline())
        assert isinstance(answer, list), answer["raised"]
        return answer[0], answer[1]

    return told


def assert_then_paid_once(server: simulator.Simulator, second: dict[str, Any], n_rows: int = 5) -> None:
    """With room again the same line brings every answer, paid once."""
    assert second == {"statuses": ["succeeded"] * n_rows}
    assert len(server.billed) == n_rows
    assert server.calls("create") == 1


def says_no_room(told: dict[str, Any]) -> bool:
    """Return whether a user is told to look for room: SQLite calls a file that may not grow a failing disk."""
    return "no room left" in told["error"] or "Check the free space" in told["error"]


@pytest.mark.parametrize("limit", [0, 4_000])
def test_a_disk_without_room_for_the_store(server, told_to_user, tmp_path, limit):
    """Where not even the store can be made, that is told before anything is sent."""
    first, second = told_to_user(tmp_path / "store", limit=limit)
    assert says_no_room(first)
    assert NOTHING_SPENT in first["error"]
    assert_then_paid_once(server, second)


@pytest.mark.parametrize("n_bytes_each", [100, 10_000])
def test_a_disk_that_fills_while_the_run_is_recorded(server, told_to_user, tmp_path, n_bytes_each):
    """Where the disk is full only when the requests are written, nothing is recorded and nothing sent."""
    store = tmp_path / "store"
    told_to_user(store, n_rows=1)
    size = max(path.stat().st_size for path in store.iterdir() if path.is_file())
    first, second = told_to_user(store, limit=size, n_rows=3_000, n_bytes_each=n_bytes_each)
    assert "no room left" in first["error"]
    assert "was not recorded" in first["error"]
    assert NOTHING_SPENT in first["error"]
    assert second == {"statuses": ["succeeded"] * 3_000}
    assert server.calls("create") == 2
    assert len(Store.open(store).runs.all()) == 2


def test_the_batch_id_is_told_when_it_cannot_be_recorded(server, told_to_user, tmp_path):
    """A disk that is full between the POST and its record: the id is in the message, and the same line finds it."""
    first, second = told_to_user(tmp_path / "store", limit=0, limit_at="create answered")
    (batch,) = server.batches
    assert f"Batch {batch.id} was created (5 requests) and could not be recorded" in first["error"]
    assert says_no_room(first)
    assert "the same line finds the batch by itself" in first["error"]
    assert any(note.startswith("Run run_") for note in first["notes"])
    assert_then_paid_once(server, second)


POINTS = ("run recorded", "watermark read", "batch bound", "end recorded", "results downloaded", "results decoded")


@pytest.mark.parametrize("point", POINTS)
def test_a_disk_that_fills_under_a_run(server, told_to_user, tmp_path, point):
    """Wherever the room ends, it is told in words, and with room again the same line pays for nothing twice."""
    first, second = told_to_user(tmp_path / "store", limit=0, limit_at=point)
    assert says_no_room(first)
    assert_then_paid_once(server, second)


def test_a_file_system_without_room_for_the_answers(server, told_to_user, tmp_path):
    """Where there is room for the requests and none for their answers, that is told before anything is sent."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        filler = place / "filler"
        filler.write_bytes(b"x" * 5_000_000)
        first, second = told_to_user(place / "store", n_rows=1_000, remove=(filler,))
        assert re.search(r"has 3\.\d MB free; this run may need 4\.\d MB", first["error"])
        assert NOTHING_SPENT in first["error"]
        assert_then_paid_once(server, second, 1_000)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter (pytest's own may not be)."""
    folder = Path(tempfile.mkdtemp(prefix="pandas_batch-"))
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(folder)


@pytest.mark.parametrize("is_made", [True, False])
def test_a_folder_that_this_user_may_not_write(server, told_to_user, open_folder, is_made):
    """A folder that may be read and not written is told before anything is sent, with a way out."""
    # Root may write anywhere, so it steps down.
    uid = NOBODY if os.geteuid() == 0 else None
    store = open_folder / "store"
    if is_made:
        told_to_user(store, n_rows=1)
        for path in (store, *store.rglob("*")):
            if uid is not None:
                os.chown(path, uid, uid)
            path.chmod(0o500 if path.is_dir() else 0o400)
    else:
        open_folder.chmod(0o555)
    n_before = server.calls("create")
    for told in told_to_user(store, uid=uid):
        assert f"The store at {store} cannot be written" in told["error"]
        assert NOTHING_SPENT in told["error"]
        assert 'store="~/batches"' in told["error"]
    assert server.calls("create") == n_before
