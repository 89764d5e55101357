"""`Run`: the durable handle of what was asked of Claude for the rows of a frame."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_batch.call_arguments import calls_in_words
from pandas_batch.clock import SYSTEM_CLOCK, Clock
from pandas_batch.columns import BORNE_ONCE, COLUMN, names_of_choice
from pandas_batch.engine.collecting import gone_error
from pandas_batch.engine.surplus import surplus_of, surplus_words
from pandas_batch.errors import NOTHING_SENT, InputError, RunNotFoundError, outside_level
from pandas_batch.requests.option_checks import check_columns

from .call_values import RUN_IS_AS_IT_WAS, check_value
from .driving import DrivenRun
from .joining import columns_of
from .target_frame import TargetFrame, insert_columns
from .waiting import Waiter

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from pandas_batch.display.display import FinishOffer, Told
    from pandas_batch.store import RunRecord, Store

__all__ = ["Run", "TargetFrame"]


@calls_in_words(RUN_IS_AS_IT_WAS)
class Run(DrivenRun):
    """
    What was asked of Claude for the rows of a frame; survives the kernel, and is never paid for twice.

    Made by ``df.claude_batch.start()``, ``df.claude_batch.attach()`` and ``pandas_batch.load()``.

    Attributes
    ----------
    id
        Unique; `pandas_batch.load` takes it.
    name
        The name it was given, or None.

    Examples
    --------
    >>> df = pd.DataFrame({"review": ["Lovely.", "It broke."]})
    >>> run = df.claude_batch.start("review", client=client, progress="off", name="reviews")
    >>> run.wait().status, run.counts
    ('collected', {'succeeded': 2})
    >>> pandas_batch.load("reviews").cost_usd == run.cost_usd == run.paid_usd
    True
    """

    _has_warned = False

    @classmethod
    def of(
        cls,
        store: Store,
        record: RunRecord,
        *,
        client: Any = None,
        target: TargetFrame | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Run:
        """Return the handle of a stored run, with the options that it was made with."""
        from pandas_batch.requests.options import Options

        stored = {name: value for name, value in record.options.items() if name != "not_remembered"}
        options = Options.from_json(stored, **({} if client is None else {"client": client}))
        schema = None
        if options.output_schema is not None:
            from pandas_batch.requests.schema import OutputSchema

            try:
                schema = OutputSchema.of(options.output_schema)
            except InputError as error:
                # It was taken when the run was paid: the answers are read, as the texts that they are.
                warnings.warn(
                    f"Run {record.id}: its output_schema is none that this version can read, so its columns are left "
                    f"out; the answers stand in output. {error.what}",
                    UserWarning,
                    stacklevel=outside_level(),
                )
        return cls(store, record.id, options, target=target, schema=schema, clock=clock)

    # ---------------------------------------------------------------- waiting

    @cached_property
    def _waiter(self) -> Waiter:
        return Waiter(self)

    def wait(self, timeout: float | None = None) -> Run:
        """
        Block until every answer is collected.

        Parameters
        ----------
        timeout
            Seconds; None waits as long as it takes (every batch ends within 24 hours).

        Returns
        -------
        Run
            This run.

        Raises
        ------
        WaitTimeout
            The time is over; the run goes on.
        KeyboardInterrupt
            The wait was interrupted. Nothing is canceled, nothing more is posted, what is posted goes on.
        """
        self._waiter.wait(timeout)
        return self

    def wait_submitted(self, timeout: float | None = None) -> Run:
        """
        Block until every batch is on the server and has its id: from then on the run needs this process no more.

        Parameters
        ----------
        timeout
            Seconds; None waits as long as it takes.

        Returns
        -------
        Run
            This run.

        Raises
        ------
        WaitTimeout
            The time is over; it says what is on the server and what is not.
        KeyboardInterrupt
            The wait was interrupted. Nothing is canceled, nothing more is posted.

        Examples
        --------
        >>> df = pd.DataFrame({"review": ["Lovely.", "It broke."]})
        >>> run = df.claude_batch.start("review", client=client, progress="off")
        >>> run.wait_submitted(timeout=60).batches[0].batch_id[:9]
        'msgbatch_'
        """
        self._waiter.wait_submitted(timeout)
        return self

    def __await__(self) -> Generator[Any, None, pd.DataFrame]:
        return self.result_async().__await__()

    async def result_async(self, timeout: float | None = None) -> pd.DataFrame:
        """Return what `result` returns, without blocking the event loop."""
        await self._waiter.wait_async(timeout)
        return self.result()

    # ---------------------------------------------------------------- to other processes

    def __reduce__(self) -> tuple[Any, ...]:
        # Its id, its store and its frame; no client, whose key has no business in a file.
        return _run_of_another_process, (str(self._store.path), self.id, self._target)

    def __copy__(self) -> Run:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        # A handle: what it stands for is one run, however many hold it.
        return self

    def __dir__(self) -> list[str]:
        # What is left is for other files of this package.
        return sorted({name for name in super().__dir__() if not name.startswith("_")} - _FOR_THE_PACKAGE)

    # ---------------------------------------------------------------- the answers

    def result(self, partial: bool = False, *, columns: str | Sequence[str] | None = None) -> pd.DataFrame:
        """
        Return the frame with the answers as columns, waiting for them first.

        Parameters
        ----------
        partial
            Do not wait: rows without an answer yet have status ``pending``.
        columns
            Other columns than those that were asked for: ``"core"``, ``"all"``, or a list of names. Nothing is paid.

        Returns
        -------
        DataFrame
            The frame as it was at the call of ``start()``, with the columns added; the added columns on the
            stored index where the run is not bound to a frame.

        Raises
        ------
        InputError
            The frame has a column of its own with the name of one that is asked for only now.
        ResultsGoneError
            The server no longer has the results (29 days after the batch was made, or deleted).
        """
        names = self._options.column_names if columns is None else names_of_choice(check_columns(columns, "columns"))
        if not check_value("partial", partial):
            self.wait_for_answers()
            self._warn_once(names)
        if columns is not None:
            self._refuse_own_columns(names)
        made, _ = self._columns(names)
        frame = self._target.frame
        if frame is None:
            frame = pd.DataFrame(index=self._target.index(self._store, self.id))
        return insert_columns(frame, made)

    def _refuse_own_columns(self, names: tuple[str, ...]) -> None:
        """Refuse to write over columns of the frame that were not looked at when the run was made."""
        frame, prefix = self._target.frame, self._options.prefix
        if frame is None or self._options.overwrite:
            return
        later = [prefix + name for name in names if name not in self._options.column_names]
        found = self.first_difference([name for name in later if name in frame.columns], names)
        if found is not None:
            raise InputError(
                f"The frame has a column {found[0]!r} of its own, which result(columns=...) would replace.",
                hint=f'df.claude_batch.merge("{self.id}", columns=[...], prefix="claude_")   # other names',
            )

    def wait_for_answers(self) -> None:
        """Wait until every answer is collected; raise `ResultsGoneError` where some cannot be had any more."""
        self.wait(self._options.timeout)
        gone = [batch for batch in self.batch_records() if batch.state == "gone"]
        if gone:
            raise gone_error(gone[0], self.expression)

    def _columns(self, names: tuple[str, ...], rows: np.ndarray | None = None) -> tuple[dict[str, Any], np.ndarray]:
        prefix = self._options.prefix
        schema_prefix = prefix if self._options.schema_prefix is None else self._options.schema_prefix
        answers = self.answers()
        answers.read_typed()
        columns, codes = columns_of(answers, names, rows=rows, schema_prefix="\0" + schema_prefix)
        return {name[1:] if name[0] == "\0" else prefix + name: values for name, values in columns.items()}, codes

    def to_arrow(self) -> pa.Table:
        """Return the added columns as an Arrow table, in the order of the rows; texts are not copied."""
        from .exporting import arrow_table

        names = self._options.column_names
        columns, _ = self._columns(names)
        of_lists = {self._options.prefix + name for name in names if COLUMN[name].dtype == "object"}
        return arrow_table(columns, of_lists=of_lists)

    def first_difference(
        self, names: Sequence[str], column_names: tuple[str, ...] | None = None
    ) -> tuple[str, int] | None:
        """
        Return where columns of its frame are not what this run writes there: the name of the first, and the row.

        None where they are; what a file has made of them meanwhile is no difference.

        Parameters
        ----------
        names
            Of columns of the frame.
        column_names
            The columns that the run writes there; None: those that were asked for.
        """
        from .same_columns import first_difference

        frame = self._target.frame
        if frame is None:
            raise ValueError("the run has no frame")
        columns, _ = self._columns(column_names or self._options.column_names)
        of_run, of_row = self.answers_of_run(), self._target.request_of_row
        shared = of_run.shared_rows(of_run.request_of_row if of_row is None else of_row)
        for name in names:
            if not isinstance(frame[name], pd.Series) or name not in columns:
                return name, 0
            is_told_once = of_run.n_samples == 1 and name.removeprefix(self._options.prefix) in BORNE_ONCE
            row = first_difference(
                frame[name], columns[name], may_be_counted_elsewhere=shared if is_told_once else None
            )
            if row is not None:
                return name, row
        return None

    @property
    def failed(self) -> pd.DataFrame:
        """The rows that have no usable answer, with their labels, ``position``, ``status`` and ``error``."""
        answers = self.answers()
        positions = answers.failed_positions()
        columns, _ = columns_of(answers, ["status", "error"], rows=positions)
        labels = self._target.index(self._store, self.id)
        return pd.DataFrame({"position": positions, **columns}, index=labels[positions])

    def _warn_once(self, names: tuple[str, ...]) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        for text in self._warnings(names):
            warnings.warn(text, UserWarning, stacklevel=outside_level())

    def _warnings(self, names: tuple[str, ...]) -> list[str]:
        from .summary import warnings_of

        engine = self._engine
        besides = surplus_words(surplus_of(self.batch_records(), self.id))
        return [
            *(engine.warnings if engine is not None else ()),
            *([f"Run {self.id}: {besides}"] if besides else ()),
            *warnings_of(self.answers(), self.id, self.expression, self.record.options.get("max_tokens"), names),
        ]

    def cost_of_rows(self, positions: np.ndarray) -> float | None:
        """
        Return what the answers of some rows of the result cost, in USD; None where a price is unknown.

        Parameters
        ----------
        positions
            The places of the rows. An answer that several of them share counts once.
        """
        answers = self.answers()
        if len(np.unique(positions)) == answers.n_rows:
            return answers.totals().cost_usd
        return answers.of_rows(answers.request_of_row[positions]).totals().cost_usd

    def summary(self) -> pd.Series:
        """Return what the run did and cost, one value per line."""
        from .summary import summary_of

        besides = surplus_of(self.batch_records(), self.id)
        return summary_of(self.snapshot(), self.answers(), self.record, prices=self._options.prices, surplus=besides)

    def plot(self, ax: Any = None) -> Any:
        """
        Draw rows by status, tokens, cost against the estimate, lengths of the answers and times of the batches.

        The picture has a transparent background, and can be read on light and dark pages, with colors and without.
        Needs the extra ``plot``.

        Parameters
        ----------
        ax
            Axes of yours, which take the rows by status alone; None makes a new figure.

        Returns
        -------
        ndarray of Axes, or Axes
            Those that were drawn on.

        Raises
        ------
        ImportError
            matplotlib is not installed; the message says what to install.
        """
        from .plotting import plot_run

        return plot_run(self.snapshot(), self.answers(), ax)

    def to_jsonl(self, path: str | Path) -> Path:
        """
        Write the raw result lines, as the server sent them, to `path`, and return it.

        Raises
        ------
        NotEndedError
            Not every batch is collected yet.
        StoreError
            The raw results of a batch are damaged; they are fetched again by the next look at the run.
        """
        from .exporting import write_raw_lines

        return write_raw_lines(self, path)

    # ---------------------------------------------------------------- cancel, retry, delete

    def cancel(self, *, force: bool = False) -> str:
        """
        Cancel the batches that this run posted; what is answered by the time they stop is kept, and billed.

        Parameters
        ----------
        force
            Cancel also a batch that is only believed to be ours (its create answer was lost and it has not
            ended yet, so nothing proves it).

        Returns
        -------
        str
            What was done, and which other runs wait for the same batches.
        """
        from .canceling import cancel_run

        return cancel_run(self, force=check_value("force", force))

    def check(self, *, max_failed: float = 0.02, max_cost_usd: float | None = None) -> Run:
        """
        Wait, and raise where too many rows failed or the answers cost too much: the last line of a nightly job.

        Parameters
        ----------
        max_failed
            The largest share of the rows with a prompt that may have failed.
        max_cost_usd
            The most that the answers may cost; an unknown cost is more than that.

        Returns
        -------
        Run
            This run, where all is well.

        Raises
        ------
        WorseRunError
            It is not.

        Examples
        --------
        >>> df = pd.DataFrame({"review": ["Lovely.", "It broke."]})
        >>> df.claude_batch.start("review", client=client, progress="off").check(max_cost_usd=0.01).status
        'collected'
        """
        from .checking import check_run

        check_run(self, self._waiter, max_failed, max_cost_usd)
        return self

    def retry_failed(
        self, *, errors: str = "transient", rows: Any = None, max_cost_usd: float | None = None, **overrides: Any
    ) -> Run:
        """
        Ask again for the rows that failed, in a new run whose result is the whole frame again.

        Parameters
        ----------
        errors
            ``"transient"``: expired, canceled, missing, api_error, overloaded, rate_limit and timeout rows;
            ``"all"``: those that would probably fail again as well.
        rows
            Ask these rows again instead, whatever became of them: a mask as long as the frame, or labels. Rows that
            share a request are asked together.
        max_cost_usd
            The most that the retry may cost; None: what the run was given, or ``PANDAS_BATCH_MAX_COST_USD``.
        **overrides
            Options of the requests to change for the retried rows, such as ``max_tokens=4096`` or ``model=...``.

        Returns
        -------
        Run
            The new run (or this one, where there is nothing to retry).

        Raises
        ------
        BudgetError
            It could cost more, or has no known price. Nothing was sent.
        """
        from .retrying import retry_run

        return retry_run(self, errors=errors, rows=rows, max_cost_usd=max_cost_usd, overrides=overrides)

    def _is_retry_due(self) -> bool:
        from .repeating import is_due

        return is_due(self)

    def _retry_once(self) -> str:
        from .repeating import retry_once

        return retry_once(self)

    def finish_now(self, max_cost_usd: float | None = None) -> pd.DataFrame:
        """
        Bring the run to its end now: cancel its batches, and ask what they do not answer through the Messages API.

        What the batches have answered is kept, at their price. The rest costs the standard price, which is shown before
        anything is canceled; those rows have no ``batch_id``. Killed or interrupted half-way, the same call goes on: no
        answer that came is lost, at most the requests that were under way are asked again. Bound to a part of its rows
        (`attach`), the run's batches are canceled, and only that part is asked.

        Parameters
        ----------
        max_cost_usd
            The most that the rows may cost which are asked now; None: what the run was given, or
            ``PANDAS_BATCH_MAX_COST_USD``.

        Returns
        -------
        DataFrame
            What `result` returns.

        Raises
        ------
        BudgetError
            It could cost more, or has no known price. Nothing was canceled, nothing was asked.

        Examples
        --------
        >>> df = pd.DataFrame({"review": ["Lovely.", "It broke."]})
        >>> run = df.claude_batch.start("review", client=client, progress="off")
        >>> run.finish_now(max_cost_usd=1.00)["status"].tolist()
        ['succeeded', 'succeeded']
        """
        from .finishing import finish_in_cell

        finish_in_cell(self, self._waiter, max_cost_usd)
        return self.result()

    def _offer_finish(self, told: Told) -> None:
        from .finish_button import offer_finish

        offer_finish(self, told)

    def _finish_as_offered(self, offer: FinishOffer, told: Told) -> None:
        from .finish_button import finish_as_offered

        finish_as_offered(self, self._waiter, offer, told)

    def delete(self, *, server: bool = False, force: bool = False) -> None:
        """
        Remove the run and everything that no other run points at, really: files, database pages, log.

        Parameters
        ----------
        server
            Delete its batches on the server as well (prompts and answers stay there for 29 days otherwise).
        force
            Also touch a batch that is not proved to be ours.

        Raises
        ------
        NotEndedError
            The run is unfinished and its cancel has not come through yet; what to do stands in the message.
        """
        from .deleting import delete_run

        delete_run(self, server=check_value("server", server), force=check_value("force", force))


_FOR_THE_PACKAGE = frozenset(
    [
        "answers",
        "answers_of_run",
        "batch_records",
        "bind",
        "target",
        "canceled_by",
        "clock",
        "cost_of_rows",
        "display",
        "engine",
        "expression",
        "finish_at_work",
        "first_difference",
        "go_on",
        "is_error_raised",
        "is_settled",
        "n_failed",
        "observe",
        "of",
        "options",
        "place",
        "record",
        "requests_to_keep",
        "result_async",
        "schema",
        "show",
        "sibling",
        "snapshot",
        "store",
        "wait_for_answers",
        "wire",
    ]
)


def _run_of_another_process(store_path: str, run_id: str, target: TargetFrame) -> Run:
    from pandas_batch.store import Store

    opened = Store.find(store_path)
    if opened is None:
        raise RunNotFoundError(
            f"Run {run_id} came from another process, and its store {store_path} is not here.",
            NOTHING_SENT,
            f'pandas_batch.load("{run_id}", store=...)   # where that store can be reached',
        )
    return Run.of(opened, opened.runs.find(run_id), target=target)
