"""Usage to US dollars: per answer, for whole columns, and as an upper bound before anything is sent.

The prices are those of `genai-prices <https://pypi.org/project/genai-prices/>`_. What Anthropic bills by rules
that no price list holds is added here
(https://platform.claude.com/docs/en/about-claude/pricing,
https://platform.claude.com/docs/en/build-with-claude/batch-processing#pricing):

* a batch costs half of every token price, also where the list has no batch price for a model or a date;
* ``inference_geo: "us"`` costs a tenth more on all tokens, for models from 4.6 on;
* web searches cost the same in a batch;
* a refusal before any output costs nothing.

All sums are made of integers, so that a column of floats holds the same figures as exact arithmetic would.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .errors import InputError, clip

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Prices = Mapping[str, tuple[float, float]]
"""Model name to input and output price in USD per million tokens, without the batch discount."""

_PER_MTOK = 1_000_000
_US_FACTOR = Decimal("1.1")
_WEB_SEARCH_USD = Decimal("0.01")

# What a cache costs as multiples of the input price, for prices given by the user
# (https://platform.claude.com/docs/en/build-with-claude/prompt-caching#pricing).
_CACHE_READ_FACTOR = Decimal("0.1")
_CACHE_WRITE_5M_FACTOR = Decimal("1.25")
_CACHE_WRITE_1H_FACTOR = Decimal(2)

# genai-prices 0.2 knows only today's price of these: model, first day of today's price, cache read before it.
_CACHE_READ_BEFORE = {"claude-sonnet-5-5": (date(2026, 10, 7), Decimal("0.20"))}

_EXACT = Context(prec=60)


@dataclass(frozen=True)
class TokenRates:
    """
    Prices of tokens, in USD per million, for requests with more than `above_tokens` input tokens.

    Input tokens count with cache reads and writes here; the highest tier that is reached prices every token.
    """

    above_tokens: int
    input: Decimal
    cache_read: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    output: Decimal

    def times(self, factor: Decimal) -> TokenRates:
        """Return all prices multiplied by `factor`."""
        with localcontext(_EXACT):
            return TokenRates(self.above_tokens, *(factor * price for price in self.prices))

    @property
    def prices(self) -> tuple[Decimal, ...]:
        """The prices, in the order of the fields."""
        return (self.input, self.cache_read, self.cache_write_5m, self.cache_write_1h, self.output)


@dataclass(frozen=True)
class Rates:
    """
    What a model costs at a given time.

    Attributes
    ----------
    batch, standard
        Token prices in a batch and without one, lowest tier first.
    web_search_usd
        Price of one web search.
    us_surcharge
        Whether ``inference_geo: "us"`` costs a tenth more.
    """

    batch: tuple[TokenRates, ...]
    standard: tuple[TokenRates, ...]
    web_search_usd: Decimal
    us_surcharge: bool


def rates(model: str, *, at: datetime | None = None, prices: Prices | None = None) -> Rates | None:
    """
    Return the prices of a model, or None where none is known.

    Parameters
    ----------
    model
        A model name, as requested or as an answer reports it.
    at
        When the batch was created; None is now.
    prices
        Prices that go before the published ones.

    Raises
    ------
    InputError
        Where `prices` does not hold pairs of numbers.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> found = rates("claude-haiku-4-5", at=datetime(2026, 11, 1, tzinfo=UTC))
    >>> found.batch[0].output, found.standard[0].output
    (Decimal('2.5'), Decimal('5'))
    >>> rates("gpt-2") is None
    True
    """
    if prices and (pair := _own_pair(model, prices)) is not None:
        return _own_rates(model, pair)
    from genai_prices.data_snapshot import get_snapshot

    at = datetime.now(UTC) if at is None else at
    return _published_rates(model, at.replace(tzinfo=UTC) if at.tzinfo is None else at, get_snapshot().timestamp)


def _own_pair(model: str, prices: Prices) -> tuple[Decimal, Decimal] | None:
    # A request may say claude-haiku-4-5 where the answer says claude-haiku-4-5-20251001.
    for name in (model, _undated(model)):
        if name in prices:
            return _checked_pair(name, prices[name])
    return None


def _undated(model: str) -> str:
    return re.sub(r"[-@]\d{8}$", "", model)


def _checked_pair(model: str, pair: Any) -> tuple[Decimal, Decimal]:
    try:
        price_in, price_out = (Decimal(str(price)) for price in pair)
    except (TypeError, ValueError, ArithmeticError):
        price_in = price_out = Decimal(-1)
    if not (price_in.is_finite() and price_out.is_finite() and price_in >= 0 and price_out >= 0):
        raise InputError(
            f"prices[{model!r}]={clip(repr(pair))} is not a pair of prices.",
            hint=f'prices={{"{model}": (1.0, 5.0)}}  # USD per million input and output tokens',
        )
    return price_in, price_out


def _own_rates(model: str, pair: tuple[Decimal, Decimal]) -> Rates:
    price_in, price_out = pair
    with localcontext(_EXACT):
        standard = TokenRates(
            above_tokens=-1,
            input=price_in,
            cache_read=price_in * _CACHE_READ_FACTOR,
            cache_write_5m=price_in * _CACHE_WRITE_5M_FACTOR,
            cache_write_1h=price_in * _CACHE_WRITE_1H_FACTOR,
            output=price_out,
        )
    return Rates((standard.times(Decimal("0.5")),), (standard,), _WEB_SEARCH_USD, _has_us_surcharge(model))


def _has_us_surcharge(model: str) -> bool:
    version = re.search(r"-(\d)(?:[-.](\d))?(?!\d)", model)
    return version is None or (int(version[1]), int(version[2] or 0)) >= (4, 6)


@lru_cache(maxsize=1024)
def _published_rates(model: str, at: datetime, data_from: datetime) -> Rates | None:
    """Ask genai-prices what one more token of each kind costs; `data_from` tells updated price data apart."""
    from genai_prices import Usage, calc_price
    from genai_prices.types import ModelPrice, TieredPrices

    def priced(context: dict[str, str] | None, **counts: int) -> Any:
        return calc_price(
            Usage(**counts),
            model_ref=model,
            provider_id="anthropic",
            genai_request_timestamp=at,
            price_context=context,
        )

    def tier(context: dict[str, str] | None, above: int) -> TokenRates:
        n = above + 1
        base = priced(context, input_tokens=n, output_tokens=0).total_price

        def one_more(**counts: int) -> Decimal:
            more: Decimal = priced(context, **({"input_tokens": n + 1, "output_tokens": 0} | counts)).total_price - base
            return (more * _PER_MTOK).normalize()

        return TokenRates(
            above_tokens=above,
            input=one_more(),
            cache_read=one_more(cache_read_tokens=1),
            cache_write_5m=one_more(cache_write_tokens=1, cache_write_5m_tokens=1),
            cache_write_1h=one_more(cache_write_tokens=1, cache_write_1h_tokens=1),
            output=one_more(input_tokens=n, output_tokens=1),
        )

    in_batch = {"processing": "batch"}
    with localcontext(_EXACT):
        try:
            price = priced(None, input_tokens=0, output_tokens=0)
        except LookupError:
            return None
        all_prices = [*vars(price.model_price).values()]
        all_prices += vars(priced(in_batch, input_tokens=0, output_tokens=0).model_price).values()
        starts = {step.start for value in all_prices if isinstance(value, TieredPrices) for step in value.tiers}
        standard = [tier(None, above) for above in (-1, *sorted(starts))]
        batch = [_no_more_than_half(tier(in_batch, step.above_tokens), step) for step in standard]
        searches = priced(None, input_tokens=0, output_tokens=0, web_searches=1).total_price
    since, cache_read = _CACHE_READ_BEFORE.get(price.model.id, (date.min, Decimal(0)))
    if at.astimezone(UTC).date() < since and isinstance(price.model.prices, ModelPrice):
        standard = [replace(step, cache_read=cache_read) for step in standard]
        batch = [replace(step, cache_read=cache_read / 2) for step in batch]
    return Rates(tuple(batch), tuple(standard), searches, _has_us_surcharge(price.model.id))


def _no_more_than_half(batch: TokenRates, standard: TokenRates) -> TokenRates:
    # Where genai-prices has no batch price, for a model, a date or one kind of token, it says nothing and gives the
    # standard one.
    halves = (low if low < full else full / 2 for low, full in zip(batch.prices, standard.prices, strict=True))
    return TokenRates(batch.above_tokens, *halves)


def add_costs(table: pa.Table, *, at: datetime | None, prices: Prices | None = None, batch: bool = True) -> pa.Table:
    """
    Fill ``cost_usd`` and ``cost_usd_standard`` of a table of answers.

    Parameters
    ----------
    table
        Answers, as `pandas_batch.answers` makes them.
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

    needed = ["status", "has_content", "stop_reason", "model", "inference_geo", *_COUNTS]
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
    words = {name: _codes(columns[name]) for name in ("status", "stop_reason", "model", "inference_geo")}
    unbilled = _is_any(words["status"], ("errored", "expired", "canceled"))
    succeeded = _is_any(words["status"], ("succeeded",))
    refused = succeeded & _is_any(words["stop_reason"], ("refusal",))
    unbilled |= refused & ~columns["has_content"].fill_null(True).to_numpy(zero_copy_only=False)
    told = succeeded & _is_valid(columns["input_tokens"]) & _is_valid(columns["output_tokens"])
    told &= counts["cache_write_1h_tokens"] <= counts["cache_write_tokens"]
    in_us = _is_any(words["inference_geo"], ("us",))

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
        for where, factor in ((ours & ~surcharged, Decimal(1)), (surcharged, _US_FACTOR)):
            rows_at = np.flatnonzero(where)
            if len(rows_at):
                picked = [counts[name][rows_at] for name in _COUNTS]
                for value, tiers in zip(
                    values, (found.batch if batch else found.standard, found.standard), strict=True
                ):
                    value[rows_at] = _cost_floats(picked, tiers, factor, found.web_search_usd)
    return tuple(pa.array(value, pa.float64(), mask=~is_priced) for value in values)


def _codes(column: pa.DictionaryArray) -> tuple[np.ndarray, list[str]]:
    return column.indices.fill_null(-1).to_numpy(), column.dictionary.to_pylist()


def _is_any(column: tuple[np.ndarray, list[str]], wanted: Sequence[str]) -> np.ndarray:
    import numpy as np

    codes, words = column
    return np.isin(codes, [code for code, word in enumerate(words) if word in wanted])


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
    prompt_tokens = n_input.astype(float) + n_read + n_write
    with localcontext(_EXACT):
        per_unit = [[price * factor / _PER_MTOK for price in step.prices] + [web_search_usd] for step in tiers]
    n_digits = max(0, *(_n_decimals(price) for prices in per_unit for price in prices))
    integers = [[int(price.scaleb(n_digits, _EXACT)) for price in prices] for prices in per_unit]
    amounts = [n_input, n_read, n_write - n_write_1h, n_write_1h, n_output, n_searches]
    largest = sum(
        int(amount.max(initial=0)) * max(prices[i] for prices in integers) for i, amount in enumerate(amounts)
    )
    if largest >= 2**63:
        amounts = [amount.astype(object) for amount in amounts]
    sums = np.zeros(len(n_input), amounts[0].dtype)
    for i, step in enumerate(tiers):
        above = prompt_tokens > step.above_tokens
        if i + 1 < len(tiers):
            above &= prompt_tokens <= tiers[i + 1].above_tokens
        for amount, price in zip(amounts, integers[i], strict=True):
            sums[above] += amount[above] * price
    return sums, n_digits


def _n_decimals(price: Decimal) -> int:
    return max(0, -int(price.normalize(_EXACT).as_tuple().exponent))


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
    if message.get("stop_reason") == "refusal" and isinstance(content, list) and not _has_content(content):
        return Decimal(0)
    model = message.get("model")
    usage = _mapping(message.get("usage"))
    created = _mapping(usage.get("cache_creation"))
    n_write_1h = _count(created.get("ephemeral_1h_input_tokens")) or 0
    n_write = _count(usage.get("cache_creation_input_tokens"))
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
    step = [tier for tier in (found.batch if batch else found.standard) if n_prompt > tier.above_tokens][-1]
    amounts = (n_input, n_read, n_write - n_write_1h, n_write_1h, n_output)
    with localcontext(_EXACT):
        tokens = sum((n * price for n, price in zip(amounts, step.prices, strict=True)), Decimal(0)) / _PER_MTOK
        if found.us_surcharge and usage.get("inference_geo") == "us":
            tokens *= _US_FACTOR
        return (tokens + n_searches * found.web_search_usd).normalize() + 0


def _has_content(content: Iterable[Any]) -> bool:
    return any(
        block.get("type") != "text" or bool(block.get("text")) for block in content if isinstance(block, Mapping)
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def upper_bound_usd(
    model: str,
    input_tokens: np.ndarray | Sequence[int],
    max_tokens: np.ndarray | Sequence[int],
    *,
    at: datetime | None = None,
    prices: Prices | None = None,
    batch: bool = True,
    cached: bool = False,
    inference_geo: str | None = None,
) -> Decimal | None:
    """
    Return the most that requests can cost, in USD, or None where the model's price is not known.

    Web searches are not in it: their number is not known before.

    Parameters
    ----------
    model
        The model of all these requests.
    input_tokens, max_tokens
        One number per request: tokens of the prompt and the most that may be answered.
    at, prices, batch
        As in `add_costs`.
    cached
        Whether the requests write a prompt cache; each input token may then cost as much as a write for 1 h.
    inference_geo
        As requested; ``"us"`` costs more.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> upper_bound_usd("claude-haiku-4-5", [1000, 2000], [100, 100], at=datetime(2026, 11, 1, tzinfo=UTC))
    Decimal('0.002')
    """
    import numpy as np

    found = rates(model, at=at, prices=prices)
    if found is None:
        return None
    n_input = np.asarray(input_tokens, np.int64)
    n_output = np.asarray(max_tokens, np.int64)
    tiers = found.batch if batch else found.standard
    if cached:
        tiers = tuple(replace(tier, input=max(tier.prices[:4])) for tier in tiers)
    factor = _US_FACTOR if found.us_surcharge and inference_geo == "us" else Decimal(1)
    nothing = np.zeros(len(n_input), np.int64)
    sums, n_digits = _cost_integers([n_input, nothing, nothing, nothing, n_output, nothing], tiers, factor, Decimal(0))
    return Decimal(sum(sums.tolist())).scaleb(-n_digits, _EXACT).normalize(_EXACT)


def unpriced_models(table: pa.Table) -> list[str]:
    """Return the models of answered rows of a priced table whose price is not known, sorted."""
    import pyarrow.compute as pc

    rows = table.select(["status", "model", "cost_usd", "input_tokens", "output_tokens"])
    rows = rows.filter((pc.field("status") == "succeeded") & pc.field("cost_usd").is_null())
    rows = rows.filter(pc.field("input_tokens").is_valid() & pc.field("output_tokens").is_valid())
    return sorted({model for model in pc.unique(rows["model"].cast("string")).to_pylist() if model is not None})


def unpriced_warning(models: Sequence[str]) -> str:
    """
    Return the one warning about models without a known price.

    Examples
    --------
    >>> print(unpriced_warning(["claude-next-1"]))
    No price is known for claude-next-1: its cost is NA.
    Give one: prices={"claude-next-1": (input, output)}, USD per million tokens.
    """
    names = ", ".join(clip(model, 60) for model in models)
    first = clip(models[0], 60)
    return (
        f"No price is known for {names}: {'its' if len(models) == 1 else 'their'} cost is NA.\n"
        f'Give one: prices={{"{first}": (input, output)}}, USD per million tokens.'
    )
