"""``ddf.claude_batch``: frames beyond memory, or beyond one machine, on Dask (extra ``dask``).

``import pandas_batch.dask`` registers it. Paying happens outside the lazy graph, once: the partitions are looked
at one by one (on the workers), written down as one run here, and posted from here, so that limits, budget and
panel are those of the whole. The lazy result holds nothing but the id of the run: computing it again, ``head()``,
``len()`` or a lost worker read the store and never pay.

The store has to be on a file system that the workers share.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask.base import compute
from dask.dataframe.extensions import register_dataframe_accessor, register_series_accessor
from dask.delayed import delayed

from pandas_batch.custom_ids import FINGERPRINT_BYTES
from pandas_batch.requests.options import Options, parse_options
from pandas_batch.requests.text_dtype import text_dtype
from pandas_batch.run.recording import Found, n_batches_of, n_bytes_of, needs_of
from pandas_batch.run.run import Run, TargetFrame
from pandas_batch.run.starting import Call, added_columns, attach_run, connection_of, start_call
from pandas_batch.run.submitted_rows import SubmittedRows

from .clock import SYSTEM_CLOCK, Clock
from .columns import COLUMN
from .errors import InputError, StoreError

if TYPE_CHECKING:
    from pandas_batch.estimates.estimate import Estimate
    from pandas_batch.requests.plan import RequestPlan, Slice

    from .store import Store

__all__ = ["ClaudeBatchDaskFrame", "ClaudeBatchDaskSeries"]


@dataclass(frozen=True)
class Part:
    """What has to be known of a partition before anything is sent; a few dozen bytes per row."""

    fingerprints: np.ndarray
    sendable: np.ndarray
    reasons: dict[int, str]
    max_tokens: np.ndarray
    wire_bytes: np.ndarray
    models: tuple[str, ...]
    estimate: Estimate | None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.sendable)


def look_at(frame: pd.DataFrame, options: Options, address: tuple[str, str], at: Any) -> Part:
    """Plan a partition and return what has to be known of it; runs on a worker, and sends nothing."""
    from pandas_batch.estimates.estimate import estimate_requests
    from pandas_batch.requests.plan import plan_requests
    from pandas_batch.run.recording import distinct

    plan = plan_requests(frame, options, base_url=address[0], api_version=address[1])
    rows = np.flatnonzero(plan.sendable)
    estimate = None
    if len(rows):
        first, _ = distinct(plan.fingerprints[rows])
        asked = np.repeat(rows[first], options.samples)
        plan.refuse_certain(rows[first])
        n_bytes = n_bytes_of(plan, asked)
        estimate = estimate_requests(
            plan,
            asked,
            options=options,
            n_reused=0,
            n_batches=n_batches_of(len(asked), n_bytes),
            n_bytes=n_bytes,
            wire=None,
            at=at,
        )
    return Part(
        fingerprints=plan.fingerprints,
        sendable=plan.sendable,
        reasons=plan.reasons,
        max_tokens=plan.max_tokens,
        wire_bytes=plan.wire_bytes,
        models=plan.models,
        estimate=estimate,
    )


class PartitionedPlan:
    """The requests of a Dask frame: a plan that computes a partition only when its requests are written."""

    def __init__(self, ddf: Any, options: Options, address: tuple[str, str], clock: Clock) -> None:
        self._ddf = _asked_columns(ddf, options)
        self._options = _without_client(options)
        self.meta: pd.DataFrame = ddf._meta
        self._address = address
        look = delayed(look_at)
        looks = [look(part, self._options, address, clock.now()) for part in ddf.to_delayed()]
        self.parts: Sequence[Part] = compute(*looks)
        sizes = [part.n_rows for part in self.parts]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.n_rows = int(self.starts[-1])
        self.fingerprints = np.concatenate(
            [np.zeros((0, FINGERPRINT_BYTES), np.uint8), *(p.fingerprints for p in self.parts)]
        )
        self.sendable = np.concatenate([np.zeros(0, bool), *(part.sendable for part in self.parts)])
        self.max_tokens = np.concatenate([np.zeros(0, np.int64), *(part.max_tokens for part in self.parts)])
        self.wire_bytes = np.concatenate([np.zeros(0, np.int64), *(part.wire_bytes for part in self.parts)])
        self.models = tuple(dict.fromkeys(model for part in self.parts for model in part.models))
        self.reasons = {
            int(start) + row: reason
            for start, part in zip(self.starts, self.parts, strict=False)
            for row, reason in part.reasons.items()
        }
        self.schema = self._plan_of(ddf._meta).schema

    def _plan_of(self, frame: pd.DataFrame) -> RequestPlan:
        from pandas_batch.requests.plan import plan_requests

        return plan_requests(frame, self._options, base_url=self._address[0], api_version=self._address[1])

    def plan_of_partition(self, number: int) -> RequestPlan:
        """
        Compute a partition and plan it again.

        Raises
        ------
        InputError
            It is not what it was when it was looked at.
        """
        plan = self._plan_of(self._ddf.partitions[number].compute())
        if not np.array_equal(plan.fingerprints, self.parts[number].fingerprints):
            raise InputError(
                f"Partition {number} came out differently when it was computed a second time, so it is not known "
                "what to ask.",
                hint="ddf = ddf.persist(); ddf.claude_batch.submit(...)",
            )
        return plan

    def slices(self, positions: np.ndarray) -> Iterator[Slice]:
        """Yield the params of the rows at `positions`, one partition in memory at a time."""
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        for at in np.split(np.arange(len(positions)), np.flatnonzero(np.diff(numbers)) + 1):
            if len(at):
                number = int(numbers[at[0]])
                yield from self.plan_of_partition(number).slices(positions[at] - self.starts[number])


class DaskCall(Call):
    """One call on a Dask frame."""

    plan: Any  # a PartitionedPlan: it has of a RequestPlan what a call asks for, and more

    def __init__(self, ddf: Any, options: Options, *, clock: Clock = SYSTEM_CLOCK) -> None:
        from pandas_batch.wire.clients import address_of

        series = [name for name in options.not_remembered if isinstance(options.given(name), pd.Series | np.ndarray)]
        if series:
            kind = "an array" if isinstance(options.given(series[0]), np.ndarray) else "a Series"
            raise InputError(
                f"{series[0]} is {kind}, which has no place in a Dask frame's partitions.",
                hint=f"{series[0]}=lambda part: part[...]   # or a column of the frame",
            )
        if not options.dedupe:
            raise InputError(
                "dedupe=False is not possible here: which of two equal rows comes first depends on the partitions.",
                hint="samples=2   # as many answers of every row; or dedupe=True",
            )
        self.options = options
        self.clock = clock
        self.base_url, self.api_version = address_of(options.client)
        self.target = TargetFrame(None)
        self.index = None
        self.column_names = list(ddf.columns)
        self.plan = PartitionedPlan(ddf, options, (self.base_url, self.api_version), clock)
        self.needs = needs_of(self.plan, options)
        self.wire = connection_of(options.client, clock)

    def refuse_certain(self, rows: np.ndarray) -> None:
        """Do nothing: each partition was looked at when it was planned."""

    def preflight(self) -> None:
        """Ask about the first partition that has anything to ask."""
        from pandas_batch.estimates.preflight import preflight

        for number, part in enumerate(self.plan.parts):
            if part.sendable.any():
                preflight(self.plan.plan_of_partition(number), self.options, self.wire(), clock=self.clock)
                return

    def estimate(self, *, found: Found | None = None, store: Store | None = None, online: bool = True) -> Estimate:
        """Return the sum over the partitions, from bytes alone: an upper bound that no dedupe or reuse lowers."""
        estimates = [part.estimate for part in self.plan.parts if part.estimate is not None]
        if not estimates:
            return Call(self.plan.meta, self.options, address=(self.base_url, self.api_version)).estimate(online=False)
        n_reused = 0 if found is None else found.n_reused
        return sum_of(estimates, rows=self.plan.n_rows, n_requests=self.needs.n_requests, n_reused=n_reused)


def sum_of(estimates: Sequence[Estimate], *, rows: int, n_requests: int, n_reused: int) -> Estimate:
    """Return the estimate of several partitions together."""

    def total(name: str) -> Any:
        values = [getattr(estimate, name) for estimate in estimates]
        return None if any(value is None for value in values) else sum(values)

    def union(name: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(value for estimate in estimates for value in getattr(estimate, name)))

    sums = "batches bytes input_tokens input_tokens_low input_tokens_high output_tokens_max cost_usd_min cost_usd_max"
    changes: dict[str, Any] = {name: total(name) for name in [*sums.split(), "cost_usd_standard"]}
    changes |= {name: union(name) for name in ("models", "unpriced", "unbounded", "notes")}
    return replace(estimates[0], rows=rows, requests=n_requests, reused=n_reused, cache=(), **changes)


class ClaudeBatchDaskFrame:
    """
    Ask Claude about every row of a Dask DataFrame; see `pandas_batch.accessor.ClaudeBatchFrame` for the options.

    Parameters
    ----------
    ddf
        The frame.

    Examples
    --------
    >>> import dask.dataframe as dd, pandas_batch.dask
    >>> ddf = dd.from_pandas(pd.DataFrame({"review": ["Lovely.", "It broke.", "Fine."]}), npartitions=2)
    >>> out = ddf.claude_batch.submit("review", client=client, progress="off")
    >>> out["status"].compute().tolist()
    ['succeeded', 'succeeded', 'succeeded']
    """

    def __init__(self, ddf: Any) -> None:
        self._ddf = ddf

    def start(self, prompt_col: Hashable = None, **options: Any) -> Run:
        """Send one request per row of every partition and return the one run at once."""
        return start_call(DaskCall(self._ddf, parse_options(options, prompt_col=prompt_col)), blocking=False)

    def submit(self, prompt_col: Hashable = None, **options: Any) -> Any:
        """
        Send one request per row, wait, and return the lazy frame with the answers as columns.

        Computing it reads the store, as often as you like; nothing is ever paid from the graph.
        """
        parsed = parse_options(options, prompt_col=prompt_col)
        call = DaskCall(self._ddf, parsed)
        run = start_call(call, blocking=True)
        run.wait(parsed.timeout)
        return self._lazy(run, call.plan.schema, [part.n_rows for part in call.plan.parts])

    def merge(self, run: Run, **options: Any) -> Any:
        """Return the lazy frame with the columns of `run`, waiting for it first."""
        run.wait(run.options.timeout)
        del options
        return self._lazy(run, run.schema, _sizes(self._ddf, run.options))

    def estimate(self, prompt_col: Hashable = None, **options: Any) -> Estimate:
        """Return what a submit would cost at most; nothing is spent."""
        return DaskCall(self._ddf, parse_options(options, prompt_col=prompt_col)).estimate()

    def preview(self, prompt_col: Hashable = None, n: int = 3, **options: Any) -> list[dict[str, Any]]:
        """Return the first `n` requests of the first partition, exactly as they would be sent."""
        from pandas_batch.requests.plan import preview_requests

        part = self._ddf.partitions[0].compute()
        return preview_requests(Call(part, parse_options(options, prompt_col=prompt_col)).plan, n)

    def _lazy(self, run: Run, schema: Any, sizes: Sequence[int]) -> Any:
        again = {name: run.options.given(name) for name in run.options.not_remembered}
        shown = {"prefix": run.options.prefix, "columns": run.options.columns, "overwrite": True}
        if run.options.schema_prefix is not None:
            shown["schema_prefix"] = run.options.schema_prefix
        meta = _with_empty_columns(self._ddf._meta, run.options, schema)
        merged = delayed(merged_partition)
        store_path = str(run.store.path)
        first_rows = np.cumsum([0, *sizes])[:-1].tolist()
        parts = [
            merged(part, run.id, store_path, {**again, **shown}, first_row)
            for part, first_row in zip(self._ddf.to_delayed(), first_rows, strict=True)
        ]
        # Else Dask would make texts of lists: of samples, and of what tools are called with.
        with dask.config.set({"dataframe.convert-string": False}):
            return dd.from_delayed(parts, meta=meta, divisions=self._ddf.divisions, verify_meta=False)


class ClaudeBatchDaskSeries:
    """
    The same calls for a bare Dask column of prompts; they return frames.

    Parameters
    ----------
    series
        The prompts.
    """

    def __init__(self, series: Any) -> None:
        self._name = "prompt" if series.name is None else series.name
        self._calls = ClaudeBatchDaskFrame(series.to_frame(self._name))

    def start(self, **options: Any) -> Run:
        """Return the run at once."""
        return self._calls.start(self._name, **options)

    def submit(self, **options: Any) -> Any:
        """Return the lazy prompts and answers."""
        return self._calls.submit(self._name, **options)

    def estimate(self, **options: Any) -> Estimate:
        """Return what a submit would cost at most."""
        return self._calls.estimate(self._name, **options)


def merged_partition(
    frame: pd.DataFrame, run_id: str, store_path: str, again: dict[str, Any], first_row: int
) -> pd.DataFrame:
    """Return a partition with its answers, from the store alone; runs on a worker."""
    run, rows = _stored(store_path, run_id)
    attached = attach_run(frame, run, dict(again, progress="off"), rows=rows, first_row=first_row)
    # Without the warnings of `result()`: what there is to say of the whole run was said where it was made.
    attached.wait_for_answers()
    return attached.result(partial=True)


@lru_cache(maxsize=8)
def _stored(store_path: str, run_id: str) -> tuple[Run, SubmittedRows]:
    """Return a finished run and its rows; kept, because every partition of a worker reads the same."""
    from pandas_batch.run.library import load

    from .store import Store

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a store in an odd place was warned where it was made
        found = Store.find(store_path)
    if found is None:
        raise StoreError(
            f"The store at {store_path} cannot be seen from this worker.",
            "Nothing was sent; the answers are safe where the run was made.",
            'ddf.claude_batch.submit(..., store="/a/folder/that/all/workers/share")',
        )
    run = load(run_id, store=store_path)
    return run, SubmittedRows(run.store, run.record)


def _with_empty_columns(meta: pd.DataFrame, options: Options, schema: Any) -> pd.DataFrame:
    """Return the empty frame that a partition with its answers looks like; no function is called to find out."""
    empty: dict[str, Any] = dict.fromkeys(added_columns(options, schema))
    for name in options.column_names:
        dtype: Any = text_dtype() if COLUMN[name].dtype == "text" else COLUMN[name].dtype
        array: Any = pd.array([], dtype=dtype)
        empty[options.prefix + name] = pd.Series([], dtype=object) if options.samples > 1 else array
    if schema is not None:
        typed, _ = schema.to_columns([])
        schema_prefix = options.prefix if options.schema_prefix is None else options.schema_prefix
        for field, values in typed.items():
            empty[schema_prefix + field] = pd.Series([], dtype=object) if options.samples > 1 else values
    made = meta.iloc[:0].copy()
    for name, values in empty.items():
        made[name] = values if not isinstance(values, pd.Series) else values.set_axis(made.index)
    return made


def _asked_columns(ddf: Any, options: Options) -> Any:
    """Return the frame without the columns that no request can need: those of a file are then never read."""
    is_plain = options.prompt is None and not options.not_remembered
    if is_plain and options.prompt_col in ddf.columns:
        named = [options.prompt_col, options.images_col, options.documents_col]
        return ddf[[name for name in dict.fromkeys(named) if name is not None]]
    return ddf


def _sizes(ddf: Any, options: Options) -> Sequence[int]:
    """Return the number of rows of each partition."""
    sizes: Sequence[int] = compute(*map(delayed(len), _asked_columns(ddf, options).to_delayed()))
    return sizes


def _without_client(options: Options) -> Options:
    """Return options that can travel to a worker: a client holds a key and cannot."""
    return replace(options, client=None)


register_dataframe_accessor("claude_batch")(ClaudeBatchDaskFrame)
register_series_accessor("claude_batch")(ClaudeBatchDaskSeries)
