"""The estimates of several models, added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pandas_batch.amounts import number

from .bill import Estimate
from .bounds import Bounds, OfModel
from .experience import Experience, expected_usd

OFFLINE_BASIS = (
    "not counted but guessed from the bytes, at about 4 letters or 2 digits or signs per token; the bounds allow "
    "2 to 8 letters, and 1 to 6 bytes of anything else"
)


def added_up(
    models: Sequence[OfModel],
    bounds: Sequence[Bounds],
    unbounded: tuple[str, ...],
    *,
    experience: Experience | None = None,
    **told: Any,
) -> Estimate:
    """
    Return the estimate of all models together.

    Parameters
    ----------
    models, bounds
        What is known of the requests of each model, and the ends of their bill.
    unbounded
        As `unbounded_by` tells it.
    experience
        What earlier answers used.
    told
        The fields of the estimate that are known without adding.
    """
    unpriced = tuple(of.name for of in models if of.rates is None)
    is_bounded = not unpriced and not unbounded
    return Estimate(
        input_tokens=_sum(models, "mid"),
        input_tokens_low=_sum(models, "low"),
        input_tokens_high=None if unbounded else _sum(models, "high"),
        output_tokens_max=int(sum(int((of.max_tokens * of.repeats).sum()) for of in models)),
        cost_usd_min=None if unpriced else sum(bound.low() for bound in bounds),
        cost_usd_max=sum(bound.high() for bound in bounds) if is_bounded else None,
        cost_usd_standard=sum(bound.high(standard=True) for bound in bounds) if is_bounded else None,
        cost_usd_expected=expected_usd(models, bounds, experience),
        n_answers=0 if experience is None else experience.n_answers,
        models=tuple(of.name for of in models),
        unpriced=unpriced,
        unbounded=unbounded,
        basis=_basis(models),
        **told,
    )


def unbounded_by(models: Sequence[OfModel], *, is_unbounded: bool, open_ended: Sequence[str] = ()) -> tuple[str, ...]:
    """
    Say why the cost cannot be bounded; nothing where it is.

    Parameters
    ----------
    is_unbounded
        Whether there may be requests among those that were not looked at whose input is elsewhere.
    open_ended
        What else is known to have no bound.
    """
    reasons = list(dict.fromkeys(open_ended))
    far = "images or documents are given as URL or file id"
    if any(of.seen.is_away.any() for of in models):
        reasons.append(far)
    if not reasons and any(not np.isfinite(of.tokens.high).all() for of in models):
        reasons.append("the pages of PDF documents were not counted")
    if not reasons and is_unbounded and any(len(of.seen.positions) < len(of.positions) for of in models):
        reasons.append(f"{far}, or are PDF documents whose pages were not counted")
    return tuple(reasons)


def _sum(models: Sequence[OfModel], name: str) -> int:
    total = sum(float((getattr(of.tokens, name) * of.repeats).sum()) for of in models)
    return int(np.floor(total) if name == "low" else np.ceil(total) if name == "high" else round(total))


def _basis(models: Sequence[OfModel]) -> str:
    n = sum(len(of.positions) for of in models)
    n_counted = sum(of.tokens.n_counted for of in models)
    if not n:
        return ""
    if not n_counted:
        return OFFLINE_BASIS
    if n_counted == n:
        return "counted on the one request" if n == 1 else f"counted on all {number(n)} requests"
    return f"counted on {number(n_counted)} of {number(n)} requests, the others by their bytes"
