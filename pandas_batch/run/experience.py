"""Which stored answers tell what a call will probably cost: those to its prompt, else of its model and schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pandas_batch.errors import PandasBatchError
from pandas_batch.estimates.experience import Experience

if TYPE_CHECKING:
    from pandas_batch.requests.options import Options
    from pandas_batch.store import Store

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
    earlier = store.newest_options(_N_RUNS, base_url=base_url)
    for names in (OF_THE_PROMPT, _OF_THE_ANSWER):
        alike = [run for run, theirs in earlier if all(ours.get(name) == theirs.get(name) for name in names)]
        found = _of_answers(_tables(store, alike))
        if found is not None:
            return found
    return None


def _of_answers(tables: Sequence[Any]) -> Experience | None:
    """Return the experience of tables of answers; None where there is none."""
    import pyarrow.compute as pc

    n, n_tokens, n_searches = 0, 0, 0
    for table in tables:
        answered = table.filter(pc.equal(table.column("status").cast("string"), "succeeded"))
        known = answered.filter(pc.is_valid(answered.column("output_tokens")))
        n += known.num_rows
        n_tokens += pc.sum(known.column("output_tokens")).as_py() or 0
        n_searches += pc.sum(known.column("web_search_requests")).as_py() or 0
    return Experience(n, n_tokens / n, n_searches / n) if n else None


def _tables(store: Store, runs: list[str]) -> list[Any]:
    from pandas_batch.engine.rebuilding import answers_of

    tables: list[Any] = []
    for run_id in runs:
        for batch in store.batches_of_run(run_id):
            if batch.state != "collected" or batch.run_id != run_id:
                continue
            try:
                tables.append(answers_of(store, batch))
            except PandasBatchError:
                continue  # damaged: said where these answers are wanted themselves
            if sum(table.num_rows for table in tables) >= _ENOUGH:
                return tables
    return tables
