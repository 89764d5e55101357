"""Ask again for the rows of a run that failed: a new run with the identity of its parent."""

from __future__ import annotations

import contextlib
import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pandas_batch.custom_ids import new_nonce
from pandas_batch.engine.gone import look_for_gone
from pandas_batch.engine.spooling import SpoolBody, custom_id_of_line, params_of_line, spool_lines
from pandas_batch.errors import InputError, RunNotFoundError, StoreError, outside_level
from pandas_batch.requests.plain_values import shown
from pandas_batch.results.row_status import CODE
from pandas_batch.run.worth_asking import worth_asking
from pandas_batch.types import MAX_BATCH_REQUESTS

from .call_values import RUN_IS_AS_IT_WAS
from .chosen_rows import positions_of
from .others_asking import nobody_else_asks
from .recording import BATCH_BYTES, drawn_apart, new_run_id

if TYPE_CHECKING:
    import pyarrow as pa

    from pandas_batch.requests.changes import Changes
    from pandas_batch.store import NewBatch, RunRecord, Store

    from .driving import DrivenRun
    from .run_answers import RunAnswers

AnyRun = TypeVar("AnyRun", bound="DrivenRun")


def retry_run(
    run: AnyRun, *, errors: str, rows: Any = None, max_cost_usd: float | None, overrides: Mapping[str, Any]
) -> AnyRun:
    """Return a run at work that asks again for the failed (or chosen) rows of `run`, or `run` where there are none."""
    from pandas_batch.requests.changes import Changes

    if not isinstance(errors, str) or errors not in ("transient", "all"):
        raise InputError(
            f"errors is {shown(errors)}, which is neither 'transient' nor 'all'.",
            RUN_IS_AS_IT_WAS,
            f'{run.expression}.retry_failed(errors="all")   # rows=mask chooses rows',
        )
    budget_usd, from_environment = budget_of(run, max_cost_usd)
    store, parent = run.store, run.record
    changes = Changes.of(overrides, parent.options, base_url=parent.base_url, api_version=parent.api_version)
    if not look_for_gone(store, run.id, wire=run.wire, clock=run.clock):
        raise InputError(
            f"Run {run.id} has batches whose answers may still be at the server, and it cannot be asked now.",
            hint=f'pandas_batch.load("{run.id}").retry_failed()   # when the server can be reached',
        )
    if not run.is_settled():
        raise InputError(
            f"Run {run.id} has not ended; what failed is not known yet.",
            hint=f"{run.expression}.wait().retry_failed()",
        )
    chosen = None if rows is None else _chosen_requests(run, rows)
    asked = _digest(errors, changes.given, _part_of(run), chosen)
    with _alone(run, errors, changes, chosen):
        _refuse_beside_a_finish(run)
        later = retries_since(store, parent)
        if any(record.retry_digest == asked for record in later):
            # The same retry made twice (a cell run again, a second kernel) is the same retry.
            return run.sibling(later[0].id)
        if not later:
            recorded = _record(run, parent, errors, changes, asked, chosen, budget=(budget_usd, from_environment))
            if recorded is None:
                told = _nothing_to_ask(run, errors) if chosen is None else _nothing_chosen(run)
                warnings.warn(told, UserWarning, stacklevel=outside_level())
                return run
            return run.sibling(recorded.id)
    # Another retry: of what the retries made since have left, whose answers are paid for.
    newest = run.sibling(later[0].id)
    return retry_run(newest, errors=errors, rows=rows, max_cost_usd=max_cost_usd, overrides=overrides)


@contextmanager
def _alone(run: DrivenRun, errors: str, changes: Changes, chosen: np.ndarray | None) -> Iterator[None]:
    """While this is open nobody else prepares a run, nor asks live what this retry is about to ask."""
    requests = _requests_to_retry(run, errors) if chosen is None else chosen
    is_apart = chosen is not None and not changes.given
    if is_apart or len(requests) == 0 or retries_since(run.store, run.record):
        with run.store.preparing():
            yield
    else:
        start_over = chosen is not None or bool(changes.given)
        with nobody_else_asks_again(run, requests_again(run, requests, changes, start_over=start_over)):
            yield


@contextmanager
def nobody_else_asks_again(run: DrivenRun, again: Sequence[Again]) -> Iterator[None]:
    """While this is open nobody prepares a run in the store, and nobody asks one of these requests live."""
    draws = run.store.runs.requests_of(run.id).column("draw").to_numpy()[[one.request for one in again]]
    with nobody_else_asks(
        run.store,
        np.vstack([one.address for one in again]),
        draws,
        base_url=run.record.base_url,
        clock=run.clock,
        prices=run.options.prices,
        is_silent=run.options.progress == "off",
    ):
        yield


def _refuse_beside_a_finish(run: DrivenRun) -> None:
    """Refuse where a run is being finished, by whatever process: what failed is about to be asked live."""
    lease = run.store.lease(finishing_lease(run.id))
    if lease is None:
        raise InputError(
            f"Run {run.id} is being finished now: finish_now() asks what has no answer.",
            "Nothing was sent by this call, and nothing is billed for it.",
            f"{run.expression}.wait().retry_failed()   # when that is over",
        )
    lease.close()


def finishing_lease(run_id: str) -> str:
    """Return the name of the lease that is held while a run finishes now: it asks itself what it has canceled."""
    return f"finishing-{run_id}"


def _chosen_requests(run: DrivenRun, rows: Any) -> np.ndarray:
    """Return the requests of the rows that the user chose, whatever became of them."""
    answers, of_row = run.answers_of_run(), run.target.request_of_row
    of_row = answers.request_of_row if of_row is None else of_row
    chosen = of_row[positions_of(rows, run.target.index(run.store, run.id))]
    firsts = np.unique(chosen[chosen >= 0])
    requests: np.ndarray = (firsts[:, None] + np.arange(answers.n_samples)).reshape(-1)
    return requests


def _nothing_chosen(run: DrivenRun) -> str:
    return f"Run {run.id}: there is nothing to ask again, and nothing was sent; no chosen row has a request."


def budget_of(run: DrivenRun, max_cost_usd: float | None) -> tuple[float | None, bool]:
    """Return the budget of a call on a run, in USD, and whether it is the environment's."""
    from pandas_batch.requests.options import budget_of_environment, check_option

    if max_cost_usd is not None:
        given: float = check_option("max_cost_usd", max_cost_usd)
        return given, False
    if run.options.max_cost_usd is not None:
        return run.options.max_cost_usd, run.options.budget_from_environment
    # Where a run was only read, it did not matter whether this can be.
    return budget_of_environment(), True


def _nothing_to_ask(run: DrivenRun, errors: str) -> str:
    n_failed = run.snapshot().n_failed
    told = f"Run {run.id}: there is nothing to ask again, and nothing was sent; "
    if not n_failed:
        return told + "no row failed."
    rows = "1 row failed" if n_failed == 1 else f"{n_failed:,} rows failed"
    if errors == "all" or not worth_asking(run.answers(), "all").any():
        return told + f"{rows}, none of which could be asked at all: see the column error."
    return told + (
        f"{rows}, and would probably fail again as they are. To ask for them with something changed: "
        f'{run.expression}.retry_failed(errors="all", ...)'
    )


def _part_of(run: DrivenRun) -> np.ndarray | None:
    """Return the requests of the rows that the run is bound to; None where these are all of them."""
    part = run.target.request_of_row
    if part is None:
        return None
    firsts = np.unique(part[part >= 0])
    answers = run.answers_of_run()
    return None if len(firsts) * answers.n_samples == len(answers.keys) else firsts


def _digest(errors: str, given: Mapping[str, Any], part: np.ndarray | None, chosen: np.ndarray | None = None) -> str:
    """Return what makes two retries of a run the same one; no prompt can be read from it."""
    import msgspec

    digest = hashlib.blake2b(msgspec.json.encode([errors, given], order="sorted"), digest_size=16)
    if part is not None:
        # Its requests have the same numbers in every retry.
        digest.update(part.astype("<i4").tobytes())
    if chosen is not None:
        digest.update(b"rows" + chosen.astype("<i4").tobytes())
    return digest.hexdigest()


def retries_since(store: Store, parent: RunRecord) -> list[RunRecord]:
    """Return the retries of a run, and theirs, newest first."""
    later: list[RunRecord] = []
    record = store.runs.newest_of_identity(parent.identity)
    while record is not None and record.id != parent.id:
        later.append(record)
        if record.parent_id is None:
            return []
        try:
            record = store.runs.get(record.parent_id)
        except RunNotFoundError:
            return []
    return later


def _record(
    run: DrivenRun,
    parent: RunRecord,
    errors: str,
    changes: Changes,
    asked: str,
    chosen: np.ndarray | None,
    *,
    budget: tuple[float | None, bool],
) -> RunRecord | None:
    """Write the retry down; None where there is nothing to ask again."""
    store = run.store
    requests = _requests_to_retry(run, errors) if chosen is None else chosen
    if len(requests) == 0:
        return None
    table = store.runs.requests_of(run.id)
    keys = table.column("batch_key").to_numpy().copy()
    positions = table.column("position").to_numpy().copy()
    draws = table.column("draw").to_numpy().copy()
    reused = np.ones(len(keys), dtype=bool)
    again = requests_again(run, requests, changes, start_over=chosen is not None or bool(changes.given))
    if chosen is not None and not changes.given:
        # Another draw of the same request: the answer that is not wanted stays, and is not found for this one.
        draws[requests] = drawn_apart(draws[requests])
    else:
        again = without_answered(run, again, keys, positions, draws)
    budget_usd, from_environment = budget
    if again and budget_usd is not None and budget_usd != float("inf"):
        from pandas_batch.estimates.bill import check_budget
        from pandas_batch.estimates.retry_bill import estimate_bodies

        bodies = [one.params for one in again]
        check_budget(
            estimate_bodies(bodies, options=run.options, wire=run.wire(), at=run.clock.now()),
            budget_usd,
            from_environment=from_environment,
        )
    batches = written(run, again, keys, positions, draws, reused)
    record = replace(
        parent,
        id=new_run_id(run.clock.now()),
        created_at=run.clock.now(),
        parent_id=parent.id,
        n_reused=int(reused.sum()),
        n_extensions=0,
        n_retried=0,
        asks_no_more=False,
        cost_usd_max=None,
        retry_digest=asked,
    )
    return store.runs.add(
        record,
        rows=store.runs.rows_of(run.id),
        requests=in_table(table, keys, positions, reused, draws),
        batches=batches,
        index=store.runs.index_of(run.id),
    )


def in_table(
    table: pa.Table, keys: np.ndarray, positions: np.ndarray, reused: np.ndarray, draws: np.ndarray | None = None
) -> pa.Table:
    """Return the table of a run's requests with other places for their answers, and other draws."""
    if draws is not None:
        table = table.set_column(1, "draw", _array(draws, "uint16"))
    table = table.set_column(2, "batch_key", _array(keys, "int64"))
    table = table.set_column(3, "position", _array(positions, "int32"))
    return table.set_column(4, "reused", _array(reused, "bool"))


def _array(values: np.ndarray, kind: str) -> Any:
    import pyarrow as pa

    return pa.chunked_array(
        [
            pa.array(
                values, type={"int64": pa.int64(), "int32": pa.int32(), "uint16": pa.uint16(), "bool": pa.bool_()}[kind]
            )
        ]
    )


def _requests_to_retry(run: DrivenRun, errors: str) -> np.ndarray:
    """Return the requests of the run's rows that are worth asking again, in their order."""
    return np.flatnonzero(worth_asking(run.answers_of_run(), errors) & is_of_part(run))


def is_of_part(run: DrivenRun) -> np.ndarray:
    """Return for each request of the run whether a row that the run is bound to has it."""
    answers, part = run.answers_of_run(), _part_of(run)
    if part is None:
        return np.ones(len(answers.keys), dtype=bool)
    mine = np.zeros(len(answers.keys), dtype=bool)
    mine[(part[:, None] + np.arange(answers.n_samples)).reshape(-1)] = True
    return mine


@dataclass(frozen=True)
class Again:
    """
    A request that is to be asked again: its number in the run, its params, its fingerprint.

    Where it goes on from where an answer paused, `parts` are the places of that answer: (batch key, position) each.
    """

    request: int
    params: bytes
    address: np.ndarray
    parts: tuple[tuple[int, int], ...] = ()


def requests_again(
    run: DrivenRun, requests: np.ndarray, changes: Changes | None = None, *, start_over: bool = False
) -> list[Again]:
    """
    Return `requests` with their changes, from the spools they were posted from.

    An answer that has paused goes on from there, unless it is to `start_over`.
    """
    from pandas_batch.custom_ids import FINGERPRINT_BYTES, parse_custom_id
    from pandas_batch.requests.changes import Changes

    answers = run.answers_of_run()
    keys, positions = answers.keys[requests], answers.positions[requests]
    # What was asked in fact, which a retry with changes may have made another request than the run began with.
    addresses = np.zeros((len(answers.keys), FINGERPRINT_BYTES), np.uint8)
    for key in np.unique(keys).tolist():
        addresses[requests[keys == key]] = run.store.batches.requests_of(key)[0][positions[keys == key]]
    again: list[Again] = []
    gone: list[int] = []
    record = run.record
    if changes is None:
        changes = Changes.of({}, record.options, base_url=record.base_url, api_version=record.api_version)
    contents = {} if start_over else _contents_of_paused(answers, requests)

    def add(request: int, params: bytes) -> None:
        address = addresses[request]
        parts: tuple[tuple[int, int], ...] = ()
        place = int(answers.keys[request]), int(answers.positions[request])
        earlier = _parts_before(answers, *place)
        if request in contents:
            params, address = changes.going_on(params, contents[request], goes_on_already=bool(earlier))
            parts = (*earlier, place)
        elif start_over:
            if earlier:
                params = changes.from_the_start(params)
            if earlier or changes.given:
                params, address = changes.apply(params)
        else:
            parts = earlier
        again.append(Again(request, params, address, parts))

    for key in np.unique(keys).tolist():
        wanted = dict(zip(positions[keys == key].tolist(), requests[keys == key].tolist(), strict=True))
        # Where every request was answered, none of them is kept.
        with contextlib.suppress(StoreError), run.store.files.open_spool(key) as spool:
            for line in spool_lines(spool):
                parsed = parse_custom_id(custom_id_of_line(line).decode())
                if parsed is not None and parsed.position in wanted:
                    add(wanted.pop(parsed.position), params_of_line(line))
        gone += wanted.values()
    # Of an answered request the store keeps the answer alone: it is made anew from the row.
    made = _made_anew(run, np.array(sorted(gone)), addresses) if gone else {}
    for request, params in made.items():
        add(request, params)
    if len(made) < len(gone):
        raise InputError(
            f"{len(gone) - len(made):,} of the requests of run {run.id} are not in the store any more.",
            hint=f'df.claude_batch.attach("{run.id}").retry_failed(...)   # makes them anew from the rows of the frame',
        )
    return sorted(again, key=lambda one: one.request)


def _parts_before(answers: RunAnswers, key: int, position: int) -> tuple[tuple[int, int], ...]:
    """Return where the parts are of the answer that a request lets go on; none where it began by itself."""
    batch = answers.batches.get(key)
    parts = () if batch is None else batch.continued.get(str(position), ())
    return tuple((part_key, part) for part_key, part in parts)


def _contents_of_paused(answers: RunAnswers, requests: np.ndarray) -> dict[int, list[Any]]:
    """Return the content blocks of those requests whose answers have paused with something to go on from."""
    paused = requests[answers.codes_of_requests()[requests] == CODE["paused"]]
    contents: dict[int, list[Any]] = {}
    for key in np.unique(answers.keys[paused]).tolist():
        mine = paused[answers.keys[paused] == key]
        for request, content in zip(mine.tolist(), answers.last_contents_of(key, answers.positions[mine]), strict=True):
            if content:
                contents[request] = content
    return contents


def _made_anew(run: DrivenRun, requests: np.ndarray, addresses: np.ndarray) -> dict[int, bytes]:
    """Return the params of those requests that are made of rows of the run's frame, as they were."""
    from pandas_batch.requests.plan import plan_requests

    frame, of_row = run.target.frame, run.target.request_of_row
    if frame is None:
        return {}
    answers = run.answers_of_run()
    of_row = answers.request_of_row if of_row is None else of_row
    options = replace(run.options, on_missing="skip", on_unsendable="skip")
    plan = plan_requests(frame, options, base_url=run.record.base_url, api_version=run.record.api_version)
    row_of = {request: row for row, request in reversed(list(enumerate(of_row.tolist()))) if request >= 0}
    rows = {request: row_of.get(request - request % answers.n_samples) for request in requests.tolist()}
    same = {
        request: row
        for request, row in rows.items()
        if row is not None and plan.sendable[row] and np.array_equal(plan.fingerprints[row], addresses[request])
    }
    positions = np.unique(list(same.values())) if same else np.zeros(0, np.int64)
    params = [part.before + middle + part.after for part in plan.slices(positions) for middle in part.middles]
    of_position = dict(zip(positions.tolist(), params, strict=True))
    return {request: of_position[row] for request, row in same.items()}


def without_answered(
    run: DrivenRun,
    again: list[Again],
    keys: np.ndarray,
    positions: np.ndarray,
    draws: np.ndarray,
    *,
    in_flight: bool = True,
) -> list[Again]:
    """Point to the answers that another run has paid for, or (`in_flight`) waits for, and return what is left."""
    if not again or not run.record.options.get("reuse", True):
        return again
    requests = np.array([one.request for one in again])
    found, places = run.store.batches.find_answers(
        np.vstack([one.address for one in again]),
        draws[requests],
        base_url=run.record.base_url,
        in_flight=in_flight,
    )
    # With `errors="all"` an answer that was cut is asked again, and not taken for an answer.
    is_other = (found >= 0) & ((found != keys[requests]) | (places != positions[requests]))
    keys[requests[is_other]], positions[requests[is_other]] = found[is_other], places[is_other]
    return [one for one, answered in zip(again, is_other.tolist(), strict=True) if not answered]


def written(
    run: DrivenRun,
    again: list[Again],
    keys: np.ndarray,
    positions: np.ndarray,
    draws: np.ndarray,
    reused: np.ndarray,
    *,
    live_nonce: str | None = None,
) -> list[NewBatch]:
    """
    Write the bodies of the retry's batches, and the new places of their requests into the arrays.

    With `live_nonce` they become the one live batch of that nonce, whatever their size.
    """
    from pandas_batch.custom_ids import custom_ids
    from pandas_batch.store import NewBatch

    record = run.record
    batches: list[NewBatch] = []
    start = 0
    while start < len(again):
        body, nonce = SpoolBody(run.store.files.new_spool()), live_nonce or new_nonce()
        stop = start
        most_bytes = math.inf if live_nonce else BATCH_BYTES
        while stop < len(again) and stop - start < MAX_BATCH_REQUESTS and body.n_bytes < most_bytes:
            one, position = again[stop], stop - start
            draw = draws[one.request : one.request + 1]
            custom_id = custom_ids(nonce, one.address[None, :], draw, start=position)[0]
            body.write_line(custom_id, one.params)
            keys[one.request], positions[one.request], reused[one.request] = -(len(batches) + 1), position, False
            stop += 1
        batches.append(
            NewBatch(
                nonce=nonce,
                fingerprints=np.vstack([one.address for one in again[start:stop]]),
                draws=draws[[one.request for one in again[start:stop]]],
                spool=body.close(),
                base_url=record.base_url,
                betas=tuple(record.options.get("betas", ())),
                is_live=live_nonce is not None,
                continued={at: one.parts for at, one in enumerate(again[start:stop]) if one.parts},
            )
        )
        start = stop
    return batches
