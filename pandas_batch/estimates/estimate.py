"""What a call would cost, before anything is sent: tokens from a counted sample, money from bounds on both ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_batch.clock import SYSTEM_CLOCK, Clock
from pandas_batch.requests.spending import open_ended_betas

from .bill import CacheForecast, Estimate, check_budget
from .bounds import Bounds, OfModel, Prefix, minimum_cached_tokens
from .counting import (
    Seen,
    count_prefix,
    count_requests,
    few_enough,
    look_at,
    prefix_of,
    status_code_of,
    traits_of,
)
from .forecast import N_COUNTED, Traits, forecast
from .summing import added_up, unbounded_by

if TYPE_CHECKING:
    from pandas_batch.requests.options import Options
    from pandas_batch.requests.plan import RequestPlan
    from pandas_batch.wire.wire import Wire

    from .experience import Experience

__all__ = ["CacheForecast", "Estimate", "check_budget", "estimate_requests"]

LIMIT_S = 10.0
"""Seconds for all counting together."""

_MAX_SEEN = 2_000
_MAX_SEEN_OFFLINE = 64
_MAX_SORTED = 20_000
_MAX_SORTED_OFFLINE = 2_000
_MAX_SHAPES = 200
_MIN_COUNTED = 6
_MAX_PREFIXES = 4

UNKNOWN_PREFIX = Prefix(0, math.inf)


def estimate_requests(
    plan: RequestPlan,
    unique_positions: np.ndarray,
    *,
    options: Options,
    n_reused: int,
    n_batches: int,
    n_bytes: int,
    wire: Wire | None,
    at: datetime | None = None,
    clock: Clock = SYSTEM_CLOCK,
    experience: Experience | None = None,
) -> Estimate:
    """
    Estimate the bill of the requests at `unique_positions`. Nothing is spent.

    Parameters
    ----------
    plan
        The requests of all rows.
    unique_positions
        A row for each request that would be sent: deduplicated, those that are answered already left out, a row
        standing as often as answers are wanted of it.
    options
        Of the call.
    n_reused
        Number of requests left out because they are answered already, or in flight.
    n_batches, n_bytes
        What would be posted.
    wire
        Where tokens are counted; None: nowhere, the stated heuristic is used.
    at
        Date of the prices; None is now.
    clock
        Tells what now is.
    experience
        What earlier answers to the same prompt used, where there are any.

    Returns
    -------
    Estimate
    """
    unique_positions = np.asarray(unique_positions, np.int64)
    counts = _Counting(plan, options, wire)
    models = _by_model(plan, unique_positions, options, counts, clock.now() if at is None else at)
    prefixes = {of.name: _prefix(plan, of, counts) for of in models}
    unbounded = unbounded_by(
        models,
        is_unbounded=plan.unbounded_input,
        open_ended=[*plan.open_ended(unique_positions), *open_ended_betas(options.betas if len(models) else ())],
    )
    is_bounded = not unbounded and all(of.rates is not None for of in models)
    bounds = [Bounds(of, prefixes[of.name] if options.cache_system else None) for of in models]
    return added_up(
        models,
        bounds,
        unbounded,
        experience=experience,
        rows=plan.n_rows,
        requests=len(unique_positions) + n_reused,
        reused=n_reused,
        batches=n_batches,
        bytes=n_bytes,
        cache=tuple(
            _cache_forecast(of, prefix, is_bounded=is_bounded)
            for of in models
            if (prefix := prefixes[of.name]) is not None and prefix is not UNKNOWN_PREFIX
        ),
        uses_cache=bool(options.cache_system),
        notes=tuple(counts.notes),
    )


class _Counting:
    """Counts within one time limit, and remembers what stood in the way."""

    def __init__(self, plan: RequestPlan, options: Options, wire: Wire | None) -> None:
        self._plan = plan
        self._betas = options.betas
        self._wire = wire
        # Bounds that no count will narrow are not worth more than a look at some of the requests.
        self.is_offline = wire is None
        self.n_seen = _MAX_SEEN_OFFLINE if self.is_offline else _MAX_SEEN
        self.n_sorted = _MAX_SORTED_OFFLINE if self.is_offline else _MAX_SORTED
        self._until = time.monotonic() + LIMIT_S
        self.notes: list[str] = []

    def tokens(self, positions: Sequence[int]) -> dict[int, int]:
        """Return the tokens of those requests that could be counted."""
        if self._wire is None or self.notes:
            return {}
        counts = count_requests(self._plan, positions, self._wire, betas=self._betas, limit_s=self._left_s())
        failures = [error for error in counts.errors.values() if status_code_of(error) not in (400, 413, 422)]
        if failures:
            code = status_code_of(failures[0])
            why = type(failures[0]).__name__ if code is None else f"HTTP {code}"
            self.notes.append(f"Counting tokens failed ({why}), so the estimate is wider than it could be.")
        elif counts.errors and not counts.tokens:
            code = status_code_of(next(iter(counts.errors.values())))
            self.notes.append(f"The server refused to count these requests (HTTP {code}); the preflight will say why.")
        elif counts.n_unanswered:
            self.notes.append("Counting tokens took too long, so the estimate is wider than it could be.")
        return counts.tokens

    def prefix(self, params: Mapping[str, Any]) -> Prefix:
        """Return the tokens of everything before the messages."""
        if self._wire is not None and not self.notes:
            tokens = count_prefix(params, self._wire, betas=self._betas, limit_s=self._left_s())
            if tokens is not None:
                return Prefix(tokens, tokens * 1.05 + 8)
        import msgspec

        traits = traits_of(msgspec.json.encode(prefix_of(params)))
        guess = forecast(traits, np.arange(1), np.ones(1), lambda _: {})
        return Prefix(round(float(guess.mid[0])), float(guess.high[0]))

    def _left_s(self) -> float:
        return max(self._until - time.monotonic(), 0.1)


# -------------------------------------------------------------------- tokens


def _by_model(
    plan: RequestPlan, unique_positions: np.ndarray, options: Options, counts: _Counting, at: datetime
) -> list[OfModel]:
    from pandas_batch.results.pricing import rates

    positions, repeats = _each_once(unique_positions)
    codes = plan.model_of_row[positions]
    used = sorted(pd.unique(codes).tolist())
    n = 0 if counts.is_offline else max(_MIN_COUNTED, N_COUNTED // max(len(used), 1))
    # What is counted must not depend on max_tokens, or larger ones could make a bound smaller.
    shapes = np.array(plan.samples_of_shapes(apart_from_max_tokens=True), np.int64)
    made = []
    for code in used:
        of_model: Any = slice(None) if len(used) == 1 else codes == code  # a slice copies nothing
        mine = positions[of_model]
        shapes_of_model = shapes[plan.model_of_row[shapes] == code]
        first = shapes_of_model[_is_among(shapes_of_model, mine)]
        seen = look_at(plan, _worth_looking(plan, mine, first, counts))
        of_each = repeats[of_model]
        if counts.is_offline and len(mine) > counts.n_sorted:
            mine, of_each = _alike_once(plan, mine, of_each, seen.positions)
        tokens = forecast(
            _all_traits(plan, mine, seen),
            np.searchsorted(mine, seen.positions[seen.is_countable]),
            of_each,
            _counter(counts, mine, seen),
            n=n,
            also=np.searchsorted(mine, first[_is_among(first, mine)]).tolist(),
        )
        name = plan.models[code]
        made.append(
            OfModel(
                name=name,
                positions=mine,
                repeats=of_each,
                max_tokens=plan.max_tokens[mine],
                tokens=tokens,
                seen=seen,
                shapes=shapes_of_model,
                rates=rates(name, at=at, prices=options.prices),
                has_own_marks=plan.has_marks(positions[of_model], beyond_system=options.cache_system),
                costs_more_for_place=plan.costs_more_for_place(positions[of_model]),
            )
        )
    return made


def _each_once(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different positions in ascending order, and how often each stands there."""
    if bool((np.diff(positions) > 0).all()):
        return positions, np.broadcast_to(np.int64(1), len(positions))
    return np.unique(positions, return_counts=True)


def _alike_once(
    plan: RequestPlan, positions: np.ndarray, repeats: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return one request for all that are alike, with how often they are sent together, and those `seen` by themselves.

    What was not looked at is known by its size alone, and of a million requests few have a size of their own.
    """
    is_seen = np.zeros(len(positions), bool)
    is_seen[np.searchsorted(positions, seen)] = True
    rest = positions[~is_seen]
    codes, sizes = pd.factorize(plan.text_bytes[rest])
    n = len(sizes)
    for column in (plan.media_tokens, plan.max_tokens):
        if column.min() < column.max():
            values, distinct = pd.factorize(column[rest])
            codes, kinds = pd.factorize(codes * len(distinct) + values)
            n = len(kinds)
    first = np.empty(n, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    together = np.bincount(codes, weights=repeats[~is_seen], minlength=n).astype(np.int64)
    made, sent = np.concatenate([positions[is_seen], rest[first]]), np.concatenate([repeats[is_seen], together])
    order = np.argsort(made)
    return made[order], sent[order]


def _is_among(wanted: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    places = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    found: np.ndarray = ascending[places] == wanted
    return found


def _counter(counts: _Counting, positions: np.ndarray, seen: Seen) -> Callable[[Sequence[int]], dict[int, int]]:
    n_bytes = dict(zip(seen.positions.tolist(), seen.n_bytes.tolist(), strict=True))

    def count(places: Sequence[int]) -> dict[int, int]:
        at = {int(positions[place]): int(place) for place in places}
        few = few_enough(at, n_bytes)
        return {at[position]: tokens for position, tokens in counts.tokens(few).items()}

    return count


def _worth_looking(plan: RequestPlan, positions: np.ndarray, shapes: np.ndarray, counts: _Counting) -> np.ndarray:
    """Return positions in the order in which they are worth a look: one of each shape, then spread over the sizes."""
    n_seen = counts.n_seen
    sizes = plan.text_bytes[positions]
    if len(positions) > counts.n_sorted:
        some = np.append(np.linspace(0, len(positions) - 1, counts.n_sorted).astype(np.int64), int(sizes.argmax()))
        positions, sizes = positions[some], sizes[some]
    by_size = positions[np.argsort(sizes, kind="stable")]
    n = len(by_size)
    # Multiples of the golden ratio: wherever the looking stops, what was looked at is spread evenly.
    steps = np.arange(min(3 * n_seen, 3 * n)) * 0.6180339887498949 % 1.0
    spread = by_size[np.minimum((steps * n).astype(np.int64), n - 1)]
    order = np.concatenate([shapes[:_MAX_SHAPES], by_size[-1:], by_size if n <= n_seen else spread])
    _, first = np.unique(order, return_index=True)
    return order[np.sort(first)][: max(n_seen, len(shapes[:_MAX_SHAPES]))]


def _all_traits(plan: RequestPlan, positions: np.ndarray, seen: Seen) -> Traits:
    """Return the traits of all requests: read where they were looked at, imputed in proportion elsewhere."""
    places = np.searchsorted(positions, seen.positions)
    text_bytes = plan.text_bytes[positions].astype(float)
    known_bytes = max(float(text_bytes[places].sum()), 1.0)
    columns = [text_bytes * (float(column.sum()) / known_bytes) for column in seen.traits.columns[:3]]
    columns += [np.full(len(positions), float(column.mean())) for column in seen.traits.columns[3:]]
    traits = Traits(*columns)
    traits.image_tokens[:] = plan.media_tokens[positions]
    for column, known in zip(traits.columns, seen.traits.columns, strict=True):
        column[places] = known
    return traits


# -------------------------------------------------------------------- the prompt cache


def _prefix(plan: RequestPlan, of: OfModel, counts: _Counting) -> Prefix | None:
    """
    Return the largest of what requests of a model have before their messages; None where none has a system prompt.

    `UNKNOWN_PREFIX` where there are too many to count.
    """
    import msgspec

    distinct: dict[bytes, Mapping[str, Any]] = {}
    for position in of.shapes.tolist():
        params = plan.shared_params(position)
        if params.get("system"):
            distinct[msgspec.json.encode(prefix_of(params))] = params
        if len(distinct) > _MAX_PREFIXES:
            return UNKNOWN_PREFIX
    prefixes = [counts.prefix(params) for params in distinct.values()]
    return max(prefixes, key=lambda prefix: prefix.high, default=None)


def _cache_forecast(of: OfModel, prefix: Prefix, *, is_bounded: bool) -> CacheForecast:
    cached, plain = Bounds(of, prefix), Bounds(of, None)
    is_priced = of.rates is not None
    return CacheForecast(
        model=of.name,
        prefix_tokens=prefix.tokens,
        minimum_tokens=minimum_cached_tokens(of.name),
        cost_usd_min=cached.low() if is_priced else None,
        cost_usd_max=cached.high() if is_bounded else None,
        cost_usd_min_without=plain.low() if is_priced else None,
        cost_usd_max_without=plain.high() if is_bounded else None,
    )
