"""Which folder is the store, what is refused, and how formats and file systems are met."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from warm_python import command as warm

sys.path.insert(0, str(Path(__file__).parent))
from store_lab import BASE_URL, CREATED_AT, add_run, prints, reopened, three_parts

from pandas_batch.errors import StoreError
from pandas_batch.store import (
    IN_FLIGHT,
    Store,
)
from pandas_batch.store import database as database_module
from pandas_batch.store import folder as folder_module
from pandas_batch.store import store as store_module
from pandas_batch.store.migrations import MIGRATIONS

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_the_store_is_named_found_or_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, the environment, the nearest folder upwards, the working directory: in this order."""
    below = tmp_path / "project" / "notebooks" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.setenv("PANDAS_BATCH_HOME", str(tmp_path / "home store"))
    assert Store.open().path == (tmp_path / "home store").resolve()
    assert Store.open(tmp_path / "named").path == (tmp_path / "named").resolve()
    assert Store.open("relative").path == (below / "relative").resolve()
    monkeypatch.delenv("PANDAS_BATCH_HOME")
    made = Store.open()
    assert made.path == (below / ".pandas_batch").resolve()
    assert Store.open() is made
    shutil.rmtree(below / ".pandas_batch")
    upwards = Store.open(tmp_path / "project" / ".pandas_batch")
    assert Store.open() is upwards
    monkeypatch.setattr(folder_module, "_is_mine", lambda path: "project" not in str(path.parent.name))
    assert folder_module.find_store() == (below / ".pandas_batch").resolve()


def test_one_store_is_one_object_until_its_folder_is_another(tmp_path: Path) -> None:
    """The same folder by any spelling is the same object; a removed folder is a new store, and an error in use."""
    store = Store.open(tmp_path / "store")
    assert Store.open(str(tmp_path / "x" / ".." / "store")) is store
    (key,) = add_run(store, "r").batch_keys
    shutil.rmtree(store.path)
    with pytest.raises(StoreError) as raised:
        store.batches.transition(key, expect=["intent"], to="posting")
    assert "removed or replaced" in three_parts(raised.value)[0]
    fresh = Store.open(tmp_path / "store")
    assert fresh is not store
    assert fresh.runs.all() == []


def test_what_cannot_be_a_store_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a symlink, another's folder, a folder with other things, another program's database, a lost database."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "precious.py").write_text("x")
    (tmp_path / "foreign").mkdir()
    sqlite3.connect(tmp_path / "foreign" / "store.db").execute("CREATE TABLE theirs (x)").connection.close()
    add_run(Store.open(tmp_path / "lost"), "r")
    reopened(tmp_path / "lost")._opened.database.close()
    for name in ("store.db", "store.db-wal", "store.db-shm"):
        (tmp_path / "lost" / name).unlink(missing_ok=True)
    expected = {
        "file": "is a file",
        "link": "symbolic link",
        "project": "other things ('precious.py')",
        "foreign": "another program's database",
        "lost": "has lost its store.db",
        "file/below": "is not a folder",
    }
    for name, words in expected.items():
        with pytest.raises(StoreError) as raised:
            Store.open(tmp_path / name)
        assert words in three_parts(raised.value)[0]
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["precious.py"]
    assert stat.S_IMODE((tmp_path / "project").stat().st_mode) != 0o700
    monkeypatch.setattr(folder_module, "_is_mine", lambda _path: False)
    with pytest.raises(StoreError) as raised:
        Store.open(tmp_path / "theirs")
    assert "another user" in three_parts(raised.value)[0]


UNWRITABLE = """
import os, sys
from pandas_batch.errors import StoreError
from pandas_batch.store import Store
os.setuid(65534) if os.geteuid() == 0 else None
try:
    Store.open(sys.argv[1])
except StoreError as error:
    print(error)
"""


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """Without the right to write there, nothing is sent and the message names a way out."""
    place = tmp_path / "sealed"
    place.mkdir()
    place.chmod(0o555)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run(warm("-c", UNWRITABLE, place / "store"), capture_output=True, text=True, check=False)
    what, state, hint = done.stdout.strip().split("\n")
    assert "cannot be written" in what
    assert "Nothing was sent" in state
    assert "PANDAS_BATCH_HOME" in hint


def test_a_parent_that_is_open_to_all_is_warned_about(tmp_path: Path) -> None:
    """Whoever may write the parent could put another folder in the store's place."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.warns(UserWarning, match="Everybody may"):
        Store.open(tmp_path / "open" / "store")


@pytest.mark.parametrize("damage", ["head", "middle", "cut", "text"])
def test_a_damaged_database_is_said_to_be_damaged(tmp_path: Path, damage: str) -> None:
    """Overwritten or cut, the file is never taken for an empty store."""
    store = Store.open(tmp_path / "store")
    for i in range(30):
        add_run(store, f"r{i}", model="x" * 2000)
    store._opened.database.close()
    file = store.path / "store.db"
    data = bytearray(file.read_bytes())
    if damage == "head":
        data[:100] = b"\xff" * 100
    elif damage == "middle":
        data[4096 : len(data) - 4096] = os.urandom(len(data) - 8192)
    elif damage == "cut":
        del data[len(data) // 2 :]
    else:
        data = bytearray(b"not a database" * 1000)
    file.write_bytes(data)
    with pytest.raises(StoreError) as raised:
        reopened(store.path)
    what, state, hint = three_parts(raised.value)
    assert "damaged" in what
    assert "Nothing was sent" in state
    assert "recover" in hint


@pytest.mark.parametrize("name", ["rows.arrow", "requests.arrow", "index.arrow", "requests.seg"])
def test_a_damaged_or_missing_file_is_named(store: Store, name: str) -> None:
    """A file of a run or batch that was cut or removed is an error that names it, never an empty answer."""
    add_run(store, "r", index=pd.Index(list("abcdefghij")))
    (file,) = store.path.rglob(name)
    reads = {
        "rows.arrow": lambda: store.runs.rows_of("r"),
        "requests.arrow": lambda: store.runs.requests_of("r"),
        "index.arrow": lambda: store.runs.index_of("r"),
        "requests.seg": lambda: store.batches.requests_of(1),
    }
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(StoreError) as raised:
        reads[name]()
    assert f"{name} is not whole" in three_parts(raised.value)[0]
    if name != "index.arrow":  # which need not be there
        file.unlink()
        with pytest.raises(StoreError) as raised:
            reads[name]()
        assert f"{name} is missing" in three_parts(raised.value)[0]


# --- versions and file systems


def test_a_store_of_a_newer_version_is_left_alone(store: Store) -> None:
    """A format from the future is refused with the line that upgrades, and not touched."""
    store._opened.database.write(lambda c: c.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}"))
    store._opened.database.close()
    before = (store.path / "store.db").read_bytes()
    with pytest.raises(StoreError) as raised:
        reopened(store.path)
    what, state, hint = three_parts(raised.value)
    assert "format 2" in what
    assert "Nothing was sent" in state
    assert "pip install --upgrade" in hint
    assert (store.path / "store.db").read_bytes() == before


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):  # not in the first releases of 3.11; later ones warn where none is named
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(folder)
    return folder / "store"


@pytest.mark.parametrize("archive", sorted(GOLDEN.glob("store_v*.tar.gz")), ids=lambda path: path.name)
def test_a_store_of_every_released_format_is_opened(archive: Path, tmp_path: Path) -> None:
    """What an older version wrote is read, and gone on with, by this one."""
    store = Store.open(unpacked(archive, tmp_path))
    assert store.schema_version == len(MIGRATIONS)
    run = store.runs.find("golden")
    assert (run.id, run.n_rows, run.options) == ("golden-1", 6, {"max_tokens": 16})
    pd.testing.assert_index_equal(
        store.runs.index_of(run.id),
        pd.MultiIndex.from_product([["a", "b"], [1.5, None, 3]], names=["x", None]),
        exact=False,  # another version of pandas may have another type for text
    )
    assert store.runs.rows_of(run.id).column("request").to_pylist() == [0, 1, 2, 3, 4, 5]
    done, waiting = store.batches.of_keys(run.batch_keys)
    assert (done.state, done.batch_id, done.proved, done.betas) == ("collected", "msgbatch_1", True, ("some-beta",))
    assert done.posted_at == CREATED_AT
    assert (waiting.state, waiting.tried_ids) == ("unknown", ("msgbatch_9",))
    with store.files.open_results(done.key) as file:
        assert file.read() == b'{"custom_id":"x"}\n' * 3
    assert [position for position, _ in store.files.spooled_requests(done.key)] == [1]
    assert [position for position, _ in store.files.spooled_requests(waiting.key)] == [0, 1, 2]
    keys, positions = store.batches.find_answers(prints(0, 7), np.zeros(7, np.uint16), base_url=BASE_URL)
    assert keys.tolist() == [done.key, -1, done.key, *[waiting.key] * 3, -1]
    assert positions.tolist() == [0, -1, 2, 0, 1, 2, -1]
    assert store.batches.transition(waiting.key, expect=IN_FLIGHT, to="bound", batch_id="msgbatch_2", proved=True)
    add_run(store, "next")
    store.runs.delete(run.id)


def test_there_is_a_golden_store_of_every_format() -> None:
    """No format is released without a store of it among the tests."""
    assert [path.name for path in sorted(GOLDEN.glob("store_v*.tar.gz"))] == [
        f"store_v{version}.tar.gz" for version in range(1, len(MIGRATIONS) + 1)
    ]


def test_a_migration_happens_whole_or_not_at_all_and_leaves_a_copy(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old format stays in place when a step fails; when all succeed, a private copy of the old one remains."""
    add_run(store, "r")
    broken = (*MIGRATIONS, ("CREATE TABLE more (x)", "this is not SQL"))
    monkeypatch.setattr(database_module, "MIGRATIONS", broken)
    with pytest.raises(StoreError):
        reopened(store.path)
    with sqlite3.connect(store.path / "store.db") as plain:
        assert plain.execute("PRAGMA user_version").fetchone() == (1,)
        assert plain.execute("SELECT count(*) FROM sqlite_master WHERE name = 'more'").fetchone() == (0,)
    plain.close()
    monkeypatch.setattr(database_module, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE more (x)",)))
    newer = reopened(store.path)
    assert newer.schema_version == 2
    assert newer.runs.get("r").schema_version == 2
    backup = store.path / "backups" / "store-v1.db"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with sqlite3.connect(backup) as plain:
        assert plain.execute("SELECT id FROM runs").fetchall() == [("r",)]
    plain.close()
    newer.runs.delete("r")
    assert not backup.exists()


def pragmas(store: Store) -> dict[str, object]:
    names = ("journal_mode", "synchronous", "secure_delete", "fullfsync", "checkpoint_fullfsync")
    return {
        name: store._opened.database.read(lambda c, n=name: c.execute(f"PRAGMA {n}").fetchone()[0]) for name in names
    }


def test_a_commit_outlives_a_power_cut_on_any_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log with FULL where memory can be shared, elsewhere the journal with EXTRA; a store that moves follows."""
    store = Store.open(tmp_path / "store")
    rest = {"secure_delete": 1, "fullfsync": 1, "checkpoint_fullfsync": 1}
    assert pragmas(store) == {"journal_mode": "wal", "synchronous": 2, **rest}
    add_run(store, "r")
    monkeypatch.setattr(store_module, "is_local", lambda _path: False)
    moved = reopened(store.path)
    assert pragmas(moved) == {"journal_mode": "delete", "synchronous": 3, **rest}
    assert moved.runs.get("r").id == "r"
    add_run(moved, "s")
    monkeypatch.undo()
    assert [run.id for run in reopened(store.path).runs.all()] == ["s", "r"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/ann/project", "nfs4"),
        ("/homely", "ext4"),
        ("/mnt/a b/x", "cifs"),
        ("/data/x", "fuse.sshfs"),
        ("/data/x/local/y", "xfs"),
    ],
)
def test_the_file_system_is_that_of_the_innermost_mount(path: str, kind: str) -> None:
    """The longest mount point that holds the path decides, the later of two on one point."""
    mounts = (
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "23 22 0:5 / /home rw - ext4 /dev/sdb rw\n"
        "24 23 0:6 / /home rw - nfs4 server:/home rw\n"
        "25 22 0:7 / /mnt/a\\040b rw - cifs //server/x rw\n"
        "26 22 0:8 / /data/x rw shared:5 master:1 - fuse.sshfs ann@host: rw\n"
        "27 26 8:9 / /data/x/local rw - xfs /dev/sdc rw\n"
        "broken line\n"
    )
    assert folder_module.file_system_of(Path(path), mounts) == kind


def test_the_import_of_the_package_does_not_import_the_store() -> None:
    """Whoever only wants the client layer does not pay for the store."""
    program = "import sys, pandas_batch; print([m for m in sys.modules if m.startswith('pandas_batch.store')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_free_room_is_told(store: Store) -> None:
    """The room is that of the file system, in bytes."""
    assert store.free_bytes() > 0
    assert "store" in repr(store)
