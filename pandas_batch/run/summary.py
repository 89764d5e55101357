"""What a finished run did and cost, in words, in numbers and as a picture."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_batch.amounts import number, usd
from pandas_batch.columns import CORE_COLUMNS
from pandas_batch.errors import clip
from pandas_batch.estimates.bill import Estimate
from pandas_batch.estimates.tables import html_table, text_table
from pandas_batch.results.pricing import unpriced_warning
from pandas_batch.results.row_status import exact_sum
from pandas_batch.run.key_slices import is_all
from pandas_batch.stop_reasons import CUT, PAUSED, STOP_REASONS
from pandas_batch.types import DEFAULT_MAX_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_batch.engine.surplus import Surplus
    from pandas_batch.results.rates import Prices
    from pandas_batch.run.run_answers import RunAnswers
    from pandas_batch.store import RunRecord
    from pandas_batch.types import RunStatus

_BESIDE = {"tool_calls": "calls of tools", "thinking": "thinking alone", "content": "files or other blocks"}


def warnings_of(
    answers: RunAnswers,
    run_id: str,
    expression: str | None = None,
    max_tokens: Any = None,
    names: Sequence[str] = CORE_COLUMNS,
) -> list[str]:
    """
    Return what a user has to hear once about the answers of a run.

    Parameters
    ----------
    answers, run_id
        Of the run.
    expression
        What to type for it.
    max_tokens
        What its answers were limited to, where that is one number.
    names
        The columns that are asked for.
    """
    run = expression or f'pandas_batch.load("{run_id}")'
    told = []
    stop_reasons = _count_values(answers, "stop_reason") if _words_of(answers, "stop_reason") & {*CUT} else {}
    cut = [reason for reason in STOP_REASONS if reason.is_cut and stop_reasons.get(reason.name)]
    parts = [f"{stop_reasons[reason.name]:,} {reason.of_rows}" for reason in cut]
    if parts:
        more = 4 * (max_tokens if isinstance(max_tokens, int) else DEFAULT_MAX_TOKENS)
        limit = f", max_tokens={more}" if any(reason.needs_room for reason in cut) else ""
        # What has paused goes on by itself when it is asked again, as what failed does.
        how = f'errors="all"{limit}' if any(reason.name != PAUSED for reason in cut) else ""
        told.append(
            f"Run {run_id}: of the answered rows {', '.join(parts)}; see the column stop_reason. "
            f"To ask these again: {run}.retry_failed({how})" + "".join(f". {it.advice}" for it in cut if it.advice)
        )
    beside = _count_values(answers, "beside_output") if _words_of(answers, "beside_output") else {}
    beside = {column: n for column, n in beside.items() if not {column, "content"} & {*names}}
    if beside:
        n_beside = sum(beside.values())
        rows = "1 row" if n_beside == 1 else f"{n_beside:,} rows"
        asked = ", ".join(f'"{column}"' for column in dict.fromkeys((*names, *sorted(beside))))
        kinds = ", ".join(_BESIDE[column] for column in sorted(beside))
        told.append(
            f"Run {run_id}: {rows} answered with content that the column output does not hold ({kinds}). "
            "It is paid and kept, and costs nothing more: "
            f"{run}.result(columns=[{asked}])"
        )
    # What was asked live is recognized by its cost, and has no other tier than it should.
    if _words_of(answers, "service_tier", live=False) - {"batch"}:
        counted = _count_values(answers, "service_tier", live=False)
        tiers = {tier: n for tier, n in counted.items() if tier != "batch"}
    else:
        tiers = {}
    if tiers:
        shown = ", ".join(f"{n:,} as {tier!r}" for tier, n in tiers.items())
        told.append(f"Run {run_id}: the server reports answers outside the batch tier ({shown}); check the bill.")
    unpriced = answers.unpriced_models()
    if unpriced:
        told.append(unpriced_warning(unpriced))
    return told


def _words_of(answers: RunAnswers, name: str, *, live: bool = True) -> set[str]:
    """Return the words that a column of few words may hold: to count them takes a look at every row."""
    chunks = [chunk for table, _, _ in answers.over_tables(live=live) for chunk in table.column(name).chunks]
    return {word for chunk in chunks for word in chunk.dictionary.to_pylist()}


def _count_values(answers: RunAnswers, name: str, *, live: bool = True) -> dict[str, int]:
    """Return how many rows have which value in a column of few words (``stop_reason``, ``service_tier``)."""
    import pyarrow as pa

    counted: dict[str, int] = {}
    for table, positions, mine in answers.over_tables(live=live):
        column = table.column(name).unify_dictionaries()
        words = column.chunk(0).dictionary.to_pylist() if column.num_chunks else []
        indices = pa.chunked_array([chunk.indices for chunk in column.chunks], pa.int32())
        codes = indices.fill_null(len(words)).to_numpy()
        if not is_all(positions, len(codes)):
            codes = codes[positions]
        counts = np.bincount(codes, weights=answers.weights_of(mine), minlength=len(words) + 1)
        for word, weight in zip(words, counts.tolist(), strict=False):
            if word and weight:
                counted[word] = counted.get(word, 0) + int(weight)
    return counted


class Summary(pd.Series):
    """The account of a run as a Series that is shown as a table, with amounts as they are spelled everywhere."""

    @property
    def _constructor(self) -> Any:
        return pd.Series

    def _lines(self) -> list[tuple[str, str]]:
        return [(str(name), _spelled(str(name), value)) for name, value in self.items()]

    def __repr__(self) -> str:
        return text_table(f"Run {clip(str(self.name), 80)}", self._lines())

    def _repr_html_(self) -> str:
        return html_table(f"Run {clip(str(self.name), 80)}", self._lines(), numbers=False)


def _spelled(name: str, value: Any) -> str:
    if name.endswith("(USD)"):
        return usd(value)
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S %Z}".strip()
    if isinstance(value, int | float):
        return number(value)
    return clip(str(value), 120)


def summary_of(
    status: RunStatus,
    answers: RunAnswers,
    run: RunRecord,
    *,
    prices: Prices | None = None,
    surplus: Sequence[Surplus] = (),
) -> pd.Series:
    """
    Return the account of a run, one value per line.

    Parameters
    ----------
    status, answers, run
        What there is to say of it.
    prices
        Prices of the call, which go before the published ones.
    surplus
        Batches that the server made besides, and billed.
    """
    cached = answers.sum_tokens("cache_read_tokens")
    lines: dict[str, Any] = {
        "run": status.run_id,
        "name": status.name,
        "status": status.state,
        "model": status.model,
        "rows": status.n_rows,
        **{f"rows {name}": n for name, n in status.counts.items()},
        "requests": status.n_requests,
        "requests reused": status.n_reused,
        "batches": len(status.batches),
        "input tokens": answers.sum_tokens("input_tokens"),
        "cache read tokens": cached,
        "cache write tokens": answers.sum_tokens("cache_write_tokens"),
        "output tokens": answers.sum_tokens("output_tokens"),
        "cost (USD)": status.cost_usd,
        "paid by this run (USD)": status.paid_usd,
        "without batching (USD)": status.cost_usd_standard,
        "spared by reuse and dedupe (USD)": status.saved_by_reuse_usd,
        "spared by prompt caching (USD)": spared_by_cache_usd(answers, prices),
        "upper bound before (USD)": status.cost_usd_max,
        "started at": status.started_at,
        "finished at": status.finished_at,
    }
    if surplus:
        costs = [batch.cost_usd for batch in surplus]
        lines["made besides by the server"] = ", ".join(batch.batch_id for batch in surplus)
        lines["billed besides (USD)"] = None if None in costs else exact_sum(np.array(costs))
    # A retry asks for less than its parent was estimated for, and a run under way has no bill yet.
    if run.estimate and run.parent_id is None and status.state == "collected":
        estimate = Estimate.from_json(run.estimate)
        parts = ("input_tokens", "cache_read_tokens", "cache_write_tokens")
        n_input = sum(answers.sum_tokens(name, bought_only=True) for name in parts)
        lines |= {
            "estimated input tokens": estimate.input_tokens,
            "billed input tokens": n_input,
            "estimate and bill": estimate.against(status.paid_usd, n_input),
        }
    return Summary(lines, name=status.run_id, dtype=object)


def spared_by_cache_usd(answers: RunAnswers, prices: Prices | None = None) -> float | None:
    """
    Return what prompt caching has spared, in US dollars; None where a price is unknown.

    The same answers are priced as if every cached token had been plain input. Below 0, writing the cache has cost
    more than reading it has spared.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from pandas_batch.results.pricing import add_costs

    spared = 0.0
    for table, at, has_discount in answers.bought_at():
        read, written = (table.column(f"cache_{kind}_tokens").fill_null(0) for kind in ("read", "write"))
        cached = table.filter(pc.greater(pc.add(read, written), 0))
        if not cached.num_rows:
            continue
        parts = [cached.column(f"{name}_tokens").fill_null(0) for name in ("input", "cache_read", "cache_write")]
        nothing = pa.array(np.zeros(cached.num_rows, np.int64))
        plain = cached
        for name, values in {
            "input_tokens": pc.add(pc.add(parts[0], parts[1]), parts[2]),
            "cache_read_tokens": nothing,
            "cache_write_tokens": nothing,
            "cache_write_1h_tokens": nothing,
        }.items():
            plain = plain.set_column(plain.column_names.index(name), name, values)
        without, with_cache = (
            add_costs(priced, at=at, prices=prices, batch=has_discount).column("cost_usd") for priced in (plain, cached)
        )
        if without.null_count or with_cache.null_count:
            return None
        spared += pc.sum(without).as_py() - pc.sum(with_cache).as_py()
    return round(spared, 12)
