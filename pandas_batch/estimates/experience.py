"""What earlier answers say about the next ones: how long they were, and so what the same question will cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .bounds import Bounds, OfModel


@dataclass(frozen=True)
class Experience:
    """
    What answers to the same prompt, or of the same model and schema, used.

    Attributes
    ----------
    n_answers
        How many answers it is of.
    output_tokens
        Of an answer, on average.
    web_searches
        Of an answer, on average.
    """

    n_answers: int
    output_tokens: float
    web_searches: float


def expected_usd(models: Sequence[OfModel], bounds: Sequence[Bounds], experience: Experience | None) -> float | None:
    """Return what requests would cost in batches if their answers were like those before; None where not known."""
    if experience is None or any(of.rates is None for of in models):
        return None
    n_requests = sum(int(of.repeats.sum()) for of in models)
    of_searches = sum(float(of.rates.web_search_usd) for of in models if of.rates is not None) / max(len(models), 1)
    of_tokens = sum(bound.expected(experience.output_tokens) for bound in bounds)
    return of_tokens + n_requests * experience.web_searches * of_searches if np.isfinite(of_tokens) else None
