"""Tokens, the prompt cache and the bill of the simulator."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulator_lab import HAIKU, params, result_of, settled

from pandas_batch import simulator
from pandas_batch.simulator.models import MODELS, catalogue, find_model
from pandas_batch.simulator.tokens import PromptCache, count_input_tokens


@given(prompt=st.text(max_size=200), name=st.sampled_from(sorted(MODELS)))
def test_more_text_never_has_fewer_tokens(prompt, name):
    """Tokens grow with the text, and newer models count more of them."""
    model, old = MODELS[name], MODELS[HAIKU]
    n_tokens = count_input_tokens(params(prompt), model)
    assert 7 <= n_tokens <= count_input_tokens(params(prompt + "x"), model)
    assert count_input_tokens(params(prompt), old) <= n_tokens


def test_images_and_documents_count():
    """An image is counted by its size in pixels where that can be read, a document by its length."""
    import base64
    import struct

    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 750, 500) + b"\0" * 20).decode()
    model = MODELS[HAIKU]

    def tokens(block: dict[str, Any]) -> int:
        return count_input_tokens(params([block]), model) - 7

    assert tokens({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}}) == 500
    assert tokens({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}) == 1500
    assert tokens({"type": "document", "source": {"type": "text", "data": "x" * 400}}) == 100
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "x" * 200_000}}
    assert tokens(pdf) == 3200


def cached(n_words: int, prompt: str, ttl: str = "1h") -> dict[str, Any]:
    block = {"type": "text", "text": "word " * n_words, "cache_control": {"type": "ephemeral", "ttl": ttl}}
    return params(prompt, system=[block])


def usages(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [result["message"]["usage"] for result in results.values()]


@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_a_marked_prefix_is_written_once_and_read_afterwards(ttl):
    """One row writes the cache, every later one reads it, and no input token is lost or counted twice."""
    rows = {f"r{number}": cached(4000, f"prompt {number}", ttl) for number in range(5)}
    results, _ = settled(rows)
    written = [usage["cache_creation_input_tokens"] for usage in usages(results)]
    read = [usage["cache_read_input_tokens"] for usage in usages(results)]
    assert sorted(written) == [0, 0, 0, 0, 5004]
    assert sorted(read) == [0, 5004, 5004, 5004, 5004]
    for key, usage in zip(results, usages(results), strict=True):
        parts = usage["input_tokens"] + usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"]
        assert parts == count_input_tokens(rows[key], MODELS[HAIKU])
        split = usage["cache_creation"]
        assert split[f"ephemeral_{ttl}_input_tokens"] == sum(split.values()) == usage["cache_creation_input_tokens"]


def test_the_cache_forgets_and_has_a_least_length():
    """A prefix that is too short is not cached; one that nobody used for its time to live is written again."""
    model, cache = MODELS[HAIKU], PromptCache()
    assert cache.use(cached(10, "x"), model, 0.0).written_1h == 0
    first, soon, late = (cache.use(cached(4000, "x", "5m"), model, at_s) for at_s in (0.0, 299.0, 299.0 + 301.0))
    assert (first.written_5m > 0, soon.read > 0, late.written_5m > 0) == (True, True, True)
    other = cache.use({**cached(4000, "x", "5m"), "model": "claude-opus-5"}, MODELS["claude-opus-5"], 600.0)
    assert other.read == 0


def test_rows_of_a_slow_batch_may_miss_the_cache():
    """Rows are processed one after the other: two hours of five rows outlast five minutes, not one hour."""
    for ttl, n_written in (("5m", 5), ("1h", 1)):
        results, _ = settled({f"r{number}": cached(4000, "x", ttl) for number in range(5)}, seconds=7200.0)
        assert sum(usage["cache_creation_input_tokens"] > 0 for usage in usages(results)) == n_written


@pytest.mark.parametrize("model", sorted(model.id for model in catalogue() if model.lifecycle != "retired"))
def test_the_bill_is_half_the_list_price(model):
    """A bill is half of what the published prices give for the usage; nothing that failed is on it."""
    results, batch = settled(
        {"a": params("x" * 400, model=model, max_tokens=4096), "b": params(model=model, max_tokens=0)}
    )
    (bill,) = simulator.rendering.bills_of(batch)
    price, usage = find_model(model).price, results["a"]["message"]["usage"]
    whole = (price.input * usage["input_tokens"] + price.output * usage["output_tokens"]) / Decimal(1_000_000)
    assert (bill.custom_id, bill.cost_usd) == ("a", whole / 2)


def test_extras_of_the_bill():
    """US inference costs a tenth more, a web search a cent, a long prompt of Haiku 5.5 its higher tier."""
    usage = {"input_tokens": 100_000, "output_tokens": 0}
    opus, haiku = MODELS["claude-opus-5"], MODELS["claude-haiku-5-5"]
    assert opus.cost_usd({**usage, "inference_geo": "us"}) == opus.cost_usd(usage) * Decimal("1.1")
    searched = {**usage, "server_tool_use": {"web_search_requests": 3}}
    assert opus.cost_usd(searched) - opus.cost_usd(usage) == Decimal("0.03")
    assert haiku.cost_usd({**usage, "input_tokens": 100_001}) > haiku.cost_usd(usage) * 4
    found = result_of(params(tools=[{"type": "web_search_20250305", "name": "web_search"}], inference_geo="us"))[
        "message"
    ]
    assert found["usage"]["server_tool_use"] == {"web_search_requests": 1, "web_fetch_requests": 0}
    assert found["usage"]["inference_geo"] == "not_available"
    assert result_of(params(model="claude-opus-5", inference_geo="us"))["message"]["usage"]["inference_geo"] == "us"
