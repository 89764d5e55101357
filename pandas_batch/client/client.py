"""The client layer: batches of requests without pandas, in a thread or in an event loop.

Both classes drive the same flows (`pandas_batch.client.jobs`). Nothing is saved: what must survive a
restart belongs into ``df.claude_batch``.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Self, TypeVar

from pandas_batch.call_arguments import calls_in_words, in_words
from pandas_batch.clock import SYSTEM_CLOCK, Clock
from pandas_batch.requests.parameters import check_model
from pandas_batch.types import DEFAULT_MAX_TOKENS, DEFAULT_MODEL, BatchJob, BatchRequest, BatchResult, System
from pandas_batch.wire.drivers import adrive, aiterate
from pandas_batch.wire.flows import Flow
from pandas_batch.wire.wire import Wire, resolve_client

from .bodies import task_requests
from .jobs import Jobs

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 86_400.0
"""A batch ends by itself after 24 hours."""


@calls_in_words()
class _Configured(ABC):
    """What both clients are built from, and what they are to do."""

    def __init__(
        self,
        model: str | None = None,
        *,
        system: System = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        output_schema: Any = None,
        api_key: str | None = None,
        client: Any = None,
        lost_answer_grace: float = 600.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._clock = clock
        self._jobs = Jobs(
            model=_model_of(model),
            system=system,
            max_tokens=max_tokens,
            output_schema=output_schema,
            grace_s=lost_answer_grace,
            clock=clock,
        )
        self._connect(client, api_key)

    def __reduce__(self) -> NoReturn:
        # Its connections are those of this process, and its key has no business in a file.
        raise TypeError(
            f"{type(self).__name__} cannot be sent to another process: make one there, and send the batch_id of a "
            "BatchJob, or its requests and results."
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A handle, as `Run` is: its connections cannot be had twice.
        return self

    @abstractmethod
    def _connect(self, client: Any, api_key: str | None) -> None:
        """Take the user's client, or build one."""


def _model_of(model: Any) -> str:
    if model is None or (isinstance(model, str) and not model):
        return os.environ.get("PANDAS_BATCH_MODEL") or DEFAULT_MODEL
    return check_model(model)


@calls_in_words()
class BatchClient(_Configured):
    """
    Submit requests to the Message Batches API, at half the price, and fetch their results.

    Parameters
    ----------
    model, system, max_tokens
        Used for requests that leave them out. The environment's ``PANDAS_BATCH_MODEL`` is the default of `model`.
    output_schema
        The shape of every answer, as for ``df.claude_batch.submit``: a pydantic model, a JSON schema, a dict of names
        to types, or a list of labels. ``result.parsed`` is what the answer says; one that does not fit is ``invalid``.
    api_key
        None or ``""``: from the environment (``ANTHROPIC_API_KEY`` and the SDK's other ways).
    client
        An ``anthropic.Anthropic``, ``AsyncAnthropic``, ``AnthropicAWS`` or ``AnthropicGoogleCloud`` of your own.
    lost_answer_grace
        Seconds that `run` looks for a batch whose create answer was lost, before it posts again.

    Raises
    ------
    InputError
        If there are no credentials, or the client has no batches.

    Examples
    --------
    >>> from pandas_batch import simulator
    >>> with simulator.serve(answer=lambda params: "4") as api, BatchClient(client=api.client()) as client:
    ...     results = client.run([BatchRequest("q1", "What is 2+2?")], poll_interval=0.01)
    >>> [(result.custom_id, result.output) for result in results]
    [('q1', '4')]
    """

    def _connect(self, client: Any, api_key: str | None) -> None:
        self._wire = Wire(client, api_key=api_key, clock=self._clock)

    def __repr__(self) -> str:
        return f"<BatchClient of {self._wire.base_url}>"

    def submit(
        self, requests: Iterable[BatchRequest | Mapping[str, Any]], *, system: System = None, output_schema: Any = None
    ) -> BatchJob:
        """
        Make one batch of `requests` and return at once.

        Parameters
        ----------
        requests
            1 to 100,000, with unique ids, 256 MB at most.
        system
            Instead of the client's, for requests that have none.
        output_schema
            Instead of the client's.

        Returns
        -------
        BatchJob
            The batch as the server describes it.

        Raises
        ------
        InputError
            If an id is doubled or malformed, or a request cannot be sent; nothing was sent then.
        BatchTooLargeError
            If they do not fit into one batch; it says by how much. `run` splits.
        LostAnswerError
            If the batch may exist, but its id never arrived; it says what to look for.
        """
        return self._wire.drive(self._jobs.submit(requests, system=system, output_schema=output_schema))

    def status(self, batch_id: str | BatchJob) -> BatchJob:
        """Return a batch as the server describes it now."""
        return self._wire.drive(self._jobs.status(batch_id))

    def results(self, batch_id: str | BatchJob, *, output_schema: Any = None) -> list[BatchResult]:
        """
        Return the results of an ended batch, in the server's order.

        Raises
        ------
        NotEndedError
            If it has not ended.
        ResultsGoneError
            If the server has removed them, 29 days after the batch was made.

        Warns
        -----
        RuntimeWarning
            If the server's file is short also after several downloads.
        """
        return self._wire.drive(self._jobs.results(batch_id, output_schema=output_schema))

    def iter_results(self, batch_id: str | BatchJob, *, output_schema: Any = None) -> Iterator[BatchResult]:
        """
        Yield the results of an ended batch as they arrive, in memory that does not grow with their length.

        Raises and warns as `results` does; a download that breaks off is taken up again, and nothing is given twice.
        """
        return self._wire.iterate(self._jobs.iter_results(batch_id, output_schema=output_schema))

    def wait(
        self,
        batch_id: str | BatchJob,
        poll_interval: float | None = None,
        timeout: float | None = DEFAULT_TIMEOUT_S,
        *,
        output_schema: Any = None,
    ) -> list[BatchResult]:
        """
        Wait for a batch to end and return its results, in the server's order.

        Parameters
        ----------
        batch_id
            The batch.
        poll_interval
            Seconds between two looks; None: from 2 s growing to 60 s, later where the server asks for it.
        timeout
            Seconds to wait at most; None: without end.
        output_schema
            Instead of the client's: what its requests were asked with.

        Raises
        ------
        WaitTimeout
            After `timeout`; its ``run`` is the `BatchJob`. The batch goes on.
        """
        return self._wire.drive(
            self._jobs.wait(batch_id, poll_interval=poll_interval, timeout=timeout, output_schema=output_schema)
        )

    def run(
        self,
        requests: Iterable[BatchRequest | Mapping[str, Any]],
        *,
        system: System = None,
        output_schema: Any = None,
        poll_interval: float | None = None,
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> list[BatchResult]:
        """
        Submit, wait, and return the results **in the order of the requests**, one for each.

        Takes as many batches as the requests need. A create whose answer was lost is looked for on the server, and
        posted again only when nothing is found within ``lost_answer_grace``. A result that the server does not
        have, also after fetching again, comes with the status ``missing``.

        Parameters
        ----------
        requests, system, output_schema
            As for `submit`, in any number.
        poll_interval, timeout
            As for `wait`.

        Raises
        ------
        InputError
            If an id is doubled or malformed, or a request cannot be sent; nothing was sent then.
        WaitTimeout
            After `timeout`; its ``run`` is the `BatchJob` (a tuple of them, where there are several).
        """
        return self._wire.drive(
            self._jobs.run(
                requests, system=system, output_schema=output_schema, poll_interval=poll_interval, timeout=timeout
            )
        )

    def cancel(self, batch_id: str | BatchJob) -> bool:
        """
        Ask for a batch to be canceled; return whether that was accepted (False: it had ended before).

        Requests under way may still be answered, and are billed then; `wait` tells what became of each.
        """
        return self._wire.drive(self._jobs.cancel(batch_id))

    def list(self, limit: int = 20) -> list[BatchJob]:
        """Return the `limit` newest batches of the workspace, newest first."""
        return self._wire.drive(self._jobs.newest(limit))

    def delete(self, batch_id: str | BatchJob) -> None:
        """Delete an ended batch and its results from the server; `NotEndedError` if it has not ended."""
        self._wire.drive(self._jobs.delete(batch_id))

    def close(self) -> None:
        """Close the connections that are ours; a client that was passed in stays open."""
        self._wire.close()

    def __enter__(self) -> BatchClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@calls_in_words()
class AsyncBatchClient(_Configured):
    """
    The same as `BatchClient`, with the same names, awaitable.

    An ``AsyncAnthropic`` that is passed in is used in the running loop, directly; a synchronous client is called
    in threads, so that the loop goes on. A client built here keeps no connection between two calls, so that it may
    serve one event loop after the other, and need not be closed.

    Parameters
    ----------
    model, system, max_tokens, output_schema, api_key, client, lost_answer_grace
        As for `BatchClient`.

    Examples
    --------
    >>> import asyncio
    >>> from pandas_batch import simulator
    >>> async def main(api):
    ...     client = AsyncBatchClient(client=api.client())
    ...     return await client.run([BatchRequest("q1", "What is 2+2?")], poll_interval=0.01)
    >>> with simulator.serve(answer=lambda params: "4") as api:
    ...     asyncio.run(main(api))[0].output
    '4'
    """

    def _connect(self, client: Any, api_key: str | None) -> None:
        self._client = resolve_client(client, api_key=api_key, asynchronous=True)
        self._is_ours = client is None

    def __repr__(self) -> str:
        return f"<AsyncBatchClient of {str(self._client.base_url).rstrip('/')}>"

    async def submit(
        self, requests: Iterable[BatchRequest | Mapping[str, Any]], *, system: System = None, output_schema: Any = None
    ) -> BatchJob:
        """Do the same as `BatchClient.submit`, awaitable."""
        return await self._drive(self._jobs.submit(requests, system=system, output_schema=output_schema))

    async def status(self, batch_id: str | BatchJob) -> BatchJob:
        """Do the same as `BatchClient.status`, awaitable."""
        return await self._drive(self._jobs.status(batch_id))

    async def results(self, batch_id: str | BatchJob, *, output_schema: Any = None) -> list[BatchResult]:
        """Do the same as `BatchClient.results`, awaitable."""
        return await self._drive(self._jobs.results(batch_id, output_schema=output_schema))

    def iter_results(self, batch_id: str | BatchJob, *, output_schema: Any = None) -> AsyncIterator[BatchResult]:
        """Do the same as `BatchClient.iter_results`, for ``async for``."""
        return aiterate(self._jobs.iter_results(batch_id, output_schema=output_schema), self._client, self._clock)

    async def wait(
        self,
        batch_id: str | BatchJob,
        poll_interval: float | None = None,
        timeout: float | None = DEFAULT_TIMEOUT_S,
        *,
        output_schema: Any = None,
    ) -> list[BatchResult]:
        """Do the same as `BatchClient.wait`, awaitable."""
        return await self._drive(
            self._jobs.wait(batch_id, poll_interval=poll_interval, timeout=timeout, output_schema=output_schema)
        )

    async def run(
        self,
        requests: Iterable[BatchRequest | Mapping[str, Any]],
        *,
        system: System = None,
        output_schema: Any = None,
        poll_interval: float | None = None,
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> list[BatchResult]:
        """Do the same as `BatchClient.run`, awaitable."""
        return await self._drive(
            self._jobs.run(
                requests, system=system, output_schema=output_schema, poll_interval=poll_interval, timeout=timeout
            )
        )

    async def cancel(self, batch_id: str | BatchJob) -> bool:
        """Do the same as `BatchClient.cancel`, awaitable."""
        return await self._drive(self._jobs.cancel(batch_id))

    async def list(self, limit: int = 20) -> list[BatchJob]:
        """Do the same as `BatchClient.list`, awaitable."""
        return await self._drive(self._jobs.newest(limit))

    async def delete(self, batch_id: str | BatchJob) -> None:
        """Do the same as `BatchClient.delete`, awaitable."""
        await self._drive(self._jobs.delete(batch_id))

    async def close(self) -> None:
        """Close the connections that are ours; a client that was passed in stays open."""
        if self._is_ours:
            await self._client.close()

    async def __aenter__(self) -> AsyncBatchClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _drive(self, flow: Flow[T]) -> T:
        return await adrive(flow, self._client, self._clock)


@in_words
def run_prompts(
    prompts: Sequence[str],
    *,
    model: str | None = None,
    system: System = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    output_schema: Any = None,
    api_key: str | None = None,
    poll_interval: float | None = None,
    timeout: float | None = DEFAULT_TIMEOUT_S,
    client: Any = None,
) -> list[BatchResult]:
    """
    Run a list of texts as one batch (or as many as they need) and return the results in the same order.

    Parameters
    ----------
    prompts
        The user messages. The ids of the requests are ``task-{i}-{random hex}``.
    model, system, max_tokens, output_schema, api_key, client
        As for `BatchClient`.
    poll_interval, timeout
        As for `BatchClient.wait`.

    Raises
    ------
    InputError
        If `prompts` is no list of texts; nothing was sent then.

    Examples
    --------
    >>> from pandas_batch import simulator
    >>> with simulator.serve(answer=lambda params: params["messages"][0]["content"].upper()) as api:
    ...     [r.output for r in run_prompts(["one", "two"], client=api.client(), poll_interval=0.01)]
    ['ONE', 'TWO']
    """
    requests = task_requests(prompts)
    with BatchClient(model, system=system, max_tokens=max_tokens, api_key=api_key, client=client) as batches:
        # A traceback that shows local variables is not to show this one during the hours of the wait.
        del api_key
        return batches.run(requests, output_schema=output_schema, poll_interval=poll_interval, timeout=timeout)


@in_words
async def arun_prompts(
    prompts: Sequence[str],
    *,
    model: str | None = None,
    system: System = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    output_schema: Any = None,
    api_key: str | None = None,
    poll_interval: float | None = None,
    timeout: float | None = DEFAULT_TIMEOUT_S,
    client: Any = None,
) -> list[BatchResult]:
    """
    Do the same as `run_prompts`, awaitable.

    Examples
    --------
    >>> import asyncio
    >>> from pandas_batch import simulator
    >>> with simulator.serve() as api:
    ...     results = asyncio.run(arun_prompts(["one"], client=api.async_client(), poll_interval=0.01))
    >>> results[0].output
    'one'
    """
    requests = task_requests(prompts)
    batches = AsyncBatchClient(model, system=system, max_tokens=max_tokens, api_key=api_key, client=client)
    del api_key
    return await batches.run(requests, output_schema=output_schema, poll_interval=poll_interval, timeout=timeout)
