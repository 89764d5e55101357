"""A bill known beforehand: the record of an estimate, how it is shown, and the budget it is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from pandas_batch.amounts import UNKNOWN, file_size, number, percent, usd
from pandas_batch.errors import BudgetError, clip
from pandas_batch.results.pricing import NEWER_PRICES

from .tables import html_table, text_table

if TYPE_CHECKING:
    from .tables import Row


@dataclass(frozen=True, kw_only=True)
class CacheForecast:
    """
    What ``cache_system=True`` would do, or does, for one model.

    The cache of a batch is best effort: the lower bounds hold where every request but the first reads the prefix, the
    upper ones where each writes it (a write for one hour costs twice as much as plain input).

    Attributes
    ----------
    model
        The model.
    prefix_tokens
        Tokens of what the requests share: tools, schema and system prompt.
    minimum_tokens
        Shorter prefixes are not cached by this model; None where its minimum is not known here.
    cost_usd_min, cost_usd_max
        Bounds of the bill with the cache.
    cost_usd_min_without, cost_usd_max_without
        Bounds of the bill without it.
    """

    model: str
    prefix_tokens: int
    minimum_tokens: int | None
    cost_usd_min: float | None
    cost_usd_max: float | None
    cost_usd_min_without: float | None
    cost_usd_max_without: float | None

    @property
    def is_too_short(self) -> bool:
        """Whether the prefix is shorter than this model caches."""
        return self.minimum_tokens is not None and self.prefix_tokens < self.minimum_tokens

    @property
    def warning(self) -> str | None:
        """Return what stands against the cache, or None."""
        if not self.is_too_short:
            return None
        return (
            f"The shared prefix has about {number(self.prefix_tokens)} tokens; {clip(self.model, 60)} caches none "
            f"shorter than {number(self.minimum_tokens)}, so cache_system=True changes nothing."
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class Estimate:
    """
    What a call would send and cost. Making it spends nothing.

    Money is in US dollars for all batches together; None means unknown, never 0.

    Attributes
    ----------
    rows
        Rows of the frame.
    requests
        Distinct requests that its rows need, each answer wanted counted once.
    reused
        Of those: answered already, or in flight; not paid again.
    batches, bytes
        What would be posted.
    input_tokens
        Tokens of all requests that would be sent, cached ones included: the best guess.
    input_tokens_low, input_tokens_high
        Its error bar; the high end is None where the input cannot be bounded from here.
    output_tokens_max
        Output tokens with ``max_tokens`` used up by every request.
    cost_usd_min
        The bill if every request is answered with next to nothing: input only, at the low end.
    cost_usd_max
        The bill if every request uses up its ``max_tokens``, with the input at the high end.
    cost_usd_standard
        The same upper bound without batching.
    cost_usd_expected
        The bill if the answers are as long as earlier ones to the same prompt, or of the same model and schema; None
        where the store has none.
    n_answers
        Number of those earlier answers.
    models, unpriced
        Models of the requests, and those without a known price.
    unbounded
        Why the cost cannot be bounded, one phrase each; empty where it is.
    basis
        How the tokens are known.
    cache
        What the prompt cache would do, one record per model with a system prompt.
    uses_cache
        Whether the bounds of the bill are those with the cache.
    notes
        Remarks, one sentence each.
    """

    rows: int
    requests: int
    reused: int
    batches: int
    bytes: int
    input_tokens: int
    input_tokens_low: int
    input_tokens_high: int | None
    output_tokens_max: int
    cost_usd_min: float | None
    cost_usd_max: float | None
    cost_usd_standard: float | None
    cost_usd_expected: float | None = None
    n_answers: int = 0
    models: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()
    unbounded: tuple[str, ...] = ()
    basis: str = ""
    cache: tuple[CacheForecast, ...] = ()
    uses_cache: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def to_send(self) -> int:
        """Return the number of requests that would be sent and paid."""
        return self.requests - self.reused

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values, ready for JSON."""
        return asdict(self)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` needs to hold a bill against this estimate later: its figures, and their basis."""
        left_out = ("cache", "notes", "models", "unpriced", "unbounded")
        return {name: value for name, value in self.to_dict().items() if name not in left_out}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Estimate:
        """Return the estimate whose figures `to_json` gave; what a later version has stored besides is left out."""
        names = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in stored.items() if name in names})

    def against(self, cost_usd: float | None, input_tokens: int | None = None) -> str:
        """
        Say how the bill came out against this estimate.

        Parameters
        ----------
        cost_usd
            What was billed.
        input_tokens
            Input tokens that were billed, cached ones included; None leaves them out.

        Examples
        --------
        >>> estimate = Estimate(
        ...     rows=2, requests=2, reused=0, batches=1, bytes=400, input_tokens=100, input_tokens_low=95,
        ...     input_tokens_high=105, output_tokens_max=2048, cost_usd_min=0.0001, cost_usd_max=0.02,
        ...     cost_usd_standard=0.04)
        >>> estimate.against(0.01, 104)
        'billed $0.01 of at most $0.02; input tokens 4.0 % above the estimate'
        """
        said = f"billed {usd(cost_usd)} of at most {usd(self.cost_usd_max)}"
        if cost_usd is not None and self.cost_usd_max is not None and cost_usd > self.cost_usd_max:
            said = f"billed {usd(cost_usd)}, above the estimated bound of {usd(self.cost_usd_max)}"
        if input_tokens is not None and self.input_tokens:
            off = input_tokens / self.input_tokens - 1
            where = "above" if off >= 0 else "below"
            said += f"; input tokens {percent(abs(off))} {where} the estimate"
        return said

    def _rows(self) -> list[Row]:
        rows: list[Row] = [
            ("rows", number(self.rows)),
            (
                "requests",
                number(self.requests),
                f"{number(self.reused)} of them answered already or in flight" if self.reused else "",
            ),
            ("batches", number(self.batches), file_size(self.bytes) if self.batches else ""),
            ("input tokens", number(self.input_tokens), self._error_bar()),
            ("output tokens", number(self.output_tokens_max), "at most: max_tokens used up"),
            ("cost at least", usd(self.cost_usd_min), "input only"),
            *self._expected(),
            ("cost at most", usd(self.cost_usd_max), "every answer as long as max_tokens allows"),
            ("without batching", usd(self.cost_usd_standard), "at most"),
        ]
        for cache in self.cache:
            of_model = f" ({clip(cache.model, 40)})" if len(self.cache) > 1 else ""
            prefix = f"prefix of about {number(cache.prefix_tokens)} tokens"
            if cache.is_too_short:
                rows.append((f"with cache{of_model}", "no change", f"{prefix}, {number(cache.minimum_tokens)} needed"))
                continue
            rows += [
                (f"with cache{of_model}", _span(cache.cost_usd_min, cache.cost_usd_max), prefix),
                (f"without cache{of_model}", _span(cache.cost_usd_min_without, cache.cost_usd_max_without), ""),
            ]
        return rows

    def _expected(self) -> list[Row]:
        if self.cost_usd_expected is None:
            return []
        answers = "1 answer" if self.n_answers == 1 else f"{number(self.n_answers)} answers"
        return [(f"expected, from {answers}", usd(self.cost_usd_expected), "if the others are as long")]

    def _error_bar(self) -> str:
        if not self.to_send:
            return ""
        high = UNKNOWN if self.input_tokens_high is None else number(self.input_tokens_high)
        return f"{number(self.input_tokens_low)} to {high}"

    def _notes(self) -> list[str]:
        notes = [f"Input tokens: {self.basis}."] if self.basis else []
        if self.unpriced:
            notes.append(f"No price is known for {', '.join(clip(model, 60) for model in self.unpriced)}.")
            notes.append(f"A newer list may have it: {NEWER_PRICES}.")
        notes += [f"The cost cannot be bounded from here: {reason}." for reason in self.unbounded]
        if self.uses_cache:
            notes += [warning for cache in self.cache if (warning := cache.warning)]
        return [*notes, *self.notes]

    def _title(self) -> str:
        return f"Estimate for {', '.join(clip(model, 60) for model in self.models) or 'no request'}"

    def __repr__(self) -> str:
        return text_table(self._title(), self._rows(), self._notes())

    def _repr_html_(self) -> str:
        return html_table(self._title(), self._rows(), self._notes())


def _span(low: float | None, high: float | None) -> str:
    return f"{usd(low)} to {usd(high)}"


def check_budget(estimate: Estimate, max_cost_usd: float | None, *, from_environment: bool = False) -> None:
    """
    Refuse a call whose upper bound is above the budget, or is not known.

    Parameters
    ----------
    estimate
        Of all batches of the call.
    max_cost_usd
        The budget in US dollars; None, and infinity, are no budget.
    from_environment
        Whether it is the environment's ``PANDAS_BATCH_MAX_COST_USD``, and no option of the call.

    Raises
    ------
    BudgetError
        Naming the bound, and how to go on.
    """
    if max_cost_usd is None or math.isinf(max_cost_usd) or not estimate.to_send:
        return
    budget = f"max_cost_usd={max_cost_usd:.12g}"
    without = 'max_cost_usd=float("inf")   # sends it without a budget'
    of_environment = ""
    if from_environment:
        budget = f"The environment's PANDAS_BATCH_MAX_COST_USD={max_cost_usd:.12g}"
        without = 'max_cost_usd=float("inf")   # in this call, sends it whatever the environment says'
        of_environment = f"\n{without}"
    if estimate.unpriced:
        names = [clip(model, 60) for model in estimate.unpriced]
        given = ", ".join(f'"{name}": (input, output)' for name in names)
        raise BudgetError(
            f"{budget} cannot be kept: no price is known for {', '.join(names)}.",
            hint=f"prices={{{given}}}  # USD per million tokens, without the batch discount\n"
            f"{NEWER_PRICES}   # a newer list{of_environment}",
        )
    if estimate.cost_usd_max is None:
        raise BudgetError(
            f"{budget} cannot be kept: the cost cannot be bounded from here ({'; '.join(estimate.unbounded)}).",
            hint=f"{_way_to_a_bound(estimate.unbounded)}\n{without}",
        )
    if estimate.cost_usd_max <= max_cost_usd:
        return
    least = estimate.cost_usd_min
    kept = budget[0].lower() + budget[1:]
    enough = usd(math.ceil(estimate.cost_usd_max * 100) / 100).strip("$").replace(",", "")
    if least is not None and least > max_cost_usd:
        ways = f"{budget} does not pay for the input alone ({usd(least)}): send fewer or shorter rows"
    else:
        ways = "a lower max_tokens= lowers the bound"
    raise BudgetError(
        f"This may cost {usd(estimate.cost_usd_max)}, above {kept} ({number(estimate.to_send)} "
        f"request{'' if estimate.to_send == 1 else 's'}, {number(estimate.input_tokens)} input tokens, at most "
        f"{number(estimate.output_tokens_max)} output tokens).",
        hint=f"max_cost_usd={enough} lets it through\n{ways}{of_environment}",
    )


def _way_to_a_bound(reasons: tuple[str, ...]) -> str:
    if all("images" in reason or "PDF" in reason for reason in reasons):
        return "give images and documents as bytes or paths: those have a bound"
    return "leave out what has no bound"
