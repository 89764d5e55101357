"""
The public API as users write it, for mypy and pyright (``make lint``); nothing here is run.

A line that stops being right for a type checker stops being right for somebody's editor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, assert_type

import pandas as pd

import pandas_batch
from pandas_batch import (
    AsyncBatchClient,
    BatchClient,
    BatchJob,
    BatchRequest,
    BatchResult,
    Comparison,
    Estimate,
    Prompt,
    Run,
    RunStatus,
    arun_prompts,
    run_prompts,
    simulator,
)
from pandas_batch.accessor import ClaudeBatchFrame, ClaudeBatchSeries


def frames(df: pd.DataFrame) -> None:
    # pandas registers accessors at run time, which no type checker sees: the class says what there is.
    calls = ClaudeBatchFrame(df)
    assert_type(calls.submit("review", system=Prompt(role="judge"), max_tokens=16), pd.DataFrame)
    assert_type(calls.start(prompt="About {title}", name="titles"), Run)
    assert_type(calls.preview("review", n=2), list[dict[str, Any]])
    assert_type(calls.estimate("review"), Estimate)
    assert_type(calls.attach("titles"), Run)
    assert_type(calls.merge("titles", partial=True), pd.DataFrame)


def wrong_options(df: pd.DataFrame) -> None:
    # Each of these lines is an error for a type checker; one that passed would be told as an ignore without a use.
    calls = pandas_batch.frame(df)
    calls.submit("review", max_token=16)  # type: ignore[call-arg]
    calls.submit("review", max_tokens="many")  # type: ignore[arg-type]
    calls.start("review", on_missing="drop")  # type: ignore[arg-type]
    calls.estimate("review", stop_sequence=["!"])  # type: ignore[call-arg]
    calls.trial("review", n=3, columns=5)  # type: ignore[arg-type]
    calls.preview("review", thinking={"type": "adaptive"}, max_tokens=df["n"], system=lambda part: part["n"])


async def frames_in_a_loop(df: pd.DataFrame) -> None:
    assert_type(await ClaudeBatchFrame(df).asubmit("review"), pd.DataFrame)
    assert_type(await ClaudeBatchFrame(df).start("review"), pd.DataFrame)


def columns(prompts: pd.Series[str]) -> None:
    assert_type(ClaudeBatchSeries(prompts).submit(system="yes or no"), pd.DataFrame)
    assert_type(ClaudeBatchSeries(prompts).start(), Run)


def runs(run: Run) -> None:
    assert_type(run.id, str)
    assert_type(run.name, str | None)
    assert_type(run.status, str)
    assert_type(run.counts, dict[str, int])
    assert_type(run.cost_usd, float | None)
    assert_type(run.paid_usd, float | None)
    assert_type(run.batches, list[BatchJob])
    assert_type(run.wait(timeout=5), Run)
    assert_type(run.result(partial=True), pd.DataFrame)
    assert_type(run.failed, pd.DataFrame)
    assert_type(run.retry_failed(errors="all", max_tokens=4096), Run)
    assert_type(run.cancel(), str)
    assert_type(run.snapshot(), RunStatus)
    assert_type(pandas_batch.runs(), pd.DataFrame)
    assert_type(pandas_batch.load("titles"), Run)
    comparison = pandas_batch.compare_runs(run, "titles", max_cost_ratio=1.5)
    assert_type(comparison, Comparison)
    assert_type(comparison.ok, bool)


def without_pandas(requests: list[BatchRequest]) -> None:
    with BatchClient("claude-haiku-4-5", system="Answer briefly.") as client:
        job = client.submit(requests)
        assert_type(job, BatchJob)
        assert_type(job.is_complete, bool)
        assert_type(job.expires_at, datetime | None)
        assert_type(client.status(job.batch_id), BatchJob)
        assert_type(client.results(job.batch_id), list[BatchResult])
        assert_type(client.iter_results(job.batch_id), Iterator[BatchResult])
        assert_type(client.wait(job.batch_id, poll_interval=30.0), list[BatchResult])
        assert_type(client.run(requests, timeout=60), list[BatchResult])
        assert_type(client.cancel(job.batch_id), bool)
        assert_type(client.list(limit=5), list[BatchJob])
    result = run_prompts(["2+2?"], max_tokens=16)[0]
    assert_type(result.output, str)
    assert_type(result.error, str | None)
    assert_type(result.cost_usd, float | None)
    assert_type(result.ok, bool)


async def without_pandas_in_a_loop(requests: list[BatchRequest]) -> None:
    async with AsyncBatchClient() as client:
        job = await client.submit(requests)
        assert_type(job, BatchJob)
        assert_type(client.iter_results(job.batch_id), AsyncIterator[BatchResult])
        assert_type(await client.run(requests), list[BatchResult])
    assert_type(await arun_prompts(["2+2?"]), list[BatchResult])


def offline() -> None:
    with simulator.serve(answer=lambda params: "positive", seconds_per_batch=0) as api:
        api.faults.add(simulator.RowFault("errored", share=0.1))
        assert_type(api.base_url, str)
