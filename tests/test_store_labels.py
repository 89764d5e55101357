"""Whatever index a frame has, the store gives the same one back, and no pickle is involved."""

from __future__ import annotations

import pickle
import zoneinfo
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandas_batch.store.label_values import from_tagged, to_tagged
from pandas_batch.store.labels import read_index, write_index

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
STRING_WITH_NAN = "str" if pd.__version__ >= "3" else "string[pyarrow_numpy]"
DAY = pd.Timestamp("2026-03-29")

INDEXES: dict[str, Callable[[], pd.Index]] = {
    "range": lambda: pd.RangeIndex(5, 50, 7, name="n"),
    "empty range": lambda: pd.RangeIndex(0),
    "int64": lambda: pd.Index([3, 1, 2]),
    "duplicates": lambda: pd.Index([1, 1, 1, 2]),
    "uint8": lambda: pd.Index(np.array([1, 255], np.uint8)),
    "float with NaN": lambda: pd.Index([1.5, np.nan, -0.0, np.inf]),
    "float32": lambda: pd.Index(np.array([0.1, 2], np.float32)),
    "complex": lambda: pd.Index([1 + 2j, 3]),
    "bool": lambda: pd.Index([True, False]),
    "str": lambda: pd.Index(["a", "ü", "", "a"], name="word"),
    "str with NaN": lambda: pd.Index(["a", None, "b"], dtype=STRING_WITH_NAN),
    "string NA": lambda: pd.Index(["a", pd.NA], dtype="string"),
    "string python": lambda: pd.Index(["a", pd.NA], dtype="string[python]"),
    "lone surrogate": lambda: pd.Index(["a", "\ud83d"], dtype=object),
    "lone surrogate in strings": lambda: pd.Index(["a", "\ud83d", None], dtype="string[python]"),
    "empty object": lambda: pd.Index([], dtype=object),
    "empty str": lambda: pd.Index([], dtype="string"),
    "mixed": lambda: pd.Index([1, "1", 1.0, None, np.nan, pd.NA, pd.NaT, True, b"b"], dtype=object),
    "big ints": lambda: pd.Index([2**70, -(2**64)], dtype=object),
    "tuples": lambda: pd.Index([("a", 1), ("b", (2, None))], tupleize_cols=False),
    "dates": lambda: pd.Index([date(2026, 1, 1), time(3, 4, 5, 6), datetime(2026, 1, 1, fold=1)], dtype=object),
    "zoned datetimes": lambda: pd.Index(
        [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=BERLIN), timedelta(1, 2, 3)], dtype=object
    ),
    "decimals": lambda: pd.Index([Decimal("1.10"), Decimal("NaN"), UUID(int=7)], dtype=object),
    "scalars": lambda: pd.Index([np.float32(1.5), np.int8(3), np.datetime64("2026-01-01", "s")], dtype=object),
    "pandas scalars": lambda: pd.Index(
        [
            pd.Timestamp("2026-01-01 00:00:00.123456789"),
            pd.Timestamp("2026-01-01", tz="Asia/Tokyo"),
            pd.Timedelta(1, "ns"),
            pd.Period("2026-01", "M"),
            pd.Interval(0, 1, "both"),
        ],
        dtype=object,
    ),
    "sets": lambda: pd.Index([frozenset({1, 2}), 3j, float("inf")], dtype=object),
    "datetime": lambda: pd.DatetimeIndex(["2026-01-01", None, "2026-01-01"]),
    "datetime seconds": lambda: pd.DatetimeIndex(np.array(["2026-01-01", "1200-01-01"], "M8[s]")),
    "datetime freq": lambda: pd.date_range("2026-01-01", periods=4, freq="D", name="day"),
    "datetime zone": lambda: pd.date_range(DAY, periods=30, freq="h", tz="Europe/Berlin"),
    "datetime zoneinfo": lambda: pd.date_range(DAY, periods=3, tz=BERLIN),
    "datetime utc": lambda: pd.DatetimeIndex(["2026-01-01", None], tz="UTC"),
    "datetime fixed": lambda: pd.DatetimeIndex(["2026-01-01"], tz=timezone(timedelta(hours=5, minutes=30))),
    "timedelta": lambda: pd.timedelta_range("1h", periods=3, freq="2h"),
    "timedelta NaT": lambda: pd.TimedeltaIndex(["1h", None]),
    "period": lambda: pd.PeriodIndex(["2026-01", None, "2026-01"], freq="M"),
    "interval": lambda: pd.interval_range(0, 3, closed="left", name="span"),
    "interval of times": lambda: pd.IntervalIndex.from_breaks(pd.date_range("2026-01-01", periods=3, tz="UTC")),
    "interval with NaN": lambda: pd.IntervalIndex.from_tuples([(0.0, 1.0), np.nan]),
    "categorical": lambda: pd.CategoricalIndex(["b", None, "a", "b"], categories=["b", "a", "unused"], ordered=True),
    "categorical of dates": lambda: pd.CategoricalIndex(pd.date_range("2026-01-01", periods=2)),
    "Int64": lambda: pd.Index([1, None, 2**62 + 1], dtype="Int64"),
    "UInt8": lambda: pd.Index([1, 2], dtype="UInt8"),
    "Float64": lambda: pd.Index([1.5, None], dtype="Float64"),
    "boolean": lambda: pd.Index([True, None], dtype="boolean"),
    "arrow string": lambda: pd.Index(["a", None], dtype=pd.ArrowDtype(pa.string())),
    "arrow decimal": lambda: pd.Index([Decimal("1.25")], dtype=pd.ArrowDtype(pa.decimal128(5, 2))),
    "arrow timestamp": lambda: pd.Index([pd.Timestamp("2026-01-01", tz="UTC")], dtype="timestamp[us, tz=UTC][pyarrow]"),
    "multi": lambda: pd.MultiIndex.from_product([["a", "b"], [1, 2], [DAY]], names=["x", None, ("t", 1)]),
    "multi with NaN": lambda: pd.MultiIndex.from_tuples([("a", 1.0), (None, np.nan), ("a", 1.0)], names=["n", "n"]),
    "multi of categories": lambda: pd.MultiIndex.from_arrays(
        [pd.CategoricalIndex(["a", "b"]), pd.interval_range(0, 2), pd.Index([1, None], dtype="Int64")]
    ),
    "empty multi": lambda: pd.MultiIndex.from_arrays([[], []], names=["a", "b"]),
    "tuple name": lambda: pd.Index([1], name=("a", DAY)),
}


def same_value(left: object, right: object) -> bool:
    if isinstance(left, tuple | frozenset):
        return (
            type(left) is type(right)
            and len(left) == len(right)
            and all(any(same_value(a, b) for b in right) for a in left)
        )
    if type(left) is not type(right):
        return False
    return repr(left) == repr(right) if left is pd.NaT or left is pd.NA or left != left else left == right


@pytest.mark.parametrize("kind", INDEXES)
def test_every_kind_of_index_comes_back_as_it_was(kind: str, tmp_path: Path) -> None:
    """Values, dtype, names, order of categories and frequency survive the store."""
    index = INDEXES[kind]()
    write_index(tmp_path / "index", index)
    found = read_index(tmp_path / "index")
    pd.testing.assert_index_equal(found, index, exact=True)
    assert type(found) is type(index)
    assert found.dtype == index.dtype
    assert list(found.names) == list(index.names)
    assert getattr(found, "freq", None) == getattr(index, "freq", None)
    if index.dtype == object and not isinstance(index, pd.MultiIndex):
        assert all(same_value(a, b) for a, b in zip(found, index, strict=True))


def test_a_label_of_an_unknown_kind_keeps_what_it_is_equal_to_or_its_text(tmp_path: Path) -> None:
    """What no encoding fits becomes its text: never an error, never a pickle."""

    class Own(str):
        __slots__ = ()

    class Size(IntEnum):
        LARGE = 3

    class Word(StrEnum):
        RED = "red"

    class Place(NamedTuple):
        x: int
        y: str

    index = pd.Index([Fraction(1, 3), Own("x"), Size.LARGE, Word.RED, Place(1, "a")], tupleize_cols=False)
    write_index(tmp_path / "index", index)
    assert list(read_index(tmp_path / "index")) == ["1/3", "x", 3, "red", (1, "a")]


def test_nothing_is_pickled_or_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No index goes through pickle in either direction."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pickle was used")

    for name in ("dump", "dumps", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    for kind, make in INDEXES.items():
        write_index(tmp_path / kind, make())
        read_index(tmp_path / kind)


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    st.decimals(),
    st.uuids(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.datetimes(timezones=st.one_of(st.none(), st.just(UTC), st.just(BERLIN)), allow_imaginary=False),
    st.complex_numbers(),
    st.sampled_from([pd.NA, pd.NaT, np.float64(2.5), np.int16(-1), np.str_("s")]),
)


@given(st.recursive(plain, lambda parts: st.tuples(parts, parts) | st.lists(parts, max_size=3)))
def test_any_label_survives_its_tagged_form(value: object) -> None:
    """Each label comes back with its type and value, also through JSON text."""
    import json

    found = from_tagged(json.loads(json.dumps(to_tagged(value))))
    assert repr(found) == repr(value)
    assert type(found) is type(value)


@given(st.lists(st.one_of(st.text(st.characters(exclude_categories=())), st.none(), st.integers(), st.floats())))
def test_any_mixed_index_survives(tmp_path_factory: pytest.TempPathFactory, labels: list[object]) -> None:
    """Object labels come back one by one, NaN and None told apart."""
    file = tmp_path_factory.mktemp("labels") / "index"
    index = pd.Index(labels, dtype=object)
    write_index(file, index)
    assert [repr(value) for value in read_index(file)] == [repr(value) for value in index]
