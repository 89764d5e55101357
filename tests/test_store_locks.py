"""Locks exclude threads and processes alike, and die with their holder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import store_lab

from pandas_batch.errors import StoreError
from pandas_batch.store import Store
from pandas_batch.store import locks as locks_module
from pandas_batch.store.locks import lock_name, take_lease, try_lock, wait_lock


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def in_thread(work: object) -> object:
    said: list[object] = []
    thread = threading.Thread(target=lambda: said.append(work()))
    thread.start()
    thread.join()
    return said[0]


def test_a_lease_excludes_everybody_until_it_is_closed(store: Store) -> None:
    """The same thread, another thread and later takers: one holds it at a time."""
    lease = store.lease("batch 1")
    assert lease is not None
    assert not lease.closed
    assert store.lease("batch 1") is None
    assert in_thread(lambda: store.lease("batch 1")) is None
    other = store.lease("batch 2")
    assert other is not None
    other.close()
    lease.close()
    lease.close()
    assert lease.closed
    with store.lease("batch 1") as again:
        assert not again.closed
    assert list((store.path / "locks").iterdir()) == []


HOLDER = """
import sys
from pandas_batch.store import locks as locks_module
from pandas_batch.store.locks import take_lease
from pathlib import Path
lease = take_lease(Path(sys.argv[1]), "x")
print(lease is not None, flush=True)
sys.stdin.readline()
"""


def test_a_lease_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    """SIGKILL releases what the process held; no stale lock is left to reason about."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "True\n"
    assert take_lease(tmp_path, "x") is None
    holder.kill()
    holder.communicate()
    lease = take_lease(tmp_path, "x")
    assert lease is not None
    lease.close()


def test_whoever_waits_on_a_removed_lock_file_takes_the_new_one(tmp_path: Path) -> None:
    """Many threads that take and close one lease are never two at once, although each close removes the file."""
    inside = 0
    worst = 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, worst
        for _ in range(200):
            lease = take_lease(tmp_path, "x")
            if lease is None:
                continue
            with guard:
                inside += 1
                worst = max(worst, inside)
            with guard:
                inside -= 1
            lease.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == 1


def test_a_lock_file_that_was_removed_under_the_taker_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the last holder removes the file between our opening and our locking it, we lock the next file."""
    old = take_lease(tmp_path, "x")
    lock = locks_module._lock

    def lock_after_the_holder_left(fd: int) -> bool:
        old.close()
        return lock(fd)

    monkeypatch.setattr(locks_module, "_lock", lock_after_the_holder_left)
    new = take_lease(tmp_path, "x")
    assert new is not None
    assert take_lease(tmp_path, "x") is None
    new.close()


def test_a_lease_does_not_remove_the_file_of_its_successor(tmp_path: Path) -> None:
    """Where somebody cleared the folder of locks, closing the old lease leaves the new one's file alone."""
    old = take_lease(tmp_path, "x")
    (tmp_path / "x").unlink()
    new = take_lease(tmp_path, "x")
    old.close()
    assert take_lease(tmp_path, "x") is None
    new.close()


def test_waiting_ends_with_the_holder_or_with_the_patience(tmp_path: Path) -> None:
    """A wait takes over from its holder, and without one letting go it ends in TimeoutError."""
    path = tmp_path / "lock"
    holder = try_lock(path)
    with pytest.raises(TimeoutError):
        wait_lock(path, timeout_s=0)
    waiter = threading.Thread(target=lambda: wait_lock(path).close())
    waiter.start()
    holder.close()
    waiter.join(timeout=10)
    assert not waiter.is_alive()


def test_preparing_excludes_others_and_refuses_to_wait_for_itself(store: Store) -> None:
    """Another thread waits; the same thread would wait for ever, so it is told."""
    with store.preparing():
        with pytest.raises(StoreError) as raised:
            store.preparing()
        assert "another was being prepared" in raised.value.what

        def other() -> object:
            try:
                store.preparing(timeout_s=0)
            except StoreError as error:
                return error
            return None

        error = in_thread(other)
        assert "locked for too long" in error.what
        assert error.hint
    with store.preparing():
        pass


def test_preparing_ends_when_planning_fails(store: Store) -> None:
    """An error inside the block, KeyboardInterrupt included, lets the next one in."""
    for kind in (ValueError, KeyboardInterrupt):
        with pytest.raises(kind), store.preparing():
            raise kind
    store.preparing(timeout_s=0).close()


@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_any_text_is_a_name_and_never_a_path(name: str) -> None:
    """Names of leases cannot leave their folder, and differ where the texts differ."""
    found = lock_name(name)
    assert found == os.path.basename(found)
    assert found not in ("", ".", "..")
    assert len(os.fsencode(found)) <= 80
    assert lock_name(name + "x") != found


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", ".", "..", "x" * 300, "nul\0", "\ud83d", "-rf", "ü"])
def test_hostile_names_are_leases_like_any_other(store: Store, name: str) -> None:
    """A lease of any name works and stays inside the store."""
    with store.lease(name) as lease:
        assert store.lease(name) is None
        assert len(list((store.path / "locks").iterdir())) == 1
        assert lease.name == name


def test_the_lab_records_under_the_lock(store: Store) -> None:
    """add_run takes its own short lock, inside and outside of preparing."""
    with store.preparing():
        store_lab.add_run(store, "inside")
    store_lab.add_run(store, "outside")
    assert [run.id for run in store.runs.all()] == ["outside", "inside"]
