"""The faults in force, and their form as JSON."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any, TypeVar

from .faults import BadResults, Delay, ErrorAnswer, Fault, ForeignResultsUrl, ListLag, LostAnswer, Outage, RowFault

__all__ = ["FaultPlan", "from_json", "to_json"]

_KINDS: dict[str, type[Fault]] = {
    cls.__name__: cls
    for cls in (ErrorAnswer, LostAnswer, Delay, Outage, ForeignResultsUrl, ListLag, RowFault, BadResults)
}
_F = TypeVar("_F", bound=Fault)


def to_json(fault: Fault) -> dict[str, Any]:
    """
    Return a fault as JSON, with its class as ``"fault"``.

    Examples
    --------
    >>> from pandas_batch.simulator import ListLag
    >>> to_json(ListLag(30))["fault"]
    'ListLag'
    """
    # A function cannot travel; what it picked has to be said with a marker or a share.
    data = {name: value for name, value in asdict(fault).items() if not name.startswith("_") and name != "where"}
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

    def delay_s(self, endpoint: str, batch_id: str) -> float:
        """Return how long the answer to this call is held back."""
        with self._lock:
            return sum(
                fault.seconds
                for fault in self._faults
                if isinstance(fault, Delay) and fault.endpoint in ("*", endpoint) and fault.strikes(batch_id)
            )

    def for_download(self, batch_id: str) -> list[BadResults]:
        """Return what is to happen to one download of results."""
        with self._lock:
            return [fault for fault in self._faults if isinstance(fault, BadResults) and fault.strikes(batch_id)]

    def for_rows(self, batch_id: str) -> list[RowFault]:
        """Return what is to happen to the rows of one batch."""
        with self._lock:
            faults = [fault for fault in self._faults if isinstance(fault, RowFault) and fault.asked != "live"]
            return [fault for fault in faults if fault.strikes(batch_id)]

    def for_message(self) -> list[RowFault]:
        """Return what is to happen to one message that is asked live."""
        with self._lock:
            faults = [fault for fault in self._faults if isinstance(fault, RowFault) and fault.asked != "batch"]
            faults = [fault for fault in faults if fault.outcome not in ("expired", "canceled")]
            return [fault for fault in faults if fault.strikes("")]

    def results_base_url(self, base_url: str) -> str:
        """Return where batches say that their results are."""
        with self._lock:
            foreign = [fault for fault in self._faults if isinstance(fault, ForeignResultsUrl)]
        return foreign[-1].base_url if foreign else base_url

    def list_lag_s(self) -> float:
        """Return for how long a new batch stays out of the list."""
        with self._lock:
            return max((fault.seconds for fault in self._faults if isinstance(fault, ListLag)), default=0.0)
