"""Usage to US dollars: per answer, for whole columns, and as an upper bound before anything is sent.

Prices come from `pandas_batch.results.rates`. The rules of a bill
(https://platform.claude.com/docs/en/about-claude/pricing,
https://platform.claude.com/docs/en/build-with-claude/batch-processing#pricing):

* a batch costs half of every token price, also where the list has no batch price for a model or a date;
* ``inference_geo: "us"`` costs a tenth more on all tokens, for models from 4.6 on;
* web searches cost the same in a batch;
* a refusal before any output costs nothing.

All sums are made of integers, so that a column of floats holds the same figures as exact arithmetic would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pandas_batch.content_blocks import TEXT_BLOCKS
from pandas_batch.errors import clip
from pandas_batch.stop_reasons import FREE_IF_EMPTY

from .rates import EXACT, PER_MTOK, US_FACTOR, Prices, Rates, TokenRates, rates
from .result_lines import has_all_tokens, has_whole_bill, usage_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = [
    "NEWER_PRICES",
    "Prices",
    "Rates",
    "TokenRates",
    "add_costs",
    "cost_of_message",
    "rates",
    "unpriced_models",
    "unpriced_warning",
]


@dataclass(frozen=True)
class Totals:
    """Sums over the answers of a run, in US dollars; None where any part is unknown."""

    cost_usd: float | None
    cost_usd_standard: float | None
    paid_usd: float | None
    saved_by_reuse_usd: float | None


def add_costs(table: pa.Table, *, at: datetime | None, prices: Prices | None = None, batch: bool = True) -> pa.Table:
    """
    Fill ``cost_usd`` and ``cost_usd_standard`` of a table of answers.

    Parameters
    ----------
    table
        Answers, as `pandas_batch.results.answers` makes them.
    at
        When the batch was created: the date of the prices. None is now.
    prices
        Prices that go before the published ones.
    batch
        Whether ``cost_usd`` has the batch discount.

    Returns
    -------
    pyarrow.Table
        The same table with both columns, in USD: 0 where nothing is billed (errored, expired, canceled, refused
        before any output), null where the price or the usage is not known.
    """
    import pyarrow as pa

    needed = ["status", "has_content", "stop_reason", "model", "inference_geo", "service_tier", *_COUNTS]
    if "has_whole_bill" in table.column_names:
        needed.append("has_whole_bill")
    known: dict[str, Rates | None] = {}
    costs: list[pa.Array] = []
    standards: list[pa.Array] = []
    for rows in table.select(needed).to_batches():
        cost, standard = _costs_of_batch(rows, at, prices, batch, known)
        costs.append(cost)
        standards.append(standard)
    for name, chunks in (("cost_usd", costs), ("cost_usd_standard", standards)):
        column = pa.chunked_array(chunks, pa.float64())
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    return table


FULL_PRICE_TIERS = ("standard", "priority")
"""What ``service_tier`` says of an answer that has no batch discount."""

_COUNTS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "web_search_requests",
)


def _costs_of_batch(
    rows: pa.RecordBatch, at: datetime | None, prices: Prices | None, batch: bool, known: dict[str, Rates | None]
) -> tuple[pa.Array, pa.Array]:
    import numpy as np
    import pyarrow as pa

    n = rows.num_rows
    columns = {name: rows.column(i) for i, name in enumerate(rows.schema.names)}
    counts = {name: columns[name].fill_null(0).to_numpy() for name in _COUNTS}
    words = {
        name: _codes(columns[name]) for name in ("status", "stop_reason", "model", "inference_geo", "service_tier")
    }
    unbilled = _is_any(words["status"], ("errored", "expired", "canceled"))
    succeeded = _is_any(words["status"], ("succeeded",))
    refused = succeeded & _is_any(words["stop_reason"], FREE_IF_EMPTY)
    unbilled |= refused & ~columns["has_content"].fill_null(True).to_numpy(zero_copy_only=False)
    told = succeeded & _is_valid(columns["input_tokens"]) & _is_valid(columns["output_tokens"])
    told &= counts["cache_write_1h_tokens"] <= counts["cache_write_tokens"]
    if "has_whole_bill" in columns:
        told &= columns["has_whole_bill"].fill_null(False).to_numpy(zero_copy_only=False)
    in_us = _is_any(words["inference_geo"], ("us",))
    # What the server answered in another tier than that of batches has no discount.
    has_discount = ~_is_any(words["service_tier"], FULL_PRICE_TIERS) if batch else np.zeros(n, np.bool_)

    values = [np.zeros(n), np.zeros(n)]
    is_priced = unbilled.copy()
    codes, models = words["model"]
    # Names that cost the same are priced together, so that many names do not mean many passes over the rows.
    groups: dict[Rates, list[int]] = {}
    for code, model in enumerate(models):
        if model not in known:
            known[model] = rates(model, at=at, prices=prices)
        if (found := known[model]) is not None:
            groups.setdefault(found, []).append(code)
    for found, of_codes in groups.items():
        ours = told & ~unbilled & np.isin(codes, of_codes)
        if not ours.any():
            continue
        is_priced |= ours
        surcharged = ours & in_us if found.us_surcharge else np.zeros(n, np.bool_)
        for where, factor in ((ours & ~surcharged, Decimal(1)), (surcharged, US_FACTOR)):
            for of_value, tiers, value in (
                (where & has_discount, found.batch, values[0]),
                (where & ~has_discount, found.standard, values[0]),
                (where, found.standard, values[1]),
            ):
                rows_at = np.flatnonzero(of_value)
                if len(rows_at):
                    picked = [counts[name][rows_at] for name in _COUNTS]
                    value[rows_at] = _cost_floats(picked, tiers, factor, found.web_search_usd)
    return tuple(pa.array(value, pa.float64(), mask=~is_priced) for value in values)


def _codes(column: pa.DictionaryArray) -> tuple[np.ndarray, list[str]]:
    return column.indices.fill_null(-1).to_numpy(), column.dictionary.to_pylist()


def _is_any(column: tuple[np.ndarray, list[str]], wanted: Sequence[str]) -> np.ndarray:
    import numpy as np

    codes, words = column
    found: np.ndarray = np.array([*(word in wanted for word in words), False])[codes]  # no word is code -1, the last
    return found


def _is_valid(column: pa.Array) -> np.ndarray:
    valid: np.ndarray = column.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _cost_floats(
    counts: Sequence[np.ndarray], tiers: Sequence[TokenRates], factor: Decimal, web_search_usd: Decimal
) -> np.ndarray:
    """Return the cost of rows, each the float that is nearest to the exact sum."""
    import numpy as np

    sums, n_digits = _cost_integers(counts, tiers, factor, web_search_usd)
    if sums.dtype != object and n_digits <= 22 and (not len(sums) or int(sums.max()) < 2**53):
        return sums / float(10**n_digits)  # both sides are exact, so the quotient is the nearest float
    return np.array([int(value) / 10**n_digits for value in sums.tolist()])


def _cost_integers(
    counts: Sequence[np.ndarray], tiers: Sequence[TokenRates], factor: Decimal, web_search_usd: Decimal
) -> tuple[np.ndarray, int]:
    """Return costs as integers, and how many decimal digits of a dollar they hold."""
    import numpy as np

    n_input, n_read, n_write, n_write_1h, n_output, n_searches = counts
    integers, n_digits = _integer_prices(tuple(tiers), factor, web_search_usd)
    amounts = [n_input, n_read, n_write - n_write_1h, n_write_1h, n_output, n_searches]
    largest = sum(
        int(amount.max(initial=0)) * max(prices[i] for prices in integers) for i, amount in enumerate(amounts)
    )
    if largest >= 2**63:
        amounts = [amount.astype(object) for amount in amounts]
    sums = np.zeros(len(n_input), amounts[0].dtype)
    if len(tiers) == 1:
        for amount, price in zip(amounts, integers[0], strict=True):
            sums += amount * price
        return sums, n_digits
    prompt_tokens = n_input.astype(float) + n_read + n_write
    for i, step in enumerate(tiers):
        above = prompt_tokens > step.above_tokens
        if i + 1 < len(tiers):
            above &= prompt_tokens <= tiers[i + 1].above_tokens
        for amount, price in zip(amounts, integers[i], strict=True):
            sums[above] += amount[above] * price
    return sums, n_digits


@lru_cache(maxsize=64)
def _integer_prices(
    tiers: tuple[TokenRates, ...], factor: Decimal, web_search_usd: Decimal
) -> tuple[list[list[int]], int]:
    """Return the prices of one unit in each tier as integers, and how many decimal digits of a dollar they hold."""
    with localcontext(EXACT):
        per_unit = [[price * factor / PER_MTOK for price in step.prices] + [web_search_usd] for step in tiers]
    n_digits = max(0, *(_n_decimals(price) for prices in per_unit for price in prices))
    return [[int(price.scaleb(n_digits, EXACT)) for price in prices] for prices in per_unit], n_digits


def _n_decimals(price: Decimal) -> int:
    return max(0, -int(price.normalize(EXACT).as_tuple().exponent))


def cost_of_message(
    message: Mapping[str, Any], *, at: datetime | None = None, prices: Prices | None = None, batch: bool = True
) -> Decimal | None:
    """
    Return what one answer cost, in USD, exactly; None where its price or its usage is not known.

    Parameters
    ----------
    message
        A message of the API, as a dict.
    at, prices, batch
        As in `add_costs`.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> message = {"model": "claude-haiku-4-5", "usage": {"input_tokens": 1000, "output_tokens": 100}}
    >>> cost_of_message(message, at=datetime(2026, 11, 1, tzinfo=UTC))
    Decimal('0.00075')
    """
    content = message.get("content")
    if message.get("stop_reason") in FREE_IF_EMPTY and isinstance(content, list) and not _has_content(content):
        return Decimal(0)
    model = message.get("model")
    usage = _mapping(message.get("usage"))
    created = _mapping(usage.get("cache_creation"))
    n_write_1h = _count(created.get("ephemeral_1h_input_tokens")) or 0
    n_write = _count(usage.get("cache_creation_input_tokens"))
    if not _is_whole(usage):
        return None
    if n_write is None:
        n_write = n_write_1h + (_count(created.get("ephemeral_5m_input_tokens")) or 0)
    n_input, n_output = _count(usage.get("input_tokens")), _count(usage.get("output_tokens"))
    if not isinstance(model, str) or n_input is None or n_output is None or n_write_1h > n_write:
        return None
    found = rates(model, at=at, prices=prices)
    if found is None:
        return None
    n_read = _count(usage.get("cache_read_input_tokens")) or 0
    n_searches = _count(_mapping(usage.get("server_tool_use")).get("web_search_requests")) or 0
    n_prompt = n_input + n_read + n_write
    has_discount = batch and usage.get("service_tier") not in FULL_PRICE_TIERS
    step = [tier for tier in (found.batch if has_discount else found.standard) if n_prompt > tier.above_tokens][-1]
    amounts = (n_input, n_read, n_write - n_write_1h, n_write_1h, n_output)
    with localcontext(EXACT):
        tokens = sum((n * price for n, price in zip(amounts, step.prices, strict=True)), Decimal(0)) / PER_MTOK
        if found.us_surcharge and usage.get("inference_geo") == "us":
            tokens *= US_FACTOR
        return (tokens + n_searches * found.web_search_usd).normalize() + 0


def _is_whole(usage: Mapping[str, Any]) -> bool:
    """Return whether what was billed can be read off a usage."""
    read = usage_of(usage)
    return has_all_tokens(read) and has_whole_bill(read)


def _has_content(content: Iterable[Any]) -> bool:
    return any(
        block.get("type") not in TEXT_BLOCKS or bool(block.get("text"))
        for block in content
        if isinstance(block, Mapping)
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def unpriced_models(table: pa.Table) -> list[str]:
    """Return the models of answers of a priced table whose price is not known, sorted."""
    import pyarrow.compute as pc

    unpriced = pc.indices_nonzero(table.column("cost_usd").is_null())
    if not len(unpriced):
        return []
    flags = [name for name in ("has_whole_bill",) if name in table.column_names]
    rows = table.select(["status", "model", "cost_usd", *_COUNTS, *flags]).take(unpriced)
    if flags:
        rows = rows.filter(pc.field("has_whole_bill"))  # else it is not the price that is not known
    rows = rows.filter(pc.field("status") == "succeeded")
    rows = rows.filter(pc.field("input_tokens").is_valid() & pc.field("output_tokens").is_valid())
    of_all, of_1h = (pc.coalesce(pc.field(f"cache_write_{part}tokens"), pc.scalar(0)) for part in ("", "1h_"))
    rows = rows.filter(of_1h <= of_all)  # else it is the usage that makes no sense
    return sorted({model for model in pc.unique(rows["model"].cast("string")).to_pylist() if model is not None})


NEWER_PRICES = "pip install -U genai-prices, or pandas_batch.update_prices()"
"""The ways to a newer list than the installed one."""


def unpriced_warning(models: Sequence[str]) -> str:
    """
    Return the one warning about models without a known price.

    Examples
    --------
    >>> print(unpriced_warning(["claude-next-1"]))
    No price is known for claude-next-1: cost_usd is missing there.
    Give it: prices={"claude-next-1": (input, output)}, in USD per million tokens, without the discount.
    Or take a newer list: pip install -U genai-prices, or pandas_batch.update_prices().
    """
    names = ", ".join(clip(model, 60) for model in models)
    return (
        f"No price is known for {names}: cost_usd is missing there.\n"
        f'Give it: prices={{"{clip(models[0], 60)}": (input, output)}}, in USD per million tokens, without the '
        "discount.\n"
        f"Or take a newer list: {NEWER_PRICES}."
    )
