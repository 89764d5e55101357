"""A newer price list is taken when it is asked for, as a whole or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pandas as pd
import pytest
from genai_prices import data_snapshot

import pandas_batch
from pandas_batch.results.rates import rates

NEW = "claude-next-1"


def price_list(model: str = NEW, provider: str = "anthropic") -> list[dict[str, Any]]:
    """A list in the form that genai-prices publishes, with one model."""
    prices = {"input_mtok": "2", "output_mtok": "10"}
    one = {"id": model, "match": {"starts_with": model}, "prices": prices}
    return [{"id": provider, "name": "Anthropic", "api_pattern": "https://api.anthropic.com", "models": [one]}]


@pytest.fixture(autouse=True)
def prices_of_the_package() -> Iterator[None]:
    """What one test has downloaded holds for no other."""
    yield
    data_snapshot.set_custom_snapshot(None)


@pytest.fixture
def served() -> Iterator[Callable[[int, bytes], str]]:
    """A server on this machine that gives one answer, and its address."""
    given: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(given["status"])
            self.send_header("content-length", str(len(given["body"])))
            self.end_headers()
            self.wfile.write(given["body"])

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def serve(status: int, body: bytes) -> str:
            given.update(status=status, body=body)
            return f"http://127.0.0.1:{server.server_port}/data.json"

        yield serve
        server.shutdown()
        thread.join()


def test_a_new_price_holds_from_then_on(served: Callable[[int, bytes], str]) -> None:
    """A model without a price has one after the update, in estimates as in costs; the discount is ours."""
    assert rates(NEW) is None
    assert pandas_batch.update_prices(served(200, json.dumps(price_list()).encode())) == 1
    found = rates(NEW)
    assert found is not None
    assert (float(found.standard[0].output), float(found.batch[0].output)) == (10.0, 5.0)


def test_what_a_call_costs_is_counted_by_the_new_list(
    served: Callable[[int, bytes], str], client: Any, api: Any
) -> None:
    """An estimate that had no bound has one after the update."""
    frame = pd.DataFrame({"review": ["Lovely."]})
    options = {"model": NEW, "client": client, "preflight": False}
    made = frame.claude_batch.estimate("review", **options)
    assert made.cost_usd_max is None
    assert "pip install -U genai-prices" in str(made)
    with pytest.raises(pandas_batch.BudgetError, match="pip install -U genai-prices"):
        frame.claude_batch.submit("review", max_cost_usd=1, **options)
    pandas_batch.update_prices(served(200, json.dumps(price_list()).encode()))
    assert frame.claude_batch.estimate("review", **options).cost_usd_max > 0


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"nothing here"),
        (500, b""),
        (302, b""),
        (200, b"<html>a portal</html>"),
        (200, b"\xff\xfe"),
        (200, b"{}"),
        (200, b"[1]"),
        (200, b"[]"),
        (200, b'[{"id": "anthropic"}]'),
        (200, json.dumps(price_list(provider="other")).encode()),
    ],
)
def test_a_bad_list_changes_nothing(served: Callable[[int, bytes], str], status: int, body: bytes) -> None:
    """Whatever else comes is told in three parts, and the prices known before still hold."""
    before = rates("claude-haiku-4-5")
    with pytest.raises(pandas_batch.PandasBatchError) as told:
        pandas_batch.update_prices(served(status, body))
    assert len(str(told.value).splitlines()) == 3
    assert "still hold" in str(told.value)
    assert rates("claude-haiku-4-5") == before


def test_a_server_that_is_not_there_changes_nothing() -> None:
    """A list that cannot be reached is the same error, and comes within the timeout."""
    with pytest.raises(pandas_batch.PandasBatchError, match="cannot be had"):
        pandas_batch.update_prices("http://127.0.0.1:9/data.json")


@pytest.mark.parametrize("url", ["http://prices.example/data.json", "file:///etc/passwd", "", "prices", "ftp://a/b"])
def test_prices_come_over_https_alone(url: str) -> None:
    """An address that anybody on the way could answer for is refused before it is asked."""
    with pytest.raises(pandas_batch.InputError, match="https"):
        pandas_batch.update_prices(url)
