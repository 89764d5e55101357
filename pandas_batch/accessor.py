"""``df.claude_batch``: every operation on a frame, one line each."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd

from .call_arguments import calls_in_words, in_words
from .call_options import CallOptions, with_options
from .errors import InputError

if TYPE_CHECKING:
    from pandas_batch.estimates.estimate import Estimate
    from pandas_batch.requests.options import Options
    from pandas_batch.run.run import Run


@calls_in_words()
class ClaudeBatchFrame:
    """
    Ask Claude about every row of a DataFrame through the Message Batches API, at half price.

    The same call made again, today or after the kernel died, is the same run: its answers come back and nothing
    is paid twice. The options are the same for all calls; docs/reference/options.md describes them.

    Parameters
    ----------
    frame
        The DataFrame whose accessor this is.

    Examples
    --------
    >>> df = pd.DataFrame({"review": ["Lovely.", "It broke."]}, index=["a", "b"])
    >>> out = df.claude_batch.submit("review", system="positive or negative?", client=client, progress="off")
    >>> (out["status"] == "succeeded").tolist(), out["cost_usd"].dtype
    ([True, True], dtype('float64'))
    >>> out.index.tolist()
    ['a', 'b']
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def __dir__(self) -> list[str]:
        return _public(type(self))

    def __repr__(self) -> str:
        return _what_it_can_do(self, "df.claude_batch")

    @with_options
    def submit(self, prompt_col: Hashable = None, **options: Unpack[CallOptions]) -> pd.DataFrame:
        """
        Send one request per row, show the progress, wait, and return the frame with the answers as columns.

        Parameters
        ----------
        prompt_col
            Column of prompts; or give ``prompt=``, a template over columns.
        **options
            See the README.

        Returns
        -------
        DataFrame
            A new frame: index, order, dtypes and all other columns as they were, with ``output``, ``status``,
            ``stop_reason``, ``input_tokens``, ``output_tokens``, ``tokens``, ``cost_usd`` and ``error`` added.

        Raises
        ------
        InputError
            The call is wrong; nothing was sent.
        WaitTimeout
            ``timeout`` seconds have passed; the run goes on.

        Examples
        --------
        >>> df = pd.DataFrame({"review": ["Lovely.", None]})
        >>> df.claude_batch.submit("review", client=client, progress="off")["status"].tolist()
        ['succeeded', 'skipped']
        """
        from pandas_batch.requests.options import parse_options

        parsed = parse_options(options, prompt_col=prompt_col)
        run = _started(self._frame, parsed, blocking=True)
        if parsed.nested:
            from pandas_batch.run.nesting import run_nested

            return run_nested(run.result_async(parsed.timeout))
        return run.result()

    @with_options
    async def asubmit(self, prompt_col: Hashable = None, **options: Unpack[CallOptions]) -> pd.DataFrame:
        """
        Return what `submit` returns, without blocking the event loop.

        Parameters
        ----------
        prompt_col
            Column of prompts; or give ``prompt=``, a template over columns.
        **options
            See the README.

        Examples
        --------
        >>> import asyncio
        >>> df = pd.DataFrame({"review": ["Lovely."]})
        >>> asyncio.run(df.claude_batch.asubmit("review", client=client, progress="off"))["status"].tolist()
        ['succeeded']
        """
        import asyncio

        from pandas_batch.requests.options import parse_options

        parsed = parse_options(options, prompt_col=prompt_col)
        run = await asyncio.to_thread(_started, self._frame, parsed, blocking=False)
        return await run.result_async(parsed.timeout)

    @with_options
    def start(self, prompt_col: Hashable = None, **options: Unpack[CallOptions]) -> Run:
        """
        Send one request per row and return at once; the panel stays live while other cells run.

        Parameters
        ----------
        prompt_col
            Column of prompts; or give ``prompt=``, a template over columns.
        **options
            See the README.

        Returns
        -------
        Run
            Its ``result()`` waits for the frame; ``await run`` does too.

        Examples
        --------
        >>> df = pd.DataFrame({"review": ["Lovely."]})
        >>> run = df.claude_batch.start("review", client=client, progress="off")
        >>> run.result()["status"].tolist(), run.counts
        (['succeeded'], {'succeeded': 1})
        """
        from pandas_batch.requests.options import parse_options

        return _started(self._frame, parse_options(options, prompt_col=prompt_col), blocking=False)

    @with_options
    def trial(self, prompt_col: Hashable = None, n: Any = 5, **options: Unpack[CallOptions]) -> pd.DataFrame:
        """
        Ask a few rows now, through the Messages API, and return them with the answers as columns.

        The options, checks, columns and errors are those of `submit`, whose answers these are too: the same line over
        all rows does not pay them again. They cost the standard price, twice that of a batch; it is shown before, and
        ``max_cost_usd`` holds. Sixteen rows are under way at once, fewer where the rate limit says so. A request whose
        answer was lost on its way is asked once more: it can cost twice at worst. Interrupted, nothing more is asked;
        what came is kept.

        Parameters
        ----------
        prompt_col
            Column of prompts; or give ``prompt=``, a template over columns.
        n
            How many rows, at most 50, spread over the frame: the first, the last and evenly between. Or a list of
            labels; their rows come in the order of the frame.
        **options
            See the README.

        Raises
        ------
        InputError
            The call is wrong, or nothing answers messages; nothing was billed.

        Examples
        --------
        >>> df = pd.DataFrame({"review": ["Lovely.", "It broke.", "Fine."]})
        >>> df.claude_batch.trial("review", n=2, client=client, progress="off")[["review", "output", "status"]]
            review   output     status
        0  Lovely.  Lovely.  succeeded
        2    Fine.    Fine.  succeeded
        """
        from pandas_batch.run.starting import parse
        from pandas_batch.run.trial import trial_rows

        return trial_rows(self._frame, parse(options, prompt_col), n)

    @with_options
    def preview(self, prompt_col: Hashable = None, n: int = 3, **options: Unpack[CallOptions]) -> list[dict[str, Any]]:
        """
        Return the first `n` requests exactly as they would be sent. Nothing is sent, no key is needed.

        Parameters
        ----------
        prompt_col
            Column of prompts; or give ``prompt=``, a template over columns.
        n
            How many.
        **options
            See the README.

        Examples
        --------
        >>> df = pd.DataFrame({"review": ["Lovely."]})
        >>> df.claude_batch.preview("review", client=client)[0]["params"]["messages"]
        [{'content': 'Lovely.', 'role': 'user'}]
        """
        from pandas_batch.requests.plan import preview_requests
        from pandas_batch.run.starting import Call, parse

        return preview_requests(Call(self._frame, parse(options, prompt_col)).plan, n)

    @with_options
    def estimate(self, prompt_col: Hashable = None, **options: Unpack[CallOptions]) -> Estimate:
        """
        Return what a submit would send and cost at most. Nothing is spent: token counting is free.

        Parameters
        ----------
        prompt_col
            Column of prompts; or give ``prompt=``, a template over columns.
        **options
            See the README.

        Examples
        --------
        >>> df = pd.DataFrame({"review": ["Lovely.", "Lovely."]})
        >>> estimate = df.claude_batch.estimate("review", client=client)
        >>> estimate.rows, estimate.requests
        (2, 1)
        """
        from pandas_batch.run.starting import Call, parse

        return Call(self._frame, parse(options, prompt_col)).estimate()

    def attach(self, run_id_or_name: str, **options: Any) -> Run:
        """
        Return a stored run bound to this frame: each row gets the answer that belongs to it.

        A filtered, sorted, extended or edited frame is fine; a row that the run never held is ``unsent``.

        Raises
        ------
        RunNotFoundError
            No such run is in the store.
        FrameMismatchError
            Not one row of the frame belongs to the run.

        Examples
        --------
        >>> df = pd.DataFrame({"review": ["Lovely.", "It broke."]})
        >>> run = df.claude_batch.start("review", client=client, progress="off")
        >>> df.iloc[[1]].claude_batch.attach(run.id, client=client).result()["status"].tolist()
        ['succeeded']
        """
        from pandas_batch.run.starting import attach_run

        return attach_run(self._frame, run_id_or_name, options, store=options.get("store"))

    def merge(self, run: Run | str, *, partial: bool = False, **options: Any) -> pd.DataFrame:
        """
        Return this frame with the run's columns; never in place.

        Parameters
        ----------
        run
            A run, its id, or its name.
        partial
            Do not wait for a run that has not ended.

        Examples
        --------
        >>> df = pd.DataFrame({"review": ["Lovely.", "It broke."]})
        >>> run = df.claude_batch.start("review", client=client, progress="off")
        >>> df.iloc[::-1].claude_batch.merge(run)[["review", "output"]]
              review     output
        1  It broke.  It broke.
        0    Lovely.    Lovely.
        """
        from pandas_batch.run.starting import attach_run

        return attach_run(self._frame, run, options, store=options.get("store")).result(partial=partial)


def _started(frame: pd.DataFrame, options: Options, *, blocking: bool) -> Run:
    """Return the run that a call is, at work; the call is seen before the rest of the package is imported."""
    from pandas_batch.clock import SYSTEM_CLOCK
    from pandas_batch.run.preparing import Preparation

    with Preparation(frame, options, blocking=blocking, clock=SYSTEM_CLOCK) as preparation:
        from pandas_batch.run.starting import start_run

        return start_run(frame, options, blocking=blocking, preparation=preparation)


@calls_in_words()
class ClaudeBatchSeries:
    """
    The same calls for a bare column of prompts; they return frames.

    Parameters
    ----------
    series
        The prompts.

    Examples
    --------
    >>> prompts = pd.Series(["2+2?", "Capital of Iowa?"], name="question")
    >>> prompts.claude_batch.submit(client=client, progress="off").columns[:3].tolist()
    ['question', 'output', 'status']
    """

    def __init__(self, series: pd.Series) -> None:
        self._name = "prompt" if series.name is None else series.name
        self._calls = ClaudeBatchFrame(series.to_frame(self._name))

    def __dir__(self) -> list[str]:
        return _public(type(self))

    def __repr__(self) -> str:
        return _what_it_can_do(self, "series.claude_batch")

    @with_options
    def submit(self, **options: Unpack[CallOptions]) -> pd.DataFrame:
        """Return the prompts and their answers; see `ClaudeBatchFrame.submit`."""
        return self._calls.submit(self._name, **options)

    @with_options
    async def asubmit(self, **options: Unpack[CallOptions]) -> pd.DataFrame:
        """Return what `submit` returns, without blocking the event loop."""
        return await self._calls.asubmit(self._name, **options)

    @with_options
    def start(self, **options: Unpack[CallOptions]) -> Run:
        """Return a run at once; see `ClaudeBatchFrame.start`."""
        return self._calls.start(self._name, **options)

    @with_options
    def trial(self, n: Any = 5, **options: Unpack[CallOptions]) -> pd.DataFrame:
        """Ask a few prompts now and return them with their answers; see `ClaudeBatchFrame.trial`."""
        return self._calls.trial(self._name, n, **options)

    @with_options
    def preview(self, n: int = 3, **options: Unpack[CallOptions]) -> list[dict[str, Any]]:
        """Return the first `n` requests; see `ClaudeBatchFrame.preview`."""
        return self._calls.preview(self._name, n, **options)

    @with_options
    def estimate(self, **options: Unpack[CallOptions]) -> Estimate:
        """Return what a submit would cost at most; see `ClaudeBatchFrame.estimate`."""
        return self._calls.estimate(self._name, **options)

    def attach(self, run_id_or_name: str, **options: Any) -> Run:
        """Return a stored run bound to these prompts; see `ClaudeBatchFrame.attach`."""
        return self._calls.attach(run_id_or_name, **options)

    def merge(self, run: Run | str, *, partial: bool = False, **options: Any) -> pd.DataFrame:
        """Return the prompts with the run's columns; see `ClaudeBatchFrame.merge`."""
        return self._calls.merge(run, partial=partial, **options)


@in_words
def frame(df: pd.DataFrame) -> ClaudeBatchFrame:
    """
    Return ``df.claude_batch``, for type checkers: they do not see what pandas registers.

    Examples
    --------
    >>> pandas_batch.frame(pd.DataFrame({"review": ["Lovely."]})).estimate("review", client=client).rows
    1
    """
    given: object = df
    if not isinstance(given, pd.DataFrame):
        is_series = isinstance(given, pd.Series)
        raise InputError(
            f"frame() takes a DataFrame, and not a {type(given).__name__}.",
            hint="series.claude_batch.submit(...)" if is_series else "pandas_batch.frame(pd.DataFrame(...))",
        )
    return ClaudeBatchFrame(df)


def _public(kind: type) -> list[str]:
    return sorted(name for name in vars(kind) if not name.startswith("_"))


def _what_it_can_do(accessor: Any, expression: str) -> str:
    calls = {name: getattr(type(accessor), name) for name in _public(type(accessor))}
    width = max(map(len, calls))
    lines = [
        f"  .{name:<{width}}  {next(iter((call.__doc__ or '').split(chr(10) * 2))).strip()}"
        for name, call in calls.items()
    ]
    return "\n".join([f"{expression}: ask Claude about every row", *lines])


def register() -> None:
    """Register ``claude_batch`` on DataFrame and Series; a second import (autoreload) registers again in silence."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pd.api.extensions.register_dataframe_accessor("claude_batch")(ClaudeBatchFrame)
        pd.api.extensions.register_series_accessor("claude_batch")(ClaudeBatchSeries)
