"""For the tests that a page shows: a first look after 0.02 s, as the tests of this package have it."""

from __future__ import annotations

import pytest

from pandas_batch.client import parts
from pandas_batch.engine import collecting, engine
from pandas_batch.simulator import service


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing that a server on this machine does."""
    for room in (engine, collecting, parts):
        monkeypatch.setattr(room, "FIRST_POLL_S", 0.02)
    monkeypatch.setattr(service, "RETRY_AFTER_S", 0)
