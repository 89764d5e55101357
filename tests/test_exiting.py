"""No exit of a script ends in a signal, forgets what it was to send, or leaves anybody waiting; real processes."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from warm_python import command as warm

from pandas_batch import exiting, simulator
from pandas_batch.errors import RunNotFoundError

SIGTERM = -signal.SIGTERM
LIMIT_S = 60

WAYS = {
    # way: exit code, what its stdout says
    "end": (0, ""),
    "leave": (3, ""),
    "fail": (1, ""),
    "be_terminated": (SIGTERM, ""),
    "leave_at_once": (5, ""),
    "ask_at_exit": (0, "answered 6\n"),
    "ask_in_a_thread": (0, "answered 6\n"),
    "start_in_a_daemon": (0, ""),
    "ask_in_an_executor": (0, "answered 6\n"),
    "ask_in_a_fork": (0, "answered 6\nchild 0\n"),
    "submit_in_a_fork": (0, "answered 6\nchild 0\n"),
    "start_in_a_fork": (0, "child 0\n"),
    "start_in_a_process": (0, "child 0\n"),
    "ask_in_a_pool": (0, "answered 6\n"),
    "end_while_compacting": (0, "answered 6\n"),
    "end_after_answers": (0, "answered 6\n"),
    "end_while_polling": (0, ""),
}
SAYS_HOW_TO_COME_BACK = {
    "end",
    "leave",
    "fail",
    "start_in_a_fork",
    "start_in_a_process",
    "start_in_a_daemon",
    "end_while_polling",
}


class Ended(NamedTuple):
    """What a script left behind."""

    code: int
    out: str
    err: str
    took_s: float


class Scripts:
    """Runs scripts against one server, each in a store of its own."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.n = 0
        self._process = process

    def run(self, way: str, api: simulator.Simulator, **changes: Any) -> tuple[Ended, dict[str, Any]]:
        self.n += 1
        out, err = self.folder / f"out{self.n}", self.folder / f"err{self.n}"
        job = {"way": way, "name": f"s{self.n}", "base_url": api.base_url, "store": str(self.folder / f"store{self.n}")}
        job |= {"n_rows": 6, "n_bytes_each": 10, "after_s": 0.0, "out": str(out), "err": str(err)} | changes
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        return Ended(told["code"], out.read_text(), err.read_text(), told["took_s"]), job


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripts]:
    program = warm(Path(__file__).parent / "exit_scripts.py")
    folder = tmp_path_factory.mktemp("scripts")
    # To read the authorities of this machine takes each script longer than all it does.
    own = os.environ | {"SSL_CERT_DIR": str(folder), "WARM_PYTHON_ENDS_WHOLE": "1"}
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own) as process:
        yield Scripts(folder, process)


@pytest.fixture(scope="module")
def server() -> Iterator[simulator.Simulator]:
    with simulator.serve(answer="ok", seconds_per_batch=0.2) as api:
        yield api


def came_well(way: str, scripts: Scripts, server: simulator.Simulator, *, after_s: float = 0.0) -> None:
    """Run a script, and the same line once more in another process: all is answered, and paid once."""
    code, says = WAYS[way]
    n_before = len(server.batches)
    ended, job = scripts.run(way, server, after_s=after_s)
    assert (ended.code, ended.out) == (code, says), ended.err
    assert "Fatal" not in ended.err
    assert ("To come back" in ended.err) == (way in SAYS_HOW_TO_COME_BACK), ended.err
    again, _ = scripts.run("end_after_answers", server, store=job["store"], name=job["name"], n_rows=job["n_rows"])
    assert (again.code, again.out) == (0, "answered 6\n"), again.err
    assert len(server.batches) == n_before + 1
    assert ended.took_s < LIMIT_S


@pytest.mark.parametrize("way", WAYS)
def test_a_script_ends_as_it_likes(way: str, scripts: Scripts, server: simulator.Simulator) -> None:
    """Whatever way a script ends: its exit code is its own, what it started is sent once, and whoever asked is told."""
    came_well(way, scripts, server)


@pytest.mark.full
@pytest.mark.parametrize("way", WAYS)
def test_a_script_ends_as_it_likes_200_times(way: str, scripts: Scripts, server: simulator.Simulator) -> None:
    """The same two hundred times, each a little later than the other."""
    draw = random.Random(way)
    for _ in range(200):
        came_well(way, scripts, server, after_s=draw.choice([0.0, draw.uniform(0.0, 0.05), draw.uniform(0.0, 0.4)]))


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.03])
def test_the_end_comes_in_the_middle_of_compacting(
    after_s: float, scripts: Scripts, server: simulator.Simulator
) -> None:
    """A process that ends while its answers are being compressed ends well, and they can be read as before."""
    ended, job = scripts.run("end_while_compacting", server, after_s=after_s, n_rows=3000, n_bytes_each=2000)
    assert (ended.code, ended.out) == (0, "answered 3000\n"), ended.err
    again, _ = scripts.run("end_after_answers", server, **{key: job[key] for key in ("store", "name", "n_rows")})
    assert again.code == 0


def test_a_script_whose_posts_take_long_says_what_was_not_sent(scripts: Scripts) -> None:
    """Where a create is slow at the end of a script, it is waited for, not for ever, and said what is not known."""
    with simulator.serve(answer="ok", seconds_per_batch=0) as api:
        api.faults.add(simulator.Delay("create", seconds=5.0))
        ended, _ = scripts.run("end_while_unsent", api)
    assert ended.code == 0
    assert 0.9 < ended.took_s < 15
    assert ended.err.count("\n") == 1
    assert "not known whether the server has it" in ended.err


def test_a_script_whose_create_is_refused_says_so(scripts: Scripts) -> None:
    """Where the API refuses the create of a script that has ended by then, a line says so: nothing was sent."""
    with simulator.serve(answer="ok") as api:
        api.faults.add(simulator.ErrorAnswer("create", 403, times=None))
        ended, _ = scripts.run("end", api)
        assert not api.batches
    assert ended.code == 0
    assert ended.err.count("\n") == 1
    assert "Nothing was sent" in ended.err
    assert "403" in ended.err or "Permission" in ended.err


def test_a_script_without_a_server_says_that_nothing_was_sent(scripts: Scripts) -> None:
    """Where no server is there, the script ends after its patience, and says that nothing was sent, and why."""
    with simulator.serve(answer="ok") as api:
        pass
    ended, _ = scripts.run("end_while_unsent", api)
    assert ended.code == 0
    assert "Nothing was sent" in ended.err
    assert "cannot be reached" in ended.err


# ---------------------------------------------------------------- the parts


class Work:
    """Something at work that a test ends."""

    def __init__(self, n_ticks: int = 0, *, is_waited_for: bool = False) -> None:
        self.n_ticks, self.is_waited_for, self.is_told, self.n_stops = n_ticks, is_waited_for, False, 0

    def may_still_send(self) -> bool:
        self.n_ticks -= 1
        return self.n_ticks >= 0

    def last_words(self) -> str:
        return "it goes on"

    def stop(self) -> None:
        self.n_stops += 1

    def join(self, timeout_s: float | None = None) -> bool:
        return True


@pytest.fixture
def nothing_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exiting, "_at_work", {})
    monkeypatch.setattr(exiting, "_until_s", None)
    monkeypatch.setattr(exiting, "_is_ending", False)


@pytest.mark.usefixtures("nothing_at_work")
def test_what_somebody_waits_for_is_left_to_the_last_stage(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that a thread of the user's waits for is neither told of nor stopped before that thread has ended."""
    waited, left = Work(is_waited_for=True), Work(3)
    exiting.remember(waited)
    exiting.remember(left)
    exiting._before_threads_end()
    assert left.n_ticks == -1
    assert (waited.is_told, left.is_told) == (False, False)  # a function of the user's that is called later may ask
    exiting._stop_all()
    assert (waited.is_told, left.is_told) == (True, True)
    assert (waited.n_stops, left.n_stops) == (1, 1)
    assert capsys.readouterr().err == "it goes on\n" * 2


@pytest.mark.usefixtures("nothing_at_work")
def test_the_end_waits_no_longer_than_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stages together wait no longer than the patience, even for what will never be sent."""
    monkeypatch.setattr(exiting, "PATIENCE_S", 0.1)
    exiting.remember(Work(1_000_000))
    began_s = time.monotonic()
    exiting._before_threads_end()
    exiting._stop_all()
    assert time.monotonic() - began_s < 2
    with pytest.raises(exiting.ProcessEnding):
        exiting.leave_if_ending()


def test_a_closed_stderr_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody reads stderr any more, or there is none, nothing is raised."""
    monkeypatch.setattr(sys, "stderr", None)
    exiting.say("a line")


def test_a_run_is_submitted_when_every_batch_has_its_id(api: simulator.Simulator) -> None:
    """`wait_submitted` comes back while the batches are still under way, and raises what refused them."""
    options = {"client": api.client(max_retries=0), "progress": "off", "preflight": False}
    run = pd.DataFrame({"q": ["one"]}).claude_batch.start("q", **options).wait_submitted(30)
    assert [job.status for job in run.batches] == ["in_progress"]
    api.faults.add(simulator.ErrorAnswer("create", 403, times=None))
    refused = pd.DataFrame({"q": ["two"]}).claude_batch.start("q", **options)
    with pytest.raises(Exception, match="403"):
        refused.wait_submitted(30)


# ---------------------------------------------------------------- to another process


def test_a_run_goes_to_another_process(server: simulator.Simulator, tmp_path: Path) -> None:
    """A pickled run is the same run where its store is: bound to its frame, without the client's key."""
    df = pd.DataFrame({"q": ["one", "two"]}, index=["a", "b"])
    run = df.claude_batch.start(
        "q", client=server.client(api_key="sk-ant-secret"), progress="off", store=tmp_path / "s"
    )
    out = run.result()
    sent = pickle.dumps(run)
    assert b"sk-ant-secret" not in sent
    pd.testing.assert_frame_equal(pickle.loads(sent).result(), out)
    assert copy.deepcopy([run])[0] is run
    shutil.rmtree(tmp_path / "s")
    with pytest.raises(RunNotFoundError, match=run.id):
        pickle.loads(sent)
