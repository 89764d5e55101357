"""Both ends of a bill: the least and the most that requests can cost, with and without the prompt cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_batch.results.rates import US_FACTOR

if TYPE_CHECKING:
    from pandas_batch.results.pricing import Rates, TokenRates

    from .counting import Seen
    from .forecast import Forecast

# The shortest prefix that a model caches, in tokens
# (https://platform.claude.com/docs/en/build-with-claude/prompt-caching#cache-limitations).
_MIN_CACHED_TOKENS = {
    "claude-fable-5": 512,
    "claude-mythos-5": 512,
    "claude-opus-5": 512,
    "claude-haiku-5-5": 512,
    "claude-opus-4-8": 1024,
    "claude-sonnet-5": 1024,
    "claude-sonnet-4": 1024,
    "claude-opus-4-1": 1024,
    "claude-opus-4-7": 2048,
    "claude-opus-4-6": 4096,
    "claude-opus-4-5": 4096,
    "claude-haiku-4-5": 4096,
}
_UNKNOWN_MINIMUM = ("claude-sonnet-5-5",)


def minimum_cached_tokens(model: str) -> int | None:
    """
    Return the length of the shortest prefix that a model caches, or None where it is not known here.

    Examples
    --------
    >>> minimum_cached_tokens("claude-haiku-4-5-20251001")
    4096
    >>> minimum_cached_tokens("claude-next-1") is None
    True
    """
    if model.startswith(_UNKNOWN_MINIMUM):
        return None
    fits = [name for name in _MIN_CACHED_TOKENS if model == name or model.startswith(f"{name}-")]
    return _MIN_CACHED_TOKENS[max(fits, key=len)] if fits else None


@dataclass(frozen=True)
class OfModel:
    """
    The requests of one model, and what is known of them.

    Attributes
    ----------
    name
        The model.
    positions, repeats
        Their rows, each once, and how often each is sent.
    max_tokens
        Of each.
    tokens
        Input tokens of each.
    seen
        Those that were looked at.
    shapes
        One row of the plan for each distinct set of options of this model.
    rates
        Prices, or None where none is known.
    has_own_marks
        Whether some request has a cache mark that is the user's own, and may have any part of its input written to a
        cache, or read from it.
    costs_more_for_place
        Whether some request asks to be processed where tokens cost more.
    """

    name: str
    positions: np.ndarray
    repeats: np.ndarray
    max_tokens: np.ndarray
    tokens: Forecast
    seen: Seen
    shapes: np.ndarray
    rates: Rates | None
    has_own_marks: bool
    costs_more_for_place: bool


@dataclass(frozen=True)
class Prefix:
    """
    Tokens that a prompt cache may hold of each request: a best guess, and the most there can be.

    The most is infinite where it is not known: then all input is taken for cached.
    """

    tokens: int
    high: float


class Bounds:
    """
    Both ends of the bill of one model, in US dollars.

    Parameters
    ----------
    of
        The requests.
    prefix
        What a prompt cache shall be taken to hold of them; None: nothing.
    """

    def __init__(self, of: OfModel, prefix: Prefix | None) -> None:
        self._of = of
        is_surcharged = of.costs_more_for_place and of.rates is not None and of.rates.us_surcharge
        self._factor = float(US_FACTOR) if is_surcharged else 1.0
        minimum = minimum_cached_tokens(of.name)
        is_cached = prefix is not None and (minimum is None or prefix.high >= minimum)
        self._shared = prefix.high if prefix is not None and is_cached else 0.0

    def high(self, *, standard: bool = False) -> float:
        """Return the bill with the input at its high end, every ``max_tokens`` used up, all marked input written."""
        if not np.isfinite(self._of.tokens.high).all():
            return math.inf
        return self._factor * self._sum(self._of.tokens.high, max, self._of.max_tokens, standard=standard)

    def low(self) -> float:
        """Return the bill with the input at its low end, hardly any output, and all marked input read from a cache."""
        return self._sum(self._of.tokens.low, min, np.zeros(len(self._of.positions)), standard=False)

    def expected(self, output_tokens: float) -> float:
        """Return the bill with the input as it probably is, unmarked, and answers of so many tokens on average."""
        output = np.minimum(output_tokens, self._of.max_tokens)
        usd = 0.0
        for tier, where in self._tiers(self._of.tokens.mid, standard=False):
            each = self._of.tokens.mid * float(tier.input) + output * float(tier.output)
            usd += float((each * self._of.repeats)[where].sum())
        return self._factor * usd / 1e6

    def _sum(
        self, tokens: np.ndarray, pick: Callable[[Iterable[Any]], Any], output: np.ndarray, *, standard: bool
    ) -> float:
        shared = np.minimum(self._shared, tokens)
        usd = 0.0
        for tier, where in self._tiers(tokens, standard=standard):
            of_input = float(pick(tier.prices[:4])) if self._of.has_own_marks else float(tier.input)
            of_shared = pick([of_input, float(tier.cache_read), float(tier.cache_write_1h)])
            each = (tokens - shared) * of_input + shared * of_shared + output * float(tier.output)
            usd += float((each * self._of.repeats)[where].sum())
        return usd / 1e6

    def _tiers(self, tokens: np.ndarray, *, standard: bool) -> list[tuple[TokenRates, np.ndarray]]:
        if self._of.rates is None:
            return []
        tiers = self._of.rates.standard if standard else self._of.rates.batch
        ends = [*(tier.above_tokens for tier in tiers[1:]), math.inf]
        return [(tier, (tokens > tier.above_tokens) & (tokens <= end)) for tier, end in zip(tiers, ends, strict=True)]
