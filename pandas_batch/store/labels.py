"""Any pandas index as one private file and back: labels, dtype and names, and nothing is ever unpickled.

The file is an Arrow table of one binary column, ``parts``, and a JSON plan in its metadata that says which part
is what: numbers as their bytes, texts as Arrow arrays, mixed objects as tagged JSON.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from .label_values import from_tagged, to_tagged
from .tables import read_table, write_table

_PLAN = b"pandas_batch_index"

Plan = dict[str, Any]


def write_index(path: Path, index: pd.Index) -> None:
    """Write an index to a fresh private file; the caller syncs it."""
    parts: list[bytes] = []
    plan = encode_index(index, parts)
    metadata = {_PLAN: json.dumps(plan).encode()}
    column = pa.array(parts, type=pa.large_binary())
    write_table(path, pa.table({"parts": column}).replace_schema_metadata(metadata))


def read_index(path: Path) -> pd.Index:
    """Return the index that `write_index` was given."""
    table = read_table(path)
    plan = json.loads(table.schema.metadata[_PLAN])
    parts = [part.as_buffer() for part in table.column("parts")]
    return decode_index(plan, parts)


ONLY_COUNTS = "count"
"""The kind of index that pandas gives to a frame without labels: the number of rows says it all."""


def kind_of(index: pd.Index) -> str:
    """
    Return the name of an index's class, or `ONLY_COUNTS`.

    Examples
    --------
    >>> kind_of(pd.RangeIndex(3)), kind_of(pd.RangeIndex(1, 4)), kind_of(pd.Index([0, 1, 2]))
    ('count', 'RangeIndex', 'Index')
    """
    if isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1 and index.name is None:
        return ONLY_COUNTS
    return type(index).__name__


def encode_index(index: pd.Index, parts: list[bytes]) -> Plan:
    """Return the plan of an index, adding its bytes to `parts`."""
    if isinstance(index, pd.RangeIndex):
        return {
            "kind": "range",
            "bounds": [index.start, index.stop, index.step],
            "name": to_tagged(index.name),
        }
    if isinstance(index, pd.MultiIndex):
        return {
            "kind": "multi",
            "levels": [encode_index(level, parts) for level in index.levels],
            "codes": [_add_numbers(np.asarray(codes), parts) for codes in index.codes],
            "names": [to_tagged(name) for name in index.names],
        }
    plan = _encode_values(index, parts)
    return plan | {"name": to_tagged(index.name)}


def decode_index(plan: Plan, parts: list[pa.Buffer]) -> pd.Index:
    """Return the index of a plan."""
    if plan["kind"] == "range":
        start, stop, step = plan["bounds"]
        return pd.RangeIndex(start, stop, step, name=from_tagged(plan["name"]))
    if plan["kind"] == "multi":
        levels: Any = [decode_index(level, parts) for level in plan["levels"]]
        codes: Any = [_numbers(code, parts) for code in plan["codes"]]
        return pd.MultiIndex(
            levels=levels,
            codes=codes,
            names=[from_tagged(name) for name in plan["names"]],
            verify_integrity=False,
        )
    index: pd.Index = _DECODERS[plan["kind"]](plan, parts)
    index.name = from_tagged(plan["name"])
    return index


# --- one index, by its dtype


def _encode_values(index: pd.Index, parts: list[bytes]) -> Plan:
    dtype = index.dtype
    if isinstance(index, pd.CategoricalIndex):
        return {
            "kind": "categorical",
            "categories": encode_index(index.categories, parts),
            "codes": _add_numbers(np.asarray(index.codes), parts),
            "ordered": bool(index.ordered),
        }
    if isinstance(index, pd.IntervalIndex):
        return {
            "kind": "interval",
            "left": encode_index(index.left, parts),
            "right": encode_index(index.right, parts),
            "closed": index.closed,
        }
    if isinstance(index, pd.PeriodIndex):
        return {"kind": "period", "ordinals": _add_numbers(index.asi8, parts), "freq": index.freqstr}
    if isinstance(index, pd.DatetimeIndex):
        return {
            "kind": "datetime",
            "instants": _add_numbers(index.asi8, parts),
            "unit": index.unit,
            "zone": to_tagged(index.tz),
            "freq": index.freqstr,
        }
    if isinstance(index, pd.TimedeltaIndex):
        return {
            "kind": "timedelta",
            "spans": _add_numbers(index.asi8, parts),
            "unit": index.unit,
            "freq": index.freqstr,
        }
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return {"kind": "numbers", "values": _add_numbers(index.to_numpy(), parts)}
    if isinstance(dtype, pd.StringDtype):
        return _encode_texts(index, dtype, parts)
    if isinstance(dtype, pd.ArrowDtype):
        return {"kind": "arrow", "values": _add_array(pa.chunked_array(index.array.__arrow_array__()), parts)}
    masked = _MASKED.get(type(index.array).__name__)
    if masked is not None:
        number: np.dtype[Any] = cast("Any", dtype).numpy_dtype
        missing = index.isna()
        numbers = index.fillna(masked[1]).to_numpy(dtype=number) if missing.any() else index.to_numpy()
        return {
            "kind": "masked",
            "array": type(index.array).__name__,
            "values": _add_numbers(np.asarray(numbers, dtype=number), parts),
            "missing": _add_numbers(np.asarray(missing, dtype=bool), parts),
        }
    return _encode_objects(index, parts)


def _encode_texts(index: pd.Index, dtype: pd.StringDtype, parts: list[bytes]) -> Plan:
    plan = {
        "kind": "texts",
        "storage": dtype.storage.removesuffix("_numpy"),  # what pandas 2.2 calls pyarrow_numpy
        "missing": "NA" if dtype.na_value is pd.NA else "nan",
    }
    try:
        return plan | {"values": _add_array(pa.chunked_array([pa.array(index.array, pa.large_string())]), parts)}
    except (pa.ArrowInvalid, UnicodeEncodeError, TypeError):
        # lone surrogates are no UTF-8, but JSON can spell them
        missing = index.isna()
        texts = [None if gone else str(text) for text, gone in zip(index, missing, strict=True)]
        return plan | {"kind": "spelled", "values": _add_part(json.dumps(texts).encode(), parts)}


def _encode_objects(index: pd.Index, parts: list[bytes]) -> Plan:
    values = index.to_numpy(dtype=object)
    plain = pd.api.types.infer_dtype(values, skipna=False) in ("string", "boolean")
    tagged = values.tolist() if plain else [to_tagged(value) for value in values]
    return {"kind": "objects", "values": _add_part(json.dumps(tagged).encode(), parts)}


def _dated(values: np.ndarray, unit: str, zone: Any) -> pd.DatetimeIndex:
    index: Any = pd.DatetimeIndex(values.view(f"M8[{unit}]"))
    dated: pd.DatetimeIndex = index if zone is None else index.tz_localize("UTC").tz_convert(zone)
    return dated


def _with_freq(index: Any, freq: str | None) -> Any:
    if freq is None:
        return index
    try:
        return type(index)(index, freq=freq)
    except ValueError:  # a frequency that this version of pandas spells in another way
        return index


def _decode_texts(plan: Plan, parts: list[pa.Buffer]) -> pd.Index:
    dtype = _string_dtype(plan["storage"], plan["missing"])
    if plan["kind"] == "spelled":
        objects = np.array(json.loads(parts[plan["values"]].to_pybytes()), dtype=object)
        spelled: pd.Index = pd.Index(pd.array(objects, dtype=dtype))
        return spelled
    texts: pd.Index = pd.Index(dtype.__from_arrow__(_array(plan["values"], parts)))
    return texts


def _string_dtype(storage: str, missing: str) -> Any:
    if missing == "NA":
        return pd.StringDtype(storage)
    try:
        return pd.StringDtype(storage, na_value=np.nan)
    except TypeError:  # pandas 2.2 knows one string type with NaN, under another name
        return pd.StringDtype("pyarrow_numpy")


def _decode_objects(plan: Plan, parts: list[pa.Buffer]) -> pd.Index:
    tagged = json.loads(parts[plan["values"]].to_pybytes())
    objects = np.empty(len(tagged), dtype=object)
    for at, value in enumerate(tagged):
        objects[at] = from_tagged(value)
    return pd.Index(objects, dtype=object, tupleize_cols=False)


_MASKED: Mapping[str, tuple[Any, Any]] = {
    "IntegerArray": (pd.arrays.IntegerArray, 0),
    "FloatingArray": (pd.arrays.FloatingArray, 0.0),
    "BooleanArray": (pd.arrays.BooleanArray, False),
}

_DECODERS: Mapping[str, Callable[[Plan, list[pa.Buffer]], Any]] = {
    "numbers": lambda p, parts: pd.Index(_numbers(p["values"], parts)),
    "texts": _decode_texts,
    "spelled": _decode_texts,
    "objects": _decode_objects,
    "arrow": lambda p, parts: pd.Index(pd.arrays.ArrowExtensionArray(_array(p["values"], parts))),
    "masked": lambda p, parts: pd.Index(
        _MASKED[p["array"]][0](_numbers(p["values"], parts).copy(), _numbers(p["missing"], parts).copy())
    ),
    "categorical": lambda p, parts: pd.CategoricalIndex(
        pd.Categorical.from_codes(
            _numbers(p["codes"], parts), categories=decode_index(p["categories"], parts), ordered=p["ordered"]
        )
    ),
    "interval": lambda p, parts: pd.IntervalIndex.from_arrays(
        decode_index(p["left"], parts), decode_index(p["right"], parts), closed=p["closed"]
    ),
    "period": lambda p, parts: cast("Any", pd.PeriodIndex).from_ordinals(
        _numbers(p["ordinals"], parts), freq=p["freq"]
    ),
    "datetime": lambda p, parts: _with_freq(
        _dated(_numbers(p["instants"], parts), p["unit"], from_tagged(p["zone"])), p["freq"]
    ),
    "timedelta": lambda p, parts: _with_freq(
        pd.TimedeltaIndex(_numbers(p["spans"], parts).view(f"m8[{p['unit']}]")), p["freq"]
    ),
}


# --- parts


def _add_part(data: bytes, parts: list[bytes]) -> int:
    parts.append(data)
    return len(parts) - 1


def _add_numbers(values: np.ndarray, parts: list[bytes]) -> list[Any]:
    return [values.dtype.str, _add_part(np.ascontiguousarray(values).tobytes(), parts)]


def _numbers(plan: list[Any], parts: list[pa.Buffer]) -> np.ndarray:
    dtype, at = plan
    return np.frombuffer(parts[at], dtype=np.dtype(dtype))


def _add_array(values: pa.ChunkedArray, parts: list[bytes]) -> int:
    table = pa.table({"values": values})
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return _add_part(out.getvalue(), parts)


def _array(at: int, parts: list[pa.Buffer]) -> pa.ChunkedArray:
    return pa.ipc.open_stream(parts[at]).read_all().column("values")
