"""For tests that wait by the clock on the wall, those that a page shows among them: no local server is waited for."""

from __future__ import annotations

import pytest


def look_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for the first time after 0.02 s, and let the server ask for no patience."""
    for room in ("engine.polling", "client.parts"):
        monkeypatch.setattr(f"pandas_batch.{room}.FIRST_POLL_S", 0.02)
    monkeypatch.setattr("pandas_batch.simulator.service.RETRY_AFTER_S", 0)


@pytest.fixture(autouse=True)
def quick_looks_of_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this is loaded as a plugin, every test looks so."""
    look_quickly(monkeypatch)
