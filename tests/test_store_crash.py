"""Killed at any instant, raced by others, out of room: the store holds whole runs and everything it acknowledged."""

from __future__ import annotations

import errno
import itertools
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from warm_python import command as warm

sys.path.insert(0, str(Path(__file__).parent))
import store_lab
from store_lab import reopened

from pandas_batch.errors import StoreError
from pandas_batch.store import Store
from pandas_batch.store.failures import explained

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")


class Victim:
    """A process that forks a child per trial; the child kills itself before its n-th call of a C function."""

    def __init__(self, *paths: Path) -> None:
        self._process = subprocess.Popen(
            warm(store_lab.__file__, *paths),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def trial(self, run_id: str, n_calls: int) -> tuple[dict[str, int], int]:
        """Return what was acknowledged before the end, after how many calls, and the exit code."""
        self._process.stdin.write(f"{run_id} {n_calls}\n")
        self._process.stdin.flush()
        acked = {}
        while True:
            word, *rest = self._process.stdout.readline().split(maxsplit=2)
            if word == "done":
                return acked, int(rest[0])
            assert word == "acked", (word, rest)
            acked[rest[0]] = int(rest[1])

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    found = Victim(tmp_path / "store")
    yield found
    found.close()


def check_whole(store: Store) -> None:
    """Every run is whole, and there is nothing else."""
    runs = store.runs.all()
    keys = set()
    for run in runs:
        assert store.runs.rows_of(run.id).num_rows == run.n_rows
        assert store.runs.requests_of(run.id).num_rows == run.n_requests
        assert len(store.runs.index_of(run.id)) == run.n_rows
        for batch in store.batches.of_keys(run.batch_keys):
            keys.add(batch.key)
            assert store.batches.requests_of(batch.key)[0].shape == (batch.n_requests, 16)
            if batch.state == "collected":
                with store.files.open_results(batch.key) as file:
                    assert file.read() == b'{"custom_id":"a"}\n' * 10
                kept = [position for position, _ in store.files.spooled_requests(batch.key)]
                assert kept in ([3], list(range(10)))
            else:
                assert store.files.spool_path(batch.key).stat().st_size == batch.n_bytes
    assert {path.name for path in (store.path / "runs").iterdir()} == {run.id for run in runs}
    assert {path.name for path in (store.path / "batches").iterdir()} == {str(key) for key in keys}
    assert store._opened.database.read(lambda c: c.execute("PRAGMA integrity_check").fetchone()[0]) == "ok"


ORDER = ["recorded", "posting", "bound", "collected", "compacted", "deleted"]
STATES_AFTER = [("intent",), ("posting",), ("bound", "ended"), ("collected",)]
"""States of a batch after each step; the last of several is one on the way to the next."""


def check_acknowledged(store: Store, run_id: str, acked: Collection[str]) -> None:
    """What a call returned from is there; one step further may be there."""
    assert list(acked) == ORDER[: len(acked)]
    known = {run.id for run in store.runs.all()}
    if "deleted" in acked:
        assert run_id not in known
    elif "compacted" in acked:
        pass  # the deletion was under way
    elif acked:
        state = store.batches.get(store.runs.get(run_id).batch_keys[0]).state
        reached, *next_ones = STATES_AFTER[len(acked) - 1 : len(acked) + 1]
        assert state in [*reached, *(states[0] for states in next_ones)]


MOST_RUNS = 8
"""How many runs of the dead lie in the store beside the next: with every run that there is, a check takes longer."""


def kill_trials(victim: Victim, path: Path, points: list[int]) -> int:
    n_killed = 0
    for number, n_calls in enumerate(points):
        run_id = f"k{number}"
        acked, code = victim.trial(run_id, n_calls)
        assert code in (0, -9)
        n_killed += code == -9
        store = reopened(path)
        assert list((path / "tmp").iterdir()) == []
        check_whole(store)
        check_acknowledged(store, run_id, acked)
        with store.preparing(timeout_s=0):
            pass  # the dead hold no lock
        runs = store.runs.all()
        if len(runs) > MOST_RUNS:
            for run in runs:
                store.runs.delete(run.id)
    return n_killed


def calls_until_each_step(victim: Victim) -> list[int]:
    """Return how many calls lead to each acknowledgement."""
    for run_id in ("first", "second"):  # the first also makes the store's folder for what is on its way
        acked, code = victim.trial(run_id, 0)
        assert code == 0
    return list(acked.values())


def points_in_each_step(victim: Victim, n: int) -> list[int]:
    dice = random.Random(7)
    steps = [0, *calls_until_each_step(victim)]
    return [point for start, end in itertools.pairwise(steps) for point in dice.sample(range(start + 1, end), n)]


def test_killed_at_any_call_leaves_whole_runs_and_every_acknowledged_change(tmp_path: Path, victim: Victim) -> None:
    """SIGKILL before any call of recording, posting, collecting, compacting or deleting loses nothing acknowledged."""
    points = points_in_each_step(victim, 8)
    assert kill_trials(victim, tmp_path / "store", points) >= len(points) - 2


@pytest.mark.full
def test_killed_at_every_call(tmp_path: Path, victim: Victim, capsys: pytest.CaptureFixture[str]) -> None:
    """The same at every single call."""
    began_s = time.monotonic()
    n_calls = calls_until_each_step(victim)[-1]
    n_killed = kill_trials(victim, tmp_path / "store", list(range(1, n_calls)))
    with capsys.disabled():
        print(f"\n{n_killed:,} kills, at each of {n_calls - 1:,} calls, in {time.monotonic() - began_s:.0f} s")
    assert n_killed >= n_calls - 10


def test_a_power_cut_takes_nothing_back_that_was_acknowledged(tmp_path: Path) -> None:
    """A disk that loses power at any call holds, plugged in again, all that a call had returned from."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with open(image, "wb") as file:
        file.truncate(16 << 20)

    def run(*command: object) -> bool:
        return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0

    if sys.platform != "linux" or os.geteuid() or not run("mkfs.ext4", "-q", image):
        pytest.skip("needs the right to mount")
    if not run("mount", "-o", "loop", image, disk):
        pytest.skip("needs the right to mount")
    n_lost = 0
    victim = Victim(disk / "store", disk)
    try:
        for number, point in enumerate(points_in_each_step(victim, 2)):
            run_id = f"p{number}"
            acked, code = victim.trial(run_id, point)
            assert code in (0, -9)
            n_lost += code == -9
            assert run("umount", disk)
            assert run("mount", "-o", "loop", image, disk)
            store = reopened(disk / "store")
            check_whole(store)
            check_acknowledged(store, run_id, acked)
            store._opened.database.close()
    finally:
        victim.close()
        # lazily, where a failed check still has files open there: no mount is left for others to stumble over
        assert run("umount", disk) or run("umount", "-l", disk)
    assert n_lost > 10


RACERS = """
import os, sys
sys.path.insert(0, sys.argv[2])
import store_lab
from pandas_batch.store import Store

def race(number):
    store = Store.open(sys.argv[1])
    with store.preparing():
        if store.runs.newest_of_identity("one") is None:
            store_lab.add_run(store, f"racer{number}", identity="one")
            os.write(1, b"recorded ")
    key = store.runs.newest_of_identity("one").batch_keys[0]
    if store.batches.transition(key, expect=["intent"], to="posting"):
        os.write(1, b"posted ")

gate, go = os.pipe()
children = []
for number in range(8):
    child = os.fork()
    if not child:
        os.close(go)
        os.read(gate, 1)  # until the parent opens the gate for all at once
        try:
            race(number)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    children.append(child)
os.close(go)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))
"""


def test_eight_processes_that_start_one_run_record_it_once_and_post_it_once(tmp_path: Path) -> None:
    """Of eight kernels that run the same cell at once, also on a store that none has made yet, one pays."""
    for number in range(3):
        path = tmp_path / f"store{number}"
        done = subprocess.run(
            warm("-c", RACERS, path, Path(__file__).parent),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert sorted(done.stdout.split()) == ["posted", "recorded"]
        assert len(Store.open(path).runs.all()) == 1


def test_threads_that_race_on_one_store_object_succeed_once_each(tmp_path: Path) -> None:
    """Of eight threads one makes each transition, and no write is lost."""
    store = Store.open(tmp_path / "store")
    keys = store_lab.add_run(store, "r", n=20, n_batches=20).batch_keys
    won: list[int] = []
    start = threading.Barrier(8)

    def race(number: int) -> None:
        start.wait()
        for key in keys:
            if store.batches.transition(key, expect=["intent"], to="posting"):
                won.append(key)
        with store.preparing():
            store_lab.add_run(store, f"t{number}")

    threads = [threading.Thread(target=race, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(keys)
    assert len(store.runs.all()) == 9


FORKER = """
import os, sys
sys.path.insert(0, sys.argv[2])
import store_lab
from pandas_batch.store import Store
store = Store.open(sys.argv[1])
run = store_lab.add_run(store, "parent")
lease = store.lease("held by the parent")
spool = store.files.new_spool()
preparing = store.preparing()
child = os.fork()
if not child:
    assert store._opened.database._held.connections == []
    assert lease.closed and store.lease("held by the parent") is None
    try:
        store.preparing(timeout_s=0)
        os._exit(3)
    except Exception as error:
        assert "locked" in str(error), error
    store_lab.add_run(store, "child")
    assert store.batches.transition(run.batch_keys[0], expect=["intent"], to="posting")
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert not lease.closed and store.lease("held by the parent") is None
spool.write(b"still ours")
spool.close()
assert spool.path.read_bytes() == b"still ours"
preparing.close()
assert not store.batches.transition(run.batch_keys[0], expect=["intent"], to="posting")
store_lab.add_run(store, "after")
assert {run.id for run in store.runs.all()} == {"parent", "child", "after"}
child = os.fork()
if not child:
    os._exit(0 if store.runs.get("after") and store.lease("fresh") else 4)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
lease.close()
child = os.fork()
if not child:
    os._exit(0 if store.lease("held by the parent") else 5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_child_shares_the_store_but_neither_connection_nor_locks(tmp_path: Path) -> None:
    """After a fork both go on with the store; what the parent had locked stays the parent's."""
    done = subprocess.run(
        warm("-c", FORKER, tmp_path / "store", Path(__file__).parent),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(reopened(tmp_path / "store").runs.all()) == 3


INTERRUPTED = """
import signal, sys, random, time
sys.path.insert(0, sys.argv[2])
import store_lab
from pandas_batch.store import Store
store = Store.open(sys.argv[1])
dice = random.Random(int(sys.argv[3]))
n_interrupted = 0
for number in range(int(sys.argv[4])):
    after_s = dice.uniform(1e-5, 0.02)
    try:
        signal.setitimer(signal.ITIMER_REAL, after_s)  # in here: it may go off before the next line
        with store.preparing():
            run = store_lab.add_run(store, f"r{number}")
        store.batches.transition(run.batch_keys[0], expect=["intent"], to="posting")
        store.runs.delete(run.id)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        n_interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    with store.preparing(timeout_s=0):
        runs = store.runs.all()
    for run in runs:
        store.runs.rows_of(run.id)
        assert store.files.spool_path(run.batch_keys[0]).stat().st_size == store.batches.get(run.batch_keys[0]).n_bytes
print(n_interrupted)
"""


def test_interrupted_at_any_time_the_store_goes_on_in_the_same_process(tmp_path: Path) -> None:
    """KeyboardInterrupt in any call leaves no lock held, no transaction open and no half run."""
    program = "import signal; signal.signal(signal.SIGALRM, signal.default_int_handler)" + INTERRUPTED
    done = subprocess.run(
        warm("-c", program, tmp_path / "store", Path(__file__).parent, "3", "60"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # Printed last. The exit status proves nothing: Python takes that of an unhandled interrupt also where one came
    # within `exec` and was handled further out.
    assert done.stdout, done.stderr
    assert int(done.stdout) > 5
    store = reopened(tmp_path / "store")
    for run in store.runs.all():
        assert store.files.spool_path(run.batch_keys[0]).exists()


def test_an_interrupt_stays_an_interrupt_where_its_clean_up_fails(tmp_path: Path) -> None:
    """What fails while an interrupt unwinds is no failure of the store; what fails after one was handled is."""

    def fail() -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            fail()

    with pytest.raises(KeyboardInterrupt), explained(tmp_path):
        interrupted()
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with pytest.raises(StoreError, match="Bad file descriptor"), explained(tmp_path):
            fail()


FILLER = """
import sys
sys.path.insert(0, sys.argv[2])
import resource, store_lab
from pandas_batch.errors import StoreError
from pandas_batch.store import Store
store = Store.open(sys.argv[1])
store_lab.add_run(store, "before")
limit = int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    store_lab.add_run(store, "large", n=40_000, text="y" * 60)
except StoreError as error:
    print(error)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
assert [run.id for run in store.runs.all()] == ["before"]
store_lab.add_run(store, "after")
assert len(store.runs.all()) == 2
"""


def fill(path: Path, limit: int) -> str:
    done = subprocess.run(
        warm("-c", FILLER, path, Path(__file__).parent, str(limit)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("limit", [200_000, 3_000_000])
def test_a_full_disk_is_said_before_anything_is_recorded(tmp_path: Path, limit: int) -> None:
    """Wherever the room ends, the run is not recorded, the message says so in three parts, and the store goes on."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if hard not in (-1, resource.RLIM_INFINITY):
        pytest.skip("the size of files is limited here already")
    said = fill(tmp_path / "store", limit)
    what, state, hint = said.strip().split("\n")
    assert "no room left" in what
    assert "was not recorded" in state or "is kept" in state
    assert "Free some space" in hint


@pytest.mark.parametrize("n_megabytes", [2, 5, 6, 7])
def test_a_full_file_system_is_survived(tmp_path: Path, n_megabytes: int) -> None:
    """The same where body, requests, rows or the commit itself find no room."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={n_megabytes}m", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        assert "no room left" in fill(place / "store", 0)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_commit_that_finds_no_room_changes_nothing(tmp_path: Path) -> None:
    """A transition that cannot be made durable raises, and the batch is in its old state."""
    store = Store.open(tmp_path / "store")
    key = store_lab.add_run(store, "r").batch_keys[0]
    n_pages = store._opened.database.read(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    store._opened.database._held.connections[0].execute(f"PRAGMA max_page_count = {n_pages}")
    with pytest.raises(StoreError) as raised:
        store.batches.update(key, error="x" * 1_000_000)
    assert "no room left" in raised.value.what
    assert store.batches.get(key).error is None
    assert store.batches.transition(key, expect=["intent"], to="posting")
