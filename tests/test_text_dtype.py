"""Texts have the dtype that pandas gives them by itself, in which a missing one is equal to nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes

import pandas_batch
from pandas_batch import simulator
from pandas_batch.clock import Clock
from pandas_batch.requests.text_dtype import text_array, text_dtype


def test_it_is_the_dtype_of_pandas_itself() -> None:
    """From pandas 3 on a column of texts that pandas made has the very same dtype."""
    if int(pd.__version__.split(".")[0]) < 3:
        pytest.skip("pandas 2 makes objects of texts")
    assert pd.Series(["a", None]).dtype == text_dtype()
    assert pd.Series(["a"]).dtype.storage == text_dtype().storage == "pyarrow"


def test_a_missing_text_is_equal_to_nothing() -> None:
    """A comparison is a plain bool array: False where a text is missing, unequal to everything."""
    texts = pd.Series(text_array(pa.array(["yes", None, "no"], pa.large_string())))
    assert (texts == "yes").dtype == (texts != "yes").dtype == bool
    assert (texts == "yes").tolist() == [True, False, False]
    assert (texts != "yes").tolist() == [False, True, True]
    assert np.where(texts == "yes", 1, 0).sum() == texts.eq("yes").astype(int).sum() == 1
    assert text_array(pa.chunked_array([], pa.large_string())).dtype == text_dtype()


@cut_on_purpose
def test_a_share_counts_the_rows_without_an_answer(api: simulator.Simulator, clock: Clock) -> None:
    """Whatever became of rows, the share that is right is one of all rows, in every column of texts."""
    plan_outcomes(api)
    out = ask(all_outcomes(), api, clock, columns="all").result()
    texts = [name for name in out.columns if name not in ("n", "prompt") and out[name].dtype == text_dtype()]
    assert {"output", "status", "stop_reason", "error", "model", "custom_id", "batch_id", "message_id"} == set(texts)
    for name in texts:
        wanted = next(text for text in out[name] if isinstance(text, str))
        n_equal = sum(text == wanted for text in out[name].tolist() if isinstance(text, str))
        assert (out[name] == wanted).mean() == n_equal / len(out)
    assert out["cost_usd"].dtype == np.float64


def test_the_metric_of_the_readme_counts_missing_answers_as_wrong(api: simulator.Simulator, clock: Clock) -> None:
    """A gate with a metric over texts closes where rows have no answer at all."""
    frame = pd.DataFrame({"prompt": [f"row {i}" for i in range(10)]})
    good = ask(frame, api, clock)
    good.result()
    api.faults.add(simulator.RowFault("errored", marker="row 1"))
    bad = ask(frame, api, clock, system="Again.")
    bad.result()
    compared = pandas_batch.compare_runs(
        good, bad, metric=lambda frame: frame["stop_reason"].eq("end_turn").mean(), max_more_failures=10
    )
    assert (compared.a.metric, compared.b.metric) == (1.0, 0.9)
    with pytest.raises(pandas_batch.WorseRunError, match=r"the metric fell from 1 to 0\.9"):
        compared.raise_if_worse()
