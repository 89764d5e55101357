"""The files of runs and batches: private, the same before and after compaction, gone when deleted."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import store_lab
from store_lab import CREATED_AT, add_run, bind, collect, prints, reopened

from pandas_batch.errors import StoreError
from pandas_batch.store import (
    RunRecord,
    Store,
    files,
    requests_table,
    rows_table,
    spools,
)
from pandas_batch.store import store as store_module


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_results_and_bodies_are_read_the_same_before_and_after_compaction(store: Store) -> None:
    """Compaction keeps the raw results to the byte, and of the requests those that a retry needs."""
    (key,) = add_run(store, "r", n=6).batch_keys
    raw = b"".join(b'{"custom_id":"%d","text":"%s"}\n' % (i, b"word " * 400) for i in range(500)) + b"cut"
    with store.files.open_spool(key) as file:
        assert file.read() == store_lab.body("r0", 6)
    assert [position for position, _ in store.files.spooled_requests(key)] == list(range(6))
    assert not store.files.has_results(key)
    with pytest.raises(StoreError, match="results of batch"):
        store.files.open_results(key)
    with pytest.raises(ValueError, match="in flight"):
        store.batches.compact(key)
    collect(store, key, np.array([True, False, True, True, False, True]), raw)
    assert store.files.has_results(key)
    before = store.size_bytes()
    store.batches.compact(key)
    store.batches.compact(key)
    assert store.files.has_results(key)
    assert store.size_bytes() < before
    assert not store.files.results_path(key).exists()
    with store.files.open_results(key) as file:
        assert file.readline() == raw[: raw.index(b"\n") + 1]
        assert file.read() == raw[raw.index(b"\n") + 1 :]
    kept = dict(store.files.spooled_requests(key))
    assert list(kept) == [1, 4]
    assert kept[1] == store_lab.body("r0", 6).split(b"\n")[2].rstrip(b",")
    store.batches.compact(key, keep_requests=False)
    assert list(kept) == [position for position, _ in store.files.spooled_requests(key)]


def test_without_need_no_request_is_kept(store: Store) -> None:
    """Where everything succeeded, or the caller says so, the body goes whole."""
    first, second = add_run(store, "r", n=6, n_batches=2).batch_keys
    collect(store, first, np.ones(3, bool))
    store.batches.compact(first)
    collect(store, second, np.zeros(3, bool))
    store.batches.compact(second, keep_requests=False)
    for key in (first, second):
        with pytest.raises(StoreError, match="requests of batch"):
            store.files.open_spool(key)


@pytest.mark.parametrize("ending", [b"\n]}", b"]}", b"\n]}\n", b" ] }"])
@pytest.mark.parametrize("start", [b'{"requests":[\n', b'{"requests":['])
def test_the_lines_of_a_body_are_its_requests_however_it_is_wrapped(store: Store, start: bytes, ending: bytes) -> None:
    """What opens and closes the list may stand on lines of its own or not."""
    import io

    from pandas_batch.store import request_lines

    lines = [b'{"custom_id":"pb1_n_%05d_x_y","params":{"a":[1,2]}}' % i for i in range(3)]
    found = list(request_lines(io.BytesIO(start + b",\n".join(lines) + ending)))
    assert found == list(enumerate(lines))


def test_everything_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """Folders 0700 and files 0600 under umask 000, 022 and 077, the database's own files included."""
    for umask in (0o000, 0o022, 0o077, 0o777):
        old = os.umask(umask)
        try:
            store = Store.open(tmp_path / f"store{umask}")
            (key,) = add_run(store, "r", index=pd.Index(list("abcdefghij"))).batch_keys
            collect(store, key, np.arange(10) > 4)
            store.batches.compact(key)
            lease = store.lease("x")
            spool = store.files.new_spool()
            add_run(store, "s", start=100)
        finally:
            os.umask(old)
        n_files = 0
        for folder, _, names in os.walk(store.path):
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700, folder
            for name in names:
                n_files += 1
                assert stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) == 0o600, name
        assert n_files > 12
        lease.close()
        spool.discard()


def test_what_another_tool_copied_too_openly_is_closed_again(tmp_path: Path) -> None:
    """A store restored from an archive with wide modes is made private when opened."""
    store = Store.open(tmp_path / "store")
    store._opened.database.close()
    store.path.chmod(0o755)
    (store.path / "store.db").chmod(0o644)
    reopened(store.path)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((store.path / "store.db").stat().st_mode) == 0o600


def test_git_sees_nothing_of_the_store(tmp_path: Path) -> None:
    """A store inside a repository is never committed."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    add_run(Store.open(tmp_path / ".pandas_batch"), "r")
    said = subprocess.run(["git", "status", "--porcelain"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout == ""


@pytest.mark.parametrize("local", [True, False])
def test_a_deleted_run_leaves_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool) -> None:
    """Prompts, labels, options, names and results of a deleted run are in no file any more; other runs are whole."""
    monkeypatch.setattr(store_module, "is_local", lambda _path: local)
    store = Store.open(tmp_path / "store")
    canary = "canaryprompt"
    add_run(store, "keep", start=500)
    run = add_run(
        store,
        "gone",
        text=canary,
        index=pd.Index([f"{canary}{i}" for i in range(10)]),
        name=canary,
        options={"system": canary * 300},
    )
    (key,) = run.batch_keys
    bind(store, key, canary)
    for i in range(50):
        store.batches.update(key, error=f"{canary} {i}")
    collect(store, key, np.ones(10, bool), canary.encode())
    found = [path for path in store.path.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()]
    assert len(found) >= 4
    assert store.runs.delete("gone") == [key]
    for path in store.path.rglob("*"):
        assert not path.is_file() or canary.encode() not in path.read_bytes(), path
    assert [run.id for run in store.runs.all()] == ["keep"]
    assert store.files.spool_path(store.runs.get("keep").batch_keys[0]).exists()


def test_a_batch_that_another_run_needs_outlives_its_own(store: Store) -> None:
    """Deleting a run removes what no other run points at."""
    first, second = add_run(store, "owner", n=4, n_batches=2).batch_keys
    reader = RunRecord(
        id="reader", identity="x", created_at=CREATED_AT, base_url="u", model="m", n_rows=1, n_requests=1
    )
    requests = requests_table(prints(0, 1), *(np.array([value]) for value in (0, second, 0, 1)))
    store.runs.add(reader, rows_table(np.array([0])), requests)
    assert store.runs.delete("owner") == [first]
    assert store.batches.get(second).run_id == "owner"
    assert store.batches.runs_of(second) == ["reader"]
    assert store.batches.requests_of(second)[0].shape == (2, 16)
    assert store.runs.delete("reader") == [second]


def test_a_deletion_that_was_cut_short_is_finished_at_the_next_opening(store: Store) -> None:
    """A process killed after the commit of a deletion leaves nothing for good."""
    (key,) = add_run(store, "r", text="canary").batch_keys
    collect(store, key, np.ones(10, bool))
    from pandas_batch.store import queries

    assert store._opened.database.write(lambda c: queries.delete_run(c, "r")) == [key]
    assert (store.path / "batches" / str(key)).exists()
    again = reopened(store.path)
    assert not (store.path / "batches" / str(key)).exists()
    assert again._opened.database.read(queries.doomed) == []


class Medium:
    """Knows what a power cut would take back: files and folders that were changed and not synced since."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *changed: Path) -> None:
        self.at_risk = {path.stat().st_ino for path in changed}
        rename, replace, sync_fd = os.rename, os.replace, files.sync_fd

        def moved(move: Callable[[Path, Path], None], part: Path, final: Path) -> None:
            move(part, final)
            self.at_risk.add(final.parent.stat().st_ino)

        def synced(fd: int) -> None:
            sync_fd(fd)
            self.at_risk.discard(os.fstat(fd).st_ino)

        monkeypatch.setattr(os, "rename", lambda part, final: moved(rename, part, final))
        monkeypatch.setattr(os, "replace", lambda part, final: moved(replace, part, final))
        monkeypatch.setattr(files, "sync_fd", synced)


@pytest.mark.skipif(os.name == "nt", reason="Windows brings the entries of folders to the medium by itself")
def test_nothing_that_was_committed_is_at_risk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and folders that have their final names are on the medium, and so are their names."""
    places = [tmp_path / "batches", tmp_path / "runs"]
    folders = {tmp_path / f"part{i}": place / "1" for i, place in enumerate(places)}
    for folder in (*places, *folders):
        folder.mkdir()
    parts = {tmp_path / f"file{i}.part": place / "answers" for i, place in enumerate(places)}
    for path in parts:
        path.write_bytes(b"written")
    medium = Medium(monkeypatch, *folders, *parts)
    files.commit_folders(folders)
    files.commit_files(parts)
    assert medium.at_risk == set()
    assert all(final.is_dir() for final in folders.values())
    assert all(final.read_bytes() == b"written" for final in parts.values())


@pytest.mark.skipif(os.name == "nt", reason="Windows brings the entries of folders to the medium by itself")
def test_the_files_of_a_run_are_on_the_medium_before_it_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, requests, labels and bodies of a recorded run were all synced, and outlive a power cut."""
    store = Store.open(tmp_path / "store")
    synced = set()
    sync_fd = files.sync_fd
    for module in (files, spools):
        monkeypatch.setattr(module, "sync_fd", lambda fd: (synced.add(os.fstat(fd).st_ino), sync_fd(fd)))
    add_run(store, "r", index=pd.Index([*"abcdefghij"]))
    written = [path for name in ("runs", "batches") for path in (store.path / name).rglob("*") if path.is_file()]
    assert len(written) >= 5
    assert [path.name for path in written if path.stat().st_ino not in synced] == []
