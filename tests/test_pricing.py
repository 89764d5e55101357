"""What answers cost: against genai-prices row by row, against Anthropic's published figures, and at every edge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal, getcontext, localcontext
from typing import Any

import pyarrow as pa
import pytest
from genai_prices import extract_usage
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import StartDateConstraint
from hypothesis import given, settings
from hypothesis import strategies as st

from pandas_batch.errors import InputError
from pandas_batch.results.answers import decode_results
from pandas_batch.results.pricing import (
    add_costs,
    cost_of_message,
    rates,
    unpriced_models,
    unpriced_warning,
)

PREFIX = b"pb1_abcdefghijkl_"
TODAY = datetime(2026, 11, 20, tzinfo=UTC)

MODELS = sorted(
    {model.id for provider in get_snapshot().providers if provider.id == "anthropic" for model in provider.models}
    | {"claude-haiku-4-5-20251001", "claude-sonnet-5@20260601", "claude-opus-5-5-20261001"}
)
OLDER_THAN_4_6 = ("claude-2", "claude-v1", "claude-3", "claude-haiku-4-5", "claude-opus-4-0", "claude-opus-4-1")
OLDER_THAN_4_6 += ("claude-opus-4-5", "claude-sonnet-4-0", "claude-sonnet-4-5")


def message(model: str = "claude-haiku-4-5", **changes: Any) -> dict[str, Any]:
    """Return an answer; keywords that a usage has go into its usage."""
    usage: dict[str, Any] = {"input_tokens": 1_000_000, "output_tokens": 1_000_000, "service_tier": "batch"}
    told: dict[str, Any] = {"stop_reason": "end_turn", "content": [{"type": "text", "text": "yes"}]}
    for name, value in changes.items():
        (told if name in told else usage)[name] = value
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": model, **told, "usage": usage}


def lines_of(results: list[Any]) -> list[bytes]:
    return [
        json.dumps({"custom_id": f"pb1_abcdefghijkl_{i:05d}_{'A' * 24}", "result": result}).encode() + b"\n"
        for i, result in enumerate(results)
    ]


def priced(results: list[Any], *, at: datetime = TODAY, **options: Any) -> pa.Table:
    """Send results the whole way, from their lines to a priced table."""
    table = decode_results(lines_of(results), prefix=PREFIX, n_requests=len(results)).table
    return add_costs(table, at=at, **options)


def succeeded(*messages: Mapping[str, Any]) -> list[Any]:
    return [{"type": "succeeded", "message": one} for one in messages]


def by_the_library(answer: dict[str, Any], at: datetime, *, batch: bool) -> Decimal:
    """Return the library's own figure for one answer, with the rules it does not know applied from outside."""
    with localcontext() as context:
        context.prec = 60
        extracted = extract_usage(answer, provider_id="anthropic")
        in_batch = {"processing": "batch"} if batch else None
        total = extracted.calc_price(genai_request_timestamp=at, price_context=in_batch).total_price
        searches = Decimal(extracted.usage.reported_value("web_searches")) * (
            (extracted.calc_price(genai_request_timestamp=at).model_price.web_searches_kcount or Decimal(0)) / 1000
        )
        tokens = total - searches
        has_variant = any(
            variant.when == {"processing": "batch"}
            and (not isinstance(variant.constraint, StartDateConstraint) or variant.constraint.active(at))
            for variant in extracted.model.price_variants or []
        )
        if batch and not has_variant:
            tokens /= 2
        if answer["usage"].get("inference_geo") == "us" and not answer["model"].startswith(OLDER_THAN_4_6):
            tokens *= Decimal("1.1")
        if answer["stop_reason"] == "refusal" and not answer["content"]:
            return Decimal(0)
        return tokens + searches


COUNTS = st.one_of(st.integers(0, 300_000), st.sampled_from([0, 1, 99_999, 100_000, 100_001, 200_000, 200_001, 10**9]))


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    in_5m, in_1h = draw(COUNTS), draw(COUNTS)
    usage: dict[str, Any] = {"input_tokens": draw(COUNTS), "output_tokens": draw(COUNTS)}
    if draw(st.booleans()):
        usage["cache_creation_input_tokens"] = in_5m + in_1h
        usage["cache_creation"] = {"ephemeral_5m_input_tokens": in_5m, "ephemeral_1h_input_tokens": in_1h}
    elif draw(st.booleans()):
        usage["cache_creation_input_tokens"] = in_5m
        usage["cache_creation"] = None
    if draw(st.booleans()):
        usage["cache_read_input_tokens"] = draw(COUNTS)
    if draw(st.booleans()):
        usage["server_tool_use"] = draw(
            st.one_of(st.none(), st.fixed_dictionaries({"web_search_requests": st.integers(0, 50)}))
        )
    if draw(st.booleans()):
        usage["output_tokens_details"] = {"thinking_tokens": usage["output_tokens"] // 2}
    usage["inference_geo"] = draw(st.sampled_from(["us", "global", "not_available", None]))
    return {
        "model": draw(st.sampled_from(MODELS)),
        "stop_reason": draw(st.sampled_from(["end_turn", "refusal", "max_tokens"])),
        "content": draw(st.sampled_from([[], [{"type": "text", "text": "yes"}]])),
        "usage": usage,
    }


DATES = st.one_of(
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 6, 1), timezones=st.just(UTC)),
    st.sampled_from([datetime(2026, 10, 13, 23, 59, 59, tzinfo=UTC), datetime(2026, 10, 14, tzinfo=UTC)]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(answers(), min_size=1, max_size=20), DATES)
def test_each_row_costs_what_the_library_says(told: list[dict[str, Any]], at: datetime) -> None:
    """A whole column is, to the last digit, what the library makes of each row, plus the rules of a batch."""
    told = [one for one in told if one["model"] != "claude-sonnet-5-5" or at.date() >= date(2026, 10, 7)]
    table = priced(succeeded(*told), at=at)
    for i, one in enumerate(told):
        exact = by_the_library(one, at, batch=True)
        assert cost_of_message(one, at=at) == exact
        assert table["cost_usd"][i].as_py() == float(exact)
        assert table["cost_usd_standard"][i].as_py() == float(by_the_library(one, at, batch=False))


@pytest.mark.parametrize(
    ("model", "price_in", "price_out", "write_5m", "write_1h", "read"),
    [
        ("claude-fable-5-2", "8", "40", "10", "16", "0.20"),
        ("claude-mythos-5-2", "8", "40", "10", "16", "0.20"),
        ("claude-fable-5-1", "10", "50", "12.5", "20", "0.25"),
        ("claude-fable-5", "10", "50", "12.5", "20", "1.00"),
        ("claude-opus-5-5", "4", "20", "5", "8", "0.20"),
        ("claude-opus-5", "5", "25", "6.25", "10", "0.50"),
        ("claude-opus-4-5", "5", "25", "6.25", "10", "0.50"),
        ("claude-sonnet-5-5", "2", "10", "2.5", "4", "0.10"),
        ("claude-sonnet-5", "2", "10", "2.5", "4", "0.20"),
        ("claude-sonnet-4-6", "3", "15", "3.75", "6", "0.30"),
        ("claude-haiku-4-5", "1", "5", "1.25", "2", "0.10"),
        ("claude-opus-4-1", "15", "75", "18.75", "30", "1.50"),
    ],
)
def test_published_prices(model: str, price_in: str, price_out: str, write_5m: str, write_1h: str, read: str) -> None:
    """The prices of a model are those Anthropic publishes, and every one of them is halved in a batch."""
    found = rates(model, at=TODAY)
    assert found is not None
    published = tuple(Decimal(price) for price in (price_in, read, write_5m, write_1h, price_out))
    assert found.standard[-1].prices == published
    assert found.batch[-1].prices == tuple(price / 2 for price in published)
    assert found.web_search_usd == Decimal("0.01")


@pytest.mark.parametrize(("n_prompt", "factor"), [(100_000, 1), (100_001, 5)])
@pytest.mark.parametrize("kind", ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"])
def test_a_long_prompt_makes_every_token_dearer(n_prompt: int, factor: int, kind: str) -> None:
    """Beyond 100,000 prompt tokens of any kind, haiku 5.5 bills its output at the higher price too."""
    usage = {"input_tokens": 0, "output_tokens": 2_000_000} | {kind: n_prompt}
    without = usage | {"output_tokens": 0}
    full, bare = (cost_of_message(message("claude-haiku-5-5", **told), at=TODAY) for told in (usage, without))
    assert full is not None
    assert bare is not None
    assert full - bare == Decimal("0.5") * factor
    table = priced(succeeded(message("claude-haiku-5-5", **usage)))
    assert table["cost_usd"][0].as_py() == float(full)


def test_no_batch_price_in_the_list_still_means_half() -> None:
    """A model or a date without a batch price in the list costs half, never the full price in silence."""
    told = succeeded(message("claude-opus-4-1"), message("claude-haiku-4-5"))
    for at in (TODAY, datetime(2026, 10, 13, tzinfo=UTC)):
        table = priced(told, at=at)
        assert table["cost_usd"].to_pylist() == [45.0, 3.0]
        assert table["cost_usd_standard"].to_pylist() == [90.0, 6.0]


@pytest.mark.parametrize(("day", "price"), [(datetime(2026, 10, 6, 23, 59), 0.1), (datetime(2026, 10, 7), 0.05)])
def test_the_price_is_that_of_the_day_of_the_batch(day: datetime, price: float) -> None:
    """A batch made before a price changed costs the old price; a time without a zone is UTC."""
    told = message("claude-sonnet-5-5", input_tokens=0, output_tokens=0, cache_read_input_tokens=1_000_000)
    assert priced(succeeded(told), at=day)["cost_usd"].to_pylist() == [price]
    assert priced(succeeded(told), at=day.replace(tzinfo=UTC))["cost_usd"].to_pylist() == [price]
    for hours in (-12, 14):
        elsewhere = day.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=hours)))
        assert priced(succeeded(told), at=elsewhere)["cost_usd"].to_pylist() == [price]


@pytest.mark.parametrize(("model", "factor"), [("claude-haiku-4-5", 1.0), ("claude-opus-4-6", 1.1), ("next-1", 1.1)])
def test_us_inference_costs_a_tenth_more_on_tokens_only(model: str, factor: float) -> None:
    """Data residency raises the price of tokens from 4.6 on, and never that of web searches."""
    told = message(model, inference_geo="us", server_tool_use={"web_search_requests": 100})
    plain = message(model, inference_geo="global")
    prices = {"next-1": (1.0, 1.0)}
    in_us, anywhere = priced(succeeded(told, plain), prices=prices)["cost_usd"].to_pylist()
    assert in_us == pytest.approx(anywhere * factor + 1.0, rel=1e-12)


def test_what_is_not_billed_costs_nothing() -> None:
    """Rows without an answer, and refusals before any output, cost 0; a refusal after some output is billed."""
    refused = {"stop_reason": "refusal", "input_tokens": 10, "output_tokens": 10}
    table = priced(
        [
            {"type": "errored", "error": {"type": "error", "error": {"type": "api_error", "message": "x"}}},
            {"type": "expired"},
            {"type": "canceled"},
            *succeeded(
                message(content=[], **refused),
                message("unknown", content=[], **refused),
                message(content=[{"type": "text", "text": ""}], **refused),
                message(content=[{"type": "text", "text": "I"}], **refused),
                message(content=[{"type": "thinking", "thinking": "Hm"}], **refused),
            ),
        ]
    )
    billed = 10 * 0.5e-6 + 10 * 2.5e-6
    assert table["cost_usd"].to_pylist() == [0.0] * 6 + [billed, billed]
    assert table["cost_usd_standard"].to_pylist() == [0.0] * 6 + [2 * billed, 2 * billed]


def test_what_is_not_known_is_null_and_never_zero() -> None:
    """An unknown model, a usage that is not told or contradicts itself, and a lost row have no price."""
    told = [
        message("gpt-2"),
        message("claude-mythos-5-1"),
        message(input_tokens=None),
        message(output_tokens=-1),
        message(cache_creation_input_tokens=1, cache_creation={"ephemeral_1h_input_tokens": 2}),
    ]
    lines = lines_of([*succeeded(*told), {"type": "odd"}, *succeeded({"content": [], "usage": {}})])
    table = add_costs(decode_results(lines, prefix=PREFIX, n_requests=9).table, at=TODAY)
    assert table["cost_usd"].to_pylist() == [None] * 9
    assert table["cost_usd_standard"].to_pylist() == [None] * 9
    assert [cost_of_message(one, at=TODAY) for one in told] == [None] * 5
    assert unpriced_models(table) == ["claude-mythos-5-1", "gpt-2"]


def test_the_warning_names_models_and_the_way_out() -> None:
    """Whoever reads the warning knows which models, the argument to give, and how to have a newer list."""
    text = unpriced_warning(["claude-a", "claude-b"])
    assert "claude-a, claude-b" in text
    assert 'prices={"claude-a": (input, output)}' in text
    assert "pip install -U genai-prices" in text


def test_own_prices_go_before_published_ones() -> None:
    """Own prices hold for a model's dated name too, with Anthropic's multiples for its cache."""
    prices = {"claude-next-1": (4.0, 20.0), "claude-haiku-4-5-20251001": (100.0, 0.0)}
    usage = {
        "cache_read_input_tokens": 1_000_000,
        "cache_creation_input_tokens": 2_000_000,
        "cache_creation": {"ephemeral_1h_input_tokens": 1_000_000},
    }
    table = priced(
        succeeded(message("claude-next-1-20270101", **usage), message("claude-haiku-4-5-20251001"), message()),
        prices=prices,
    )
    assert table["cost_usd_standard"].to_pylist() == [4.0 + 20.0 + 0.4 + 5.0 + 8.0, 100.0, 6.0]
    assert table["cost_usd"].to_pylist() == [18.7, 50.0, 3.0]
    assert unpriced_models(table) == []


@pytest.mark.parametrize("pair", [1.0, (1.0,), ("a", "b"), (-1.0, 1.0), (float("nan"), 1.0), (float("inf"), 1), None])
def test_own_prices_that_are_none_are_refused(pair: Any) -> None:
    """Anything but two prices is the caller's mistake, and is told by the model's name."""
    with pytest.raises(InputError) as caught:
        rates("claude-next-1", prices={"claude-next-1": pair})
    assert "claude-next-1" in str(caught.value)


def test_outside_a_batch_nothing_is_halved() -> None:
    """Without batching, both columns hold the standard price."""
    table = priced(succeeded(message()), batch=False)
    assert table["cost_usd"].to_pylist() == table["cost_usd_standard"].to_pylist() == [6.0]


def test_pricing_again_replaces_the_prices() -> None:
    """A priced table can be priced again, as when a missing price is given later."""
    table = priced(succeeded(message("claude-next-1")))
    again = add_costs(table, at=TODAY, prices={"claude-next-1": (1.0, 1.0)})
    assert again.column_names == table.column_names
    assert again["cost_usd"].to_pylist() == [1.0]


@pytest.mark.parametrize("n", [2**53, 2**62, 2**63 - 1])
def test_absurd_counts_are_still_exact(n: int) -> None:
    """Sums beyond 64 bits neither wrap around nor raise."""
    told = message(input_tokens=n, output_tokens=n, inference_geo="us")
    expected = cost_of_message(told, at=TODAY)
    assert expected == n * (Decimal("0.5") + Decimal("2.5")) / 1_000_000
    assert priced(succeeded(told))["cost_usd"].to_pylist() == [float(expected)]


def test_large_costs_are_rounded_once() -> None:
    """A sum that no float holds is the nearest float to the exact cost all the same, and not near it twice."""
    told = [message(input_tokens=10**15 + 7 * i, output_tokens=i) for i in range(50)]
    expected = [float(cost_of_message(one, at=TODAY) or 0) for one in told]
    assert priced(succeeded(*told))["cost_usd"].to_pylist() == expected


def test_where_it_is_not_said_that_the_usage_is_the_whole_bill_there_is_no_price() -> None:
    """A table that does not know it of a row gives that row no price."""
    table = priced(succeeded(message(), message())).drop_columns(["cost_usd", "cost_usd_standard"])
    at = table.column_names.index("has_whole_bill")
    table = table.set_column(at, "has_whole_bill", pa.array([True, None]))
    assert add_costs(table, at=TODAY)["cost_usd"].to_pylist() == [3.0, None]


def test_a_callers_decimal_context_does_not_matter() -> None:
    """Prices are exact where the caller's own Decimal context is coarse."""
    told = message(input_tokens=123_457, output_tokens=7)
    with localcontext() as context:
        context.prec = 3
        got = cost_of_message(told, at=TODAY + timedelta(seconds=1))
        assert getcontext().prec == 3
    assert got == Decimal("0.0617460")


def test_many_unknown_names_are_many_null_rows() -> None:
    """A server that names another model in every row makes rows without a price, in bearable time."""
    told = [message(f"{name}-{i}") for i in range(300) for name in ("made-up", "claude-haiku-4-5-x")]
    costs = priced(succeeded(*told))["cost_usd"].to_pylist()
    assert costs == [None, 3.0] * 300
