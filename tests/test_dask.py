"""Frames on a cluster: what is paid is paid once, whatever Dask computes, forgets and computes again."""

from __future__ import annotations

import logging
import os
import signal
import uuid
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pandas_batch import simulator
from pandas_batch.errors import BudgetError, InputError

WITHOUT = "the extra [dask] is not installed"
dask = pytest.importorskip("dask", reason=WITHOUT)
dd = pytest.importorskip("dask.dataframe", reason=WITHOUT)
distributed = pytest.importorskip("distributed", reason=WITHOUT)

import_module("pandas_batch.dask")  # it registers `ddf.claude_batch`, and can be imported where dask is

N_ROWS = 60


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers that are processes of their own."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    patience = {f"distributed.comm.timeouts.{kind}": "120s" for kind in ("connect", "tcp")}  # of a busy machine
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    options["silence_logs"] = logging.CRITICAL
    with (
        dask.config.set(patience),
        distributed.LocalCluster(**options) as running,
        running.get_client() as client,
    ):
        yield client


@pytest.fixture
def here(tmp_path: Path) -> Iterator[tuple[simulator.Simulator, dict[str, Any]]]:
    """A server whose batches end at once, and the options that lead to it."""
    with simulator.serve(seconds_per_batch=0) as api, api.client() as client:
        options = {"client": client, "store": str(tmp_path / "store"), "progress": "off", "poll_interval": 0.05}
        yield api, options


def rows(n: int = N_ROWS) -> pd.DataFrame:
    return pd.DataFrame({"prompt": [f"prompt {i}" for i in range(n)], "n": range(n)})


def paid(api: simulator.Simulator) -> int:
    return sum(batch.n_requests for batch in api.batches)


def test_what_dask_computes_again_is_not_paid_again(cluster: Any, here: tuple[simulator.Simulator, Any]) -> None:
    """Computing twice, ``head``, ``len``, ``set_index``, sums and a submit made again leave the bill as it was."""
    api, options = here
    ddf = dd.from_pandas(rows(), npartitions=4)
    out = ddf.claude_batch.submit("prompt", **options)
    assert paid(api) == N_ROWS
    first, second = out.compute(), out.compute()
    pd.testing.assert_frame_equal(first, second)
    assert first["output"].tolist() == first["prompt"].tolist()
    assert first.index.tolist() == list(range(N_ROWS))
    assert (first.dtypes == out.dtypes).all()
    assert out.divisions == ddf.divisions
    assert out.head(3)["output"].tolist() == ["prompt 0", "prompt 1", "prompt 2"]
    assert len(out) == N_ROWS
    assert out.set_index("n", sorted=True).loc[5:6].compute()["output"].tolist() == ["prompt 5", "prompt 6"]
    assert out.set_index("prompt").compute()["output"].tolist() == sorted(first["prompt"])
    tokens, costs = dask.compute(out["tokens"].sum(), out["cost_usd"].sum())
    assert (tokens, costs) == (first["tokens"].sum(), pytest.approx(first["cost_usd"].sum()))
    assert out["output"].compute().tolist() == first["prompt"].tolist()
    again = ddf.claude_batch.submit("prompt", **options)
    pd.testing.assert_frame_equal(again.compute(), first)
    assert (paid(api), api.calls("create")) == (N_ROWS, 1)


def test_a_worker_that_dies_costs_nothing(cluster: Any, here: tuple[simulator.Simulator, Any]) -> None:
    """Partitions that were kept in the memory of a killed worker are read again from the store."""
    api, options = here
    out = dd.from_pandas(rows(), npartitions=4).claude_batch.submit("prompt", **options).persist()
    distributed.wait(out)
    pid = next(iter(cluster.run(os.getpid).values()))
    os.kill(pid, signal.SIGKILL)
    assert out.compute()["output"].tolist() == rows()["prompt"].tolist()
    assert (paid(api), api.calls("create")) == (N_ROWS, 1)
    cluster.wait_for_workers(2)


def test_partitions_without_known_borders(cluster: Any, here: tuple[simulator.Simulator, Any]) -> None:
    """Unknown divisions, the same label in several partitions, an empty partition: each row has its own answer."""
    api, options = here
    frame = rows(12)
    ddf = dd.concat([dd.from_pandas(part, npartitions=1) for part in (frame[:5], frame[:0], frame[5:].reset_index())])
    ddf = ddf[["prompt"]].clear_divisions()
    out = ddf.claude_batch.submit("prompt", **options).compute()
    assert out["output"].tolist() == frame["prompt"].tolist()
    assert out.index.tolist() == [*range(5), *range(7)]
    assert paid(api) == 12


def test_equal_rows_of_different_partitions_are_asked_once(cluster: Any, here: tuple[simulator.Simulator, Any]) -> None:
    """
    Rows that say the same share one request, also over the borders of partitions, and one of them bears its cost.

    Blank rows are not sent.
    """
    api, options = here
    frame = pd.DataFrame({"prompt": ["a", "b", None, "a", " ", "b", "a", "c"]})
    ddf = dd.from_pandas(frame, npartitions=4)
    out = ddf.claude_batch.submit("prompt", **options).compute()
    plain = frame.claude_batch.submit("prompt", **options)
    pd.testing.assert_frame_equal(out.drop(columns="prompt"), plain.drop(columns="prompt"))
    assert out["cost_usd"].sum() == pytest.approx(float(api.billed_usd), abs=1e-12)
    again = ddf.claude_batch.merge(ddf.claude_batch.start("prompt", **options)).compute()
    pd.testing.assert_frame_equal(again, out)
    assert out["status"].tolist() == [*["succeeded"] * 2, "skipped", "succeeded", "skipped", *["succeeded"] * 3]
    assert paid(api) == 3


def test_every_outcome_stands_in_its_row(cluster: Any, here: tuple[simulator.Simulator, Any]) -> None:
    """Rows that failed say so, and so does their error, as on a plain frame."""
    api, options = here
    for outcome in ("errored", "expired", "canceled"):
        api.faults.add(simulator.RowFault(outcome, marker=f"be {outcome}"))
    outcomes = ("fine", "errored", "expired", "canceled")
    frame = pd.DataFrame({"prompt": [f"be {outcome} {i}" for i in range(4) for outcome in outcomes]})
    out = dd.from_pandas(frame, npartitions=3).claude_batch.submit("prompt", **options).compute()
    plain = frame.claude_batch.submit("prompt", **options)
    pd.testing.assert_frame_equal(out.drop(columns="prompt"), plain.drop(columns="prompt"))
    assert out["status"].value_counts().to_dict() == dict.fromkeys(("succeeded", "errored", "expired", "canceled"), 4)
    assert paid(api) == 16


def test_a_schema_makes_typed_columns(cluster: Any, here: tuple[simulator.Simulator, Any]) -> None:
    """The fields of a schema are columns of the lazy frame, of the types that come out."""
    _, options = here
    schema = {"label": str, "score": float}
    out = dd.from_pandas(rows(6), npartitions=2).claude_batch.submit("prompt", output_schema=schema, **options)
    done = out.compute()
    assert {"label", "score"} <= set(out.columns)
    assert (done.dtypes == out.dtypes).all()
    assert done["score"].notna().all()


def test_a_bare_column_of_prompts(cluster: Any, here: tuple[simulator.Simulator, Any]) -> None:
    """A Dask Series has the accessor too, and becomes a frame."""
    api, options = here
    out = dd.from_pandas(rows(6)["prompt"], npartitions=2).claude_batch.submit(**options).compute()
    assert out["output"].tolist() == out["prompt"].tolist() == rows(6)["prompt"].tolist()
    assert paid(api) == 6


def test_a_budget_is_one_for_all_partitions(cluster: Any, here: tuple[simulator.Simulator, Any]) -> None:
    """What each partition may cost is added up before anything is sent."""
    api, options = here
    ddf = dd.from_pandas(rows(), npartitions=4)
    of_all = ddf.claude_batch.estimate("prompt", **options).cost_usd_max
    assert of_all > 4 * ddf.partitions[0].claude_batch.estimate("prompt", **options).cost_usd_max * 0.9
    with pytest.raises(BudgetError):
        ddf.claude_batch.submit("prompt", max_cost_usd=of_all * 0.9, **options)
    assert api.calls("create") == 0


def test_a_partition_that_comes_out_differently_is_refused(cluster: Any, here: tuple[simulator.Simulator, Any]) -> None:
    """Rows that are not the same when they are computed a second time are not sent."""
    api, options = here

    def anything(number: int) -> pd.DataFrame:
        return pd.DataFrame({"prompt": [f"{number} {uuid.uuid4()}"]})

    ddf = dd.from_map(anything, range(2), meta=pd.DataFrame({"prompt": pd.Series([], dtype="str")}))
    with pytest.raises(InputError, match="differently"):
        ddf.claude_batch.submit("prompt", **options)
    assert api.calls("create") == 0


@pytest.mark.parametrize("wrong", [{"system": pd.Series(["a"])}, {"dedupe": False}])
def test_options_without_a_place_in_partitions_are_refused(
    wrong: dict[str, Any], here: tuple[simulator.Simulator, Any]
) -> None:
    """A Series has no place in partitions that are elsewhere, nor has the order of equal rows."""
    api, options = here
    with pytest.raises(InputError):
        dd.from_pandas(rows(4), npartitions=2).claude_batch.submit("prompt", **wrong, **options)
    assert api.requests == []


def test_the_accessor_is_there_where_dask_is() -> None:
    """Whoever has imported dask.dataframe needs no second import."""
    import subprocess
    import sys

    code = "import dask.dataframe as dd, pandas_batch; print(hasattr(dd.DataFrame, 'claude_batch'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_labels_are_a_category_of_the_lazy_frame_too(cluster: Any, here: tuple[simulator.Simulator, Any]) -> None:
    """The lazy frame knows the categories, and what was asked for by name has its dtype."""
    api, options = here
    api.answer = lambda params: {"label": "no"}
    names = ["output", "content", "thinking"]
    out = dd.from_pandas(rows(4), npartitions=2).claude_batch.submit(
        "prompt", output_schema=["yes", "no"], columns=names, **options
    )
    done = out.compute()
    assert done["label"].dtype == out.dtypes["label"] == pd.CategoricalDtype(["yes", "no"])
    assert (done["label"] == "no").all()
    assert (done.dtypes == out.dtypes).all()
    assert done["content"].str[0].str["type"].tolist() == ["text"] * 4
