"""The runs of a store: list them, load one, fetch answers again when the store itself is lost."""

from __future__ import annotations

import warnings
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pandas as pd

from pandas_batch.call_arguments import in_words
from pandas_batch.clock import SYSTEM_CLOCK, Clock
from pandas_batch.errors import NOTHING_SENT, InputError, PandasBatchError, RunNotFoundError, clip, outside_level
from pandas_batch.requests.options import check_option
from pandas_batch.requests.plain_values import kind_of

from .run import Run
from .status import account_of, state_of

if TYPE_CHECKING:
    from pandas_batch.run.comparison import Comparison
    from pandas_batch.store import Account, BatchRecord, Store

_ACCOUNT = ["answered", "failed", "cost_usd", "paid_usd"]
_TOLD = "told"
_FEW_RUNS = 100
_WITH_ANSWERS = frozenset({"collected", "gone", "withdrawn"})


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

    opened = Store.find(_store_of(store))
    if opened is None:
        return _listed(None).drop(columns=_TOLD)
    if forgotten := opened.runs.forgotten():
        warnings.warn(
            f"{forgotten}\n  pandas_batch.recover(df, ...)   # fetches their answers",
            UserWarning,
            stacklevel=outside_level(),
        )
    version = opened.runs.version()
    seen = _last_list.get(opened)
    if seen is not None and seen[0] == version:
        return seen[1].copy()
    listed = _listed(opened)
    accounts = _accounts(opened, listed)
    listed = listed.drop(columns=_TOLD)
    if not accounts:
        _last_list[opened] = (version, listed.copy())
        return listed
    places = listed.index.get_indexer(pd.Index(list(accounts)))
    for name, values in zip(_ACCOUNT, zip(*accounts.values(), strict=True), strict=True):
        column = listed[name].copy()
        column.iloc[places] = pd.Series(list(values), dtype=column.dtype).array
        listed[name] = column
    return listed


_last_list: weakref.WeakKeyDictionary[Store, tuple[tuple[int, int, int], pd.DataFrame]] = weakref.WeakKeyDictionary()
"""The list of a store that was made last, as long as nothing has changed: to look again costs nothing."""


def _accounts(store: Store, listed: pd.DataFrame) -> dict[str, tuple[Any, ...]]:
    """Return what became of the runs that the store has no account of; it has, afterwards, of the settled."""
    found: dict[str, tuple[Any, ...]] = {}
    settled: dict[str, tuple[tuple[BatchRecord, ...], Account]] = {}
    told = listed[_TOLD]
    for run_id in told.index[told.to_numpy()]:
        try:
            batches = store.runs.settled_batches(run_id)
            found[run_id] = account = _looked_up(store, run_id)
        except (PandasBatchError, OSError):
            found[run_id] = (None, None, None, None)
            continue
        if batches is not None:
            settled[run_id] = (batches, account)
        if len(settled) >= _FEW_RUNS:
            _keep(store, settled)
            settled = {}
    _keep(store, settled)
    return found


def _keep(store: Store, accounts: dict[str, tuple[tuple[BatchRecord, ...], Account]]) -> None:
    if accounts:
        # They can be counted again.
        with suppress(PandasBatchError, OSError):
            store.runs.set_accounts(accounts)


def _looked_up(store: Store, run_id: str) -> Account:
    with warnings.catch_warnings():
        # What is damaged has a line all the same, and says so where it is loaded.
        warnings.simplefilter("ignore", UserWarning)
        return account_of(Run.of(store, store.runs.get(run_id)).answers_of_run())


def listed_runs(store: str | None = None) -> pd.DataFrame:
    """Return what `runs` does without a look at any answer."""
    from pandas_batch.store import Store

    return _listed(Store.find(store))


def _listed(opened: Store | None) -> pd.DataFrame:
    """Return the list with what the store has of each run, and as ``told`` whether there are answers to look at."""
    from pandas_batch.store.queries import LISTED

    records, states = ([], []) if opened is None else opened.runs.overview()
    of_run: dict[str, list[_Batch]] = {}
    for run_id, state, is_canceled in states:
        of_run.setdefault(run_id, []).append(_Batch(state, is_canceled))
    told = dict(zip(LISTED, zip(*records, strict=True) if records else [()] * len(LISTED), strict=True))
    n_batches, status, is_told = list(told["n_settled"]), ["collected"] * len(records), np.zeros(len(records), bool)
    for at in [at for at, n_settled in enumerate(n_batches) if n_settled is None]:
        batches = of_run.get(told["id"][at], [])
        n_batches[at], status[at] = len(batches), state_of(cast("list[BatchRecord]", batches), is_blocked=False)
        is_told[at] = any(batch.state in _WITH_ANSWERS for batch in batches)
    # Of runs with an account, dollars that are not known; of others there are none yet.
    is_open = np.array([n_settled is None for n_settled in told["n_settled"]], dtype=bool)
    usd = {name: np.where(is_open, 0.0, np.array(told[name], dtype=np.float64)) for name in ("cost_usd", "paid_usd")}
    counts = {name: np.array([n or 0 for n in told[name]], dtype=np.int64) for name in ("n_answered", "n_failed")}
    listed = {
        "run": told["id"],
        "name": told["name"],
        "status": status,
        "model": told["model"],
        "rows": np.array(told["n_rows"], dtype=np.int64),
        "answered": pd.array(counts["n_answered"], dtype="Int64"),
        "failed": pd.array(counts["n_failed"], dtype="Int64"),
        **usd,
        "requests": np.array(told["n_requests"], dtype=np.int64),
        "reused": np.array(told["n_reused"], dtype=np.int64),
        "batches": np.array(n_batches, dtype=np.int64),
        "created_at": pd.to_datetime(
            np.array([text[:19] for text in told["created_at"]], dtype="datetime64[us]"), utc=True
        ),
        "base_url": told["base_url"],
        "parent": told["parent_id"],
        _TOLD: is_told,
    }
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
