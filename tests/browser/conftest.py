"""One server for all browser tests, a page for each file of them; a fresh notebook and kernel for each test."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .driver import LabPage, LabServer, find_browser

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def _what_is_missing() -> str:
    for module in ("playwright", "jupyterlab", "ipykernel"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    return "" if find_browser() else "no Chromium was found (set CHROME to one)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = _what_is_missing()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    with LabServer(tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Not for the session: as long as it is open its thread counts as one with a running loop, and a worker has other
    # tests to do that run loops of their own.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_browser(), args=_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def page(browser: Any) -> Iterator[Any]:
    # JupyterLab takes four seconds to load: the tests of a file leave it there for each other.
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    yield page
    page.close()


@pytest.fixture
def lab(lab_server: LabServer, page: Any) -> Iterator[LabPage]:
    """A page of 1200 by 1400; its notebooks are closed and their kernels end with the test."""
    lab = LabPage(lab_server, page)
    yield lab
    lab.clear()
