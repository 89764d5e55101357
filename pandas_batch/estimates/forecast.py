"""Input tokens of requests that have not been sent: some are counted, the rest follows from what can be seen of them.

Anthropic publishes no tokenizer, but counting a request is free
(https://platform.claude.com/docs/en/build-with-claude/token-counting). So about twenty requests are counted, the
largest and the oddest ones among them, and a small Bayesian regression of tokens on bytes carries the counts over to
the others. Its prior is the offline heuristic: with nothing counted, the forecast is that heuristic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

N_COUNTED = 20
"""Requests that are counted per estimate, shared by its models."""

# Claude's tokenizers turn 1,000 tokens into about 750 English words, those since Claude Opus 4.7 into about 555
# (https://platform.claude.com/docs/en/about-claude/models/overview): 4.5 and 3.3 bytes per token.
# Text in other scripts has 2 to 4 bytes per character and, mostly, one to two tokens per character.
_COEFFICIENTS = np.array([12.0, 0.24, 0.45, 0.42, 0.8, 1500.0, 25_000.0, 350.0])
_COEFFICIENT_SDS = np.array([30.0, 0.10, 0.25, 0.25, 0.4, 900.0, 25_000.0, 250.0])

# What the offline bounds allow. Rare words still have two letters per token; digits, signs and other scripts may fall
# to one token per byte, and no byte-level tokenizer makes more tokens than bytes. No image has more than 5,000 tokens,
# and an icon has next to none (https://platform.claude.com/docs/en/build-with-claude/vision). The pages of a PDF cannot
# be counted from here.
# The first entry of the lower bounds takes the JSON around a prompt off again, which is no input.
_UPPER = np.array([64.0, 0.5, 1.0, 1.0, 1.1, 5_000.0, np.inf, 1_000.0])
_LOWER = np.array([-25.0, 1 / 8, 1 / 6, 1 / 6, 0.25, 0.0, 500.0, 0.0])

_PRIOR_NOISE = 0.08
_PRIOR_NOISE_WEIGHT = 2.0
_N_SDS = 3.5
_FLOOR = 0.03
"""An extrapolation is never taken for better than this."""
_COUNT_SLACK = 0.02
"""Anthropic calls its counts an estimate that may differ from the bill by a small amount."""
_LONG_PROMPT_TOKENS = 50_000


@dataclass(frozen=True)
class Traits:
    """
    What can be seen of requests without a tokenizer: float arrays, one entry per request.

    Attributes
    ----------
    letters, signs, wide_bytes
        Bytes of text: ASCII letters and spaces, other ASCII (digits, punctuation), and everything else.
    image_tokens
        Upper bound of the tokens of images whose size is known.
    images, pdfs
        Number of images whose size is not known, and of PDF documents.
    extras
        1 where tools or a schema make the server add text of its own.
    """

    letters: np.ndarray
    signs: np.ndarray
    wide_bytes: np.ndarray
    image_tokens: np.ndarray
    images: np.ndarray
    pdfs: np.ndarray
    extras: np.ndarray

    def __len__(self) -> int:
        return len(self.letters)

    def take(self, at: np.ndarray) -> Traits:
        """Return the traits of the requests `at` these places."""
        return Traits(*(column[at] for column in self.columns))

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """All traits, those of the text first."""
        return (
            self.letters,
            self.signs,
            self.wide_bytes,
            self.image_tokens,
            self.images,
            self.pdfs,
            self.extras,
        )

    @property
    def text_bytes(self) -> np.ndarray:
        """Bytes of text of all three kinds."""
        text: np.ndarray = self.letters + self.signs + self.wide_bytes
        return text

    def matrix(self) -> np.ndarray:
        """Return the design matrix of the regression: a constant and the traits."""
        return np.column_stack([np.ones(len(self)), *self.columns])


@dataclass(frozen=True)
class Forecast:
    """
    Input tokens per request: a best guess and two bounds, and how many requests were counted for it.

    The bounds hold for the sum over the requests; they are given per request because prices depend on the request.
    ``high`` is infinite where nothing is known.
    """

    mid: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_counted: int


def choose_sample(traits: Traits, seen: np.ndarray, n: int, also: Sequence[int] = ()) -> list[int]:
    """
    Return the places of the requests to count: the oddest, and a spread in proportion to size.

    Parameters
    ----------
    traits
        Of all requests.
    seen
        Places whose traits were read from the request itself, not imputed: the sample is one of these.
    n
        How many to choose.
    also
        Places to include first, such as one of each shape; at most half of the sample.
    """
    if len(seen) <= n:
        return sorted(seen.tolist())
    some = traits.take(seen)
    size = some.matrix() @ _COEFFICIENTS
    text = some.text_bytes + 1.0
    known = set(seen.tolist())
    chosen = dict.fromkeys(place for place in also[: n // 2] if place in known)
    # A regression interpolates well and extrapolates badly: take the corners of what it will be asked for.
    signs, wide = some.signs / text, some.wide_bytes / text
    for rank in (size, -size, signs, -signs, wide, -wide, some.image_tokens, some.images, some.pdfs, some.extras):
        if rank.max() > rank.min():
            chosen.setdefault(int(seen[int(rank.argmax())]))
    order = np.argsort(size, kind="stable")
    reached = np.cumsum(size[order])
    n_spread = n
    while len(chosen) < n and n_spread <= 4 * n:
        # Large requests make the bill, so a request is chosen in proportion to its size.
        steps = (np.arange(n_spread) + 0.5) / n_spread * reached[-1]
        for place in seen[order[np.searchsorted(reached, steps).clip(0, len(seen) - 1)]].tolist():
            if len(chosen) < n:
                chosen.setdefault(int(place))
        n_spread *= 2
    return sorted(chosen)


def forecast(
    traits: Traits,
    seen: np.ndarray,
    repeats: np.ndarray,
    count: Callable[[Sequence[int]], dict[int, int]],
    *,
    n: int = N_COUNTED,
    also: Sequence[int] = (),
) -> Forecast:
    """
    Forecast the input tokens of requests of one model.

    Parameters
    ----------
    traits
        Of all requests; for those not in `seen` the mean share of the others is imputed.
    seen
        Places whose traits are exact.
    repeats
        How often each request is sent.
    count
        Returns tokens by place, for those of the given places that could be counted.
    n
        How many to count.
    also
        Places to count first.

    Returns
    -------
    Forecast
    """
    counted = count(choose_sample(traits, seen, n, also)) if n else {}
    if not counted:
        return _uncounted(traits)
    design = traits.matrix()
    at = np.array(sorted(counted), np.int64)
    tokens = np.array([counted[int(place)] for place in at], float)
    mid, spread, noise = _regress(design, at, tokens)
    rest = np.ones(len(traits), bool)
    rest[at] = False
    mid[at] = tokens
    total = float((mid * repeats)[rest].sum())
    margin = 0.0
    if rest.any():
        weights = np.where(rest, repeats, 0).astype(float)
        of_coefficients = float(np.sqrt(max((weights @ design) @ spread @ (weights @ design), 0.0)))
        of_requests = noise * float(np.sqrt(((weights * mid) ** 2).sum()))
        of_unseen = _unseen_error(traits, seen) * total
        margin = _N_SDS * float(np.hypot(np.hypot(of_coefficients, of_requests), of_unseen)) + _FLOOR * total
    factor = margin / total if total > 0 else 0.0
    up = np.where(rest, factor, 0.0) + _COUNT_SLACK
    # The price of a request may step with its length, so a long one has to be bounded by itself, not in the mean.
    up = np.where(rest & (mid > _LONG_PROMPT_TOKENS), np.maximum(up, _N_SDS * noise + _FLOOR), up)
    down = np.minimum(up, 0.95)
    return Forecast(mid, mid * (1.0 - down), mid * (1.0 + up) + 1.0, len(at))


def _uncounted(traits: Traits) -> Forecast:
    """Return the heuristic, column by column: of a million rows the matrix alone would take 64 MB."""
    mid, low, high = (np.full(len(traits), coefficients[0]) for coefficients in (_COEFFICIENTS, _LOWER, _UPPER))
    for i, column in enumerate(traits.columns, 1):
        present = column > 0
        if present.any():
            mid += column * _COEFFICIENTS[i]
            low += column * _LOWER[i]
            high[present] += column[present] * _UPPER[i]
    return Forecast(mid, np.maximum(low, 1.0), high, 0)


def _regress(design: np.ndarray, at: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the tokens of every request, the covariance of the coefficients, and the relative noise of a request."""
    precision = np.diag(1.0 / _COEFFICIENT_SDS**2)
    expected = design[at] @ _COEFFICIENTS
    noise = _PRIOR_NOISE
    for _ in range(6):
        # The noise of a request grows with its size: divided by the size, all requests are equally noisy. (By the
        # expected size: divided by the counted one, requests that came out large by chance would weigh too little.)
        x = design[at] / expected[:, None]
        y = tokens / expected
        spread = np.linalg.inv(precision + x.T @ x / noise**2)
        coefficients = spread @ (precision @ _COEFFICIENTS + x.T @ y / noise**2)
        residual = y - x @ coefficients
        # The residuals of few requests lie too close to their own fit; they count as the degrees of freedom they are.
        n_free = max(len(at) - int(np.linalg.matrix_rank(x)), 0)
        squares = float(residual @ residual) if n_free else 0.0
        noise = float(np.sqrt((_PRIOR_NOISE_WEIGHT * _PRIOR_NOISE**2 + squares) / (_PRIOR_NOISE_WEIGHT + n_free)))
        expected = np.maximum(design[at] @ coefficients, np.maximum(design[at] @ _LOWER, 1.0))
    floor = np.maximum(design @ _LOWER, 1.0)
    return np.maximum(design @ coefficients, floor), spread, noise


def _unseen_error(traits: Traits, seen: np.ndarray) -> float:
    """Return the relative standard error of imputing the traits of requests that were not looked at."""
    if len(seen) == len(traits):
        return 0.0
    some = traits.take(seen)
    size = some.matrix() @ _COEFFICIENTS
    text = some.text_bytes
    off = size - text * (size.sum() / max(text.sum(), 1.0))
    return float(np.sqrt((off**2).mean()) / max(size.mean(), 1.0) / np.sqrt(len(seen)))
