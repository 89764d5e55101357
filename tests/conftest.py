"""What every test stands on: a private store, no credentials, and a clock that nobody waits for."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from page_plugin import look_quickly
from played_time import PlayedTime

from pandas_batch import exiting, simulator

if TYPE_CHECKING:
    import anthropic

# The laws of the machine are asserts that stand outside a test: a broken one is to show its values all the same.
pytest.register_assert_rewrite("machine_lab")

# A law holds on a busy machine too: how long an example takes says nothing about it.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A shell lets what it starts in the background ignore Ctrl-C, and all children inherit that: tests that interrupt
# themselves, or a process of theirs, would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class FakeClock(PlayedTime):
    """A clock that jumps over every wait; `advance` moves it by hand."""

    def __init__(self, start: datetime = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)) -> None:
        super().__init__()
        self._now = start
        self._monotonic_s = 0.0
        self._lock = threading.Lock()
        self.waited_s: list[float] = []
        self._runs = threading.Event()
        self._runs.set()

    def now(self) -> datetime:
        return self._now

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._monotonic_s += seconds

    def time_s(self) -> float:
        """Return the wall time as Unix seconds, the form the simulator's clock takes."""
        return self._now.timestamp()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let time stand still meanwhile: whoever waits on this clock goes on waiting."""
        self._runs.clear()
        try:
            yield
        finally:
            self._runs.set()

    def wait(self, seconds: float, wake: threading.Event | None = None) -> bool:
        while not self._runs.is_set():
            if wake is None:
                self._runs.wait(0.01)
            elif wake.wait(0.001):
                return True
        if self.is_woken(wake, 0.00001):
            return True
        self.waited_s.append(seconds)
        self.advance(seconds)
        return False

    async def async_wait(self, seconds: float) -> None:
        self.waited_s.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def api(clock: FakeClock) -> Iterator[simulator.Simulator]:
    """A fresh server on the test's clock; it gives each prompt back as its answer."""
    with simulator.serve(clock=clock.time_s) as running:
        yield running


@pytest.fixture
def client(api: simulator.Simulator) -> anthropic.Anthropic:
    """The official SDK, talking to that server."""
    return api.client()


@pytest.fixture
def once(api: simulator.Simulator) -> anthropic.Anthropic:
    """The SDK without its own retries, so that one call is one request."""
    return api.client(max_retries=0, timeout=5.0)


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the clock on the wall is waited for: a first look after 0.02 s, and a server that asks for no patience."""
    look_quickly(monkeypatch)


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every pause that is drawn at random be the one in the middle."""
    monkeypatch.setattr(secrets, "randbelow", lambda n: n // 2)


@pytest.fixture(autouse=True)
def private_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test its own store, and no way to reach anybody's real account."""
    home = tmp_path_factory.mktemp("home")
    for name in (
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_PROFILE",
        "ANTHROPIC_CUSTOM_HEADERS",
        "PANDAS_BATCH_MODEL",
        "PANDAS_BATCH_MAX_COST_USD",
    ):
        monkeypatch.delenv(name, raising=False)
    # No authority is trusted, so that nothing outside can be spoken to; and reading those of this machine, anew for
    # each client, would take a tenth of all the time.
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(home))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PANDAS_BATCH_HOME", str(home / "store"))
    return home


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """End what a test has left at work, while its server is still there.

    On a clock that jumps, an engine whose batch never ends would take a processor from all tests after it.
    """
    left = list(exiting._at_work.values())
    exiting._is_ending = bool(left)
    for work in left:
        work.stop()
    for work in left:
        work.join(20)
        exiting.forget(work)
    exiting._is_ending = False


# ---------------------------------------------------------------- nothing is left out unnoticed

REQUIRE_ALL = os.environ.get("PANDAS_BATCH_REQUIRE_ALL", "") not in ("", "0")
"""Whether a test that is skipped counts as failed: so on the build server, where everything is installed."""

MAY_BE_SKIPPED = re.compile(
    r"(is|are) not on this machine"  # recordings of the real API, which are not part of this project
    r"|needs the right to mount"
    r"|the size of files is limited here already"
)
"""Reasons that no installation can do away with."""


def _fail_where_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not REQUIRE_ALL or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not MAY_BE_SKIPPED.search(reason):
        report.outcome = "failed"
        report.longrepr = f"PANDAS_BATCH_REQUIRE_ALL is set, and this was left out. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_where_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_where_skipped(report)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker one test at a time; all browser tests to one, as two browsers would make each other late."""
    from xdist.scheduler import LoadScopeScheduling

    class OneBrowser(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/browser" if nodeid.startswith("tests/browser/") else nodeid

    return OneBrowser(config, log)
