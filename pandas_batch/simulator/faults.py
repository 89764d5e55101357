"""Faults: what may go wrong between a client and the server, as a plan that can change while the server runs.

Each fault is a small dataclass that says which calls (or rows) it hits, how often, and what happens then::

    api.faults.add(ErrorAnswer("create", 529, times=2))        # the next two creates are refused
    api.faults.add(LostAnswer("reset"))                        # the next create is done, its answer is not heard
    api.faults.add(RowFault("expired", share=0.1))             # a tenth of the rows
    api.faults.add(BadResults("cut", at_byte=1000))            # the next download ends early
    api.faults.clear()

The plan itself, and its form as JSON for other processes, is in `pandas_batch.simulator.plan`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

__all__ = [
    "BadResults",
    "Delay",
    "ErrorAnswer",
    "Fault",
    "ForeignResultsUrl",
    "ListLag",
    "LostAnswer",
    "Outage",
    "RowFault",
    "revoked_key",
    "spend_cap",
]

Endpoint = Literal[
    "*", "create", "retrieve", "list", "cancel", "delete", "results", "count_tokens", "messages", "models", "model"
]


def _check(name: str, value: object, choices: Any) -> None:
    """Refuse a misspelled word: such a fault would never strike, and its test would prove nothing."""
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, get_args(choices)))}")


@dataclass(kw_only=True)
class Fault:
    """
    What all faults share.

    Attributes
    ----------
    times
        How many calls it hits, after which it is spent; None: every one.
    skip
        How many calls it lets pass first.
    each_batch
        Count `times` and `skip` for every batch on its own.
    hits
        How often it has struck so far.
    """

    times: int | None = 1
    skip: int = 0
    each_batch: bool = False
    hits: int = field(default=0, compare=False)
    _seen: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def strikes(self, batch_id: str) -> bool:
        """Count one call that it could hit, and say whether it does."""
        key = batch_id if self.each_batch else ""
        n_before = self._seen.get(key, 0)
        self._seen[key] = n_before + 1
        if n_before < self.skip or (self.times is not None and n_before >= self.skip + self.times):
            return False
        self.hits += 1
        return True

    @property
    def spent(self) -> bool:
        """Whether it can never strike again."""
        return self.times is not None and not self.each_batch and self._seen.get("", 0) >= self.skip + self.times


@dataclass
class ErrorAnswer(Fault):
    """
    The call is answered with an HTTP error.

    Parameters
    ----------
    endpoint
        Which calls: ``"create"``, ``"retrieve"``, ``"list"``, ``"cancel"``, ``"delete"``, ``"results"``,
        ``"count_tokens"``, ``"messages"``, ``"models"``, ``"model"``, or ``"*"``.
    status
        The HTTP status.
    kind, message
        Type and text of the error; by default what the API says with that status.
    retry_after
        Value of a ``retry-after`` header.
    error_code
        Goes into the error's ``details``, as a spend cap does.
    committed
        Whether the server did what it was asked to before it failed.
    body, content_type
        A body of any kind in place of the API's JSON, such as a proxy's page.

    Examples
    --------
    >>> ErrorAnswer("create", 529, times=2).spent
    False
    """

    endpoint: Endpoint
    status: int
    kind: str = ""
    message: str = ""
    retry_after: str | None = None
    error_code: str | None = None
    committed: bool = False
    body: str | None = None
    content_type: str = "application/json"

    def __post_init__(self) -> None:
        _check("endpoint", self.endpoint, Endpoint)


Loss = Literal["reset", "close", "cut", "stall", "html", "empty_object", "bad_json", "redirect_302", "redirect_307"]


@dataclass
class LostAnswer(Fault):
    """
    The call is heard, its answer never arrives as it should.

    Parameters
    ----------
    how
        ``"reset"`` (TCP reset), ``"close"`` (closed without a byte), ``"cut"`` (closed in the middle of the body),
        ``"stall"`` (silence), ``"html"`` (200 and a portal's page), ``"empty_object"`` (200 and ``{}``),
        ``"bad_json"``, ``"redirect_302"``, ``"redirect_307"``.
    endpoint
        Which calls.
    committed
        Whether the server did what it was asked to.
    late_s
        A create is committed so many seconds (of the server's clock) after its connection died.
    stall_s
        How long a ``"stall"`` lasts, in real seconds.
    location
        Where a redirect points; by default to the same address.
    """

    how: Loss
    endpoint: Endpoint = "create"
    committed: bool = True
    late_s: float = 0.0
    stall_s: float = 3600.0
    location: str | None = None

    def __post_init__(self) -> None:
        _check("how", self.how, Loss)
        _check("endpoint", self.endpoint, Endpoint)


@dataclass
class Delay(Fault):
    """The answer is right, and comes so many real seconds late."""

    endpoint: Endpoint
    seconds: float

    def __post_init__(self) -> None:
        _check("endpoint", self.endpoint, Endpoint)


@dataclass
class Outage(Fault):
    """
    Nothing is answered from one moment of the server's clock to another.

    Parameters
    ----------
    until_s
        Unix seconds at which it ends.
    from_s
        Unix seconds at which it begins.
    how
        A status to answer with, or ``"reset"``.
    endpoint
        Which calls.
    """

    until_s: float
    from_s: float = 0.0
    how: int | Literal["reset"] = "reset"
    endpoint: Endpoint = "*"
    times: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.how, int):
            _check("how", self.how, Literal["reset"])
        _check("endpoint", self.endpoint, Endpoint)


@dataclass
class ForeignResultsUrl(Fault):
    """Batches name a ``results_url`` on another host."""

    base_url: str
    times: int | None = field(default=None, kw_only=True)


@dataclass
class ListLag(Fault):
    """A new batch is missing from the list for its first seconds (of the server's clock)."""

    seconds: float
    times: int | None = field(default=None, kw_only=True)


RowOutcome = Literal[
    "errored",
    "expired",
    "canceled",
    "overloaded",
    "api_error",
    "refused",
    "refused_early",
    "truncated",
    "paused",
    "invalid_json",
    "no_text",
]


@dataclass
class RowFault(Fault):
    """
    Rows that do not get their answer. What a batch's rows come to is settled when its end is first asked for.

    Parameters
    ----------
    outcome
        ``"errored"`` (an invalid request, or `kind`), ``"overloaded"``, ``"api_error"``, ``"expired"``, ``"canceled"``;
        and of those that succeed: ``"refused"`` (after some text), ``"refused_early"`` (before any, not billed),
        ``"truncated"`` (at max_tokens), ``"paused"``, ``"invalid_json"`` (breaks the schema), ``"no_text"``.
    share
        This share of the rows, drawn by the seed.
    marker
        The rows whose request holds this text.
    where
        The rows for whose params this function returns True.
    kind, message
        Type and text of the error of ``"errored"`` rows.
    asked
        Which rows: those of batches (``"batch"``), those asked one by one through the Messages API (``"live"``), or
        both.

    Notes
    -----
    `times` counts batches, and messages asked live. Of `share`, `marker` and `where` those given must all hold. A
    message asked live never expires, nor is it canceled: those outcomes leave it alone.
    """

    outcome: RowOutcome
    share: float = 1.0
    marker: str | None = None
    where: Callable[[dict[str, Any]], bool] | None = None
    kind: str = ""
    message: str = ""
    asked: Literal["both", "batch", "live"] = "both"
    times: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check("outcome", self.outcome, RowOutcome)
        _check("asked", self.asked, Literal["both", "batch", "live"])


Damage = Literal[
    "cut",
    "missing",
    "doubled",
    "doubled_differently",
    "unknown_id",
    "junk",
    "blank",
    "crlf",
    "bom",
    "stall",
    "slow",
    "empty",
    "gzip",
]


Framing = Literal["chunked", "length", "close"]


@dataclass
class BadResults(Fault):
    """
    A download of results that is not what it should be.

    Parameters
    ----------
    damage
        ``"cut"`` (ends at `at_byte`, or after `n_rows` rows), ``"missing"``, ``"doubled"``, ``"doubled_differently"``
        (each for `n_rows` rows), ``"unknown_id"``, ``"junk"``, ``"blank"`` (`n_rows` lines of it put in), ``"crlf"``,
        ``"bom"``, ``"stall"`` (silence after `at_byte`), ``"slow"`` (a pause after every `at_byte` bytes),
        ``"empty"`` (no lines at all), ``"gzip"`` (compressed, although nobody may have asked).
    at_byte
        Position in the body; negative counts from its end.
    n_rows
        How many rows.
    framing
        How the body is framed: ``"chunked"``, ``"length"``, ``"close"``.
    polite
        A cut body is ended as if it were whole (no broken framing).
    reset
        A cut is a TCP reset.
    pause_s
        Length of a stall or pause in real seconds.
    text
        The junk.
    """

    damage: Damage
    at_byte: int | None = None
    n_rows: int | None = None
    framing: Framing = "chunked"
    polite: bool = False
    reset: bool = False
    pause_s: float = 0.01
    text: str = "null"

    def __post_init__(self) -> None:
        _check("damage", self.damage, Damage)
        _check("framing", self.framing, Framing)


def spend_cap(*, times: int | None = None, skip: int = 0) -> ErrorAnswer:
    """Return the 429 of a reached spend limit: no ``retry-after``, and no retry helps before next month."""
    message = "You have reached your API usage limits. Access will be restored at the start of next month."
    code = "enforced_spend_limit_reached"
    return ErrorAnswer("create", 429, "rate_limit_error", message, error_code=code, times=times, skip=skip)


def revoked_key(*, times: int | None = None) -> ErrorAnswer:
    """Return a 401 to every call from now on."""
    return ErrorAnswer("*", 401, times=times)
