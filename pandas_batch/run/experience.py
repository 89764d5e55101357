"""Which stored answers tell what a call will probably cost: those to its prompt, else of its model and schema."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pandas_batch.errors import PandasBatchError
from pandas_batch.estimates.experience import Experience

if TYPE_CHECKING:
    from pandas_batch.requests.options import Options
    from pandas_batch.store import BatchRecord, Store

OF_THE_PROMPT = ("prompt", "prompt_col", "few_shot", "system", "schema_json", "model", "params", "extra_params")
"""The options that make the question, as a run records them."""
_OF_THE_ANSWER = ("schema_json", "model")

_N_RUNS = 50
"""How many runs are looked at, from the newest on."""
_ENOUGH = 200
"""Answers after which no more are looked for."""


def experience_with(store: Store | None, options: Options, *, base_url: str) -> Experience | None:
    """Return what the store knows of answers to this prompt, or of its model and schema; None where it knows none."""
    if store is None:
        return None
    ours = options.to_json()
    earlier = store.runs.newest_options(_N_RUNS, base_url=base_url)
    for names in (OF_THE_PROMPT, _OF_THE_ANSWER):
        alike = [run for run, theirs in earlier if all(ours.get(name) == theirs.get(name) for name in names)]
        found = _of_runs(store, alike)
        if found is not None:
            return found
    return None


def _of_runs(store: Store, runs: Sequence[str]) -> Experience | None:
    """Return the experience of the newest answers to runs; None where there is none."""
    n, n_tokens, n_searches, n_seen = 0, 0, 0, 0
    for batch in store.batches.made_by(runs):
        if batch.state != "collected":
            continue
        try:
            seen = _of_batch(store, batch)
        except PandasBatchError:
            continue  # damaged: said where these answers are wanted themselves
        n, n_tokens, n_searches = n + seen.n, n_tokens + seen.n_tokens, n_searches + seen.n_searches
        n_seen += seen.n_rows
        if n_seen >= _ENOUGH:
            break
    return Experience(n, n_tokens / n, n_searches / n) if n else None


class _Seen(NamedTuple):
    """What the answers of one batch tell."""

    n_rows: int
    n: int
    n_tokens: int
    n_searches: int


def _of_batch(store: Store, batch: BatchRecord) -> _Seen:
    path = store.files.answers_path(batch.key)
    try:
        stat = os.stat(path)
    except OSError:  # lost: made anew
        return _count(store, batch)
    version = (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    known = _seen.get(version)
    if known is None:
        if len(_seen) >= _MOST_KEPT:
            _seen.clear()
        known = _seen[version] = _count(store, batch)
    return known


_MOST_KEPT = 4096
_seen: dict[tuple[str, int, int, int], _Seen] = {}
"""What is known of batches whose answers were read before in this process, by the version of their file."""


def _count(store: Store, batch: BatchRecord) -> _Seen:
    import pyarrow.compute as pc

    from pandas_batch.engine.rebuilding import answers_of

    table = answers_of(store, batch)
    answered = table.filter(pc.equal(table.column("status").cast("string"), "succeeded"))
    known = answered.filter(pc.is_valid(answered.column("output_tokens")))
    n_tokens = pc.sum(known.column("output_tokens")).as_py() or 0
    n_searches = pc.sum(known.column("web_search_requests")).as_py() or 0
    return _Seen(table.num_rows, known.num_rows, n_tokens, n_searches)
