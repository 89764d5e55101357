"""Faults: what may go wrong between a client and the server, as a plan that can change while the server runs.

Each fault is a small dataclass that says which calls (or rows) it hits, how often, and what happens then::

    api.faults.add(ErrorAnswer("create", 529, times=2))        # the next two creates are refused
    api.faults.add(LostAnswer("reset"))                        # the next create is done, its answer is not heard
    api.faults.add(RowFault("expired", share=0.1))             # a tenth of the rows
    api.faults.add(BadResults("cut", at_byte=1000))            # the next download ends early
    api.faults.clear()

The same plan is open to other processes as JSON, see `to_json` and ``/simulator/faults``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

__all__ = [
    "BadResults",
    "ErrorAnswer",
    "Fault",
    "FaultPlan",
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
ENDPOINTS: tuple[str, ...] = Endpoint.__args__  # type: ignore[attr-defined]


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

    Notes
    -----
    `times` counts batches. Of `share`, `marker` and `where` those given must all hold.
    """

    outcome: RowOutcome
    share: float = 1.0
    marker: str | None = None
    where: Callable[[dict[str, Any]], bool] | None = None
    kind: str = ""
    message: str = ""
    times: int | None = field(default=None, kw_only=True)


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
]


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
        ``"empty"`` (no lines at all).
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
    framing: Literal["chunked", "length", "close"] = "chunked"
    polite: bool = False
    reset: bool = False
    pause_s: float = 0.01
    text: str = "null"


_KINDS: dict[str, type[Fault]] = {
    cls.__name__: cls for cls in (ErrorAnswer, LostAnswer, Outage, ListLag, RowFault, BadResults)
}
_F = TypeVar("_F", bound=Fault)


def spend_cap(*, times: int | None = None) -> ErrorAnswer:
    """Return the 429 of a reached spend limit: no ``retry-after``, and no retry helps before next month."""
    message = "You have reached your API usage limits. Access will be restored at the start of next month."
    code = "enforced_spend_limit_reached"
    return ErrorAnswer("create", 429, "rate_limit_error", message, error_code=code, times=times)


def revoked_key(*, times: int | None = None) -> ErrorAnswer:
    """Return a 401 to every call from now on."""
    return ErrorAnswer("*", 401, times=times)


def to_json(fault: Fault) -> dict[str, Any]:
    """
    Return a fault as JSON, with its class as ``"fault"``.

    Examples
    --------
    >>> to_json(ListLag(30))["fault"]
    'ListLag'
    """
    data = {name: value for name, value in asdict(fault).items() if not name.startswith("_") and not callable(value)}
    return {"fault": type(fault).__name__, **data}


def from_json(data: dict[str, Any]) -> Fault:
    """
    Return the fault that such JSON describes.

    Raises
    ------
    ValueError
        When the class or a field is unknown.
    """
    data = dict(data)
    kind = _KINDS.get(str(data.pop("fault", "")))
    data.pop("hits", None)
    if kind is None:
        raise ValueError(f"fault: must be one of {', '.join(_KINDS)}")
    known = {one.name for one in fields(kind) if not one.name.startswith("_")} - {"where"}
    for name in data:
        if name not in known:
            raise ValueError(f"{name}: no such field of {kind.__name__}; it has {', '.join(sorted(known))}")
    try:
        return kind(**data)
    except TypeError as error:
        raise ValueError(str(error)) from None


class FaultPlan:
    """The faults in force. Safe to change from any thread at any time."""

    def __init__(self, *faults: Fault) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = list(faults)

    def __iter__(self) -> Iterator[Fault]:
        with self._lock:
            return iter(list(self._faults))

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, fault: _F) -> _F:
        """Add a fault and return it; its ``hits`` tell how often it struck."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Take a fault out."""
        with self._lock:
            self._faults = [one for one in self._faults if one is not fault]

    def clear(self) -> None:
        """Take all faults out."""
        with self._lock:
            self._faults = []

    def for_call(self, endpoint: str, batch_id: str, now_s: float) -> ErrorAnswer | LostAnswer | Outage | None:
        """Return the first fault that strikes this call."""
        with self._lock:
            for fault in self._faults:
                if not isinstance(fault, ErrorAnswer | LostAnswer | Outage) or fault.endpoint not in ("*", endpoint):
                    continue
                if isinstance(fault, Outage) and not fault.from_s <= now_s < fault.until_s:
                    continue
                if fault.strikes(batch_id):
                    return fault
        return None

    def for_download(self, batch_id: str) -> list[BadResults]:
        """Return what is to happen to one download of results."""
        with self._lock:
            return [fault for fault in self._faults if isinstance(fault, BadResults) and fault.strikes(batch_id)]

    def for_rows(self, batch_id: str) -> list[RowFault]:
        """Return what is to happen to the rows of one batch."""
        with self._lock:
            return [fault for fault in self._faults if isinstance(fault, RowFault) and fault.strikes(batch_id)]

    def list_lag_s(self) -> float:
        """Return for how long a new batch stays out of the list."""
        with self._lock:
            return max((fault.seconds for fault in self._faults if isinstance(fault, ListLag)), default=0.0)
