"""From a call on a frame to a run at work: plan, refuse, estimate, write down, drive."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_batch.clock import SYSTEM_CLOCK, Clock
from pandas_batch.errors import FrameMismatchError, InputError, RunNotFoundError, clip, outside_level
from pandas_batch.requests.options import Options, parse_options
from pandas_batch.requests.plain_values import quoted
from pandas_batch.results.row_status import NOT_OF_THIS_RUN, NOT_SENT

from .experience import OF_THE_PROMPT, experience_with
from .recording import Found, Needs, find_existing, n_batches_of, n_bytes_of, needs_of, record
from .run import Run, TargetFrame
from .submitted_rows import SubmittedRows

if TYPE_CHECKING:
    from pandas_batch.estimates.estimate import Estimate
    from pandas_batch.requests.plan import RequestPlan
    from pandas_batch.store import RunRecord, Store
    from pandas_batch.wire.wire import Wire

    from .preparing import Preparation


_N_WRITERS = 50
"""How many runs are looked at, from the newest on, for who wrote the columns of a frame."""


class Call:
    """
    One call on a frame, understood: its options, its requests, and the run it may already be.

    Parameters
    ----------
    frame
        The rows.
    options
        What to ask of them.
    address
        Base URL and API version of the requests, where they are not those of the client (a stored run has its own).
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        options: Options,
        *,
        address: tuple[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        from pandas_batch.wire.clients import address_of

        self.options = options
        self.clock = clock
        self.base_url, self.api_version = address or address_of(options.client)
        self.target = TargetFrame(frame)
        self.index: pd.Index | None = frame.index
        self.column_names: Collection[Hashable] = frame.columns
        self.plan: RequestPlan = self._plan(frame)
        self.needs: Needs = needs_of(self.plan, options)
        self.wire = connection_of(options.client, clock)

    def _plan(self, frame: pd.DataFrame) -> RequestPlan:
        from pandas_batch.requests.plan import plan_requests

        return plan_requests(frame, self.options, base_url=self.base_url, api_version=self.api_version)

    def open_store(self) -> Store:
        """Return the store, made where there is none yet."""
        from pandas_batch.store import Store

        return Store.open(self.options.store)

    def run_of(self, store: Store, run: RunRecord) -> Run:
        """Return the handle of a recorded run, bound to this call's frame."""
        return Run(
            store,
            run.id,
            self.options,
            target=self.target,
            schema=self.plan.schema,
            wire=self.wire,
            clock=self.clock,
        )

    def preflight(self) -> None:
        """Ask the server, for free, about what would make every row fail."""
        from pandas_batch.estimates.preflight import preflight

        preflight(self.plan, self.options, self.wire(), clock=self.clock)

    def refuse_certain(self, rows: np.ndarray) -> None:
        """Refuse what the API is certain to refuse about the requests of `rows`, which are to be sent."""
        self.plan.refuse_certain(rows)

    def found_in(self, store: Store) -> Found:
        """Return which requests `store` has an answer for, or in flight."""
        return find_existing(store, self.needs, self.options, base_url=self.base_url)

    def estimate(self, *, found: Found | None = None, store: Store | None = None, online: bool = True) -> Estimate:
        """Return what the call would send and cost at most, beyond what was `found` (None: is there); spend nothing."""
        from pandas_batch.estimates.estimate import estimate_requests
        from pandas_batch.store import Store

        if found is None and (store := Store.find(self.options.store)) is not None:
            found = self.found_in(store)
        rows = self.needs.rows if found is None else self.needs.rows[found.missing]
        self.refuse_certain(rows)
        n_bytes = n_bytes_of(self.plan, rows)
        return estimate_requests(
            self.plan,
            rows,
            options=self.options,
            n_reused=0 if found is None else found.n_reused,
            n_batches=n_batches_of(len(rows), n_bytes),
            n_bytes=n_bytes,
            wire=self.wire() if online and len(rows) else None,
            at=self.clock.now(),
            clock=self.clock,
            experience=experience_with(store, self.options, base_url=self.base_url) if len(rows) else None,
        )


def connection_of(client: Any, clock: Clock) -> Callable[[], Wire]:
    """Return what gives the one connection of a call, made at first use; a run that keeps it keeps no rows with it."""

    @cache
    def wire() -> Wire:
        from pandas_batch.wire.wire import Wire

        return Wire(client, clock=clock)

    return wire


def start_run(
    frame: pd.DataFrame,
    options: Options,
    *,
    blocking: bool,
    clock: Clock = SYSTEM_CLOCK,
    preparation: Preparation | None = None,
) -> Run:
    """
    Return the run that this call is, at work; new where it was never made before.

    Everything that the call gets wrong is raised before anything is sent.
    """
    return start_call(Call(frame, options, clock=clock), blocking=blocking, preparation=preparation)


def start_call(call: Call, *, blocking: bool, preparation: Preparation | None = None) -> Run:
    """Return the run that `call` is, at work; it takes over the display of its `preparation`."""
    store = call.open_store()
    existing = store.runs.newest_of_identity(call.needs.identity)
    if existing is None:
        refuse_clash(call, writers_of(call, store), is_new=True)
        existing = _record(call, store, preparation)
        run = call.run_of(store, existing)
    else:
        run = call.run_of(store, existing)
        refuse_clash(call, (run, *ancestors_of(call, run)))
        if call.index is not None:
            store.runs.set_index(run.id, call.index)
        _say_what_failed(run)
    if not run.is_settled():
        # Without credentials there is nothing to wait for: said here, not from the background.
        call.wire()
    run.show(blocking=blocking, preparation=preparation)
    return run


def _record(call: Call, store: Store, preparation: Preparation | None) -> RunRecord:
    options = call.options
    found = call.found_in(store)
    estimate: Estimate | None = None
    if len(found.missing):
        from pandas_batch.estimates.bill import check_budget

        _say_whose_name_it_is(options, store)
        call.refuse_certain(call.needs.rows[found.missing])
        call.wire()
        if options.preflight:
            # Before the budget: of a misspelled model no price is known, and its name is what is wrong.
            call.preflight()
        has_budget = options.max_cost_usd not in (None, math.inf)
        estimate = call.estimate(found=found, store=store, online=has_budget)
        if has_budget:
            check_budget(estimate, options.max_cost_usd, from_environment=options.budget_from_environment)
    if not options.reuse and options.name is None:
        sys.stderr.write(
            "reuse=False without name=: each call is a new run and is paid again. Give it a name= to come back to it.\n"
        )
    recorded, _ = record(
        store,
        call.plan,
        call.needs,
        options,
        index=call.index,
        base_url=call.base_url,
        api_version=call.api_version,
        now=call.clock.now(),
        clock=call.clock,
        cost_usd_max=0.0 if estimate is None else estimate.cost_usd_max,
        estimate=None if estimate is None else estimate.to_json(),
        on_rows=None if preparation is None else preparation.rows_done,
    )
    return recorded


def _say_whose_name_it_is(options: Options, store: Store) -> None:
    """Warn where a run of this name asked otherwise: under one name two prompts are hard to tell apart."""
    if options.name is None:
        return
    try:
        earlier = store.runs.find(options.name)
    except RunNotFoundError:
        return
    if earlier.name != options.name:
        return
    ours, theirs = options.to_json(), earlier.options
    others = [name for name in OF_THE_PROMPT if ours.get(name) != theirs.get(name)]
    if others:
        what = ", ".join("output_schema" if name == "schema_json" else name for name in others)
        warnings.warn(
            f"The name {quoted(options.name, 60)} is that of run {earlier.id} too, which was asked with another "
            f"{what}: this is a new run, which is paid for rows that were not asked so before, and what load() gives "
            "for that name from now on. Another name= keeps the two apart.",
            UserWarning,
            stacklevel=outside_level(),
        )


def _say_what_failed(run: Run) -> None:
    status = run.snapshot()
    if status.state == "collected" and status.n_failed:
        sys.stderr.write(
            f"Run {run.id} was made before; {status.n_failed:,} of its {status.n_rows:,} rows failed. "
            + (f"To ask again: {status.retry}\n" if status.retry else "The column error says why.\n")
        )


def added_columns(options: Options, schema: Any) -> list[str]:
    """Return the names of the columns that a call adds."""
    names = [options.prefix + name for name in options.column_names]
    if schema is not None:
        schema_prefix = options.prefix if options.schema_prefix is None else options.schema_prefix
        fields = [schema_prefix + field for field in schema.columns]
        twice = [name for name in fields if name in names]
        if twice:
            raise InputError(
                f"The schema's field {twice[0]!r} would have the name of a column that this package adds.",
                hint='schema_prefix="answer_"',
            )
        names += fields
    return names


def ancestors_of(call: Call, run: Run) -> Iterator[Run]:
    """Yield the runs that a retry goes back to, nearest first: the frame may hold what one of those wrote."""
    seen, record = {run.id}, run.record
    while record.parent_id is not None and record.parent_id not in seen:
        seen.add(record.parent_id)
        try:
            record = run.store.runs.get(record.parent_id)
        except RunNotFoundError:
            return
        parent = call.run_of(run.store, record)
        # The rows of a retry are those of its parent, also where they are a part of these.
        parent.bind(run.target)
        yield parent


def writers_of(call: Call, store: Store) -> Iterator[Run]:
    """Yield the runs that hold answers of these rows, newest first: a frame that was cut or grew has their columns."""
    if not any(name in call.column_names for name in added_columns(call.options, call.plan.schema)):
        return
    records = [record for record in store.runs.all() if record.base_url == call.base_url]
    for one in records[:_N_WRITERS]:
        try:
            target = bind_frame(call, store, one, SubmittedRows(store, one), None)
        except FrameMismatchError:
            continue
        writer = call.run_of(store, one)
        writer.bind(target)
        yield writer


def refuse_clash(call: Call, writers: Iterable[Run], *, is_new: bool = False) -> None:
    """Refuse to write over columns that none of the runs has written there; tell of an index with such a name."""
    names = added_columns(call.options, call.plan.schema)
    of_index = [] if call.index is None else [name for name in call.index.names if name is not None and name in names]
    if of_index and is_new:
        warnings.warn(
            f"The index is named {of_index[0]!r}, as a column that this call adds: reset_index() of the result will "
            'not work. df.rename_axis("label") or prefix="claude_" avoids that.',
            UserWarning,
            stacklevel=outside_level(),
        )
    clash = [name for name in names if name in call.column_names]
    if not clash or call.options.overwrite:
        return
    nearest: tuple[Run, str, int] | None = None
    for run in writers if call.target.frame is not None else ():
        found = run.first_difference(clash)
        if found is None:
            return
        nearest = nearest or (run, *found)
    hint = (
        'df.claude_batch.submit(..., prefix="claude_")   # other names\n'
        "df.claude_batch.submit(..., overwrite=True)      # replace them"
    )
    if nearest is None:
        shown = ", ".join(repr(name) for name in clash[:4]) + (", ..." if len(clash) > 4 else "")
        what = (
            f"The frame already has {'a column' if len(clash) == 1 else 'columns'} {shown}, which this call would add."
        )
        raise InputError(what, hint=hint)
    run, name, row = nearest
    where = ""
    if call.index is not None and row < len(call.index):
        where = f", first in row {clip(str(call.index[row]), 60)}"
    raise InputError(
        f"The frame has a column {name!r} that is not what run {run.id} has written{where}; this call "
        "would replace it.",
        hint=hint + f'\ndf.claude_batch.merge("{run.id}", overwrite=True)   # its answers, each to its row',
    )


def attach_run(
    frame: pd.DataFrame,
    run: Run | str,
    again: dict[str, Any],
    *,
    store: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
    rows: SubmittedRows | None = None,
    first_row: int | None = None,
) -> Run:
    """
    Return a stored run bound to `frame`: each row gets the answer of its own request, wherever it stands now.

    Parameters
    ----------
    rows
        The rows of the run, where they are known already.
    first_row
        Where the frame stands in the one submitted, if it is a part of that: of equal rows in several parts one
        then bears tokens and cost.
    """
    from pandas_batch.store import Store

    if isinstance(run, Run):
        opened, recorded = run.store, run.record
        clock = run.clock
        if run.options.client is not None:
            again.setdefault("client", run.options.client)
    else:
        opened = Store.open(store)
        recorded = opened.runs.find(run)
    stored = dict(recorded.options)
    needed = [name for name in stored.pop("not_remembered", []) if name not in again]
    if isinstance(run, Run):
        again = {name: run.options.given(name) for name in needed} | again
        needed = []
    if needed:
        raise InputError(
            f"Run {recorded.id} was made with {', '.join(needed)} as a callable, Series or class, which are not "
            "remembered.",
            "Nothing was sent.",
            f'df.claude_batch.attach("{recorded.id}", {", ".join(f"{name}=..." for name in needed)})',
        )
    # What cannot be read of a row any more (a file that is gone) keeps nobody from the answers of the others.
    options = replace(Options.from_json(stored, **again), on_missing="skip", on_unsendable="skip")
    address = (recorded.base_url, recorded.api_version)
    call = Call(frame, options, address=address, clock=clock)
    attached = Run(
        opened,
        recorded.id,
        options,
        target=bind_frame(call, opened, recorded, rows or SubmittedRows(opened, recorded), first_row),
        schema=call.plan.schema,
        wire=call.wire,
        clock=clock,
    )
    refuse_clash(call, (attached, *ancestors_of(call, attached)))
    return attached


def bind_frame(call: Call, store: Store, run: RunRecord, rows: SubmittedRows, first_row: int | None) -> TargetFrame:
    """
    Return the call's frame bound to the requests of `run`: each row to its own, by fingerprint.

    Raises
    ------
    FrameMismatchError
        Not one row belongs to the run.
    """
    sendable = np.flatnonzero(call.plan.sendable)
    fingerprints = call.plan.fingerprints[sendable]
    if first_row is not None:
        of_row = rows.requests_from(first_row, call.plan.n_rows)
        if len(of_row) == call.plan.n_rows and rows.are_unchanged(of_row, sendable, fingerprints):
            return TargetFrame(call.target.frame, of_row, call.plan.reasons, rows.told_before(of_row, first_row))
    by_place = _by_place(call, store, run, rows, first_row)
    if by_place is not None:
        # What is no longer to be read had its answer when it was.
        reasons = {row: reason for row, reason in call.plan.reasons.items() if by_place[row] < 0}
        told = None if first_row is None else rows.told_before(by_place, first_row)
        return TargetFrame(call.target.frame, by_place, reasons, told)
    of_row = np.full(call.plan.n_rows, NOT_SENT, dtype=np.int32)
    of_row[sendable] = rows.requests_of(fingerprints)
    if len(sendable) and (of_row[sendable] == NOT_OF_THIS_RUN).all():
        raise FrameMismatchError(
            f"None of the {len(sendable):,} rows of this frame belongs to run {run.id} "
            f"({run.n_rows:,} rows, {run.created_at:%Y-%m-%d %H:%M} UTC).",
            "Nothing was changed; the run's answers are safe in the store.",
            f'pandas_batch.load("{run.id}").result()   # its answers, on the index of the frame that was submitted',
        )
    return TargetFrame(call.target.frame, of_row, call.plan.reasons)


def _by_place(
    call: Call, store: Store, run: RunRecord, rows: SubmittedRows, first_row: int | None
) -> np.ndarray | None:
    """
    Return the requests of rows some of which cannot be read any more (their files are gone), by their places.

    None where it is not sure that the rows stand where they stood: every row that can be read has to be the one that
    was submitted in its place, under its label.
    """
    plan = call.plan
    if not plan.reasons:
        return None
    if first_row is None:
        index = store.runs.index_of(run.id)
        if call.index is None or index is None or not index.equals(call.index):
            return None
    of_row = rows.requests_from(first_row or 0, plan.n_rows)
    if len(of_row) != plan.n_rows:
        return None
    is_known = plan.sendable.copy()
    is_known[[row for row in plan.reasons if of_row[row] >= 0]] = True
    sendable = np.flatnonzero(plan.sendable)
    if not np.array_equal(is_known, of_row >= 0) or not rows.have(of_row[sendable], plan.fingerprints[sendable]):
        return None
    return of_row


def parse(kwargs: Mapping[str, Any], prompt_col: Any) -> Options:
    """Return the checked options of an accessor call."""
    return parse_options(kwargs, prompt_col=prompt_col)
