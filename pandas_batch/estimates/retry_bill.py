"""What requests that are written down already would cost: the bill of a retry."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from pandas_batch.requests.spending import costs_more_for_place, open_ended, open_ended_betas
from pandas_batch.results.pricing import rates

from .bill import Estimate
from .bounds import Bounds, OfModel
from .counting import count_bodies, few_enough, look_at_bodies
from .forecast import N_COUNTED, forecast
from .summing import added_up, unbounded_by

if TYPE_CHECKING:
    from pandas_batch.requests.options import Options
    from pandas_batch.wire.wire import Wire

LIMIT_S = 10.0
"""Seconds for all counting together."""


def _heads(bodies: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return the params of each request less its messages."""
    fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
    decode = msgspec.json.decode
    return [
        {name: decode(value) for name, value in fields.decode(body).items() if name != "messages"} for body in bodies
    ]


def estimate_bodies(bodies: Sequence[bytes], *, options: Options, wire: Wire | None, at: datetime) -> Estimate:
    """
    Estimate the bill of requests that are written down already. Nothing is spent.

    Parameters
    ----------
    bodies
        The params of each request as JSON.
    options
        Of the call that sends them: its prices and betas.
    wire
        Where tokens are counted; None: nowhere.
    at
        Date of the prices.

    Returns
    -------
    Estimate

    Examples
    --------
    >>> from datetime import UTC
    >>> from pandas_batch.requests.options import parse_options
    >>> body = b'{"model":"mine","max_tokens":10,"messages":[{"role":"user","content":"Hi"}]}'
    >>> options = parse_options({"prices": {"mine": (1, 5)}})
    >>> told = estimate_bodies([body, body], options=options, wire=None, at=datetime(2026, 11, 23, tzinfo=UTC))
    >>> told.requests, told.output_tokens_max
    (2, 20)
    """
    heads = _heads(bodies)
    until_s = time.monotonic() + LIMIT_S
    models = []
    for name in sorted({head["model"] for head in heads}):
        mine = [body for body, head in zip(bodies, heads, strict=True) if head["model"] == name]
        models.append(
            _of_model(name, mine, [head for head in heads if head["model"] == name], options, wire, at, until_s)
        )
    phrases = [phrase for head in heads for phrase in open_ended(head)]
    return added_up(
        models,
        [Bounds(of, None) for of in models],
        unbounded_by(models, is_unbounded=False, open_ended=[*phrases, *open_ended_betas(options.betas)]),
        rows=len(bodies),
        requests=len(bodies),
        reused=0,
        batches=1,
        bytes=sum(map(len, bodies)),
    )


def _of_model(
    name: str,
    bodies: Sequence[bytes],
    heads: Sequence[Mapping[str, Any]],
    options: Options,
    wire: Wire | None,
    at: datetime,
    until_s: float,
) -> OfModel:
    seen = look_at_bodies(bodies)
    each_once = np.ones(len(bodies), np.int64)

    def count(places: Sequence[int]) -> dict[int, int]:
        if wire is None:
            return {}
        few = few_enough(places, dict(enumerate(map(len, bodies))))
        left_s = max(until_s - time.monotonic(), 0.1)
        return count_bodies(bodies, few, wire, betas=options.betas, limit_s=left_s)

    n = 0 if wire is None else N_COUNTED
    return OfModel(
        name=name,
        positions=seen.positions,
        repeats=each_once,
        max_tokens=np.array([head["max_tokens"] for head in heads], np.int64),
        tokens=forecast(seen.traits, np.flatnonzero(seen.is_countable), each_once, count, n=n),
        seen=seen,
        shapes=seen.positions[:0],
        rates=rates(name, at=at, prices=options.prices),
        has_own_marks=bool(seen.n_marks.any()),
        costs_more_for_place=any(costs_more_for_place(head.get("inference_geo")) for head in heads),
    )
