"""The results of one batch, line by line: fetched again until they are whole, each id given once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from datetime import datetime

from pandas_batch.clock import Clock
from pandas_batch.errors import outside_level
from pandas_batch.types import BatchResult
from pandas_batch.wire.backoff import backoff_s
from pandas_batch.wire.endpoints import open_results_flow
from pandas_batch.wire.failures import is_not_found, is_transient, retry_after_s
from pandas_batch.wire.flows import Emit, Flow, Pause, Read

N_DOWNLOADS = 5
"""How often a file is fetched to its end before what it lacks is taken to be absent."""
FAILING_PATIENCE_S = 600.0
"""How long downloads may go on failing before the error is raised."""


def results_flow(
    batch_id: str,
    clock: Clock,
    *,
    n_requests: int,
    custom_ids: Collection[str] | None = None,
    at: datetime | None = None,
    model_asked: Callable[[str], str | None] = lambda _: None,
    finished: Callable[[BatchResult], BatchResult] = lambda result: result,
) -> Flow[None]:
    """
    Emit the `BatchResult` of each line as it arrives, in the server's order.

    A download that breaks off, is short, or holds differing lines for one id is made again; what was emitted is
    not emitted twice. Memory does not grow with the length of the answers: of each only two numbers are kept.

    Parameters
    ----------
    batch_id
        An ended batch.
    clock
        What tells how long downloads have been failing.
    n_requests
        How many results there must be.
    custom_ids
        The ids there must be, where they are known; others are warned about and left out.
    at
        When the batch was made: answers are priced as of then.
    model_asked
        Returns the model that the request of an id asked: the price of an answer that does not tell its own.
    finished
        What is done to each result before it is given out.
    """
    from pandas_batch.results.answers import is_text, result_of_line
    from pandas_batch.results.result_lines import LineSplitter

    seen: dict[int, int] = {}
    unknown: set[str] = set()
    unreadable: dict[str, BatchResult] = {}
    n_not_utf8 = n_conflicts = n_whole = n_failures = 0
    failing_since_s = 0.0
    while True:
        n_conflicts = 0
        splitter = LineSplitter()
        try:
            block: bytes = yield from open_results_flow(batch_id)
            while True:
                for line in splitter.feed(block) if block else splitter.rest():
                    result = result_of_line(line, at=at, model_asked=model_asked)
                    if result.status == "invalid":
                        if result.custom_id:
                            unreadable[result.custom_id] = result
                        continue
                    if custom_ids is not None and result.custom_id not in custom_ids:
                        unknown.add(result.custom_id)
                        continue
                    key = hash(result.custom_id)
                    if key not in seen:
                        seen[key] = hash(line)
                        n_not_utf8 += not is_text(line)
                        yield Emit(finished(result))
                    elif seen[key] != hash(line):
                        n_conflicts += 1
                if not block:
                    break
                block = yield Read()
        except Exception as error:
            n_failures += 1
            if n_failures == 1:
                failing_since_s = clock.monotonic_s()
            # A 404 just after the end is a known passing state of the API.
            is_passing = is_transient(error) or is_not_found(error)
            if not is_passing or clock.monotonic_s() - failing_since_s >= FAILING_PATIENCE_S:
                raise
            yield Pause(max(backoff_s(n_failures), retry_after_s(error) or 0.0))
            continue
        n_failures = 0
        n_whole += 1
        if n_whole == N_DOWNLOADS or (len(seen) >= n_requests and not n_conflicts):
            break
        yield Pause(backoff_s(n_whole))
    for result in unreadable.values():
        if hash(result.custom_id) not in seen and (custom_ids is None or result.custom_id in custom_ids):
            seen[hash(result.custom_id)] = 0
            yield Emit(result)
    _warn(
        batch_id,
        n_absent=n_requests - len(seen),
        n_unknown=len(unknown),
        n_conflicts=n_conflicts,
        n_not_utf8=n_not_utf8,
    )


def _warn(batch_id: str, *, n_absent: int, n_unknown: int, n_conflicts: int, n_not_utf8: int) -> None:
    for count, what in (
        (n_absent, "have no line in the server's results, also after fetching them again"),
        (n_unknown, "were never asked for and are left out"),
        (n_not_utf8, "hold bytes that are not UTF-8, which are U+FFFD in their texts"),
        (n_conflicts, "have differing lines in the server's results; the first is kept"),
    ):
        if count > 0:
            warnings.warn(f"Batch {batch_id}: {count:,} results {what}.", RuntimeWarning, stacklevel=outside_level())
