"""Single labels as JSON: what JSON knows stands plain, everything else is a tagged object."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd


def to_tagged(value: Any) -> Any:
    """
    Return a JSON value that `from_tagged` turns back into `value`.

    A subclass from elsewhere becomes what it is a kind of; what is of no known kind keeps its text only.

    Examples
    --------
    >>> to_tagged(("a", 1))
    {'is': 'tuple', 'of': ['a', 1]}
    """
    kind = type(value)
    if value is None or kind in (str, bool, int):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"is": "float", "of": repr(value)}
    for tag, of_kind, encode in _ENCODERS:
        if isinstance(value, of_kind) and type(value).__module__.partition(".")[0] in _TRUSTED_MODULES:
            return {"is": tag, "of": encode(value)}
    if value is pd.NA:
        return {"is": "NA"}
    # Somebody's own kind of text, number or tuple: what it is equal to, rather than how it prints.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return to_tagged(float.__float__(value))
    if isinstance(value, tuple):
        return {"is": "tuple", "of": _items(value)}
    return {"is": "text", "of": str(value)}


def from_tagged(value: Any) -> Any:
    """Return what `to_tagged` was given."""
    if not isinstance(value, dict):
        return value
    tag = value["is"]
    if tag == "NA":
        return pd.NA
    return _DECODERS[tag](value.get("of"))


# Subclasses of other packages become text rather than something that only looks like them.
_TRUSTED_MODULES = frozenset(
    ["builtins", "datetime", "decimal", "uuid", "zoneinfo", "numpy", "pandas", "pytz", "dateutil", "zoneinfo._zoneinfo"]
)


def _zone(zone: tzinfo) -> list[Any]:
    key = getattr(zone, "key", None)
    if isinstance(zone, ZoneInfo) and key:
        return ["zoneinfo", key]
    name = getattr(zone, "zone", None)
    if name and type(zone).__module__.startswith("pytz"):
        return ["pytz", str(name)]
    if isinstance(zone, timezone):
        return ["fixed", zone.utcoffset(None).total_seconds()]
    offset = zone.utcoffset(None)
    if offset is not None:
        return ["fixed", offset.total_seconds()]
    return ["named", str(pd.DatetimeTZDtype("ns", zone).tz)]


def _zone_back(parts: list[Any]) -> Any:
    kind, value = parts
    if kind == "zoneinfo":
        return ZoneInfo(value)
    if kind == "fixed":
        return timezone.utc if value == 0 else timezone(timedelta(seconds=value))  # noqa: UP017 - pandas compares it
    if kind == "pytz":
        try:
            import pytz  # type: ignore[import-untyped,unused-ignore]  # types-pytz may be there
        except ImportError:
            return ZoneInfo(value)
        return pytz.timezone(value)
    return value


def _timestamp(value: pd.Timestamp) -> list[Any]:
    return [value.asm8.astype("i8").item(), value.unit, None if value.tzinfo is None else _zone(value.tzinfo)]


def _timestamp_back(parts: list[Any]) -> Any:
    count, unit, zone = parts
    stamp = pd.Timestamp(np.datetime64(count, unit))
    return stamp if zone is None else stamp.tz_localize("UTC").tz_convert(_zone_back(zone))


def _scalar(value: np.generic) -> list[str]:
    return [value.dtype.str, base64.b64encode(value.tobytes()).decode()]


def _scalar_back(parts: list[str]) -> Any:
    return np.frombuffer(base64.b64decode(parts[1]), dtype=np.dtype(parts[0]))[0]


def _items(values: Any) -> list[Any]:
    return [to_tagged(value) for value in values]


def _list_back(values: list[Any]) -> list[Any]:
    return [from_tagged(value) for value in values]


# In this order: a Timestamp is also a datetime, a datetime also a date, np.float64 also a float.
_ENCODERS: tuple[tuple[str, Any, Callable[[Any], Any]], ...] = (
    ("NaT", type(pd.NaT), lambda v: None),
    ("scalar", np.generic, _scalar),
    ("Timestamp", pd.Timestamp, _timestamp),
    ("Timedelta", pd.Timedelta, lambda v: [v.asm8.astype("i8").item(), v.unit]),
    ("Period", pd.Period, lambda v: [v.ordinal, v.freqstr]),
    ("Interval", pd.Interval, lambda v: [to_tagged(v.left), to_tagged(v.right), v.closed]),
    ("datetime", datetime, lambda v: [v.replace(tzinfo=None).isoformat(), v.fold, v.tzinfo and _zone(v.tzinfo)]),
    ("date", date, date.isoformat),
    ("time", time, lambda v: [v.replace(tzinfo=None).isoformat(), v.fold, v.tzinfo and _zone(v.tzinfo)]),
    ("timedelta", timedelta, lambda v: [v.days, v.seconds, v.microseconds]),
    ("zone", tzinfo, _zone),
    ("Decimal", Decimal, str),
    ("UUID", UUID, str),
    ("bytes", bytes, lambda v: base64.b64encode(v).decode()),
    ("complex", complex, repr),
    ("tuple", tuple, _items),
    ("list", list, _items),
    ("frozenset", frozenset, lambda v: sorted(_items(v), key=repr)),
)

_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "NaT": lambda _: pd.NaT,
    "scalar": _scalar_back,
    "Timestamp": _timestamp_back,
    "Timedelta": lambda v: pd.Timedelta(np.timedelta64(v[0], v[1])),
    "Period": lambda v: pd.Period(ordinal=v[0], freq=v[1]),
    "Interval": lambda v: pd.Interval(from_tagged(v[0]), from_tagged(v[1]), v[2]),
    "datetime": lambda v: datetime.fromisoformat(v[0]).replace(
        fold=v[1], tzinfo=None if v[2] is None else _zone_back(v[2])
    ),
    "date": date.fromisoformat,
    "time": lambda v: time.fromisoformat(v[0]).replace(fold=v[1], tzinfo=None if v[2] is None else _zone_back(v[2])),
    "timedelta": lambda v: timedelta(*v),
    "zone": _zone_back,
    "Decimal": Decimal,
    "UUID": UUID,
    "bytes": base64.b64decode,
    "complex": complex,
    "tuple": lambda v: tuple(_list_back(v)),
    "list": _list_back,
    "frozenset": lambda v: frozenset(_list_back(v)),
    "float": float,
    "text": str,
}
