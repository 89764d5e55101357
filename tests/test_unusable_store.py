"""A store that cannot be used is told before anything is sent; after a POST, the batch id is in the message."""

from __future__ import annotations

import errno
import os
import sqlite3

import pandas as pd
import pytest
from rowlab import ask

from pandas_batch.errors import StoreError
from pandas_batch.store import Store
from pandas_batch.store import store as store_room
from pandas_batch.store.failures import store_error
from pandas_batch.store.places import DATABASE_NAME

FRAME = pd.DataFrame({"prompt": [f"p{i}" for i in range(5)]})


def refused(api, clock, store) -> str:
    """Submit, and return what the refusal says; nothing was asked of the server that costs."""
    with pytest.raises(StoreError) as told:
        ask(FRAME, api, clock, store=str(store))
    assert api.calls("create") == 0
    text = str(told.value)
    assert "Nothing was sent, nothing was billed." in text
    assert str(store) in text
    return text


@pytest.mark.parametrize("is_file", [True, False])
def test_a_store_that_cannot_be_written(api, clock, tmp_path, monkeypatch, is_file):
    """A folder that this user may not write, or that is none, is told before anything is sent, with a way out."""
    folder = tmp_path / "store"
    if is_file:
        folder.write_text("a file stands where the folder should be")
    else:

        def denied(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        # Root may write anywhere, so the refusal is made where the folder is entered.
        monkeypatch.setattr(store_room, "enter_store", denied)
    assert "store=" in refused(api, clock, folder)


def test_a_store_of_a_newer_version(api, clock, tmp_path):
    """A store that a newer release has written is left alone, and said so."""
    folder = tmp_path / "store"
    store = Store.open(folder)
    database = folder / DATABASE_NAME
    store._database.close()
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
    store._database.close()
    store_room._instances.pop(folder, None)
    database.write_bytes(b"this is no database at all " * 400)
    for beside in folder.glob(f"{database.name}-*"):
        beside.unlink()
    assert "recover" in refused(api, clock, folder)


def test_a_full_disk(api, clock, tmp_path, monkeypatch):
    """Where there is no room for requests and answers, the run is refused before it is recorded."""
    monkeypatch.setattr(Store, "free_bytes", lambda self: 1000)
    assert "MB free" in refused(api, clock, tmp_path / "store")


def test_a_disk_that_fills_while_the_run_is_recorded(api, clock, tmp_path, monkeypatch):
    """Where the disk is full only when the requests are written, nothing is recorded and nothing sent."""
    from pandas_batch.store import runs

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = tmp_path / "store"
    monkeypatch.setattr(runs, "sync_file", full)
    assert "no room left" in refused(api, clock, store)
    monkeypatch.undo()
    assert Store.open(store).runs() == []
    assert ask(FRAME, api, clock, store=str(store)).result()["status"].eq("succeeded").all()


def test_the_batch_id_is_told_when_it_cannot_be_recorded(api, clock, tmp_path, monkeypatch):
    """A store that fails between the POST and its record: the id is in the message, and the same line finds it."""
    honest = Store.transition

    def fails(self, key, *, expect, to, **changes):
        if to == "bound":
            raise store_error(OSError(errno.ENOSPC, "No space left on device"), self.path)
        return honest(self, key, expect=expect, to=to, **changes)

    monkeypatch.setattr(Store, "transition", fails)
    store = str(tmp_path / "store")
    run = ask(FRAME, api, clock, store=store)
    with pytest.raises(StoreError) as told:
        run.result()
    (batch,) = api.batches
    assert batch.id in str(told.value)
    assert "5 requests" in str(told.value)
    assert "no room left" in str(told.value)
    assert any(note.startswith(f"Run {run.id}") for note in told.value.__notes__)
    monkeypatch.undo()
    assert ask(FRAME, api, clock, store=store).result()["status"].eq("succeeded").all()
    assert len(api.batches) == 1
