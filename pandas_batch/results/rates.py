"""What a model costs, and when: the prices of genai-prices and the rules that no price list holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from typing import Any

from pandas_batch.errors import InputError, clip

Prices = Mapping[str, tuple[float, float]]
"""Model name to input and output price in USD per million tokens, without the batch discount."""

PER_MTOK = 1_000_000
US_FACTOR = Decimal("1.1")
_WEB_SEARCH_USD = Decimal("0.01")

# What a cache costs as multiples of the input price, for prices given by the user
# (https://platform.claude.com/docs/en/build-with-claude/prompt-caching#pricing).
_CACHE_READ_FACTOR = Decimal("0.1")
_CACHE_WRITE_5M_FACTOR = Decimal("1.25")
_CACHE_WRITE_1H_FACTOR = Decimal(2)

# genai-prices 0.2 knows only today's price of these: model, first day of today's price, cache read before it.
_CACHE_READ_BEFORE = {"claude-sonnet-5-5": (date(2026, 10, 7), Decimal("0.20"))}

EXACT = Context(prec=60)


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
        with localcontext(EXACT):
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
    # Prices change from one day to the next: asked by the hour, the batches of a run share one answer.
    at = at.replace(tzinfo=at.tzinfo or UTC, minute=0, second=0, microsecond=0)
    return _published_rates(model, at, get_snapshot().timestamp)


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
    with localcontext(EXACT):
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
    # A family that is not in the pattern came after 4.6.
    version = re.match(r"claude-(?:v|instant-|opus-|sonnet-|haiku-)?(\d)(?:[-.](\d))?(?!\d)", model)
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
            return (more * PER_MTOK).normalize()

        return TokenRates(
            above_tokens=above,
            input=one_more(),
            cache_read=one_more(cache_read_tokens=1),
            cache_write_5m=one_more(cache_write_tokens=1, cache_write_5m_tokens=1),
            cache_write_1h=one_more(cache_write_tokens=1, cache_write_1h_tokens=1),
            output=one_more(input_tokens=n, output_tokens=1),
        )

    in_batch = {"processing": "batch"}
    with localcontext(EXACT):
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
