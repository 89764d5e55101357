"""The runs of a store: list them, load one, fetch answers again when the store itself is lost."""

from __future__ import annotations

import warnings
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pandas as pd

from pandas_batch.call_arguments import in_words
from pandas_batch.clock import SYSTEM_CLOCK, Clock
from pandas_batch.errors import NOTHING_SENT, InputError, PandasBatchError, RunNotFoundError, clip, outside_level
from pandas_batch.requests.options import check_option
from pandas_batch.requests.plain_values import kind_of

from .run import Run
from .status import state_of

if TYPE_CHECKING:
    from pandas_batch.run.comparison import Comparison
    from pandas_batch.store import BatchRecord, Store

_LISTED = ["run", "name", "status", "model", "rows", "requests", "reused", "batches", "created_at", "base_url"]
_LISTED += ["parent"]


class _Batch(NamedTuple):
    """What decides about the state of a run, of a batch of it."""

    state: str
    cancel_asked: bool

    @property
    def cancel_initiated_at(self) -> bool | None:
        """Something where a cancel was asked."""
        return self.cancel_asked or None


@in_words
def runs(store: str | None = None) -> pd.DataFrame:
    """
    Return the runs of a store, newest first, one per row; nothing is asked of the server.

    Parameters
    ----------
    store
        Path of the store; None: the one that a submit here would use.

    Returns
    -------
    DataFrame
        Index: run id. Columns: ``name``, ``status``, ``model``, ``rows``, ``answered``, ``failed``, ``cost_usd``,
        ``paid_usd``, ``requests``, ``reused``, ``batches``, ``created_at``, ``base_url``, ``parent``.

    Warns
    -----
    UserWarning
        If the store holds batches that its database does not know: it was copied without its log, or is an older one.

    Examples
    --------
    >>> df = pd.DataFrame({"review": ["Lovely."]})
    >>> out = df.claude_batch.submit("review", client=client, progress="off", name="first try")
    >>> pandas_batch.runs()[["name", "rows", "answered"]].values.tolist()
    [['first try', 1, 1]]
    """
    from pandas_batch.store import Store

    store = _store_of(store)
    listed = listed_runs(store)
    opened = Store.find(store)
    accounts = [_NOTHING] * len(listed)
    if opened is not None:
        if forgotten := opened.runs.forgotten():
            warnings.warn(
                f"{forgotten}\n  pandas_batch.recover(df, ...)   # fetches their answers",
                UserWarning,
                stacklevel=outside_level(),
            )
        accounts = [
            _account_of(opened, run_id, told, n_batches)
            for run_id, told, n_batches in zip(listed.index, listed["told"], listed["batches"], strict=True)
        ]
    for at, (name, dtype) in enumerate(_ACCOUNT.items()):
        column = pd.Series([account[at] for account in accounts], index=listed.index, dtype=dtype)
        listed.insert(listed.columns.tolist().index("rows") + 1 + at, name, column)
    return listed.drop(columns="told")


_ACCOUNT = {"answered": "Int64", "failed": "Int64", "cost_usd": "float64", "paid_usd": "float64"}
_NOTHING: tuple[Any, ...] = (0, 0, 0.0, 0.0)


@lru_cache(maxsize=4096)
def _settled_account(path: str, run_id: str, n_batches: int) -> tuple[Any, ...]:
    """Return rows answered and failed, cost and bill of a run whose answers are all collected: they do not change."""
    from pandas_batch.store import Store

    return _looked_up(Store.open(path), run_id)


def _account_of(store: Store, run_id: str, states: frozenset[str], n_batches: int) -> tuple[Any, ...]:
    if not states & _WITH_ANSWERS:
        return _NOTHING
    try:
        if states == {"collected"}:
            return _settled_account(str(store.path), run_id, n_batches)
        return _looked_up(store, run_id)
    except (PandasBatchError, OSError):
        return None, None, None, None


_WITH_ANSWERS = frozenset({"collected", "gone", "withdrawn"})


def _looked_up(store: Store, run_id: str) -> tuple[Any, ...]:
    with warnings.catch_warnings():
        # What is damaged has a line all the same, and says so where it is loaded.
        warnings.simplefilter("ignore", UserWarning)
        run = Run.of(store, store.runs.get(run_id))
        return run.counts.get("succeeded", 0), run.n_failed, run.cost_usd, run.paid_usd


def listed_runs(store: str | None = None) -> pd.DataFrame:
    """Return what `runs` does without a look at any answer, and as ``told`` the states that a run's batches have."""
    from pandas_batch.store import Store

    opened = Store.find(store)
    records, states = ([], []) if opened is None else opened.runs.overview()
    of_run: dict[str, list[tuple[str, bool]]] = {}
    for run_id, state, is_canceled in states:
        of_run.setdefault(run_id, []).append((state, is_canceled))
    told: dict[frozenset[tuple[str, bool]], str] = {}
    kinds = [frozenset(of_run.get(record[0], ())) for record in records]
    for kind in set(kinds):
        told[kind] = state_of(cast("list[BatchRecord]", [_Batch(*batch) for batch in kind]), is_blocked=False)
    columns: list[Any] = [list(column) for column in zip(*records, strict=True)] or [[] for _ in range(9)]
    columns[6] = [datetime.fromisoformat(text).replace(microsecond=0) for text in columns[6]]
    columns.insert(2, [told[kind] for kind in kinds])
    columns.insert(7, [len(of_run.get(record[0], ())) for record in records])
    listed = dict(zip(_LISTED, columns, strict=True))
    listed["told"] = [frozenset(state for state, _ in kind) for kind in kinds]
    return pd.DataFrame(listed).set_index("run")


def _store_of(given: Any) -> str | None:
    return None if given is None else check_option("store", given)


@in_words
def load(run_id_or_name: str, *, store: str | None = None, client: Any = None, clock: Clock = SYSTEM_CLOCK) -> Run:
    """
    Return a stored run, by its id or the newest of that name.

    Its ``result()`` is the added columns on the index of the frame that was submitted. A finished run needs no
    key and no network. Where ``output_schema`` was a class, its columns are those of the JSON schema that was made of
    it; what only the class knows (validators of its own) is checked by
    ``df.claude_batch.attach(run_id_or_name, output_schema=...)``.

    Raises
    ------
    RunNotFoundError
        There is no such run; the message names those that are spelled alike.

    Examples
    --------
    >>> df = pd.DataFrame({"review": ["Lovely."]}, index=["a"])
    >>> out = df.claude_batch.submit("review", client=client, progress="off", name="loved")
    >>> pandas_batch.load("loved").result().loc["a", "status"]
    'succeeded'
    """
    from pandas_batch.store import Store
    from pandas_batch.store.folder import find_store

    store = _store_of(store)
    folder = find_store(store)
    if isinstance(run_id_or_name, str) and not folder.exists():
        # Whoever looks for a run makes no store.
        raise RunNotFoundError(
            f"There is no run {clip(repr(run_id_or_name), 60)}: there is no store at {folder}.",
            NOTHING_SENT,
            'pandas_batch.load("...", store="...")   # the folder .pandas_batch of where the run was made',
        )
    opened = Store.open(store)
    record = opened.runs.find(run_id_or_name)
    return Run.of(opened, record, client=client, clock=clock)


@in_words
def compare_runs(
    a: Run | str,
    b: Run | str,
    metric: Any = None,
    max_cost_ratio: float | None = None,
    *,
    max_metric_drop: float = 0.0,
    max_more_failures: int = 0,
) -> Comparison:
    """
    Compare two runs over the rows they share: what they cost, how often they agree, which is better by `metric`.

    Parameters
    ----------
    a, b
        Two finished runs of the same frame or of two versions of it, or their ids or names: the baseline and the
        candidate.
    metric
        Function of a result frame that returns one number, higher is better. It gets the rows that both runs hold,
        their columns without the prefix of the run. (A run that was loaded by name has the added columns only.)
    max_cost_ratio
        Highest cost per answered row of `b`, as a multiple of that of `a`. With it, an unknown cost is worse too.
    max_metric_drop
        How much lower the metric of `b` may be.
    max_more_failures
        How many more rows of `b` may have failed.

    Returns
    -------
    Comparison
        Its ``ok`` and ``reasons`` say whether `b` is worse; ``raise_if_worse()`` fails a CI job.

    Raises
    ------
    FrameMismatchError
        The two runs have no row in common, or their rows cannot be paired.
    InputError
        `max_cost_ratio` is not above 0, or the metric returned no number.
    RunNotFoundError
        There is no run of that id or name.

    Examples
    --------
    >>> df = pd.DataFrame({"review": ["Lovely.", "It broke."]})
    >>> base = df.claude_batch.start("review", system="In one word?", client=client, progress="off")
    >>> shorter = df.claude_batch.start("review", client=client, progress="off")
    >>> compare_runs(base, shorter, max_cost_ratio=1.0).ok
    True
    """
    from pandas_batch.run import comparing

    first = load(a) if isinstance(a, str) else a
    second = load(b) if isinstance(b, str) else b
    return comparing.compare_runs(
        first,
        second,
        metric=metric,
        max_cost_ratio=max_cost_ratio,
        max_metric_drop=max_metric_drop,
        max_more_failures=max_more_failures,
    )


@in_words
def recover(frame: pd.DataFrame, *, clock: Clock = SYSTEM_CLOCK, **options: Any) -> pd.DataFrame:
    """
    Fetch answers again when the store is lost: find our batches on the server, by their custom_ids.

    Nothing is sent but questions, and nothing is paid. Each custom_id holds the fingerprint of its request, so an
    answer finds its row in any frame that asks the same, whatever its order.

    Parameters
    ----------
    frame
        The rows that were submitted (or some of them).
    **options
        The options of that call, `prompt_col` or `prompt` among them.

    Returns
    -------
    DataFrame
        The frame with the answers; rows whose answer was not found are ``unsent``. The answers are in the store
        from now on, so that the same submit pays only for the rest.

    Raises
    ------
    FrameMismatchError
        No ended batch on the server (of the last 29 days) holds a row of the frame.

    Examples
    --------
    >>> import tempfile
    >>> df = pd.DataFrame({"review": ["Lovely."]})
    >>> out = df.claude_batch.submit("review", client=client, progress="off", store=tempfile.mkdtemp())
    >>> recover(df, prompt_col="review", client=client, progress="off")["status"].tolist()  # another, empty store
    ['succeeded']
    """
    from .recovering import recover_run
    from .starting import Call, parse

    if not isinstance(frame, pd.DataFrame):
        raise InputError(
            f"recover() takes the frame that was submitted, and not {kind_of(frame)}.",
            hint='pandas_batch.recover(df, prompt_col="...")   # with the options of that submit',
        )
    prompt_col = options.pop("prompt_col", None)
    call = Call(frame, parse(options, prompt_col), clock=clock)
    return recover_run(call, call.open_store()).result()
