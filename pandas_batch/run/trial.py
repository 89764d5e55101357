"""A few rows now, through the Messages API: recorded, asked, collected and priced like rows of a batch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_batch.amounts import number, usd
from pandas_batch.clock import SYSTEM_CLOCK, Clock
from pandas_batch.custom_ids import new_nonce
from pandas_batch.display.live_progress import LiveProgress
from pandas_batch.display.progress import in_kernel
from pandas_batch.errors import InputError, clip, outside_level
from pandas_batch.estimates.bill import check_budget
from pandas_batch.estimates.estimate import estimate_requests
from pandas_batch.requests.plain_values import shown

from .joining import columns_of
from .live_batch import ask_live, at_standard_price, lost_words, wait_for
from .others_asking import new_live_nonce, nobody_else_asks
from .recording import Found, Needs, drawn_apart, new_run_id, requests_table, rows_table, spooled
from .run import Run, TargetFrame
from .starting import Call, refuse_clash, writers_of

if TYPE_CHECKING:
    from pandas_batch.estimates.bill import Estimate
    from pandas_batch.requests.options import Options
    from pandas_batch.store import Lease, RunRecord, Store

MOST_ROWS = 50

_N_SHOWN = 50


def trial_rows(frame: pd.DataFrame, options: Options, n: Any, *, clock: Clock = SYSTEM_CLOCK) -> pd.DataFrame:
    """Ask `n` rows now and return them with their answers; see `ClaudeBatchFrame.trial`."""
    positions = rows_to_try(frame.index, n)
    # Another number of retries is for batches; here the API's own refusals are tried again at once.
    options = replace(options, retries=0)
    call = Call(frame, options, clock=clock)
    store = call.open_store()
    refuse_clash(call, writers_of(call, store), is_new=True)
    needs = needs_of_rows(call, positions)
    estimate = _checked_estimate(call, needs, _found(call, store, needs))
    progress = LiveProgress(options.progress, "trial", len(needs.rows), clock=clock)
    record, key, lease = _recorded(call, store, needs, positions, estimate)
    run = Run(
        store,
        record.id,
        options,
        target=TargetFrame(frame.iloc[positions]),
        schema=call.plan.schema,
        wire=call.wire,
        clock=clock,
    )
    if key is not None and lease is not None:
        rows = "1 request" if estimate.to_send == 1 else f"{estimate.to_send:,} requests"
        progress.tell(
            f"Asking {rows} now, through the Messages API at the standard price: at most {usd(estimate.cost_usd_max)}."
        )
        asker = ask_live(run, key, lease, wire=call.wire(), on_answer=progress.update, on_trouble=progress.trouble)
        wait_for(
            asker,
            run,
            timeout=options.timeout,
            again="the same trial, or submit(...): neither pays it again",
            on_end=progress.close,
        )
        if said := lost_words(asker):
            warnings.warn(f"Run {run.id}: {said}", UserWarning, stacklevel=outside_level())
    tried = run.result()
    if options.progress != "off":
        _show(call, run, needs, positions, progress)
    return tried


# -------------------------------------------------------------------- which rows


def rows_to_try(index: pd.Index, n: Any) -> np.ndarray:
    """
    Return the positions of the rows of a trial, ascending.

    Parameters
    ----------
    index
        The frame's.
    n
        How many, spread over the frame; or the labels of the rows.

    Examples
    --------
    >>> rows_to_try(pd.RangeIndex(100), 5).tolist()
    [0, 25, 50, 74, 99]
    >>> rows_to_try(pd.Index(list("abcab")), ["b", "c"]).tolist()
    [1, 2, 4]
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        return _labelled(index, n)
    if not 1 <= n <= MOST_ROWS:
        raise InputError(
            f"n={shown(int(n))} is not between 1 and {MOST_ROWS}: a trial asks a few rows, at the standard price.",
            hint="n=5\ndf.claude_batch.submit(...)   # asks all rows in a batch, at half the price",
        )
    n_rows = len(index)
    if n >= n_rows:
        return np.arange(n_rows)
    return np.linspace(0, n_rows - 1, int(n)).round().astype(np.int64)


def _labelled(index: pd.Index, labels: Any) -> np.ndarray:
    if isinstance(labels, str | bytes | bool | float) or not isinstance(labels, Iterable):
        raise InputError(
            f"n={shown(labels)} is neither a number of rows nor a list of labels.",
            hint="n=5   # spread over the frame\nn=[label, ...]   # these rows",
        )
    wanted = list(labels)
    try:
        known = set(index[index.isin(wanted)])
        unknown = [label for label in wanted if label not in known]
    except (TypeError, ValueError):
        unknown = wanted
    if unknown or not wanted:
        named = ", ".join(clip(repr(label), 60) for label in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        what = f"The frame has no rows labelled {named}." if unknown else "n=[] names no row."
        some = ", ".join(clip(repr(label), 60) for label in index[:2].tolist())
        raise InputError(what, hint=f"n=[{some}]   # labels of the frame's index" if len(index) else "n=5")
    positions = np.flatnonzero(index.isin(wanted))
    if len(positions) > MOST_ROWS:
        raise InputError(
            f"n= names {len(positions):,} rows; a trial asks at most {MOST_ROWS}, at the standard price.",
            hint="df.loc[labels].claude_batch.submit(...)   # asks them in a batch, at half the price",
        )
    return positions


def needs_of_rows(call: Call, positions: np.ndarray) -> Needs:
    """Return the requests of some rows, as they are among those of all rows: a submit has the same."""
    from pandas_batch.requests.fingerprints import identity

    needs, n_samples = call.needs, call.options.samples
    of_row = needs.request_of_row[positions]
    sent = of_row >= 0
    firsts, places = np.unique(of_row[sent], return_inverse=True)
    chosen = (firsts[:, None].astype(np.int64) + np.arange(n_samples)).reshape(-1)
    request_of_row = np.full(len(positions), -1, dtype=np.int32)
    request_of_row[sent] = places * n_samples
    draws = np.zeros(len(positions), dtype=np.uint16)
    draws[sent] = needs.draws[of_row[sent]]
    # No name: a trial is no run that load(name) should find in place of the one over all rows.
    salt = f"trial samples={n_samples}" + ("" if call.options.reuse else f" {new_nonce()}")
    return Needs(
        rows=needs.rows[chosen],
        fingerprints=np.ascontiguousarray(needs.fingerprints[chosen]),
        draws=needs.draws[chosen],
        request_of_row=request_of_row,
        identity=identity(None, call.plan.fingerprints[positions], draws, salt=salt),
    )


# -------------------------------------------------------------------- before anything is asked


def _found(call: Call, store: Store, needs: Needs) -> Found:
    """Return which of the requests have an answer; one that is under way in a batch is asked all the same."""
    nothing = np.full(needs.n_requests, -1, dtype=np.int64)
    if not call.options.reuse or not needs.n_requests:
        return Found(nothing, nothing.astype(np.int32))
    keys, places = store.batches.find_answers(needs.fingerprints, needs.draws, base_url=call.base_url, in_flight=False)
    return Found(keys, places)


def _checked_estimate(call: Call, needs: Needs, found: Found) -> Estimate:
    """Return what the trial may cost at most, within the budget."""
    rows = needs.rows[found.missing]
    call.refuse_certain(rows)
    options = call.options

    def estimated(*, online: bool) -> Estimate:
        made = estimate_requests(
            call.plan,
            rows,
            options=options,
            n_reused=found.n_reused,
            n_batches=0,
            n_bytes=0,
            wire=call.wire() if online and len(rows) else None,
            at=call.clock.now(),
            clock=call.clock,
        )
        return at_standard_price(made)

    estimate = estimated(online=False)
    if len(rows):
        call.wire()
        budget = options.max_cost_usd
        if budget is not None and estimate.cost_usd_max is not None and estimate.cost_usd_max > budget:
            # Counting takes a moment, and is worth it where the guess from the bytes is what stands in the way.
            estimate = estimated(online=True)
        check_budget(estimate, budget, from_environment=options.budget_from_environment)
    return estimate


def _recorded(
    call: Call, store: Store, needs: Needs, positions: np.ndarray, estimate: Estimate
) -> tuple[RunRecord, int | None, Lease | None]:
    """Write the trial down, or find the one that has every answer; return its batch and our lease of it, if any."""
    from pandas_batch.store import RunRecord

    options, now = call.options, call.clock.now()
    with nobody_else_asks(
        store,
        needs.fingerprints,
        needs.draws,
        base_url=call.base_url,
        clock=call.clock,
        prices=options.prices,
        is_silent=options.progress == "off",
    ):
        found = _found(call, store, needs)
        missing = found.missing
        existing = store.runs.newest_of_identity(needs.identity)
        if existing is not None and not len(missing) and _has(store, existing, found):
            return existing, None, None
        draws = needs.draws if options.reuse else drawn_apart(needs.draws)
        nonce, lease = new_live_nonce(store)
        keys, places = found.keys.copy(), found.positions.copy()
        reused = keys >= 0
        try:
            batches, keys[missing], places[missing] = spooled(
                store,
                call.plan,
                needs.rows[missing],
                needs.fingerprints[missing],
                draws[missing],
                options,
                call.base_url,
                live_nonce=nonce,
            )
            run = store.runs.add(
                RunRecord(
                    id=new_run_id(now),
                    name=None,
                    identity=needs.identity,
                    created_at=now,
                    base_url=call.base_url,
                    model=", ".join(call.plan.models) or str(options.model),
                    n_rows=len(positions),
                    n_requests=needs.n_requests,
                    n_reused=int(reused.sum()),
                    n_skipped=int((needs.request_of_row < 0).sum()),
                    options=options.to_json() | {"not_remembered": list(options.not_remembered), "trial": True},
                    cost_usd_max=estimate.cost_usd_max,
                    api_version=call.api_version,
                ),
                rows=rows_table(needs.request_of_row, _reasons(call, positions)),
                requests=requests_table(needs.fingerprints, draws, keys, places, reused),
                batches=batches,
                index=None if call.index is None else call.index[positions],
            )
        except BaseException:
            lease.close()
            raise
    if not batches:
        lease.close()
        return run, None, None
    return run, run.batch_keys[0], lease


def _has(store: Store, run: RunRecord, found: Found) -> bool:
    table = store.runs.requests_of(run.id)
    keys, places = table.column("batch_key").to_numpy(), table.column("position").to_numpy()
    return bool(np.array_equal(keys, found.keys) and np.array_equal(places, found.positions))


def _reasons(call: Call, positions: np.ndarray) -> dict[int, str]:
    reasons = call.plan.reasons
    return {place: reasons[row] for place, row in enumerate(positions.tolist()) if row in reasons}


# -------------------------------------------------------------------- what is shown


def _show(call: Call, run: Run, needs: Needs, positions: np.ndarray, progress: LiveProgress) -> None:
    status = run.snapshot()
    n_answered = status.counts.get("succeeded", 0)
    said = f"{n_answered:,} of {status.n_rows:,} rows answered, {usd(status.cost_usd)}. {_forecast(call, run)}".strip()
    if not in_kernel():
        progress.tell(f"pandas_batch trial: {said}")
        return
    from IPython.display import display

    from pandas_batch.display.trial_view import trial_html, trial_text

    rows = [] if os.environ.get("PANDAS_BATCH_SHOW_ANSWERS") == "0" else _tried(call, run, needs, positions)
    display({"text/html": trial_html(rows, said), "text/plain": trial_text(rows, said)}, raw=True)


def _tried(call: Call, run: Run, needs: Needs, positions: np.ndarray) -> list[Any]:
    from pandas_batch.display.trial_view import TriedRow

    columns, _ = columns_of(run.answers(), ["output", "status", "error", "tokens", "cost_usd"])
    labels = run.target.index(run.store, run.id)
    prompts = _prompts(call, positions)
    rows = []
    for place in range(len(positions)):
        cells = {name: values[place] for name, values in columns.items()}
        if call.options.samples > 1:
            cells = {name: values[0] for name, values in cells.items()}
        text = cells["output"] if isinstance(cells["output"], str) else ""
        error = cells["error"] if isinstance(cells["error"], str) else ""
        is_answered = cells["status"] in ("succeeded", "invalid")
        rows.append(
            TriedRow(
                label=clip(str(labels[place]), 60),
                prompt=prompts[place],
                answer=text or error or str(cells["status"]),
                is_answered=is_answered,
                tokens=None if pd.isna(cells["tokens"]) else int(cells["tokens"]),
                cost_usd=None if pd.isna(cells["cost_usd"]) else float(cells["cost_usd"]),
            )
        )
    return rows


def _prompts(call: Call, positions: np.ndarray) -> list[str]:
    """Return the last user message of each row as text; what is no text stands there by its kind."""
    import msgspec

    sendable = positions[call.plan.sendable[positions]]
    texts = dict.fromkeys(positions.tolist(), "")
    bodies = (body for part in call.plan.encode(sendable) for body in part)
    for row, body in zip(sendable.tolist(), bodies, strict=True):
        content = msgspec.json.decode(body)["messages"][-1]["content"]
        if not isinstance(content, str):
            content = "\n".join(str(block.get("text") or f"[{block.get('type')}]") for block in content)
        texts[row] = content
    return [texts[row] for row in positions.tolist()]


def _forecast(call: Call, run: Run) -> str:
    """Return what all rows would cost in batches, by the answers of the trial; "" where that is not known."""
    mean_usd = mean_batch_usd(run)
    if mean_usd is None:
        return ""
    nothing = np.full(call.needs.n_requests, -1, dtype=np.int64)
    whole = call.estimate(found=Found(nothing, nothing.astype(np.int32)), online=False)
    rows = f"All {number(call.plan.n_rows)} rows in a batch, at this length: {usd(mean_usd * call.needs.n_requests)}"
    return f"{rows}, at most {usd(whole.cost_usd_max)}." if whole.cost_usd_max is not None else f"{rows}."


def mean_batch_usd(run: Run) -> float | None:
    """Return what an answer like those of `run` costs on average in a batch; None where none has a known price."""
    total, n = 0.0, 0
    for table, places, _ in run.answers().over_tables():
        standard = table.column("cost_usd_standard").to_numpy()[places]
        searches = table.column("web_search_requests").fill_null(0).to_numpy()[places] * 0.01
        is_told = ~np.isnan(standard) & (table.column("status").cast("string").to_numpy()[places] == "succeeded")
        # Tokens cost half in a batch, a search as much.
        total += float(((standard - searches) / 2 + searches)[is_told].sum())
        n += int(is_told.sum())
    return total / n if n else None
